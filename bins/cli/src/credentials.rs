//! The stored login: one file, readable by its owner alone, with an entry for each control plane.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tidegate_client::{StoreGuard, TokenStore, Tokens};
use tidegate_model::Secret;
use url::Url;

/// The file.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    path: PathBuf,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Content {
    /// The control plane of the last login.
    current: Option<String>,
    /// Only ever used for the very control plane that gave them.
    servers: BTreeMap<String, Server>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Server {
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<Login>,
    /// Instead of a login.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<String>,
    /// Instead of both: what a login by browser gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    bearer: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Login {
    token: String,
    expires_at: DateTime<Utc>,
    refresh_token: String,
}

impl Credentials {
    /// The file of this user: `$XDG_CONFIG_HOME/tidegate/credentials.json`, else under `~/.config`.
    pub(crate) fn of_user() -> anyhow::Result<Self> {
        let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let folder = absolute("XDG_CONFIG_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".config")))
            .context("there is no folder for the login: set HOME or XDG_CONFIG_HOME to an absolute path")?;
        Ok(Self::at(folder.join("tidegate/credentials.json")))
    }

    fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The file's name.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The control plane of the last login.
    pub(crate) fn current(&self) -> anyhow::Result<Option<Url>> {
        let current = self.read().with_context(|| self.unreadable())?.current;
        current.map(|url| Url::parse(&url)).transpose().with_context(|| self.unreadable())
    }

    /// The CA file that the login at this control plane named.
    pub(crate) fn ca_file(&self, url: &Url) -> anyhow::Result<Option<PathBuf>> {
        let content = self.read().with_context(|| self.unreadable())?;
        Ok(content.servers.get(url.as_str()).and_then(|server| server.ca_file.clone()))
    }

    /// The API key that the login at this control plane was made with.
    pub(crate) fn api_key(&self, url: &Url) -> anyhow::Result<Option<Secret<String>>> {
        let content = self.read().with_context(|| self.unreadable())?;
        Ok(content.servers.get(url.as_str()).and_then(|server| server.api_key.clone()).map(Secret::new))
    }

    /// Keeps an API key in the place of a login, or forgets it. The caller holds the store's lock.
    pub(crate) fn set_api_key(&self, url: &Url, key: Option<&Secret<String>>) -> io::Result<()> {
        let mut content = self.read()?;
        let server = content.servers.entry(url.to_string()).or_default();
        server.api_key = key.map(|key| key.expose().clone());
        server.login = None;
        server.bearer = None;
        self.write(&content)
    }

    /// The bearer token that a login by browser at this control plane gave.
    pub(crate) fn bearer(&self, url: &Url) -> anyhow::Result<Option<Secret<String>>> {
        let content = self.read().with_context(|| self.unreadable())?;
        Ok(content.servers.get(url.as_str()).and_then(|server| server.bearer.clone()).map(Secret::new))
    }

    /// Keeps a bearer token in the place of whatever was there, or forgets it. The caller holds the store's lock.
    pub(crate) fn set_bearer(&self, url: &Url, token: Option<&Secret<String>>) -> io::Result<()> {
        let mut content = self.read()?;
        let server = content.servers.entry(url.to_string()).or_default();
        server.bearer = token.map(|token| token.expose().clone());
        server.login = None;
        server.api_key = None;
        self.write(&content)
    }

    /// The credential of this control plane that is never renewed: an API key or a bearer token.
    pub(crate) fn fixed(&self, url: &Url) -> anyhow::Result<Option<Secret<String>>> {
        Ok(self.api_key(url)?.or(self.bearer(url)?))
    }

    /// The tokens of one control plane.
    pub(crate) fn store(&self, url: &Url) -> FileStore {
        FileStore { file: self.clone(), url: url.clone() }
    }

    /// Makes `url` the control plane of later calls. The caller holds the store's lock.
    pub(crate) fn choose(&self, url: &Url, ca_file: Option<PathBuf>) -> io::Result<()> {
        let mut content = self.read()?;
        content.current = Some(url.to_string());
        content.servers.entry(url.to_string()).or_default().ca_file = ca_file;
        self.write(&content)
    }

    fn unreadable(&self) -> String {
        format!("the stored login {} cannot be read: remove it and log in again", self.path.display())
    }

    fn read(&self) -> io::Result<Content> {
        match fs::read(&self.path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Content::default()),
            Err(error) => Err(error),
        }
    }

    /// Whole or not at all: another file, made private before anything is in it, takes the old one's place.
    fn write(&self, content: &Content) -> io::Result<()> {
        let folder = self.folder()?;
        let new = folder.join(format!(".credentials.{}", std::process::id()));
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(content)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)
    }

    fn folder(&self) -> io::Result<&Path> {
        let folder = self.path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        if !folder.exists() {
            fs::create_dir_all(folder)?;
            fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        }
        Ok(folder)
    }
}

/// The entry of one control plane.
#[derive(Debug)]
pub(crate) struct FileStore {
    file: Credentials,
    url: Url,
}

impl FileStore {
    fn put(&self, login: Option<Login>) -> io::Result<()> {
        let mut content = self.file.read()?;
        let server = content.servers.entry(self.url.to_string()).or_default();
        server.login = login;
        // One way in at a time: the last login counts.
        server.api_key = None;
        server.bearer = None;
        self.file.write(&content)
    }
}

impl TokenStore for FileStore {
    fn load(&self) -> io::Result<Option<Tokens>> {
        let mut content = self.file.read()?;
        let login = content.servers.remove(self.url.as_str()).and_then(|server| server.login);
        Ok(login.map(|login| Tokens {
            token: Secret::new(login.token),
            expires_at: login.expires_at,
            refresh_token: Secret::new(login.refresh_token),
        }))
    }

    fn save(&self, tokens: &Tokens) -> io::Result<()> {
        self.put(Some(Login {
            token: tokens.token.expose().clone(),
            expires_at: tokens.expires_at,
            refresh_token: tokens.refresh_token.expose().clone(),
        }))
    }

    fn clear(&self) -> io::Result<()> {
        self.put(None)
    }

    fn lock(&self) -> io::Result<StoreGuard> {
        let path = self.file.folder()?.join("credentials.lock");
        let file: File = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        file.lock()?;
        Ok(Box::new(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(token: &str) -> Tokens {
        Tokens {
            token: Secret::new(token.to_owned()),
            expires_at: "2030-01-01T00:00:00Z".parse().unwrap(),
            refresh_token: Secret::new("again".to_owned()),
        }
    }

    #[test]
    fn a_login_is_kept_for_its_control_plane_alone_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let file = Credentials::at(folder.path().join("tidegate/credentials.json"));
        let (here, there) =
            ("https://here.example".parse().unwrap(), "https://there.example".parse().unwrap());
        let store = file.store(&here);
        let guard = store.lock().unwrap();
        store.save(&tokens("secret")).unwrap();
        file.choose(&here, Some("/etc/ca.pem".into())).unwrap();
        drop(guard);

        assert_eq!(store.load().unwrap(), Some(tokens("secret")));
        assert_eq!(file.store(&there).load().unwrap(), None);
        assert_eq!(file.current().unwrap(), Some(here.clone()));
        assert_eq!(file.ca_file(&here).unwrap(), Some("/etc/ca.pem".into()));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(file.path()), mode(file.path().parent().unwrap())), (0o600, 0o700));

        store.clear().unwrap();
        assert_eq!(store.load().unwrap(), None);
    }

    #[test]
    fn an_api_key_and_a_login_take_each_others_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = Credentials::at(folder.path().join("credentials.json"));
        let url = "https://here.example".parse().unwrap();
        let key = Secret::new("ppz_0123456789abcdef0123456789".to_owned());
        file.store(&url).save(&tokens("secret")).unwrap();
        file.set_api_key(&url, Some(&key)).unwrap();
        assert_eq!((file.api_key(&url).unwrap(), file.store(&url).load().unwrap()), (Some(key), None));
        file.store(&url).save(&tokens("secret")).unwrap();
        assert_eq!(file.api_key(&url).unwrap(), None);
    }

    #[test]
    fn a_damaged_login_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials.json");
        fs::write(&path, "{").unwrap();
        let error = Credentials::at(path).current().unwrap_err();
        assert!(error.to_string().contains("remove it and log in again"), "{error}");
    }
}
