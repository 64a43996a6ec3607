//! TLS: one rustls configuration for everything that is dialled.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, crypto::CryptoProvider};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls_platform_verifier::Verifier;

use crate::Error;

/// The configuration that trusts the system's certificate authorities and those of `extra_ca` (PEM; may be empty).
///
/// Also installs the process's default crypto provider where none is installed yet.
pub fn tls_config(extra_ca: &[u8]) -> Result<Arc<ClientConfig>, Error> {
    tls_config_as(extra_ca, None)
}

/// The same for somebody who has a certificate: its chain and its private key, PEM.
pub fn tls_config_as(extra_ca: &[u8], own: Option<(&[u8], &[u8])>) -> Result<Arc<ClientConfig>, Error> {
    let provider = install_provider();
    let extra = read_certificates(extra_ca)?;
    let verifier = Verifier::new_with_extra_roots(extra, Arc::clone(&provider)).map_err(|error| {
        Error::Setting(format!(
            "no certificate authority to trust ({error}): install the package ca-certificates or name a CA file"
        ))
    })?;
    let config = builder(provider)?
        .dangerous() // Not so here: the verifier is the platform's own.
        .with_custom_certificate_verifier(Arc::new(verifier));
    let config = match own {
        None => config.with_no_client_auth(),
        Some((chain, key)) => {
            let unusable = |error: &dyn std::fmt::Display| {
                Error::Setting(format!("the client's certificate or its key cannot be used: {error}"))
            };
            let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
                .collect::<Result<_, _>>()
                .map_err(|error| unusable(&error))?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| unusable(&error))?;
            config.with_client_auth_cert(chain, key).map_err(|error| unusable(&error))?
        }
    };
    Ok(Arc::new(config))
}

/// A configuration that trusts nobody, for clients that never speak TLS: it needs no system certificates to be built.
pub(crate) fn no_tls_config() -> Result<Arc<ClientConfig>, Error> {
    let config =
        builder(install_provider())?.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    Ok(Arc::new(config))
}

fn builder(
    provider: Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Error> {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Setting(format!("TLS cannot be set up: {error}")))
}

fn install_provider() -> Arc<CryptoProvider> {
    // Fails only when another part of the process was first, and then that one is used.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    CryptoProvider::get_default()
        .map_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()), Arc::clone)
}

fn read_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| Error::Setting(format!("the CA file is not PEM: {error}")))?;
    if certificates.is_empty() && !pem.is_empty() {
        return Err(Error::Setting("the CA file holds no certificate: it must be PEM".to_owned()));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_without_a_certificate_is_refused() {
        let error = tls_config(b"no certificate").unwrap_err();
        assert!(error.to_string().contains("holds no certificate"), "{error}");
    }

    #[test]
    fn the_crypto_provider_may_be_installed_already() {
        assert!(no_tls_config().is_ok());
        assert!(no_tls_config().is_ok());
    }
}
