//! Looks: what is known of silent series, shared with whoever asks what the last looks have found.
//!
//! Invariants: a look has the lock as long as it looks, so nobody sees half of one; it is taken on threads that may
//! wait, and nobody who holds another lock takes it.

use super::{Key, Looked, Mocks, Silences, series_of};
use crate::rules::snapshot::Snapshot;
use model::Point;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Silent series and counts of looks; clones share them.
#[derive(Clone, Default)]
pub struct Looks(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    silences: Silences,
    counts: Counts,
}

/// What the looks since the start came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    pub looks: u64,
    /// Time of the last look (Unix seconds); 0 before the first.
    pub last: i64,
    /// Series of the last look, and of all.
    pub series: u64,
    pub series_of_all: u64,
    /// Looks that sent mocks, the time of the last of them, and the mocks of all.
    pub sendings: u64,
    pub sent_at: i64,
    pub sent: u64,
    /// Series that are held back, as too many fell silent at once.
    pub held: u64,
}

/// A series that a nodata looks after.
#[derive(Debug, PartialEq)]
pub struct Watched {
    /// Place of its row.
    pub row: usize,
    pub endpoint: String,
    /// Mocks since it fell silent, and when the last was sent; none while it reports.
    pub mocks: Option<(u64, i64)>,
}

impl Looks {
    /// Looks at `now`, see [`Silences::look`].
    pub(super) fn look(
        &self,
        snapshot: &Snapshot,
        heard_since: i64,
        now: i64,
        flood_share: f64,
        last: impl Fn(&str, &str) -> Option<Point>,
    ) -> Looked {
        let mut known = self.lock();
        let looked = known.silences.look(snapshot, heard_since, now, flood_share, last);
        let counts = &mut known.counts;
        (counts.looks, counts.last) = (counts.looks + 1, now);
        counts.series = looked.series as u64;
        counts.series_of_all += counts.series;
        counts.held = looked.counts.iter().map(|held| held.silent as u64).sum();
        looked
    }

    /// Notes that so many mocks were taken.
    pub(super) fn note_sent(&self, mocks: usize, now: i64) {
        if mocks > 0 {
            let counts = &mut self.lock().counts;
            (counts.sendings, counts.sent_at) = (counts.sendings + 1, now);
            counts.sent += mocks as u64;
        }
    }

    /// What the looks came to.
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// All series that nodata look after, each with its name `endpoint/metric[/tags]`.
    pub fn watched(&self, snapshot: &Snapshot, now: i64) -> Vec<(String, Watched)> {
        let known = self.lock();
        let mut watched = Vec::new();
        for (row, endpoints) in series_of(snapshot, now) {
            let mock = &snapshot.mocks[row];
            let counter = super::counter_of(mock);
            for endpoint in endpoints {
                let key: Key = (mock.id, endpoint.to_string());
                let mocks = known.silences.mocked.get(&key).map(|Mocks { count, last }| (*count, *last));
                watched.push((format!("{endpoint}/{counter}"), Watched { row, endpoint: key.1, mocks }));
            }
        }
        watched
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
