//! Idle timeouts, longest durations, warnings and extensions, by a clock that stands still until it is moved.

use chrono::TimeDelta;
use serde_json::json;
use tidegate_model::{
    ActivityKind, Clock, FromFields, LimitAction, LimitRule, LimitRules, LimitSource, NewSession, Session,
    SessionId, SessionState, SetSessionPolicyRequest, TimeLimit,
};
use tidegate_service::{Error, Options, Services, Swept};
use tidegate_test_support::{SimAgent, TestDb, TestOrg, new_session};

use crate::{get, queued, state};

struct Stage {
    test: TestDb,
    org: TestOrg,
    agent: SimAgent,
}

fn limit(text: &str) -> TimeLimit {
    text.parse().unwrap()
}

fn wanted(idle: &str, duration: &str) -> NewSession {
    NewSession {
        idle_timeout: Some(limit(idle)),
        max_session_duration: Some(limit(duration)),
        ..new_session("shell")
    }
}

const NOTHING: Swept = Swept { warned: 0, hibernated: 0, terminated: 0 };
const WARNED: Swept = Swept { warned: 1, ..NOTHING };
const HIBERNATED: Swept = Swept { hibernated: 1, ..NOTHING };

impl Stage {
    async fn new() -> Self {
        let test = TestDb::new().await;
        let org = test.org_with_admin("acme").await;
        let agent = test.online_agent("vm-1", 100).await;
        Self { test, org, agent }
    }

    fn services(&self) -> &Services {
        self.test.services()
    }

    async fn running(&mut self, new: NewSession) -> SessionId {
        let made =
            self.services().sessions.create(self.org.admin.org().unwrap(), new, None, |_, _| ().into());
        let id = queued(made.await.unwrap()).id;
        self.agent.work().await;
        assert_eq!(state(&self.test, &self.org.admin, id).await, SessionState::Running);
        id
    }

    async fn get(&self, id: SessionId) -> Session {
        get(&self.test, &self.org.admin, id).await
    }

    /// Some seconds later, after a sweep.
    async fn after(&self, seconds: i64) -> Swept {
        self.test.manual_clock().advance(TimeDelta::seconds(seconds));
        self.services().limits.sweep().await.unwrap()
    }
}

#[tokio::test]
async fn an_idle_session_is_warned_and_then_hibernates_with_its_reason() {
    let mut stage = Stage::new().await;
    let id = stage.running(wanted("10m", "0")).await;
    let idle_at = stage.get(id).await.idle_at.unwrap();
    assert_eq!(idle_at, stage.test.manual_clock().now() + TimeDelta::minutes(10));
    assert_eq!(stage.after(299).await, NOTHING);
    assert_eq!(stage.after(1).await, WARNED);
    assert_eq!(stage.after(0).await, NOTHING, "once");
    let warning = stage.get(id).await.warning.unwrap();
    assert_eq!((warning.action, warning.due_at), (LimitAction::Hibernate, idle_at));
    // What was typed up to then may still be on its way: two periods.
    assert_eq!(stage.after(300 + 29).await, NOTHING);
    assert_eq!(stage.after(1).await, HIBERNATED);
    assert_eq!(stage.get(id).await.state, SessionState::Hibernating);
    stage.agent.work().await;
    let asleep = stage.get(id).await;
    assert_eq!(
        (asleep.state, asleep.state_reason.as_deref()),
        (SessionState::Hibernated, Some("idle for 10m"))
    );
    assert_eq!((asleep.idle_at, asleep.warning), (None, None));
    let history = stage.services().sessions.history(stage.org.admin.org().unwrap(), id).await.unwrap();
    let told: Vec<(&str, &str)> = history[2..]
        .iter()
        .map(|event| (event.to_state.as_str(), event.reason.as_deref().unwrap_or_default()))
        .collect();
    assert!(told[0].0 == "running" && told[0].1.starts_with("warning: idle, hibernates at 2026"), "{told:?}");
    assert_eq!(told[1..], [("hibernating", "idle for 10m"), ("hibernated", "idle for 10m")]);
    let line: String = stage
        .test
        .look("SELECT concat_ws(' ', actor, actor_key, resource, detail ->> 'reason') FROM audit_log WHERE action = 'session.hibernate'")
        .await;
    assert_eq!(line, format!("system system session:{id} idle for 10m"));
}

#[tokio::test]
async fn activity_makes_a_warning_void_and_puts_the_hibernation_off() {
    let mut stage = Stage::new().await;
    let id = stage.running(wanted("10m", "0")).await;
    assert_eq!(stage.after(301).await, WARNED);
    let typed = [(id, stage.org.admin.user().user_id())].into();
    assert_eq!(stage.services().activity.note_input(&typed).await.unwrap(), 1);
    let session = stage.get(id).await;
    assert_eq!(session.warning, None);
    assert_eq!(session.idle_at, Some(stage.test.manual_clock().now() + TimeDelta::minutes(10)));
    assert_eq!(stage.after(299).await, NOTHING);
    assert_eq!(stage.after(1).await, WARNED, "a new one");
    assert_eq!(stage.after(331).await, HIBERNATED);
}

#[tokio::test]
async fn looking_at_a_session_is_no_activity() {
    let mut stage = Stage::new().await;
    let id = stage.running(wanted("10m", "0")).await;
    let (services, scope) = (stage.services(), stage.org.admin.org().unwrap());
    stage.test.manual_clock().advance(TimeDelta::minutes(4));
    let before = stage.get(id).await;
    services.sessions.history(scope, id).await.unwrap();
    services.limits.policy(scope, id).await.unwrap();
    services.activity.list(scope, id).await.unwrap();
    let watched = services.streams.open_any(stage.org.admin.clone(), id, tidegate_model::StreamMode::View);
    watched.await.unwrap();
    assert_eq!((stage.get(id).await.idle_at, before.last_activity_at), (before.idle_at, None));
}

#[tokio::test]
async fn the_last_twenty_reasons_are_kept_and_never_more() {
    let mut stage = Stage::new().await;
    let id = stage.running(new_session("shell")).await;
    let (services, scope) = (stage.services(), stage.org.admin.org().unwrap());
    for _ in 0..25 {
        stage.test.manual_clock().advance(TimeDelta::seconds(15));
        services.activity.heartbeat(scope, id).await.unwrap();
        // In the same period: not written.
        services.activity.heartbeat(scope, id).await.unwrap();
    }
    let typed = [(id, stage.org.admin.user().user_id())].into();
    services.activity.note_input(&typed).await.unwrap();
    let reasons = services.activity.list(scope, id).await.unwrap();
    assert_eq!(reasons.len(), 20);
    assert_eq!((reasons[0].kind, reasons[0].user.as_str()), (ActivityKind::Input, scope.username()));
    assert!(reasons[1..].iter().all(|reason| reason.kind == ActivityKind::Heartbeat));
    assert!(reasons.windows(2).all(|two| two[0].at >= two[1].at), "{reasons:?}");
    assert_eq!(stage.test.look::<i64>("SELECT count(*) FROM session_activity").await, 20);
    assert_eq!(stage.test.look::<i64>("SELECT activity_count FROM sessions").await, 26);
}

#[tokio::test]
async fn a_session_ends_after_its_longest_duration_asleep_or_awake() {
    let mut stage = Stage::new().await;
    let awake = stage.running(wanted("0", "1h")).await;
    let asleep = stage.running(wanted("0", "1h")).await;
    stage.services().sessions.hibernate(stage.org.admin.org().unwrap(), asleep).await.unwrap();
    stage.agent.work().await;
    assert_eq!(stage.after(54 * 60).await, NOTHING);
    assert_eq!(stage.after(60).await, Swept { warned: 2, ..NOTHING });
    assert_eq!(stage.get(awake).await.warning.unwrap().action, LimitAction::Terminate);
    assert_eq!(stage.after(299).await, NOTHING);
    assert_eq!(stage.after(1).await, Swept { terminated: 2, ..NOTHING });
    stage.agent.work().await;
    for id in [awake, asleep] {
        let ended = stage.get(id).await;
        assert_eq!(ended.state, SessionState::Terminated);
        assert_eq!(ended.state_reason.as_deref(), Some("its longest duration of 1h is over"));
        assert_eq!((ended.ends_at, ended.warning), (None, None));
    }
}

#[tokio::test]
async fn a_woken_session_is_counted_anew() {
    let mut stage = Stage::new().await;
    let id = stage.running(wanted("1m", "0")).await;
    assert_eq!(stage.after(30).await, WARNED);
    assert_eq!(stage.after(60).await, HIBERNATED);
    stage.agent.work().await;
    assert_eq!(stage.after(10_000).await, NOTHING, "asleep for as long as it likes");
    stage.services().sessions.wake(stage.org.admin.org().unwrap(), id).await.unwrap();
    stage.agent.work().await;
    assert_eq!(stage.get(id).await.idle_at, Some(stage.test.manual_clock().now() + TimeDelta::minutes(1)));
    assert_eq!(stage.after(29).await, NOTHING);
    assert_eq!(stage.after(1).await, WARNED);
}

#[tokio::test]
async fn after_a_long_silence_of_the_platform_the_warning_still_leaves_its_time() {
    let mut stage = Stage::new().await;
    let id = stage.running(wanted("10m", "0")).await;
    // Nobody swept for a day, and nobody could type: another program comes up.
    stage.test.manual_clock().advance(TimeDelta::days(1));
    let restarted = stage.test.services_with(TestDb::options());
    assert_eq!(restarted.limits.sweep().await.unwrap(), WARNED);
    assert_eq!(state(&stage.test, &stage.org.admin, id).await, SessionState::Running);
    stage.test.manual_clock().advance(TimeDelta::seconds(299));
    assert_eq!(restarted.limits.sweep().await.unwrap(), NOTHING);
    let again = stage.test.services_with(TestDb::options());
    stage.test.manual_clock().advance(TimeDelta::seconds(31));
    assert_eq!(again.limits.sweep().await.unwrap(), HIBERNATED);
}

#[tokio::test]
async fn of_many_who_sweep_one_wins_each_session() {
    let mut stage = Stage::new().await;
    let count = 12;
    for _ in 0..count {
        stage.running(wanted("1m", "0")).await;
    }
    let others: Vec<Services> = (0..4).map(|_| stage.test.services_with(TestDb::options())).collect();
    for (seconds, wanted) in
        [(30, Swept { warned: count, ..NOTHING }), (60, Swept { hibernated: count, ..NOTHING })]
    {
        stage.test.manual_clock().advance(TimeDelta::seconds(seconds));
        let sweeps: Vec<_> = others
            .iter()
            .map(|other| {
                let limits = other.limits.clone();
                tokio::spawn(async move { limits.sweep().await.unwrap() })
            })
            .collect();
        let mut sum = Swept::default();
        for sweep in sweeps {
            let swept = sweep.await.unwrap();
            sum.warned += swept.warned;
            sum.hibernated += swept.hibernated;
            sum.terminated += swept.terminated;
        }
        assert_eq!(sum, wanted);
    }
    let commands = "SELECT count(*) FROM commands WHERE action = 'hibernate_session'";
    assert_eq!(stage.test.look::<i64>(commands).await, i64::try_from(count).unwrap());
    let warnings = "SELECT count(*) FROM session_events WHERE from_state = to_state";
    assert_eq!(stage.test.look::<i64>(warnings).await, i64::try_from(count).unwrap());
}

#[tokio::test]
async fn an_extension_puts_both_moments_off_within_policy() {
    let mut stage = Stage::new().await;
    let scope = stage.org.admin.org().unwrap().clone();
    let body = json!({"maxSessionDuration": {"maximum": "2h"}, "idleTimeout": {"maximum": "1h"}});
    let policy = SetSessionPolicyRequest::from_json(body).unwrap();
    stage.services().limits.set_organization(&scope, policy).await.unwrap();
    let id = stage.running(wanted("10m", "1h")).await;
    let before = stage.get(id).await;
    assert_eq!(stage.after(301).await, WARNED);
    let extended = stage.services().limits.extend(&scope, id, 1_800).await.unwrap();
    assert_eq!(extended.ends_at.unwrap() - before.ends_at.unwrap(), TimeDelta::minutes(30));
    assert_eq!(extended.idle_at, Some(stage.test.manual_clock().now() + TimeDelta::minutes(30)));
    assert_eq!(extended.warning, None);
    let refused = |error: Error| match error {
        Error::Invalid(errors) => errors.to_string(),
        other => panic!("{other:?}"),
    };
    let error = refused(stage.services().limits.extend(&scope, id, 1_801).await.unwrap_err());
    assert_eq!(error, "by: must not be more than 30m: the organization allows 2h altogether");
    stage.services().limits.extend(&scope, id, 1_800).await.unwrap();
    assert!(refused(stage.services().limits.extend(&scope, id, 60).await.unwrap_err()).contains("all of it"));
    let policy = stage.services().limits.policy(&scope, id).await.unwrap();
    assert_eq!(policy.extended_by, TimeLimit::Seconds(3_600));
    stage.services().sessions.terminate(&scope, id).await.unwrap();
    let error = stage.services().limits.extend(&scope, id, 60).await.unwrap_err();
    assert!(matches!(error, Error::WrongState { state: SessionState::Terminating, .. }), "{error:?}");
}

#[tokio::test]
async fn racing_extensions_take_no_more_than_there_is() {
    let mut stage = Stage::new().await;
    let scope = stage.org.admin.org().unwrap().clone();
    let policy =
        SetSessionPolicyRequest::from_json(json!({"maxSessionDuration": {"maximum": "2h"}})).unwrap();
    stage.services().limits.set_organization(&scope, policy).await.unwrap();
    let id = stage.running(wanted("0", "1h")).await;
    let racers: Vec<_> = (0..6)
        .map(|_| {
            let (limits, scope) = (stage.services().limits.clone(), scope.clone());
            tokio::spawn(async move { limits.extend(&scope, id, 1_800).await.is_ok() })
        })
        .collect();
    let mut won = 0;
    for racer in racers {
        won += usize::from(racer.await.unwrap());
    }
    assert_eq!(won, 2);
    assert_eq!(stage.test.look::<i32>("SELECT extended_seconds FROM sessions").await, 3_600);
}

#[tokio::test]
async fn the_tighter_of_platform_and_organization_holds_and_says_whose_it_is() {
    let test = TestDb::new().await;
    let rule = |default, maximum| LimitRule { default: Some(limit(default)), maximum: Some(limit(maximum)) };
    let session_policy =
        LimitRules { idle_timeout: rule("30m", "8h"), max_session_duration: rule("0", "24h") };
    let services = test.services_with(Options { session_policy, ..TestDb::options() });
    let org = test.org_with_admin("acme").await;
    let agent = SimAgent::online(&services, "vm-1", 10).await;
    let scope = org.admin.org().unwrap();
    let create = async |new| services.sessions.create(scope, new, None, |_, _| ().into()).await;
    let plain = queued(create(new_session("shell")).await.unwrap());
    assert_eq!(
        (Some(plain.idle_timeout), Some(plain.max_session_duration)),
        (Some(limit("30m")), Some(limit("24h")))
    );
    let policy = services.limits.policy(scope, plain.id).await.unwrap();
    assert_eq!(policy.idle_timeout.source, LimitSource::PlatformDefault);
    assert_eq!(policy.max_session_duration.source, LimitSource::PlatformMaximum);
    assert_eq!(policy.max_session_duration.owner, "platform");
    let body = json!({"idleTimeout": {"default": "20m", "maximum": "1h"}});
    let request = SetSessionPolicyRequest::from_json(body).unwrap();
    let shown = services.limits.set_organization(scope, request).await.unwrap();
    assert_eq!(Some(shown.idle_timeout.effective_maximum), Some(limit("1h")));
    let tighter = queued(create(new_session("shell")).await.unwrap());
    let policy = services.limits.policy(scope, tighter.id).await.unwrap();
    assert_eq!(
        (policy.idle_timeout.source, policy.idle_timeout.owner.as_str()),
        (LimitSource::OrganizationDefault, "acme")
    );
    assert_eq!(policy.idle_timeout.bounds.len(), 5);
    let refused = create(wanted("2h", "0")).await.unwrap_err();
    let Error::Invalid(errors) = refused else { panic!("{refused:?}") };
    assert_eq!(
        errors.to_string(),
        "idleTimeout: must not be more than 1h, which the organization allows; \
         maxSessionDuration: must not be more than 1d, which the platform allows, and 0 is never"
    );
    let asked = queued(create(wanted("45m", "2h")).await.unwrap());
    let policy = services.limits.policy(scope, asked.id).await.unwrap();
    assert_eq!(
        (policy.idle_timeout.source, policy.idle_timeout.owner.as_str()),
        (LimitSource::Request, scope.username())
    );
    let over = SetSessionPolicyRequest::from_json(json!({"idleTimeout": {"maximum": "9h"}})).unwrap();
    assert!(matches!(services.limits.set_organization(scope, over).await, Err(Error::Invalid(_))));
    drop(agent);
}

#[tokio::test]
async fn the_database_works_out_the_same_moments() {
    let mut stage = Stage::new().await;
    for (idle, duration) in
        [("10m", "1h"), ("1m", "0"), ("0", "90s"), ("1h", "1h"), ("30d", "30d"), ("0", "0")]
    {
        stage.running(wanted(idle, duration)).await;
    }
    let base = stage.test.manual_clock().now();
    for change in [
        "kept_until = state_since + interval '25 minutes'",
        "last_activity_at = state_since + interval '7 minutes', extended_seconds = 1800",
        "warned_at = state_since + interval '20 minutes', warned_of = state_since + interval '17 minutes'",
        "warned_of = LEAST(session_idle_at(state, state_since, last_activity_at, kept_until, idle_seconds), session_ends_at(started_at, max_seconds, extended_seconds))",
        "state = 'hibernated'",
    ] {
        stage.test.execute(&format!("UPDATE sessions SET {change}")).await;
        let rows = stage
            .test
            .superuser()
            .await
            .query(
                "SELECT id::text, to_char(session_due_at(session_idle_at(state, state_since, last_activity_at, kept_until, idle_seconds), idle_seconds,
                     session_ends_at(started_at, max_seconds, extended_seconds), max_seconds, warned_at, warned_of) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS'),
                     extended_seconds, extract(epoch FROM kept_until)::bigint, extract(epoch FROM warned_at)::bigint, extract(epoch FROM warned_of)::bigint
                 FROM sessions",
                &[],
            )
            .await
            .unwrap();
        assert_eq!(rows.len(), 6);
        for row in rows {
            let session = stage.get(row.get::<_, String>(0).parse().unwrap()).await;
            let moment = |column| {
                row.get::<_, Option<i64>>(column).and_then(|at| chrono::DateTime::from_timestamp(at, 0))
            };
            let marks = tidegate_model::LimitMarks {
                extended_seconds: u32::try_from(row.get::<_, i32>(2)).unwrap(),
                kept_until: moment(3),
                warned_at: moment(4),
                warned_of: moment(5),
            };
            let ours = session.due(marks).map(|due| due.due_at.format("%Y-%m-%dT%H:%M:%S").to_string());
            assert_eq!(ours, row.get::<_, Option<String>>(1), "{change}: {session:?}, from {base}");
        }
    }
}

#[tokio::test]
async fn the_sweep_reads_the_index_and_not_the_sessions() {
    let mut stage = Stage::new().await;
    let id = stage.running(wanted("1m", "0")).await;
    // Sessions of the past, whose limits are over and done with, and many that live and have time.
    stage
        .test
        .execute(&format!(
            "CREATE TEMP TABLE one AS SELECT * FROM sessions WHERE id = '{id}';
             INSERT INTO sessions SELECT (r).* FROM (SELECT jsonb_populate_record(o, jsonb_build_object('id', gen_random_uuid(),
                     'state', CASE WHEN n % 3 = 0 THEN 'running' ELSE 'terminated' END, 'idle_seconds', 2592000)) AS r
                 FROM one o, generate_series(1, 6000) n) x;
             ANALYZE sessions"
        ))
        .await;
    let client = stage.test.superuser().await;
    let plan = client
        .query(
            "EXPLAIN SELECT s.id FROM sessions s WHERE s.state IN ('running', 'hibernated') AND (s.idle_seconds > 0 OR s.max_seconds > 0)
               AND session_due_at(session_idle_at(s.state, s.state_since, s.last_activity_at, s.kept_until, s.idle_seconds), s.idle_seconds,
                   session_ends_at(s.started_at, s.max_seconds, s.extended_seconds), s.max_seconds, s.warned_at, s.warned_of) <= '2030-01-01'",
            &[],
        )
        .await
        .unwrap();
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    assert!(plan.join("\n").contains("sessions_due"), "{plan:?}");
    assert_eq!(stage.after(30).await, WARNED);
    assert_eq!(stage.after(60).await, HIBERNATED);
    assert_eq!(stage.after(60).await, NOTHING);
}

#[tokio::test]
async fn an_idle_session_of_an_agent_that_is_gone_goes_on_and_is_tried_again() {
    let mut stage = Stage::new().await;
    let id = stage.running(wanted("1m", "0")).await;
    assert_eq!(stage.after(30).await, WARNED);
    assert_eq!(stage.after(60).await, HIBERNATED);
    stage.test.manual_clock().advance(TimeDelta::seconds(301));
    stage.services().links.sweep().await.unwrap();
    assert_eq!(stage.get(id).await.state, SessionState::Running, "nobody was there to do it");
    assert_eq!(stage.after(30).await, WARNED);
    assert_eq!(stage.after(60).await, HIBERNATED);
}
