//! Who somebody is here whom a provider vouches for: the user their identity is tied to, or a new one with an
//! organization of their own, all in one transaction.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde_json::json;
use tidegate_identity::{Person, Provider};
use tidegate_model::{
    OrgId, OrgRole, PlatformUser, Provider as Kind, UserId, organization_candidates, username_candidates,
    validate_email,
};
use tidegate_persistence::{
    Operator, Origin, PlatformTx, audit,
    identity::{self, Known, NewUser, Subject},
    membership,
    organization::{self, NewOrganization},
    user, user_change,
};

use crate::{Error, Identities, Result};

/// Longest address of a picture that is kept.
const LONGEST_URL: usize = 2_048;
const LONGEST_NAME: usize = 200;
/// The issuer of GitHub identities where no GitHub is in the settings.
const GITHUB: &str = "https://github.com";

/// What GitHub says of somebody (seed B, the arguments of `UpsertUserByGitHubID`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GithubUpsert {
    /// GitHub's number of the user, above zero.
    pub github_id: i64,
    /// What the user is called there.
    pub username: String,
    /// A verified address, if there is one.
    pub email: Option<String>,
    /// A picture, by https.
    pub avatar_url: Option<String>,
}

/// Somebody at the door, with nothing in it that must not be stored.
#[derive(Debug, Clone)]
struct Guest {
    who: Subject,
    wish: String,
    full_name: Option<String>,
    email: Option<String>,
    avatar_url: Option<String>,
    github_id: Option<i64>,
}

/// Whether somebody unknown becomes a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strangers {
    LetIn,
    Refused,
}

impl Identities {
    /// Inserts a new user who signs in with GitHub, together with an organization of their own, or brings e-mail address
    /// and picture of the known one up to date; says whether the user is new (seed B, `UpsertUserByGitHubID`). Any
    /// number of racers make one user and one organization. A name or address that is taken never fails it.
    pub async fn upsert_user_by_github_id(&self, upsert: GithubUpsert) -> Result<(PlatformUser, bool)> {
        let now = self.0.clock.now();
        let github = self.0.providers.find(Kind::Github, "github");
        let person = Person {
            issuer: github.map_or(GITHUB, Provider::issuer).to_owned(),
            subject: upsert.github_id.to_string(),
            username: upsert.username,
            full_name: None,
            email: upsert.email,
            avatar_url: upsert.avatar_url,
            github_id: Some(upsert.github_id),
        };
        let guest = guest(Kind::Github, person);
        let (known, created) = self.welcome(guest, Strangers::LetIn, None, now).await?;
        let system = Operator::system();
        let user = self.0.db.in_platform(&system, async |tx| user::find(tx, known.user_id).await).await?;
        Ok((user, created))
    }

    /// The user of whom a provider vouches for.
    pub(super) async fn welcome_person(
        &self,
        provider: &Provider,
        person: Person,
        source: Option<IpAddr>,
        now: DateTime<Utc>,
    ) -> Result<Known> {
        let strangers = if provider.allows_signup() { Strangers::LetIn } else { Strangers::Refused };
        let guest = guest(provider.kind(), person);
        let (known, _) = self.welcome(guest, strangers, source, now).await?;
        if known.active {
            return Ok(known);
        }
        let system = Operator::system().with_origin(Origin::new(source, None));
        let line = entry("login.refuse", &known.user_id.to_string(), json!({"reason": "deactivated"}), now);
        self.0.db.in_platform(&system, async |tx| audit::insert_platform(tx, line).await).await?;
        Err(deactivated())
    }

    async fn welcome(
        &self,
        guest: Guest,
        strangers: Strangers,
        source: Option<IpAddr>,
        now: DateTime<Utc>,
    ) -> Result<(Known, bool)> {
        let system = Operator::system().with_origin(Origin::new(source, None));
        let db = &self.0.db;
        let first = guest.clone();
        match db.in_platform(&system, async |tx| welcome_in(tx, first, strangers, now).await).await {
            // Somebody else took the address between the look and the change: it is theirs.
            Err(Error::Conflict { code: "E_EMAIL_TAKEN", .. }) => {
                let guest = Guest { email: None, ..guest };
                db.in_platform(&system, async |tx| welcome_in(tx, guest, strangers, now).await).await
            }
            outcome => outcome,
        }
    }
}

/// What may be stored of a person; what may not is left out, and fails nobody's login.
fn guest(provider: Kind, person: Person) -> Guest {
    let plain = |text: &str| !text.chars().any(char::is_control);
    let full_name = person.full_name.map(|name| {
        let name: String = name.chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect();
        name.trim().to_owned()
    });
    Guest {
        who: Subject { provider, issuer: person.issuer, subject: person.subject },
        wish: person.username,
        full_name: full_name.filter(|name| !name.is_empty()),
        email: person.email.filter(|email| plain(email) && validate_email(email).is_ok()),
        avatar_url: person
            .avatar_url
            .filter(|url| plain(url) && url.starts_with("https://") && url.len() <= LONGEST_URL),
        github_id: person.github_id,
    }
}

async fn welcome_in(
    tx: &mut PlatformTx,
    guest: Guest,
    strangers: Strangers,
    now: DateTime<Utc>,
) -> Result<(Known, bool)> {
    if let Some(known) = identity::find(tx, &guest.who).await? {
        return again_in(tx, known, guest, now).await;
    }
    if strangers == Strangers::Refused {
        return Err(Error::Forbidden(
            "nobody here is known by this account, and new people are not let in this way: ask an administrator"
                .into(),
        ));
    }
    // One racer goes on; the others find what it made.
    identity::claim(tx, &guest.who).await?;
    if let Some(known) = identity::find(tx, &guest.who).await? {
        return again_in(tx, known, guest, now).await;
    }
    let known = make_in(tx, &guest, now).await?;
    let detail = json!({"after": {"provider": guest.who.provider, "issuer": guest.who.issuer, "subject": guest.who.subject}});
    audit::insert_platform(tx, entry("user.sign_up", &known.username, detail, now)).await?;
    identity::link(tx, guest.who, known.user_id, now).await?;
    first_organization_in(tx, &known, now).await?;
    Ok((known, true))
}

/// Somebody who was here before. Who is deactivated stays so, and nothing of theirs changes.
async fn again_in(
    tx: &mut PlatformTx,
    known: Known,
    guest: Guest,
    now: DateTime<Utc>,
) -> Result<(Known, bool)> {
    if known.active {
        identity::touch(tx, &guest.who, now).await?;
        identity::refresh(tx, known.user_id, guest.email, guest.avatar_url, now).await?;
        if !identity::has_organization(tx, known.user_id).await? {
            first_organization_in(tx, &known, now).await?;
        }
    }
    Ok((known, false))
}

/// Makes the user, under the first name that is free. An address or number that is somebody else's is left out.
async fn make_in(tx: &mut PlatformTx, guest: &Guest, now: DateTime<Utc>) -> Result<Known> {
    let (mut email, mut github_id) = (guest.email.clone(), guest.github_id);
    for username in username_candidates(&guest.wish, ending) {
        loop {
            let user_id = UserId::new();
            let new = NewUser {
                id: user_id,
                provider: guest.who.provider,
                username: username.clone(),
                email: email.clone(),
                full_name: guest.full_name.clone().unwrap_or_else(|| username.clone()),
                github_id,
                avatar_url: guest.avatar_url.clone(),
                now,
            };
            if identity::insert_user(tx, new).await? {
                return Ok(Known { user_id, username, active: true });
            }
            let taken = identity::taken(tx, &username, email.clone(), github_id).await?;
            email = email.filter(|_| !taken.email);
            github_id = github_id.filter(|_| !taken.github_id);
            // The same name once more without what was in the way; each turn leaves something out or is the last.
            if taken.username || !(taken.email || taken.github_id) {
                break;
            }
        }
    }
    Err(Error::internal("no username was free, not even random ones"))
}

/// Makes the user's own organization, under the first name that is free.
async fn first_organization_in(tx: &mut PlatformTx, owner: &Known, now: DateTime<Utc>) -> Result<()> {
    for name in organization_candidates(&owner.username, ending) {
        let id = OrgId::new();
        let new = NewOrganization::named(id, &name, Some(owner.user_id), now);
        if organization::insert_if_free(tx, new).await? {
            membership::put_for_platform(tx, id, owner.user_id, OrgRole::Admin, now).await?;
            user_change::settle(tx, owner.user_id, id).await?;
            let line = audit::Entry {
                action: "organization.create",
                resource: format!("organization:{name}"),
                address: None,
                detail: json!({"after": {"name": name, "owner": owner.username}}),
                at: now,
            };
            return Ok(audit::insert_platform_about(tx, id, line).await?);
        }
    }
    Err(Error::internal("no organization name was free, not even random ones"))
}

/// Eight letters by chance.
fn ending() -> String {
    format!("{:08x}", rand::random::<u32>())
}

/// Why somebody whom a provider vouches for does not get in.
pub(super) fn deactivated() -> Error {
    Error::Forbidden("your account here is deactivated: ask an administrator".into())
}

fn entry(action: &'static str, username: &str, detail: serde_json::Value, at: DateTime<Utc>) -> audit::Entry {
    audit::Entry { action, resource: format!("user:{username}"), address: None, detail, at }
}
