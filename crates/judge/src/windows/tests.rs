use super::file::{MAGIC, WindowsError, end_windows, read_windows};
use super::*;
use crate::{Options, RuleSet};
use model::{Expression, Rules, Status, Strategy};
use std::collections::HashMap;

const BASE: i64 = 1_600_002_000;

fn strategy(id: i64, metric: &str, func: &str) -> Arc<Strategy> {
    let (metric, func, operator) = (metric.to_string(), func.to_string(), ">".to_string());
    Arc::new(Strategy { id, metric, func, operator, right_value: 5.0, max_step: 1, ..Strategy::default() })
}

fn rules(of_h: &[Arc<Strategy>]) -> Rules {
    Rules { version: 1, hosts: HashMap::from([("h".to_string(), of_h.into())]), expressions: Vec::new() }
}

struct Alone {
    judge: Judge,
    windows: Windows,
    events: Vec<Event>,
}

impl Alone {
    fn new(rules: &Rules, room: usize) -> Alone {
        let windows = Windows::new(3, 8, Arc::new(Room::new(room)));
        let mut alone = Alone { judge: Judge::new(Options::default()), windows, events: Vec::new() };
        alone.load(rules);
        alone
    }

    fn load(&mut self, rules: &Rules) {
        let touched = self.judge.load(RuleSet::compile(rules, &Options::default()).0);
        let mut all = Vec::new();
        self.windows.for_each_series(&mut |id, key, _, _| {
            if touched.covers(key) {
                all.push((id, key.endpoint.to_string(), key.metric.to_string(), key.tags.as_str().to_string()));
            }
        });
        for (id, endpoint, metric, tags) in &all {
            let key = SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) };
            self.judge.bind(*id, key, CounterType::Gauge);
        }
        self.windows.settle(&mut self.judge);
    }

    fn send(&mut self, metric: &str, tags: &str, time: i64, value: f64) -> Fate {
        let key = SeriesKey { endpoint: "h", metric, tags: Tags::assume_canonical(tags) };
        let point = Point { time, value };
        self.windows.take(&mut self.judge, key, CounterType::Gauge, point, time, &mut self.events)
    }

    fn times(&self, metric: &str) -> Vec<i64> {
        let key = SeriesKey { endpoint: "h", metric, tags: Tags::EMPTY };
        let series = self.windows.find(key).expect("a series");
        self.windows.points(series).map(|point| point.time - BASE).collect()
    }
}

#[test]
fn an_item_without_a_rule_leaves_nothing() {
    let mut alone = Alone::new(&rules(&[strategy(1, "m", "all(#3)")]), 10);
    let before = alone.windows.memory_bytes();
    for i in 0..10_000 {
        assert_eq!(alone.send(&format!("other{i}"), "", BASE, 9.0), Fate::NoRule);
    }
    assert_eq!((alone.windows.len(), alone.windows.memory_bytes()), (0, before));
    let key = SeriesKey { endpoint: "other", metric: "m", tags: Tags::EMPTY };
    let point = Point { time: BASE, value: 9.0 };
    let taken = alone.windows.take(&mut alone.judge, key, CounterType::Gauge, point, BASE, &mut alone.events);
    assert_eq!(
        (taken, alone.windows.memory_bytes()),
        (Fate::NoRule, before),
        "the metric has rules, the host has none"
    );
}

#[test]
fn only_newer_items_are_judged() {
    let mut alone = Alone::new(&rules(&[strategy(1, "m", "all(#1)")]), 10);
    assert_eq!(alone.send("m", "", BASE, 1.0), Fate::Judged);
    for time in [BASE, BASE - 60] {
        assert_eq!(alone.send("m", "", time, 9.0), Fate::NotNewer);
    }
    for time in [0, -5, i64::MIN, i64::MAX, 1 << 32] {
        assert_eq!(alone.send("m", "", time, 9.0), Fate::BadTime);
    }
    assert!(alone.events.is_empty());
    assert_eq!(alone.send("m", "", BASE + 1, 9.0), Fate::Judged);
    assert_eq!(alone.events.len(), 1);
}

#[test]
fn more_series_than_there_is_room_for_are_refused_until_some_go() {
    let mut alone = Alone::new(&rules(&[strategy(1, "m", "all(#1)")]), 2);
    let sent: Vec<Fate> = ["a=1", "a=2", "a=3"].map(|tags| alone.send("m", tags, BASE, 9.0)).into();
    assert_eq!(sent, [Fate::Judged, Fate::Judged, Fate::Full]);
    assert_eq!(alone.events.len(), 2);
    assert_eq!(alone.send("m", "a=2", BASE + 7200, 1.0), Fate::Judged);
    let silent = alone.windows.silent_since(&alone.judge, BASE + 1);
    let [silent] = silent[..] else { panic!("one: {silent:?}") };
    let open = alone.windows.remove(&mut alone.judge, silent);
    assert_eq!(open.iter().map(|open| (open.series, open.time)).collect::<Vec<_>>(), [(silent, BASE)]);
    assert_eq!(alone.send("m", "a=3", BASE, 1.0), Fate::Judged);
    assert_eq!((alone.windows.len(), alone.windows.room.used()), (2, 2));
}

#[test]
fn rules_that_change_give_rings_their_length_and_take_series_along() {
    let mut alone = Alone::new(&rules(&[strategy(1, "m", "all(#3)"), strategy(2, "n", "all(#3)")]), 10);
    let send = |alone: &mut Alone, minutes: std::ops::Range<i64>| {
        for minute in minutes {
            alone.send("m", "", BASE + minute * 60, 9.0);
            alone.send("n", "", BASE + minute * 60, 9.0);
        }
    };
    send(&mut alone, 0..10);
    assert_eq!(alone.times("m"), [540, 480, 420, 360]);
    alone.load(&rules(&[strategy(1, "m", "all(#6)")]));
    assert_eq!((alone.windows.len(), alone.windows.room.used()), (1, 1), "n has no rule any more");
    assert_eq!(alone.times("m"), [540, 480, 420, 360]);
    send(&mut alone, 10..20);
    assert_eq!(alone.times("m"), [1140, 1080, 1020, 960, 900, 840, 780]);
    alone.load(&rules(&[strategy(1, "m", "all(#1)")]));
    assert_eq!(alone.times("m").len(), 7, "not worth a move");
    alone.load(&rules(&[strategy(1, "m", "all(#60)")]));
    alone.load(&rules(&[strategy(1, "m", "all(#2)")]));
    assert_eq!(alone.times("m"), [1140, 1080, 1020, 960]);
}

#[test]
fn a_window_has_points_of_a_counter_or_of_a_gauge() {
    let mut alone = Alone::new(&rules(&[strategy(1, "m", "max(#3)")]), 10);
    let mut send = |counter_type: CounterType, minute: i64, value: f64| {
        let key = SeriesKey { endpoint: "h", metric: "m", tags: Tags::EMPTY };
        let point = Point { time: BASE + minute * 60, value };
        alone.windows.take(&mut alone.judge, key, counter_type, point, point.time, &mut alone.events);
    };
    (0..5).for_each(|minute| send(CounterType::Counter, minute, 1e6 + minute as f64));
    (5..8).for_each(|minute| send(CounterType::Gauge, minute, 3.0));
    assert_eq!(alone.times("m"), [420, 360, 300]);
    assert!(alone.events.is_empty(), "a reading is no value: {:?}", alone.events);
    let mut send = |minute: i64| {
        let key = SeriesKey { endpoint: "h", metric: "m", tags: Tags::EMPTY };
        let point = Point { time: BASE + minute * 60, value: 9.0 };
        alone.windows.take(&mut alone.judge, key, CounterType::Gauge, point, point.time, &mut alone.events);
    };
    send(8);
    assert_eq!(alone.events.len(), 1);
}

#[test]
fn the_step_is_learned() {
    let mut alone = Alone::new(&rules(&[strategy(1, "m", "all(#1)")]), 10);
    let mut steps = Vec::new();
    for time in [0, 300, 600, 660, 690, 692, 1000] {
        alone.send("m", "", BASE + time, 1.0);
        alone.windows.for_each_series(&mut |_, _, _, step| steps.push(step));
    }
    assert_eq!(steps, [300, 60, 60, 60, 30, 30, 30]);
}

/// The file of some series, and how many there are.
fn written() -> (Vec<u8>, usize) {
    let all = rules(&[strategy(1, "m", "all(#3)"), strategy(2, "n", "all(#5)")]);
    let mut alone = Alone::new(&all, 100);
    for minute in 0..5 {
        for metric in ["m", "n", "other"] {
            for tags in ["", "a=1", "a=1,b=é"] {
                alone.send(metric, tags, BASE + minute * 60, minute as f64 / 3.0);
            }
        }
    }
    let mut file = MAGIC.to_vec();
    alone.windows.write(&mut file);
    Windows::new(0, 8, Arc::new(Room::new(1))).write(&mut file);
    end_windows(&mut file);
    (file, alone.windows.len())
}

#[test]
fn what_is_written_is_read() {
    let (file, count) = written();
    let mut read = Vec::new();
    let result = read_windows(&file, |key, counter_type, points| {
        assert_eq!((key.endpoint, counter_type), ("h", CounterType::Gauge));
        read.push((key.counter(), points.iter().map(|point| (point.time - BASE, point.value)).collect::<Vec<_>>()));
    });
    assert_eq!((result, read.len(), count), (Ok(()), 6, 6));
    read.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(read[0], ("m".to_string(), (1..5).map(|minute| (minute * 60, minute as f64 / 3.0)).collect()));
    assert_eq!(read[5].0, "n/a=1,b=é");
    assert_eq!(read[5].1.len(), 5);
}

/// A file that is damaged anywhere is refused, be it cut off between two of its sections.
#[test]
fn no_damage_is_taken_for_windows() {
    let (file, _) = written();
    for end in 0..file.len() {
        let mut read = 0;
        let error = read_windows(&file[..end], |_, _, _| read += 1).expect_err("torn");
        assert_eq!(error == WindowsError::Foreign, end < MAGIC.len(), "{end}");
        assert!(read == 0 || read == 6, "{read} series of a torn section");
    }
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 0x41;
        assert!(read_windows(&damaged, |_, _, _| {}).is_err(), "byte {at}");
    }
    let longer = [&file[..], b"x"].concat();
    assert_eq!(read_windows(&longer, |_, _, _| {}), Err(WindowsError::Damaged(file.len())));
    assert_eq!(read_windows(b"HKWIND02 of a later version", |_, _, _| {}), Err(WindowsError::Foreign));
}

#[test]
fn a_window_from_a_file_goes_on_only_where_nothing_was_missed() {
    let check = |next: i64, expected: &[i64], problems: usize| {
        let mut alone = Alone::new(&rules(&[strategy(1, "m", "all(#3)")]), 10);
        let key = SeriesKey { endpoint: "h", metric: "m", tags: Tags::EMPTY };
        let series = alone.windows.add(&mut alone.judge, key, CounterType::Gauge).expect("room");
        let kept = (0..4).map(|minute| Point { time: BASE + minute * 60, value: if minute > 1 { 9.0 } else { 1.0 } });
        alone.windows.restore(series, kept);
        assert_eq!(alone.send("m", "", BASE + 180, 9.0), Fate::NotNewer);
        alone.send("m", "", BASE + next, 9.0);
        assert_eq!(alone.times("m"), expected, "{next}");
        let is_problem = |event: &&Event| event.status == Status::Problem;
        assert_eq!(alone.events.iter().filter(is_problem).count(), problems, "{next}");
        alone.send("m", "", BASE + next + 120, 9.0);
        assert_eq!(alone.times("m").len(), expected.len().min(3) + 1, "nothing is forgotten later");
    };
    check(240, &[240, 180, 120, 60], 1);
    check(300, &[300], 0);
}

/// What the header says, of host names and tags of usual lengths; with what the judge keeps beside it.
#[test]
fn memory_per_bound_series() {
    const SERIES: usize = 50_000;
    let expression = Expression {
        id: 1,
        metric: "df.bytes.free.percent".into(),
        tags: [("fstype".to_string(), "ext4".to_string())].into_iter().collect(),
        func: "all(#3)".into(),
        operator: "<".into(),
        right_value: -1.0,
        max_step: 1,
        ..Expression::default()
    };
    let all = Rules { version: 1, hosts: HashMap::new(), expressions: vec![Arc::new(expression)] };
    let mut alone = Alone::new(&all, SERIES);
    for round in 0..5 {
        for i in 0..SERIES {
            let (host, tags) = (format!("web-shanghai-{:04}", i / 50), format!("fstype=ext4,mount=/data{}", i % 50));
            let key =
                SeriesKey { endpoint: &host, metric: "df.bytes.free.percent", tags: Tags::assume_canonical(&tags) };
            let point = Point { time: BASE + round * 60, value: 50.0 };
            let taken = alone.windows.take(&mut alone.judge, key, CounterType::Gauge, point, BASE, &mut alone.events);
            assert_eq!(taken, Fate::Judged);
        }
    }
    let windows = alone.windows.memory_bytes() as f64 / SERIES as f64;
    let judge = alone.judge.stats().memory_bytes as f64 / SERIES as f64;
    println!("{windows:.1} bytes of windows (four points are 48 of them) and {judge:.1} of the judge per bound series");
    assert!(windows < 105.0, "{windows}");
    assert!(judge < 24.0, "{judge}");
}
