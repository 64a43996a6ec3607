//! A disk that can lose its power: an ext4 file system in an image file behind a loop device.
//!
//! What the file system has handed to the device is in the image; what it still holds in memory is not. Cutting the
//! power is ext4's own emergency stop (`EXT4_IOC_SHUTDOWN` without flushing its journal): from then on nothing reaches
//! the device any more, so that copying, killing and unmounting cannot save what the cut would have lost.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use tempfile::TempDir;

/// Asks for the emergency stop. Rust without `unsafe` has no ioctl; perl belongs to every Debian.
const CUT: &str = r#"open(my $f, "<", $ARGV[0]) or die "$!\n"; my $how = pack("L", 2); ioctl($f, 0x8004587D, $how) or die "$!\n";"#;
const MIB: u64 = 1024 * 1024;

/// A mounted image.
#[derive(Debug)]
pub(crate) struct Disk {
    image: PathBuf,
    mounted: PathBuf,
    copies: u32,
    /// Not to be removed while it is mounted in there.
    _folder: Arc<TempDir>,
}

/// Why this machine cannot hold such a disk; `None` when it can.
pub(crate) fn missing() -> Option<String> {
    if !nix::unistd::Uid::effective().is_root() {
        return Some("mounting a disk image needs root: run it with sudo".to_owned());
    }
    for program in ["losetup", "mkfs.ext4", "mount", "umount", "perl"] {
        if run(program, &["--version"]).is_err() && run(program, &["-V"]).is_err() {
            return Some(format!("{program} is not installed: apt-get install e2fsprogs mount perl-base"));
        }
    }
    match run("losetup", &["--find"]) {
        Ok(_) => None,
        Err(error) => {
            Some(format!("this machine has no loop devices ({error:#}); a container needs --privileged"))
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<Output> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("{program} cannot be run"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{program}: {}", said.trim());
    Ok(output)
}

impl Disk {
    /// Makes the image in `folder` and mounts it at `disk` below it.
    pub(crate) fn make(folder: &Arc<TempDir>, mib: u64) -> anyhow::Result<Self> {
        let (image, mounted) = (folder.path().join("disk-0.img"), folder.path().join("disk"));
        fs::File::create_new(&image)?.set_len(mib * MIB)?;
        fs::create_dir(&mounted)?;
        run("mkfs.ext4", &["-q", &image.to_string_lossy()])?;
        let disk = Self { image, mounted, copies: 0, _folder: Arc::clone(folder) };
        disk.mount()?;
        fs::set_permissions(&disk.mounted, fs::Permissions::from_mode(0o711))?;
        Ok(disk)
    }

    fn mount(&self) -> anyhow::Result<()> {
        // The loop device goes with the mount. The journal is replayed here.
        run("mount", &["-o", "loop,noatime", &self.image.to_string_lossy(), &self.mounted.to_string_lossy()])
            .map(drop)
    }

    /// Cuts the power: what has not reached the device by now never will.
    pub(crate) fn cut(&self) -> anyhow::Result<()> {
        run("perl", &["-e", CUT, &self.mounted.to_string_lossy()])
            .context("the disk's power cannot be cut")
            .map(drop)
    }

    /// Copies the image of the cut disk and gives the old one up; nothing may use it any more.
    pub(crate) fn replace(&mut self) -> anyhow::Result<()> {
        self.copies += 1;
        let copy = self.image.with_file_name(format!("disk-{}.img", self.copies));
        run("cp", &["--sparse=always", &self.image.to_string_lossy(), &copy.to_string_lossy()])?;
        self.unmount()?;
        fs::remove_file(std::mem::replace(&mut self.image, copy))?;
        self.mount()
    }

    fn unmount(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let unmounted = run("umount", &[&self.mounted.to_string_lossy()]);
            match unmounted {
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
                ended => return ended.map(drop),
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.unmount().is_err() {
            // Somebody still looks into it: it goes when they do.
            let _ = run("umount", &["--lazy", &self.mounted.to_string_lossy()]);
        }
    }
}
