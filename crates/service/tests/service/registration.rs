//! Agents come in: registration, claim, approval, keys.

use tidegate_model::{AgentHandle, ApprovalStatus, Secret};
use tidegate_persistence::Operator;
use tidegate_service::{Decision, Error, Registered, Registration};
use tidegate_test_support::{BOOTSTRAP_KEY, TestDb, new_key_of, registration};

fn presented(key: &str, claim: Option<Secret<String>>) -> Registration {
    Registration { key: Some(Secret::new(key.to_owned())), claim, source: None }
}

fn handle() -> AgentHandle {
    "vm-1".parse().unwrap()
}

/// Registers and returns the claim token.
async fn register(test: &TestDb) -> Secret<String> {
    let first =
        test.services().agents.register(presented(BOOTSTRAP_KEY, None), registration("vm-1", 5)).await;
    let Registered::Pending(agent, Some(claim)) = first.unwrap() else { panic!("a claim token") };
    assert_eq!(agent.approval_status, ApprovalStatus::Pending);
    claim
}

async fn again(test: &TestDb, claim: &Secret<String>) -> Registered {
    let presented = presented(BOOTSTRAP_KEY, Some(claim.clone()));
    test.services().agents.register(presented, registration("vm-1", 5)).await.unwrap()
}

async fn decide(test: &TestDb, decision: Decision) -> Result<Option<Secret<String>>, Error> {
    let decided = test.services().agents.decide(&Operator::console(), &handle(), decision, false).await;
    decided.map(|(_, key)| key)
}

#[tokio::test]
async fn a_claim_token_is_shown_once_and_waits_for_approval() {
    let test = TestDb::new().await;
    let claim = register(&test).await;
    assert!(matches!(again(&test, &claim).await, Registered::Pending(_, None)));
    decide(&test, Decision::Approve).await.unwrap();
    assert!(matches!(again(&test, &claim).await, Registered::Approved(_, Some(_))));
    assert_eq!(test.look::<i64>("SELECT count(*) FROM agents WHERE claim_hash IS NOT NULL").await, 1);
}

#[tokio::test]
async fn a_key_is_handed_out_anew_until_one_was_used() {
    let test = TestDb::new().await;
    let claim = register(&test).await;
    decide(&test, Decision::Approve).await.unwrap();
    let mut keys = Vec::new();
    for _ in 0..3 {
        let Registered::Approved(_, Some(key)) = again(&test, &claim).await else { panic!("a key") };
        keys.push(key);
    }
    let agents = &test.services().agents;
    for old in &keys[..2] {
        let error = agents.authenticate(&handle(), Some(old), None).await.unwrap_err();
        assert!(matches!(error, Error::Unauthenticated(_)), "{error:?}");
    }
    let identity = agents.authenticate(&handle(), Some(&keys[2]), None).await.unwrap();
    test.services().links.open(&identity, "first").await.unwrap();
    // Used: from here on the claim token opens nothing.
    let refused = agents.register(presented(BOOTSTRAP_KEY, Some(claim)), registration("vm-1", 5)).await;
    assert!(matches!(refused, Err(Error::Conflict { code: "E_AGENT_TAKEN", .. })), "{refused:?}");
    agents.authenticate(&handle(), Some(&keys[2]), None).await.unwrap();
}

#[tokio::test]
async fn a_second_registration_without_token_or_key_is_a_conflict_and_audited() {
    let test = TestDb::new().await;
    register(&test).await;
    for claim in [None, Some(Secret::new("guessed".to_owned()))] {
        let presented =
            Registration { source: Some("192.0.2.7".parse().unwrap()), ..presented(BOOTSTRAP_KEY, claim) };
        let refused = test.services().agents.register(presented, registration("vm-1", 5)).await;
        assert!(matches!(refused, Err(Error::Conflict { code: "E_AGENT_TAKEN", .. })), "{refused:?}");
    }
    let lines =
        "SELECT count(*) FROM audit_log WHERE action = 'agent.register.refused' AND address = '192.0.2.7'";
    assert_eq!(test.look::<i64>(lines).await, 2);
}

#[tokio::test]
async fn a_wrong_key_registers_nothing() {
    let test = TestDb::new().await;
    let agents = &test.services().agents;
    for key in [String::new(), "short".into(), "0".repeat(64), BOOTSTRAP_KEY.to_uppercase()] {
        let refused = agents.register(presented(&key, None), registration("vm-1", 5)).await;
        assert!(matches!(refused, Err(Error::Unauthenticated(_))), "{key}: {refused:?}");
    }
    let refused = agents.register(Registration::default(), registration("vm-1", 5)).await;
    assert!(matches!(refused, Err(Error::Unauthenticated(_))), "{refused:?}");
    assert_eq!(test.look::<i64>("SELECT count(*) FROM agents").await, 0);
}

#[tokio::test]
async fn without_a_bootstrap_key_in_the_settings_nobody_registers() {
    let test = TestDb::new().await;
    let closed =
        test.services_with(tidegate_service::Options { agent_bootstrap_key: None, ..TestDb::options() });
    let refused = closed.agents.register(presented(BOOTSTRAP_KEY, None), registration("vm-1", 5)).await;
    assert!(matches!(refused, Err(Error::Unauthenticated(_))), "{refused:?}");
}

#[tokio::test]
async fn a_rejected_agent_stays_out() {
    let test = TestDb::new().await;
    let claim = register(&test).await;
    decide(&test, Decision::Reject).await.unwrap();
    assert!(matches!(again(&test, &claim).await, Registered::Rejected(_)));
    for decision in [Decision::Approve, Decision::Reject] {
        let refused = decide(&test, decision).await;
        assert!(matches!(refused, Err(Error::Conflict { code: "E_WRONG_STATE", .. })), "{refused:?}");
    }
    let refused = test.services().agents.rotate_key(&Operator::console(), &handle(), 0).await;
    assert!(matches!(refused, Err(Error::Conflict { code: "E_WRONG_STATE", .. })));
}

#[tokio::test]
async fn an_agent_is_approved_once() {
    let test = TestDb::new().await;
    register(&test).await;
    let (one, two) = tokio::join!(decide(&test, Decision::Approve), decide(&test, Decision::Reject));
    assert_ne!(one.is_ok(), two.is_ok(), "exactly one racer wins");
    let unknown = "vm-2".parse().unwrap();
    let missing =
        test.services().agents.decide(&Operator::console(), &unknown, Decision::Approve, false).await;
    assert!(matches!(missing, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn a_pending_agent_has_no_key_to_come_in_with() {
    let test = TestDb::new().await;
    let claim = register(&test).await;
    for key in [claim.expose().clone(), "0".repeat(64), BOOTSTRAP_KEY.to_owned()] {
        let refused = test.services().agents.authenticate(&handle(), Some(&Secret::new(key)), None).await;
        assert!(matches!(refused, Err(Error::Unauthenticated(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn the_key_of_one_agent_does_not_open_another() {
    let test = TestDb::new().await;
    let one = new_key_of(test.services(), "vm-1", 5).await;
    new_key_of(test.services(), "vm-2", 5).await;
    let agents = &test.services().agents;
    let foreign = agents.authenticate(&"vm-2".parse().unwrap(), Some(&one), None).await.unwrap_err();
    let unknown = agents.authenticate(&"vm-3".parse().unwrap(), Some(&one), None).await.unwrap_err();
    assert_eq!(foreign.to_string(), unknown.to_string(), "every wrong pair looks the same");
    let refused = agents.register(presented(one.expose(), None), registration("vm-2", 5)).await;
    assert!(matches!(refused, Err(Error::Unauthenticated(_))));
}

#[tokio::test]
async fn an_own_key_registers_again_and_says_what_changed() {
    let test = TestDb::new().await;
    let key = new_key_of(test.services(), "vm-1", 5).await;
    let known = test.services().agents.register(presented(key.expose(), None), registration("vm-1", 9)).await;
    let Registered::Approved(agent, None) = known.unwrap() else { panic!("no new key") };
    assert_eq!(agent.capacity.unwrap().max_sessions, 9);
}

#[tokio::test]
async fn a_rotated_key_ends_the_old_one_and_what_it_opened() {
    let test = TestDb::new().await;
    let agent = test.online_agent("vm-1", 5).await;
    let new = test.services().agents.rotate_key(&Operator::console(), agent.handle(), 0).await.unwrap().0;
    let agents = &test.services().agents;
    agents.authenticate(agent.handle(), Some(agent.key()), None).await.unwrap_err();
    agents.authenticate(agent.handle(), Some(&new), None).await.unwrap();
    let stale = test.services().links.stale(&[agent.link()]).await.unwrap();
    assert_eq!(stale, [(agent.link().agent_id(), agent.link().epoch())]);
}

#[tokio::test]
async fn an_operator_can_be_shown_the_first_key() {
    let test = TestDb::new().await;
    register(&test).await;
    let decided =
        test.services().agents.decide(&Operator::console(), &handle(), Decision::Approve, true).await;
    let key = decided.unwrap().1.unwrap();
    test.services().agents.authenticate(&handle(), Some(&key), None).await.unwrap();
}

#[tokio::test]
async fn no_secret_of_an_agent_is_stored_as_it_is() {
    let test = TestDb::new().await;
    let agent = test.online_agent("vm-1", 5).await;
    let row: String = test.look("SELECT to_jsonb(a)::text FROM agents a").await;
    assert!(!row.contains(agent.key().expose()), "{row}");
}
