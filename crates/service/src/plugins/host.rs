//! What a module is given of the platform: nothing but what was granted, and nothing outside of the organization that it is
//! called in.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::{
    Method, Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tidegate_model::{InstalledPluginId, Session, SessionFilter, SessionId};
use tidegate_persistence::{
    Operator, OrgTx, PlatformTx, SystemScope, audit,
    installed_plugin::{Running, StoreTx},
    session::{self, Page, Whose},
};
use tidegate_plugins::{Function, Grants, Host};
use tokio::runtime::Handle;

use crate::{Core, Error};

/// Keys that a plugin may keep for one organization, and bytes of one value.
const KEYS: i64 = 1_000;
const VALUE: usize = 64 * 1024;
/// Bytes of an answer that a plugin asked for by HTTP.
const ANSWER: usize = 512 * 1024;

/// Answers one call, on the thread that the module runs on: whatever the database is asked is asked to its end.
pub(crate) struct PluginHost {
    core: Arc<Core>,
    handle: Handle,
    id: InstalledPluginId,
    name: String,
    scope: Option<SystemScope>,
    grants: Grants,
    waited: Waited,
}

/// How long a call waited for the platform's own work. How long others take, by HTTP, is the plugin's to reckon with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waited(Arc<AtomicU64>);

impl Waited {
    fn add(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn longer_than(&self, time: Duration) -> bool {
        Duration::from_millis(self.0.load(Ordering::Relaxed)) > time
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase", tag = "op")]
enum Kv {
    Get {
        key: String,
    },
    Set {
        key: String,
        value: Value,
    },
    Delete {
        key: String,
    },
    List {
        #[serde(default)]
        prefix: String,
    },
}

#[derive(Deserialize)]
struct Wanted {
    id: Option<SessionId>,
    state: Option<String>,
    limit: Option<u32>,
}

#[derive(Deserialize)]
struct Tagged {
    id: SessionId,
    tags: Vec<String>,
}

#[derive(Deserialize)]
struct Line {
    level: Option<String>,
    message: String,
}

#[derive(Deserialize)]
struct Asked {
    method: Option<String>,
    url: Url,
    #[serde(default)]
    headers: Map<String, Value>,
    body: Option<Value>,
}

fn read<T: serde::de::DeserializeOwned>(request: Value) -> Result<T, String> {
    serde_json::from_value(request).map_err(|error| error.to_string())
}

/// What a module hears of what went wrong: refusals as they are, faults of ours as a fixed sentence.
fn told(error: &Error) -> String {
    match error {
        Error::NotFound(_) | Error::Invalid(_) | Error::Conflict { .. } => error.to_string(),
        _ => "the platform cannot answer at the moment".to_owned(),
    }
}

impl PluginHost {
    pub(crate) fn new(core: &Arc<Core>, running: &Running, grants: Grants) -> Self {
        Self {
            core: Arc::clone(core),
            handle: Handle::current(),
            id: running.id,
            name: running.name.clone(),
            scope: running.scope,
            grants,
            waited: Waited::default(),
        }
    }

    /// To look at once the call is over.
    pub(crate) fn waited(&self) -> Waited {
        self.waited.clone()
    }

    fn log(&self, line: &Line) -> Value {
        let message: String = line.message.chars().filter(|c| !c.is_control()).take(1_000).collect();
        if matches!(line.level.as_deref(), Some("warn" | "error")) {
            tracing::warn!(plugin = self.name, message, "a plugin says");
        } else {
            tracing::info!(plugin = self.name, message, "a plugin says");
        }
        Value::Null
    }

    fn kv(&self, asked: Kv) -> Result<Value, String> {
        let (core, id, now) = (&self.core, self.id, self.core.clock.now());
        let work = async move |mut store: StoreTx<'_>| -> Result<Value, Error> {
            Ok(match asked {
                Kv::Get { key } => store.get(id, &key).await?.unwrap_or(Value::Null),
                Kv::Set { key, value } => {
                    fits(&key, &value)?;
                    if !store.set(id, &key, value, KEYS, now).await? {
                        return Err(refused(&format!("a plugin may keep {KEYS} keys at most")));
                    }
                    Value::Null
                }
                Kv::Delete { key } => Value::Bool(store.delete(id, &key).await?),
                Kv::List { prefix } => json!(store.keys(id, &prefix).await?),
            })
        };
        let done = self.handle.block_on(async {
            if let Some(scope) = &self.scope {
                core.db.in_org_as_system(scope, async |tx: &mut OrgTx| work(StoreTx::Org(tx)).await).await
            } else {
                let work = async |tx: &mut PlatformTx| work(StoreTx::Platform(tx)).await;
                core.db.in_platform(&Operator::system(), work).await
            }
        });
        done.map_err(|error| told(&error))
    }

    fn scope(&self) -> Result<&SystemScope, String> {
        self.scope.as_ref().ok_or_else(|| "this call belongs to no organization".to_owned())
    }

    fn sessions(&self, wanted: Wanted) -> Result<Value, String> {
        let scope = self.scope()?;
        let state = wanted.state.map(|state| state.parse()).transpose();
        let state = state.map_err(|error: tidegate_model::UnknownValue| error.to_string())?;
        let page = Page {
            filter: SessionFilter { state, ..SessionFilter::default() },
            whose: Whose::Everybodys,
            limit: i64::from(wanted.limit.unwrap_or(50).clamp(1, 100)),
            before: None,
        };
        let found =
            self.handle.block_on(self.core.db.in_org_as_system(
                scope,
                async |tx: &mut OrgTx| match wanted.id {
                    Some(id) => Ok(vec![session::find(tx, id).await?]),
                    None => Ok(session::list(tx, &page).await?.0),
                },
            ));
        let found: Vec<Session> = found.map_err(|error: Error| told(&error))?;
        let shown: Vec<Value> = found.iter().map(shown).collect();
        Ok(match (wanted.id, shown.as_slice()) {
            (Some(_), [one]) => one.clone(),
            _ => Value::Array(shown),
        })
    }

    fn tag(&self, tagged: Tagged) -> Result<Value, String> {
        let (scope, now) = (self.scope()?, self.core.clock.now());
        let Tagged { id, tags } = tagged;
        let fits =
            |tag: &String| (1..=64).contains(&tag.chars().count()) && !tag.chars().any(char::is_control);
        if tags.len() > 32 || !tags.iter().all(fits) {
            return Err("tags must be at most 32 texts of 1 to 64 characters".to_owned());
        }
        let plugin = self.name.clone();
        let done = self.handle.block_on(self.core.db.in_org_as_system(scope, async |tx: &mut OrgTx| {
            let before = session::find(tx, id).await?.tags;
            session::set_tags(tx, id, tags.clone()).await?;
            let detail = json!({"before": {"tags": before}, "after": {"tags": tags}, "plugin": plugin});
            let resource = format!("session:{id}");
            let entry = audit::Entry { action: "session.tags", resource, address: None, detail, at: now };
            Ok::<_, Error>(audit::insert_org(tx, entry).await?)
        }));
        done.map(|()| Value::Null).map_err(|error| told(&error))
    }

    fn http(&self, asked: Asked, deadline: Instant) -> Result<Value, String> {
        let host = asked.url.host_str().unwrap_or_default();
        let named = asked.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        if !self.grants.allow_host(&named) {
            return Err(format!("`{named}` is none of the hosts that were granted"));
        }
        let method = asked.method.as_deref().unwrap_or("GET").parse::<Method>();
        let method = method.map_err(|_| "the method cannot be read".to_owned())?;
        let headers = headers(&asked.headers)?;
        let body = match asked.body {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(text)) => text.into_bytes(),
            Some(other) => other.to_string().into_bytes(),
        };
        let time = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let sending = self.core.plugins.egress.send((method, asked.url), headers, body, (ANSWER, time));
        let answer = self.handle.block_on(sending)?;
        let body = String::from_utf8_lossy(&answer.body);
        Ok(json!({"status": answer.status, "contentType": answer.content_type, "body": body}))
    }
}

fn refused(message: &str) -> Error {
    Error::Conflict { code: "E_PLUGIN_STORE", message: message.to_owned() }
}

fn fits(key: &str, value: &Value) -> Result<(), Error> {
    if !(1..=256).contains(&key.len()) || key.contains('\0') {
        return Err(refused("a key must have 1 to 256 bytes"));
    }
    let text = value.to_string();
    if text.len() > VALUE || text.contains("\\u0000") {
        return Err(refused(&format!("a value must have at most {VALUE} bytes and no NUL")));
    }
    Ok(())
}

fn headers(given: &Map<String, Value>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in given.iter().take(32) {
        let name: HeaderName = name.parse().map_err(|_| "a header's name cannot be read".to_owned())?;
        if matches!(name.as_str(), "host" | "content-length" | "transfer-encoding" | "connection" | "upgrade")
        {
            return Err(format!("the header {name} is not a plugin's to set"));
        }
        let value = value.as_str().and_then(|value| HeaderValue::from_str(value).ok());
        headers.insert(name, value.ok_or_else(|| "a header's value cannot be read".to_owned())?);
    }
    Ok(headers)
}

/// What a plugin sees of a session: nothing that opens it.
pub(crate) fn shown(session: &Session) -> Value {
    json!({
        "id": session.id, "name": session.name, "user": session.user, "userId": session.user_id,
        "template": session.template, "platform": session.platform, "state": session.state, "tags": session.tags,
        "createdAt": session.created_at,
    })
}

impl Host for PluginHost {
    fn answer(&mut self, function: Function, request: Value, deadline: Instant) -> Result<Value, String> {
        let began = Instant::now();
        let answer = match function {
            Function::Log => return Ok(self.log(&read(request)?)),
            Function::Http => return self.http(read(request)?, deadline),
            Function::Kv => self.kv(read(request)?),
            Function::SessionsRead => self.sessions(read(request)?),
            Function::SessionsTag => self.tag(read(request)?),
        };
        self.waited.add(began.elapsed());
        answer
    }
}
