//! Listening: whether this server could hear its hosts all the time between two looks at the clocks.
//!
//! Why: a `nodata` rule asks who is silent, and whoever does not listen hears nobody: the process was stopped, the
//! machine suspended, the disk took no points, or the wall clock was set and the silence only seems to be long. Each of
//! these raised an alarm for the whole fleet.
//! How: each second [`Listening::look`] compares the wall clock with the steady one, and asks the [`Intake`] whether
//! points are taken. A gap between two looks, or a step of the clock, is a start: all silences count anew
//! ([`Heard::Anew`]). While points cannot be taken no silence is counted at all ([`Heard::Badly`]): a batch stands
//! still on its way, points are refused as neither disk nor memory takes them, or most hosts are ahead of a clock that
//! must be wrong ([`HostClocks`]: hosts and not points, for one host may send most of these). The look has a thread of
//! its own: a slow disk must not look like a server that was stopped.
//! Invariants: what is decided here depends on the arguments only. No alarm about silence is made less than a rule's
//! own time after the last gap; a server that listens without a break is never late by this.
//! Memory: some counters, and the cells of [`HostClocks`].

use crate::clock;
use crate::engine::host_clocks::{HostClocks, Hosts};
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

/// Time after which what the hosts' clocks said is that of the last minute: agents report once a minute.
const MINUTE: Duration = Duration::from_secs(60);

/// What comes in, counted by whoever takes it.
#[derive(Default)]
pub struct Intake {
    begun: AtomicU64,
    ended: AtomicU64,
    pub clocks: HostClocks,
}

impl Intake {
    /// Announces a batch that is to be kept and judged; it is on its way until the answer is dropped.
    pub fn taking(&self) -> Taking<'_> {
        self.begun.fetch_add(1, Relaxed);
        Taking(self)
    }

    /// Figures for a look. `unjudged` counts the points that were refused unjudged.
    pub fn seen(&self, unjudged: u64) -> Seen<'_> {
        // The ends first: a batch that ends in between counts as one that is on its way.
        let ended = self.ended.load(Relaxed);
        Seen { begun: self.begun.load(Relaxed), ended, unjudged, clocks: &self.clocks }
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
#[derive(Clone, Copy)]
pub struct Seen<'i> {
    /// Batches that began, and that ended.
    pub begun: u64,
    pub ended: u64,
    /// Points that were refused unjudged.
    pub unjudged: u64,
    /// What the hosts' times say; the look keeps its minutes.
    pub clocks: &'i HostClocks,
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
    /// What had come then: batches that ended, and points refused unjudged.
    ended: u64,
    unjudged: u64,
    /// The steady clock when a batch ended last, or none was on its way.
    flowed: Duration,
    /// The steady clock when the minute of the hosts' clocks began.
    minute: Duration,
    /// Whether nobody could be heard at the last look.
    badly: bool,
}

impl Listening {
    /// Looks at the wall clock (Unix seconds), the steady clock (since any moment), and at what has come in.
    pub fn look(&mut self, wall: i64, steady: Duration, seen: Seen<'_>) -> Heard {
        let before = self.last.replace((wall, steady));
        if let Some(why) = before.and_then(|before| gap(before, (wall, steady))) {
            seen.clocks.forget();
            let Seen { ended, unjudged, .. } = seen;
            *self = Listening { last: self.last, ended, unjudged, flowed: steady, minute: steady, badly: false };
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

    fn why_badly(&mut self, wall: i64, steady: Duration, seen: Seen<'_>) -> Option<String> {
        let ended_before = std::mem::replace(&mut self.ended, seen.ended);
        let unjudged_before = std::mem::replace(&mut self.unjudged, seen.unjudged);
        if seen.begun == seen.ended || seen.ended != ended_before {
            self.flowed = steady;
        }
        if steady.saturating_sub(self.minute) >= MINUTE {
            seen.clocks.end_minute();
            self.minute = steady;
        }
        let stands = steady.saturating_sub(self.flowed).as_secs();
        let Hosts { timely, ahead, behind } = seen.clocks.hosts();
        if stands > GAP_S as u64 {
            Some(format!("points are on their way for {stands} s and are not taken: does the disk stand still?"))
        } else if seen.unjudged > unjudged_before {
            Some("points are refused unjudged, as neither disk nor memory has room".to_string())
        } else if ahead > timely + behind {
            let clock = clock::local_text(wall);
            let heard = timely + ahead + behind;
            Some(format!(
                "{ahead} of {heard} hosts are ahead of this server's clock ({clock}), and refused: is it right?"
            ))
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
    fn look(&self, listen: impl Fn(&mut dyn FnMut(Seen<'_>) -> (Heard, i64))) {
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
    L: Fn(&mut dyn FnMut(Seen<'_>) -> (Heard, i64)) + Send + Sync + 'static,
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
