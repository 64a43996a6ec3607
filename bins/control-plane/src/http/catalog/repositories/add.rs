//! `GET` and `POST catalog/repositories`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json},
};
use serde::Serialize;
use serde_json::json;
use tidegate_model::{AddRepositoryRequest, Repository, RepositoryAuth, RepositoryType};
use tidegate_service::Made;
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    idempotency::{again, idempotency},
    page::Page,
    valid::{Body, Query},
};

/// Repositories.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RepositoryPage)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Found {
    /// The repositories.
    repositories: Vec<Repository>,
    /// How many there are, exact up to 10 000.
    total: i64,
    /// `false` where there are more than `total`, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_is_exact: Option<bool>,
    /// Asks for the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// A repository to add. What it wants to see is written, and never read.
#[derive(Debug, ToSchema)]
#[schema(as = AddRepositoryRequest, rename_all = "camelCase")]
#[expect(dead_code, reason = "the shape of what is read field by field, for the OpenAPI document")]
pub(crate) struct New {
    /// Unique: 1–100 characters.
    name: String,
    /// `https://…`, `ssh://…` or `git@host:path`; a folder of the control plane's machine where its settings allow it.
    url: String,
    /// The branch or tag; the remote's own default without it.
    branch: Option<String>,
    /// `git`, the default, or `http`: a zip, tar or tar.gz.
    r#type: Option<RepositoryType>,
    /// At most 500 characters.
    description: Option<String>,
    /// Whether it is synced and shown. Default true.
    enabled: Option<bool>,
    /// What it wants to see. Default none.
    auth_type: Option<RepositoryAuth>,
    /// `basic`; for `token` where a server wants to hear a certain name before it.
    username: Option<String>,
    /// `basic`.
    password: Option<String>,
    /// `token`.
    token: Option<String>,
    /// `ssh`: without a passphrase.
    private_key: Option<String>,
    /// `ssh`: the server's host keys, as in `known_hosts`.
    known_hosts: Option<String>,
    /// What webhooks are signed with, 16–256 characters.
    webhook_secret: Option<String>,
}

/// The repositories, in the order they were added.
#[utoipa::path(get, path = "/api/v1/catalog/repositories", tag = "catalog", params(
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
), responses(
    (status = 200, description = "a page", body = Found),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
))]
pub(crate) async fn list(
    context: Data<Context>,
    caller: Identified,
    page: Query<Page>,
) -> Result<Json<Found>, Problem> {
    let listed = context.services.repositories.list(&caller.0, &page.0.0).await?;
    Ok(Json(Found {
        repositories: listed.items,
        total: listed.total,
        total_is_exact: (!listed.total_is_exact).then_some(false),
        next_cursor: listed.next_cursor,
    }))
}

/// Adds a repository, which is synced at once.
#[utoipa::path(post, path = "/api/v1/catalog/repositories", tag = "catalog", request_body = New, params(
    ("Idempotency-Key" = Option<String>, Header, description = "a repeat with the same key and body gets the first answer"),
), responses(
    (status = 201, description = "added", body = Repository),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 409, description = "the name is taken", body = ErrorAnswer),
))]
pub(crate) async fn add(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    body: Body<AddRepositoryRequest>,
) -> Result<HttpResponse, Problem> {
    let key = idempotency(&request, &caller, "POST catalog/repositories", body.bytes())?;
    let (repositories, wanted) = (&context.services.repositories, body.valid()?);
    let made = repositories.add(&caller.0, wanted, key.as_ref(), |made| json!(made)).await?;
    Ok(match made {
        Made::New(made) => HttpResponse::Created().json(made),
        Made::Replay(replay) => again(replay),
    })
}
