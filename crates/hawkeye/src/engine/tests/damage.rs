//! Starts that lack something: no alarm ends because its rule, its series or its points could not be read.

use super::*;
use std::path::{Path, PathBuf};

/// What the queue in `dir` has, with the alarms that are open in it.
fn reopened(dir: &Path) -> (Arc<EventQueue>, Vec<Event>) {
    let (queue, recovered) = EventQueue::open(&dir.join("events"), Fsync::Never, NOW).expect("a queue");
    (Arc::new(queue), recovered.open_problems)
}

/// An engine with [`rules`], of which the one of host `h` has this condition.
fn engine_with(dir: &Path, queue: &Arc<EventQueue>, func: &str) -> Engine {
    let engine = engine(dir, queue);
    let mut rules = rules();
    let strategy = Strategy { func: func.into(), ..Strategy::clone(&rules.hosts["h"][0]) };
    rules.hosts.insert("h".to_string(), [Arc::new(strategy)].into());
    assert!(engine.load(&rules, &|_, _| "gone".to_string()).is_empty());
    engine
}

fn no_rules() -> Rules {
    Rules { version: 2, ..Rules::default() }
}

const PROBLEM: Status = Status::Problem;

fn m(status: Status, time: i64) -> (Status, i64, String) {
    (status, time, "m".to_string())
}

#[test]
fn an_alarm_whose_rule_was_not_read_stays_open_until_all_are() {
    let dir = tempfile::tempdir().expect("temp dir");
    let first = engine(dir.path(), &reopened(dir.path()).0);
    push_at(&first, "m", NOW, 9.0);
    drop(first);
    let unread_start = || {
        let (queue, open) = reopened(dir.path());
        let engine = engine(dir.path(), &queue);
        engine.load(&no_rules(), &|_, _| "gone".to_string());
        engine.restore(&open, false);
        engine.catch_up(NOW - 600);
        assert_eq!(told(&queue), [m(PROBLEM, 0)]);
        assert_eq!((queue.stats().open_problems, engine.judges.kept()), (1, 1));
        (queue, engine)
    };
    let (queue, engine) = unread_start();
    engine.load(&rules(), &|_, _| "gone".to_string());
    engine.restore_kept();
    assert_eq!(engine.judges.kept(), 0);
    push_at(&engine, "m", NOW + 60, 9.0);
    assert_eq!(told(&queue), [m(PROBLEM, 0)], "not told again");
    push_at(&engine, "m", NOW + 120, 1.0);
    assert_eq!(told(&queue), [m(PROBLEM, 0), m(Status::Ok, 120)]);
}

#[test]
fn an_alarm_whose_rule_is_not_there_when_all_are_read_is_closed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let first = engine(dir.path(), &reopened(dir.path()).0);
    push_at(&first, "m", NOW, 9.0);
    drop(first);
    let (queue, open) = reopened(dir.path());
    let engine = engine(dir.path(), &queue);
    engine.load(&no_rules(), &|_, _| "gone".to_string());
    engine.restore(&open, false);
    assert_eq!(queue.stats().open_problems, 1);
    engine.restore_kept();
    assert_eq!((queue.stats().open_problems, engine.judges.kept()), (0, 0));
    let Some(Entry::Event(end)) = read(&queue, 0).pop().map(|last| last.entry) else { panic!("an end") };
    assert_eq!(end.explanation.map(|why| why.closed).as_deref(), Some(RULE_GONE));
}

/// The series file is garbage: which series there were is lost, and with that what became of them.
#[test]
fn an_alarm_whose_series_is_lost_stays_open_until_it_reports_again() {
    let dir = tempfile::tempdir().expect("temp dir");
    let first = engine(dir.path(), &reopened(dir.path()).0);
    push_at(&first, "m", NOW, 9.0);
    drop(first);
    let path = dir.path().join("store/series");
    let mut bytes = std::fs::read(&path).expect("names");
    bytes[8..].fill(0xa5);
    std::fs::write(&path, bytes).expect("garbage");
    let start = |is_found_now: bool| {
        let (queue, open) = reopened(dir.path());
        let engine = engine(dir.path(), &queue).with_losses(!is_found_now);
        assert_eq!(!engine.store().found_at_start().is_empty(), is_found_now);
        engine.restore(&open, true);
        engine.catch_up(NOW - 600);
        assert_eq!((told(&queue), engine.judges.kept()), (vec![m(PROBLEM, 0)], 1));
        (queue, engine)
    };
    drop(start(true));
    // A later start finds nothing damaged, and the loss on record.
    std::fs::remove_dir_all(dir.path().join("store")).expect("a store");
    let (queue, engine) = start(false);
    push_at(&engine, "other", NOW + 60, 1.0);
    push_at(&engine, "m", NOW + 60, 9.0);
    assert_eq!((told(&queue), engine.judges.kept()), (vec![m(PROBLEM, 0)], 0), "open, and not told again");
    push_at(&engine, "m", NOW + 120, 1.0);
    assert_eq!(told(&queue), [m(PROBLEM, 0), m(Status::Ok, 120)]);
}

/// The segment of the log that is written to, and where it ends.
fn log_end(dir: &Path) -> (PathBuf, usize) {
    let entries = std::fs::read_dir(dir.join("store/log")).expect("segments");
    let mut segments: Vec<(PathBuf, usize)> = entries
        .map(|entry| entry.expect("a segment").path())
        .map(|path| {
            let bytes = std::fs::read(&path).expect("a segment");
            (path, bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1))
        })
        .filter(|(_, end)| *end > 16)
        .collect();
    segments.sort();
    segments.pop().expect("a segment with points")
}

/// Points of an alarm are lost between others. Those from before it do not end it, when a start catches up, and are not
/// judged together with new ones, for there is a hole between them.
#[test]
fn points_from_before_an_alarm_do_not_end_it_where_its_own_are_lost() {
    for func in ["all(#1)", "all(#3)"] {
        let dir = tempfile::tempdir().expect("temp dir");
        let (queue, _) = reopened(dir.path());
        let first = engine_with(dir.path(), &queue, func);
        (0..3).for_each(|minute| push_at(&first, "m", NOW + minute * 60, 1.0));
        let (log, from) = log_end(dir.path());
        (3..6).for_each(|minute| push_at(&first, "m", NOW + minute * 60, 9.0));
        let (_, to) = log_end(dir.path());
        push_at(&first, "other", NOW + 300, 1.0);
        let raised = told(&queue);
        assert_eq!(raised.len(), 1, "{func}");
        drop((first, queue));
        let mut bytes = std::fs::read(&log).expect("a segment");
        bytes[from..to].fill(0xa5);
        std::fs::write(&log, bytes).expect("garbage");

        let (queue, open) = reopened(dir.path());
        let engine = engine_with(dir.path(), &queue, func);
        assert_ne!(engine.store().found_at_start(), [""; 0], "{func}");
        let key = SeriesKey { endpoint: "h", metric: "m", tags: Tags::EMPTY };
        let id = engine.store().finder().find(key).expect("a series").id;
        assert_eq!(engine.store().newest_in_memory(id).map(|point| point.time - NOW), Some(120), "{func}");
        engine.restore(&open, true);
        engine.catch_up(NOW - 600);
        (6..10).for_each(|minute| push_at(&engine, "m", NOW + minute * 60, 9.0));
        assert_eq!(told(&queue), raised, "{func}");
        (10..13).for_each(|minute| push_at(&engine, "m", NOW + minute * 60, 1.0));
        assert_eq!(told(&queue)[1..], [m(Status::Ok, 600)], "{func}");
    }
}
