//! Users, one's own password and logins.

use reqwest::{
    Method,
    header::{HeaderName, HeaderValue},
};
use serde::{Deserialize, Serialize};
use tidegate_model::{
    LoginSession, LoginSessionId, OrgId, OrgRole, PlatformUser, Provider, Secret, SystemRole, User, UserId,
};

use crate::{Client, Error, SessionPage, call::Call};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A user to make.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// 3–32 of `A-Z a-z 0-9 _ -`.
    pub username: String,
    /// E-mail address.
    pub email: String,
    /// Display name.
    pub full_name: String,
    /// For local users.
    pub password: Option<Secret<String>>,
    /// How the user logs in.
    pub provider: Provider,
    /// Role in the organization.
    pub org_role: OrgRole,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewUserBody<'a> {
    username: &'a str,
    email: &'a str,
    full_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
    provider: Provider,
    org_role: OrgRole,
}

/// What changes of a user; what is `None` stays.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserChange {
    /// E-mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Display name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_name: Option<String>,
    /// Role on the platform, for operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<SystemRole>,
    /// Whether the user may log in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// Whose account it is, for operators; `Some(None)`: nobody's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home_org_id: Option<Option<OrgId>>,
    /// One's own password in force, for another address of one's own.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "exposed")]
    pub current_password: Option<Secret<String>>,
}

#[expect(clippy::ref_option, reason = "serde calls it so")]
fn exposed<S: serde::Serializer>(secret: &Option<Secret<String>>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(Secret::expose).serialize(serializer)
}

/// One page of users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserPage<T = User> {
    /// By name.
    pub users: Vec<T>,
    /// How many there are on all pages.
    pub total: u64,
    /// What asks for the next page; `None` on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// One page of the caller's logins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoginPage {
    /// The newest first.
    pub logins: Vec<LoginSession>,
    /// How many there are on all pages.
    pub total: u64,
    /// What asks for the next page; `None` on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PasswordBody<'a> {
    current_password: &'a str,
    new_password: &'a str,
}

impl Client {
    /// `GET users`, one page: at most 100, from `cursor` on.
    pub async fn users(&self, search: Option<&str>, cursor: Option<&str>) -> Result<UserPage, Error> {
        let call = Call::get(&["users"]).query("limit", "100".to_owned());
        self.fetch(call.query_if("search", search).query_if("cursor", cursor)).await
    }

    /// `POST users`, with a key of its own: an answer that was lost is asked for again.
    pub async fn create_user(&self, new: &NewUser) -> Result<User, Error> {
        let key = uuid::Uuid::new_v4().to_string();
        let key = HeaderValue::from_str(&key).unwrap_or(HeaderValue::from_static("0"));
        let body = NewUserBody {
            username: &new.username,
            email: &new.email,
            full_name: &new.full_name,
            password: new.password.as_ref().map(|password| password.expose().as_str()),
            provider: new.provider,
            org_role: new.org_role,
        };
        self.fetch(Call::post(&["users"]).json(&body)?.header(IDEMPOTENCY_KEY, key).repeatable()).await
    }

    /// `GET users/{id}`.
    pub async fn user(&self, id: UserId) -> Result<User, Error> {
        self.fetch(Call::get(&["users", &id.to_string()])).await
    }

    /// `PATCH users/{id}`.
    pub async fn update_user(&self, id: UserId, change: &UserChange) -> Result<User, Error> {
        self.fetch(Call::new(Method::PATCH, &["users", &id.to_string()]).json(change)?).await
    }

    /// `PATCH users/me`.
    pub async fn update_me(&self, change: &UserChange) -> Result<User, Error> {
        self.fetch(Call::new(Method::PATCH, &["users", "me"]).json(change)?).await
    }

    /// `DELETE users/{id}`.
    pub async fn delete_user(&self, id: UserId) -> Result<(), Error> {
        self.send(&Call::new(Method::DELETE, &["users", &id.to_string()])).await.map(drop)
    }

    /// `GET users/{id}/sessions`, one page: at most 100, from `cursor` on.
    pub async fn sessions_of(&self, id: UserId, cursor: Option<&str>) -> Result<SessionPage, Error> {
        let call = Call::get(&["users", &id.to_string(), "sessions"]).query("limit", "100".to_owned());
        self.fetch(call.query_if("cursor", cursor)).await
    }

    /// `POST auth/password`: the caller's other logins end.
    pub async fn change_password(&self, current: &Secret<String>, new: &Secret<String>) -> Result<(), Error> {
        let body = PasswordBody { current_password: current.expose(), new_password: new.expose() };
        self.send(&Call::post(&["auth", "password"]).json(&body)?).await.map(drop)
    }

    /// `POST auth/password/reset`: asks for a mail with a link that sets another password, without a credential. Whoever is
    /// asked for, by username or e-mail address, the answer is the same.
    pub async fn forgot_password(&self, username: &str) -> Result<(), Error> {
        let body = serde_json::json!({"username": username});
        self.send(&Call::post(&["auth", "password", "reset"]).json(&body)?.without_bearer()).await.map(drop)
    }

    /// `POST auth/password/new`: sets another password for the token of such a mail, once. Every login of the user ends.
    pub async fn set_new_password(&self, token: &Secret<String>, new: &Secret<String>) -> Result<(), Error> {
        let body = serde_json::json!({"token": token.expose(), "newPassword": new.expose()});
        self.send(&Call::post(&["auth", "password", "new"]).json(&body)?.without_bearer()).await.map(drop)
    }

    /// `GET auth/logins`, one page: at most 100, from `cursor` on.
    pub async fn logins(&self, cursor: Option<&str>) -> Result<LoginPage, Error> {
        let call = Call::get(&["auth", "logins"]).query("limit", "100".to_owned());
        self.fetch(call.query_if("cursor", cursor)).await
    }

    /// `DELETE auth/logins/{id}`.
    pub async fn revoke_login(&self, id: LoginSessionId) -> Result<(), Error> {
        self.send(&Call::new(Method::DELETE, &["auth", "logins", &id.to_string()])).await.map(drop)
    }

    /// `GET admin/users`, one page: at most 100, from `cursor` on.
    pub async fn all_users(
        &self,
        search: Option<&str>,
        cursor: Option<&str>,
    ) -> Result<UserPage<PlatformUser>, Error> {
        let call = Call::get(&["admin", "users"]).query("limit", "100".to_owned());
        self.fetch(call.query_if("search", search).query_if("cursor", cursor)).await
    }

    /// `PATCH admin/users/{id}`.
    pub async fn update_any_user(&self, id: UserId, change: &UserChange) -> Result<PlatformUser, Error> {
        self.fetch(Call::new(Method::PATCH, &["admin", "users", &id.to_string()]).json(change)?).await
    }

    /// `POST admin/users/{id}/password`: every login and key of the user ends.
    pub async fn reset_password(&self, id: UserId, password: &Secret<String>) -> Result<(), Error> {
        let body = serde_json::json!({"password": password.expose()});
        let path = ["admin", "users", &id.to_string(), "password"];
        self.send(&Call::post(&path).json(&body)?.repeatable()).await.map(drop)
    }
}
