//! Accounts as the operator signs them: pushed, limited, revoked, forgotten, and signed anew by another key.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use tidegate_broker::{
    Authority, Error, Full, Limits, MAX_GRANTS, MAX_TOKEN_BYTES, OLDEST_SERVER, Principal, Revocations,
    Revoked, System, UserKey, WriteGrant, check_version, user_key,
};
use tidegate_test_support::eventually;
use tidegate_test_support::nats::{TestNats, TestOrgAccount};
use uuid::Uuid;

use crate::support::{RETENTION, now, open_pipe, pipe_of, spec};

fn claims(org: &TestOrgAccount) -> tidegate_broker::AccountClaims {
    org.account.authority.claims(org.account.organization, Limits::default())
}

#[tokio::test]
async fn the_server_is_new_enough_and_knows_the_accounts_it_was_told() {
    let nats = TestNats::shared();
    let system = nats.system().await;
    let server = system.server();
    assert!(server.jetstream && check_version(&server.version).is_ok(), "{server:?} beside {OLDEST_SERVER}");
    system.ping().await.unwrap();
    let org = nats.organization().await;
    let account = org.account.authority.public();
    assert!(system.account(account).await.unwrap().is_some());
    assert_eq!(system.load(account).await.unwrap().connections, 1);
}

#[tokio::test]
async fn a_server_that_does_not_trust_our_signing_key_is_not_told_of_accounts() {
    let nats = TestNats::shared();
    let (known, signing) = (&nats.authority, tidegate_broker::OperatorKey::generate());
    let rotated = Authority::new(known.identity().clone(), signing, known.system().clone());
    let rotated = Arc::new(rotated.also_trusting([known.signing().public().clone()]));
    let clock = Arc::new(tidegate_model::SystemClock::new());
    let error = System::connect(&nats.options(), rotated, clock.clone()).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { .. }) && error.to_string().contains("restart it"), "{error}");
    let stranger = Arc::new(Authority::generate());
    assert!(System::connect(&nats.options(), stranger, clock).await.is_err());
}

#[tokio::test]
async fn a_forgotten_account_lets_nobody_in() {
    let nats = TestNats::shared();
    let (system, org) = (nats.system().await, nats.organization().await);
    let account = org.account.authority.public().clone();
    system.forget(std::slice::from_ref(&account)).await.unwrap();
    assert_eq!(system.account(&account).await.unwrap(), None);
    let key = UserKey::generate();
    let rights = Principal::new(Uuid::new_v4()).permissions(&[]).unwrap();
    assert!(org.client_as(&key, &rights, "_INBOX_x").await.is_err());
}

#[tokio::test]
async fn limits_of_streams_and_storage_are_told_apart() {
    let nats = TestNats::shared();
    let limits = Limits { streams: 2, storage_bytes: 3 * RETENTION.bytes, ..Limits::default() };
    let org = nats.organization_with(limits).await;
    let me = Uuid::new_v4();
    let large = tidegate_broker::Retention { bytes: 4 * RETENTION.bytes, ..RETENTION };
    let error = org.broker.ensure_stream(&spec(&pipe_of(&org, me, "a", "inbox"), large)).await.unwrap_err();
    assert!(matches!(error, Error::Full { limit: Full::AccountStorage, .. }), "{error}");
    open_pipe(&org, me, "a", "inbox").await;
    open_pipe(&org, me, "b", "inbox").await;
    let error =
        org.broker.ensure_stream(&spec(&pipe_of(&org, me, "c", "inbox"), RETENTION)).await.unwrap_err();
    assert!(matches!(error, Error::Full { limit: Full::Streams, .. }), "{error}");
    let usage = org.broker.usage().await.unwrap();
    assert_eq!((usage.streams, usage.promised_bytes), (2, 2 * RETENTION.bytes));
    assert_eq!((usage.limit_streams, usage.limit_bytes), (Some(2), Some(limits.storage_bytes)));
}

/// How long after the push the connection was closed.
async fn closed_after(nats: &TestNats, org: &TestOrgAccount, whom: Revoked, key: &UserKey) -> Duration {
    let rights = Principal::new(Uuid::new_v4()).permissions(&[]).unwrap();
    let (sender, mut closed) = tokio::sync::mpsc::unbounded_channel();
    let client = org
        .client_as_with(key, &rights, "_INBOX_x", move |event| {
            if matches!(event, async_nats::Event::Disconnected | async_nats::Event::Closed) {
                sender.send(Instant::now()).ok();
            }
        })
        .await
        .unwrap();
    let system = nats.system().await;
    let mut claims = claims(org);
    claims.revocations = Revocations::from_iter([(whom, now() + TimeDelta::seconds(1))]);
    let token = nats.authority.sign_account(&claims, now()).unwrap();
    let asked = Instant::now();
    system.push(&token).await.unwrap();
    let at = tokio::time::timeout(tidegate_test_support::DEADLINE, closed.recv()).await.unwrap().unwrap();
    drop(client);
    at.duration_since(asked)
}

#[tokio::test]
async fn a_revoked_credential_is_cut_off_at_once_and_stays_out_and_others_stay_in() {
    let nats = TestNats::shared();
    let org = nats.organization().await;
    let (key, other) = (user_key(&[1; 32], Uuid::new_v4()).unwrap(), UserKey::generate());
    let rights = Principal::new(Uuid::new_v4()).permissions(&[]).unwrap();
    let bystander = org.client_as(&other, &rights, "_INBOX_x").await.unwrap();
    let mut times = Vec::new();
    for _ in 0..5 {
        let key = UserKey::generate();
        times.push(closed_after(nats, &org, Revoked::User(key.public().clone()), &key).await);
    }
    times.push(closed_after(nats, &org, Revoked::User(key.public().clone()), &key).await);
    times.sort();
    println!("revoke to disconnect: fastest {:?}, slowest {:?}", times[0], times[times.len() - 1]);
    assert!(times[times.len() / 2] < Duration::from_millis(100), "{times:?}");
    assert!(org.client_as(&key, &rights, "_INBOX_x").await.is_err(), "it came back");
    bystander.flush().await.unwrap();
    assert!(org.client_as(&other, &rights, "_INBOX_x").await.is_ok());
}

#[tokio::test]
async fn a_suspended_organization_is_cut_off_whole_and_comes_back_with_its_messages() {
    let nats = TestNats::shared();
    let org = nats.organization().await;
    let me = Uuid::new_v4();
    let pipe = open_pipe(&org, me, "mine", "inbox").await;
    org.broker.publish(crate::support::message(&pipe, me, "1", "kept")).await.unwrap();
    let took = closed_after(nats, &org, Revoked::Everybody, &UserKey::generate()).await;
    println!("suspend to disconnect: {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    let none = Limits { connections: Some(0), ..Limits::default() };
    let suspended = org.account.authority.claims(org.account.organization, none);
    let system = nats.system().await;
    system.push(&nats.authority.sign_account(&suspended, now()).unwrap()).await.unwrap();
    let rights = Principal::new(me).permissions(&[]).unwrap();
    assert!(org.client_as(&UserKey::generate(), &rights, "_INBOX_x").await.is_err());
    system.push(&nats.authority.sign_account(&claims(&org), now()).unwrap()).await.unwrap();
    let back = async || org.broker.stream(&pipe.stream).await.is_ok_and(|stream| stream.is_some());
    eventually("our own connection comes back", back).await;
    assert_eq!(&org.broker.last(&pipe.stream).await.unwrap().unwrap().payload[..], b"kept");
}

#[tokio::test]
async fn a_token_is_of_bounded_size_and_the_server_reads_the_largest() {
    let nats = TestNats::shared();
    let org = nats.organization().await;
    let principal = Principal::new(Uuid::new_v4());
    let grant = |number: usize| WriteGrant::new(&format!("terminal-of-bob-{number:03}"), "stdin").unwrap();
    let grants: Vec<_> = (0..MAX_GRANTS).map(grant).collect();
    let rights = principal.permissions(&grants).unwrap();
    let key = UserKey::generate();
    let lifetime = TimeDelta::minutes(5);
    let token = org.account.authority.mint(key.public(), "credential", &rights, now(), lifetime).unwrap();
    println!("token without grants and with {MAX_GRANTS}: {} bytes", token.len());
    assert!(token.len() <= MAX_TOKEN_BYTES);
    org.client_as(&key, &rights, &principal.inbox_prefix()).await.unwrap().flush().await.unwrap();

    let more: Vec<_> = (0..=MAX_GRANTS).map(grant).collect();
    let error = principal.permissions(&more).unwrap_err();
    assert!(matches!(error, Error::TooManyGrants { count: 257, limit: 256 }), "{error}");
    let longest = WriteGrant::new(&"h".repeat(32), &"p".repeat(32)).unwrap();
    let rights = principal.permissions(&vec![longest; MAX_GRANTS]).unwrap();
    let error = org.account.authority.mint(key.public(), "x", &rights, now(), lifetime).unwrap_err();
    assert!(matches!(error, Error::TokenTooLarge { .. }), "{error}");
}

#[tokio::test]
async fn an_expired_token_lets_nobody_in() {
    let nats = TestNats::shared();
    let org = nats.organization().await;
    let rights = Principal::new(Uuid::new_v4()).permissions(&[]).unwrap();
    let key = UserKey::generate();
    let before = now() - TimeDelta::minutes(6);
    let token =
        org.account.authority.mint(key.public(), "x", &rights, before, TimeDelta::minutes(5)).unwrap();
    let refused = tidegate_test_support::nats::connect(&nats.url, token.as_str(), &key, "_INBOX_x").await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn one_connection_per_organization_is_made_and_the_longest_idle_makes_room() {
    let nats = TestNats::shared();
    let options = tidegate_broker::Options { connections: 2, ..nats.options() };
    let pool = tidegate_broker::Pool::new(options, Arc::new(tidegate_model::SystemClock::new()));
    let orgs = [nats.organization().await, nats.organization().await, nats.organization().await];
    let system = nats.system().await;
    let both = tokio::join!(pool.get(&orgs[0].account), pool.get(&orgs[0].account));
    assert!(both.0.is_ok() && both.1.is_ok());
    let load = system.load(orgs[0].account.authority.public()).await.unwrap();
    assert_eq!(load.connections, 2, "the test's own and the pool's");
    drop(both);
    pool.get(&orgs[1].account).await.unwrap();
    pool.get(&orgs[2].account).await.unwrap();
    assert_eq!(pool.len().await, 2);
    let gone = async || system.load(orgs[0].account.authority.public()).await.unwrap().connections == 1;
    eventually("the connection of the longest idle is closed", gone).await;
    pool.close(orgs[1].account.authority.public()).await;
    assert_eq!(pool.len().await, 1);
}

#[tokio::test]
async fn what_nobody_pushed_is_not_there() {
    let nats = TestNats::shared();
    let stranger = tidegate_broker::AccountAuthority::generate();
    let system = nats.system().await;
    assert_eq!(system.account(stranger.public()).await.unwrap(), None);
}

#[tokio::test]
async fn of_many_who_want_a_server_that_does_not_answer_one_waits_for_it() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", silent.local_addr().unwrap());
    let options = tidegate_broker::Options {
        connect_timeout: Duration::from_secs(1),
        ..tidegate_broker::Options::new([url])
    };
    let pool = tidegate_broker::Pool::new(options, Arc::new(tidegate_model::SystemClock::new()));
    let account = tidegate_broker::OrgAccount {
        organization: Uuid::new_v4(),
        authority: tidegate_broker::AccountAuthority::generate(),
    };
    let began = Instant::now();
    let wanted = futures_util::future::join_all((0..20).map(|_| pool.get(&account))).await;
    assert!(wanted.iter().all(|outcome| outcome.as_ref().is_err_and(Error::is_transient)));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
