//! `tidegate-admin mail test`: the configured mailer, without a database.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, in its helpers too")]

use std::{fs, process::Command};

fn admin(toml: &str, to: &str) -> (bool, String, tempfile::TempDir) {
    let machine = tempfile::tempdir().unwrap();
    let config = machine.path().join("tidegate.toml");
    fs::write(&config, format!("data_dir = \"{}\"\n{toml}", machine.path().display())).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-admin"));
    let output = command.arg("--config").arg(config).args(["mail", "test", "--to", to]).output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said, machine)
}

#[test]
fn a_test_mail_is_in_the_outbox() {
    let (done, said, machine) = admin("", "somebody@example.com");
    assert!(done && said.contains("outbox"), "{said}");
    let files: Vec<_> =
        fs::read_dir(machine.path().join("outbox")).unwrap().map(|file| file.unwrap()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let mail = fs::read_to_string(files[0].path()).unwrap();
    assert!(mail.contains("To: somebody@example.com\r\n") && mail.contains("Mails of this Tidegate arrive."));
}

#[test]
fn a_mail_that_cannot_go_out_is_told_with_what_is_in_the_way() {
    let (done, said, _) = admin("", "a@b\r\nBcc: c@d");
    assert!(!done && said.contains("cannot be mailed to"), "{said}");
    let server = "public_url = \"https://t.example\"\n[mail]\nfrom = \"a@example.com\"\n[mail.smtp]\nhost = \"127.0.0.1\"\nport = 1\ntls = \"none\"";
    let (done, said, _) = admin(server, "a@b");
    assert!(!done && said.contains("127.0.0.1, port 1"), "{said}");
    let (done, said, _) = admin("[mail.smtp]\nhost = \"127.0.0.1\"", "a@b");
    assert!(!done && said.contains("mail.from") && said.contains("public_url"), "{said}");
}
