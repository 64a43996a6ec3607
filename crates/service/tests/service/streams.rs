//! Tickets: single use, short, for one session, and no better than the login that asked.

use chrono::TimeDelta;
use tidegate_model::{OrgRole, SessionState, StreamKind, StreamMode};
use tidegate_service::{Error, StreamTicket};
use tidegate_test_support::{SimAgent, TestDb, TestOrg};

struct Stage {
    test: TestDb,
    org: TestOrg,
    agent: SimAgent,
    session: tidegate_model::SessionId,
}

impl Stage {
    async fn new() -> Self {
        let test = TestDb::new().await;
        let org = test.org_with_admin("acme").await;
        let mut agent = test.online_agent("vm-1", 3).await;
        let session = test.running_session(&org.admin, &mut agent).await.id;
        Self { test, org, agent, session }
    }

    async fn ticket(&self) -> StreamTicket {
        let streams = &self.test.services().streams;
        let scope = self.org.admin.org().unwrap();
        streams.connect(scope, self.session, StreamKind::Terminal, StreamMode::View).await.unwrap()
    }

    async fn good(&self, ticket: &str) -> bool {
        let redeemed = self.test.services().streams.redeem(ticket, self.session, StreamKind::Terminal).await;
        match redeemed {
            Ok(_) => true,
            Err(Error::Unauthenticated(_)) => false,
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_ticket_opens_one_stream_once() {
    let stage = Stage::new().await;
    let ticket = stage.ticket().await.ticket;
    let streams = &stage.test.services().streams;
    let opened = streams.redeem(&ticket, stage.session, StreamKind::Terminal).await.unwrap();
    assert_eq!((opened.mode, opened.agent), (StreamMode::View, stage.agent.link().agent_id()));
    assert!(!stage.good(&ticket).await);
    assert_eq!(
        stage.test.look::<i64>("SELECT count(*) FROM stream_tickets WHERE consumed_at IS NOT NULL").await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_eight_racers_uses_a_ticket() {
    let stage = Stage::new().await;
    let ticket = stage.ticket().await.ticket;
    let outcomes = futures_util::future::join_all((0..8).map(|_| stage.good(&ticket))).await;
    assert_eq!(outcomes.into_iter().filter(|good| *good).count(), 1);
}

#[tokio::test]
async fn a_ticket_ends_after_thirty_seconds() {
    let stage = Stage::new().await;
    let ticket = stage.ticket().await.ticket;
    stage.test.manual_clock().advance(TimeDelta::seconds(30));
    assert!(!stage.good(&ticket).await);
}

#[tokio::test]
async fn a_ticket_is_for_its_session_and_kind_alone_and_survives_the_mistake() {
    let mut stage = Stage::new().await;
    let ticket = stage.ticket().await.ticket;
    let other = stage.test.running_session(&stage.org.admin, &mut stage.agent).await.id;
    let streams = &stage.test.services().streams;
    for (session, kind) in [(other, StreamKind::Terminal), (stage.session, StreamKind::Vnc)] {
        let refused = streams.redeem(&ticket, session, kind).await;
        assert!(matches!(refused, Err(Error::Unauthenticated(_))), "{refused:?}");
    }
    assert!(!stage.good("made-up").await);
    assert!(stage.good(&ticket).await);
}

#[tokio::test]
async fn a_ticket_ends_with_the_login_that_asked_for_it() {
    let stage = Stage::new().await;
    let ticket = stage.ticket().await.ticket;
    stage.test.services().logins.logout(&stage.org.admin).await.unwrap();
    assert!(!stage.good(&ticket).await);
}

#[tokio::test]
async fn a_ticket_for_a_sleeping_session_wakes_it() {
    let mut stage = Stage::new().await;
    let scope = stage.org.admin.org().unwrap().clone();
    stage.test.services().sessions.hibernate(&scope, stage.session).await.unwrap();
    stage.agent.work().await;
    let ticket = stage.ticket().await;
    assert_eq!(ticket.session.state, SessionState::Waking);
    stage.agent.work().await;
    assert!(stage.good(&ticket.ticket).await);
}

#[tokio::test]
async fn those_who_manage_sessions_may_stop_but_not_watch_them() {
    let stage = Stage::new().await;
    let maintainer = stage.test.user_in(&stage.org.name, OrgRole::Maintainer).await;
    let maintainer = stage.test.caller(&maintainer).await;
    let scope = maintainer.org().unwrap();
    let (streams, id) = (&stage.test.services().streams, stage.session);
    assert!(stage.test.services().sessions.get(scope, id).await.is_ok());
    let ticket = streams.connect(scope, id, StreamKind::Terminal, StreamMode::View).await;
    assert!(matches!(ticket, Err(Error::Forbidden(_))), "{ticket:?}");
    let opened = streams.open(maintainer.clone(), id, StreamMode::View).await;
    assert!(matches!(opened, Err(Error::Forbidden(_))), "{opened:?}");
}
