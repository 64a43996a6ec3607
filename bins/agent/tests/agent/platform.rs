//! Sessions as processes: they start, end with everything they started, and keep what they should.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use nix::{
    sys::{
        resource::{RLIM_INFINITY, Resource, getrlimit},
        signal::{Signal, kill},
    },
    unistd::{Pid, Uid},
};
use tidegate_agent::{Ended, Found, Keep, Platform, Program, StreamRequest};
use tidegate_model::StreamMode;

use crate::support::{Folder, read_all, read_until, script, shims, soon, type_in, until, with_argument};

const LOGS: StreamRequest = StreamRequest::Logs { after: 0, follow: true };
const CONTROL: StreamRequest = StreamRequest::Terminal(StreamMode::Control);

#[tokio::test]
async fn a_program_ends_with_its_exit_code_and_its_complete_output() {
    let folder = Folder::new();
    let platform = folder.platform();
    let spec = script("s-1", 1, "head -c 5000000 /dev/zero | tr '\\0' x; exit 7");
    platform.start(&spec, tidegate_agent::Progress::silent()).await.unwrap();
    let mut logs = platform.open(&spec.key, LOGS).await.unwrap();
    let (bytes, texts) = read_all(&mut logs).await;
    assert_eq!((bytes.len(), texts.last().unwrap().as_str()), (5_000_000, r#"{"type":"exit","code":7}"#));
    let Ended::Exited(exit) = soon("the end", platform.watch(&spec.key)).await else {
        panic!("it was not lost")
    };
    assert_eq!((exit.code, exit.signal), (7, None));
}

#[tokio::test]
async fn a_session_opens_as_many_files_as_programs_expect_and_may_ask_for_more() {
    let (before, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    tidegate_agent::raise_descriptors().unwrap();
    let folder = Folder::new();
    let platform = folder.platform();
    let spec = script("s-1", 1, "ulimit -Sn; ulimit -Hn; ulimit -Sn 5000 && ulimit -Sn");
    platform.start(&spec, tidegate_agent::Progress::silent()).await.unwrap();
    let (bytes, _) = read_all(&mut platform.open(&spec.key, LOGS).await.unwrap()).await;
    let printed = String::from_utf8_lossy(&bytes).into_owned();
    let hard_text = if hard == RLIM_INFINITY { "unlimited".into() } else { hard.to_string() };
    let wanted = format!("{}\r\n{hard_text}\r\n5000\r\n", before.clamp(1_024, 4_096));
    assert_eq!(printed, wanted);
    assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap().0, hard.min(1 << 20));
}

#[tokio::test]
async fn a_home_deeper_than_any_path_keeps_no_session_from_ending_and_is_deleted() {
    let folder = Folder::new();
    let platform = folder.platform();
    // No shell: some of them cannot change into a folder whose path is too long to be written down.
    let deep = r#"exec perl -e '$| = 1; for (1..3000) { mkdir "d" or die; chdir "d" or die } print "deep"; sleep 86475'"#;
    let spec = script("s-1", 1, deep);
    platform.start(&spec, tidegate_agent::Progress::silent()).await.unwrap();
    let mut logs = platform.open(&spec.key, LOGS).await.unwrap();
    read_until(&mut logs, "deep").await;
    soon("the stop", platform.stop(&spec.key, Keep::Nothing)).await.unwrap();
    assert!(!folder.path().join("homes/ephemeral/s-1").exists());
    let trash = folder.path().join("homes/.trash");
    until("it is deleted", || std::fs::read_dir(&trash).unwrap().next().is_none()).await;
    if Uid::effective().is_root() {
        let table = folder.path().join("private/uids.json");
        until("its user id is free", || !std::fs::read_to_string(&table).unwrap().contains("s-1")).await;
        until("its user id is free", || !std::fs::read_to_string(&table).unwrap().contains("deleted")).await;
    }
}

#[tokio::test]
async fn the_last_output_and_the_exit_are_there_after_the_end() {
    let folder = Folder::new();
    let platform = folder.platform();
    let spec = script("s-1", 1, "echo $GREETING; kill -9 $$");
    platform.start(&spec, tidegate_agent::Progress::silent()).await.unwrap();
    soon("the end", platform.watch(&spec.key)).await;
    until("the shim to go", || shims(folder.path()).is_empty()).await;
    let mut logs = platform.open(&spec.key, StreamRequest::Logs { after: 1, follow: false }).await.unwrap();
    let (bytes, texts) = read_all(&mut logs).await;
    assert_eq!(bytes, b"\n");
    assert_eq!(
        texts,
        [r#"{"type":"offset","offset":1}"#, r#"{"type":"exit","code":137,"signal":"SIGKILL"}"#]
    );
}

#[tokio::test]
async fn the_loader_of_a_process_with_rights_sees_nothing_of_the_sessions_environment() {
    let folder = Folder::new();
    let platform = folder.platform();
    let mut spec = script("s-1", 1, "echo preload=$LD_PRELOAD");
    spec.environment.insert("LD_PRELOAD".into(), "/nonexistent/library.so".into());
    platform.start(&spec, tidegate_agent::Progress::silent()).await.unwrap();
    let mut logs = platform.open(&spec.key, LOGS).await.unwrap();
    let (bytes, _) = read_all(&mut logs).await;
    let printed = String::from_utf8_lossy(&bytes).into_owned();
    // The loader complains for the session's own program, and for nothing before it.
    assert_eq!(printed.matches("cannot be preloaded").count(), 1, "{printed}");
    assert!(printed.contains("preload=/nonexistent/library.so"), "{printed}");
}

#[tokio::test]
async fn a_shim_that_ends_while_it_is_asked_for_a_stream_leaves_the_whole_output() {
    let folder = Folder::new();
    let platform = folder.platform();
    let spec = script("s-1", 1, "echo all of it");
    platform.start(&spec, tidegate_agent::Progress::silent()).await.unwrap();
    soon("the end", platform.watch(&spec.key)).await;
    until("the shim's end", || shims(folder.path()).is_empty()).await;
    // Takes connections and is gone before it answers, as a shim that has just ended.
    let socket = folder.socket(&spec.key);
    let _ = std::fs::remove_file(&socket);
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let gone = tokio::spawn(async move { drop(listener.accept().await) });
    let mut logs = platform.open(&spec.key, LOGS).await.unwrap();
    let (bytes, _) = read_all(&mut logs).await;
    assert_eq!(String::from_utf8_lossy(&bytes), "all of it\r\n");
    soon("the stand-in", gone).await.unwrap();
}

#[tokio::test]
async fn a_stop_ends_children_that_escaped_the_group() {
    let folder = Folder::new();
    let platform = folder.platform();
    let escaped = "trap '' HUP TERM; setsid sh -c 'trap \"\" HUP TERM; (setsid env -i sleep 86410.5 &) ; sleep 86411.5' & echo up; sleep 86412.5";
    let spec = script("s-1", 1, escaped);
    platform.start(&spec, tidegate_agent::Progress::silent()).await.unwrap();
    let sleeps = || ["86410.5", "86411.5", "86412.5"].map(|time| with_argument(time).len());
    until("the children", || sleeps().iter().all(|count| *count >= 1)).await;
    let exit = soon("the stop", platform.stop(&spec.key, Keep::Nothing)).await.unwrap().unwrap();
    assert_eq!(exit.signal.as_deref(), Some("SIGKILL"));
    assert_eq!(sleeps(), [0, 0, 0]);
    assert!(!folder.path().join("homes/ephemeral/s-1").exists());
}

#[tokio::test]
async fn a_killed_shim_leaves_no_process_and_the_session_is_lost_with_a_reason() {
    let folder = Folder::new();
    let platform = folder.platform();
    let spec = script("s-1", 1, "trap '' HUP; (setsid sleep 86420.5 &); echo up; sleep 86421.5");
    platform.start(&spec, tidegate_agent::Progress::silent()).await.unwrap();
    until("the children", || with_argument("86420.5").len() + with_argument("86421.5").len() >= 2).await;
    let watch = platform.watch(&spec.key);
    let task = tokio::spawn(watch);
    let [shim] = shims(folder.path())[..] else { panic!("one shim") };
    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    let Ended::Lost(reason) = soon("the loss", task).await.unwrap() else { panic!("it did not exit") };
    assert!(reason.contains("was killed"), "{reason}");
    assert!(with_argument("86420.5").is_empty() && with_argument("86421.5").is_empty());
    assert_eq!(platform.stop(&spec.key, Keep::Nothing).await.unwrap(), None);
}

#[tokio::test]
async fn hibernating_keeps_the_home_and_waking_finds_it() {
    let folder = Folder::new();
    let platform = folder.platform();
    for persistent in [false, true] {
        let id = format!("s-{persistent}");
        let mut spec = script(&id, 1, "echo kept > ~/note; echo up; sleep 86430.5");
        spec.persistent_home = persistent;
        platform.start(&spec, tidegate_agent::Progress::silent()).await.unwrap();
        let mut terminal = platform.open(&spec.key, CONTROL).await.unwrap();
        read_until(&mut terminal, "up").await;
        platform.stop(&spec.key, Keep::Home).await.unwrap();
        assert!(matches!(platform.find(&spec.key).await.unwrap(), Found::Ended(_)));
        let mut woken = script(&id, 2, "cat ~/note; sleep 86430.5");
        woken.persistent_home = persistent;
        platform.start(&woken, tidegate_agent::Progress::silent()).await.unwrap();
        let mut terminal = platform.open(&woken.key, CONTROL).await.unwrap();
        read_until(&mut terminal, "kept").await;
        platform.stop(&woken.key, Keep::Nothing).await.unwrap();
    }
    assert!(folder.path().join("homes/org-1/alice/note").exists());
    assert!(!folder.path().join("homes/ephemeral/s-false").exists());
}

#[tokio::test]
async fn the_shell_knows_its_user_and_holds_no_secret_of_the_agent() {
    let folder = Folder::new();
    let platform = folder.platform();
    let mut spec = script("s-1", 1, "");
    spec.program = Program::Shell;
    platform.start(&spec, tidegate_agent::Progress::silent()).await.unwrap();
    let mut terminal = platform.open(&spec.key, CONTROL).await.unwrap();
    type_in(&mut terminal, "env; echo u=$USER t=$TERM s=$TIDEGATE_SESSION_ID do''ne\n").await;
    let seen = read_until(&mut terminal, "done").await;
    assert!(seen.contains("u=alice t=xterm-256color s=s-1"), "{seen}");
    assert!(!seen.contains("CARGO"), "the test's own environment reached the session: {seen}");
    platform.stop(&spec.key, Keep::Nothing).await.unwrap();
}

#[tokio::test]
async fn a_session_of_a_root_agent_is_a_user_of_its_own_behind_closed_doors() {
    if !Uid::effective().is_root() {
        return;
    }
    let folder = Folder::new();
    let platform = folder.platform();
    let data = folder.path().display();
    let text = format!(
        "id -u; id -G; grep NoNewPrivs /proc/self/status; ls {data}/run {data}/private {data}/sessions; tty; echo x > $(tty) && echo wrote; sleep 86440.5"
    );
    let mut spec = script("s-1", 1, &text);
    spec.persistent_home = true;
    platform.start(&spec, tidegate_agent::Progress::silent()).await.unwrap();
    let mut logs = platform.open(&spec.key, LOGS).await.unwrap();
    let seen = read_until(&mut logs, "wrote").await;
    let home = std::fs::metadata(folder.path().join("homes/org-1/alice")).unwrap();
    assert!((210_000..260_000).contains(&home.uid()) && home.permissions().mode() & 0o777 == 0o700);
    assert!(seen.starts_with(&format!("{0}\r\n{0}\r\nNoNewPrivs:\t1", home.uid())), "{seen}");
    assert_eq!(seen.matches("Permission denied").count(), 3, "{seen}");
    platform.stop(&spec.key, Keep::Nothing).await.unwrap();
}

#[tokio::test]
async fn a_program_that_is_not_there_says_so_and_ends_with_127() {
    let folder = Folder::new();
    let platform = folder.platform();
    let mut spec = script("s-1", 1, "");
    spec.program = Program::Command(vec!["no-such-program".into()]);
    platform.start(&spec, tidegate_agent::Progress::silent()).await.unwrap();
    let mut logs = platform.open(&spec.key, LOGS).await.unwrap();
    let (bytes, texts) = read_all(&mut logs).await;
    let said = String::from_utf8_lossy(&bytes).into_owned();
    assert!(said.contains("cannot run no-such-program"), "{said}");
    assert_eq!(texts.first().unwrap(), r#"{"type":"offset","offset":0}"#);
    assert_eq!(texts.last().unwrap(), r#"{"type":"exit","code":127}"#);
}

#[tokio::test]
async fn a_session_is_limited_in_memory_where_the_machine_can() {
    let folder = Folder::new();
    let platform = folder.platform();
    if platform.metadata()["limits"] == "rlimits" {
        return;
    }
    let spec = script("s-1", 1, "head -c 400000000 /dev/zero | tail | wc -c; echo \"over ${PIPESTATUS:-}\"");
    platform.start(&spec, tidegate_agent::Progress::silent()).await.unwrap();
    let mut logs = platform.open(&spec.key, LOGS).await.unwrap();
    let (bytes, _) = read_all(&mut logs).await;
    assert!(
        !String::from_utf8_lossy(&bytes).contains("400000000"),
        "tail held 400 MB in a session of 256 MiB"
    );
}
