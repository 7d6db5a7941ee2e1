//! Attempts: how often a password may be guessed.
//!
//! Why: the original lets anybody try as fast as the network allows. A count per name alone would let ten wrong
//! passwords from anywhere keep the owner of the name out.
//! How: each address has [`BURST`] attempts at each name, and gets one back every [`REFILL`]; a right password gives
//! all of them back. Where all that are left are being looked at, the next one waits for what becomes of them. Guessers
//! with many addresses share [`NAME_BURST`] attempts at a name; addresses from which that name has logged in before do
//! not count there, nor does this machine. Only names that exist are counted, so guesses at random names take no
//! memory. Where a name has logged in from is kept in the portal, over restarts.
//! Invariants: time is an argument, of a clock that nobody sets. An attempt is held while the password is looked at,
//! and only a wrong one stays taken: so parallel guesses are bounded, and parallel logins with the right password are
//! not refused for each other. What others guess never keeps out an address that has logged in, and never this machine.
//! At most [`CHECKS_MAX`] are looked at or wait, [`CHECKS_PER_ORIGIN`] of one address.
//! Memory: at most [`ENTRIES_MAX`] pairs of address and name, names, and addresses that have logged in; of pairs and
//! names, past the bound those without a failure go, then all do; of addresses the oldest.

use crate::portal::{Portal, origin};
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use stdx::Ledger;
use tokio::sync::Notify;

/// Attempts in a row from one address; a person who mistypes needs a handful.
const BURST: u32 = 10;
/// The time until an address gets one attempt back: 2,880 tries a day at one name.
const REFILL: Duration = Duration::from_secs(30);
/// Attempts in a row at one name from all addresses that have not logged in: a guess, twenty people who mistype.
const NAME_BURST: u32 = 200;
/// The time until such addresses get one attempt back together: 8,640 tries a day, whoever has how many addresses.
const NAME_REFILL: Duration = Duration::from_secs(10);
/// Entries of each of the three lists, about 1 MB; a site has a few hundred users.
const ENTRIES_MAX: usize = 10_000;
/// Passwords that are looked at or wait for it: one after the other, some 50 ms each, so the last waits for 13 seconds.
const CHECKS_MAX: usize = 256;
/// Those of one address, so that a flood from there leaves room for others.
const CHECKS_PER_ORIGIN: usize = 64;
/// Addresses of one name that are remembered: of a person with some machines, at home and at work.
const KNOWN_PER_NAME: usize = 16;

/// Place that a login comes from.
///
/// IPv6 is counted by the 64 bits of a network, for a host can take any address in its own. Where a proxy on this
/// machine says for whom it asks (`X-Forwarded-For`), the last address of the list counts, which that proxy saw.
/// `None` where nothing is known of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin(Option<IpAddr>);

impl Origin {
    /// The place that a connection from `peer` with these headers speaks for.
    pub fn of(peer: Option<IpAddr>, headers: &HeaderMap) -> Origin {
        let Some(peer) = peer else { return Origin(None) };
        Origin(Some(match address(peer, headers) {
            IpAddr::V6(v6) if !v6.is_loopback() => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
            ip => ip,
        }))
    }

    fn is_this_machine(self) -> bool {
        self.0.is_some_and(|ip| ip.is_loopback())
    }
}

/// The address that a connection from `peer` speaks for.
pub fn address(peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let peer = peer.to_canonical();
    let forwarded = headers.get_all("x-forwarded-for").iter().next_back();
    let last = forwarded.and_then(|list| list.to_str().ok()?.rsplit(',').next()?.trim().parse::<IpAddr>().ok());
    last.filter(|_| peer.is_loopback()).map_or(peer, |ip| ip.to_canonical())
}

impl<S: Sync> FromRequestParts<S> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Origin, Infallible> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        Ok(Origin::of(peer, &parts.headers))
    }
}

/// Logins that may still be tried.
#[derive(Default)]
pub struct Attempts {
    counts: Mutex<Counts>,
    /// Told when a password has been looked at.
    ended: Notify,
}

#[derive(Default)]
struct Counts {
    by_pair: HashMap<(Origin, String), Left>,
    /// Only for origins that are not in `known`.
    by_name: HashMap<String, Left>,
    /// Places from which a name has logged in, the newest last.
    known: VecDeque<(Origin, String)>,
    /// Passwords that are looked at or wait for it.
    checks: HashMap<Origin, usize>,
}

/// Reason for which a password is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too many were wrong; seconds to wait.
    Wrong(u64),
    /// Too many are being looked at.
    Busy,
}

/// An attempt while its password is looked at. Dropped, it stays taken.
pub struct Attempt<'a> {
    pair: (Origin, String),
    /// Whether it is one of the attempts that many addresses share.
    is_shared: bool,
    place: Place<'a>,
}

/// A place among the passwords that are looked at.
struct Place<'a> {
    attempts: &'a Attempts,
    origin: Origin,
}

/// Attempts that were left at a time, without those that are being looked at.
#[derive(Clone, Copy)]
struct Left {
    count: u32,
    checked: u32,
    at: Instant,
}

/// Reason why there is no attempt now.
enum Lack {
    Wait(u64),
    /// Those that are looked at may come back.
    Checked,
}

impl Left {
    /// What is left at `now`, of at most `burst`, with one more every `refill`.
    fn refilled(self, burst: u32, refill: Duration, now: Instant) -> Left {
        let periods = now.saturating_duration_since(self.at).as_secs() / refill.as_secs();
        let missing = u64::from(burst - self.count.min(burst));
        if periods >= missing {
            return Left { count: burst, at: now, ..self };
        }
        let periods = periods as u32;
        Left { count: self.count + periods, at: self.at + periods * refill, ..self }
    }

    /// What to wait for, if there is no attempt.
    fn lack(self, refill: Duration, now: Instant) -> Option<Lack> {
        match self.checked {
            _ if self.count > 0 => None,
            0 => Some(Lack::Wait((self.at + refill).saturating_duration_since(now).as_secs().max(1))),
            _ => Some(Lack::Checked),
        }
    }

    fn take(&mut self) {
        self.count -= 1;
        self.checked += 1;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut counts = self.attempts.lock();
        if let Some(count) = counts.checks.get_mut(&self.origin) {
            *count -= 1;
            if *count == 0 {
                counts.checks.remove(&self.origin);
            }
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let attempts = self.place.attempts;
        let Counts { by_pair, by_name, .. } = &mut *attempts.lock();
        // An entry may have gone for want of room, or since the password is a new one.
        let of_name = if self.is_shared { by_name.get_mut(&self.pair.1) } else { None };
        for left in by_pair.get_mut(&self.pair).into_iter().chain(of_name) {
            left.checked = left.checked.saturating_sub(1);
        }
        attempts.ended.notify_waiters();
    }
}

impl Attempt<'_> {
    /// Gives all attempts of the pair back, and remembers that the right password came from there. Answers all
    /// addresses of the name where this one is new, to be kept.
    pub fn succeeded(self) -> Option<String> {
        let Counts { by_pair, by_name, known, .. } = &mut *self.place.attempts.lock();
        if let Some(left) = by_pair.get_mut(&self.pair) {
            // The others that are looked at are taken still.
            left.count = (BURST + 1).saturating_sub(left.checked).min(BURST);
        }
        if self.is_shared
            && let Some(of_name) = by_name.get_mut(&self.pair.1)
        {
            of_name.count = (of_name.count + 1).min(NAME_BURST);
        }
        let was_known = known.len();
        known.retain(|other| *other != self.pair);
        let is_new = known.len() == was_known && !self.pair.0.is_this_machine();
        let mut of_name = known.iter().enumerate().filter(|(_, (_, name))| *name == self.pair.1).map(|(at, _)| at);
        let oldest = of_name.next();
        if of_name.count() + 1 >= KNOWN_PER_NAME {
            oldest.and_then(|at| known.remove(at));
        } else if known.len() >= ENTRIES_MAX {
            known.pop_front();
        }
        known.push_back(self.pair.clone());
        let (_, name) = known.back().filter(|_| is_new)?;
        let addresses = known.iter().filter(|(_, other)| other == name).filter_map(|(origin, _)| origin.0);
        Some(addresses.map(|ip| ip.to_string()).collect::<Vec<_>>().join(" "))
    }
}

/// The entry of `key` as it is at `now`; makes room for it first.
fn entry<K: Hash + Eq>(lefts: &mut HashMap<K, Left>, key: K, burst: u32, refill: Duration, now: Instant) -> &mut Left {
    if lefts.len() >= ENTRIES_MAX {
        lefts.retain(|_, left| left.checked > 0 || left.refilled(burst, refill, now).count < burst);
        if lefts.len() >= ENTRIES_MAX {
            lefts.clear();
        }
    }
    let left = lefts.entry(key).or_insert(Left { count: burst, checked: 0, at: now });
    *left = left.refilled(burst, refill, now);
    left
}

impl Attempts {
    /// Attempts of which none is taken, with the addresses that the portal has kept. Where they cannot be read, nobody
    /// is known.
    pub async fn with_known(portal: &Portal) -> Arc<Attempts> {
        let attempts = Attempts::default();
        match origin::all(portal).await {
            Ok(kept) => kept.iter().for_each(|(name, addresses)| attempts.remember(name, addresses)),
            Err(error) => {
                tracing::warn!(%error, "where users have logged in from cannot be read, and counts as unknown")
            }
        }
        Arc::new(attempts)
    }

    /// Takes what [`Attempt::succeeded`] gave out for `name` before.
    fn remember(&self, name: &str, addresses: &str) {
        let (name, known) = (name.to_lowercase(), &mut self.lock().known);
        let addresses = addresses.split(' ').filter_map(|address| address.parse().ok());
        let room = ENTRIES_MAX.saturating_sub(known.len());
        known.extend(addresses.take(KNOWN_PER_NAME.min(room)).map(|ip| (Origin(Some(ip)), name.clone())));
    }

    /// Takes an attempt at `name` from `origin`; waits while it may be one of those that are being looked at.
    pub async fn take(&self, origin: Origin, name: &str, now: Instant) -> Result<Attempt<'_>, Refused> {
        let (place, pair) = (self.place(origin)?, (origin, name.to_lowercase()));
        loop {
            // Made first: what ends after this is not missed.
            let ended = self.ended.notified();
            match self.try_take(&pair, now) {
                Ok(is_shared) => return Ok(Attempt { pair, is_shared, place }),
                Err(Lack::Wait(seconds)) => return Err(Refused::Wrong(seconds)),
                Err(Lack::Checked) => ended.await,
            }
        }
    }

    fn place(&self, origin: Origin) -> Result<Place<'_>, Refused> {
        let checks = &mut self.lock().checks;
        let own = checks.get(&origin).copied().unwrap_or_default();
        if own >= CHECKS_PER_ORIGIN || checks.values().sum::<usize>() >= CHECKS_MAX {
            return Err(Refused::Busy);
        }
        checks.insert(origin, own + 1);
        Ok(Place { attempts: self, origin })
    }

    /// Takes an attempt if there is one; answers whether it is one that many addresses share.
    fn try_take(&self, pair: &(Origin, String), now: Instant) -> Result<bool, Lack> {
        let Counts { by_pair, by_name, known, .. } = &mut *self.lock();
        let is_free = pair.0.is_this_machine() || known.contains(pair);
        let of_name = (!is_free).then(|| entry(by_name, pair.1.clone(), NAME_BURST, NAME_REFILL, now));
        let of_pair = entry(by_pair, pair.clone(), BURST, REFILL, now);
        let lack = of_pair.lack(REFILL, now);
        if let Some(lack) = lack.or_else(|| of_name.as_ref().and_then(|left| left.lack(NAME_REFILL, now))) {
            return Err(lack);
        }
        of_pair.take();
        of_name.into_iter().for_each(Left::take);
        Ok(!is_free)
    }

    /// Gives everybody the attempts at `name` back: its password is a new one.
    pub fn forgive(&self, name: &str) {
        let name = name.to_lowercase();
        let mut counts = self.lock();
        counts.by_pair.retain(|(_, of), _| *of != name);
        counts.by_name.remove(&name);
    }

    /// Names the memory of the attempts in the ledger.
    pub fn register_memory(self: &Arc<Self>, ledger: &Ledger) {
        let attempts = self.clone();
        ledger.source(move |report| {
            let Counts { by_pair, by_name, known, .. } = &*attempts.lock();
            let texts = by_pair.keys().chain(known).map(|(_, name)| name).chain(by_name.keys());
            let bytes = texts.map(String::capacity).sum::<usize>()
                + by_pair.capacity() * (size_of::<((Origin, String), Left)>() + 1)
                + by_name.capacity() * (size_of::<(String, Left)>() + 1)
                + known.capacity() * size_of::<(Origin, String)>();
            report.line("logins", bytes as u64, None, Some((by_pair.len() + by_name.len() + known.len()) as u64));
        });
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().expect("nothing inside can panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task;

    fn at(text: &str) -> Origin {
        Origin::of(Some(text.parse().expect("an address")), &HeaderMap::new())
    }

    /// What a future is without a wait.
    fn at_once<F: Future>(future: F) -> Option<F::Output> {
        match pin!(future).poll(&mut task::Context::from_waker(task::Waker::noop())) {
            task::Poll::Ready(output) => Some(output),
            task::Poll::Pending => None,
        }
    }

    /// A wrong password.
    fn wrong(attempts: &Attempts, origin: Origin, name: &str, now: Instant) -> Result<(), Refused> {
        let took = at_once(attempts.take(origin, name, now)).expect("nothing is being looked at");
        took.map(drop)
    }

    /// The right password.
    fn right(attempts: &Attempts, origin: Origin, name: &str) -> Option<String> {
        let took = at_once(attempts.take(origin, name, Instant::now())).expect("nothing is being looked at");
        took.unwrap_or_else(|refused| panic!("{refused:?}")).succeeded()
    }

    fn fail(attempts: &Attempts, origin: Origin, count: u32, now: Instant) {
        for i in 0..count {
            assert_eq!(wrong(attempts, origin, "root", now), Ok(()), "{i}");
        }
    }

    #[test]
    fn guessing_slows_down_per_address_and_name() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let check = |address: &str, name: &str, seconds: u64, expected: Result<(), Refused>| {
            assert_eq!(wrong(&attempts, at(address), name, after(seconds)), expected, "{address} {name} {seconds}");
        };
        fail(&attempts, at("10.0.0.1"), BURST - 1, start);
        assert!(right(&attempts, at("10.0.0.1"), "Root").is_some(), "all come back");
        fail(&attempts, at("10.0.0.1"), BURST, start);
        check("10.0.0.1", "ROOT", 10, Err(Refused::Wrong(20)));
        // Neither another name is affected, nor another address.
        check("10.0.0.1", "alice", 10, Ok(()));
        check("10.0.0.2", "root", 10, Ok(()));
        // One comes back.
        check("10.0.0.1", "root", 30, Ok(()));
        check("10.0.0.1", "root", 30, Err(Refused::Wrong(30)));
        // A time before is waited for, no more.
        check("10.0.0.1", "root", 0, Err(Refused::Wrong(60)));
    }

    /// Parallel guesses find the same end; what waits for them is refused when they were wrong, and looked at when one
    /// was right.
    #[tokio::test]
    async fn an_attempt_that_is_looked_at_is_waited_for() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        let take = || attempts.take(at("10.0.0.1"), "root", now);
        let mut held = Vec::new();
        for _ in 0..BURST {
            held.push(take().await.unwrap_or_else(|refused| panic!("{refused:?}")));
        }
        let mut waits: Vec<_> = (0..CHECKS_PER_ORIGIN as u32 - BURST).map(|_| Box::pin(take())).collect();
        assert!(waits.iter_mut().all(|wait| at_once(wait).is_none()), "the last may be the right one");
        assert_eq!(take().await.map(drop), Err(Refused::Busy));
        assert!(attempts.take(at("10.0.0.2"), "root", now).await.is_ok(), "another address has room");
        assert!(held.pop().expect("held").succeeded().is_some());
        let took = waits.remove(0).await.unwrap_or_else(|refused| panic!("{refused:?}"));
        held.clear();
        drop(took);
        for wait in waits {
            assert!(matches!(wait.await.map(drop), Err(Refused::Wrong(_))));
        }
        assert!(attempts.lock().checks.is_empty());
    }

    /// Guessers with many addresses find an end, and keep out neither who has logged in before nor this machine.
    #[test]
    fn many_addresses_share_a_bound_that_locks_no_owner_out() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        let (owner, newcomer) = (at("192.168.1.1"), at("192.168.1.2"));
        right(&attempts, owner, "root");
        for guesser in 0..NAME_BURST / BURST {
            fail(&attempts, at(&format!("10.0.1.{guesser}")), BURST, now);
        }
        assert_eq!(wrong(&attempts, newcomer, "root", now), Err(Refused::Wrong(10)));
        assert_eq!(wrong(&attempts, newcomer, "alice", now), Ok(()));
        fail(&attempts, owner, BURST, now);
        let own = wrong(&attempts, owner, "root", now);
        assert_eq!(own, Err(Refused::Wrong(30)), "the owner's own attempts count all the same");
        fail(&attempts, at("127.0.0.1"), BURST, now);
        fail(&attempts, at("::1"), BURST, now);
        assert_eq!(wrong(&attempts, newcomer, "root", now + NAME_REFILL), Ok(()));
        assert_eq!(wrong(&attempts, newcomer, "root", now + NAME_REFILL), Err(Refused::Wrong(10)));
    }

    /// What was given out is what is remembered, in the order in which the oldest goes.
    #[tokio::test]
    async fn who_has_logged_in_is_known_after_a_restart() -> anyhow::Result<()> {
        let (_dir, portal) = crate::portal::tests::temporary().await?;
        let profile = crate::portal::user::Profile::default();
        let uid = crate::portal::user::create(&portal, "root", "", &profile, 0, 0).await?;
        let (before, now) = (Attempts::default(), Instant::now());
        assert_eq!(right(&before, at("127.0.0.1"), "root"), None, "this machine is never kept out");
        for i in 0..KNOWN_PER_NAME + 2 {
            let addresses = right(&before, at(&format!("192.168.1.{i}")), "Root").expect("a new one");
            assert_eq!(right(&before, at(&format!("192.168.1.{i}")), "root"), None);
            origin::save(&portal, uid, &addresses).await?;
        }
        let addresses = right(&before, at("2001:db8:1:2:3:4:5:6"), "root").expect("a new one");
        origin::save(&portal, uid, &addresses).await?;

        let after = Attempts::with_known(&portal).await;
        for guesser in 0..NAME_BURST / BURST {
            fail(&after, at(&format!("10.0.1.{guesser}")), BURST, now);
        }
        let late = Err(Refused::Wrong(10));
        assert_eq!(wrong(&after, at("192.168.1.100"), "root", now), late, "a newcomer waits");
        assert_eq!(wrong(&after, at("192.168.1.2"), "root", now), late, "so does who was forgotten as the oldest");
        assert_eq!(wrong(&after, at("192.168.1.3"), "root", now), Ok(()));
        assert_eq!(wrong(&after, at("2001:db8:1:2::9"), "ROOT", now), Ok(()));
        assert_eq!(after.lock().known.len(), KNOWN_PER_NAME);
        Ok(())
    }

    #[test]
    fn an_origin_is_what_a_proxy_of_this_machine_saw() {
        let check = |peer: &str, forwarded: &[&'static str], expected: &str| {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append("x-forwarded-for", axum::http::HeaderValue::from_static(value));
            }
            let origin = Origin::of(Some(peer.parse().expect("an address")), &headers);
            assert_eq!(origin, Origin(Some(expected.parse().expect("an address"))), "{peer} {forwarded:?}");
        };
        check("10.0.0.1", &[], "10.0.0.1");
        check("10.0.0.1", &["10.0.0.9"], "10.0.0.1");
        check("127.0.0.1", &["10.0.0.9"], "10.0.0.9");
        check("127.0.0.1", &["1.1.1.1, 10.0.0.9"], "10.0.0.9");
        check("::1", &["1.1.1.1", "10.0.0.9"], "10.0.0.9");
        check("127.0.0.1", &["unknown"], "127.0.0.1");
        check("::ffff:10.0.0.1", &[], "10.0.0.1");
        check("2001:db8:1:2:3:4:5:6", &[], "2001:db8:1:2::");
        check("::1", &[], "::1");
        assert_eq!(Origin::of(None, &HeaderMap::new()), Origin(None));
        assert!(!Origin(None).is_this_machine());
    }

    #[test]
    fn entries_are_bounded() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        for i in 0..3 * ENTRIES_MAX as u32 {
            let origin = Origin(Some(std::net::Ipv4Addr::from_bits((10 << 24) + i).into()));
            assert_eq!(wrong(&attempts, origin, &format!("user{i}"), now), Ok(()));
            // Every third logs in; some names do so from many places.
            if i % 3 == 0 {
                right(&attempts, origin, &format!("user{}", i % 1000));
            }
        }
        let counts = attempts.lock();
        assert!(counts.by_pair.len() <= ENTRIES_MAX && counts.by_name.len() <= ENTRIES_MAX);
        assert!(counts.known.len() <= ENTRIES_MAX);
        let of_one = counts.known.iter().filter(|(_, name)| name == "user0").count();
        assert_eq!(of_one, 10.min(KNOWN_PER_NAME));
    }

    #[test]
    fn a_name_has_a_bound_of_known_addresses_and_the_oldest_goes() {
        let attempts = Attempts::default();
        for i in 0..20 {
            right(&attempts, at(&format!("10.0.0.{i}")), "root");
            right(&attempts, at("10.9.9.9"), "alice");
        }
        let counts = attempts.lock();
        let of_root: Vec<Origin> =
            counts.known.iter().filter(|(_, name)| name == "root").map(|known| known.0).collect();
        let expected: Vec<Origin> = (4..20).map(|i| at(&format!("10.0.0.{i}"))).collect();
        assert_eq!(of_root, expected);
        assert_eq!(counts.known.len(), KNOWN_PER_NAME + 1);
    }
}
