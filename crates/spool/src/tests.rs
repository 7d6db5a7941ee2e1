//! Spools on a disk that tests can pull the plug of: nothing answered is lost, and bounds hold.

use crate::frame::{FRAME_BYTES, RECORD_BYTES_MAX};
use crate::{Frames, Options, Position, Spool, Stats};
use proptest::prelude::{Just, ProptestConfig, Strategy, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
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

#[test]
fn what_was_dropped_is_known_after_a_start() {
    let disk = Arc::new(FakeDisk::default());
    let spool = open(&disk, MIB);
    for number in 0..400 {
        append(&spool, number * 1000..number * 1000 + 1000).expect("room");
    }
    let before = spool.stats();
    assert!(before.dropped > 0);
    spool.keep_cursor().expect("room");
    drop(spool);
    disk.restart_after_kill();
    assert_eq!(Spool::look(&*disk, dir()).expect("it reads"), before);
    let spool = open(&disk, MIB);
    assert_eq!(spool.stats(), before);
    assert_eq!(rest(&spool).first(), Some(&before.dropped));
}

/// Files of before the count of what was dropped.
#[test]
fn a_cursor_of_the_first_kind_is_read() {
    let disk = Arc::new(FakeDisk::default());
    let spool = open(&disk, 8 * MIB);
    append(&spool, 0..20_000).expect("room");
    let first = consume(&spool, 1);
    spool.keep_cursor().expect("room");
    let path = dir().join("cursor");
    let line = String::from_utf8(disk.content(&path)).expect("text");
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(words[..4], ["hawkeye", "spool", "cursor", "2"]);
    let old = stdx::checked_line::write("hawkeye spool cursor 1 ", format_args!("{} {}", words[4], words[5]));
    let file = disk.open_or_create(&path).expect("it is there");
    file.set_len(0).and_then(|()| file.write_at(old.as_bytes(), 0)).expect("room");
    assert_eq!(rest(&open(&disk, 8 * MIB)).first(), Some(&first));
}

#[test]
fn a_place_within_a_frame_reads_the_frame_again() {
    let disk = Arc::new(FakeDisk::default());
    let spool = open(&disk, MIB);
    for batch in 0..3 {
        append(&spool, batch * 10..batch * 10 + 10).expect("room");
    }
    // Frames of 92 bytes behind a head of eight: the place is in the second.
    let line = stdx::checked_line::write("hawkeye spool cursor 2 ", format_args!("{:016x} {:016x} {:016x}", 0, 150, 7));
    let file = disk.open_or_create(&dir().join("cursor")).expect("room");
    file.write_at(line.as_bytes(), 0).expect("room");
    let spool = open(&disk, MIB);
    assert_eq!(rest(&spool), Vec::from_iter(10..30));
    let Stats { waiting, dropped, damaged, .. } = spool.stats();
    assert_eq!((waiting, dropped, damaged), (20, 7, 0));
}

#[test]
fn a_file_of_another_kind_and_a_torn_end_are_told() {
    let disk = Arc::new(FakeDisk::default());
    let spool = open(&disk, MIB);
    append(&spool, 0..10).expect("room");
    drop(spool);
    let path = dir().join("0000000000000000.spool");
    let length = disk.content(&path).len() as u64;
    disk.open_or_create(&path).and_then(|file| file.write_at(&[1, 2, 3], length)).expect("room");
    let spool = open(&disk, MIB);
    assert_eq!((spool.stats().torn_bytes, spool.stats().damaged, rest(&spool)), (3, 0, Vec::from_iter(0..10)));
    drop(spool);
    disk.open_or_create(&path).and_then(|file| file.write_at(b"HKSPOOL9", 0)).expect("room");
    let spool = open(&disk, MIB);
    assert_eq!((spool.stats().damaged, rest(&spool)), (1, vec![]));
}

/// What can happen to a spool.
#[derive(Clone, Debug)]
enum Step {
    Append(u64),
    Consume(usize),
    Keep,
    Room(Option<u64>),
    Restart,
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..20_000_u64).prop_map(Step::Append),
        4 => (1..6_usize).prop_map(Step::Consume),
        2 => Just(Step::Keep),
        1 => prop_oneof![Just(None), (0..200_000_u64).prop_map(Some)].prop_map(Step::Room),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any order of appends, reads, full disks, restarts and kills: what waits are the newest records that were
    /// answered for, in order and without a gap; none is missing that was neither read nor counted as dropped.
    #[test]
    fn behaves_like_a_queue(steps in steps()) {
        let disk = Arc::new(FakeDisk::default());
        let mut spool = open(&disk, MIB);
        // Records that were answered for, those before the reader, and those before it when that was last written.
        let (mut answered, mut read, mut kept) = (0, 0, 0);
        for step in steps {
            match step {
                Step::Append(count) => answered += append(&spool, answered..answered + count).map_or(0, |()| count),
                Step::Consume(reads) => _ = consume(&spool, reads),
                Step::Keep => {
                    disk.set_room(None);
                    spool.keep_cursor().expect("room");
                    kept = answered - rest(&spool).len() as u64;
                }
                Step::Room(room) => disk.set_room(room),
                Step::Restart | Step::Kill => {
                    disk.set_room(None);
                    if matches!(step, Step::Restart) {
                        spool.keep_cursor().expect("room");
                        kept = answered - rest(&spool).len() as u64;
                    }
                    drop(spool);
                    disk.restart_after_kill();
                    spool = open(&disk, MIB);
                    read = kept.min(read);
                }
            }
            let waits = rest(&spool);
            let first = answered - waits.len() as u64;
            prop_assert_eq!(&waits, &Vec::from_iter(first..answered));
            prop_assert!(first >= read, "{first} after {read}");
            read = first;
            let Stats { waiting, bytes, damaged, torn_bytes, .. } = spool.stats();
            prop_assert_eq!((waiting, damaged, torn_bytes), (waits.len() as u64, 0, 0));
            prop_assert!(bytes <= MIB + (256 << 10), "{bytes}");
        }
    }
}
