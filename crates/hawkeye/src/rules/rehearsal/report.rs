//! Report of a rehearsal: the events, how many and for how long, and who was the noisiest; as JSON and as text.
//!
//! How: events are counted as they come, series by series, and the first in time are listed. An alarm that is open at
//! the end counts as a PROBLEM until then.
//! Memory: [`LISTED_MAX`] events of about a kilobyte, and a line per series that had any.

use super::Order;
use crate::clock;
use crate::engine::why;
use model::number::five_decimals;
use model::{Event, Explanation, SeriesKey, Status, Tags};
use serde::Serialize;
use std::collections::{BinaryHeap, HashMap};
use std::fmt::Write;
use std::time::Duration;

/// Events that are listed; nobody reads more, and the counts say how many there are.
const LISTED_MAX: usize = 1000;
/// Hosts and series that are named as the noisiest.
const NOISIEST: usize = 10;

/// Answer to an order: events, counts, and who was the noisiest.
#[derive(Debug, Serialize)]
pub struct RehearsalReport {
    pub from: i64,
    pub to: i64,
    /// The time from which on there are points, where that is after `from`; before it only roll-ups are left.
    pub points_from: Option<i64>,
    /// Series that were played.
    pub series: u64,
    pub hosts: u64,
    /// Points that were judged; points that only filled windows are not counted.
    pub points: u64,
    pub seconds: f64,
    /// False if the rule sent so much that the rehearsal ended before all series were played.
    pub complete: bool,
    pub summary: Summary,
    /// The first events in time.
    pub events: Vec<ListedEvent>,
    pub events_left_out: u64,
    pub notes: Vec<String>,
}

/// Counts of all events of a rehearsal.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    pub events: u64,
    /// PROBLEMs that opened an alarm.
    pub alarms: u64,
    /// Further PROBLEMs of an open alarm.
    pub repeats: u64,
    pub recoveries: u64,
    pub open_at_end: u64,
    /// Seconds in PROBLEM, of all alarms together.
    pub problem_seconds: i64,
    pub hosts: u64,
    pub series: u64,
    pub noisiest_hosts: Vec<Noise>,
    pub noisiest_series: Vec<Noise>,
}

/// Counts of one host or one series.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Noise {
    pub endpoint: String,
    /// Counter of a series; empty for a host.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub counter: String,
    pub alarms: u64,
    pub events: u64,
    pub problem_seconds: i64,
}

/// One event of the list.
#[derive(Debug, Serialize)]
pub struct ListedEvent {
    pub time: i64,
    pub status: &'static str,
    pub step: i32,
    pub max_step: i32,
    pub priority: i32,
    pub endpoint: String,
    pub counter: String,
    pub left_value: f64,
    pub text: String,
    pub explanation: Option<Box<Explanation>>,
}

/// Counts the events of a rehearsal.
#[derive(Default)]
pub struct EventTally {
    pub points: u64,
    pub events: u64,
    repeats: u64,
    recoveries: u64,
    /// Counts by endpoint and tags; the metric is the rule's.
    series: HashMap<(String, String), SeriesCount>,
    /// The listed events so far; the latest is on top, to be dropped for an earlier one.
    listed: BinaryHeap<NumberedEvent>,
}

#[derive(Default)]
struct SeriesCount {
    counter: String,
    alarms: u64,
    events: u64,
    problem_seconds: i64,
    open_since: Option<i64>,
}

/// An event with its number. The order is by time, then by names, then by number.
struct NumberedEvent {
    number: u64,
    event: Event,
}

impl Ord for NumberedEvent {
    fn cmp(&self, other: &NumberedEvent) -> std::cmp::Ordering {
        let (a, b) = (&self.event, &other.event);
        (a.time, &a.endpoint, &a.tags, self.number).cmp(&(b.time, &b.endpoint, &b.tags, other.number))
    }
}

impl PartialOrd for NumberedEvent {
    fn partial_cmp(&self, other: &NumberedEvent) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for NumberedEvent {
    fn eq(&self, other: &NumberedEvent) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for NumberedEvent {}

impl EventTally {
    /// Counts an event, and lists it if it is among the first in time.
    pub fn add(&mut self, event: Event) {
        self.events += 1;
        let name = (event.endpoint.clone(), event.tags.clone());
        let count = self
            .series
            .entry(name)
            .or_insert_with(|| SeriesCount { counter: event.key().counter(), ..SeriesCount::default() });
        count.events += 1;
        match event.status {
            Status::Problem if count.open_since.is_none() => {
                count.alarms += 1;
                count.open_since = Some(event.time);
            }
            Status::Problem => self.repeats += 1,
            Status::Ok => {
                self.recoveries += 1;
                count.problem_seconds += count.open_since.take().map_or(0, |since| event.time - since);
            }
        }
        self.list(NumberedEvent { number: self.events, event });
    }

    /// Lists an event; a full list drops its last for an earlier one.
    fn list(&mut self, first: NumberedEvent) {
        if self.listed.len() < LISTED_MAX {
            self.listed.push(first);
        } else if self.listed.peek().is_some_and(|last| first < *last) {
            self.listed.pop();
            self.listed.push(first);
        }
    }

    /// Adds the counts of other series.
    pub fn with(mut self, other: EventTally) -> EventTally {
        self.points += other.points;
        self.events += other.events;
        self.repeats += other.repeats;
        self.recoveries += other.recoveries;
        self.series.extend(other.series);
        other.listed.into_iter().for_each(|first| self.list(first));
        self
    }

    /// Makes the report; `whole` is true when all series were played.
    pub fn finish(self, order: &Order, whole: bool) -> RehearsalReport {
        let mut summary = Summary {
            events: self.events,
            repeats: self.repeats,
            recoveries: self.recoveries,
            series: self.series.len() as u64,
            ..Summary::default()
        };
        let mut hosts: HashMap<String, Noise> = HashMap::new();
        let mut all: Vec<Noise> = Vec::with_capacity(self.series.len());
        for ((endpoint, _), count) in self.series {
            let open_s = count.open_since.map_or(0, |since| (order.to - since).max(0));
            let problem_seconds = count.problem_seconds + open_s;
            let SeriesCount { counter, alarms, events, open_since, .. } = count;
            summary.alarms += alarms;
            summary.problem_seconds += problem_seconds;
            summary.open_at_end += u64::from(open_since.is_some());
            let host = hosts
                .entry(endpoint.clone())
                .or_insert_with(|| Noise { endpoint: endpoint.clone(), ..Noise::default() });
            host.alarms += alarms;
            host.events += events;
            host.problem_seconds += problem_seconds;
            all.push(Noise { endpoint, counter, alarms, events, problem_seconds });
        }
        summary.hosts = hosts.len() as u64;
        summary.noisiest_hosts = noisiest(hosts.into_values().collect());
        summary.noisiest_series = noisiest(all);
        let listed: Vec<ListedEvent> =
            self.listed.into_sorted_vec().into_iter().map(|first| ListedEvent::of(first.event)).collect();
        RehearsalReport {
            from: order.from,
            to: order.to,
            points_from: None,
            series: 0,
            hosts: 0,
            points: self.points,
            seconds: 0.0,
            complete: whole,
            events_left_out: self.events - listed.len() as u64,
            summary,
            events: listed,
            notes: Vec::new(),
        }
    }
}

/// The noisiest: the most events first, then the longest in PROBLEM.
fn noisiest(mut all: Vec<Noise>) -> Vec<Noise> {
    let rank = |noise: &Noise| std::cmp::Reverse((noise.events, noise.problem_seconds));
    all.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| (&a.endpoint, &a.counter).cmp(&(&b.endpoint, &b.counter))));
    all.truncate(NOISIEST);
    all
}

impl ListedEvent {
    fn of(event: Event) -> ListedEvent {
        let metric = event.metric();
        let key = SeriesKey { endpoint: "", metric, tags: Tags::assume_canonical(&event.tags) };
        ListedEvent {
            time: event.time,
            status: event.status.as_str(),
            step: event.current_step,
            max_step: event.max_step(),
            priority: event.priority(),
            counter: key.counter(),
            left_value: event.left_value,
            text: event.explanation.as_deref().map(why::sentence).unwrap_or_default(),
            endpoint: event.endpoint,
            explanation: event.explanation,
        }
    }
}

impl RehearsalReport {
    /// The report as text for people: a line per event, then the counts.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for event in &self.events {
            let status = match event.status {
                "PROBLEM" => format!("PROBLEM {}/{}", event.step, event.max_step),
                status => status.to_string(),
            };
            let (time, value) = (clock::local_text(event.time), five_decimals(event.left_value));
            line(
                &mut out,
                format_args!("{time}  {status:<11}  {} {}  {value}  {}", event.endpoint, event.counter, event.text),
            );
        }
        if self.events_left_out > 0 {
            line(&mut out, format_args!("… and {} later events", self.events_left_out));
        }
        if !self.events.is_empty() {
            out.push('\n');
        }
        let summary = &self.summary;
        let (from, to) = (clock::local_text(self.from), clock::local_text(self.to));
        line(&mut out, format_args!("time     {from} to {to}"));
        line(
            &mut out,
            format_args!(
                "series   {} of {} hosts, {} points judged in {:.2} s",
                self.series, self.hosts, self.points, self.seconds
            ),
        );
        line(
            &mut out,
            format_args!(
                "events   {}: {} alarms, {} repeats, {} recoveries",
                summary.events, summary.alarms, summary.repeats, summary.recoveries
            ),
        );
        line(
            &mut out,
            format_args!(
                "PROBLEM  {} in all, on {} series of {} hosts; {} open at the end",
                span(summary.problem_seconds),
                summary.series,
                summary.hosts,
                summary.open_at_end
            ),
        );
        table(&mut out, "noisiest hosts", &summary.noisiest_hosts);
        table(&mut out, "noisiest series", &summary.noisiest_series);
        for note in &self.notes {
            line(&mut out, format_args!("note: {note}"));
        }
        out
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a String takes everything");
}

fn table(out: &mut String, title: &str, rows: &[Noise]) {
    if rows.is_empty() {
        return;
    }
    let name = |row: &Noise| format!("{} {}", row.endpoint, row.counter).trim_end().to_string();
    let width = rows.iter().map(|row| name(row).chars().count()).max().unwrap_or(0).max(title.len());
    line(out, format_args!("\n{title:<width$}  {:>7}  {:>7}  in PROBLEM", "alarms", "events"));
    for row in rows {
        let (name, span) = (name(row), span(row.problem_seconds));
        line(out, format_args!("{name:<width$}  {:>7}  {:>7}  {span}", row.alarms, row.events));
    }
}

fn span(seconds: i64) -> String {
    humantime::format_duration(Duration::from_secs(seconds.max(0) as u64)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::rehearsal::RuleScope;
    use model::{EventRule, Rules, Strategy};
    use std::sync::Arc;

    fn event(endpoint: &str, status: Status, current_step: i32, time: i64) -> Event {
        let strategy = Strategy { metric: "m".into(), max_step: 3, ..Strategy::default() };
        let (rule, tags) = (EventRule::Strategy(Arc::new(strategy)), "a=1".to_string());
        Event { rule, status, endpoint: endpoint.into(), tags, left_value: 4.5, current_step, time, explanation: None }
    }

    fn order() -> Order {
        let (run_begin, run_end) = (String::new(), String::new());
        Order { rule: RuleScope::Rules(Rules::default()), run_begin, run_end, from: 0, to: 1000 }
    }

    #[test]
    fn counts_and_order() {
        let (mut a, mut b) = (EventTally::default(), EventTally::default());
        for (endpoint, status, step, time) in [
            ("b", Status::Problem, 1, 300),
            ("b", Status::Problem, 2, 400),
            ("b", Status::Ok, 1, 500),
            ("a", Status::Problem, 1, 200),
            ("a", Status::Ok, 1, 260),
            ("a", Status::Problem, 1, 900),
        ] {
            let tally = if endpoint == "a" { &mut a } else { &mut b };
            tally.add(event(endpoint, status, step, time));
        }
        let answer = a.with(b).finish(&order(), true);
        let noise = |endpoint: &str, counter: &str, alarms, events, problem_seconds| Noise {
            endpoint: endpoint.into(),
            counter: counter.into(),
            alarms,
            events,
            problem_seconds,
        };
        let expected = Summary {
            events: 6,
            alarms: 3,
            repeats: 1,
            recoveries: 2,
            open_at_end: 1,
            problem_seconds: 360,
            hosts: 2,
            series: 2,
            noisiest_hosts: vec![noise("b", "", 1, 3, 200), noise("a", "", 2, 3, 160)],
            noisiest_series: vec![noise("b", "m/a=1", 1, 3, 200), noise("a", "m/a=1", 2, 3, 160)],
        };
        assert_eq!(answer.summary, expected);
        let times: Vec<i64> = answer.events.iter().map(|event| event.time).collect();
        assert_eq!(times, [200, 260, 300, 400, 500, 900]);
        let text = answer.text();
        assert!(text.contains("PROBLEM 2/3  b m/a=1  4.5"), "{text}");
        assert!(text.contains("PROBLEM  6m in all, on 2 series of 2 hosts; 1 open at the end"), "{text}");
        assert!(
            text.contains("noisiest hosts   alarms   events  in PROBLEM\nb                     1        3  3m 20s"),
            "{text}"
        );
    }

    #[test]
    fn only_the_first_are_listed() {
        let mut tally = EventTally::default();
        let count = LISTED_MAX as i64 + 10;
        (0..count).rev().for_each(|time| tally.add(event("h", Status::Problem, 1, time)));
        let answer = tally.finish(&order(), true);
        assert_eq!((answer.events.len(), answer.events_left_out), (LISTED_MAX, 10));
        assert_eq!((answer.events[0].time, answer.events[LISTED_MAX - 1].time), (0, LISTED_MAX as i64 - 1));
    }
}
