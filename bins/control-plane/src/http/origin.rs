//! Which browsers' pages may open a stream: those that this server itself served.

use actix_web::{
    HttpRequest,
    http::{
        Uri,
        header::{HOST, ORIGIN},
    },
};

use super::{Context, Problem};

/// Scheme, host and port of an address, in one form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    authority: String,
}

impl Origin {
    /// The origin of an `http` or `https` address; `None` for anything else.
    pub fn of_url(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let default = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        let authority = match uri.port_u16() {
            Some(port) if port != default => format!("{host}:{port}"),
            _ => host,
        };
        Some(Self { scheme, authority })
    }

    /// Whether nobody on the way can read along.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.scheme == "https"
    }

    /// Whether it is named as the machine it runs on.
    pub(crate) fn is_loopback(&self) -> bool {
        let name = match self.authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => self.authority.split(':').next().unwrap_or_default(),
        };
        name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// `http` or `https`.
    pub(crate) fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Another host with the same scheme and port.
    pub(crate) fn at(&self, host: &str) -> String {
        let after = self.authority.rsplit(']').next().unwrap_or_default();
        let port = after.rsplit_once(':').map(|(_, port)| format!(":{port}")).unwrap_or_default();
        format!("{}://{host}{port}", self.scheme)
    }

    /// The address of a stream at this origin.
    pub(crate) fn socket(&self, path: &str) -> String {
        let scheme = if self.scheme == "https" { "wss" } else { "ws" };
        format!("{scheme}://{}{path}", self.authority)
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

/// The origin of this server as the request names it.
pub(crate) fn own(request: &HttpRequest, context: &Context) -> Option<Origin> {
    let of_host = || {
        let host = request.headers().get(HOST)?.to_str().ok()?;
        let scheme = if request.app_config().secure() { "https" } else { "http" };
        Origin::of_url(&format!("{scheme}://{host}"))
    };
    context.public.clone().or_else(of_host)
}

/// Refuses pages of other sites. Programs send no `Origin`, browsers always do.
pub(crate) fn check(request: &HttpRequest, context: &Context) -> Result<(), Problem> {
    let mut given = request.headers().get_all(ORIGIN);
    let Some(origin) = given.next() else { return Ok(()) };
    let origin = origin.to_str().ok().and_then(Origin::of_url);
    let same = match (origin, own(request, context)) {
        (Some(origin), Some(own)) if context.public.is_some() => origin == own,
        // Behind a proxy that speaks TLS the scheme is not known here; host and port are.
        (Some(origin), Some(own)) => origin.authority == own.authority,
        _ => false,
    };
    if same && given.next().is_none() {
        return Ok(());
    }
    let message =
        "this may not be asked for from pages of another site; set `public_url` to this server's address";
    Err(Problem::new(actix_web::http::StatusCode::FORBIDDEN, "E_ORIGIN", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port_in_one_form() {
        let origin = |url| Origin::of_url(url);
        assert_eq!(origin("https://Example.org:443/x"), origin("https://example.org"));
        assert_ne!(origin("https://example.org"), origin("http://example.org"));
        assert_ne!(origin("http://example.org:8080"), origin("http://example.org"));
        assert_eq!(origin("http://[::1]:8080").unwrap().socket("/a"), "ws://[::1]:8080/a");
    }

    #[test]
    fn this_machine_is_known_by_its_names_and_no_others() {
        for (url, is) in [
            ("http://localhost:8080", true),
            ("http://127.0.0.1", true),
            ("http://127.8.8.8:1", true),
            ("http://[::1]:8080", true),
            ("http://127.0.0.1.evil.example", false),
            ("http://localhost.evil.example", false),
            ("http://10.0.0.1", false),
            ("http://[::2]", false),
        ] {
            assert_eq!(Origin::of_url(url).unwrap().is_loopback(), is, "{url}");
        }
    }

    #[test]
    fn null_and_other_schemes_are_no_origins() {
        for url in ["null", "", "file:///etc", "ftp://example.org", "example.org", "http://"] {
            assert_eq!(Origin::of_url(url), None, "{url}");
        }
    }
}
