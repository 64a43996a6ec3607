//! Sessions: asking for one, finding it, following its life.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::{
    Method,
    header::{HeaderName, HeaderValue},
};
use serde::{Deserialize, Serialize};
use tidegate_model::{NewSession, Session, SessionEvent, SessionFilter, SessionId, SessionState, StreamMode};

use crate::{Client, Error, call::Call};

/// The header that makes a repeated create the same create.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The shortest and the longest wait between two looks at a session that is waited for.
const LOOKS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What makes two creates the same create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(HeaderValue);

impl IdempotencyKey {
    /// A key that nobody else has.
    pub fn random() -> Self {
        let key = uuid::Uuid::new_v4().to_string();
        Self(HeaderValue::from_str(&key).unwrap_or(HeaderValue::from_static("0")))
    }

    /// A key of the caller's: 1–255 visible ASCII characters.
    pub fn new(key: &str) -> Result<Self, Error> {
        let fits = (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
        match HeaderValue::from_str(key) {
            Ok(value) if fits => Ok(Self(value)),
            _ => Err(Error::Setting("an idempotency key has 1 to 255 visible ASCII characters".to_owned())),
        }
    }

    /// The key itself.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    pub(crate) fn into_header(self) -> HeaderValue {
        self.0
    }
}

/// A session with the command that was given for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// The session as it now stands.
    pub session: Session,
    /// The command, `cmd-…`; `None` where nothing was left to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_id: Option<String>,
}

/// One page of sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionPage {
    /// The sessions.
    pub sessions: Vec<Session>,
    /// How many there are on all pages.
    pub total: u64,
    /// What asks for the next page; `None` on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
    /// Whether `total` was counted to the end.
    #[serde(default = "yes")]
    pub total_is_exact: bool,
}

const fn yes() -> bool {
    true
}

/// What happened to a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Its changes of state, oldest first.
    pub events: Vec<SessionEvent>,
    /// How many there are.
    #[serde(default)]
    pub total: u64,
}

/// A way into a session's stream.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// The session's state: `waking` where the call woke it.
    pub state: SessionState,
    /// Good for one WebSocket of a browser.
    #[serde(default)]
    pub ticket: Option<tidegate_model::Secret<String>>,
    /// Until then.
    #[serde(default)]
    pub expires_at: Option<DateTime<Utc>>,
    /// Where the stream is.
    #[serde(default)]
    pub url: Option<String>,
}

impl Client {
    /// `POST sessions` with a key of its own: a create whose answer was lost is asked again and makes no second one.
    pub async fn create_session(&self, new: &NewSession) -> Result<Accepted, Error> {
        self.create_session_keyed(new, &IdempotencyKey::random()).await
    }

    /// `POST sessions` with the caller's key, for callers that outlive this process and may ask again.
    pub async fn create_session_keyed(
        &self,
        new: &NewSession,
        key: &IdempotencyKey,
    ) -> Result<Accepted, Error> {
        let call = Call::post(&["sessions"]).json(new)?.header(IDEMPOTENCY_KEY, key.0.clone()).repeatable();
        self.fetch(call).await
    }

    /// `GET sessions`, one page: at most 100, from `cursor` on.
    pub async fn sessions(
        &self,
        filter: &SessionFilter,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<SessionPage, Error> {
        let call = Call::get(&["sessions"])
            .query_if("user", filter.user.as_ref())
            .query_if("state", filter.state)
            .query_if("tag", filter.tag.as_ref())
            .query_if("agent", filter.agent.as_ref())
            .query_if("application", filter.application)
            .query_if("shared", filter.shared.then_some(true))
            .query("limit", limit.clamp(1, 100).to_string())
            .query_if("cursor", cursor);
        self.fetch(call).await
    }

    /// Every page of `GET sessions`, up to `most` sessions.
    pub async fn all_sessions(&self, filter: &SessionFilter, most: usize) -> Result<Vec<Session>, Error> {
        let mut sessions = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = self.sessions(filter, 100, cursor.as_deref()).await?;
            let empty = page.sessions.is_empty();
            sessions.extend(page.sessions);
            // A cursor that leads nowhere must not be followed for ever.
            if empty || page.next_cursor.is_none() || page.next_cursor == cursor || sessions.len() >= most {
                sessions.truncate(most);
                return Ok(sessions);
            }
            cursor = page.next_cursor;
        }
    }

    /// `GET sessions/{id}`.
    pub async fn session(&self, id: SessionId) -> Result<Session, Error> {
        self.fetch(Call::get(&["sessions", &id.to_string()])).await
    }

    /// `POST sessions/{id}/terminate`: ends the session, whatever it is doing.
    pub async fn terminate_session(&self, id: SessionId) -> Result<Accepted, Error> {
        // Legal in every state and the same when repeated.
        self.fetch(Call::post(&["sessions", &id.to_string(), "terminate"]).repeatable()).await
    }

    /// `DELETE sessions/{id}`: ends the session; of a failed one it cleans up and hides it.
    pub async fn delete_session(&self, id: SessionId) -> Result<Accepted, Error> {
        self.fetch(Call::new(Method::DELETE, &["sessions", &id.to_string()])).await
    }

    /// `PUT sessions/{id}/hibernate`.
    pub async fn hibernate_session(&self, id: SessionId) -> Result<Accepted, Error> {
        self.fetch(Call::new(Method::PUT, &["sessions", &id.to_string(), "hibernate"])).await
    }

    /// `PUT sessions/{id}/wake`.
    pub async fn wake_session(&self, id: SessionId) -> Result<Accepted, Error> {
        self.fetch(Call::new(Method::PUT, &["sessions", &id.to_string(), "wake"])).await
    }

    /// `GET sessions/{id}/history`.
    pub async fn session_history(&self, id: SessionId) -> Result<History, Error> {
        self.fetch(Call::get(&["sessions", &id.to_string(), "history"])).await
    }

    /// `POST sessions/{id}/connect` for its terminal: wakes it where it sleeps.
    pub async fn connect_terminal(&self, id: SessionId, mode: StreamMode) -> Result<Connection, Error> {
        #[derive(Serialize)]
        struct Body {
            kind: &'static str,
            mode: StreamMode,
        }
        let body = Body { kind: "terminal", mode };
        self.fetch(Call::post(&["sessions", &id.to_string(), "connect"]).json(&body)?).await
    }

    /// Looks at a session until `enough` says so or its state is final, and shows every change to `seen`. Has no time
    /// limit of its own: drop it to stop waiting.
    pub async fn wait_for(
        &self,
        id: SessionId,
        enough: impl Fn(&Session) -> bool,
        mut seen: impl FnMut(&Session),
    ) -> Result<Session, Error> {
        let (mut wait, longest) = LOOKS;
        let mut last = None;
        loop {
            let session = self.session(id).await?;
            if last != Some(session.state) {
                last = Some(session.state);
                seen(&session);
                wait = LOOKS.0;
            }
            if enough(&session) || session.state.is_final() {
                return Ok(session);
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 3 / 2).min(longest);
        }
    }
}
