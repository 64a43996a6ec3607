//! Whether a browser may log in over this connection, and the cookies that it is known by.

use actix_web::{
    HttpRequest,
    http::header::{COOKIE, HeaderValue},
};
use tidegate_model::Secret;

use crate::http::{Context, Problem, origin, pages::metrics::is_local};

/// How the browser reaches us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    /// Over TLS, here or at a proxy in front.
    Encrypted,
    /// From this very machine.
    Loopback,
}

/// What a cookie is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cookie {
    /// A login.
    Session,
    /// Somebody at the login page: what their form is bound to.
    Visit,
    /// Somebody on the way to a provider and back: what their sign-in is bound to.
    SignIn,
}

/// Whether nobody on the way can read a request along.
pub(crate) fn is_private(request: &HttpRequest, context: &Context) -> bool {
    Channel::of(request, context).is_ok()
}

impl Channel {
    /// The channel of a request; what anybody on the way could read along is refused.
    pub(super) fn of(request: &HttpRequest, context: &Context) -> Result<Self, Problem> {
        let own = origin::own(request, context);
        if request.app_config().secure() || own.as_ref().is_some_and(origin::Origin::is_encrypted) {
            return Ok(Self::Encrypted);
        }
        // The name too: a name of somebody else's that leads to this machine is not this machine.
        if own.is_some_and(|own| own.is_loopback()) && is_local(request) {
            return Ok(Self::Loopback);
        }
        Err(Problem::forbidden(
            "logging in by browser needs https, because this connection is not encrypted: use the https address, or set \
             `tls.cert` and `tls.key`, or `public_url` where a proxy in front speaks TLS",
        ))
    }

    /// Over TLS the name itself keeps other hosts and paths from setting it.
    fn name(self, cookie: Cookie) -> &'static str {
        match (self, cookie) {
            (Self::Encrypted, Cookie::Session) => "__Host-tidegate_session",
            (Self::Loopback, Cookie::Session) => "tidegate_session",
            (Self::Encrypted, Cookie::Visit) => "__Host-tidegate_visit",
            (Self::Loopback, Cookie::Visit) => "tidegate_visit",
            (Self::Encrypted, Cookie::SignIn) => "__Host-tidegate_sign_in",
            (Self::Loopback, Cookie::SignIn) => "tidegate_sign_in",
        }
    }

    /// The cookie's value. One that comes twice was put there by somebody else, and counts as none.
    pub(super) fn read(self, request: &HttpRequest, cookie: Cookie) -> Option<String> {
        let lines = request.headers().get_all(COOKIE).filter_map(|line| line.to_str().ok());
        let mut values = lines
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(name, _)| *name == self.name(cookie))
            .map(|(_, value)| value.to_owned());
        let value = values.next().filter(|value| (32..=128).contains(&value.len()))?;
        if values.next().is_none() { Some(value) } else { None }
    }

    /// The header that sets a cookie for so many seconds.
    pub(super) fn set(
        self,
        cookie: Cookie,
        value: &Secret<String>,
        seconds: u32,
    ) -> Result<HeaderValue, Problem> {
        let secure = if self == Self::Encrypted { "; Secure" } else { "" };
        // Whoever comes back from a provider comes from another site, and shows a strict cookie to nobody.
        let site = if cookie == Cookie::SignIn { "Lax" } else { "Strict" };
        let text = format!(
            "{}={}; Path=/; Max-Age={seconds}; HttpOnly; SameSite={site}{secure}",
            self.name(cookie),
            value.expose()
        );
        HeaderValue::from_str(&text).map_err(Problem::fault)
    }

    /// The header that makes the browser forget a cookie.
    pub(super) fn clear(self, cookie: Cookie) -> Result<HeaderValue, Problem> {
        self.set(cookie, &Secret::new(String::new()), 0)
    }
}
