//! The settings of the use cases.

use chrono::TimeDelta;
use tidegate_identity::Options as SignInOptions;
use tidegate_model::{DefaultQuota, LimitRules, Secret};

use crate::{PluginOptions, RepositoryOptions, Retention};

/// Settings with their defaults.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The key that new agents register with; without it no agent can register.
    pub agent_bootstrap_key: Option<Secret<String>>,
    /// Minutes a login token is good for. Default 15.
    pub token_minutes: u32,
    /// Days a login lasts while it is refreshed. Default 30.
    pub login_days: u32,
    /// Hours a browser's login lasts. Default 12.
    pub browser_hours: u32,
    /// Seconds a device waits to be let in. Default 600.
    pub device_code_seconds: u32,
    /// Days a device's bearer token is good for. Default 90.
    pub bearer_token_days: u32,
    /// Seconds a stream ticket is good for, at most 30. Default 30.
    pub ticket_seconds: u32,
    /// Minutes that a browser's cookie of a session's own origin is good for; it is renewed by a new ticket. Default 720.
    pub grant_minutes: u32,
    /// Seconds until a start or wake of a container that got no answer fails: its image may have to be fetched first.
    /// Default 1800.
    pub image_deadline_seconds: u32,
    /// Seconds until a start or wake that got no answer fails. Default 300.
    pub start_deadline_seconds: u32,
    /// Seconds until a stop or hibernate that got no answer fails. Default 300.
    pub stop_deadline_seconds: u32,
    /// Seconds between an agent's heartbeats. Default 10.
    pub heartbeat_seconds: u32,
    /// Heartbeats missed before an agent is offline. Default 3.
    pub missed_heartbeats: u32,
    /// Seconds until a command that was sent and not acknowledged is sent again. Default 15.
    pub resend_seconds: u32,
    /// Seconds after which a session that waits for no command any more is healed. Default 60.
    pub heal_seconds: u32,
    /// Seconds that a start which failed puts its agent behind all others. Default 300.
    pub failed_start_seconds: u32,
    /// How long what is kept. Beside the other settings: `retention.*`.
    #[serde(skip)]
    pub retention: Retention,
    /// What repositories may be fetched. Beside the other settings: `repositories.*`.
    #[serde(skip)]
    pub repositories: RepositoryOptions,
    /// Password hashes computed at one time: each takes 19 MiB and 26 ms of a core. Default: one core fewer than there are,
    /// which is left to everybody else, and at least 1.
    pub password_workers: usize,
    /// Failed logins a minute from one address before the answer is 429. Default 20.
    pub failures_per_source: u32,
    /// Failed logins a minute for one username before the answer is 429. Default 10.
    pub failures_per_subject: u32,
    /// Devices a minute that one address may ask for before the answer is 429. Default 20.
    pub device_codes_per_source: u32,
    /// Wrong user codes a minute of one user, and of one address, before the answer is 429. Default 10.
    pub wrong_user_codes: u32,
    /// Registrations of new agents a minute from one address before the answer is 429. Default 20.
    pub registrations_per_source: u32,
    /// Agents that wait for an operator at most, before new ones are answered 429. Default 1 000.
    pub pending_agents: u32,
    /// Sign-ins elsewhere a minute that one address may begin before the answer is 429. Default 20.
    pub sign_ins_per_source: u32,
    /// Minutes that the link of a mail for a forgotten password is good for, at most 60. Default 30.
    pub password_reset_minutes: u32,
    /// Forgotten passwords an hour that one address may ask for before the answer is 429. Default 20.
    pub password_resets_per_source: u32,
    /// Forgotten passwords an hour of one name, from wherever, before the answer is 429. Default 5.
    pub password_resets_per_subject: u32,
    /// Who may vouch for people: the section `auth` of the settings.
    #[serde(skip)]
    pub sign_in: SignInOptions,
    /// Logins a minute of one username from one address, right passwords too, before the answer is 429. Default 30.
    pub logins_per_minute: u32,
    /// What a member may use at one time who has no quota of their own, admins of the platform left aside: each of
    /// `max_sessions`, `max_cpu`, `max_memory`, `max_storage` may be `unlimited`. Default 5, 4000m, 8Gi, 50Gi.
    pub default_quota: DefaultQuota,
    /// Seconds between two notes of what was typed into a session; what a program declares counts once in as many.
    /// Default 15.
    pub activity_seconds: u32,
    /// Default and maximum of `idle_timeout` and of `max_session_duration`, for example
    /// `idle_timeout = { default = "30m", maximum = "8h" }`. Organizations say what is tighter. Default: never, and no
    /// maximum.
    pub session_policy: LimitRules,
    /// Plugins: the section `service.plugins` of the settings.
    pub plugins: PluginOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            agent_bootstrap_key: None,
            token_minutes: 15,
            login_days: 30,
            browser_hours: 12,
            device_code_seconds: 600,
            bearer_token_days: 90,
            ticket_seconds: 30,
            grant_minutes: 720,
            image_deadline_seconds: 1_800,
            start_deadline_seconds: 300,
            stop_deadline_seconds: 300,
            heartbeat_seconds: 10,
            missed_heartbeats: 3,
            resend_seconds: 15,
            heal_seconds: 60,
            failed_start_seconds: 300,
            retention: Retention::default(),
            password_workers: all_cores_but_one(),
            repositories: RepositoryOptions::default(),
            failures_per_source: 20,
            failures_per_subject: 10,
            device_codes_per_source: 20,
            wrong_user_codes: 10,
            registrations_per_source: 20,
            pending_agents: 1_000,
            sign_ins_per_source: 20,
            password_reset_minutes: 30,
            password_resets_per_source: 20,
            password_resets_per_subject: 5,
            sign_in: SignInOptions::default(),
            logins_per_minute: 30,
            default_quota: DefaultQuota::default(),
            activity_seconds: 15,
            session_policy: LimitRules::default(),
            plugins: PluginOptions::default(),
        }
    }
}

fn all_cores_but_one() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1))
}

impl Options {
    /// How long an agent may be silent.
    pub(crate) fn silence(&self) -> TimeDelta {
        TimeDelta::seconds(i64::from(self.heartbeat_seconds) * i64::from(self.missed_heartbeats))
    }

    pub(crate) fn seconds(seconds: u32) -> TimeDelta {
        TimeDelta::seconds(i64::from(seconds))
    }
}
