//! TLS served directly: certificate and key from PEM files, cryptography by aws-lc-rs. Where agents bring certificates,
//! these are verified here; what they may do with them is said in `http/agents`.

use std::{any::Any, path::Path, sync::Arc};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::{dev::Extensions, rt::net::TcpStream};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_cert::{
    Certificate,
    attr::AttributeTypeAndValue,
    der::{
        Decode,
        asn1::{ObjectIdentifier, PrintableStringRef, Utf8StringRef},
    },
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use crate::{Error, TlsConfig};

/// The attribute of a subject that is its common name.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// What the server speaks TLS with.
pub(crate) fn server_config(config: &TlsConfig) -> Result<ServerConfig, Error> {
    let chain = certificates(&config.cert)?;
    let key = PrivateKeyDer::from_pem_file(&config.key).map_err(|error| unusable(&config.key, error))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let clients = match &config.client_ca {
        Some(path) => verifier(path, Arc::clone(&provider))?,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_client_cert_verifier(clients).with_single_cert(chain, key))
        .map_err(|error| unusable(&config.cert, error))
}

/// Takes certificates of these authorities, and connections without any: browsers have none.
fn verifier(path: &Path, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| unusable(path, error))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .map_err(|error| unusable(path, error))
}

/// Whom a verified certificate of the other side is for: its common names and DNS names.
#[derive(Debug, Clone)]
pub(crate) struct PeerNames(pub(crate) Arc<[String]>);

/// Keeps with a connection whom the certificate of its other side is for.
pub(crate) fn remember_peer(stream: &dyn Any, connection: &mut Extensions) {
    let Some(stream) = stream.downcast_ref::<TlsStream<TcpStream>>() else { return };
    let Some([certificate, ..]) = stream.get_ref().1.peer_certificates() else { return };
    connection.insert(PeerNames(names(certificate).into()));
}

/// The common names and DNS names of a certificate; none of one that cannot be read.
fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = Certificate::from_der(certificate) else { return Vec::new() };
    let certificate = certificate.tbs_certificate;
    let attributes = certificate.subject.0.iter().flat_map(|set| set.0.iter());
    let mut names: Vec<String> =
        attributes.filter(|attribute| attribute.oid == COMMON_NAME).filter_map(text).collect();
    if let Ok(Some((_, SubjectAltName(others)))) = certificate.get::<SubjectAltName>() {
        names.extend(others.iter().filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.to_string()),
            _ => None,
        }));
    }
    names
}

fn text(attribute: &AttributeTypeAndValue) -> Option<String> {
    let value = &attribute.value;
    let utf8 = value.decode_as::<Utf8StringRef<'_>>().map(|text| text.to_string());
    utf8.or_else(|_| value.decode_as::<PrintableStringRef<'_>>().map(|text| text.to_string())).ok()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let chain: Vec<_> = read().map_err(|error| unusable(path, error))?;
    if chain.is_empty() { Err(unusable(path, "it holds no certificate")) } else { Ok(chain) }
}

fn unusable(path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Tls { path: path.to_owned(), source: source.into() }
}
