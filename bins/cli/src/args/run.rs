//! The words of `run`.

use clap::{Args as ClapArgs, Parser, Subcommand};
use tidegate_model::{
    ApplicationId, BuiltInTemplate, Handle, Hibernation, NewSession, Platform, Quantity, ResourceRequest,
    TimeLimit,
};

use super::{DetachKeys, Global, parse};

/// `run`.
#[derive(Debug, ClapArgs)]
#[command(
    override_usage = "tidegate run [OPTIONS] <APPLICATION|COMMAND> [FLAGS]",
    after_help = "An application is named by its name, its id, or what it is called for people: see `tidegate apps list --mine`.\n\
        Where no application is called so, a template of the catalog may be. Flags come after the name."
)]
pub(crate) struct RunArgs {
    #[command(subcommand)]
    pub(crate) what: RunWords,
}

/// What comes after `run`.
#[derive(Debug, Subcommand)]
pub(crate) enum RunWords {
    /// A built-in template.
    #[command(flatten)]
    BuiltIn(Box<RunWhat>),
    /// An application, and the flags after its name.
    #[command(external_subcommand)]
    Application(Vec<String>),
}

/// `run APPLICATION`.
#[derive(Debug, Parser)]
#[command(
    bin_name = "tidegate run",
    about = "Start a session of an application",
    override_usage = "tidegate run <APPLICATION> [FLAGS]"
)]
pub(crate) struct RunApplication {
    /// Its name, its id, or what it is called for people.
    pub(crate) application: String,
    #[command(flatten)]
    pub(crate) flags: RunFlags,
    #[command(flatten)]
    global: Global,
}

impl RunApplication {
    /// Reads the words after `run`, with what goes with every verb wherever it was said. Ends the program where they are no
    /// such words, as the command line itself does.
    pub(crate) fn read(words: Vec<String>, before: Global) -> (Self, Global) {
        let mut read = Self::parse_from(std::iter::once("run".to_owned()).chain(words));
        let after = std::mem::replace(&mut read.global, before.clone());
        let global = Global {
            url: after.url.or(before.url),
            ca_file: after.ca_file.or(before.ca_file),
            json: after.json || before.json,
        };
        (read, global)
    }
}

/// What a new session runs.
#[derive(Debug, Subcommand)]
pub(crate) enum RunWhat {
    /// A login shell
    Shell(RunFlags),
    /// One program; its output is written here and its exit code is taken over
    #[command(
        after_help = "The exit code is the program's; 125 when tidegate itself could not do its part.\n\
        With a terminal on both ends the program gets a terminal, else its output is written as it is."
    )]
    Command {
        #[command(flatten)]
        flags: RunFlags,
        /// The program and its arguments.
        #[arg(last = true, required = true, value_name = "PROGRAM")]
        argv: Vec<String>,
    },
    /// A desktop, watched in a browser
    #[command(
        after_help = "Without an image the agent's machine needs Xvnc (package tigervnc-standalone-server).\n\
        An image has to serve RFB on the port named by --port, 5900 where that is absent."
    )]
    Desktop {
        #[command(flatten)]
        flags: RunFlags,
        /// What runs on the desktop instead of a window manager, or in the container.
        #[arg(last = true, value_name = "PROGRAM")]
        argv: Vec<String>,
    },
    /// A web application, used in a browser
    #[command(
        after_help = "Without an image the program serves 127.0.0.1 on the port that the variable PORT names.\n\
        An image's own port is taken where it exposes one; else --port names it."
    )]
    Web {
        #[command(flatten)]
        flags: RunFlags,
        /// The program and its arguments; may be absent with an image.
        #[arg(last = true, required_unless_present = "image", value_name = "PROGRAM")]
        argv: Vec<String>,
    },
}

impl RunWhat {
    /// The flags, whatever is run.
    pub(crate) const fn flags(&self) -> &RunFlags {
        match self {
            Self::Shell(flags)
            | Self::Command { flags, .. }
            | Self::Desktop { flags, .. }
            | Self::Web { flags, .. } => flags,
        }
    }

    /// The request that these words stand for.
    pub(crate) fn request(&self) -> NewSession {
        let (template, flags, argv) = match self {
            Self::Shell(flags) => (BuiltInTemplate::Shell, flags, &[][..]),
            Self::Command { flags, argv } => (BuiltInTemplate::Command, flags, &argv[..]),
            Self::Desktop { flags, argv } => (BuiltInTemplate::Desktop, flags, &argv[..]),
            Self::Web { flags, argv } => (BuiltInTemplate::Web, flags, &argv[..]),
        };
        let command = (!argv.is_empty()).then(|| argv.to_vec());
        NewSession { command, ..flags.request(NewSession::of(template.as_str())) }
    }
}

/// How a new session is.
#[derive(Debug, ClapArgs)]
#[expect(clippy::struct_excessive_bools, reason = "flags are flags")]
pub(crate) struct RunFlags {
    /// Name for people; made up where absent.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Keep the home folder for the next session.
    #[arg(long)]
    persistent_home: bool,
    /// CPU, for example 500m or 2.
    #[arg(long, value_name = "QUANTITY")]
    cpu: Option<Quantity>,
    /// Memory, for example 512Mi or 2Gi.
    #[arg(long, value_name = "QUANTITY")]
    memory: Option<Quantity>,
    /// Storage of the persistent home, for example 10Gi.
    #[arg(long, value_name = "QUANTITY", requires = "persistent_home")]
    storage: Option<Quantity>,
    /// A variable of its environment; NAME alone takes yours. May be repeated.
    #[arg(long = "env", short = 'e', value_name = "NAME=VALUE", value_parser = parse::variable)]
    variables: Vec<(String, String)>,
    /// A label. May be repeated.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Hibernate after so long without activity: 30m, 8h, or 0 for never.
    #[arg(long, value_name = "DURATION")]
    idle_timeout: Option<TimeLimit>,
    /// End after so long: 90s, 8h, 7d, or 0 for never.
    #[arg(long, value_name = "DURATION")]
    max_duration: Option<TimeLimit>,
    /// Only on agents of this region.
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Run it in a container made of this image, for example debian:12.
    #[arg(long, value_name = "IMAGE", help_heading = "Containers")]
    image: Option<String>,
    /// Only on agents of this platform [default: docker with an image, else vm].
    #[arg(long, value_name = "PLATFORM", help_heading = "Containers")]
    platform: Option<Platform>,
    /// The container's port that is streamed.
    #[arg(long, value_name = "PORT", requires = "image", help_heading = "Containers")]
    port: Option<u16>,
    /// Freeze the container while the session sleeps, instead of ending its processes.
    #[arg(long, requires = "image", help_heading = "Containers")]
    pause: bool,
    /// Open the session's page in a browser.
    #[arg(long)]
    pub(crate) open: bool,
    /// Record its terminal at this source of yours, of kind pty; one of this handle is made where there is none.
    #[arg(long, value_name = "HANDLE")]
    pub(crate) record: Option<Handle>,
    /// Start it, name it and leave it.
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// End the session when it is left, by its detach key or a signal too.
    #[arg(long, conflicts_with = "detach")]
    pub(crate) rm: bool,
    #[command(flatten)]
    pub(crate) resume: Resume,
}

/// How a terminal is attached.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Resume {
    /// Leave with these keys, for example ctrl-] or ctrl-p,ctrl-q, or none.
    #[arg(long, value_name = "KEYS", default_value = "ctrl-]")]
    pub(crate) detach_key: DetachKeys,
}

impl RunFlags {
    /// A session of an application.
    pub(crate) fn of_application(&self, id: ApplicationId) -> NewSession {
        self.request(NewSession::of_application(id))
    }

    /// A session of a template that is not built in.
    pub(crate) fn of_template(&self, name: &str) -> NewSession {
        self.request(NewSession::of(name))
    }

    fn request(&self, of: NewSession) -> NewSession {
        let resources = ResourceRequest { cpu: self.cpu, memory: self.memory, storage: self.storage };
        NewSession {
            name: self.name.clone(),
            resources: (resources != ResourceRequest::default()).then_some(resources),
            persistent_home: self.persistent_home,
            idle_timeout: self.idle_timeout,
            max_session_duration: self.max_duration,
            environment: self.variables.iter().cloned().collect(),
            tags: self.tags.clone(),
            region: self.region.clone(),
            image: self.image.clone(),
            platform: self.platform,
            port: self.port,
            hibernation: self.pause.then_some(Hibernation::Pause),
            ..of
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{
        super::{Args, Verb},
        RunApplication, RunWords,
    };

    fn request(words: &str) -> Result<serde_json::Value, String> {
        let args = Args::try_parse_from(words.split(' ')).map_err(|error| error.to_string())?;
        let Verb::Run(run) = args.verb else { return Err("not a run".to_owned()) };
        match run.what {
            RunWords::BuiltIn(what) => Ok(serde_json::to_value(what.request()).unwrap()),
            RunWords::Application(words) => {
                let (run, global) = RunApplication::read(words, args.global);
                let request = run.flags.of_template(&run.application);
                Ok(serde_json::json!({"request": request, "json": global.json}))
            }
        }
    }

    #[test]
    fn run_asks_for_what_its_flags_say() {
        let words = "tidegate run command --name build --cpu 2 --memory 1Gi -e A=1 --env B= --tag ci \
            --idle-timeout 30m --max-duration 90s --region eu-1 --persistent-home -- make -j4 --json";
        let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            request(&words).unwrap(),
            serde_json::json!({
                "template": "command", "name": "build", "command": ["make", "-j4", "--json"],
                "resources": {"cpu": "2", "memory": "1Gi"}, "persistentHome": true, "idleTimeout": "30m",
                "maxSessionDuration": "90s", "environment": {"A": "1", "B": ""}, "tags": ["ci"], "region": "eu-1",
            })
        );
    }

    #[test]
    fn an_application_has_its_flags_after_its_name() {
        let asked = request("tidegate run firefox-0a1b2c3d --name mine --idle-timeout 30m --json").unwrap();
        let wanted = serde_json::json!({
            "template": "firefox-0a1b2c3d", "name": "mine", "idleTimeout": "30m", "persistentHome": false,
        });
        assert_eq!((&asked["request"], &asked["json"]), (&wanted, &true.into()));
        assert_eq!(request("tidegate --json run x").unwrap()["json"], true);
    }

    #[test]
    fn a_bad_duration_or_quantity_is_refused_with_an_example() {
        assert!(request("tidegate run shell --idle-timeout 30").unwrap_err().contains("30m"));
        assert!(request("tidegate run shell --max-duration 5s").unwrap_err().contains("1m and 30d"));
        assert!(request("tidegate run shell --memory lots").is_err());
        assert!(request("tidegate run command").is_err());
        assert!(request("tidegate run shell --detach --rm").is_err());
    }
}
