//! The providers of the settings, by name.

use std::{collections::HashSet, sync::Arc};

use chrono::{DateTime, Utc};
use tidegate_model::Provider as Kind;
use url::Url;

use crate::{Departure, Options, Person, Result, Return, github::Github, oidc::Oidc, web::Web};

/// Providers at most: the login page shows each of them.
const MOST: usize = 32;

/// Who may vouch for people. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Providers(Arc<[Provider]>);

/// Somebody who vouches for people.
#[derive(Debug)]
pub struct Provider {
    name: String,
    display_name: String,
    allow_signup: bool,
    allowed_domains: Vec<String>,
    protocol: Protocol,
}

#[derive(Debug)]
enum Protocol {
    Github(Box<Github>),
    Oidc(Box<Oidc>),
}

impl Providers {
    /// Reads the settings and the files they name; says in a sentence what is wrong with them. Dials nobody.
    pub fn new(options: &Options) -> Result<Self, String> {
        if options.github.is_none() && options.oidc.is_empty() {
            return Ok(Self::default());
        }
        let web = Web::new()?;
        let mut all = Vec::new();
        if let Some(github) = &options.github {
            all.push(Provider {
                name: "github".to_owned(),
                display_name: "GitHub".to_owned(),
                allow_signup: github.allow_signup,
                allowed_domains: Vec::new(),
                protocol: Protocol::Github(Box::new(Github::new(github, web.clone())?)),
            });
        }
        for oidc in &options.oidc {
            all.push(Provider {
                name: oidc.name.clone(),
                display_name: oidc.display_name.clone().unwrap_or_else(|| oidc.name.clone()),
                allow_signup: oidc.allow_signup,
                allowed_domains: oidc.allowed_domains.iter().map(|name| name.to_lowercase()).collect(),
                protocol: Protocol::Oidc(Box::new(Oidc::new(oidc, web.clone())?)),
            });
        }
        let mut names = HashSet::new();
        if let Some(twice) = all.iter().find(|one| !names.insert((one.kind(), &one.name))) {
            return Err(format!("two providers in `auth` are called `{}`", twice.name));
        }
        if all.len() > MOST {
            return Err(format!("`auth` names {} providers, {MOST} at most can be shown", all.len()));
        }
        Ok(Self(all.into()))
    }

    /// All of them, in the order of the login page.
    pub fn all(&self) -> &[Provider] {
        &self.0
    }

    /// The provider of this kind and name.
    pub fn find(&self, kind: Kind, name: &str) -> Option<&Provider> {
        self.0.iter().find(|one| one.kind() == kind && one.name == name)
    }
}

impl Provider {
    /// Its name in addresses, unique among those of its kind.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name for people.
    pub fn display_name(&self) -> &str {
        &self.display_name
    }

    /// GitHub or OpenID Connect.
    pub fn kind(&self) -> Kind {
        match self.protocol {
            Protocol::Github(_) => Kind::Github,
            Protocol::Oidc(_) => Kind::Oidc,
        }
    }

    /// What it calls itself.
    pub fn issuer(&self) -> &str {
        match &self.protocol {
            Protocol::Github(github) => github.issuer(),
            Protocol::Oidc(oidc) => oidc.issuer(),
        }
    }

    /// Whether somebody unknown becomes a user.
    pub fn allows_signup(&self) -> bool {
        self.allow_signup
    }

    /// Whether somebody with this verified address may come in: its domain is one of those that are named, and not a
    /// part or an end of one.
    pub fn allows(&self, email: Option<&str>) -> bool {
        let domain = email.and_then(|email| email.rsplit_once('@')).map(|(_, domain)| domain.to_lowercase());
        self.allowed_domains.is_empty() || domain.is_some_and(|domain| self.allowed_domains.contains(&domain))
    }

    /// Whether it answers.
    pub async fn probe(&self, now: DateTime<Utc>) -> Result<()> {
        match &self.protocol {
            Protocol::Github(github) => github.probe().await,
            Protocol::Oidc(oidc) => oidc.probe(now).await,
        }
    }

    /// Where to send a browser.
    pub async fn depart(&self, leaving: &Departure, now: DateTime<Utc>) -> Result<Url> {
        match &self.protocol {
            Protocol::Github(github) => github.depart(leaving),
            Protocol::Oidc(oidc) => oidc.depart(leaving, now).await,
        }
    }

    /// Whom the code stands for that a browser brought back. `is_nonce` says whether a nonce is that of the attempt;
    /// GitHub repeats none.
    pub async fn arrive(
        &self,
        back: &Return<'_>,
        is_nonce: &(dyn Fn(&str) -> bool + Sync),
        now: DateTime<Utc>,
    ) -> Result<Person> {
        match &self.protocol {
            Protocol::Github(github) => github.arrive(back).await,
            Protocol::Oidc(oidc) => oidc.arrive(back, is_nonce, now).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_model::Secret;

    use super::*;
    use crate::{GithubOptions, OidcOptions};

    fn oidc(name: &str) -> OidcOptions {
        OidcOptions {
            name: name.to_owned(),
            display_name: None,
            issuer: "https://id.example".to_owned(),
            client_id: "tidegate".to_owned(),
            client_secret: Some(Secret::new("s".to_owned())),
            client_secret_file: None,
            scopes: vec!["email".to_owned()],
            allow_signup: true,
            allowed_domains: vec!["Example.org".to_owned()],
        }
    }

    fn refusal(oidc: Vec<OidcOptions>) -> String {
        Providers::new(&Options { github: None, oidc }).unwrap_err()
    }

    #[test]
    fn a_domain_is_allowed_exactly() {
        let providers = Providers::new(&Options { github: None, oidc: vec![oidc("corp")] }).unwrap();
        let corp = providers.find(Kind::Oidc, "corp").unwrap();
        assert!(corp.allows(Some("ada@example.org")) && corp.allows(Some("ada@EXAMPLE.ORG")));
        for email in [
            "ada@evilexample.org",
            "ada@mail.example.org",
            "ada@example.org.evil.example",
            "example.org",
            "\"a@example.org\"@evil.example",
        ] {
            assert!(!corp.allows(Some(email)), "{email}");
        }
        assert!(!corp.allows(None));
        assert!(providers.find(Kind::Github, "corp").is_none());
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_in_a_sentence() {
        let of = |change: fn(&mut OidcOptions)| {
            let mut one = oidc("corp");
            change(&mut one);
            refusal(vec![one])
        };
        assert!(of(|one| one.issuer = "http://id.example".into()).contains("https"));
        assert!(of(|one| one.name = "Corp/..".into()).contains("auth.oidc.name"));
        assert!(of(|one| one.client_secret = None).contains("no secret"));
        assert!(of(|one| one.allowed_domains = vec!["*.example.org".into()]).contains("allowed_domains"));
        assert!(refusal(vec![oidc("corp"), oidc("corp")]).contains("two providers"));
        let github = GithubOptions {
            client_id: "id".into(),
            client_secret: Some(Secret::new("s".into())),
            client_secret_file: None,
            allow_signup: false,
            base_url: "http://git.example".into(),
        };
        let refused = Providers::new(&Options { github: Some(github), oidc: vec![] }).unwrap_err();
        assert!(refused.contains("auth.github.base_url"), "{refused}");
    }
}
