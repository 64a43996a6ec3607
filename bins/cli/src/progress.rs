//! The lines that move while something is waited for.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidegate_client::{Client, Error};
use tidegate_model::{InstallStatus, InstalledApplication, Session, SessionId};

use crate::output::{Output, plain};

/// How often an installation is looked at.
const LOOK: Duration = Duration::from_millis(300);

/// Waits until `enough` says so or the session's state is final, with a line on standard error where a person looks.
pub(crate) async fn wait_for(
    client: &Client,
    output: Output,
    id: SessionId,
    enough: impl Fn(&Session) -> bool,
) -> Result<Session, Error> {
    let line = line(output);
    let session = client
        .wait_for(id, enough, |session| {
            let progress = session.platform_metadata.get("progress").and_then(|told| told.as_str());
            let progress = progress.map(|told| format!(": {}", plain(told))).unwrap_or_default();
            line.set_message(format!("session {} is {}{progress}", plain(&session.name), session.state));
        })
        .await;
    line.finish_and_clear();
    session
}

/// Waits until an installation has come to an end, with a line on standard error where a person looks.
pub(crate) async fn of_installation(
    client: &Client,
    output: Output,
    mut application: InstalledApplication,
) -> Result<InstalledApplication, Error> {
    let line = line(output);
    while matches!(application.install_status, InstallStatus::Pending | InstallStatus::Creating) {
        line.set_message(format!("{} is {}", plain(&application.display_name), application.install_status));
        tokio::time::sleep(LOOK).await;
        application = client.application(application.id).await?;
    }
    line.finish_and_clear();
    Ok(application)
}

/// A bar of lines written, of `total` where that is known; only where a person looks.
pub(crate) fn of_lines(output: Output, total: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, target(output));
    let template = match total {
        Some(_) => "{bar:30} {pos} of {len} lines ({eta})",
        None => "{spinner} {pos} lines ({elapsed})",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// A bar of bytes read, of `total` where that is known; only where a person looks.
pub(crate) fn of_bytes(output: Output, total: Option<u64>) -> ProgressBar {
    let Some(total) = total else { return ProgressBar::hidden() };
    let bar = ProgressBar::with_draw_target(Some(total), target(output));
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes}, {msg} ({eta})") {
        bar.set_style(style);
    }
    bar
}

/// Waits with a sentence on standard error where a person looks.
pub(crate) async fn until<T>(output: Output, doing: &'static str, work: impl Future<Output = T>) -> T {
    let line = line(output);
    line.set_message(doing);
    let done = work.await;
    line.finish_and_clear();
    done
}

fn target(output: Output) -> ProgressDrawTarget {
    let shown = !output.json && std::io::stderr().is_terminal();
    if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
}

fn line(output: Output) -> ProgressBar {
    let line = ProgressBar::with_draw_target(None, target(output));
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        line.set_style(style);
    }
    line.enable_steady_tick(Duration::from_millis(100));
    line
}
