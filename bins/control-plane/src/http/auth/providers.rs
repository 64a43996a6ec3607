//! `GET auth/providers`.

use actix_web::web::{Data, Json};
use serde::Serialize;
use tidegate_model::Provider;
use tidegate_service::SignInProvider;
use utoipa::ToSchema;

use crate::http::{Context, routes::PREFIX};

/// How somebody may sign in without a password.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProvidersAnswer {
    /// The providers of the settings, in their order.
    providers: Vec<ProviderAnswer>,
}

/// A provider that vouches for people.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProviderAnswer {
    /// GitHub or OpenID Connect.
    kind: Provider,
    /// Its name in the settings.
    name: String,
    /// Its name for people.
    display_name: String,
    /// Where a browser goes to sign in; takes `next`.
    url: String,
}

/// Where a browser goes to sign in with a provider.
pub(crate) fn place(provider: &SignInProvider) -> String {
    match provider.kind {
        Provider::Github => format!("{PREFIX}/auth/github"),
        Provider::Oidc | Provider::Saml | Provider::Local => {
            format!("{PREFIX}/auth/oidc/{}", provider.name)
        }
    }
}

/// Lists how people may sign in without a password.
#[utoipa::path(get, path = "/api/v1/auth/providers", tag = "auth", security(()), responses(
    (status = 200, description = "the providers of the settings", body = ProvidersAnswer),
))]
pub(crate) async fn providers(context: Data<Context>) -> Json<ProvidersAnswer> {
    let answer = |provider: SignInProvider| ProviderAnswer {
        url: place(&provider),
        kind: provider.kind,
        name: provider.name,
        display_name: provider.display_name,
    };
    Json(ProvidersAnswer {
        providers: context.services.identities.providers().into_iter().map(answer).collect(),
    })
}
