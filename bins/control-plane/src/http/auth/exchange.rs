//! `POST auth/exchange`.

use actix_web::{HttpRequest, HttpResponse, http::header::CACHE_CONTROL, web::Data};
use chrono::{DateTime, Utc};
use serde::Serialize;
use tidegate_model::{Fields, FromFields, OrgId, Secret};
use tidegate_service::Exchanged;
use utoipa::ToSchema;

use crate::http::{Context, ErrorAnswer, Problem, source::source, valid::Body};

/// A credential to exchange. This endpoint keeps the names of the clients that came before.
#[derive(Debug, ToSchema)]
#[schema(as = ExchangeRequest)]
pub(crate) struct Wanted {
    /// An API key, or any other credential: a token of a device, or of a login.
    #[schema(value_type = String)]
    api_key: Secret<String>,
    /// The organization, by id or name; the credential's own where absent.
    account_id: Option<String>,
}

impl FromFields for Wanted {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let api_key = fields.required("api_key");
        let account_id = fields.optional("account_id");
        Some(Self { api_key: Secret::new(api_key?), account_id })
    }
}

/// What opens NATS, and the API beside it, for five minutes.
#[derive(Serialize, ToSchema)]
#[schema(as = Exchanged)]
struct Opened {
    /// A bearer token for the API.
    jwt: String,
    /// Where NATS is.
    nats_url: String,
    /// The organization.
    account_id: OrgId,
    /// Its name.
    account_name: String,
    /// When both tokens end. Get others before: a connection that is told of them goes on without a gap.
    expires_at: DateTime<Utc>,
    /// The user's token for NATS.
    nats_user_jwt: String,
    /// The user's seed, which signs what NATS asks.
    nats_user_seed: String,
    /// The prefix that the client's inboxes must have.
    inbox_prefix: String,
    /// How many pipes of others the user may write to that the token has no room for. They are written to over HTTP.
    write_grants_left_out: i64,
    /// What the names of keyed messages are made with: `Nats-Msg-Id` is `<user>:<name>`, the name HMAC-SHA-256 of the key
    /// under this text, in hexadecimal digits. The same for all of the user's credentials in the organization.
    message_key: String,
}

impl From<Exchanged> for Opened {
    fn from(exchanged: Exchanged) -> Self {
        Self {
            jwt: exchanged.jwt,
            nats_url: exchanged.nats_url,
            account_id: exchanged.account_id,
            account_name: exchanged.account_name,
            expires_at: exchanged.expires_at,
            nats_user_jwt: exchanged.nats_user_jwt,
            nats_user_seed: exchanged.nats_user_seed.expose().to_owned(),
            inbox_prefix: exchanged.inbox_prefix,
            write_grants_left_out: exchanged.write_grants_left_out,
            message_key: exchanged.message_key.expose().clone(),
        }
    }
}

/// Exchanges a credential for one that opens NATS: to send to inboxes and to one's own sources, to what was granted, and to
/// ask for the messages that one may read. What takes the credential away ends the connections that were made with it.
#[utoipa::path(post, path = "/api/v1/auth/exchange", tag = "auth", request_body = Wanted, security(()), responses(
    (status = 200, description = "what opens NATS", body = Opened),
    (status = 400, description = "a field is missing", body = ErrorAnswer),
    (status = 401, description = "the credential is not good", body = ErrorAnswer),
    (status = 403, description = "not a member of the organization, or a key without the scope `pipes:read`", body = ErrorAnswer),
    (status = 429, description = "too many attempts", body = ErrorAnswer),
    (status = 503, description = "the database or the broker does not answer", body = ErrorAnswer),
))]
pub(crate) async fn exchange(
    request: HttpRequest,
    context: Data<Context>,
    body: Body<Wanted>,
) -> Result<HttpResponse, Problem> {
    let from = source(&request, &context);
    let Wanted { api_key, account_id } = body.valid()?;
    let opened = context.services.exchange.exchange(api_key.expose(), account_id.as_deref(), from).await?;
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(Opened::from(opened)))
}
