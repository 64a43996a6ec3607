//! Where everything is measured: a temporary folder with a private PostgreSQL, the control plane as a process of its
//! own, and the use cases at hand for what no measurement is about (people, approvals).

use std::{
    fs::{self, Permissions},
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use tempfile::TempDir;
use tidegate_broker::Authority;
use tidegate_engines::{
    nats::{Durability, Nats, Options as NatsOptions, Trust},
    postgres::{APP, MIGRATOR, Options as EngineOptions, Postgres},
    secrets,
};
use tidegate_model::{AgentStatus, ApprovalStatus, LoginRequest, OrgRole, Secret, SystemClock, SystemRole};
use tidegate_service::{
    Db, DbOptions, Decision, FetchOptions, NewLocalUser, Operator, Options, RepositoryOptions, Services,
    migrate, roles,
};
use tokio::time::{Instant, sleep};

use crate::{
    args::{Args, Part},
    http,
    process::{self, Process},
    sync::COUNTED,
};

/// The database's name.
pub(crate) const DATABASE: &str = "tidegate";
/// The region of the simulated agents, so that a request can ask for one of them.
pub(crate) const SIMULATED: &str = "simulated";
/// The region of the simulated agent whose tunnel is fed from memory.
pub(crate) const FED: &str = "fed";
/// The region of the real agent.
pub(crate) const REAL: &str = "real";

/// Everything that was started.
pub(crate) struct Stage {
    pub(crate) postgres: Postgres,
    pub(crate) services: Services,
    pub(crate) address: SocketAddr,
    pub(crate) bootstrap_key: Secret<String>,
    authority: Authority,
    nats: Option<Nats>,
    server: Option<Process>,
    agent: Option<Process>,
    app_url: String,
    programs: PathBuf,
    folder: TempDir,
    keep: bool,
}

impl Stage {
    /// Makes the folder, starts PostgreSQL as it would run in production, and the control plane on it.
    pub(crate) async fn start(args: &Args) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("tg-bench-")
            // The database's user and the sessions' users pass through it when this runs as root.
            .permissions(Permissions::from_mode(0o711))
            .tempdir_in(&args.folder)
            .context("the temporary folder")?;
        let programs = match &args.programs {
            Some(programs) => std::path::absolute(programs)?,
            None => std::env::current_exe()?.parent().context("this program has no folder")?.to_owned(),
        };
        let mut options = EngineOptions::new(folder.path().join("data"), folder.path().join("run"));
        options.max_connections = 200;
        options.login_roles.push(COUNTED.to_owned());
        let postgres = Postgres::start(options).await?;
        let app_url = prepare(&postgres).await?;
        let key = secrets::master_key(&folder.path().join("master.key"))?;
        let bootstrap_key = secrets::password(&folder.path().join("bootstrap.key"))?.expose().to_owned();
        let services =
            services(&app_url, &Secret::new(*key.expose()), &bootstrap_key, RepositoryOptions::default())?;
        let mut stage = Self {
            postgres,
            services,
            address: free_address()?,
            bootstrap_key: Secret::new(bootstrap_key),
            authority: Authority::generate(),
            nats: None,
            server: None,
            agent: None,
            app_url,
            programs,
            folder,
            keep: args.keep,
        };
        if args.wants(Part::Pipes) {
            stage.services.broker.adopt(stage.authority.clone()).await?;
            stage.start_nats(Durability::Full).await?;
        }
        stage.restart().await?;
        Ok(stage)
    }

    /// Starts nats-server, after the end of the one that runs, on what that one stored.
    pub(crate) async fn start_nats(&mut self, durability: Durability) -> anyhow::Result<()> {
        if let Some(nats) = self.nats.take() {
            nats.stop().await?;
        }
        let trust = self.services.broker.trust().await?;
        let trust = Trust {
            operator: trust.operator,
            system_account: trust.system_account,
            system_token: trust.system_token,
        };
        let mut options = NatsOptions::new(self.folder.path().join("data"), trust);
        options.durability = durability;
        self.nats = Some(Nats::start(options).await?);
        Ok(())
    }

    /// Where nats-server listens.
    pub(crate) fn nats_url(&self) -> anyhow::Result<String> {
        Ok(self.nats.as_ref().context("nats-server does not run")?.url())
    }

    /// Whom nats-server trusts.
    pub(crate) const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The resident memory of nats-server in KiB.
    pub(crate) fn nats_memory(&self) -> anyhow::Result<u64> {
        let pid = self.nats.as_ref().and_then(Nats::pid).context("nats-server does not run")?;
        process::resident(pid)
    }

    /// Starts the control plane, after the end of the one that runs.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<()> {
        if let Some(server) = self.server.take() {
            server.stop().await?;
        }
        let log = self.folder.path().join("control-plane.log");
        let (listen, key_file) = (self.address.to_string(), self.folder.path().join("master.key"));
        let (url, bootstrap) = (self.app_url.clone(), self.bootstrap_key.expose().clone());
        let nats = self.nats.as_ref().map(Nats::url);
        let mut server = Process::start(&self.programs.join("tidegate-control-plane"), log, |command| {
            command
                .env("TIDEGATE__LISTEN", listen)
                .env("TIDEGATE__DATABASE__URL", url)
                .env("TIDEGATE__SECRETS__MASTER_KEY_FILE", key_file)
                .env("TIDEGATE__SERVICE__AGENT_BOOTSTRAP_KEY", bootstrap);
            match nats {
                Some(nats) => command.env("TIDEGATE__NATS__URL", nats),
                None => command.env("TIDEGATE__NATS__ENABLED", "false"),
            };
            // One user of each organization starts thousands of sessions.
            for bound in ["SESSIONS", "CPU", "MEMORY", "STORAGE"] {
                command.env(format!("TIDEGATE__SERVICE__DEFAULT_QUOTA__MAX_{bound}"), "unlimited");
            }
        })?;
        let until = Instant::now() + Duration::from_secs(30);
        let probe = http::request("GET", "/readyz", None, "");
        loop {
            server.check()?;
            if let Ok(mut connection) = http::Connection::open(self.address).await
                && connection.send(&probe).await.is_ok_and(|answer| answer.status == 200)
            {
                break;
            }
            anyhow::ensure!(Instant::now() < until, "the control plane is not ready after 30 s");
            sleep(Duration::from_millis(50)).await;
        }
        self.server = Some(server);
        Ok(())
    }

    /// The control plane's resident memory in KiB.
    pub(crate) fn server_memory(&self) -> anyhow::Result<u64> {
        self.server.as_ref().context("the control plane does not run")?.resident()
    }

    /// The real agent's resident memory in KiB.
    pub(crate) fn agent_memory(&self) -> anyhow::Result<u64> {
        self.agent.as_ref().context("the agent does not run")?.resident()
    }

    /// The temporary folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A copy of this program where sessions can start it: they are users of their own.
    pub(crate) fn own_program(&self) -> anyhow::Result<PathBuf> {
        let copy = self.folder.path().join("served");
        if !copy.exists() {
            fs::copy(std::env::current_exe()?, &copy).context("a copy of this program for sessions")?;
        }
        Ok(copy)
    }

    /// Starts a real agent and lets it in.
    pub(crate) async fn start_agent(&mut self) -> anyhow::Result<()> {
        let (data, run) = (self.folder.path().join("agent"), self.folder.path().join("a"));
        let (url, key) = (format!("http://{}", self.address), self.folder.path().join("bootstrap.key"));
        let log = self.folder.path().join("agent.log");
        let mut agent = Process::start(&self.programs.join("tidegate-agent"), log, |command| {
            command.args(["--server", &url, "--agent-id", "real-agent", "--region", REAL]);
            command
                .args([
                    "--max-sessions",
                    "100",
                    "--cpu",
                    "100",
                    "--memory",
                    "100Gi",
                    "--stop-sessions-on-exit",
                    "--bootstrap-key-file",
                ])
                .arg(key);
            command.arg("--data-dir").arg(data).arg("--runtime-dir").arg(run);
        })?;
        let handle = "real-agent".parse().map_err(anyhow::Error::msg)?;
        let (operator, agents) = (Operator::console(), &self.services.agents);
        let until = Instant::now() + Duration::from_mins(1);
        loop {
            agent.check()?;
            anyhow::ensure!(Instant::now() < until, "the agent did not connect within a minute");
            // It may have been let in by an earlier start of this run.
            let row = agents.get(&operator, &handle).await.ok();
            match row.map(|row| (row.approval_status, row.status)) {
                Some((ApprovalStatus::Approved, AgentStatus::Online)) => break,
                Some((ApprovalStatus::Approved, _)) | None => {}
                Some(_) => drop(agents.decide(&operator, &handle, Decision::Approve, false).await?),
            }
            sleep(Duration::from_millis(50)).await;
        }
        self.agent = Some(agent);
        Ok(())
    }

    /// Stops the real agent, its sessions first.
    pub(crate) async fn stop_agent(&mut self) -> anyhow::Result<()> {
        match self.agent.take() {
            Some(agent) => agent.stop().await,
            None => Ok(()),
        }
    }

    /// Makes organizations with one user each, and logs these in. Returns their tokens.
    pub(crate) async fn people(&self, count: u32) -> anyhow::Result<Vec<String>> {
        let (operator, mut tokens) = (Operator::console(), Vec::new());
        let bar = crate::progress::bar("organizations", u64::from(count));
        for number in 0..count {
            let (org, user) = (format!("org-{number:04}"), format!("user-{number:04}"));
            let password = Secret::new(format!("tidewater gate {number:04}"));
            self.services.operators.create_organization(&operator, &org).await?;
            let new = NewLocalUser {
                username: user.clone(),
                email: None,
                full_name: user.clone(),
                password: password.clone(),
                role: SystemRole::User,
            };
            self.services.operators.create_user(&operator, new, &org, OrgRole::Admin).await?;
            let login = LoginRequest { username: user, password };
            tokens.push(self.services.logins.login(login, None).await?.token);
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(tokens)
    }

    /// The token of an admin of the platform.
    pub(crate) async fn admin(&self) -> anyhow::Result<String> {
        let (operator, password) = (Operator::console(), Secret::new("tidewater gate of admins".to_owned()));
        self.services.operators.create_organization(&operator, "admins").await?;
        let new = NewLocalUser {
            username: "root-admin".into(),
            email: None,
            full_name: "Admin".into(),
            password: password.clone(),
            role: SystemRole::Admin,
        };
        self.services.operators.create_user(&operator, new, "admins", OrgRole::Admin).await?;
        let login = LoginRequest { username: "root-admin".into(), password };
        Ok(self.services.logins.login(login, None).await?.token)
    }

    /// Rows of a query as the superuser, a line each.
    pub(crate) async fn sql(&self, sql: &str) -> anyhow::Result<String> {
        Ok(self.postgres.superuser_query(DATABASE, sql).await?)
    }

    /// Rows of a query that gives one row of numbers.
    pub(crate) async fn numbers(&self, sql: &str) -> anyhow::Result<Vec<f64>> {
        let row = self.sql(sql).await?;
        row.trim()
            .split('|')
            .map(|number| number.parse().with_context(|| format!("`{row}` is no number")))
            .collect()
    }

    /// What a figure of `/metrics` stands at, over all its labels.
    pub(crate) async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let mut connection = http::Connection::open(self.address).await?;
        let answer = connection.send(&http::request("GET", "/metrics", None, "")).await?;
        let text = String::from_utf8_lossy(answer.body);
        let of_name = |line: &&str| line.split(['{', ' ']).next() == Some(name);
        let values =
            text.lines().filter(of_name).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Ok(values.sum())
    }

    /// The use cases once more, over a login of one's own, with git repositories of this machine in `folder`.
    pub(crate) fn services_for_syncs(&self, url: &str, folder: &Path) -> anyhow::Result<Services> {
        let key = secrets::master_key(&self.folder.path().join("master.key"))?;
        let fetch = FetchOptions { local_folders: vec![folder.to_owned()], ..FetchOptions::default() };
        let cache_dir = Some(folder.join("cache"));
        let repositories = RepositoryOptions { fetch, cache_dir, ..RepositoryOptions::default() };
        services(url, &Secret::new(*key.expose()), self.bootstrap_key.expose(), repositories)
    }

    /// Stops everything in order and removes the folder, unless it is to be kept.
    pub(crate) async fn close(mut self, failed: bool) -> anyhow::Result<()> {
        let agent = self.stop_agent().await;
        let server = match self.server.take() {
            Some(server) => server.stop().await,
            None => Ok(()),
        };
        let nats = match self.nats.take() {
            Some(nats) => nats.stop().await,
            None => Ok(()),
        };
        let postgres = self.postgres.stop().await;
        if self.keep || failed {
            let kept = self.folder.keep();
            eprintln!("tidegate-bench: logs and data are kept in {}", kept.display());
        } else {
            self.folder.close().context("the temporary folder")?;
        }
        agent.and(server).and(nats.map_err(Into::into)).and(postgres.map_err(Into::into))
    }
}

/// Roles, database and schema, exactly as the control plane makes them for itself. Returns the serving login's URL.
async fn prepare(postgres: &Postgres) -> anyhow::Result<String> {
    let (app, migrator) = (postgres.password(APP)?, postgres.password(MIGRATOR)?);
    postgres.run_superuser_sql("postgres", &roles::setup_sql(app.expose(), migrator.expose())).await?;
    postgres.create_database(DATABASE, MIGRATOR).await?;
    migrate::run(&Secret::new(postgres.url(MIGRATOR, DATABASE)?)).await?;
    // The migrations' own table is made before any grant can stand in a migration.
    let grant = format!("GRANT SELECT ON __diesel_schema_migrations TO {APP}");
    postgres.run_superuser_sql(DATABASE, &grant).await?;
    Ok(postgres.url(APP, DATABASE)?)
}

fn services(
    url: &str,
    key: &Secret<[u8; 32]>,
    bootstrap: &str,
    repositories: RepositoryOptions,
) -> anyhow::Result<Services> {
    let db =
        Db::new(&DbOptions { url: Secret::new(url.to_owned()), max_connections: 4, ..DbOptions::default() })?;
    let options = Options {
        agent_bootstrap_key: Some(Secret::new(bootstrap.to_owned())),
        // A run may take longer than a token lasts.
        token_minutes: 600,
        repositories,
        ..Options::default()
    };
    Ok(Services::new(db, key, options, Arc::new(SystemClock::new()))?)
}

/// A port of loopback that nobody uses at this moment.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}
