//! Messages over NATS, from the command line.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdout},
    time::timeout,
};

use crate::stand::Stand;

const PATIENCE: Duration = Duration::from_mins(2);
const LINES: u64 = 500;

/// Somebody who reads on and on.
struct Reader {
    child: Child,
    lines: tokio::io::Lines<BufReader<ChildStdout>>,
}

impl Reader {
    fn start(stand: &Stand) -> Self {
        let words = ["read", "build", "--over", "nats", "--follow", "--json"];
        let mut child = stand.tidegate(&words).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The sequence of the next message; none at the end.
    async fn next(&mut self) -> Option<u64> {
        let line = timeout(PATIENCE, self.lines.next_line()).await.unwrap().unwrap()?;
        // Whoever is killed may have written half of one.
        let message: serde_json::Value = serde_json::from_str(&line).ok()?;
        assert_eq!(message["payload"], format!("line {}", message["sequence"]), "in the order of the file");
        message["sequence"].as_u64()
    }
}

#[tokio::test]
async fn lines_go_over_nats_in_order_and_a_killed_reader_loses_none() {
    let stand = Stand::start().await;
    let made = stand.tidegate(&["source", "create", "build"]).output().await.unwrap();
    assert!(made.status.success(), "{made:?}");
    let lines: Vec<String> = (1..=LINES).map(|number| format!("line {number}")).collect();
    let file = stand.file("lines", &format!("{}\n", lines.join("\n")));
    let words = ["send", "build", "--lines", "--over", "nats", "--file", &file];
    let sent = stand.tidegate(&words).output().await.unwrap();
    let said = String::from_utf8_lossy(&sent.stderr).into_owned();
    let wanted = format!("{LINES} lines are stored in build/inbox, the last at {LINES}");
    assert!(sent.status.success() && said.contains(&wanted), "{said}");

    let (mut seen, mut twice) = (BTreeSet::new(), Vec::new());
    let mut first = Reader::start(&stand);
    while seen.len() < 50 {
        seen.insert(first.next().await.unwrap());
    }
    first.child.start_kill().unwrap();
    // What it had written before it was killed.
    while let Some(sequence) = first.next().await {
        seen.insert(sequence);
    }
    let mut second = Reader::start(&stand);
    while (seen.len() as u64) < LINES {
        let sequence = second.next().await.unwrap();
        if !seen.insert(sequence) {
            twice.push(sequence);
        }
    }
    assert_eq!(seen, (1..=LINES).collect::<BTreeSet<_>>());
    assert!(twice.len() <= 1, "at most the one that was written and not acknowledged: {twice:?}");
    second.child.kill().await.unwrap();
    let one = stand.tidegate(&["send", "build", "bye", "--over", "nats"]).output().await.unwrap();
    assert!(one.status.success(), "{one:?}");
    let read = stand.tidegate(&["read", "build", "--over", "nats", "--json"]).output().await.unwrap();
    let read = String::from_utf8_lossy(&read.stdout).into_owned();
    assert!(read.contains("\"bye\""), "{read}");
}

#[tokio::test]
async fn what_comes_once_more_is_read_in_one_go() {
    let stand = Stand::start().await;
    let made = stand.tidegate(&["source", "create", "build"]).output().await.unwrap();
    assert!(made.status.success(), "{made:?}");
    // Each fills what stands between two programs: a reader whose output nobody takes gets no further than the second.
    let large = stand.file("large", &"x".repeat(45_000));
    for _ in 0..6 {
        let sent = stand.tidegate(&["send", "build", "--file", &large]).output().await.unwrap();
        assert!(sent.status.success(), "{sent:?}");
    }
    let mut stuck = Reader::start(&stand);
    let first = timeout(PATIENCE, stuck.lines.next_line()).await.unwrap().unwrap().unwrap();
    assert!(first.contains("\"sequence\":1"), "{first}");
    stuck.child.kill().await.unwrap();
    let words = ["read", "build", "--over", "nats", "--wait", "60", "--limit", "100", "--json"];
    let read = stand.tidegate(&words).output().await.unwrap();
    let read = String::from_utf8(read.stdout).unwrap();
    let sequences: BTreeSet<u64> = read
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["sequence"].as_u64().unwrap())
        .collect();
    assert!(sequences.is_superset(&BTreeSet::from([3, 4, 5, 6])), "{sequences:?}");
}
