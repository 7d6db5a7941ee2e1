//! Plan: which series are to be written to the index next.
//!
//! How: series have ids in the order of their creation, so all that is not in the index yet lies above one id,
//! `new_from`: what comes while MySQL is away needs no queue. Behind it a walk refreshes all series once per
//! `refresh_s`, evenly, so that each moment a share of them is due that fits the time that has passed. `all` is the
//! same walk in one go. `recent` holds known series that woke up or changed their type or step; those that it has no
//! room for are found by the walk. Both positions are in a file, so that a restart neither begins anew nor leaves the
//! end of the series out.
//! Invariants: knows no clock, no MySQL, no file; positions move only by [`Plan::done`], after a page was written.
//! Memory: a few numbers, and up to [`RECENT_MAX`] ids.

use model::SeriesId;
use serde::{Deserialize, Serialize};

/// Ids of known series to be looked at again: 16 KiB.
const RECENT_MAX: usize = 4096;

/// Positions up to which series were written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Database that has the rows.
    pub place: String,
    /// No series from this id on was written yet.
    pub new_from: u32,
    /// The walk has been at the series below this id.
    pub walk_from: u32,
    /// Begin of the walk (Unix seconds).
    pub walk_began: i64,
}

/// Page to be written: the reason for it, and the id at which it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    New(SeriesId),
    Recent,
    All(SeriesId),
    Walk(SeriesId),
}

/// Order of the work: positions, and ids that are not to wait for the walk.
pub struct Plan {
    pub progress: Progress,
    refresh_s: i64,
    recent: Vec<SeriesId>,
    all_from: Option<u32>,
}

impl Progress {
    /// Progress of an index of which nothing is written.
    pub fn none(place: &str, now: i64) -> Progress {
        Progress { place: place.to_string(), new_from: 0, walk_from: 0, walk_began: now }
    }
}

impl Plan {
    /// A plan that goes on from `progress`, with a walk over all series in `refresh_s` seconds.
    pub fn new(progress: Progress, refresh_s: i64) -> Plan {
        Plan { progress, refresh_s, recent: Vec::new(), all_from: None }
    }

    /// Notes known series that have something new to say; those above `new_from` come anyway.
    pub fn note(&mut self, series: &mut Vec<SeriesId>) {
        let room = RECENT_MAX.saturating_sub(self.recent.len());
        self.recent.extend(series.drain(..).filter(|id| id.0 < self.progress.new_from).take(room));
    }

    /// Bytes that the ids hold.
    pub fn memory_bytes(&self) -> usize {
        self.recent.capacity() * size_of::<SeriesId>()
    }

    /// Seconds that a walk over all series takes.
    pub fn refresh_s(&self) -> i64 {
        self.refresh_s
    }

    /// Ids of known series that have something new to say: the first `limit` of them.
    pub fn recent(&self, limit: usize) -> &[SeriesId] {
        &self.recent[..self.recent.len().min(limit)]
    }

    /// Begins to write all series once, from the first on.
    pub fn begin_all(&mut self) {
        self.all_from = Some(0);
    }

    /// The page to be written now, if there is one. Ids up to `end` were given so far.
    pub fn next(&mut self, end: SeriesId, now: i64) -> Option<Page> {
        self.fit(end.0, now);
        let progress = &mut self.progress;
        if progress.new_from < end.0 {
            return Some(Page::New(SeriesId(progress.new_from)));
        }
        if !self.recent.is_empty() {
            return Some(Page::Recent);
        }
        if let Some(from) = self.all_from {
            return Some(Page::All(SeriesId(from)));
        }
        if progress.walk_from >= end.0 && now - progress.walk_began >= self.refresh_s {
            (progress.walk_from, progress.walk_began) = (0, now);
        }
        let passed = (now - progress.walk_began).min(self.refresh_s);
        let due = i64::from(end.0) * passed / self.refresh_s;
        (i64::from(progress.walk_from) < due).then_some(Page::Walk(SeriesId(progress.walk_from)))
    }

    /// Begins anew where a position can never be reached: after the store was begun anew, or the clock set back.
    fn fit(&mut self, end: u32, now: i64) {
        let progress = &mut self.progress;
        if progress.new_from > end || progress.walk_from > end {
            (progress.new_from, progress.walk_from, progress.walk_began) = (0, 0, now);
            self.recent.clear();
        }
        progress.walk_began = progress.walk_began.min(now);
    }

    /// Moves the positions behind `page`, which was written, of at most `limit` series; what is left of it begins at
    /// `next`. True when that ends a run over all series.
    pub fn done(&mut self, page: Page, limit: usize, next: SeriesId, end: SeriesId, now: i64) -> bool {
        match page {
            Page::New(_) => self.progress.new_from = next.0,
            Page::Walk(_) => self.progress.walk_from = next.0,
            Page::Recent => drop(self.recent.drain(..self.recent.len().min(limit))),
            Page::All(_) if next < end => self.all_from = Some(next.0),
            Page::All(_) => {
                self.all_from = None;
                // The walk has nothing to add.
                (self.progress.walk_from, self.progress.walk_began) = (next.0, now);
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000;
    const PAGE: u32 = 100;

    fn plan(new_from: u32, walk_from: u32) -> Plan {
        let progress = Progress { place: "db:3306/graph".into(), new_from, walk_from, walk_began: NOW };
        Plan::new(progress, 1000)
    }

    /// Writes what is due, and answers the pages.
    fn drain(plan: &mut Plan, end: u32, now: i64) -> Vec<Page> {
        let mut pages = Vec::new();
        while let Some(page) = plan.next(SeriesId(end), now) {
            let next = match page {
                Page::New(from) | Page::All(from) | Page::Walk(from) => SeriesId((from.0 + PAGE).min(end)),
                Page::Recent => SeriesId(0),
            };
            plan.done(page, PAGE as usize, next, SeriesId(end), now);
            pages.push(page);
            assert!(pages.len() < 1000, "it comes to an end");
        }
        pages
    }

    #[test]
    fn new_series_come_first_and_once() {
        let mut plan = plan(0, 0);
        assert_eq!(drain(&mut plan, 150, NOW), [Page::New(SeriesId(0)), Page::New(SeriesId(100))]);
        assert_eq!(drain(&mut plan, 150, NOW), []);
        assert_eq!(drain(&mut plan, 151, NOW), [Page::New(SeriesId(150))]);
    }

    #[test]
    fn a_page_that_was_not_written_comes_again() {
        let mut plan = plan(0, 0);
        assert_eq!(plan.next(SeriesId(1), NOW), Some(Page::New(SeriesId(0))));
        assert_eq!(plan.next(SeriesId(500_000), NOW + 100_000), Some(Page::New(SeriesId(0))));
    }

    #[test]
    fn the_walk_takes_its_time_and_begins_again() {
        let mut plan = plan(1000, 0);
        assert_eq!(drain(&mut plan, 1000, NOW), []);
        assert_eq!(drain(&mut plan, 1000, NOW + 1), [Page::Walk(SeriesId(0))]);
        assert_eq!(drain(&mut plan, 1000, NOW + 100), []);
        assert_eq!(drain(&mut plan, 1000, NOW + 101), [Page::Walk(SeriesId(100))]);
        let pages = drain(&mut plan, 1000, NOW + 999);
        assert_eq!((pages.len(), pages[7]), (8, Page::Walk(SeriesId(900))), "what was missed is caught up");
        assert_eq!(drain(&mut plan, 1000, NOW + 999), []);
        assert_eq!(drain(&mut plan, 1000, NOW + 1000), [], "it begins, and nothing is due yet");
        assert_eq!(drain(&mut plan, 1000, NOW + 1001), [Page::Walk(SeriesId(0))]);
        // Away for long: the rest of this walk, and then the next from its beginning.
        assert_eq!(drain(&mut plan, 1000, NOW + 1_000_000).len(), 9);
        assert_eq!(drain(&mut plan, 1000, NOW + 1_000_001), [Page::Walk(SeriesId(0))]);
        // A single series too.
        let mut plan = super::tests::plan(1, 0);
        assert_eq!(drain(&mut plan, 1, NOW + 999), []);
        assert_eq!(drain(&mut plan, 1, NOW + 1000), [Page::Walk(SeriesId(0))]);
    }

    #[test]
    fn all_series_at_once_and_then_the_walk_rests() {
        let mut plan = plan(250, 30);
        plan.begin_all();
        let all = [0, 100, 200].map(|from| Page::All(SeriesId(from)));
        assert_eq!(drain(&mut plan, 250, NOW + 900), all);
        assert_eq!(drain(&mut plan, 250, NOW + 1800), []);
        assert_eq!(plan.progress.walk_from, 250);
        // Of no series at all it is one page, so that it ends.
        let mut plan = super::tests::plan(0, 0);
        plan.begin_all();
        assert_eq!(plan.next(SeriesId(0), NOW), Some(Page::All(SeriesId(0))));
        assert!(plan.done(Page::All(SeriesId(0)), 100, SeriesId(0), SeriesId(0), NOW));
        assert_eq!(plan.next(SeriesId(0), NOW), None);
    }

    #[test]
    fn recent_series_are_bounded_and_those_to_come_left_out() {
        let mut plan = plan(10_000, 10_000);
        let mut ids: Vec<SeriesId> = (0..20_000).rev().map(SeriesId).collect();
        plan.note(&mut ids);
        assert!(ids.is_empty());
        assert_eq!(plan.recent(usize::MAX).len(), RECENT_MAX);
        assert_eq!(plan.recent(2), [SeriesId(9999), SeriesId(9998)]);
        assert_eq!(drain(&mut plan, 10_000, NOW).len(), RECENT_MAX.div_ceil(PAGE as usize));
        assert!(plan.recent(1).is_empty());
    }

    #[test]
    fn another_store_or_clock_begins_anew() {
        let mut plan = plan(1000, 900);
        plan.note(&mut vec![SeriesId(5)]);
        assert_eq!(plan.next(SeriesId(40), NOW + 7), Some(Page::New(SeriesId(0))));
        assert_eq!((plan.progress.walk_from, plan.progress.walk_began), (0, NOW + 7));
        assert!(plan.recent(1).is_empty());
        assert_eq!(drain(&mut plan, 40, NOW + 7), [Page::New(SeriesId(0))]);
        assert_eq!(drain(&mut plan, 40, NOW - 5000), []);
        assert_eq!(plan.progress.walk_began, NOW - 5000);
    }
}
