//! Search: from names to series, and lists of names for people who look for one.
//!
//! How: distinct texts are tested once each; then only the series of the endpoints in question are visited.
//! Compat: the API's `graph/endpoint` and `graph/endpoint_counter` (spec/control-plane.md): patterns are all to match,
//! tag terms are parts of a counter's text; endpoints come in order of first appearance, as from MySQL's ids.

use crate::error::Result;
use crate::store::Store;
use crate::table::{Found, Table};
use model::{CounterType, SeriesId, SeriesKey, Tags};
use regex::Regex;
use stdx::Interner;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesInfo {
    pub endpoint: String,
    pub counter: String,
    pub counter_type: CounterType,
    pub step: u32,
}

/// Which endpoints: every pattern matches the name, and some counter of the endpoint contains every tag term.
#[derive(Clone, Copy, Debug)]
pub struct EndpointQuery<'a> {
    pub patterns: &'a [Regex],
    pub tag_terms: &'a [&'a str],
    pub offset: usize,
    pub limit: usize,
}

/// Which counters of these endpoints: every pattern matches, every negated one does not.
#[derive(Clone, Copy, Debug)]
pub struct CounterQuery<'a> {
    pub endpoint_ids: &'a [u32],
    pub patterns: &'a [(bool, Regex)],
    pub offset: usize,
    pub limit: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterRow {
    pub endpoint_id: u32,
    pub counter: String,
    pub step: u32,
    pub counter_type: CounterType,
}

impl Store {
    /// The series of an endpoint and counter text, `metric` or `metric/tags` with the tags in any order.
    pub fn find(&self, endpoint: &str, counter: &str) -> Result<Option<Found>> {
        let table = self.table();
        let Some(endpoint) = table.endpoint_number(endpoint) else { return Ok(None) };
        Ok(find_counter(&table, endpoint, counter))
    }

    pub fn info(&self, id: SeriesId) -> Option<SeriesInfo> {
        let table = self.table();
        let (key, meta) = (table.key(id)?, table.meta(id)?);
        let (counter_type, step) = (meta.counter_type, meta.step);
        Some(SeriesInfo { endpoint: key.endpoint.to_string(), counter: key.counter(), counter_type, step })
    }

    /// Visits every series, with the table held for reading: do not call the store from within.
    pub fn for_each_series(&self, each: &mut dyn FnMut(SeriesId, SeriesKey<'_>, CounterType, u32)) {
        let table = self.table();
        table.live_series().for_each(|(id, key, meta)| each(id, key, meta.counter_type, meta.step));
    }

    /// Ids (from 1 on, stable) and names.
    pub fn endpoints(&self, query: &EndpointQuery<'_>) -> Vec<(u32, String)> {
        let table = self.table();
        let terms: Vec<Term> = query.tag_terms.iter().map(|term| Term::new(term, &table)).collect();
        let matches = |number: &u32| {
            let name = table.endpoint(*number);
            query.patterns.iter().all(|pattern| pattern.is_match(name))
                && (terms.is_empty()
                    || table.series_of(*number).any(|id| terms.iter().all(|term| term.is_in(id, &table))))
        };
        let found = table.live_endpoints().filter(matches).skip(query.offset).take(query.limit);
        found.map(|number| (number + 1, table.endpoint(number).to_string())).collect()
    }

    /// The ids of endpoints by name, in the order of the names; `None` for one that has no series.
    pub fn endpoint_ids(&self, names: &[&str]) -> Vec<Option<u32>> {
        let table = self.table();
        let id = |name: &&str| {
            let number = table.endpoint_number(name)?;
            table.series_of(number).next()?;
            Some(number + 1)
        };
        names.iter().map(id).collect()
    }

    pub fn endpoint_name(&self, endpoint_id: u32) -> Option<String> {
        let table = self.table();
        let number = endpoint_id.checked_sub(1)?;
        table.series_of(number).next()?;
        Some(table.endpoint(number).to_string())
    }

    /// Counters in the order of the endpoints asked for, then of first appearance.
    pub fn counters(&self, query: &CounterQuery<'_>) -> Vec<CounterRow> {
        let table = self.table();
        let mut rows = Vec::new();
        let (mut counter, mut skip) = (String::new(), query.offset);
        for endpoint_id in query.endpoint_ids {
            let Some(number) = endpoint_id.checked_sub(1) else { continue };
            let mut ids: Vec<SeriesId> = table.series_of(number).collect();
            ids.reverse();
            for id in ids {
                if rows.len() >= query.limit {
                    return rows;
                }
                let Some((key, meta)) = table.key(id).zip(table.meta(id)) else { continue };
                counter.clear();
                key.push_counter(&mut counter);
                if query.patterns.iter().any(|(negated, pattern)| pattern.is_match(&counter) == *negated) {
                    continue;
                }
                if skip > 0 {
                    skip -= 1;
                    continue;
                }
                let (step, counter_type) = (meta.step, meta.counter_type);
                rows.push(CounterRow { endpoint_id: *endpoint_id, counter: counter.clone(), step, counter_type });
            }
        }
        rows
    }

    /// The time of the newest point in memory of any series of an endpoint: when it last reported.
    pub fn endpoint_last_time(&self, endpoint_id: u32) -> Option<i64> {
        // Collected first: a shard's lock is never taken under the table's.
        let ids: Vec<SeriesId> = self.table().series_of(endpoint_id.checked_sub(1)?).collect();
        let newest = ids.into_iter().filter_map(|id| {
            let (hot, slot) = self.shards.lock_of(id);
            hot.newest(slot)
        });
        newest.map(|(time, _)| i64::from(time)).max()
    }
}

/// A metric may contain `/` itself, so every `/` may be the border; the first is the usual one.
fn find_counter(table: &Table, endpoint: u32, counter: &str) -> Option<Found> {
    let mut scratch = String::new();
    for (border, _) in counter.match_indices('/') {
        let (metric, raw_tags) = (&counter[..border], &counter[border + 1..]);
        let tags = Tags::canonical(raw_tags, &mut scratch);
        // What canonicalising dropped altogether was not tags.
        if tags.is_empty() && !raw_tags.is_empty() {
            continue;
        }
        if let Some(found) = table.find_of(endpoint, metric, tags.as_str()) {
            return Some(found);
        }
    }
    table.find_of(endpoint, counter, "")
}

/// A part of a counter's text, tested once per distinct metric and tags.
struct Term<'a> {
    text: &'a str,
    metrics: Vec<bool>,
    tags: Vec<bool>,
}

impl<'a> Term<'a> {
    fn new(text: &'a str, table: &Table) -> Term<'a> {
        let test = |texts: &Interner| (0..texts.len() as u32).map(|id| texts.text(id).contains(text)).collect();
        Term { text, metrics: test(table.metrics()), tags: test(table.tags()) }
    }

    fn is_in(&self, id: SeriesId, table: &Table) -> bool {
        let (metric, tags) = table.parts(id);
        self.metrics[metric as usize]
            || self.tags[tags as usize]
            || (self.text.contains('/') && self.is_across(id, table))
    }

    /// The term may cover the `/` between metric and tags.
    fn is_across(&self, id: SeriesId, table: &Table) -> bool {
        table.key(id).is_some_and(|key| key.counter().contains(self.text))
    }
}
