//! An aged database: what the tables look like after a million commands. Nothing is measured on an empty one.

use crate::{progress, stage::Stage};

/// Sessions written by one statement.
const CHUNK: u32 = 25_000;

/// Writes `commands` finished commands, two for each session, with the sessions and their history, over the
/// organizations, users and agents that are there, spread over the last thirty days.
///
/// As the superuser and without triggers, which only saves time: the rows are those the triggers would have made.
pub(crate) async fn age(stage: &Stage, commands: u32) -> anyhow::Result<()> {
    let sessions = commands / 2;
    let bar = progress::bar("finished sessions", u64::from(sessions));
    let mut done = 0;
    while done < sessions {
        let last = (done + CHUNK).min(sessions);
        stage.sql(&chunk(done, last)).await?;
        bar.inc(u64::from(last - done));
        done = last;
    }
    bar.finish_and_clear();
    progress::during("vacuum and analyze", async {
        stage.sql("VACUUM ANALYZE").await?;
        stage.sql("CHECKPOINT").await
    })
    .await?;
    Ok(())
}

fn chunk(first: u32, last: u32) -> String {
    format!(
        r#"SET session_replication_role = replica; SET synchronous_commit = off;
WITH people AS (
    SELECT m.org_id, m.user_id, u.username, row_number() OVER (ORDER BY m.org_id, m.user_id) - 1 AS n FROM memberships m JOIN users u ON u.id = m.user_id),
hosts AS (SELECT id, agent_id, row_number() OVER (ORDER BY id) - 1 AS n FROM agents),
made AS (
    SELECT g, tidegate_uuid_v7(at) AS id, p.org_id, p.user_id, p.username, a.id AS agent, a.agent_id AS handle, at
    FROM (SELECT g, clock_timestamp() - interval '30 days' * (1 - g / 1e8) AS at FROM generate_series({first}, {last} - 1) g) s
    JOIN people p ON p.n = g % (SELECT count(*) FROM people)
    JOIN hosts a ON a.n = (g / 7) % (SELECT count(*) FROM hosts)),
new_sessions AS (
    INSERT INTO sessions (id, org_id, user_id, username, name, template, agent_id, agent_handle, platform, state, state_since, generation,
        cpu_millis, memory_bytes, storage_bytes, persistent_home, idle_seconds, max_seconds, tags, created_at, started_at, ended_at)
    SELECT id, org_id, user_id, username, 'shell-' || g, 'shell', agent, handle, 'vm', 'terminated', at + interval '10 minutes', 1,
        1000, 2147483648, 0, false, 0, 0, ARRAY[]::text[], at, at + interval '1 second', at + interval '10 minutes' FROM made),
new_events AS (
    INSERT INTO session_events (id, org_id, session_id, agent_id, from_state, to_state, generation, at)
    SELECT tidegate_uuid_v7(at), org_id, id, agent, e.was, e.now, 1, at FROM made
    CROSS JOIN (VALUES (NULL, 'pending'), ('pending', 'running'), ('running', 'terminating'), ('terminating', 'terminated')) e(was, now))
INSERT INTO commands (id, org_id, agent_id, agent_handle, session_id, generation, action, payload, status, sent_epoch, deadline, created_at, sent_at, acknowledged_at, completed_at)
SELECT tidegate_uuid_v7(at), org_id, agent, handle, id, 1, c.action,
    jsonb_build_object('sessionId', id, 'user', username, 'generation', 1, 'template', 'shell', 'resources', '{{"cpu": "1000m", "memory": "2Gi"}}'::jsonb),
    'completed', 1, at + interval '5 minutes', at, at, at, at
FROM made CROSS JOIN (VALUES ('start_session'), ('stop_session')) c(action);"#
    )
}
