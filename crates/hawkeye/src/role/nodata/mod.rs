//! Nodata: sends a chosen value for series that are silent (`falcon_portal.mockcfg`), so that strategies see them.
//!
//! Why: a strategy judges points, and a dead host sends none.
//! How: rows come with the rules in effect. Each minute every key (endpoint, metric, tags) of every row is looked up
//! in the store ([`Silences::look`]); one whose newest point is older than three steps, or is the mock itself, gets a
//! point two steps ago.
//! Invariants: silence is counted only while this server listens ([`Engine::heard_since`]); when more of a row's series
//! fall silent at once than `nodata.flood_share` says, none of them is mocked, and the series `nodata.flood` of the
//! endpoint `nodata` says how many, as do log and `/health`: a switch that died is no thousand dead hosts.
//! Memory: a key per series that is mocked or held back.
//! Compat: docs/open-falcon/aggregator-nodata-gateway.md §2; the original announces a flood guard and has none.

use crate::clock;
use crate::engine::ingest::{Door, Ingest};
use crate::engine::{Engine, IngestError};
use crate::portal::mock::Mock;
use crate::rules::InEffect;
use crate::rules::snapshot::Snapshot;
use crate::watch::health::Outage;
use anyhow::{Context, Result};
use model::{CounterType, Point, SeriesKey, Tags};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use wire::Item;

/// Fewer series than this are no flood, however many of them are silent. A guess.
const FLOOD_MIN: usize = 5;
/// Steps without a point after which a series is silent, and seconds for steps below a minute.
const SILENT_STEPS: i64 = 3;
const SILENT_MIN_S: i64 = 180;
/// A value this near to the mock is the mock.
const NEAR: f64 = 1e-6;
/// Endpoint and metric of the series that counts what is held back.
const FLOOD: (&str, &str) = ("nodata", "nodata.flood");

/// Looks for silent series each minute.
pub struct Nodata {
    pub engine: Arc<Engine>,
    pub ingest: Arc<Ingest>,
    /// Share of a row's series that may fall silent at once; 1 for any.
    pub flood_share: f64,
    /// Said while a flood is held back, and while points are not taken.
    pub flood: Outage,
    pub unkept: Outage,
}

impl Nodata {
    /// Looks each minute until the stop.
    pub async fn run(
        self,
        in_effect: watch::Receiver<Arc<InEffect>>,
        mut stopping: watch::Receiver<bool>,
    ) -> Result<()> {
        let (work, mut silences) = (Arc::new(self), Silences::default());
        loop {
            let next_minute = Duration::from_secs(60 - clock::now().rem_euclid(60) as u64);
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return Ok(()),
                () = tokio::time::sleep(next_minute) => {}
            }
            let rules = in_effect.borrow().clone();
            if rules.snapshot.mocks.is_empty() {
                silences = Silences::default();
                continue;
            }
            let (looking, now) = (work.clone(), clock::now());
            let look = work.engine.spawn_blocking(move |_| {
                let sent = looking.look(&rules.snapshot, &mut silences, now);
                (sent, silences)
            });
            let (sent, after) = look.await.context("looking for silent series")?;
            silences = after;
            work.unkept.note(sent);
        }
    }

    fn look(&self, snapshot: &Snapshot, silences: &mut Silences, now: i64) -> Result<(), IngestError> {
        let store = self.engine.store();
        let last = |endpoint: &str, counter: &str| {
            // A name that cannot be read is as good as none; whoever keeps the store has told of it.
            let found = store.find(endpoint, counter).ok().flatten()?;
            store.last(found)
        };
        let looked = silences.look(snapshot, self.engine.heard_since(), now, self.flood_share, last);
        let mut batch = self.ingest.begin(Door::Nodata, now);
        for Mocked { row, endpoint, time } in &looked.mocked {
            let Mock { metric, tags, mock: value, step, .. } = &snapshot.mocks[*row];
            batch.push(&gauge(endpoint, metric, tags, *value, *step, *time));
        }
        for Held { row, silent, .. } in &looked.counts {
            let name = snapshot.mocks[*row].name.replace([',', '=', ' '], "_");
            batch.push(&gauge(FLOOD.0, FLOOD.1, &format!("name={name}"), *silent as f64, 60, now));
        }
        self.tell(snapshot, &looked.counts);
        batch.finish().map(drop)
    }

    fn tell(&self, snapshot: &Snapshot, counts: &[Held]) {
        let text =
            |held: &Held| format!("{} of {} series of {:?}", held.silent, held.series, snapshot.mocks[held.row].name);
        let held: Vec<String> = counts.iter().filter(|held| held.silent > 0).map(text).collect();
        match held.is_empty() {
            true => self.flood.works(),
            false => self.flood.fails(format!("{}: is a network or a switch down?", held.join("; "))),
        }
    }
}

fn gauge<'a>(endpoint: &'a str, metric: &'a str, tags: &'a str, value: f64, step: i64, timestamp: i64) -> Item<'a> {
    let step = step.clamp(1, u32::MAX.into()) as u32;
    Item { endpoint, metric, tags, value, step, counter_type: CounterType::Gauge, timestamp }
}

/// What is known of silent series from look to look.
#[derive(Default)]
struct Silences {
    /// When each key that is mocked got its last mock.
    mocked: HashMap<Key, i64>,
    /// Rows (by id) of which a flood is held back, to count it to its end.
    floods: HashSet<i64>,
}

/// A mocked series: the row's id, and the endpoint.
type Key = (i64, String);

/// A point to send.
#[derive(Debug, PartialEq)]
struct Mocked {
    /// Place of the row.
    row: usize,
    endpoint: String,
    time: i64,
}

/// Series of a row that are silent, and not mocked, as too many are at once; none at the end of a flood.
#[derive(Debug, PartialEq)]
struct Held {
    /// Place of the row.
    row: usize,
    silent: usize,
    series: usize,
}

/// What a look has found.
#[derive(Debug, Default, PartialEq)]
struct Looked {
    mocked: Vec<Mocked>,
    counts: Vec<Held>,
}

impl Silences {
    /// Looks at `now`. This server has listened without a break since `heard_since`; `last` gives a series' newest
    /// point.
    fn look(
        &mut self,
        snapshot: &Snapshot,
        heard_since: i64,
        now: i64,
        flood_share: f64,
        last: impl Fn(&str, &str) -> Option<Point>,
    ) -> Looked {
        let mut looked = Looked::default();
        let (mut before, mut tags) = (std::mem::take(&mut self.mocked), String::new());
        for (row, endpoints) in series_of(snapshot, now) {
            let mock = &snapshot.mocks[row];
            let tags = Tags::canonical(&mock.tags, &mut tags);
            let counter = SeriesKey { endpoint: "", metric: &mock.metric, tags }.counter();
            let (mut fresh, mut old) = (Vec::new(), Vec::new());
            let series = endpoints.len();
            for endpoint in endpoints {
                let Some(is_mocked) = silence(mock, last(endpoint, &counter), heard_since, now) else { continue };
                let key = (mock.id, endpoint.to_string());
                match before.remove(&key) {
                    Some(time) => old.push((key, time)),
                    // Mocked before this process began.
                    None if is_mocked => old.push((key, i64::MIN)),
                    None => fresh.push(key),
                }
            }
            let is_flood = series >= FLOOD_MIN && fresh.len() as f64 > flood_share * series as f64;
            if is_flood || self.floods.contains(&mock.id) {
                looked.counts.push(Held { row, silent: if is_flood { fresh.len() } else { 0 }, series });
            }
            let fresh = match is_flood {
                true => {
                    self.floods.insert(mock.id);
                    Vec::new()
                }
                false => {
                    self.floods.remove(&mock.id);
                    fresh
                }
            };
            let due = old.into_iter().chain(fresh.into_iter().map(|key| (key, i64::MIN)));
            for (key, time) in due {
                self.mock(row, mock, key, time, now, &mut looked.mocked);
            }
        }
        looked
    }

    /// Sends a mock where the last one is a step ago.
    fn mock(&mut self, row: usize, mock: &Mock, key: Key, last: i64, now: i64, out: &mut Vec<Mocked>) {
        // A clock that was set back makes it due, too.
        if last.saturating_add(mock.step) <= now || last > now {
            let time = now - now.rem_euclid(mock.step) - 2 * mock.step;
            out.push(Mocked { row, endpoint: key.1.clone(), time });
            self.mocked.insert(key, now);
        } else {
            self.mocked.insert(key, last);
        }
    }
}

/// Whether the silence of a series whose newest point this is was mocked already; None where it is not silent.
fn silence(mock: &Mock, newest: Option<Point>, heard_since: i64, now: i64) -> Option<bool> {
    let timeout = if mock.step < 60 { SILENT_MIN_S } else { SILENT_STEPS * mock.step };
    let is_mock = newest.is_some_and(|point| (point.value - mock.mock).abs() < NEAR);
    let is_silent = newest.map_or(0, |point| point.time).max(heard_since) < now - timeout;
    (is_mock || is_silent).then_some(is_mock)
}

/// The series of each row: its place, and the endpoints. Of rows that name one series twice the one of hosts counts,
/// then the first.
fn series_of(snapshot: &Snapshot, now: i64) -> Vec<(usize, Vec<&str>)> {
    let mut taken: HashSet<(&str, &str, &str)> = HashSet::new();
    let mut rows: Vec<(usize, &Mock)> = snapshot.mocks.iter().enumerate().collect();
    rows.retain(|(_, mock)| !mock.metric.is_empty() && mock.dstype == "GAUGE" && mock.step >= 1);
    rows.sort_by_key(|(_, mock)| mock.obj_type == "group");
    let mut series = Vec::new();
    for (row, mock) in rows {
        let mut endpoints: Vec<&str> = match mock.obj_type.as_str() {
            "group" => groups_named(snapshot, mock)
                .flat_map(|group| snapshot.hosts_of(group, now).map(|host| host.hostname.as_str()))
                .collect(),
            _ => mock.names().collect(),
        };
        endpoints.retain(|endpoint| taken.insert((endpoint, &mock.metric, &mock.tags)));
        series.push((row, endpoints));
    }
    series
}

/// The groups that a row names; names compare without case, as in their table.
fn groups_named<'s>(snapshot: &'s Snapshot, mock: &'s Mock) -> impl Iterator<Item = i64> + 's {
    let is_named = move |name: &str| mock.names().any(|wanted| wanted.eq_ignore_ascii_case(name));
    snapshot.groups.iter().filter(move |(_, name)| is_named(name)).map(|(id, _)| *id)
}

#[cfg(test)]
mod tests;
