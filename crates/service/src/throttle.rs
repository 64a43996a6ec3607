//! Limits on attempts. They count failures: a valid credential from the same address goes on working.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use chrono::{DateTime, TimeDelta, Utc};
use tidegate_model::{Clock, UserId};

use crate::{Error, Options, Result};

/// Keys kept before those that recovered are dropped.
const KEYS: usize = 100_000;
/// Networks remembered of one name; the one not used for longest gives way.
const NETWORKS: usize = 16;
/// How many networks' failures a whole site may make: who has many networks is still one neighbour.
const SITE: u32 = 5;

/// A name that somebody tried, as a number: no name of theirs is kept, however long it is.
type Subject = u64;

#[derive(Debug)]
pub(crate) struct Throttle {
    /// Wrong keys and tokens. These cost one probe each, so the right one is let in whatever came before it.
    keys: Failures<IpAddr>,
    /// Devices that a source asked for: each is a row.
    devices: Failures<IpAddr>,
    device_sites: Failures<IpAddr>,
    /// Agents that a source registered: each is a row that an operator has to look at.
    registrations: Failures<IpAddr>,
    /// Sign-ins elsewhere that a source began: each is a row.
    sign_ins: Failures<IpAddr>,
    /// Forgotten passwords that a source asked for, and those of a name: each is a row, and may be a mail.
    reset_sources: Failures<IpAddr>,
    reset_sites: Failures<IpAddr>,
    reset_subjects: Failures<Subject>,
    /// Wrong user codes of a source, and of a user: too few for guessing one of those that wait.
    code_sources: Failures<IpAddr>,
    code_users: Failures<UserId>,
    /// Wrong passwords of a source. These cost a hash each, and are refused before it.
    sources: Failures<IpAddr>,
    /// Wrong passwords of an IPv6 site, which has 2^16 networks and more.
    sites: Failures<IpAddr>,
    /// Right passwords of a name from one source: each costs a hash and a row, too.
    logins: Failures<(Option<IpAddr>, Subject)>,
    /// Wrong passwords for a name, from wherever.
    subjects: Failures<Subject>,
    /// Wrong passwords for a name, from where it has logged in before.
    familiar: Failures<(IpAddr, Subject)>,
    /// Names of nobody that somebody wanted to make members.
    lookups: Failures<UserId>,
    /// Who logged in from where. Others who fail behind the same address, or who fail on this name elsewhere, do not
    /// lock them out.
    known: Mutex<HashMap<Subject, Vec<(IpAddr, DateTime<Utc>)>>>,
    remembered: TimeDelta,
    hasher: RandomState,
}

impl Throttle {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            keys: Failures::per_minute(options.failures_per_source),
            devices: Failures::per_minute(options.device_codes_per_source),
            device_sites: Failures::per_minute(options.device_codes_per_source.saturating_mul(SITE)),
            registrations: Failures::per_minute(options.registrations_per_source),
            sign_ins: Failures::per_minute(options.sign_ins_per_source),
            reset_sources: Failures::per_hour(options.password_resets_per_source),
            reset_sites: Failures::per_hour(options.password_resets_per_source.saturating_mul(SITE)),
            reset_subjects: Failures::per_hour(options.password_resets_per_subject),
            code_sources: Failures::per_minute(options.wrong_user_codes),
            code_users: Failures::per_minute(options.wrong_user_codes),
            sources: Failures::per_minute(options.failures_per_source),
            sites: Failures::per_minute(options.failures_per_source.saturating_mul(SITE)),
            logins: Failures::per_minute(options.logins_per_minute),
            subjects: Failures::per_minute(options.failures_per_subject),
            familiar: Failures::per_minute(options.failures_per_subject),
            lookups: Failures::per_minute(options.failures_per_subject),
            known: Mutex::default(),
            remembered: Options::seconds(options.login_days * 86_400),
            hasher: RandomState::new(),
        }
    }

    /// Counts a wrong key or token of a source; the answer is 429 once there were too many.
    pub(crate) fn failure(&self, source: Option<IpAddr>, now: DateTime<Utc>) -> Result<()> {
        let Some(source) = source.map(network) else { return Ok(()) };
        self.keys.allows(&source, now)?;
        self.keys.count(source, now);
        Ok(())
    }

    /// Whether one more wrong key of a source could be paid for: asked before a key costs more than a probe.
    pub(crate) fn allows_key(&self, source: Option<IpAddr>, now: DateTime<Utc>) -> Result<()> {
        source.map(network).map_or(Ok(()), |source| self.keys.allows(&source, now))
    }

    /// Counts a device that a source asks for; the answer is 429 once there were too many.
    pub(crate) fn device_code(&self, source: Option<IpAddr>, now: DateTime<Utc>) -> Result<()> {
        let Some(source) = source.map(network) else { return Ok(()) };
        self.devices.allows(&source, now)?;
        self.device_sites.allows(&site(source), now)?;
        self.devices.count(source, now);
        self.device_sites.count(site(source), now);
        Ok(())
    }

    /// Counts an agent that a source registers; the answer is 429 once there were too many.
    pub(crate) fn registration(&self, source: Option<IpAddr>, now: DateTime<Utc>) -> Result<()> {
        let Some(source) = source.map(network) else { return Ok(()) };
        self.registrations.allows(&source, now)?;
        self.registrations.count(source, now);
        Ok(())
    }

    /// Counts a sign-in elsewhere that a source begins; the answer is 429 once there were too many.
    pub(crate) fn sign_in(&self, source: Option<IpAddr>, now: DateTime<Utc>) -> Result<()> {
        let Some(source) = source.map(network) else { return Ok(()) };
        self.sign_ins.allows(&source, now)?;
        self.sign_ins.count(source, now);
        Ok(())
    }

    /// Counts a forgotten password that a source asks for; the answer is 429 once there were too many of the source, or of
    /// the name, whether it is somebody's or not.
    pub(crate) fn password_reset(
        &self,
        subject: &str,
        source: Option<IpAddr>,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let (source, subject) = (source.map(network), self.hasher.hash_one(subject.to_lowercase()));
        if let Some(source) = source {
            self.reset_sources.allows(&source, now)?;
            self.reset_sites.allows(&site(source), now)?;
        }
        self.reset_subjects.allows(&subject, now)?;
        if let Some(source) = source {
            self.reset_sources.count(source, now);
            self.reset_sites.count(site(source), now);
        }
        self.reset_subjects.count(subject, now);
        Ok(())
    }

    /// Whether one more user code may be tried: asked before any is looked up.
    pub(crate) fn allows_user_code(
        &self,
        source: Option<IpAddr>,
        user: UserId,
        now: DateTime<Utc>,
    ) -> Result<()> {
        source.map(network).map_or(Ok(()), |source| self.code_sources.allows(&source, now))?;
        self.code_users.allows(&user, now)
    }

    /// A user code was wrong.
    pub(crate) fn wrong_user_code(&self, source: Option<IpAddr>, user: UserId, now: DateTime<Utc>) {
        if let Some(source) = source.map(network) {
            self.code_sources.count(source, now);
        }
        self.code_users.count(user, now);
    }

    /// Whether somebody may ask for one more user by name.
    pub(crate) fn allows_lookup(&self, who: UserId, now: DateTime<Utc>) -> Result<()> {
        self.lookups.allows(&who, now)
    }

    /// Somebody asked for a user who is not there.
    pub(crate) fn lookup_failed(&self, who: UserId, now: DateTime<Utc>) {
        self.lookups.count(who, now);
    }

    /// An attempt at a name's password.
    pub(crate) fn attempt(
        self: &Arc<Self>,
        username: &str,
        source: Option<IpAddr>,
        clock: Arc<dyn Clock>,
    ) -> Attempt {
        let subject = self.hasher.hash_one(username.to_lowercase());
        Attempt { throttle: Arc::clone(self), clock, subject, source: source.map(network) }
    }

    fn knows(&self, who: &(IpAddr, Subject), now: DateTime<Utc>) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&who.1).is_some_and(|networks| {
            networks.iter().any(|(network, since)| *network == who.0 && now - *since < self.remembered)
        })
    }

    fn remember(&self, who: (IpAddr, Subject), now: DateTime<Utc>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEYS && !known.contains_key(&who.1) {
            // Only names that have logged in stand here. Whoever is forgotten is a stranger until the next login.
            if let Some(some) = known.keys().next().copied() {
                known.remove(&some);
            }
        }
        let networks = known.entry(who.1).or_default();
        networks.retain(|(network, since)| *network != who.0 && now - *since < self.remembered);
        if networks.len() >= NETWORKS {
            networks.remove(0);
        }
        networks.push((who.0, now));
    }
}

/// One attempt at a password.
#[derive(Debug)]
pub(crate) struct Attempt {
    throttle: Arc<Throttle>,
    clock: Arc<dyn Clock>,
    subject: Subject,
    source: Option<IpAddr>,
}

impl Attempt {
    /// Refuses it where there were too many failures. Asked before any hashing, and again when it is this one's turn.
    pub(crate) fn allowed(&self) -> Result<()> {
        let (throttle, now) = (&self.throttle, self.clock.now());
        throttle.logins.allows(&(self.source, self.subject), now)?;
        match self.source.map(|source| (source, self.subject)) {
            Some(who) if throttle.knows(&who, now) => throttle.familiar.allows(&who, now),
            Some((source, subject)) => {
                throttle.sources.allows(&source, now)?;
                throttle.sites.allows(&site(source), now)?;
                throttle.subjects.allows(&subject, now)
            }
            None => throttle.subjects.allows(&self.subject, now),
        }
    }

    /// The password was wrong.
    pub(crate) fn failed(&self) {
        let (throttle, now) = (&self.throttle, self.clock.now());
        match self.source.map(|source| (source, self.subject)) {
            Some(who) if throttle.knows(&who, now) => throttle.familiar.count(who, now),
            who => {
                if let Some((source, _)) = who {
                    throttle.sources.count(source, now);
                    throttle.sites.count(site(source), now);
                }
                throttle.subjects.count(self.subject, now);
            }
        }
    }

    /// The password was right.
    pub(crate) fn succeeded(&self) {
        let now = self.clock.now();
        self.throttle.logins.count((self.source, self.subject), now);
        if let Some(source) = self.source {
            self.throttle.remember((source, self.subject), now);
        }
    }

    /// Whether this name has logged in from here before.
    pub(crate) fn is_familiar(&self) -> bool {
        let now = self.clock.now();
        self.source.is_some_and(|source| self.throttle.knows(&(source, self.subject), now))
    }
}

/// So many failures of each key in a window of time.
#[derive(Debug)]
struct Failures<K> {
    /// What one failure costs.
    each: TimeDelta,
    /// What there is to be spent.
    window: TimeDelta,
    /// Until when all failures of a key are paid for.
    paid: Mutex<HashMap<K, DateTime<Utc>>>,
}

impl<K: Hash + Eq> Failures<K> {
    fn per_minute(count: u32) -> Self {
        Self::per(TimeDelta::minutes(1), count)
    }

    fn per_hour(count: u32) -> Self {
        Self::per(TimeDelta::hours(1), count)
    }

    fn per(window: TimeDelta, count: u32) -> Self {
        let whole = window.num_nanoseconds().unwrap_or(i64::MAX);
        let each = TimeDelta::nanoseconds(whole / i64::from(count.max(1)));
        Self { each, window, paid: Mutex::default() }
    }

    /// Whether one more failure could be paid for.
    fn allows(&self, key: &K, now: DateTime<Utc>) -> Result<()> {
        let paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(debt) = paid.get(key).map(|until| (*until - now).min(self.window)) else { return Ok(()) };
        let wait = debt + self.each - self.window;
        if wait <= TimeDelta::zero() {
            return Ok(());
        }
        // Whole seconds, and never too early.
        Err(Error::RateLimited(TimeDelta::seconds(wait.num_seconds() + 1)))
    }

    fn count(&self, key: K, now: DateTime<Utc>) {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        if paid.len() >= KEYS {
            paid.retain(|_, until| *until > now);
        }
        if paid.len() >= KEYS {
            // More sources than any honest minute has: forgetting them all bounds the memory, and hashing has a
            // bounded queue of its own.
            paid.clear();
        }
        let until = paid.entry(key).or_insert(now);
        // Failures that were under way together cost no more than the window.
        *until = ((*until).max(now) + self.each).min(now + self.window);
    }
}

/// What one network has: of IPv6 everybody has 2^64 addresses.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address @ IpAddr::V4(_) => address,
    }
}

/// What one subscriber may have: of IPv6 up to 2^16 networks.
fn site(network: IpAddr) -> IpAddr {
    match network {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 80))),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn failures_are_paid_for_one_after_the_other() {
        let failures = Failures::per_minute(3);
        for _ in 0..3 {
            failures.allows(&"a", at(0)).unwrap();
            failures.count("a", at(0));
        }
        let Err(Error::RateLimited(wait)) = failures.allows(&"a", at(0)) else { panic!("it is refused") };
        assert!((20..=21).contains(&wait.num_seconds()), "{wait}");
        failures.allows(&"b", at(0)).unwrap();
        failures.allows(&"a", at(20)).unwrap();
        failures.count("a", at(20));
        failures.allows(&"a", at(20)).unwrap_err();
        // However many were under way at one time, the wait is no longer.
        (0..50).for_each(|_| failures.count("a", at(20)));
        failures.allows(&"a", at(40)).unwrap();
    }

    fn throttle() -> Arc<Throttle> {
        Arc::new(Throttle::new(&Options::default()))
    }

    fn attempt(throttle: &Arc<Throttle>, name: &str, from: &str) -> Attempt {
        throttle.attempt(name, Some(from.parse().unwrap()), Arc::new(tidegate_model::SystemClock::new()))
    }

    #[test]
    fn right_passwords_cost_too() {
        let throttle = throttle();
        let ada = || attempt(&throttle, "ada", "192.0.2.1");
        (0..Options::default().logins_per_minute).for_each(|_| ada().succeeded());
        assert!(matches!(ada().allowed(), Err(Error::RateLimited(_))));
        attempt(&throttle, "ada", "192.0.2.2").allowed().unwrap();
        attempt(&throttle, "bob", "192.0.2.1").allowed().unwrap();
    }

    #[test]
    fn a_site_with_many_networks_is_one_neighbour() {
        let throttle = throttle();
        let each = Options::default().failures_per_source;
        for network in 0..=SITE {
            let from = format!("2001:db8:0:{network:x}::1");
            (0..each).for_each(|n| attempt(&throttle, &format!("user-{network}-{n}"), &from).failed());
        }
        assert!(matches!(
            attempt(&throttle, "ada", "2001:db8:0:ff::1").allowed(),
            Err(Error::RateLimited(_))
        ));
        attempt(&throttle, "ada", "2001:db8:1::1").allowed().unwrap();
    }

    #[test]
    fn one_name_takes_the_place_of_no_other() {
        let throttle = throttle();
        attempt(&throttle, "bob", "192.0.2.1").succeeded();
        for network in 0..100 {
            attempt(&throttle, "ada", &format!("2001:db8:{network:x}::1")).succeeded();
        }
        assert!(attempt(&throttle, "bob", "192.0.2.1").is_familiar());
        assert!(attempt(&throttle, "ada", "2001:db8:63::1").is_familiar());
        assert!(!attempt(&throttle, "ada", "2001:db8:0::1").is_familiar());
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        let one = network("2001:db8::1".parse().unwrap());
        assert_eq!(one, network("2001:db8::ffff:0:1".parse().unwrap()));
        assert_ne!(one, network("2001:db8:0:1::1".parse().unwrap()));
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), network("192.0.2.1".parse().unwrap()));
    }
}
