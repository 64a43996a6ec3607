//! Where a repository lies. Only what is read here reaches a program's arguments: nothing that could be an option, a
//! helper of git's, or a path of this machine that was not allowed.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
};

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use crate::{Error, Options};

/// Characters of a URL at most.
const LONGEST: usize = 2_048;

/// Where a repository lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remote {
    /// `https://…`; `http://…` where private networks are allowed.
    Http(Url),
    /// `ssh://user@host/path` or `user@host:path`.
    Ssh(SshRemote),
    /// A folder of this machine.
    Local(PathBuf),
}

/// A repository behind ssh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshRemote {
    /// Whom to log in as.
    pub user: String,
    /// The server.
    pub host: Host<String>,
    /// Its port.
    pub port: u16,
    /// The repository's path there; without a leading `/` it is relative to the home of the user.
    pub path: String,
}

impl Remote {
    /// Reads the address of a git repository.
    pub fn git(text: &str, options: &Options) -> Result<Self, String> {
        check_text(text)?;
        if text.starts_with('/') {
            return local(Path::new(text), options);
        }
        let Some((scheme, _)) = text.split_once("://") else { return scp_like(text) };
        match scheme {
            "https" | "http" => {
                let url = http(text, options)?;
                if url.query().is_some() {
                    return Err("must have no query".into());
                }
                Ok(Self::Http(url))
            }
            "ssh" => ssh(text),
            "file" => match Url::parse(text).ok().and_then(|url| url.to_file_path().ok()) {
                Some(path) => local(&path, options),
                None => Err("must be an absolute path".into()),
            },
            _ => Err("must be https://…, ssh://… or git@host:path".into()),
        }
    }

    /// Reads the address of an archive.
    pub fn archive(text: &str, options: &Options) -> Result<Self, String> {
        check_text(text)?;
        match text.split_once("://") {
            Some(("https" | "http", _)) => http(text, options).map(Self::Http),
            _ => Err("must be https://…".into()),
        }
    }

    /// Whether an ssh key is what it asks for.
    pub fn is_ssh(&self) -> bool {
        matches!(self, Self::Ssh(_))
    }

    /// What git is given. Paths of this machine are looked at again: they may have become links.
    pub(crate) fn argument(&self, options: &Options) -> Result<String, Error> {
        match self {
            Self::Http(url) => Ok(url.to_string()),
            Self::Ssh(ssh) => Ok(ssh.to_string()),
            Self::Local(path) => {
                let gone = || Error::refused("there is no folder at this path");
                let real = path.canonicalize().map_err(|_| gone())?;
                let inside = options.local_folders.iter().filter_map(|folder| folder.canonicalize().ok());
                if !inside.into_iter().any(|folder| real.starts_with(folder)) {
                    return Err(Error::refused(OUTSIDE));
                }
                real.into_os_string().into_string().map_err(|_| Error::refused("the path must be UTF-8"))
            }
        }
    }

    /// The only transport that git may use.
    pub(crate) fn protocol(&self) -> &'static str {
        match self {
            Self::Http(url) if url.scheme() == "http" => "http",
            Self::Http(_) => "https",
            Self::Ssh(_) => "ssh",
            Self::Local(_) => "file",
        }
    }
}

impl fmt::Display for SshRemote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.starts_with('/') {
            return write!(f, "ssh://{}@{}:{}{}", self.user, self.host, self.port, self.path);
        }
        write!(f, "{}@{}:{}", self.user, self.host, self.path)
    }
}

const OUTSIDE: &str = "a path of this machine is read only inside of the folders that the setting \
                       `repositories.fetch.local_folders` names";

fn check_text(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > LONGEST {
        return Err(format!("must have 1 to {LONGEST} characters"));
    }
    if text.starts_with('-') {
        return Err("must not begin with `-`".into());
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err("must hold no spaces, control characters or backslashes".into());
    }
    Ok(())
}

fn http(text: &str, options: &Options) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
    if url.scheme() == "http" && options.private_networks.is_empty() {
        return Err(
            "must be https://…: http is for networks that the setting `repositories.fetch.private_networks` names"
                .into(),
        );
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "must hold no user and no password: they go into the secret, which is kept encrypted".into()
        );
    }
    if url.fragment().is_some() {
        return Err("must have no fragment".into());
    }
    Ok(url)
}

fn ssh(text: &str) -> Result<Remote, String> {
    let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
    if url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("must be ssh://user@host/path, with no password, query or fragment".into());
    }
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned);
    let path = decoded(url.path()).map_err(|_| "must be UTF-8".to_owned())?;
    let user = if url.username().is_empty() { "git" } else { url.username() };
    let host = url.host_str().unwrap_or_default();
    ssh_remote(user, host, url.port().unwrap_or(22), path)
}

/// `git@host:path`, which is relative to the home of the user there.
fn scp_like(text: &str) -> Result<Remote, String> {
    let complaint = || "must be https://…, ssh://… or git@host:path".to_owned();
    let (user, rest) = text.split_once('@').ok_or_else(complaint)?;
    let (host, path) = match rest.strip_prefix('[') {
        Some(_) => {
            let end = rest.find("]:").ok_or_else(complaint)?;
            (&rest[..=end], &rest[end + 2..])
        }
        None => rest.split_once(':').ok_or_else(complaint)?,
    };
    if path.is_empty() || path.starts_with(':') {
        return Err(complaint());
    }
    ssh_remote(user, host, 22, path.to_owned())
}

fn ssh_remote(user: &str, host: &str, port: u16, path: String) -> Result<Remote, String> {
    let plain = |text: &str| {
        !text.is_empty()
            && !text.starts_with('-')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    if !plain(user) {
        return Err("must name a user of letters, digits, `.`, `_` and `-`".into());
    }
    let host = Host::parse(host).map_err(|_| "must name a host".to_owned())?;
    if let Host::Domain(name) = &host
        && !plain(name)
    {
        return Err("must name a host".into());
    }
    let harmless = |c: char| c.is_ascii_alphanumeric() || "/._-~+".contains(c);
    if path.trim_matches('/').is_empty()
        || path.split('/').any(|part| part.starts_with('-'))
        || !path.chars().all(harmless)
    {
        return Err("must name a path of letters, digits and `/._-~+`".into());
    }
    if path.split('/').any(|part| part == "..") {
        return Err("must not climb with `..`".into());
    }
    Ok(Remote::Ssh(SshRemote { user: user.to_owned(), host, port, path }))
}

fn local(path: &Path, options: &Options) -> Result<Remote, String> {
    let climbs = path.components().any(|part| matches!(part, Component::ParentDir));
    if climbs || !options.local_folders.iter().any(|folder| path.starts_with(folder)) {
        return Err(OUTSIDE.into());
    }
    Ok(Remote::Local(path.to_owned()))
}

/// A branch's name, as git allows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch(String);

impl Branch {
    /// Reads one.
    pub fn new(text: &str) -> Result<Self, String> {
        let wrong_char = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
        let wrong_part = |part: &str| {
            part.is_empty()
                || part.starts_with('.')
                || part.starts_with('-')
                || part.to_lowercase().ends_with(".lock")
        };
        let wrong = text.is_empty()
            || text.len() > 200
            || text == "@"
            || text.ends_with('.')
            || text.contains("..")
            || text.contains("@{")
            || text.chars().any(wrong_char)
            || text.split('/').any(wrong_part);
        if wrong {
            Err("must be the name of a branch, as git allows it".into())
        } else {
            Ok(Self(text.to_owned()))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options { local_folders: vec!["/srv/catalogs".into()], ..Options::default() }
    }

    #[test]
    fn what_is_no_address_of_a_repository_is_refused() {
        for bad in [
            "",
            "-",
            "--upload-pack=touch /tmp/x",
            "ext::sh -c id",
            "ext::id",
            "fd::17",
            "file:///etc",
            "/etc/passwd",
            "/srv/catalogs/../../etc",
            "/srv/catalogs-of-others/x",
            "../x",
            "x",
            "git://host/x",
            "http://host/x",
            "https://user:pass@host/x",
            "https://user@host/x",
            "https://host/x#y",
            "https://host/x?y",
            "https:///",
            "https://",
            "ssh://-oProxyCommand=id/x",
            "ssh://host",
            "ssh://host/",
            "ssh://host/-x",
            "ssh://user:p@host/x",
            "ssh://host/a%20b",
            "git@host:a/../../b",
            "-oProxyCommand=id@host:x",
            "git@-oProxyCommand=id:x",
            "git@host:-x",
            "git@host:",
            "git@host::x",
            "git@host:a;id",
            "git@host:$(id)",
            "git@ho st:x",
            "git@host",
            "https://host/\u{0}",
            "https://host/\nx",
            "https://ho\\st/x",
            "host:path",
            "c:\\x",
            "javascript://x",
            "gopher://x/y",
            "dict://x/y",
            "HTTP://x/y",
        ] {
            assert!(Remote::git(bad, &options()).is_err(), "{bad:?}");
        }
        for bad in [
            "git@host:x",
            "ssh://host/x.zip",
            "/srv/catalogs/x.zip",
            "file:///srv/catalogs/x.zip",
            "ftp://h/x",
        ] {
            assert!(Remote::archive(bad, &options()).is_err(), "{bad:?}");
        }
        assert!(Remote::git(&format!("https://host/{}", "x".repeat(3_000)), &options()).is_err());
    }

    #[test]
    fn each_way_to_a_repository_is_read() {
        let argument = |text: &str| match Remote::git(text, &options()).unwrap() {
            Remote::Http(url) => url.to_string(),
            Remote::Ssh(ssh) => ssh.to_string(),
            Remote::Local(path) => path.display().to_string(),
        };
        assert_eq!(argument("https://git.example.org/a/b.git"), "https://git.example.org/a/b.git");
        assert_eq!(argument("git@git.example.org:a/b.git"), "git@git.example.org:a/b.git");
        assert_eq!(argument("me@git.example.org:b.git"), "me@git.example.org:b.git");
        assert_eq!(argument("me@[2001:db8::1]:/b.git"), "ssh://me@[2001:db8::1]:22/b.git");
        assert_eq!(argument("ssh://git.example.org:2222/b.git"), "ssh://git@git.example.org:2222/b.git");
        assert_eq!(argument("/srv/catalogs/ours"), "/srv/catalogs/ours");
        assert_eq!(argument("file:///srv/catalogs/ours"), "/srv/catalogs/ours");
        let lan = Options { private_networks: vec!["10.0.0.0/8".parse().unwrap()], ..Options::default() };
        assert!(Remote::git("http://git.lan/x", &lan).is_ok());
        assert!(Remote::archive("https://host/a.zip?ref=1", &lan).is_ok());
    }

    #[test]
    fn a_link_out_of_the_allowed_folders_is_not_followed() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let options = Options { local_folders: vec![inside.path().to_owned()], ..Options::default() };
        let link = inside.path().join("link");
        std::os::unix::fs::symlink(outside.path(), &link).unwrap();
        let remote = Remote::git(link.to_str().unwrap(), &options).unwrap();
        assert!(matches!(remote.argument(&options), Err(Error::Refused(_))));
        let remote = Remote::git(inside.path().to_str().unwrap(), &options).unwrap();
        assert!(remote.argument(&options).is_ok());
    }

    #[test]
    fn branches_are_named_as_git_allows() {
        for good in ["main", "release/1.0", "feature-x", "ümlaut"] {
            assert!(Branch::new(good).is_ok(), "{good}");
        }
        for bad in [
            "", "-b", "--all", "a..b", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "/a", "a/",
            "a//b", ".a", "a/.b", "a.lock", "a.", "@", "a@{1}", "a\nb", "a/-b",
        ] {
            assert!(Branch::new(bad).is_err(), "{bad:?}");
        }
    }
}
