//! API keys come in: by digest, by hash, once, in time, and not at all.

use std::{net::IpAddr, time::Duration};

use chrono::TimeDelta;
use tidegate_model::{ApiKey, Clock, CredentialId, NewApiKey, Scope, Secret};
use tidegate_service::{Caller, Error, Idempotency, Keys, Minted, Options, hash_api_key, key_prefix};
use tidegate_test_support::{TestDb, TestOrg};

/// A key with these scopes, which never ends.
pub(crate) fn wanted(scopes: &[Scope]) -> NewApiKey {
    NewApiKey { label: "ci".into(), scopes: scopes.iter().copied().collect(), expires_at: None }
}

pub(crate) async fn mint(keys: &Keys, maker: &Caller, new: &NewApiKey) -> Result<(ApiKey, String), Error> {
    match keys.insert_api_key(maker.org().unwrap(), new, None, None, |_| ().into()).await? {
        Minted::New(key, plaintext) => Ok((key, plaintext.into_inner())),
        Minted::Replay(replay) => panic!("{replay:?} of nothing"),
    }
}

pub(crate) fn ended(result: &Result<Caller, Error>) -> bool {
    matches!(result, Err(Error::Unauthenticated(_)))
}

/// An organization, a key of its admin, and that key's row.
pub(crate) struct Stage {
    pub(crate) test: TestDb,
    pub(crate) org: TestOrg,
    pub(crate) key: ApiKey,
    pub(crate) plaintext: String,
}

impl Stage {
    pub(crate) async fn new(scopes: &[Scope]) -> Self {
        let test = TestDb::new().await;
        let org = test.org_with_admin("acme").await;
        let (key, plaintext) = mint(&test.services().keys, &org.admin, &wanted(scopes)).await.unwrap();
        Self { test, org, key, plaintext }
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.test.services().keys
    }

    pub(crate) async fn comes_in(&self) -> Result<Caller, Error> {
        self.test.services().logins.authenticate(&self.plaintext, None).await
    }

    /// Another key that begins like the real one.
    fn alike(&self) -> String {
        let last = if self.plaintext.ends_with('0') { '1' } else { '0' };
        format!("{}{last}", &self.plaintext[..29])
    }
}

#[tokio::test]
async fn a_key_stands_for_its_maker_in_its_organization() {
    let stage = Stage::new(&[Scope::SessionsRead]).await;
    let caller = stage.comes_in().await.unwrap();
    assert_eq!(caller.org().unwrap().org_id(), stage.org.id);
    assert_eq!(caller.user().user_id(), stage.org.admin.user().user_id());
    assert_eq!(caller.credential(), CredentialId::ApiKey(stage.key.id));
    assert!(caller.scopes().allow(Scope::SessionsRead) && !caller.scopes().allow(Scope::SessionsWrite));
    assert_eq!(stage.key.key_prefix, key_prefix(&stage.plaintext));
    assert_eq!(stage.keys().lookup_api_key(&stage.plaintext).await.unwrap(), stage.key);
    let stored = "SELECT count(*) FROM api_keys WHERE key_hash LIKE '$argon2id$v=19$m=65536,t=1,p=4$%' AND length(digest) = 32";
    assert_eq!(stage.test.look::<i64>(stored).await, 1);
}

#[tokio::test]
async fn a_key_opens_no_organization_but_its_own() {
    let stage = Stage::new(&[Scope::Everything]).await;
    let logins = &stage.test.services().logins;
    stage.test.org_with_admin("bolt").await;
    for own in ["acme".to_owned(), stage.org.id.to_string()] {
        assert!(logins.authenticate(&stage.plaintext, Some(&own)).await.unwrap().org().is_ok());
    }
    for other in ["bolt", "nobody", "", "a\0b"] {
        let caller = logins.authenticate(&stage.plaintext, Some(other)).await.unwrap();
        assert!(matches!(caller.org(), Err(Error::NotFound(_))), "{other}");
    }
}

#[tokio::test]
async fn what_is_no_key_of_ours_is_not_good() {
    let stage = Stage::new(&[Scope::Everything]).await;
    let logins = &stage.test.services().logins;
    let upper = stage.plaintext.to_uppercase();
    for wrong in
        ["ppz_", &stage.alike(), &upper, "ppz_0123456789abcdef0123456789", "ppz_oauth_0123", "ppz_\0"]
    {
        assert!(ended(&logins.authenticate(wrong, None).await), "{wrong}");
    }
    assert!(matches!(stage.keys().lookup_api_key(&stage.alike()).await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn a_revoked_key_ends_at_once_and_is_revoked_once() {
    let stage = Stage::new(&[Scope::Everything]).await;
    let caller = stage.comes_in().await.unwrap();
    let scope = stage.org.admin.org().unwrap();
    let first = stage.keys().revoke_api_key(scope, stage.key.id, None).await.unwrap();
    assert!(first.revoked_at.is_some());
    assert!(ended(&stage.comes_in().await));
    assert!(!stage.test.services().logins.still_stands(&caller).await.unwrap());
    stage.test.manual_clock().advance(TimeDelta::hours(1));
    let again = stage.keys().revoke_api_key(scope, stage.key.id, None).await.unwrap();
    assert_eq!(again.revoked_at, first.revoked_at);
    let audited = "SELECT count(*) FROM audit_log WHERE action = 'key.revoke'";
    assert_eq!(stage.test.look::<i64>(audited).await, 1);
}

#[tokio::test]
async fn a_key_ends_at_its_time() {
    let stage = Stage::new(&[Scope::Everything]).await;
    let clock = stage.test.manual_clock();
    let expires_at = Some(clock.now() + TimeDelta::hours(2));
    let new = NewApiKey { expires_at, ..wanted(&[Scope::Everything]) };
    let (_, plaintext) = mint(stage.keys(), &stage.org.admin, &new).await.unwrap();
    let logins = &stage.test.services().logins;
    let caller = logins.authenticate(&plaintext, None).await.unwrap();
    clock.advance(TimeDelta::hours(2));
    assert!(ended(&logins.authenticate(&plaintext, None).await));
    assert!(!logins.still_stands(&caller).await.unwrap());
    let late = mint(stage.keys(), &stage.org.admin, &new).await;
    assert!(matches!(late, Err(Error::Invalid(_))), "{late:?}");
}

#[tokio::test]
async fn a_key_without_a_digest_is_hashed_once_and_then_known() {
    let stage = Stage::new(&[Scope::Everything]).await;
    for lost in
        ["digest = NULL, digest_version = NULL", "digest = '\\x00', digest_version = 32767 - digest_version"]
    {
        stage.test.execute(&format!("UPDATE api_keys SET {lost}")).await;
        assert!(ended(&stage.test.services().logins.authenticate(&stage.alike(), None).await));
        stage.comes_in().await.unwrap();
        let known = "SELECT count(*) FROM api_keys WHERE length(digest) = 32";
        assert_eq!(stage.test.look::<i64>(known).await, 1, "{lost}");
        stage.comes_in().await.unwrap();
    }
}

#[tokio::test]
async fn a_wrong_key_with_a_real_prefix_costs_no_hash() {
    let stage = Stage::new(&[Scope::Everything]).await;
    // Were it computed, it would fit: nobody looks at it while there is a digest.
    let hash = hash_api_key(&stage.alike()).unwrap();
    stage.test.execute(&format!("UPDATE api_keys SET key_hash = '{hash}'")).await;
    assert!(ended(&stage.test.services().logins.authenticate(&stage.alike(), None).await));
    stage.comes_in().await.unwrap();
}

#[tokio::test]
async fn an_absurd_stored_hash_lets_nobody_in_and_takes_no_time() {
    let stage = Stage::new(&[Scope::Everything]).await;
    let absurd =
        "$argon2id$v=19$m=4194304,t=400000,p=4$c2FsdHNhbHRzYWx0$8SyfTuS5xrwXBgVZBvHrVbrKRNkLdcvFPEGvGRfdmOM";
    let sql = format!("UPDATE api_keys SET digest = NULL, digest_version = NULL, key_hash = '{absurd}'");
    stage.test.execute(&sql).await;
    let refused = tokio::time::timeout(Duration::from_secs(10), stage.comes_in()).await.unwrap();
    assert!(ended(&refused));
}

#[tokio::test]
async fn wrong_keys_of_a_source_are_counted_and_the_right_one_is_let_in() {
    let stage = Stage::new(&[Scope::Everything]).await;
    let strict = stage.test.services_with(Options { failures_per_source: 20, ..TestDb::options() });
    let from = async |plaintext: &str, source: IpAddr| {
        strict.logins.authenticate_from(plaintext, None, Some(source)).await
    };
    let (here, there): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
    for _ in 0..20 {
        assert!(ended(&from(&stage.alike(), here).await));
    }
    for wrong in [stage.alike(), "ppz_nothing".to_owned()] {
        let refused = from(&wrong, here).await;
        assert!(matches!(refused, Err(Error::RateLimited(_))), "{refused:?}");
    }
    from(&stage.plaintext, here).await.unwrap();
    assert!(ended(&from(&stage.alike(), there).await));
    // One that would have to be hashed waits: that is what the limit is for.
    stage.test.execute("UPDATE api_keys SET digest = NULL, digest_version = NULL").await;
    assert!(matches!(from(&stage.plaintext, here).await, Err(Error::RateLimited(_))));
    from(&stage.plaintext, there).await.unwrap();
}

#[tokio::test]
async fn uses_are_written_together_and_once_a_minute() {
    let stage = Stage::new(&[Scope::Everything]).await;
    assert_eq!(stage.keys().flush_uses().await.unwrap(), 0);
    for _ in 0..5 {
        stage.comes_in().await.unwrap();
    }
    assert_eq!(stage.keys().flush_uses().await.unwrap(), 1);
    stage.test.manual_clock().advance(TimeDelta::seconds(59));
    stage.comes_in().await.unwrap();
    assert_eq!(stage.keys().flush_uses().await.unwrap(), 0);
    stage.test.manual_clock().advance(TimeDelta::seconds(1));
    stage.comes_in().await.unwrap();
    let outage = stage.test.outage().await;
    assert!(stage.keys().flush_uses().await.unwrap_err().is_unavailable());
    outage.end().await;
    assert_eq!(stage.keys().flush_uses().await.unwrap(), 1, "what could not be written waited");
    let used = stage.keys().get(stage.org.admin.org().unwrap(), stage.key.id).await.unwrap().last_used_at;
    assert!(used.is_some());
}

#[tokio::test]
async fn a_database_outage_is_no_wrong_key() {
    let stage = Stage::new(&[Scope::Everything]).await;
    let outage = stage.test.outage().await;
    assert!(stage.comes_in().await.unwrap_err().is_unavailable());
    outage.end().await;
    stage.comes_in().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_racing_requests_with_one_idempotency_key_one_is_told_the_secret() {
    let stage = Stage::new(&[Scope::Everything]).await;
    let (scope, new) = (stage.org.admin.org().unwrap(), wanted(&[Scope::Streams]));
    let ask = async || {
        let repeat = Idempotency::new(scope.credential(), "POST keys", "once", b"{}").unwrap();
        let answer = |key: &ApiKey| serde_json::json!({"id": key.id, "secretShown": true});
        stage.keys().insert_api_key(scope, &new, None, Some(&repeat), answer).await.unwrap()
    };
    let outcomes = futures_util::future::join_all((0..8).map(|_| ask())).await;
    let told: Vec<Secret<String>> = outcomes
        .into_iter()
        .filter_map(|outcome| match outcome {
            Minted::New(_, plaintext) => Some(plaintext),
            Minted::Replay(replay) => {
                assert_eq!((replay.status, &replay.body["secretShown"]), (201, &true.into()));
                None
            }
        })
        .collect();
    assert_eq!(told.len(), 1);
    assert_eq!(stage.test.look::<i64>("SELECT count(*) FROM api_keys").await, 2);
    let kept: i64 = stage
        .test
        .look(&format!(
            "SELECT count(*) FROM idempotency_keys WHERE body::text LIKE '%{}%'",
            told[0].expose()
        ))
        .await;
    assert_eq!(kept, 0, "no secret is kept");
}
