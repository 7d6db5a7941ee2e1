//! Job: a merge on its way, series by series in ascending order; and the look through a block for removed series.
//!
//! How: every input stands at its next series; the lowest is taken from all that have it, its points are put in order,
//! and go to the outputs. Inputs are read in windows, so that a step is few large reads.

use super::plan::{INPUTS_MAX, Plan, removals};
use crate::block::rollup::{self, Bucket, rate_gap_s};
use crate::block::{Block, Entry, Kind, Label, Reader, Writer, keep_first_of_equal_times, take_head};
use crate::error::{Error, Result};
use crate::parts::Parts;
use crate::series::{Meta, Metas};
use model::SeriesId;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use stdx::ledger::Held;

/// Bytes of an input that are read at once.
const WINDOW_BYTES: usize = 64 << 10;

/// Bytes that finding a series counts for beside its chunk: so that a step through tiny or removed chunks ends too.
const ENTRY_COST: u64 = 8;

/// A merge under way: inputs, outputs, and the series that it has come to.
pub struct Job {
    pub plan: Plan,
    inputs: Vec<Input>,
    before: Vec<Input>,
    writers: Vec<Writer>,
    /// Numbers of inputs that are not what they were.
    damaged: BTreeSet<u64>,
    points: Vec<(u32, f64)>,
    buckets: Vec<Bucket>,
    /// Count of removals when the work began.
    removals: u64,
    held: Held,
}

/// A job whose outputs are on disk.
pub struct Finished {
    pub plan: Plan,
    pub outputs: Vec<Arc<Block>>,
    pub damaged: BTreeSet<u64>,
    pub removals: u64,
}

/// A block that is read from front to back.
struct Input {
    reader: Reader,
    page: usize,
    at: usize,
}

impl Input {
    fn open(parts: &Parts, block: &Arc<Block>) -> Result<Input> {
        let reader = Reader::open_ahead(&*parts.disk, block, WINDOW_BYTES)?;
        Ok(Input { reader, page: 0, at: 0 })
    }

    /// The entry that it stands at; `None` at the end.
    fn peek(&mut self) -> Result<Option<Entry>> {
        while self.page < self.reader.page_count() {
            // Skipped first, in case it cannot be read: the caller asks again.
            let page = self.page;
            self.page += 1;
            let entry = self.reader.page(page)?.get(self.at).copied();
            if entry.is_some() {
                self.page = page;
                return Ok(entry);
            }
            self.at = 0;
        }
        Ok(None)
    }

    fn advance(&mut self) {
        self.at += 1;
    }
}

/// Passes an input's error on, but for damage: that is noted.
fn unless_damaged<T>(result: Result<T>, number: u64, parts: &Parts, damaged: &mut BTreeSet<u64>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error @ Error::Corrupt { .. }) => {
            parts.note_damage(&error);
            damaged.insert(number);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Next entry of an input, as [`Input::peek`] gives it; a page that is damaged is passed over.
fn next_entry(input: &mut Input, parts: &Parts, damaged: &mut BTreeSet<u64>) -> Result<Option<Entry>> {
    let number = input.reader.block.label.number;
    loop {
        let peeked = input.peek();
        if let Some(entry) = unless_damaged(peeked, number, parts, damaged)? {
            return Ok(entry);
        }
        input.at = 0;
    }
}

impl Job {
    /// Opens the inputs of a plan, and begins the outputs.
    pub fn begin(parts: &Parts, plan: Plan) -> Result<Job> {
        assert!(plan.inputs.len() + plan.before.len() <= INPUTS_MAX, "the planner folds some first");
        let open = |blocks: &[Arc<Block>]| blocks.iter().map(|block| Input::open(parts, block)).collect::<Result<_>>();
        let (inputs, before) = (open(&plan.inputs)?, open(&plan.before)?);
        let begin = |label: &Label| Writer::begin(parts.disk.clone(), parts.shelf.dir(), *label);
        let writers = plan.outputs.iter().map(begin).collect::<Result<_>>()?;
        Ok(Job {
            plan,
            inputs,
            before,
            writers,
            damaged: BTreeSet::new(),
            points: Vec::new(),
            buckets: Vec::new(),
            removals: removals(parts),
            held: parts.accounts.merge.hold(),
        })
    }

    /// Adds to `bytes` until there are `budget` of them. True when all inputs are at their ends.
    pub fn run(&mut self, parts: &Parts, budget: u64, bytes: &mut u64) -> Result<bool> {
        let written = |writers: &[Writer]| writers.iter().map(Writer::bytes).sum::<u64>();
        let (mut read, before) = (0, written(&self.writers));
        loop {
            *bytes = read + written(&self.writers) - before;
            if *bytes >= budget.max(1) {
                self.held.set(self.memory_bytes());
                return Ok(false);
            }
            let Some(series) = self.lowest_series(parts)? else { return Ok(true) };
            read += self.take(parts, series)?;
        }
    }

    fn memory_bytes(&self) -> usize {
        let inputs = self.inputs.iter().chain(&self.before);
        size_of::<Job>()
            + inputs.map(|input| size_of::<Input>() + input.reader.memory_bytes()).sum::<usize>()
            + self.writers.iter().map(|writer| size_of::<Writer>() + writer.memory_bytes()).sum::<usize>()
            + self.points.capacity() * size_of::<(u32, f64)>()
            + self.buckets.capacity() * size_of::<Bucket>()
    }

    fn lowest_series(&mut self, parts: &Parts) -> Result<Option<u32>> {
        let mut lowest = None;
        for input in &mut self.inputs {
            if let Some(entry) = next_entry(input, parts, &mut self.damaged)? {
                lowest = Some(lowest.map_or(entry.series, |lowest: u32| lowest.min(entry.series)));
            }
        }
        Ok(lowest)
    }

    /// Moves a series from the inputs to the outputs; returns the bytes read.
    fn take(&mut self, parts: &Parts, series: u32) -> Result<u64> {
        let removed = parts.is_removed(SeriesId(series));
        self.points.clear();
        self.buckets.clear();
        let (mut read, mut meta) = (0, None);
        for i in 0..self.inputs.len() {
            let Some(entry) = next_entry(&mut self.inputs[i], parts, &mut self.damaged)? else { continue };
            if entry.series != series {
                continue;
            }
            read += ENTRY_COST;
            if !removed {
                read += u64::from(entry.bytes);
                meta = self.read(parts, i, &entry)?.or(meta);
            }
            self.inputs[i].advance();
        }
        if let Some(meta) = meta {
            keep_first_of_equal_times(&mut self.points, 0);
            read += self.write(parts, SeriesId(series), meta)?;
        }
        Ok(read)
    }

    /// Collects what an input has of a series. `None` when that is damaged, or was copied as it is.
    fn read(&mut self, parts: &Parts, input: usize, entry: &Entry) -> Result<Option<Meta>> {
        let reader = &mut self.inputs[input].reader;
        let (number, oldest) = (reader.block.label.number, reader.block.min_time);
        if self.plan.copy {
            let chunk = reader.chunk(entry);
            if let Some(chunk) = unless_damaged(chunk, number, parts, &mut self.damaged)? {
                let count = take_head(&mut &chunk[..]).map_or(0, |(_, head)| head.count);
                self.writers[0].add_chunk(entry, oldest, count, chunk)?;
            }
            return Ok(None);
        }
        let meta = if self.plan.of_points() {
            reader.points(entry, 0, u32::MAX, &mut self.points)
        } else {
            let start = self.buckets.len();
            let meta = reader.buckets(entry, 0, u32::MAX, &mut self.buckets);
            // Two neighbouring days have a part each of the bucket at midnight.
            if start > 0 && self.buckets.get(start).is_some_and(|first| first.end <= self.buckets[start - 1].end) {
                let part = self.buckets.remove(start);
                self.buckets[start - 1].merge(&part);
            }
            meta
        };
        unless_damaged(meta, number, parts, &mut self.damaged)
    }

    /// Writes what was collected; returns the bytes read to know the rate across midnight.
    fn write(&mut self, parts: &Parts, series: SeriesId, meta: Meta) -> Result<u64> {
        if !self.plan.of_points() {
            self.writers[0].add_buckets(series, meta, &self.buckets)?;
            return Ok(0);
        }
        let Some(first) = self.points.first().copied() else { return Ok(0) };
        let metas = Metas::new(meta, parts.table().past(series));
        let (before, read) = match metas.longest_counter_step() {
            0 => (None, 0),
            step => self.newest_before(parts, series.0, first.0, rate_gap_s(step))?,
        };
        for writer in &mut self.writers {
            let kind = writer.label().kind;
            if kind == Kind::Raw {
                writer.add(series, meta, &self.points)?;
                continue;
            }
            rollup::fold(&self.points, before, &metas, kind.resolution_s(), &mut self.buckets);
            if !self.buckets.is_empty() {
                let bytes = writer.bytes();
                writer.add_buckets(series, meta, &self.buckets)?;
                parts.tallies.rollup_bytes.fetch_add(writer.bytes() - bytes, Relaxed);
            }
        }
        Ok(read)
    }

    /// The newest point that the day before has of a series, if it is near enough to `time` for a rate.
    fn newest_before(
        &mut self,
        parts: &Parts,
        series: u32,
        time: u32,
        gap_s: u32,
    ) -> Result<(Option<(u32, f64)>, u64)> {
        let (mut newest, mut read) = (None::<(u32, f64)>, 0);
        for input in &mut self.before {
            while let Some(entry) = next_entry(input, parts, &mut self.damaged)?.filter(|entry| entry.series < series) {
                debug_assert!(entry.series < series);
                input.advance();
                read += ENTRY_COST;
            }
            let Some(entry) = next_entry(input, parts, &mut self.damaged)? else { continue };
            let near = entry.newest < time && time - entry.newest <= gap_s;
            if entry.series != series || !near || newest.is_some_and(|newest| newest.0 >= entry.newest) {
                continue;
            }
            read += u64::from(entry.bytes);
            let mut points = Vec::new();
            let number = input.reader.block.label.number;
            let meta = input.reader.points(&entry, entry.newest, u32::MAX, &mut points);
            unless_damaged(meta, number, parts, &mut self.damaged)?;
            newest = points.last().copied().or(newest);
        }
        Ok((newest, read))
    }

    /// Makes the outputs durable, or none of them stays.
    pub fn finish(self, parts: &Parts) -> Result<Finished> {
        let Job { mut plan, mut writers, damaged, removals, held: _held, .. } = self;
        let mut outputs = Vec::new();
        // Roll-ups may be empty, a block of points not: all its series were removed.
        if writers.iter().any(|writer| writer.is_empty() && writer.label().kind == Kind::Raw) {
            writers.clear();
            let known = |block: &Arc<Block>| plan.replaces.iter().any(|other| Arc::ptr_eq(other, block));
            let more: Vec<_> = plan.replaces_if_empty.iter().filter(|block| !known(block)).cloned().collect();
            plan.replaces.extend(more);
        }
        let finish_all = |outputs: &mut Vec<Arc<Block>>| {
            for writer in writers {
                outputs.push(Arc::new(writer.finish()?));
            }
            let dir = parts.shelf.dir();
            parts.disk.sync_dir(dir).map_err(Error::disk("sync", dir))
        };
        match finish_all(&mut outputs) {
            Ok(()) => Ok(Finished { plan, outputs, damaged, removals }),
            Err(error) => {
                // One that cannot be removed supersedes, or is superseded, at the next start.
                outputs.iter().for_each(|block| drop(block.remove(&*parts.disk)));
                Err(error)
            }
        }
    }
}

/// Counts the series of a block that were removed.
pub struct Scan {
    input: Input,
    /// Count of removals when the work began.
    pub removals: u64,
    pub removed: u32,
}

impl Scan {
    /// Begins a look through a block.
    pub fn begin(parts: &Parts, block: &Arc<Block>) -> Result<Scan> {
        Ok(Scan { input: Input::open(parts, block)?, removals: removals(parts), removed: 0 })
    }

    /// Block that is looked through.
    pub fn block(&self) -> &Arc<Block> {
        &self.input.reader.block
    }

    /// Goes on for about `budget` bytes, added to `bytes`; true when the block was looked through.
    pub fn run(&mut self, parts: &Parts, budget: u64, bytes: &mut u64) -> Result<bool> {
        // A damaged page: whoever merges or reads it will tell.
        let mut damaged = BTreeSet::new();
        while let Some(entry) = next_entry(&mut self.input, parts, &mut damaged)? {
            self.removed += u32::from(parts.is_removed(SeriesId(entry.series)));
            self.input.advance();
            *bytes += ENTRY_COST;
            if *bytes >= budget.max(1) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
