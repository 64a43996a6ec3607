//! Another organization's session is not found, whatever is asked of it; so is another member's, for plain members.

use tidegate_model::{OrgRole, SessionFilter, StreamKind, StreamMode};
use tidegate_persistence::OrgScope;
use tidegate_service::{Error, Paging};
use tidegate_test_support::TestDb;

fn page_of(limit: u32, cursor: Option<String>) -> Paging {
    Paging { limit, cursor }
}

async fn nothing_is_found(test: &TestDb, scope: &OrgScope, id: tidegate_model::SessionId) {
    let sessions = &test.services().sessions;
    let found =
        |outcome: Result<(), Error>| assert!(matches!(outcome, Err(Error::NotFound(_))), "{outcome:?}");
    found(sessions.get(scope, id).await.map(drop));
    found(sessions.history(scope, id).await.map(drop));
    found(sessions.hibernate(scope, id).await.map(drop));
    found(sessions.wake(scope, id).await.map(drop));
    found(sessions.terminate(scope, id).await.map(drop));
    found(sessions.set_tags(scope, id, vec!["mine".into()]).await.map(drop));
    let streams = &test.services().streams;
    found(streams.connect(scope, id, StreamKind::Terminal, StreamMode::Control).await.map(drop));
    let page = sessions.list(scope, SessionFilter::default(), &page_of(100, None)).await.unwrap();
    assert_eq!((page.items.len(), page.total), (0, 0));
}

#[tokio::test]
async fn another_organizations_session_is_not_found() {
    let test = TestDb::new().await;
    let (acme, bolt) = (test.org_with_admin("acme").await, test.org_with_admin("bolt").await);
    let mut agent = test.online_agent("vm-1", 9).await;
    let id = test.running_session(&acme.admin, &mut agent).await.id;
    nothing_is_found(&test, bolt.admin.org().unwrap(), id).await;
    let opened = test.services().streams.open(bolt.admin.clone(), id, StreamMode::View).await;
    assert!(matches!(opened, Err(Error::NotFound(_))));
    assert!(agent.claim().await.is_empty(), "nothing was queued");
}

#[tokio::test]
async fn another_members_session_is_for_those_who_manage() {
    let test = TestDb::new().await;
    let acme = test.org_with_admin("acme").await;
    let mut agent = test.online_agent("vm-1", 9).await;
    let id = test.running_session(&acme.admin, &mut agent).await.id;
    for role in [OrgRole::User, OrgRole::Viewer] {
        let other = test.caller(&test.user_in("acme", role).await).await;
        nothing_is_found(&test, other.org().unwrap(), id).await;
    }
    let maintainer = test.caller(&test.user_in("acme", OrgRole::Maintainer).await).await;
    test.services().sessions.hibernate(maintainer.org().unwrap(), id).await.unwrap();
}

#[tokio::test]
async fn an_organization_one_is_no_member_of_is_not_found() {
    let test = TestDb::new().await;
    test.org_with_admin("acme").await;
    test.org_with_admin("bolt").await;
    let user = test.user_in("acme", OrgRole::Admin).await;
    let token = test.services().logins.login(user.login(), None).await.unwrap().token;
    for wanted in ["bolt", "nowhere"] {
        let caller = test.services().logins.authenticate(&token, Some(wanted)).await.unwrap();
        assert!(matches!(caller.org(), Err(Error::NotFound(_))), "{wanted}");
    }
    let caller = test.services().logins.authenticate(&token, None).await.unwrap();
    assert!(matches!(caller.operator(), Err(Error::Forbidden(_))));
}

#[tokio::test]
async fn a_list_is_paged_from_the_newest_on() {
    let test = TestDb::new().await;
    let acme = test.org_with_admin("acme").await;
    test.online_agent("vm-1", 9).await;
    let scope = acme.admin.org().unwrap();
    let mut made = Vec::new();
    for _ in 0..5 {
        made.insert(0, test.pending_session(&acme.admin).await.id);
    }
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let sessions = &test.services().sessions;
        let page = sessions.list(scope, SessionFilter::default(), &page_of(2, cursor)).await.unwrap();
        assert_eq!((page.total, page.total_is_exact), (5, true));
        seen.extend(page.items.into_iter().map(|session| session.id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, made);
    let refused = test
        .services()
        .sessions
        .list(scope, SessionFilter::default(), &page_of(2, Some("nonsense".into())))
        .await;
    assert!(matches!(refused, Err(Error::Invalid(_))));
}
