//! What an API key needs for each route: one table, asked in one place, whoever proves the caller. A route that is not
//! in it is closed to keys.

use actix_web::{HttpRequest, http::Method};
use tidegate_model::{CredentialId, Scope};
use tidegate_service::Caller;

use super::{Problem, routes::PREFIX};

/// What a route asks of an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// This scope.
    Scope(Scope),
    /// Nothing: whoever holds a key may know whom it stands for.
    AnyKey,
    /// A login; keys are refused.
    Login,
}

const READ: Needs = Needs::Scope(Scope::SessionsRead);
const WRITE: Needs = Needs::Scope(Scope::SessionsWrite);
const STREAMS: Needs = Needs::Scope(Scope::Streams);
const KEYS: Needs = Needs::Scope(Scope::Keys);
const ORG_READ: Needs = Needs::Scope(Scope::OrgRead);
const ORG_WRITE: Needs = Needs::Scope(Scope::OrgWrite);
const PIPES_READ: Needs = Needs::Scope(Scope::PipesRead);
const PIPES_WRITE: Needs = Needs::Scope(Scope::PipesWrite);
const ADMIN: Needs = Needs::Scope(Scope::Admin);

/// Method, path under the prefix, and what a key needs for it.
pub const KEY_NEEDS: &[(&str, &str, Needs)] = &[
    ("POST", "/auth/logout", Needs::Login),
    ("POST", "/auth/switch", Needs::Login),
    ("GET", "/auth/tokens", Needs::Login),
    ("DELETE", "/auth/tokens/{id}", Needs::Login),
    ("POST", "/auth/password", Needs::Login),
    ("GET", "/auth/logins", Needs::Login),
    ("DELETE", "/auth/logins/{id}", Needs::Login),
    ("GET", "/users/me", Needs::AnyKey),
    // Who one is, on the whole platform, is changed by whoever logged in.
    ("PATCH", "/users/me", Needs::Login),
    ("GET", "/users", ORG_READ),
    ("POST", "/users", ORG_WRITE),
    ("GET", "/users/{id}", ORG_READ),
    ("PATCH", "/users/{id}", Needs::Login),
    ("DELETE", "/users/{id}", Needs::Login),
    ("GET", "/users/{id}/sessions", READ),
    ("GET", "/me/permissions", Needs::AnyKey),
    // A key is of one organization: what reaches across them, or ends one, is its owner's to do.
    ("GET", "/organizations", Needs::Login),
    ("POST", "/organizations", Needs::Login),
    ("GET", "/organizations/{id}", ORG_READ),
    ("PATCH", "/organizations/{id}", ORG_WRITE),
    ("DELETE", "/organizations/{id}", Needs::Login),
    ("POST", "/organizations/{id}/transfer", Needs::Login),
    ("GET", "/organizations/{id}/members", ORG_READ),
    ("POST", "/organizations/{id}/members", ORG_WRITE),
    ("PATCH", "/organizations/{id}/members/{userId}", ORG_WRITE),
    ("DELETE", "/organizations/{id}/members/{userId}", ORG_WRITE),
    ("GET", "/organizations/{id}/invites", ORG_READ),
    ("POST", "/organizations/{id}/invites", ORG_WRITE),
    ("POST", "/organizations/{id}/invites/{inviteId}/revoke", ORG_WRITE),
    ("GET", "/users/{id}/groups", ORG_READ),
    ("GET", "/users/{id}/quota", ORG_READ),
    ("PUT", "/users/{id}/quota", ORG_WRITE),
    ("DELETE", "/users/{id}/quota", ORG_WRITE),
    ("GET", "/groups", ORG_READ),
    ("POST", "/groups", ORG_WRITE),
    ("GET", "/groups/{id}", ORG_READ),
    ("PATCH", "/groups/{id}", ORG_WRITE),
    ("DELETE", "/groups/{id}", ORG_WRITE),
    ("GET", "/groups/{id}/members", ORG_READ),
    ("POST", "/groups/{id}/members", ORG_WRITE),
    ("PATCH", "/groups/{id}/members/{userId}", ORG_WRITE),
    ("DELETE", "/groups/{id}/members/{userId}", ORG_WRITE),
    ("GET", "/groups/{id}/quota", ORG_READ),
    ("PUT", "/groups/{id}/quota", ORG_WRITE),
    ("DELETE", "/groups/{id}/quota", ORG_WRITE),
    ("GET", "/organizations/{id}/quota", ORG_READ),
    ("PUT", "/organizations/{id}/quota", ORG_WRITE),
    ("DELETE", "/organizations/{id}/quota", ORG_WRITE),
    ("GET", "/organizations/{id}/usage", ORG_READ),
    ("GET", "/organizations/{id}/session-policy", ORG_READ),
    ("PUT", "/organizations/{id}/session-policy", ORG_WRITE),
    // A program that starts sessions asks first.
    ("POST", "/quotas/check", WRITE),
    ("GET", "/invites", Needs::Login),
    ("POST", "/invites/{id}/accept", Needs::Login),
    ("POST", "/invites/{id}/decline", Needs::Login),
    ("GET", "/organizations/{id}/keys", KEYS),
    ("POST", "/organizations/{id}/keys", KEYS),
    ("GET", "/orgs/{id}/keys", KEYS),
    ("POST", "/orgs/{id}/keys", KEYS),
    ("POST", "/keys/{id}/revoke", KEYS),
    ("POST", "/keys/{id}/rotate", KEYS),
    ("GET", "/audit", ORG_READ),
    ("GET", "/audit/export", ORG_READ),
    // What it shows is what `GET sessions` shows, as it happens; agents' changes need what `GET admin/agents` needs.
    ("GET", "/events", READ),
    ("POST", "/events/ticket", READ),
    ("GET", "/sessions", READ),
    ("POST", "/sessions", WRITE),
    ("GET", "/sessions/{id}", READ),
    ("DELETE", "/sessions/{id}", WRITE),
    ("POST", "/sessions/{id}/terminate", WRITE),
    ("PUT", "/sessions/{id}/hibernate", WRITE),
    ("PUT", "/sessions/{id}/wake", WRITE),
    ("PATCH", "/sessions/{id}/tags", WRITE),
    ("GET", "/sessions/{id}/history", READ),
    ("GET", "/sessions/{id}/logs", STREAMS),
    ("POST", "/sessions/{id}/connect", STREAMS),
    // Whoever opens a stream may close it again.
    ("POST", "/sessions/{id}/disconnect", STREAMS),
    ("GET", "/sessions/{id}/activity", READ),
    // Whoever watches keeps it alive, and need not be able to stop it.
    ("POST", "/sessions/{id}/heartbeat", STREAMS),
    ("GET", "/sessions/{id}/policy", READ),
    ("POST", "/sessions/{id}/extend", WRITE),
    ("GET", "/sessions/{id}/shares", READ),
    ("POST", "/sessions/{id}/shares", WRITE),
    ("DELETE", "/sessions/{id}/shares/{shareId}", WRITE),
    ("GET", "/sessions/{id}/terminal", STREAMS),
    // And `pipes:write`, which is asked for where it is done.
    ("PUT", "/sessions/{id}/terminal-source", STREAMS),
    ("DELETE", "/sessions/{id}/terminal-source", WRITE),
    ("GET", "/sessions/{id}/vnc", STREAMS),
    ("GET", "/sessions/{id}/ports/{port}", STREAMS),
    // Any method: what it does, the session's application knows.
    ("GET", "/http/{id}/{path}", STREAMS),
    ("GET", "/applications", READ),
    ("POST", "/applications", ORG_WRITE),
    ("GET", "/applications/user", READ),
    ("GET", "/applications/{id}", READ),
    ("PUT", "/applications/{id}", ORG_WRITE),
    ("DELETE", "/applications/{id}", ORG_WRITE),
    ("PUT", "/applications/{id}/enabled", ORG_WRITE),
    ("GET", "/applications/{id}/icon", READ),
    ("GET", "/applications/{id}/groups", ORG_READ),
    ("POST", "/applications/{id}/groups", ORG_WRITE),
    ("GET", "/applications/{id}/groups/{groupId}", ORG_READ),
    ("PATCH", "/applications/{id}/groups/{groupId}", ORG_WRITE),
    ("DELETE", "/applications/{id}/groups/{groupId}", ORG_WRITE),
    ("GET", "/sources", PIPES_READ),
    ("POST", "/sources", PIPES_WRITE),
    ("GET", "/sources/{handle}", PIPES_READ),
    ("DELETE", "/sources/{handle}", PIPES_WRITE),
    ("GET", "/sources/{handle}/pipes", PIPES_READ),
    ("POST", "/sources/{handle}/pipes", PIPES_WRITE),
    ("PATCH", "/sources/{handle}/pipes/{name}", PIPES_WRITE),
    ("DELETE", "/sources/{handle}/pipes/{name}", PIPES_WRITE),
    ("GET", "/sources/{handle}/pipes/{name}/messages", PIPES_READ),
    ("POST", "/sources/{handle}/pipes/{name}/messages", PIPES_WRITE),
    ("GET", "/sources/{handle}/pipes/{name}/end", PIPES_READ),
    // To write to it needs more, which is asked where it is known.
    ("POST", "/sources/{handle}/pipes/{name}/open", PIPES_READ),
    ("PUT", "/sources/{handle}/pipes/{name}/place", PIPES_READ),
    ("GET", "/sources/{handle}/pipes/{name}/messages/{sequence}/receipts", PIPES_READ),
    ("GET", "/pipes/subscriptions", PIPES_READ),
    ("GET", "/pipes/members", PIPES_READ),
    ("GET", "/sources/{handle}/grants", PIPES_READ),
    ("POST", "/sources/{handle}/grants", PIPES_WRITE),
    ("DELETE", "/sources/{handle}/grants/{grantId}", PIPES_WRITE),
    ("GET", "/homes", READ),
    ("DELETE", "/homes/{id}", WRITE),
    ("GET", "/catalog/repositories", ADMIN),
    ("POST", "/catalog/repositories", ADMIN),
    ("GET", "/catalog/repositories/{id}", ADMIN),
    ("PATCH", "/catalog/repositories/{id}", ADMIN),
    ("DELETE", "/catalog/repositories/{id}", ADMIN),
    ("GET", "/catalog/repositories/{id}/problems", ADMIN),
    ("POST", "/catalog/repositories/{id}/sync", ADMIN),
    ("GET", "/plugins", ADMIN),
    ("POST", "/plugins", ADMIN),
    ("POST", "/plugins/catalog/{id}/install", ADMIN),
    ("GET", "/plugins/{id}", ADMIN),
    ("PATCH", "/plugins/{id}", ADMIN),
    ("DELETE", "/plugins/{id}", ADMIN),
    ("POST", "/plugins/{id}/enable", ADMIN),
    ("POST", "/plugins/{id}/disable", ADMIN),
    ("POST", "/plugins/{id}/upgrade", ADMIN),
    ("POST", "/plugins/{id}/rollback", ADMIN),
    ("GET", "/plugins/{id}/secret", ADMIN),
    ("GET", "/plugins/{id}/icon", ADMIN),
    ("GET", "/plugins/{id}/deliveries", ADMIN),
    ("POST", "/plugins/{id}/deliveries/{deliveryId}/redeliver", ADMIN),
    // Any method: what it does, the plugin knows. It acts in the organization, and not as the caller.
    ("GET", "/plugins/{name}/api/{path}", ORG_READ),
    // What one thinks of it is a person's to say.
    ("GET", "/catalog/templates", READ),
    ("GET", "/catalog/templates/{id}", READ),
    ("GET", "/catalog/templates/{id}/ratings", READ),
    ("POST", "/catalog/templates/{id}/rate", Needs::Login),
    ("DELETE", "/catalog/templates/{id}/rate", Needs::Login),
    ("GET", "/catalog/icons/{digest}", READ),
    ("GET", "/plugins/catalog", READ),
    ("GET", "/plugins/catalog/{id}", READ),
    ("GET", "/plugins/catalog/{id}/versions", READ),
    ("GET", "/plugins/catalog/{id}/stats", READ),
    ("GET", "/plugins/catalog/{id}/ratings", READ),
    ("POST", "/plugins/catalog/{id}/rate", Needs::Login),
    ("DELETE", "/plugins/catalog/{id}/rate", Needs::Login),
    ("GET", "/admin/agents", ADMIN),
    ("GET", "/admin/agents/{agentId}", ADMIN),
    ("POST", "/admin/agents/{agentId}/approve", ADMIN),
    ("POST", "/admin/agents/{agentId}/reject", ADMIN),
    ("POST", "/admin/agents/{agentId}/rotate-key", ADMIN),
    ("POST", "/admin/agents/{agentId}/revoke-key", ADMIN),
    ("PATCH", "/admin/agents/{agentId}", ADMIN),
    ("DELETE", "/admin/agents/{agentId}", ADMIN),
    ("POST", "/admin/agents/{agentId}/drain", ADMIN),
    ("POST", "/admin/agents/{agentId}/undrain", ADMIN),
    ("POST", "/admin/agents/{agentId}/command", ADMIN),
    ("GET", "/admin/agents/{agentId}/commands", ADMIN),
    ("GET", "/admin/commands/{commandId}", ADMIN),
    ("GET", "/admin/sessions", ADMIN),
    ("POST", "/admin/sessions/{id}/terminate", ADMIN),
    ("GET", "/admin/organizations", ADMIN),
    ("POST", "/admin/organizations", ADMIN),
    ("GET", "/admin/organizations/{id}", ADMIN),
    ("PATCH", "/admin/organizations/{id}", ADMIN),
    ("DELETE", "/admin/organizations/{id}", ADMIN),
    ("POST", "/admin/organizations/{id}/transfer", ADMIN),
    ("GET", "/admin/audit", ADMIN),
    ("GET", "/admin/audit/export", ADMIN),
    ("GET", "/admin/quotas", ADMIN),
    ("POST", "/admin/quotas", ADMIN),
    ("GET", "/admin/quotas/{username}", ADMIN),
    ("PUT", "/admin/quotas/{username}", ADMIN),
    ("DELETE", "/admin/quotas/{username}", ADMIN),
    ("GET", "/admin/organizations/{id}/quota", ADMIN),
    ("PUT", "/admin/organizations/{id}/quota", ADMIN),
    ("DELETE", "/admin/organizations/{id}/quota", ADMIN),
    ("GET", "/admin/users", ADMIN),
    // Whoever makes or changes users may make themselves more than a key is.
    ("POST", "/admin/users", Needs::Login),
    ("GET", "/admin/users/{id}", ADMIN),
    ("PATCH", "/admin/users/{id}", Needs::Login),
    ("DELETE", "/admin/users/{id}", Needs::Login),
    ("POST", "/admin/users/{id}/password", Needs::Login),
    ("GET", "/admin/quarantine", ADMIN),
    ("POST", "/admin/quarantine/{agentId}/{sessionId}/stop", ADMIN),
    ("POST", "/admin/quarantine/{agentId}/{sessionId}/forget", ADMIN),
];

/// What a key needs for a route, by its whole pattern; none for a route that the table does not name.
pub fn needs(method: &str, pattern: &str) -> Option<Needs> {
    let path = pattern.strip_prefix(PREFIX)?.replace(":.*", "");
    let any = path.starts_with("/http/") || path.starts_with("/plugins/{name}/api/");
    let method = if any { "GET" } else { method };
    let entry = KEY_NEEDS.iter().find(|(verb, route, _)| *verb == method && *route == path)?;
    Some(entry.2)
}

/// Refuses an API key whose scopes do not reach the request's route. Logins and the tokens of devices are held to their
/// roles alone.
pub(crate) fn check(request: &HttpRequest, caller: &Caller) -> Result<(), Problem> {
    match caller.credential() {
        CredentialId::Login(_) | CredentialId::Token(_) => return Ok(()),
        CredentialId::ApiKey(_) => {}
    }
    // A route that does not know its own pattern is a mistake, and no way in.
    let Some(pattern) = request.match_pattern() else {
        return Err(Problem::forbidden("this needs a login: an API key does not open it"));
    };
    let method = if request.method() == Method::HEAD { "GET" } else { request.method().as_str() };
    match needs(method, &pattern) {
        Some(Needs::AnyKey) => Ok(()),
        Some(Needs::Scope(scope)) if caller.scopes().allow(scope) => Ok(()),
        Some(Needs::Scope(scope)) => Err(Problem::forbidden(format!(
            "this needs the scope `{scope}`, which the API key does not have or its owner's role does not allow"
        ))),
        Some(Needs::Login) | None => {
            Err(Problem::forbidden("this needs a login: an API key does not open it"))
        }
    }
}
