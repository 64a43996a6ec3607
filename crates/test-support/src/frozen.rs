//! A PostgreSQL that hangs.

use std::{fs, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A server whose processes are all stopped: it takes connections and answers nothing, until this value goes.
#[derive(Debug)]
pub struct FrozenPostgres(Vec<Pid>);

impl FrozenPostgres {
    /// Stops the server of a data folder, the postmaster first, so that no process begins meanwhile.
    pub fn freeze(data: &Path) -> Self {
        let postmaster = postmaster(data);
        kill(postmaster, Signal::SIGSTOP).unwrap();
        let mut frozen = Self(vec![postmaster]);
        frozen.0.extend(children(postmaster));
        for child in &frozen.0[1..] {
            // One may have ended by itself a moment ago.
            let _ = kill(*child, Signal::SIGSTOP);
        }
        frozen
    }
}

impl Drop for FrozenPostgres {
    fn drop(&mut self) {
        for process in self.0.iter().rev() {
            let _ = kill(*process, Signal::SIGCONT);
        }
    }
}

/// The process of the server of a data folder.
pub fn postmaster(data: &Path) -> Pid {
    let text = fs::read_to_string(data.join("postmaster.pid")).unwrap();
    Pid::from_raw(text.lines().next().unwrap().trim().parse().unwrap())
}

fn children(of: Pid) -> Vec<Pid> {
    let parent = |text: &str| -> Option<i32> {
        // The name before it may hold anything, in parentheses.
        text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let all =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_child = |process: &i32| {
        fs::read_to_string(format!("/proc/{process}/stat"))
            .is_ok_and(|text| parent(&text) == Some(of.as_raw()))
    };
    all.filter(is_child).map(Pid::from_raw).collect()
}
