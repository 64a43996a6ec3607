//! The server's configuration: written anew at each start, so that it is always this version's.
//! Never a secret: whom the server trusts is public.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::layout::Layout;
use super::{Durability, Options, Trust};
use crate::identity::Identity;
use crate::{Error, Result, secrets};

/// The longest line of the protocol in bytes: a user's token of 24 KiB travels in one, and 32 KiB is the least that is
/// promised.
pub const MAX_CONTROL_LINE: u32 = 64 * 1024;
/// The greatest message in bytes for the system account, which receives accounts with all their revocations. Organizations
/// have smaller limits of their own.
pub const MAX_PAYLOAD: u32 = 1024 * 1024;

/// The part of a configuration that every server has, ours and those that others run: whom it trusts, what it accepts, and
/// where it stores.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// Whom it trusts.
    pub trust: Trust,
    /// The folder of accounts and streams on the server's machine.
    pub folder: PathBuf,
    /// Whether messages are durable.
    pub durability: Durability,
    /// The bytes that its streams may promise to hold, together.
    pub max_promised_bytes: u64,
}

impl Foreign {
    /// The lines to include in the configuration of a server. Its name, where it listens, TLS and its cluster are its own.
    pub fn text(&self) -> Result<String> {
        let (accounts, streams) = (self.folder.join("accounts"), self.folder.join("streams"));
        let promised = self.max_promised_bytes;
        text(&common(&self.trust, &accounts, &streams, self.durability, promised)?)
    }
}

/// Writes the configuration for the server's user alone.
pub(super) fn write(layout: &Layout, identity: &Identity, options: &Options, port: u16) -> Result<()> {
    let mut lines = vec![
        format!("listen: \"127.0.0.1:{port}\""),
        format!("pid_file: {}", quoted_path(&layout.pid)?),
        format!("max_connections: {}", options.max_connections),
        "write_deadline: \"10s\"".to_owned(),
    ];
    let (durability, promised) = (options.durability, options.max_promised_bytes);
    lines.extend(common(&options.trust, &layout.accounts, &layout.streams, durability, promised)?);
    secrets::replace(&layout.config, text(&lines)?.as_bytes())?;
    identity.give(&layout.config)
}

fn common(
    trust: &Trust,
    accounts: &Path,
    streams: &Path,
    durability: Durability,
    promised: u64,
) -> Result<Vec<String>> {
    let sync = match durability {
        Durability::Full => "always",
        Durability::Relaxed => "2m",
    };
    Ok(vec![
        format!("max_control_line: {MAX_CONTROL_LINE}"),
        format!("max_payload: {MAX_PAYLOAD}"),
        format!("operator: {}", quoted(&trust.operator)?),
        format!("system_account: {}", quoted(&trust.system_account)?),
        format!("resolver_preload: {{ {}: {} }}", trust.system_account, quoted(&trust.system_token)?),
        format!(
            "resolver: {{ type: full, dir: {}, allow_delete: true, interval: \"2m\" }}",
            quoted_path(accounts)?
        ),
        format!(
            "jetstream: {{ store_dir: {}, sync_interval: {sync}, max_memory_store: 0, max_file_store: {promised} }}",
            quoted_path(streams)?
        ),
    ])
}

fn text(lines: &[String]) -> Result<String> {
    let mut text = String::new();
    for line in lines {
        writeln!(text, "{line}")
            .map_err(|_| Error::Setting("the configuration cannot be written".to_owned()))?;
    }
    Ok(text)
}

fn quoted_path(path: &Path) -> Result<String> {
    quoted(&path.to_string_lossy())
}

/// A text in quotes. Nothing that is written here holds a quote or a line break, unless somebody means to add settings.
fn quoted(text: &str) -> Result<String> {
    if text.contains(['"', '\\']) || text.chars().any(char::is_control) {
        return Err(Error::Setting(format!("{text:?} cannot stand in the configuration of nats-server")));
    }
    Ok(format!("\"{text}\""))
}
