//! What a session printed: the last 1 MiB, the screen, who reads it and how far each one is.
//!
//! One thread fills it from the PTY and is held back here when every reader is 1 MiB behind; nothing else waits.

use std::{
    collections::HashMap,
    num::NonZeroU16,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::watch;

use super::{ring::Ring, screen::Screen, wire::CHUNK};
use crate::platform::Exit;

/// Output kept: what a viewer may lag behind, and what a late one of logs still gets.
pub(crate) const KEPT: usize = 1024 * 1024;
/// What the ring holds: room for what is still in the PTY when a program ends before a paused reader goes on.
const RING: usize = KEPT + 4 * CHUNK;
/// How far the screen may lag before output is passed over instead of drawn.
const OUTRUN: usize = 512 * 1024;
/// Most cells of a screen: bounds what a viewer's resize can make the shim hold.
const MAX_CELLS: u32 = 100_000;

/// What a reader does when it has fallen out of the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lagging {
    /// Gets the screen as one repaint: a terminal.
    Repaint,
    /// Goes on with the oldest byte kept: logs.
    Skip,
}

/// What a reader gets next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// These bytes.
    Bytes(Bytes),
    /// Nothing yet.
    Wait,
    /// Nothing more, ever.
    End(Exit),
}

struct Reader {
    position: u64,
    lagging: Lagging,
    repaint: bool,
    /// Where it went on after bytes that nobody kept for it.
    skipped_to: Option<u64>,
}

struct State {
    ring: Ring,
    readers: HashMap<u64, Reader>,
    next_reader: u64,
    /// Until then the first reader is waited for, as if it were attached and had read nothing.
    hold_until: Option<Instant>,
    /// The program is to end: it is never held back again.
    hurry: bool,
    /// Columns and rows.
    size: (u16, u16),
    exit: Option<Exit>,
}

/// The output of one session.
pub(super) struct Output {
    state: Mutex<State>,
    room: Condvar,
    grown: Condvar,
    changed: watch::Sender<()>,
    /// Locked before `state` where both are.
    screen: Mutex<Screen>,
}

impl Output {
    pub(super) fn new(cols: u16, rows: u16, hold: Duration) -> Self {
        let (rows, cols) = sides(cols, rows);
        let state = State {
            ring: Ring::new(RING),
            readers: HashMap::new(),
            next_reader: 0,
            hold_until: Some(Instant::now() + hold).filter(|_| !hold.is_zero()),
            hurry: false,
            size: (cols.get(), rows.get()),
            exit: None,
        };
        Self {
            state: Mutex::new(state),
            room: Condvar::new(),
            grown: Condvar::new(),
            changed: watch::Sender::new(()),
            screen: Mutex::new(Screen::new(rows, cols)),
        }
    }

    /// Told whenever there may be something for a reader.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Adds what the program printed. Waits first for as long as every reader is a whole ring behind.
    pub(super) fn append(&self, bytes: &[u8]) {
        let mut state = self.lock();
        while let Some(wait) = state.held_back(bytes.len()) {
            state = self.room.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.ring.append(bytes);
        drop(state);
        self.grown.notify_one();
        self.changed.send_replace(());
    }

    /// Lets the program run to its end whatever readers do.
    pub(super) fn hurry(&self) {
        self.lock().hurry = true;
        self.room.notify_all();
    }

    /// The program ended and everything it printed was appended. Answers what is kept, and the exit with its offset.
    pub(super) fn finish(&self, mut exit: Exit) -> (Bytes, Exit) {
        let mut state = self.lock();
        exit.output_start = state.ring.start().max(state.ring.end().saturating_sub(KEPT as u64));
        state.exit = Some(exit.clone());
        let kept = state.ring.read(exit.output_start, KEPT);
        drop(state);
        self.grown.notify_all();
        self.changed.send_replace(());
        (kept, exit)
    }

    /// Whether anybody reads.
    pub(super) fn has_readers(&self) -> bool {
        !self.lock().readers.is_empty()
    }

    /// A terminal viewer: the screen first, then live bytes.
    pub(super) fn attach_terminal(&self) -> u64 {
        self.attach(|state| (state.ring.end(), Lagging::Repaint))
    }

    /// A reader of logs, from this offset on or the oldest kept.
    pub(super) fn attach_logs(&self, after: u64) -> (u64, u64) {
        let mut from = after;
        let id = self.attach(|state| {
            from = after.clamp(state.ring.start(), state.ring.end());
            (from, Lagging::Skip)
        });
        (id, from)
    }

    fn attach(&self, place: impl FnOnce(&State) -> (u64, Lagging)) -> u64 {
        let mut state = self.lock();
        let (position, lagging) = place(&state);
        let id = state.next_reader;
        state.next_reader += 1;
        state.hold_until = None;
        let repaint = lagging == Lagging::Repaint;
        state.readers.insert(id, Reader { position, lagging, repaint, skipped_to: None });
        drop(state);
        self.room.notify_all();
        id
    }

    /// The reader is gone.
    pub(super) fn detach(&self, id: u64) {
        self.lock().readers.remove(&id);
        self.room.notify_all();
        self.changed.send_replace(());
    }

    /// The next bytes of a reader, at most [`CHUNK`] unless they are a repaint.
    pub(super) fn next(&self, id: u64) -> Next {
        if let Some(bytes) = self.repaint_for(id) {
            self.room.notify_all();
            return Next::Bytes(bytes);
        }
        let mut state = self.lock();
        let State { ring, readers, exit, .. } = &mut *state;
        let Some(reader) = readers.get_mut(&id) else { return Next::Wait };
        if reader.position < ring.start() && reader.lagging == Lagging::Skip {
            reader.position = ring.start();
            reader.skipped_to = Some(reader.position);
        }
        let next = if reader.position < ring.start() {
            // It fell behind just now: the next call repaints.
            Next::Bytes(Bytes::new())
        } else if reader.position < ring.end() {
            let bytes = ring.read(reader.position, CHUNK);
            reader.position += bytes.len() as u64;
            Next::Bytes(bytes)
        } else {
            exit.clone().map_or(Next::Wait, Next::End)
        };
        drop(state);
        self.room.notify_all();
        next
    }

    /// Where the last bytes of a reader of logs begin, if some before them were not kept for it. Said once.
    pub(super) fn skipped_to(&self, id: u64) -> Option<u64> {
        self.lock().readers.get_mut(&id)?.skipped_to.take()
    }

    /// Columns and rows.
    pub(super) fn size(&self) -> (u16, u16) {
        self.lock().size
    }

    /// The screen, for a reader that is to get it instead of the bytes before.
    fn repaint_for(&self, id: u64) -> Option<Bytes> {
        let wanted = |state: &State| {
            let reader = state.readers.get(&id)?;
            let fell_behind = reader.lagging == Lagging::Repaint && reader.position < state.ring.start();
            (reader.repaint || fell_behind).then(|| state.ring.end())
        };
        let end = wanted(&self.lock())?;
        let mut screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        while screen.shown < end {
            self.show_more(&mut screen);
        }
        let mut state = self.lock();
        let reader = state.readers.get_mut(&id)?;
        reader.repaint = false;
        reader.position = screen.shown;
        Some(screen.repaint())
    }

    /// Follows the output with the screen, on a thread of its own, until the session ended.
    pub(super) fn follow_screen(&self) {
        loop {
            let mut screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
            self.show_more(&mut screen);
            let shown = screen.shown;
            drop(screen);
            let mut state = self.lock();
            while state.ring.end() == shown {
                if state.exit.is_some() {
                    return;
                }
                state = self.grown.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// One step of the screen towards the end of the output.
    fn show_more(&self, screen: &mut Screen) {
        let state = self.lock();
        let (start, end) = (state.ring.start(), state.ring.end());
        // Only where nobody followed for a whole ring.
        screen.shown = screen.shown.max(start);
        if end - screen.shown > OUTRUN as u64 {
            let length = usize::try_from(end - screen.shown).unwrap_or(RING).saturating_sub(CHUNK);
            let bytes = state.ring.read(screen.shown, length);
            drop(state);
            screen.pass_over(&bytes);
        } else {
            let bytes = state.ring.read(screen.shown, CHUNK / 4);
            drop(state);
            screen.show(&bytes);
        }
    }

    /// The screen's new size; answers the size it really has.
    pub(super) fn resize(&self, cols: u16, rows: u16) -> (u16, u16) {
        let (rows, cols) = sides(cols, rows);
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).resize(rows, cols);
        self.lock().size = (cols.get(), rows.get());
        self.changed.send_replace(());
        (cols.get(), rows.get())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How long to wait before asking again whether `more` bytes may be added; `None` when they may.
    fn held_back(&self, more: usize) -> Option<Duration> {
        if self.hurry {
            return None;
        }
        let hold = self.hold_until.and_then(|until| until.checked_duration_since(Instant::now()));
        let furthest = match (self.readers.values().map(|reader| reader.position).max(), hold) {
            (Some(position), _) => position,
            (None, Some(_)) => 0,
            (None, None) => return None,
        };
        let lag = self.ring.end() + more as u64 - furthest.min(self.ring.end());
        (lag > KEPT as u64).then(|| hold.unwrap_or(Duration::from_hours(1)))
    }
}

/// Rows and columns within bounds.
fn sides(cols: u16, rows: u16) -> (NonZeroU16, NonZeroU16) {
    let cols = NonZeroU16::new(cols).unwrap_or(NonZeroU16::MIN);
    let most = u16::try_from(MAX_CELLS / u32::from(cols.get())).unwrap_or(u16::MAX);
    let rows = NonZeroU16::new(rows.min(most)).unwrap_or(NonZeroU16::MIN);
    (rows, cols)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn output() -> Output {
        Output::new(80, 24, Duration::ZERO)
    }

    fn read(output: &Output, id: u64) -> Vec<u8> {
        let mut all = Vec::new();
        while let Next::Bytes(bytes) = output.next(id) {
            all.extend_from_slice(&bytes);
        }
        all
    }

    #[test]
    fn without_readers_the_program_runs_on_and_memory_stays_bounded() {
        let output = output();
        for _ in 0..40 {
            output.append(&vec![b'x'; CHUNK]);
        }
        let state = output.lock();
        assert_eq!(
            (state.ring.end() - state.ring.start(), state.ring.end()),
            (RING as u64, 40 * CHUNK as u64)
        );
    }

    #[test]
    fn a_new_viewer_gets_the_screen_and_then_live_bytes() {
        let output = output();
        output.append(b"hello\r\n");
        let viewer = output.attach_terminal();
        let first = String::from_utf8(read(&output, viewer)).unwrap();
        assert!(first.contains("hello") && first.contains("\x1b[2J"), "{first:?}");
        output.append(b"world");
        assert_eq!(read(&output, viewer), b"world");
    }

    #[test]
    fn a_lagging_viewer_is_skipped_with_a_repaint_while_another_reads() {
        let output = output();
        let (slow, fast) = (output.attach_terminal(), output.attach_terminal());
        let _ = (read(&output, slow), read(&output, fast));
        for _ in 0..40 {
            output.append(&vec![b'.'; CHUNK]);
            assert_eq!(read(&output, fast).len(), CHUNK);
        }
        output.append(b"\x1b[2J\x1b[Hlast screen");
        let caught_up = read(&output, slow);
        assert!(caught_up.len() < CHUNK && String::from_utf8_lossy(&caught_up).contains("last screen"));
    }

    #[test]
    fn the_last_reader_paces_the_program_and_loses_nothing() {
        let output = Arc::new(output());
        let (reader, _) = output.attach_logs(0);
        let writer = {
            let output = Arc::clone(&output);
            std::thread::spawn(move || {
                for index in 0..40_u8 {
                    output.append(&vec![index; CHUNK]);
                }
                output.finish(Exit {
                    code: 0,
                    signal: None,
                    output_start: 0,
                    at: chrono::DateTime::UNIX_EPOCH,
                })
            })
        };
        let (mut all, mut changes) = (Vec::new(), 0);
        loop {
            match output.next(reader) {
                Next::Bytes(bytes) => all.extend_from_slice(&bytes),
                Next::Wait => changes += 1,
                Next::End(_) => break,
            }
            std::thread::yield_now();
        }
        writer.join().unwrap();
        let expected: Vec<u8> = (0..40_u8).flat_map(|index| vec![index; CHUNK]).collect();
        assert!(all == expected, "lost something after {changes} waits");
    }

    #[test]
    fn a_reader_that_goes_or_a_hurry_frees_the_program() {
        for free in [Output::hurry as fn(&Output), |output| output.detach(0)] {
            let output = Arc::new(output());
            assert_eq!(output.attach_logs(0).0, 0);
            let writer = {
                let output = Arc::clone(&output);
                std::thread::spawn(move || (0..40).for_each(|_| output.append(&vec![b'x'; CHUNK])))
            };
            free(&output);
            writer.join().unwrap();
        }
    }

    #[test]
    fn the_first_reader_of_a_command_is_waited_for() {
        let output = Arc::new(Output::new(80, 24, Duration::from_hours(1)));
        let writer = {
            let output = Arc::clone(&output);
            std::thread::spawn(move || {
                (0..40).for_each(|_| output.append(&vec![b'x'; CHUNK]));
                output.finish(Exit {
                    code: 0,
                    signal: None,
                    output_start: 0,
                    at: chrono::DateTime::UNIX_EPOCH,
                });
            })
        };
        let (reader, mut length) = (output.attach_logs(0).0, 0);
        loop {
            match output.next(reader) {
                Next::Bytes(bytes) => length += bytes.len(),
                Next::Wait => std::thread::yield_now(),
                Next::End(_) => break,
            }
        }
        writer.join().unwrap();
        assert_eq!(length, 40 * CHUNK);
    }

    #[test]
    fn a_huge_window_is_cut_to_what_a_shim_may_hold() {
        assert_eq!(output().resize(1_000, 1_000), (1_000, 100));
        assert_eq!(output().resize(0, 0), (1, 1));
    }
}
