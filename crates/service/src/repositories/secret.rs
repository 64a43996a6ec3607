//! What remotes want to see and webhooks are signed with: sealed for their repository, opened for one sync.

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};
use tidegate_model::{FieldErrors, RepositoryAuth, RepositoryId, RepositorySecret, Secret};
use tidegate_repositories::{Credential, Remote};

use crate::{Error, Result, Vault};

/// What is sealed.
#[derive(Serialize, Deserialize)]
struct Kept {
    username: Option<String>,
    password: Option<String>,
    token: Option<String>,
    private_key: Option<String>,
    known_hosts: Option<String>,
}

/// Complains about what is missing for a way of asking, and about what belongs to another one.
pub(super) fn check(errors: &mut FieldErrors, auth: RepositoryAuth, given: &RepositorySecret, needed: bool) {
    let fields = [
        ("username", given.username.is_some()),
        ("password", given.password.is_some()),
        ("token", given.token.is_some()),
        ("privateKey", given.private_key.is_some()),
        ("knownHosts", given.known_hosts.is_some()),
    ];
    let (required, allowed): (&[&str], &[&str]) = match auth {
        RepositoryAuth::None => (&[], &[]),
        RepositoryAuth::Token => (&["token"], &["token", "username"]),
        RepositoryAuth::Basic => (&["username", "password"], &["username", "password"]),
        RepositoryAuth::Ssh => (&["privateKey"], &["privateKey", "knownHosts"]),
    };
    for (name, is_given) in fields {
        if is_given && !allowed.contains(&name) {
            errors.add(name, format!("does not belong to authType {auth}"));
        }
        if needed && !is_given && required.contains(&name) {
            errors.add(name, format!("is required for authType {auth}"));
        }
    }
}

fn place(id: RepositoryId) -> Vec<u8> {
    format!("repository-secret:{id}").into_bytes()
}

fn webhook_place(id: RepositoryId) -> Vec<u8> {
    format!("repository-webhook:{id}").into_bytes()
}

/// Seals what was given; nothing where nothing was.
pub(super) fn seal(vault: &Vault, id: RepositoryId, given: &RepositorySecret) -> Result<Option<Vec<u8>>> {
    if given.is_empty() {
        return Ok(None);
    }
    let plain = |secret: &Option<Secret<String>>| secret.as_ref().map(|it| it.expose().clone());
    let kept = Kept {
        username: given.username.clone(),
        password: plain(&given.password),
        token: plain(&given.token),
        private_key: plain(&given.private_key),
        known_hosts: given.known_hosts.clone(),
    };
    let text = serde_json::to_vec(&kept).map_err(Error::internal)?;
    vault.seal(&place(id), &text).map(Some)
}

pub(super) fn seal_webhook(vault: &Vault, id: RepositoryId, secret: &Secret<String>) -> Result<Vec<u8>> {
    vault.seal(&webhook_place(id), secret.expose().as_bytes())
}

/// What a remote is asked with.
pub(super) fn open(
    vault: &Vault,
    id: RepositoryId,
    auth: RepositoryAuth,
    sealed: Option<&[u8]>,
) -> Result<Credential> {
    let lacking = || Error::internal("a repository has another secret than its way of asking");
    let Some(sealed) = sealed else {
        return if auth == RepositoryAuth::None { Ok(Credential::None) } else { Err(lacking()) };
    };
    let kept: Kept = serde_json::from_slice(&vault.open(&place(id), sealed)?).map_err(Error::internal)?;
    match auth {
        RepositoryAuth::None => Ok(Credential::None),
        RepositoryAuth::Token => {
            let token = kept.token.map(Secret::new).ok_or_else(lacking)?;
            Ok(Credential::Token { username: kept.username, token })
        }
        RepositoryAuth::Basic => {
            let username = kept.username.ok_or_else(lacking)?;
            let password = kept.password.map(Secret::new).ok_or_else(lacking)?;
            Ok(Credential::Basic { username, password })
        }
        RepositoryAuth::Ssh => {
            let private_key = kept.private_key.map(Secret::new).ok_or_else(lacking)?;
            Ok(Credential::Ssh { private_key, known_hosts: kept.known_hosts })
        }
    }
}

/// Whether a body was signed with a repository's secret: HMAC-SHA-256 in hexadecimal digits, with or without the
/// `sha256=` that GitHub writes before it. Compared in constant time.
pub(super) fn signature_fits(
    vault: &Vault,
    id: RepositoryId,
    sealed: &[u8],
    body: &[u8],
    signature: &str,
) -> Result<bool> {
    let secret = vault.open(&webhook_place(id), sealed)?;
    let digits = signature.strip_prefix("sha256=").unwrap_or(signature);
    let Ok(tag) = hex::decode(digits) else { return Ok(false) };
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
    Ok(hmac::verify(&key, body, &tag).is_ok())
}

/// The server that a secret is for.
pub(super) fn host(remote: &Remote) -> String {
    match remote {
        Remote::Http(url) => format!("{:?}", url.origin()),
        Remote::Ssh(ssh) => format!("ssh {} {}", ssh.host, ssh.port),
        Remote::Local(_) => "this machine".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault() -> Vault {
        Vault::new(&Secret::new([7; 32])).unwrap()
    }

    #[test]
    fn a_signature_fits_its_body_and_secret_alone() {
        let (vault, id) = (vault(), RepositoryId::from_number(1));
        let sealed = seal_webhook(&vault, id, &Secret::new("It's a Secret to Everybody".into())).unwrap();
        // The example of GitHub's documentation.
        let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let fits =
            |body: &[u8], signature: &str| signature_fits(&vault, id, &sealed, body, signature).unwrap();
        assert!(fits(b"Hello, World!", signature));
        assert!(fits(b"Hello, World!", &signature[7..]));
        assert!(!fits(b"Hello, World?", signature));
        assert!(!fits(b"Hello, World!", "sha256="));
        assert!(!fits(b"Hello, World!", "no digits"));
        assert!(!fits(b"Hello, World!", &signature[..40]));
    }

    #[test]
    fn what_is_sealed_for_one_repository_opens_for_no_other() {
        let (vault, one, two) = (vault(), RepositoryId::from_number(1), RepositoryId::from_number(2));
        let given = RepositorySecret { token: Some(Secret::new("t".into())), ..RepositorySecret::default() };
        let sealed = seal(&vault, one, &given).unwrap();
        let opened = |id| open(&vault, id, RepositoryAuth::Token, sealed.as_deref());
        assert!(matches!(opened(one), Ok(Credential::Token { .. })));
        assert!(opened(two).is_err());
        assert_eq!(seal(&vault, one, &RepositorySecret::default()).unwrap(), None);
    }

    #[test]
    fn each_way_of_asking_has_its_own_fields() {
        let complaints = |auth, given: &RepositorySecret, needed| {
            let mut errors = FieldErrors::new();
            check(&mut errors, auth, given, needed);
            errors.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
        };
        let token = RepositorySecret { token: Some(Secret::new("t".into())), ..RepositorySecret::default() };
        assert_eq!(complaints(RepositoryAuth::Token, &token, true), [""; 0]);
        assert_eq!(complaints(RepositoryAuth::Basic, &token, true), ["password", "token", "username"]);
        assert_eq!(complaints(RepositoryAuth::None, &token, false), ["token"]);
        assert_eq!(complaints(RepositoryAuth::Ssh, &RepositorySecret::default(), true), ["privateKey"]);
    }
}
