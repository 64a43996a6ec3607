//! `GET /plugins/{name}/{path}` and `GET /theme.css`: what `ui` and `theme` plugins show. A page of a plugin is in a
//! sandbox: it has an origin of its own, reads no cookie, reaches nobody, and is shown in no frame but the platform's.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    },
    web::{Data, Path},
};
use tidegate_service::{Error, PluginFile};

use crate::http::{Context, Problem, gate};

/// What a page of a plugin may do: run its own scripts and show its own pictures, and nothing else.
const POLICY: &str = "sandbox allow-scripts; default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     font-src 'self'; connect-src 'none'; form-action 'none'; base-uri 'none'; frame-ancestors 'self'";
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// A file of a plugin that runs. Those of the platform are everybody's; those of an organization are its members'.
pub(crate) async fn file(
    request: HttpRequest,
    context: Data<Context>,
    path: Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let (name, path) = path.into_inner();
    let plugins = &context.services.plugins;
    let shown = match plugins.file(None, &name, &path).await {
        Err(Error::NotFound(what)) => match gate::caller(&request).await {
            Ok(caller) => plugins.file(Some(caller.org()?), &name, &path).await?,
            // Whether there is one for others is nobody's to know.
            Err(_) => return Err(Error::NotFound(what).into()),
        },
        shown => shown?,
    };
    Ok(answer(shown))
}

fn answer(shown: PluginFile) -> HttpResponse {
    HttpResponse::Ok()
        // It may be disabled at any moment.
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        // Its own page is of another origin, in its sandbox, and needs what belongs to it.
        .insert_header((CROSS_ORIGIN_RESOURCE_POLICY, "cross-origin"))
        .content_type(shown.content_type)
        .body(shown.content)
}

/// The sheets of the themes that run, which every page of the platform asks for.
pub(crate) async fn theme(context: Data<Context>) -> Result<HttpResponse, Problem> {
    let sheets = context.services.plugins.theme().await?;
    Ok(answer(PluginFile { content_type: "text/css; charset=utf-8", content: sheets }))
}
