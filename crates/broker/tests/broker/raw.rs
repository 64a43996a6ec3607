//! A client that says what it likes: headers that no library lets anybody write.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tidegate_broker::{Principal, UserKey};
use tidegate_test_support::nats::{TestNats, TestOrgAccount};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::support::now;

/// A connection of a user, spoken by hand.
pub(crate) struct Raw(BufReader<TcpStream>);

impl Raw {
    pub(crate) async fn of(org: &TestOrgAccount, id: Uuid) -> Self {
        let address = TestNats::shared().url.trim_start_matches("nats://").to_owned();
        let mut raw = Self(BufReader::new(TcpStream::connect(address).await.unwrap()));
        let info = raw.line().await;
        let info: Value = serde_json::from_str(info.strip_prefix("INFO ").unwrap()).unwrap();
        let (key, rights) = (UserKey::generate(), Principal::new(id).permissions(&[]).unwrap());
        let lifetime = chrono::TimeDelta::minutes(5);
        let token = org.account.authority.mint(key.public(), "raw", &rights, now(), lifetime).unwrap();
        let pair = nkeys::KeyPair::from_seed(key.seed().unwrap().expose()).unwrap();
        let signed = pair.sign(info["nonce"].as_str().unwrap().as_bytes()).unwrap();
        let hello = json!({"verbose": false, "pedantic": false, "headers": true, "lang": "raw", "version": "0",
            "protocol": 1, "jwt": token.as_str(), "sig": URL_SAFE_NO_PAD.encode(signed)});
        raw.write(format!("CONNECT {hello}\r\n").as_bytes()).await;
        raw.settled().await;
        raw
    }

    /// Publishes with this block of headers, as it is.
    pub(crate) async fn publish(&mut self, subject: &str, headers: &[u8], payload: &[u8]) {
        let (header, all) = (headers.len(), headers.len() + payload.len());
        let verb = format!("HPUB {subject} {header} {all}\r\n");
        self.write(&[verb.as_bytes(), headers, payload, b"\r\n"].concat()).await;
        self.settled().await;
    }

    /// Returns when the server has taken everything that was sent.
    async fn settled(&mut self) {
        self.write(b"PING\r\n").await;
        loop {
            let line = self.line().await;
            match line.as_str() {
                "PONG" => return,
                "PING" => self.write(b"PONG\r\n").await,
                other => assert!(other.starts_with("INFO"), "{other}"),
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).await.unwrap();
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        line.trim_end().to_owned()
    }
}
