//! `GET`, `PATCH` and `DELETE catalog/repositories/{id}`, and `GET …/problems`.

use actix_web::{
    HttpResponse,
    web::{Data, Json},
};
use serde::Serialize;
use tidegate_model::{Repository, RepositoryAuth, RepositoryId, RepositoryProblem, UpdateRepositoryRequest};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Body, Segment},
};

/// What is to be changed; what is absent stays, and `null` clears what may be empty.
#[derive(Debug, ToSchema)]
#[schema(as = UpdateRepositoryRequest, rename_all = "camelCase")]
#[expect(dead_code, reason = "the shape of what is read field by field, for the OpenAPI document")]
pub(crate) struct Change {
    /// Unique: 1–100 characters.
    name: Option<String>,
    /// Another server's address wants the secret again.
    url: Option<String>,
    /// The branch or tag; `null` for the remote's own default.
    branch: Option<String>,
    /// At most 500 characters.
    description: Option<String>,
    /// Whether it is synced, and what came from it is shown.
    enabled: Option<bool>,
    /// What it wants to see.
    auth_type: Option<RepositoryAuth>,
    /// `basic`, `token`.
    username: Option<String>,
    /// `basic`.
    password: Option<String>,
    /// `token`.
    token: Option<String>,
    /// `ssh`.
    private_key: Option<String>,
    /// `ssh`.
    known_hosts: Option<String>,
    /// What webhooks are signed with; `null` for none.
    webhook_secret: Option<String>,
}

/// What is wrong with files.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RepositoryProblems)]
pub(crate) struct Problems {
    /// Path, line and reason of each.
    problems: Vec<RepositoryProblem>,
    /// How many there are.
    total: usize,
}

/// One repository.
#[utoipa::path(get, path = "/api/v1/catalog/repositories/{id}", tag = "catalog", params(("id" = i64, Path)), responses(
    (status = 200, description = "the repository", body = Repository),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such repository", body = ErrorAnswer),
))]
pub(crate) async fn get(
    context: Data<Context>,
    caller: Identified,
    id: Segment<RepositoryId>,
) -> Result<Json<Repository>, Problem> {
    Ok(Json(context.services.repositories.get(&caller.0, id.0).await?))
}

/// Changes a repository. Disabled, it is not synced, and what came from it is not shown.
#[utoipa::path(patch, path = "/api/v1/catalog/repositories/{id}", tag = "catalog", request_body = Change,
    params(("id" = i64, Path)), responses(
    (status = 200, description = "the repository", body = Repository),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such repository", body = ErrorAnswer),
    (status = 409, description = "the name is taken", body = ErrorAnswer),
))]
pub(crate) async fn change(
    context: Data<Context>,
    caller: Identified,
    id: Segment<RepositoryId>,
    body: Body<UpdateRepositoryRequest>,
) -> Result<Json<Repository>, Problem> {
    let repositories = &context.services.repositories;
    let there = async || Ok(repositories.get(&caller.0, id.0).await.map(drop)?);
    let wanted = body.after(there).await?;
    Ok(Json(repositories.change(&caller.0, id.0, wanted).await?))
}

/// Removes a repository. What came from it is withdrawn, and stays for whoever has it installed.
#[utoipa::path(delete, path = "/api/v1/catalog/repositories/{id}", tag = "catalog", params(("id" = i64, Path)), responses(
    (status = 204, description = "removed"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such repository", body = ErrorAnswer),
))]
pub(crate) async fn remove(
    context: Data<Context>,
    caller: Identified,
    id: Segment<RepositoryId>,
) -> Result<HttpResponse, Problem> {
    context.services.repositories.remove(&caller.0, id.0).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Files of the last sync that are not in the catalog, and why.
#[utoipa::path(get, path = "/api/v1/catalog/repositories/{id}/problems", tag = "catalog", params(("id" = i64, Path)),
    responses(
    (status = 200, description = "the problems", body = Problems),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such repository", body = ErrorAnswer),
))]
pub(crate) async fn problems(
    context: Data<Context>,
    caller: Identified,
    id: Segment<RepositoryId>,
) -> Result<Json<Problems>, Problem> {
    let problems = context.services.repositories.problems(&caller.0, id.0).await?;
    Ok(Json(Problems { total: problems.len(), problems }))
}
