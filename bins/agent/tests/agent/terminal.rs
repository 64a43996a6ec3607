//! Who sees what of a terminal, and who waits for whom.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tidegate_agent::{Keep, Platform, StreamFrame, StreamRequest};
use tidegate_model::StreamMode;

use crate::support::{Folder, read_until, script, shims, soon, type_in, until};

const CONTROL: StreamRequest = StreamRequest::Terminal(StreamMode::Control);
const VIEW: StreamRequest = StreamRequest::Terminal(StreamMode::View);
/// Waits for one line, then prints 24 MiB and a last word.
const BURST: &str = "read x; head -c 25165824 /dev/zero | tr '\\0' x; printf '\\033[2J\\033[Hlast'; touch ~/done; sleep 86450.5";

#[tokio::test]
async fn a_new_viewer_gets_the_screen_first() {
    let folder = Folder::new();
    let platform = folder.platform();
    let spec = script("s-1", 1, "printf 'one\\r\\ntwo\\033[2Jthree'; touch ~/done; sleep 86451.5");
    platform.start(&spec, tidegate_agent::Progress::silent()).await.unwrap();
    until("the output", || folder.path().join("homes/ephemeral/s-1/done").exists()).await;
    let mut viewer = platform.open(&spec.key, VIEW).await.unwrap();
    let first = viewer.output.next().await.unwrap().unwrap();
    assert_eq!(first, StreamFrame::Text(r#"{"type":"mode","mode":"view"}"#.into()));
    let screen = read_until(&mut viewer, "three").await;
    assert!(screen.contains("\x1b[2J") && !screen.contains("one"), "{screen:?}");
    platform.stop(&spec.key, Keep::Nothing).await.unwrap();
}

#[tokio::test]
async fn those_who_only_watch_cannot_type() {
    let folder = Folder::new();
    let platform = folder.platform();
    let spec = script("s-1", 1, "while read line; do echo \"got <$line>\"; done");
    platform.start(&spec, tidegate_agent::Progress::silent()).await.unwrap();
    let mut viewer = platform.open(&spec.key, VIEW).await.unwrap();
    let mut typist = platform.open(&spec.key, CONTROL).await.unwrap();
    type_in(&mut viewer, "from-viewer\n").await;
    type_in(&mut typist, "from-typist\n").await;
    let seen = read_until(&mut typist, "got <from-typist>").await;
    assert!(!seen.contains("from-viewer"), "{seen}");
    platform.stop(&spec.key, Keep::Nothing).await.unwrap();
}

#[tokio::test]
async fn without_viewers_a_program_runs_on_and_the_shim_stays_small() {
    let folder = Folder::new();
    let platform = folder.platform();
    let spec = script("s-1", 1, BURST);
    platform.start(&spec, tidegate_agent::Progress::silent()).await.unwrap();
    let mut typist = platform.open(&spec.key, CONTROL).await.unwrap();
    type_in(&mut typist, "go\n").await;
    read_until(&mut typist, "go").await;
    drop(typist);
    until("the burst", || folder.path().join("homes/ephemeral/s-1/done").exists()).await;
    let [shim] = shims(folder.path())[..] else { panic!("one shim") };
    let status = std::fs::read_to_string(format!("/proc/{shim}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim();
    let kib: u64 = peak.trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 40_000, "the shim once held {kib} KiB");
    platform.stop(&spec.key, Keep::Nothing).await.unwrap();
}

#[tokio::test]
async fn a_lagging_viewer_is_skipped_forward_while_another_reads() {
    let folder = Folder::new();
    let platform = folder.platform();
    let spec = script("s-1", 1, BURST);
    platform.start(&spec, tidegate_agent::Progress::silent()).await.unwrap();
    let mut slow = platform.open(&spec.key, VIEW).await.unwrap();
    let mut fast = platform.open(&spec.key, CONTROL).await.unwrap();
    type_in(&mut fast, "go\n").await;
    let all = read_until(&mut fast, "last").await;
    let skipped = read_until(&mut slow, "last").await;
    assert!(all.len() > 20 << 20, "the reading viewer got {} bytes", all.len());
    assert!(skipped.len() < 8 << 20, "the slow viewer was sent {} bytes", skipped.len());
    platform.stop(&spec.key, Keep::Nothing).await.unwrap();
}

#[tokio::test]
async fn the_last_reader_paces_the_program() {
    let folder = Folder::new();
    let platform = folder.platform();
    let spec = script("s-1", 1, BURST);
    platform.start(&spec, tidegate_agent::Progress::silent()).await.unwrap();
    let mut reader = platform.open(&spec.key, CONTROL).await.unwrap();
    type_in(&mut reader, "go\n").await;
    let done = folder.path().join("homes/ephemeral/s-1/done");
    // Nothing announces that a program does not go on: half a second of not reading is long for 24 MiB.
    assert!(
        tokio::time::timeout(Duration::from_millis(500), until("never", || done.exists())).await.is_err()
    );
    let all = read_until(&mut reader, "last").await;
    assert!(all.len() >= 24 << 20, "{} bytes", all.len());
    platform.stop(&spec.key, Keep::Nothing).await.unwrap();
}

#[tokio::test]
async fn the_last_one_who_types_sets_the_size() {
    let folder = Folder::new();
    let platform = folder.platform();
    let spec = script("s-1", 1, "while read line; do echo \"$line=$(stty size)\"; done");
    platform.start(&spec, tidegate_agent::Progress::silent()).await.unwrap();
    let mut first = platform.open(&spec.key, CONTROL).await.unwrap();
    let mut second = platform.open(&spec.key, CONTROL).await.unwrap();
    let resize = |cols: u16, rows: u16| {
        StreamFrame::Text(format!(r#"{{"type":"resize","cols":{cols},"rows":{rows}}}"#))
    };
    first.input.send(resize(100, 30)).await.unwrap();
    type_in(&mut first, "a\n").await;
    read_until(&mut first, "a=30 100").await;
    second.input.send(resize(120, 40)).await.unwrap();
    type_in(&mut first, "b\n").await;
    read_until(&mut first, "b=30 100").await;
    type_in(&mut second, "c\n").await;
    read_until(&mut second, "c=40 120").await;
    drop(second);
    type_in(&mut first, "d\n").await;
    read_until(&mut first, "d=30 100").await;
    platform.stop(&spec.key, Keep::Nothing).await.unwrap();
}

#[tokio::test]
async fn input_for_a_program_that_does_not_read_holds_up_nobody_else() {
    let folder = Folder::new();
    let platform = folder.platform();
    let spec = script("s-1", 1, "stty raw -echo; while :; do echo tick; sleep 0.05; done");
    platform.start(&spec, tidegate_agent::Progress::silent()).await.unwrap();
    let mut pasting = platform.open(&spec.key, CONTROL).await.unwrap();
    read_until(&mut pasting, "tick").await;
    let paste = tokio::spawn(async move {
        let chunk = Bytes::from(vec![b'x'; 60_000]);
        while pasting.input.send(StreamFrame::Bytes(chunk.clone())).await.is_ok() {}
    });
    let mut watching = platform.open(&spec.key, VIEW).await.unwrap();
    for _ in 0..3 {
        read_until(&mut watching, "tick").await;
    }
    soon("the stop", platform.stop(&spec.key, Keep::Nothing)).await.unwrap();
    soon("the paste to end", paste).await.unwrap();
}
