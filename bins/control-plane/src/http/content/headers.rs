//! Which headers go on to a session and come back from it.

use actix_web::http::header::{self as actix, HeaderMap as ActixHeaders};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::is_ours;

/// Headers of one connection alone (RFC 9110, 7.6.1).
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "proxy-connection",
    "keep-alive",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "proxy-authenticate",
    "proxy-authorization",
];
/// The viewer's own: the platform's credentials, and what only a proxy in front may say.
const PRIVATE: &[&str] = &[
    "authorization",
    "x-api-key",
    "x-tidegate-org",
    "cookie",
    "host",
    "content-length",
    "expect",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
];

/// What a session may not say of the platform's name: for how long its host is to be reached by TLS alone, and which data
/// of a whole site is to go.
const FORBIDDEN: &[&str] =
    &["strict-transport-security", "public-key-pins", "alt-svc", "clear-site-data", "content-length"];

/// What of a request goes on.
pub(super) fn onward(
    given: &ActixHeaders,
    host: &str,
    encrypted: bool,
    keeps_authorization: bool,
) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let named = named_by_connection(given.get_all(actix::CONNECTION).filter_map(|value| value.to_str().ok()));
    for (name, value) in given {
        let text = name.as_str();
        let private = PRIVATE.contains(&text) && !(keeps_authorization && text == "authorization");
        if HOP_BY_HOP.contains(&text) || private || named.iter().any(|other| other == text) {
            continue;
        }
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(text.as_bytes()), HeaderValue::from_bytes(value.as_bytes()))
        {
            headers.append(name, value);
        }
    }
    let cookies = own_cookies(given.get_all(actix::COOKIE).filter_map(|value| value.to_str().ok()));
    let mut put = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    if !cookies.is_empty() {
        put(header::COOKIE, &cookies);
    }
    put(header::HOST, host);
    put(HeaderName::from_static("x-forwarded-host"), host);
    put(HeaderName::from_static("x-forwarded-proto"), if encrypted { "https" } else { "http" });
    headers
}

/// The subprotocols without the platform's own and its ticket.
pub(super) fn own_protocols(headers: &mut HeaderMap) {
    let Some(given) = headers.remove(header::SEC_WEBSOCKET_PROTOCOL) else { return };
    let kept: Vec<&str> = given
        .to_str()
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|protocol| !protocol.starts_with("ticket.") && *protocol != "tidegate.v1")
        .collect();
    if let Ok(value) = HeaderValue::from_str(&kept.join(", "))
        && !kept.is_empty()
    {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
}

/// The cookies that are not the platform's.
fn own_cookies<'a>(given: impl Iterator<Item = &'a str>) -> String {
    let pairs = given.flat_map(|value| value.split(';')).map(str::trim);
    let own = pairs.filter(|pair| !pair.is_empty() && !is_ours(pair.split('=').next().unwrap_or_default()));
    own.collect::<Vec<_>>().join("; ")
}

fn named_by_connection<'a>(given: impl Iterator<Item = &'a str>) -> Vec<String> {
    given.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect()
}

/// What of an answer comes back. Where it comes back at the platform's own origin, `below` is the path that is the
/// session's alone: its cookies go no further.
pub(super) fn back(given: &HeaderMap, below: Option<&str>) -> Vec<(String, Vec<u8>)> {
    let named =
        named_by_connection(given.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok()));
    given
        .iter()
        .filter(|(name, _)| {
            let name = name.as_str();
            !HOP_BY_HOP.contains(&name)
                && !FORBIDDEN.contains(&name)
                && !named.iter().any(|other| other == name)
        })
        .filter_map(|(name, value)| {
            if name == header::SET_COOKIE {
                return own_set_cookie(value, below).map(|value| (name.to_string(), value.into_bytes()));
            }
            Some((name.to_string(), value.as_bytes().to_vec()))
        })
        .collect()
}

/// A cookie that a session sets, as one of its own host alone; none that would be taken for the platform's.
fn own_set_cookie(value: &HeaderValue, below: Option<&str>) -> Option<String> {
    let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut parts = text.split(';');
    let pair = parts.next()?;
    if is_ours(pair.split('=').next().unwrap_or_default()) {
        return None;
    }
    let is =
        |part: &str, wanted| part.split('=').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted);
    let dropped = |part: &&str| is(part, "domain") || (below.is_some() && is(part, "path"));
    let kept = parts.filter(|part| !dropped(part));
    let mut cookie = std::iter::once(pair).chain(kept).collect::<Vec<_>>().join(";");
    if let Some(below) = below {
        // One that must be of the whole host has no place here.
        if pair.trim_start().to_ascii_lowercase().starts_with("__host-") {
            return None;
        }
        cookie.push_str("; Path=");
        cookie.push_str(below);
    }
    Some(cookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&'static str, &'static str)]) -> ActixHeaders {
        let mut headers = ActixHeaders::new();
        for (name, value) in pairs {
            headers.append(actix::HeaderName::from_static(name), actix::HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn nothing_of_the_viewers_credentials_goes_on() {
        let headers = given(&[
            ("authorization", "Bearer secret"),
            ("x-api-key", "ppz_secret"),
            ("cookie", "a=1; __Host-tidegate_session=secret; tidegate_stream=secret"),
            ("cookie", "__Host-tidegate_stream=secret; b=2"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-tidegate-org", "acme"),
            ("connection", "keep-alive, x-hop"),
            ("x-hop", "1"),
            ("accept", "text/html"),
        ]);
        let onward = onward(&headers, "s.localhost:8080", false, false);
        let all = format!("{onward:?}");
        assert!(!all.contains("secret") && !all.contains("6.6.6.6") && !all.contains("x-hop"), "{all}");
        assert_eq!(onward.get("cookie").unwrap(), "a=1; b=2");
        assert_eq!(onward.get("host").unwrap(), "s.localhost:8080");
        assert_eq!(onward.get("accept").unwrap(), "text/html");
    }

    #[test]
    fn a_session_sets_no_cookie_of_the_platform_or_of_its_parent() {
        let mut headers = HeaderMap::new();
        for cookie in [
            "a=1; Path=/; Domain=.example.org; HttpOnly",
            "__Host-tidegate_session=evil; Secure; Path=/",
            "tidegate_session=evil",
            "TIDEGATE_session=evil",
        ] {
            headers.append(header::SET_COOKIE, HeaderValue::from_static(cookie));
        }
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=1"));
        headers.insert(HeaderName::from_static("clear-site-data"), HeaderValue::from_static("\"cookies\""));
        assert_eq!(back(&headers, None), [("set-cookie".to_owned(), b"a=1; Path=/; HttpOnly".to_vec())]);
    }

    #[test]
    fn at_the_platforms_origin_a_sessions_cookies_are_of_its_own_path() {
        let mut headers = HeaderMap::new();
        for cookie in ["a=1; Path=/; HttpOnly", "b=2", "__Host-c=3; Secure; Path=/", "d=4; path=/home"] {
            headers.append(header::SET_COOKIE, HeaderValue::from_static(cookie));
        }
        let back = back(&headers, Some("/api/v1/http/x"));
        let texts: Vec<&str> = back.iter().map(|(_, value)| std::str::from_utf8(value).unwrap()).collect();
        assert_eq!(
            texts,
            ["a=1; HttpOnly; Path=/api/v1/http/x", "b=2; Path=/api/v1/http/x", "d=4; Path=/api/v1/http/x"]
        );
    }

    #[test]
    fn tickets_are_no_subprotocols_of_the_session() {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static("tidegate.v1, ticket.x, binary"),
        );
        own_protocols(&mut headers);
        assert_eq!(headers.get(header::SEC_WEBSOCKET_PROTOCOL).unwrap(), "binary");
    }
}
