//! Where what sessions serve is shown: a host a session below a domain, or below `localhost`; else one origin for all of
//! them beside the platform's; else a path of the platform itself, in a sandbox.

use actix_web::HttpRequest;
use tidegate_model::SessionId;

use super::{HOST_COOKIE, PATH_COOKIE};
use crate::{
    Config,
    http::{Context, Origin, origin, routes::PREFIX},
};

/// The kind of content origin that this server has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Site {
    /// `<session>.<domain>`, with the scheme and port that people use.
    Domain {
        /// For example `apps.example.org`.
        domain: String,
        /// The platform's own origin, whose scheme and port these have, too.
        of: Option<Origin>,
    },
    /// One origin for all sessions.
    Shared(Origin),
    /// None: a path of the platform's own origin.
    Path,
}

/// One content origin, as a request names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Of one session.
    Own(SessionId),
    /// Of whichever session the browser's grant is for.
    Shared,
    /// A path below the API.
    Path(SessionId),
}

impl Place {
    /// Name and path of its cookie.
    pub(super) fn cookie(self) -> (&'static str, String) {
        match self {
            Self::Own(_) | Self::Shared => (HOST_COOKIE, "/".to_owned()),
            Self::Path(id) => (PATH_COOKIE, format!("{PREFIX}/http/{id}")),
        }
    }
}

impl Site {
    /// What the settings ask for; on loopback, without any, `localhost` has a host for every session.
    pub(crate) fn of(config: &Config) -> Self {
        let public = config.public_url.as_deref().and_then(Origin::of_url);
        let streams = &config.streams;
        if let Some(domain) = &streams.domain {
            return Self::Domain { domain: domain.to_ascii_lowercase(), of: public };
        }
        if let Some(origin) = streams.content_url.as_deref().and_then(Origin::of_url) {
            return Self::Shared(origin);
        }
        let local = match &public {
            Some(public) => public.is_loopback(),
            None => config.listen.ip().is_loopback(),
        };
        if local { Self::Domain { domain: "localhost".to_owned(), of: public } } else { Self::Path }
    }

    /// The content origin that a host and port name.
    pub(crate) fn place_of(&self, host: &str) -> Option<Place> {
        match self {
            Self::Domain { domain, .. } => {
                let name = host.rsplit_once(':').map_or(host, |(name, _)| name).to_ascii_lowercase();
                let session = name.strip_suffix(domain.as_str())?.strip_suffix('.')?;
                Some(Place::Own(session.parse().ok()?))
            }
            Self::Shared(origin) => {
                let given = Origin::of_url(&format!("{}://{host}", origin.scheme()))?;
                (given == *origin).then_some(Place::Shared)
            }
            Self::Path => None,
        }
    }
}

/// Where a browser exchanges its ticket, and whether the session is shown in a sandbox of the platform's own origin.
pub(crate) fn entrance(request: &HttpRequest, context: &Context, id: SessionId) -> Option<String> {
    let own = origin::own(request, context)?;
    Some(match &context.site {
        Site::Domain { domain, of } => {
            let of = of.as_ref().unwrap_or(&own);
            format!("{}/.tidegate/enter/{id}", of.at(&format!("{id}.{domain}")))
        }
        Site::Shared(origin) => format!("{origin}/.tidegate/enter/{id}"),
        Site::Path => format!("{own}{PREFIX}/http/{id}/.tidegate/enter/{id}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(toml: &str) -> Site {
        Site::of(&Config::from_parts(toml, &[]).unwrap())
    }

    #[test]
    fn every_session_has_a_host_where_there_is_a_domain_for_them() {
        let id = SessionId::new();
        let site = site("public_url = \"https://tidegate.example\"\n[streams]\ndomain = \"Apps.example\"");
        assert_eq!(site.place_of(&format!("{id}.apps.example")), Some(Place::Own(id)));
        assert_eq!(site.place_of(&format!("{id}.APPS.example:8443")), Some(Place::Own(id)));
        for other in ["apps.example", "x.apps.example", "tidegate.example", "evil.example"] {
            assert_eq!(site.place_of(other), None, "{other}");
        }
        assert_eq!(site.place_of(&format!("{id}.evil-apps.example")), None);
        assert_eq!(site.place_of(&format!("a.{id}.apps.example")), None);
    }

    #[test]
    fn on_loopback_localhost_is_the_domain_and_elsewhere_there_is_none() {
        let id = SessionId::new();
        assert_eq!(site("").place_of(&format!("{id}.localhost:8080")), Some(Place::Own(id)));
        assert_eq!(site("listen = \"0.0.0.0:80\""), Site::Path);
        assert_eq!(site("public_url = \"https://tidegate.example\""), Site::Path);
    }

    #[test]
    fn a_second_origin_is_known_by_its_port() {
        let site = site(
            "public_url = \"https://t.example\"\n[streams]\ncontent_listen = \"0.0.0.0:8444\"\ncontent_url = \"https://t.example:8444\"",
        );
        assert_eq!(site.place_of("t.example:8444"), Some(Place::Shared));
        assert_eq!(site.place_of("t.example"), None);
    }
}
