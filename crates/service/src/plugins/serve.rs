//! What plugins answer and show: requests to `api` ones, files of `ui` and `theme` ones, and the veto of extensions.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tidegate_model::{CredentialId, FieldErrors, InstalledPluginId, NewSession, Operation, PluginType};
use tidegate_persistence::{
    Operator, OrgScope, OrgTx, PlatformTx,
    installed_plugin::{self, Running},
};
use tidegate_repositories::icon_type;

use super::{
    Plugins, check,
    runtime::{self, Failed},
};
use crate::{Caller, Error, Result, error::Named, permissions::require_platform};

/// A request to a plugin, without whatever proved who makes it.
#[derive(Debug, Clone)]
pub struct PluginAsked {
    /// HTTP method.
    pub method: String,
    /// Path below the plugin's own, with `/` before it.
    pub path: String,
    /// Names and values.
    pub query: Map<String, Value>,
    /// JSON where it is some, else text.
    pub body: Value,
}

/// What a plugin answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginAnswer {
    /// 200 to 599.
    pub status: u16,
    /// What the body is.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

/// A file of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginFile {
    /// What it is, by its name.
    pub content_type: &'static str,
    /// What is in it.
    pub content: Vec<u8>,
}

/// A picture that stands for a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginIcon {
    /// What it is.
    pub media_type: &'static str,
    /// The picture.
    pub content: Vec<u8>,
    /// Another one where it may be another picture.
    pub tag: String,
}

#[derive(Deserialize)]
struct Said {
    status: Option<u16>,
    #[serde(default)]
    body: Value,
}

#[derive(Deserialize)]
struct Verdict {
    veto: Option<String>,
}

impl Plugins {
    /// Asks an `api` plugin that the caller's organization may use. It is told who asks, and never by what credential.
    pub async fn ask(&self, scope: &OrgScope, name: &str, asked: PluginAsked) -> Result<PluginAnswer> {
        let running = self.running(scope, name, &[PluginType::Api]).await?;
        // What a role may do, a key of theirs may not.
        let scopes = match scope.credential() {
            CredentialId::ApiKey(_) => Some(scope.scopes()),
            CredentialId::Login(_) | CredentialId::Token(_) => None,
        };
        let input = json!({
            "kind": "request",
            "request": {"method": asked.method, "path": asked.path, "query": asked.query, "body": asked.body},
            "user": {"id": scope.user_id(), "username": scope.username(), "scopes": scopes},
            "organization": {"id": scope.org_id(), "role": scope.role()},
            "config": running.config,
        });
        let answer = match runtime::call(&self.0, &running, input).await {
            Ok(answer) => answer,
            Err(Failed::Fault(fault)) => return Err(Error::PluginFailed(name.to_owned(), fault.to_string())),
            Err(Failed::Told(most)) => {
                let complaint = format!(
                    "with the rest of the request is more than the {most} bytes that a plugin is told"
                );
                return Err(Error::Invalid(FieldErrors::one("body", complaint)));
            }
            Err(Failed::Busy) => {
                return Err(Error::Unavailable("too many plugins run at this moment".into()));
            }
            Err(Failed::Ours(error)) => return Err(error),
        };
        // Nothing at all is an empty answer.
        let answer = if answer.is_null() { json!({}) } else { answer };
        let said: Said = serde_json::from_value(answer).map_err(|error| {
            Error::PluginFailed(name.to_owned(), format!("its answer cannot be read: {error}"))
        })?;
        let status = said.status.filter(|status| (200..=599).contains(status)).unwrap_or(200);
        // These answers have no body: bytes after one would be taken for the next answer on the connection.
        let body = if matches!(status, 204 | 205 | 304) { Value::Null } else { said.body };
        Ok(match body {
            Value::String(text) => {
                PluginAnswer { status, content_type: "text/plain; charset=utf-8", body: text.into_bytes() }
            }
            Value::Null => PluginAnswer { status, content_type: "application/json", body: Vec::new() },
            body => {
                PluginAnswer { status, content_type: "application/json", body: body.to_string().into_bytes() }
            }
        })
    }

    async fn running(&self, scope: &OrgScope, name: &str, kinds: &[PluginType]) -> Result<Running> {
        may_be_called(name)?;
        let found =
            self.0.db.in_org(scope, async |tx: &mut OrgTx| installed_plugin::running_in(tx, name).await);
        let found = found.await.named(format_args!("plugin {}", short(name)))?;
        if kinds.contains(&found.kind) { Ok(found) } else { Err(not_found(name)) }
    }

    /// A file of a `ui` or `theme` plugin: everybody's of the platform, and an organization's own for its members. An
    /// empty path is the file that it begins with.
    pub async fn file(&self, scope: Option<&OrgScope>, name: &str, path: &str) -> Result<PluginFile> {
        let running = if let Some(scope) = scope {
            self.running(scope, name, &[PluginType::Ui, PluginType::Theme]).await?
        } else {
            may_be_called(name)?;
            let find = async |tx: &mut PlatformTx| installed_plugin::running_everywhere(tx, name).await;
            let found = self.0.db.in_platform(&Operator::system(), find).await;
            found.named(format_args!("plugin {}", short(name)))?
        };
        self.file_of(&running, path).await
    }

    /// A plugin's icon, whether it runs or not. What it is, its first bytes say.
    pub async fn icon(&self, caller: &Caller, id: InstalledPluginId) -> Result<PluginIcon> {
        let operator = require_platform(Operation::ManagePlugins, caller)?;
        let found = async |tx: &mut PlatformTx| installed_plugin::packaged(tx, id).await;
        let found = self.0.db.in_platform(&operator, found).await.named(format_args!("plugin {id}"))?;
        let loaded = runtime::loaded(&self.0, &found).await?;
        let icon = found.manifest.icon_path().and_then(|path| loaded.package.file(path));
        let none = || Error::not_found(format_args!("an icon of plugin {id}"));
        let content = icon.ok_or_else(none)?;
        let media_type = icon_type(content).ok_or_else(none)?;
        let tag = installed_plugin::icon_tag(&found.package);
        Ok(PluginIcon { media_type, content: content.to_vec(), tag })
    }

    async fn file_of(&self, running: &Running, path: &str) -> Result<PluginFile> {
        let name = running.name.as_str();
        let first = check::first_file(&running.manifest).ok_or_else(|| not_found(name))?;
        let wanted = if path.is_empty() { first } else { path };
        // One name alone for each file: what is hidden has no other one.
        let wanted = wanted.strip_prefix("./").unwrap_or(wanted);
        let loaded = runtime::loaded(&self.0, running).await?;
        let missing = || Error::not_found(format_args!("{} of plugin {}", short(path), short(name)));
        // Its manifest is between it and the operators; a path is looked up, and never opened.
        let shown = wanted != "plugin.json" && wanted != "manifest.json";
        let content = loaded.package.file(wanted).filter(|_| shown).ok_or_else(missing)?.to_vec();
        Ok(PluginFile { content_type: content_type(wanted).ok_or_else(missing)?, content })
    }

    /// Sheets of the themes that run for everybody, one after the other.
    pub async fn theme(&self) -> Result<Vec<u8>> {
        let listed = async |tx: &mut PlatformTx| installed_plugin::running_themes(tx).await;
        let themes = self.0.db.in_platform(&Operator::system(), listed).await?;
        let mut sheets = Vec::new();
        for theme in themes {
            let sheet = self.file_of(&theme, "").await;
            match sheet {
                Ok(sheet) if sheet.content_type.starts_with("text/css") => {
                    sheets.extend_from_slice(&sheet.content);
                    sheets.push(b'\n');
                }
                Ok(_) | Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sheets)
    }

    /// Asks those who may keep a session from starting. One that fails keeps nobody from anything: a fault is no veto. One
    /// that could not be asked has not agreed: whoever keeps all of them busy would get around it.
    pub(crate) async fn may_start(&self, scope: &OrgScope, new: &NewSession) -> Result<()> {
        let asked =
            self.0.db.in_org(scope, async |tx: &mut OrgTx| installed_plugin::vetoing_in(tx).await).await?;
        for plugin in asked {
            let input = json!({
                "kind": "sessionStarting",
                "session": {"template": new.template, "tags": new.tags, "persistentHome": new.persistent_home,
                    "region": new.region, "user": scope.username(), "userId": scope.user_id()},
                "organization": {"id": scope.org_id(), "role": scope.role()},
                "config": plugin.config,
            });
            let answer = match runtime::call(&self.0, &plugin, input).await {
                Ok(answer) => answer,
                Err(Failed::Fault(_)) => continue,
                Err(Failed::Told(most)) => {
                    let complaint =
                        format!("is more than the {most} bytes that the plugin {} is told", plugin.name);
                    return Err(Error::Invalid(FieldErrors::one("body", complaint)));
                }
                Err(Failed::Busy) => {
                    return Err(Error::Unavailable("too many plugins run at this moment".into()));
                }
                Err(Failed::Ours(error)) => return Err(error),
            };
            let verdict = serde_json::from_value::<Option<Verdict>>(answer).ok().flatten();
            if let Some(reason) = verdict.and_then(|verdict| verdict.veto) {
                let reason: String = reason.chars().filter(|c| !c.is_control()).take(300).collect();
                return Err(Error::Forbidden(format!(
                    "the plugin {} does not let it start: {reason}",
                    plugin.name
                )));
            }
        }
        Ok(())
    }
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

fn not_found(name: &str) -> Error {
    Error::not_found(format_args!("plugin {}", short(name)))
}

/// No plugin has NUL in its name, and the database refuses to look for it.
fn may_be_called(name: &str) -> Result<()> {
    if name.contains('\0') { Err(not_found(name)) } else { Ok(()) }
}

/// What files may be, by the end of their names. What is not in it is not shown.
fn content_type(path: &str) -> Option<&'static str> {
    let (_, end) = path.rsplit_once('.')?;
    Some(match end.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "txt" | "md" => "text/plain; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "woff" => "font/woff",
        _ => return None,
    })
}
