//! `GET plugins/{id}/icon`: the picture of a plugin, served as those of the catalog are.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use tidegate_model::InstalledPluginId;

use crate::http::{
    Context, ErrorAnswer, Problem,
    catalog::icons::{ASKED_AGAIN, IMMUTABLE, Picture},
    gate::Identified,
    valid::Segment,
};

/// The icon of a plugin. `iconUrl` names the package that it is of: at that address it never changes.
#[utoipa::path(get, path = "/api/v1/plugins/{id}/icon", tag = "plugins", params(
    ("id" = i64, Path),
    ("v" = Option<String>, Query, description = "which package, as `iconUrl` says; without it the icon is asked for again each time"),
), responses(
    (status = 200, description = "the picture; an SVG is sandboxed", content_type = "image/*"),
    (status = 304, description = "the caller has it"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such plugin, or it has no icon", body = ErrorAnswer),
))]
pub(crate) async fn icon(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    id: Segment<InstalledPluginId>,
) -> Result<HttpResponse, Problem> {
    let icon = context.services.plugins.icon(&caller.0, id.0).await?;
    let is_this_one = request.query_string() == format!("v={}", icon.tag);
    let picture = Picture { media_type: icon.media_type, content: icon.content, tag: icon.tag };
    picture.answer(&request, if is_this_one { IMMUTABLE } else { ASKED_AGAIN })
}
