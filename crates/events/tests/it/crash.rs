//! The power goes off at every operation: what was answered as durable is there afterwards, in order, nothing twice,
//! and the open problems are those of the events that are there.

use crate::busy::BusyDisk;
use crate::*;
use events::AlarmEnd;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Mutex;

const HOSTS: u32 = 4;

/// What was sent, and what became of it. The time of an event is its index in `sent`.
#[derive(Default)]
struct Ledger {
    sent: Vec<(u32, Status)>,
    /// Answered: survives a kill.
    acknowledged: BTreeSet<i64>,
    /// Answered and, as the policy promises, on the disk: survives a power cut.
    sure: BTreeSet<i64>,
    /// As in the reader's own database: what was handled, and the cursor behind it.
    handled: Vec<i64>,
    cursor: u64,
    lives: i64,
}

type Shared = Arc<Mutex<Ledger>>;

impl Ledger {
    fn next(&mut self, host: u32, status: Status) -> Event {
        self.sent.push((host, status));
        event(host, status, self.sent.len() as i64 - 1)
    }

    /// The newest of these entries that is of the host.
    fn newest_of(&self, host: u32, among: &BTreeSet<i64>) -> i64 {
        among.iter().rev().find(|at| self.sent[**at as usize].0 == host).copied().unwrap_or(-1)
    }
}

fn status_of(at: usize) -> Status {
    if at % 3 == 2 { Status::Ok } else { Status::Problem }
}

fn append(queue: &EventQueue, ledger: &Shared, count: usize) -> io::Result<u64> {
    let batch: Vec<Event> = (0..count)
        .map(|_| {
            let mut ledger = ledger.lock().expect("no panic");
            let at = ledger.sent.len();
            ledger.next((at * 7 % HOSTS as usize) as u32, status_of(at))
        })
        .collect();
    let receipt = queue.append(&batch)?;
    ledger.lock().expect("no panic").acknowledged.extend(batch.iter().map(|event| event.time));
    Ok(receipt.seq)
}

/// Ends the alarm of a host; an event only if it is open.
fn end(queue: &EventQueue, ledger: &Shared, host: u32) -> io::Result<()> {
    let event = ledger.lock().expect("no panic").next(host, Status::Ok);
    let end = [Entry::End(AlarmEnd { id: event.id(), reason: "the rule was deleted".into(), time: event.time })];
    queue.append_mixed(&end, &queue.read_problems(&end)).map(|_| ())
}

/// Syncs, and while segments are begun, synced, named and deleted others append.
fn tick(queue: &EventQueue, ledger: &Shared) -> io::Result<()> {
    let before = ledger.lock().expect("no panic").acknowledged.clone();
    queue.tick()?;
    ledger.lock().expect("no panic").sure.extend(before);
    Ok(())
}

/// Appends, syncs, begins and deletes segments, ends alarms, restarts in between; ends early, with an error, when the
/// power goes.
fn script(disk: &FakeDisk, ledger: &Shared, fsync: Fsync, is_busy: bool) -> io::Result<()> {
    // Who appends meanwhile makes a life several times as long.
    for _ in 0..if is_busy { 2 } else { 3 } {
        let busy = BusyDisk::new(disk);
        let (now, cursor) = {
            let mut ledger = ledger.lock().expect("no panic");
            ledger.lives += 1;
            (NOW + ledger.lives, ledger.cursor)
        };
        let (queue, _) = open_on(Arc::new(busy.clone()), fsync, now)?;
        let mut alarm = queue.reader("alarm", cursor, None);
        if is_busy {
            let (queue, ledger) = (queue.clone(), ledger.clone());
            // A failure of this append is that of the power, which the script meets, too.
            let mut calls = 0;
            busy.meanwhile(Some(Box::new(move || {
                calls += 1;
                if calls % 3 != 0 {
                    drop(append(&queue, &ledger, 1));
                }
            })));
        }
        let lived = live(&queue, &mut alarm, ledger, fsync);
        busy.meanwhile(None);
        lived?;
    }
    Ok(())
}

fn live(queue: &Arc<EventQueue>, alarm: &mut events::Consumer, ledger: &Shared, fsync: Fsync) -> io::Result<()> {
    for round in 0..9 {
        let seq = append(queue, ledger, 1 + round % 3)?;
        if fsync == Fsync::Always {
            let before = ledger.lock().expect("no panic").acknowledged.clone();
            queue.wait_synced(seq)?;
            ledger.lock().expect("no panic").sure.extend(before);
        }
        if round % 4 == 1 {
            end(queue, ledger, round as u32 % HOSTS)?;
        }
        if round % 2 == 1 {
            tick(queue, ledger)?;
        }
        if round % 3 == 1 {
            let mut read = Vec::new();
            // All of them in the end: then the segment that is begun here is the only one left.
            alarm.read(if round == 7 { 100 } else { 4 }, &mut read)?;
            {
                let mut ledger = ledger.lock().expect("no panic");
                ledger.handled.extend(times(&read));
                ledger.cursor = alarm.cursor();
            }
            queue.consumed("alarm", alarm.cursor())?;
        }
    }
    append(queue, ledger, 1)?;
    tick(queue, ledger)?;
    // Upkeep goes on without a new segment when it cannot begin one; an append that is refused is not passed over.
    append(queue, ledger, 1).map(|_| ())
}

fn check(queue: &Arc<EventQueue>, recovery: &Recovery, promised: &BTreeSet<i64>, ledger: &Ledger, context: &str) {
    let all: Vec<i64> = ledger.handled.iter().copied().chain(times(&read_all(queue, ledger.cursor))).collect();
    assert!(all.is_sorted_by(|a, b| a < b), "{context}: in order and nothing twice: {all:?}");
    assert!(all.iter().all(|time| (*time as usize) < ledger.sent.len()), "{context}: nobody sent {all:?}");
    for time in promised {
        assert!(all.contains(time), "{context}: {time} is lost: {all:?}");
    }
    let open: BTreeMap<u32, i64> =
        open_times(recovery).iter().map(|time| (ledger.sent[*time as usize].0, *time)).collect();
    assert_eq!(open.len(), recovery.open_problems.len(), "{context}: an alarm is open once");
    for host in 0..HOSTS {
        let newest = ledger.newest_of(host, promised);
        // An entry that came later, and was not promised, may be there or not; so with ends.
        let later = (newest.max(0)..ledger.sent.len() as i64).filter(|at| ledger.sent[*at as usize].0 == host);
        let allowed: BTreeSet<Option<i64>> = later
            .map(|at| (ledger.sent[at as usize].1 == Status::Problem).then_some(at))
            .chain((newest < 0).then_some(None))
            .collect();
        assert!(allowed.contains(&open.get(&host).copied()), "{context}: host {host}: {open:?}, not {allowed:?}");
    }
}

fn cut_everywhere(fsync: Fsync, is_busy: bool) {
    let disk = FakeDisk::default();
    let ledger = Shared::default();
    script(&disk, &ledger, fsync, is_busy).expect("no cut");
    let operations = disk.operations();
    {
        let ledger = ledger.lock().expect("no panic");
        assert!(operations > 60 && ledger.sure.len() > 20 && ledger.handled.len() > 9, "{operations} operations");
    }
    let left = read_all(&open(&disk, fsync).0, 0).len();
    assert!(left + 10 < ledger.lock().expect("no panic").sent.len(), "segments are begun and deleted");
    for cut in 0..operations {
        for seed in if is_busy { cut..cut + 1 } else { 0..4 } {
            let context = format!("{fsync:?}, busy: {is_busy}, cut at {cut}, seed {seed}");
            let disk = FakeDisk::default();
            disk.cut_power_at(cut);
            let ledger = Shared::default();
            script(&disk, &ledger, fsync, is_busy).expect_err("the power goes off before the end");
            disk.restart_after_power_cut(seed);
            // And once more, at some operation of the opening or right behind it.
            disk.cut_power_at(disk.operations() + (cut + 3 * seed) % 9);
            drop(open_on(Arc::new(disk.clone()), fsync, NOW + 50));
            disk.restart_after_power_cut(seed + 8);
            let (queue, recovery) =
                open_on(Arc::new(disk.clone()), fsync, NOW + 60).unwrap_or_else(|error| panic!("{context}: {error}"));
            let mut ledger = ledger.lock().expect("no panic");
            let sure = ledger.sure.clone();
            check(&queue, &recovery, &sure, &ledger, &context);
            // Life goes on, and a mere kill then costs nothing.
            let fresh: Vec<Event> = (0..HOSTS).map(|host| ledger.next(host, status_of(host as usize))).collect();
            queue.append(&fresh).unwrap_or_else(|error| panic!("{context}: {error}"));
            drop(queue);
            disk.restart_after_kill();
            let (queue, recovery) =
                open_on(Arc::new(disk.clone()), fsync, NOW + 70).unwrap_or_else(|error| panic!("{context}: {error}"));
            let promised = sure.into_iter().chain(fresh.iter().map(|event| event.time)).collect();
            check(&queue, &recovery, &promised, &ledger, &context);
        }
    }
}

#[test]
fn a_power_cut_loses_nothing_that_was_waited_for() {
    cut_everywhere(Fsync::Always, false);
}

#[test]
fn a_power_cut_loses_nothing_that_was_synced_each_second() {
    cut_everywhere(Fsync::EverySecond, false);
}

#[test]
fn a_power_cut_loses_nothing_that_was_synced_while_others_append() {
    cut_everywhere(Fsync::EverySecond, true);
}

#[test]
fn a_power_cut_loses_nothing_that_was_waited_for_while_others_append() {
    cut_everywhere(Fsync::Always, true);
}

#[test]
fn a_kill_loses_nothing_even_without_fsync() {
    for is_busy in [false, true] {
        let disk = FakeDisk::default();
        let ledger = Shared::default();
        for _ in 0..3 {
            script(&disk, &ledger, Fsync::Never, is_busy).expect("room");
            disk.restart_after_kill();
            let (queue, recovery) = open_on(Arc::new(disk.clone()), Fsync::Never, NOW + 40).expect("opens");
            let ledger = ledger.lock().expect("no panic");
            check(&queue, &recovery, &ledger.acknowledged, &ledger, "killed");
            assert_eq!((recovery.torn_bytes_cut, recovery.damaged), (0, Vec::new()));
        }
    }
}

/// The kill comes at each operation: also between the name of a new segment and its first event.
#[test]
fn a_kill_at_any_operation_loses_nothing_that_was_answered() {
    let operations = {
        let disk = FakeDisk::default();
        script(&disk, &Shared::default(), Fsync::EverySecond, true).expect("no cut");
        disk.operations()
    };
    for cut in 0..operations {
        let (disk, ledger) = (FakeDisk::default(), Shared::default());
        disk.cut_power_at(cut);
        script(&disk, &ledger, Fsync::EverySecond, true).expect_err("killed before the end");
        disk.restart_after_kill();
        let (queue, recovery) = open_on(Arc::new(disk.clone()), Fsync::EverySecond, NOW + 40).expect("opens");
        let ledger = ledger.lock().expect("no panic");
        check(&queue, &recovery, &ledger.acknowledged, &ledger, &format!("killed at {cut}"));
        assert_eq!(recovery.damaged, Vec::new());
    }
}

/// The open problems live on in the snapshot of a segment that holds nothing else.
#[test]
fn a_snapshot_is_on_the_disk_before_the_segments_go_that_it_stands_for() {
    for seed in 0..16 {
        let disk = FakeDisk::default();
        let (queue, _) = open(&disk, Fsync::EverySecond);
        let mut alarm = queue.reader("alarm", 0, None);
        for time in 0..5 {
            queue.append(&[event(time as u32, Status::Problem, time)]).expect("room");
        }
        queue.sync().expect("sync");
        alarm.read(100, &mut Vec::new()).expect("readable");
        queue.consumed("alarm", alarm.cursor()).expect("delete");
        assert_eq!(queue.stats().segments, 1);
        drop((queue, alarm));
        disk.restart_after_power_cut(seed);
        let (queue, recovery) = open(&disk, Fsync::EverySecond);
        assert_eq!(open_times(&recovery), [0, 1, 2, 3, 4], "seed {seed}");
        assert_eq!(recovery.damaged, Vec::new());
        assert!(queue.end_when_opened() > 0);
    }
}
