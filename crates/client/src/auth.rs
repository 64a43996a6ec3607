//! Logging in and out, and renewing a token before or after the control plane refuses it.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tidegate_model::{Secret, User};
use tokio::task;

use crate::{
    Client, Error, TokenStore, Tokens,
    builder::{Credential, Held},
    call::Call,
};

/// A stored token this close to its end is renewed before it is used.
const EARLY: TimeDelta = TimeDelta::seconds(30);

/// What a login gives.
#[derive(Debug, Clone)]
pub struct Login {
    /// The tokens, already in the client's store.
    pub tokens: Tokens,
    /// Who logged in.
    pub user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LoginAnswer {
    token: Secret<String>,
    expires_at: DateTime<Utc>,
    refresh_token: Secret<String>,
    user: User,
}

impl From<LoginAnswer> for Login {
    fn from(answer: LoginAnswer) -> Self {
        let LoginAnswer { token, expires_at, refresh_token, user } = answer;
        Self { tokens: Tokens { token, expires_at, refresh_token }, user }
    }
}

#[derive(Serialize)]
struct LoginBody<'a> {
    username: &'a str,
    password: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RefreshBody<'a> {
    refresh_token: &'a str,
}

impl Client {
    /// `POST auth/login`; the tokens go to the store and are used from here on.
    pub async fn login(&self, username: &str, password: &Secret<String>) -> Result<Login, Error> {
        let body = LoginBody { username, password: password.expose() };
        let call = Call::post(&["auth", "login"]).json(&body)?.without_bearer();
        let login = Login::from(self.fetch::<LoginAnswer>(call).await?);
        if let Credential::Renewed { store, held } = &self.inner.credential {
            let mut held = held.lock().await;
            save(store, login.tokens.clone()).await?;
            *held = Held { tokens: Some(login.tokens.clone()), fresh: true };
        }
        Ok(login)
    }

    /// `POST auth/logout`; the store forgets the tokens even when the control plane does not answer, and then says so.
    pub async fn logout(&self) -> Result<(), Error> {
        let answer = self.send(&Call::post(&["auth", "logout"]).repeatable()).await;
        if let Credential::Renewed { store, held } = &self.inner.credential {
            *held.lock().await = Held::default();
            let store = Arc::clone(store);
            blocking(move || store.clear()).await?;
        }
        match answer {
            Err(Error::LoginEnded) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// `GET users/me`.
    pub async fn me(&self) -> Result<User, Error> {
        self.fetch(Call::get(&["users", "me"])).await
    }

    /// Whether a refused token can be replaced.
    pub(crate) fn renews(&self) -> bool {
        matches!(self.inner.credential, Credential::Renewed { .. })
    }

    /// The token to call with, renewed first where it is known to be past its time.
    pub(crate) async fn bearer(&self) -> Result<Secret<String>, Error> {
        let (store, held) = match &self.inner.credential {
            Credential::Fixed(token) => return Ok(token.clone()),
            Credential::Renewed { store, held } => (store, held),
        };
        let old = {
            let mut held = held.lock().await;
            if held.tokens.is_none() {
                *held = Held { tokens: load(store).await?, fresh: false };
            }
            let Some(tokens) = &held.tokens else {
                return Err(Error::NotLoggedIn(self.inner.base.to_string()));
            };
            if held.fresh || tokens.expires_at - EARLY > self.inner.clock.now() {
                return Ok(tokens.token.clone());
            }
            tokens.token.clone()
        };
        self.renew(old).await
    }

    /// Replaces the token `refused` and gives the new one. Runs to its end even when the caller goes away: the refresh
    /// token is spent once it is sent, and its successor must not be lost.
    pub(crate) async fn renew(&self, refused: Secret<String>) -> Result<Secret<String>, Error> {
        let client = self.clone();
        task::spawn(async move { client.renew_once(&refused).await }).await.unwrap_or(Err(Error::LoginEnded))
    }

    async fn renew_once(&self, refused: &Secret<String>) -> Result<Secret<String>, Error> {
        let Credential::Renewed { store, held } = &self.inner.credential else {
            return Err(Error::LoginEnded);
        };
        let mut held = held.lock().await;
        if let Some(newer) = held.tokens.as_ref().filter(|tokens| tokens.token != *refused) {
            return Ok(newer.token.clone());
        }
        let guard = {
            let store = Arc::clone(store);
            blocking(move || store.lock()).await?
        };
        let stored = load(store).await?.ok_or(Error::LoginEnded)?;
        if stored.token != *refused {
            // Another process with the same store was first.
            *held = Held { tokens: Some(stored.clone()), fresh: true };
            return Ok(stored.token);
        }
        let tokens = self.refresh(&stored.refresh_token).await?;
        save(store, tokens.clone()).await?;
        drop(guard);
        *held = Held { tokens: Some(tokens.clone()), fresh: true };
        Ok(tokens.token)
    }

    async fn refresh(&self, refresh_token: &Secret<String>) -> Result<Tokens, Error> {
        let body = RefreshBody { refresh_token: refresh_token.expose() };
        let call = Call::post(&["auth", "refresh"]).json(&body)?.without_bearer();
        match self.fetch_once::<LoginAnswer>(call).await {
            Ok(answer) => Ok(Login::from(answer).tokens),
            Err(error) if matches!(error.status().map(|status| status.as_u16()), Some(400 | 401)) => {
                Err(Error::LoginEnded)
            }
            Err(error) => Err(error),
        }
    }
}

async fn load(store: &Arc<dyn TokenStore>) -> Result<Option<Tokens>, Error> {
    let store = Arc::clone(store);
    blocking(move || store.load()).await
}

async fn save(store: &Arc<dyn TokenStore>, tokens: Tokens) -> Result<(), Error> {
    let store = Arc::clone(store);
    blocking(move || store.save(&tokens)).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    task::spawn_blocking(work)
        .await
        .map_err(std::io::Error::other)
        .and_then(|done| done)
        .map_err(Error::Store)
}
