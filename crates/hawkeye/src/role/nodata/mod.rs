//! Nodata: sends a chosen value for series that are silent (`falcon_portal.mockcfg`), so that strategies see them.
//!
//! Why: a strategy judges points, and a dead host sends none.
//! How: rows come with the rules in effect. Each minute every key (endpoint, metric, tags) of every row is looked up
//! in the store ([`Silences::look`]); one whose newest point is older than three steps, or is a mock, gets a point two
//! steps ago.
//! Invariants: silence is counted only while this server listens ([`Engine::heard_since`]). When more of a row's series
//! than `nodata.flood_share` fall silent within two steps (those that are about to included), none of them is mocked
//! until most of them report again: a switch that died is no thousand dead hosts. The series `nodata.flood` of the
//! endpoint `nodata` says how many, as does the log. Who falls silent later, or was silent before, is mocked.
//! Memory: a key per series that is mocked or held back.
//! Compat: docs/open-falcon/aggregator-nodata-gateway.md §2; the original announces a flood guard and has none.

pub mod alone;
pub mod http;
mod looks;

use crate::clock;
use crate::engine::ingest::{Door, Ingest};
use crate::engine::{Engine, IngestError};
use crate::portal::mock::Mock;
use crate::rules::InEffect;
use crate::rules::snapshot::Snapshot;
use crate::watch::health::Outage;
use anyhow::{Context, Result};
pub use looks::Looks;
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
/// A value this near to the mock is that.
const NEAR: f64 = 1e-6;
/// Characters of a row's name that the tag of that series has.
const NAME_MAX: usize = 64;
/// Endpoint and metric of the series that counts what is held back.
const FLOOD: (&str, &str) = ("nodata", "nodata.flood");

/// Looks for silent series each minute.
pub struct Nodata {
    pub engine: Arc<Engine>,
    pub ingest: Arc<Ingest>,
    /// Share of a row's series that may fall silent at once; 1 for any.
    pub flood_share: f64,
    /// Said while points are not taken.
    pub unkept: Outage,
    pub looks: Looks,
}

impl Nodata {
    /// Looks each minute until the stop.
    pub async fn run(
        self,
        in_effect: watch::Receiver<Arc<InEffect>>,
        mut stopping: watch::Receiver<bool>,
    ) -> Result<()> {
        let work = Arc::new(self);
        loop {
            let next_minute = Duration::from_secs(60 - clock::now().rem_euclid(60) as u64);
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return Ok(()),
                () = tokio::time::sleep(next_minute) => {}
            }
            let rules = in_effect.borrow().clone();
            let (looking, now) = (work.clone(), clock::now());
            let look = work.engine.spawn_blocking(move |_| looking.look(&rules.snapshot, now));
            work.unkept.note(look.await.context("looking for silent series")?);
        }
    }

    fn look(&self, snapshot: &Snapshot, now: i64) -> Result<(), IngestError> {
        let store = self.engine.store();
        let last = |endpoint: &str, counter: &str| {
            // A name that cannot be read is as good as none; whoever keeps the store has told of it.
            let found = store.find(endpoint, counter).ok().flatten()?;
            store.last_raw(found)
        };
        let looked = self.looks.look(snapshot, self.engine.heard_since(), now, self.flood_share, last);
        if looked.mocked.is_empty() && looked.counts.is_empty() {
            return Ok(());
        }
        let mut batch = self.ingest.begin(Door::Nodata, now);
        for Mocked { row, endpoint, time } in &looked.mocked {
            let Mock { metric, tags, mock: value, step, .. } = &snapshot.mocks[*row];
            batch.push(&gauge(endpoint, metric, tags, *value, *step, *time));
        }
        for held in &looked.counts {
            let mock = &snapshot.mocks[held.row];
            tell(mock, held);
            let name: String =
                mock.name.chars().map(|c| if ",= ".contains(c) { '_' } else { c }).take(NAME_MAX).collect();
            let tags = format!("id={},name={name}", mock.id);
            batch.push(&gauge(FLOOD.0, FLOOD.1, &tags, held.silent as f64, 60, now));
        }
        batch.finish()?;
        self.looks.note_sent(looked.mocked.len(), now);
        Ok(())
    }
}

/// Says when a flood begins, and when it is over.
fn tell(mock: &Mock, held: &Held) {
    let Held { silent, series, .. } = held;
    match (held.is_new, silent) {
        (true, _) => tracing::warn!(
            nodata = mock.name,
            silent,
            series,
            "more series fell silent at once than nodata.flood_share: none of them is mocked; is a switch down?"
        ),
        (_, 0) => tracing::info!(nodata = mock.name, "most series report again; who is still silent is mocked"),
        _ => {}
    }
}

fn gauge<'a>(endpoint: &'a str, metric: &'a str, tags: &'a str, value: f64, step: i64, timestamp: i64) -> Item<'a> {
    let step = step.clamp(1, u32::MAX.into()) as u32;
    Item { endpoint, metric, tags, value, step, counter_type: CounterType::Gauge, timestamp }
}

/// What is known of silent series from look to look.
#[derive(Default)]
struct Silences {
    /// The mocks of each key that is mocked.
    mocked: HashMap<Key, Mocks>,
    /// Floods that are held back, by the row's id.
    floods: HashMap<i64, Flood>,
}

/// Series of a row that fell silent at once.
struct Flood {
    since: i64,
    endpoints: HashSet<String>,
}

/// A mocked series: the row's id, and the endpoint.
type Key = (i64, String);

/// The mocks that a series got since it fell silent.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Mocks {
    count: u64,
    /// When the last was sent; long ago where none was.
    last: i64,
}

impl Mocks {
    const NONE: Mocks = Mocks { count: 0, last: i64::MIN };
}

/// How long a series has had no point of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    No,
    /// Not long enough, and longer than one that reports.
    Soon,
    /// Since a moment ago.
    Fresh,
    /// For longer, or always.
    Long,
}

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
    is_new: bool,
}

/// What a look has found.
#[derive(Debug, Default, PartialEq)]
struct Looked {
    /// Series that were looked at.
    series: usize,
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
        let (mut mocked, mut floods) = (std::mem::take(&mut self.mocked), std::mem::take(&mut self.floods));
        for (row, endpoints) in series_of(snapshot, now) {
            let mock = &snapshot.mocks[row];
            let counter = counter_of(mock);
            let flood = floods.remove(&mock.id);
            let mut seen = Seen { series: endpoints.len(), ..Seen::default() };
            looked.series += endpoints.len();
            for endpoint in endpoints {
                let newest = last(endpoint, &counter);
                let is_mock = newest.is_some_and(|point| is_mock(mock, point, now));
                let silence = silence_of(mock, newest, heard_since, now);
                let key = (mock.id, endpoint.to_string());
                match (mocked.remove(&key), silence) {
                    // The mock is the newest point, be it from before this process began.
                    (mocks, _) if is_mock => seen.due.push((key, mocks.unwrap_or(Mocks::NONE))),
                    (_, Silence::No) => {}
                    (_, Silence::Soon) => seen.soon += 1,
                    (Some(mocks), _) => seen.due.push((key, mocks)),
                    _ if flood.as_ref().is_some_and(|flood| flood.endpoints.contains(endpoint)) => {
                        seen.held.insert(key.1);
                    }
                    (None, Silence::Fresh) => _ = seen.fresh.insert(key.1),
                    (None, Silence::Long) => seen.due.push((key, Mocks::NONE)),
                }
            }
            let (told, flood) = seen.hold(mock, flood, flood_share, now);
            looked.counts.extend(told.map(|told| Held { row, ..told }));
            self.floods.extend(flood.map(|flood| (mock.id, flood)));
            for (key, mocks) in seen.due {
                self.mock(row, mock, key, mocks, now, &mut looked.mocked);
            }
        }
        looked
    }

    /// Sends a mock where the last one is a step ago.
    fn mock(&mut self, row: usize, mock: &Mock, key: Key, before: Mocks, now: i64, out: &mut Vec<Mocked>) {
        let Mocks { count, last } = before;
        // A clock that was set back makes it due, too.
        if last.saturating_add(mock.step) <= now || last > now {
            let time = now - now.rem_euclid(mock.step) - 2 * mock.step;
            out.push(Mocked { row, endpoint: key.1.clone(), time });
            self.mocked.insert(key, Mocks { count: count + 1, last: now });
        } else {
            self.mocked.insert(key, before);
        }
    }
}

/// The silent series of a row at one look.
#[derive(Default)]
struct Seen {
    series: usize,
    /// The mocked ones, each with its mocks.
    due: Vec<(Key, Mocks)>,
    /// Those of a flood that are still silent, those that fell silent a moment ago, and the number that is about to.
    held: HashSet<String>,
    fresh: HashSet<String>,
    soon: usize,
}

impl Seen {
    /// Decides who of the silent is held back; the others become due. Answers what is to be told, and the flood.
    fn hold(&mut self, mock: &Mock, flood: Option<Flood>, share: f64, now: i64) -> (Option<Held>, Option<Flood>) {
        let most = share * self.series as f64;
        let was_flood = flood.is_some();
        let begins = self.series >= FLOOD_MIN && (self.fresh.len() + self.soon) as f64 > most && !self.fresh.is_empty();
        let since = flood.map_or(now, |flood| flood.since);
        let is_young = (0..=moment(mock)).contains(&(now - since));
        if begins || (was_flood && is_young) {
            self.held.extend(std::mem::take(&mut self.fresh));
        }
        let holds = begins || (was_flood && (is_young || self.held.len() as f64 > most)) && !self.held.is_empty();
        if !holds {
            self.fresh.extend(std::mem::take(&mut self.held));
        }
        self.due.extend(self.fresh.drain().map(|endpoint| ((mock.id, endpoint), Mocks::NONE)));
        let told = Held { row: 0, silent: self.held.len(), series: self.series, is_new: !was_flood };
        let since = if begins { now } else { since };
        let flood = holds.then(|| Flood { since, endpoints: std::mem::take(&mut self.held) });
        ((holds || was_flood).then_some(told), flood)
    }
}

/// The counter of a row's series, `metric[/tags]`.
fn counter_of(mock: &Mock) -> String {
    let mut tags = String::new();
    let tags = Tags::canonical(&mock.tags, &mut tags);
    SeriesKey { endpoint: "", metric: &mock.metric, tags }.counter().to_string()
}

/// Whether a series' newest point is a mock: by its value, and as one that reports has a newer one.
fn is_mock(mock: &Mock, newest: Point, now: i64) -> bool {
    (newest.value - mock.mock).abs() < NEAR && newest.time <= now - 2 * mock.step
}

/// Seconds within which the series of a flood fall silent.
fn moment(mock: &Mock) -> i64 {
    (2 * mock.step).max(120)
}

/// The silence of a series whose newest point this is; it counts from the moment on since which this server listens.
fn silence_of(mock: &Mock, newest: Option<Point>, heard_since: i64, now: i64) -> Silence {
    let timeout = if mock.step < 60 { SILENT_MIN_S } else { SILENT_STEPS * mock.step };
    let silent_for = now.saturating_sub(newest.map_or(0, |point| point.time).max(heard_since));
    if newest.is_none() {
        return if silent_for > timeout { Silence::Long } else { Silence::No };
    }
    // Hosts of one switch report at different seconds, and fall silent at two looks.
    let soon = timeout - mock.step.max(60);
    match silent_for {
        _ if silent_for <= soon => Silence::No,
        _ if silent_for <= timeout => Silence::Soon,
        _ if silent_for <= timeout + moment(mock) => Silence::Fresh,
        _ => Silence::Long,
    }
}

/// The series of each row: its place, and the endpoints. Of rows that name one series twice the one of hosts counts,
/// then the first.
fn series_of(snapshot: &Snapshot, now: i64) -> Vec<(usize, Vec<&str>)> {
    let (mut taken, mut scratch) = (HashSet::new(), String::new());
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
        let tags: Arc<str> = Tags::canonical(&mock.tags, &mut scratch).as_str().into();
        endpoints.retain(|endpoint| taken.insert((*endpoint, mock.metric.as_str(), tags.clone())));
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
