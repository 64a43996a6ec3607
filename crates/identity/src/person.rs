//! What goes to a provider with a browser, what comes back, and who that is.

use tidegate_model::Secret;

/// A browser about to be sent to a provider.
#[derive(Debug, Clone)]
pub struct Departure {
    /// Where the provider sends it back to; the provider knows this address.
    pub redirect_uri: String,
    /// What the provider hands back with it.
    pub state: Secret<String>,
    /// What the provider's token repeats.
    pub nonce: Secret<String>,
    /// PKCE's verifier: only its SHA-256 goes along.
    pub verifier: Secret<String>,
}

/// A browser back from a provider. Whether it is the one that left is the caller's to know.
#[derive(Debug, Clone)]
pub struct Return<'a> {
    /// The same as at the departure.
    pub redirect_uri: String,
    /// What the provider gives a token for, once.
    pub code: Secret<String>,
    /// Who says so (RFC 9207).
    pub iss: Option<&'a str>,
    /// PKCE's verifier.
    pub verifier: Secret<String>,
}

/// Who somebody is, on the provider's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Which provider says so.
    pub issuer: String,
    /// Its own name for the person.
    pub subject: String,
    /// What the person would like to be called; not checked.
    pub username: String,
    /// Display name; not checked.
    pub full_name: Option<String>,
    /// An address that the provider says it has verified.
    pub email: Option<String>,
    /// A picture, by https.
    pub avatar_url: Option<String>,
    /// GitHub's number of the person.
    pub github_id: Option<i64>,
}
