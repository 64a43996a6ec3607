//! The server's configuration: written anew at each start, so that it is always this version's.
//! Never a secret: whom the server trusts is public.

use std::fmt::Write as _;
use std::path::Path;

use super::layout::Layout;
use super::{Durability, Options};
use crate::identity::Identity;
use crate::{Error, Result, secrets};

/// The longest line of the protocol: a user's token of 24 KiB travels in one, and 32 KiB is the least that is promised.
const MAX_CONTROL_LINE: u32 = 64 * 1024;
/// The greatest message for the system account, which receives accounts with all their revocations. Organizations have
/// smaller limits of their own.
const MAX_PAYLOAD: u32 = 1024 * 1024;

/// Writes the configuration for the server's user alone.
pub(super) fn write(layout: &Layout, identity: &Identity, options: &Options, port: u16) -> Result<()> {
    secrets::replace(&layout.config, text(layout, options, port)?.as_bytes())?;
    identity.give(&layout.config)
}

fn text(layout: &Layout, options: &Options, port: u16) -> Result<String> {
    let trust = &options.trust;
    let sync = match options.durability {
        Durability::Full => "always",
        Durability::Relaxed => "2m",
    };
    let quoted_path = |path: &Path| quoted(&path.to_string_lossy());
    let (operator, system_account) = (quoted(&trust.operator)?, quoted(&trust.system_account)?);
    let mut text = String::new();
    let lines = [
        format!("listen: \"127.0.0.1:{port}\""),
        format!("pid_file: {}", quoted_path(&layout.pid)?),
        format!("max_connections: {}", options.max_connections),
        format!("max_control_line: {MAX_CONTROL_LINE}"),
        format!("max_payload: {MAX_PAYLOAD}"),
        "write_deadline: \"10s\"".to_owned(),
        format!("operator: {operator}"),
        format!("system_account: {system_account}"),
        format!("resolver_preload: {{ {}: {} }}", trust.system_account, quoted(&trust.system_token)?),
        format!(
            "resolver: {{ type: full, dir: {}, allow_delete: true, interval: \"2m\" }}",
            quoted_path(&layout.accounts)?
        ),
        format!(
            "jetstream: {{ store_dir: {}, sync_interval: {sync}, max_memory_store: 0, max_file_store: {} }}",
            quoted_path(&layout.streams)?,
            options.max_promised_bytes
        ),
    ];
    for line in lines {
        writeln!(text, "{line}")
            .map_err(|_| Error::Setting("the configuration cannot be written".to_owned()))?;
    }
    Ok(text)
}

/// A text in quotes. Nothing that is written here holds a quote or a line break, unless somebody means to add settings.
fn quoted(text: &str) -> Result<String> {
    if text.contains(['"', '\\']) || text.chars().any(char::is_control) {
        return Err(Error::Setting(format!("{text:?} cannot stand in the configuration of nats-server")));
    }
    Ok(format!("\"{text}\""))
}
