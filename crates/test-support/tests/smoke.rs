//! The support itself: databases are there, apart from each other, and the honest agent starts a session.

use tidegate_test_support::TestDb;

#[tokio::test]
async fn every_test_has_a_database_of_its_own() {
    let (one, two) = (TestDb::new().await, TestDb::new().await);
    one.org_with_admin("acme").await;
    two.org_with_admin("acme").await;
    assert_eq!(one.look::<i64>("SELECT count(*) FROM organizations").await, 1);
}

#[tokio::test]
async fn an_honest_agent_starts_a_session() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let mut agent = test.online_agent("vm-1", 3).await;
    let session = test.running_session(&org.admin, &mut agent).await;
    assert_eq!(session.agent_id.as_ref(), Some(agent.handle()));
    assert!(session.streaming_ready);
    assert_eq!(agent.behaviour.executed.len(), 1);
}

#[tokio::test]
async fn an_outage_is_an_outage_until_it_ends() {
    let test = TestDb::new().await;
    test.db().now().await.unwrap();
    let outage = test.outage().await;
    test.db().now().await.unwrap_err();
    outage.end().await;
    test.db().now().await.unwrap();
}
