//! The page of a session whose agent is played by the test: waiting, watching, losing, phones, keyboards, markup.

use fantoccini::key::Key;
use serde_json::json;
use tidegate_model::SessionState;
use tidegate_protocol::{AckMessage, FailedMessage, FromAgent, StatusMessage};
use tidegate_test_support::eventually;

use crate::{
    browser::{Browser, Scripts, Setup, WITH_SCRIPTS, WITHOUT_SCRIPTS, with_browser},
    stage::{Program, Stage, Theatre},
};

const NOTHING: Vec<String> = Vec::new();

/// Somebody whose session's page is open, with the program at the other end.
async fn watching(browser: &Browser, query: &str) -> (Stage, Theatre, String, Program) {
    let stage = Stage::new().await;
    let mut theatre = Theatre::new(&stage).await;
    let id = stage.running(json!({"template": "shell", "name": "tide pool"})).await;
    stage.log_in(browser, &format!("/sessions/{id}{query}")).await;
    let mut program = theatre.program().await;
    program.print("ready> ").await;
    browser.shows(".xterm-rows", "ready>").await;
    assert!(!browser.body().await.contains("Scripts are needed"));
    (stage, theatre, id, program)
}

#[tokio::test]
async fn what_is_typed_arrives_and_what_is_printed_is_shown() {
    with_browser(WITH_SCRIPTS, async |browser| {
        let (_stage, _theatre, _, mut program) = watching(browser, "").await;
        assert_eq!(browser.focus().await, "xterm-helper-textarea", "one may type at once");
        browser.press("tide → pool\n").await;
        program.hears("tide → pool\r").await;
        let (cols, rows) = program.size().await;
        assert!(cols > 40 && rows > 10, "{cols} {rows}");
        // Colours that are made as they are needed, and a link: styles of the page's own, under its policy.
        program.print("\x1b[38;2;200;10;10mred\x1b[0m https://example.org/ \x1b]0;taken\x07").await;
        browser.shows(".xterm-rows", "https://example.org/").await;
        let red = "return getComputedStyle([...document.querySelectorAll('.xterm-rows span')]\
                   .find(span => span.textContent.includes('red'))).color";
        assert_eq!(browser.run(red).await, "rgb(200, 10, 10)");
        assert_eq!(
            browser.run("return document.title").await,
            "tide pool · Tidegate",
            "its title is the page's"
        );
        program.exit(0).await;
        browser.shows("#banner", "Its program left with code 0.").await;
        assert_eq!(browser.complaints().await, NOTHING);
    })
    .await;
}

#[tokio::test]
async fn who_only_watches_sends_nothing() {
    with_browser(WITH_SCRIPTS, async |browser| {
        let stage = Stage::new().await;
        let mut theatre = Theatre::new(&stage).await;
        let id = stage.running(json!({"template": "shell"})).await;
        stage.log_in(browser, "/home").await;
        // Counts what the page's sockets are given to send, before the page opens one.
        browser
            .at_every_load(
                "window.sent = 0; const write = WritableStreamDefaultWriter.prototype.write;\
                 WritableStreamDefaultWriter.prototype.write = function (x) { window.sent += 1; return write.call(this, x); }",
            )
            .await;
        for (query, silent) in [("?mode=view", true), ("", false)] {
            browser.open(&stage.url(&format!("/sessions/{id}{query}"))).await;
            let mut program = theatre.program().await;
            program.print("\x1b[c\x1b[6n ready").await;
            browser.shows(".xterm-rows", "ready").await;
            browser.press("keys").await;
            program.print(" and done").await;
            browser.shows(".xterm-rows", "and done").await;
            assert_eq!(browser.sees("#mode").await, silent, "{query}");
            assert_eq!(browser.run("return window.sent === 0").await, silent, "{query}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_page_waits_with_progress_and_goes_on_by_itself() {
    with_browser(WITH_SCRIPTS, async |browser| {
        let stage = Stage::new().await;
        let mut theatre = Theatre::new(&stage).await;
        theatre.agent.behaviour().hold();
        let id = stage.session(json!({"template": "shell"})).await;
        stage.log_in(browser, &format!("/sessions/{id}")).await;
        browser.shows("#panel", "Starting").await;
        browser.shows("#state", "starting").await;
        assert_eq!(browser.attribute("#state", "role").await.as_deref(), Some("status"));
        let progress = json!({"progress": "pulling <i>image</i>: 3 of 7 layers"});
        let status = StatusMessage {
            session_id: id.clone(),
            state: SessionState::Pending,
            generation: None,
            streaming_ready: None,
            streaming_port: None,
            platform_metadata: Some(progress.as_object().unwrap().clone()),
            reason: None,
        };
        theatre.agent.say(&FromAgent::Status(status)).await;
        browser.shows("#panel", "pulling <i>image</i>: 3 of 7 layers").await;
        browser.shot("starting").await;
        browser.prefer("dark").await;
        browser.shot("starting-dark").await;
        theatre.agent.release().await;
        let mut program = theatre.program().await;
        program.print("awake").await;
        browser.shows(".xterm-rows", "awake").await;
        browser.shows("#state", "running").await;
        assert!(!browser.sees("#panel").await);

        drop(program);
        let path = format!("/api/v1/sessions/{id}");
        stage.world.call("PUT", &format!("{path}/hibernate"), &stage.token, None).await;
        browser.shows("#panel", "Asleep").await;
        browser.shot("asleep").await;
        let active = stage.look(&id).await["lastActivityAt"].clone();
        eventually("the focus is on the button", async || {
            browser.run("return document.activeElement.textContent").await == "Wake it"
        })
        .await;
        assert_eq!(stage.look(&id).await["lastActivityAt"], active, "a page that looks is no activity");
        theatre.agent.behaviour().hold();
        browser.press("\n").await;
        browser.shows("#panel", "Waking").await;
        theatre.agent.release().await;
        let mut program = theatre.program().await;
        program.print("again").await;
        browser.shows(".xterm-rows", "again").await;
        assert_eq!(browser.complaints().await, NOTHING);
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_was_cut_is_attached_again() {
    with_browser(WITH_SCRIPTS, async |browser| {
        let (stage, mut theatre, id, program) = watching(browser, "").await;
        drop(program);
        browser.shows("#banner", "Attaching again").await;
        let mut program = theatre.program().await;
        program.print("back").await;
        browser.shows(".xterm-rows", "ready> back").await;
        eventually("nothing is said of it any more", async || !browser.sees("#banner").await).await;
        browser.press("x").await;
        program.hears("x").await;

        // Whose login ends is shown no more, told why, and led to the login.
        stage.end_logins().await;
        browser.shows("#panel", "the login is no longer good").await;
        browser.click("#panel button").await;
        browser.there("#password").await;
        assert!(browser.url().await.contains(&format!("next=%2Fsessions%2F{id}")), "{}", browser.url().await);
    })
    .await;
}

#[tokio::test]
async fn more_than_a_page_can_hold_waits_in_the_network() {
    with_browser(WITH_SCRIPTS, async |browser| {
        let (_stage, _theatre, _, mut program) = watching(browser, "").await;
        let line = lines();
        for _ in 0..24 * 1024 * 1024 / line.len() {
            program.print(&line).await;
        }
        program.print("the end").await;
        browser.shows(".xterm-rows", "the end").await;
        browser.press("still there?").await;
        program.hears("still there?").await;
    })
    .await;
}

#[tokio::test]
async fn where_the_network_cannot_wait_the_page_attaches_again() {
    let setup = Setup { scripts: Scripts::On, switches: &["--disable-blink-features=WebSocketStream"] };
    with_browser(setup, async |browser| {
        // A terminal that gets no turn while it is held: it works by the clock, sockets do not.
        browser
            .at_every_load(
                "const later = window.setTimeout;\
                 window.setTimeout = (act, ms, ...more) => {\
                     const go = () => (window.held ? later(go, 20) : act(...more));\
                     return later(go, ms);\
                 };",
            )
            .await;
        let (_stage, mut theatre, _, mut program) = watching(browser, "").await;
        assert_eq!(browser.run("return 'WebSocketStream' in window").await, false);
        browser.run("window.held = true").await;
        let line = lines();
        // What does not fit in the page ends the stream, and not the page.
        let mut printed = 0;
        while program.try_print(&line).await.is_ok() {
            printed += line.len();
            assert!(printed < 4096 * 1024 * 1024, "it takes everything");
        }
        assert!(printed > 4 * 1024 * 1024, "{printed} bytes are not too much");
        browser.run("window.held = false").await;
        let mut program = theatre.program().await;
        program.print("the end").await;
        browser.shows(".xterm-rows", "the end").await;
        browser.press("still there?").await;
        program.hears("still there?").await;
        assert_eq!(browser.complaints().await, NOTHING);
    })
    .await;
}

/// Some coloured lines.
fn lines() -> String {
    format!("{}\r\n", "\x1b[31mtide\x1b[0m ".repeat(40)).repeat(120)
}

#[tokio::test]
async fn the_page_fits_a_phone() {
    with_browser(WITH_SCRIPTS, async |browser| {
        browser.become_phone().await;
        let (stage, mut theatre, id, mut program) = watching(browser, "").await;
        browser.shot("phone").await;
        fits(browser).await;
        let (cols, rows) = program.size().await;
        assert!((30..60).contains(&cols) && rows > 15, "{cols} {rows}");
        browser.click("#keys [aria-label=Escape]").await;
        program.hears("\x1b").await;
        browser.click("#keys [aria-label=Up]").await;
        program.hears("\x1b[A").await;
        browser.click("#keys [aria-label^=Control]").await;
        browser.press("c").await;
        program.hears("\x03").await;
        drop(program);
        let program = theatre.program().await;
        program.exit(1).await;
        browser.shows("#banner", "code 1").await;
        fits(browser).await;
        browser.open(&stage.url("/home")).await;
        browser.shows("table", "tide pool").await;
        browser.shot("phone-home").await;
        fits(browser).await;
        stage.world.call("DELETE", &format!("/api/v1/sessions/{id}"), &stage.token, None).await;
        browser.open(&stage.url(&format!("/sessions/{id}"))).await;
        browser.shows("#panel", "The session has ended").await;
        browser.shot("phone-ended").await;
        fits(browser).await;
    })
    .await;
}

/// Nothing of the page is wider than the phone.
async fn fits(browser: &Browser) {
    let wide = browser.run("return document.documentElement.scrollWidth - innerWidth").await;
    assert!(wide.as_i64().unwrap() <= 0, "{wide} pixels too wide");
    assert_eq!(browser.run("return innerWidth").await, 375);
}

#[tokio::test]
async fn the_keyboard_alone_is_enough() {
    with_browser(WITH_SCRIPTS, async |browser| {
        let (_stage, _theatre, _, mut program) = watching(browser, "").await;
        // Everything that a terminal needs is the terminal's.
        browser.press("\t").await;
        program.hears("\t").await;
        assert_eq!(browser.focus().await, "xterm-helper-textarea");
        assert!(browser.text("#hint").await.contains("Ctrl+]"));
        assert_eq!(
            browser.attribute(".xterm-helper-textarea", "aria-label").await.as_deref(),
            Some("Terminal of tide pool")
        );
        assert_eq!(
            browser.attribute(".xterm-helper-textarea", "aria-describedby").await.as_deref(),
            Some("hint")
        );
        browser.chord(&[Key::Control], ']').await;
        let focused = "return document.activeElement.textContent";
        let outline = "return getComputedStyle(document.activeElement).outlineStyle";
        let mut seen = vec![browser.run(focused).await.as_str().unwrap().to_owned()];
        assert_eq!(browser.run(outline).await, "solid", "one sees where one is");
        while browser.focus().await != "xterm-helper-textarea" {
            browser.chord(&[], '\u{e004}').await;
            seen.push(browser.run(focused).await.as_str().unwrap().to_owned());
            assert!(seen.len() < 8, "{seen:?}");
        }
        assert_eq!(seen[0], "Full screen");
        assert!(seen.contains(&"Screen reader".to_owned()), "{seen:?}");
        // Backwards to the page's first link.
        browser.chord(&[Key::Control], ']').await;
        for _ in 0..2 {
            browser.chord(&[Key::Shift], '\u{e004}').await;
        }
        assert_eq!(browser.run(focused).await, "Skip to the session");
        browser.shot("skip").await;
        browser.chord(&[], '\u{e007}').await;
        assert_eq!(browser.focus().await, "main");
        browser.chord(&[], '\u{e004}').await;
        assert_eq!(browser.focus().await, "xterm-helper-textarea");
        browser.press("back").await;
        program.hears("back").await;
        assert!(!program.typed.contains(&0x1d), "the key that leaves is the page's");
    })
    .await;
}

#[tokio::test]
async fn a_name_with_markup_is_text() {
    with_browser(WITH_SCRIPTS, async |browser| {
        let stage = Stage::new().await;
        let theatre = Theatre::new(&stage).await;
        let markup = "\"><img src=x onerror=\"document.title='taken'\"><b id=bold>pool</b>";
        theatre.agent.behaviour().misbehave(|command, _| {
            let error = "<b id=bold>no</b><script>document.title='taken'</script>".to_owned();
            vec![
                FromAgent::Ack(AckMessage { command_id: command.command_id.clone() }),
                FromAgent::Failed(FailedMessage { command_id: command.command_id.clone(), error }),
            ]
        });
        let id = stage.session(json!({"template": "shell", "name": markup})).await;
        stage.is(&id, "failed").await;
        stage.log_in(browser, "/home").await;
        browser.shows("table", markup).await;
        browser.click("a[href^='/sessions/']").await;
        browser.shows("#panel", "The session failed").await;
        browser.shows("#panel", "<b id=bold>no</b><script>").await;
        browser.shows("#panel", &format!("tidegate logs {id}")).await;
        browser.shot("failed-session").await;
        assert_eq!(browser.text("#name").await, markup);
        assert!(!browser.has("#bold").await && !browser.has("main img").await);
        assert_ne!(browser.run("return document.title").await, "taken");
        assert_eq!(browser.complaints().await, NOTHING);
    })
    .await;
}

#[tokio::test]
async fn without_scripts_the_page_says_that_they_are_needed() {
    with_browser(WITHOUT_SCRIPTS, async |browser| {
        let stage = Stage::new().await;
        let _theatre = Theatre::new(&stage).await;
        let id = stage.running(json!({"template": "shell"})).await;
        stage.log_in(browser, &format!("/sessions/{id}")).await;
        browser.shows("main", "Scripts are needed here").await;
        browser.shows("main", &format!("tidegate attach {id}")).await;
        browser.shot("without-scripts").await;
    })
    .await;
}

/// Every sequence that a terminal may be sent: each final byte of CSI and ESC with odd parameters, each number of OSC with
/// what could do harm as its text, DCS, APC, PM and SOS, cut short and whole.
fn every_sequence() -> Vec<u8> {
    let mut all = Vec::new();
    for last in 0x40..=0x7e_u8 {
        for middle in [
            "",
            "?",
            ">",
            "=",
            "!",
            "$",
            "\"",
            "'",
            " ",
            "0;0;0",
            "?1;9;1000;1006;2004",
            "99999999999",
            "8;9999;9999",
            "-1",
        ] {
            all.extend([&b"\x1b["[..], middle.as_bytes(), &[last]].concat());
        }
    }
    for last in 0x20..=0x7e_u8 {
        // Of these, the strings come below.
        if !b"[]PX^_".contains(&last) {
            all.extend([0x1b, last]);
        }
    }
    let harm = [
        "taken",
        ";javascript:document.title='taken'",
        ";https://evil.example/",
        "c;dGFrZW4=",
        "?",
        "<b id=bold>x</b>",
        "rgb:zz/zz/zz",
    ];
    for number in (0..=120).chain([133, 777, 1337, 99_999]) {
        for text in harm {
            all.extend(format!("\x1b]{number};{text}\x07\x1b]{number};{text}\x1b\\").bytes());
        }
    }
    for opening in ["\x1bP", "\x1b_", "\x1b^", "\x1bX"] {
        for text in ["$qm", "+q544e", "1;2;3{taken", "Gf=100,a=T;AAAA", "q#0;2;0;0;0~-"] {
            all.extend(format!("{opening}{text}\x1b\\").bytes());
        }
        all.extend(format!("{opening}{}", "x".repeat(100_000)).bytes());
        all.extend(b"\x18");
    }
    all.extend(b"\x00\x01\x02\x05\x07\x0e\x0f\x7f\x80\x9b31m\x9d0;taken\x9c\xff\xfe\xc3\x28\xf0\x28\x8c\x28");
    all
}

#[tokio::test]
async fn a_terminal_that_prints_every_escape_sequence_takes_nothing_but_its_own_screen() {
    with_browser(WITH_SCRIPTS, async |browser| {
        let (stage, mut theatre, id, mut program) = watching(browser, "").await;
        let place = stage.url(&format!("/sessions/{id}"));
        browser.at_every_load("window.opened = 0; window.open = () => { window.opened += 1; return null; };").await;
        browser.open(&place).await;
        drop(program);
        program = theatre.program().await;
        for some in every_sequence().chunks(16 * 1_024) {
            program.print_bytes(some).await;
        }
        // Set back, it is a terminal as before.
        program.print("\x18\x1b\\\x1bc\x1b[!p\x1b[?1049lstill here").await;
        browser.shows(".xterm-rows", "still here").await;
        assert_eq!(browser.run("return document.title").await, "tide pool · Tidegate");
        assert_eq!(browser.url().await, place);
        assert_eq!(browser.run("return window.opened").await, 0, "no window was opened");
        assert!(!browser.has("#bold").await);
        assert_eq!(browser.text("#name").await, "tide pool");
        let links = "return [...document.querySelectorAll('a')].filter(a => !a.href.startsWith(location.origin)).length";
        assert_eq!(browser.run(links).await, 0);
        program.typed.clear();
        browser.press("and it is typed into\n").await;
        program.hears("and it is typed into\r").await;
        // What it answers is what terminals answer, and no text that the program chose.
        let answered = String::from_utf8_lossy(&program.typed).into_owned();
        assert!(!answered.contains("taken") && !answered.contains("evil"), "{answered:?}");
        assert_eq!(browser.complaints().await, NOTHING);
    })
    .await;
}
