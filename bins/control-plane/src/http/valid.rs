//! Bodies and queries, read field by field after the caller was let in, so that a bad body never beats a missing
//! credential, and a refusal names every bad field.

use std::{collections::HashMap, future::Future, pin::Pin};

use actix_web::{FromRequest, HttpRequest, dev::Payload, web::Bytes};
use bytes::BytesMut;
use futures_util::StreamExt;
use serde_json::{Map, Value};
use tidegate_model::{FieldErrors, Fields, FromFields};
use tokio::time::timeout;

use super::{Problem, gate::context};

/// A JSON body whose complaints wait until the handler has found what they are about.
#[derive(Debug)]
pub(crate) struct Body<T> {
    read: Result<T, FieldErrors>,
    bytes: Bytes,
}

impl<T> Body<T> {
    /// The body, or the complaints about it.
    pub(crate) fn valid(self) -> Result<T, Problem> {
        self.read.map_err(Problem::invalid)
    }

    /// The body; before its complaints come those of `sooner`, for instance that the thing is not there at all.
    pub(crate) async fn after(self, sooner: impl AsyncFnOnce() -> Result<(), Problem>) -> Result<T, Problem> {
        if self.read.is_err() {
            sooner().await?;
        }
        self.valid()
    }

    /// The body as it came.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl<T: FromFields + 'static> FromRequest for Body<T> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let context = context(&request)?;
            let reading = collect(payload, context.limits.body_bytes);
            let bytes = timeout(context.body_time(), reading)
                .await
                .map_err(|_| Problem::of_status(actix_web::http::StatusCode::REQUEST_TIMEOUT))??;
            let read = parse(&bytes).and_then(T::from_json);
            Ok(Self { read, bytes })
        })
    }
}

pub(crate) async fn collect(mut payload: Payload, limit: usize) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk =
            chunk.map_err(|_| Problem::invalid(FieldErrors::one("body", "broke off before its end")))?;
        if bytes.len() + chunk.len() > limit {
            return Err(Problem::too_large(limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// Nothing at all counts as an object without fields: whatever is required is then named.
fn parse(bytes: &[u8]) -> Result<Value, FieldErrors> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Object(Map::new()));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        FieldErrors::one("body", format!("is not JSON (line {}, column {})", error.line(), error.column()))
    })
}

/// A query, read like a body; every value is a text, and so is read by `T` as one.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<T: FromFields + 'static> FromRequest for Query<T> {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(read_query(request.query_string()).map(Self).map_err(Problem::invalid))
    }
}

/// Reads a query.
pub(crate) fn read_query<T: FromFields>(query: &str) -> Result<T, FieldErrors> {
    let pairs = actix_web::web::Query::<Vec<(String, String)>>::from_query(query)
        .map_err(|_| FieldErrors::one("query", "cannot be read"))?
        .into_inner();
    let mut object = Map::new();
    for (name, value) in pairs {
        if object.insert(name.clone(), Value::String(value)).is_some() {
            return Err(FieldErrors::one(name, "is given twice"));
        }
    }
    T::from_json(Value::Object(object))
}

/// A query that may insist.
#[derive(Debug)]
pub(crate) struct Force {
    pub(crate) force: bool,
}

impl FromFields for Force {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let force = match fields.optional::<String>("force").as_deref() {
            None | Some("false") => false,
            // The bare word is enough.
            Some("" | "true") => true,
            Some(_) => {
                fields.errors().add("force", "must be true or false");
                false
            }
        };
        Some(Self { force })
    }
}

/// Reads a query as pages do: what cannot be read or is not known is left aside.
pub(crate) fn lenient_query(query: &str) -> HashMap<String, String> {
    actix_web::web::Query::from_query(query).map(actix_web::web::Query::into_inner).unwrap_or_default()
}

/// Reads a field of a query that is not a text.
pub(crate) fn parsed<T: std::str::FromStr>(fields: &mut Fields, name: &str, complaint: &str) -> Option<T> {
    let text: String = fields.optional(name)?;
    let parsed = text.parse().ok();
    if parsed.is_none() {
        fields.errors().add(name, complaint);
    }
    parsed
}

/// A part of a path. One that cannot be an id is an id of nothing: not found.
#[derive(Debug)]
pub(crate) struct Segment<T>(pub(crate) T);

/// The last part of a path: what is inside of what the part before names.
#[derive(Debug)]
pub(crate) struct Last<T>(pub(crate) T);

impl<T: std::str::FromStr + 'static> FromRequest for Last<T> {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(segment(request.match_info().iter().last()).map(Self))
    }
}

fn segment<T: std::str::FromStr>(part: Option<(&str, &str)>) -> Result<T, Problem> {
    let text = part.map(|(_, text)| text).unwrap_or_default();
    let shown: String = text.chars().filter(|c| !c.is_control()).take(64).collect();
    // Nothing has NUL in its name, and the database refuses to look for it.
    let readable = Some(text).filter(|text| !text.contains('\0')).and_then(|text| text.parse().ok());
    readable.ok_or_else(|| Problem::not_found(shown))
}

impl<T: std::str::FromStr + 'static> FromRequest for Segment<T> {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(segment(request.match_info().iter().next()).map(Self))
    }
}
