//! Resource limits: cgroup v2 where its controllers are really there, else cgroup v1, else rlimits.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
};

use crate::shims::tree;
use crate::{Error, platform::SessionKey};

/// Processes of one session.
const PROCESSES: u64 = 2_048;
/// What the limits need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// Length of a CPU period in microseconds.
const PERIOD: u64 = 100_000;

/// What all sessions of an agent weigh together where a program outside weighs 1024: when the processors are taken, the
/// agent and the control plane beside it carry everybody's keystrokes first, whatever one session computes.
const TOGETHER: u64 = 256;
/// What one of them weighs among the others, for each core it may use.
const PER_CORE: u64 = 1_024;
/// Where cgroup v1 says 1024, v2 says 100.
const fn weight(shares: u64) -> u64 {
    let weight = shares * 100 / 1_024;
    if weight == 0 { 1 } else { weight }
}

/// How this machine lets sessions be limited, found out once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Limits {
    /// One tree; the folder holds one cgroup per session.
    Cgroup2(PathBuf),
    /// A tree per controller: `cpu`, `memory`, `pids`, those that are there.
    Cgroup1(BTreeMap<&'static str, PathBuf>),
    /// Per process, by the kernel's oldest means.
    Rlimits,
}

/// What `session-exec` does for it.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    pub(crate) cgroups: Vec<PathBuf>,
    pub(crate) rlimits: BTreeMap<String, u64>,
}

impl Limits {
    /// Looks what is mounted, or lies below `root`, and may be written. `name` keeps agents of one machine apart.
    pub(crate) fn detect(name: &str, root: Option<&Path>) -> Self {
        let (mounts, own) = root.map_or_else(mounted, as_if_mounted);
        Self::of(&mounts, &own, name)
    }

    fn of(mounts: &str, own: &str, name: &str) -> Self {
        Self::unified(mounts, own, name)
            .or_else(|| Self::by_controller(mounts, own, name))
            .unwrap_or(Self::Rlimits)
    }

    /// One cgroup for all sessions, beside the agent's own and never inside of it: a service manager must be able to put
    /// the agent back into its own, which it cannot once that shares out its controllers (`decisions/0019`).
    fn unified(mounts: &str, own: &str, name: &str) -> Option<Self> {
        let mount = Path::new(mount_points(mounts).find(|(kind, ..)| *kind == "cgroup2")?.1);
        let own = mount.join(own.lines().find_map(|line| line.strip_prefix("0::/"))?);
        let beside = own.parent().filter(|parent| parent.starts_with(mount));
        // The root alone may hold processes and share out its controllers; whoever may write to it begins there.
        let mut bases = vec![mount];
        bases.extend(beside.filter(|beside| *beside != mount));
        let folder = bases.into_iter().find_map(|base| shared_out(base, name, false));
        // Inside of the agent's own as the last resort: without rights above, and where it is alone there.
        let folder = folder.or_else(|| shared_out(&own, name, true))?;
        // Fairness, not a limit: a kernel that knows no weights is no reason to go without the limits.
        let _ = fs::write(folder.join("cpu.weight"), weight(TOGETHER).to_string());
        Some(Self::Cgroup2(folder))
    }

    fn by_controller(mounts: &str, own: &str, name: &str) -> Option<Self> {
        let mut found = BTreeMap::new();
        for controller in ["cpu", "memory", "pids"] {
            let has = |list: &str| list.split(',').any(|word| word == controller);
            let mount = mount_points(mounts).find(|(kind, _, options)| *kind == "cgroup" && has(options));
            let path = own.lines().find_map(|line| {
                let (list, path) = line.split_once(':')?.1.split_once(":/")?;
                has(list).then_some(path)
            });
            let (Some((_, mount, _)), Some(path)) = (mount, path) else { continue };
            // In a container the path of /proc/self/cgroup may not be the mount's: then its root is ours.
            let bases = [Path::new(mount).join(path), PathBuf::from(mount)];
            let folder =
                bases.iter().map(|base| base.join(name)).find(|folder| fs::create_dir_all(folder).is_ok());
            if let Some(folder) = folder {
                if controller == "cpu" {
                    let _ = fs::write(folder.join("cpu.shares"), TOGETHER.to_string());
                }
                found.insert(controller, folder);
            }
        }
        (!found.is_empty()).then_some(Self::Cgroup1(found))
    }

    /// The word for people.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Cgroup2(_) => "cgroup2",
            Self::Cgroup1(_) => "cgroup1",
            Self::Rlimits => "rlimits",
        }
    }

    /// The cgroups of a session, whether they are there or not.
    pub(crate) fn cgroups(&self, key: &SessionKey) -> Vec<PathBuf> {
        match self {
            Self::Cgroup2(folder) => vec![folder.join(key.to_string())],
            Self::Cgroup1(folders) => folders.values().map(|folder| folder.join(key.to_string())).collect(),
            Self::Rlimits => Vec::new(),
        }
    }

    /// Makes what the session's processes will enter.
    pub(crate) fn prepare(
        &self,
        key: &SessionKey,
        cpu: Option<u64>,
        memory: Option<u64>,
    ) -> Result<Prepared, Error> {
        let mut prepared = Prepared::default();
        let quota = cpu.map(|millis| (millis * PERIOD / 1_000).max(1_000));
        let shares = cpu.map_or(PER_CORE, |millis| (millis * PER_CORE / 1_000).clamp(2, 10_000));
        match self {
            Self::Cgroup2(folder) => {
                let cgroup = make(folder, key)?;
                let cpu = quota.map_or("max".to_owned(), |quota| quota.to_string());
                set(&cgroup, "cpu.max", &format!("{cpu} {PERIOD}"))?;
                let _ = fs::write(cgroup.join("cpu.weight"), weight(shares).to_string());
                set(&cgroup, "memory.max", &memory.map_or("max".to_owned(), |bytes| bytes.to_string()))?;
                set(&cgroup, "pids.max", &PROCESSES.to_string())?;
                prepared.cgroups.push(cgroup.join("cgroup.procs"));
            }
            Self::Cgroup1(folders) => {
                for (controller, folder) in folders {
                    let cgroup = make(folder, key)?;
                    match *controller {
                        "cpu" => {
                            let _ = fs::write(cgroup.join("cpu.shares"), shares.to_string());
                            set(&cgroup, "cpu.cfs_period_us", &PERIOD.to_string())?;
                            set(
                                &cgroup,
                                "cpu.cfs_quota_us",
                                &quota.map_or("-1".into(), |quota| quota.to_string()),
                            )?;
                        }
                        "memory" => {
                            let bytes = memory.map_or("-1".to_owned(), |bytes| bytes.to_string());
                            set(&cgroup, "memory.limit_in_bytes", &bytes)?;
                            // Swap is accounted on few machines; where it is, it must not double the limit.
                            let _ = fs::write(cgroup.join("memory.memsw.limit_in_bytes"), &bytes);
                        }
                        _ => set(&cgroup, "pids.max", &PROCESSES.to_string())?,
                    }
                    prepared.cgroups.push(cgroup.join("cgroup.procs"));
                }
            }
            Self::Rlimits => {
                prepared.rlimits.insert("nproc".into(), PROCESSES);
                prepared.rlimits.extend(memory.map(|bytes| ("data".to_owned(), bytes)));
            }
        }
        Ok(prepared)
    }

    /// Removes the cgroups of a session whose processes are gone. One that is not empty yet is left for later.
    pub(crate) fn remove(&self, key: &SessionKey) {
        for cgroup in self.cgroups(key) {
            if let Err(error) = tree::remove_cgroup(&cgroup) {
                tracing::debug!(cgroup = %cgroup.display(), %error, "cgroup stays");
            }
        }
    }
}

/// What the kernel says of this process's cgroups: mounts, and its places in them.
fn mounted() -> (String, String) {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    (read("/proc/self/mounts"), read("/proc/self/cgroup"))
}

/// The same for a tree of cgroups that is all the agent's own.
fn as_if_mounted(root: &Path) -> (String, String) {
    let mut mounts = format!("cgroup2 {} cgroup2 rw 0 0\n", root.display());
    let mut own = "0::/\n".to_owned();
    for controller in ["cpu", "memory", "pids"] {
        let folder = root.join(controller);
        if folder.is_dir() {
            let _ = writeln!(mounts, "cgroup {} cgroup rw,{controller} 0 0", folder.display());
            let _ = writeln!(own, "1:{controller}:/");
        }
    }
    (mounts, own)
}

fn mount_points(mounts: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (_, point, kind, options) = (words.next()?, words.next()?, words.next()?, words.next()?);
        Some((kind, point, options))
    })
}

/// Makes the cgroup of this name in `base`, with controllers of its own for what comes below it. With `aside` the agent
/// may move out of the way.
fn shared_out(base: &Path, name: &str, aside: bool) -> Option<PathBuf> {
    let there = fs::read_to_string(base.join("cgroup.controllers")).ok()?;
    if !CONTROLLERS.iter().all(|controller| there.split_whitespace().any(|word| word == *controller)) {
        return None;
    }
    let enabled = enable(base);
    if aside { enabled.or_else(|_| step_aside(base).and_then(|()| enable(base))) } else { enabled }.ok()?;
    let folder = base.join(name);
    let made = fs::create_dir_all(&folder).and_then(|()| enable(&folder));
    if made.is_err() {
        // Empty, and of no use.
        let _ = fs::remove_dir(&folder);
    }
    made.ok().map(|()| folder)
}

/// Shares the controllers out, unless they are already: that needs no right to write.
fn enable(cgroup: &Path) -> io::Result<()> {
    let file = cgroup.join("cgroup.subtree_control");
    let shared = fs::read_to_string(&file).unwrap_or_default();
    if CONTROLLERS.iter().all(|controller| shared.split_whitespace().any(|word| word == *controller)) {
        return Ok(());
    }
    fs::write(file, "+cpu +memory +pids")
}

/// A cgroup with processes cannot share out its controllers: where the agent is alone in its own (as systemd's
/// `Delegate=yes` makes it), it moves into a leaf.
fn step_aside(base: &Path) -> io::Result<()> {
    let own = std::process::id().to_string();
    if fs::read_to_string(base.join("cgroup.procs"))?.lines().any(|pid| pid != own) {
        return Err(io::Error::other("the agent's cgroup holds other processes"));
    }
    fs::create_dir_all(base.join("agent"))?;
    fs::write(base.join("agent/cgroup.procs"), own)
}

fn make(folder: &Path, key: &SessionKey) -> Result<PathBuf, Error> {
    let cgroup = folder.join(key.to_string());
    fs::create_dir_all(&cgroup).map_err(Error::file("make", &cgroup))?;
    Ok(cgroup)
}

fn set(cgroup: &Path, file: &str, value: &str) -> Result<(), Error> {
    let path = cgroup.join(file);
    fs::write(&path, value).map_err(Error::file("write", path))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A folder that looks like the root of a tree of cgroups, with these controllers.
    fn tree_with(controllers: &str) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), controllers).unwrap();
        fs::write(root.path().join("cgroup.procs"), "").unwrap();
        root
    }

    fn key() -> SessionKey {
        SessionKey::new("s-1", 2).unwrap()
    }

    fn read(folder: &Path, file: &str) -> String {
        fs::read_to_string(folder.join(file)).unwrap()
    }

    #[test]
    fn one_tree_with_its_controllers_limits_each_session_in_a_cgroup_of_its_own() {
        let root = tree_with("cpuset cpu io memory hugetlb pids\n");
        let limits = Limits::detect("tidegate-x", Some(root.path()));
        let agent = root.path().join("tidegate-x");
        assert_eq!((limits.name(), &limits), ("cgroup2", &Limits::Cgroup2(agent.clone())));
        for shares_out in [root.path(), &agent] {
            assert_eq!(read(shares_out, "cgroup.subtree_control"), "+cpu +memory +pids");
        }
        let prepared = limits.prepare(&key(), Some(1_500), Some(256 << 20)).unwrap();
        let cgroup = agent.join("s-1.2");
        assert_eq!(limits.cgroups(&key()), std::slice::from_ref(&cgroup));
        assert_eq!((prepared.cgroups, prepared.rlimits.len()), (vec![cgroup.join("cgroup.procs")], 0));
        let written = ["cpu.max", "memory.max", "pids.max"].map(|file| read(&cgroup, file));
        assert_eq!(written, ["150000 100000", "268435456", "2048"]);
        assert_eq!([read(&agent, "cpu.weight"), read(&cgroup, "cpu.weight")], ["25", "150"]);
        limits.prepare(&key(), None, None).unwrap();
        let written = ["cpu.max", "memory.max", "pids.max"].map(|file| read(&cgroup, file));
        assert_eq!(written, ["max 100000", "max", "2048"]);
        tree::forbid_forks(limits.cgroups(&key()).iter().map(PathBuf::as_path));
        assert_eq!(read(&cgroup, "pids.max"), "0");
    }

    /// A tree as a service manager makes it, with the agent in a unit of its own.
    fn managed() -> (TempDir, PathBuf) {
        let root = tree_with("cpu memory pids\n");
        let unit = root.path().join("system.slice/agent.service");
        fs::create_dir_all(&unit).unwrap();
        for cgroup in [unit.parent().unwrap(), &unit] {
            fs::write(cgroup.join("cgroup.controllers"), "cpu memory pids\n").unwrap();
            fs::write(cgroup.join("cgroup.procs"), "").unwrap();
        }
        (root, unit)
    }

    fn detected(root: &Path) -> Limits {
        let mounts = format!("cgroup2 {} cgroup2 rw 0 0\n", root.display());
        Limits::of(&mounts, "0::/system.slice/agent.service\n", "tidegate-x")
    }

    /// Nobody may share this cgroup's controllers out.
    fn closed(cgroup: &Path) {
        fs::create_dir(cgroup.join("cgroup.subtree_control")).unwrap();
    }

    #[test]
    fn the_agents_own_cgroup_stays_a_leaf_wherever_there_is_another_place() {
        let (root, unit) = managed();
        assert_eq!(detected(root.path()), Limits::Cgroup2(root.path().join("tidegate-x")));
        assert!(!unit.join("cgroup.subtree_control").exists() && !unit.join("agent").exists());
        // Again, as after a restart.
        assert_eq!(detected(root.path()), Limits::Cgroup2(root.path().join("tidegate-x")));
        let (root, unit) = managed();
        closed(root.path());
        assert_eq!(detected(root.path()), Limits::Cgroup2(root.path().join("system.slice/tidegate-x")));
        assert!(!unit.join("cgroup.subtree_control").exists());
        let (root, unit) = managed();
        closed(root.path());
        closed(&root.path().join("system.slice"));
        assert_eq!(detected(root.path()), Limits::Cgroup2(unit.join("tidegate-x")));
    }

    #[test]
    fn what_is_shared_out_already_needs_no_right_to_be_shared_out() {
        let (root, _) = managed();
        let control = root.path().join("cgroup.subtree_control");
        fs::write(&control, "cpuset cpu io memory pids\n").unwrap();
        detected(root.path());
        assert_eq!(read(root.path(), "cgroup.subtree_control"), "cpuset cpu io memory pids\n");
    }

    #[test]
    fn one_tree_without_the_controllers_gives_way_to_a_tree_for_each() {
        for missing in ["", "cpuset cpu io memory hugetlb\n", "cpuset memory pids\n"] {
            let root = tree_with(missing);
            for controller in ["cpu", "memory", "pids"] {
                fs::create_dir(root.path().join(controller)).unwrap();
            }
            let limits = Limits::detect("tidegate-x", Some(root.path()));
            assert_eq!(limits.name(), "cgroup1", "{missing}");
            limits.prepare(&key(), Some(500), Some(1 << 20)).unwrap();
            let of = |controller: &str, file: &str| {
                read(&root.path().join(controller).join("tidegate-x/s-1.2"), file)
            };
            assert_eq!(of("cpu", "cpu.cfs_quota_us"), "50000");
            assert_eq!(of("cpu", "cpu.shares"), "512");
            assert_eq!(read(&root.path().join("cpu/tidegate-x"), "cpu.shares"), "256");
            assert_eq!(of("memory", "memory.limit_in_bytes"), "1048576");
            assert_eq!(of("pids", "pids.max"), "2048");
        }
    }

    #[test]
    fn without_any_controller_rlimits_are_what_is_left() {
        let root = tree_with("");
        let limits = Limits::detect("tidegate-x", Some(root.path()));
        assert_eq!((limits.name(), limits.cgroups(&key()).len()), ("rlimits", 0));
        let prepared = limits.prepare(&key(), Some(500), Some(1 << 20)).unwrap();
        assert!(prepared.cgroups.is_empty());
        assert_eq!(prepared.rlimits, BTreeMap::from([("data".into(), 1 << 20), ("nproc".into(), PROCESSES)]));
        assert!(!root.path().join("tidegate-x").exists());
    }
}
