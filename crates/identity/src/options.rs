//! The settings of sign-in, and what is wrong with them.

use std::{fs, path::PathBuf};

use serde::Deserialize;
use tidegate_model::Secret;
use url::{Host, Url};

/// Longest secret that is read from a file.
const LONGEST_SECRET: usize = 4_096;

/// Who may vouch for people.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// GitHub, or a GitHub Enterprise Server.
    pub github: Option<GithubOptions>,
    /// OpenID Connect providers, in the order of the login page.
    pub oidc: Vec<OidcOptions>,
}

/// GitHub.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GithubOptions {
    /// The OAuth app's id.
    pub client_id: String,
    /// Its secret; or `client_secret_file`.
    pub client_secret: Option<Secret<String>>,
    /// A file with its secret.
    pub client_secret_file: Option<PathBuf>,
    /// Whether somebody unknown becomes a user. It has no default: anybody can have an account at GitHub.
    pub allow_signup: bool,
    /// A GitHub Enterprise Server. Default `https://github.com`.
    #[serde(default = "GithubOptions::public")]
    pub base_url: String,
}

impl GithubOptions {
    fn public() -> String {
        "https://github.com".to_owned()
    }
}

/// An OpenID Connect provider.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcOptions {
    /// Its name in addresses: 1–32 of `a-z 0-9 -`.
    pub name: String,
    /// Its name for people. Default: `name`.
    pub display_name: Option<String>,
    /// Its address, exactly as it calls itself.
    pub issuer: String,
    /// What it knows us by.
    pub client_id: String,
    /// What it trusts us by; or `client_secret_file`.
    pub client_secret: Option<Secret<String>>,
    /// A file with the secret.
    pub client_secret_file: Option<PathBuf>,
    /// What is asked for. Default `openid email profile`; `openid` is always among them.
    #[serde(default = "OidcOptions::scopes")]
    pub scopes: Vec<String>,
    /// Whether somebody unknown becomes a user. It has no default: some providers know the whole world.
    pub allow_signup: bool,
    /// Domains of the verified e-mail address, each exactly: `example.org` is not `mail.example.org`. Empty for any.
    #[serde(default)]
    pub allowed_domains: Vec<String>,
}

impl OidcOptions {
    fn scopes() -> Vec<String> {
        ["openid", "email", "profile"].map(str::to_owned).to_vec()
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let name = &self.name;
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !(1..=32).contains(&name.len()) || !name.bytes().all(plain) {
            return Err(format!("`auth.oidc.name` is `{name}`, it must have 1 to 32 of a-z, 0-9 and -"));
        }
        if self.client_id.is_empty() {
            return Err(format!("`client_id` of the provider `{name}` is empty"));
        }
        for domain in &self.allowed_domains {
            if domain.is_empty() || domain.contains(['@', '*', ' ']) {
                return Err(format!(
                    "`allowed_domains` of the provider `{name}` holds `{domain}`, which is no domain such as example.org"
                ));
            }
        }
        address(&self.issuer).map(drop).map_err(|why| format!("`issuer` of the provider `{name}` {why}"))
    }
}

/// The secret that stands in the settings or in a file; one of them must be there, and not both.
pub(crate) fn secret(
    of: &str,
    given: Option<&Secret<String>>,
    file: Option<&PathBuf>,
) -> Result<Secret<String>, String> {
    let secret = match (given, file) {
        (Some(given), None) => given.expose().clone(),
        (None, Some(file)) => {
            let text = fs::read_to_string(file).map_err(|error| {
                format!("`client_secret_file` of {of} cannot be read, {}: {error}", file.display())
            })?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        (None, None) => {
            return Err(format!("{of} has no secret: set `client_secret` or `client_secret_file`"));
        }
        (Some(_), Some(_)) => {
            return Err(format!(
                "{of} has two secrets: set `client_secret` or `client_secret_file`, not both"
            ));
        }
    };
    if secret.is_empty() || secret.len() > LONGEST_SECRET {
        return Err(format!("the secret of {of} must have 1 to {LONGEST_SECRET} bytes"));
    }
    Ok(Secret::new(secret))
}

/// An address that nobody on the way can read along: https, or this very machine.
pub(crate) fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| format!("is `{text}`, it must be an https address"))?;
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    match url.scheme() {
        "https" if bare && url.host().is_some() => Ok(url),
        "http" if bare && loopback => Ok(url),
        _ => {
            Err(format!("is `{text}`, it must be an https address, with no name, password or fragment in it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_nobody_reads_along_is_taken() {
        for good in
            ["https://id.example", "https://id.example/realms/a", "http://127.0.0.1:1", "http://[::1]:8"]
        {
            address(good).unwrap();
        }
        for bad in [
            "http://id.example",
            "http://127.0.0.1.evil.example",
            "https://me@id.example",
            "https://id.example/#a",
            "ftp://id.example",
            "id.example",
            "",
        ] {
            address(bad).unwrap_err();
        }
    }

    #[test]
    fn one_secret_is_needed_and_no_more() {
        let (given, file) = (Secret::new("a".to_owned()), PathBuf::from("/nowhere/at/all"));
        assert!(secret("x", None, None).unwrap_err().contains("no secret"));
        assert!(secret("x", Some(&given), Some(&file)).unwrap_err().contains("two secrets"));
        assert!(secret("x", None, Some(&file)).unwrap_err().contains("/nowhere/at/all"));
        assert_eq!(secret("x", Some(&given), None).unwrap().expose(), "a");
    }
}
