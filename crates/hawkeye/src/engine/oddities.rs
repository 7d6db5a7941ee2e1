//! Oddities: senders whose points are not what they seem, by name.
//!
//! Why: a host whose clock is ahead loses all its points, a script that counts in an unknown unit has them at wrong
//! times, and two machines under one name take turns in one series. Counters show that there is such a host; whoever
//! has to mend it needs its name.
//! How: the door notes what a batch has met ([`Met`]) with the endpoint and the address that sent it; `/ui/overview`
//! and the log name both. Two machines under one name show by what they send: points of one time with different values,
//! from addresses that alternate. An endpoint with such points, or whose agent reports from a new address, is a
//! *suspect*: from then on it is noted who sends for it, and [`CHANGES`] changes between addresses are two machines. A
//! sender behind several addresses (a proxy, a script on another host) makes no points that contradict each other; a
//! script that contradicts itself has one address.
//! Invariants: what is normal costs nothing here: a batch looks at one atomic. One line of the log per oddity and hour,
//! and per second.
//! Memory: [`ODDITIES_MAX`] oddities and [`SUSPECTS_MAX`] suspects, names cut at [`NAME_MAX`] bytes: 100 KiB; where all
//! places are taken, the one that was seen longest ago goes.

use super::locks;
use serde::Serialize;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use stdx::RankedMutex;
use stdx::ledger::Report;

/// Oddities that are kept: more than anybody mends in a day.
const ODDITIES_MAX: usize = 256;
/// Endpoints of which it is noted who sends for them.
const SUSPECTS_MAX: usize = 64;
/// Bytes of an endpoint's name that are kept.
const NAME_MAX: usize = 128;
/// Seconds after which an oddity that did not come again is forgotten.
const FORGET_S: i64 = 3600;
/// Changes between two addresses, each way counted, that make a suspect two machines: A, B, A, B.
const CHANGES: u32 = 3;
/// Seconds within which these changes must come: three reports of each machine, and some.
const CHANGES_S: i64 = 600;

/// What is odd about a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Oddity {
    /// Times are further ahead of the server's clock than `ingest.future_max`: the points are refused.
    ClockAhead,
    /// Times are in no unit that is known, and count as now.
    UnreadableTime,
    /// Two machines report under one name.
    TwoSenders,
}

/// An oddity of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OddSender {
    pub endpoint: String,
    pub what: Oddity,
    /// Figures of what was met last.
    pub detail: String,
    /// Seconds that the time was ahead that was met last; None for what is no matter of clocks.
    #[serde(skip)]
    pub offset: Option<i64>,
    /// Address that sent it last; of two senders both are in `detail`.
    pub address: Option<IpAddr>,
    /// Times of the first and the last (Unix seconds), and how many there were.
    pub since: i64,
    pub last: i64,
    pub count: u64,
    /// The log has said so.
    #[serde(skip)]
    told: bool,
}

/// Oddities that a batch meets while locks are held under which nothing may be noted; for [`Oddities::note_all`].
#[derive(Default)]
pub struct Met(Vec<MetOne>);

struct MetOne {
    what: Oddity,
    endpoint: String,
    detail: String,
    offset: Option<i64>,
    count: u64,
}

/// Oddities of different endpoints that one batch tells of; agents send one endpoint, and of a proxy's many some.
const MET_MAX: usize = 16;

impl Met {
    /// Adds an oddity of `endpoint`; `detail` is asked for the first.
    pub fn add(&mut self, what: Oddity, endpoint: &str, detail: impl FnOnce() -> String) {
        let known = self.0.iter_mut().find(|met| met.what == what && met.endpoint == endpoint);
        if let Some(met) = known {
            met.count += 1;
        } else if self.0.len() < MET_MAX {
            self.0.push(MetOne { what, endpoint: endpoint.to_string(), detail: detail(), offset: None, count: 1 });
        }
    }

    /// Adds a clock that is `seconds` ahead.
    pub fn add_ahead(&mut self, endpoint: &str, seconds: i64) {
        self.add(Oddity::ClockAhead, endpoint, || format!("{seconds} s ahead of this server"));
        let met = self.0.iter_mut().find(|met| met.what == Oddity::ClockAhead && met.endpoint == endpoint);
        if let Some(met) = met {
            met.offset = Some(seconds);
        }
    }
}

/// The odd senders of one process.
pub struct Oddities {
    state: RankedMutex<State>,
    /// Number of suspects, for whoever only asks.
    suspects: AtomicUsize,
}

#[derive(Default)]
struct State {
    odd: Vec<OddSender>,
    suspects: Vec<Suspect>,
    told_at: i64,
}

/// An endpoint of which it is noted who sends for it.
struct Suspect {
    endpoint: String,
    /// The last address, and the one before it.
    addresses: [Option<IpAddr>; 2],
    /// Changes from one to the other since `since`.
    changes: u32,
    since: i64,
    last: i64,
}

impl Oddities {
    /// None yet.
    pub fn new() -> Oddities {
        Oddities { state: RankedMutex::new(locks::ODDITIES, State::default()), suspects: AtomicUsize::new(0) }
    }

    /// Notes what a batch of `address` has met.
    pub fn note_all(&self, met: Met, address: Option<IpAddr>, now: i64) {
        met.0.into_iter().for_each(|met| self.note(met, address, now));
    }

    fn note(&self, met: MetOne, address: Option<IpAddr>, now: i64) {
        let line = self.state.lock().note(met, address, now);
        if let Some(OddSender { endpoint, what, detail, address, .. }) = line {
            let address = address.map_or("unknown".to_string(), |address| address.to_string());
            tracing::warn!(endpoint, address, detail, "{}", what.text());
        }
    }

    /// Makes an endpoint a suspect: points of it contradict each other, or its agent has another address.
    pub fn suspect(&self, endpoint: &str, now: i64) {
        let mut state = self.state.lock();
        state.suspect(cut(endpoint), now);
        self.suspects.store(state.suspects.len(), Ordering::Relaxed);
    }

    /// Whether there is any suspect, so that [`Oddities::seen`] is worth its call.
    pub fn has_suspects(&self) -> bool {
        self.suspects.load(Ordering::Relaxed) > 0
    }

    /// Notes that `address` has sent for `endpoint`, if that is a suspect.
    pub fn seen(&self, endpoint: &str, address: IpAddr, now: i64) {
        let two = self.state.lock().seen(cut(endpoint), address, now);
        if let Some([one, other]) = two {
            let detail = format!("{one} and {other} take turns");
            let endpoint = endpoint.to_string();
            let met = MetOne { what: Oddity::TwoSenders, endpoint, detail, offset: None, count: 1 };
            self.note(met, Some(address), now);
        }
    }

    /// The oddities of the last hour, those that came last first.
    pub fn report(&self, now: i64) -> Vec<OddSender> {
        let mut state = self.state.lock();
        state.forget(now);
        self.suspects.store(state.suspects.len(), Ordering::Relaxed);
        let mut odd = state.odd.clone();
        odd.sort_by_key(|sender| std::cmp::Reverse(sender.last));
        odd
    }

    /// Names what is held in the ledger.
    pub fn memory(&self, report: &mut Report) {
        let state = self.state.lock();
        let texts = |sender: &OddSender| sender.endpoint.capacity() + sender.detail.capacity();
        let odd = state.odd.capacity() * size_of::<OddSender>() + state.odd.iter().map(texts).sum::<usize>();
        let suspects = state.suspects.iter().map(|suspect| size_of::<Suspect>() + suspect.endpoint.capacity());
        let bytes = odd + suspects.sum::<usize>();
        report.line("odd senders", bytes as u64, None, Some(state.odd.len() as u64));
    }
}

impl State {
    /// Answers the oddity when it is to be told in the log: once an hour each, and one a second of all.
    fn note(&mut self, met: MetOne, address: Option<IpAddr>, now: i64) -> Option<OddSender> {
        let MetOne { what, mut endpoint, detail, offset, count } = met;
        endpoint.truncate(cut(&endpoint).len());
        let known = self.odd.iter().position(|sender| sender.what == what && sender.endpoint == endpoint);
        let is_first = known.is_none_or(|at| !(0..FORGET_S).contains(&(now - self.odd[at].last)));
        let at = known.unwrap_or_else(|| {
            let new = OddSender {
                endpoint,
                what,
                detail: String::new(),
                offset: None,
                address,
                since: now,
                last: now,
                count: 0,
                told: false,
            };
            take_place(&mut self.odd, new, ODDITIES_MAX, |sender| sender.last)
        });
        let sender = &mut self.odd[at];
        if is_first {
            (sender.since, sender.count, sender.told) = (now, 0, false);
        }
        (sender.last, sender.address, sender.detail, sender.offset) = (now, address, detail, offset);
        sender.count += count;
        if sender.told || now == self.told_at {
            return None;
        }
        (sender.told, self.told_at) = (true, now);
        Some(sender.clone())
    }

    fn suspect(&mut self, endpoint: &str, now: i64) {
        match self.suspects.iter_mut().find(|suspect| suspect.endpoint == endpoint) {
            Some(suspect) => suspect.last = now,
            None => {
                let endpoint = endpoint.to_string();
                let new = Suspect { endpoint, addresses: [None; 2], changes: 0, since: now, last: now };
                take_place(&mut self.suspects, new, SUSPECTS_MAX, |suspect| suspect.last);
            }
        }
    }

    /// Answers both addresses when they have alternated often enough.
    fn seen(&mut self, endpoint: &str, address: IpAddr, now: i64) -> Option<[IpAddr; 2]> {
        let suspect = self.suspects.iter_mut().find(|suspect| suspect.endpoint == endpoint)?;
        if suspect.addresses[0] == Some(address) {
            return None;
        }
        let [last, before] = suspect.addresses;
        // A third address, or a change long after the others: it begins anew.
        if last.is_none() {
            suspect.since = now;
        }
        let goes_on = before.is_none_or(|before| before == address) && (0..CHANGES_S).contains(&(now - suspect.since));
        let is_change = last.is_some();
        (suspect.changes, suspect.since) = match goes_on {
            true => (suspect.changes + u32::from(is_change), suspect.since),
            false => (u32::from(is_change), now),
        };
        suspect.addresses = [Some(address), last];
        if suspect.changes < CHANGES {
            return None;
        }
        (suspect.changes, suspect.since) = (0, now);
        Some([last?, address])
    }

    fn forget(&mut self, now: i64) {
        let is_recent = |last: i64| (0..FORGET_S).contains(&(now - last));
        self.odd.retain(|sender| is_recent(sender.last));
        self.suspects.retain(|suspect| is_recent(suspect.last));
    }
}

impl Oddity {
    /// What is odd, and what to do, as a line of the log.
    fn text(self) -> &'static str {
        match self {
            Oddity::ClockAhead => {
                "a host's clock is ahead: its points are refused (ingest.future_max) until it is right"
            }
            Oddity::UnreadableTime => "a sender's times are in no unit that is known: its points count as of now",
            Oddity::TwoSenders => "two machines report under one name: give each its own",
        }
    }
}

/// Puts `new` into a list of at most `max`, where need be in the place of the one that was seen longest ago.
fn take_place<T>(list: &mut Vec<T>, new: T, max: usize, last: impl Fn(&T) -> i64) -> usize {
    if list.len() < max {
        list.push(new);
        return list.len() - 1;
    }
    let oldest = list.iter().enumerate().min_by_key(|(_, one)| last(one)).map_or(0, |(at, _)| at);
    list[oldest] = new;
    oldest
}

fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn met(what: Oddity, endpoint: &str, detail: &str) -> Met {
        let mut met = Met::default();
        met.add(what, endpoint, || detail.to_string());
        met
    }

    #[test]
    fn an_oddity_is_named_and_forgotten_in_the_end() {
        let odd = Oddities::new();
        for second in 0..3 {
            odd.note_all(met(Oddity::ClockAhead, "h", &format!("{second} s")), Some(address(1)), NOW + second);
        }
        odd.note_all(met(Oddity::UnreadableTime, "h", "7"), None, NOW + 1);
        let report = odd.report(NOW + 10);
        assert_eq!(
            report.iter().map(|sender| sender.what).collect::<Vec<_>>(),
            [Oddity::ClockAhead, Oddity::UnreadableTime]
        );
        let OddSender { detail, since, last, count, .. } = &report[0];
        assert_eq!((detail.as_str(), *since, *last, *count), ("2 s", NOW, NOW + 2, 3));
        assert_eq!(odd.report(NOW + 1 + FORGET_S).len(), 1);
        assert_eq!(odd.report(NOW - 1), [], "seen in the future: the clock was set back");
    }

    /// What comes in one second is told one by one, a second each, and none is forgotten.
    #[test]
    fn each_is_told_once_an_hour() {
        let odd = Oddities::new();
        let note = |endpoint: &str, after: i64| {
            let met = met(Oddity::ClockAhead, endpoint, "").0.remove(0);
            odd.state.lock().note(met, None, NOW + after).is_some()
        };
        assert_eq!([note("a", 0), note("b", 0), note("a", 1), note("b", 1)], [true, false, false, true]);
        assert_eq!([note("a", 2), note("b", 3), note("a", 2 + FORGET_S)], [false, false, true]);
    }

    #[test]
    fn places_are_bounded_and_the_oldest_goes() {
        let odd = Oddities::new();
        for host in 0..ODDITIES_MAX as i64 + 10 {
            let name = format!("{host}{}", "é".repeat(NAME_MAX));
            odd.note_all(met(Oddity::ClockAhead, &name, ""), None, NOW + host);
        }
        let report = odd.report(NOW + 300);
        assert_eq!((report.len(), report[0].endpoint.len() <= NAME_MAX), (ODDITIES_MAX, true));
        assert!(report.iter().all(|sender| sender.since >= NOW + 10));
    }

    #[test]
    fn two_machines_are_told_from_one_that_moves_and_one_that_contradicts_itself() {
        let two = |addresses: &[(i64, u8)]| {
            let odd = Oddities::new();
            odd.suspect("h", NOW);
            assert!(odd.has_suspects());
            addresses.iter().for_each(|(after, last)| odd.seen("h", address(*last), NOW + after));
            odd.seen("other", address(1), NOW);
            odd.report(NOW + 900).first().map(|sender| sender.detail.clone())
        };
        let told = Some("10.0.0.1 and 10.0.0.2 take turns".to_string());
        assert_eq!(two(&[(0, 1), (10, 2), (60, 1), (70, 2)]), told);
        assert_eq!(two(&[(0, 1), (1, 1), (10, 2), (11, 2), (60, 1), (70, 2)]), told);
        assert_eq!(two(&[(0, 1), (60, 1), (120, 1), (180, 1)]), None, "one address");
        assert_eq!(two(&[(0, 1), (60, 2), (120, 2), (180, 2)]), None, "one that moved");
        assert_eq!(two(&[(0, 1), (60, 2), (120, 3), (180, 4), (240, 5)]), None, "one that moves on");
        assert_eq!(two(&[(0, 1), (300, 2), (601, 1), (901, 2)]), None, "too slow for two agents");
    }
}
