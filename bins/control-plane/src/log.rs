//! Where the log goes and what it looks like. One line an event, ids in fields, never a secret.

use tracing_subscriber::EnvFilter;

use crate::{Error, LogConfig, LogFormat};

/// Sets the log up, once a process. It goes to standard error.
pub fn init(config: &LogConfig) -> Result<(), Error> {
    let filter = EnvFilter::try_new(&config.filter)
        .map_err(|error| Error::Setting(format!("`log.filter` cannot be read: {error}")))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match config.format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    set.map_err(|error| Error::Setting(format!("the log is set up already: {error}")))
}
