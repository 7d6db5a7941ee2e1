use super::file::MAGIC;
use super::*;
use crate::error::Result;
use crate::series::Meta;
use crate::sizes::DAY_S;
use model::{CounterType, SeriesId};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stdx::{Disk, FakeDisk};

const NOON: u32 = 1_600_000_000 / DAY_S * DAY_S + DAY_S / 2;
const META: Meta = Meta { counter_type: CounterType::Counter, step: 60 };

fn points(series: u32) -> Vec<(u32, f64)> {
    (0..1 + series % 40).map(|i| (NOON + 60 * i, f64::from(series + i))).collect()
}

fn label(level: u8) -> Label {
    Label { level, ..Label::flushed(NOON / DAY_S, 7) }
}

fn write(disk: &FakeDisk, series: impl Iterator<Item = u32>, level: u8) -> Arc<Block> {
    let mut writer = Writer::begin(Arc::new(disk.clone()), Path::new("block"), label(level)).expect("begins");
    for series in series {
        writer.add(SeriesId(series), META, &points(series)).expect("room");
    }
    Arc::new(writer.finish().expect("finishes"))
}

fn read(disk: &FakeDisk, block: &Arc<Block>, series: u32, from: u32, to: u32) -> Result<Vec<(u32, f64)>> {
    let mut out = Vec::new();
    Reader::open(disk, block)?.read(SeriesId(series), from, to, &mut out)?;
    Ok(out)
}

#[test]
fn every_series_reads_back_also_after_reopening() {
    // More pages than a section of the directory has.
    const SERIES: u32 = 3 * 256 * 70;
    for level in [0, 1] {
        let disk = FakeDisk::default();
        let written = write(&disk, (0..SERIES).filter(|i| i % 3 == 1), level);
        let reopened = Arc::new(Block::open(&disk, written.path.clone()).expect("own file"));
        assert_eq!(written.path, Path::new("block/20200913-raw-00000007.blk"));
        for block in [&written, &reopened] {
            assert_eq!((block.label, block.points, block.bytes), (label(level), written.points, written.bytes));
            assert_eq!((block.min_time, block.max_time), (NOON, NOON + 60 * 39));
            assert_eq!((block.last_series(), block.series_count), (Some(SERIES - 2), SERIES / 3));
            let mut reader = Reader::open(&disk, block).expect("opens");
            assert_eq!(reader.page_count(), 70);
            for series in (0..SERIES).step_by(7).chain([SERIES, u32::MAX]) {
                let mut out = Vec::new();
                reader.read(SeriesId(series), 0, u32::MAX, &mut out).expect("sound");
                let expected = if series % 3 == 1 && series < SERIES { points(series) } else { Vec::new() };
                assert_eq!(out, expected, "series {series}");
            }
        }
    }
}

#[test]
fn reads_only_the_range() {
    for level in [0, 1] {
        let disk = FakeDisk::default();
        let block = write(&disk, 39..40, level);
        let out = read(&disk, &block, 39, NOON + 61, NOON + 180).expect("sound");
        assert_eq!(out.iter().map(|(time, _)| *time).collect::<Vec<_>>(), [NOON + 120, NOON + 180]);
        assert_eq!(read(&disk, &block, 39, NOON + 60 * 40, u32::MAX).expect("sound"), []);
    }
}

#[test]
fn every_flipped_byte_is_noticed() {
    for level in [0, 1] {
        let sound = FakeDisk::default();
        let block = write(&sound, 0..5, level);
        let content = sound.content(&block.path);
        for at in 0..content.len() as u64 {
            let disk = FakeDisk::default();
            let path = write(&disk, 0..5, level).path.clone();
            disk.corrupt(&path, at);
            let noticed = match Block::open(&disk, path).map(Arc::new) {
                Err(_) => true,
                Ok(block) => (0..5).any(|series| read(&disk, &block, series, 0, u32::MAX).is_err()),
            };
            // The magic at the front is for people; nothing depends on it.
            assert!(noticed || at < MAGIC.len() as u64, "byte {at}");
        }
    }
}

#[test]
fn another_version_is_refused_by_name() {
    let disk = FakeDisk::default();
    let path = PathBuf::from("block/20200913-00000001.blk");
    let file = disk.open_or_create(&path).expect("room");
    file.write_at(&[&[0; 100][..], b"HKBLK001"].concat(), 0).expect("room");
    let Err(error) = Block::open(&disk, path) else { panic!("it is of another version") };
    let expected = "block/20200913-00000001.blk is corrupt at byte 108: a block of version 001, this program reads 002";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_writer_that_fails_leaves_nothing() {
    let disk = FakeDisk::default();
    let mut writer = Writer::begin(Arc::new(disk.clone()), Path::new("block"), label(0)).expect("begins");
    writer.add(SeriesId(1), META, &points(1)).expect("room");
    disk.set_room(Some(10));
    assert!(writer.finish().is_err());
    assert_eq!(disk.paths(), Vec::<PathBuf>::new());
}

#[test]
fn what_supersedes_what() {
    let raw = |number, first_flush, last_flush| Label { number, first_flush, last_flush, ..label(1) };
    let check = |newer: Label, older: Label, expected: bool| {
        assert_eq!(newer.supersedes(&older), expected, "{newer:?} {older:?}");
        assert!(!older.supersedes(&newer));
    };
    check(raw(9, 1, 8), raw(3, 3, 3), true);
    check(raw(9, 1, 8), raw(8, 1, 8), true);
    check(raw(10, 1, 8), raw(9, 9, 9), false);
    check(raw(9, 1, 8), Label { first_day: 5, ..raw(3, 3, 3) }, false);
    let rollup = |number, first_day, days| Label { kind: Kind::Hour, first_day, days, ..raw(number, number, number) };
    check(rollup(9, 8, 8), rollup(3, 12, 1), true);
    check(rollup(9, 12, 1), rollup(3, 12, 1), true);
    check(rollup(9, 8, 8), rollup(3, 16, 1), false);
    check(rollup(9, 8, 8), Label { kind: Kind::FiveMinutes, ..rollup(3, 12, 1) }, false);
}
