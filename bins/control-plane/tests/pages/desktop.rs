//! A desktop, played by the test: RFB as a server speaks it, to noVNC in a real browser. The page is told that the session is
//! a desktop; its bytes cross the same tunnel as a terminal's.

use fantoccini::key::Key;
use serde_json::json;

use crate::{
    browser::{Browser, WITH_SCRIPTS, with_browser},
    stage::{Program, Stage, Theatre},
};

const WIDTH: u16 = 64;
const HEIGHT: u16 = 48;

/// A server of one screen in one colour.
struct Desktop {
    program: Program,
    /// How much of what was sent by the viewer is read.
    read: usize,
}

impl Desktop {
    /// Speaks until the viewer asks for pictures (RFC 6143, 7.1 to 7.3).
    async fn open(program: Program, name: &str) -> Self {
        let mut desktop = Self { program, read: 0 };
        desktop.send(b"RFB 003.008\n").await;
        assert_eq!(desktop.take(12).await, b"RFB 003.008\n");
        // One kind of security, none, and it is fine.
        desktop.send(&[1, 1]).await;
        assert_eq!(desktop.take(1).await, [1]);
        desktop.send(&[0; 4]).await;
        desktop.take(1).await;
        let format = [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];
        let mut init = [WIDTH.to_be_bytes(), HEIGHT.to_be_bytes()].concat();
        init.extend(format);
        init.extend(u32::try_from(name.len()).unwrap().to_be_bytes());
        init.extend(name.as_bytes());
        desktop.send(&init).await;
        desktop
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.program.print_bytes(bytes).await;
    }

    async fn take(&mut self, count: usize) -> Vec<u8> {
        self.program.typed(self.read + count).await;
        self.read += count;
        self.program.typed[self.read - count..self.read].to_vec()
    }

    /// The next message of the viewer: its kind and what it says.
    async fn message(&mut self) -> (u8, Vec<u8>) {
        let kind = self.take(1).await[0];
        let rest = match kind {
            0 => self.take(19).await,
            2 => {
                let head = self.take(3).await;
                let count = usize::from(u16::from_be_bytes([head[1], head[2]]));
                self.take(4 * count).await
            }
            3 => self.take(9).await,
            4 => self.take(7).await,
            5 => self.take(5).await,
            6 => {
                let head = self.take(7).await;
                let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
                self.take(usize::try_from(length).unwrap()).await
            }
            other => panic!("message {other} was not offered"),
        };
        (kind, rest)
    }

    /// Reads until a message of this kind.
    async fn until(&mut self, kind: u8) -> Vec<u8> {
        loop {
            let (got, said) = self.message().await;
            if got == kind {
                return said;
            }
        }
    }

    /// The whole screen in one colour, in the format that noVNC asks for whatever it was offered.
    async fn paint(&mut self, [red, green, blue]: [u8; 3]) {
        let mut update = vec![0, 0, 0, 1, 0, 0, 0, 0];
        update.extend([WIDTH.to_be_bytes(), HEIGHT.to_be_bytes()].concat());
        update.extend([0; 4]);
        update.extend([red, green, blue, 0].repeat(usize::from(WIDTH) * usize::from(HEIGHT)));
        self.send(&update).await;
    }
}

async fn shows_pixel(browser: &Browser, colour: [u8; 3]) {
    let script = "const c = document.querySelector('#stage canvas');\
                  return c && c.width ? [...c.getContext('2d').getImageData(5, 5, 1, 1).data].slice(0, 3) : []";
    let what = format!("the desktop is {colour:?}");
    tidegate_test_support::eventually(&what, async || browser.run(script).await == json!(colour)).await;
}

async fn watching(browser: &Browser, mode: &str, name: &str) -> (Stage, Theatre, Desktop) {
    let stage = Stage::new().await;
    let mut theatre = Theatre::new(&stage).await;
    let id = stage.running(json!({"template": "shell"})).await;
    stage.log_in(browser, "/home").await;
    // The server drops what a viewer sends to a terminal; here the page alone must keep still.
    browser.pretend("vnc", json!({"mode": mode})).await;
    browser.open(&stage.url(&format!("/sessions/{id}"))).await;
    let desktop = Desktop::open(theatre.program().await, name).await;
    (stage, theatre, desktop)
}

#[tokio::test]
async fn somebody_clicks_into_a_desktop_and_sees_its_pixels_change() {
    with_browser(WITH_SCRIPTS, async |browser| {
        let (_stage, mut theatre, mut desktop) = watching(browser, "control", "<b>desk</b>").await;
        desktop.until(3).await;
        desktop.paint([200, 30, 30]).await;
        shows_pixel(browser, [200, 30, 30]).await;
        browser.click("#stage canvas").await;
        loop {
            // The left button goes down somewhere on the screen.
            let pointer = desktop.until(5).await;
            if pointer[0] == 1 {
                let place = [pointer[1], pointer[2], pointer[3], pointer[4]];
                assert!(u16::from_be_bytes([place[0], place[1]]) < WIDTH, "{place:?}");
                break;
            }
        }
        desktop.paint([30, 160, 30]).await;
        shows_pixel(browser, [30, 160, 30]).await;
        browser.press("a").await;
        assert_eq!(desktop.until(4).await, [1, 0, 0, 0, 0, 0, b'a'], "the key goes down");
        assert_eq!(browser.attribute("#stage", "title").await.as_deref(), Some("<b>desk</b>"));
        browser.shot("desktop").await;

        browser.chord(&[Key::Control], ']').await;
        let focused = "return document.activeElement.textContent";
        assert_eq!(browser.run(focused).await, "Full screen");
        browser.run("[...document.querySelectorAll('#tools button')].find(b => b.textContent === 'Clipboard').click()").await;
        browser.type_in("#clipboard-text", "from here").await;
        browser.shot("clipboard").await;
        browser.click("dialog [type=submit]").await;
        assert_eq!(desktop.until(6).await, b"from here");

        // Cut, and there again.
        drop(desktop);
        let mut desktop = Desktop::open(theatre.program().await, "desk").await;
        desktop.until(3).await;
        desktop.paint([10, 20, 230]).await;
        shows_pixel(browser, [10, 20, 230]).await;
        // The policy is a terminal's, which has no pictures in its stream; a desktop's lets its cursor in.
        let mut complaints = browser.complaints().await;
        complaints.retain(|said| !said.contains("Loading the image 'data:image/png"));
        assert_eq!(complaints, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn who_only_watches_a_desktop_moves_nothing() {
    with_browser(WITH_SCRIPTS, async |browser| {
        let (_stage, _theatre, mut desktop) = watching(browser, "view", "desk").await;
        desktop.until(3).await;
        desktop.paint([200, 30, 30]).await;
        shows_pixel(browser, [200, 30, 30]).await;
        assert!(browser.sees("#mode").await);
        browser.click("#stage canvas").await;
        browser.press("a").await;
        // The next pictures are asked for, and nothing else is.
        for colour in [[30, 160, 30], [10, 20, 230], [1, 2, 3]] {
            let (kind, _) = desktop.message().await;
            assert_eq!(kind, 3);
            desktop.paint(colour).await;
            shows_pixel(browser, colour).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_desktop_that_talks_nonsense_is_left_and_tried_again() {
    with_browser(WITH_SCRIPTS, async |browser| {
        let stage = Stage::new().await;
        let mut theatre = Theatre::new(&stage).await;
        let id = stage.running(json!({"template": "shell"})).await;
        stage.log_in(browser, "/home").await;
        browser.pretend("vnc", json!({})).await;
        browser.open(&stage.url(&format!("/sessions/{id}"))).await;
        let mut program = theatre.program().await;
        program.print_bytes(&[0xff; 64]).await;
        browser.shows("#banner", "The session cannot be reached").await;
        // A name that is far too long is cut.
        let mut desktop = Desktop::open(theatre.program().await, &"x".repeat(64 * 1024)).await;
        desktop.until(3).await;
        desktop.paint([200, 30, 30]).await;
        shows_pixel(browser, [200, 30, 30]).await;
        assert_eq!(browser.attribute("#stage", "title").await.unwrap().len(), 100);
    })
    .await;
}
