//! Moves events from the stream to one client, and ends when either, or the login, is over.

use std::time::Duration;

use futures_util::{Sink, SinkExt};
use tidegate_model::{Event, EventId};
use tidegate_service::{Caller, EventStream, Nudge};
use tokio::{
    sync::oneshot,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::http::Context;

/// Longest silence: who hears nothing for a few of these knows that the server is gone, and a client that is gone is found
/// when it is written to.
const BEAT: Duration = Duration::from_secs(15);
/// How long a client may take nothing while something waits for it. It can come back with what it had last.
const STALLED: Duration = Duration::from_mins(1);
/// How long the last words may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// The wait after the database could not be read.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Longest time without a look at the login: those that other programs end are announced by nobody.
const LOOK: Duration = Duration::from_millis(750);

/// Why a client's stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The client left.
    Left,
    /// Its login, or its right to what it sees, ended.
    LoginEnded,
    /// This process stops.
    Shutdown,
    /// It took nothing, or was not heard of, for too long.
    Stalled,
}

impl Ending {
    /// One word, for logs.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::LoginEnded => "login_ended",
            Self::Shutdown => "shutdown",
            Self::Stalled => "stalled",
        }
    }

    /// What the client is told.
    pub(crate) const fn sentence(self) -> &'static str {
        match self {
            Self::Left => "",
            Self::LoginEnded => "the login that opened the stream has ended, or may do something else now",
            Self::Shutdown => "the control plane restarts, come back with the last id",
            Self::Stalled => "nothing was taken for too long, come back with the last id",
        }
    }
}

/// A client, as something that takes what is written to it at once. It takes no more while too much waits for it.
pub(super) trait Client: Sink<Self::Written> + Unpin {
    /// What is written at once.
    type Written;

    /// Some events.
    fn events(&self, events: &[Event]) -> Vec<Self::Written>;

    /// A sign of life, with the place to come back with.
    fn beat(&mut self, place: EventId) -> Vec<Self::Written>;

    /// The last words.
    fn ending(&self, ending: Ending) -> Vec<Self::Written>;

    /// Waits until something is heard of the client, and says what it is answered; `None` when it left.
    async fn heard(&mut self) -> Option<Vec<Self::Written>>;

    /// Whether it gave the sign of life that it owes.
    fn is_there(&self) -> bool;
}

/// Moves events until `stop` says why it ends, or until the client leaves.
pub(super) async fn pump<C: Client>(
    mut events: EventStream,
    mut client: C,
    mut stop: oneshot::Receiver<Ending>,
    over: CancellationToken,
) {
    let _over = over.drop_guard();
    let ending = write(&mut events, &mut client, &mut stop).await;
    tracing::debug!(ending = ending.as_str(), "a stream of events ended");
    let goodbye = async {
        for words in client.ending(ending) {
            drop(client.send(words).await);
        }
        drop(client.close().await);
    };
    // Whoever takes nothing hears no last words either.
    drop(timeout(GOODBYE, goodbye).await);
}

async fn write<C: Client>(
    events: &mut EventStream,
    client: &mut C,
    stop: &mut oneshot::Receiver<Ending>,
) -> Ending {
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let written = tokio::select! {
            why = &mut *stop => return why.unwrap_or(Ending::Left),
            // The first one is at once, and says from where on it begins.
            _ = beats.tick() => {
                if !client.is_there() {
                    return Ending::Stalled;
                }
                client.beat(events.place())
            }
            answer = client.heard() => match answer {
                Some(answer) => answer,
                None => return Ending::Left,
            },
            () = events.ready() => {
                // Outside of what is given up: work on the database is never cut half-way.
                match events.take().await {
                    Ok(taken) if taken.is_empty() => continue,
                    Ok(taken) => client.events(&taken),
                    Err(error) => {
                        tracing::debug!(error = crate::chain(&error), "events were not read, tried again");
                        tokio::select! {
                            why = &mut *stop => return why.unwrap_or(Ending::Left),
                            () = sleep(AFTER_FAILURE) => continue,
                        }
                    }
                }
            }
        };
        for piece in written {
            tokio::select! {
                why = &mut *stop => return why.unwrap_or(Ending::Left),
                sent = timeout(STALLED, client.send(piece)) => match sent {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Ending::Left,
                    Err(_) => return Ending::Stalled,
                },
            }
        }
    }
}

/// Looks at the client's login again and again until the stream is over, and says why it must end.
pub(crate) async fn watch(
    context: Context,
    caller: Caller,
    stop: oneshot::Sender<Ending>,
    over: CancellationToken,
) {
    let mut nudges = context.services.nudges().subscribe();
    let why = loop {
        tokio::select! {
            () = over.cancelled() => return,
            () = context.shutdown.cancelled() => break Ending::Shutdown,
            _ = timeout(LOOK, Nudge::revalidation(&mut nudges)) => {}
        }
        // Outside of the select: work on the database is never cut half-way.
        match context.services.logins.still_stands(&caller).await {
            Ok(true) => {}
            Ok(false) => break Ending::LoginEnded,
            // An outage ends no stream: it took nobody's rights away.
            Err(error) => tracing::debug!(error = crate::chain(&error), "a login was not looked at"),
        }
    };
    // The stream may just have ended by itself.
    let _ = stop.send(why);
}
