//! What a provider says of itself, as far as it is believed.

use serde::Deserialize;
use url::Url;

use crate::{Error, Result, options::address, web::Web};

/// The document as it is served.
#[derive(Debug, Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    code_challenge_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// Where a provider answers, and how it wants to be spoken to.
#[derive(Debug, Clone)]
pub(crate) struct Discovery {
    pub(crate) authorize: Url,
    pub(crate) token: Url,
    pub(crate) keys: Url,
    pub(crate) userinfo: Option<Url>,
    /// The secret goes into the body, because the header is not offered.
    pub(crate) secret_in_body: bool,
    /// It names itself when it sends a browser back (RFC 9207).
    pub(crate) names_itself: bool,
}

/// Reads the document of `issuer`, which must be about that very issuer.
pub(crate) async fn discover(web: &Web, issuer: &str) -> Result<Discovery> {
    let place = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let url = Url::parse(&place).map_err(|_| Error::Refused("its address is none"))?;
    believed(&web.document(&url).await?, issuer)
}

fn believed(document: &Document, issuer: &str) -> Result<Discovery> {
    if document.issuer != issuer {
        return Err(Error::Refused("it calls itself another issuer than `issuer` in the settings"));
    }
    let offers = |methods: &Option<Vec<String>>, wanted: &str| {
        methods.as_ref().map(|methods| methods.iter().any(|method| method == wanted))
    };
    if offers(&document.code_challenge_methods_supported, "S256") == Some(false) {
        return Err(Error::Refused("it offers no PKCE with S256"));
    }
    let methods = &document.token_endpoint_auth_methods_supported;
    let secret_in_body = offers(methods, "client_secret_basic") == Some(false);
    if secret_in_body && offers(methods, "client_secret_post") == Some(false) {
        return Err(Error::Refused("it takes no client secret"));
    }
    let place = |text: &str| {
        address(text).map_err(|_| Error::Refused("it names an endpoint that is not reached by https"))
    };
    Ok(Discovery {
        authorize: place(&document.authorization_endpoint)?,
        token: place(&document.token_endpoint)?,
        keys: place(&document.jwks_uri)?,
        userinfo: document.userinfo_endpoint.as_deref().map(place).transpose()?,
        secret_in_body,
        names_itself: document.authorization_response_iss_parameter_supported,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(change: impl FnOnce(&mut serde_json::Value)) -> Result<Discovery> {
        let mut document = json!({
            "issuer": "https://id.example", "authorization_endpoint": "https://id.example/a",
            "token_endpoint": "https://id.example/t", "jwks_uri": "https://id.example/k",
        });
        change(&mut document);
        believed(&serde_json::from_value(document).unwrap(), "https://id.example")
    }

    fn refusal(change: impl FnOnce(&mut serde_json::Value)) -> String {
        read(change).unwrap_err().to_string()
    }

    #[test]
    fn a_document_about_another_issuer_is_not_believed() {
        assert!(refusal(|d| d["issuer"] = json!("https://id.example/")).contains("another issuer"));
    }

    #[test]
    fn pkce_is_not_given_up_and_no_endpoint_may_be_read_along() {
        assert!(refusal(|d| d["code_challenge_methods_supported"] = json!(["plain"])).contains("S256"));
        assert!(refusal(|d| d["token_endpoint"] = json!("http://id.example/t")).contains("https"));
        assert!(!read(|_| ()).unwrap().secret_in_body);
    }

    #[test]
    fn the_secret_goes_where_it_is_taken() {
        let methods = "token_endpoint_auth_methods_supported";
        assert!(read(|d| d[methods] = json!(["client_secret_post"])).unwrap().secret_in_body);
        assert!(refusal(|d| d[methods] = json!(["private_key_jwt"])).contains("client secret"));
    }
}
