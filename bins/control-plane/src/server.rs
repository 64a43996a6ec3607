//! The server's life: listen, serve, stop in order. Requests and sockets first, reports after them, the database last.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_web::{App, HttpServer, dev::ServerHandle, middleware::from_fn, web::Data};
use tidegate_hub::Hub;
use tidegate_model::SystemClock;
use tidegate_service::{Broker, Services};
use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Config, Error, activity, clock, database, departure,
    http::{self, Context},
    installations, keep_alive, key_uses, limits, mail, nats, recorder, repositories, retention, tls,
};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 2_048;

/// The program: opens the database, serves until `shutdown`, closes everything in order.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let foundation = database::open(&config).await?;
    let nats = match nats::open(&config, &foundation.services).await {
        Ok(nats) => nats,
        Err(error) => {
            if let Some(postgres) = foundation.postgres {
                // Why it could not begin matters more than how it ended.
                drop(postgres.stop().await);
            }
            return Err(error);
        }
    };
    let broker = foundation.services.broker.clone();
    let served = match Server::start(&config, foundation.services, foundation.clock) {
        Ok(mut handle) => {
            tracing::info!(url = handle.url(), "serving");
            let ended = tokio::select! {
                () = shutdown.cancelled() => Ok(()),
                ended = handle.ended() => ended,
                () = nats::follow(nats.as_ref(), &broker) => Ok(()),
            };
            tracing::info!("stopping");
            ended.and(handle.stop().await)
        }
        Err(error) => Err(error),
    };
    let quiet = match nats {
        Some(nats) => nats.stop().await,
        None => Ok(()),
    };
    if let Some(postgres) = foundation.postgres {
        postgres.stop().await?;
    }
    quiet?;
    tracing::info!("stopped");
    served
}

/// The HTTP server with its hub and its background tasks.
#[derive(Debug)]
pub struct Server;

/// A running server. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Handle {
    address: SocketAddr,
    scheme: &'static str,
    hub: Hub,
    broker: Broker,
    http: ServerHandle,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    serving: Option<JoinHandle<std::io::Result<()>>>,
    hubbing: Option<JoinHandle<Result<(), tidegate_hub::Error>>>,
}

impl Server {
    /// Starts serving `services` as `config` says; port 0 takes any free one. The database is the caller's.
    pub fn start(config: &Config, services: Services, clock: Arc<SystemClock>) -> Result<Handle, Error> {
        let listen = |source| Error::Listen { address: config.listen, source };
        let listener = bind(config.listen).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let tls = config.tls.as_ref().map(tls::server_config).transpose()?;
        let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
        let hub = Hub::new(services.links.clone(), config.hub_options(), Arc::clone(&clock) as _);
        let (db, operators) = (services.db().clone(), services.operators.clone());
        let scheme = if tls.is_some() { "https" } else { "http" };
        let post = mail::post(config, scheme, address)?;
        let mails =
            mail::Sender { mails: services.mails.clone(), post, nudges: services.nudges().subscribe() };
        let (keys, tokens) = (services.keys.clone(), services.bearer_tokens.clone());
        let catalog = services.catalog.clone();
        let (events, until) = (services.events.clone(), shutdown.clone());
        let syncs = services.repositories.clone();
        let plugins = services.plugins.clone();
        let (broker, finishing) = (services.broker.clone(), services.broker.clone());
        let recorder = recorder::Keeper {
            recorder: services.recorder.clone(),
            hub: hub.clone(),
            clock: Arc::clone(services.clock()),
            broken: Arc::default(),
        };
        let (applications, hints) = (services.applications.clone(), services.nudges().subscribe());
        let (session_limits, typed) = (services.limits.clone(), services.activity.clone());
        let period = Duration::from_secs(u64::from(config.service.activity_seconds.max(1)));
        let context = Context::new(config, services, hub.clone(), shutdown.clone(), tasks.clone());
        let context = Data::new(context);
        let factory = move || {
            App::new()
                // Its connections belong to one serving thread: each has a pool of its own.
                .app_data(Data::new(http::Pool::default()))
                .wrap(from_fn(http::envelope))
                .configure(|app| http::configure(app, &context))
        };
        let mut server = HttpServer::new(factory)
            .disable_signals()
            .on_connect(|stream, connection| {
                tls::remember_peer(stream, connection);
                departure::remember(stream, connection);
            })
            .tcp_nodelay(true)
            .backlog(BACKLOG)
            .max_connections(config.limits.connections)
            .client_request_timeout(Duration::from_secs(config.limits.head_seconds))
            .shutdown_timeout(config.limits.shutdown_seconds);
        if let Some(workers) = config.workers {
            server = server.workers(workers.max(1));
        }
        let second = config
            .streams
            .content_listen
            .map(|address| bind(address).map_err(|source| Error::Listen { address, source }));
        let mut server = match &tls {
            Some(tls) => server.listen_rustls_0_23(listener, tls.clone()),
            None => server.listen(listener),
        }
        .map_err(listen)?;
        if let Some(second) = second.transpose()? {
            server = match tls {
                Some(tls) => server.listen_rustls_0_23(second, tls),
                None => server.listen(second),
            }
            .map_err(listen)?;
        }
        let server = server.run();
        let http = server.handle();
        let serving = Some(tokio::spawn(server));
        let (running, stop) = (hub.clone(), shutdown.clone());
        let hubbing = Some(tokio::spawn(async move { running.run(stop).await }));
        tasks.spawn(clock::follow(db, clock, shutdown.clone()));
        tasks.spawn(retention::keep(operators, shutdown.clone()));
        tasks.spawn(installations::keep(applications, hints, shutdown.clone()));
        tasks.spawn(limits::keep(session_limits, shutdown.clone()));
        tasks.spawn(activity::write(hub.clone(), typed, period, shutdown.clone()));
        tasks.spawn(mails.run(shutdown.clone()));
        for _ in 0..repositories::AT_ONE_TIME {
            tasks.spawn(repositories::keep(syncs.clone(), shutdown.clone()));
        }
        tasks.spawn(key_uses::write(keys, tokens, catalog, shutdown.clone()));
        tasks.spawn(async move { events.run(until).await });
        let until = shutdown.clone();
        tasks.spawn(async move { plugins.run(until).await });
        let until = shutdown.clone();
        tasks.spawn(async move { broker.run(until).await });
        tasks.spawn(recorder.run(shutdown.clone()));
        Ok(Handle { address, scheme, hub, broker: finishing, http, shutdown, tasks, serving, hubbing })
    }
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    keep_alive::watch(&listener)?;
    Ok(listener)
}

impl Handle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as a URL.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The live agents.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// How many tasks run beside the requests: those of the server itself, and a few for each stream that is open.
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Waits until it ends by itself, which only a fault makes it do.
    pub async fn ended(&mut self) -> Result<(), Error> {
        tokio::select! {
            ended = join(&mut self.serving) => ended.map_err(|error| Error::Server(error.into()))?
                .map_err(|error| Error::Server(Box::new(error))),
            ended = join(&mut self.hubbing) => ended.map_err(|error| Error::Server(error.into()))?.map_err(Error::Hub),
        }
    }

    /// Stops: no new connection, agents and viewers closed with 1012, requests finished, reports written.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.shutdown.cancel();
        self.tasks.close();
        self.http.stop(true).await;
        let serving = match self.serving.take() {
            Some(serving) => serving.await.map_err(|error| Error::Server(error.into()))?,
            None => Ok(()),
        };
        let hubbing = match self.hubbing.take() {
            Some(hubbing) => hubbing.await.map_err(|error| Error::Server(error.into()))?,
            None => Ok(()),
        };
        self.tasks.wait().await;
        self.broker.finish().await;
        serving.map_err(|error| Error::Server(Box::new(error)))?;
        hubbing.map_err(Error::Hub)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shutdown.cancel();
        // The answer to this is nobody's any more; the message itself is sent at once.
        drop(self.http.stop(false));
    }
}

/// Waits for a task and forgets it; for ever for one that was waited for already.
async fn join<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, tokio::task::JoinError> {
    match task.as_mut() {
        Some(running) => {
            let ended = running.await;
            *task = None;
            ended
        }
        None => std::future::pending().await,
    }
}
