//! A walk over the whole document with five callers: nobody, another organization's admin, a viewer, a user, an
//! `org_admin`. Every body is good and every target is there, so that nothing but the permission matrix decides. A new
//! operation fails the walk until it has a rule here.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidegate_model::{Operation, OrgId, OrgRole, Standing, SystemRole};
use tidegate_test_support::{BOOTSTRAP_KEY, SocketAgent, eventually, new_key_of};

use crate::{
    applications,
    support::{Answer, Somebody, World, upgrade},
    walls::operations,
};

/// What decides who is let in.
#[derive(Clone, Copy)]
enum Rule {
    /// Nothing, or something that is no user's credential.
    Open,
    /// A login: it is about the caller's own.
    Own,
    /// A right, in the organization of the path or of the caller.
    Right(Operation),
    /// A right, and for whoever lacks it nothing is there.
    Hidden(Operation),
    /// A session: one's own under the right, those of others for who manages them; else it is not found.
    Session(Operation),
    /// A stream: the owner's alone under the right; who manages sessions sees it and is refused.
    Stream(Operation),
    /// A source, which every member finds: one's own under the right, those of others for who manages sources.
    Source(Operation),
    /// An agent's key; no user's credential is one.
    Agent,
}

/// Method and path under the prefix, and what decides.
const RULES: &[(&str, Rule)] = &[
    ("GET /healthz", Rule::Open),
    ("GET /readyz", Rule::Open),
    ("GET /metrics", Rule::Open),
    ("POST /auth/login", Rule::Open),
    ("POST /auth/refresh", Rule::Open),
    ("POST /auth/exchange", Rule::Open),
    ("POST /auth/password/reset", Rule::Open),
    ("POST /auth/password/new", Rule::Open),
    ("POST /auth/setup", Rule::Open),
    ("GET /auth/setup/status", Rule::Open),
    ("GET /auth/providers", Rule::Open),
    ("GET /auth/github", Rule::Open),
    ("GET /auth/github/callback", Rule::Open),
    ("GET /auth/oidc/{provider}", Rule::Open),
    ("GET /auth/oidc/{provider}/callback", Rule::Open),
    ("POST /auth/logout", Rule::Own),
    ("POST /auth/switch", Rule::Own),
    ("POST /oauth/device/code", Rule::Open),
    ("POST /oauth/device/token", Rule::Open),
    ("GET /auth/tokens", Rule::Own),
    ("DELETE /auth/tokens/{id}", Rule::Own),
    ("POST /auth/password", Rule::Own),
    ("GET /auth/logins", Rule::Own),
    ("DELETE /auth/logins/{id}", Rule::Own),
    ("GET /me/permissions", Rule::Own),
    ("GET /users/me", Rule::Own),
    ("PATCH /users/me", Rule::Own),
    ("GET /users", Rule::Right(Operation::ReadUsers)),
    ("POST /users", Rule::Right(Operation::ManageUsers)),
    ("GET /users/{id}", Rule::Hidden(Operation::ReadUsers)),
    ("PATCH /users/{id}", Rule::Hidden(Operation::ManageUsers)),
    ("DELETE /users/{id}", Rule::Hidden(Operation::ManageUsers)),
    ("GET /users/{id}/sessions", Rule::Hidden(Operation::ManageSessions)),
    ("GET /users/{id}/groups", Rule::Right(Operation::ManageGroups)),
    ("GET /users/{id}/quota", Rule::Right(Operation::ManageQuotas)),
    ("PUT /users/{id}/quota", Rule::Right(Operation::ManageQuotas)),
    ("DELETE /users/{id}/quota", Rule::Right(Operation::ManageQuotas)),
    ("GET /groups", Rule::Right(Operation::ReadGroups)),
    ("POST /groups", Rule::Right(Operation::ManageGroups)),
    ("GET /groups/{id}", Rule::Right(Operation::ReadGroups)),
    ("PATCH /groups/{id}", Rule::Right(Operation::ManageGroups)),
    ("DELETE /groups/{id}", Rule::Right(Operation::ManageGroups)),
    ("GET /groups/{id}/members", Rule::Right(Operation::ReadGroups)),
    ("POST /groups/{id}/members", Rule::Right(Operation::ManageGroups)),
    ("PATCH /groups/{id}/members/{userId}", Rule::Right(Operation::ManageGroups)),
    ("DELETE /groups/{id}/members/{userId}", Rule::Right(Operation::ManageGroups)),
    ("GET /groups/{id}/quota", Rule::Right(Operation::ReadGroups)),
    ("PUT /groups/{id}/quota", Rule::Right(Operation::ManageQuotas)),
    ("DELETE /groups/{id}/quota", Rule::Right(Operation::ManageQuotas)),
    ("POST /quotas/check", Rule::Right(Operation::ReadGroups)),
    ("GET /organizations/{id}/usage", Rule::Right(Operation::ReadGroups)),
    ("GET /organizations/{id}/session-policy", Rule::Right(Operation::ReadOrganization)),
    ("PUT /organizations/{id}/session-policy", Rule::Right(Operation::UpdateOrganization)),
    ("GET /organizations/{id}/quota", Rule::Right(Operation::ReadGroups)),
    ("PUT /organizations/{id}/quota", Rule::Right(Operation::ManageQuotas)),
    ("DELETE /organizations/{id}/quota", Rule::Right(Operation::ManageQuotas)),
    ("GET /audit", Rule::Right(Operation::ReadAudit)),
    ("GET /audit/export", Rule::Right(Operation::ReadAudit)),
    ("GET /organizations", Rule::Own),
    ("POST /organizations", Rule::Right(Operation::CreateOrganization)),
    ("GET /organizations/{id}", Rule::Right(Operation::ReadOrganization)),
    ("PATCH /organizations/{id}", Rule::Right(Operation::UpdateOrganization)),
    ("DELETE /organizations/{id}", Rule::Right(Operation::DeleteOrganization)),
    ("POST /organizations/{id}/transfer", Rule::Right(Operation::TransferOrganization)),
    ("GET /organizations/{id}/members", Rule::Right(Operation::ReadMembers)),
    ("POST /organizations/{id}/members", Rule::Right(Operation::ManageMembers)),
    ("PATCH /organizations/{id}/members/{userId}", Rule::Right(Operation::ManageMembers)),
    ("DELETE /organizations/{id}/members/{userId}", Rule::Right(Operation::ManageMembers)),
    ("GET /organizations/{id}/invites", Rule::Right(Operation::ManageInvites)),
    ("POST /organizations/{id}/invites", Rule::Right(Operation::ManageInvites)),
    ("POST /organizations/{id}/invites/{inviteId}/revoke", Rule::Right(Operation::ManageInvites)),
    ("GET /invites", Rule::Right(Operation::AnswerInvites)),
    ("POST /invites/{id}/accept", Rule::Own),
    ("POST /invites/{id}/decline", Rule::Own),
    ("GET /organizations/{id}/keys", Rule::Right(Operation::ManageKeys)),
    ("POST /organizations/{id}/keys", Rule::Right(Operation::ManageKeys)),
    ("GET /orgs/{id}/keys", Rule::Right(Operation::ManageKeys)),
    ("POST /orgs/{id}/keys", Rule::Right(Operation::ManageKeys)),
    ("POST /keys/{id}/revoke", Rule::Right(Operation::ManageKeys)),
    ("POST /keys/{id}/rotate", Rule::Right(Operation::ManageKeys)),
    ("GET /events", Rule::Right(Operation::OwnSessions)),
    ("POST /events/ticket", Rule::Right(Operation::OwnSessions)),
    ("GET /sessions", Rule::Right(Operation::OwnSessions)),
    ("POST /sessions", Rule::Right(Operation::StartSessions)),
    ("GET /sessions/{id}", Rule::Session(Operation::OwnSessions)),
    ("DELETE /sessions/{id}", Rule::Session(Operation::OwnSessions)),
    ("POST /sessions/{id}/terminate", Rule::Session(Operation::OwnSessions)),
    ("PUT /sessions/{id}/hibernate", Rule::Session(Operation::OwnSessions)),
    ("PUT /sessions/{id}/wake", Rule::Session(Operation::StartSessions)),
    ("PATCH /sessions/{id}/tags", Rule::Session(Operation::OwnSessions)),
    ("GET /sessions/{id}/history", Rule::Session(Operation::OwnSessions)),
    ("GET /sessions/{id}/logs", Rule::Stream(Operation::OwnSessions)),
    ("POST /sessions/{id}/connect", Rule::Stream(Operation::OwnSessions)),
    ("POST /sessions/{id}/disconnect", Rule::Session(Operation::OwnSessions)),
    ("GET /sessions/{id}/activity", Rule::Session(Operation::OwnSessions)),
    ("POST /sessions/{id}/heartbeat", Rule::Stream(Operation::OwnSessions)),
    ("GET /sessions/{id}/policy", Rule::Session(Operation::OwnSessions)),
    ("POST /sessions/{id}/extend", Rule::Session(Operation::OwnSessions)),
    ("GET /sessions/{id}/shares", Rule::Session(Operation::OwnSessions)),
    ("POST /sessions/{id}/shares", Rule::Stream(Operation::OwnSessions)),
    ("DELETE /sessions/{id}/shares/{shareId}", Rule::Session(Operation::OwnSessions)),
    ("GET /sessions/{id}/terminal", Rule::Stream(Operation::OwnSessions)),
    ("PUT /sessions/{id}/terminal-source", Rule::Stream(Operation::MakeSources)),
    ("DELETE /sessions/{id}/terminal-source", Rule::Session(Operation::OwnSessions)),
    ("GET /sessions/{id}/vnc", Rule::Stream(Operation::OwnSessions)),
    ("GET /sessions/{id}/ports/{port}", Rule::Stream(Operation::OwnSessions)),
    ("GET /http/{id}/{path}", Rule::Stream(Operation::OwnSessions)),
    ("GET /applications", Rule::Right(Operation::ReadApplications)),
    ("POST /applications", Rule::Right(Operation::ManageApplications)),
    ("GET /applications/user", Rule::Right(Operation::ReadApplications)),
    ("GET /applications/{id}", Rule::Hidden(Operation::ManageApplications)),
    ("PUT /applications/{id}", Rule::Hidden(Operation::ManageApplications)),
    ("DELETE /applications/{id}", Rule::Hidden(Operation::ManageApplications)),
    ("PUT /applications/{id}/enabled", Rule::Hidden(Operation::ManageApplications)),
    ("GET /applications/{id}/icon", Rule::Hidden(Operation::ManageApplications)),
    ("GET /applications/{id}/groups", Rule::Hidden(Operation::ManageApplications)),
    ("POST /applications/{id}/groups", Rule::Hidden(Operation::ManageApplications)),
    ("GET /applications/{id}/groups/{groupId}", Rule::Hidden(Operation::ManageApplications)),
    ("PATCH /applications/{id}/groups/{groupId}", Rule::Hidden(Operation::ManageApplications)),
    ("DELETE /applications/{id}/groups/{groupId}", Rule::Hidden(Operation::ManageApplications)),
    ("GET /sources", Rule::Right(Operation::ReadSources)),
    ("POST /sources", Rule::Right(Operation::MakeSources)),
    ("GET /sources/{handle}", Rule::Right(Operation::ReadSources)),
    ("DELETE /sources/{handle}", Rule::Source(Operation::MakeSources)),
    ("GET /sources/{handle}/pipes", Rule::Right(Operation::ReadSources)),
    ("POST /sources/{handle}/pipes", Rule::Source(Operation::MakeSources)),
    ("PATCH /sources/{handle}/pipes/{name}", Rule::Source(Operation::MakeSources)),
    ("DELETE /sources/{handle}/pipes/{name}", Rule::Source(Operation::MakeSources)),
    ("GET /sources/{handle}/pipes/{name}/messages", Rule::Right(Operation::ReadSources)),
    ("POST /sources/{handle}/pipes/{name}/messages", Rule::Right(Operation::SendMessages)),
    ("GET /sources/{handle}/pipes/{name}/end", Rule::Right(Operation::ReadSources)),
    ("POST /sources/{handle}/pipes/{name}/open", Rule::Right(Operation::ReadSources)),
    ("PUT /sources/{handle}/pipes/{name}/place", Rule::Right(Operation::ReadSources)),
    ("GET /sources/{handle}/pipes/{name}/messages/{sequence}/receipts", Rule::Right(Operation::ReadSources)),
    ("GET /pipes/subscriptions", Rule::Right(Operation::ReadSources)),
    ("GET /pipes/members", Rule::Right(Operation::ReadSources)),
    ("GET /sources/{handle}/grants", Rule::Source(Operation::ReadSources)),
    ("POST /sources/{handle}/grants", Rule::Source(Operation::MakeSources)),
    ("DELETE /sources/{handle}/grants/{grantId}", Rule::Source(Operation::MakeSources)),
    ("GET /homes", Rule::Right(Operation::OwnSessions)),
    ("DELETE /homes/{id}", Rule::Session(Operation::OwnSessions)),
    ("GET /plugins", Rule::Right(Operation::ManagePlugins)),
    ("POST /plugins", Rule::Right(Operation::ManagePlugins)),
    ("POST /plugins/catalog/{id}/install", Rule::Right(Operation::ManagePlugins)),
    ("GET /plugins/{id}", Rule::Right(Operation::ManagePlugins)),
    ("PATCH /plugins/{id}", Rule::Right(Operation::ManagePlugins)),
    ("DELETE /plugins/{id}", Rule::Right(Operation::ManagePlugins)),
    ("POST /plugins/{id}/enable", Rule::Right(Operation::ManagePlugins)),
    ("POST /plugins/{id}/disable", Rule::Right(Operation::ManagePlugins)),
    ("POST /plugins/{id}/upgrade", Rule::Right(Operation::ManagePlugins)),
    ("POST /plugins/{id}/rollback", Rule::Right(Operation::ManagePlugins)),
    ("GET /plugins/{id}/secret", Rule::Right(Operation::ManagePlugins)),
    ("GET /plugins/{id}/icon", Rule::Right(Operation::ManagePlugins)),
    ("GET /plugins/{id}/deliveries", Rule::Right(Operation::ManagePlugins)),
    ("POST /plugins/{id}/deliveries/{deliveryId}/redeliver", Rule::Right(Operation::ManagePlugins)),
    // Whoever is a member of anything uses what the platform has for everybody.
    ("GET /plugins/{name}/api/{path}", Rule::Own),
    ("GET /catalog/templates", Rule::Right(Operation::ReadCatalog)),
    ("GET /catalog/templates/{id}", Rule::Own),
    ("GET /catalog/templates/{id}/ratings", Rule::Own),
    ("POST /catalog/templates/{id}/rate", Rule::Own),
    ("DELETE /catalog/templates/{id}/rate", Rule::Own),
    ("GET /catalog/icons/{digest}", Rule::Own),
    ("GET /plugins/catalog", Rule::Right(Operation::ReadCatalog)),
    ("GET /plugins/catalog/{id}", Rule::Own),
    ("GET /plugins/catalog/{id}/versions", Rule::Own),
    ("GET /plugins/catalog/{id}/stats", Rule::Own),
    ("GET /plugins/catalog/{id}/ratings", Rule::Own),
    ("POST /plugins/catalog/{id}/rate", Rule::Own),
    ("DELETE /plugins/catalog/{id}/rate", Rule::Own),
    ("POST /agents/register", Rule::Agent),
    ("GET /agents/connect", Rule::Agent),
    ("GET /agents/tunnels/{id}", Rule::Agent),
    ("POST /agents/{agentId}/heartbeat", Rule::Agent),
    ("GET /admin/agents", Rule::Right(Operation::ManageAgents)),
    ("GET /admin/agents/{agentId}", Rule::Right(Operation::ManageAgents)),
    ("POST /admin/agents/{agentId}/approve", Rule::Right(Operation::ManageAgents)),
    ("POST /admin/agents/{agentId}/reject", Rule::Right(Operation::ManageAgents)),
    ("POST /admin/agents/{agentId}/rotate-key", Rule::Right(Operation::ManageAgents)),
    ("POST /admin/agents/{agentId}/revoke-key", Rule::Right(Operation::ManageAgents)),
    ("PATCH /admin/agents/{agentId}", Rule::Right(Operation::ManageAgents)),
    ("DELETE /admin/agents/{agentId}", Rule::Right(Operation::ManageAgents)),
    ("POST /admin/agents/{agentId}/drain", Rule::Right(Operation::ManageAgents)),
    ("POST /admin/agents/{agentId}/undrain", Rule::Right(Operation::ManageAgents)),
    ("GET /admin/agents/{agentId}/commands", Rule::Right(Operation::ManageAgents)),
    ("GET /admin/commands/{commandId}", Rule::Right(Operation::ManageAgents)),
    ("GET /admin/sessions", Rule::Right(Operation::ManageAllSessions)),
    ("POST /admin/sessions/{id}/terminate", Rule::Right(Operation::ManageAllSessions)),
    ("POST /admin/agents/{agentId}/command", Rule::Right(Operation::ManageAgents)),
    ("GET /admin/quarantine", Rule::Right(Operation::ManageAgents)),
    ("POST /admin/quarantine/{agentId}/{sessionId}/stop", Rule::Right(Operation::ManageAgents)),
    ("POST /admin/quarantine/{agentId}/{sessionId}/forget", Rule::Right(Operation::ManageAgents)),
    ("GET /admin/audit", Rule::Right(Operation::ReadAllAudit)),
    ("GET /admin/audit/export", Rule::Right(Operation::ReadAllAudit)),
    ("GET /admin/users", Rule::Right(Operation::ManageAllUsers)),
    ("POST /admin/users", Rule::Right(Operation::ManageAllUsers)),
    ("GET /admin/users/{id}", Rule::Right(Operation::ManageAllUsers)),
    ("PATCH /admin/users/{id}", Rule::Right(Operation::ManageAllUsers)),
    ("DELETE /admin/users/{id}", Rule::Right(Operation::ManageAllUsers)),
    ("POST /admin/users/{id}/password", Rule::Right(Operation::ManageAllUsers)),
    ("GET /admin/quotas", Rule::Right(Operation::ManageAllQuotas)),
    ("POST /admin/quotas", Rule::Right(Operation::ManageAllQuotas)),
    ("GET /admin/quotas/{username}", Rule::Right(Operation::ManageAllQuotas)),
    ("PUT /admin/quotas/{username}", Rule::Right(Operation::ManageAllQuotas)),
    ("DELETE /admin/quotas/{username}", Rule::Right(Operation::ManageAllQuotas)),
    ("GET /admin/organizations/{id}/quota", Rule::Right(Operation::ManageAllQuotas)),
    ("PUT /admin/organizations/{id}/quota", Rule::Right(Operation::ManageAllQuotas)),
    ("DELETE /admin/organizations/{id}/quota", Rule::Right(Operation::ManageAllQuotas)),
    ("GET /admin/organizations", Rule::Right(Operation::ReadAllOrganizations)),
    ("GET /admin/organizations/{id}", Rule::Right(Operation::ReadAllOrganizations)),
    ("POST /admin/organizations", Rule::Right(Operation::ManageAllOrganizations)),
    ("PATCH /admin/organizations/{id}", Rule::Right(Operation::ManageAllOrganizations)),
    ("DELETE /admin/organizations/{id}", Rule::Right(Operation::ManageAllOrganizations)),
    ("POST /admin/organizations/{id}/transfer", Rule::Right(Operation::ManageAllOrganizations)),
    ("GET /catalog/repositories", Rule::Right(Operation::ManageRepositories)),
    ("POST /catalog/repositories", Rule::Right(Operation::ManageRepositories)),
    ("GET /catalog/repositories/{id}", Rule::Right(Operation::ManageRepositories)),
    ("PATCH /catalog/repositories/{id}", Rule::Right(Operation::ManageRepositories)),
    ("DELETE /catalog/repositories/{id}", Rule::Right(Operation::ManageRepositories)),
    ("GET /catalog/repositories/{id}/problems", Rule::Right(Operation::ManageRepositories)),
    ("POST /catalog/repositories/{id}/sync", Rule::Right(Operation::ManageRepositories)),
    // Its signature is what lets it in, and no user's credential is one.
    ("POST /catalog/repositories/{id}/webhook", Rule::Agent),
];
/// Answers of operations that went through to what the tests have no real one of.
const PAST_THE_GATE: &[(&str, u16)] = &[
    // The agent of the test dials no tunnel.
    ("GET /sessions/{id}/terminal", 504),
    ("GET /sessions/{id}/vnc", 504),
    ("GET /sessions/{id}/ports/{port}", 504),
    ("GET /http/{id}/{path}", 504),
    ("GET /sessions/{id}/logs", 504),
    // The server of the test has no NATS.
    ("GET /sources/{handle}/pipes/{name}/messages", 503),
    ("POST /sources/{handle}/pipes/{name}/messages", 503),
    ("GET /sources/{handle}/pipes/{name}/end", 503),
    ("POST /sources/{handle}/pipes/{name}/open", 503),
    ("PUT /sources/{handle}/pipes/{name}/place", 503),
    ("GET /sources/{handle}/pipes/{name}/messages/{sequence}/receipts", 503),
    ("PUT /sessions/{id}/terminal-source", 503),
    // Without an icon, an archive, a catalog, a version before and an event.
    ("GET /plugins/{id}/icon", 404),
    ("POST /plugins", 400),
    ("POST /plugins/{id}/upgrade", 409),
    ("POST /plugins/{id}/rollback", 409),
    ("POST /plugins/catalog/{id}/install", 404),
    ("POST /plugins/{id}/deliveries/{deliveryId}/redeliver", 404),
];

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Nobody,
    Stranger,
    Viewer,
    User,
    OrgAdmin,
    /// Not of the five: shows that the body is good where none of them may.
    Owner,
    /// The same for the platform's operations.
    Platform,
}

const FIVE: [Who; 5] = [Who::Nobody, Who::Stranger, Who::Viewer, Who::User, Who::OrgAdmin];

/// What must be answered.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    LetIn,
    Refused(u16),
}

impl Who {
    fn standing(self) -> Standing {
        let org = match self {
            Self::Nobody => None,
            Self::Stranger | Self::OrgAdmin | Self::Owner => Some(OrgRole::Admin),
            Self::Viewer => Some(OrgRole::Viewer),
            Self::User | Self::Platform => Some(OrgRole::User),
        };
        let system = if self == Self::Platform { SystemRole::Admin } else { SystemRole::User };
        Standing { system, org, owner: self == Self::Owner }
    }
}

/// What the matrix says. `own` is whether the session asked for is the caller's.
fn expected(operation: &str, rule: Rule, who: Who, own: bool) -> Expected {
    // What the platform has is nobody's organization's: who may not is refused, whoever they are.
    let of_the_platform = [" /admin/", " /catalog/repositories/", " /plugins"];
    let there = !operation.contains('{') || of_the_platform.iter().any(|part| operation.contains(part));
    let by_right = |right: Operation| {
        if right.allows(who.standing()) { Expected::LetIn } else { Expected::Refused(403) }
    };
    match (rule, who) {
        (Rule::Open, _) | (Rule::Own, Who::Stranger | Who::Viewer | Who::User | Who::OrgAdmin) => {
            Expected::LetIn
        }
        (Rule::Agent, _) | (_, Who::Nobody) => Expected::Refused(401),
        (Rule::Right(_), Who::Stranger) if !there => Expected::Refused(404),
        (Rule::Right(right), _) => by_right(right),
        (Rule::Hidden(_) | Rule::Session(_) | Rule::Stream(_) | Rule::Source(_), Who::Stranger) => {
            Expected::Refused(404)
        }
        (Rule::Source(right), _) if own => by_right(right),
        (Rule::Source(_), _) => by_right(Operation::ManageSources),
        (Rule::Hidden(right), _) if right.allows(who.standing()) => Expected::LetIn,
        (Rule::Session(right) | Rule::Stream(right), _) if own => by_right(right),
        (Rule::Session(_), _) if Operation::ManageSessions.allows(who.standing()) => Expected::LetIn,
        (Rule::Stream(_), _) if Operation::ManageSessions.allows(who.standing()) => Expected::Refused(403),
        (Rule::Hidden(_) | Rule::Session(_) | Rule::Stream(_), _) => Expected::Refused(404),
        (Rule::Own, Who::Owner | Who::Platform) => Expected::LetIn,
    }
}

/// An organization with one of each, an agent, and another organization.
pub(crate) struct Stage {
    pub(crate) world: World,
    _agent: SocketAgent,
    people: BTreeMap<&'static str, Somebody>,
}

/// One request.
pub(crate) struct Ask {
    pub(crate) path: String,
    pub(crate) body: Option<Value>,
    /// Where the operation uses up the credential: a fresh one.
    pub(crate) token: Option<String>,
}

const ORG: &str = "/api/v1/organizations/acme";

impl Stage {
    pub(crate) async fn new() -> Self {
        let world = World::with("[hub]\ntunnel_dial_seconds = 0").await;
        let agent = world.agent("vm-1").await;
        let mut people = BTreeMap::from([("Owner", world.owner("acme").await)]);
        for (name, org, role) in [
            ("Stranger", "rival", OrgRole::Admin),
            ("Viewer", "acme", OrgRole::Viewer),
            ("User", "acme", OrgRole::User),
            ("OrgAdmin", "acme", OrgRole::Admin),
            ("Colleague", "acme", OrgRole::User),
        ] {
            people.insert(name, world.somebody(org, role).await);
        }
        let admin = world.admin().await;
        people.insert("Platform", Somebody { token: admin, id: String::new(), name: String::new() });
        Self { world, _agent: agent, people }
    }

    pub(crate) fn token(&self, who: Who) -> &str {
        self.people.get(format!("{who:?}").as_str()).map_or("", |somebody| &somebody.token)
    }

    fn of(&self, name: &str) -> &Somebody {
        &self.people[name]
    }

    /// Asks as the owner for what a target needs, which must work.
    async fn done(&self, method: &str, path: &str, body: Value) -> Value {
        self.done_by(&self.of("Owner").token, method, path, body).await
    }

    pub(crate) async fn done_by(&self, token: &str, method: &str, path: &str, body: Value) -> Value {
        let answer = self.world.call(method, path, token, Some(body)).await;
        assert!((200..300).contains(&answer.status), "{method} {path}: {answer:?}");
        answer.body
    }

    /// A session of the caller or of a colleague, in the state that the operation starts from.
    async fn session(&self, operation: &str, who: Who, own: bool) -> String {
        let name = format!("{who:?}");
        let owner = if own { self.of(&name) } else { self.of("Colleague") };
        let member = format!("{ORG}/members/{}", owner.id);
        let lifted = who == Who::Viewer && own;
        if lifted {
            self.done("PATCH", &member, json!({"role": "user"})).await;
        }
        let made = self.done_by(&owner.token, "POST", "/api/v1/sessions", json!({"template": "shell"})).await;
        let path = format!("/api/v1/sessions/{}", made["session"]["id"].as_str().unwrap());
        self.reaches(&path, &owner.token, "running").await;
        if operation == "PUT /sessions/{id}/wake" {
            self.done_by(&owner.token, "PUT", &format!("{path}/hibernate"), json!({})).await;
            self.reaches(&path, &owner.token, "hibernated").await;
        }
        if lifted {
            self.done("PATCH", &member, json!({"role": "viewer"})).await;
        }
        path.rsplit_once('/').unwrap().1.to_owned()
    }

    /// A home of the caller or of a colleague, in which nothing lives any more.
    async fn home(&self, who: Who, own: bool) -> String {
        let name = format!("{who:?}");
        let owner = if own { self.of(&name) } else { self.of("Colleague") };
        let member = format!("{ORG}/members/{}", owner.id);
        let theirs = async || -> Vec<Value> {
            let all = self.world.call("GET", "/api/v1/homes?limit=100", &owner.token, None).await.body;
            let homes = all["homes"].as_array().unwrap().clone();
            homes.into_iter().filter(|home| home["userId"] == owner.id.as_str()).collect()
        };
        let settled = async || theirs().await.iter().all(|home| home["deletingAt"].is_null());
        eventually("no home is on its way out", settled).await;
        if who == Who::Viewer && own {
            self.done("PATCH", &member, json!({"role": "user"})).await;
        }
        let body = json!({"template": "shell", "persistentHome": true});
        let made = self.done_by(&owner.token, "POST", "/api/v1/sessions", body).await;
        let path = format!("/api/v1/sessions/{}", made["session"]["id"].as_str().unwrap());
        self.reaches(&path, &owner.token, "running").await;
        self.done_by(&owner.token, "DELETE", &path, json!({})).await;
        self.reaches(&path, &owner.token, "terminated").await;
        if who == Who::Viewer && own {
            self.done("PATCH", &member, json!({"role": "viewer"})).await;
        }
        theirs().await[0]["id"].as_str().unwrap().to_owned()
    }

    async fn reaches(&self, path: &str, token: &str, state: &str) {
        let reached = async || self.world.call("GET", path, token, None).await.body["state"] == state;
        eventually(state, reached).await;
    }

    /// Ends what a request may have left, so that quotas and agents stay free.
    async fn ended(&self, id: &str) {
        let path = format!("/api/v1/sessions/{id}/terminate?force=true");
        let answer = self.world.call("POST", &path, &self.of("OrgAdmin").token, None).await;
        assert!(answer.status < 500, "{answer:?}");
    }

    /// The same for whatever still lives.
    pub(crate) async fn end_all(&self) {
        let path = "/api/v1/sessions?limit=100";
        let all = self.world.call("GET", path, &self.of("OrgAdmin").token, None).await.body;
        for session in all["sessions"].as_array().unwrap() {
            self.ended(session["id"].as_str().unwrap()).await;
        }
    }

    async fn invite(&self, invitee: &str) -> String {
        let body = json!({"username": invitee});
        let made = self.done("POST", &format!("{ORG}/invites"), body).await;
        made["id"].as_str().unwrap().to_owned()
    }

    async fn key(&self, token: &str) -> String {
        let body = json!({"label": "walked", "scopes": ["sessions:read"]});
        let made = self.done_by(token, "POST", &format!("{ORG}/keys"), body).await;
        made["key"]["id"].as_str().unwrap().to_owned()
    }
}

/// Whether it is about the catalog as everybody sees it.
fn of_the_catalog(pattern: &str) -> bool {
    let other = pattern.starts_with("/catalog/repositories") || pattern.ends_with("/install");
    !other && (pattern.starts_with("/catalog/") || pattern.starts_with("/plugins/catalog"))
}

impl Stage {
    /// A good request. What it is about was made for it alone.
    pub(crate) async fn ask(&self, operation: &str, who: Who, own: bool) -> Ask {
        let (method, pattern) = operation.split_once(' ').unwrap();
        let mut ask = Ask { path: format!("/api/v1{pattern}"), body: None, token: None };
        if pattern.starts_with("/sessions/{id}") || pattern.starts_with("/http/{id}") {
            ask.fill("{id}", &self.session(operation, who, own).await);
        }
        if pattern.starts_with("/homes/{id}") {
            ask.fill("{id}", &self.home(who, own).await);
        }
        if pattern.starts_with("/organizations/{id}") || pattern.starts_with("/orgs/{id}") {
            ask.fill("{id}", "acme");
        }
        match pattern.split('/').nth(1).unwrap_or_default() {
            "catalog" | "plugins" if of_the_catalog(pattern) => {
                self.ask_of_catalog(operation, who, &mut ask).await;
            }
            "admin" | "catalog" => self.ask_as_platform(operation, &mut ask).await,
            "plugins" => self.ask_of_plugins(operation, &mut ask).await,
            "users" | "groups" | "quotas" => self.ask_of_users(operation, &mut ask).await,
            "applications" => self.ask_of_applications(operation, &mut ask).await,
            "sources" => self.ask_of_sources(operation, who, own, &mut ask).await,
            "auth" => self.ask_of_logins(operation, who, &mut ask).await,
            "organizations" | "orgs" | "invites" | "keys" => {
                self.ask_of_people(operation, who, &mut ask).await;
            }
            _ => self.ask_of_sessions(operation, who, own, &mut ask).await,
        }
        if ask.body.is_none() && method != "GET" {
            ask.body = Some(json!({}));
        }
        assert!(!ask.path.contains('{'), "{operation}: nothing fills {}", ask.path);
        ask
    }

    async fn ask_of_plugins(&self, operation: &str, ask: &mut Ask) {
        let console = tidegate_service::Caller::console();
        let name = unique("walked");
        let archive = crate::plugins::api_plugin(&name);
        let plugins = &self.world.services.plugins;
        let enabled = Some(operation != "POST /plugins/{id}/enable");
        let wanted = tidegate_model::InstallPluginRequest { enabled, ..Default::default() };
        let made = plugins.upload(&console, archive, wanted, None, |_| Value::Null).await.unwrap();
        let tidegate_service::Made::New(made) = made else { panic!("{made:?}") };
        ask.fill("{name}", &name);
        ask.fill("{path}", "hello");
        ask.fill("{deliveryId}", "00000000-0000-7000-8000-000000000000");
        if operation != "POST /plugins/catalog/{id}/install" {
            ask.fill("{id}", &made.id.to_string());
        }
        ask.fill("{id}", "9000000");
        if operation == "PATCH /plugins/{id}" {
            ask.body = Some(json!({"config": {}}));
        }
    }

    async fn ask_of_logins(&self, operation: &str, who: Who, ask: &mut Ask) {
        if who == Who::Nobody {
            ask.fill("{id}", &unique("x"));
            return;
        }
        let org = if who == Who::Stranger { "rival" } else { "acme" };
        let own = self.fresh().await;
        match operation {
            "POST /auth/logout" => ask.token = Some(own.token),
            "POST /auth/switch" => ask.body = Some(json!({"organization": org})),
            "POST /auth/password" => {
                let (old, new) = (format!("tidewater {}", own.name), format!("lower tide {}", own.name));
                ask.body = Some(json!({"currentPassword": old, "newPassword": new}));
                ask.token = Some(own.token);
            }
            "DELETE /auth/logins/{id}" => {
                let caller = self.world.services.logins.authenticate(&own.token, None).await.unwrap();
                ask.fill("{id}", &caller.credential().login().unwrap().to_string());
                ask.token = Some(own.token);
            }
            "DELETE /auth/tokens/{id}" => {
                let caller = self.world.services.logins.authenticate(&own.token, None).await.unwrap();
                let (devices, org) = (&self.world.services.devices, caller.org().unwrap().org_id());
                let codes = devices.create_device_code("walk", None).await.unwrap();
                let (typed, polled) = (codes.user_code.to_string(), codes.device_code.expose());
                devices.approve_device_code(&caller, &typed, org, None).await.unwrap();
                devices.consume_device_code(polled, None).await.unwrap();
                let all = self.world.call("GET", "/api/v1/auth/tokens", &own.token, None).await.body;
                ask.fill("{id}", all["tokens"][0]["id"].as_str().unwrap());
                ask.token = Some(own.token);
            }
            _ => {}
        }
    }

    async fn ask_of_users(&self, operation: &str, ask: &mut Ask) {
        let (method, pattern) = operation.split_once(' ').unwrap();
        let unlimited = json!({"maxSessions": 1_000});
        match pattern {
            "/users" if method == "POST" => ask.body = Some(new_user()),
            "/users/me" if method == "PATCH" => ask.body = Some(json!({"fullName": "Walked"})),
            "/users/{id}" if method != "GET" => {
                let made = self.done("POST", "/api/v1/users", new_user()).await;
                ask.fill("{id}", made["id"].as_str().unwrap());
                ask.body = Some(json!({"fullName": "Walked"}));
            }
            "/groups" => ask.body = (method == "POST").then(new_group),
            "/quotas/check" => ask.body = Some(json!({})),
            _ if pattern.starts_with("/groups/") => {
                let made = self.done("POST", "/api/v1/groups", new_group()).await;
                ask.fill("{id}", made["id"].as_str().unwrap());
                let member = self.of("Colleague").id.clone();
                if pattern.ends_with("/{userId}") {
                    let members = ask.path.replace("/{userId}", "");
                    self.done("POST", &members, json!({"userId": member})).await;
                    ask.fill("{userId}", &member);
                }
                ask.body = match (method, pattern.rsplit('/').next().unwrap()) {
                    ("PUT", _) => Some(unlimited),
                    ("POST", _) => Some(json!({"userId": member})),
                    ("PATCH", "{userId}") => Some(json!({"role": "admin"})),
                    ("PATCH", _) => Some(json!({"displayName": "Walked"})),
                    _ => None,
                };
            }
            _ => {
                ask.fill("{id}", &self.of("Colleague").id);
                ask.body = (method == "PUT").then_some(unlimited);
            }
        }
    }

    /// What is in the catalog is everybody's; a rating that is taken back was given before.
    async fn ask_of_catalog(&self, operation: &str, who: Who, ask: &mut Ask) {
        let [template, plugin, digest] = crate::catalog::stocked(&self.world).await;
        ask.fill("{digest}", &digest);
        let is_plugin = operation.contains("/plugins/");
        ask.fill("{id}", if is_plugin { &plugin } else { &template });
        if operation.ends_with("/rate") {
            ask.body = Some(json!({"rating": 4}));
            if operation.starts_with("DELETE") && who != Who::Nobody {
                self.done_by(self.token(who), "POST", &ask.path, json!({"rating": 4})).await;
            }
        }
    }

    async fn ask_of_applications(&self, operation: &str, ask: &mut Ask) {
        let (method, pattern) = operation.split_once(' ').unwrap();
        let template = applications::template(&self.world.db, "walked").await;
        if pattern == "/applications" && method == "POST" {
            ask.body = Some(json!({"catalogTemplateId": template}));
        }
        if !pattern.starts_with("/applications/{id}") {
            return;
        }
        let group = self.done("POST", "/api/v1/groups", new_group()).await["id"].clone();
        let wanted = json!({"catalogTemplateId": template, "groupIds": [group]});
        let made = self.done("POST", "/api/v1/applications", wanted).await;
        ask.fill("{id}", made["id"].as_str().unwrap());
        ask.fill("{groupId}", group.as_str().unwrap());
        let path = format!("/api/v1/applications/{}", made["id"].as_str().unwrap());
        let installed = async || {
            let seen = self.world.call("GET", &path, &self.of("Owner").token, None).await.body;
            seen["installStatus"] == "installed"
        };
        eventually("it is installed", installed).await;
        let other = if operation == "POST /applications/{id}/groups" {
            self.done("POST", "/api/v1/groups", new_group()).await["id"].clone()
        } else {
            Value::Null
        };
        ask.body = match (method, pattern.rsplit('/').next().unwrap()) {
            ("PUT", "enabled") => Some(json!({"enabled": false})),
            ("PUT", _) => Some(json!({"displayName": "Walked"})),
            ("POST", _) => Some(json!({"groupId": other})),
            ("PATCH", _) => Some(json!({"accessLevel": "view"})),
            _ => None,
        };
    }

    /// A source of the caller or of a colleague, with a pipe and a grant.
    async fn ask_of_sources(&self, operation: &str, who: Who, own: bool, ask: &mut Ask) {
        let handle = unique("source");
        if operation == "POST /sources" {
            ask.body = Some(json!({"handle": handle}));
        }
        if !operation.contains("{handle}") {
            return;
        }
        let theirs = own && !matches!(who, Who::Nobody | Who::Stranger);
        let name = if theirs { format!("{who:?}") } else { "Colleague".to_owned() };
        let owner = self.of(&name);
        let member = format!("{ORG}/members/{}", owner.id);
        if name == "Viewer" {
            self.done("PATCH", &member, json!({"role": "user"})).await;
        }
        self.done_by(&owner.token, "POST", "/api/v1/sources", json!({"handle": handle})).await;
        let path = format!("/api/v1/sources/{handle}");
        self.done_by(&owner.token, "POST", &format!("{path}/pipes"), json!({"name": "room"})).await;
        let right = json!({"everyone": true, "right": "read"});
        let grant = self.done_by(&owner.token, "POST", &format!("{path}/grants"), right).await;
        if name == "Viewer" {
            self.done("PATCH", &member, json!({"role": "viewer"})).await;
        }
        ask.fill("{handle}", &handle);
        // Everyone reads the one and sends to the other.
        let sends = operation == "POST /sources/{handle}/pipes/{name}/messages";
        ask.fill("{name}", if sends { "inbox" } else { "room" });
        ask.fill("{sequence}", "1");
        ask.fill("{grantId}", grant["id"].as_str().unwrap());
        ask.body = match operation {
            "POST /sources/{handle}/pipes" => Some(json!({"name": "hall"})),
            "PATCH /sources/{handle}/pipes/{name}" => Some(json!({"ttlSeconds": 60})),
            "POST /sources/{handle}/grants" => Some(json!({"everyone": true, "right": "write"})),
            "POST /sources/{handle}/pipes/{name}/open" => Some(json!({"use": "read"})),
            "PUT /sources/{handle}/pipes/{name}/place" => {
                Some(json!({"confirmed": 1, "incarnation": "2026-01-01T00:00:00Z"}))
            }
            _ if sends => Some(json!({"payload": "walked"})),
            _ => None,
        };
    }

    async fn ask_of_sessions(&self, operation: &str, who: Who, own: bool, ask: &mut Ask) {
        ask.fill("{path}", "index.html");
        ask.fill("{port}", "8080");
        match operation {
            "POST /sessions" => ask.body = Some(json!({"template": "shell"})),
            "PATCH /sessions/{id}/tags" => ask.body = Some(json!({"tags": ["walked"]})),
            "POST /sessions/{id}/connect" => ask.body = Some(json!({"kind": "terminal", "mode": "view"})),
            "POST /sessions/{id}/extend" => ask.body = Some(json!({"by": "30m"})),
            "POST /sessions/{id}/shares" => ask.body = Some(json!({"username": self.of("Owner").name})),
            "DELETE /sessions/{id}/shares/{shareId}" => {
                let name = format!("{who:?}");
                let owner = if own { self.of(&name) } else { self.of("Colleague") };
                let shares = ask.path.replace("/{shareId}", "");
                let with = json!({"username": self.of("Owner").name});
                let made = self.done_by(&owner.token, "POST", &shares, with).await;
                ask.fill("{shareId}", made["id"].as_str().unwrap());
            }
            "PUT /sessions/{id}/terminal-source" => ask.body = Some(json!({"handle": unique("terminal")})),
            "DELETE /sessions/{id}/terminal-source" => {
                let (id, handle) = (ask.path.split('/').nth(4).unwrap(), unique("terminal"));
                let source = format!(
                    "INSERT INTO sources (id, org_id, created_by, handle, kind, created_at)
                     SELECT id, org_id, user_id, '{handle}', 'pty', now() FROM sessions WHERE id = '{id}'"
                );
                self.world.db.execute(&source).await;
                let recorded = format!(
                    "INSERT INTO terminal_sources (session_id, org_id, source_id, user_id, created_at, lease_until)
                     SELECT id, org_id, id, user_id, now(), 'infinity' FROM sessions WHERE id = '{id}'"
                );
                self.world.db.execute(&recorded).await;
            }
            "GET /agents/tunnels/{id}" => ask.fill("{id}", &"0".repeat(32)),
            _ => ask.fill("{agentId}", "vm-1"),
        }
    }

    async fn ask_of_people(&self, operation: &str, who: Who, ask: &mut Ask) {
        match operation {
            "POST /organizations" => {
                // Owning one changes which organization is one's own: somebody else does it.
                ask.token = (who != Who::Nobody).then_some(self.fresh().await.token);
                ask.body = Some(json!({"name": unique("org"), "displayName": "Walked"}));
            }
            "PATCH /organizations/{id}" => ask.body = Some(json!({"description": "walked"})),
            "POST /organizations/{id}/transfer" | "DELETE /organizations/{id}" => {
                let mut heir = self.of("OrgAdmin").id.clone();
                if who == Who::Owner {
                    // The play goes on in its own organization.
                    let (owner, id, other) = self.another_organization().await;
                    ask.path = ask.path.replace("acme", &id);
                    (ask.token, heir) = (Some(owner.token), other);
                }
                ask.body = Some(json!({"userId": heir}));
            }
            "POST /organizations/{id}/members" => {
                ask.body = Some(json!({"userId": self.of("Colleague").id, "role": "user"}));
            }
            "PATCH /organizations/{id}/members/{userId}" => {
                ask.fill("{userId}", &self.world.somebody("acme", OrgRole::User).await.id);
                ask.body = Some(json!({"role": "viewer"}));
            }
            "DELETE /organizations/{id}/members/{userId}" => {
                ask.fill("{userId}", &self.world.somebody("acme", OrgRole::User).await.id);
            }
            "POST /organizations/{id}/invites" => {
                ask.body = Some(json!({"username": self.fresh().await.name}));
            }
            "POST /organizations/{id}/invites/{inviteId}/revoke" => {
                ask.fill("{inviteId}", &self.invite(&self.fresh().await.name).await);
            }
            "POST /invites/{id}/accept" | "POST /invites/{id}/decline" => {
                let invitee = self.fresh().await;
                ask.fill("{id}", &self.invite(&invitee.name).await);
                ask.token = (who != Who::Nobody).then_some(invitee.token);
            }
            "POST /organizations/{id}/keys" | "POST /orgs/{id}/keys" => {
                ask.body = Some(json!({"label": "walked"}));
            }
            "POST /keys/{id}/revoke" => ask.fill("{id}", &self.key(&self.of("Owner").token).await),
            "POST /keys/{id}/rotate" => {
                // Its maker alone may have the secret.
                let maker = if who == Who::OrgAdmin { "OrgAdmin" } else { "Owner" };
                ask.fill("{id}", &self.key(&self.of(maker).token).await);
            }
            "PUT /organizations/{id}/quota" => ask.body = Some(json!({"maxSessions": 1_000})),
            "PUT /organizations/{id}/session-policy" => {
                ask.body = Some(json!({"idleTimeout": {"maximum": "0"}}));
            }
            _ => {}
        }
    }

    async fn ask_as_platform(&self, operation: &str, ask: &mut Ask) {
        match operation {
            "POST /admin/agents/{agentId}/approve" | "POST /admin/agents/{agentId}/reject" => {
                ask.fill("{agentId}", &self.pending_agent().await);
            }
            "POST /admin/sessions/{id}/terminate" => {
                let mine = json!({"template": "shell"});
                let made = self.done_by(&self.of("User").token, "POST", "/api/v1/sessions", mine).await;
                ask.fill("{id}", made["session"]["id"].as_str().unwrap());
            }
            "POST /admin/agents/{agentId}/rotate-key"
            | "POST /admin/agents/{agentId}/revoke-key"
            | "POST /admin/agents/{agentId}/drain"
            | "PATCH /admin/agents/{agentId}"
            | "DELETE /admin/agents/{agentId}" => {
                let handle = unique("vm");
                new_key_of(&self.world.services, &handle, 1).await;
                ask.fill("{agentId}", &handle);
            }
            "POST /admin/agents/{agentId}/command" => {
                let handle = unique("vm");
                new_key_of(&self.world.services, &handle, 1).await;
                ask.fill("{agentId}", &handle);
                ask.body = Some(json!({"action": "stop_session"}));
            }
            _ if operation.starts_with("POST /admin/quarantine/") => {
                let (handle, stranger) = (unique("vm"), unique("stray"));
                new_key_of(&self.world.services, &handle, 1).await;
                let row = format!(
                    "INSERT INTO quarantined_sessions SELECT id, '{stranger}', 'running', now(), now()
                     FROM agents WHERE agent_id = '{handle}'"
                );
                self.world.db.execute(&row).await;
                ask.fill("{agentId}", &handle);
                ask.fill("{sessionId}", &stranger);
            }
            "GET /admin/commands/{commandId}" => {
                let made = self
                    .done_by(&self.of("User").token, "POST", "/api/v1/sessions", json!({"template": "shell"}))
                    .await;
                ask.fill("{commandId}", made["commandId"].as_str().unwrap());
                self.ended(made["session"]["id"].as_str().unwrap()).await;
            }
            "POST /catalog/repositories" => {
                ask.body = Some(
                    json!({"name": unique("repository"), "url": "https://git.example.org/a", "enabled": false}),
                );
            }
            _ if operation.contains("/catalog/repositories/{id}") => {
                let id = self.world.db.repository(&unique("repository")).await;
                ask.fill("{id}", &id.to_string());
                if operation.starts_with("PATCH") {
                    ask.body = Some(json!({"description": "Walked"}));
                }
            }
            "POST /admin/organizations" => {
                let owner = self.fresh().await.name;
                ask.body = Some(json!({"name": unique("org"), "displayName": "Walked", "owner": owner}));
            }
            "POST /admin/quotas" => {
                ask.body = Some(json!({"username": self.of("Colleague").name, "maxSessions": 1_000}));
            }
            "POST /admin/users" => {
                let mut body = new_user();
                body["organization"] = json!("acme");
                ask.body = Some(body);
            }
            _ if operation.contains("/admin/quotas/{username}") => {
                ask.fill("{username}", &self.of("Colleague").name);
                ask.body = operation.starts_with("PUT").then(|| json!({"maxSessions": 1_000}));
            }
            _ if operation.contains("/admin/users/{id}") => {
                let mine = self.fresh().await;
                ask.fill("{id}", &mine.id);
                ask.body = match operation.split(' ').next().unwrap() {
                    "PATCH" => Some(json!({"fullName": "Walked"})),
                    "POST" => Some(json!({"password": format!("lower tide {}", mine.name)})),
                    _ => None,
                };
            }
            _ if operation.contains("/admin/organizations/{id}") => {
                let (_, id, heir) = self.another_organization().await;
                ask.fill("{id}", &id);
                if operation.starts_with("PUT") {
                    ask.body = Some(json!({"maxSessions": 1_000}));
                    return;
                }
                ask.body = match operation.split(' ').next().unwrap() {
                    "PATCH" => Some(json!({"description": "walked"})),
                    _ => Some(json!({"userId": heir})),
                };
            }
            _ => ask.fill("{agentId}", "vm-1"),
        }
    }

    /// Somebody without a part in the play, who has a login of their own.
    pub(crate) async fn fresh(&self) -> Somebody {
        self.world.somebody("lobby", OrgRole::User).await
    }

    /// An organization that may be changed and ended: its owner, its id and the id of another member.
    async fn another_organization(&self) -> (Somebody, String, String) {
        let (owner, heir) = (self.fresh().await, self.fresh().await.id);
        let body = json!({"name": unique("org"), "displayName": "Walked"});
        let made = self.done_by(&owner.token, "POST", "/api/v1/organizations", body).await;
        let id = made["id"].as_str().unwrap().to_owned();
        let members = format!("/api/v1/organizations/{id}/members");
        self.done_by(&owner.token, "POST", &members, json!({"userId": heir})).await;
        (owner, id, heir)
    }

    async fn pending_agent(&self) -> String {
        let handle = unique("vm");
        let key = [("X-Agent-API-Key", BOOTSTRAP_KEY.to_owned())];
        let body = json!({"agentId": handle, "platform": "vm"}).to_string();
        let made = self.world.raw("POST", "/api/v1/agents/register", &key, body.as_bytes()).await;
        assert_eq!(made.status, 202, "{made:?}");
        handle
    }

    pub(crate) async fn send(&self, operation: &str, who: Who, ask: &Ask) -> Answer {
        let sockets = ["/terminal", "/vnc", "/ports/{port}"];
        let is_socket = sockets.iter().any(|end| operation.ends_with(end));
        let mut headers = if is_socket { upgrade() } else { Vec::new() };
        let token = if who == Who::Nobody { "" } else { ask.token.as_deref().unwrap_or(self.token(who)) };
        if !token.is_empty() {
            headers.push(("Authorization", format!("Bearer {token}")));
        }
        let method = operation.split(' ').next().unwrap();
        let body = ask.body.as_ref().map(Value::to_string).unwrap_or_default();
        self.world.raw(method, &ask.path, &headers, body.as_bytes()).await
    }

    /// Asks once, and says what is wrong with the answer.
    async fn walk(&self, operation: &str, rule: Rule, who: Who, own: bool) -> Option<String> {
        let ask = self.ask(operation, who, own).await;
        let answer = self.send(operation, who, &ask).await;
        let of_session = ask.path.strip_prefix("/api/v1/admin").unwrap_or(&ask.path);
        let of_session = of_session.strip_prefix("/api/v1").unwrap_or(of_session);
        if let Some(id) = ["/sessions/", "/http/"].iter().find_map(|prefix| of_session.strip_prefix(prefix)) {
            self.ended(id.split('/').next().unwrap()).await;
        } else if let Some(id) = answer.body["session"]["id"].as_str() {
            self.ended(id).await;
        }
        let past = PAST_THE_GATE.contains(&(operation, answer.status));
        let seen = match answer.status {
            101 | 200..400 => Expected::LetIn,
            _ if past => Expected::LetIn,
            refused => Expected::Refused(refused),
        };
        let wanted = expected(operation, rule, who, own);
        (seen != wanted).then(|| format!("{operation} as {who:?} (own {own}): {wanted:?}, but {answer:?}"))
    }
}

impl Ask {
    fn fill(&mut self, name: &str, value: &str) {
        self.path = self.path.replace(name, value);
    }
}

fn new_user() -> Value {
    let name = unique("walked");
    let email = format!("{name}@example.com");
    json!({"username": name, "email": email, "fullName": "Walked", "password": format!("tidewater {email}")})
}

pub(crate) fn new_group() -> Value {
    json!({"name": unique("group"), "displayName": "Walked", "type": "team"})
}

pub(crate) fn unique(what: &str) -> String {
    let id = OrgId::new().to_string();
    format!("{what}-{}", &id[id.len() - 12..])
}

/// The documented operations without their prefix.
pub(crate) fn walked() -> Vec<String> {
    let short = |(method, path): (String, String)| {
        format!("{method} {}", path.strip_prefix("/api/v1").unwrap_or(&path))
    };
    operations().into_iter().map(short).collect()
}

/// Somebody whom the matrix lets an operation do.
pub(crate) fn who_may(operation: &str) -> Who {
    let (_, rule) = RULES.iter().find(|(known, _)| *known == operation).unwrap();
    let lets_in = |who: &Who| expected(operation, *rule, *who, true) == Expected::LetIn;
    [Who::OrgAdmin, Who::Owner, Who::Platform].into_iter().find(lets_in).unwrap()
}

#[tokio::test]
async fn an_operator_makes_no_way_into_an_organization_for_themself() {
    let world = World::new().await;
    let (owner, operator, root) = (world.owner("acme").await, world.operator().await, world.admin().await);
    let admin = world.somebody("acme", OrgRole::Admin).await;
    let member = world.somebody("acme", OrgRole::User).await;
    for role in ["org_admin", "maintainer"] {
        let mut body = new_user();
        (body["organization"], body["orgRole"]) = (json!("acme"), json!(role));
        let made = world.call("POST", "/api/v1/admin/users", &operator, Some(body.clone())).await;
        made.refused(403, "E_FORBIDDEN");
        assert_eq!(world.call("POST", "/api/v1/admin/users", &root, Some(body)).await.status, 201);
    }
    for role in ["user", "viewer"] {
        let mut body = new_user();
        (body["organization"], body["orgRole"]) = (json!("acme"), json!(role));
        assert_eq!(world.call("POST", "/api/v1/admin/users", &operator, Some(body)).await.status, 201);
    }
    for (who, allowed) in [(&owner, false), (&admin, false), (&member, true)] {
        let path = format!("/api/v1/admin/users/{}/password", who.id);
        let body = || Some(json!({"password": format!("lower tide {}", unique("x"))}));
        let reset = world.call("POST", &path, &operator, body()).await;
        assert_eq!(reset.status, if allowed { 204 } else { 403 }, "{reset:?}");
        assert_eq!(world.call("POST", &path, &root, body()).await.status, 204);
    }
}

#[tokio::test]
async fn every_operation_answers_five_callers_as_the_matrix_says() {
    let stage = Stage::new().await;
    let rules: BTreeMap<&str, Rule> = RULES.iter().copied().collect();
    let mut wrong = Vec::new();
    for operation in walked() {
        let Some(rule) = rules.get(operation.as_str()).copied() else {
            panic!("{operation} has no rule: say in walk.rs what decides who is let in");
        };
        if matches!(rule, Rule::Open) {
            continue; // Asserted in walls.rs: they let in whoever comes.
        }
        let mut callers: Vec<Who> = FIVE.to_vec();
        let of_nobody = |who: &Who| expected(&operation, rule, *who, true) != Expected::LetIn;
        if callers.iter().all(of_nobody) && !matches!(rule, Rule::Agent) {
            callers.extend([Who::Owner, Who::Platform].into_iter().filter(|who| !of_nobody(who)));
            assert!(callers.len() > FIVE.len(), "{operation}: nobody is let in, so nothing is shown");
        }
        for who in callers {
            let others = matches!(rule, Rule::Session(_) | Rule::Stream(_) | Rule::Source(_))
                && !matches!(who, Who::Nobody | Who::Stranger);
            if others {
                wrong.extend(stage.walk(&operation, rule, who, false).await);
            }
            wrong.extend(stage.walk(&operation, rule, who, others).await);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let documented = walked();
    for (operation, _) in RULES {
        assert!(
            documented.iter().any(|known| known == operation),
            "{operation} is gone: take it off the list"
        );
    }
}
