//! The modules of `examples/plugins` are what their sources make.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, in its helpers too")]

use std::{fs, path::PathBuf, process::Command};

fn example(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/plugins").join(path)
}

#[test]
fn the_module_of_the_api_plugin_is_what_its_text_makes() {
    let made = wat::parse_file(example("api/sessions.wat")).unwrap();
    assert_eq!(fs::read(example("api/sessions.wasm")).unwrap(), made, "make it anew out of its text");
}

/// Only where the compiler is that made it: another version makes other bytes of the same source.
#[test]
fn the_module_of_the_extension_is_what_its_source_makes() {
    let compiler = PathBuf::from("/usr/bin/rustc");
    let version = Command::new(&compiler).arg("--version").output();
    let is_it = version.is_ok_and(|it| it.stdout.starts_with(b"rustc 1.63.0"));
    let has_target = PathBuf::from("/usr/lib/rustlib/wasm32-unknown-unknown").is_dir();
    if !is_it || !has_target {
        eprintln!("not compared: apt-get install rustc libstd-rust-dev-wasm32 lld of Debian 12");
        return;
    }
    let folder = tempfile();
    let out = folder.join("counter.wasm");
    let built = Command::new(example("build")).arg(&out).env("RUSTC", &compiler).status().unwrap();
    assert!(built.success());
    let (made, kept) = (fs::read(&out).unwrap(), fs::read(example("extension/counter.wasm")).unwrap());
    fs::remove_dir_all(folder).unwrap();
    assert!(made == kept, "examples/plugins/build makes another module: commit it");
}

fn tempfile() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("tidegate-example-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}
