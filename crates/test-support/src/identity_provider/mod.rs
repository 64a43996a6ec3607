//! A provider of identities as the real ones are: discovery, keys, PKCE, client secrets, signed tokens; and GitHub's API
//! beside it. It can be told to lie, each lie once.

mod answer;
mod keys;
mod web;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use tidegate_model::{Clock, Secret};
use tidegate_service::{GithubOptions, OidcOptions};
use tokio::{net::TcpListener, task::JoinHandle};

pub use keys::Signature;
use keys::SigningKey;

/// What the provider knows Tidegate by.
pub const CLIENT_ID: &str = "tidegate-at-test";
/// What it trusts Tidegate by; with letters that a header needs encoded.
pub const CLIENT_SECRET: &str = "s3cret/+&=%";

/// How the next ID token lies.
#[derive(Debug, Clone, PartialEq)]
pub enum Lie {
    /// A claim that is not so; `null` leaves it out.
    Claim(&'static str, Value),
    /// Signed by nobody, and says so.
    Unsigned,
    /// Signed with what everybody knows, the public key, as if it were a shared secret.
    SharedSecret,
    /// Signed with a key that it never shows.
    HiddenKey,
    /// Signed with a hidden key under the name of a known one.
    ForgedKey,
}

/// Somebody with an account at the provider.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    /// The provider's own name for them; a number, as GitHub's are.
    pub id: i64,
    /// What they are called there.
    pub login: String,
    /// Claims and fields beside these.
    pub email: Option<String>,
    /// Whether the address is verified, in whatever form the provider says so.
    pub verified: Value,
}

impl Account {
    /// Somebody with a verified address.
    pub fn new(id: i64, login: &str) -> Self {
        let email = Some(format!("{}@people.example", login.to_lowercase()));
        Self { id, login: login.to_owned(), email, verified: json!(true) }
    }

    /// The same with another address.
    #[must_use]
    pub fn with_email(mut self, email: &str) -> Self {
        self.email = Some(email.to_owned());
        self
    }
}

/// A running provider on this machine. Gone when it is dropped.
#[derive(Debug)]
pub struct IdentityProvider {
    url: String,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

/// What was promised for a code.
#[derive(Debug, Clone)]
struct Promise {
    account: Account,
    redirect_uri: String,
    challenge: String,
    nonce: Option<String>,
    client_id: String,
}

#[derive(Debug)]
struct State {
    url: String,
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    visitor: Option<Account>,
    keys: Vec<SigningKey>,
    hidden: SigningKey,
    lie: Option<Lie>,
    broken: bool,
    thin_tokens: bool,
    promises: HashMap<String, Promise>,
    tokens: HashMap<String, Account>,
    issued: u64,
    asked: HashMap<String, usize>,
}

impl State {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IdentityProvider {
    /// A provider that signs with RS256 and tells the time by `clock`.
    pub async fn start(clock: Arc<dyn Clock>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let inner = Inner {
            visitor: None,
            keys: vec![SigningKey::new("first", Signature::Rs256)],
            hidden: SigningKey::new("hidden", Signature::Es256),
            lie: None,
            broken: false,
            thin_tokens: false,
            promises: HashMap::new(),
            tokens: HashMap::new(),
            issued: 0,
            asked: HashMap::new(),
        };
        let state = Arc::new(State { url: url.clone(), clock, inner: Mutex::new(inner) });
        let serving = tokio::spawn(web::serve(listener, Arc::clone(&state)));
        Self { url, state, serving }
    }

    /// Its address, which is what it calls itself.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The settings that name it as an OpenID Connect provider.
    pub fn oidc(&self, name: &str) -> OidcOptions {
        OidcOptions {
            name: name.to_owned(),
            display_name: Some(format!("The {name} directory")),
            issuer: self.url.clone(),
            client_id: CLIENT_ID.to_owned(),
            client_secret: Some(Secret::new(CLIENT_SECRET.to_owned())),
            client_secret_file: None,
            scopes: ["openid", "email", "profile"].map(str::to_owned).to_vec(),
            allow_signup: true,
            allowed_domains: Vec::new(),
        }
    }

    /// The settings that name it as a GitHub Enterprise Server.
    pub fn github(&self) -> GithubOptions {
        GithubOptions {
            client_id: CLIENT_ID.to_owned(),
            client_secret: Some(Secret::new(CLIENT_SECRET.to_owned())),
            client_secret_file: None,
            allow_signup: true,
            base_url: self.url.clone(),
        }
    }

    /// Who sits at the browser from now on; nobody denies.
    pub fn visitor(&self, account: Option<Account>) {
        self.state.inner().visitor = account;
    }

    /// How the next ID token lies.
    pub fn lie(&self, lie: Lie) {
        self.state.inner().lie = Some(lie);
    }

    /// Whether every answer is a fault.
    pub fn broken(&self, broken: bool) {
        self.state.inner().broken = broken;
    }

    /// Whether ID tokens name nothing but the person: what else there is stands at the userinfo endpoint.
    pub fn thin_tokens(&self, thin: bool) {
        self.state.inner().thin_tokens = thin;
    }

    /// Signs with a new key from now on; the old one is gone.
    pub fn rotate(&self, name: &str, signature: Signature) {
        self.state.inner().keys = vec![SigningKey::new(name, signature)];
    }

    /// How often a path was asked for.
    pub fn asked(&self, path: &str) -> usize {
        self.state.inner().asked.get(path).copied().unwrap_or(0)
    }

    /// Goes where a browser is sent, and says where it is sent from there.
    pub async fn visit(&self, url: &str) -> String {
        let path = url.strip_prefix(&self.url).unwrap_or_else(|| panic!("{url} is not at {}", self.url));
        let answer = web::get(&self.url, path).await;
        let line = answer.lines().find_map(|line| line.strip_prefix("location: "));
        line.unwrap_or_else(|| panic!("{url} leads nowhere: {answer}")).trim().to_owned()
    }
}

impl Drop for IdentityProvider {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
