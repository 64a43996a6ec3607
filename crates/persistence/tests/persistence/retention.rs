//! Every kind of row that goes after its time does go, on the role that is to do it.

use chrono::TimeDelta;
use tidegate_persistence::{
    Error, Operator,
    retention::{self, KINDS, Retention},
};

use crate::Filled;

/// Ends whatever would live for ever, and adds what a filled database has none of. Triggers stay quiet, so that nothing
/// else is written of it. A session that goes takes its shares with it, so that those shared stay.
const END: &str = "SET session_replication_role = replica;
    UPDATE commands SET status = 'completed', completed_at = '2020-01-01';
    UPDATE sessions SET state = 'terminated', ended_at = '2020-01-01'
        WHERE id NOT IN (SELECT session_id FROM session_shares UNION SELECT session_id FROM viewing_ends);
    UPDATE session_shares SET expires_at = '2020-01-01';
    UPDATE organizations SET status = 'deleted', updated_at = '2020-01-01';
    WITH made AS (INSERT INTO installed_plugins (name, version, plugin_type, enabled, config, manifest, package, permissions,
            events, ordered, vetoes, installed_by, installed_at, updated_at)
        SELECT 'everybodys', '1.0.0', 'ui', true, '{}', '{}', digest, '{}', '{}', false, false, 'x', '2020-01-01', '2020-01-01'
        FROM plugin_packages LIMIT 1 RETURNING id)
    INSERT INTO plugin_store SELECT made.id, o.id, 'key', '1', '2020-01-01' FROM made, organizations o;
    INSERT INTO plugin_packages VALUES (sha256('nobody'), '', '2020-01-01');
    UPDATE installed_applications SET removed_at = '2020-01-01', install_due_at = NULL;
    UPDATE api_keys SET revoked_at = '2020-01-01';
    UPDATE mails SET status = 'sent', finished_at = '2020-01-01';
    INSERT INTO identity_attempts (state_hash, browser_hash, nonce_hash, provider, next, created_at, expires_at)
        VALUES ('\\x01', '\\x02', '\\x03', 'github', '/', '2020-01-01', '2020-01-01');
    INSERT INTO password_resets (id, due_at, created_at) VALUES (gen_random_uuid(), '2020-01-01', '2020-01-01');
    INSERT INTO user_idempotency_keys (user_id, credential, route, key, body_hash, status, body, created_at)
        SELECT id, id, 'POST /', 'key', '\\x01', 201, '{}', '2020-01-01' FROM users LIMIT 1;
    INSERT INTO plugin_deliveries (id, plugin_id, event, payload, status, due_at, since, created_at, finished_at)
        VALUES (gen_random_uuid(), 1, 'session.running', '{}', 'delivered', '2020-01-01', '2020-01-01', '2020-01-01', '2020-01-01');
    UPDATE pipe_operations SET status = 'done', finished_at = '2020-01-01';
    UPDATE nats_principals SET valid_until = '2020-01-01';
    UPDATE installed_applications SET removed_at = '2020-01-01';
    INSERT INTO repositories (name, url, type, created_at, updated_at, removed_at)
        VALUES ('removed', 'https://example.com/a', 'git', '2020-01-01', '2020-01-01', '2020-01-01'),
               ('kept', 'https://example.com/b', 'git', '2020-01-01', '2020-01-01', NULL);
    INSERT INTO catalog_templates (repository_id, name, display_name, description, category, app_type, platforms, tags, manifest, digest,
            withdrawn_at, created_at, updated_at)
        SELECT id, 'gone', 'Gone', '', '', 'desktop', '{}', '{}', '{}', '\\x01', '2020-01-01', '2020-01-01', '2020-01-01'
        FROM repositories WHERE name = 'removed';
    INSERT INTO catalog_plugins (repository_id, name, version, display_name, description, category, plugin_type, tags, package, manifest,
            digest, withdrawn_at, created_at, updated_at)
        SELECT id, 'p', '1.0.0', 'P', '', '', 'theme', '{}', sha256('kept'), '{}', '\\x01', removed_at, '2020-01-01', '2020-01-01'
        FROM repositories WHERE name IN ('removed', 'kept');
    INSERT INTO plugin_versions (plugin_id, version, manifest, package, created_at)
        SELECT p.id, '1.0.' || n, '{}', sha256('kept'), '2020-01-01' FROM catalog_plugins p, generate_series(0, 21) n
        WHERE p.withdrawn_at IS NULL;
    INSERT INTO catalog_blobs (digest, media_type, size, content, put_at) VALUES (sha256('nobody'), 'image/png', 1, 'x', '2020-01-01')";

#[tokio::test]
async fn every_kind_goes_after_its_time() {
    let filled = Filled::new().await;
    filled.test.superuser().await.batch_execute(END).await.unwrap();
    let span = TimeDelta::days(1);
    let keep = Retention {
        audit: span,
        commands: span,
        session_events: span,
        events: span,
        sessions: span,
        logins: span,
        keys: span,
        tokens: span,
        codes: span,
        invites: span,
        mails: span,
        idempotency: span,
        tickets: span,
        shares: span,
        quarantine: span,
        deliveries: span,
        pipe_operations: span,
        catalog: span,
        files: span,
    };
    let later = tidegate_model::Clock::now(filled.test.manual_clock().as_ref()) + TimeDelta::days(4_000);
    let system = Operator::system();
    let mut left = Vec::new();
    for kind in KINDS {
        let sweep =
            async |tx: &mut tidegate_persistence::PlatformTx| retention::sweep(tx, kind, &keep, later).await;
        let gone = filled
            .test
            .db()
            .in_platform(&system, sweep)
            .await
            .map_err(|error: Error| (kind.table, error))
            .unwrap();
        if gone == Some(0) {
            left.push(kind.table);
        }
    }
    assert!(left.is_empty(), "nothing went of {left:?}");
}
