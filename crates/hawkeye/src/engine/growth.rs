//! Growth: who makes new series, and whom to refuse where there is no room for all.
//!
//! Why: one tag that holds a request's id makes more series in ten minutes than a fleet in a year. Whoever runs out of
//! memory must be told the culprit's name, and nobody but the culprit should pay for it.
//! How: every attempt to make a series is noted under its endpoint, its metric and its tag keys, in lists of the
//! heaviest ([`Heaviest`], "space saving": a name that is not listed takes the place of the lightest and inherits its
//! weight, so that whoever makes more than its share is always listed); and under its pair of endpoint and metric in a
//! sketch of counters ("count-min"), which can be asked about any pair. All weights halve each minute: they are what
//! the last minutes brought.
//! Whom to refuse: the net has a mesh, a share of the heaviest pair's weight. With all of the last room free only that
//! pair is caught; the less room there is, the lighter ones too; without room, all. So growth stops with its largest
//! cause, and a new disk or a new host, of at most [`FEW`] series per pair, is taken for as long as there is any room.
//! Attempts count, not successes: a culprit that is refused stays one for as long as it goes on.
//! Invariants: no clock, no lock; nothing is allocated but the names listed, each cut at [`NAME_MAX`] bytes.
//! Memory: 3 lists of [`LISTED`] names and the sketch: some 170 KB, whatever comes.

use model::SeriesKey;
use serde::Serialize;
use serde_json::{Value, json};
use std::hash::{BuildHasher, RandomState};
use stdx::Distinct;
use store::{Census, Most};

/// Names per list. A name with more than one in [`LISTED`] of the new series is surely among them.
const LISTED: usize = 64;

/// Names of each list that the report shows.
pub const REPORTED: usize = 10;

/// Bytes of a name that are kept: enough to recognise it; nothing is looked up by it.
const NAME_MAX: usize = 128;

const SKETCH_ROWS: usize = 4;
/// Columns of the sketch. A thousand pairs that grow at once make one in ten thousand others look like them.
const SKETCH_COLUMNS: usize = 8192;

/// New series of one metric at one endpoint that are no explosion: a host's disks or cores. A guess.
const FEW: u32 = 32;

/// Seconds after which all weights halve.
const HALVING_S: i64 = 60;

/// Heaviest growers of the last minutes, and what was refused to them.
pub struct Growth {
    endpoints: Heaviest,
    metrics: Heaviest,
    tag_keys: Heaviest,
    pairs: Sketch,
    hasher: RandomState,
    next_halving: i64,
    attempts: u64,
    refused: u64,
    refused_since: Option<i64>,
    last_refused: Option<Refusal>,
}

/// Refusal of one series, the last: its name tells more than any sum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    pub time: i64,
    pub endpoint: String,
    pub counter: String,
}

/// Growth as `/memory` shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct GrowthReport {
    /// New series that were asked for since the start.
    pub attempts: u64,
    pub refused: u64,
    /// Time of the first refusal for want of memory (Unix seconds); none if there was none.
    pub refused_since: Option<i64>,
    pub last_refused: Option<Refusal>,
    /// Endpoints, the heaviest first.
    pub endpoints: Vec<Grower>,
    pub metrics: Vec<Grower>,
    pub tag_keys: Vec<Grower>,
}

/// One name of a list: an endpoint, a metric or a tag key under which new series were asked for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Grower {
    pub name: String,
    /// New series asked for per minute, of the last minutes.
    pub per_minute: u64,
    /// New series that were refused under this name since it was listed.
    pub refused: u64,
    /// About how many different values a tag key had since it was listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<u64>,
}

/// Section of `/memory`: who grows (`growing`), and who has most series (`most_series`).
pub fn section(growing: &GrowthReport, census: &Census) -> Value {
    let list = |most: &[Most]| -> Vec<Value> {
        let counts = |one: &Most| json!({"name": cut(&one.name), "series": one.series, "values": one.values});
        most.iter().map(counts).collect()
    };
    let most = json!({
        "endpoints": list(&census.endpoints), "metrics": list(&census.metrics), "tag_keys": list(&census.tag_keys),
    });
    json!({"growing": growing, "most_series": most})
}

impl Default for Growth {
    fn default() -> Growth {
        Growth {
            endpoints: Heaviest::default(),
            metrics: Heaviest::default(),
            tag_keys: Heaviest::default(),
            pairs: Sketch::default(),
            hasher: RandomState::new(),
            next_halving: i64::MIN,
            attempts: 0,
            refused: 0,
            refused_since: None,
            last_refused: None,
        }
    }
}

impl Growth {
    /// Notes that somebody wants a new series. `room` is how much of the last room is free, from 1 (all of it, or more)
    /// to 0 (none). Answers whether the series may be made.
    pub fn admit(&mut self, key: SeriesKey<'_>, room: f64, now: i64) -> bool {
        self.halve_if_due(now);
        let pair = [self.hasher.hash_one((key.endpoint, key.metric)), self.hasher.hash_one((key.metric, key.endpoint))];
        let weight = self.pairs.add(pair);
        let mesh = (room * f64::from(self.pairs.heaviest)).max(f64::from(FEW));
        let is_taken = room >= 1.0 || room > 0.0 && f64::from(weight) <= mesh;
        self.attempts += 1;
        if !is_taken {
            self.refused += 1;
            self.refused_since.get_or_insert(now);
            self.note_refusal(key, now);
        }
        self.endpoints.add(key.endpoint, is_taken, None);
        self.metrics.add(key.metric, is_taken, None);
        for (name, value) in key.tags.as_str().split(',').filter_map(|tag| tag.split_once('=')) {
            self.tag_keys.add(name, is_taken, Some(self.hasher.hash_one(value)));
        }
        is_taken
    }

    /// Number of new series that were refused since the start.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Number of new series that were asked for since the start.
    pub fn attempts(&self) -> u64 {
        self.attempts
    }

    /// Copies the lists for `/memory`, at most [`REPORTED`] names of each.
    pub fn report(&self) -> GrowthReport {
        GrowthReport {
            attempts: self.attempts,
            refused: self.refused,
            refused_since: self.refused_since,
            last_refused: self.last_refused.clone(),
            endpoints: self.endpoints.report(),
            metrics: self.metrics.report(),
            tag_keys: self.tag_keys.report(),
        }
    }

    /// Bytes that the lists and the sketch hold.
    pub fn memory_bytes(&self) -> usize {
        let listed = [&self.endpoints, &self.metrics, &self.tag_keys].into_iter().map(Heaviest::memory_bytes);
        listed.sum::<usize>() + size_of_val(&*self.pairs.counts)
    }

    /// Keeps the name of a refused series, at most once a second: enough to recognise the culprit by.
    fn note_refusal(&mut self, key: SeriesKey<'_>, now: i64) {
        if self.last_refused.as_ref().is_none_or(|last| last.time != now) {
            let (endpoint, counter) = (cut(key.endpoint).to_string(), cut(&key.counter()).to_string());
            self.last_refused = Some(Refusal { time: now, endpoint, counter });
        }
    }

    /// Halves all weights if a minute has passed, or if the clock was set back: old weights must not last for ever.
    pub fn halve_if_due(&mut self, now: i64) {
        self.next_halving = self.next_halving.min(now + HALVING_S);
        // After a minute for each bit nothing is left.
        for _ in 0..u32::BITS {
            if now < self.next_halving {
                return;
            }
            let is_first = self.next_halving == i64::MIN;
            self.next_halving = if is_first { now + HALVING_S } else { self.next_halving + HALVING_S };
            self.pairs.halve();
            for list in [&mut self.endpoints, &mut self.metrics, &mut self.tag_keys] {
                list.halve();
            }
        }
        self.next_halving = now + HALVING_S;
    }
}

/// The part of a name that is kept, cut at a character.
fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_MAX)]
}

/// The names with the most weight.
#[derive(Default)]
struct Heaviest {
    listed: Vec<Listed>,
}

struct Listed {
    name: Box<str>,
    weight: u32,
    /// Part of `weight` that may be inherited from names that were listed before.
    inherited: u32,
    refused: u64,
    values: Option<Box<Distinct>>,
}

impl Heaviest {
    fn add(&mut self, name: &str, is_taken: bool, value: Option<u64>) {
        let name = cut(name);
        let at = self.listed.iter().position(|listed| *listed.name == *name).unwrap_or_else(|| self.list(name));
        let listed = &mut self.listed[at];
        listed.weight = listed.weight.saturating_add(1);
        listed.refused += u64::from(!is_taken);
        if let Some(hash) = value {
            listed.values.get_or_insert_default().add(hash);
        }
        // The heaviest are looked at first, so the culprit is found at once.
        if at > 0 && self.listed[at - 1].weight < self.listed[at].weight {
            self.listed.swap(at - 1, at);
        }
    }

    /// Lists a name; answers its place in the list.
    fn list(&mut self, name: &str) -> usize {
        let fresh = |weight| Listed { name: name.into(), weight, inherited: weight, refused: 0, values: None };
        if self.listed.len() < LISTED {
            self.listed.push(fresh(0));
            return self.listed.len() - 1;
        }
        let lightest = self.listed.iter().enumerate().min_by_key(|(_, listed)| listed.weight);
        let (at, weight) = lightest.map(|(at, listed)| (at, listed.weight)).expect("the list is full");
        self.listed[at] = fresh(weight);
        at
    }

    fn memory_bytes(&self) -> usize {
        let of = |listed: &Listed| listed.name.len() + listed.values.as_ref().map_or(0, |_| size_of::<Distinct>());
        self.listed.capacity() * size_of::<Listed>() + self.listed.iter().map(of).sum::<usize>()
    }

    fn halve(&mut self) {
        for listed in &mut self.listed {
            listed.weight /= 2;
            listed.inherited /= 2;
        }
        self.listed.retain(|listed| listed.weight > 0);
    }

    fn report(&self) -> Vec<Grower> {
        let mut growers: Vec<Grower> = self
            .listed
            .iter()
            .map(|listed| Grower {
                name: listed.name.to_string(),
                // Halved each minute, a steady growth weighs between one minute's worth and two.
                per_minute: u64::from(listed.weight - listed.inherited) * 2 / 3,
                refused: listed.refused,
                values: listed.values.as_ref().map(|values| values.estimate()),
            })
            .collect();
        // Of tag keys those with most values: one with a single value is on every series of somebody, and no cause.
        growers.sort_by_key(|grower| std::cmp::Reverse((grower.values.unwrap_or(0), grower.per_minute)));
        growers.truncate(REPORTED);
        growers
    }
}

/// Count of each of any number of keys: never too low, seldom too high.
struct Sketch {
    counts: Box<[[u32; SKETCH_COLUMNS]; SKETCH_ROWS]>,
    /// The largest weight that any key had, halved since like the others.
    heaviest: u32,
}

impl Default for Sketch {
    fn default() -> Sketch {
        Sketch { counts: Box::new([[0; SKETCH_COLUMNS]; SKETCH_ROWS]), heaviest: 0 }
    }
}

impl Sketch {
    /// Adds one to a key, given by two hashes; answers its weight. Only the smallest of its counters grow: the others
    /// have been raised by other keys.
    fn add(&mut self, hashes: [u64; 2]) -> u32 {
        let column = |row: usize| (hashes[row / 2] >> (row % 2 * 32)) as usize % SKETCH_COLUMNS;
        let known = self.counts.iter().enumerate().map(|(row, counts)| counts[column(row)]).min().unwrap_or(0);
        let weight = known.saturating_add(1);
        for (row, counts) in self.counts.iter_mut().enumerate() {
            let count = &mut counts[column(row)];
            *count = (*count).max(weight);
        }
        self.heaviest = self.heaviest.max(weight);
        weight
    }

    fn halve(&mut self) {
        self.counts.iter_mut().flatten().for_each(|count| *count /= 2);
        self.heaviest /= 2;
    }
}

#[cfg(test)]
mod tests;
