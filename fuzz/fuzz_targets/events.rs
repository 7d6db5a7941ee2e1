//! Events: segments of the event queue in whatever state.
#![no_main]

#[allow(dead_code, reason = "most of it makes files of the store")]
mod edits;

use edits::edit;
use events::{Entry, EventQueue, Fsync, Options, Record, Recovery};
use libfuzzer_sys::fuzz_target;
use model::{Event, EventRule, Status, Strategy};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use stdx::FakeDisk;

const NOW: i64 = 1_600_000_000;

fn open(disk: &FakeDisk) -> (Arc<EventQueue>, Recovery) {
    stdx::crc::OFF.store(true, Relaxed);
    // Five records make a segment full.
    let options = Options { fsync: Fsync::EverySecond, segment_bytes: 2000, bytes_max: 1 << 20, reserve_bytes: 1000 };
    let (queue, recovery) = EventQueue::open_on(Arc::new(disk.clone()), Path::new("events"), options, NOW)
        .expect("no content of a file but another version keeps a queue from opening");
    (Arc::new(queue), recovery)
}

fn event(host: i64, status: Status, time: i64) -> Event {
    let strategy = Strategy { id: 1, metric: "m".into(), func: "all(#3)".into(), ..Strategy::default() };
    let (rule, endpoint) = (EventRule::Strategy(Arc::new(strategy)), format!("h{host}"));
    Event { rule, status, endpoint, tags: String::new(), left_value: 1.0, current_step: 1, time, explanation: None }
}

fn fill(queue: &EventQueue) {
    for time in 0..12 {
        let status = if time % 4 == 3 { Status::Ok } else { Status::Problem };
        queue.append(&[event(time % 5, status, time)]).expect("room");
        if time == 6 {
            let forget = [Entry::Forget(event(2, Status::Ok, 0).id())];
            queue.append_mixed(&forget, &queue.read_problems(&forget)).expect("room");
        }
        queue.tick().expect("room");
    }
}

fn all(queue: &Arc<EventQueue>) -> Vec<Record> {
    let mut records = Vec::new();
    queue.consumer(0).read(usize::MAX / 2, &mut records).expect("damage is passed over");
    assert!(records.is_sorted_by(|a, b| a.seq < b.seq), "sequence numbers ascend");
    records
}

/// The first byte says which segment is edited. A version of the future is refused, which a unit test sees.
fn damage(disk: &FakeDisk, input: &[u8]) {
    let paths: Vec<PathBuf> = disk.paths();
    let (which, edits) = input.split_first().map_or((0, input), |(first, rest)| (usize::from(*first), rest));
    let path = &paths[which % paths.len()];
    edit(disk, path, edits);
    let content = disk.content(path);
    if content.len() > 7 && content.starts_with(b"hkevent") {
        edit(disk, path, &[0, 7, 0, 1]);
    }
}

fuzz_target!(|input: &[u8]| {
    let disk = FakeDisk::default();
    let (queue, _) = open(&disk);
    fill(&queue);
    drop(queue);
    damage(&disk, input);

    let (queue, first) = open(&disk);
    let found = all(&queue);
    drop(queue);
    let (queue, second) = open(&disk);
    assert_eq!(all(&queue), found);
    assert_eq!(second.open_problems, first.open_problems);
    assert_eq!((second.torn_bytes_cut, second.unreadable), (0, first.unreadable));
    assert_eq!(second.damaged, first.damaged);

    queue.append(&[event(9, Status::Problem, 99)]).expect("room");
    queue.tick().expect("room");
    drop(queue);
    let (queue, third) = open(&disk);
    let (newest, before) = (all(&queue), &found[..]);
    assert_eq!(&newest[..before.len()], before);
    let [last] = &newest[before.len()..] else { panic!("one more event: {newest:?}") };
    assert!(matches!(&last.entry, Entry::Event(event) if event.time == 99), "{last:?}");
    let fresh = event(9, Status::Problem, 99).id();
    let others = |open: &[Event]| open.iter().filter(|event| event.id() != fresh).cloned().collect::<Vec<_>>();
    assert_eq!(others(&third.open_problems), others(&first.open_problems));
    assert_eq!(third.open_problems.last().map(|event| event.id()), Some(fresh.clone()));
});
