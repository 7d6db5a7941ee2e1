//! Options: what the operator decides about the store, each with the reason for its default.

use crate::error::{Error, Result};
use crate::sizes::DAY_S;
use std::path::PathBuf;

/// Moment at which what is written is made durable against a power cut. A killed process loses nothing under any of
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Sync before each answer.
    Always,
    /// Sync at each `tick`, so at most a second later.
    EverySecond,
    /// Sync when the operating system likes.
    Never,
}

/// The settings of a store.
#[derive(Clone, Debug)]
pub struct Options {
    pub dir: PathBuf,
    /// Number of shards, a power of 2. More shards let more senders append at once; each costs a lock and some slack in
    /// its arena.
    pub shard_count: usize,
    /// Seconds that the judge looks back in memory.
    pub hot_window_s: i64,
    /// Seconds behind their series' newest point within which late points are worked into the hot chunk; older ones
    /// wait in a side table for the next flush. Both are found by queries at once.
    pub late_window_s: i64,
    pub flush_interval_s: i64,
    /// Unflushed bytes in memory that trigger an early flush.
    pub flush_bytes: usize,
    /// Bytes of log that trigger an early flush, so that disk and replay are bounded also where points take no memory
    /// (series that never change) or where no process lives for a whole `flush_interval_s`.
    pub log_bytes: u64,
    pub segment_bytes: u64,
    /// Seconds that the time of a point may be ahead of the clock, as the door takes it. What is further ahead was told
    /// by a clock that was wrong, and is no newest point.
    pub future_max_s: i64,
    /// Seconds that points are kept: older ones are refused, and blocks of older days are removed.
    pub retention_raw_s: i64,
    /// Seconds that roll-ups of five minutes are kept; 0: none are made.
    pub retention_5m_s: i64,
    /// Seconds that roll-ups of an hour are kept; 0: none are made.
    pub retention_1h_s: i64,
    pub fsync: Fsync,
    /// Seconds without a point after which a series leaves memory; it is still found and read, and wakes with its next
    /// point. 0 keeps all.
    pub silent_s: i64,
    /// Series that may be in memory.
    pub series_max: u32,
    /// Points or rows that one query may answer.
    pub query_points_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            dir: PathBuf::from("data"),
            // Twice the cores of a small server.
            shard_count: 8,
            // 120 points at the usual step of 60 s; the original judge looks back on 11.
            hot_window_s: 7200,
            late_window_s: 3600,
            // Chunks of 120 points on disk; an hour of replay per million series takes seconds.
            flush_interval_s: 7200,
            // A guess at half of what a small server can spare.
            flush_bytes: 64 << 20,
            // 80 million points at the usual 3 bytes; replay takes some 40 ns each, so about 3 s.
            log_bytes: 256 << 20,
            // Small enough to be read whole at start, large enough that creating one is rare.
            segment_bytes: 16 << 20,
            future_max_s: 300,
            retention_raw_s: 30 * 86_400,
            retention_5m_s: 180 * 86_400,
            retention_1h_s: 730 * 86_400,
            fsync: Fsync::EverySecond,
            // A weekend: what is switched off on Friday evening and on again on Monday need not be read back.
            silent_s: 2 * 86_400,
            series_max: 5_000_000,
            // 30 days at 60 s are 43,200 points: some twenty such series, or a thousand hosts' last ten hours.
            query_points_max: 1_000_000,
        }
    }
}

impl Options {
    /// The latest time that a clock which is right can have told by `now`.
    pub(crate) fn latest(&self, now: i64) -> u32 {
        now.saturating_add(self.future_max_s).clamp(0, i64::from(u32::MAX)) as u32
    }

    /// The longest of all retentions: what is older is in no file.
    pub(crate) fn longest_retention_s(&self) -> i64 {
        self.retention_raw_s.max(self.retention_5m_s).max(self.retention_1h_s)
    }

    pub(crate) fn check(&self) -> Result<()> {
        let day = i64::from(DAY_S);
        let checks = [
            (
                self.shard_count.is_power_of_two() && self.shard_count <= 1024,
                "shard_count must be a power of 2 up to 1024",
            ),
            ((0..=30 * day).contains(&self.hot_window_s), "hot_window must be between 0 and 30 days"),
            ((0..=30 * day).contains(&self.late_window_s), "late_window must be between 0 and 30 days"),
            (self.flush_interval_s > 0, "flush_interval must be longer than 0"),
            // A flush keeps one file per day open for writing.
            ((3600..=1000 * day).contains(&self.retention_raw_s), "raw retention must be between 1 hour and 1000 days"),
            // What warm reads back decides what is silent at the start.
            (
                self.silent_s == 0 || (600..=1000 * day).contains(&self.silent_s),
                "silent_after must be 0, or between 10 minutes and 1000 days",
            ),
            // A roll-up's times are seconds in 32 bits like any other.
            ((0..=20_000 * day).contains(&self.retention_5m_s), "5m retention must be between 0 (off) and 20000 days"),
            ((0..=20_000 * day).contains(&self.retention_1h_s), "1h retention must be between 0 (off) and 20000 days"),
            (self.segment_bytes >= 4096, "segment_bytes must be at least 4096"),
            (self.series_max > 0 && self.series_max < u32::MAX, "series_max must be between 1 and 4294967294"),
            (self.query_points_max > 0, "query_points_max must be at least 1"),
        ];
        match checks.iter().find(|(good, _)| !good) {
            Some((_, text)) => Err(Error::Options(text.to_string())),
            None => Ok(()),
        }
    }
}
