//! Asleep: what is asked about series that are not in the table, answered from cold runs.
//!
//! How: runs are asked from the newest to the oldest, and of a name the first answer counts. What was removed is not
//! there, and what is in the table counts as awake, whatever a run says. How series get into runs is in `sleep.rs`.
//! Invariants: damage costs the names in the damaged page, is counted, and hides no other; no lock is held while a disk
//! is read, and none may be held by those who call.
//! Memory: a window of 64 KiB while a run is read in order; a bit per endpoint number in a search.

use super::bits::Bits;
use super::search::{CounterQuery, EndpointQuery};
use crate::error::Result;
use crate::parts::Parts;
use crate::series::cold::{ColdFound, ColdSeries, Run};
use crate::series::{Found, find_counter};
use model::{SeriesId, SeriesKey, Tags};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Endpoints whose series a search looks up one by one, each some small reads; for more of them it reads on.
const ONE_BY_ONE_MAX: usize = 256;

impl Parts {
    /// Finds a name in these runs; the newest that knows it counts.
    pub(crate) fn find_in(&self, runs: &[Arc<Run>], key: SeriesKey<'_>) -> Result<Option<ColdFound>> {
        for run in runs.iter().rev() {
            if let Some(found) = self.note_cold_damage(run.find(key))?.flatten()
                && !self.is_removed(found.id)
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    pub(crate) fn find_asleep(&self, endpoint: &str, counter: &str) -> Result<Option<Found>> {
        // A counter may be read in many ways; the endpoint need be there only once.
        let runs = self.runs();
        if self.number_in(&runs, endpoint)?.is_none() {
            return Ok(None);
        }
        let found = find_counter(counter, |metric, tags| {
            let key = SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) };
            self.find_in(&runs, key).transpose()
        });
        Ok(found.transpose()?.map(|found| Found::new(found.id, found.meta)))
    }

    /// The number that an endpoint has in these runs, also if nothing of it is left but removed series.
    pub(crate) fn number_in(&self, runs: &[Arc<Run>], name: &str) -> Result<Option<u32>> {
        let mut number = None;
        for run in runs.iter().rev() {
            let first = run.endpoints(name, &mut |endpoint| {
                number = (endpoint.name == name).then_some(endpoint.number);
                ControlFlow::Break(())
            });
            self.note_cold_damage(first)?;
            if number.is_some() {
                break;
            }
        }
        Ok(number)
    }

    /// The number of an endpoint that has a series asleep.
    pub(crate) fn number_asleep(&self, name: &str) -> Result<Option<u32>> {
        let Some(number) = self.number_in(&self.runs(), name)? else { return Ok(None) };
        let mut is_there = !self.table().has_removed();
        if !is_there {
            self.for_each_asleep(name, &mut |_| is_there = true)?;
        }
        Ok(is_there.then_some(number))
    }

    /// Names by number, of endpoints awake and asleep.
    pub(crate) fn endpoint_names(&self, numbers: &[u32]) -> Result<HashMap<u32, String>> {
        let mut names: HashMap<u32, String> = {
            let table = self.table();
            let name = |number: &u32| Some((*number, table.endpoint(table.place_of_number(*number)?).to_string()));
            numbers.iter().filter_map(name).collect()
        };
        let mut missing = Bits::default();
        let missing_numbers = numbers.iter().filter(|number| !names.contains_key(number));
        let mut left = missing_numbers.map(|number| missing.set(*number)).count();
        for run in self.runs().iter().rev() {
            if left == 0 {
                break;
            }
            let visited = run.endpoints("", &mut |endpoint| {
                if missing.has(endpoint.number) && !names.contains_key(&endpoint.number) {
                    names.insert(endpoint.number, endpoint.name.to_string());
                    left -= 1;
                }
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            self.note_cold_damage(visited)?;
        }
        Ok(names)
    }

    /// Numbers of the endpoints in runs that a search takes. Without tag terms no series need be read, unless some were
    /// removed; with them those of the endpoints whose names match, or, where these are many, a run from end to end.
    pub(crate) fn endpoints_asleep(&self, query: &EndpointQuery<'_>) -> Result<Bits> {
        let mut numbers = Bits::default();
        let by_series = !query.tag_terms.is_empty() || self.table().has_removed();
        for run in self.runs().iter() {
            let mut names = Vec::new();
            let visited = run.endpoints("", &mut |endpoint| {
                if !query.takes_name(endpoint.name) {
                    return ControlFlow::Continue(());
                }
                if !by_series {
                    numbers.set(endpoint.number);
                    return ControlFlow::Continue(());
                }
                names.push(endpoint.name.to_string());
                if names.len() > ONE_BY_ONE_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            self.note_cold_damage(visited)?;
            let mut look = EndpointLook::new(self, query, &mut numbers);
            if names.len() > ONE_BY_ONE_MAX {
                self.note_cold_damage(run.series_from("", &mut |series| look.at(&series)))?;
                continue;
            }
            for name in &names {
                self.note_cold_damage(run.series_of(name, &mut |series| look.at(&series)))?;
            }
        }
        Ok(numbers)
    }

    /// Adds the ids of an endpoint's sleeping series that a search takes; some may come twice.
    pub(crate) fn counters_asleep(&self, name: &str, query: &CounterQuery<'_>, ids: &mut Vec<SeriesId>) -> Result<()> {
        let mut counter = String::new();
        self.for_each_asleep(name, &mut |series| {
            counter.clear();
            series.key.push_counter(&mut counter);
            if query.takes(&counter) {
                ids.push(series.found.id);
            }
        })
    }

    /// Visits the sleeping series of an endpoint; one that is in several runs once for each, as the newest knows it
    /// first.
    pub(crate) fn for_each_asleep(&self, endpoint: &str, each: &mut dyn FnMut(&ColdSeries<'_>)) -> Result<()> {
        self.for_each_asleep_from(endpoint, &mut |series| {
            if series.key.endpoint != endpoint {
                return ControlFlow::Break(());
            }
            each(series);
            ControlFlow::Continue(())
        })
    }

    /// Visits the sleeping series of an endpoint, or of all; some more than once. For all, it reads all runs from end
    /// to end.
    pub fn for_each_sleeping_series(
        &self,
        endpoint: Option<&str>,
        each: &mut dyn FnMut(Found, SeriesKey<'_>),
    ) -> Result<()> {
        let mut visit = |series: &ColdSeries<'_>| each(Found::new(series.found.id, series.found.meta), series.key);
        match endpoint {
            Some(endpoint) => self.for_each_asleep(endpoint, &mut visit),
            None => self.for_each_asleep_from("", &mut |series| {
                visit(series);
                ControlFlow::Continue(())
            }),
        }
    }

    /// Visits the series asleep from an endpoint on, of each run until told to break.
    fn for_each_asleep_from(
        &self,
        endpoint: &str,
        each: &mut dyn FnMut(&ColdSeries<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        for run in self.runs().iter().rev() {
            let visited = run.series_from(endpoint, &mut |series| {
                let is_asleep = {
                    let table = self.table();
                    table.meta(series.found.id).is_none() && !table.is_removed(series.found.id)
                };
                if is_asleep { each(&series) } else { ControlFlow::Continue(()) }
            });
            self.note_cold_damage(visited)?;
        }
        Ok(())
    }

    /// A damaged page of a run is counted, and as good as none.
    fn note_cold_damage<T>(&self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Err(error) if error.is_damage() => {
                self.note_damage(&error);
                Ok(None)
            }
            result => result.map(Some),
        }
    }
}

/// Looks at series in the order of a run for the endpoints that a search takes.
struct EndpointLook<'a> {
    parts: &'a Parts,
    query: &'a EndpointQuery<'a>,
    numbers: &'a mut Bits,
    endpoint: Option<u32>,
    /// Whether the endpoint may still be taken.
    open: bool,
    counter: String,
}

impl<'a> EndpointLook<'a> {
    fn new(parts: &'a Parts, query: &'a EndpointQuery<'a>, numbers: &'a mut Bits) -> EndpointLook<'a> {
        EndpointLook { parts, query, numbers, endpoint: None, open: false, counter: String::new() }
    }

    fn at(&mut self, series: &ColdSeries<'_>) -> ControlFlow<()> {
        let number = series.found.endpoint;
        if self.endpoint != Some(number) {
            self.endpoint = Some(number);
            self.open = !self.numbers.has(number) && self.query.takes_name(series.key.endpoint);
        }
        if self.open {
            self.counter.clear();
            series.key.push_counter(&mut self.counter);
            if self.query.takes_counter(&self.counter) && !self.parts.is_removed(series.found.id) {
                self.numbers.set(number);
                self.open = false;
            }
        }
        ControlFlow::Continue(())
    }
}
