//! Every route of the server: a table of contents. The order inside a scope matters: the first that fits is taken.

use actix_web::{
    guard::fn_guard,
    middleware::from_fn,
    web::{Data, ServiceConfig, delete, get, patch, post, put, resource, scope, to},
};

use super::{
    Context, admin, agents, applications, audit, auth, browser, catalog, content, events,
    gate::{bearer, member, operator, organization},
    groups, homes, invites, keys, members, oauth, organizations, pages, plugins, quotas, sessions, sources,
    tokens, users,
};

/// Where the API lives.
pub(crate) const PREFIX: &str = "/api/v1";

/// Registers everything.
pub fn configure(app: &mut ServiceConfig, context: &Data<Context>) {
    // At a session's own host nothing is the platform's: its routes are asked about everywhere else.
    app.app_data(context.clone())
        .service(scope("").guard(fn_guard(|guard| !content::is_content(guard))).configure(platform))
        .default_service(to(content::elsewhere));
}

fn platform(app: &mut ServiceConfig) {
    app.service(resource("/").route(get().to(pages::landing)))
        .service(resource("/healthz").route(get().to(pages::healthz)))
        .service(resource("/readyz").route(get().to(pages::readyz)))
        .service(resource("/metrics").route(get().to(pages::metrics)))
        .service(resource("/api/openapi.json").route(get().to(pages::openapi)))
        .service(resource("/api/docs").route(get().to(pages::docs)))
        .service(resource("/style.css").route(get().to(browser::style)))
        .service(resource("/login").route(get().to(browser::login_page)).route(post().to(browser::login)))
        .service(
            resource("/password/reset")
                .route(get().to(browser::forgotten::ask_page))
                .route(post().to(browser::forgotten::ask)),
        )
        .service(
            resource("/password/new")
                .route(get().to(browser::forgotten::set_page))
                .route(post().to(browser::forgotten::set)),
        )
        .service(resource("/logout").route(post().to(browser::logout)))
        .service(resource("/theme.css").route(get().to(plugins::theme)))
        .service(resource("/plugins/{name}/{path:.*}").route(get().to(plugins::file)))
        .service(resource("/assets/{name}").route(get().to(browser::asset)))
        .service(resource("/sessions/{id}").route(get().to(browser::session)))
        .service(resource("/sessions/{id}/state").route(get().to(browser::session_state)))
        .service(resource("/sessions/{id}/connect").route(post().to(browser::connect_session)))
        .service(resource("/home").route(get().to(browser::home)))
        .service(resource("/home/tokens/{id}/revoke").route(post().to(browser::revoke)))
        .service(
            resource("/invites/{id}")
                .route(get().to(browser::invite))
                .route(post().to(browser::answer_invite)),
        )
        .service(
            resource("/oauth/device/verify")
                .route(get().to(browser::verify))
                .route(post().to(browser::decide)),
        )
        .service(resource("/oauth/device/code").route(post().to(oauth::code)))
        .service(resource("/oauth/device/token").route(post().to(oauth::token)))
        .service(scope(PREFIX).configure(api));
}

fn api(api: &mut ServiceConfig) {
    api.service(resource("/auth/login").route(post().to(auth::login)))
        .service(resource("/auth/refresh").route(post().to(auth::refresh)))
        .service(resource("/auth/password/reset").route(post().to(auth::reset_password)))
        .service(resource("/auth/password/new").route(post().to(auth::new_password)))
        .service(resource("/auth/setup").route(post().to(auth::setup)))
        .service(resource("/auth/setup/status").route(get().to(auth::setup_status)))
        .service(resource("/auth/providers").route(get().to(auth::providers)))
        .service(resource("/auth/github").route(get().to(browser::sign_in::github)))
        .service(resource("/auth/github/callback").route(get().to(browser::sign_in::github_callback)))
        .service(resource("/auth/oidc/{provider}").route(get().to(browser::sign_in::oidc)))
        .service(resource("/auth/oidc/{provider}/callback").route(get().to(browser::sign_in::oidc_callback)))
        .service(resource("/auth/exchange").route(post().to(auth::exchange)))
        .service(resource("/auth/logout").wrap(from_fn(bearer)).route(post().to(auth::logout)))
        .service(resource("/auth/switch").wrap(from_fn(bearer)).route(post().to(auth::switch)))
        .service(resource("/auth/password").wrap(from_fn(bearer)).route(post().to(auth::password)))
        .service(resource("/auth/logins").wrap(from_fn(bearer)).route(get().to(auth::logins)))
        .service(resource("/auth/logins/{id}").wrap(from_fn(bearer)).route(delete().to(auth::revoke_login)))
        .service(resource("/me/permissions").wrap(from_fn(bearer)).route(get().to(users::permissions)))
        .service(
            resource("/users/me")
                .wrap(from_fn(member))
                .route(get().to(users::me))
                .route(patch().to(users::update_me)),
        )
        .service(
            resource("/users")
                .wrap(from_fn(member))
                .route(get().to(users::list))
                .route(post().to(users::create)),
        )
        .service(
            resource("/users/{id}")
                .wrap(from_fn(bearer))
                .route(get().to(users::get))
                .route(patch().to(users::update))
                .route(delete().to(users::delete)),
        )
        .service(resource("/users/{id}/sessions").wrap(from_fn(member)).route(get().to(users::sessions)))
        .service(resource("/auth/tokens").wrap(from_fn(bearer)).route(get().to(tokens::list)))
        .service(resource("/auth/tokens/{id}").wrap(from_fn(bearer)).route(delete().to(tokens::revoke)))
        .service(resource("/users/{id}/groups").wrap(from_fn(member)).route(get().to(groups::of_user)))
        .service(
            resource("/users/{id}/quota")
                .wrap(from_fn(member))
                .route(get().to(quotas::of_user::get))
                .route(put().to(quotas::of_user::set))
                .route(delete().to(quotas::of_user::reset)),
        )
        .service(resource("/quotas/check").wrap(from_fn(member)).route(post().to(quotas::check)))
        .service(scope("/groups").wrap(from_fn(member)).configure(of_groups))
        .service(
            resource("/orgs/{id}/keys")
                .wrap(from_fn(organization))
                .route(get().to(keys::list_alias))
                .route(post().to(keys::create_alias)),
        )
        .service(resource("/events/ticket").wrap(from_fn(member)).route(post().to(events::ticket)))
        .service(resource("/audit").wrap(from_fn(member)).route(get().to(audit::list)))
        .service(resource("/audit/export").wrap(from_fn(member)).route(get().to(audit::export)))
        .service(resource("/keys/{id}/revoke").wrap(from_fn(member)).route(post().to(keys::revoke)))
        .service(resource("/keys/{id}/rotate").wrap(from_fn(member)).route(post().to(keys::rotate)))
        .service(resource("/agents/register").route(post().to(agents::register)))
        .service(resource("/agents/connect").route(get().to(agents::connect)))
        .service(resource("/agents/tunnels/{id}").route(get().to(agents::tunnel)))
        .service(resource("/agents/{agentId}/heartbeat").route(post().to(agents::heartbeat)))
        // These two prove their caller themselves: browsers bring a ticket where programs bring a bearer token.
        .service(resource("/events").route(get().to(events::stream)))
        .service(resource("/sessions/{id}/terminal").route(get().to(sessions::terminal)))
        .service(resource("/sessions/{id}/vnc").route(get().to(sessions::vnc)))
        .service(resource("/sessions/{id}/ports/{port}").route(get().to(sessions::port)))
        .service(resource("/http/{id}/.tidegate/enter/{same}").route(post().to(content::enter)))
        // Whatever the method: it is the application's to say what it takes.
        .service(
            resource("/http/{id}/{path:.*}")
                .route(get().to(content::by_path))
                .default_service(to(content::by_path)),
        )
        .service(scope("/sessions").wrap(from_fn(member)).configure(of_sessions))
        .service(scope("/applications").wrap(from_fn(member)).configure(of_applications))
        .service(scope("/sources").wrap(from_fn(member)).configure(of_sources))
        .service(
            resource("/pipes/subscriptions").wrap(from_fn(member)).route(get().to(sources::subscriptions)),
        )
        .service(resource("/pipes/members").wrap(from_fn(member)).route(get().to(sources::seen)))
        .service(resource("/homes").wrap(from_fn(member)).route(get().to(homes::list)))
        .service(resource("/homes/{id}").wrap(from_fn(member)).route(delete().to(homes::delete)))
        .service(
            resource("/organizations")
                .wrap(from_fn(bearer))
                .route(get().to(organizations::list))
                .route(post().to(organizations::create)),
        )
        .service(scope("/organizations/{id}").wrap(from_fn(organization)).configure(of_an_organization))
        .service(resource("/invites").wrap(from_fn(bearer)).route(get().to(invites::mine)))
        .service(resource("/invites/{id}/accept").wrap(from_fn(bearer)).route(post().to(invites::accept)))
        .service(resource("/invites/{id}/decline").wrap(from_fn(bearer)).route(post().to(invites::decline)))
        // Proved by its signature: no caller of ours.
        .service(
            resource("/catalog/repositories/{id}/webhook").route(post().to(catalog::repositories::webhook)),
        )
        .service(scope("/catalog/repositories").wrap(from_fn(operator)).configure(of_repositories))
        .service(scope("/catalog").wrap(from_fn(bearer)).configure(of_the_catalog))
        // Whatever the method: it is the plugin's to say what it takes.
        .service(
            resource("/plugins/{name}/api/{path:.*}")
                .wrap(from_fn(member))
                .route(get().to(plugins::ask))
                .default_service(to(plugins::ask)),
        )
        .service(
            resource("/plugins/catalog/{id}/install")
                .wrap(from_fn(operator))
                .route(post().to(plugins::install)),
        )
        .service(scope("/plugins/catalog").wrap(from_fn(bearer)).configure(of_catalog_plugins))
        .service(scope("/plugins").wrap(from_fn(operator)).configure(of_plugins))
        .service(scope("/admin").wrap(from_fn(operator)).configure(of_operators));
}

fn of_groups(inside: &mut ServiceConfig) {
    inside
        .service(resource("").route(get().to(groups::list)).route(post().to(groups::create)))
        .service(
            resource("/{id}")
                .route(get().to(groups::get))
                .route(patch().to(groups::update))
                .route(delete().to(groups::delete)),
        )
        .service(
            resource("/{id}/members")
                .route(get().to(groups::list_members))
                .route(post().to(groups::add_member)),
        )
        .service(
            resource("/{id}/members/{userId}")
                .route(patch().to(groups::set_member_role))
                .route(delete().to(groups::remove_member)),
        )
        .service(
            resource("/{id}/quota")
                .route(get().to(quotas::of_group::get))
                .route(put().to(quotas::of_group::set))
                .route(delete().to(quotas::of_group::reset)),
        );
}

fn of_the_catalog(inside: &mut ServiceConfig) {
    inside
        .service(resource("/templates").route(get().to(catalog::templates)))
        .service(resource("/templates/{id}").route(get().to(catalog::template)))
        .service(resource("/templates/{id}/ratings").route(get().to(catalog::template_ratings)))
        .service(
            resource("/templates/{id}/rate")
                .route(post().to(catalog::rate_template))
                .route(delete().to(catalog::unrate_template)),
        )
        .service(resource("/icons/{digest}").route(get().to(catalog::icon)));
}

fn of_catalog_plugins(inside: &mut ServiceConfig) {
    inside
        .service(resource("").route(get().to(catalog::plugins)))
        .service(resource("/{id}").route(get().to(catalog::plugin)))
        .service(resource("/{id}/versions").route(get().to(catalog::versions)))
        .service(resource("/{id}/stats").route(get().to(catalog::stats)))
        .service(resource("/{id}/ratings").route(get().to(catalog::plugin_ratings)))
        .service(
            resource("/{id}/rate")
                .route(post().to(catalog::rate_plugin))
                .route(delete().to(catalog::unrate_plugin)),
        );
}

fn of_sessions(inside: &mut ServiceConfig) {
    inside
        .service(resource("").route(get().to(sessions::list)).route(post().to(sessions::create)))
        .service(resource("/{id}").route(get().to(sessions::get)).route(delete().to(sessions::terminate_it)))
        .service(resource("/{id}/terminate").route(post().to(sessions::terminate)))
        .service(resource("/{id}/hibernate").route(put().to(sessions::hibernate)))
        .service(resource("/{id}/wake").route(put().to(sessions::wake)))
        .service(resource("/{id}/tags").route(patch().to(sessions::set_tags)))
        .service(
            resource("/{id}/terminal-source")
                .route(put().to(sessions::record))
                .route(delete().to(sessions::unrecord)),
        )
        .service(resource("/{id}/history").route(get().to(sessions::history)))
        .service(resource("/{id}/logs").route(get().to(sessions::logs)))
        .service(resource("/{id}/connect").route(post().to(sessions::connect)))
        .service(resource("/{id}/disconnect").route(post().to(sessions::disconnect)))
        .service(resource("/{id}/activity").route(get().to(sessions::activity)))
        .service(resource("/{id}/heartbeat").route(post().to(sessions::heartbeat)))
        .service(resource("/{id}/policy").route(get().to(sessions::policy)))
        .service(resource("/{id}/extend").route(post().to(sessions::extend)))
        .service(
            resource("/{id}/shares")
                .route(get().to(sessions::list_shares))
                .route(post().to(sessions::create_share)),
        )
        .service(resource("/{id}/shares/{shareId}").route(delete().to(sessions::revoke_share)));
}

fn of_applications(inside: &mut ServiceConfig) {
    inside
        .service(resource("").route(get().to(applications::list)).route(post().to(applications::install)))
        .service(resource("/user").route(get().to(applications::list_user)))
        .service(
            resource("/{id}")
                .route(get().to(applications::get))
                .route(put().to(applications::update))
                .route(delete().to(applications::remove)),
        )
        .service(resource("/{id}/enabled").route(put().to(applications::set_enabled)))
        .service(resource("/{id}/icon").route(get().to(applications::icon)))
        .service(
            resource("/{id}/groups")
                .route(get().to(applications::list_groups))
                .route(post().to(applications::add_group)),
        )
        .service(
            resource("/{id}/groups/{groupId}")
                .route(get().to(applications::get_group))
                .route(patch().to(applications::set_group))
                .route(delete().to(applications::remove_group)),
        );
}

fn of_sources(inside: &mut ServiceConfig) {
    inside
        .service(resource("").route(get().to(sources::list)).route(post().to(sources::create)))
        .service(resource("/{handle}").route(get().to(sources::get)).route(delete().to(sources::delete)))
        .service(
            resource("/{handle}/pipes")
                .route(get().to(sources::list_pipes))
                .route(post().to(sources::create_pipe)),
        )
        .service(
            resource("/{handle}/pipes/{name}")
                .route(patch().to(sources::update_pipe))
                .route(delete().to(sources::delete_pipe)),
        )
        .service(
            resource("/{handle}/pipes/{name}/messages")
                .route(get().to(sources::read))
                .route(post().to(sources::send)),
        )
        .service(resource("/{handle}/pipes/{name}/end").route(get().to(sources::end)))
        .service(resource("/{handle}/pipes/{name}/open").route(post().to(sources::open)))
        .service(
            resource("/{handle}/pipes/{name}/messages/{sequence}/receipts")
                .route(get().to(sources::receipts)),
        )
        .service(
            resource("/{handle}/grants")
                .route(get().to(sources::list_grants))
                .route(post().to(sources::grant)),
        )
        .service(resource("/{handle}/grants/{grantId}").route(delete().to(sources::revoke_grant)));
}

fn of_an_organization(inside: &mut ServiceConfig) {
    inside
        .service(
            resource("")
                .route(get().to(organizations::get))
                .route(patch().to(organizations::update))
                .route(delete().to(organizations::delete)),
        )
        .service(resource("/transfer").route(post().to(organizations::transfer)))
        .service(resource("/members").route(get().to(members::list)).route(post().to(members::add)))
        .service(
            resource("/members/{userId}")
                .route(patch().to(members::set_role))
                .route(delete().to(members::remove)),
        )
        .service(resource("/keys").route(get().to(keys::list)).route(post().to(keys::create)))
        .service(resource("/usage").route(get().to(quotas::usage)))
        .service(
            resource("/quota")
                .route(get().to(quotas::of_organization::get))
                .route(put().to(quotas::of_organization::set))
                .route(delete().to(quotas::of_organization::reset)),
        )
        .service(
            resource("/session-policy")
                .route(get().to(organizations::get_session_policy))
                .route(put().to(organizations::set_session_policy)),
        )
        .service(resource("/invites").route(get().to(invites::list)).route(post().to(invites::create)))
        .service(resource("/invites/{inviteId}/revoke").route(post().to(invites::revoke)));
}

fn of_repositories(inside: &mut ServiceConfig) {
    inside
        .service(
            resource("")
                .route(get().to(catalog::repositories::list))
                .route(post().to(catalog::repositories::add)),
        )
        .service(
            resource("/{id}")
                .route(get().to(catalog::repositories::get))
                .route(patch().to(catalog::repositories::change))
                .route(delete().to(catalog::repositories::remove)),
        )
        .service(resource("/{id}/problems").route(get().to(catalog::repositories::problems)))
        .service(resource("/{id}/sync").route(post().to(catalog::repositories::sync)));
}

fn of_plugins(inside: &mut ServiceConfig) {
    inside
        .service(resource("").route(get().to(plugins::list)).route(post().to(plugins::upload)))
        .service(
            resource("/{id}")
                .route(get().to(plugins::get))
                .route(patch().to(plugins::update))
                .route(delete().to(plugins::uninstall)),
        )
        .service(resource("/{id}/enable").route(post().to(plugins::enable)))
        .service(resource("/{id}/disable").route(post().to(plugins::disable)))
        .service(resource("/{id}/upgrade").route(post().to(plugins::upgrade)))
        .service(resource("/{id}/rollback").route(post().to(plugins::roll_back)))
        .service(resource("/{id}/secret").route(get().to(plugins::secret)))
        .service(resource("/{id}/icon").route(get().to(plugins::icon)))
        .service(resource("/{id}/deliveries").route(get().to(plugins::deliveries)))
        .service(resource("/{id}/deliveries/{deliveryId}/redeliver").route(post().to(plugins::redeliver)));
}

fn of_operators(inside: &mut ServiceConfig) {
    inside
        .service(resource("/agents").route(get().to(admin::list)))
        .service(
            resource("/agents/{agentId}")
                .route(get().to(admin::get))
                .route(patch().to(admin::update))
                .route(delete().to(admin::remove)),
        )
        .service(resource("/agents/{agentId}/approve").route(post().to(admin::approve)))
        .service(resource("/agents/{agentId}/reject").route(post().to(admin::reject)))
        .service(resource("/agents/{agentId}/rotate-key").route(post().to(admin::rotate_key)))
        .service(resource("/agents/{agentId}/revoke-key").route(post().to(admin::revoke_key)))
        .service(resource("/agents/{agentId}/drain").route(post().to(admin::drain)))
        .service(resource("/agents/{agentId}/undrain").route(post().to(admin::undrain)))
        .service(resource("/agents/{agentId}/command").route(post().to(admin::order)))
        .service(resource("/agents/{agentId}/commands").route(get().to(admin::commands)))
        .service(resource("/commands/{commandId}").route(get().to(admin::command)))
        .service(resource("/sessions").route(get().to(admin::list_sessions)))
        .service(resource("/sessions/{id}/terminate").route(post().to(admin::terminate_session)))
        .service(
            resource("/organizations")
                .route(get().to(admin::organizations::list_organizations))
                .route(post().to(admin::organizations::create_organization)),
        )
        .service(
            resource("/organizations/{id}")
                .route(get().to(admin::organizations::get_organization))
                .route(patch().to(admin::organizations::update_organization))
                .route(delete().to(admin::organizations::delete_organization)),
        )
        .service(
            resource("/organizations/{id}/transfer")
                .route(post().to(admin::organizations::transfer_organization)),
        )
        .service(resource("/audit").route(get().to(audit::list_all)))
        .service(resource("/audit/export").route(get().to(audit::export_all)))
        .service(
            resource("/organizations/{id}/quota")
                .route(get().to(admin::quotas::get_ceiling))
                .route(put().to(admin::quotas::set_ceiling))
                .route(delete().to(admin::quotas::reset_ceiling)),
        )
        .service(
            resource("/quotas")
                .route(get().to(admin::quotas::list_quotas))
                .route(post().to(admin::quotas::set_named_quota)),
        )
        .service(
            resource("/quotas/{username}")
                .route(get().to(admin::quotas::get_quota))
                .route(put().to(admin::quotas::set_quota))
                .route(delete().to(admin::quotas::reset_quota)),
        )
        .service(
            resource("/users")
                .route(get().to(admin::users::list_users))
                .route(post().to(admin::users::create_user)),
        )
        .service(
            resource("/users/{id}")
                .route(get().to(admin::users::get_user))
                .route(patch().to(admin::users::update_user))
                .route(delete().to(admin::users::delete_user)),
        )
        .service(resource("/users/{id}/password").route(post().to(admin::users::reset_password)))
        .service(resource("/quarantine").route(get().to(admin::quarantine)))
        .service(resource("/quarantine/{agentId}/{sessionId}/stop").route(post().to(admin::stop)))
        .service(resource("/quarantine/{agentId}/{sessionId}/forget").route(post().to(admin::forget)));
}
