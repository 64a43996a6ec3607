//! Mails: asked for in the transaction of what they are about, sent from the outbox afterwards, at least once.
//!
//! Of several control planes one sends a mail at a time: a claim is a lease, and every later write compares the number of
//! the try. A crash between sending and writing that down sends it once more, under the same Message-ID.

mod forgotten;
mod invitation;
mod letter;
mod mailer;
mod options;
mod outbox;
mod smtp;

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use lettre::message::Mailbox;
use metrics::counter;
use tidegate_model::{MailId, MailStatus};
use tidegate_persistence::{
    Error as DbError, Operator, PlatformTx,
    mail::{self, DueMail},
    password_reset::{self, DueReset},
};
use tokio_util::sync::CancellationToken;

use self::letter::Content;
use crate::{Core, PasswordResets, Result};

pub use letter::Letter;
pub use mailer::{MailError, Mailer, Sending};
pub use options::{MailOptions, SmtpOptions, SmtpTls};
pub use outbox::FileOutbox;

/// Mails that one control plane sends at one time.
const BATCH: i64 = 4;
/// Tries of one mail at most.
const TRIES: i32 = 8;
/// How long it is tried at most.
const AGE: TimeDelta = TimeDelta::hours(24);
/// The same of a forgotten password: whoever waits for it does so now.
const RESET_AGE: TimeDelta = TimeDelta::hours(1);
/// How much longer than its try a mail is nobody else's: time to write down what became of it.
const MARGIN: u64 = 60;
/// How long a try goes on when the control plane stops.
const GRACE: Duration = Duration::from_secs(5);

/// What mails need beside their rows: who carries them, whom they are from, where their links lead.
#[derive(Debug, Clone)]
pub struct Post {
    mailer: Arc<dyn Mailer>,
    from: Mailbox,
    base: String,
    patience: u64,
}

impl Post {
    /// The same with somebody else to carry the mails.
    #[must_use]
    pub fn with_mailer(self, mailer: Arc<dyn Mailer>) -> Self {
        Self { mailer, ..self }
    }

    /// What carries the mails, for people.
    pub fn describe(&self) -> String {
        self.mailer.describe()
    }

    /// Whether it would take a mail now.
    pub async fn check(&self) -> Result<(), MailError> {
        self.in_time(self.mailer.check()).await
    }

    /// Sends a mail that says that mails arrive.
    pub async fn test(&self, to: &str, now: DateTime<Utc>) -> Result<(), MailError> {
        let text = "Mails of this Tidegate arrive.\n".to_owned();
        let html =
            "<!doctype html>\n<html lang=\"en\"><body><p>Mails of this Tidegate arrive.</p></body></html>\n";
        let content = Content {
            id: MailId::new(),
            to,
            subject: "Test of Tidegate's mail".into(),
            text,
            html: html.into(),
            at: now,
        };
        let letter = Letter::new(&self.from, content)?;
        self.in_time(self.mailer.send(&letter)).await
    }

    async fn in_time(&self, work: Sending<'_>) -> Result<(), MailError> {
        let late = |_| MailError::Passing(format!("it took longer than {} s", self.patience));
        tokio::time::timeout(Duration::from_secs(self.patience), work).await.map_err(late).flatten()
    }

    fn lease(&self) -> TimeDelta {
        TimeDelta::seconds(i64::try_from(self.patience + MARGIN).unwrap_or(i64::from(i32::MAX)))
    }
}

/// Mails that wait to be sent.
#[derive(Debug, Clone)]
pub struct Mails(pub(crate) Arc<Core>);

/// What became of one try.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Sent,
    Dropped(&'static str),
    PutOff(String),
    Failed(String),
}

impl Mails {
    /// Sends some of the mails that are due, all at one time, and writes down what became of each. Returns how many were
    /// due: more may be, until it is none. When `stop` is cancelled, tries are given up after a moment, and made again
    /// later by somebody else.
    pub async fn send_due(&self, post: &Post, stop: &CancellationToken) -> Result<usize> {
        let (core, system) = (&self.0, Operator::system());
        let now = core.clock.now();
        let lease = now + post.lease();
        let (due, resets) = core
            .db
            .in_platform(&system, async |tx| {
                let due = mail::claim(tx, now, lease, BATCH).await?;
                Ok::<_, DbError>((due, password_reset::claim(tx, now, lease, BATCH).await?))
            })
            .await?;
        let count = due.len() + resets.len();
        let due = due.into_iter().map(|due| self.deliver(post, stop, Due::Invite(Box::new(due))));
        let resets = resets.into_iter().map(|due| self.deliver(post, stop, Due::Reset(due)));
        let (sent, told) = futures_util::future::join(join_all(due), join_all(resets)).await;
        for written in sent.into_iter().chain(told) {
            written?;
        }
        Ok(count)
    }

    async fn deliver(&self, post: &Post, stop: &CancellationToken, due: Due) -> Result<()> {
        let outcome = match &due {
            Due::Invite(due) => attempt(post, stop, due, self.0.clock.now()).await,
            Due::Reset(due) => self.attempt_reset(post, stop, due).await?,
        };
        let now = self.0.clock.now();
        let outcome = match outcome {
            Outcome::PutOff(reason) if due.is_last(now) => Outcome::Failed(reason),
            other => other,
        };
        self.write(&due, &outcome, now).await?;
        let label = match &outcome {
            Outcome::Sent => "sent",
            Outcome::Dropped(_) => "dropped",
            Outcome::PutOff(_) => "put_off",
            Outcome::Failed(reason) => {
                tracing::warn!(mail = %due.name(), reason, "a mail was given up");
                "failed"
            }
        };
        counter!("tidegate_mails_total", "outcome" => label).increment(1);
        Ok(())
    }

    /// Makes the link, and tries to send it. Nobody hears whether there was anybody to send it to.
    async fn attempt_reset(&self, post: &Post, stop: &CancellationToken, due: &DueReset) -> Result<Outcome> {
        if due.attempt > TRIES || self.0.clock.now() - due.created_at > RESET_AGE {
            return Ok(Outcome::Failed("it was tried often enough and never said to be sent".into()));
        }
        let Some(armed) = PasswordResets(Arc::clone(&self.0)).arm(due).await? else {
            return Ok(Outcome::Dropped("nobody of this name sets a password by mail"));
        };
        Ok(match forgotten::letter(post, &armed, self.0.clock.now()) {
            Ok(letter) => send(post, stop, &letter).await,
            Err(error) => Outcome::Failed(error.reason()),
        })
    }

    async fn write(&self, due: &Due, outcome: &Outcome, now: DateTime<Utc>) -> Result<()> {
        let system = Operator::system();
        let (status, reason) = match outcome {
            Outcome::PutOff(reason) => {
                let (reason, again) = (reason.clone(), now + wait(due.attempt()));
                let put_off = async |tx: &mut PlatformTx| match due {
                    Due::Invite(due) => mail::postpone(tx, (due.id, due.attempt), reason, again).await,
                    Due::Reset(due) => {
                        password_reset::postpone(tx, (due.id, due.attempt), reason, again).await
                    }
                };
                return Ok(self.0.db.in_platform(&system, put_off).await?);
            }
            Outcome::Sent => (MailStatus::Sent, None),
            Outcome::Dropped(reason) => (MailStatus::Dropped, Some((*reason).to_owned())),
            Outcome::Failed(reason) => (MailStatus::Failed, Some(reason.clone())),
        };
        let finish = async |tx: &mut PlatformTx| match due {
            Due::Invite(due) => mail::finish(tx, (due.id, due.attempt), status, reason, now).await,
            Due::Reset(due) => password_reset::finish(tx, (due.id, due.attempt), status, reason, now).await,
        };
        if !self.0.db.in_platform(&system, finish).await? {
            tracing::debug!(mail = %due.name(), "a mail's try ended after its lease");
        }
        Ok(())
    }
}

/// A mail that was claimed.
enum Due {
    Invite(Box<DueMail>),
    Reset(DueReset),
}

impl Due {
    fn attempt(&self) -> i32 {
        match self {
            Self::Invite(due) => due.attempt,
            Self::Reset(due) => due.attempt,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Invite(due) => due.id.to_string(),
            Self::Reset(due) => due.id.to_string(),
        }
    }

    /// Whether no other try is made after this one.
    fn is_last(&self, now: DateTime<Utc>) -> bool {
        let (created_at, age) = match self {
            Self::Invite(due) => (due.created_at, AGE),
            Self::Reset(due) => (due.created_at, RESET_AGE),
        };
        self.attempt() >= TRIES || now + wait_about(self.attempt()) - created_at > age
    }
}

/// Decides whether a mail goes out, and tries to send it. No transaction is open meanwhile.
async fn attempt(post: &Post, stop: &CancellationToken, due: &DueMail, now: DateTime<Utc>) -> Outcome {
    if !due.open {
        return Outcome::Dropped("the invite was answered, taken back or has expired");
    }
    let Some(to) = &due.to else {
        return Outcome::Dropped("nobody of this name has an address");
    };
    // Past its tries without an end: whoever tried last did not live to say what became of it.
    if due.attempt > TRIES || now - due.created_at > AGE {
        return Outcome::Failed("it was tried often enough and never said to be sent".into());
    }
    let letter = match invitation::letter(post, due, to) {
        Ok(letter) => letter,
        Err(error) => return Outcome::Failed(error.reason()),
    };
    send(post, stop, &letter).await
}

async fn send(post: &Post, stop: &CancellationToken, letter: &Letter) -> Outcome {
    let sent = tokio::select! {
        sent = post.in_time(post.mailer.send(letter)) => sent,
        () = stopped(stop) => Err(MailError::Passing("the control plane was stopped".into())),
    };
    match sent {
        Ok(()) => Outcome::Sent,
        Err(error @ MailError::Passing(_)) => Outcome::PutOff(error.reason()),
        Err(error @ MailError::Final(_)) => Outcome::Failed(error.reason()),
    }
}

async fn stopped(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(GRACE).await;
}

/// How long to wait after a try: a minute, then four times as long each time, four hours at most.
fn wait_about(attempt: i32) -> TimeDelta {
    let power = u32::try_from(attempt - 1).unwrap_or(0).min(5);
    TimeDelta::minutes(4_i64.pow(power).min(240))
}

/// The same, a quarter more or less, so that what failed together is not tried together.
fn wait(attempt: i32) -> TimeDelta {
    wait_about(attempt) * rand::random_range(75..=125) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_tries_come_less_and_less_often_and_end_within_a_day() {
        let about: Vec<i64> = (1..=7).map(|attempt| wait_about(attempt).num_minutes()).collect();
        assert_eq!(about, [1, 4, 16, 64, 240, 240, 240]);
        assert!(TimeDelta::minutes(about.iter().sum::<i64>() * 125 / 100) < AGE);
        for attempt in 1..=9 {
            let (about, jittered) = (wait_about(attempt), wait(attempt));
            assert!(jittered >= about * 75 / 100 && jittered <= about * 125 / 100, "{attempt}");
        }
    }
}
