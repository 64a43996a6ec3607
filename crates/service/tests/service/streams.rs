//! Tickets: single use, short, for one session, and no better than the login that asked.

use chrono::TimeDelta;
use tidegate_model::{CredentialId, OrgRole, Scope, SessionState, StreamKind, StreamMode};
use tidegate_service::{Caller, Error, StreamTicket};
use tidegate_test_support::{SimAgent, TestDb, TestOrg};

use crate::keys::{mint, wanted};

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

impl Stage {
    /// The admin by each kind of credential.
    async fn callers(&self) -> [Caller; 3] {
        let (services, admin) = (self.test.services(), &self.org.admin);
        let key = mint(&services.keys, admin, &wanted(&[Scope::Streams])).await.unwrap().1;
        let codes = services.devices.create_device_code("laptop", None).await.unwrap();
        let code = codes.user_code.to_string();
        services.devices.approve_device_code(admin, &code, self.org.id, None).await.unwrap();
        let token = services.devices.consume_device_code(codes.device_code.expose(), None).await.unwrap();
        let known = async |secret: &str| services.logins.authenticate(secret, None).await.unwrap();
        [admin.clone(), known(&key).await, known(token.token.expose()).await]
    }

    /// What a browser of this caller shows.
    async fn cookie(&self, caller: &Caller) -> String {
        let (streams, id) = (&self.test.services().streams, self.session);
        let ticket = streams.connect(caller.org().unwrap(), id, StreamKind::Http, StreamMode::Control).await;
        streams.exchange(&ticket.unwrap().ticket, id).await.unwrap().secret
    }
}

#[tokio::test]
async fn a_cookie_is_its_credential_and_ends_with_it() {
    let stage = Stage::new().await;
    let (services, session) = (stage.test.services(), stage.session);
    for caller in stage.callers().await {
        let cookie = stage.cookie(&caller).await;
        let (_, opened) = services.streams.granted(&cookie, Some(session)).await.unwrap();
        let looked = services.streams.open(caller.clone(), session, StreamMode::Control).await.unwrap();
        let quiet = services.streams.open_quietly(caller.clone(), session).await.unwrap();
        for seen in [&opened, &quiet] {
            assert_eq!(
                (seen.session, seen.generation, seen.agent, seen.mode, seen.ended),
                (looked.session, looked.generation, looked.agent, looked.mode, looked.ended)
            );
            let (own, known) = (&seen.caller, &caller);
            assert_eq!(own.credential(), known.credential());
            assert_eq!((own.scopes(), own.role()), (known.scopes(), known.role()));
            let (own, known) = (own.org().unwrap(), known.org().unwrap());
            assert_eq!(
                (own.org_id(), own.role(), own.user_id()),
                (known.org_id(), known.role(), known.user_id())
            );
            assert_eq!(own.username(), known.username());
        }
        let other = services.streams.granted(&cookie, Some(tidegate_model::SessionId::new())).await;
        assert!(matches!(other, Err(Error::Unauthenticated(_))), "{other:?}");
        // Behind the back of every service: nothing but the row says so.
        let end = match caller.credential() {
            CredentialId::Login(id) => format!("login_sessions SET revoked_at = now() WHERE id = '{id}'"),
            CredentialId::ApiKey(id) => format!("api_keys SET revoked_at = now() WHERE id = '{id}'"),
            CredentialId::Token(id) => format!("bearer_tokens SET revoked_at = now() WHERE id = '{id}'"),
        };
        stage.test.execute(&format!("UPDATE {end}")).await;
        let late = services.streams.granted(&cookie, Some(session)).await;
        assert!(matches!(late, Err(Error::Unauthenticated(_))), "{caller:?}: {late:?}");
    }
}

#[tokio::test]
async fn a_cookie_opens_a_session_that_runs_and_is_there() {
    let mut stage = Stage::new().await;
    let (cookie, session) = (stage.cookie(&stage.org.admin).await, stage.session);
    let services = stage.test.services().clone();
    let granted = async || services.streams.granted(&cookie, Some(session)).await;
    assert!(granted().await.is_ok());
    let (scope, mut states) = (stage.org.admin.org().unwrap(), Vec::new());
    services.sessions.hibernate(scope, session).await.unwrap();
    for _ in 0..2 {
        let Err(Error::WrongState { state, .. }) = granted().await else { panic!("it does not run") };
        states.push(state);
        stage.agent.work().await;
    }
    assert_eq!(states, [SessionState::Hibernating, SessionState::Hibernated]);
    stage.test.execute("UPDATE sessions SET hidden_at = now()").await;
    assert!(matches!(granted().await, Err(Error::NotFound(_))));
    stage.test.manual_clock().advance(TimeDelta::days(1));
    assert!(matches!(granted().await, Err(Error::Unauthenticated(_))), "grants last for twelve hours");
}

#[tokio::test]
async fn a_cookie_opens_nothing_of_an_organization_that_is_suspended_or_for_a_user_who_is() {
    let stage = Stage::new().await;
    let services = stage.test.services();
    for (end, again) in [
        ("UPDATE organizations SET status = 'suspended'", "UPDATE organizations SET status = 'active'"),
        ("UPDATE users SET active = false", "UPDATE users SET active = true"),
    ] {
        for caller in stage.callers().await {
            let cookie = stage.cookie(&caller).await;
            stage.test.execute(end).await;
            let late = services.streams.granted(&cookie, None).await;
            assert!(matches!(late, Err(Error::Unauthenticated(_))), "{end}: {late:?}");
            stage.test.execute(again).await;
            services.streams.granted(&cookie, None).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_key_that_opens_no_streams_any_more_opens_none_by_what_it_got_before() {
    let stage = Stage::new().await;
    let (streams, session) = (&stage.test.services().streams, stage.session);
    let [login, key, token] = stage.callers().await;
    let mut shown = Vec::new();
    for caller in [&login, &key, &token] {
        let scope = caller.org().unwrap();
        let ticket = streams.connect(scope, session, StreamKind::Terminal, StreamMode::View).await.unwrap();
        shown.push((
            matches!(caller.credential(), CredentialId::ApiKey(_)),
            stage.cookie(caller).await,
            ticket.ticket,
        ));
    }
    // What is left of the key's scopes is what a viewer has, and that is no stream.
    stage.test.execute("UPDATE memberships SET role = 'viewer'").await;
    for (is_key, cookie, ticket) in shown {
        let granted = streams.granted(&cookie, Some(session)).await;
        assert_eq!(matches!(granted, Err(Error::Unauthenticated(_))), is_key, "{granted:?}");
        assert_eq!(stage.good(&ticket).await, !is_key);
    }
}
