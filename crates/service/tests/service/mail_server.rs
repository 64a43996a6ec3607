//! A mail server of a test: takes whatever it is sent, answers the mails as it is told, and remembers all of it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tidegate_test_support::TestCertificate;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// What a server heard.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Every line that was no part of a mail.
    pub(crate) commands: Vec<String>,
    /// Every mail, with its line ends.
    pub(crate) mails: Vec<String>,
    answers: VecDeque<&'static str>,
}

/// A server on a port of its own.
pub(crate) struct MailServer {
    pub(crate) port: u16,
    heard: Arc<Mutex<Heard>>,
}

impl MailServer {
    /// A server that answers the first mails with these lines, and takes every later one. With a certificate it speaks TLS
    /// from the first byte on.
    pub(crate) async fn start(answers: &[&'static str], certificate: Option<&TestCertificate>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard =
            Arc::new(Mutex::new(Heard { answers: answers.iter().copied().collect(), ..Heard::default() }));
        let (kept, acceptor) = (Arc::clone(&heard), certificate.map(acceptor));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (heard, acceptor) = (Arc::clone(&kept), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        // A client that does not trust us hangs up.
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                drop(speak(stream, &heard).await);
                            }
                        }
                        None => drop(speak(stream, &heard).await),
                    }
                });
            }
        });
        Self { port, heard }
    }

    pub(crate) fn commands(&self) -> Vec<String> {
        self.heard.lock().unwrap().commands.clone()
    }

    pub(crate) fn mails(&self) -> Vec<String> {
        self.heard.lock().unwrap().mails.clone()
    }
}

fn acceptor(certificate: &TestCertificate) -> TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_slice(certificate.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin, heard: &Mutex<Heard>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 mail.test ready\r\n").await?;
    let mut line = String::new();
    while {
        line.clear();
        stream.read_line(&mut line).await?
    } > 0
    {
        heard.lock().unwrap().commands.push(line.trim_end().to_owned());
        let answer = match line.get(..4).unwrap_or_default() {
            "EHLO" => "250-mail.test\r\n250 AUTH PLAIN LOGIN",
            "AUTH" if line.trim_end().ends_with("AG1haWxlcgB3cm9uZw==") => "535 no",
            "AUTH" => "235 welcome",
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await?;
                let mut mail = String::new();
                while !mail.ends_with("\r\n.\r\n") && stream.read_line(&mut mail).await? > 0 {}
                let mut heard = heard.lock().unwrap();
                heard.mails.push(mail);
                heard.answers.pop_front().unwrap_or("250 taken")
            }
            "QUIT" => "221 bye",
            _ => "250 ok",
        };
        stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
    }
    Ok(())
}
