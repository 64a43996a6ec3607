//! Persistent homes: what they count, and that they are gone only when their agent says so.

use chrono::TimeDelta;
use tidegate_model::{Home, NewSession, OrgRole, SessionState};
use tidegate_protocol::FromAgent;
use tidegate_service::{Caller, Changed, Error, Paging};
use tidegate_test_support::{SimAgent, TestDb, new_session};

use crate::state;

async fn homes(test: &TestDb, who: &Caller) -> Vec<Home> {
    let paging = Paging { limit: 100, cursor: None };
    test.services().homes.list(who.org().unwrap(), &paging).await.unwrap().items
}

async fn start(test: &TestDb, who: &Caller) -> Result<Changed, Error> {
    let new = NewSession { persistent_home: true, ..new_session("shell") };
    test.services().sessions.create(who.org().unwrap(), new, None, |_, _| ().into()).await
}

/// A home of somebody in which a session lived and ended.
async fn lived_in(test: &TestDb, who: &Caller, agent: &mut SimAgent) -> Home {
    let Changed::Queued(session, _) = start(test, who).await.unwrap() else { panic!("it is new") };
    agent.work().await;
    test.services().sessions.terminate(who.org().unwrap(), session.id).await.unwrap();
    agent.work().await;
    assert_eq!(state(test, who, session.id).await, SessionState::Terminated);
    let all = homes(test, who).await;
    all.into_iter().find(|home| home.user_id == who.user().user_id()).unwrap()
}

async fn counted(test: &TestDb) -> i64 {
    test.look("SELECT count(*) FROM homes").await
}

fn code(outcome: &Result<impl Sized, Error>) -> &'static str {
    match outcome {
        Err(Error::Conflict { code, .. }) => code,
        Err(Error::NotFound(_)) => "not found",
        Err(_) => "another error",
        Ok(_) => "fine",
    }
}

#[tokio::test]
async fn a_home_counts_until_its_agent_has_deleted_it() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let mut agent = test.online_agent("vm-1", 10).await;
    let (scope, service) = (org.admin.org().unwrap(), &test.services().homes);
    let home = lived_in(&test, &org.admin, &mut agent).await;
    assert_eq!((home.agent_id.as_ref(), home.storage.to_string().as_str()), (Some(agent.handle()), "10Gi"));
    assert_eq!(home.username.as_deref(), Some(org.admin.user().username()));
    let (leaving, command) = service.delete(scope, home.id).await.unwrap();
    assert!(leaving.deleting_at.is_some() && command.is_some());
    let (again, repeat) = service.delete(scope, home.id).await.unwrap();
    assert_eq!((again.deleting_at, repeat), (leaving.deleting_at, None));
    assert_eq!(code(&start(&test, &org.admin).await), "E_HOME_LEAVING");
    let quota = test.services().quotas.of_user(scope, org.admin.user().user_id()).await.unwrap();
    assert_eq!(serde_json::to_value(quota).unwrap()["usedStorage"], "10Gi");
    agent.work().await;
    assert!(homes(&test, &org.admin).await.is_empty());
    assert_eq!(code(&service.delete(scope, home.id).await), "not found");
    let quota = test.services().quotas.of_user(scope, org.admin.user().user_id()).await.unwrap();
    assert_eq!(serde_json::to_value(quota).unwrap()["usedStorage"], "0");
    let lines = "SELECT before ->> 'storage' FROM audit_log WHERE action = 'home.delete'";
    assert_eq!(test.look::<String>(lines).await, "10Gi");
    lived_in(&test, &org.admin, &mut agent).await;
}

#[tokio::test]
async fn a_home_in_which_something_lives_stays_asleep_or_not() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let mut agent = test.online_agent("vm-1", 10).await;
    let scope = org.admin.org().unwrap();
    let Changed::Queued(session, _) = start(&test, &org.admin).await.unwrap() else { panic!("it is new") };
    let home = homes(&test, &org.admin).await.remove(0);
    let services = test.services();
    assert_eq!(code(&services.homes.delete(scope, home.id).await), "E_HOME_IN_USE");
    agent.work().await;
    services.sessions.hibernate(scope, session.id).await.unwrap();
    agent.work().await;
    assert_eq!(state(&test, &org.admin, session.id).await, SessionState::Hibernated);
    assert_eq!(code(&services.homes.delete(scope, home.id).await), "E_HOME_IN_USE");
    services.sessions.terminate(scope, session.id).await.unwrap();
    agent.work().await;
    services.homes.delete(scope, home.id).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_knows_nothing_of_homes_or_is_away_leaves_it_counted_with_a_reason() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let mut agent = test.online_agent("vm-1", 10).await;
    let (scope, service) = (org.admin.org().unwrap(), &test.services().homes);
    let home = lived_in(&test, &org.admin, &mut agent).await;
    // It stops what has ended, and says so as ever.
    agent.behaviour.misbehave(|_, answer| {
        let silent = |message| match message {
            FromAgent::Complete(mut done) => {
                done.result = None;
                FromAgent::Complete(done)
            }
            other => other,
        };
        answer.into_iter().map(silent).collect()
    });
    service.delete(scope, home.id).await.unwrap();
    agent.work().await;
    let kept = homes(&test, &org.admin).await.remove(0);
    assert!(kept.deleting_at.is_none() && kept.delete_error.unwrap().contains("deletes no homes"));
    agent.behaviour.behave();
    service.delete(scope, home.id).await.unwrap();
    test.manual_clock().advance(TimeDelta::minutes(6));
    test.services().links.sweep().await.unwrap();
    let kept = homes(&test, &org.admin).await.remove(0);
    assert!(kept.deleting_at.is_none() && kept.delete_error.unwrap().contains("before the deadline"));
    service.delete(scope, home.id).await.unwrap();
    agent.work().await;
    assert_eq!(counted(&test).await, 0);
}

#[tokio::test]
async fn homes_of_others_are_the_managers_and_those_of_former_members_too() {
    let test = TestDb::new().await;
    let (org, rival) = (test.org_with_admin("acme").await, test.org_with_admin("rival").await);
    let mut agent = test.online_agent("vm-1", 10).await;
    let member = test.user_in("acme", OrgRole::User).await;
    let other = test.user_in("acme", OrgRole::User).await;
    let (me, other) = (test.caller(&member).await, test.caller(&other).await);
    let home = lived_in(&test, &me, &mut agent).await;
    let services = test.services();
    for stranger in [&other, &rival.admin] {
        assert!(homes(&test, stranger).await.is_empty());
        assert_eq!(code(&services.homes.delete(stranger.org().unwrap(), home.id).await), "not found");
    }
    services.members.remove(org.admin.org().unwrap(), member.id).await.unwrap();
    let seen = homes(&test, &org.admin).await.remove(0);
    assert_eq!((seen.id, seen.username.as_deref()), (home.id, Some(member.username.as_str())));
    services.homes.delete(org.admin.org().unwrap(), home.id).await.unwrap();
    agent.work().await;
    assert_eq!(counted(&test).await, 0);
}

#[tokio::test]
async fn a_home_on_an_agent_that_is_gone_is_struck_off_the_books() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let mut agent = test.online_agent("vm-1", 10).await;
    let home = lived_in(&test, &org.admin, &mut agent).await;
    test.execute("UPDATE agents SET deleted_at = now()").await;
    let (_, command) = test.services().homes.delete(org.admin.org().unwrap(), home.id).await.unwrap();
    assert_eq!((command, counted(&test).await), (None, 0));
}
