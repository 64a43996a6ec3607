//! The agent: connects to the control plane, takes commands exactly once, runs sessions through a [`Platform`], and
//! dials a tunnel for everybody who watches. It never listens on the network and never sees the database.

mod descriptors;
mod desktop;
mod docker;
mod error;
mod exec;
mod files;
mod journal;
mod link;
mod lock;
mod options;
mod outbox;
mod platform;
mod process;
mod raw;
mod records;
mod register;
mod runtime;
mod server;
mod sessions;
mod shim;
mod shims;
mod tunnel;
mod worker;

pub use descriptors::raise_descriptors;
pub use desktop::session_desktop;
pub use docker::{DockerOptions, DockerPlatform, session_container};
pub use error::Error;
pub use exec::session_exec;
pub use options::Options;
pub use platform::{
    Discovered, Ended, Exit, Found, Keep, Platform, Program, Progress, SessionKey, SessionSpec,
    SessionStream, StreamFrame, StreamRequest,
};
pub use process::{ProcessOptions, ProcessPlatform};
pub use runtime::{Exited, run};
pub use shim::session_shim;
