//! Which nats-server is new enough.

use semver::Version;

use crate::{Error, Result};

/// The oldest version of nats-server that is accepted: older ones lack `sync_interval: always` and have known holes.
pub const OLDEST_SERVER: &str = "2.11.0";

/// Refuses a server that is older than [`OLDEST_SERVER`] or does not say what it is.
pub fn check_version(found: &str) -> Result<()> {
    let too_old = || Error::Version { found: found.to_owned(), oldest: OLDEST_SERVER };
    let parse = |text: &str| Version::parse(text.trim().trim_start_matches('v'));
    let version = parse(found).map_err(|_| too_old())?;
    let oldest = parse(OLDEST_SERVER).map_err(|_| too_old())?;
    // The number alone counts: a preview of 2.12 knows what 2.11 knows.
    let numbers = |version: &Version| (version.major, version.minor, version.patch);
    if numbers(&version) < numbers(&oldest) { Err(too_old()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_nameless_servers_are_refused() {
        for good in ["2.11.0", "v2.15.1", "2.12.0-RC.1", "3.0.0"] {
            assert!(check_version(good).is_ok(), "{good}");
        }
        for bad in ["2.10.29", "2.9.25", "", "latest", "2.11"] {
            assert!(check_version(bad).is_err(), "{bad}");
        }
        assert_eq!(
            check_version("2.10.1").unwrap_err().to_string(),
            "nats-server 2.10.1 is too old; 2.11.0 or newer is needed"
        );
    }
}
