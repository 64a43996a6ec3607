//! The stand: a folder, a control plane with its own PostgreSQL and an agent, where containers are wanted a Docker engine
//! and its agent, all started here and all ended here.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tidegate_client::Client;
use tidegate_engines::postgres::Options;
use tidegate_model::Secret;
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

use crate::{Run, client::Asker, engine::Engine, ledger::Ledger, machine, program::Program};

/// The agents' names.
const AGENT: &str = "chaos-agent";
const DOCKER_AGENT: &str = "chaos-docker-agent";
/// How long anything may take that nothing disturbs.
const CALM: Duration = Duration::from_mins(1);

/// Where everything lies.
#[derive(Debug)]
pub(crate) struct Places {
    /// Goes with the last who holds it.
    pub(crate) folder: Arc<TempDir>,
    pub(crate) root: PathBuf,
    pub(crate) data: PathBuf,
    /// More settings of the control plane, a table of its own.
    pub(crate) settings: String,
    bin_dir: PathBuf,
    address: String,
}

impl Places {
    /// A new folder; the database's data lies in `data` below it.
    pub(crate) fn new(run: &Run, data: &str) -> anyhow::Result<Self> {
        // Short, because sockets lie in it; passable, because the database and the sessions are users of their own.
        let folder = tempfile::Builder::new().prefix("tgc").tempdir_in("/tmp")?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711))?;
        let root = folder.path().to_owned();
        fs::create_dir(root.join("logs"))?;
        let bin_dir = match &run.bin_dir {
            Some(folder) => folder.canonicalize().context("the folder with the programs")?,
            None => std::env::current_exe()?.parent().context("no folder of this program")?.to_owned(),
        };
        // Nobody else has it at this moment, and nothing else here takes ports.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let settings = String::new();
        Ok(Self { data: root.join(data), folder: Arc::new(folder), root, settings, bin_dir, address })
    }

    /// The database's options, to ask it directly.
    pub(crate) fn database(&self) -> Options {
        Options::new(&self.data, self.root.join("run"))
    }

    pub(crate) fn cluster(&self) -> PathBuf {
        self.data.join("postgres")
    }

    pub(crate) fn nats(&self) -> PathBuf {
        self.data.join("nats")
    }

    pub(crate) fn server(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn agent_data(&self) -> PathBuf {
        self.root.join("agent")
    }

    pub(crate) fn docker_agent_data(&self) -> PathBuf {
        self.root.join("docker-agent")
    }

    fn config(&self) -> PathBuf {
        self.root.join("control-plane.toml")
    }

    fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Leaves the folder where it is when this ends.
    pub(crate) fn keep(&self) {
        std::mem::forget(Arc::clone(&self.folder));
        eprintln!("data and logs stay in {}", self.root.display());
    }

    fn write_config(&self) -> anyhow::Result<()> {
        let text = format!(
            "listen = \"{}\"\ndata_dir = \"{}\"\nrun_dir = \"{}\"\n\n[service]\ntoken_minutes = 600\n\n[service.default_quota]\nmax_sessions = \"unlimited\"\n\
             max_cpu = \"unlimited\"\nmax_memory = \"unlimited\"\nmax_storage = \"unlimited\"\n\n{}",
            self.address,
            self.data.display(),
            self.root.join("run").display(),
            self.settings
        );
        fs::write(self.config(), text).context("the configuration cannot be written")
    }

    async fn admin(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let output = Command::new(self.bin_dir.join("tidegate-admin"))
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .arg("--config")
            .arg(self.config())
            .args(arguments)
            .kill_on_drop(true)
            .output()
            .await
            .context("tidegate-admin cannot be started: build it first")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "tidegate-admin {}: {errors}", arguments.join(" "));
        Ok(())
    }
}

/// Who is there beside the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cast {
    /// Nobody.
    Alone,
    /// An agent of processes.
    Agent,
    /// The same, a Docker engine and its agent.
    Containers,
}

/// Everything, running.
#[derive(Debug)]
pub(crate) struct Stand {
    pub(crate) control_plane: Program,
    pub(crate) agent: Program,
    pub(crate) dock: Option<Dock>,
    pub(crate) places: Places,
    pub(crate) ledger: Ledger,
}

/// What runs containers.
#[derive(Debug)]
pub(crate) struct Dock {
    // The agent first, so that nothing is started any more when the engine goes.
    pub(crate) agent: Program,
    pub(crate) engine: Engine,
}

impl Stand {
    /// Starts control plane and agents, makes the admin and lets the agents in.
    pub(crate) async fn start(places: Places, cast: Cast) -> anyhow::Result<(Self, Client)> {
        places.write_config()?;
        let (logs, config) = (places.logs(), places.config().display().to_string());
        let program = |name, file, arguments| Program::new(name, file, &places.bin_dir, arguments, &logs);
        let control_plane =
            program("tidegate-control-plane", "tidegate-control-plane", vec!["--config".into(), config]);
        let server = places.server();
        let agent = program("tidegate-agent", "tidegate-agent", agent_arguments(&places, &server));
        let dock = if cast == Cast::Containers {
            let engine = Engine::new(&places.root, &logs)?;
            let arguments = docker_agent_arguments(&places, &server, &engine);
            Some(Dock { agent: program("tidegate-agent-docker", "tidegate-agent", arguments), engine })
        } else {
            None
        };
        let homes = dock.as_ref().map(|dock| dock.engine.homes());
        let ledger = Ledger::create(places.root.join("ledger"), homes)?;
        let mut stand = Self { control_plane, agent, dock, places, ledger };
        stand.control_plane.start()?;
        let client = Client::builder(server.parse()?)
            .timeout(Duration::from_secs(10))
            .user_agent("tidegate-chaos")
            .build()?;
        stand.set_up(&client, cast).await?;
        Ok((stand, client))
    }

    async fn set_up(&mut self, client: &Client, cast: Cast) -> anyhow::Result<()> {
        self.answers(client).await?;
        let file = self.places.root.join("password");
        self.places.admin(&["bootstrap", "--password-file", &file.display().to_string()]).await?;
        let password = Secret::new(fs::read_to_string(&file)?.trim().to_owned());
        client.login("admin", &password).await.context("the new admin cannot log in")?;
        if cast == Cast::Alone {
            return Ok(());
        }
        self.agent.start()?;
        self.let_in(AGENT).await?;
        if let Some(dock) = &mut self.dock {
            dock.engine.start().await?;
            dock.agent.start()?;
            self.let_in(DOCKER_AGENT).await?;
        }
        Ok(())
    }

    async fn let_in(&self, agent: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + CALM;
        while self.places.admin(&["agents", "approve", agent]).await.is_err() {
            if Instant::now() > deadline {
                bail!("{agent} did not register within {} s", CALM.as_secs());
            }
            sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Everything that is started again when it ends.
    pub(crate) fn programs(&mut self) -> Vec<&mut Program> {
        let mut programs = vec![&mut self.control_plane, &mut self.agent];
        if let Some(Dock { agent, engine }) = &mut self.dock {
            programs.extend([&mut engine.program, agent]);
        }
        programs
    }

    /// Waits until the control plane answers, whatever it answers.
    async fn answers(&mut self, client: &Client) -> anyhow::Result<()> {
        let deadline = Instant::now() + CALM;
        loop {
            self.control_plane.look();
            if let Some(ended) = self.control_plane.ended_by_itself.first() {
                bail!("{ended}: its log is in {}", self.places.logs().display());
            }
            match client.me().await {
                Err(error) if error.is_passing() => {}
                _ if client_reached(client).await => return Ok(()),
                _ => {}
            }
            if Instant::now() > deadline {
                bail!("the control plane did not answer within {} s", CALM.as_secs());
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// How often programs ended by themselves until now.
    pub(crate) fn forget_ends(&mut self) -> usize {
        self.programs().into_iter().map(|program| std::mem::take(&mut program.ended_by_itself).len()).sum()
    }

    /// The process of the private PostgreSQL.
    pub(crate) fn postmaster(&self) -> Option<i32> {
        machine::postmaster(&self.places.cluster())
    }

    /// The process of the private nats-server.
    pub(crate) fn nats(&self) -> Option<i32> {
        machine::nats_server(&self.places.nats())
    }

    /// Stops agent and control plane as an operator would, and says what did not end as it should.
    pub(crate) async fn stop(&mut self) -> Vec<String> {
        let mut problems = Vec::new();
        let (postmaster, nats) = (self.postmaster(), self.nats());
        if let Some(dock) = &mut self.dock {
            problems.extend(dock.agent.stop(CALM).await.err().map(|error| format!("{error:#}")));
        }
        for stopped in [self.agent.stop(CALM).await, self.control_plane.stop(CALM).await] {
            problems.extend(stopped.err().map(|error| format!("{error:#}")));
        }
        if let Some(dock) = &mut self.dock {
            problems.extend(dock.engine.stop().await);
        }
        if postmaster.is_some_and(machine::lives) {
            problems.push("PostgreSQL outlived the control plane that stopped".to_owned());
        }
        if nats.is_some_and(machine::lives) {
            problems.push("nats-server outlived the control plane that stopped".to_owned());
        }
        problems
    }
}

impl Drop for Stand {
    /// Whatever happened, nothing stays behind: agent first, so that nothing is started any more.
    fn drop(&mut self) {
        let (postmaster, nats) = (self.postmaster(), self.nats());
        let docker_agent = self.dock.as_ref().and_then(|dock| dock.agent.pid());
        let agents = [docker_agent, self.agent.pid(), self.control_plane.pid()];
        for pid in agents.into_iter().flatten().chain(postmaster).chain(nats) {
            machine::send(pid, Signal::SIGKILL);
        }
        machine::sweep(&self.places.agent_data());
        if let Some(dock) = &self.dock {
            machine::sweep(&self.places.docker_agent_data());
            for pid in machine::bridges(&dock.engine.socket()) {
                machine::send(pid, Signal::SIGKILL);
            }
        }
        // The folder can only go when the last process of the engines has.
        let gone = std::time::Instant::now() + Duration::from_secs(5);
        let lives = |pid: Option<i32>| pid.is_some_and(machine::lives);
        while (lives(postmaster) || lives(nats)) && std::time::Instant::now() < gone {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A control plane that answers anything is up; a refused login is an answer too.
async fn client_reached(client: &Client) -> bool {
    let wrong = Secret::new("not the password".to_owned());
    client
        .login("nobody", &wrong)
        .await
        .is_err_and(|error| error.status().is_some_and(|status| status.is_client_error()))
}

fn docker_agent_arguments(places: &Places, server: &str, engine: &Engine) -> Vec<String> {
    let folders = (places.docker_agent_data(), places.root.join("d"));
    let docker = ["--platform".to_owned(), "docker".to_owned(), "--docker-socket".to_owned()];
    let mut arguments = arguments(places, server, DOCKER_AGENT, &folders);
    arguments.extend(docker);
    arguments.push(engine.socket().display().to_string());
    arguments
}

fn agent_arguments(places: &Places, server: &str) -> Vec<String> {
    arguments(places, server, AGENT, &(places.agent_data(), places.root.join("s")))
}

fn arguments(places: &Places, server: &str, name: &str, (data, run): &(PathBuf, PathBuf)) -> Vec<String> {
    let secrets = places.data.join("secrets/agent-bootstrap-key");
    let path = |path: &Path| path.display().to_string();
    [
        ("--server", server.to_owned()),
        ("--agent-id", name.to_owned()),
        ("--bootstrap-key-file", path(&secrets)),
        ("--data-dir", path(data)),
        ("--runtime-dir", path(run)),
        ("--max-sessions", "1000".to_owned()),
        // Many more than this machine has cores for: they sleep, most of the time.
        ("--cpu", "1000".to_owned()),
        ("--memory", "1Ti".to_owned()),
        ("--stop-grace", "2".to_owned()),
    ]
    .into_iter()
    .flat_map(|(flag, value)| [flag.to_owned(), value])
    .collect()
}

/// The client of a stand, counting.
pub(crate) fn asker(client: &Client) -> Asker {
    Asker::new(client.clone())
}
