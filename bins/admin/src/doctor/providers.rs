//! What `doctor` sees of the providers that people sign in with: whether they answer, as the control plane would ask them.

use tidegate_model::{Clock, SystemClock};
use tidegate_service::{Providers, SignInOptions};

use super::{Check, check};

const WHAT: &str = "sign-in";

/// A line for each provider of the settings.
pub(super) async fn answer(options: &SignInOptions) -> Vec<Check> {
    let providers = match Providers::new(options) {
        Ok(providers) => providers,
        Err(why) => return vec![check(WHAT, false, why)],
    };
    let mut checks = Vec::new();
    for provider in providers.all() {
        let name = format!("{} ({})", provider.display_name(), provider.issuer());
        checks.push(match provider.probe(SystemClock::new().now()).await {
            Ok(()) => check(WHAT, true, format!("{name} answers")),
            Err(error) => {
                let why = format!("{:#}", anyhow::Error::new(error));
                check(WHAT, false, format!("{name}: {why}; nobody can sign in with it until it does"))
            }
        });
    }
    checks
}

#[cfg(test)]
mod tests {
    use tidegate_service::GithubOptions;

    use super::*;

    #[tokio::test]
    async fn a_provider_that_does_not_answer_is_named_and_settings_that_are_wrong_too() {
        assert!(answer(&SignInOptions::default()).await.is_empty());
        // A port that nobody listens on any more.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut github = GithubOptions {
            client_id: "id".into(),
            client_secret: Some("secret".to_owned().into()),
            client_secret_file: None,
            allow_signup: false,
            base_url: format!("http://127.0.0.1:{port}"),
        };
        let options = SignInOptions { github: Some(github.clone()), oidc: vec![] };
        let lines = answer(&options).await;
        assert!(!lines[0].ok && lines[0].found.contains("does not answer"), "{lines:?}");
        github.client_secret = None;
        let lines = answer(&SignInOptions { github: Some(github), oidc: vec![] }).await;
        assert!(!lines[0].ok && lines[0].found.contains("no secret"), "{lines:?}");
    }
}
