//! `tidegate-admin plugins`, as an operator types it, with the examples.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, in its helpers too")]

mod console;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use console::Console;
use serde_json::json;
use tempfile::TempDir;
use tidegate_test_support::TestDb;

/// A tar of an example's folder, as `docs/plugins.md` says.
fn packed(folder: &TempDir, example: &str) -> String {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/plugins");
    let archive = folder.path().join(format!("{example}.tar"));
    let mut tar = Command::new("tar");
    assert!(
        tar.arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(examples.join(example))
            .arg(".")
            .status()
            .unwrap()
            .success()
    );
    archive.display().to_string()
}

fn written(folder: &TempDir, value: &serde_json::Value) -> String {
    let file: PathBuf = folder.path().join("values.json");
    fs::write(&file, value.to_string()).unwrap();
    file.display().to_string()
}

#[tokio::test]
async fn plugins_are_installed_with_what_they_ask_for_configured_disabled_and_ended() {
    let test = TestDb::new().await;
    let (console, folder) = (Console::of(&test), tempfile::tempdir().unwrap());
    let api = packed(&folder, "api");
    let refused = console.refused(&["plugins", "install", "--archive", &api]);
    assert!(refused.contains("sessions:read (see sessions)"), "{refused}");
    let said = console.says(&["plugins", "install", "--archive", &api, "--grant", "sessions:read"]);
    assert!(said.contains("session-list 1.0.0") && said.contains("enabled"), "{said}");

    let webhook = packed(&folder, "webhook");
    let refused = console.refused(&["plugins", "install", "--archive", &webhook]);
    assert!(refused.contains("config.url"), "{refused}");
    let values = written(&folder, &json!({"url": "https://hooks.example.org/a"}));
    let made = console.json(&["plugins", "install", "--archive", &webhook, "--values", &values]);
    assert_eq!(made["config"]["url"], "https://hooks.example.org/a");
    let number = made["id"].to_string();
    let values = written(&folder, &json!({"url": "https://hooks.example.org/b", "ordered": true}));
    let changed = console.json(&["plugins", "configure", &number, &values]);
    assert_eq!(changed["config"]["url"], "https://hooks.example.org/b");
    console.says(&["plugins", "disable", &number]);
    let listed = console.says(&["plugins", "list"]);
    assert!(listed.contains("event-forwarder") && listed.contains("disabled"), "{listed}");
    assert_eq!(console.says(&["plugins", "deliveries", &number]), "none\n");
    console.says(&["plugins", "uninstall", &number]);
    assert!(!console.says(&["plugins", "list"]).contains("event-forwarder"));
}
