//! Pipes: what messages to a source go through, those of its kind and those that somebody made.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    FieldErrors, Fields, FromFields, OrgId, PipeId, PipeName, Retention, RetentionChange, RetentionChoice,
    SourceId, UserId, text_enum::text_enum,
};

/// A pipe that somebody made at a source. Those of the source's kind are no rows and have the default retention.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Pipe {
    /// The pipe's id.
    pub id: PipeId,
    /// The source.
    pub source_id: SourceId,
    /// Who made it.
    pub created_by: UserId,
    /// What it is called.
    pub name: PipeName,
    /// For how many seconds it keeps messages; `null` is the default, 86 400.
    pub ttl_seconds: Option<i64>,
    /// How many messages it keeps; `null` is the default, 5 000.
    pub max_msgs: Option<i64>,
    /// How many bytes it keeps; `null` is the default, 16 MiB.
    pub max_bytes: Option<i64>,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

impl Pipe {
    /// What was asked of it.
    pub fn choice(&self) -> RetentionChoice {
        RetentionChoice { ttl_seconds: self.ttl_seconds, max_msgs: self.max_msgs, max_bytes: self.max_bytes }
    }

    /// What it is to keep.
    pub fn retention(&self) -> Retention {
        self.choice().resolve()
    }
}

/// A pipe as it is listed: made, or of the source's kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ListedPipe {
    /// What it is called.
    pub name: String,
    /// Whether the source has it by its kind.
    pub auto: bool,
    /// The id of a made one.
    pub id: Option<PipeId>,
    /// Who made it; the source's creator where it has it by its kind.
    pub created_by: UserId,
    /// Their username; `null` once they are no member any more.
    pub created_by_username: Option<String>,
    /// What it is to keep.
    pub retention: Retention,
    /// What the broker keeps; `null` before the pipe's first message or reader.
    pub in_force: Option<Retention>,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

/// Body of `POST sources/{handle}/pipes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatePipeRequest {
    /// What it is called.
    pub name: PipeName,
    /// What it is to keep.
    pub retention: RetentionChoice,
}

impl FromFields for CreatePipeRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let (name, retention) = (fields.required("name"), RetentionChoice::of_new(fields));
        // What depends on the organization is checked where it is known.
        check_fixed(fields, retention.resolve());
        Some(Self { name: name?, retention })
    }
}

text_enum! {
    /// What somebody wants with a pipe.
    PipeUse, "use" {
        /// Read it.
        Read = "read",
        /// Write to it.
        Write = "write",
    }
}

/// Body of `POST sources/{handle}/pipes/{name}/open`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenPipeRequest {
    /// What for.
    pub to: PipeUse,
    /// Whether nothing of before is to be read.
    pub anew: bool,
}

impl FromFields for OpenPipeRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let (to, anew) = (fields.required("use"), fields.optional("anew").unwrap_or(false));
        if anew && to == Some(PipeUse::Write) {
            fields.errors().add("anew", "is for reading alone");
        }
        Some(Self { to: to?, anew })
    }
}

/// What a reader has done with: everything up to a message. Body of `PUT sources/{handle}/pipes/{name}/place`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmation {
    /// The message; 0 for nothing.
    pub sequence: u64,
    /// Of which stream: another one's counts for nothing.
    pub incarnation: Option<DateTime<Utc>>,
}

impl FromFields for Confirmation {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let (sequence, incarnation) = (fields.required("confirmed"), fields.required("incarnation"));
        Some(Self { sequence: sequence?, incarnation: Some(incarnation?) })
    }
}

/// Body of `PATCH sources/{handle}/pipes/{name}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdatePipeRequest {
    /// What it keeps from now on.
    pub retention: RetentionChange,
}

impl FromFields for UpdatePipeRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let retention = RetentionChange {
            ttl_seconds: fields.patch("ttlSeconds"),
            max_msgs: fields.patch("maxMsgs"),
            max_bytes: fields.patch("maxBytes"),
        };
        check_fixed(fields, retention.applied_to(RetentionChoice::default()).resolve());
        Some(Self { retention })
    }
}

fn check_fixed(fields: &mut Fields, retention: Retention) {
    for (field, complaint) in retention.check(i64::MAX).err().as_ref().into_iter().flat_map(FieldErrors::iter)
    {
        fields.errors().add(field, complaint);
    }
}

/// One pipe of one source, and who sends into it: `<organization>.<creator>.<handle>.<pipe>.<sender>`. Who the sender is,
/// the permission to publish fixes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PipeSubject {
    /// The organization.
    pub org_id: OrgId,
    /// Who made the source.
    pub creator: UserId,
    /// The source's handle.
    pub handle: String,
    /// The pipe's name.
    pub pipe: String,
    /// Who sends.
    pub sender: UserId,
}

/// A subject that is none of a pipe's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a subject has the form <organization>.<creator>.<handle>.<pipe>.<sender>")]
pub struct InvalidSubject;

impl fmt::Display for PipeSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (org, creator) = (self.org_id.as_uuid().simple(), self.creator.as_uuid().simple());
        write!(f, "{org}.{creator}.{}.{}.{}", self.handle, self.pipe, self.sender.as_uuid().simple())
    }
}

impl FromStr for PipeSubject {
    type Err = InvalidSubject;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let tokens: Vec<&str> = text.split('.').collect();
        let [org, creator, handle, pipe, sender] = tokens.as_slice() else { return Err(InvalidSubject) };
        if handle.is_empty() || pipe.is_empty() {
            return Err(InvalidSubject);
        }
        Ok(Self {
            org_id: OrgId::from_uuid(simple(org)?),
            creator: UserId::from_uuid(simple(creator)?),
            handle: (*handle).to_owned(),
            pipe: (*pipe).to_owned(),
            sender: UserId::from_uuid(simple(sender)?),
        })
    }
}

/// A UUID without dashes, in lower case.
fn simple(token: &str) -> Result<Uuid, InvalidSubject> {
    let plain = token.len() == 32 && token.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !plain {
        return Err(InvalidSubject);
    }
    Uuid::try_parse(token).map_err(|_| InvalidSubject)
}

/// The name of a pipe's stream. A source that is made anew under the same handle has another id, and so other streams.
pub fn stream_name(source: SourceId, pipe: &str) -> String {
    format!("{}_{pipe}", source.as_uuid().simple())
}

/// The source and the pipe that a stream is of; none where it is none of ours.
pub fn pipe_of_stream(stream: &str) -> Option<(SourceId, &str)> {
    let (source, pipe) = stream.split_once('_')?;
    let source = simple(source).ok()?;
    (!pipe.is_empty()).then_some((SourceId::from_uuid(source), pipe))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::PatchField;

    #[test]
    fn a_pipe_is_opened_for_one_use_and_anew_for_reading_alone() {
        let wanted = OpenPipeRequest::from_json(json!({"use": "read", "anew": true})).unwrap();
        assert_eq!(wanted, OpenPipeRequest { to: PipeUse::Read, anew: true });
        let wanted = OpenPipeRequest::from_json(json!({"use": "write"})).unwrap();
        assert_eq!(wanted, OpenPipeRequest { to: PipeUse::Write, anew: false });
        let named = |body| {
            let errors = OpenPipeRequest::from_json(body).unwrap_err();
            errors.iter().map(|(field, _)| field.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(named(json!({"use": "write", "anew": true})), ["anew"]);
        assert_eq!(named(json!({"use": "type", "anew": 1, "odd": 1})), ["anew", "odd", "use"]);
        assert_eq!(named(json!({})), ["use"]);
    }

    #[test]
    fn a_new_pipe_names_every_bad_field() {
        let plain = CreatePipeRequest::from_json(json!({"name": "room"})).unwrap();
        assert_eq!(plain.retention, RetentionChoice::default());
        let bad = json!({"name": "stdin", "ttlSeconds": 0, "maxMsgs": "many", "maxBytes": 1, "odd": 1});
        let errors = CreatePipeRequest::from_json(bad).unwrap_err();
        let named: Vec<&str> = errors.iter().map(|(field, _)| field).collect();
        assert_eq!(named, ["maxBytes", "maxMsgs", "name", "odd", "ttlSeconds"]);
    }

    #[test]
    fn a_change_of_a_pipe_may_go_back_to_the_default() {
        let change = UpdatePipeRequest::from_json(json!({"ttlSeconds": null, "maxMsgs": 3})).unwrap();
        let wanted = RetentionChange {
            ttl_seconds: PatchField::Clear,
            max_msgs: PatchField::Set(3),
            max_bytes: PatchField::Absent,
        };
        assert_eq!(change.retention, wanted);
        assert!(UpdatePipeRequest::from_json(json!({})).unwrap().retention.is_empty());
        assert!(UpdatePipeRequest::from_json(json!({"maxBytes": -1})).is_err());
    }

    #[test]
    fn what_is_no_subject_of_a_pipe_is_refused() {
        let id = "0193b6f2a2a87b3a9d0c1e2f3a4b5c6d";
        for bad in [
            "",
            "a.b.c.d.e",
            &format!("{id}.{id}.h.p"),
            &format!("{id}.{id}.h.p.{id}.x"),
            &format!("{id}.{id}..p.{id}"),
            &format!("{id}.{id}.h.p.{}", id.to_uppercase()),
        ] {
            assert_eq!(bad.parse::<PipeSubject>(), Err(InvalidSubject), "{bad}");
        }
        assert_eq!(pipe_of_stream("KV_x"), None);
        assert_eq!(pipe_of_stream(&format!("{id}_")), None);
    }

    proptest! {
        #[test]
        fn subjects_and_streams_read_as_they_were_written(
            ids in proptest::array::uniform4(any::<u128>()), handle in "[a-z0-9]{1,8}", pipe in "[a-z0-9]{1,4}-[a-z0-9]{1,4}",
        ) {
            let [org, creator, sender, source] = ids.map(Uuid::from_u128);
            let subject = PipeSubject {
                org_id: OrgId::from_uuid(org), creator: UserId::from_uuid(creator), handle, pipe: pipe.clone(),
                sender: UserId::from_uuid(sender),
            };
            prop_assert_eq!(subject.to_string().parse::<PipeSubject>(), Ok(subject));
            let source = SourceId::from_uuid(source);
            let stream = stream_name(source, &pipe);
            prop_assert_eq!(pipe_of_stream(&stream), Some((source, pipe.as_str())));
        }
    }
}
