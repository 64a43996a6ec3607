//! What ends or hibernates a session by itself: idle timeouts and longest durations, whose they are, and what is counted
//! from when. The database works out the same moments (migration `activity`), for its index; a test compares them.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    FieldErrors, Fields, FromFields, OrgId, PatchField, Session, SessionId, SessionState, TimeLimit,
    TimeLimitError, UserId, text_enum::text_enum,
};

text_enum! {
    /// Who set a limit.
    LimitSource, "limit source" {
        /// Whoever asked for the session.
        Request = "request",
        /// The organization, for requests that say nothing.
        OrganizationDefault = "organization_default",
        /// The organization, which allows no more.
        OrganizationMaximum = "organization_maximum",
        /// The platform, for requests that say nothing where the organization says nothing either.
        PlatformDefault = "platform_default",
        /// The platform, which allows no more.
        PlatformMaximum = "platform_maximum",
    }
}

impl LimitSource {
    /// Who that is, in the middle of a sentence.
    pub const fn who(self) -> &'static str {
        match self {
            Self::Request => "the request",
            Self::OrganizationDefault | Self::OrganizationMaximum => "the organization",
            Self::PlatformDefault | Self::PlatformMaximum => "the platform",
        }
    }
}

text_enum! {
    /// What happens to a session by itself.
    LimitAction, "limit action" {
        /// Its idle timeout is over.
        Hibernate = "hibernate",
        /// Its longest duration is over.
        Terminate = "terminate",
    }
}

text_enum! {
    /// What kept a session alive.
    ActivityKind, "activity kind" {
        /// Somebody typed.
        Input = "input",
        /// Somebody opened a stream of it, or asked for a ticket.
        Connect = "connect",
        /// A program said that it is in use.
        Heartbeat = "heartbeat",
        /// Somebody put its end off.
        Extend = "extend",
    }
}

/// One reason why a session stayed alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SessionActivity {
    /// When it was written down; what is typed is written down every few seconds.
    pub at: DateTime<Utc>,
    /// What it was.
    pub kind: ActivityKind,
    /// Who it was.
    pub user_id: UserId,
    /// Their username at that time.
    pub user: String,
}

/// What is said ahead of a hibernation or an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SessionWarning {
    /// When it was said.
    pub at: DateTime<Utc>,
    /// When it happens, at the earliest.
    pub due_at: DateTime<Utc>,
    /// What happens.
    pub action: LimitAction,
    /// The same for people, with what keeps it from happening.
    pub message: String,
}

/// What a session's moments are counted from, beside what the session itself shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitMarks {
    /// By how many seconds its end was put off.
    pub extended_seconds: u32,
    /// Until when it is not idle whatever happens.
    pub kept_until: Option<DateTime<Utc>>,
    /// When somebody was warned.
    pub warned_at: Option<DateTime<Utc>>,
    /// Of which moment.
    pub warned_of: Option<DateTime<Utc>>,
}

/// Longest time between a warning and what it warns of.
const LEAD: u32 = 300;

/// What there is to do about a session's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// What happens to it next.
    pub action: LimitAction,
    /// When, as its limits say.
    pub at: DateTime<Utc>,
    /// Whether it was warned of it.
    pub warned: bool,
    /// When the warning is due, or what it warned of.
    pub due_at: DateTime<Utc>,
}

impl Session {
    /// Fills in the moments that are worked out from the others.
    pub fn mark(&mut self, marks: LimitMarks) {
        self.idle_at = self.idle_moment(marks);
        self.ends_at = self.end_moment(marks);
        self.warning = self.due(marks).filter(|due| due.warned).map(|due| {
            let at = marks.warned_at.unwrap_or(due.at);
            let message = match due.action {
                LimitAction::Hibernate => format!(
                    "idle: it hibernates when it was idle for {}, unless somebody types or extends it",
                    self.idle_timeout
                ),
                LimitAction::Terminate => format!(
                    "it is terminated when its longest duration of {} is over, unless it is extended",
                    written(end_seconds(self.max_session_duration, marks))
                ),
            };
            SessionWarning { at, due_at: due.due_at, action: due.action, message }
        });
    }

    /// When it hibernates unless somebody is active before.
    fn idle_moment(&self, marks: LimitMarks) -> Option<DateTime<Utc>> {
        let TimeLimit::Seconds(seconds) = self.idle_timeout else { return None };
        if self.state != SessionState::Running {
            return None;
        }
        let active = self.last_activity_at.map_or(self.state_since, |at| at.max(self.state_since));
        let idle = active + span(seconds);
        Some(marks.kept_until.map_or(idle, |kept| kept.max(idle)))
    }

    /// When it is terminated.
    fn end_moment(&self, marks: LimitMarks) -> Option<DateTime<Utc>> {
        let TimeLimit::Seconds(_) = self.max_session_duration else { return None };
        if self.state.is_final() {
            return None;
        }
        Some(self.started_at? + span(end_seconds(self.max_session_duration, marks)))
    }

    /// What its limits do to it next; nothing to one that is on its way somewhere.
    pub fn due(&self, marks: LimitMarks) -> Option<Due> {
        if !matches!(self.state, SessionState::Running | SessionState::Hibernated) {
            return None;
        }
        let (action, limit, at) = match (self.idle_moment(marks), self.end_moment(marks)) {
            (Some(idle), Some(end)) if end <= idle => {
                (LimitAction::Terminate, self.max_session_duration, end)
            }
            (None, Some(end)) => (LimitAction::Terminate, self.max_session_duration, end),
            (Some(idle), _) => (LimitAction::Hibernate, self.idle_timeout, idle),
            (None, None) => return None,
        };
        // Half of a limit that is short: nobody wants to be warned from the beginning.
        let lead = span(LEAD.min(limit.as_seconds() / 2));
        let warned = marks.warned_of == Some(at);
        // A warning that came late, because nobody was there to give it, still leaves its time.
        let due_at = match marks.warned_at {
            Some(since) if warned => at.max(since + lead),
            _ => at - lead,
        };
        Some(Due { action, at, warned, due_at })
    }
}

fn span(seconds: u32) -> TimeDelta {
    TimeDelta::seconds(i64::from(seconds))
}

fn end_seconds(limit: TimeLimit, marks: LimitMarks) -> u32 {
    limit.as_seconds().saturating_add(marks.extended_seconds)
}

/// Seconds in the largest whole unit, whatever their number.
fn written(seconds: u32) -> String {
    if seconds == 0 { TimeLimit::Never } else { TimeLimit::Seconds(seconds) }.to_string()
}

/// What the platform or an organization says of one limit. Nothing said leaves it to whoever is asked next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct LimitRule {
    /// For requests that say nothing. `0` is never.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "30m"))]
    pub default: Option<TimeLimit>,
    /// No request gets more. `0` is no maximum.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "8h"))]
    pub maximum: Option<TimeLimit>,
}

impl LimitRule {
    fn bound(self) -> Option<u32> {
        self.maximum.map(TimeLimit::as_seconds).filter(|seconds| *seconds > 0)
    }
}

/// What the platform or an organization says of both limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitRules {
    /// Hibernation of idle sessions.
    pub idle_timeout: LimitRule,
    /// The end of sessions.
    pub max_session_duration: LimitRule,
}

impl LimitRules {
    /// Complains about every default that is more than its maximum.
    pub fn check(self, below: Self) -> Result<(), FieldErrors> {
        let mut errors = FieldErrors::new();
        for (name, rule, below) in [
            ("idleTimeout", self.idle_timeout, below.idle_timeout),
            ("maxSessionDuration", self.max_session_duration, below.max_session_duration),
        ] {
            if let (Some(maximum), Some(most)) = (rule.maximum, below.bound())
                && exceeds(maximum, most)
            {
                let most = written(most);
                errors.add(
                    format!("{name}.maximum"),
                    format!("must not be more than {most}, which the platform allows"),
                );
            }
            let policy = LimitPolicy { organization: rule, platform: below };
            if let (Some(default), Some((most, source))) = (rule.default, policy.tightest())
                && exceeds(default, most)
            {
                let whose = match source {
                    LimitSource::PlatformMaximum => "which the platform allows",
                    LimitSource::Request
                    | LimitSource::OrganizationDefault
                    | LimitSource::OrganizationMaximum
                    | LimitSource::PlatformDefault => "the maximum beside it",
                };
                let most = written(most);
                errors.add(format!("{name}.default"), format!("must not be more than {most}, {whose}"));
            }
        }
        errors.into_result()
    }
}

/// Whether a limit asks for more than so many seconds; never is more than anything.
fn exceeds(limit: TimeLimit, most: u32) -> bool {
    match limit {
        TimeLimit::Never => true,
        TimeLimit::Seconds(seconds) => seconds > most,
    }
}

/// A limit as it was granted, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// The limit.
    pub limit: TimeLimit,
    /// Who set it.
    pub source: LimitSource,
}

/// Everything that is said of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitPolicy {
    /// By the organization.
    pub organization: LimitRule,
    /// By the platform.
    pub platform: LimitRule,
}

impl LimitPolicy {
    /// The tighter of the two maxima, in seconds; none where there is no maximum.
    pub fn tightest(self) -> Option<(u32, LimitSource)> {
        let organization = self.organization.bound().map(|most| (most, LimitSource::OrganizationMaximum));
        let platform = self.platform.bound().map(|most| (most, LimitSource::PlatformMaximum));
        // Where both are the same it is the platform's, which the organization cannot change.
        match (organization, platform) {
            (Some(of_org), Some(of_platform)) if of_org.0 < of_platform.0 => Some(of_org),
            (of_org, of_platform) => of_platform.or(of_org),
        }
    }

    /// The limit that a request gets; a complaint where it asks for more than the tightest maximum.
    pub fn grant(self, asked: Option<TimeLimit>) -> Result<Granted, String> {
        let tightest = self.tightest();
        if let Some(limit) = asked {
            return match tightest {
                Some((most, source)) if exceeds(limit, most) => {
                    let never = if limit == TimeLimit::Never { ", and 0 is never" } else { "" };
                    Err(format!(
                        "must not be more than {}, which {} allows{never}",
                        written(most),
                        source.who()
                    ))
                }
                _ => Ok(Granted { limit, source: LimitSource::Request }),
            };
        }
        let (limit, source) = match (self.organization.default, self.platform.default) {
            (Some(limit), _) => (limit, LimitSource::OrganizationDefault),
            (None, Some(limit)) => (limit, LimitSource::PlatformDefault),
            (None, None) => (TimeLimit::Never, LimitSource::PlatformDefault),
        };
        Ok(match tightest {
            Some((most, source)) if exceeds(limit, most) => {
                Granted { limit: TimeLimit::Seconds(most), source }
            }
            _ => Granted { limit, source },
        })
    }

    /// Every bound that takes part, in the order in which they are asked.
    pub fn bounds(self, granted: Granted, owners: &LimitOwners) -> Vec<LimitBound> {
        let asked = (granted.source == LimitSource::Request).then_some(granted.limit);
        [
            (LimitSource::Request, asked, &owners.request),
            (LimitSource::OrganizationDefault, self.organization.default, &owners.organization),
            (LimitSource::OrganizationMaximum, self.organization.maximum, &owners.organization),
            (LimitSource::PlatformDefault, self.platform.default, &owners.platform),
            (LimitSource::PlatformMaximum, self.platform.maximum, &owners.platform),
        ]
        .into_iter()
        .map(|(source, value, owner)| LimitBound { source, owner: owner.clone(), value })
        .collect()
    }
}

/// Who stands behind the bounds of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitOwners {
    /// The session's owner.
    pub request: String,
    /// The organization's name.
    pub organization: String,
    /// The platform.
    pub platform: String,
}

/// One bound of a limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct LimitBound {
    /// Which one it is.
    pub source: LimitSource,
    /// Whose it is: a username, the organization's name, or `platform`.
    pub owner: String,
    /// What it says; `null` where it says nothing, `0` for never or no maximum.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "8h"))]
    pub value: Option<TimeLimit>,
}

/// A limit of a session as it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct EffectiveLimit {
    /// What holds; `0` is never.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "30m"))]
    pub value: TimeLimit,
    /// Which of the bounds it comes from.
    pub source: LimitSource,
    /// Whose that is.
    pub owner: String,
    /// When it is reached, as things stand.
    pub at: Option<DateTime<Utc>>,
    /// Every bound that takes part. Those of organization and platform are as they are now; a session keeps what it was
    /// granted when it was asked for, and they bound how far it is extended.
    pub bounds: Vec<LimitBound>,
}

/// What ends or hibernates a session by itself, and who says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct EffectivePolicy {
    /// The session.
    pub session_id: SessionId,
    /// Hibernates after so long without activity.
    pub idle_timeout: EffectiveLimit,
    /// Ends after so long, what it was extended by not counted.
    pub max_session_duration: EffectiveLimit,
    /// By how much its end was put off.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "30m"))]
    pub extended_by: TimeLimit,
    /// Until when it is not idle whatever happens, because it was extended.
    pub kept_until: Option<DateTime<Utc>>,
    /// What is about to happen.
    pub warning: Option<SessionWarning>,
}

/// What an organization says of its sessions' limits, and what the platform leaves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct OrganizationSessionPolicy {
    /// The organization.
    pub org_id: OrgId,
    /// Hibernation of idle sessions.
    pub idle_timeout: OrganizationLimit,
    /// The end of sessions.
    pub max_session_duration: OrganizationLimit,
}

/// What an organization says of one limit, and what the platform leaves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct OrganizationLimit {
    /// The organization's own, for requests that say nothing.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "30m"))]
    pub default: Option<TimeLimit>,
    /// The organization's own maximum.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "8h"))]
    pub maximum: Option<TimeLimit>,
    /// What the platform says where the organization says nothing.
    pub platform: LimitRule,
    /// What a request that says nothing gets.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "30m"))]
    pub effective_default: TimeLimit,
    /// What no request gets more than; `0` for no maximum.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "8h"))]
    pub effective_maximum: TimeLimit,
}

impl OrganizationLimit {
    /// What holds under a policy.
    pub fn of(policy: LimitPolicy) -> Self {
        let effective = policy.grant(None).map_or(TimeLimit::Never, |granted| granted.limit);
        Self {
            default: policy.organization.default,
            maximum: policy.organization.maximum,
            platform: policy.platform,
            effective_default: effective,
            effective_maximum: policy
                .tightest()
                .map_or(TimeLimit::Never, |(most, _)| TimeLimit::Seconds(most)),
        }
    }
}

/// Body of `PUT organizations/{id}/session-policy`: what is absent stays, `null` says nothing any more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetSessionPolicyRequest {
    /// Default and maximum of the idle timeout.
    pub idle_timeout: [PatchField<TimeLimit>; 2],
    /// Default and maximum of the longest duration.
    pub max_session_duration: [PatchField<TimeLimit>; 2],
}

impl SetSessionPolicyRequest {
    /// The rules with what is given.
    pub fn over(&self, before: LimitRules) -> LimitRules {
        let set = |field: &PatchField<TimeLimit>, before: Option<TimeLimit>| match field {
            PatchField::Absent => before,
            PatchField::Clear => None,
            PatchField::Set(limit) => Some(*limit),
        };
        let rule = |[default, maximum]: &[PatchField<TimeLimit>; 2], before: LimitRule| LimitRule {
            default: set(default, before.default),
            maximum: set(maximum, before.maximum),
        };
        LimitRules {
            idle_timeout: rule(&self.idle_timeout, before.idle_timeout),
            max_session_duration: rule(&self.max_session_duration, before.max_session_duration),
        }
    }
}

impl FromFields for SetSessionPolicyRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let idle_timeout = read_rule(fields, "idleTimeout");
        let max_session_duration = read_rule(fields, "maxSessionDuration");
        Some(Self { idle_timeout, max_session_duration })
    }
}

fn read_rule(fields: &mut Fields, name: &str) -> [PatchField<TimeLimit>; 2] {
    let Some(value) = fields.optional::<Value>(name) else { return Default::default() };
    let Ok(mut inside) = Fields::new(value) else {
        fields.errors().add(name, "must be an object with `default` and `maximum`");
        return Default::default();
    };
    let read = [inside.patch("default"), inside.patch("maximum")];
    if let Err(errors) = inside.finish() {
        for (field, message) in errors.iter() {
            fields.errors().add(format!("{name}.{field}"), message);
        }
    }
    read
}

/// Body of `POST sessions/{id}/extend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtendRequest {
    /// How much longer, in seconds.
    pub by: u32,
}

impl FromFields for ExtendRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        match fields.required::<TimeLimit>("by")? {
            TimeLimit::Seconds(by) => Some(Self { by }),
            TimeLimit::Never => {
                fields.errors().add("by", TimeLimitError::Range);
                None
            }
        }
    }
}

/// Longest extension of one session altogether.
const MOST_EXTENDED: u32 = 30 * 86_400;

/// How far a session may be extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtensionBounds {
    /// The whole duration with all extensions, and who allows no more.
    pub duration: (u32, Option<LimitSource>),
    /// The longest time without activity, and who allows no more.
    pub idle: (u32, Option<LimitSource>),
}

impl ExtensionBounds {
    /// What the policies leave.
    pub fn of(idle: LimitPolicy, duration: LimitPolicy, granted: TimeLimit) -> Self {
        let bound = |policy: LimitPolicy, open: u32| {
            policy.tightest().map_or((open, None), |(most, source)| (most, Some(source)))
        };
        let open = granted.as_seconds().saturating_add(MOST_EXTENDED);
        Self { duration: bound(duration, open), idle: bound(idle, MOST_EXTENDED) }
    }

    /// Why a session may not be extended by so much, where it may not.
    pub fn complaint(self, session: &Session, marks: LimitMarks, by: u32) -> Option<String> {
        let who = |source: Option<LimitSource>| source.map_or("the platform", LimitSource::who);
        let (most, source) = self.duration;
        let taken = end_seconds(session.max_session_duration, marks);
        if session.max_session_duration != TimeLimit::Never && taken.saturating_add(by) > most {
            let (most, left, who) = (written(most), written(most.saturating_sub(taken)), who(source));
            return Some(if left == "0" {
                format!("is too much: {who} allows {most} altogether, and all of it is taken")
            } else {
                format!("must not be more than {left}: {who} allows {most} altogether")
            });
        }
        let (most, source) = self.idle;
        if session.idle_timeout != TimeLimit::Never && by > most {
            let (most, who) = (written(most), who(source));
            return Some(format!("must not be more than {most}: {who} keeps no idle session longer"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600 + seconds, 0).unwrap()
    }

    fn limit(text: &str) -> TimeLimit {
        text.parse().unwrap()
    }

    fn session(idle: &str, duration: &str) -> Session {
        let body = json!({
            "id": SessionId::new(), "orgId": OrgId::new(), "user": "ada", "userId": UserId::new(), "name": "s", "template": "shell",
            "applicationId": null, "agentId": null, "platform": "vm", "region": null, "state": "running", "stateReason": null,
            "stateSince": at(0), "generation": 1, "resources": {"cpu": "1", "memory": "1Gi", "storage": "0"}, "persistentHome": false,
            "idleTimeout": idle, "maxSessionDuration": duration, "tags": [], "streamingReady": true, "streamingPort": null,
            "platformMetadata": {}, "createdAt": at(0), "startedAt": at(0), "lastActivityAt": null, "hibernatedAt": null, "endedAt": null,
        });
        serde_json::from_value(body).unwrap()
    }

    #[test]
    fn the_first_of_both_moments_is_warned_of_and_then_comes() {
        let mut it = session("10m", "1h");
        let mut marks = LimitMarks::default();
        let warned = |due: Option<Due>| due.map(|due| (due.action, due.warned, due.due_at));
        assert_eq!(warned(it.due(marks)), Some((LimitAction::Hibernate, false, at(300))));
        (marks.warned_at, marks.warned_of) = (Some(at(300)), Some(at(600)));
        assert_eq!(warned(it.due(marks)), Some((LimitAction::Hibernate, true, at(600))));
        it.mark(marks);
        assert_eq!(it.warning.as_ref().map(|warning| warning.due_at), Some(at(600)));
        it.last_activity_at = Some(at(400));
        it.mark(marks);
        assert_eq!((it.idle_at, it.ends_at, &it.warning), (Some(at(1_000)), Some(at(3_600)), &None));
        it.last_activity_at = Some(at(3_100));
        assert_eq!(warned(it.due(marks)), Some((LimitAction::Terminate, false, at(3_300))));
        it.state = SessionState::Hibernated;
        it.mark(marks);
        assert_eq!((it.idle_at, it.ends_at), (None, Some(at(3_600))));
        assert!(session("0", "0").due(marks).is_none());
    }

    #[test]
    fn a_short_limit_is_warned_of_half_way_and_a_late_warning_leaves_its_time() {
        let it = session("1m", "0");
        assert_eq!(it.due(LimitMarks::default()).unwrap().due_at, at(30));
        let late = LimitMarks { warned_at: Some(at(500)), warned_of: Some(at(60)), ..LimitMarks::default() };
        assert_eq!(it.due(late).unwrap().due_at, at(530));
    }

    #[test]
    fn what_was_extended_comes_later() {
        let mut it = session("10m", "1h");
        it.mark(LimitMarks { extended_seconds: 1_800, kept_until: Some(at(1_800)), ..LimitMarks::default() });
        assert_eq!((it.idle_at, it.ends_at), (Some(at(1_800)), Some(at(5_400))));
    }

    #[test]
    fn the_tighter_maximum_wins_and_more_is_refused_by_name() {
        let rule = |default: Option<&str>, maximum: Option<&str>| LimitRule {
            default: default.map(limit),
            maximum: maximum.map(limit),
        };
        let policy = LimitPolicy {
            organization: rule(Some("1h"), Some("2h")),
            platform: rule(Some("10m"), Some("8h")),
        };
        let granted = |limit: &str, source| Ok(Granted { limit: limit.parse().unwrap(), source });
        assert_eq!(policy.grant(None), granted("1h", LimitSource::OrganizationDefault));
        assert_eq!(policy.grant(Some(limit("2h"))), granted("2h", LimitSource::Request));
        assert_eq!(
            policy.grant(Some(limit("3h"))),
            Err("must not be more than 2h, which the organization allows".to_owned())
        );
        assert!(policy.grant(Some(TimeLimit::Never)).unwrap_err().ends_with("0 is never"));
        let platform = LimitPolicy { organization: rule(None, None), ..policy };
        assert_eq!(platform.grant(None), granted("10m", LimitSource::PlatformDefault));
        assert!(platform.grant(Some(limit("9h"))).unwrap_err().contains("the platform allows"));
        let cut = LimitPolicy { organization: rule(None, Some("5m")), ..policy };
        assert_eq!(cut.grant(None), granted("5m", LimitSource::OrganizationMaximum));
        assert_eq!(LimitPolicy::default().grant(None), granted("0", LimitSource::PlatformDefault));
    }

    #[test]
    fn an_organization_stays_under_the_platform_and_every_bad_field_is_named() {
        let body = json!({"idleTimeout": {"default": "9h", "maximum": "0"}, "maxSessionDuration": {"default": "2h", "maximum": "1h"}});
        let asked = SetSessionPolicyRequest::from_json(body).unwrap();
        let platform = LimitRules {
            idle_timeout: LimitRule { default: None, maximum: Some(limit("8h")) },
            max_session_duration: LimitRule::default(),
        };
        let errors = asked.over(LimitRules::default()).check(platform).unwrap_err();
        let names: Vec<&str> = errors.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["idleTimeout.default", "idleTimeout.maximum", "maxSessionDuration.default"]);
        let body = json!({"idleTimeout": {"default": "5s", "odd": 1}, "maxSessionDuration": 7, "more": true});
        let errors = SetSessionPolicyRequest::from_json(body).unwrap_err();
        let names: Vec<&str> = errors.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["idleTimeout.default", "idleTimeout.odd", "maxSessionDuration", "more"]);
    }

    #[test]
    fn an_extension_stays_within_policy() {
        let rule = LimitRule { default: None, maximum: Some(limit("2h")) };
        let policy = LimitPolicy { organization: rule, platform: LimitRule::default() };
        let it = session("10m", "1h");
        let bounds = ExtensionBounds::of(LimitPolicy::default(), policy, it.max_session_duration);
        assert_eq!(bounds.complaint(&it, LimitMarks::default(), 3_600), None);
        let more = bounds.complaint(&it, LimitMarks::default(), 3_601).unwrap();
        assert_eq!(more, "must not be more than 1h: the organization allows 2h altogether");
        let marks = LimitMarks { extended_seconds: 3_600, ..LimitMarks::default() };
        assert!(bounds.complaint(&it, marks, 60).unwrap().contains("all of it is taken"));
        let idle = ExtensionBounds::of(policy, LimitPolicy::default(), TimeLimit::Never);
        assert!(
            idle.complaint(&session("1h", "0"), LimitMarks::default(), 7_201)
                .unwrap()
                .contains("no idle session")
        );
    }
}
