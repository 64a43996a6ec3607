//! Reading single words: variables, agents, detach keys.

use std::{env, fmt, str::FromStr};

use tidegate_model::AgentHandle;

/// Reads the name of an agent.
pub(crate) fn agent(text: &str) -> Result<AgentHandle, String> {
    text.parse().map_err(|error| format!("an agent's name {error}"))
}

/// Reads `NAME=value`; `NAME` alone takes the value that this process has.
pub(crate) fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, value.to_owned()),
        None => (text, own_variable(text)?),
    };
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if name.is_empty() || !plain || name.as_bytes()[0].is_ascii_digit() {
        return Err("a variable is NAME=value, NAME out of A-Z, a-z, 0-9 and _".to_owned());
    }
    Ok((name.to_owned(), value))
}

fn own_variable(name: &str) -> Result<String, String> {
    env::var_os(name)
        .ok_or_else(|| format!("write {name}=value: there is no variable {name} here to take it from"))?
        .into_string()
        .map_err(|_| format!("the value of {name} is not UTF-8"))
}

/// The keys that leave a session, as bytes; none where leaving is switched off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys(Vec<u8>);

impl DetachKeys {
    /// The bytes to wait for; empty means never.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for DetachKeys {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" {
            return Ok(Self(Vec::new()));
        }
        text.split(',').map(key).collect::<Result<_, _>>().map(Self)
    }
}

fn key(text: &str) -> Result<u8, String> {
    let wrong = || format!("`{text}` is no key: write ctrl-] or ctrl-p,ctrl-q or none");
    match text.to_ascii_lowercase().strip_prefix("ctrl-").map(str::as_bytes) {
        Some([letter @ (b'a'..=b'z' | b'[' | b'\\' | b']' | b'^' | b'_' | b'@')]) => Ok(letter & 0x1f),
        Some(_) => Err(wrong()),
        None => match text.as_bytes() {
            [plain] if plain.is_ascii_graphic() => Ok(*plain),
            _ => Err(wrong()),
        },
    }
}

impl fmt::Display for DetachKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, &byte) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "," })?;
            match byte {
                1..=26 => write!(f, "ctrl-{}", char::from(byte | 0x60))?,
                0..=31 => write!(f, "ctrl-{}", char::from(byte | 0x40))?,
                _ => write!(f, "{}", char::from(byte))?,
            }
        }
        Ok(())
    }
}

/// Two ports, or one for both.
pub(crate) fn ports(text: &str) -> Result<(u16, u16), String> {
    let (local, remote) = text.split_once(':').unwrap_or((text, text));
    let read = |part: &str| part.parse::<u16>().map_err(|_| format!("`{part}` is no port: write 8080:80"));
    match (read(local)?, read(remote)?) {
        (_, 0) => Err("the session's port must be 1 to 65535".to_owned()),
        ports => Ok(ports),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_a_name_and_a_value() {
        assert_eq!(variable("A_1=x=y").unwrap(), ("A_1".to_owned(), "x=y".to_owned()));
        assert_eq!(variable("EMPTY=").unwrap().1, "");
        for bad in ["=x", "1A=x", "A-B=x", "", "NO_SUCH_VARIABLE_HERE"] {
            assert!(variable(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn detach_keys_are_read_and_written_alike() {
        for (text, bytes) in [
            ("ctrl-]", &[0x1d][..]),
            ("ctrl-p,ctrl-q", &[0x10, 0x11]),
            ("ctrl-@,x", &[0, b'x']),
            ("none", &[]),
        ] {
            let keys: DetachKeys = text.parse().unwrap();
            assert_eq!((keys.bytes(), keys.to_string().as_str()), (bytes, text));
        }
        assert_eq!("CTRL-P".parse::<DetachKeys>().unwrap().bytes(), [0x10]);
        for bad in ["", "ctrl-", "ctrl-1", "alt-x", "ctrl-],", "ü"] {
            assert!(bad.parse::<DetachKeys>().is_err(), "{bad}");
        }
    }
}
