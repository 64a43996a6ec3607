//! Terminals over pipes, with a real broker: shared, watched and typed into.

use std::{fs, process::Stdio};

use crate::{person::Person, stand::Stand};

/// A shell whose prompt nobody's settings change.
const SHELL: [&str; 4] = ["share", "build", "--", "/bin/sh"];

async fn grant(stand: &Stand, right: &str, to: &str) {
    let words = ["source", "grant", "build", right, "--user", to];
    let (_, said, code) = stand.run(&stand.home(), &words).await;
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test]
async fn raw_bytes_and_split_characters_are_watched_as_they_were_written() {
    let stand = Stand::without_agent().await;
    let (home, bytes) = (stand.home(), stand.folder().join("bytes"));
    // What a terminal makes of line ends is switched off, so that every byte comes through. Half a character stands alone.
    let script = format!(
        "stty raw -echo; printf '\\303'; sleep 0.3; printf '\\251\\377\\000\\033[31m'; \
         head -c 300000 /dev/urandom | tee '{}'; exit 3",
        bytes.display()
    );
    let (shown, said, code) = stand.run(&home, &["share", "build", "--", "sh", "-c", &script]).await;
    assert_eq!(code, Some(3), "the command's exit code: {said}");
    assert!(said.contains("nobody but you may watch it"), "{said}");
    let wanted = [b"\xc3\xa9\xff\x00\x1b[31m".to_vec(), fs::read(&bytes).unwrap()].concat();
    assert!(shown == wanted, "the screen got {} bytes of {}", shown.len(), wanted.len());
    let (watched, said, code) = stand.run(&home, &["view", "build"]).await;
    assert!(watched == wanted, "who watched got {} bytes of {}", watched.len(), wanted.len());
    assert!(code == Some(0) && said.contains("ended with exit code 3"), "{said}");
    let (read, said, code) =
        stand.run(&home, &["share", "build", "--", "printf", "one\\n\\033[1merror: t\\033[0mwo\\n"]).await;
    assert_eq!(
        (read.as_slice(), code),
        (b"one\r\n\x1b[1merror: t\x1b[0mwo\r\n".as_slice(), Some(0)),
        "{said}"
    );
    let (found, said, code) = stand.run(&home, &["view", "build", "--search", "error: two", "--json"]).await;
    let line: serde_json::Value = serde_json::from_slice(&found).unwrap();
    assert_eq!((&line["line"], code), (&"error: two".into(), Some(0)), "{said}");
    let (_, _, code) = stand.run(&home, &["view", "build", "--search", "nowhere at all"]).await;
    assert_eq!(code, Some(6));
    let (_, said, code) = stand.run(&home, &["share", "build", "--", "/nowhere/at-all"]).await;
    assert!(code == Some(125) && said.contains("cannot start /nowhere/at-all"), "{said}");
}

#[tokio::test]
async fn those_who_were_let_in_watch_and_type_and_nobody_else_does() {
    let stand = Stand::without_agent().await;
    let bob = stand.member("bob").await;
    let mut owner = Person::start(&stand, &SHELL);
    owner.types("echo own$((40 + 1))\r");
    owner.sees("own41").await;
    // Nobody was let in yet.
    let (_, said, code) = stand.run(&bob, &["view", "build"]).await;
    assert!(code == Some(3) && said.contains("needs the right to read: ask admin"), "{said}");
    let (_, said, code) = stand.run(&bob, &["view", "nowhere"]).await;
    assert!(code == Some(3) && said.contains("nowhere"), "{said}");
    grant(&stand, "read", "bob").await;
    // Who may only watch is told so, by refusal where nobody sits there to read it.
    let (_, said, code) = stand.run(&bob, &["attach", "build"]).await;
    assert!(code == Some(125) && said.contains("needs the right to type: ask admin"), "{said}");
    let mut watcher = Person::start_as(&stand, &bob, &["attach", "build"]);
    watcher.sees("what you type does nothing").await;
    watcher.sees("own41").await;
    grant(&stand, "type", "bob").await;
    let mut guest = Person::start_as(&stand, &bob, &["attach", "build"]);
    guest.sees("own41").await;
    // What comes behind what was kept is seen by those whose keys are read.
    owner.types("echo live$((40 + 3))\r");
    watcher.sees("live43").await;
    guest.sees("live43").await;
    watcher.types("echo forbidden$((40 + 1))\r");
    guest.types("echo typed$((40 + 2))\r");
    for person in [&mut owner, &mut guest, &mut watcher] {
        person.sees("typed42").await;
        assert!(!person.seen().contains("forbidden"), "{}", person.seen());
    }
    // The detach key leaves; the program goes on.
    watcher.types("\x1d");
    assert_eq!(watcher.leaves().await, 0);
    guest.types("exit 7\r");
    assert_eq!(guest.leaves().await, 7);
    assert_eq!(owner.leaves().await, 7);
}

#[tokio::test]
async fn a_new_program_hears_nothing_that_was_typed_before_it_began() {
    let stand = Stand::without_agent().await;
    let home = stand.home();
    let (_, said, code) = stand.run(&home, &["share", "build", "--", "true"]).await;
    assert_eq!(code, Some(0), "{said}");
    let (_, said, code) = stand.run(&home, &["attach", "build"]).await;
    assert!(code == Some(125) && said.contains("nothing runs in build"), "{said}");
    let stale = ["send", "build/stdin", "echo stale$((40 + 3))\n"];
    let (_, said, code) = stand.run(&home, &stale).await;
    assert_eq!(code, Some(0), "{said}");
    let mut owner = Person::start(&stand, &SHELL);
    owner.sees("may watch it").await;
    owner.types("echo fresh$((40 + 4))\r");
    owner.sees("fresh44").await;
    let late = ["send", "build/stdin", "echo late$((40 + 5))\n"];
    let (_, said, code) = stand.run(&home, &late).await;
    assert_eq!(code, Some(0), "{said}");
    owner.sees("late45").await;
    assert!(!owner.seen().contains("stale43"), "{}", owner.seen());
    // A second share of the same source takes the first one's place, which goes on alone.
    let mut newer = Person::start(&stand, &SHELL);
    owner.sees("another share of the same source began").await;
    newer.types("echo newer$((40 + 6))\r");
    newer.sees("newer46").await;
    owner.types("exit 5\r");
    assert_eq!(owner.leaves().await, 5);
    newer.types("exit 0\r");
    assert_eq!(newer.leaves().await, 0);
}

#[tokio::test]
async fn a_program_outlives_the_control_plane_and_nothing_is_lost_or_doubled() {
    let mut stand = Stand::without_agent().await;
    let home = stand.home();
    let (_, said, code) = stand.run(&home, &["source", "create", "build", "--kind", "pty"]).await;
    assert_eq!(code, Some(0), "{said}");
    let script = "i=0; while [ $i -lt 400 ]; do i=$((i + 1)); echo line$i; sleep 0.02; done; exit 4";
    let mut share = stand.command(&home, &["share", "build", "--", "sh", "-c", script]);
    let share = share.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut watcher = Person::start(&stand, &["view", "build", "--stay"]);
    watcher.sees("line40\r").await;
    stand.control_plane.kill().await;
    watcher.sees("nothing comes for now").await;
    stand.control_plane.start();
    watcher.sees("line400\r").await;
    let ended = share.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(4), "{said}");
    let wanted: Vec<String> = (1..=400).map(|number| format!("line{number}\r\n")).collect();
    let (kept, said, _) = stand.run(&home, &["view", "build"]).await;
    assert_eq!(String::from_utf8_lossy(&kept), wanted.concat(), "{said}");
}

#[tokio::test]
async fn who_reads_and_who_has_read_is_told_to_those_who_may_know() {
    let stand = Stand::without_agent().await;
    let (home, bob) = (stand.home(), stand.member("bob").await);
    let succeeds = async |home: &std::path::Path, words: &[&str]| {
        let (out, said, code) = stand.run(home, words).await;
        assert_eq!(code, Some(0), "{words:?}: {said}");
        String::from_utf8(out).unwrap()
    };
    succeeds(&bob, &["source", "create", "desk"]).await;
    succeeds(&home, &["send", "desk", "may I?", "--ack"]).await;
    let (_, said, code) = stand.run(&home, &["receipts", "desk", "1"]).await;
    assert_eq!(code, Some(6), "{said}");
    succeeds(&home, &["send", "desk", "and this?"]).await;
    succeeds(&bob, &["read", "desk", "--limit", "1"]).await;
    assert!(succeeds(&home, &["receipts", "desk", "1"]).await.contains("bob"));
    let (_, said, code) = stand.run(&home, &["receipts", "desk", "2"]).await;
    assert!(code == Some(1) && said.contains("asked for no receipts"), "{said}");
    let eve = stand.member("eve").await;
    let (_, said, code) = stand.run(&eve, &["receipts", "desk", "1"]).await;
    assert!(code == Some(3) && said.contains("not found"), "{said}");
    let listed = succeeds(&bob, &["subs", "--json"]).await;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let desk = &listed["subscriptions"][0];
    assert_eq!((&desk["handle"], &desk["sequence"], &desk["unread"]), (&"desk".into(), &1.into(), &1.into()));
    assert_eq!(desk["last"]["text"], "and this?");
    assert!(succeeds(&home, &["who"]).await.contains("bob"));
    assert!(succeeds(&bob, &["who", "desk"]).await.contains("made the source"));
    let (_, said, code) = stand.run(&eve, &["who", "desk"]).await;
    assert!(code == Some(1) && said.contains("bob"), "{said}");
}
