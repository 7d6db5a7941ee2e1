//! Spool: segments and the cursor of a next hop's buffer in whatever state.
#![no_main]

#[allow(dead_code, reason = "most of it makes files of the store")]
mod edits;

use edits::edit;
use libfuzzer_sys::fuzz_target;
use spool::{Frames, Options, Spool, Stats};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use stdx::FakeDisk;

/// Bytes of a record: a number, over and over.
const RECORD: usize = 1 << 10;

fn dir() -> &'static Path {
    Path::new("spool")
}

fn open(disk: &FakeDisk) -> Spool {
    let options = Options { bytes_max: 1 << 20 };
    Spool::open(Arc::new(disk.clone()), dir(), options).expect("no content of a file keeps a spool from opening")
}

fn append(spool: &Spool, numbers: std::ops::Range<u64>) {
    let mut frames = Frames::default();
    for number in numbers {
        assert!(frames.push(|out| out.extend_from_slice(&number.to_le_bytes().repeat(RECORD / 8))));
    }
    spool.append(&mut frames).expect("room");
}

/// Small batches, and large ones that begin new segments; some of them are read.
fn fill(spool: &Spool) {
    for batch in 0..4 {
        append(spool, batch * 10..batch * 10 + 10);
    }
    let mut payload = Vec::new();
    let read = spool.read(spool.cursor(), &mut payload).expect("it reads").expect("something waits");
    spool.consumed(read.next, read.records).expect("nothing to remove");
    for batch in 0..2 {
        append(spool, 1_000 + batch * 250..1_250 + batch * 250);
    }
    append(spool, 9_000..9_003);
    spool.keep_cursor().expect("room");
}

/// The payloads of everything that waits.
fn all(spool: &Spool) -> Vec<Vec<u8>> {
    let (mut found, mut from, mut payload) = (Vec::new(), spool.cursor(), Vec::new());
    while let Some(read) = spool.read(from, &mut payload).expect("damage is passed over") {
        assert!(read.next > from, "a read leads on");
        assert!(payload.len() <= 2 << 17, "a read has a bound: {}", payload.len());
        from = read.next;
        if read.records > 0 {
            found.push(payload.clone());
        }
    }
    found
}

/// The first byte says which file is edited.
fn damage(disk: &FakeDisk, input: &[u8]) {
    let paths: Vec<PathBuf> = disk.paths();
    let (which, edits) = input.split_first().map_or((0, input), |(first, rest)| (usize::from(*first), rest));
    edit(disk, &paths[which % paths.len()], edits);
}

fuzz_target!(|input: &[u8]| {
    // With checksums, what is read is what was written, or is told as damage, torn, or read before.
    stdx::crc::OFF.store(input.first().is_some_and(|first| first & 64 > 0), Relaxed);
    let is_checked = !stdx::crc::OFF.load(Relaxed);
    let disk = FakeDisk::default();
    let spool = open(&disk);
    fill(&spool);
    let written = all(&spool).concat();
    drop(spool);
    damage(&disk, input);

    let looked = Spool::look(&disk, dir()).expect("it reads");
    let spool = open(&disk);
    let Stats { waiting, dropped, .. } = spool.stats();
    assert_eq!((looked.waiting, looked.dropped), (waiting, dropped));
    let found = all(&spool);
    if is_checked {
        let after: HashSet<&[u8]> = found.iter().flat_map(|payload| payload.chunks(RECORD)).collect();
        let again: Vec<Vec<u8>> = (0..40_u64).map(|number| number.to_le_bytes().repeat(RECORD / 8)).collect();
        let before: HashSet<&[u8]> = written.chunks(RECORD).chain(again.iter().map(Vec::as_slice)).collect();
        assert!(after.is_subset(&before), "a record that nobody wrote");
        let is_whole = written.chunks(RECORD).all(|record| after.contains(record));
        let Stats { damaged, torn_bytes, missing, .. } = spool.stats();
        let is_told = looked.torn_bytes + torn_bytes + looked.damaged + damaged > 0 || missing > 0;
        // A last file that was cut between two frames looks whole, for nothing was synced.
        assert!(is_whole || is_told || input.iter().any(|byte| byte & 3 == 3), "a loss that is not told");
    }
    drop(spool);
    let spool = open(&disk);
    assert_eq!(all(&spool), found);
    assert_eq!(spool.stats().torn_bytes, 0);
    append(&spool, 7..8);
    let newest = all(&spool);
    assert_eq!(newest.concat()[..found.concat().len()], found.concat()[..]);
    assert!(newest.last().is_some_and(|last| last.ends_with(&7_u64.to_le_bytes())));
});
