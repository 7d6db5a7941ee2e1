//! Spools on a disk that tests can pull the plug of: nothing answered is lost, and bounds hold.

use crate::frame::{FRAME_BYTES, RECORD_BYTES_MAX};
use crate::{Frames, Options, Position, Spool, Stats};
use proptest::prelude::{Just, ProptestConfig, Strategy, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use std::path::{Path, PathBuf};
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
fn what_is_behind_an_end_is_what_was_appended_since() {
    let disk = Arc::new(FakeDisk::default());
    let spool = open(&disk, MIB);
    append(&spool, 0..3).expect("room");
    let end = spool.end();
    assert_eq!(read_from(&spool, end), []);
    // Enough for segments behind that of the end.
    for batch in 0..4 {
        append(&spool, 3 + batch * 10_000..3 + (batch + 1) * 10_000).expect("room");
    }
    assert_eq!(read_from(&spool, end), Vec::from_iter(3..40_003));
    spool.consumed(end, 3).expect("it removes");
    assert_eq!((rest(&spool).first(), spool.stats().waiting), (Some(&3), 40_000));
    assert_eq!(read_from(&spool, spool.end()), []);
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

/// Puts a cursor of an earlier kind into place, which is one line.
fn put_old_cursor(disk: &FakeDisk, head: &str, numbers: &[u64]) {
    let words: Vec<String> = numbers.iter().map(|number| format!("{number:016x}")).collect();
    let line = stdx::checked_line::write(head, words.join(" "));
    let file = disk.open_or_create(&dir().join("cursor")).expect("room");
    file.set_len(0).and_then(|()| file.write_at(line.as_bytes(), 0)).expect("room");
}

/// What the cursor's file says.
fn kept(disk: &FakeDisk) -> crate::cursor::Kept {
    crate::cursor::read(disk, dir()).and_then(|(_, kept, _)| kept).expect("a cursor")
}

/// Files of before the count of what was dropped.
#[test]
fn a_cursor_of_the_first_kind_is_read() {
    let disk = Arc::new(FakeDisk::default());
    let spool = open(&disk, 8 * MIB);
    append(&spool, 0..20_000).expect("room");
    let first = consume(&spool, 1);
    spool.keep_cursor().expect("room");
    let Position { segment, offset } = kept(&disk).place;
    put_old_cursor(&disk, "hawkeye spool cursor 1 ", &[segment, offset]);
    assert_eq!(rest(&open(&disk, 8 * MIB)).first(), Some(&first));
}

#[test]
fn a_place_within_a_frame_reads_the_frame_again() {
    let disk = Arc::new(FakeDisk::default());
    let spool = open(&disk, MIB);
    for batch in 0..3 {
        append(&spool, batch * 10..batch * 10 + 10).expect("room");
    }
    // Frames of 92 bytes behind a head of twenty: the place is in the second.
    put_old_cursor(&disk, "hawkeye spool cursor 2 ", &[0, 150, 7]);
    let spool = open(&disk, MIB);
    assert_eq!(rest(&spool), Vec::from_iter(10..30));
    let Stats { waiting, dropped, damaged, missing, .. } = spool.stats();
    assert_eq!((waiting, dropped, damaged, missing), (20, 7, 0, 0));
}

/// Makes the head of a segment one of the first kind, which says nothing of the records before.
fn make_old(disk: &FakeDisk, path: &Path) {
    let content = disk.content(path);
    let file = disk.open_or_create(path).expect("it is there");
    let old = [b"HKSPOOL1", &content[20..]].concat();
    file.set_len(0).and_then(|()| file.write_at(&old, 0)).expect("room");
}

/// What a version before the numbers of records has left: the place is by the bytes of its files.
#[test]
fn segments_of_the_first_kind_are_read_and_not_written_to() {
    let disk = Arc::new(FakeDisk::default());
    let spool = open(&disk, 8 * MIB);
    for batch in 0..20 {
        append(&spool, batch * 10_000..batch * 10_000 + 10_000).expect("room");
    }
    let read = consume(&spool, 2);
    spool.keep_cursor().expect("room");
    let Position { segment, offset } = kept(&disk).place;
    drop(spool);
    let segments = segments(&disk);
    assert!(segments.len() > 3);
    segments.iter().for_each(|path| make_old(&disk, path));
    put_old_cursor(&disk, "hawkeye spool cursor 2 ", &[segment, offset - 12, 0]);
    for end in [200_010, 200_020, 200_030] {
        let spool = open(&disk, 8 * MIB);
        append(&spool, end - 10..end).expect("room");
        assert_eq!(rest(&spool), Vec::from_iter(read..end));
        assert_eq!((spool.stats().missing, spool.take_found()), (0, vec![]));
    }
    assert!(disk.content(&self::segments(&disk)[segments.len()]).starts_with(b"HKSPOOL2"), "a new one");
    // What is missing of them has no number, and is told all the same.
    disk.remove(&segments[1]).expect("it is there");
    let found = open(&disk, 8 * MIB).take_found();
    assert!(found.len() == 1 && found[0].contains("0000000000000001.spool missing, with points"), "{found:?}");
}

/// Files of the segments, oldest first.
fn segments(disk: &FakeDisk) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "spool")).collect()
}

/// Ten batches, each a segment but for the last three, which share one. They have been read so often, and then harmed.
fn harmed(reads: usize, harm: impl FnOnce(&FakeDisk, &[PathBuf])) -> (Arc<FakeDisk>, Vec<u64>, Stats, Vec<String>) {
    let disk = Arc::new(FakeDisk::default());
    let spool = open(&disk, 8 * MIB);
    for batch in 0..10 {
        append(&spool, batch * 40_000..batch * 40_000 + if batch < 8 { 40_000 } else { 1000 }).expect("room");
    }
    spool.sync().expect("room");
    consume(&spool, reads);
    spool.keep_cursor().expect("room");
    drop(spool);
    harm(&disk, &segments(&disk));
    let spool = open(&disk, 8 * MIB);
    (disk.clone(), rest(&spool), spool.stats(), spool.take_found())
}

fn cut(disk: &FakeDisk, path: &Path, length: u64) {
    disk.open_or_create(path).and_then(|file| file.set_len(length)).expect("it is there");
}

#[test]
fn segments_that_somebody_removed_emptied_or_cut_are_told_and_counted_once() {
    type Harm = fn(&FakeDisk, &[PathBuf]);
    // Frames have 64 KiB, of 8,192 records; the last of a batch has less.
    let harms: [(Harm, u64, &str); 8] = [
        (|disk, files| disk.remove(&files[2]).expect("it is there"), 40_000, "2.spool missing, with 40000 points"),
        (|disk, files| cut(disk, &files[2], 0), 40_000, "2.spool was cut, and lacks 40000 points"),
        (|disk, files| cut(disk, &files[3], 20 + 2 * 65_548), 40_000 - 16_384, "3.spool was cut, and lacks 23616"),
        (
            |disk, files| cut(disk, &files[3], 20 + 2 * 65_548 + 5),
            40_000 - 16_384,
            "3.spool is damaged, and lacks 23616",
        ),
        (
            |disk, files| disk.corrupt(&files[1], 20 + 65_548 + 100),
            40_000 - 8192,
            "1.spool is damaged, and lacks 31808",
        ),
        (|disk, files| disk.remove(&files[7]).expect("there"), 42_000, "7.spool is missing, with 42000 points"),
        (|disk, files| cut(disk, &files[7], 20 + 320_060 + 8012), 1000, "7.spool was cut, and lacks 1000 points"),
        (|disk, files| disk.corrupt(&files[7], 20 + 320_060 + 8050), 1000, "7.spool is damaged, and lacks 1000 points"),
    ];
    for (harm, lacks, text) in harms {
        let (disk, left, stats, found) = harmed(1, harm);
        assert!(found.len() == 1 && found[0].contains(text), "{found:?}, not {text}");
        let all = 8 * 40_000 + 2000 - 8192;
        assert_eq!((stats.missing, left.len() as u64, stats.waiting), (lacks, all - lacks, all - lacks), "{text}");
        // Told once, counted for ever, while the reader and a sender go on.
        let mut left = left;
        for _ in 0..3 {
            let spool = open(&disk, 8 * MIB);
            assert_eq!((spool.take_found(), spool.stats().missing), (vec![], lacks), "{text}");
            assert!(rest(&spool) == left, "{text}");
            append(&spool, 7..8).expect("room");
            consume(&spool, 12);
            spool.sync().and_then(|()| spool.keep_cursor()).expect("room");
            left = rest(&spool);
            assert_eq!(spool.stats().waiting, left.len() as u64);
        }
        assert!(left.len() < 100_000, "past the place: {}", left.len());
    }
}

#[test]
fn what_had_been_read_is_not_missed() {
    // Three frames of the last segment, of which two go, with what is behind them.
    let (_, left, stats, found) = harmed(38, |disk, files| cut(disk, &files[0], 20 + 65_548));
    assert_eq!((left, stats.waiting, stats.missing), (vec![], 0, 42_000 - 3 * 8192), "{found:?}");
    // Everything: nothing is left but the place.
    let (disk, left, stats, found) = harmed(1000, |disk, files| {
        files.iter().for_each(|file| _ = disk.remove(file));
    });
    assert_eq!((left, stats.missing, found), (vec![], 0, vec![]));
    let spool = open(&disk, 8 * MIB);
    append(&spool, 1..2).expect("room");
    drop(spool);
    assert_eq!(rest(&open(&disk, 8 * MIB)), [1]);
}

#[test]
fn damage_that_the_reader_meets_is_told_and_counted() {
    for at in [0, 4] {
        let disk = Arc::new(FakeDisk::default());
        let spool = open(&disk, 8 * MIB);
        let batches = at as u64 + 1;
        for batch in 0..batches {
            append(&spool, batch * 40_000..batch * 40_000 + 40_000).expect("room");
        }
        disk.corrupt(&segments(&disk)[at], 20 + 65_548 + 100);
        consume(&spool, 5 * at + 1);
        assert_eq!(rest(&spool), []);
        append(&spool, 7..8).expect("room");
        assert_eq!(rest(&spool), [7]);
        consume(&spool, 1);
        append(&spool, 8..9).expect("room");
        assert_eq!(rest(&spool), [7, 8]);
        let Stats { missing, damaged, waiting, .. } = spool.stats();
        let found = spool.take_found();
        assert!(found.len() == 1 && found[0].contains(".spool is damaged, and lacks"), "{found:?}");
        assert_eq!((damaged, waiting, missing), (1, 2, 31_808));
        spool.sync().and_then(|()| spool.keep_cursor()).expect("room");
        drop(spool);
        let spool = open(&disk, 8 * MIB);
        assert_eq!((rest(&spool), spool.stats().missing, spool.take_found()), (vec![7, 8], missing, vec![]));
    }
}

#[test]
fn a_cursor_that_says_nothing_is_told() {
    let disk = Arc::new(FakeDisk::default());
    let spool = open(&disk, MIB);
    append(&spool, 0..10).expect("room");
    consume(&spool, 1);
    spool.keep_cursor().expect("room");
    drop(spool);
    let harms: [fn(&FakeDisk, &Path); 3] = [
        |disk, path| cut(disk, path, 0),
        |disk, path| disk.remove(path).expect("it is there"),
        |disk, path| [50, 4096 + 50].into_iter().for_each(|offset| disk.corrupt(path, offset)),
    ];
    for harm in harms {
        harm(&disk, &dir().join("cursor"));
        let spool = open(&disk, MIB);
        assert_eq!(rest(&spool), Vec::from_iter(0..10));
        assert_eq!(spool.take_found(), ["/spool/cursor is gone or damaged, so points are sent again"]);
        drop(spool);
        assert_eq!(open(&disk, MIB).take_found(), [""; 0]);
    }
}

/// A slot that a crash has torn: what the other says counts.
#[test]
fn a_torn_note_leaves_the_one_before() {
    let disk = Arc::new(FakeDisk::default());
    let spool = open(&disk, MIB);
    append(&spool, 0..30_000).expect("room");
    let mut places = Vec::new();
    for _ in 0..2 {
        consume(&spool, 1);
        spool.keep_cursor().expect("room");
        places.push(kept(&disk).place);
    }
    let newest = if disk.content(&dir().join("cursor"))[4096..].starts_with(b"hawkeye spool cursor 3 0000000000000003")
    {
        4096
    } else {
        0
    };
    disk.corrupt(&dir().join("cursor"), newest + 60);
    assert_eq!(kept(&disk).place, places[0]);
    assert_eq!(open(&disk, MIB).cursor(), places[0]);
}

#[test]
fn a_disk_that_is_full_of_what_was_read_takes_more() {
    let disk = Arc::new(FakeDisk::default());
    let spool = open(&disk, 64 * MIB);
    append(&spool, 0..100_000).expect("room");
    assert_eq!(segments(&disk).len(), 1);
    disk.set_room(Some(10));
    assert_eq!(consume(&spool, 1000), 100_000);
    // The place is written where it was, and the file goes.
    spool.keep_cursor().expect("no more room than there was");
    assert_eq!((spool.stats().bytes, segments(&disk)), (0, vec![]));
    drop(spool);
    disk.restart_after_kill();
    let spool = open(&disk, 64 * MIB);
    assert_eq!((rest(&spool), spool.take_found()), (vec![], vec![]), "nothing comes again");
    append(&spool, 5..6).expect("room");
    assert_eq!(rest(&spool), [5]);
    // Less than is freed each second goes when it is in the way.
    consume(&spool, 1);
    spool.keep_cursor().expect("room");
    assert_eq!(segments(&disk).len(), 1);
    disk.set_room(Some(10));
    let error = append(&spool, 6..9).expect_err("the disk of the test has no more room for what was removed");
    assert!(error.to_string().contains(".spool: "), "{error}");
    assert_eq!(segments(&disk).len(), 1, "the new one");
    disk.set_room(None);
    append(&spool, 6..9).expect("room");
    assert_eq!(rest(&spool), [6, 7, 8]);
}

#[test]
fn neither_power_nor_kills_make_anything_missing() {
    for seed in 0..60 {
        let disk = Arc::new(FakeDisk::default());
        let mut next = 0;
        for round in 0..4_u64 {
            let spool = open(&disk, MIB);
            for batch in 0..12 {
                let count = (seed * 7 + round * 13 + batch * 31) % 17 * 1000 + 1;
                append(&spool, next..next + count).expect("room");
                next += count;
                if (seed + batch) % 3 == 0 {
                    spool.sync().and_then(|()| spool.keep_cursor()).expect("room");
                }
                consume(&spool, ((seed + batch) % 5) as usize * 2);
            }
            drop(spool);
            if round % 2 == 0 {
                disk.restart_after_kill()
            } else {
                disk.restart_after_power_cut(seed)
            }
            let spool = open(&disk, MIB);
            assert_eq!((spool.stats().missing, spool.take_found()), (0, vec![]), "{seed}, {round}");
        }
    }
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
            prop_assert_eq!((spool.stats().missing, spool.take_found()), (0, vec![]));
            prop_assert!(bytes <= MIB + (256 << 10), "{bytes}");
        }
    }
}
