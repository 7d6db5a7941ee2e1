//! What the first page reads, answered by the engine's store.

use crate::clock;
use crate::engine::Engine;
use crate::ui::{Grid, UiData};
use model::Point;
use store::{Cf, CounterQuery, Query};

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

    fn history(&self, host: &str, counter: &str, from: i64, to: i64) -> Result<Option<Grid>, String> {
        let found = self.store().find(host, counter).map_err(|error| error.to_string())?;
        let Some(found) = found else { return Ok(None) };
        let query = Query { from, to, cf: Cf::Average, now: clock::now() };
        let grid = self.store().query(found, &query).map_err(|error| error.to_string())?;
        Ok(Some(Grid { step: grid.step, values: grid.values }))
    }
}
