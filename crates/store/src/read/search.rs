//! Search: from names to series, and lists of names for people who look for one.
//!
//! Why: a fleet has a million series, and a person types three letters. No search visits all series, and none holds the
//! table for longer than [`STRETCH`] steps, for ingest waits behind it.
//! How: tag terms are tested once per distinct counter. Then either the chains of the counters that match lead to the
//! endpoints (when few series have them), or the endpoints are gone through in the order of the answer and looked at
//! one by one until the page is full (when many do). Sleeping series are in cold runs (`asleep.rs`); what is in the
//! table as well counts as awake.
//! Invariants: a search that goes over several stretches holds `chains`, so that no sweep takes away what it stands on;
//! what comes or goes meanwhile may or may not be in the answer.
//! Memory: a bit per counter and per endpoint number; the page.
//! Compat: the API's `graph/endpoint` and `graph/endpoint_counter` (docs/open-falcon/control-plane.md): patterns are
//! all to match, tag terms are parts of a counter's text; endpoints come in order of first appearance, as from MySQL's
//! ids.

use super::bits::Bits;
use crate::error::Result;
use crate::parts::Parts;
use crate::series::{Found, Meta, Table, find_counter};
use crate::sizes::GROUP;
use model::{CounterType, SeriesId, SeriesKey};
use regex::Regex;

/// Steps under one lock of the table: a step is a short text compared or a record looked at, some 100 ns.
const STRETCH: usize = 4096;

/// The names, type and step of a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesInfo {
    pub endpoint: String,
    pub counter: String,
    pub counter_type: CounterType,
    pub step: u32,
}

/// A search for endpoints: every pattern matches the name, and some counter of the endpoint contains every tag term.
#[derive(Clone, Copy, Debug)]
pub struct EndpointQuery<'a> {
    pub patterns: &'a [Regex],
    pub tag_terms: &'a [&'a str],
    pub offset: usize,
    pub limit: usize,
}

/// A search for counters of these endpoints: every pattern matches, every negated one does not.
#[derive(Clone, Copy, Debug)]
pub struct CounterQuery<'a> {
    pub endpoint_ids: &'a [u32],
    pub patterns: &'a [(bool, Regex)],
    pub offset: usize,
    pub limit: usize,
}

/// A counter of an endpoint, as a search answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterRow {
    pub endpoint_id: u32,
    pub counter: String,
    pub step: u32,
    pub counter_type: CounterType,
}

/// The most ids that one page of a walk looks at, live or not: a tenth of a millisecond under the table's lock.
const PAGE_IDS_MAX: u32 = 16_384;
/// Endpoints that are looked up under one hold of the table's lock.
const ENDPOINTS_AT_ONCE: usize = 256;

impl EndpointQuery<'_> {
    pub(crate) fn takes_name(&self, name: &str) -> bool {
        self.patterns.iter().all(|pattern| pattern.is_match(name))
    }

    pub(crate) fn takes_counter(&self, counter: &str) -> bool {
        self.tag_terms.iter().all(|term| counter.contains(term))
    }
}

impl CounterQuery<'_> {
    pub(crate) fn takes(&self, counter: &str) -> bool {
        self.patterns.iter().all(|(negated, pattern)| pattern.is_match(counter) != *negated)
    }
}

impl Parts {
    /// Finds a series by endpoint and counter text, `metric` or `metric/tags` with the tags in any order; also one that
    /// sleeps.
    pub fn find(&self, endpoint: &str, counter: &str) -> Result<Option<Found>> {
        let awake = {
            let table = self.table();
            table
                .place_of(endpoint)
                .and_then(|place| find_counter(counter, |metric, tags| table.find_drowsy_of(place, metric, tags)))
        };
        match awake {
            Some(found) => Ok(Some(found)),
            None => self.find_asleep(endpoint, counter),
        }
    }

    /// Finds each of some counters at each of some endpoints, as [`Parts::find`] finds one: the counters of the first
    /// endpoint, then those of the next. The names of the counters are looked up once for many endpoints. One that is
    /// in a damaged file is as good as unknown.
    pub fn find_each(&self, endpoints: &[&str], counters: &[&str]) -> Vec<Option<Found>> {
        let mut found = Vec::with_capacity(endpoints.len() * counters.len());
        for endpoints in endpoints.chunks(ENDPOINTS_AT_ONCE) {
            let first = found.len();
            self.find_each_awake(endpoints, counters, &mut found);
            for (place, one) in found[first..].iter_mut().enumerate().filter(|(_, one)| one.is_none()) {
                let (endpoint, counter) = (endpoints[place / counters.len()], counters[place % counters.len()]);
                *one = self.find_asleep(endpoint, counter).ok().flatten();
            }
        }
        found
    }

    fn find_each_awake(&self, endpoints: &[&str], counters: &[&str], found: &mut Vec<Option<Found>>) {
        let table = self.table();
        let counters: Vec<_> = counters.iter().map(|counter| table.readings_of(counter)).collect();
        for endpoint in endpoints {
            let place = table.place_of(endpoint);
            let of_counter = |readings: &Vec<_>| {
                let place = place?;
                readings.iter().find_map(|parts| table.find_drowsy_by(place, *parts))
            };
            found.extend(counters.iter().map(of_counter));
        }
    }

    /// Names, type and step of a series that is awake.
    pub fn info(&self, id: SeriesId) -> Option<SeriesInfo> {
        let table = self.table();
        let (key, meta) = (table.key(id)?, table.meta(id)?);
        let (counter_type, step) = (meta.counter_type, meta.step);
        Some(SeriesInfo { endpoint: key.endpoint.to_string(), counter: key.counter(), counter_type, step })
    }

    /// Visits every series that is awake, group by group with the table held for reading: do not call the store from
    /// within.
    pub fn for_each_series(&self, each: &mut dyn FnMut(SeriesId, SeriesKey<'_>, CounterType, u32)) {
        let groups = self.table().used_groups();
        for group in groups {
            self.table().series_in(group).for_each(|(id, key, meta)| each(id, key, meta.counter_type, meta.step));
        }
    }

    /// An id above every one that was given so far; what is created later has ids from here on.
    pub fn series_end(&self) -> SeriesId {
        SeriesId(self.table().end())
    }

    /// A piece of a walk over all series that are awake, in the order of their ids: visits at most `limit` from `from`
    /// on, and answers where the next piece begins; nothing is left when that is [`Parts::series_end`]. The table is
    /// held for reading only for this piece, so a walk of any length keeps nobody waiting; do not call the store from
    /// within.
    pub fn series_page(
        &self,
        from: SeriesId,
        limit: usize,
        each: &mut dyn FnMut(SeriesId, SeriesKey<'_>, CounterType, u32),
    ) -> SeriesId {
        let table = self.table();
        let end = table.end().min(from.0.saturating_add(PAGE_IDS_MAX));
        let ids = (from.0 / GROUP..end.div_ceil(GROUP)).flat_map(|group| table.series_in(group));
        let ids = ids.filter(|(id, _, _)| (from.0..end).contains(&id.0));
        for (visited, (id, key, meta)) in ids.enumerate() {
            if visited == limit {
                return id;
            }
            each(id, key, meta.counter_type, meta.step);
        }
        SeriesId(end.max(from.0))
    }

    /// Endpoints that a query takes: ids (from 1 on, durable) and names, in the order of the ids.
    pub fn endpoints(&self, query: &EndpointQuery<'_>) -> Result<Vec<(u32, String)>> {
        let asleep = self.endpoints_asleep(query)?;
        let page = self.endpoint_page(query, &asleep);
        self.name_endpoints(page.numbers)
    }

    /// The page of a search: endpoints awake with their names, those asleep without.
    fn endpoint_page(&self, query: &EndpointQuery<'_>, asleep: &Bits) -> Page {
        let _chains = self.chains.read();
        let mut awake = Awake::new(self, query);
        let mut page = Page { skip: query.offset, left: query.limit, numbers: Vec::new() };
        // Both in order of numbers; an endpoint may be in both.
        let (mut from_asleep, mut next) = (0, awake.next());
        while page.left > 0 {
            let sleeper = asleep.next_from(from_asleep);
            match (&next, sleeper) {
                (Some((number, _)), Some(sleeper)) if sleeper <= *number => {
                    let name = if sleeper == *number { next.take().map(|(_, name)| name) } else { None };
                    page.push(sleeper, name);
                    from_asleep = sleeper + 1;
                    if next.is_none() {
                        next = awake.next();
                    }
                }
                (None, Some(sleeper)) => {
                    page.push(sleeper, None);
                    from_asleep = sleeper + 1;
                }
                (Some(_), _) => {
                    let (number, name) = next.take().expect("just seen");
                    page.push(number, Some(name));
                    next = awake.next();
                }
                (None, None) => break,
            }
        }
        page
    }

    /// The endpoints that have a series awake, in the order of their ids.
    pub fn endpoints_awake(&self) -> Vec<(u32, String)> {
        let all = EndpointQuery { patterns: &[], tag_terms: &[], offset: 0, limit: usize::MAX };
        let _chains = self.chains.read();
        Awake::new(self, &all).collect()
    }

    /// Adds the names of endpoints that sleep, which a page lacks.
    fn name_endpoints(&self, numbers: Vec<(u32, Option<String>)>) -> Result<Vec<(u32, String)>> {
        let nameless: Vec<u32> = numbers.iter().filter(|(_, name)| name.is_none()).map(|(number, _)| *number).collect();
        let names = self.endpoint_names(&nameless)?;
        let name_of = |number: u32| names.get(&number).cloned();
        Ok(numbers.into_iter().filter_map(|(number, name)| Some((number, name.or_else(|| name_of(number))?))).collect())
    }

    /// The ids of endpoints by name, in the order of the names; `None` for one that has no series.
    pub fn endpoint_ids(&self, names: &[&str]) -> Result<Vec<Option<u32>>> {
        let id = |name: &&str| match self.awake_number(name) {
            Some(number) => Ok(Some(number)),
            None => self.number_asleep(name),
        };
        names.iter().map(id).collect()
    }

    /// The place of an endpoint that is awake, as [`crate::Finder::endpoint`] tells it to who writes.
    pub fn endpoint_place(&self, name: &str) -> Option<u32> {
        self.table().place_of(name)
    }

    fn awake_number(&self, name: &str) -> Option<u32> {
        let table = self.table();
        let number = table.endpoint_number(table.place_of(name)?);
        table.place_of_number(number).map(|_| number)
    }

    /// Name of an endpoint by its id, awake or asleep. Reads files for one that sleeps.
    pub fn endpoint_name(&self, endpoint_id: u32) -> Result<Option<String>> {
        Ok(self.endpoint_names(&[endpoint_id])?.remove(&endpoint_id))
    }

    /// Counters that a query takes, in the order of the endpoints asked for, then of first appearance.
    pub fn counters(&self, query: &CounterQuery<'_>) -> Result<Vec<CounterRow>> {
        let names = self.endpoint_names(query.endpoint_ids)?;
        let (mut rows, mut skip) = (Vec::new(), query.offset);
        for endpoint_id in query.endpoint_ids {
            if rows.len() >= query.limit {
                break;
            }
            let Some(name) = names.get(endpoint_id) else { continue };
            let mut ids = self.counters_awake(name, query);
            self.counters_asleep(name, query, &mut ids)?;
            ids.sort_unstable();
            ids.dedup();
            let skipped = skip.min(ids.len());
            skip -= skipped;
            ids.drain(..skipped);
            ids.truncate(query.limit - rows.len());
            self.push_rows(name, *endpoint_id, &ids, &mut rows)?;
        }
        Ok(rows)
    }

    /// Ids of an endpoint's awake series that the query takes.
    fn counters_awake(&self, endpoint: &str, query: &CounterQuery<'_>) -> Vec<SeriesId> {
        let _chains = self.chains.read();
        let (mut ids, mut previous, mut counter) = (Vec::new(), None, String::new());
        loop {
            let table = self.table();
            let Some(place) = table.place_of(endpoint) else { return ids };
            for _ in 0..STRETCH {
                previous = table.next_of_endpoint(place, previous);
                let Some(id) = previous.map(SeriesId) else { return ids };
                let Some(key) = table.key(id) else { continue };
                counter.clear();
                key.push_counter(&mut counter);
                if query.takes(&counter) {
                    ids.push(id);
                }
            }
        }
    }

    fn push_rows(&self, name: &str, endpoint_id: u32, ids: &[SeriesId], rows: &mut Vec<CounterRow>) -> Result<()> {
        let mut found: Vec<Option<CounterRow>> = Vec::with_capacity(ids.len());
        let row = |counter, Meta { counter_type, step }| CounterRow { endpoint_id, counter, step, counter_type };
        for ids in ids.chunks(STRETCH) {
            let table = self.table();
            found.extend(ids.iter().map(|id| Some(row(table.key(*id)?.counter(), table.meta(*id)?))));
        }
        if found.iter().any(Option::is_none) {
            self.for_each_asleep(name, &mut |series| {
                if let Ok(place) = ids.binary_search(&series.found.id)
                    && found[place].is_none()
                {
                    found[place] = Some(row(series.key.counter(), series.found.meta));
                }
            })?;
        }
        rows.extend(found.into_iter().flatten());
        Ok(())
    }

    /// The time of the newest point in memory of any series of an endpoint: when it last reported.
    pub fn endpoint_last_time(&self, endpoint_id: u32) -> Option<i64> {
        // Collected first: a shard's lock is never taken under the table's.
        let ids: Vec<SeriesId> = {
            let table = self.table();
            table.series_of(table.place_of_number(endpoint_id)?).collect()
        };
        let newest = ids.into_iter().filter_map(|id| {
            let (hot, slot) = self.shards.lock_of(id);
            hot.newest(slot)
        });
        newest.map(|(time, _)| i64::from(time)).max()
    }
}

/// The part of an answer that was asked for.
struct Page {
    skip: usize,
    left: usize,
    numbers: Vec<(u32, Option<String>)>,
}

impl Page {
    fn push(&mut self, number: u32, name: Option<String>) {
        if self.skip > 0 {
            self.skip -= 1;
        } else {
            self.left -= 1;
            self.numbers.push((number, name));
        }
    }
}

/// The awake endpoints that a query takes, in the order of their numbers, a stretch at a time. `chains` is held
/// meanwhile.
struct Awake<'a> {
    parts: &'a Parts,
    query: &'a EndpointQuery<'a>,
    /// Counters that contain the tag terms; none when there are no terms.
    counters: Option<Bits>,
    /// The endpoints that have such a counter, where that was cheaper to find out beforehand.
    candidates: Option<Bits>,
    /// The place where the next stretch begins: an endpoint, and the series of it behind which to go on.
    number: u32,
    previous: Option<u32>,
    /// Endpoints that the last stretch found, the last one first.
    ready: Vec<(u32, String)>,
    ended: bool,
}

impl<'a> Awake<'a> {
    fn new(parts: &'a Parts, query: &'a EndpointQuery<'a>) -> Awake<'a> {
        let mut this = Awake {
            parts,
            query,
            counters: None,
            candidates: None,
            number: 0,
            previous: None,
            ready: Vec::new(),
            ended: false,
        };
        if !query.tag_terms.is_empty() {
            this.match_counters();
        }
        this
    }

    fn match_counters(&mut self) {
        let (mut bits, mut postings, mut id, mut text) = (Bits::default(), 0u64, 0, String::new());
        let (series, endpoints) = loop {
            let table = self.parts.table();
            let counters = table.counters();
            let end = counters.ids_end();
            let stretch_end = end.min(id + STRETCH as u32);
            for id in id..stretch_end {
                if counters.count(id) == 0 {
                    continue;
                }
                let (metric, tags) = counters.texts(id);
                text.clear();
                SeriesKey { endpoint: "", metric, tags: model::Tags::assume_canonical(tags) }.push_counter(&mut text);
                if self.query.takes_counter(&text) {
                    bits.set(id);
                    postings += u64::from(counters.count(id));
                }
            }
            id = stretch_end;
            if id == end {
                break (table.live() as u64, table.live_endpoints() as u64);
            }
        };
        // Going through the endpoints finds a page after so many series, if those that match lie evenly.
        let wanted = self.query.offset.saturating_add(self.query.limit) as u64;
        let one_by_one = wanted.saturating_mul(series / postings.min(endpoints).max(1)).min(series);
        if postings <= one_by_one {
            self.candidates = Some(self.endpoints_of(&bits));
        }
        self.counters = Some(bits);
    }

    /// Follows the chains of these counters.
    fn endpoints_of(&self, counters: &Bits) -> Bits {
        let mut endpoints = Bits::default();
        let (mut counter, mut previous) = (counters.next_from(0), None);
        while counter.is_some() {
            let table = self.parts.table();
            for _ in 0..STRETCH {
                let Some(id) = counter else { break };
                previous = table.next_of_counter(id, previous);
                match previous {
                    None => counter = counters.next_from(id + 1),
                    Some(series) => {
                        if let Some((place, _)) = table.parts(SeriesId(series)) {
                            endpoints.set(table.endpoint_number(place));
                        }
                    }
                }
            }
        }
        endpoints
    }

    fn stretch(&mut self) {
        let parts = self.parts;
        let table = parts.table();
        let mut steps = STRETCH;
        let from = self.number;
        let candidates = self.candidates.take();
        match &candidates {
            None => self.look_at(table.endpoints_from(from), &table, &mut steps),
            Some(candidates) => {
                let places = candidates.from(from).map(|number| (number, table.place_of_number(number)));
                let present = places.filter_map(|(number, place)| Some((number, place?)));
                self.look_at(present, &table, &mut steps);
            }
        }
        self.candidates = candidates;
        self.ready.reverse();
    }

    fn look_at(&mut self, endpoints: impl Iterator<Item = (u32, u32)>, table: &Table, steps: &mut usize) {
        for (number, place) in endpoints {
            let previous = if number == self.number { self.previous.take() } else { None };
            (self.number, self.previous) = (number, previous);
            if *steps == 0 {
                return;
            }
            *steps -= 1;
            let name = table.endpoint(place);
            if !self.query.takes_name(name) {
                continue;
            }
            if self.candidates.is_none() && self.counters.is_some() {
                match self.has_counter(place, table, steps) {
                    None => return,
                    Some(false) => continue,
                    Some(true) => {}
                }
            }
            self.ready.push((number, name.to_string()));
        }
        self.ended = true;
    }

    /// Whether the endpoint has one of the counters; `None` when the stretch ended before that was known.
    fn has_counter(&mut self, place: u32, table: &Table, steps: &mut usize) -> Option<bool> {
        let counters = self.counters.as_ref()?;
        while let Some(id) = table.next_of_endpoint(place, self.previous) {
            if table.parts(SeriesId(id)).is_some_and(|(_, counter)| counters.has(counter)) {
                self.previous = None;
                return Some(true);
            }
            self.previous = Some(id);
            if *steps == 0 {
                return None;
            }
            *steps -= 1;
        }
        self.previous = None;
        Some(false)
    }
}

impl Iterator for Awake<'_> {
    type Item = (u32, String);

    fn next(&mut self) -> Option<(u32, String)> {
        while self.ready.is_empty() {
            if self.ended {
                return None;
            }
            self.stretch();
        }
        self.ready.pop()
    }
}
