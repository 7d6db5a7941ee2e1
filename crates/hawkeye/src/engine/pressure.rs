//! Pressure: holds the process to `memory_budget`, and says who is refused where it does not fit.
//!
//! Why: a server that grows until the kernel kills it loses everybody's alarms for one sender's mistake.
//! How: what counts is resident memory, all of it, as the kernel shows it to whoever watches the process. It is looked
//! at each second, and by whoever makes new series when an estimate of what they took since the last look passes
//! [`LOOK_BYTES`]: a hundred thousand of them in one second are looked at some twenty times. What is used, against the
//! budget, is a level:
//!
//! - calm below 70 %: nothing;
//! - shrink from 70 %: freed memory goes back to the system at once; buffers, and pages of code, that are not in use
//!   are dropped;
//! - flush from 85 %: blocks are written early; what they hold and no rule needs leaves memory; what no rule needs and
//!   has missed a few points falls asleep early;
//! - refuse from 95 %: new series are refused, the largest growers first (`growth.rs`), all of them at 100 %.
//!
//! Points of known series are taken at every level, and judged; a series that sleeps and wakes counts as a new one.
//! Invariants: a level is left only when [`SLACK_PERCENT`] below its begin, so that none flutters; asking for a new
//! series costs no system call but after `LOOK_BYTES`; without `/proc` the level stays calm, as it cannot be known.
//! Memory: `growth.rs`.

use crate::clock;
use crate::engine::growth::{Growth, GrowthReport};
use crate::engine::{Engine, locks};
use crate::watch::memory::forget_unused_code;
use metrics::Figures;
use metrics::resident_bytes;
use model::SeriesKey;
use serde::Serialize;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed};
use stdx::RankedMutex;
use stdx::ranked::MutexGuard;
use tikv_jemalloc_ctl::{Access, AsName};

/// Share of the budget from which freed memory is given back at once, in percent.
const SHRINK_PERCENT: u64 = 70;
const FLUSH_PERCENT: u64 = 85;
/// Share of the budget from which new series are refused, in percent.
pub const REFUSE_PERCENT: u64 = 95;

/// Distance below its begin at which a level is left, in percent of the budget.
pub const SLACK_PERCENT: u64 = 2;

/// Bytes that new series may take between two looks: 1.5 % of the smallest budget that anybody should give (64 MiB).
const LOOK_BYTES: u64 = 1 << 20;

/// Bytes of a new series beside its texts: record, hash slots, counter, spans, head, some slack of vectors that double
/// (`cargo bench -p store`: 142 bytes with a first point, at a million series).
const SERIES_BYTES: u64 = 160;

/// Seconds between early flushes while series come by the thousand, which must be in a block before they may sleep.
/// Each flush writes a file per day.
const FLUSH_INTERVAL_S: i64 = 60;
/// Seconds between early flushes while only points come.
const QUIET_FLUSH_INTERVAL_S: i64 = 600;

/// New series that make a flush worth its file.
const FLUSH_SERIES: u64 = 4096;

/// Seconds between looks for series that may sleep early, and for buffers that nobody uses.
const LOOK_INTERVAL_S: i64 = 10;

/// Milliseconds after which freed pages go back to the system: the setting that jemalloc is built with
/// (`.cargo/config.toml`).
const CALM_DECAY_MS: isize = 1000;

/// Shortness of memory, from none to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Calm,
    Shrink,
    Flush,
    Refuse,
}

const LEVELS: [Level; 4] = [Level::Calm, Level::Shrink, Level::Flush, Level::Refuse];

impl Level {
    fn begin_percent(self) -> u64 {
        match self {
            Level::Calm => 0,
            Level::Shrink => SHRINK_PERCENT,
            Level::Flush => FLUSH_PERCENT,
            Level::Refuse => REFUSE_PERCENT,
        }
    }

    /// Level that follows this one when `used` of `budget` bytes are resident.
    fn next(self, used: u64, budget: u64) -> Level {
        let is_in = |level: &Level| {
            // Who is in a level or above it leaves it later than others come.
            let slack = if *level != Level::Calm && *level <= self { SLACK_PERCENT } else { 0 };
            used.saturating_mul(100) >= budget.saturating_mul(level.begin_percent() - slack)
        };
        LEVELS.into_iter().rev().find(is_in).unwrap_or(Level::Calm)
    }

    /// Name of the level on `/memory` and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Level::Calm => "calm",
            Level::Shrink => "shrink",
            Level::Flush => "flush",
            Level::Refuse => "refuse",
        }
    }
}

/// Watch over the budget: what is used, and who may have more.
pub struct Pressure {
    budget: u64,
    /// Resident bytes at the last look.
    resident: AtomicU64,
    /// Estimate of the bytes that new series took since the last look.
    grown: AtomicU64,
    level: AtomicU8,
    level_since: AtomicI64,
    growth: RankedMutex<Growth>,
    flushes: AtomicU64,
    slept: AtomicU64,
}

/// Budget as `/memory` shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PressureReport {
    pub level: Level,
    pub level_since: i64,
    pub budget_bytes: u64,
    pub used_bytes: u64,
    pub early_flushes: u64,
    pub early_sleepers: u64,
    pub refused_series: u64,
}

impl Pressure {
    /// A calm watch over `budget` bytes.
    pub fn new(budget: u64, now: i64) -> Pressure {
        let pressure = Pressure {
            budget,
            resident: AtomicU64::new(0),
            grown: AtomicU64::new(0),
            level: AtomicU8::new(Level::Calm as u8),
            level_since: AtomicI64::new(now),
            growth: RankedMutex::new(locks::GROWTH, Growth::default()),
            flushes: AtomicU64::new(0),
            slept: AtomicU64::new(0),
        };
        pressure.look(now);
        pressure
    }

    /// Level at the last look.
    pub fn level(&self) -> Level {
        LEVELS[usize::from(self.level.load(Relaxed))]
    }

    fn used(&self) -> u64 {
        self.resident.load(Relaxed) + self.grown.load(Relaxed)
    }

    /// Whether there is room for a series that is not in memory. A caller that is told yes is expected to make the
    /// series.
    pub fn admit(&self, key: SeriesKey<'_>, now: i64) -> bool {
        let is_admitted = self.growth().admit(key, room(self.used(), self.budget), now);
        if is_admitted {
            let texts = key.endpoint.len() + key.metric.len() + key.tags.as_str().len();
            let bytes = SERIES_BYTES + texts as u64;
            if self.grown.fetch_add(bytes, Relaxed) + bytes >= LOOK_BYTES {
                self.look(now);
            }
        }
        is_admitted
    }

    /// Looks at what is used, and answers the level; call this each second at least.
    pub fn look(&self, now: i64) -> Level {
        if let Some(resident) = resident_bytes() {
            self.note(resident, now);
        }
        self.level()
    }

    fn note(&self, resident: u64, now: i64) {
        self.resident.store(resident, Relaxed);
        self.grown.store(0, Relaxed);
        let before = self.level();
        let level = before.next(resident, self.budget);
        // Of two that look at once one tells.
        let is_new =
            level != before && self.level.compare_exchange(before as u8, level as u8, Relaxed, Relaxed).is_ok();
        if is_new {
            self.level_since.store(now, Relaxed);
            self.tell(before, level, resident);
        }
    }

    fn tell(&self, before: Level, level: Level, resident: u64) {
        let (budget, level_name) = (self.budget, level.name());
        if level == Level::Refuse {
            let report = self.growth().report();
            let first = |growers: &[crate::engine::growth::Grower]| growers.first().map(|grower| grower.name.clone());
            tracing::warn!(
                resident,
                budget,
                endpoint = first(&report.endpoints),
                metric = first(&report.metrics),
                tag_key = first(&report.tag_keys),
                "memory_budget is nearly used: new series are refused, the largest growers first; these grow most (see /memory)"
            );
        } else if level > before {
            tracing::warn!(resident, budget, level = level_name, "memory is short");
        } else {
            tracing::info!(resident, budget, level = level_name, "memory is less short");
        }
    }

    /// Copies the figures for `/memory`.
    pub fn report(&self) -> PressureReport {
        PressureReport {
            level: self.level(),
            level_since: self.level_since.load(Relaxed),
            budget_bytes: self.budget,
            used_bytes: self.used(),
            early_flushes: self.flushes.load(Relaxed),
            early_sleepers: self.slept.load(Relaxed),
            refused_series: self.growth().refused(),
        }
    }

    /// Copies the lists of growers for `/memory`.
    pub fn growth_report(&self) -> GrowthReport {
        self.growth().report()
    }

    /// Bytes that the lists of growers hold.
    pub fn memory_bytes(&self) -> usize {
        self.growth().memory_bytes()
    }

    /// Appends the level, the budget and the refusals to the metrics page.
    pub fn show(&self, figures: &mut Figures<'_>) {
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        figures.gauge(
            "memory_level",
            "Shortness of memory: 0 calm, 1 shrink, 2 flush, 3 refuse",
            f64::from(self.level() as u8),
        );
        figures.counter("memory_early_flushes", "Flushes made because memory was short", load(&self.flushes));
        figures.counter(
            "memory_early_sleepers",
            "Series that left memory early because memory was short",
            load(&self.slept),
        );
        let (attempts, refused) = {
            let growth = self.growth();
            (growth.attempts(), growth.refused())
        };
        figures.counter("series_wanted", "New series asked for", attempts);
        figures.counter("series_refused", "New series refused because memory was short", refused);
    }

    fn growth(&self) -> MutexGuard<'_, Growth> {
        // A panic in there would be ours, and costs a weight at most.
        self.growth.lock()
    }
}

/// Free share of the last room, which is between where refusing begins and the budget: 1 and more for all of it, 0 for
/// none.
fn room(used: u64, budget: u64) -> f64 {
    let last_room = budget as f64 * (100 - REFUSE_PERCENT) as f64 / 100.0;
    ((budget as f64 - used as f64) / last_room).max(0.0)
}

/// Does what the level asks for; one thread calls it each second.
pub struct Relief {
    is_returning_at_once: bool,
    next_flush: i64,
    next_quiet_flush: i64,
    next_look: i64,
    /// Time at which the code of the start is given back once more (Unix seconds); by then each task has had its first
    /// turn.
    end_of_start: Option<i64>,
    /// New series that had been asked for at the last flush.
    flushed_attempts: u64,
}

impl Relief {
    /// A relief that has done nothing yet.
    pub fn new() -> Relief {
        Relief {
            is_returning_at_once: false,
            next_flush: i64::MIN,
            next_quiet_flush: i64::MIN,
            next_look: i64::MIN,
            end_of_start: Some(clock::now() + LOOK_INTERVAL_S),
            flushed_attempts: 0,
        }
    }

    /// Does what the present level asks for; call this each second. Errors are those of an early flush or of sleeping
    /// early.
    pub fn work(&mut self, pressure: &Pressure, engine: &Engine, now: i64) -> Result<(), store::Error> {
        let level = pressure.look(now);
        pressure.growth().halve_if_due(now);
        // A clock that is set back must not put off what is due.
        self.next_flush = self.next_flush.min(now + FLUSH_INTERVAL_S);
        self.next_quiet_flush = self.next_quiet_flush.min(now + QUIET_FLUSH_INTERVAL_S);
        self.next_look = self.next_look.min(now + LOOK_INTERVAL_S);
        if (level >= Level::Shrink) != self.is_returning_at_once {
            self.is_returning_at_once = level >= Level::Shrink;
            return_pages_after(if self.is_returning_at_once { 0 } else { CALM_DECAY_MS });
        }
        let is_due = now >= self.next_look;
        if is_due {
            self.next_look = now + LOOK_INTERVAL_S;
        }
        if level >= Level::Flush {
            self.flush_if_due(pressure, engine, now)?;
            if is_due {
                let asleep = engine.sleep_early(now)?.asleep;
                pressure.slept.fetch_add(asleep as u64, Relaxed);
            }
        }
        if self.end_of_start.take_if(|end| now >= *end).is_some() {
            forget_unused_code();
        }
        if level >= Level::Shrink && is_due {
            engine.store().shrink();
            forget_unused_code();
        }
        Ok(())
    }

    fn flush_if_due(&mut self, pressure: &Pressure, engine: &Engine, now: i64) -> Result<(), store::Error> {
        let attempts = pressure.growth().attempts();
        let has_many_new = now >= self.next_flush && attempts - self.flushed_attempts >= FLUSH_SERIES;
        if !has_many_new && now < self.next_quiet_flush {
            return Ok(());
        }
        (self.next_flush, self.next_quiet_flush) = (now + FLUSH_INTERVAL_S, now + QUIET_FLUSH_INTERVAL_S);
        self.flushed_attempts = attempts;
        engine.store().flush(now)?;
        engine.trim_unneeded();
        pressure.flushes.fetch_add(1, Relaxed);
        Ok(())
    }
}

/// Sets how long the allocator keeps unused pages, in all arenas that there are; 0 gives back at once what they keep
/// now.
fn return_pages_after(ms: isize) {
    let arenas: u32 = "arenas.narenas\0".name().read().unwrap_or(0);
    for arena in 0..arenas {
        // One that nobody has used yet cannot be set, and keeps nothing.
        let _ = format!("arena.{arena}.dirty_decay_ms\0").name().write(ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Tags;

    const MIB: u64 = 1 << 20;

    /// Levels by percent of the budget, one after the other.
    fn check(steps: &[(u64, Level)]) {
        let mut level = Level::Calm;
        for (percent, want) in steps {
            level = level.next(percent * MIB, 100 * MIB);
            assert_eq!(level, *want, "at {percent} % of {steps:?}");
        }
    }

    #[test]
    fn levels_begin_where_they_should_and_are_left_a_little_later() {
        use Level::*;
        check(&[
            (0, Calm),
            (69, Calm),
            (70, Shrink),
            (84, Shrink),
            (85, Flush),
            (94, Flush),
            (95, Refuse),
            (300, Refuse),
        ]);
        check(&[
            (95, Refuse),
            (94, Refuse),
            (93, Refuse),
            (92, Flush),
            (84, Flush),
            (82, Shrink),
            (68, Shrink),
            (67, Calm),
        ]);
        check(&[(99, Refuse), (84, Flush), (20, Calm), (69, Calm), (85, Flush), (83, Flush), (84, Flush)]);
    }

    #[test]
    fn the_last_room_ends_with_the_budget() {
        let check =
            |percent: u64, want: f64| assert!((room(percent * MIB, 100 * MIB) - want).abs() < 1e-9, "{percent} %");
        check(95, 1.0);
        check(96, 0.8);
        check(100, 0.0);
        check(120, 0.0);
        assert!(room(90 * MIB, 100 * MIB) > 1.0);
    }

    fn admit(pressure: &Pressure, i: usize) -> bool {
        let tags = format!("request_id={i:032}");
        pressure.admit(SeriesKey { endpoint: "h", metric: "m", tags: Tags::assume_canonical(&tags) }, 1000)
    }

    /// A burst is stopped by its own looks, long before the next second.
    #[test]
    fn a_burst_is_seen_between_two_looks() {
        let pressure = Pressure::new(u64::MAX, 1000);
        assert!((0..LOOK_BYTES as usize / 100).all(|i| admit(&pressure, i)));
        assert!(pressure.grown.load(Relaxed) < LOOK_BYTES, "it was looked at in between");
        // What the process uses now is above this budget, though nobody has noted it yet.
        let full = Pressure { budget: pressure.resident.load(Relaxed) / 2, ..Pressure::new(u64::MAX, 1000) };
        full.resident.store(0, Relaxed);
        let taken = (0..1_000_000).take_while(|i| admit(&full, *i)).count() as u64;
        assert!(taken <= LOOK_BYTES / SERIES_BYTES + 1, "{taken}");
        assert_eq!((full.level(), full.growth().refused()), (Level::Refuse, 1));
    }

    #[test]
    fn estimates_count_where_nobody_has_looked() {
        let pressure = Pressure::new(u64::MAX, 1000);
        let before = pressure.used();
        assert!(admit(&pressure, 1));
        assert!(pressure.used() > before + SERIES_BYTES || pressure.grown.load(Relaxed) == 0);
    }

    #[test]
    fn the_allocator_takes_the_setting() {
        return_pages_after(0);
        let ms: isize = "arena.0.dirty_decay_ms\0".name().read().expect("jemalloc");
        assert_eq!(ms, 0);
        return_pages_after(CALM_DECAY_MS);
        let ms: isize = "arena.0.dirty_decay_ms\0".name().read().expect("jemalloc");
        assert_eq!(ms, CALM_DECAY_MS);
    }
}
