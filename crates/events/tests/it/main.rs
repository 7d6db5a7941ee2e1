//! The queue on a disk that is full, fails, or loses its power.

mod busy;
mod crash;
mod disk_full;

use events::{Entry, EventQueue, Fsync, Options, Record, Recovery};
use model::{Event, EventRule, Status, Strategy};
use std::path::Path;
use std::sync::Arc;
use stdx::{Disk, FakeDisk};

pub const NOW: i64 = 1_700_000_000;

/// Records have about 450 bytes: three or four make a segment full.
pub fn options(fsync: Fsync) -> Options {
    Options { fsync, segment_bytes: 1500, bytes_max: 1 << 20, reserve_bytes: 1000 }
}

pub fn open_on(disk: Arc<dyn Disk>, fsync: Fsync, now: i64) -> std::io::Result<(Arc<EventQueue>, Recovery)> {
    let (queue, recovery) = EventQueue::open_on(disk, Path::new("data/events"), options(fsync), now)?;
    Ok((Arc::new(queue), recovery))
}

pub fn open(disk: &FakeDisk, fsync: Fsync) -> (Arc<EventQueue>, Recovery) {
    open_on(Arc::new(disk.clone()), fsync, NOW).expect("the queue opens")
}

/// An event of strategy 1 on host `host`; `time` tells events apart.
pub fn event(host: u32, status: Status, time: i64) -> Event {
    let strategy = Strategy { id: 1, metric: "cpu.idle".into(), func: "all(#3)".into(), ..Strategy::default() };
    Event {
        rule: EventRule::Strategy(Arc::new(strategy)),
        status,
        endpoint: format!("host-{host:04}"),
        tags: "k=v".into(),
        left_value: 1.5,
        current_step: 1,
        time,
        explanation: None,
    }
}

pub fn read_all(queue: &Arc<EventQueue>, cursor: u64) -> Vec<Record> {
    let mut out = Vec::new();
    queue.consumer(cursor).read(usize::MAX / 2, &mut out).expect("readable");
    out
}

pub fn times(records: &[Record]) -> Vec<i64> {
    let time = |record: &Record| if let Entry::Event(event) = &record.entry { Some(event.time) } else { None };
    records.iter().filter_map(time).collect()
}

pub fn open_times(recovery: &Recovery) -> Vec<i64> {
    recovery.open_problems.iter().map(|event| event.time).collect()
}
