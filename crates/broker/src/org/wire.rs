//! The JSON of JetStream's API: as much of it as is used here.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A stream's configuration. Whatever is not sent is the server's default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StreamConfig {
    pub(super) name: String,
    #[serde(default)]
    pub(super) subjects: Vec<String>,
    pub(super) retention: String,
    pub(super) storage: String,
    pub(super) discard: String,
    pub(super) max_msgs: i64,
    pub(super) max_bytes: i64,
    /// Nanoseconds.
    pub(super) max_age: i64,
    pub(super) max_msg_size: i64,
    pub(super) num_replicas: usize,
    /// Nanoseconds.
    pub(super) duplicate_window: i64,
    pub(super) allow_direct: bool,
    #[serde(default)]
    pub(super) deny_delete: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) subject_transform: Option<Transform>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Transform {
    pub(super) src: String,
    pub(super) dest: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct StreamInfo {
    pub(super) config: StreamConfig,
    pub(super) created: DateTime<Utc>,
    pub(super) state: StreamState,
    /// Absent where a server keeps it alone.
    #[serde(default)]
    pub(super) cluster: Option<StreamCluster>,
}

/// Who has a stream. The one that leads it is none of its replicas.
#[derive(Debug, Default, Deserialize)]
pub(super) struct StreamCluster {
    #[serde(default)]
    pub(super) leader: String,
    #[serde(default)]
    pub(super) replicas: Vec<StreamCopy>,
}

#[derive(Debug, Deserialize)]
pub(super) struct StreamCopy {
    #[serde(default)]
    pub(super) current: bool,
    #[serde(default)]
    pub(super) offline: bool,
}

impl StreamCluster {
    /// How many servers have all of it; none while nobody leads them, who alone knows.
    pub(super) fn complete(&self) -> usize {
        if self.leader.is_empty() {
            return 0;
        }
        1 + self.replicas.iter().filter(|copy| copy.current && !copy.offline).count()
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct StreamState {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    #[serde(default)]
    pub(super) consumer_count: u64,
}

/// A page of streams.
#[derive(Debug, Deserialize)]
pub(super) struct StreamPage {
    pub(super) total: usize,
    #[serde(default)]
    pub(super) streams: Option<Vec<StreamInfo>>,
}

/// A page of consumers' names.
#[derive(Debug, Deserialize)]
pub(super) struct NamePage {
    pub(super) total: usize,
    #[serde(default)]
    pub(super) consumers: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
pub(super) struct PageRequest {
    pub(super) offset: usize,
}

/// What tells success and no more.
#[derive(Debug, Deserialize)]
pub(super) struct Done {
    pub(super) success: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct AccountInfo {
    pub(super) storage: u64,
    #[serde(default)]
    pub(super) reserved_storage: u64,
    pub(super) streams: u64,
    pub(super) consumers: u64,
    pub(super) limits: AccountLimits,
}

#[derive(Debug, Deserialize)]
pub(super) struct AccountLimits {
    pub(super) max_storage: i64,
    pub(super) max_streams: i64,
}

#[derive(Debug, Serialize)]
pub(super) struct ConsumerRequest<'a> {
    pub(super) stream_name: &'a str,
    pub(super) config: ConsumerConfig<'a>,
    pub(super) action: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct ConsumerConfig<'a> {
    pub(super) name: &'a str,
    pub(super) durable_name: &'a str,
    pub(super) deliver_policy: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) opt_start_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) opt_start_time: Option<DateTime<Utc>>,
    pub(super) ack_policy: &'static str,
    /// Nanoseconds.
    pub(super) ack_wait: i64,
    pub(super) max_deliver: i64,
    pub(super) max_ack_pending: i64,
    pub(super) max_waiting: i64,
    pub(super) max_batch: i64,
    /// Nanoseconds.
    pub(super) max_expires: i64,
    /// Nanoseconds.
    pub(super) inactive_threshold: i64,
    pub(super) replay_policy: &'static str,
    pub(super) num_replicas: usize,
}

/// What tells of messages that a stream has stored.
#[derive(Debug, Serialize)]
pub(super) struct WatchRequest<'a> {
    pub(super) stream_name: &'a str,
    pub(super) config: WatchConfig<'a>,
    pub(super) action: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct WatchConfig<'a> {
    pub(super) name: &'a str,
    pub(super) deliver_subject: &'a str,
    pub(super) deliver_policy: &'static str,
    pub(super) ack_policy: &'static str,
    pub(super) replay_policy: &'static str,
    pub(super) headers_only: bool,
    pub(super) mem_storage: bool,
    pub(super) num_replicas: usize,
    /// Nanoseconds.
    pub(super) idle_heartbeat: i64,
    /// Nanoseconds.
    pub(super) inactive_threshold: i64,
}

#[derive(Debug, Deserialize)]
pub(super) struct ConsumerInfo {
    pub(super) created: DateTime<Utc>,
    pub(super) delivered: Sequences,
    pub(super) ack_floor: Sequences,
    pub(super) num_ack_pending: u64,
    pub(super) num_pending: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Sequences {
    pub(super) stream_seq: u64,
}

/// What a reader asks for.
#[derive(Debug, Serialize)]
pub(super) struct PullRequest {
    pub(super) batch: usize,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires: Option<i64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) no_wait: bool,
    pub(super) max_bytes: usize,
}

/// What is read from a stream itself, without a reader.
#[derive(Debug, Default, Serialize)]
pub(super) struct GetRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) start_time: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_by_subj: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_by_subj: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) batch: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_bytes: Option<usize>,
}

/// An acknowledgement of a publish.
#[derive(Debug, Deserialize)]
pub(super) struct PublishAnswer {
    pub(super) stream: String,
    pub(super) seq: u64,
    #[serde(default)]
    pub(super) duplicate: bool,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn those_have_all_of_a_stream_who_lead_it_or_are_current_and_there() {
        let complete = |cluster| serde_json::from_value::<StreamCluster>(cluster).unwrap().complete();
        let copy = |current, offline| json!({"current": current, "offline": offline, "active": 1});
        assert_eq!(complete(json!({"leader": "a"})), 1);
        assert_eq!(complete(json!({"leader": "a", "replicas": [copy(true, false), copy(true, false)]})), 3);
        assert_eq!(complete(json!({"leader": "a", "replicas": [copy(true, true), copy(false, false)]})), 1);
        assert_eq!(complete(json!({"replicas": [copy(true, false)]})), 0, "nobody leads");
    }
}
