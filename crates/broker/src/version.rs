//! Which nats-server is new enough.

use semver::Version;

use crate::{Error, Result};

/// The oldest version of nats-server that is accepted: those before 2.11 lack `sync_interval: always`, and those before this
/// one let a client have the trace of a message (`Nats-Trace-Dest`) sent to anybody's pipe.
pub const OLDEST_SERVER: &str = "2.11.15";
/// The first version of 2.12 without that hole.
const OLDEST_OF_2_12: (u64, u64, u64) = (2, 12, 6);

/// Refuses a server that is older than [`OLDEST_SERVER`], one of 2.12 before 2.12.6, and one that does not say what it is.
pub fn check_version(found: &str) -> Result<()> {
    let too_old = |oldest| Error::Version { found: found.to_owned(), oldest };
    // The numbers alone count.
    let numbers = |text: &str| {
        let version = Version::parse(text.trim().trim_start_matches('v')).ok()?;
        Some((version.major, version.minor, version.patch))
    };
    match numbers(found) {
        Some(version @ (2, 12, _)) if version < OLDEST_OF_2_12 => Err(too_old("2.12.6")),
        Some(version) if Some(version) >= numbers(OLDEST_SERVER) => Ok(()),
        _ => Err(too_old(OLDEST_SERVER)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_nameless_servers_are_refused() {
        for good in ["2.11.15", "v2.15.1", "2.12.6", "2.14.0-RC.1", "3.0.0"] {
            assert!(check_version(good).is_ok(), "{good}");
        }
        for bad in ["2.10.29", "2.9.25", "", "latest", "2.11", "2.11.14", "2.12.5"] {
            assert!(check_version(bad).is_err(), "{bad}");
        }
        assert_eq!(
            check_version("2.10.1").unwrap_err().to_string(),
            "nats-server 2.10.1 is too old; 2.11.15 or newer is needed"
        );
    }
}
