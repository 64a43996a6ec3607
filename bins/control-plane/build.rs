//! Bundles what the pages run in a browser (`web/`) and hands it to the compiler. Everything is made in `OUT_DIR`; the
//! packages are fetched again when the lock file changes, the bundle is made again when a source does.

use std::{
    env,
    error::Error,
    ffi::OsStr,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

/// What decides which packages are there.
const PACKAGES: [&str; 3] = [".npmrc", "package.json", "package-lock.json"];
const INSTALL: &str = "`scripts/install`, or on Debian and Ubuntu `apt-get install nodejs npm`, installs it";

fn main() {
    if let Err(error) = bundle() {
        // One sentence, and no trace of this program.
        println!("cargo::error={error}");
    }
}

fn bundle() -> Result<(), Box<dyn Error>> {
    let web = folder("CARGO_MANIFEST_DIR")?.join("../../web").canonicalize()?;
    let out = folder("OUT_DIR")?;
    let work = out.join("web");
    for name in PACKAGES.iter().chain(&["build.mjs", "src"]) {
        println!("cargo::rerun-if-changed={}", web.join(name).display());
    }
    fs::create_dir_all(&work)?;
    if !same_packages(&web, &work) {
        for name in PACKAGES {
            fs::copy(web.join(name), work.join(name))?;
        }
        let flags = ["ci", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error"];
        run("npm", flags.map(OsStr::new), &work)?;
        // Written last: a fetch that was cut short is done again.
        fs::copy(web.join("package-lock.json"), work.join("fetched.json"))?;
    }
    fs::copy(web.join("build.mjs"), work.join("build.mjs"))?;
    copy_sources(&web.join("src"), &work.join("src"))?;
    run("node", ["build.mjs".as_ref(), out.join("assets").as_os_str()], &work)
}

fn folder(name: &str) -> Result<PathBuf, String> {
    env::var_os(name).map(PathBuf::from).ok_or_else(|| format!("{name} is not set: run this by cargo"))
}

/// Whether the packages of this very lock file were fetched before, whole.
fn same_packages(web: &Path, work: &Path) -> bool {
    let same = |wanted: PathBuf, there: PathBuf| {
        let (wanted, there) = (fs::read(wanted), fs::read(there));
        matches!((wanted, there), (Ok(wanted), Ok(there)) if wanted == there)
    };
    PACKAGES.iter().all(|name| same(web.join(name), work.join(name)))
        && same(web.join("package-lock.json"), work.join("fetched.json"))
}

/// Afresh, so that a file that is gone is gone.
fn copy_sources(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

fn run<'a>(
    program: &str,
    arguments: impl IntoIterator<Item = &'a OsStr>,
    place: &Path,
) -> Result<(), Box<dyn Error>> {
    let output = Command::new(program).args(arguments).current_dir(place).output();
    let output = output.map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            format!("the pages are bundled with Node.js 18 or newer, and `{program}` is not there: {INSTALL}")
        }
        _ => format!("`{program}` could not be started: {error}"),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    for line in String::from_utf8_lossy(&said).lines().filter(|line| !line.trim().is_empty()) {
        println!("cargo::warning={program}: {line}");
    }
    Err(format!("`{program}` did not bundle the pages ({}); what it said stands above", output.status).into())
}
