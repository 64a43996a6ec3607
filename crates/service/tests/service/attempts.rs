//! Guessing passwords: how often, from where, and whom it must not lock out.

use std::net::IpAddr;

use chrono::TimeDelta;
use tidegate_model::{LoginRequest, OrgRole, Secret};
use tidegate_service::{Error, LoggedIn, Operator, Options, Services};
use tidegate_test_support::{TestDb, TestUser};

const OFFICE: &str = "192.0.2.1";
const ELSEWHERE: &str = "198.51.100.7";

/// Two users and a service that allows so many failures of a source and of a name.
async fn stand(per_source: u32, per_subject: u32) -> (TestDb, Services, TestUser, TestUser) {
    let test = TestDb::new().await;
    test.services().operators.create_organization(&Operator::console(), "acme").await.unwrap();
    let (alice, robert) =
        (test.user_in("acme", OrgRole::User).await, test.user_in("acme", OrgRole::User).await);
    let strict =
        Options { failures_per_source: per_source, failures_per_subject: per_subject, ..TestDb::options() };
    let services = test.services_with(strict);
    (test, services, alice, robert)
}

async fn right(services: &Services, user: &TestUser, from: &str) -> Result<LoggedIn, Error> {
    services.logins.login(user.login(), Some(from.parse().unwrap())).await
}

async fn wrong(services: &Services, username: &str, from: &str) -> Result<LoggedIn, Error> {
    let from: IpAddr = from.parse().unwrap();
    let request = LoginRequest { username: username.into(), password: Secret::new("wrong".into()) };
    services.logins.login(request, Some(from)).await
}

fn refused(result: &Result<LoggedIn, Error>) -> bool {
    matches!(result, Err(Error::RateLimited(wait)) if *wait >= TimeDelta::seconds(1))
}

fn mistaken(result: &Result<LoggedIn, Error>) -> bool {
    matches!(result, Err(Error::InvalidCredentials))
}

#[tokio::test]
async fn a_source_of_many_failures_is_refused_before_its_password_is_looked_at() {
    let (test, services, alice, _) = stand(3, 100).await;
    for name in ["nobody", "somebody", "anybody"] {
        assert!(mistaken(&wrong(&services, name, OFFICE).await), "{name}");
    }
    assert!(refused(&wrong(&services, "nobody", OFFICE).await));
    // Even the right password is not hashed: nothing tells whether it was right.
    assert!(refused(&right(&services, &alice, OFFICE).await));
    right(&services, &alice, ELSEWHERE).await.unwrap();
    test.manual_clock().advance(TimeDelta::seconds(20));
    right(&services, &alice, OFFICE).await.unwrap();
}

#[tokio::test]
async fn logins_that_succeed_count_for_nothing() {
    let (_test, services, alice, robert) = stand(2, 2).await;
    for _ in 0..5 {
        right(&services, &alice, OFFICE).await.unwrap();
    }
    right(&services, &robert, OFFICE).await.unwrap();
    assert!(mistaken(&wrong(&services, "nobody", OFFICE).await));
}

#[tokio::test]
async fn whoever_logged_in_from_an_address_is_not_locked_out_by_others_behind_it() {
    let (_test, services, alice, robert) = stand(2, 2).await;
    right(&services, &alice, OFFICE).await.unwrap();
    for _ in 0..2 {
        assert!(mistaken(&wrong(&services, &robert.username, OFFICE).await));
    }
    assert!(refused(&right(&services, &robert, OFFICE).await));
    right(&services, &alice, OFFICE).await.unwrap();
    // Their own failures count all the same.
    for _ in 0..2 {
        assert!(mistaken(&wrong(&services, &alice.username, OFFICE).await));
    }
    assert!(refused(&right(&services, &alice, OFFICE).await));
}

#[tokio::test]
async fn a_name_guessed_at_from_everywhere_is_refused_but_to_those_it_knows() {
    let (_test, services, alice, _) = stand(100, 2).await;
    right(&services, &alice, OFFICE).await.unwrap();
    for from in ["203.0.113.1", "203.0.113.2"] {
        assert!(mistaken(&wrong(&services, &alice.username.to_uppercase(), from).await));
    }
    assert!(refused(&wrong(&services, &alice.username, "203.0.113.3").await));
    right(&services, &alice, OFFICE).await.unwrap();
}

#[tokio::test]
async fn a_name_that_nobody_has_is_limited_like_any_other() {
    let (_test, services, alice, _) = stand(100, 2).await;
    for name in [alice.username.as_str(), "nobody", "no\0body"] {
        assert!(mistaken(&wrong(&services, name, OFFICE).await), "{name:?}");
        assert!(mistaken(&wrong(&services, name, OFFICE).await), "{name:?}");
        assert!(refused(&wrong(&services, name, OFFICE).await), "{name:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_at_the_same_time_are_no_way_around_the_limit() {
    let (_test, services, alice, _) = stand(3, 100).await;
    let guesses = (0..30).map(|_| wrong(&services, &alice.username, OFFICE));
    let outcomes = futures_util::future::join_all(guesses).await;
    let looked_at = outcomes.iter().filter(|outcome| mistaken(outcome)).count();
    // As many more as there are workers may begin before the last one that counts has ended.
    assert!((3..=4).contains(&looked_at), "{looked_at}");
    assert!(outcomes.iter().all(|outcome| mistaken(outcome) || refused(outcome)));
}
