//! The system account: what servers are there, and which accounts they know.
//! Never what is stored in an account.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tidegate_model::Clock;

use crate::connect::Connection;
use crate::jwt::{AccountToken, DeletionClaims};
use crate::keys::AccountPublic;
use crate::version::check_version;
use crate::{Authority, Error, Missing, Options, Result, Servers, servers};

/// A connection as a user of the system account. Cheap to clone; made again when it breaks.
#[derive(Clone)]
pub struct System {
    connection: Connection,
    authority: Arc<Authority>,
    clock: Arc<dyn Clock>,
}

/// The server that a connection of ours goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerInfo {
    /// Its id, another one after each start.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Whether messages can be stored.
    pub jetstream: bool,
}

/// What an account does right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct AccountLoad {
    /// Its connections, on the server that answered first.
    #[serde(rename = "conns")]
    pub connections: u64,
}

impl System {
    /// Connects and checks that the server is new enough and stores messages.
    pub async fn connect(
        options: &Options,
        authority: Arc<Authority>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let minting = (Arc::clone(&authority), Arc::clone(&clock));
        let mint = move |user: &_| minting.0.mint_system(user, minting.1.now());
        let connection = Connection::open(options, "tidegate system", mint).await?;
        let system = Self { connection, authority, clock };
        let server = system.server();
        check_version(&server.version)?;
        if !server.jetstream {
            return Err(Error::Refused {
                doing: "store messages",
                code: 503,
                description: "JetStream is off on this server; turn it on".to_owned(),
            });
        }
        system.check_trust().await?;
        Ok(system)
    }

    /// An account that is signed by a key the server does not trust would be taken, and believed by nobody.
    async fn check_trust(&self) -> Result<()> {
        let doing = "trust our signing key";
        let known: Vars = self.ask("say whom it trusts", "$SYS.REQ.SERVER.PING.VARZ", String::new()).await?;
        let signing = self.authority.signing().public().as_str();
        if known.trusted_operators.iter().any(|operator| claims_of(operator).contains(signing)) {
            return Ok(());
        }
        let description = "restart it with the current token of the operator".to_owned();
        Err(Error::Refused { doing, code: 403, description })
    }

    /// The server at the other end.
    pub fn server(&self) -> ServerInfo {
        let info = self.connection.client().server_info();
        ServerInfo {
            id: info.server_id,
            name: info.server_name,
            version: info.version,
            jetstream: info.jetstream,
        }
    }

    /// Every server that answers, by name, and how many there are.
    pub async fn servers(&self) -> Result<Servers> {
        servers::ask(&self.connection).await
    }

    /// Whether the server answers now.
    pub async fn ping(&self) -> Result<()> {
        self.connection
            .request("answer", "$SYS.REQ.SERVER.PING.IDZ", Bytes::new(), None, Missing::Account)
            .await
            .map(drop)
    }

    /// Makes an account what its token says, new or changed: limits count at once, and connections that it revokes are
    /// closed. When this returns, the server has the token on disk.
    ///
    /// A token is not compared with the one before: the caller, who keeps the revocations, pushes in order.
    pub async fn push(&self, token: &AccountToken) -> Result<()> {
        let doing = "take an account";
        let update: Update = self.ask(doing, "$SYS.REQ.CLAIMS.UPDATE", token.as_str().to_owned()).await?;
        // The first server's answer; the others of a cluster hear the same request.
        if update.account == token.account().as_str() {
            Ok(())
        } else {
            Err(Error::Refused { doing, code: update.code, description: update.message })
        }
    }

    /// The token by which the server knows an account; none where it does not.
    pub async fn account(&self, account: &AccountPublic) -> Result<Option<String>> {
        let subject = format!("$SYS.REQ.ACCOUNT.{account}.CLAIMS.LOOKUP");
        let answer = self
            .connection
            .request("look up an account", &subject, Bytes::new(), None, Missing::Account)
            .await?;
        let text = String::from_utf8_lossy(&answer.payload);
        Ok((!text.is_empty()).then(|| text.into_owned()))
    }

    /// Makes the server forget accounts: their connections are closed, and nobody can connect to them any more. Their
    /// streams stay on disk unseen; delete those first.
    pub async fn forget(&self, accounts: &[AccountPublic]) -> Result<()> {
        let request =
            DeletionClaims::of(accounts).encode(self.authority.identity(), self.clock.now().timestamp())?;
        let _: Update = self.ask("delete accounts", "$SYS.REQ.CLAIMS.DELETE", request).await?;
        Ok(())
    }

    /// What an account does right now. The server does not answer for one that nobody was connected to since it started,
    /// which is [`Error::Unavailable`] here.
    pub async fn load(&self, account: &AccountPublic) -> Result<AccountLoad> {
        let (doing, subject) = ("count connections", format!("$SYS.REQ.ACCOUNT.{account}.CONNS"));
        let answer = self.connection.request(doing, &subject, Bytes::new(), None, Missing::Account).await?;
        serde_json::from_slice(&answer.payload).map_err(|error| Error::unavailable(doing, error))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        doing: &'static str,
        subject: &str,
        payload: String,
    ) -> Result<T> {
        let answer = self.connection.request(doing, subject, payload.into(), None, Missing::Account).await?;
        match serde_json::from_slice(&answer.payload) {
            Ok(Answer::Data { data }) => Ok(data),
            Ok(Answer::Error { error }) => {
                Err(Error::Refused { doing, code: error.code, description: error.description })
            }
            Err(error) => Err(Error::unavailable(doing, error)),
        }
    }
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("System").field("connection", &self.connection).finish_non_exhaustive()
    }
}

/// What servers answer on the system account.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer<T> {
    Error { error: Refusal },
    Data { data: T },
}

#[derive(Deserialize)]
struct Refusal {
    code: u64,
    description: String,
}

#[derive(Deserialize)]
struct Vars {
    #[serde(rename = "trusted_operators_jwt", default)]
    trusted_operators: Vec<String>,
}

/// The claims of a token as they stand there.
fn claims_of(token: &str) -> String {
    let claims = token.split('.').nth(1).unwrap_or_default();
    String::from_utf8(URL_SAFE_NO_PAD.decode(claims).unwrap_or_default()).unwrap_or_default()
}

#[derive(Deserialize)]
struct Update {
    #[serde(default)]
    account: String,
    code: u64,
    #[serde(default)]
    message: String,
}
