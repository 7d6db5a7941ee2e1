//! Names: giving ids to series, finding those that are awake, changing and removing them.
//!
//! How: the table knows the series that are awake; of the others cold runs do (`sleep.rs`). A series that is not in the
//! table is looked for there before it gets a new id, so that its history goes on. Runs are files and are read without
//! a lock; under the lock of names the look counts only if the list of runs is still the same, else there is another. A
//! list changes when a run was written and synced, so a second look is rare, and each one has a run's worth of work as
//! its price. Every change is in the series file before it is in the table, and durable before the log that uses its id
//! (`sync_names`).
//! Invariants: an id that was handed out is in the series file; ids and endpoint numbers are never given twice; a
//! removed id stays removed; no file is read while the lock of names is held.

use crate::error::{Error, Result};
use crate::parts::Parts;
use crate::series::cold::{ColdFound, Run};
use crate::series::{Change, Found, Meta, Metas, Naming, Past, Table, check_texts, insert, kind_since};
use model::{CounterType, SeriesId, SeriesKey};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use stdx::ranked::ReadGuard;

/// Removals that are written, and applied, under one lock.
const REMOVE_SLICE: usize = 1024;

/// Dead records that are worth a sweep at once; fewer wait for the next look for silent series.
const SWEEP_AT: usize = 4096;

/// Looks up series for one decoded batch. Holds the table for reading: drop it before calling anything else of the
/// store.
pub struct Finder<'a> {
    table: ReadGuard<'a, Table>,
    /// A batch is of one endpoint, as a rule.
    endpoint: Cell<Option<u32>>,
}

impl Finder<'_> {
    /// Finds a series that new batches may use; not one that sleeps or is about to.
    #[inline]
    pub fn find(&self, key: SeriesKey<'_>) -> Option<Found> {
        let endpoint = match self.endpoint.get() {
            Some(place) if self.table.endpoint(place) == key.endpoint => place,
            _ => self.table.place_of(key.endpoint)?,
        };
        self.endpoint.set(Some(endpoint));
        self.table.find_of(endpoint, key.metric, key.tags.as_str())
    }

    /// Place of the endpoint of the series that was found last: a number that is its own as long as it has series.
    #[inline]
    pub fn endpoint(&self) -> u32 {
        self.endpoint.get().unwrap_or_default()
    }
}

/// A name as the runs know it.
struct Look {
    runs: Arc<Vec<Arc<Run>>>,
    asleep: Option<ColdFound>,
    /// The number of its endpoint, if that is in a run.
    endpoint: Option<u32>,
}

impl Parts {
    /// Holds the table of series for reading, for the look-ups of one batch.
    pub fn finder(&self) -> Finder<'_> {
        Finder { table: self.table(), endpoint: Cell::new(None) }
    }

    /// The id of a series, given now if it is new; one that sleeps wakes up under its old id. Its definition is written
    /// before this returns, and as durable as the first append of it when that returns. Type and step are for a new one
    /// only: what slept is what it was, until `set_meta` says otherwise.
    pub fn create(&self, key: SeriesKey<'_>, counter_type: CounterType, step: u32) -> Result<SeriesId> {
        let meta = Meta::new(counter_type, step)?;
        check_texts(key)?;
        // Where there are no runs, the look reads nothing.
        let mut look = if self.runs().is_empty() { Some(self.look_in_runs(key)?) } else { None };
        loop {
            let mut naming = self.naming();
            if let Some(id) = self.find_awake(key) {
                return Ok(id);
            }
            if self.table().live() >= self.options.series_max as usize || naming.next_id == u32::MAX {
                return Err(Error::Full { what: "series_max", limit: u64::from(self.options.series_max) });
            }
            if let Some(look) = look.filter(|look| self.is_current(look)) {
                return self.define(&mut naming, key, meta, &look);
            }
            drop(naming);
            look = Some(self.look_in_runs(key)?);
        }
    }

    /// Looks a name up in the runs, file by file: for who holds no lock.
    fn look_in_runs(&self, key: SeriesKey<'_>) -> Result<Look> {
        let runs = self.runs();
        let asleep = self.find_in(&runs, key)?;
        let endpoint = self.number_in(&runs, key.endpoint)?;
        Ok(Look { runs, asleep, endpoint })
    }

    /// Whether the runs are those that were looked at. While the lock of names is held they stay so for every name that
    /// is not in the table: a series leaves the table under that lock only, and after its run was put into the list.
    fn is_current(&self, look: &Look) -> bool {
        Arc::ptr_eq(&look.runs, &self.runs())
    }

    /// Gives a name that is not in the table its id: writes the definition, then puts the series into shard and table.
    fn define(&self, naming: &mut Naming, key: SeriesKey<'_>, meta: Meta, look: &Look) -> Result<SeriesId> {
        // The series may have been removed since the look.
        let asleep = look.asleep.filter(|found| self.table().is_free_for(found.id, key));
        let id = asleep.map_or(SeriesId(naming.next_id), |found| found.id);
        let meta = asleep.map_or(meta, |found| found.meta);
        let known_endpoint = self.endpoint_number(key.endpoint).or(look.endpoint);
        let endpoint = known_endpoint.unwrap_or(naming.next_endpoint);
        let SeriesKey { endpoint: endpoint_name, metric, tags } = key;
        naming.file.append(&[Change::Define { id, endpoint, endpoint_name, metric, tags, meta }])?;
        naming.next_id = naming.next_id.max(id.0 + 1);
        naming.next_endpoint = naming.next_endpoint.max(endpoint + 1);
        self.names_unsynced.store(true, Relaxed);
        // The shard first: whoever finds the id in the table may append at once.
        let since = kind_since(meta, self.table().past(id));
        self.shards.begin(id, meta, asleep.is_some(), since);
        insert(&mut self.table_mut(), id, endpoint, key, meta)?;
        Ok(id)
    }

    /// Whether a series is in memory; one that sleeps or is new is not.
    pub fn is_awake(&self, key: SeriesKey<'_>) -> bool {
        let table = self.table();
        let place = table.place_of(key.endpoint);
        place.is_some_and(|place| table.find_drowsy_of(place, key.metric, key.tags.as_str()).is_some())
    }

    /// A series of the table; one that was about to fall asleep is kept awake.
    fn find_awake(&self, key: SeriesKey<'_>) -> Option<SeriesId> {
        let (found, is_drowsy) = {
            let table = self.table();
            let found = table.find_drowsy_of(table.place_of(key.endpoint)?, key.metric, key.tags.as_str())?;
            (found, table.is_drowsy(found.id))
        };
        if is_drowsy {
            self.table_mut().set_drowsy(found.id, false);
        }
        Some(found.id)
    }

    fn endpoint_number(&self, endpoint: &str) -> Option<u32> {
        let table = self.table();
        table.place_of(endpoint).map(|place| table.endpoint_number(place))
    }

    /// Changes the type or step of a known series for its points from `from` on; those before stay what they are. Late
    /// is who speaks of a time up to the series' newest point, or its last change: that makes no gauge of a counter,
    /// nor the other way round, for points are kept as what the series was then. Of a counter's name and of the step
    /// the later word counts all the same, as if it had always been said: not every door knows them.
    pub fn set_meta(&self, id: SeriesId, counter_type: CounterType, step: u32, from: i64) -> Result<()> {
        let meta = Meta::new(counter_type, step)?;
        let from = from.clamp(0, i64::from(u32::MAX)) as u32;
        let mut naming = self.naming();
        let newest = {
            let (hot, slot) = self.shards.lock_of(id);
            hot.newest(slot).map_or(0, |(time, _)| time)
        };
        let (old, changed) = {
            let table = self.table();
            let Some(old) = table.meta(id) else { return Err(Error::UnknownSeries(id.0)) };
            (old, table.past(id).last().map_or(0, |past| past.until))
        };
        let is_late = from <= newest.max(changed);
        let is_other_kind = old.counter_type.is_gauge() != meta.counter_type.is_gauge();
        if old == meta || is_late && is_other_kind {
            return Ok(());
        }
        let past = Past { until: from, meta: old };
        let changes = [Change::Past { id, past }, Change::Meta { id, meta }];
        naming.file.append(if is_late { &changes[1..] } else { &changes })?;
        self.names_unsynced.store(true, Relaxed);
        let since = {
            let mut table = self.table_mut();
            if !is_late {
                table.note_past(id, past);
            }
            table.set_meta(id, meta);
            kind_since(meta, table.past(id))
        };
        self.shards.set_meta(id, meta, since);
        Ok(())
    }

    /// Type and step of a series at any time, for one that is `found` now.
    pub fn metas(&self, found: Found) -> Metas {
        let now = Meta { counter_type: found.counter_type, step: found.step };
        Metas::new(now, self.table().past(found.id))
    }

    /// Removes a series with all its points, durably; false when there is no such series.
    pub fn remove_series(&self, id: SeriesId) -> Result<bool> {
        Ok(self.remove_many(&mut [id])? > 0)
    }

    /// Removes all series of an endpoint; returns how many they were.
    pub fn remove_endpoint(&self, endpoint: &str) -> Result<usize> {
        self.remove_many(&mut self.series_of_endpoint(endpoint)?)
    }

    /// Removes series with all their points, durably; returns how many of them there were. On an error some may be
    /// removed already, and be so durably only later.
    pub fn remove_many(&self, ids: &mut [SeriesId]) -> Result<usize> {
        ids.sort_unstable();
        let mut removed = 0;
        for ids in ids.chunks(REMOVE_SLICE) {
            removed += self.remove_slice(ids)?;
        }
        if removed > 0 {
            self.sync_names()?;
        }
        if self.table().dead() >= SWEEP_AT {
            self.sweep_table();
        }
        Ok(removed)
    }

    fn remove_slice(&self, ids: &[SeriesId]) -> Result<usize> {
        let mut naming = self.naming();
        let runs = self.runs();
        let known: Vec<SeriesId> = {
            let table = self.table();
            let ids = ids.chunk_by(|a, b| a == b).map(|same| same[0]);
            // What is neither here nor removed sleeps.
            let may_sleep = |id: &SeriesId| !runs.is_empty() && id.0 < naming.next_id && !table.is_removed(*id);
            ids.filter(|id| table.meta(*id).is_some() || may_sleep(id)).collect()
        };
        if known.is_empty() {
            return Ok(0);
        }
        let changes: Vec<Change<'_>> = known.iter().map(|id| Change::Remove { id: *id }).collect();
        naming.file.append(&changes)?;
        self.names_unsynced.store(true, Relaxed);
        {
            let mut table = self.table_mut();
            known.iter().for_each(|id| table.remove(*id));
            self.tallies.removed_series.store(table.removed(), Relaxed);
        }
        for id in &known {
            let (mut hot, slot) = self.shards.lock_of(*id);
            hot.remove(slot);
        }
        Ok(known.len())
    }

    /// All series of an endpoint, also those that sleep, by id.
    pub fn series_of_endpoint(&self, endpoint: &str) -> Result<Vec<SeriesId>> {
        let mut ids: Vec<SeriesId> = {
            let table = self.table();
            table.place_of(endpoint).map(|place| table.series_of(place).collect()).unwrap_or_default()
        };
        self.for_each_asleep(endpoint, &mut |series| ids.push(series.found.id))?;
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Lends the names of some series, leaving out those that are gone. The table is held for reading meanwhile: name
    /// some thousands at once, not all, and do not call the store from within.
    pub fn with_keys(&self, ids: &[SeriesId], each: &mut dyn FnMut(SeriesId, SeriesKey<'_>, CounterType)) {
        let table = self.table();
        for id in ids {
            if let Some((key, meta)) = table.key(*id).zip(table.meta(*id)) {
                each(*id, key, meta.counter_type);
            }
        }
    }

    /// Whether points of this id are nobody's any more: a merge of blocks drops them.
    pub fn is_removed(&self, id: SeriesId) -> bool {
        self.table().is_removed(id)
    }
}
