//! Finding the session that somebody means: by id, by the beginning of an id, by name.

use anyhow::bail;
use tidegate_client::Client;
use tidegate_model::{Session, SessionFilter, SessionId};

/// Most sessions that are looked through.
const MOST: usize = 10_000;

/// The session that `text` means.
pub(crate) async fn find(client: &Client, text: &str) -> anyhow::Result<Session> {
    if let Ok(id) = text.parse::<SessionId>() {
        return Ok(client.session(id).await?);
    }
    let sessions = client.all_sessions(&SessionFilter::default(), MOST).await?;
    pick(sessions, text)
}

/// A name beats the beginning of an id, and a session that still lives one that has ended.
fn pick(sessions: Vec<Session>, text: &str) -> anyhow::Result<Session> {
    let (named, others): (Vec<_>, Vec<_>) = sessions.into_iter().partition(|session| session.name == text);
    let found = if named.is_empty() {
        let beginning = text.to_ascii_lowercase();
        let fits =
            |session: &Session| !beginning.is_empty() && session.id.to_string().starts_with(&beginning);
        others.into_iter().filter(fits).collect()
    } else {
        named
    };
    let (ended, living): (Vec<_>, Vec<_>) = found.into_iter().partition(|session| session.state.is_final());
    let mut found = if living.is_empty() { ended } else { living };
    match (found.pop(), found.is_empty()) {
        (Some(session), true) => Ok(session),
        (Some(last), false) => {
            found.push(last);
            let ids: Vec<String> = found.iter().take(5).map(|session| session.id.to_string()).collect();
            bail!("`{text}` means {} sessions, write more of the id: {}", found.len(), ids.join(", "))
        }
        (None, _) => bail!("no session is called `{text}` or has an id that begins so: see `tidegate ls`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: &str, name: &str, state: &str) -> Session {
        serde_json::from_value(serde_json::json!({
            "id": format!("{id}-0000-7000-8000-000000000000"), "orgId": "01970000-0000-7000-8000-000000000002",
            "user": "alice", "userId": "01970000-0000-7000-8000-000000000003", "name": name, "template": "shell",
            "applicationId": null, "agentId": null, "platform": "vm", "region": null, "state": state,
            "stateReason": null, "stateSince": "2026-01-01T00:00:00Z", "generation": 1,
            "resources": {"cpu": "500m", "memory": "512Mi", "storage": "0"}, "persistentHome": false,
            "idleTimeout": "0", "maxSessionDuration": "0", "tags": [], "streamingReady": false,
            "streamingPort": null, "platformMetadata": {}, "createdAt": "2026-01-01T00:00:00Z", "startedAt": null,
            "lastActivityAt": null, "hibernatedAt": null, "endedAt": null,
        }))
        .unwrap()
    }

    fn all() -> Vec<Session> {
        vec![
            session("0197aaaa", "build", "terminated"),
            session("0197aabb", "build", "running"),
            session("0197bbbb", "0197a", "running"),
            session("0197cccc", "old", "failed"),
        ]
    }

    fn id(text: &str) -> Result<String, String> {
        pick(all(), text)
            .map(|session| session.id.to_string()[..8].to_owned())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_means_the_session_that_lives() {
        assert_eq!(id("build").unwrap(), "0197aabb");
        assert_eq!(id("old").unwrap(), "0197cccc");
    }

    #[test]
    fn the_beginning_of_an_id_is_enough_where_it_is_one_session() {
        assert_eq!(id("0197AAA").unwrap(), "0197aaaa");
        assert_eq!(id("0197a").unwrap(), "0197bbbb", "a name beats an id");
        assert!(id("0197").unwrap_err().contains("means 2 sessions"));
        assert!(id("nothing").unwrap_err().contains("tidegate ls"));
        assert!(id("").unwrap_err().contains("no session"));
    }
}
