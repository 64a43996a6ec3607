//! Sharing: who sees, watches, uses and wakes a session of somebody else, and until when.

use chrono::TimeDelta;
use serde_json::json;
use tidegate_model::{
    AddGroupMemberRequest, CreateGroupRequest, CreateShareRequest, FromFields, GroupId, GroupRole, OrgRole,
    Session, SessionFilter, SessionId, SessionState, ShareTarget, StreamKind, StreamMode,
};
use tidegate_service::{
    Caller, Changed, ChildrenOf, Error, MadeGroup, Paging, Services, Shared, ViewerStanding, Viewing,
    ViewingEnd,
};
use tidegate_test_support::{SimAgent, TestDb, TestOrg};

use crate::state;

struct Stage {
    test: TestDb,
    org: TestOrg,
    agent: SimAgent,
    owner: Caller,
    friend: Caller,
    session: SessionId,
}

impl Stage {
    async fn new() -> Self {
        let test = TestDb::new().await;
        let org = test.org_with_admin("acme").await;
        let mut agent = test.online_agent("vm-1", 10).await;
        let owner = test.caller(&test.user_in("acme", OrgRole::User).await).await;
        let friend = test.caller(&test.user_in("acme", OrgRole::User).await).await;
        let session = test.running_session(&owner, &mut agent).await.id;
        Self { test, org, agent, owner, friend, session }
    }

    fn services(&self) -> &Services {
        self.test.services()
    }

    async fn share(&self, with: ShareTarget, mode: StreamMode, minutes: Option<i64>) -> Shared {
        let request = CreateShareRequest { with, mode, expires_in: minutes.map(TimeDelta::minutes) };
        let scope = self.owner.org().unwrap();
        self.services().shares.create(scope, self.session, request, None, |_| json!(null)).await.unwrap()
    }

    async fn with_friend(&self, mode: StreamMode, minutes: Option<i64>) -> Shared {
        self.share(ShareTarget::UserId(self.friend.user().user_id()), mode, minutes).await
    }

    async fn group(&self, name: &str, parent: Option<GroupId>) -> GroupId {
        let body = json!({"name": name, "displayName": "Some of us", "type": "team", "parentId": parent});
        let request = CreateGroupRequest::from_json(body).unwrap();
        let groups = &self.services().groups;
        match groups.create(self.org.admin.org().unwrap(), request, None, |_| json!(null)).await.unwrap() {
            MadeGroup::New(group) => group.id,
            MadeGroup::Replay(_) => panic!("a new group"),
        }
    }

    async fn friend_sees(&self) -> Option<Session> {
        match self.services().sessions.get(self.friend.org().unwrap(), self.session).await {
            Ok(session) => Some(session),
            Err(Error::NotFound(_)) => None,
            Err(other) => panic!("{other:?}"),
        }
    }

    async fn friend_stands(&self, mode: StreamMode) -> ViewerStanding {
        let (caller, session) = (self.friend.clone(), self.session);
        let viewing = Viewing { caller, session, mode, ended: ViewingEnd::default() };
        self.services().streams.stands(&viewing).await.unwrap()
    }

    /// What listing shows the friend: how many, and the modes.
    async fn listed(&self) -> (i64, Vec<Option<StreamMode>>) {
        let sessions = &self.services().sessions;
        let page = sessions
            .list(self.friend.org().unwrap(), SessionFilter::default(), &Paging { limit: 10, cursor: None })
            .await
            .unwrap();
        let modes = page.items.iter().map(|session| session.shared.map(|shared| shared.mode));
        (page.total, modes.collect())
    }
}

#[tokio::test]
async fn another_member_sees_a_session_only_once_it_is_shared_and_marked_so() {
    let stage = Stage::new().await;
    assert_eq!((stage.friend_sees().await, stage.listed().await), (None, (0, vec![])));
    assert_eq!(stage.friend_stands(StreamMode::View).await, ViewerStanding::ShareEnded);
    stage.with_friend(StreamMode::View, None).await;
    assert_eq!(stage.friend_sees().await.unwrap().shared.unwrap().mode, StreamMode::View);
    assert_eq!(stage.listed().await, (1, vec![Some(StreamMode::View)]));
    assert_eq!(stage.friend_stands(StreamMode::View).await, ViewerStanding::Stands);
    assert_eq!(stage.friend_stands(StreamMode::Control).await, ViewerStanding::ShareEnded);
    let own = stage.services().sessions.get(stage.owner.org().unwrap(), stage.session).await.unwrap();
    assert_eq!(own.shared, None);
    let stranger = stage.test.caller(&stage.test.user_in("acme", OrgRole::User).await).await;
    let hidden = stage.services().sessions.get(stranger.org().unwrap(), stage.session).await;
    assert!(matches!(hidden, Err(Error::NotFound(_))), "{hidden:?}");
}

#[tokio::test]
async fn what_is_shared_is_listed_by_itself_for_managers_too() {
    let stage = Stage::new().await;
    let services = stage.services();
    let shared = async |caller: &Caller| {
        let filter = SessionFilter { shared: true, ..SessionFilter::default() };
        let all = Paging { limit: 10, cursor: None };
        let page = services.sessions.list(caller.org().unwrap(), filter, &all).await.unwrap();
        (page.total, page.items.iter().map(|session| session.shared.unwrap().mode).collect::<Vec<_>>())
    };
    assert_eq!(shared(&stage.friend).await, (0, vec![]));
    assert_eq!(shared(&stage.org.admin).await, (0, vec![]), "what one manages is shared with nobody");
    stage.with_friend(StreamMode::Control, Some(1)).await;
    stage.share(ShareTarget::UserId(stage.org.admin.user().user_id()), StreamMode::View, None).await;
    assert_eq!(shared(&stage.friend).await, (1, vec![StreamMode::Control]));
    assert_eq!(shared(&stage.org.admin).await, (1, vec![StreamMode::View]));
    assert_eq!(shared(&stage.owner).await, (0, vec![]), "one's own is not shared with oneself");
    stage.test.manual_clock().advance(TimeDelta::minutes(1));
    assert_eq!(shared(&stage.friend).await, (0, vec![]));
}

#[tokio::test]
async fn another_organization_is_shared_with_by_nobody() {
    let stage = Stage::new().await;
    let rival = stage.test.org_with_admin("rival").await;
    let (shares, scope) = (&stage.services().shares, rival.admin.org().unwrap());
    let target = |user: &Caller| ShareTarget::UserId(user.user().user_id());
    let request = |with| CreateShareRequest { with, mode: StreamMode::View, expires_in: None };
    let foreign =
        shares.create(scope, stage.session, request(target(&rival.admin)), None, |_| json!(null)).await;
    assert!(matches!(foreign, Err(Error::NotFound(_))), "{foreign:?}");
    let outward = shares
        .create(stage.owner.org().unwrap(), stage.session, request(target(&rival.admin)), None, |_| {
            json!(null)
        })
        .await;
    assert!(matches!(outward, Err(Error::NotFound(_))), "{outward:?}");
    let itself = shares
        .create(stage.owner.org().unwrap(), stage.session, request(target(&stage.owner)), None, |_| {
            json!(null)
        })
        .await;
    assert!(matches!(itself, Err(Error::Invalid(_))), "{itself:?}");
    assert_eq!(stage.test.look::<i64>("SELECT count(*) FROM session_shares").await, 0);
}

#[tokio::test]
async fn a_share_to_view_opens_nothing_more_and_one_to_control_wakes() {
    let mut stage = Stage::new().await;
    stage.with_friend(StreamMode::View, None).await;
    let (id, friend) = (stage.session, stage.friend.clone());
    let scope = friend.org().unwrap();
    let services = stage.services().clone();
    let (sessions, streams) = (&services.sessions, &services.streams);
    let forbidden = |error: Error| assert!(matches!(error, Error::Forbidden(_)), "{error:?}");
    forbidden(streams.connect(scope, id, StreamKind::Terminal, StreamMode::Control).await.unwrap_err());
    forbidden(services.activity.heartbeat(scope, id).await.unwrap_err());
    let given = streams.connect(scope, id, StreamKind::Terminal, StreamMode::View).await.unwrap();
    assert_eq!(streams.redeem(&given.ticket, id, StreamKind::Terminal).await.unwrap().mode, StreamMode::View);
    for refused in [
        sessions.hibernate(scope, id).await.unwrap_err(),
        sessions.terminate(scope, id).await.unwrap_err(),
        sessions.terminate_by_force(scope, id).await.unwrap_err(),
        sessions.set_tags(scope, id, vec![]).await.unwrap_err(),
        services.limits.extend(scope, id, 60).await.unwrap_err(),
        services.shares.list(scope, id).await.unwrap_err(),
    ] {
        forbidden(refused);
    }
    sessions.hibernate(stage.owner.org().unwrap(), id).await.unwrap();
    stage.agent.work().await;
    forbidden(streams.connect(scope, id, StreamKind::Terminal, StreamMode::View).await.unwrap_err());
    stage.with_friend(StreamMode::Control, None).await;
    let given = streams.connect(scope, id, StreamKind::Terminal, StreamMode::Control).await.unwrap();
    assert_eq!(given.session.state, SessionState::Waking);
    stage.agent.work().await;
    assert!(matches!(sessions.wake(scope, id).await.unwrap(), Changed::Already(_)));
    services.activity.heartbeat(scope, id).await.unwrap();
    forbidden(sessions.terminate(scope, id).await.unwrap_err());
    assert_eq!(state(&stage.test, &stage.owner, id).await, SessionState::Running);
}

#[tokio::test]
async fn a_share_ends_at_its_time_and_its_tickets_with_it() {
    let stage = Stage::new().await;
    stage.with_friend(StreamMode::Control, Some(1)).await;
    let streams = &stage.services().streams;
    let (id, scope) = (stage.session, stage.friend.org().unwrap());
    stage.test.manual_clock().advance(TimeDelta::seconds(50));
    let ticket = streams.connect(scope, id, StreamKind::Terminal, StreamMode::Control).await.unwrap().ticket;
    assert_eq!(stage.friend_stands(StreamMode::Control).await, ViewerStanding::Stands);
    stage.test.manual_clock().advance(TimeDelta::seconds(10));
    assert_eq!(stage.friend_stands(StreamMode::View).await, ViewerStanding::ShareEnded);
    assert_eq!(stage.friend_sees().await, None);
    let late = streams.redeem(&ticket, id, StreamKind::Terminal).await;
    assert!(matches!(late, Err(Error::Unauthenticated(_))), "{late:?}");
    assert!(stage.services().shares.list(stage.owner.org().unwrap(), id).await.unwrap().is_empty());
    stage.test.manual_clock().advance(TimeDelta::days(8));
    let gone = stage.services().operators.tidy().await.unwrap();
    assert!(gone.contains(&("session_shares", 1)), "{gone:?}");
}

#[tokio::test]
async fn a_share_that_is_taken_back_or_lowered_takes_tickets_with_it() {
    let stage = Stage::new().await;
    let (id, scope) = (stage.session, stage.friend.org().unwrap());
    let Shared::New(share) = stage.with_friend(StreamMode::Control, None).await else {
        panic!("a new share")
    };
    let streams = &stage.services().streams;
    let ticket =
        async || streams.connect(scope, id, StreamKind::Terminal, StreamMode::Control).await.unwrap().ticket;
    let first = ticket().await;
    let Shared::Changed(lowered) = stage.with_friend(StreamMode::View, None).await else {
        panic!("the same")
    };
    assert_eq!((lowered.id, lowered.mode), (share.id, StreamMode::View));
    let refused = streams.redeem(&first, id, StreamKind::Terminal).await;
    assert!(matches!(refused, Err(Error::Unauthenticated(_))), "{refused:?}");
    stage.with_friend(StreamMode::Control, None).await;
    let second = ticket().await;
    stage.services().shares.revoke(stage.owner.org().unwrap(), id, share.id).await.unwrap();
    let refused = streams.redeem(&second, id, StreamKind::Terminal).await;
    assert!(matches!(refused, Err(Error::Unauthenticated(_))), "{refused:?}");
    let again = stage.services().shares.revoke(stage.owner.org().unwrap(), id, share.id).await;
    assert!(matches!(again, Err(Error::NotFound(_))), "{again:?}");
    let lines: Vec<String> = stage
        .test
        .superuser()
        .await
        .query("SELECT action || ' ' || actor_key FROM audit_log WHERE action LIKE 'session.%share' ORDER BY at, id", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let owner = stage.owner.org().unwrap().username();
    let said = |action: &str| format!("{action} {owner}");
    assert_eq!(
        lines,
        [said("session.share"), said("session.share"), said("session.share"), said("session.unshare")]
    );
}

#[tokio::test]
async fn a_group_and_those_below_it_see_what_is_shared_with_it_while_they_are_in_it() {
    let stage = Stage::new().await;
    let admin = stage.org.admin.org().unwrap().clone();
    let crew = stage.group("crew", None).await;
    let deck = stage.group("deck", Some(crew)).await;
    let friend = stage.friend.user().user_id();
    let groups = &stage.services().groups;
    let join = async |group| {
        let request = AddGroupMemberRequest { user_id: friend, role: GroupRole::Member };
        groups.add(&admin, group, request).await.unwrap()
    };
    join(deck).await;
    stage.share(ShareTarget::Group("crew".into()), StreamMode::View, None).await;
    assert_eq!(stage.friend_stands(StreamMode::View).await, ViewerStanding::Stands);
    assert_eq!(stage.listed().await, (1, vec![Some(StreamMode::View)]));
    // The better of two shares counts.
    stage.with_friend(StreamMode::Control, Some(1)).await;
    assert_eq!(stage.friend_sees().await.unwrap().shared.unwrap().mode, StreamMode::Control);
    stage.test.manual_clock().advance(TimeDelta::minutes(1));
    assert_eq!(stage.friend_sees().await.unwrap().shared.unwrap().mode, StreamMode::View);
    groups.remove(&admin, deck, friend).await.unwrap();
    assert_eq!(stage.friend_stands(StreamMode::View).await, ViewerStanding::ShareEnded);
    join(crew).await;
    assert_eq!(stage.friend_stands(StreamMode::View).await, ViewerStanding::Stands);
    groups.delete(&admin, crew, ChildrenOf::Lift).await.unwrap();
    assert_eq!(stage.friend_stands(StreamMode::View).await, ViewerStanding::ShareEnded);
    assert_eq!(stage.friend_sees().await, None);
}

#[tokio::test]
async fn who_leaves_the_organization_leaves_its_shares_and_coming_back_brings_none() {
    let stage = Stage::new().await;
    stage.with_friend(StreamMode::Control, None).await;
    let (members, admin) = (&stage.services().members, stage.org.admin.org().unwrap());
    let id = stage.friend.user().user_id();
    members.remove(admin, id).await.unwrap();
    assert_eq!(stage.friend_stands(StreamMode::View).await, ViewerStanding::LoginEnded);
    assert_eq!(stage.test.look::<i64>("SELECT count(*) FROM session_shares").await, 0);
    members.add(admin, tidegate_service::Person::Id(id), OrgRole::User).await.unwrap();
    assert_eq!(stage.friend_stands(StreamMode::View).await, ViewerStanding::ShareEnded);
}

#[tokio::test]
async fn who_manages_sessions_sees_and_ends_shares_and_looks_into_none() {
    let stage = Stage::new().await;
    let Shared::New(share) = stage.with_friend(StreamMode::View, None).await else { panic!("a new share") };
    let (services, admin, id) = (stage.services(), stage.org.admin.org().unwrap(), stage.session);
    let request = CreateShareRequest {
        with: ShareTarget::Username(admin.username().to_owned()),
        mode: StreamMode::Control,
        expires_in: None,
    };
    let refused = services.shares.create(admin, id, request, None, |_| json!(null)).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    let refused = services.streams.connect(admin, id, StreamKind::Terminal, StreamMode::View).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    assert_eq!(services.shares.list(admin, id).await.unwrap(), [*share.clone()]);
    services.shares.revoke(admin, id, share.id).await.unwrap();
    assert_eq!(stage.friend_sees().await, None);
}

#[tokio::test]
async fn the_role_of_an_organization_sees_no_share_of_another_one() {
    let stage = Stage::new().await;
    stage.with_friend(StreamMode::Control, None).await;
    let rival = stage.test.org_with_admin("rival").await;
    let client = stage.test.app().await;
    let (org, friend) = (stage.org.id, stage.friend.user().user_id());
    let seen = async |scope: tidegate_model::OrgId| -> i64 {
        client
            .batch_execute(&format!(
                "BEGIN; SELECT set_config('role', 'tidegate_org', true), set_config('app.org_id', '{scope}', true)"
            ))
            .await
            .unwrap();
        let asked = format!(
            "SELECT (SELECT count(*) FROM session_shares) + (SELECT count(*) FROM shares_with('{org}', '{friend}', '2026-01-01'))
                  + (SELECT count(*) FROM share_of('{org}', '{}', '{friend}', '2026-01-01'))",
            stage.session
        );
        let count = client.query_one(&asked, &[]).await.unwrap().get(0);
        client.batch_execute("ROLLBACK").await.unwrap();
        count
    };
    assert_eq!((seen(rival.id).await, seen(org).await), (0, 3));
}
