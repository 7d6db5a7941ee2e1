//! Rehearsal of a rule: over the stored history of the series that it would watch, which events it would have sent.
//!
//! How: the series are found by asking the compiled rule about every name, also of silent series. Then the points are
//! read one series after the other, in the order in which the files have them, and played to the judge
//! (`judge::Rehearsal`); where the rule looks at several series of an endpoint, these series are played together.
//! Endpoints never meet, so two threads share the work. The hours are the rule's, in local time, from minute to minute,
//! as the server follows them.
//! Invariants: nothing is stored or sent; only points as they came are judged, never roll-ups, and the report says from
//! when on there are such points. Every bound is a constant below; beyond a bound the answer is an error that says what
//! to narrow, or a report that says how far it goes.
//! Memory: 150 bytes per series, for each thread the points of one series (or of those that meet in one alarm), the
//! report.

pub mod report;
pub mod unsaved;

use super::resolve::is_open;
use anyhow::Result;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use judge::{Before, History, Involvement, Rehearsal, Schedule};
use model::{CounterType, Point, Rules, SeriesKey, Tags};
use report::{EventTally, RehearsalReport};
use std::collections::{HashMap, HashSet};
use std::ops::{ControlFlow, Range};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::Instant;
use store::{Found, Histories, Store, Stretch};
use unsaved::Anywhere;

/// Series of one rehearsal: ten thousand hosts with one each. Their names are held, and the noisiest are counted.
const SERIES_MAX: usize = 10_000;
/// Points of one rehearsal, as their steps promise: 10,000 series for two weeks at 60 s, some twenty seconds of one
/// core.
const POINTS_MAX: i64 = 200_000_000;
/// Points of the series that meet in one alarm, which are held together: 64 MiB.
const HELD_POINTS_MAX: i64 = 4 << 20;
/// Events after which a rule is called noise and the rehearsal ends; each takes some microseconds for its explanation.
const EVENTS_MAX: u64 = 1_000_000;
/// Threads of one rehearsal. Two are enough for its aim, and leave other cores alone.
const THREADS: usize = 2;
/// Niceness of these threads, so that they give way to everybody else.
const NICE: i32 = 10;
/// Groups that a thread takes at once, so that each thread reads stretches of the files.
const GROUPS_TAKEN: usize = 16;
/// Names that are looked at while the series table is held.
const PAGE: usize = 4096;
/// Hosts whose sleeping series are looked up one by one; for more of them all names on the disk are read.
const HOSTS_ONE_BY_ONE_MAX: usize = 256;

/// A rule to rehearse, and the time over which.
#[derive(Clone, Debug)]
pub struct Order {
    pub rule: RuleScope,
    /// Begin of the rule's hours, "HH:MM"; both ends are empty without hours.
    pub run_begin: String,
    pub run_end: String,
    /// The first and the last of the rehearsed seconds, Unix time.
    pub from: i64,
    pub to: i64,
}

/// Rules together with the series that they watch.
#[derive(Clone, Debug)]
pub enum RuleScope {
    /// Rules with their hosts, or expressions.
    Rules(Rules),
    /// A strategy of every endpoint that has its metric.
    Everywhere(Anywhere),
}

/// Reasons why a rehearsal gives no report.
#[derive(Debug)]
pub enum RehearsalError {
    /// The order asks for too much; the text says what to change.
    Refused(String),
    /// Given up: nobody waits for the report any more.
    Stopped,
    Store(store::Error),
}

impl From<store::Error> for RehearsalError {
    fn from(error: store::Error) -> RehearsalError {
        match error {
            store::Error::TooManyPoints { limit } => RehearsalError::Refused(format!(
                "a series has more than graph.query_points_max = {limit} points: ask for a shorter time"
            )),
            error => RehearsalError::Store(error),
        }
    }
}

/// A series that the rule watches or asks.
struct WatchedSeries {
    endpoint: String,
    metric: String,
    tags: String,
    found: Found,
    part: Involvement,
    /// What the series was before it changed its type or step.
    before: Vec<Before>,
}

impl WatchedSeries {
    fn key(&self) -> SeriesKey<'_> {
        SeriesKey { endpoint: &self.endpoint, metric: &self.metric, tags: Tags::assume_canonical(&self.tags) }
    }

    fn read_from(&self, script: &Rehearsal, order: &Order) -> i64 {
        let steps = self.before.iter().map(|before| before.step);
        order.from - script.warm_up_s(steps.fold(self.found.step, u32::max))
    }

    /// The number of points that will be read, roughly.
    fn points(&self, script: &Rehearsal, order: &Order) -> i64 {
        let steps = self.before.iter().map(|before| before.step);
        (order.to - self.read_from(script, order)) / i64::from(steps.fold(self.found.step, u32::min).max(1))
    }
}

/// Plays `order` on the points of `store`, until `stop` says that nobody waits for the report. This may read files for
/// seconds.
pub fn rehearse(
    store: &Store,
    options: judge::Options,
    order: &Order,
    stop: &AtomicBool,
) -> Result<RehearsalReport, RehearsalError> {
    let started = Instant::now();
    let rules = match &order.rule {
        RuleScope::Rules(rules) => rules.clone(),
        RuleScope::Everywhere(strategy) => everywhere(store, strategy)?,
    };
    let hosts: Vec<String> = rules.hosts.keys().cloned().collect();
    let (script, refused) = Rehearsal::new(rules, options);
    if let Some(refused) = refused.into_iter().next() {
        return Err(RehearsalError::Refused(refused.error.to_string()));
    }
    let mut series = find(store, &script, &hosts)?;
    if !script.is_joined() {
        series.retain(|one| one.part == Involvement::Carries);
    }
    check_points(&series, &script, order)?;
    let hours = hours(&order.run_begin, &order.run_end, order.from..order.to + 1, &TimeZone::system());
    let closed = format!("outside the strategy's hours, {} to {}", order.run_begin, order.run_end);
    let plan = Schedule { hours: &hours, until: order.to + 1, closed: &closed };
    let groups = groups(&mut series, &script);
    let (next, events) = (AtomicUsize::new(0), AtomicU64::new(0));
    let run = Run { store, script: &script, order, plan, stop, next, events, damage: Mutex::new(None) };
    let (tally, whole) = run.play_all(&groups)?;
    let mut report = tally.finish(order, whole);
    report.series = series.len() as u64;
    report.hosts = series.iter().map(|one| one.endpoint.as_str()).collect::<HashSet<_>>().len() as u64;
    report.points_from = store.points_begin().filter(|begin| *begin > order.from);
    report.notes = notes(&report, &script, &series, options);
    if let Some(file) = run.damage.into_inner().unwrap_or_else(PoisonError::into_inner) {
        report.notes.push(format!("points are missing, since {file} is damaged"));
    }
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// The rule for each endpoint that has its metric.
fn everywhere(store: &Store, strategy: &Anywhere) -> Result<Rules, RehearsalError> {
    let mut hosts: HashSet<String> = HashSet::new();
    let mut is_full = false;
    let mut add = |key: SeriesKey<'_>| {
        if key.metric == strategy.metric() && !hosts.contains(key.endpoint) {
            is_full |= hosts.len() == SERIES_MAX;
            if !is_full {
                hosts.insert(key.endpoint.to_string());
            }
        }
    };
    for_each_awake(store, &mut |_, key, _, _| add(key));
    store.for_each_sleeping_series(None, &mut |_, key| add(key))?;
    if is_full { Err(too_many_series()) } else { Ok(strategy.rules(hosts)) }
}

fn for_each_awake(store: &Store, each: &mut dyn FnMut(model::SeriesId, SeriesKey<'_>, CounterType, u32)) {
    let (mut next, end) = (model::SeriesId(0), store.series_end());
    while next < end {
        next = store.series_page(next, PAGE, each);
    }
}

/// The series that the rule watches or asks, awake and asleep.
fn find(store: &Store, script: &Rehearsal, hosts: &[String]) -> Result<Vec<WatchedSeries>, RehearsalError> {
    let (mut series, mut is_full): (Vec<WatchedSeries>, bool) = (Vec::new(), false);
    let mut seen = HashSet::new();
    let mut add = |found: Found, key: SeriesKey<'_>| {
        let Some(part) = script.involvement(key).filter(|_| !is_full && seen.insert(found.id)) else { return };
        is_full = series.len() == SERIES_MAX;
        let [endpoint, metric, tags] = [key.endpoint, key.metric, key.tags.as_str()].map(str::to_string);
        series.push(WatchedSeries { endpoint, metric, tags, found, part, before: Vec::new() });
    };
    for_each_awake(store, &mut |id, key, counter_type, step| add(Found { id, counter_type, step }, key));
    if (1..=HOSTS_ONE_BY_ONE_MAX).contains(&hosts.len()) {
        for host in hosts {
            store.for_each_sleeping_series(Some(host), &mut add)?;
        }
    } else {
        store.for_each_sleeping_series(None, &mut add)?;
    }
    series.iter_mut().for_each(|one| one.before = before(store, one.found));
    if is_full { Err(too_many_series()) } else { Ok(series) }
}

/// What a series was before it is what it is.
fn before(store: &Store, found: Found) -> Vec<Before> {
    let mut stretches = store.metas(found).stretches();
    stretches.pop();
    let before = |one: &Stretch| Before { until: one.to + 1, counter_type: one.counter_type, step: one.step };
    stretches.iter().map(before).collect()
}

fn too_many_series() -> RehearsalError {
    RehearsalError::Refused(format!("more than {SERIES_MAX} series match: name fewer hosts, or more tags"))
}

fn check_points(series: &[WatchedSeries], script: &Rehearsal, order: &Order) -> Result<(), RehearsalError> {
    let points: i64 = series.iter().map(|one| one.points(script, order)).sum();
    if points > POINTS_MAX {
        return Err(RehearsalError::Refused(format!(
            "the {} series have some {points} points in this time, more than {POINTS_MAX}: ask for a shorter time or fewer hosts",
            series.len()
        )));
    }
    if !script.is_joined() {
        return Ok(());
    }
    let mut held: HashMap<&str, i64> = HashMap::new();
    series.iter().for_each(|one| *held.entry(&one.endpoint).or_default() += one.points(script, order));
    match held.into_iter().find(|(_, points)| *points > HELD_POINTS_MAX) {
        Some((endpoint, points)) => Err(RehearsalError::Refused(format!(
            "the series of {endpoint} that the condition joins have some {points} points in this time, more than \
             {HELD_POINTS_MAX}: ask for a shorter time"
        ))),
        None => Ok(()),
    }
}

/// The parts of `range` in which a rule with these hours is in force: the minutes whose local text is within them.
fn hours(begin: &str, end: &str, range: Range<i64>, zone: &TimeZone) -> Vec<Range<i64>> {
    let mut hours: Vec<Range<i64>> = Vec::new();
    if begin.is_empty() && end.is_empty() {
        return vec![range];
    }
    let mut minute = range.start;
    while minute < range.end {
        let next = (minute - minute.rem_euclid(60) + 60).min(range.end);
        let is_open = Timestamp::from_second(minute).is_ok_and(|time| {
            let time = time.to_zoned(zone.clone());
            is_open(begin, end, &format!("{:02}:{:02}", time.hour(), time.minute()))
        });
        match hours.last_mut().filter(|last| last.end == minute) {
            Some(last) if is_open => last.end = next,
            _ if is_open => hours.push(minute..next),
            _ => {}
        }
        minute = next;
    }
    hours
}

/// A rehearsal on its way, shared by its threads.
struct Run<'a> {
    store: &'a Store,
    script: &'a Rehearsal,
    order: &'a Order,
    plan: Schedule<'a>,
    stop: &'a AtomicBool,
    /// The first group that nobody has taken yet.
    next: AtomicUsize,
    events: AtomicU64,
    /// Name of a damaged file that was met.
    damage: Mutex<Option<String>>,
}

impl Run<'_> {
    /// Plays all groups of series that may meet in one alarm; false if the rule is noise and some were left out.
    fn play_all(&self, groups: &[&[WatchedSeries]]) -> Result<(EventTally, bool), RehearsalError> {
        let worked = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| self.work(groups))).collect();
            let join = |worker: ScopedJoinHandle<'_, _>| worker.join().unwrap_or_else(|panic| resume_unwind(panic));
            workers.into_iter().map(join).collect::<Result<Vec<(EventTally, bool)>, RehearsalError>>()
        })?;
        let whole = worked.iter().all(|(_, whole)| *whole);
        Ok((worked.into_iter().map(|(tally, _)| tally).fold(EventTally::default(), EventTally::with), whole))
    }

    /// Work of one thread: takes groups until none is left.
    fn work(&self, groups: &[&[WatchedSeries]]) -> Result<(EventTally, bool), RehearsalError> {
        // Threads that serve points and people go first. A system that refuses this rehearses all the same.
        let _ = rustix::process::setpriority_process(None, NICE);
        let (mut histories, mut tally) = (self.store.histories(), EventTally::default());
        let mut points: Vec<Vec<Point>> = Vec::new();
        loop {
            let first = self.next.fetch_add(GROUPS_TAKEN, Ordering::Relaxed);
            let Some(taken) = groups.get(first..).filter(|left| !left.is_empty()) else { return Ok((tally, true)) };
            for group in taken.iter().take(GROUPS_TAKEN) {
                points.resize_with(group.len().max(points.len()), Vec::new);
                for (one, points) in group.iter().zip(&mut points) {
                    points.clear();
                    self.read(&mut histories, one, points)?;
                }
                if self.play(group, &points, &mut tally)?.is_break() {
                    return Ok((tally, false));
                }
            }
        }
    }

    fn read(
        &self,
        histories: &mut Histories<'_>,
        one: &WatchedSeries,
        points: &mut Vec<Point>,
    ) -> Result<(), RehearsalError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(RehearsalError::Stopped);
        }
        match histories.read(one.found, one.read_from(self.script, self.order), self.order.to, points) {
            // Removed since it was found.
            Err(store::Error::UnknownSeries(_)) => {}
            read => read?,
        }
        if let Some(file) = histories.take_damage() {
            self.damage.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(file);
        }
        Ok(())
    }

    fn play(
        &self,
        group: &[WatchedSeries],
        points: &[Vec<Point>],
        tally: &mut EventTally,
    ) -> Result<ControlFlow<()>, RehearsalError> {
        let histories: Vec<History<'_>> = group.iter().zip(points).map(|(one, points)| history(one, points)).collect();
        let played = self.script.play(&histories, self.plan, &mut |event| {
            tally.add(event);
            let is_noise = self.events.fetch_add(1, Ordering::Relaxed) + 1 >= EVENTS_MAX;
            if is_noise || self.stop.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        if self.stop.load(Ordering::Relaxed) {
            return Err(RehearsalError::Stopped);
        }
        Ok(played.map_continue(|points| tally.points += points))
    }
}

/// Series that are played together, in the order of the files: each by itself, or, for a rule that joins series, all of
/// an endpoint; an endpoint without a series that carries an alarm is left out.
fn groups<'s>(series: &'s mut [WatchedSeries], script: &Rehearsal) -> Vec<&'s [WatchedSeries]> {
    if !script.is_joined() {
        series.sort_unstable_by_key(|one| one.found.id);
        return series.chunks(1).collect();
    }
    series.sort_unstable_by(|a, b| (&a.endpoint, a.found.id).cmp(&(&b.endpoint, b.found.id)));
    let mut groups: Vec<&[WatchedSeries]> = series.chunk_by(|a, b| a.endpoint == b.endpoint).collect();
    groups.retain(|group| group.iter().any(|one| one.part == Involvement::Carries));
    groups.sort_unstable_by_key(|group| group[0].found.id);
    groups
}

fn history<'a>(one: &'a WatchedSeries, points: &'a [Point]) -> History<'a> {
    History { key: one.key(), counter_type: one.found.counter_type, step: one.found.step, before: &one.before, points }
}

/// Remarks that help to read the report.
fn notes(
    report: &RehearsalReport,
    script: &Rehearsal,
    series: &[WatchedSeries],
    options: judge::Options,
) -> Vec<String> {
    let mut notes = Vec::new();
    if series.is_empty() {
        notes.push("no series matches: see hosts, metric and tags".to_string());
    }
    if let Some(from) = report.points_from {
        let from = crate::clock::local_text(from);
        notes.push(format!("before {from} only roll-ups are left, which are not judged"));
    }
    if !report.complete {
        notes.push(format!("stopped after {EVENTS_MAX} events: the counts are those of a part of the series"));
    }
    // The limit is in points of 60 s.
    let held_s = i64::from(options.points_max) * 60;
    let is_long = |step: u32| i64::from(script.window_points()) * i64::from(step) > held_s;
    if let Some(one) = series.iter().find(|one| is_long(one.found.step)) {
        notes.push(format!(
            "the rule looks back on {} points of {} s, which a server with graph.hot_window = {held_s} s may not hold: \
             there it may stay silent where it spoke here",
            script.window_points(),
            one.found.step
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_local_minutes() {
        let zone = TimeZone::fixed(jiff::tz::offset(8));
        // 2017-03-20 16:53:20 there.
        let start = 1_490_000_000;
        let check = |begin: &str, end: &str, seconds: i64, expected: &[(i64, i64)]| {
            let hours = hours(begin, end, start..start + seconds, &zone);
            let hours: Vec<_> = hours.iter().map(|hours| (hours.start - start, hours.end - start)).collect();
            assert_eq!(hours, expected, "{begin}-{end}");
        };
        check("", "", 500, &[(0, 500)]);
        check("16:54", "16:55", 500, &[(40, 160)]);
        check("16:00", "16:53", 500, &[(0, 40)]);
        check("18:00", "19:00", 500, &[]);
        check("00:00", "23:59", 100_000, &[(0, 100_000)]);
        // Over night, twice.
        check("23:00", "06:59", 2 * 86_400, &[(22_000, 50_800), (108_400, 137_200)]);
    }
}
