//! Spools on a disk that tests can pull the plug of: nothing answered is lost, and bounds hold.

use crate::frame::{FRAME_BYTES, RECORD_BYTES_MAX};
use crate::{Frames, Options, Position, Spool, Stats};
use std::path::Path;
use std::sync::Arc;
use stdx::{Disk, FakeDisk};

const MIB: u64 = 1 << 20;

fn dir() -> &'static Path {
    Path::new("/spool")
}

fn open(disk: &Arc<FakeDisk>, bytes_max: u64) -> Spool {
    Spool::open(disk.clone(), dir(), Options { bytes_max }).expect("it opens")
}

/// Records that are numbers, in batches.
fn append(spool: &Spool, numbers: std::ops::Range<u64>) -> std::io::Result<()> {
    let mut frames = Frames::default();
    for number in numbers {
        assert!(frames.push(|out| out.extend_from_slice(&number.to_le_bytes())));
    }
    spool.append(&mut frames)
}

/// Reads everything behind `from` without consuming it.
fn read_from(spool: &Spool, mut from: Position) -> Vec<u64> {
    let (mut numbers, mut payload) = (Vec::new(), Vec::new());
    while let Some(read) = spool.read(from, &mut payload).expect("it reads") {
        assert_eq!(payload.len(), 8 * read.records as usize);
        numbers.extend(payload.chunks(8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight"))));
        from = read.next;
    }
    numbers
}

fn rest(spool: &Spool) -> Vec<u64> {
    read_from(spool, spool.cursor())
}

/// Consumes `reads` times what a read finds; answers how many records that were.
fn consume(spool: &Spool, reads: usize) -> u64 {
    let (mut count, mut payload) = (0, Vec::new());
    for _ in 0..reads {
        let Some(read) = spool.read(spool.cursor(), &mut payload).expect("it reads") else { break };
        spool.consumed(read.next, read.records).expect("it removes");
        count += u64::from(read.records);
    }
    count
}

#[test]
fn what_was_appended_is_read_in_order_and_once() {
    let disk = Arc::new(FakeDisk::default());
    let spool = open(&disk, MIB);
    assert_eq!(rest(&spool), []);
    for batch in 0..10 {
        append(&spool, batch * 3..batch * 3 + 3).expect("room");
    }
    assert_eq!(rest(&spool), Vec::from_iter(0..30));
    assert_eq!(spool.stats().waiting, 30);
    assert_eq!(consume(&spool, 1), 30, "small frames are read together");
    append(&spool, 30..31).expect("room");
    assert_eq!((rest(&spool), spool.stats().waiting), (vec![30], 1));
}

#[test]
fn a_kill_loses_nothing_and_repeats_what_was_not_noted() {
    let disk = Arc::new(FakeDisk::default());
    let spool = open(&disk, 8 * MIB);
    append(&spool, 0..20_000).expect("room");
    let first = consume(&spool, 1);
    spool.keep_cursor().expect("room");
    let second = consume(&spool, 1);
    append(&spool, 20_000..20_010).expect("room");
    drop(spool);
    disk.restart_after_kill();
    let spool = open(&disk, 8 * MIB);
    assert_eq!(rest(&spool), Vec::from_iter(first..20_010), "{second} come again");
    assert_eq!(spool.stats().waiting, 20_010 - first);
}

#[test]
fn losing_power_loses_what_was_not_synced_and_breaks_nothing() {
    for seed in 0..50 {
        let disk = Arc::new(FakeDisk::default());
        let spool = open(&disk, 8 * MIB);
        append(&spool, 0..100).expect("room");
        spool.sync().expect("room");
        for batch in 1..20 {
            append(&spool, batch * 100..batch * 100 + 100).expect("room");
        }
        drop(spool);
        disk.restart_after_power_cut(seed);
        let spool = open(&disk, 8 * MIB);
        let kept = rest(&spool);
        assert!(kept.len() >= 100 && kept.len().is_multiple_of(100), "{}", kept.len());
        assert_eq!(kept, Vec::from_iter(0..kept.len() as u64));
        append(&spool, 5000..5001).expect("room");
        assert_eq!(rest(&spool).last(), Some(&5000));
        assert_eq!(open(&disk, 8 * MIB).stats().damaged, 0);
    }
}

#[test]
fn a_full_spool_drops_the_oldest_and_counts_them() {
    let disk = Arc::new(FakeDisk::default());
    let spool = open(&disk, MIB);
    let mut payload = Vec::new();
    let (batch, batches) = (1000, 400);
    for number in 0..batches {
        append(&spool, number * batch..(number + 1) * batch).expect("room");
        if number == 10 {
            let read = spool.read(spool.cursor(), &mut payload).expect("it reads").expect("something");
            spool.consumed(read.next, read.records).expect("it removes");
        }
        assert!(spool.stats().bytes <= MIB, "{:?}", spool.stats());
    }
    let Stats { waiting, dropped, damaged, .. } = spool.stats();
    let kept = rest(&spool);
    assert_eq!(kept, Vec::from_iter(batch * batches - kept.len() as u64..batch * batches));
    assert_eq!(waiting, kept.len() as u64);
    let read = batch * batches - dropped - waiting;
    assert!((1..=11 * batch).contains(&read), "{read} were read before the others were dropped");
    assert_eq!(damaged, 0);
    assert!(waiting > 64_000, "most of a megabyte is in use: {waiting}");
}

#[test]
fn a_read_that_is_overtaken_by_dropping_moves_nothing_back() {
    let disk = Arc::new(FakeDisk::default());
    let spool = open(&disk, MIB);
    append(&spool, 0..1000).expect("room");
    let mut payload = Vec::new();
    let read = spool.read(spool.cursor(), &mut payload).expect("it reads").expect("something");
    for number in 1..400 {
        append(&spool, number * 1000..number * 1000 + 1000).expect("room");
    }
    let before = spool.cursor();
    spool.consumed(read.next, read.records).expect("nothing to remove");
    assert_eq!(spool.cursor(), before);
    assert_eq!(rest(&spool).len() as u64, spool.stats().waiting);
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_it_has_room() {
    let disk = Arc::new(FakeDisk::default());
    let spool = open(&disk, MIB);
    append(&spool, 0..10).expect("room");
    disk.set_room(Some(20));
    assert!(append(&spool, 10..20).is_err());
    assert_eq!(rest(&spool), Vec::from_iter(0..10));
    disk.set_room(None);
    append(&spool, 20..30).expect("room");
    let expected = Vec::from_iter((0..10).chain(20..30));
    assert_eq!(rest(&spool), expected);
    drop(spool);
    disk.restart_after_kill();
    assert_eq!(rest(&open(&disk, MIB)), expected);
}

#[test]
fn damage_loses_its_segment_and_no_other() {
    let disk = Arc::new(FakeDisk::default());
    let spool = open(&disk, 8 * MIB);
    let batch = FRAME_BYTES as u64 / 8;
    for number in 0..20 {
        append(&spool, number * batch..(number + 1) * batch).expect("room");
    }
    let paths = disk.paths();
    let first = paths.iter().find(|path| path.to_string_lossy().ends_with("0000.spool")).expect("a first segment");
    disk.corrupt(first, 100_000);
    let read = rest(&spool);
    assert_eq!(read[..batch as usize], Vec::from_iter(0..batch)[..], "before the damage");
    assert_eq!(read.last(), Some(&(20 * batch - 1)), "behind it");
    assert_eq!(spool.stats().damaged, 1);
    let again = open(&disk, 8 * MIB);
    assert_eq!(rest(&again), read);
    assert_eq!(again.stats().damaged, 1);
}

#[test]
fn a_record_that_is_too_long_is_left_out() {
    let mut frames = Frames::default();
    assert!(!frames.push(|out| out.resize(out.len() + RECORD_BYTES_MAX + 1, 0)));
    assert!(frames.is_empty());
    assert!(frames.push(|out| out.resize(out.len() + RECORD_BYTES_MAX, 0)));
    let spool = open(&Arc::new(FakeDisk::default()), MIB);
    spool.append(&mut frames).expect("room");
    frames.clear(0);
    spool.append(&mut frames).expect("nothing to do");
    assert_eq!(spool.stats().waiting, 1);
}

/// Files that somebody else wrote, or the disk spoilt: they open, and what comes after them is kept.
#[test]
fn any_bytes_open() {
    let mut state = 7_u64;
    let mut random = move || {
        // Knuth's generator, whose upper bits are good enough for this.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    for round in 0..300 {
        let disk = Arc::new(FakeDisk::default());
        let spool = open(&disk, MIB);
        append(&spool, 0..random() % 5000 + 1).expect("room");
        consume(&spool, (random() % 3) as usize);
        spool.keep_cursor().expect("room");
        drop(spool);
        for path in disk.paths() {
            let length = disk.content(&path).len() as u64;
            let file = disk.open_or_create(&path).expect("it is there");
            for _ in 0..random() % 4 {
                let bytes = Vec::from_iter((0..random() % 40).map(|_| random() as u8));
                file.write_at(&bytes, random() % (length + 20)).expect("room");
            }
            if random() % 5 == 0 {
                file.set_len(random() % (length + 1)).expect("room");
            }
        }
        let spool = open(&disk, MIB);
        append(&spool, 900_000..900_010).expect("room");
        let (mut last, mut payload, mut from) = (Vec::new(), Vec::new(), spool.cursor());
        while let Some(read) = spool.read(from, &mut payload).expect("it reads") {
            assert!(read.next > from, "round {round}");
            from = read.next;
            last.clone_from(&payload);
        }
        assert!(last.ends_with(&900_009_u64.to_le_bytes()), "round {round}");
    }
}
