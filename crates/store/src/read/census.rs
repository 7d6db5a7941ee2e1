//! Census: who has the most series in memory, by endpoint, metric and tag key.
//!
//! Why: memory is mostly a matter of how many series there are, and whoever is out of room must know whose they are.
//! How: an endpoint knows how many series it has; metrics and tag keys are counted over the counters, each of which
//! knows how many series share it.
//! Invariants: the table is held for stretches of some thousand steps, so that points and new series go on; what
//! changes meanwhile may count or not.
//! Memory: 4 bytes per metric and the answer while it is made; tag keys beyond [`KEYS_MAX`] are not counted, each costs
//! some 400 bytes.

use crate::parts::Parts;
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::hash::BuildHasher;
use stdx::Distinct;

/// Steps under one lock of the table: some hundred microseconds.
const STRETCH: u32 = 4096;

/// More tag keys than this are no keys any more.
const KEYS_MAX: usize = 1024;

/// An endpoint, a metric or a tag key, and how many series it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Most {
    pub name: String,
    pub series: u64,
    /// About how many different values a tag key has; 0 for what has none.
    pub values: u64,
}

/// The owners of the most series, by kind; each list begins with the largest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    pub endpoints: Vec<Most>,
    pub metrics: Vec<Most>,
    pub tag_keys: Vec<Most>,
}

#[derive(Default)]
struct Key {
    series: u64,
    values: Distinct,
}

impl Parts {
    /// The `count` endpoints, metrics and tag keys that have the most series in memory. Takes some 100 ns per distinct
    /// counter.
    pub fn census(&self, count: usize) -> Census {
        let (metrics, tag_keys) = self.counter_census(count);
        Census { endpoints: self.endpoint_census(count), metrics, tag_keys }
    }

    fn endpoint_census(&self, count: usize) -> Vec<Most> {
        let mut most = Vec::new();
        let mut number = Some(0);
        while let Some(from) = number {
            let table = self.table();
            number = None;
            for (steps, (at, place)) in table.endpoints_from(from).enumerate() {
                if steps == STRETCH as usize {
                    number = Some(at);
                    break;
                }
                most.push((u64::from(table.live_of(place)), at));
            }
            keep_most(&mut most, count);
        }
        let table = self.table();
        let name = |number| Some(table.endpoint(table.place_of_number(number)?).to_string());
        most.into_iter().filter_map(|(series, number)| Some(Most { name: name(number)?, series, values: 0 })).collect()
    }

    /// Metrics and tag keys.
    fn counter_census(&self, count: usize) -> (Vec<Most>, Vec<Most>) {
        let hasher = RandomState::default();
        let mut by_metric: Vec<u32> = Vec::new();
        let mut by_key: HashMap<String, Key> = HashMap::new();
        let mut next = 0;
        loop {
            let table = self.table();
            let counters = table.counters();
            let end = counters.ids_end().min(next + STRETCH);
            for counter in next..end {
                let series = counters.count(counter);
                if series == 0 {
                    continue;
                }
                let (metric, _) = counters.parts(counter);
                if by_metric.len() <= metric as usize {
                    by_metric.resize(metric as usize + 1, 0);
                }
                by_metric[metric as usize] += series;
                let (_, tags) = counters.texts(counter);
                for (key, value) in tags.split(',').filter_map(|tag| tag.split_once('=')) {
                    if !by_key.contains_key(key) {
                        if by_key.len() == KEYS_MAX {
                            continue;
                        }
                        by_key.insert(key.to_string(), Key::default());
                    }
                    let counted = by_key.get_mut(key).expect("it is there now");
                    counted.series += u64::from(series);
                    counted.values.add(hasher.hash_one(value));
                }
            }
            if end == counters.ids_end() {
                break;
            }
            next = end;
        }
        let mut metrics: Vec<(u64, u32)> =
            by_metric.iter().enumerate().map(|(id, series)| (u64::from(*series), id as u32)).collect();
        keep_most(&mut metrics, count);
        let table = self.table();
        let name = |id| table.counters().metric(id).map(str::to_string);
        let metrics = metrics.into_iter().filter_map(|(series, id)| Some(Most { name: name(id)?, series, values: 0 }));
        let mut keys: Vec<Most> = by_key
            .into_iter()
            .map(|(name, key)| Most { name, series: key.series, values: key.values.estimate() })
            .collect();
        // A key with one value is on every series of a site, and no explosion: values first.
        keys.sort_unstable_by_key(|key| std::cmp::Reverse((key.values, key.series)));
        keys.truncate(count);
        (metrics.collect(), keys)
    }
}

fn keep_most(most: &mut Vec<(u64, u32)>, count: usize) {
    most.retain(|(series, _)| *series > 0);
    most.sort_unstable_by_key(|(series, id)| (std::cmp::Reverse(*series), *id));
    most.truncate(count);
}
