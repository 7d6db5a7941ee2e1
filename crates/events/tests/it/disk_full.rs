//! No room, or a disk that fails: an append is there whole or not at all, and goes on when the disk does.

use crate::busy::BusyDisk;
use crate::*;
use std::io::ErrorKind;
use std::sync::Mutex;

#[test]
fn an_append_fails_whole_wherever_the_disk_is_full() {
    for room in (0..3000).step_by(3) {
        let disk = FakeDisk::default();
        let (queue, _) = open(&disk, Fsync::EverySecond);
        queue.append(&[event(0, Status::Problem, 0)]).expect("room");
        disk.set_room(Some(room));
        let mut expected = vec![0];
        let mut failed = 0;
        for time in (1..12).step_by(2) {
            match queue.append(&[event(1, Status::Problem, time), event(2, Status::Ok, time + 1)]) {
                Ok(_) => expected.extend([time, time + 1]),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::StorageFull);
                    assert!(error.to_string().contains(".events"), "names the file: {error}");
                    failed += 1;
                }
            }
            // A segment that cannot be begun leaves the last one as it is.
            queue.tick().expect("syncs");
            assert_eq!(times(&read_all(&queue, 0)), expected, "room for {room}");
        }
        assert!(failed > 0, "room for {room}");
        disk.set_room(None);
        queue.append(&[event(3, Status::Problem, 100)]).expect("room again");
        queue.tick().expect("room again");
        expected.push(100);
        assert_eq!(times(&read_all(&queue, 0)), expected, "room for {room}");
        drop(queue);
        disk.restart_after_kill();
        let (queue, recovery) = open(&disk, Fsync::EverySecond);
        assert_eq!((recovery.torn_bytes_cut, &recovery.damaged[..]), (0, &[][..]), "room for {room}");
        assert_eq!(times(&read_all(&queue, 0)), expected, "room for {room}");
        assert!(
            !disk.paths().iter().any(|path| path.extension().is_some_and(|own| own == "tmp")),
            "nothing half-written"
        );
    }
}

#[test]
fn a_segment_that_cannot_be_begun_is_told_once_and_begun_later() {
    let disk = FakeDisk::default();
    let (queue, _) = open(&disk, Fsync::EverySecond);
    for time in 0..10 {
        queue.append(&[event(1, Status::Problem, time)]).expect("room");
    }
    disk.set_room(Some(10));
    (0..3).for_each(|_| queue.tick().expect("syncs"));
    let troubles = queue.take_troubles();
    assert_eq!(troubles.len(), 2, "{troubles:?}");
    assert!(troubles[0].to_string().starts_with("cannot start a new event segment in data/events"), "{}", troubles[0]);
    assert!(troubles[1].to_string().starts_with("cannot set room aside for events in data/events"), "{}", troubles[1]);
    assert!(troubles.iter().all(|trouble| !trouble.is_loss()));
    disk.set_room(None);
    queue.tick().expect("room");
    assert_eq!((queue.stats().segments, queue.take_troubles().len()), (2, 0));
    assert_eq!(times(&read_all(&queue, 0)), (0..10).collect::<Vec<_>>());
}

/// While the next segment is filled, appends go to both files; one that only the new one refuses counts until that has
/// its name, and not any more from then on.
#[test]
fn a_disk_that_is_full_while_a_segment_is_begun_loses_nothing() {
    for room in (0..4000).step_by(13) {
        let disk = FakeDisk::default();
        let busy = BusyDisk::new(&disk);
        let (queue, _) = open_on(Arc::new(busy.clone()), Fsync::EverySecond, NOW).expect("opens");
        for time in 0..5 {
            queue.append(&[event(time as u32 % 3, Status::Problem, time)]).expect("room");
        }
        disk.set_room(Some(room));
        let appended = Arc::new(Mutex::new((5, (0..5).collect::<Vec<i64>>())));
        let (others, theirs) = (queue.clone(), appended.clone());
        busy.meanwhile(Some(Box::new(move || {
            let (next, expected) = &mut *theirs.lock().expect("no panic");
            if others.append(&[event(*next as u32 % 3, Status::Problem, *next)]).is_ok() {
                expected.push(*next);
            }
            *next += 1;
        })));
        queue.tick().expect("syncs");
        busy.meanwhile(None);
        disk.set_room(None);
        let expected = std::mem::take(&mut appended.lock().expect("no panic").1);
        assert_eq!(times(&read_all(&queue, 0)), expected, "room for {room}");
        drop(queue);
        disk.restart_after_kill();
        let (queue, recovery) = open(&disk, Fsync::EverySecond);
        assert_eq!(times(&read_all(&queue, 0)), expected, "room for {room}");
        let mut newest: Vec<i64> =
            (0..3).filter_map(|host| expected.iter().rfind(|time| **time % 3 == host)).copied().collect();
        newest.sort_unstable();
        assert_eq!(open_times(&recovery), newest, "room for {room}");
    }
}

#[test]
fn after_a_failed_sync_the_next_one_makes_all_sure() {
    for seed in 0..16 {
        for fsync in [Fsync::Always, Fsync::EverySecond] {
            let disk = FakeDisk::default();
            let (queue, _) = open(&disk, fsync);
            queue.append(&[event(0, Status::Problem, 0)]).expect("room");
            disk.set_sync_fails(true);
            let receipt = queue.append(&[event(1, Status::Problem, 1)]).expect("written");
            assert_eq!(queue.wait_synced(receipt.seq).is_err(), fsync == Fsync::Always);
            queue.tick().expect_err("sync fails");
            disk.set_sync_fails(false);
            let receipt = queue.append(&[event(2, Status::Problem, 2)]).expect("written");
            if fsync == Fsync::Always {
                queue.wait_synced(receipt.seq).expect("sync");
            } else {
                queue.tick().expect("sync");
            }
            drop(queue);
            disk.restart_after_power_cut(seed);
            let (queue, recovery) = open(&disk, fsync);
            assert_eq!((times(&read_all(&queue, 0)), open_times(&recovery)), (vec![0, 1, 2], vec![0, 1, 2]));
        }
    }
}

/// Where the kernel forgets what it could not write, a sync that succeeds must not say that it is there.
#[test]
fn what_a_failed_sync_forgot_is_told_as_lost() {
    let disk = FakeDisk::default();
    let (queue, _) = open(&disk, Fsync::EverySecond);
    queue.append(&[event(0, Status::Problem, 0)]).expect("room");
    queue.tick().expect("sync");
    disk.set_sync_fails(true);
    disk.set_failed_sync_drops(true);
    queue.append(&[event(1, Status::Problem, 1)]).expect("written");
    queue.tick().expect_err("sync fails");
    disk.set_sync_fails(false);
    queue.append(&[event(2, Status::Problem, 2)]).expect("written");
    queue.tick().expect("sync");
    let troubles: Vec<String> = queue.take_troubles().iter().map(|trouble| trouble.to_string()).collect();
    assert!(troubles.iter().any(|text| text.starts_with("the disk has forgotten")), "{troubles:?}");
    drop(queue);
    disk.restart_after_power_cut(1);
    assert_eq!(times(&read_all(&open(&disk, Fsync::EverySecond).0, 0)), [0, 2]);
}

#[test]
fn an_old_segment_that_cannot_be_removed_is_tried_again() {
    let disk = FakeDisk::default();
    let (queue, _) = open(&disk, Fsync::EverySecond);
    let mut alarm = queue.reader("alarm", 0, None);
    for time in 0..10 {
        queue.append(&[event(1, Status::Problem, time)]).expect("room");
        queue.tick().expect("room");
    }
    let before = queue.stats().segments;
    alarm.read(100, &mut Vec::new()).expect("readable");
    disk.set_remove_fails(true);
    let error = queue.consumed("alarm", alarm.cursor()).expect_err("nothing can be removed");
    assert!(error.to_string().starts_with("cannot delete data/events/"), "{error}");
    assert_eq!(queue.stats().segments, before, "what takes space is counted");
    disk.set_remove_fails(false);
    queue.consumed("alarm", alarm.cursor()).expect("removes");
    assert_eq!(queue.stats().segments, 1);
}

/// An alarm that goes on while its PROBLEM is read is not ended with the old one's values.
#[test]
fn an_end_waits_for_the_newest_problem() {
    let disk = FakeDisk::default();
    let (queue, _) = open(&disk, Fsync::EverySecond);
    queue.append(&[event(1, Status::Problem, 10)]).expect("room");
    let id = event(1, Status::Ok, 0).id();
    let end = [Entry::End(events::AlarmEnd { id, reason: "the rule was deleted".into(), time: 5 })];
    let old = queue.read_problems(&end);
    queue.append(&[event(1, Status::Problem, 20)]).expect("room");
    let error = queue.append_mixed(&end, &old).expect_err("it went on");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert_eq!(times(&read_all(&queue, 0)), [10, 20]);
    queue.append_mixed(&end, &queue.read_problems(&end)).expect("room");
    assert_eq!(times(&read_all(&queue, 0)), [10, 20, 20]);
    assert_eq!(queue.stats().open_problems, 0);
}
