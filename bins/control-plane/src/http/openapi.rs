//! The OpenAPI document: every handler's own description, put together.

use utoipa::{
    Modify, OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use super::{
    admin, agents, applications, audit, auth, browser, catalog, content, events, groups, homes, invites,
    keys, members, oauth, organizations, pages, plugins, quotas, sessions, sources, tokens, users,
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Tidegate", description = "A control plane for streamed sessions.", version = "1"),
    modifiers(&Credentials),
    security(("bearer" = []), ("apiKey" = [])),
    paths(
        auth::login::login, auth::refresh::refresh, auth::logout::logout, auth::setup_status::setup_status, auth::setup::setup,
        auth::switch::switch, auth::exchange::exchange, auth::providers::providers, browser::sign_in::github, browser::sign_in::github_callback,
        browser::sign_in::oidc, browser::sign_in::oidc_callback, auth::password::password, auth::forgotten::reset_password, auth::forgotten::new_password, auth::logins::logins, auth::logins::revoke_login,
        users::me::me, users::me::update_me, users::permissions::permissions, users::list::list, users::create::create,
        users::one::get, users::one::update, users::one::delete, users::one::sessions,
        admin::users::list::list_users, admin::users::list::get_user, admin::users::create::create_user,
        admin::users::change::update_user, admin::users::change::delete_user, admin::users::change::reset_password,
        plugins::list::list, plugins::list::get, plugins::upload::upload, plugins::change::update, plugins::change::uninstall,
        plugins::change::enable, plugins::change::disable, plugins::upload::upgrade, plugins::change::roll_back, plugins::install::install,
        plugins::list::secret, plugins::icon::icon, plugins::deliveries::deliveries, plugins::deliveries::redeliver, plugins::ask::ask,
        tokens::list::list, tokens::revoke::revoke, oauth::code::code, oauth::token::token,
        organizations::create::create, organizations::list::list, organizations::get::get,
        organizations::update::update, organizations::delete::delete, organizations::transfer::transfer,
        members::list::list, members::add::add, members::set_role::set_role, members::remove::remove,
        invites::create::create, invites::list::list, invites::revoke::revoke, invites::mine::mine,
        invites::answer::accept, invites::answer::decline,
        admin::organizations::list::list_organizations, admin::organizations::list::get_organization,
        admin::organizations::create::create_organization, admin::organizations::change::update_organization,
        admin::organizations::change::delete_organization, admin::organizations::change::transfer_organization,
    audit::list::list, audit::list::list_all, audit::export::export, audit::export::export_all, groups::create::create, groups::list::list, groups::get::get, groups::update::update, groups::delete::delete, groups::members::list_members, groups::members::add_member, groups::members::set_member_role, groups::members::remove_member, groups::of_user::of_user, quotas::of_user::get, quotas::of_user::set, quotas::of_user::reset, quotas::of_group::get, quotas::of_group::set, quotas::of_group::reset, quotas::of_organization::get, quotas::of_organization::set, quotas::of_organization::reset, quotas::check::check, quotas::usage::usage, admin::quotas::list_quotas, admin::quotas::set_named_quota, admin::quotas::get_quota, admin::quotas::set_quota, admin::quotas::reset_quota, admin::quotas::get_ceiling, admin::quotas::set_ceiling, admin::quotas::reset_ceiling,
        keys::list::list, keys::create::create, keys::revoke::revoke, keys::rotate::rotate,
        keys::alias::list_alias, keys::alias::create_alias,
        sessions::create::create, sessions::list::list, sessions::get::get, sessions::terminate::terminate_it,
        sessions::terminate::terminate, sessions::hibernate::hibernate, sessions::wake::wake,
        sessions::tags::set_tags, sessions::history::history, sessions::logs::logs, sessions::connect::connect,
        sessions::disconnect::disconnect, sessions::activity::activity, sessions::activity::heartbeat, sessions::limits::policy, sessions::limits::extend,
        sessions::shares::create_share, sessions::shares::list_shares, sessions::shares::revoke_share,
        sessions::terminal_source::record, sessions::terminal_source::unrecord,
        organizations::session_policy::get_session_policy, organizations::session_policy::set_session_policy,
        sessions::terminal::terminal, sessions::vnc::vnc, sessions::port::port, content::proxy::by_path, events::stream::stream, events::ticket::ticket,
        homes::list::list, homes::delete::delete,
        catalog::templates::templates, catalog::templates::template, catalog::template_ratings::template_ratings,
        catalog::template_ratings::rate_template, catalog::template_ratings::unrate_template, catalog::icons::icon,
        catalog::plugins::plugins, catalog::plugins::plugin, catalog::plugins::versions, catalog::plugins::stats,
        catalog::plugin_ratings::plugin_ratings, catalog::plugin_ratings::rate_plugin, catalog::plugin_ratings::unrate_plugin,
        applications::list::list, applications::list::list_user, applications::install::install, applications::get::get,
        applications::update::update, applications::update::set_enabled, applications::remove::remove, applications::icon::icon,
        applications::groups::list_groups, applications::groups::add_group, applications::groups::get_group,
        applications::groups::set_group, applications::groups::remove_group,
        sources::list::list, sources::create::create, sources::get::get, sources::delete::delete,
        sources::pipes::list_pipes, sources::pipes::create_pipe, sources::pipes::update_pipe, sources::pipes::delete_pipe,
        sources::messages::send, sources::messages::read, sources::end::end, sources::open::open, sources::place::confirm,
        sources::receipts::receipts,
        sources::subscriptions::subscriptions, sources::subscriptions::seen,
        sources::grants::list_grants, sources::grants::grant, sources::grants::revoke_grant,
        agents::register::register, agents::heartbeat::heartbeat, agents::connect::connect, agents::tunnel::tunnel,
        admin::list::list, admin::get::get, admin::decide::approve, admin::decide::reject,
        admin::rotate_key::rotate_key, admin::rotate_key::revoke_key, admin::change::update, admin::change::remove,
        admin::sessions::list_sessions, admin::sessions::terminate_session, admin::drain::drain, admin::drain::undrain, admin::commands::commands,
        admin::command::command, admin::order::order, admin::quarantine::quarantine,
        admin::quarantine::stop, admin::quarantine::forget,
        catalog::repositories::add::list, catalog::repositories::add::add, catalog::repositories::one::get,
        catalog::repositories::one::change, catalog::repositories::one::remove, catalog::repositories::one::problems,
        catalog::repositories::sync::sync, catalog::repositories::sync::webhook,
        pages::health::healthz, pages::health::readyz, pages::metrics::metrics,
    ),
    tags(
        (name = "auth", description = "Logging in and out"),
        (name = "users", description = "People"),
        (name = "organizations", description = "Organizations, named by id or name"),
        (name = "members", description = "Who belongs to an organization"),
        (name = "groups", description = "Groups of members, in a hierarchy"),
        (name = "quotas", description = "What members, groups and organizations may use, and use"),
        (name = "invites", description = "Asking people in"),
        (name = "keys", description = "API keys of an organization, which programs bring as bearer token or in `X-API-Key`"),
        (name = "audit", description = "Who did what, with which credential, from where"),
        (name = "sessions", description = "Sessions of the organization of the request (header `X-Tidegate-Org`)"),
        (name = "applications", description = "Templates of the catalog that the organization installed, and who may use them"),
        (name = "sources", description = "Handles that messages are sent to, their pipes, and who may use them"),
        (name = "events", description = "Changes of sessions, commands and agents as they happen"),
        (name = "agents", description = "What agents call, with their own key"),
        (name = "catalog", description = "Templates and plugins, and the repositories that they come from"),
        (name = "admin", description = "What operators of the platform do"),
        (name = "operations", description = "Probes and figures"),
    ),
)]
struct Document;

struct Credentials;

impl Modify for Credentials {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let own = ApiKey::Header(ApiKeyValue::new("X-API-Key"));
        components.add_security_scheme("apiKey", SecurityScheme::ApiKey(own));
        let key = ApiKey::Header(ApiKeyValue::new(tidegate_protocol::API_KEY_HEADER));
        components.add_security_scheme("agentKey", SecurityScheme::ApiKey(key));
    }
}

/// The OpenAPI document of this server.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}
