//! Edits: hostile versions of a file that the store wrote.
//!
//! ```text
//! edit  | kind 1 | offset 2, little-endian | bytes |      offset counts modulo the file's length + 1
//! kind  lowest two bits: 0, 1 overwrites, 2 inserts, 3 cuts; the others, plus 1: how many bytes follow (no cut)
//! ```

use model::{CounterType, Point, Sample, SeriesId, SeriesKey, Tags};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use stdx::{Disk, FakeDisk};
use store::{Error, Found, Options, Recovery, Store};

/// A noon; nothing depends on it.
pub const NOW: i64 = 1_600_000_000 / 86_400 * 86_400 + 43_200;

pub const HOSTS: [&str; 3] = ["a", "b", "c"];

pub fn open(disk: &FakeDisk) -> (Store, Recovery) {
    stdx::crc::OFF.store(true, Relaxed);
    let options = Options { dir: PathBuf::from("data"), shard_count: 1, ..Options::default() };
    Store::open_on(Arc::new(disk.clone()), options, NOW).expect("no content of a file keeps a store from opening")
}

pub fn series(store: &Store, host: &str) -> SeriesId {
    let key = SeriesKey { endpoint: host, metric: "m", tags: Tags::EMPTY };
    store.create(key, CounterType::Gauge, 60).expect("room")
}

pub fn find(store: &Store, host: &str) -> Option<Found> {
    store.find(host, "m").expect("the names are sound")
}

pub fn append(store: &Store, samples: &[(SeriesId, i64, f64)]) {
    let sample = |(series, time, value): &(SeriesId, i64, f64)| Sample {
        series: *series,
        point: Point { time: *time, value: *value },
    };
    store.append(&samples.iter().map(sample).collect::<Vec<_>>(), NOW, &mut ()).expect("room");
}

/// Points of every form that a file codes them in, of all hosts, from `from` on.
pub fn fill(store: &Store, from: i64) {
    for (i, host) in HOSTS.iter().enumerate() {
        let id = series(store, host);
        let value = |minute: i64| match (i as i64 + minute / 8) % 5 {
            0 => 7.0,
            1 => (minute * minute) as f64,
            2 => (minute * 13 % 900) as f64 / 100.0,
            3 => minute as f64 * (100.0 / 199.0),
            _ => (minute as f64).sqrt(),
        };
        let gap = |minute: i64| if minute > 20 { 7 * i as i64 } else { 0 };
        let points: Vec<_> = (0..40).map(|minute| (id, from + 60 * minute + gap(minute), value(minute))).collect();
        append(store, &points);
    }
}

/// The points of all hosts, as far as they are answered.
pub fn all(store: &Store) -> Vec<(i64, u64)> {
    let answers = HOSTS.iter().filter_map(|host| history(store, host)).flatten();
    answers.map(|point| (point.time, point.value.to_bits())).collect()
}

/// `None` when the answer would be too large.
pub fn history(store: &Store, host: &str) -> Option<Vec<Point>> {
    let mut out = Vec::new();
    if let Some(series) = find(store, host) {
        answered(store.history(series, 0, i64::MAX, &mut out))?;
    }
    assert!(out.is_sorted_by(|a, b| a.time < b.time), "{host} ascends");
    Some(out)
}

/// Damage costs points, not the answer. Too many points are an honest answer to a file that claims them.
pub fn answered<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Err(Error::TooManyPoints { .. }) => None,
        result => Some(result.expect("an answer")),
    }
}

/// The first file with this extension.
pub fn file(disk: &FakeDisk, extension: &str) -> PathBuf {
    let mut found = disk.paths().into_iter().filter(|path| path.extension().is_some_and(|own| own == extension));
    found.next().expect("the store wrote it")
}

/// Applies the edits to a file.
pub fn edit(disk: &FakeDisk, path: &Path, mut edits: &[u8]) {
    let mut content = disk.content(path);
    while let [kind, low, high, rest @ ..] = edits {
        let at = usize::from(u16::from_le_bytes([*low, *high])) % (content.len() + 1);
        let (bytes, after) = rest.split_at(rest.len().min(usize::from(kind >> 2) + 1));
        edits = after;
        match kind & 3 {
            3 => {
                content.truncate(at);
                edits = rest;
            }
            2 => drop(content.splice(at..at, bytes.iter().copied())),
            _ => {
                let end = content.len().min(at + bytes.len());
                content.splice(at..end, bytes.iter().copied());
            }
        }
    }
    let file = disk.open_or_create(path).expect("it is there");
    file.set_len(0).expect("room");
    file.write_at(&content, 0).expect("room");
}
