//! Where terminals are recorded, and who records them: of several, one does.

use chrono::{DateTime, TimeDelta, Utc};
use tidegate_model::{AgentId, SessionId, SourceId, SourceKind};
use tidegate_persistence::{
    Constraint, Error, FreeRecording, source,
    terminal_source::{self, Held, Next, Progress},
};
use tidegate_test_support::{TestDb, TestOrg};
use uuid::Uuid;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

/// A session that is recorded at the organization's source `build`.
pub(crate) async fn fill(test: &TestDb, org: &TestOrg, session: SessionId) {
    let (scope, db) = (org.admin.org().unwrap(), test.db());
    let work = db.in_org(scope, async |tx| {
        let source = source::find_by_handle(tx, "build").await?.source;
        terminal_source::insert(tx, session, source.id, scope.user_id(), now()).await
    });
    work.await.unwrap();
}

struct Stage {
    test: TestDb,
    org: TestOrg,
    agent: tidegate_test_support::SimAgent,
    session: SessionId,
}

impl Stage {
    /// A session that runs and is recorded at a source called `build`.
    async fn new() -> Self {
        let test = TestDb::new().await;
        let org = test.org_with_admin("acme").await;
        let mut agent = test.online_agent("vm-1", 10).await;
        let session = test.running_session(&org.admin, &mut agent).await.id;
        let (scope, db) = (org.admin.org().unwrap(), test.db());
        let work = db.in_org(scope, async |tx| {
            source::insert(tx, SourceId::new(), "build".parse().unwrap(), SourceKind::Pty, now()).await
        });
        work.await.unwrap();
        fill(&test, &org, session).await;
        Self { test, org, agent, session }
    }

    async fn agent_id(&self) -> AgentId {
        let id: String = self.test.look("SELECT id::text FROM agents WHERE agent_id = 'vm-1'").await;
        id.parse().unwrap()
    }

    /// What is free a second after this moment for whoever reaches this agent, one at most.
    async fn free_for(&self, agent: AgentId, at: DateTime<Utc>) -> Vec<FreeRecording> {
        let (given_up, now) = (at - TimeDelta::minutes(1), at + TimeDelta::seconds(1));
        self.test.db().free_recordings(vec![agent], given_up, now, 1).await.unwrap()
    }

    /// What is free a second after this moment.
    async fn free(&self, at: DateTime<Utc>) -> Vec<FreeRecording> {
        self.free_for(self.agent_id().await, at).await
    }

    async fn claim(
        &self,
        free: &FreeRecording,
        at: DateTime<Utc>,
    ) -> Option<(Uuid, terminal_source::Recording)> {
        let (db, holder) = (self.test.db(), Uuid::new_v4());
        let until = at + TimeDelta::seconds(20);
        let work = db.in_org_as_system(&free.scope, async |tx| {
            terminal_source::claim(tx, free.session, holder, (at, until)).await
        });
        Some((holder, work.await.unwrap()?))
    }
}

#[tokio::test]
async fn one_records_and_whoever_comes_later_goes_on_where_it_was() {
    let stage = Stage::new().await;
    let at = stage.test.services().clock().now();
    let free = stage.free(at).await.pop().unwrap();
    assert_eq!((free.session, free.is_final), (stage.session, false));
    let (one, two) = tokio::join!(stage.claim(&free, at), stage.claim(&free, at));
    assert!(one.is_some() != two.is_some(), "{one:?} {two:?}");
    let (first, recording) = one.or(two).unwrap();
    assert!(recording.active && !recording.pauses, "{recording:?}");
    assert_eq!((recording.generation, recording.progress), (1, Progress::default()));
    assert!(stage.free(at).await.is_empty());

    // Its lease ends without a word; who comes then has what it wrote down, and it has nothing any more.
    let (db, session) = (stage.test.db(), stage.session);
    let progress = Progress { generation: 1, recorded: 7, sequence: 3 };
    let renew = async |holder: Uuid| {
        let work = db.in_org_as_system(&free.scope, async |tx| {
            terminal_source::renew(tx, session, holder, progress, at + TimeDelta::seconds(20)).await
        });
        work.await.unwrap()
    };
    assert_eq!(renew(first).await, Held::Held);
    let later = at + TimeDelta::seconds(30);
    let (second, recording) = stage.claim(&stage.free(later).await[0], later).await.unwrap();
    assert_eq!(recording.progress, progress);
    assert_eq!((renew(first).await, renew(second).await), (Held::Lost, Held::Held));
    let release = async |holder: Uuid, next: Next| {
        let work = db.in_org_as_system(&free.scope, async |tx| {
            terminal_source::release(tx, session, holder, progress, next).await
        });
        work.await.unwrap();
    };
    release(first, Next::Finished(1)).await;
    release(second, Next::From(later + TimeDelta::seconds(10))).await;
    assert!(stage.free(later).await.is_empty());
    assert_eq!(stage.free(later + TimeDelta::seconds(10)).await.len(), 1);
}

#[tokio::test]
async fn those_whose_agents_are_away_keep_nobody_else_waiting() {
    let stage = Stage::new().await;
    let at = stage.test.services().clock().now();
    let mut reached = stage.test.online_agent("vm-2", 10).await;
    // Placed where there is room, so that this one has the other agent.
    stage.test.execute("UPDATE agents SET status = 'offline' WHERE agent_id = 'vm-1'").await;
    let other = stage.test.running_session(&stage.org.admin, &mut reached).await.id;
    let (scope, db) = (stage.org.admin.org().unwrap(), stage.test.db());
    let work = db.in_org(scope, async |tx| {
        let id = SourceId::new();
        source::insert(tx, id, "later".parse().unwrap(), SourceKind::Pty, now()).await?;
        terminal_source::insert(tx, other, id, scope.user_id(), now()).await
    });
    work.await.unwrap();
    stage.test.execute("UPDATE terminal_sources SET lease_until = lease_until + interval '1 day' FROM sources s WHERE s.id = source_id AND s.handle = 'later'").await;
    let second: String = stage.test.look("SELECT id::text FROM agents WHERE agent_id = 'vm-2'").await;
    let second: AgentId = second.parse().unwrap();
    // The first waits for longer, and its agent is away: it is passed over, until it ended a while ago.
    let free = async |at| stage.free_for(second, at).await.iter().map(|it| it.session).collect::<Vec<_>>();
    assert_eq!(free(at).await, [other]);
    let ended = format!(
        "UPDATE sessions SET state = 'terminated', ended_at = state_since WHERE id = '{}'",
        stage.session
    );
    stage.test.execute(&ended).await;
    assert_eq!(free(at).await, [other]);
    assert_eq!(free(at + TimeDelta::minutes(2)).await, [stage.session]);
}

#[tokio::test]
async fn one_that_is_finished_is_free_again_when_its_session_starts_again() {
    let mut stage = Stage::new().await;
    let at = stage.test.services().clock().now();
    let free = stage.free(at).await.pop().unwrap();
    let (holder, _) = stage.claim(&free, at).await.unwrap();
    let (db, session) = (stage.test.db(), stage.session);
    let work = db.in_org_as_system(&free.scope, async |tx| {
        terminal_source::release(tx, session, holder, Progress::default(), Next::Finished(1)).await
    });
    work.await.unwrap();
    assert!(stage.free(at + TimeDelta::days(1)).await.is_empty());
    let (sessions, scope) = (stage.test.services().sessions.clone(), stage.org.admin.org().unwrap());
    sessions.hibernate(scope, session).await.unwrap();
    stage.agent.work().await;
    assert!(stage.free(at + TimeDelta::days(1)).await.is_empty());
    sessions.wake(scope, session).await.unwrap();
    stage.agent.work().await;
    assert_eq!(stage.free(at).await.len(), 1);
}

#[tokio::test]
async fn a_source_records_one_session_and_goes_with_it() {
    let mut stage = Stage::new().await;
    let other = stage.test.running_session(&stage.org.admin, &mut stage.agent).await.id;
    let (scope, db) = (stage.org.admin.org().unwrap(), stage.test.db());
    let twice = db.in_org(scope, async |tx| {
        let source = source::find_by_handle(tx, "build").await?.source;
        terminal_source::insert(tx, other, source.id, scope.user_id(), now()).await
    });
    let twice = twice.await;
    assert!(matches!(twice, Err(Error::Violation(Constraint::RecordedSession))), "{twice:?}");
    let work = db.in_org(scope, async |tx| {
        let known = terminal_source::of_sessions(tx, vec![stage.session, other]).await?;
        assert_eq!(known.len(), 1);
        assert_eq!((known[0].0, known[0].1.handle.as_str()), (stage.session, "build"));
        assert_eq!(terminal_source::of_source(tx, known[0].1.source_id).await?, Some((stage.session, false)));
        source::delete(tx, "build").await?;
        let gone = terminal_source::find(tx, stage.session).await;
        assert!(matches!(gone, Err(Error::NotFound)), "{gone:?}");
        Ok::<_, Error>(())
    });
    work.await.unwrap();
}
