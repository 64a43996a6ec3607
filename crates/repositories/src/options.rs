//! What may be fetched, and how much of it at most.

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de::Error as _};

/// Settings of fetching repositories, with their defaults.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Folders of this machine that git repositories may be read from, by path. Default: none.
    #[serde(deserialize_with = "folders")]
    pub local_folders: Vec<PathBuf>,
    /// Private, loopback and link-local networks that may be dialled, for example `10.1.0.0/16`, and with `http:`, too.
    /// Default: none.
    #[serde(deserialize_with = "networks")]
    pub private_networks: Vec<IpNet>,
    /// Seconds that one fetch may take. Default 300.
    pub fetch_seconds: u32,
    /// MiB that are fetched of one repository at most. Default 256.
    pub max_mebibytes: u32,
    /// Files of one repository at most. Default 50 000.
    pub max_files: u32,
    /// Folders inside each other at most; what lies deeper is left out. Default 16.
    pub max_depth: u32,
    /// The `git` program. Default: the one in `/usr/local/bin`, `/usr/bin` or `/bin`.
    pub git: Option<PathBuf>,
    /// The `ssh` program. Default: the one in the same folders.
    pub ssh: Option<PathBuf>,
    /// Host keys of ssh servers, as `ssh` keeps them: others are refused. Default: a server's first key is remembered,
    /// and another one refused.
    pub known_hosts: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            local_folders: Vec::new(),
            private_networks: Vec::new(),
            fetch_seconds: 300,
            max_mebibytes: 256,
            max_files: 50_000,
            max_depth: 16,
            git: None,
            ssh: None,
            known_hosts: None,
        }
    }
}

impl Options {
    pub(crate) fn time(&self) -> Duration {
        Duration::from_secs(u64::from(self.fetch_seconds.max(1)))
    }

    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.max_mebibytes.max(1)) * 1024 * 1024
    }
}

/// A list, or one text with commas, as environment variables give it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Listed {
    Many(Vec<String>),
    One(String),
}

fn listed<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(match Listed::deserialize(from)? {
        Listed::Many(many) => many,
        Listed::One(text) => {
            text.split(',').map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect()
        }
    })
}

fn folders<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PathBuf>, D::Error> {
    let folders: Vec<PathBuf> = listed(from)?.into_iter().map(PathBuf::from).collect();
    match folders.iter().find(|folder| !folder.is_absolute()) {
        Some(folder) => Err(D::Error::custom(format!("`{}` must be an absolute path", folder.display()))),
        None => Ok(folders),
    }
}

/// Networks of a setting: a list or one text with commas, each an address or a range such as `10.0.0.0/8`.
pub fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    let network = |text: String| {
        text.parse().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from)).map_err(|_| {
            D::Error::custom(format!("`{text}` must be an address or a range such as 10.0.0.0/8"))
        })
    };
    listed(from)?.into_iter().map(network).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_from_lists_and_from_texts() {
        let read: Options =
            serde_json::from_str(r#"{"local_folders":["/srv/a"],"private_networks":"10.0.0.0/8, ::1"}"#)
                .unwrap();
        assert_eq!(read.local_folders, [PathBuf::from("/srv/a")]);
        assert_eq!(
            read.private_networks.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.0.0/8", "::1/128"]
        );
        for bad in [r#"{"local_folders":"srv"}"#, r#"{"private_networks":["ten"]}"#, r#"{"no":1}"#] {
            assert!(serde_json::from_str::<Options>(bad).is_err(), "{bad}");
        }
        for bad in ["10.0.0.0/33", "10.0.0/8", "a", "::/129", ""] {
            let text = format!(r#"{{"private_networks":["{bad}"]}}"#);
            assert!(serde_json::from_str::<Options>(&text).is_err(), "{bad}");
        }
    }
}
