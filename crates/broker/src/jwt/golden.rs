//! Our tokens beside those that the reference implementation (`github.com/nats-io/jwt/v2` 2.8.3) made of the same keys and
//! claims: equal byte for byte.

use std::collections::BTreeMap;

use chrono::DateTime;
use serde::Deserialize;

use super::user::UserClaims;
use super::{
    AccountClaims, DeletionClaims, Limits, OperatorClaims, Permissions, Revocations, Revoked, SubjectRules,
};
use crate::keys::{AccountKey, OperatorKey, Seed, UserKey};

#[derive(Deserialize)]
struct Golden {
    operator_seed: String,
    operator_signing_seed: String,
    system_seed: String,
    account_seed: String,
    account_signing_seed: String,
    user_seed: String,
    issued_at: String,
    operator: String,
    system: String,
    account: String,
    user: String,
    delete: String,
}

impl Golden {
    fn read() -> Self {
        serde_json::from_str(include_str!("../../tests/golden/jwt.json")).unwrap()
    }

    fn issued_at(&self) -> i64 {
        self.issued_at.parse().unwrap()
    }
}

fn operator(seed: &str) -> OperatorKey {
    OperatorKey::from_seed(&Seed::new(seed)).unwrap()
}

fn account(seed: &str) -> AccountKey {
    AccountKey::from_seed(&Seed::new(seed)).unwrap()
}

fn user(seed: &str) -> UserKey {
    UserKey::from_seed(&Seed::new(seed)).unwrap()
}

#[test]
fn the_operators_token_is_the_references() {
    let golden = Golden::read();
    let system = account(&golden.system_seed);
    let claims = OperatorClaims {
        name: "tidegate",
        signing_keys: &[operator(&golden.operator_signing_seed).public().clone()],
        system_account: system.public(),
    };
    assert_eq!(claims.encode(&operator(&golden.operator_seed), golden.issued_at()).unwrap(), golden.operator);
}

#[test]
fn the_system_accounts_token_is_the_references() {
    let golden = Golden::read();
    let claims = AccountClaims {
        account: account(&golden.system_seed).public().clone(),
        name: "SYS".to_owned(),
        signing_keys: Vec::new(),
        limits: None,
        revocations: Revocations::new(),
        payload_bytes: None,
        mappings: BTreeMap::new(),
    };
    let token = claims.encode(&operator(&golden.operator_seed), golden.issued_at()).unwrap();
    assert_eq!(token.as_str(), golden.system);
}

#[test]
fn an_accounts_token_with_limits_revocations_and_mappings_is_the_references() {
    let golden = Golden::read();
    let wildcards = (1..=4).map(|number| format!("{{{{wildcard({number})}}}}")).collect::<Vec<_>>().join(".");
    let claims = AccountClaims {
        account: account(&golden.account_seed).public().clone(),
        name: "acme".to_owned(),
        signing_keys: vec![account(&golden.account_signing_seed).public().clone()],
        limits: Some(Limits { connections: Some(1_000), ..Limits::default() }),
        revocations: Revocations::from_iter([(
            Revoked::User(user(&golden.user_seed).public().clone()),
            DateTime::from_timestamp(1_764_300_000, 0).unwrap(),
        )]),
        payload_bytes: Some(131_072),
        mappings: BTreeMap::from([("acme.*.*.*.*".to_owned(), format!("S.secret.acme.{wildcards}"))]),
    };
    let token = claims.encode(&operator(&golden.operator_signing_seed), golden.issued_at()).unwrap();
    assert_eq!(token.as_str(), golden.account);
}

#[test]
fn a_users_token_is_the_references() {
    let golden = Golden::read();
    let publish = vec!["acme.me.*.*.me".to_owned(), "acme.*.*.inbox.me".to_owned()];
    let (user, account_key) = (user(&golden.user_seed), account(&golden.account_seed));
    let claims = UserClaims {
        user: user.public(),
        name: "credential",
        account: account_key.public(),
        permissions: &Permissions {
            publish: SubjectRules::only(publish),
            subscribe: SubjectRules::only(vec!["_INBOX_me.*".to_owned()]),
        },
        payload_bytes: Some(65_536),
        subscriptions: None,
        expires: Some(1_764_300_300),
    };
    let token = claims.encode(&account(&golden.account_signing_seed), golden.issued_at()).unwrap();
    assert_eq!(token.as_str(), golden.user);
}

#[test]
fn the_request_to_forget_accounts_is_the_references() {
    let golden = Golden::read();
    let accounts = [account(&golden.account_seed).public().clone()];
    let token =
        DeletionClaims::of(&accounts).encode(&operator(&golden.operator_seed), golden.issued_at()).unwrap();
    assert_eq!(token, golden.delete);
}
