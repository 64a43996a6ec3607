//! Parameters as OAuth and pages bring them: a form, or a JSON object of texts. Read leniently where RFC 6749 (3.1) says
//! so: one without a value counts as absent, one that nobody knows is ignored, one that is given twice is refused.

use std::{collections::BTreeMap, future::Future, pin::Pin};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::header::{CONTENT_TYPE, HeaderMap},
    web,
};
use serde_json::Value;
use tokio::time::timeout;

use super::{Problem, gate::context, valid::collect};

/// Largest form: a name, a password and some tokens have a tenth of it.
const LIMIT: usize = 16 * 1_024;

/// What a request says.
#[derive(Debug)]
pub(crate) struct Parameters {
    read: Result<BTreeMap<String, Value>, &'static str>,
    is_form: bool,
}

impl Parameters {
    /// Whether they came as a form, which is all that pages send.
    pub(crate) fn is_form(&self) -> bool {
        self.is_form
    }

    /// Why they cannot be read.
    pub(crate) fn complaint(&self) -> Option<&'static str> {
        self.read.as_ref().err().copied()
    }

    /// The parameter of this name; nothing where it is absent, empty or no text.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.read.as_ref().ok()?.get(name)?.as_str().filter(|text| !text.is_empty())
    }

    /// Whether there is something of this name that is no text.
    pub(crate) fn is_odd(&self, name: &str) -> bool {
        let value = self.read.as_ref().ok().and_then(|read| read.get(name));
        value.is_some_and(|value| !matches!(value, Value::String(_) | Value::Null))
    }
}

impl FromRequest for Parameters {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let reading = collect(payload, LIMIT);
            let bytes = timeout(context(&request)?.body_time(), reading)
                .await
                .map_err(|_| Problem::of_status(actix_web::http::StatusCode::REQUEST_TIMEOUT))??;
            let is_form = is_form(request.headers());
            let read = if is_form { read_form(&bytes) } else { read_json(&bytes) };
            Ok(Self { read, is_form })
        })
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

fn read_form(bytes: &[u8]) -> Result<BTreeMap<String, Value>, &'static str> {
    const COMPLAINT: &str = "the form cannot be read";
    let text = std::str::from_utf8(bytes).map_err(|_| COMPLAINT)?;
    let pairs = web::Query::<Vec<(String, String)>>::from_query(text).map_err(|_| COMPLAINT)?;
    let mut read = BTreeMap::new();
    for (name, value) in pairs.into_inner() {
        if read.insert(name, Value::String(value)).is_some() {
            return Err("a parameter is given twice");
        }
    }
    Ok(read)
}

fn read_json(bytes: &[u8]) -> Result<BTreeMap<String, Value>, &'static str> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(BTreeMap::new());
    }
    serde_json::from_slice(bytes).map_err(|_| "the body is neither a form nor a JSON object")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_names_each_parameter_once() {
        assert_eq!(read_form(b"a=1&b=%C3%A4+x").unwrap()["b"], "ä x");
        assert!(read_form(b"a=1&a=1").is_err());
        assert!(read_form(b"a=\xff").is_err());
        assert!(read_json(b"[1]").is_err() && read_json(b"{").is_err());
        assert!(read_json(b" ").unwrap().is_empty());
    }
}
