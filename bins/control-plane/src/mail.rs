//! Sends the mails that wait, when a nudge says that there is one and every few seconds besides.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use tidegate_service::{Mails, Nudge, Post};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{Config, Error, http::Origin};

/// How often it looks without a nudge: for what other control planes were told of, and for what is tried again.
const PERIOD: Duration = Duration::from_secs(10);

/// What carries the mails of a server that listens there.
pub(crate) fn post(config: &Config, scheme: &str, address: SocketAddr) -> Result<Post, Error> {
    let public = config.public_url.as_deref().and_then(Origin::of_url);
    let base =
        public.map_or_else(|| format!("{scheme}://{}", reachable(address)), |origin| origin.to_string());
    config.mail.open(&config.data_dir(), &base).map_err(|errors| Error::Setting(errors.to_string()))
}

/// Where this very machine reaches the address.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    address
}

/// The task that sends.
pub(crate) struct Sender {
    pub(crate) mails: Mails,
    pub(crate) post: Post,
    pub(crate) nudges: Receiver<Nudge>,
}

impl Sender {
    /// Sends until `shutdown`. What could not be sent then is sent later, by whoever is there.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = nudged(&mut self.nudges) => {}
                () = shutdown.cancelled() => return,
            }
            // Outside of the select: work on the database is never cut half-way.
            while !shutdown.is_cancelled() {
                match self.mails.send_due(&self.post, &shutdown).await {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(error = crate::chain(&error), "mails wait, tried again later");
                        break;
                    }
                }
            }
        }
    }
}

/// Waits until there may be a mail.
async fn nudged(nudges: &mut Receiver<Nudge>) {
    loop {
        match nudges.recv().await {
            Ok(Nudge::Mail) | Err(RecvError::Lagged(_)) => return,
            Ok(
                Nudge::Commands(_)
                | Nudge::Revoked(_)
                | Nudge::SessionEnded(_)
                | Nudge::Revalidate
                | Nudge::Plugins
                | Nudge::Installation,
            ) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_stands_for_all_is_reached_as_this_machine() {
        let reached = |address: &str| reachable(address.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:8080"), "127.0.0.1:8080");
        assert_eq!(reached("[::]:8080"), "127.0.0.1:8080");
        assert_eq!(reached("192.0.2.1:80"), "192.0.2.1:80");
    }
}
