//! `GET audit/export` and `GET admin/audit/export`: one long body, of which a part is in memory at a time.

use std::io;

use actix_web::{
    HttpResponse,
    http::header::{CONTENT_DISPOSITION, CONTENT_TYPE},
    web::Data,
};
use bytes::Bytes;
use futures_util::{Stream, stream};
use tidegate_service::{Export, ExportFormat, ExportWriter};

use super::list::no_org;
use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Query};

/// The header with the number of lines, where it is known.
const TOTAL: &str = "Tidegate-Total";

/// The organization's audit log as it stands, the newest line first. A body that breaks off without its end is not the
/// whole of it. The export itself becomes a line of the log.
#[utoipa::path(get, path = "/api/v1/audit/export", tag = "audit", params(
    ("format" = Option<String>, Query, description = "`jsonl`, the default, or `csv`"),
    ("actor" = Option<String>, Query, description = "username in any case, or `user:<id>`, `agent:<id>`, `console`, `system`"),
    ("action" = Option<String>, Query, description = "what was done"),
    ("resource" = Option<String>, Query, description = "to what"),
    ("since" = Option<String>, Query, description = "RFC 3339; from this moment on"),
    ("until" = Option<String>, Query, description = "RFC 3339; before this moment"),
), responses(
    (status = 200, description = "the lines; `Tidegate-Total` says how many where they are 10 000 or fewer", content_type = "application/jsonl"),
    (status = 400, description = "bad query, each field named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin", body = ErrorAnswer),
    (status = 404, description = "no organization of the caller's", body = ErrorAnswer),
))]
pub(crate) async fn export(
    context: Data<Context>,
    caller: Identified,
    wanted: Query<super::Export>,
) -> Result<HttpResponse, Problem> {
    let super::Export { filter, format, org } = wanted.0;
    no_org(org.as_deref())?;
    let export = context.services.audit.export(caller.0, filter, format).await?;
    Ok(answer(export, format))
}

/// The audit log of the platform and of every organization, as it stands, the newest line first.
#[utoipa::path(get, path = "/api/v1/admin/audit/export", tag = "audit", params(
    ("format" = Option<String>, Query, description = "`jsonl`, the default, or `csv`"),
    ("org" = Option<String>, Query, description = "of this organization alone, by id or name"),
    ("actor" = Option<String>, Query, description = "username in any case, or `user:<id>`, `agent:<id>`, `console`, `system`"),
    ("action" = Option<String>, Query, description = "what was done"),
    ("resource" = Option<String>, Query, description = "to what"),
    ("since" = Option<String>, Query, description = "RFC 3339; from this moment on"),
    ("until" = Option<String>, Query, description = "RFC 3339; before this moment"),
), responses(
    (status = 200, description = "the lines; `Tidegate-Total` says how many where they are 10 000 or fewer", content_type = "application/jsonl"),
    (status = 400, description = "bad query, each field named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such organization", body = ErrorAnswer),
))]
pub(crate) async fn export_all(
    context: Data<Context>,
    caller: Identified,
    wanted: Query<super::Export>,
) -> Result<HttpResponse, Problem> {
    let super::Export { filter, format, org } = wanted.0;
    let export = context.services.audit.export_all(caller.0, org.as_deref(), filter, format).await?;
    Ok(answer(export, format))
}

fn answer(export: Export, format: ExportFormat) -> HttpResponse {
    let (kind, name) = match format {
        ExportFormat::JsonLines => ("application/jsonl", "attachment; filename=\"audit.jsonl\""),
        ExportFormat::Csv => ("text/csv; charset=utf-8", "attachment; filename=\"audit.csv\""),
    };
    let mut answer = HttpResponse::Ok();
    answer.insert_header((CONTENT_TYPE, kind)).insert_header((CONTENT_DISPOSITION, name));
    answer.insert_header(("Cache-Control", "no-store")).insert_header(("X-Content-Type-Options", "nosniff"));
    if let Some(total) = export.total() {
        answer.insert_header((TOTAL, total.to_string()));
    }
    answer.streaming(body(export, ExportWriter::new(format)))
}

/// Reads the next part when the one before was taken, so that a slow reader holds back the database and no memory.
fn body(export: Export, writer: ExportWriter) -> impl Stream<Item = io::Result<Bytes>> {
    stream::unfold(Some((export, writer)), |state| async move {
        let (mut export, mut writer) = state?;
        let part = match export.next().await {
            Ok(Some(lines)) => writer.part(&lines).map(Some),
            Ok(None) => writer.end(),
            Err(error) => {
                tracing::warn!(error = crate::chain(&error), "an export of the audit log broke off");
                Err(io::Error::other("the log cannot be read on"))
            }
        };
        match part {
            Ok(Some(bytes)) => Some((Ok(Bytes::from(bytes)), Some((export, writer)))),
            Ok(None) => None,
            // Nothing after it: a body that breaks off is not taken for the whole.
            Err(error) => Some((Err(error), None)),
        }
    })
}
