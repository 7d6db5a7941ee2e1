//! Sleep: series that nobody writes to leave memory; their names go to cold runs on disk.
//!
//! Why: every container that ever lived would else cost its texts, a record and a head for ever.
//! How, in an order that a crash may cut anywhere:
//! 1. A look finds the series whose newest point is older than `silent_s`, against the clock or the newest data,
//!    whichever is earlier, and whose points are all in blocks. Their names are written to a cold run and synced.
//! 2. They become *drowsy*: batches that are decoded from now on do not find them; who creates one of them wakes it.
//! 3. [`GRACE_S`] later, when the batches that found them before are through, those that got no point meanwhile lose
//!    their head, the series file notes that they sleep, and they leave the table. The others stay, as if nothing had
//!    been.
//!
//! Until the note of step 3 the table has them after a restart; from then on the run does. The head goes before the
//! note is written: so no point was ever acknowledged for a series that the file calls asleep. A batch that was on its
//! way for longer than the grace meets an unknown id, and must be sent again.
//! Where memory is short ([`Sleeper::sleep_early`]) the looks are frequent, the grace is short, and what nobody needs
//! may sleep when it has missed [`EARLY_STEPS`] points: a tag with a request's id makes series of one point each, by
//! the thousand. A look also merges runs when there are many, drops those whose points have all expired, and writes the
//! series file anew when most of it is dead.
//! Invariants: one call works at a time; the table is locked for stretches of some thousand steps only.
//! Memory: 4 bytes per drowsy series; while a run is written, up to `SLICE` names.

use crate::error::Result;
use crate::parts::Parts;
use crate::series::cold::{self, ColdFound, ColdSeries, RunWriter};
use crate::series::{Change, Compaction, Meta, Past, Table, kind_since};
use crate::sizes::GROUP;
use model::{SeriesId, SeriesKey, Tags};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Seconds that a batch may be on its way from the door to the hot chunk: such a batch takes milliseconds.
const GRACE_S: i64 = 60;

/// Seconds of grace where memory is short: who was longer on the way is told to send again.
const EARLY_GRACE_S: i64 = 10;

/// Points that a series must have missed to sleep early: one may be late, and times are aligned downwards.
const EARLY_STEPS: i64 = 3;

/// No silence is shorter than this, whatever the step: a sender that is restarted.
const EARLY_SILENCE_MIN_S: i64 = 120;

/// Between two looks. Silence is counted in days.
const LOOK_S: i64 = 1800;

/// Series per run: its names are sorted in memory, some 10 MB.
const SLICE: usize = 1 << 17;

/// Series per run where memory is short.
const EARLY_SLICE: usize = 1 << 14;

/// Series that are noted under one lock of the series file, and names copied under one of the table.
const STRETCH: usize = 1024;

/// Steps of a sweep under one lock of the table.
const SWEEP_STEPS: usize = 8192;

/// A series file below this is not worth writing anew.
const COMPACT_BYTES_MIN: u64 = 1 << 20;

/// The series that are about to fall asleep, and when to look for more.
pub struct Sleeper {
    next_sequence: u64,
    next_look: i64,
    /// Ascending.
    drowsy: Vec<SeriesId>,
    drowsy_since: i64,
    /// The measure by which the drowsy series are silent.
    silence: Silence,
}

/// The silence after which a series leaves memory.
#[derive(Clone, Copy, PartialEq)]
enum Silence {
    /// Silence since this time.
    Since(u32),
    /// Silence for some steps, counted back from this time.
    Early(i64),
}

impl Silence {
    /// A series of this step must be silent since then.
    fn limit(self, step: u32) -> u32 {
        match self {
            Silence::Since(limit) => limit,
            Silence::Early(data_now) => {
                let silence = (i64::from(step) * EARLY_STEPS).max(EARLY_SILENCE_MIN_S);
                u32::try_from(data_now - silence).unwrap_or(0)
            }
        }
    }

    fn is_early(self) -> bool {
        matches!(self, Silence::Early(_))
    }
}

/// Says of which series somebody needs the points in memory. Called with the shard of the series locked: it must not
/// take that lock, nor call what takes one of the store.
pub type IsNeeded<'a> = &'a dyn Fn(SeriesId) -> bool;

/// Says of every series that nobody needs it.
const UNNEEDED: IsNeeded<'static> = &|_| false;

impl Sleeper {
    /// A sleeper that looks at once; its next run has `next_sequence`.
    pub fn new(next_sequence: u64, now: i64) -> Sleeper {
        Sleeper { next_sequence, next_look: now, drowsy: Vec::new(), drowsy_since: now, silence: Silence::Since(0) }
    }

    /// A clock that was ahead and is set back must not put off what is due.
    fn follow_clock(&mut self, now: i64) {
        self.next_look = self.next_look.min(now + LOOK_S);
        self.drowsy_since = self.drowsy_since.min(now);
    }
}

/// The series that a call of `sleep_silent` moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slept {
    /// Series that will sleep when the grace is over.
    pub drowsy: usize,
    /// Series that sleep now.
    pub asleep: usize,
}

/// A name on its way to a run.
struct Leaving {
    endpoint: u32,
    counter: u32,
    id: SeriesId,
    meta: Meta,
    newest: u32,
}

impl Sleeper {
    /// Lets silent series leave memory, those that were looked up a grace ago. `each` is told of those that did.
    pub fn sleep_silent(
        &mut self,
        parts: &Parts,
        now: i64,
        each: &mut dyn FnMut(SeriesId, SeriesKey<'_>),
    ) -> Result<Slept> {
        self.follow_clock(now);
        let mut slept = Slept::default();
        if !self.drowsy.is_empty() && now >= self.drowsy_since + GRACE_S {
            if self.silence.is_early() {
                // Memory is not short any more.
                parts.stay_awake(self);
            } else {
                slept.asleep = parts.fall_asleep(self, now, UNNEEDED, each)?;
            }
        }
        if now >= self.next_look && self.drowsy.is_empty() {
            if parts.options.silent_s > 0 {
                let limit = u32::try_from(parts.data_now(now) - parts.options.silent_s);
                parts.look(self, Silence::Since(limit.unwrap_or(0)), now, UNNEEDED)?;
            }
            parts.tidy_names(now)?;
            // Else the next call tries again.
            self.next_look = now + LOOK_S;
        }
        slept.drowsy = self.drowsy.len();
        Ok(slept)
    }

    /// Lets series leave memory where it is short: series that nobody needs leave memory when they have missed
    /// [`EARLY_STEPS`] points.
    pub fn sleep_early(
        &mut self,
        parts: &Parts,
        now: i64,
        is_needed: IsNeeded<'_>,
        each: &mut dyn FnMut(SeriesId, SeriesKey<'_>),
    ) -> Result<Slept> {
        self.follow_clock(now);
        let mut slept = Slept::default();
        let (grace, is_needed_now) =
            if self.silence.is_early() { (EARLY_GRACE_S, is_needed) } else { (GRACE_S, UNNEEDED) };
        if !self.drowsy.is_empty() && now >= self.drowsy_since + grace {
            slept.asleep = parts.fall_asleep(self, now, is_needed_now, each)?;
        }
        if self.drowsy.is_empty() {
            let silence = Silence::Early(parts.data_now(now));
            parts.look(self, silence, now, is_needed)?;
            parts.tidy_names(now)?;
        }
        slept.drowsy = self.drowsy.len();
        Ok(slept)
    }
}

impl Parts {
    /// Lets go of the points in memory that are in blocks and that nobody needs, but for the last few of each series.
    /// Queries find them on the disk.
    pub fn trim_unneeded(&self, is_needed: IsNeeded<'_>) {
        let geometry = self.shards.geometry;
        let groups = self.table().used_groups();
        for first in groups.into_iter().map(|group| SeriesId(group * GROUP)) {
            let mut hot = self.shards.lock(geometry.shard_of(first));
            for id in (first.0..).take(GROUP as usize).map(SeriesId) {
                let slot = geometry.slot_of(id);
                if hot.meta(slot).is_some() && !is_needed(id) {
                    hot.trim_to_last(slot);
                }
            }
        }
        self.shards.iter().for_each(|mut hot| hot.shrink());
    }

    /// Clears away what series that left the table leave behind there, in runs and in the series file.
    fn tidy_names(&self, now: i64) -> Result<()> {
        if self.table().dead() > 0 {
            self.sweep_table();
        }
        self.merge_runs(now)?;
        self.compact_series_file()
    }

    fn stay_awake(&self, sleeper: &mut Sleeper) {
        for ids in std::mem::take(&mut sleeper.drowsy).chunks(STRETCH) {
            let mut table = self.table_mut();
            ids.iter().for_each(|id| _ = table.set_drowsy(*id, false));
        }
    }

    /// The clock as far as it is believed, or the newest data where the clock is ahead of it: a clock that jumps must
    /// not put a fleet to sleep.
    fn data_now(&self, now: i64) -> i64 {
        let now = self.believed(now);
        let in_memory = self.shards.iter().map(|hot| hot.newest_of_all()).max().unwrap_or(0);
        let newest = in_memory.max(self.blocks().all_raw().map(|block| block.max_time).max().unwrap_or(0));
        if newest == 0 { now } else { now.min(i64::from(newest)) }
    }

    fn look(&self, sleeper: &mut Sleeper, silence: Silence, now: i64, is_needed: IsNeeded<'_>) -> Result<()> {
        (sleeper.silence, sleeper.drowsy_since) = (silence, now);
        let slice = if silence.is_early() { EARLY_SLICE } else { SLICE };
        let geometry = self.shards.geometry;
        let groups = self.table().used_groups();
        let mut groups = groups.into_iter().peekable();
        while groups.peek().is_some() {
            let mut silent = Vec::new();
            while silent.len() < slice
                && let Some(group) = groups.next()
            {
                let first = SeriesId(group * GROUP);
                let mut hot = self.shards.lock(geometry.shard_of(first));
                let ids = (first.0..).take(GROUP as usize).map(SeriesId);
                silent.extend(ids.filter_map(|id| {
                    let slot = geometry.slot_of(id);
                    let limit = silence.limit(hot.meta(slot)?.step);
                    let newest = hot.may_sleep(slot, limit, now)?;
                    (!is_needed(id)).then_some((id, newest))
                }));
            }
            if silent.is_empty() {
                continue;
            }
            self.write_run(sleeper, &silent)?;
            for silent in silent.chunks(STRETCH) {
                let mut table = self.table_mut();
                sleeper.drowsy.extend(silent.iter().map(|(id, _)| *id).filter(|id| table.set_drowsy(*id, true)));
            }
        }
        Ok(())
    }

    /// Writes the names of these series, with upper bounds of their newest times, to a new run.
    fn write_run(&self, sleeper: &mut Sleeper, silent: &[(SeriesId, u32)]) -> Result<()> {
        let (mut endpoints, mut counters) = (HashMap::new(), HashMap::new());
        let mut leaving = Vec::with_capacity(silent.len());
        {
            // So that no place and no counter is given anew between two stretches.
            let _chains = self.chains.read();
            for silent in silent.chunks(STRETCH) {
                let table = self.table();
                for (id, newest) in silent {
                    let Some(((place, counter), meta)) = table.parts(*id).zip(table.meta(*id)) else { continue };
                    endpoints
                        .entry(place)
                        .or_insert_with(|| (table.endpoint(place).to_string(), table.endpoint_number(place)));
                    counters.entry(counter).or_insert_with(|| {
                        let (metric, tags) = table.counters().texts(counter);
                        (metric.to_string(), tags.to_string())
                    });
                    leaving.push(Leaving { endpoint: place, counter, id: *id, meta, newest: *newest });
                }
            }
        }
        // The texts are sorted once each, then the series by their ranks.
        let (endpoints, counters) = (ranked(endpoints), ranked(counters));
        for series in &mut leaving {
            series.endpoint = endpoints.1[&series.endpoint];
            series.counter = counters.1[&series.counter];
        }
        leaving.sort_unstable_by_key(|series| (series.endpoint, series.counter));
        let mut writer = RunWriter::begin(&*self.disk, &self.cold_dir(), sleeper.next_sequence)?;
        for Leaving { endpoint, counter, id, meta, newest } in leaving {
            let (name, number) = &endpoints.0[endpoint as usize];
            let (metric, tags) = &counters.0[counter as usize];
            let key = SeriesKey { endpoint: name, metric, tags: Tags::assume_canonical(tags) };
            writer.add(&ColdSeries { key, found: ColdFound { id, endpoint: *number, meta, newest } })?;
        }
        let Some(run) = writer.finish()? else { return Ok(()) };
        sleeper.next_sequence += 1;
        let mut runs = self.runs().to_vec();
        runs.push(Arc::new(run));
        self.set_runs(runs);
        Ok(())
    }

    /// Returns how many of the drowsy series sleep now. On an error those that are left stay drowsy, and are tried
    /// again.
    fn fall_asleep(
        &self,
        sleeper: &mut Sleeper,
        now: i64,
        is_needed: IsNeeded<'_>,
        each: &mut dyn FnMut(SeriesId, SeriesKey<'_>),
    ) -> Result<usize> {
        let drowsy = std::mem::take(&mut sleeper.drowsy);
        let mut asleep = 0;
        for (i, ids) in drowsy.chunks(STRETCH).enumerate() {
            match self.fall_asleep_together(ids, sleeper, now, is_needed, each) {
                Ok(count) => asleep += count,
                Err(error) => {
                    sleeper.drowsy.extend_from_slice(&drowsy[i * STRETCH..]);
                    return Err(error);
                }
            }
        }
        if asleep > 0 {
            self.sweep_table();
            self.shards.iter().for_each(|mut hot| hot.shrink());
        }
        Ok(asleep)
    }

    fn fall_asleep_together(
        &self,
        ids: &[SeriesId],
        sleeper: &mut Sleeper,
        now: i64,
        is_needed: IsNeeded<'_>,
        each: &mut dyn FnMut(SeriesId, SeriesKey<'_>),
    ) -> Result<usize> {
        // Held all along, so that nobody creates one of these in between.
        let mut series = self.naming();
        let mut gone = Vec::with_capacity(ids.len());
        for ids in ids.chunk_by(|a, b| a.0 / GROUP == b.0 / GROUP) {
            let mut hot = self.shards.lock(self.shards.geometry.shard_of(ids[0]));
            for id in ids {
                let slot = self.shards.geometry.slot_of(*id);
                // It was removed, or created again.
                let drowsy = {
                    let table = self.table();
                    table.meta(*id).filter(|_| table.is_drowsy(*id))
                };
                let Some(meta) = drowsy else { continue };
                match hot.may_sleep(slot, sleeper.silence.limit(meta.step), now) {
                    Some(newest) if !is_needed(*id) => {
                        hot.remove(slot);
                        gone.push((*id, meta, newest));
                    }
                    // A flush is on its way: the next call sees.
                    None if hot.is_flushing() => sleeper.drowsy.push(*id),
                    // A point came, or a rule.
                    _ => {
                        self.table_mut().set_drowsy(*id, false);
                    }
                }
            }
        }
        if gone.is_empty() {
            return Ok(0);
        }
        let mut changes: Vec<Change<'_>> = gone.iter().map(|(id, _, _)| Change::Sleep { id: *id }).collect();
        // Told often, as it is what damage to the file may cost least.
        changes.push(Change::Next { endpoint: series.next_endpoint, series: series.next_id });
        if let Err(error) = series.file.append(&changes) {
            for (id, meta, newest) in gone {
                let (mut hot, slot) = self.shards.lock_of(id);
                hot.begin(slot, meta, f64::from(newest), true);
                hot.set_since(slot, kind_since(meta, self.table().past(id)));
            }
            return Err(error);
        }
        self.names_unsynced.store(true, Relaxed);
        let mut names = NameCopy::default();
        gone.iter().for_each(|(id, _, _)| names.push(&self.table(), *id));
        {
            let mut table = self.table_mut();
            for (id, _, _) in &gone {
                table.forget(*id);
            }
        }
        names.iter().for_each(|(id, _, _, key)| each(id, key));
        Ok(gone.len())
    }

    /// Gives back what series that left the table still take there.
    pub(crate) fn sweep_table(&self) {
        let _chains = self.chains.write();
        let mut sweep = self.table_mut().begin_sweep();
        while !self.table_mut().sweep(&mut sweep, SWEEP_STEPS) {
            // The lock is not fair: who took it again at once would keep out all who wait.
            std::thread::yield_now();
        }
    }

    fn merge_runs(&self, now: i64) -> Result<()> {
        let expired = self.data_now(now) - self.options.longest_retention_s();
        self.table_mut().forget_past(expired);
        let (old, runs): (Vec<_>, Vec<_>) =
            self.runs().iter().cloned().partition(|run| i64::from(run.newest_max) < expired);
        if !old.is_empty() {
            self.set_runs(runs);
            self.before_removal()?;
            cold::retire(&*self.disk, &old, None)?;
        }
        loop {
            let mut runs = self.runs().to_vec();
            let Some(range) = cold::pick_merge(&runs) else { return Ok(()) };
            let inputs = runs[range.clone()].to_vec();
            let mut keep = |series: &ColdSeries<'_>| {
                i64::from(series.found.newest) >= expired && !self.is_removed(series.found.id)
            };
            let dir = self.cold_dir();
            let Some(merged) = cold::merge(&*self.disk, &dir, &inputs, &mut keep, &mut |_| true)? else {
                return Ok(());
            };
            merged.corrupt.iter().for_each(|error| self.note_damage(error));
            let output = merged.run.map(Arc::new);
            runs.splice(range, output.clone());
            self.set_runs(runs);
            self.before_removal()?;
            cold::retire(&*self.disk, &inputs, output.as_deref())?;
        }
    }

    /// Writes the series file anew when more than half of it tells of what is not in the table any more.
    fn compact_series_file(&self) -> Result<()> {
        let bytes = self.naming().file.bytes();
        if bytes < COMPACT_BYTES_MIN || bytes / 2 < self.defined_bytes() {
            return Ok(());
        }
        let mut compaction = Compaction::begin(&self.disk, &self.options.dir)?;
        let next = {
            let naming = self.naming();
            compaction.follow(&naming.file);
            Change::Next { endpoint: naming.next_endpoint, series: naming.next_id }
        };
        // First, so that no id after it looks far ahead; at the end once more.
        compaction.add(&[next])?;
        let mut names = NameCopy::default();
        let groups = self.table().group_count();
        for group in 0..groups {
            let removed = names.fill(&self.table(), group);
            let define = |(id, endpoint, meta, key)| {
                let SeriesKey { endpoint: endpoint_name, metric, tags } = key;
                Change::Define { id, endpoint, endpoint_name, metric, tags, meta }
            };
            compaction.add(&names.iter().map(define).collect::<Vec<_>>())?;
            if let Some(bits) = removed {
                compaction.add(&[Change::Removed { group, bits }])?;
            }
        }
        // Also of series that sleep: their names are elsewhere.
        let changed: Vec<(SeriesId, Vec<Past>)> =
            self.table().all_past().map(|(id, past)| (id, past.to_vec())).collect();
        for (id, past) in changed {
            compaction.add(&past.into_iter().map(|past| Change::Past { id, past }).collect::<Vec<_>>())?;
        }
        compaction.add(&[next])?;
        compaction.settle()?;
        self.switch_series_file(compaction)?;
        self.sync_names()
    }

    /// The last step of a compaction. Nobody is told meanwhile that a name is durable: what is appended while the new
    /// file is synced is in the old file, and will be in the new one, and is synced in neither.
    fn switch_series_file(&self, mut compaction: Compaction) -> Result<()> {
        let _sync = self.names_sync.lock();
        let journal = self.naming().file.watch();
        let caught_up = compaction.catch_up(&journal);
        let mut naming = self.naming();
        let recent = naming.file.unwatch();
        caught_up?;
        naming.file.switch_to(compaction, &recent)?;
        self.names_unsynced.store(true, Relaxed);
        Ok(())
    }

    /// About what the series file needs for the series in the table.
    fn defined_bytes(&self) -> u64 {
        let groups = self.table().used_groups();
        let mut bytes = 0;
        for group in groups {
            let table = self.table();
            // Ids, type, step and lengths; the endpoint's name is told once per record.
            bytes += table
                .series_in(group)
                .map(|(_, key, _)| key.metric.len() + key.tags.as_str().len() + 12)
                .sum::<usize>();
        }
        bytes as u64
    }
}

/// The values in their order, and the rank of each by its key.
fn ranked<T: Ord>(by_key: HashMap<u32, T>) -> (Vec<T>, HashMap<u32, u32>) {
    let mut pairs: Vec<(T, u32)> = by_key.into_iter().map(|(key, value)| (value, key)).collect();
    pairs.sort_unstable();
    let ranks = pairs.iter().enumerate().map(|(rank, (_, key))| (*key, rank as u32)).collect();
    (pairs.into_iter().map(|(value, _)| value).collect(), ranks)
}

/// Names copied out of the table, so that it is not held while something is done with them.
#[derive(Default)]
struct NameCopy {
    text: String,
    /// Id, endpoint number, meta, and where endpoint, metric and tags end in `text`.
    series: Vec<(SeriesId, u32, Meta, [usize; 3])>,
}

impl NameCopy {
    /// Takes the series of a group; returns which of its ids were removed.
    fn fill(&mut self, table: &Table, group: u32) -> Option<[u64; 4]> {
        self.text.clear();
        self.series.clear();
        table.series_in(group).for_each(|(id, _, _)| self.push(table, id));
        table.removed_of(group)
    }

    fn push(&mut self, table: &Table, id: SeriesId) {
        let Some(((place, _), key)) = table.parts(id).zip(table.key(id)) else { return };
        let Some(meta) = table.meta(id) else { return };
        let ends = [key.endpoint, key.metric, key.tags.as_str()].map(|text| {
            self.text.push_str(text);
            self.text.len()
        });
        self.series.push((id, table.endpoint_number(place), meta, ends));
    }

    fn iter(&self) -> impl Iterator<Item = (SeriesId, u32, Meta, SeriesKey<'_>)> {
        let mut start = 0;
        self.series.iter().map(move |(id, endpoint, meta, ends)| {
            let (name, metric) = (&self.text[start..ends[0]], &self.text[ends[0]..ends[1]]);
            let tags = Tags::assume_canonical(&self.text[ends[1]..ends[2]]);
            start = ends[2];
            (*id, *endpoint, *meta, SeriesKey { endpoint: name, metric, tags })
        })
    }
}
