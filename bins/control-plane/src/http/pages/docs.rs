//! `GET /api/openapi.json` and `GET /api/docs`.

use std::{collections::BTreeMap, fmt::Write as _};

use actix_web::{HttpResponse, web::Json};
use serde_json::Value;
use utoipa::openapi::OpenApi;

use super::{escaped, page};
use crate::http::openapi::document;

/// The OpenAPI document, made from the handlers.
pub(crate) async fn openapi() -> Json<OpenApi> {
    Json(document())
}

/// The same for people: every operation with what it takes and what it answers, and every shape with its fields. A page
/// without scripts that loads nothing: it folds and links with what a browser has.
pub(crate) async fn docs() -> HttpResponse {
    let document = serde_json::to_value(document()).unwrap_or_default();
    let mut body = String::from(
        "<h1>Tidegate API</h1><p>Every operation by its subject. For programs there is the \
         <a href=\"/api/openapi.json\">OpenAPI document</a>.</p><p>",
    );
    let tags = by_tag(&document);
    // Writing into a String cannot fail, here and below.
    for tag in tags.keys() {
        let _ = write!(body, "<a href=\"#{0}\">{0}</a> · ", escaped(tag));
    }
    body.push_str("<a href=\"#shapes\">shapes</a></p>");
    for (tag, operations) in &tags {
        let about = document["tags"].as_array().into_iter().flatten().find(|about| about["name"] == *tag);
        let about = about.map(|about| text(&about["description"])).unwrap_or_default();
        let _ = write!(body, "<h2 id=\"{0}\">{0}</h2><p>{about}</p>", escaped(tag));
        for operation in operations {
            operation.describe(&mut body);
        }
    }
    body.push_str("<h2 id=\"shapes\">Shapes</h2>");
    for (name, shape) in document["components"]["schemas"].as_object().into_iter().flatten() {
        describe_shape(&mut body, name, shape);
    }
    page("Tidegate API", &body)
}

/// One operation of the document.
struct Operation<'a> {
    method: String,
    path: &'a str,
    value: &'a Value,
}

fn by_tag(document: &Value) -> BTreeMap<String, Vec<Operation<'_>>> {
    let mut tags: BTreeMap<String, Vec<Operation<'_>>> = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        for (method, value) in methods.as_object().into_iter().flatten() {
            let tag = value["tags"][0].as_str().unwrap_or("other").to_owned();
            tags.entry(tag).or_default().push(Operation { method: method.to_uppercase(), path, value });
        }
    }
    tags
}

impl Operation<'_> {
    fn describe(&self, body: &mut String) {
        let (method, path) = (escaped(&self.method), escaped(self.path));
        let (summary, more) = (text(&self.value["summary"]), text(&self.value["description"]));
        let _ = write!(
            body,
            "<details><summary><code>{method} {path}</code> {summary}</summary><p>{more}</p><table>"
        );
        for parameter in self.value["parameters"].as_array().into_iter().flatten() {
            let place = text(&parameter["in"]);
            row(body, &text(&parameter["name"]), &format!("{place}; {}", text(&parameter["description"])));
        }
        for (kind, content) in self.value["requestBody"]["content"].as_object().into_iter().flatten() {
            row(body, "body", &format!("{} {}", escaped(kind), shape_of(&content["schema"])));
        }
        for (status, response) in self.value["responses"].as_object().into_iter().flatten() {
            let contents = response["content"].as_object().into_iter().flatten();
            let shapes: String = contents.map(|(_, content)| shape_of(&content["schema"])).collect();
            row(body, &escaped(status), &format!("{} {shapes}", text(&response["description"])));
        }
        body.push_str("</table></details>");
    }
}

fn describe_shape(body: &mut String, name: &str, shape: &Value) {
    let (name, about) = (escaped(name), text(&shape["description"]));
    let _ = write!(body, "<h3 id=\"shape-{name}\"><code>{name}</code></h3><p>{about}</p><table>");
    for (field, kind) in shape["properties"].as_object().into_iter().flatten() {
        row(body, &escaped(field), &format!("{} {}", shape_of(kind), text(&kind["description"])));
    }
    let words: Vec<String> = shape["enum"].as_array().into_iter().flatten().map(text).collect();
    if !words.is_empty() {
        row(body, "one of", &words.join(", "));
    }
    body.push_str("</table>");
}

/// A row of two cells that are HTML already.
fn row(body: &mut String, name: &str, what: &str) {
    let _ = write!(body, "<tr><td><code>{name}</code></td><td>{what}</td></tr>");
}

/// What a value looks like: a link to its shape, or its kind.
fn shape_of(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return format!("<a href=\"#shape-{0}\">{0}</a>", escaped(name));
    }
    for choice in ["oneOf", "anyOf", "allOf"] {
        if let Some(choices) = schema[choice].as_array() {
            return choices.iter().map(shape_of).collect::<Vec<_>>().join(" or ");
        }
    }
    if schema["items"].is_object() {
        return format!("list of {}", shape_of(&schema["items"]));
    }
    match &schema["type"] {
        Value::Array(kinds) => kinds.iter().map(text).collect::<Vec<_>>().join(" or "),
        kind => text(kind),
    }
}

fn text(value: &Value) -> String {
    escaped(value.as_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use actix_web::body::to_bytes;

    use super::*;

    #[actix_web::test]
    async fn every_operation_is_on_the_page_and_every_link_leads_somewhere_on_this_server() {
        let bytes = to_bytes(docs().await.into_body()).await.unwrap();
        let html = String::from_utf8(bytes.to_vec()).unwrap();
        let document = serde_json::to_value(document()).unwrap();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                assert!(html.contains(&format!("<code>{} {path}</code>", method.to_uppercase())), "{path}");
            }
        }
        let ids: BTreeSet<&str> =
            html.split("id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        let links: Vec<&str> =
            html.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert!(links.len() > 50, "{links:?}");
        for link in links {
            let leads = link.strip_prefix('#').map_or(link == "/api/openapi.json", |id| ids.contains(id));
            assert!(leads, "{link} leads nowhere");
        }
        for foreign in ["<script", "src=", "//cdn", "@import", "url("] {
            assert!(!html.contains(foreign), "{foreign}");
        }
    }
}
