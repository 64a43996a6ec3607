//! The line that moves while something is waited for: on standard error, and only where a person looks.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidegate_service::SyncStep;

/// A line that says what is being done.
pub(crate) fn line(as_json: bool, doing: impl Into<String>) -> ProgressBar {
    let shown = !as_json && std::io::stderr().is_terminal();
    let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let line = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        line.set_style(style);
    }
    line.set_message(doing.into());
    line.enable_steady_tick(Duration::from_millis(100));
    line
}

/// Waits with a sentence.
pub(crate) async fn until<T>(as_json: bool, doing: String, work: impl Future<Output = T>) -> T {
    let line = line(as_json, doing);
    let done = work.await;
    line.finish_and_clear();
    done
}

/// How far a sync is, in words.
pub(crate) fn of_sync(step: SyncStep) -> String {
    match step {
        SyncStep::Fetching { bytes } => format!("fetching, {} KiB", bytes / 1024),
        SyncStep::Listing { files } => format!("listing, {files} files"),
        SyncStep::Reading { done, of } => format!("reading, {done} of {of} manifests"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_of_a_sync_is_told_in_words() {
        let told = [
            SyncStep::Fetching { bytes: 2_048 },
            SyncStep::Listing { files: 7 },
            SyncStep::Reading { done: 3, of: 9 },
        ];
        assert_eq!(told.map(of_sync), ["fetching, 2 KiB", "listing, 7 files", "reading, 3 of 9 manifests"]);
    }
}
