//! `PATCH` and `DELETE admin/agents/{agentId}`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json},
};
use tidegate_model::{Agent, AgentHandle, UpdateAgentRequest};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Body, Force, Segment, read_query},
};

/// What changes; what is absent stays.
#[derive(Debug, ToSchema)]
#[schema(as = UpdateAgentRequest)]
#[expect(dead_code, reason = "the shape of `UpdateAgentRequest` for the OpenAPI document")]
pub(crate) struct Change {
    /// Where it stands, 2 to 50 characters; `null` for nowhere in particular.
    region: Option<String>,
    /// The organization it serves alone, by id or name; `null` for all.
    organization: Option<String>,
}

/// Changes where an agent stands and whom it serves.
#[utoipa::path(patch, path = "/api/v1/admin/agents/{agentId}", tag = "admin", request_body = Change,
    params(("agentId" = String, Path)), responses(
    (status = 200, description = "the agent", body = Agent),
    (status = 400, description = "bad fields", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such agent or organization", body = ErrorAnswer),
    (status = 409, description = "it holds sessions of other organizations", body = ErrorAnswer),
))]
pub(crate) async fn update(
    context: Data<Context>,
    caller: Identified,
    agent: Segment<AgentHandle>,
    body: Body<UpdateAgentRequest>,
) -> Result<Json<Agent>, Problem> {
    let (agents, operator) = (&context.services.agents, caller.operator()?);
    let found = async || Ok(agents.get(&operator, &agent.0).await.map(drop)?);
    let change = body.after(found).await?;
    Ok(Json(agents.update(&operator, &agent.0, change).await?))
}

/// Removes an agent: its keys and what they opened end at once, and its name is free.
///
/// With `force`, the sessions it holds, hibernated ones too, are terminated in the books; what still runs there is the
/// machine's to end.
#[utoipa::path(delete, path = "/api/v1/admin/agents/{agentId}", tag = "admin", params(
    ("agentId" = String, Path),
    ("force" = Option<bool>, Query, description = "even though it holds sessions"),
), responses(
    (status = 204, description = "removed"),
    (status = 400, description = "a bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such agent", body = ErrorAnswer),
    (status = 409, description = "it holds sessions", body = ErrorAnswer),
))]
pub(crate) async fn remove(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    agent: Segment<AgentHandle>,
) -> Result<HttpResponse, Problem> {
    let (agents, operator) = (&context.services.agents, caller.operator()?);
    match read_query::<Force>(request.query_string()) {
        Ok(Force { force }) => {
            agents.remove(&operator, &agent.0, force).await?;
            Ok(HttpResponse::NoContent().finish())
        }
        Err(complaints) => {
            // What is not there comes before what is wrong with the request for it.
            agents.get(&operator, &agent.0).await?;
            Err(Problem::invalid(complaints))
        }
    }
}
