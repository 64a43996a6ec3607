//! Reading a pipe by the place that the platform keeps: it moves once the reader says what it has done with.

use chrono::{DateTime, Utc};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate_model::{Confirmation, Handle};

use crate::{Client, Error, Message, MessageList, MessageQuery, StatusCode, call::Call};

/// Where one is in a pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadPlace {
    /// The last message that counts as read; 0 before the first.
    pub sequence: u64,
    /// Of which stream: where another one was confirmed, nothing moved.
    pub incarnation: Option<DateTime<Utc>>,
    /// How many messages are beyond it.
    pub unread: u64,
}

/// Some messages behind one's place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlacePage {
    /// The oldest first, none of which this reader gave before.
    pub messages: Vec<Message>,
    /// How many are behind these.
    pub left: u64,
    /// Things on the way that are no messages, which were passed over.
    pub skipped: u64,
    /// Whether the pipe is another one than that of the page before, or goes on where it was some time ago, because it came
    /// back from a backup: sequences mean other messages.
    pub anew: bool,
}

/// Reads one pipe, each message once and in order, from the place that the platform keeps.
///
/// Each page confirms the one before: ask for it once that is done with. Whoever ends confirms the last one with
/// [`PlaceReader::confirm`]; what was not confirmed comes again, to whichever program of the same user reads next. A request
/// whose answer was lost can be repeated, and nothing is lost with it.
///
/// To have each message's work done exactly once whatever dies, keep [`PlaceReader::done`] with that work, in one
/// transaction, and begin with [`PlaceReader::behind`] it.
#[derive(Debug, Clone)]
pub struct PlaceReader {
    handle: Handle,
    pipe: String,
    done: Confirmation,
}

impl PlaceReader {
    /// Begins at one's place.
    pub fn new(handle: Handle, pipe: &str) -> Self {
        Self::behind(handle, pipe, Confirmation { sequence: 0, incarnation: None })
    }

    /// Begins behind what is done already, which the first page confirms.
    pub fn behind(handle: Handle, pipe: &str, done: Confirmation) -> Self {
        Self { handle, pipe: pipe.to_owned(), done }
    }

    /// What the next page confirms: all that was given.
    pub const fn done(&self) -> Confirmation {
        self.done
    }

    /// The next messages, at most `limit`, after a wait of at most `wait` seconds; the page before is confirmed by it.
    pub async fn next(
        &mut self,
        client: &Client,
        limit: Option<usize>,
        wait: Option<u64>,
    ) -> Result<PlacePage, Error> {
        let query = MessageQuery { confirmed: Some(self.done), limit, wait, ..MessageQuery::default() };
        match client.messages(&self.handle, &self.pipe, &query).await {
            Ok(list) => Ok(self.taken(list)),
            Err(error) if self.done.sequence > 0 && is_beyond(&error) => {
                // The pipe came back from a backup that is older than what was read.
                self.done = Confirmation { sequence: 0, incarnation: None };
                let query = MessageQuery { confirmed: Some(self.done), ..query };
                let list = client.messages(&self.handle, &self.pipe, &query).await?;
                Ok(PlacePage { anew: true, ..self.taken(list) })
            }
            Err(error) => Err(error),
        }
    }

    /// Confirms the last page, for whoever asks for no other one; nothing where there was none.
    pub async fn confirm(&self, client: &Client) -> Result<Option<ReadPlace>, Error> {
        if self.done.sequence == 0 {
            return Ok(None);
        }
        client.confirm(&self.handle, &self.pipe, self.done).await.map(Some)
    }

    fn taken(&mut self, list: MessageList) -> PlacePage {
        let before = self.done.incarnation;
        let incarnation = list.incarnation.or(before);
        let anew = before.is_some() && before != incarnation;
        let done = if anew { 0 } else { self.done.sequence };
        let all = u64::try_from(list.messages.len()).unwrap_or(u64::MAX).saturating_add(list.skipped);
        self.done = Confirmation { sequence: list.last.unwrap_or(0).max(done), incarnation };
        let mut messages = list.messages;
        messages.retain(|message| message.sequence > done);
        PlacePage {
            messages,
            left: list.unread.unwrap_or(0).saturating_sub(all),
            skipped: list.skipped,
            anew,
        }
    }
}

/// Whether more was confirmed than there is.
fn is_beyond(error: &Error) -> bool {
    let named = |error: &crate::ApiError| error.fields.iter().any(|(field, _)| field == "confirmed");
    error.status() == Some(StatusCode::BAD_REQUEST) && error.api().is_some_and(named)
}

impl Client {
    /// `PUT sources/{handle}/pipes/{name}/place`: moves one's place to what is confirmed, never back.
    pub async fn confirm(
        &self,
        handle: &Handle,
        pipe: &str,
        confirmation: Confirmation,
    ) -> Result<ReadPlace, Error> {
        let Confirmation { sequence, incarnation } = confirmation;
        let body = json!({"confirmed": sequence, "incarnation": incarnation});
        let path = ["sources", handle.as_str(), "pipes", pipe, "place"];
        self.fetch(Call::new(Method::PUT, &path).json(&body)?).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(sequences: &[u64], unread: u64, incarnation: &str) -> MessageList {
        let message = |sequence: &u64| {
            let body = json!({"id": "01970000-0000-7000-8000-000000000001", "sender": "01970000-0000-7000-8000-000000000003",
                "subject": "a.b.build.inbox.c", "payload": "hi", "created_at": "2026-01-01T00:00:00Z", "sequence": sequence});
            serde_json::from_value(body).unwrap()
        };
        MessageList {
            messages: sequences.iter().map(message).collect(),
            last: sequences.last().copied(),
            unread: Some(unread),
            skipped: 0,
            incarnation: Some(incarnation.parse().unwrap()),
        }
    }

    fn sequences(page: &PlacePage) -> Vec<u64> {
        page.messages.iter().map(|message| message.sequence).collect()
    }

    #[test]
    fn what_comes_once_more_is_given_once_and_what_is_given_is_confirmed() {
        let (then, later) = ("2026-01-01T00:00:00.000001Z", "2026-02-02T00:00:00Z");
        let mut reader = PlaceReader::new("build".parse().unwrap(), "inbox");
        let page = reader.taken(list(&[4, 5], 7, then));
        assert_eq!((sequences(&page), page.left, page.anew), (vec![4, 5], 5, false));
        let again = reader.taken(list(&[4, 5, 6], 7, then));
        assert_eq!((sequences(&again), again.left, reader.done().sequence), (vec![6], 4, 6));
        let none = reader.taken(list(&[], 0, then));
        assert_eq!((sequences(&none), reader.done().sequence), (vec![], 6));
        let anew = reader.taken(list(&[1], 1, later));
        assert_eq!((sequences(&anew), anew.anew, reader.done().sequence), (vec![1], true, 1));
        assert_eq!(reader.done().incarnation, Some(later.parse().unwrap()));
    }
}
