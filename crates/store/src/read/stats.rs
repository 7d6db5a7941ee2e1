//! Stats: figures for `/metrics`, counted where things happen and summed when somebody looks.

use crate::block::Kind;
use crate::parts::Parts;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The store's figures at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Series that are awake, that is, in memory.
    pub series: usize,
    /// Names in cold runs; one that slept several times may count more than once until runs are merged, and one that
    /// woke up or was removed still counts till then.
    pub series_asleep: u64,
    /// Endpoints in cold runs, counted as `series_asleep` is.
    pub endpoints_asleep: u64,
    /// Endpoints that have a series awake.
    pub endpoints: usize,
    /// Points in memory.
    pub hot_points: u64,
    pub hot_bytes: usize,
    /// Bytes of points that are in no block yet; `flush_bytes` triggers a flush, twice that is the bound while the disk
    /// takes nothing.
    pub unflushed_bytes: usize,
    /// Bytes of the table, and of what is kept of cold runs.
    pub index_bytes: usize,
    pub series_file_bytes: u64,
    pub cold_runs: usize,
    pub cold_bytes: u64,
    pub log_bytes: u64,
    pub segments: usize,
    /// Files of blocks, those included that are to be removed, and their bytes.
    pub blocks: usize,
    pub block_bytes: u64,
    pub block_points: u64,
    pub raw: KindStats,
    pub rollups_5m: KindStats,
    pub rollups_1h: KindStats,
    /// Points taken since the start; all figures below count from there too.
    pub points_total: u64,
    pub duplicates: u64,
    pub late: u64,
    /// Points that a clock told which was ahead: kept, and no longer the newest of their series.
    pub set_aside: u64,
    pub too_old: u64,
    /// Points of series that were removed.
    pub unknown: u64,
    /// Batches that the log could not take.
    pub log_errors: u64,
    /// Times that the log was forced to the disk; under `Fsync::Always` batches that wait share one.
    pub log_syncs: u64,
    /// Points that were neither kept nor shown to the observer, as disk and memory were full.
    pub unjudged: u64,
    pub flushes: u64,
    pub flush_errors: u64,
    /// Damaged chunks met by queries.
    pub corrupt_reads: u64,
    pub merges: u64,
    pub merge_errors: u64,
    /// Bytes read and written by merges.
    pub merge_bytes: u64,
    /// Bytes that merges wrote as roll-ups.
    pub rollup_bytes: u64,
}

/// The blocks of one kind that queries read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindStats {
    pub blocks: usize,
    pub bytes: u64,
    /// Points, or buckets.
    pub points: u64,
}

impl Parts {
    /// Figures of the store now. Takes each shard's lock in turn.
    pub fn stats(&self) -> Stats {
        let (catalog, runs) = (self.blocks(), self.runs());
        let (log_bytes, segments) = self.log.size();
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        let tallies = &self.tallies;
        let mut stats = Stats {
            series_file_bytes: self.naming().file.bytes(),
            endpoints_asleep: runs.iter().map(|run| run.endpoint_count).sum(),
            series_asleep: runs.iter().map(|run| run.series_count).sum(),
            cold_runs: runs.len(),
            cold_bytes: runs.iter().map(|run| run.bytes).sum(),
            log_bytes,
            segments,
            merges: count(&tallies.merges),
            merge_errors: count(&tallies.merge_errors),
            merge_bytes: count(&tallies.merge_bytes),
            rollup_bytes: count(&tallies.rollup_bytes),
            points_total: count(&tallies.points),
            duplicates: count(&tallies.duplicates),
            late: count(&tallies.late),
            too_old: count(&tallies.too_old),
            unknown: count(&tallies.unknown),
            log_errors: count(&tallies.log_errors),
            log_syncs: self.log.syncs(),
            unjudged: count(&tallies.unjudged),
            flushes: count(&tallies.flushes),
            flush_errors: count(&tallies.flush_errors),
            corrupt_reads: count(&tallies.corrupt_reads),
            ..Stats::default()
        };
        for block in catalog.blocks() {
            let of_kind = match block.label.kind {
                Kind::Raw => &mut stats.raw,
                Kind::FiveMinutes => &mut stats.rollups_5m,
                Kind::Hour => &mut stats.rollups_1h,
            };
            of_kind.blocks += 1;
            of_kind.bytes += block.bytes;
            of_kind.points += block.points;
        }
        let (doomed, doomed_bytes) = self.shelf.doomed_files();
        let kinds = [stats.raw, stats.rollups_5m, stats.rollups_1h];
        stats.blocks = doomed + kinds.iter().map(|kind| kind.blocks).sum::<usize>();
        stats.block_bytes = doomed_bytes + kinds.iter().map(|kind| kind.bytes).sum::<u64>();
        stats.block_points = stats.raw.points;
        for hot in self.shards.iter() {
            stats.hot_points += hot.points();
            stats.hot_bytes += hot.memory_bytes();
            stats.unflushed_bytes += hot.unflushed_bytes();
            stats.set_aside += hot.set_aside();
        }
        let table = self.table();
        stats.series = table.live();
        stats.endpoints = table.live_endpoints();
        stats.index_bytes = table.memory_bytes() + runs.iter().map(|run| run.memory_bytes()).sum::<usize>();
        stats
    }
}
