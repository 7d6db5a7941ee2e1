//! A small world around a judge: series with their points, in place of the store, and the events that came of them.
//!
//! Unlike the store it keeps all points, so that a naive model can look at the whole history.

#![allow(dead_code)] // each test uses its part

pub mod condition;
pub mod naive;
pub mod windowed;

use judge::{Judge, OpenProblem, Options, PointSource, RefusedRule, RuleId, RuleSet};
use model::{CounterType, Event, Point, Rules, Sample, SeriesId, SeriesKey, Status, Tags};
use proptest::test_runner::Config as ProptestConfig;
use std::sync::Arc;

/// So many cases, or as many as `PROPTEST_CASES` says.
pub fn cases(count: u32) -> ProptestConfig {
    match std::env::var("PROPTEST_CASES") {
        Ok(_) => ProptestConfig::default(),
        Err(_) => ProptestConfig::with_cases(count),
    }
}

pub struct Series {
    pub endpoint: String,
    pub metric: String,
    pub tags: String,
    pub counter_type: CounterType,
    pub step: u32,
    /// Oldest first.
    pub points: Vec<Point>,
}

impl Series {
    pub fn new(endpoint: &str, metric: &str, tags: &str, counter_type: CounterType, step: u32) -> Series {
        let tags = model::tags::canonical_string(tags);
        Series { endpoint: endpoint.into(), metric: metric.into(), tags, counter_type, step, points: Vec::new() }
    }

    pub fn key(&self) -> SeriesKey<'_> {
        SeriesKey { endpoint: &self.endpoint, metric: &self.metric, tags: Tags::assume_canonical(&self.tags) }
    }
}

#[derive(Default)]
pub struct Table(pub Vec<Series>);

impl PointSource for Table {
    fn tail(&self, series: SeriesId, count: usize, out: &mut Vec<Point>) {
        out.extend(self.0[series.0 as usize].points.iter().rev().take(count));
    }

    fn meta(&self, series: SeriesId) -> Option<(CounterType, u32)> {
        self.0.get(series.0 as usize).map(|series| (series.counter_type, series.step))
    }

    fn key(&self, series: SeriesId, use_key: &mut dyn FnMut(SeriesKey<'_>)) {
        use_key(self.0[series.0 as usize].key());
    }
}

pub struct World {
    pub options: Options,
    pub judge: Judge,
    pub rules: Arc<RuleSet>,
    pub table: Table,
    pub events: Vec<Event>,
    /// For each event its series, in place of the durable queue.
    pub queue: Vec<(SeriesId, Event)>,
    /// The clock when it was looked at last.
    now: i64,
}

impl World {
    pub fn new(options: Options) -> World {
        World {
            options,
            judge: Judge::new(options),
            rules: Arc::default(),
            table: Table::default(),
            events: Vec::new(),
            queue: Vec::new(),
            now: 0,
        }
    }

    /// Loads rules as the server does: only the series that are touched are bound anew.
    pub fn load(&mut self, rules: &Rules) -> Vec<RefusedRule> {
        let (set, refused) = RuleSet::compile(rules, &self.options);
        self.rules = set.clone();
        let touched = self.judge.load(set);
        let mut closed = touched.closed().to_vec();
        for (number, series) in self.table.0.iter().enumerate() {
            if touched.covers(series.key()) {
                closed.extend(self.judge.bind(SeriesId(number as u32), series.key(), series.counter_type));
            }
        }
        self.close(&closed);
        self.refill(self.now);
        refused
    }

    /// Asks the series again that have a part in conditions over several; the server does it for all shards.
    fn refill(&mut self, now: i64) {
        for (number, row) in self.table.0.iter().enumerate() {
            let series = SeriesId(number as u32);
            self.judge.refill(series, row.counter_type, row.step, &self.table, now);
        }
    }

    /// Looks at the clock.
    pub fn tick(&mut self, now: i64) -> &[Event] {
        self.now = now;
        let before = self.events.len();
        self.judge.tick(now, &self.table, &mut self.events);
        self.keep(before);
        &self.events[before..]
    }

    /// Takes the alarms of a rule that is gone out of the queue, as the server does. Only what is open can be closed,
    /// once.
    fn close(&mut self, closed: &[OpenProblem]) {
        for gone in closed {
            let of_alarm = |series, event: &Event| gone.series == series && gone.rule == RuleId::of(&event.rule);
            let last = self.queue.iter().rev().find(|(series, event)| of_alarm(*series, event));
            assert!(last.is_some_and(|(_, event)| event.status == Status::Problem), "closed, and not open: {gone:?}");
            self.queue.retain(|(series, event)| !of_alarm(*series, event));
        }
    }

    pub fn add(&mut self, series: Series) -> SeriesId {
        let id = SeriesId(self.table.0.len() as u32);
        self.judge.bind(id, series.key(), series.counter_type);
        self.table.0.push(series);
        id
    }

    /// Deletes a series and its points, and makes it anew.
    pub fn forget(&mut self, series: SeriesId) {
        let closed = self.judge.unbind(series);
        self.close(&closed);
        let row = &mut self.table.0[series.0 as usize];
        row.points.clear();
        self.judge.bind(series, row.key(), row.counter_type);
    }

    pub fn change_type(&mut self, series: SeriesId, counter_type: CounterType) {
        let row = &mut self.table.0[series.0 as usize];
        if row.counter_type != counter_type {
            row.counter_type = counter_type;
            self.judge.bind(series, row.key(), counter_type);
        }
    }

    /// Stores and judges a point; the events that it made. Somebody has looked at the clock just before.
    pub fn push(&mut self, series: SeriesId, point: Point, now: i64) -> &[Event] {
        self.now = now;
        let before = self.events.len();
        let row = &mut self.table.0[series.0 as usize];
        row.points.push(point);
        let (counter_type, step) = (row.counter_type, row.step);
        let sample = Sample { series, point };
        self.judge.on_point(sample, counter_type, step, &self.table, now, &mut self.events);
        self.keep(before);
        &self.events[before..]
    }

    /// Ends the judge and starts another one from the points, the rules and the queue, of which the newest `lost`
    /// events never became durable.
    pub fn restart(&mut self, rules: &Rules, lost: usize, now: i64) {
        self.now = now;
        self.queue.truncate(self.queue.len() - lost);
        self.events = self.queue.iter().map(|(_, event)| event.clone()).collect();
        self.judge = Judge::new(self.options);
        self.rules = Arc::default();
        self.load(rules);
        let judge = &mut self.judge;
        // What the judge does not take back is closed, as the server does.
        self.queue.retain(|(series, event)| judge.restore(*series, event));
        self.refill(now);
        for number in 0..self.table.0.len() {
            let series = SeriesId(number as u32);
            let row = &self.table.0[number];
            let before = self.events.len();
            self.judge.catch_up(series, row.counter_type, row.step, &self.table, now, &mut self.events);
            self.keep(before);
        }
        let before = self.events.len();
        self.judge.joins().settle(now, &self.options);
        self.keep(before);
    }

    /// Takes what the joins decided, too, and puts all into the queue.
    fn keep(&mut self, before: usize) {
        self.judge.joins().hand_over(|events| self.events.append(events));
        for event in &self.events[before..] {
            let series = self.table.0.iter().position(|series| series.key() == event.key()).expect("a series of ours");
            self.queue.push((SeriesId(series as u32), event.clone()));
        }
    }
}
