//! What git says when it fails, in plain words.

use crate::{Branch, Error, error::shown};

/// Words of git's or of a transport's, and what they mean.
const MEANINGS: [(&[&str], &str); 11] = [
    (
        &[
            "Authentication failed",
            "could not read Username",
            "could not read Password",
            "error: 401",
            "error: 403",
        ],
        "the server refused what it was asked with: check the secret, and whether it may read this repository",
    ),
    (
        &["Permission denied (publickey", "Load key", "invalid format"],
        "the server refused the ssh key: check that its public part may read this repository",
    ),
    (
        &["Host key verification failed", "HOST IDENTIFICATION HAS CHANGED"],
        "the server showed another host key than the one that is known: check that it is the right server, and its host keys",
    ),
    (
        &[
            "error: 404",
            "epository not found",
            "does not appear to be a git repository",
            "not a git repository",
            "error: 410",
        ],
        "there is no git repository at this address, or it may not be read with this secret",
    ),
    (
        &["redirect", "error: 301", "error: 302", "error: 303", "error: 307", "error: 308"],
        "the server sends on to another address, which is not followed: use the address that it has moved to",
    ),
    (
        &["does not support shallow", "not valid: is this a git repository"],
        "the server does not speak git's smart protocol",
    ),
    (&["certificate", "SSL", "TLS"], "the server's certificate is not trusted"),
    (
        &["Could not resolve", "Name or service not known", "Temporary failure in name resolution"],
        "the server's name stands for no address",
    ),
    (
        &[
            "Failed to connect",
            "Connection refused",
            "No route to host",
            "Network is unreachable",
            "Couldn't connect",
        ],
        "the server cannot be reached",
    ),
    (&["timed out", "Timeout", "too slow", "Operation too slow"], "the server did not answer in time"),
    (
        &["remote end hung up", "early EOF", "unexpected disconnect", "Connection reset", "Empty reply"],
        "the server ended the connection",
    ),
];

/// Why a fetch failed, and whether that is one of the ways that are known.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) is_known: bool,
}

pub(super) fn explain(stderr: &str, branch: Option<&Branch>, secrets: &[&str]) -> Failure {
    let known = known(stderr, branch);
    let is_known = known.is_some();
    let error = known.unwrap_or_else(|| format!("git could not fetch it: {}", said(stderr, secrets)));
    Failure { error: Error::Refused(error), is_known }
}

fn known(stderr: &str, branch: Option<&Branch>) -> Option<String> {
    if stderr.contains("ouldn't find remote ref") {
        return Some(match branch {
            Some(branch) => format!("it has no branch `{}`", branch.as_str()),
            None => "it has no commit yet".to_owned(),
        });
    }
    let meaning = MEANINGS.iter().find(|(words, _)| words.iter().any(|word| stderr.contains(word)));
    meaning.map(|(_, meaning)| (*meaning).to_owned())
}

/// The one line that says most.
pub(super) fn said(stderr: &str, secrets: &[&str]) -> String {
    let lines = || stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    let telling = lines().find(|line| line.starts_with("fatal:") || line.starts_with("error:"));
    let line = telling.or_else(|| lines().next_back()).unwrap_or("it said nothing");
    shown(line, secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_in_plain_words_and_without_secrets() {
        let explained = |stderr: &str| explain(stderr, None, &["s3cret"]).error.to_string();
        assert!(
            explained("fatal: Authentication failed for 'https://x'")
                .contains("refused what it was asked with")
        );
        assert!(explained("git@x: Permission denied (publickey).").contains("ssh key"));
        assert!(explained("fatal: unable to update url base from redirection").contains("sends on"));
        assert!(
            explained("fatal: repository 'https://x/' not found\nRepository not found")
                .contains("no git repository")
        );
        let odd = explained("hint: x\nfatal: odd s3cret \u{1b}[1m\n");
        assert_eq!(odd, "git could not fetch it: fatal: odd [redacted]  [1m");
        let branch = Branch::new("main").unwrap();
        let missing = explain("fatal: couldn't find remote ref refs/heads/main", Some(&branch), &[]);
        assert_eq!(missing.error.to_string(), "it has no branch `main`");
    }
}
