//! Every route of the server: a table of contents. The order inside a scope matters: the first that fits is taken.

use actix_web::{
    middleware::from_fn,
    web::{self, Data, ServiceConfig, delete, get, patch, post, put},
};

use super::{
    Context, admin, agents, auth,
    gate::{bearer, member, operator},
    pages, sessions, users,
};

/// Where the API lives.
pub(crate) const PREFIX: &str = "/api/v1";

/// Registers everything.
pub fn configure(app: &mut ServiceConfig, context: &Data<Context>) {
    app.app_data(context.clone())
        .route("/", get().to(pages::landing))
        .route("/healthz", get().to(pages::healthz))
        .route("/readyz", get().to(pages::readyz))
        .route("/metrics", get().to(pages::metrics))
        .route("/api/openapi.json", get().to(pages::openapi))
        .route("/api/docs", get().to(pages::docs))
        .service(web::scope(PREFIX).configure(api));
}

fn api(api: &mut ServiceConfig) {
    api.route("/auth/login", post().to(auth::login))
        .route("/auth/refresh", post().to(auth::refresh))
        .route("/auth/setup/status", get().to(auth::setup_status))
        .service(web::resource("/auth/logout").wrap(from_fn(bearer)).route(post().to(auth::logout)))
        .service(web::resource("/users/me").wrap(from_fn(member)).route(get().to(users::me)))
        .route("/agents/register", post().to(agents::register))
        .route("/agents/connect", get().to(agents::connect))
        .route("/agents/tunnels/{id}", get().to(agents::tunnel))
        .route("/agents/{agentId}/heartbeat", post().to(agents::heartbeat))
        // Proves its caller itself: browsers bring a ticket where programs bring a bearer token.
        .route("/sessions/{id}/terminal", get().to(sessions::terminal))
        .service(web::scope("/sessions").wrap(from_fn(member)).configure(of_sessions))
        .service(web::scope("/admin").wrap(from_fn(operator)).configure(of_operators));
}

fn of_sessions(scope: &mut ServiceConfig) {
    scope
        .service(web::resource("").route(get().to(sessions::list)).route(post().to(sessions::create)))
        .service(
            web::resource("/{id}").route(get().to(sessions::get)).route(delete().to(sessions::terminate_it)),
        )
        .route("/{id}/terminate", post().to(sessions::terminate))
        .route("/{id}/hibernate", put().to(sessions::hibernate))
        .route("/{id}/wake", put().to(sessions::wake))
        .route("/{id}/tags", patch().to(sessions::set_tags))
        .route("/{id}/history", get().to(sessions::history))
        .route("/{id}/logs", get().to(sessions::logs))
        .route("/{id}/connect", post().to(sessions::connect));
}

fn of_operators(scope: &mut ServiceConfig) {
    scope
        .route("/agents", get().to(admin::list))
        .route("/agents/{agentId}", get().to(admin::get))
        .route("/agents/{agentId}/approve", post().to(admin::approve))
        .route("/agents/{agentId}/reject", post().to(admin::reject))
        .route("/agents/{agentId}/rotate-key", post().to(admin::rotate_key))
        .route("/agents/{agentId}/drain", post().to(admin::drain))
        .route("/agents/{agentId}/undrain", post().to(admin::undrain))
        .route("/agents/{agentId}/commands", get().to(admin::commands))
        .route("/commands/{commandId}", get().to(admin::command))
        .route("/quarantine", get().to(admin::quarantine));
}
