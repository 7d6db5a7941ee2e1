//! A judge over windows of its own, in place of the one over all points: as `--roles judge` runs it, with one shard.

use judge::{Fate, Judge, OpenProblem, Options, Room, RuleSet, Windows};
use model::{CounterType, Event, Point, Rules, SeriesKey, Tags};
use std::sync::Arc;

pub struct Windowed {
    pub judge: Judge,
    pub windows: Windows,
    pub options: Options,
    /// What the last item became.
    pub taken: Option<Fate>,
    /// The alarms that were closed because their rule went.
    pub closed: Vec<OpenProblem>,
}

impl Windowed {
    pub fn new(options: Options) -> Windowed {
        let windows = Windows::new(0, 1, Arc::new(Room::new(1000)));
        Windowed { judge: Judge::new(options), windows, options, taken: None, closed: Vec::new() }
    }

    pub fn load(&mut self, rules: &Rules) {
        let (set, _) = RuleSet::compile(rules, &self.options);
        let touched = self.judge.load(set);
        self.closed.extend(touched.closed());
        let mut covered = Vec::new();
        self.windows.for_each_series(&mut |id, key, counter_type, _| {
            if touched.covers(key) {
                let texts = [key.endpoint, key.metric, key.tags.as_str()].map(str::to_string);
                covered.push((id, texts, counter_type));
            }
        });
        for (id, [endpoint, metric, tags], counter_type) in &covered {
            let key = SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) };
            self.closed.extend(self.judge.bind(*id, key, *counter_type));
        }
        self.windows.settle(&mut self.judge);
        self.refill(0);
    }

    fn refill(&mut self, now: i64) {
        let mut all = Vec::new();
        self.windows.for_each_series(&mut |id, _, counter_type, step| all.push((id, counter_type, step)));
        for (id, counter_type, step) in all {
            self.judge.refill(id, counter_type, step, &self.windows, now);
        }
    }

    pub fn item(&mut self, key: SeriesKey<'_>, counter_type: CounterType, point: Point, now: i64) -> Vec<Event> {
        let mut events = Vec::new();
        self.taken = Some(self.windows.take(&mut self.judge, key, counter_type, point, now, &mut events));
        self.judge.joins().hand_over(|joined| events.append(joined));
        events
    }

    /// Ends it and starts another from the rules, the alarms that are open by `events`, and, if any, what a file kept.
    pub fn restart(&mut self, rules: &Rules, events: &[Event], kept: Option<&[u8]>) {
        *self = Windowed::new(self.options);
        self.load(rules);
        if let Some(kept) = kept {
            judge::read_windows(kept, |key, counter_type, points| {
                if let Some(series) = self.windows.add(&mut self.judge, key, counter_type) {
                    self.windows.restore(series, points.iter().copied());
                }
            })
            .expect("own file");
        }
        for event in events {
            if let Some(series) = self.windows.add(&mut self.judge, event.key(), CounterType::Gauge) {
                self.judge.restore(series, event);
            }
        }
        self.refill(0);
    }
}
