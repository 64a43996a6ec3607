//! Ending somebody's viewings of a session: what they had open is over, wherever it is, and the session goes on.

use chrono::TimeDelta;
use serde_json::json;
use tidegate_model::{
    CreateShareRequest, DisconnectRequest, OrgRole, SessionId, SessionState, ShareTarget, StreamKind,
    StreamMode,
};
use tidegate_service::{Caller, Error, OpenedStream, Services, ViewerStanding};
use tidegate_test_support::{SimAgent, TestDb, TestOrg};

use crate::state;

struct Stage {
    test: TestDb,
    org: TestOrg,
    _agent: SimAgent,
    owner: Caller,
    friend: Caller,
    session: SessionId,
}

impl Stage {
    /// A session, its owner, and a friend who may type into it.
    async fn new() -> Self {
        let test = TestDb::new().await;
        let org = test.org_with_admin("acme").await;
        let mut agent = test.online_agent("vm-1", 10).await;
        let owner = test.caller(&test.user_in("acme", OrgRole::User).await).await;
        let friend = test.caller(&test.user_in("acme", OrgRole::User).await).await;
        let session = test.running_session(&owner, &mut agent).await.id;
        let with = ShareTarget::UserId(friend.user().user_id());
        let request = CreateShareRequest { with, mode: StreamMode::Control, expires_in: None };
        let shares = &test.services().shares;
        shares.create(owner.org().unwrap(), session, request, None, |_| json!(null)).await.unwrap();
        Self { test, org, _agent: agent, owner, friend, session }
    }

    fn services(&self) -> &Services {
        self.test.services()
    }

    async fn open(&self, caller: &Caller) -> OpenedStream {
        self.services().streams.open(caller.clone(), self.session, StreamMode::Control).await.unwrap()
    }

    async fn stands(&self, opened: &OpenedStream) -> ViewerStanding {
        self.services().streams.stands(&opened.viewing()).await.unwrap()
    }

    async fn end(&self, caller: &Caller, whose: DisconnectRequest) -> Result<(), Error> {
        self.services().streams.disconnect(caller.org().unwrap(), self.session, whose).await
    }

    fn of(caller: &Caller) -> DisconnectRequest {
        DisconnectRequest { user_id: Some(caller.user().user_id()), username: None }
    }
}

#[tokio::test]
async fn what_one_had_open_is_over_and_what_one_opens_next_is_not() {
    let stage = Stage::new().await;
    let (first, other) = (stage.open(&stage.owner).await, stage.open(&stage.friend).await);
    // Another program's, which is told nothing.
    let elsewhere = stage.test.services_with(TestDb::options());
    let scope = stage.owner.org().unwrap();
    elsewhere.streams.disconnect(scope, stage.session, DisconnectRequest::default()).await.unwrap();
    assert_eq!(stage.stands(&first).await, ViewerStanding::Disconnected);
    assert_eq!(stage.stands(&other).await, ViewerStanding::Stands);
    let second = stage.open(&stage.owner).await;
    assert_eq!(stage.stands(&second).await, ViewerStanding::Stands);
    stage.end(&stage.owner, DisconnectRequest::default()).await.unwrap();
    for opened in [&first, &second] {
        assert_eq!(stage.stands(opened).await, ViewerStanding::Disconnected);
    }
    assert_eq!(state(&stage.test, &stage.owner, stage.session).await, SessionState::Running);
    let third = stage.open(&stage.owner).await;
    // Long ago, nothing that it ended is open any more; what was opened after it stands on.
    stage.test.manual_clock().advance(TimeDelta::days(2));
    stage.services().operators.tidy().await.unwrap();
    assert_eq!(stage.test.look::<i64>("SELECT count(*) FROM viewing_ends").await, 0);
    let login = stage.test.caller(&stage.test.user_in("acme", OrgRole::User).await).await;
    drop(login);
    assert_ne!(stage.stands(&third).await, ViewerStanding::Disconnected);
}

#[tokio::test]
async fn a_ticket_and_a_cookie_go_with_what_was_open() {
    let stage = Stage::new().await;
    let (streams, scope, id) = (&stage.services().streams, stage.friend.org().unwrap(), stage.session);
    let ticket = async || {
        let given = streams.connect(scope, id, StreamKind::Http, StreamMode::View).await;
        given.unwrap().ticket
    };
    let grant = streams.exchange(&ticket().await, id).await.unwrap().secret;
    let (_, opened) = streams.granted(&grant, Some(id)).await.unwrap();
    let unused = ticket().await;
    stage.end(&stage.owner, Stage::of(&stage.friend)).await.unwrap();
    assert_eq!(stage.stands(&opened).await, ViewerStanding::Disconnected);
    let late = streams.granted(&grant, Some(id)).await;
    assert!(matches!(late, Err(Error::Unauthenticated(_))), "{late:?}");
    let late = streams.redeem(&unused, id, StreamKind::Http).await;
    assert!(matches!(late, Err(Error::Unauthenticated(_))), "{late:?}");
    // The right to come again is a share's, and stands.
    let again = streams.exchange(&ticket().await, id).await.unwrap().secret;
    streams.granted(&again, Some(id)).await.unwrap();
}

#[tokio::test]
async fn others_are_shown_out_by_the_owner_and_those_who_manage_sessions_alone() {
    let stage = Stage::new().await;
    let mine = stage.open(&stage.owner).await;
    let refused = stage.end(&stage.friend, Stage::of(&stage.owner)).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    assert_eq!(stage.stands(&mine).await, ViewerStanding::Stands);
    let named = |name: &str| DisconnectRequest { user_id: None, username: Some(name.to_uppercase()) };
    for caller in [&stage.owner, &stage.org.admin] {
        let theirs = stage.open(&stage.friend).await;
        stage.end(caller, named(stage.friend.user().username())).await.unwrap();
        assert_eq!(stage.stands(&theirs).await, ViewerStanding::Disconnected);
    }
    stage.end(&stage.friend, DisconnectRequest::default()).await.unwrap();
    let unknown = stage.end(&stage.owner, named("nobody")).await;
    assert!(matches!(unknown, Err(Error::NotFound(_))), "{unknown:?}");
    let stranger = stage.test.org_with_admin("rival").await;
    for whose in [DisconnectRequest::default(), Stage::of(&stage.owner)] {
        let hidden = stage.end(&stranger.admin, whose).await;
        assert!(matches!(hidden, Err(Error::NotFound(_))), "{hidden:?}");
    }
    let foreign = stage.end(&stage.owner, Stage::of(&stranger.admin)).await;
    assert!(matches!(foreign, Err(Error::NotFound(_))), "{foreign:?}");
    let lines: i64 =
        stage.test.look("SELECT count(*) FROM audit_log WHERE action = 'session.disconnect'").await;
    assert_eq!(lines, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_racing_ends_the_last_ends_whatever_was_opened_between_them() {
    let stage = Stage::new().await;
    for _ in 0..5 {
        let ends = (0..4).map(|_| stage.end(&stage.owner, DisconnectRequest::default()));
        let (ended, opened) = tokio::join!(futures_util::future::join_all(ends), stage.open(&stage.owner));
        assert!(ended.into_iter().all(|end| end.is_ok()));
        stage.end(&stage.owner, DisconnectRequest::default()).await.unwrap();
        assert_eq!(stage.stands(&opened).await, ViewerStanding::Disconnected);
    }
}
