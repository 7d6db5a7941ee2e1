//! What the first page reads, answered by the engine's store.

use crate::clock;
use crate::engine::Engine;
use crate::page::{Grid, UiData};
use model::Point;
use store::{Cf, CounterQuery, Found, Query};

impl UiData for Engine {
    fn series_count(&self) -> u64 {
        self.store().stats().series as u64
    }

    fn for_each_host(&self, visit: &mut dyn FnMut(&str, i64)) {
        for (id, name) in self.store().endpoints_awake() {
            if let Some(time) = self.store().endpoint_last_time(id) {
                visit(&name, time);
            }
        }
    }

    fn for_each_counter(&self, host: &str, visit: &mut dyn FnMut(&str)) {
        let counters = || {
            let Some(id) = self.store().endpoint_ids(&[host])?[0] else { return Ok(Vec::new()) };
            self.store().counters(&CounterQuery { endpoint_ids: &[id], patterns: &[], offset: 0, limit: usize::MAX })
        };
        match counters() {
            Ok(rows) => rows.iter().for_each(|row| visit(&row.counter)),
            Err(error) => tracing::error!(host, %error, "cannot read the names of counters"),
        }
    }

    fn last(&self, host: &str, counter: &str) -> Option<Point> {
        self.store().last(self.store().find(host, counter).ok()??)
    }

    fn history(
        &self,
        host: &str,
        counters: &[String],
        (from, to): (i64, i64),
        visit: &mut dyn FnMut(&str, Grid) -> bool,
    ) -> Result<(), String> {
        let mut known: Vec<(&str, Found)> = Vec::new();
        for counter in counters {
            let found = self.store().find(host, counter).map_err(|error| error.to_string())?;
            known.extend(found.map(|found| (counter.as_str(), found)));
        }
        let series: Vec<Found> = known.iter().map(|(_, found)| *found).collect();
        let query = Query { from, to, cf: Cf::Average, now: clock::now() };
        let mut unreadable = None;
        let each = |i: usize, grid: Result<store::Grid, store::Error>| match grid {
            Ok(grid) => visit(known[i].0, Grid { step: grid.step, values: grid.values }),
            // Removed since it was looked up.
            Err(store::Error::UnknownSeries(_)) => true,
            Err(error) => {
                unreadable = Some(error);
                false
            }
        };
        self.store().query_many(&series, &query, each).map_err(|error| error.to_string())?;
        unreadable.map_or(Ok(()), |error| Err(error.to_string()))
    }
}
