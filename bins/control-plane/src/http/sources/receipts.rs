//! `GET sources/{handle}/pipes/{name}/messages/{sequence}/receipts`.

use actix_web::{
    HttpRequest,
    web::{Data, Json},
};
use tidegate_model::ReadReceipts;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Last, Segment},
};

/// Who has read a message that was sent with `ack_requested`: those whose place in the pipe is behind it, read by whatever
/// program, over NATS too. For whoever sent it, for whoever made the source, and for those who manage sources; for everybody
/// else it is not there.
#[utoipa::path(get, path = "/api/v1/sources/{handle}/pipes/{name}/messages/{sequence}/receipts", tag = "sources", params(
    ("handle" = String, Path),
    ("name" = String, Path),
    ("sequence" = u64, Path, description = "the message's place in the pipe"),
), responses(
    (status = 200, description = "who has read it", body = ReadReceipts),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such source, pipe or message, or not yours", body = ErrorAnswer),
    (status = 409, description = "it asked for no receipts (`E_NO_RECEIPTS`)", body = ErrorAnswer),
    (status = 503, description = "the broker does not answer", body = ErrorAnswer),
))]
pub(crate) async fn receipts(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    handle: Segment<String>,
    sequence: Last<u64>,
) -> Result<Json<ReadReceipts>, Problem> {
    // Between the first part of the path and the last; what can be no name is no pipe.
    let name = request.match_info().get("name").unwrap_or_default();
    let receipts = context.services.messages.receipts(caller.org()?, &handle.0, name, sequence.0).await?;
    Ok(Json(receipts))
}
