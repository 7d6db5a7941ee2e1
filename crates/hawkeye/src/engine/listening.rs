//! Listening: whether this server could hear its hosts all the time between two looks at the clocks.
//!
//! Why: a `nodata` rule asks who is silent, and whoever does not listen hears nobody: the process was stopped, the
//! machine suspended, the disk took no points, or the wall clock was set and the silence only seems to be long. Each of
//! these raised an alarm for the whole fleet.
//! How: each second [`Listening::look`] compares the wall clock with the steady one, and asks the [`Intake`] whether
//! points are taken. A gap between two looks, or a step of the clock, is a start: all silences count anew
//! ([`Heard::Anew`]). While points cannot be taken no silence is counted at all ([`Heard::Badly`]): a batch stands
//! still on its way, points are refused as neither disk nor memory takes them, or most of them are ahead of a clock
//! that must be wrong. The look has a thread of its own: a slow disk must not look like a server that was stopped.
//! Invariants: what is decided here depends on the arguments only. No alarm about silence is made less than a rule's
//! own time after the last gap; a server that listens without a break is never late by this.
//! Memory: some counters.

use crate::clock;
use crate::watch::health::{Health, Outage};
use anyhow::{Context, Result};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Seconds by which two looks may be late, or the clocks may differ about the time between them. A guess: well below
/// the period of grace that each silent series has (30 s at least), well above what a busy machine needs.
pub const GAP_S: i64 = 10;

/// Pause between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Time in which what came counts half as much: agents report once a minute.
const HALF_LIFE: Duration = Duration::from_secs(60);

/// Seconds that a point's own time may be behind the clock and yet agree with it, see [`OwnTimes::behind`].
const BEHIND_S: i64 = 86_400;

/// Points by what their own times say about this server's clock; those without a time of their own do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnTimes {
    /// About now.
    pub timely: u64,
    /// Further ahead than `ingest.future_max`: refused.
    pub ahead: u64,
    /// More than a day old: handed in late, or this clock is ahead.
    pub behind: u64,
}

impl OwnTimes {
    /// Counts a point that has the time `time` of its own, at `now`.
    pub fn note(&mut self, time: i64, now: i64, future_max_s: i64) {
        match time.saturating_sub(now) {
            ahead if ahead > future_max_s => self.ahead += 1,
            ahead if ahead < -BEHIND_S => self.behind += 1,
            _ => self.timely += 1,
        }
    }

    /// What was added since `before`.
    pub fn since(self, before: OwnTimes) -> OwnTimes {
        OwnTimes {
            timely: self.timely - before.timely,
            ahead: self.ahead - before.ahead,
            behind: self.behind - before.behind,
        }
    }

    fn add(&mut self, more: OwnTimes) {
        self.timely += more.timely;
        self.ahead += more.ahead;
        self.behind += more.behind;
    }

    fn halve(&mut self) {
        *self = OwnTimes { timely: self.timely / 2, ahead: self.ahead / 2, behind: self.behind / 2 };
    }
}

/// What comes in, counted by whoever takes it.
#[derive(Default)]
pub struct Intake {
    begun: AtomicU64,
    ended: AtomicU64,
    timely: AtomicU64,
    ahead: AtomicU64,
    behind: AtomicU64,
}

impl Intake {
    /// Announces a batch that is to be kept and judged; it is on its way until the answer is dropped.
    pub fn taking(&self) -> Taking<'_> {
        self.begun.fetch_add(1, Relaxed);
        Taking(self)
    }

    /// Adds what the points of a batch say about the clock.
    pub fn note(&self, times: OwnTimes) {
        let counts = [(&self.timely, times.timely), (&self.ahead, times.ahead), (&self.behind, times.behind)];
        for (count, more) in counts.into_iter().filter(|(_, more)| *more > 0) {
            count.fetch_add(more, Relaxed);
        }
    }

    /// Points since the start by their own times.
    pub fn own_times(&self) -> OwnTimes {
        let [timely, ahead, behind] = [&self.timely, &self.ahead, &self.behind].map(|count| count.load(Relaxed));
        OwnTimes { timely, ahead, behind }
    }

    /// Figures for a look. `unjudged` counts the points that were refused unjudged.
    pub fn seen(&self, unjudged: u64) -> Seen {
        // The ends first: a batch that ends in between counts as one that is on its way.
        let ended = self.ended.load(Relaxed);
        Seen { begun: self.begun.load(Relaxed), ended, unjudged, times: self.own_times() }
    }
}

/// A batch on its way.
pub struct Taking<'i>(&'i Intake);

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Relaxed);
    }
}

/// What came in since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Batches that began, and that ended.
    pub begun: u64,
    pub ended: u64,
    /// Points that were refused unjudged.
    pub unjudged: u64,
    pub times: OwnTimes,
}

/// How well the server has heard since the last look.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    Well,
    /// There was a gap, for this reason: silence counts from now on.
    Anew(String),
    /// Nobody can be heard, for this reason: no silence counts.
    Badly(String),
}

/// The last look, and what was seen then.
#[derive(Default)]
pub struct Listening {
    /// The clocks of the last look.
    last: Option<(i64, Duration)>,
    seen: Seen,
    /// The steady clock when a batch ended last, or none was on its way.
    flowed: Duration,
    /// Points of the last minutes, the older ones counting less.
    recent: OwnTimes,
    halved: Duration,
    /// Whether nobody could be heard at the last look.
    badly: bool,
}

impl Listening {
    /// Looks at the wall clock (Unix seconds), the steady clock (since any moment), and at what has come in.
    pub fn look(&mut self, wall: i64, steady: Duration, seen: Seen) -> Heard {
        let before = self.last.replace((wall, steady));
        if let Some(why) = before.and_then(|before| gap(before, (wall, steady))) {
            *self = Listening { last: self.last, seen, flowed: steady, halved: steady, ..Listening::default() };
            return Heard::Anew(why);
        }
        let was_badly = self.badly;
        let why = self.why_badly(wall, steady, seen);
        self.badly = why.is_some();
        match why {
            Some(why) => Heard::Badly(why),
            None if was_badly => Heard::Anew("points are taken again".to_string()),
            None => Heard::Well,
        }
    }

    fn why_badly(&mut self, wall: i64, steady: Duration, seen: Seen) -> Option<String> {
        let before = std::mem::replace(&mut self.seen, seen);
        if seen.begun == seen.ended || seen.ended != before.ended {
            self.flowed = steady;
        }
        self.recent.add(seen.times.since(before.times));
        if steady.saturating_sub(self.halved) >= HALF_LIFE {
            self.recent.halve();
            self.halved = steady;
        }
        let stands = steady.saturating_sub(self.flowed).as_secs();
        let OwnTimes { timely, ahead, behind } = self.recent;
        if stands > GAP_S as u64 {
            Some(format!("points are on their way for {stands} s and are not taken: does the disk stand still?"))
        } else if seen.unjudged > before.unjudged {
            Some("points are refused unjudged, as neither disk nor memory has room".to_string())
        } else if ahead > timely + behind {
            let clock = clock::local_text(wall);
            Some(format!("most points are refused, as they are ahead of this server's clock ({clock}): is it right?"))
        } else {
            None
        }
    }
}

/// The gap between two looks, if there is one.
fn gap(before: (i64, Duration), now: (i64, Duration)) -> Option<String> {
    let stood = now.1.saturating_sub(before.1).as_secs() as i64;
    let step = now.0.saturating_sub(before.0).saturating_sub(stood);
    if stood > GAP_S {
        Some(format!("this process stood still for {stood} s"))
    } else if step.saturating_abs() > GAP_S {
        let [from, to] = [before.0, now.0].map(clock::local_text);
        Some(format!("the clock was set by {step} s, from {from} to {to}, or the machine slept"))
    } else {
        None
    }
}

/// Whoever looks: the clocks, and what it tells of them.
pub struct Listener {
    listening: Mutex<Listening>,
    started: Instant,
    outage: Outage,
}

impl Listener {
    /// A listener that has not looked yet.
    pub fn new(health: &Health) -> Listener {
        let outage = health.outage("this server does not hear its hosts; their silence is not counted");
        Listener { listening: Mutex::default(), started: Instant::now(), outage }
    }

    /// Looks, and tells what is wrong; `listen` gets how well was heard, and the wall clock.
    fn look(&self, listen: impl Fn(&mut dyn FnMut(Seen) -> (Heard, i64))) {
        listen(&mut |seen| {
            let (wall, steady) = (clock::now(), self.started.elapsed());
            let heard = self.listening.lock().unwrap_or_else(PoisonError::into_inner).look(wall, steady, seen);
            match &heard {
                Heard::Well => self.outage.works(),
                Heard::Badly(why) => self.outage.fails(why.clone()),
                Heard::Anew(why) => {
                    self.outage.works();
                    tracing::warn!(why, "who is silent is counted anew, as after a start");
                }
            }
            (heard, wall)
        });
    }
}

/// Looks each second until the stop. `listen` asks for what was heard, and looks for silence.
pub async fn run<L>(listener: Listener, listen: L, mut stopping: watch::Receiver<bool>) -> Result<()>
where
    L: Fn(&mut dyn FnMut(Seen) -> (Heard, i64)) + Send + Sync + 'static,
{
    let work = Arc::new((listener, listen));
    loop {
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
        let work = work.clone();
        let look = tokio::task::spawn_blocking(move || work.0.look(&work.1));
        look.await.context("looking for silence")?;
    }
}

#[cfg(test)]
mod tests;
