//! Quotas: never overrun, whoever asks how often at the same time; the most restrictive bound holds and is named.

use futures_util::future::join_all;
use tidegate_model::{
    AddGroupMemberRequest, CreateGroupRequest, DefaultQuota, Group, GroupId, GroupRole, GroupType,
    NewSession, OrgRole, PatchField, QuotaBound, QuotaCheck, QuotaOwner, QuotaResource, ResourceRequest,
    Session, SessionState, SetQuotaRequest, SystemRole,
};
use tidegate_service::{Caller, Changed, Error, MadeGroup, Options, Result, Services};
use tidegate_test_support::{TestDb, TestOrg, new_session};

use crate::{queued, state};

/// An organization whose members have the platform's default, and an agent with much room.
struct Stage {
    test: TestDb,
    services: Services,
    org: TestOrg,
    agent: tidegate_test_support::SimAgent,
}

fn sessions(limit: i64) -> SetQuotaRequest {
    limits([Some(limit), None, None, None])
}

/// `None` is absent.
fn limits(limits: [Option<i64>; 4]) -> SetQuotaRequest {
    SetQuotaRequest {
        username: None,
        limits: limits.map(|it| it.map_or(PatchField::Absent, PatchField::Set)),
    }
}

impl Stage {
    async fn new() -> Self {
        let test = TestDb::new().await;
        let services =
            test.services_with(Options { default_quota: DefaultQuota::default(), ..TestDb::options() });
        let org = test.org_with_admin("acme").await;
        let agent = test.online_agent("vm-1", 1_000).await;
        Self { test, services, org, agent }
    }

    async fn member(&self) -> Caller {
        self.test.caller(&self.test.user_in("acme", OrgRole::User).await).await
    }

    async fn create(&self, caller: &Caller, new: NewSession) -> Result<Changed> {
        self.services.sessions.create(caller.org().unwrap(), new, None, |_, _| ().into()).await
    }

    async fn start(&self, caller: &Caller) -> Session {
        queued(self.create(caller, new_session("shell")).await.unwrap())
    }

    /// The bound that holds the next plain session back.
    async fn held(&self, caller: &Caller) -> QuotaBound {
        held(self.create(caller, new_session("shell")).await)
    }

    async fn group(&self, name: &str, parent: Option<GroupId>, members: &[&Caller]) -> Group {
        let scope = self.org.admin.org().unwrap();
        let request = CreateGroupRequest {
            name: name.into(),
            display_name: name.into(),
            description: String::new(),
            kind: GroupType::Team,
            parent_id: parent,
        };
        let made = self.services.groups.create(scope, request, None, |_| ().into()).await.unwrap();
        let MadeGroup::New(group) = made else { panic!("a new group") };
        let group = *group;
        for member in members {
            let add = AddGroupMemberRequest { user_id: member.user().user_id(), role: GroupRole::Member };
            self.services.groups.add(scope, group.id, add).await.unwrap();
        }
        group
    }

    async fn bound(&self, group: &Group, quota: SetQuotaRequest) {
        self.services.quotas.set_group(self.org.admin.org().unwrap(), group.id, quota).await.unwrap();
    }

    async fn bound_user(&self, caller: &Caller, quota: SetQuotaRequest) {
        let scope = self.org.admin.org().unwrap();
        self.services.quotas.set_user(scope, caller.user().user_id(), quota).await.unwrap();
    }
}

fn held(outcome: Result<Changed>) -> QuotaBound {
    match outcome {
        Err(Error::QuotaExceeded(bound)) => *bound,
        other => panic!("{other:?} was not held back"),
    }
}

/// How many of so many requests at once, by these callers in turn, became sessions; the rest was held back.
async fn race(services: &Services, callers: &[&Caller], requests: usize) -> usize {
    let creates = (0..requests).map(|number| {
        let (sessions, scope) =
            (services.sessions.clone(), callers[number % callers.len()].org().unwrap().clone());
        tokio::spawn(
            async move { sessions.create(&scope, new_session("shell"), None, |_, _| ().into()).await },
        )
    });
    let mut made = 0;
    for outcome in join_all(creates).await {
        match outcome.unwrap() {
            Ok(Changed::Queued(..)) => made += 1,
            Err(Error::QuotaExceeded(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    made
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thirty_two_requests_at_once_against_a_users_limit_give_exactly_the_limit() {
    let stage = Stage::new().await;
    let user = stage.member().await;
    assert_eq!(race(&stage.services, &[&user], 32).await, 5, "the default");
    assert_eq!(stage.test.look::<i64>("SELECT count(*) FROM sessions").await, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thirty_two_requests_at_once_against_a_groups_limit_give_exactly_the_limit() {
    let stage = Stage::new().await;
    let (a, b, c) = (stage.member().await, stage.member().await, stage.member().await);
    let top = stage.group("top", None, &[&a]).await;
    stage.group("below", Some(top.id), &[&b, &c]).await;
    stage.bound(&top, sessions(7)).await;
    assert_eq!(race(&stage.services, &[&a, &b, &c], 32).await, 7);
    assert_eq!(stage.test.look::<i64>("SELECT count(*) FROM sessions").await, 7);
}

#[tokio::test]
async fn a_group_counts_members_of_groups_below_it_once_each_and_its_bound_reaches_down() {
    let stage = Stage::new().await;
    let (a, b) = (stage.member().await, stage.member().await);
    let top = stage.group("top", None, &[&a]).await;
    let middle = stage.group("middle", Some(top.id), &[&a]).await;
    stage.group("low", Some(middle.id), &[&a, &b]).await;
    stage.bound(&top, sessions(3)).await;
    stage.start(&a).await;
    stage.start(&b).await;
    let scope = stage.org.admin.org().unwrap();
    let counted = stage.services.quotas.of_group(scope, top.id).await.unwrap().numbers;
    assert_eq!(
        (counted.used_sessions, counted.used_cpu.as_str(), counted.max_sessions),
        (2, "1000m", Some(3))
    );
    stage.start(&b).await;
    let bound = stage.held(&a).await;
    assert_eq!((bound.owner, bound.name.as_str()), (QuotaOwner::Group, "top"));
    assert_eq!((bound.limit.as_str(), bound.used.as_str(), bound.requested.as_str()), ("3", "3", "1"));
    // A group that leaves the hierarchy leaves its bound.
    let out = tidegate_model::UpdateGroupRequest { parent_id: PatchField::Clear, ..Default::default() };
    stage.services.groups.update(scope, middle.id, out).await.unwrap();
    stage.start(&b).await;
    assert_eq!(
        stage.services.quotas.of_group(scope, top.id).await.unwrap().numbers.used_sessions,
        1,
        "a's own alone"
    );
}

#[tokio::test]
async fn of_overlapping_groups_the_most_restrictive_one_holds() {
    let stage = Stage::new().await;
    let (a, b) = (stage.member().await, stage.member().await);
    let wide = stage.group("wide", None, &[&a, &b]).await;
    let tight = stage.group("tight", None, &[&b]).await;
    stage.bound(&wide, sessions(3)).await;
    stage.bound(&tight, sessions(1)).await;
    stage.start(&b).await;
    assert_eq!(stage.held(&b).await.name, "tight");
    stage.start(&a).await;
    stage.start(&a).await;
    assert_eq!(stage.held(&a).await.name, "wide");
    assert_eq!(stage.held(&b).await.name, "tight", "no room in either: the first by name");
    stage.bound_user(&a, sessions(1)).await;
    let bound = stage.held(&a).await;
    assert_eq!(
        (bound.owner, bound.name.as_str()),
        (QuotaOwner::User, a.user().username()),
        "overdrawn the most"
    );
}

#[tokio::test]
async fn the_organizations_bound_holds_everybody_and_its_ceiling_is_the_platforms() {
    let stage = Stage::new().await;
    let (quotas, scope) = (&stage.services.quotas, stage.org.admin.org().unwrap());
    let operator = stage.test.user_with("acme", OrgRole::User, SystemRole::Operator).await;
    let operator = stage.test.caller(&operator).await;
    let platform = &stage.services.platform_quotas;
    platform.set_ceiling(&operator, stage.org.id, sessions(2)).await.unwrap();
    let above = quotas.set_organization(scope, sessions(3)).await;
    assert!(
        matches!(&above, Err(Error::Invalid(errors)) if errors.to_string().contains("maxSessions")),
        "{above:?}"
    );
    let user = stage.member().await;
    stage.start(&user).await;
    stage.start(&stage.org.admin).await;
    let bound = stage.held(&user).await;
    assert_eq!(
        (bound.owner, bound.name.as_str(), bound.limit.as_str()),
        (QuotaOwner::Organization, "acme", "2")
    );
    let within = quotas.set_organization(scope, sessions(1)).await.unwrap();
    assert_eq!((within.numbers.max_sessions, within.ceiling.0.0[0]), (Some(1), Some(2)));
    quotas.reset_organization(scope).await.unwrap();
    assert_eq!(quotas.of_organization(scope).await.unwrap().numbers.max_sessions, Some(2));
    let refused = platform.set_ceiling(&stage.org.admin, stage.org.id, sessions(9)).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    platform.reset_ceiling(&operator, stage.org.id).await.unwrap();
    stage.start(&user).await;
    let audited = "SELECT count(*) FROM audit_log WHERE action LIKE 'quota.ceiling%' AND org_id IS NOT NULL";
    assert_eq!(stage.test.look::<i64>(audited).await, 2);
}

#[tokio::test]
async fn an_admin_of_the_platform_has_no_default_and_any_quota_that_is_set() {
    let stage = Stage::new().await;
    let admin = stage.test.user_with("acme", OrgRole::User, SystemRole::Admin).await;
    let admin = stage.test.caller(&admin).await;
    for _ in 0..7 {
        stage.start(&admin).await;
    }
    stage.bound_user(&admin, sessions(7)).await;
    assert_eq!(stage.held(&admin).await.owner, QuotaOwner::User);
    let quotas = &stage.services.quotas;
    let own = quotas.of_user(admin.org().unwrap(), admin.user().user_id()).await.unwrap().numbers;
    assert_eq!((own.max_sessions, own.max_cpu, own.used_sessions), (Some(7), None, 7));
}

#[tokio::test]
async fn a_quota_below_the_usage_is_set_and_holds_back_new_sessions_alone() {
    let stage = Stage::new().await;
    let user = stage.member().await;
    for _ in 0..3 {
        stage.start(&user).await;
    }
    stage.bound_user(&user, sessions(0)).await;
    stage.bound_user(&user, sessions(0)).await;
    assert_eq!(
        stage.test.look::<i64>("SELECT count(*) FROM audit_log WHERE action = 'quota.set'").await,
        1,
        "a repeat changes nothing"
    );
    let bound = stage.held(&user).await;
    assert_eq!((bound.limit.as_str(), bound.used.as_str()), ("0", "3"));
    assert_eq!(stage.test.look::<i64>("SELECT count(*) FROM sessions WHERE state = 'pending'").await, 3);
    // Unlimited in sessions is not unlimited in CPU: the default of what is not given stays.
    let unlimited = SetQuotaRequest {
        limits: [PatchField::Clear, PatchField::Absent, PatchField::Absent, PatchField::Absent],
        username: None,
    };
    stage.bound_user(&user, unlimited).await;
    for _ in 0..5 {
        stage.start(&user).await;
    }
    let bound = stage.held(&user).await;
    assert_eq!((bound.resource, bound.limit.as_str()), (QuotaResource::Cpu, "4000m"));
    let (scope, id) = (stage.org.admin.org().unwrap(), user.user().user_id());
    stage.services.quotas.reset_user(scope, id).await.unwrap();
    stage.services.quotas.reset_user(scope, id).await.unwrap();
    assert_eq!(stage.held(&user).await.resource, QuotaResource::Sessions, "the default again");
}

#[tokio::test]
async fn what_failed_ended_or_sleeps_makes_room_and_a_wake_is_held_back_when_it_is_taken() {
    let mut stage = Stage::new().await;
    let user = stage.member().await;
    stage.bound_user(&user, sessions(2)).await;
    let (scope, sessions) = (user.org().unwrap(), &stage.services.sessions);
    let asleep = stage.start(&user).await.id;
    stage.agent.work().await;
    let other = stage.start(&user).await.id;
    stage.agent.work().await;
    assert_eq!(stage.held(&user).await.used, "2");
    sessions.hibernate(scope, asleep).await.unwrap();
    assert_eq!(stage.held(&user).await.used, "2", "hibernating still counts");
    stage.agent.work().await;
    let third = stage.start(&user).await.id;
    let refused = held(sessions.wake(scope, asleep).await);
    assert_eq!((refused.used.as_str(), refused.requested.as_str()), ("2", "1"));
    assert_eq!(state(&stage.test, &user, asleep).await, SessionState::Hibernated);
    // A manager's wake is the owner's session all the same.
    held(sessions.wake(stage.org.admin.org().unwrap(), asleep).await);
    sessions.terminate(scope, other).await.unwrap();
    held(sessions.wake(scope, asleep).await);
    stage.agent.work().await;
    queued(sessions.wake(scope, asleep).await.unwrap());
    stage.agent.work().await;
    held(stage.create(&user, new_session("shell")).await);
    stage.test.execute(&format!("UPDATE sessions SET state = 'failed' WHERE id = '{third}'")).await;
    stage.start(&user).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn wakes_and_creates_at_once_share_the_last_places() {
    let mut stage = Stage::new().await;
    let user = stage.member().await;
    let mut asleep = Vec::new();
    for _ in 0..4 {
        let id = stage.start(&user).await.id;
        stage.agent.work().await;
        stage.services.sessions.hibernate(user.org().unwrap(), id).await.unwrap();
        stage.agent.work().await;
        asleep.push(id);
    }
    stage.bound_user(&user, sessions(3)).await;
    let wakes = asleep.into_iter().map(|id| {
        let (sessions, scope) = (stage.services.sessions.clone(), user.org().unwrap().clone());
        tokio::spawn(async move { sessions.wake(&scope, id).await.is_ok() })
    });
    let users = [&user];
    let (woken, made) = tokio::join!(join_all(wakes), race(&stage.services, &users, 8));
    let woken = woken.into_iter().filter(|woke| *woke.as_ref().unwrap()).count();
    assert_eq!(woken + made, 3);
}

#[tokio::test]
async fn a_home_counts_once_a_user_and_agent_until_it_is_deleted() {
    let mut stage = Stage::new().await;
    let user = stage.member().await;
    stage.bound_user(&user, limits([Some(100), Some(1_000_000), Some(1 << 40), Some(12 << 30)])).await;
    let with_home = |gib: u64| NewSession {
        persistent_home: true,
        resources: Some(ResourceRequest {
            storage: Some(tidegate_model::Quantity::from_bytes(gib << 30)),
            ..Default::default()
        }),
        ..new_session("shell")
    };
    let stored = async || {
        let quotas = &stage.services.quotas;
        quotas.of_user(user.org().unwrap(), user.user().user_id()).await.unwrap().numbers.used_storage
    };
    let first = queued(stage.create(&user, with_home(10)).await.unwrap()).id;
    queued(stage.create(&user, with_home(10)).await.unwrap());
    assert_eq!(stored().await, "10Gi", "the same home");
    queued(stage.create(&user, with_home(12)).await.unwrap());
    assert_eq!(stored().await, "12Gi", "it has grown");
    let bound = held(stage.create(&user, with_home(13)).await);
    assert_eq!(
        (bound.resource, bound.limit.as_str(), bound.requested.as_str()),
        (QuotaResource::Storage, "12Gi", "13Gi")
    );
    stage.services.sessions.terminate(user.org().unwrap(), first).await.unwrap();
    assert_eq!(stored().await, "12Gi");
    // On another agent it would be another home: the session goes where the home is.
    let vm2 = stage.test.online_agent("vm-2", 1_000).await;
    for _ in 0..8 {
        let made = queued(stage.create(&user, with_home(10)).await.unwrap());
        assert_eq!(made.agent_id.unwrap().as_str(), "vm-1");
    }
    drop(vm2);
    stage.agent.work().await;
    stage.test.execute("UPDATE agents SET deleted_at = now() WHERE agent_id = 'vm-1'").await;
    assert_eq!(stored().await, "0", "a home goes with its agent");
}

/// A small generator: the same numbers at each run, so that a failure comes again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[tokio::test]
async fn a_dry_run_says_what_a_request_would_get() {
    let mut stage = Stage::new().await;
    let (a, b) = (stage.member().await, stage.member().await);
    let group = stage.group("both", None, &[&a, &b]).await;
    let scope = stage.org.admin.org().unwrap();
    let mut dice = Dice(7);
    let (mut allowed, mut refused) = (0, 0);
    for round in 0..60 {
        let mut some = |least: u64, sides: u64, unit: i64| match dice.roll(3) {
            0 => PatchField::Set(i64::try_from(least + dice.roll(sides)).unwrap() * unit),
            _ => PatchField::Clear,
        };
        let limits = [some(1, 5, 1), some(1, 6, 700), some(1, 6, 300 << 20), some(1, 4, 7 << 30)];
        let quota = SetQuotaRequest { username: None, limits };
        match round % 3 {
            0 => stage.bound(&group, quota).await,
            1 => stage.bound_user(&a, quota).await,
            _ => drop(stage.services.quotas.set_organization(scope, quota).await.unwrap()),
        }
        let caller = if dice.roll(2) == 0 { &a } else { &b };
        let resources = Some(ResourceRequest {
            cpu: Some(tidegate_model::Quantity::from_millis(100 + dice.roll(900))),
            memory: Some(tidegate_model::Quantity::from_bytes((128 + dice.roll(512)) << 20)),
            storage: Some(tidegate_model::Quantity::from_bytes((1 + dice.roll(12)) << 30)),
        });
        let new = NewSession { resources, persistent_home: dice.roll(2) == 0, ..new_session("shell") };
        let check = QuotaCheck { session: new.clone(), user: None };
        let verdict = stage.services.quotas.check(caller.org().unwrap(), check.clone()).await.unwrap();
        // Whoever sets quotas asks for somebody and hears the same.
        let of_other = QuotaCheck { user: Some(caller.user().username().to_uppercase()), ..check };
        assert_eq!(stage.services.quotas.check(scope, of_other).await.unwrap(), verdict);
        match stage.create(caller, new).await {
            Ok(Changed::Queued(session, _)) => {
                allowed += 1;
                assert!(verdict.allowed && verdict.bound.is_none(), "round {round}: {verdict:?}");
                if dice.roll(3) > 0 {
                    stage.services.sessions.terminate(caller.org().unwrap(), session.id).await.unwrap();
                    stage.agent.work().await;
                }
            }
            Err(Error::QuotaExceeded(bound)) => {
                refused += 1;
                assert_eq!((verdict.allowed, verdict.bound), (false, Some(*bound)), "round {round}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(allowed > 5 && refused > 5, "{allowed} allowed, {refused} refused");
}

#[tokio::test]
async fn nobody_loosens_the_bound_that_holds_them() {
    let stage = Stage::new().await;
    let (chief, user) = (stage.member().await, stage.member().await);
    let group = stage.group("team", None, &[&user]).await;
    let (admin, quotas) = (stage.org.admin.org().unwrap(), &stage.services.quotas);
    let lead = AddGroupMemberRequest { user_id: chief.user().user_id(), role: GroupRole::Admin };
    stage.services.groups.add(admin, group.id, lead).await.unwrap();
    stage.bound(&group, sessions(4)).await;
    let forbidden = |outcome: Result<()>| assert!(matches!(outcome, Err(Error::Forbidden(_))), "{outcome:?}");
    let of_chief = chief.org().unwrap();
    forbidden(quotas.set_group(of_chief, group.id, sessions(5)).await.map(drop));
    forbidden(quotas.reset_group(of_chief, group.id).await);
    let tighter = quotas.set_group(of_chief, group.id, sessions(3)).await.unwrap();
    assert_eq!(tighter.numbers.max_sessions, Some(3));
    forbidden(quotas.set_group(user.org().unwrap(), group.id, sessions(1)).await.map(drop));
    for (by, of) in [(&user, &user), (&user, &chief), (&chief, &chief)] {
        forbidden(quotas.set_user(by.org().unwrap(), of.user().user_id(), sessions(9)).await.map(drop));
        forbidden(quotas.reset_user(by.org().unwrap(), of.user().user_id()).await);
    }
    forbidden(quotas.of_user(user.org().unwrap(), chief.user().user_id()).await.map(drop));
    forbidden(quotas.set_organization(of_chief, sessions(9)).await.map(drop));
    let check = QuotaCheck { session: new_session("shell"), user: Some(chief.user().username().into()) };
    forbidden(quotas.check(user.org().unwrap(), check).await.map(drop));
}
