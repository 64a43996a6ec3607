//! `GET /`: what this is and what to do next.

use actix_web::{HttpRequest, HttpResponse, web::Data};

use super::{escaped, page};
use crate::http::{Context, origin};

/// What to do next, for whoever just arrived.
pub(crate) async fn landing(request: HttpRequest, context: Data<Context>) -> HttpResponse {
    let address = origin::own(&request, &context).map_or_else(String::new, |own| own.to_string());
    let address = escaped(&address);
    // A database that does not answer must not take the page away: the steps are right either way.
    let set_up = context.services.operators.is_set_up().await.unwrap_or(true);
    let first = if set_up {
        String::new()
    } else {
        "<h2>First: make the first admin</h2><p>On the machine of this server:</p>\
         <pre><code>tidegate-admin bootstrap --password-file admin-password</code></pre>"
            .to_owned()
    };
    page(
        "Tidegate",
        &format!(
            "<h1>Tidegate</h1><p>This is a control plane for streamed sessions. It is running.</p>{first}\
             <h2>Open a session</h2>\
             <pre><code>tidegate login --url {address}\ntidegate run shell</code></pre>\
             <h2>Add an agent</h2><p>Sessions run on agents. On another machine, with the bootstrap key of this server:</p>\
             <pre><code>tidegate-agent --server {address} --bootstrap-key-file bootstrap-key\n\
             tidegate-admin agents list\ntidegate-admin agents approve &lt;agent&gt;</code></pre>\
             <h2>Look around</h2><p><a href=\"/api/docs\">The API</a> · <a href=\"/api/openapi.json\">its OpenAPI document</a> · \
             <a href=\"/readyz\">readiness</a></p>"
        ),
    )
}
