mod damage;

use super::*;
use crate::clock;
use events::Fsync;
use events::{Entry, Options};
use judge::Semantics;
use model::{Status, Strategy};
use std::collections::HashMap;
use std::time::{Duration, Instant};

const NOW: i64 = 1_700_000_040;

/// A rule for host `h`, and one for host `long` whose events no queue takes.
fn rules() -> Rules {
    let strategy = |id: i64, note: String| {
        let (metric, func, operator) = ("m".to_string(), "all(#1)".to_string(), ">".to_string());
        let all = [Arc::new(Strategy {
            id,
            metric,
            func,
            operator,
            right_value: 5.0,
            max_step: 1,
            note,
            ..Strategy::default()
        })];
        all[..].into()
    };
    let hosts = [("h", strategy(1, String::new())), ("long", strategy(2, "x".repeat(300_000)))];
    let hosts: HashMap<_, _> = hosts.map(|(name, strategies)| (name.to_string(), strategies)).into();
    Rules { version: 1, hosts, expressions: Vec::new() }
}

fn engine(dir: &std::path::Path, queue: &Arc<EventQueue>) -> Engine {
    let options = store::Options { dir: dir.join("store"), shard_count: 1, ..store::Options::default() };
    let (store, _) = store::Store::open(options, NOW).expect("a store");
    let engine = Engine::new(store, 1, judge::Options::default(), Some(queue.clone()));
    assert!(engine.load(&rules(), &|_, _| "gone".to_string()).is_empty());
    engine
}

fn push(engine: &Engine, host: &str) {
    try_push(engine, host).expect("append");
}

fn try_push(engine: &Engine, host: &str) -> Result<(), IngestError> {
    let key = SeriesKey { endpoint: host, metric: "m", tags: Tags::EMPTY };
    let series = engine.create(key, CounterType::Gauge, 60, 0).expect("a series");
    engine.append(&[Sample { series, point: Point { time: NOW, value: 9.0 } }], NOW, Instant::now())
}

fn read(queue: &Arc<EventQueue>, cursor: u64) -> Vec<events::Record> {
    let mut out = Vec::new();
    queue.consumer(cursor).read(usize::MAX / 2, &mut out).expect("readable");
    out
}

/// A queue that is full, until [`make_room`] is called.
fn full_queue(dir: &std::path::Path) -> Arc<EventQueue> {
    let options = Options { fsync: Fsync::Never, segment_bytes: 300, bytes_max: 4000, reserve_bytes: 0 };
    let queue = Arc::new(EventQueue::open_with(&dir.join("events"), options, NOW).expect("a queue").0);
    let strategy = rules().hosts["h"][0].clone();
    let (rule, endpoint, tags) = (model::EventRule::Strategy(strategy), "filler".to_string(), String::new());
    let filler = Event {
        rule,
        status: Status::Ok,
        endpoint,
        tags,
        left_value: 0.0,
        current_step: 1,
        time: NOW,
        explanation: None,
    };
    while queue.append(std::slice::from_ref(&filler)).is_ok() {}
    queue
}

/// Answers where what comes next begins.
fn make_room(queue: &Arc<EventQueue>) -> u64 {
    let cursor = read(queue, 0).last().expect("the queue is full").seq;
    queue.consumed("alarm", cursor).expect("segments are deleted");
    cursor
}

#[test]
fn what_the_queue_refuses_waits_in_order() {
    let dir = tempfile::tempdir().expect("temp dir");
    let queue = full_queue(dir.path());
    let engine = engine(dir.path(), &queue);
    for host in ["long", "h", "h", "calm"] {
        let error = try_push(&engine, host).expect_err("nobody is answered while events are in memory only");
        assert!(matches!(error, IngestError::EventsWait), "{error}");
    }
    // An alarm that is closed while its PROBLEM waits, too.
    engine.load(&Rules::default(), &|_, _| "gone".to_string());
    engine.tick().expect_err("the queue is full");
    assert_eq!(engine.judges.handover.waiting(), 4);
    let cursor = make_room(&queue);
    engine.tick().expect("room");
    push(&engine, "h");
    assert_eq!(engine.judges.handover.waiting(), 0, "the one that never fits does not stand in the way");
    assert_eq!(engine.judges.handover.dropped(), 1);
    let read = read(&queue, cursor);
    let Entry::Event(event) = &read[0].entry else { panic!("{read:?}") };
    assert_eq!((event.endpoint.as_str(), event.status), ("h", Status::Problem));
    let ends: Vec<_> = read[1..].iter().map(|queued| &queued.entry).collect();
    let is_ok =
        |what: &&&Entry| matches!(what, Entry::Event(end) if end.id() == event.id() && end.status == Status::Ok);
    assert!(ends.len() == 2 && ends.iter().any(|what| is_ok(&what)), "{read:?}");
    assert!(
        ends.iter().any(|what| matches!(what, Entry::Forget(_))),
        "no record holds the end of the long one: {read:?}"
    );
    assert_eq!(queue.stats().open_problems, 0);
}

#[test]
fn series_that_were_created_or_changed_are_told_once_and_only_so_many() {
    let dir = tempfile::tempdir().expect("temp dir");
    let engine = engine(dir.path(), &full_queue(dir.path()));
    let create = |metric: &str, step: u32| {
        let key = SeriesKey { endpoint: "e", metric, tags: Tags::EMPTY };
        engine.create(key, CounterType::Gauge, step, 0).expect("a series")
    };
    let ids = [create("a", 60), create("b", 60), create("a", 30)];
    let mut recent = Vec::new();
    engine.take_recent(&mut recent);
    assert_eq!(recent, ids);
    engine.take_recent(&mut recent);
    assert_eq!(recent.len(), 3);
    for step in 1..=RECENT_MAX as u32 + 9 {
        create("a", step);
    }
    recent.clear();
    engine.take_recent(&mut recent);
    assert_eq!(recent.len(), RECENT_MAX);
}

#[test]
fn a_batch_whose_series_was_removed_on_its_way_is_to_be_sent_again() {
    let dir = tempfile::tempdir().expect("temp dir");
    let queue = Arc::new(EventQueue::open(&dir.path().join("events"), Fsync::Never, NOW).expect("a queue").0);
    let engine = engine(dir.path(), &queue);
    let key = |endpoint| SeriesKey { endpoint, metric: "m", tags: Tags::EMPTY };
    let ids = ["gone", "h"].map(|host| engine.create(key(host), CounterType::Gauge, 60, 0).expect("a series"));
    let batch = ids.map(|series| Sample { series, point: Point { time: NOW, value: 9.0 } });
    assert_eq!(engine.remove_endpoints(&["gone".to_string(), "gone".to_string()]).expect("room"), (1, 1));
    let error = engine.append(&batch, NOW, Instant::now()).expect_err("one of them is gone");
    assert_eq!(error.to_string(), "series were removed while the batch was on its way; send it again");
    assert!(!error.refuses_series() && !error.is_of_disk());
    let stats = engine.store().stats();
    assert_eq!((stats.unknown, stats.points_total), (1, 1), "the other is kept");
    push(&engine, "gone");
    engine.append(&batch[1..], NOW, Instant::now()).expect("a repetition");
    assert_eq!(read(&queue, 0).len(), 1, "and judged once");
}

#[test]
fn rules_reach_more_series_than_one_slice_holds() {
    const HOSTS: usize = SLICE + 2;
    let dir = tempfile::tempdir().expect("temp dir");
    let queue = Arc::new(EventQueue::open(&dir.path().join("events"), Fsync::Never, NOW).expect("a queue").0);
    let engine = engine(dir.path(), &queue);
    let rules = rules();
    let mut hosts = HashMap::new();
    for i in 0..HOSTS {
        let host = format!("host-{i}");
        let key = SeriesKey { endpoint: &host, metric: "m", tags: Tags::EMPTY };
        engine.create(key, CounterType::Gauge, 60, 0).expect("a series");
        hosts.insert(host, rules.hosts["h"].clone());
    }
    engine.load(&Rules { hosts, ..Rules::default() }, &|_, _| "gone".to_string());
    let bound = engine.judges.judge(0).stats().bound_series;
    assert_eq!(bound, HOSTS);
}

#[test]
fn a_silent_series_takes_its_bindings_and_alarms_along_and_gets_rules_when_it_wakes() {
    let dir = tempfile::tempdir().expect("temp dir");
    let queue = Arc::new(EventQueue::open(&dir.path().join("events"), Fsync::Never, NOW).expect("a queue").0);
    let engine = engine(dir.path(), &queue);
    push(&engine, "h");
    let later = NOW + 3 * 86_400;
    let key = SeriesKey { endpoint: "other", metric: "m", tags: Tags::EMPTY };
    let other = engine.create(key, CounterType::Gauge, 60, 0).expect("a series");
    let point = Point { time: later, value: 9.0 };
    engine.append(&[Sample { series: other, point }], later, Instant::now()).expect("append");
    engine.store().flush(later).expect("room");
    assert_eq!(engine.sleep_silent(later).expect("room").drowsy, 1);
    assert_eq!(queue.stats().open_problems, 1);
    assert_eq!(engine.sleep_silent(later + 60).expect("room").asleep, 1);
    let [event, closed] = &read(&queue, 0)[..] else { panic!("a PROBLEM and its end") };
    let Entry::Event(event) = &event.entry else { panic!("{event:?}") };
    let Entry::Event(end) = &closed.entry else { panic!("{closed:?}") };
    let reason = end.explanation.as_ref().map(|explanation| explanation.closed.as_str());
    assert_eq!((end.id(), end.status, reason), (event.id(), Status::Ok, Some(SERIES_SILENT)));
    assert_eq!(engine.judges.judge(0).stats().bound_series, 0);
    push(&engine, "h");
    assert_eq!(engine.judges.judge(0).stats().bound_series, 1);
    assert_eq!(engine.remove_endpoints(&["h".into(), "h".into(), "nobody".into()]).expect("room"), (1, 1));
    assert_eq!(engine.judges.judge(0).stats().bound_series, 0);
}

/// A probe that is deleted gives no point that would end its alarm.
#[test]
fn alarms_of_an_endpoint_that_gets_no_more_points_are_closed_and_its_series_stay() {
    let dir = tempfile::tempdir().expect("temp dir");
    let queue = Arc::new(EventQueue::open(&dir.path().join("events"), Fsync::Never, NOW).expect("a queue").0);
    let engine = engine(dir.path(), &queue);
    push(&engine, "h");
    for (endpoint, metrics) in [("other", "m"), ("h", "n")] {
        engine.end_alarms(endpoint, metrics, "paused").expect("room");
        assert_eq!(queue.stats().open_problems, 1, "{endpoint} {metrics}");
    }
    for _ in 0..2 {
        engine.end_alarms("h", "m", "paused").expect("room");
    }
    let [event, closed] = &read(&queue, 0)[..] else { panic!("a PROBLEM and its end") };
    let (Entry::Event(event), Entry::Event(end)) = (&event.entry, &closed.entry) else { panic!("{closed:?}") };
    let reason = end.explanation.as_ref().map(|explanation| explanation.closed.as_str());
    assert_eq!((end.id(), end.status, reason), (event.id(), Status::Ok, Some("paused")));
    assert_eq!((queue.stats().open_problems, engine.judges.judge(0).stats().bound_series), (0, 1));
}

#[test]
fn an_alarm_whose_series_or_rule_is_gone_at_the_start_is_closed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let queue = Arc::new(EventQueue::open(&dir.path().join("events"), Fsync::Never, NOW).expect("a queue").0);
    let first = engine(dir.path(), &queue);
    push(&first, "h");
    drop((first, queue));
    // The portal changed, and the process ended before it told the queue.
    std::fs::remove_dir_all(dir.path().join("store")).expect("removable");
    let (queue, recovered) = EventQueue::open(&dir.path().join("events"), Fsync::Never, NOW).expect("a queue");
    let queue = Arc::new(queue);
    engine(dir.path(), &queue).restore(&recovered.open_problems, true);
    let [event, closed] = &read(&queue, 0)[..] else { panic!("a PROBLEM and its end") };
    let Entry::Event(event) = &event.entry else { panic!("{event:?}") };
    let Entry::Event(end) = &closed.entry else { panic!("{closed:?}") };
    assert_eq!((end.id(), end.status), (event.id(), Status::Ok));
    assert_eq!(
        end.explanation.as_ref().map(|why| why.closed.as_str()),
        Some("the store does not have the series any more")
    );
    assert_eq!(queue.stats().open_problems, 0);
}

/// Nobody is told, as in the original. (There the case stays open; here it is closed.)
#[test]
fn a_rule_that_goes_is_closed_silently_under_open_falcon() {
    let dir = tempfile::tempdir().expect("temp dir");
    let queue = Arc::new(EventQueue::open(&dir.path().join("events"), Fsync::Never, NOW).expect("a queue").0);
    let options = store::Options { dir: dir.path().join("store"), shard_count: 1, ..store::Options::default() };
    let (store, _) = store::Store::open(options, NOW).expect("a store");
    let options = judge::Options { semantics: Semantics::OpenFalcon, ..judge::Options::default() };
    let engine = Engine::new(store, 1, options, Some(queue.clone()));
    engine.load(&rules(), &|_, _| "gone".to_string());
    push(&engine, "h");
    let id =
        engine.store().finder().find(SeriesKey { endpoint: "h", metric: "m", tags: Tags::EMPTY }).expect("a series").id;
    engine.remove_series(id).expect("removable");
    let [problem, closed] = &read(&queue, 0)[..] else { panic!("a PROBLEM and its end") };
    let Entry::Event(problem) = &problem.entry else { panic!("{problem:?}") };
    assert_eq!(closed.entry, Entry::Forget(problem.id()));
}

/// A series that falls silent is found by the clock, and only once, also over a restart.
#[test]
fn silence_is_found_by_the_clock() {
    let dir = tempfile::tempdir().expect("temp dir");
    let queue = Arc::new(EventQueue::open(&dir.path().join("events"), Fsync::Never, NOW).expect("a queue").0);
    let start = |open: &[Event]| {
        let options = store::Options { dir: dir.path().join("store"), shard_count: 8, ..store::Options::default() };
        let (store, _) = store::Store::open(options, NOW).expect("a store");
        let engine = Engine::new(store, 8, judge::Options::default(), Some(queue.clone()));
        let mut rules = rules();
        let silent = Strategy { func: "nodata(#3)".into(), ..Strategy::clone(&rules.hosts["h"][0]) };
        rules.hosts = [("h".to_string(), [Arc::new(silent)].into())].into();
        assert!(engine.load(&rules, &|_, _| "gone".to_string()).is_empty());
        engine.restore(open, true);
        engine.catch_up(NOW - 600);
        engine
    };
    let engine = start(&[]);
    push_at(&engine, "m", NOW, 1.0);
    (NOW..NOW + 240).for_each(|now| engine.judges.look_for_silence(engine.store(), now));
    assert_eq!(told(&queue), []);
    (NOW + 240..NOW + 2000).for_each(|now| engine.judges.look_for_silence(engine.store(), now));
    let problem = (Status::Problem, 240, "m".to_string());
    assert_eq!(told(&queue), std::slice::from_ref(&problem));
    drop(engine);
    let Entry::Event(open) = read(&queue, 0).remove(0).entry else { panic!("a PROBLEM") };
    let engine = start(&[open]);
    let now = clock::now();
    (now..now + 2000).step_by(5).for_each(|now| engine.judges.look_for_silence(engine.store(), now));
    assert_eq!(told(&queue), std::slice::from_ref(&problem), "told once");
    push_at(&engine, "m", NOW + 3000, 1.0);
    assert_eq!(told(&queue).last(), Some(&(Status::Ok, 3000, "m".to_string())));
}

/// A strategy whose condition asks a series of another shard, on a store of eight.
fn joined_engine(dir: &std::path::Path, queue: &Arc<EventQueue>) -> Engine {
    let options = store::Options { dir: dir.join("store"), shard_count: 8, ..store::Options::default() };
    let (store, _) = store::Store::open(options, NOW).expect("a store");
    let engine = Engine::new(store, 8, judge::Options::default(), Some(queue.clone()));
    let mut rules = rules();
    let strategy = Strategy { func: "all(#1) and all(#1) of n > 5".into(), ..Strategy::clone(&rules.hosts["h"][0]) };
    rules.hosts = [("h".to_string(), [Arc::new(strategy)].into())].into();
    assert!(engine.load(&rules, &|_, _| "gone".to_string()).is_empty());
    engine
}

fn push_at(engine: &Engine, metric: &str, time: i64, value: f64) {
    let key = SeriesKey { endpoint: "h", metric, tags: Tags::EMPTY };
    let series = engine.create(key, CounterType::Gauge, 60, 0).expect("a series");
    engine.append(&[Sample { series, point: Point { time, value } }], time, Instant::now()).expect("append");
}

fn told(queue: &Arc<EventQueue>) -> Vec<(Status, i64, String)> {
    let events = read(queue, 0).into_iter().filter_map(|queued| match queued.entry {
        Entry::Event(event) => {
            let counter = event.key().counter();
            Some((event.status, event.time - NOW, counter))
        }
        _ => None,
    });
    events.collect()
}

#[test]
fn series_of_different_shards_make_one_alarm_over_restarts() {
    let dir = tempfile::tempdir().expect("temp dir");
    let queue = Arc::new(EventQueue::open(&dir.path().join("events"), Fsync::Never, NOW).expect("a queue").0);
    let engine = joined_engine(dir.path(), &queue);
    // Ids in groups of 256 share a shard.
    let key = |number: usize| format!("filler{number}");
    push_at(&engine, "m", NOW, 9.0);
    (0..256).for_each(|number| push_at(&engine, &key(number), NOW, 1.0));
    push_at(&engine, "n", NOW, 9.0);
    let problem = (Status::Problem, 0, "m".to_string());
    assert_eq!(told(&queue), std::slice::from_ref(&problem));
    drop(engine);
    let engine = joined_engine(dir.path(), &queue);
    let open: Vec<Event> = read(&queue, 0)
        .into_iter()
        .filter_map(|queued| match queued.entry {
            Entry::Event(event) => Some(event),
            _ => None,
        })
        .collect();
    engine.restore(&open, true);
    engine.catch_up(NOW - 600);
    assert_eq!(told(&queue), std::slice::from_ref(&problem), "not sent again");
    push_at(&engine, "n", NOW + 60, 1.0);
    assert_eq!(told(&queue), [problem, (Status::Ok, 60, "m".to_string())]);
}

/// Two threads make and end the alarm of a condition over two shards; the queue has its events in turn. Each thread
/// ends with a value that holds, so that there are events even if one runs wholly before the other.
#[test]
fn events_of_a_joined_alarm_keep_their_order_between_threads() {
    let dir = tempfile::tempdir().expect("temp dir");
    let queue = Arc::new(EventQueue::open(&dir.path().join("events"), Fsync::Never, NOW).expect("a queue").0);
    let engine = joined_engine(dir.path(), &queue);
    push_at(&engine, "m", NOW, 9.0);
    (0..256).for_each(|number| push_at(&engine, &format!("filler{number}"), NOW, 1.0));
    push_at(&engine, "n", NOW, 1.0);
    let play = |metric: &'static str, phase: i64| {
        let engine = &engine;
        move || (1..=400).for_each(|i| push_at(engine, metric, NOW + i, if (i + phase) % 3 == 0 { 1.0 } else { 9.0 }))
    };
    std::thread::scope(|scope| {
        scope.spawn(play("m", 0));
        scope.spawn(play("n", 1));
    });
    let told = told(&queue);
    assert!(told.len() > 1, "{told:?}");
    let in_turn = told.iter().enumerate().all(|(i, (status, _, _))| (*status == Status::Problem) == (i % 2 == 0));
    assert!(in_turn, "{told:?}");
}

/// The store, and what happens before or after a load of rules looks at the names of some series.
struct Interrupted<'e, F> {
    engine: &'e Engine,
    is_before: bool,
    meanwhile: F,
}

impl<F: Fn()> Home for Interrupted<'_, F> {
    type Points<'w> = Tail<'w>;

    fn shard_of(&self, id: SeriesId) -> usize {
        Home::shard_of(&self.engine.store, id)
    }

    fn find(&self, key: SeriesKey<'_>) -> Option<SeriesId> {
        Home::find(&self.engine.store, key)
    }

    fn for_each_series(&self, each: &mut dyn FnMut(SeriesId, SeriesKey<'_>, CounterType, u32)) {
        Home::for_each_series(&self.engine.store, each);
    }

    fn with_keys(&self, ids: &[SeriesId], each: &mut dyn FnMut(SeriesId, SeriesKey<'_>, CounterType)) {
        if self.is_before {
            (self.meanwhile)();
        }
        Home::with_keys(&self.engine.store, ids, each);
        if !self.is_before {
            (self.meanwhile)();
        }
    }

    fn with_window(&self, id: SeriesId, look: impl FnOnce(&Tail<'_>)) {
        Home::with_window(&self.engine.store, id, look);
    }

    fn newest(&self, id: SeriesId) -> Option<Point> {
        Home::newest(&self.engine.store, id)
    }
}

/// Binding and unbinding have an order: without one the id of a series that is gone stayed bound for the life of the
/// process.
#[test]
fn a_series_that_is_removed_while_rules_are_loaded_is_not_bound() {
    let dir = tempfile::tempdir().expect("temp dir");
    let queue = Arc::new(EventQueue::open(&dir.path().join("events"), Fsync::Never, NOW).expect("a queue").0);
    let engine = engine(dir.path(), &queue);
    let key = SeriesKey { endpoint: "h", metric: "m", tags: Tags::EMPTY };
    let id = engine.create(key, CounterType::Gauge, 60, 0).expect("a series");
    engine.load(&Rules::default(), &|_, _| "gone".to_string());
    assert!(!engine.judge_of(id).is_bound(id));
    std::thread::scope(|scope| {
        let meanwhile = || {
            let removal = scope.spawn(|| engine.remove_series(id).expect("room"));
            let deadline = Instant::now() + Duration::from_secs(30);
            while !engine.store.is_removed(id) {
                assert!(Instant::now() < deadline, "the series is not removed");
                std::thread::yield_now();
            }
            assert!(!removal.is_finished(), "a removal waits until the rules are loaded");
        };
        let home = Interrupted { engine: &engine, is_before: false, meanwhile };
        engine.judges.load(&home, &rules(), &|_, _| "gone".to_string());
    });
    assert!(!engine.judge_of(id).is_bound(id));
}

fn ends(queue: &Arc<EventQueue>) -> usize {
    let is_end = |record: &events::Record| matches!(&record.entry, Entry::Event(event) if event.status == Status::Ok);
    read(queue, 0).iter().filter(|record| is_end(record)).count()
}

/// Where the names of a series went before the load could close the alarm of a rule that went, nobody closed it.
#[test]
fn an_alarm_whose_rule_and_series_go_together_is_closed_once() {
    let dir = tempfile::tempdir().expect("temp dir");
    let queue = Arc::new(EventQueue::open(&dir.path().join("events"), Fsync::Never, NOW).expect("a queue").0);
    let engine = engine(dir.path(), &queue);
    push(&engine, "h");
    let key = SeriesKey { endpoint: "h", metric: "m", tags: Tags::EMPTY };
    let id = engine.store.finder().find(key).expect("a series").id;
    std::thread::scope(|scope| {
        let meanwhile = || {
            scope.spawn(|| engine.remove_series(id).expect("room"));
            let deadline = Instant::now() + Duration::from_secs(30);
            while !engine.store.is_removed(id) {
                assert!(Instant::now() < deadline, "the series is not removed");
                std::thread::yield_now();
            }
        };
        let home = Interrupted { engine: &engine, is_before: true, meanwhile };
        engine.judges.load(&home, &Rules::default(), &|_, _| "gone".to_string());
    });
    assert_eq!((ends(&queue), queue.stats().open_problems), (1, 0));
}

/// The end of an alarm whose series was deleted must not end the PROBLEM of the series that came back since.
#[test]
fn an_alarm_that_is_open_again_is_not_closed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let queue = Arc::new(EventQueue::open(&dir.path().join("events"), Fsync::Always, NOW).expect("a queue").0);
    let engine = engine(dir.path(), &queue);
    push(&engine, "h");
    let key = SeriesKey { endpoint: "h", metric: "m", tags: Tags::EMPTY };
    let closings = [judges::Closing::new(judge::RuleId::Strategy(1), key, "the series was deleted")];
    engine.judges.end(&engine.store, &closings);
    assert_eq!((ends(&queue), queue.stats().open_problems), (0, 1));
    // With `graph.fsync = "always"` the end waits for the disk, for which no lock of the engine may be held.
    engine.load(&Rules::default(), &|_, _| "gone".to_string());
    assert_eq!((ends(&queue), queue.stats().open_problems), (1, 0));
}

/// Hosts that have a `nodata(#3)`, and one of them a plain rule, too.
fn rules_of_silence(hosts: usize) -> Rules {
    let strategy = |id: i64, func: &str, operator: &str| {
        let (metric, func, operator) = ("m".to_string(), func.to_string(), operator.to_string());
        Arc::new(Strategy { id, metric, func, operator, right_value: 5.0, max_step: 3, ..Strategy::default() })
    };
    let of_host = |host: usize| {
        let silence = strategy(100 + host as i64, "nodata(#3)", ">");
        let all = [silence, strategy(1, "all(#1)", ">")];
        (format!("h{host}"), all[..2 - usize::from(host > 0)].into())
    };
    Rules { version: 2, hosts: (0..hosts).map(of_host).collect(), expressions: Vec::new() }
}

/// The clock of a machine, and a fleet of fifty that reports to it once a minute.
struct Fleet {
    engine: Engine,
    queue: Arc<EventQueue>,
    listening: listening::Listening,
    series: Vec<SeriesId>,
    at: i64,
}

impl Fleet {
    fn new(dir: &std::path::Path) -> Fleet {
        let queue = Arc::new(EventQueue::open(&dir.join("events"), Fsync::Never, NOW).expect("a queue").0);
        let engine = engine(dir, &queue);
        assert!(engine.load(&rules_of_silence(50), &|_, _| "gone".to_string()).is_empty());
        let names: Vec<String> = (0..50).map(|host| format!("h{host}")).collect();
        let key = |name| SeriesKey { endpoint: name, metric: "m", tags: Tags::EMPTY };
        let series = names.iter().map(|name| engine.create(key(name), CounterType::Gauge, 60, 0).expect("a series"));
        let series = series.collect();
        Fleet { engine, queue, listening: listening::Listening::default(), series, at: 0 }
    }

    /// The hosts report `value`, with the server's time, whose clock is `offset` beside the right one.
    fn report(&mut self, value: f64, offset: i64) {
        let now = NOW + self.at + offset;
        let samples = self.series.iter().map(|series| Sample { series: *series, point: Point { time: now, value } });
        let samples: Vec<Sample> = samples.collect();
        self.engine.append(&samples, now, Instant::now()).expect("append");
    }

    /// Lets minutes pass: the hosts report, and each second somebody looks.
    fn minutes(&mut self, count: usize, value: f64, offset: i64) {
        for second in 0..count * 60 {
            if second % 60 == 0 {
                self.report(value, offset);
            }
            self.at += 1;
            self.look(offset);
        }
    }

    fn look(&mut self, offset: i64) {
        let (wall, steady) = (NOW + self.at + offset, Duration::from_secs(self.at as u64));
        let listening = std::cell::RefCell::new(&mut self.listening);
        self.engine.listen(&mut |seen| (listening.borrow_mut().look(wall, steady, seen), wall));
    }

    fn told(&self) -> Vec<(i64, Status)> {
        let events = read(&self.queue, 0).into_iter().filter_map(|record| match record.entry {
            Entry::Event(event) => match &event.rule {
                model::EventRule::Strategy(strategy) => Some((strategy.id, event.status)),
                model::EventRule::Expression(_) => None,
            },
            _ => None,
        });
        events.collect()
    }
}

#[test]
fn a_clock_that_steps_and_a_process_that_stood_still_call_nobody() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut fleet = Fleet::new(dir.path());
    fleet.minutes(5, 1.0, 0);
    fleet.minutes(5, 1.0, 600);
    fleet.minutes(5, 1.0, 0);
    fleet.at += 300;
    fleet.look(0);
    fleet.minutes(5, 1.0, 0);
    assert_eq!(fleet.told(), []);
    // All of them are silent: told in time, and no sooner.
    let quiet = |fleet: &mut Fleet, seconds| {
        for _ in 0..seconds {
            fleet.at += 1;
            fleet.look(0);
        }
        fleet.told().len()
    };
    assert_eq!((quiet(&mut fleet, 175), quiet(&mut fleet, 15)), (0, 50));
}

#[test]
fn what_comes_after_a_clock_was_ahead_is_judged_at_once() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut fleet = Fleet::new(dir.path());
    fleet.minutes(3, 1.0, 0);
    // Six hours ahead the alarm opens; nobody hears of it twice, but of its end.
    fleet.minutes(3, 9.0, 6 * 3600);
    assert_eq!(fleet.told(), [(1, Status::Problem)]);
    fleet.look(0);
    fleet.minutes(1, 9.0, 0);
    assert_eq!(fleet.told().len(), 2, "a repeat that a time ahead would have held back");
    fleet.minutes(1, 1.0, 0);
    assert_eq!(fleet.told()[2..], [(1, Status::Ok)]);
    let oks: Vec<i64> = read(&fleet.queue, 0)
        .into_iter()
        .filter_map(|record| match record.entry {
            Entry::Event(event) if event.status == Status::Ok => Some(event.time - NOW),
            _ => None,
        })
        .collect();
    assert_eq!(oks, [7 * 60], "of the time at which it ended");
    // After a restart, too.
    fleet.minutes(1, 1.0, 6 * 3600);
    let Fleet { engine, queue, series, at, listening: _ } = fleet;
    drop(engine);
    let options = store::Options { dir: dir.path().join("store"), shard_count: 1, ..store::Options::default() };
    let (store, _) = store::Store::open(options, NOW + at).expect("a store");
    let engine = Engine::new(store, 1, judge::Options::default(), Some(queue.clone()));
    assert!(engine.load(&rules_of_silence(50), &|_, _| "gone".to_string()).is_empty());
    let mut fleet = Fleet { engine, queue, listening: listening::Listening::default(), series, at };
    fleet.minutes(1, 9.0, 0);
    assert_eq!(fleet.told()[3..], [(1, Status::Problem)]);
}
