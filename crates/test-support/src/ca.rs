//! A certificate authority of a test.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// An authority that nobody knows of but the test that made it.
pub struct TestCa(CertifiedIssuer<'static, KeyPair>);

impl std::fmt::Debug for TestCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestCa").finish_non_exhaustive()
    }
}

/// A server's or client's certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct TestCertificate {
    /// The certificate.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

impl TestCa {
    /// A new authority.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate, PEM: what those who trust it are given.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a server of these names or addresses.
    pub fn issue(&self, names: &[&str]) -> TestCertificate {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        self.sign(&CertificateParams::new(names).unwrap())
    }

    /// A certificate for somebody of this common name, which names no server.
    pub fn issue_to(&self, common_name: &str) -> TestCertificate {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> TestCertificate {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        TestCertificate { cert: certificate.pem(), key: key.serialize_pem() }
    }
}
