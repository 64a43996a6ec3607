//! Makes the cluster, once and whole: beside its place first, then by one rename, so that a kill at any moment leaves
//! either no cluster or a finished one.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::Durability;
use super::SUPERUSER;
use super::binaries::Binaries;
use super::layout::Layout;
use crate::error::Context;
use crate::identity::Identity;
use crate::secrets::{self, Password};
use crate::{Result, programs};

/// Prefix of the folders in which a cluster is made.
const DRAFT: &str = "postgres.draft-";

/// Makes the cluster of `layout`. The caller holds the owner's lock.
pub(super) async fn make_cluster(
    layout: &Layout,
    binaries: &Binaries,
    identity: &Identity,
    durability: Durability,
    password: &Password,
) -> Result<()> {
    // a name of its own: an initdb that outlived its killed owner must not write into ours
    let draft = layout.data_dir.join(format!("{DRAFT}{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&draft).context("create the folder", &draft)?;
    let password_file = draft.join("password");
    write_password(&password_file, password)?;
    identity.give(&password_file)?;
    // last: from here on the database user could put links where we write
    identity.give(&draft)?;

    let made = draft.join("cluster");
    let mut command = identity.command(&binaries.program("initdb"));
    command.arg("--pgdata").arg(&made).arg("--pwfile").arg(&password_file);
    command.args(["--username", SUPERUSER, "--auth=scram-sha-256", "--encoding=UTF8", "--data-checksums"]);
    command.args(locale(binaries.major));
    if durability == Durability::OffForTests {
        command.arg("--no-sync");
    }
    programs::run("initdb", command, "").await?;

    fs::rename(&made, &layout.cluster).context("move the new cluster to", &layout.cluster)?;
    secrets::sync_folder(&layout.data_dir)?;
    fs::remove_dir_all(&draft).context("remove", &draft)
}

/// Sorting by code point: the same on every machine, and no index breaks when the C library is upgraded.
fn locale(major: u32) -> &'static [&'static str] {
    if major >= 17 {
        &["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    } else {
        &["--locale=C.UTF-8"]
    }
}

fn write_password(path: &Path, password: &Password) -> Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(password.expose().as_bytes()));
    written.context("write", path)
}

/// Removes what a start that was killed on the way left beside the cluster.
pub(super) fn remove_drafts(data_dir: &Path) -> Result<()> {
    for entry in fs::read_dir(data_dir).context("list", data_dir)? {
        let path = entry.context("list", data_dir)?.path();
        let is_draft =
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(DRAFT));
        if is_draft && let Err(error) = fs::remove_dir_all(&path) {
            // perhaps its initdb still writes there; it only costs space, and the next start tries again
            tracing::warn!(path = %path.display(), %error, "could not remove a half-made cluster");
        }
    }
    Ok(())
}
