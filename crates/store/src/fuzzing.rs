//! Fuzzing: doors for the targets in `fuzz/` to readers that nobody else reaches, each with what must hold for every
//! input.
//!
//! How: bytes are read as they are, and again with the checksums of all that looks like a record made right, so that
//! what lies behind them is reached.

use crate::error::{Error, Result};
use crate::record::{HEADER_BYTES, MARKER};
use crate::series::cold::{self, ColdFound, ColdSeries};
use crate::series::{Change, SeriesFile};
use model::{SeriesKey, Tags};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use stdx::{Disk, FakeDisk, crc32};

/// The content of a series file. What can be read is read again the same after damage was cut off, and the file takes
/// more.
pub fn series_file(input: &[u8]) {
    let mut mended = input.to_vec();
    mend_records(&mut mended);
    read_series_file(input);
    read_series_file(&mended);
}

/// The content of a cold run. What is visited ascends, and merging keeps all of it.
pub fn cold_run(input: &[u8]) {
    let mut mended = input.to_vec();
    mend_records(&mut mended);
    mend_footer(&mut mended);
    read_cold_run(input);
    read_cold_run(&mended);
}

fn mend_records(bytes: &mut [u8]) {
    for at in 0..bytes.len().saturating_sub(HEADER_BYTES - 1) {
        let (header, rest) = bytes[at..].split_at_mut(HEADER_BYTES);
        let len = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        if header[..4] == MARKER && len <= rest.len() {
            let crc = crc32(&[&header[4..8], &rest[..len]]);
            header[8..].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

fn mend_footer(bytes: &mut [u8]) {
    let Some(footer) = bytes.last_chunk_mut::<{ cold::FOOTER_BYTES }>() else { return };
    let (body, end) = footer.split_at_mut(cold::FOOTER_BYTES - 4 - cold::MAGIC.len());
    end[..4].copy_from_slice(&crc32(&[body]).to_le_bytes());
    end[4..].copy_from_slice(cold::MAGIC);
}

fn disk_with(path: &str, bytes: &[u8]) -> Arc<dyn Disk> {
    let disk = FakeDisk::default();
    let file = disk.open_or_create(Path::new(path)).expect("a fake disk creates");
    file.write_at(bytes, 0).expect("a fake disk has room");
    Arc::new(disk)
}

fn read_series_file(bytes: &[u8]) {
    let disk = disk_with("d/series", bytes);
    let read = || {
        let mut changes = Vec::new();
        let opened = SeriesFile::open(&disk, Path::new("d"), &mut |change| {
            changes.push(format!("{change:?}"));
            true
        });
        opened.map(|(file, replay)| (file, replay, changes))
    };
    let (mut file, replay, changes) = match read() {
        Ok(opened) => opened,
        Err(Error::Corrupt { .. }) => return,
        Err(error) => panic!("{error}"),
    };
    let next = Change::Next { endpoint: 7, series: 9 };
    file.append(&[next]).expect("a fake disk has room");
    let (_, again, mut more) = read().expect("it opened before");
    assert_eq!(more.pop(), Some(format!("{next:?}")));
    assert_eq!(more, changes);
    assert_eq!((again.torn_bytes_cut, again.corrupt), (0, replay.corrupt));
}

type Name = (String, String, String);

fn owned(series: &ColdSeries<'_>) -> (Name, ColdFound) {
    let SeriesKey { endpoint, metric, tags } = series.key;
    ((endpoint.to_string(), metric.to_string(), tags.as_str().to_string()), series.found)
}

fn read_cold_run(bytes: &[u8]) {
    let disk = disk_with("d/00000001-00000001.run", bytes);
    let opened = cold::open_all(&*disk, Path::new("d")).expect("a fake disk reads");
    let Some(run) = opened.runs.first() else { return };
    let (mut series, mut names) = (Vec::new(), Vec::new());
    only_corrupt(run.series_from("", &mut |found| {
        series.push(owned(&found));
        ControlFlow::Continue(())
    }));
    only_corrupt(run.endpoints("", &mut |endpoint| {
        names.push(endpoint.name.to_string());
        ControlFlow::Continue(())
    }));
    assert!(names.is_sorted());
    // Some of them: a find is the slowest.
    for ((endpoint, metric, tags), _) in series.iter().step_by(1 + series.len() / 16) {
        let key = SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) };
        only_corrupt(run.find(key));
    }
    for name in names.iter().step_by(1 + names.len() / 4) {
        only_corrupt(run.series_of(name, &mut |_| ControlFlow::Continue(())));
    }
    let merged = cold::merge(&*disk, Path::new("m"), &opened.runs, &mut |_| true, &mut |_| true);
    let merged = merged.expect("a fake disk has room").expect("it was not given up").run;
    let mut kept = Vec::new();
    if let Some(merged) = merged {
        let all = merged.series_from("", &mut |found| {
            if kept.len() % 16 == 0 {
                assert_eq!(merged.find(found.key).expect("just written"), Some(found.found));
            }
            kept.push(owned(&found));
            ControlFlow::Continue(())
        });
        all.expect("just written");
    }
    // A visit may begin behind leaves that a hostile branch hides.
    assert!(kept.ends_with(&series));
}

fn only_corrupt<T>(result: Result<T>) {
    if let Err(error) = result {
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// The seeds, and each of them with a byte changed here and there or with its end cut off.
    fn mutate(target: &str, door: fn(&[u8])) {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
        let mut count = 0;
        for entry in std::fs::read_dir(seeds).expect("seeds") {
            let seed = std::fs::read(entry.expect("an entry").path()).expect("a seed");
            door(&seed);
            for at in (0..seed.len()).step_by(seed.len() / 100 + 1) {
                let mut bytes = seed.clone();
                bytes[at] = bytes[at].wrapping_add(1 + (at % 255) as u8);
                door(&bytes);
                door(&seed[..at]);
            }
            count += 1;
        }
        assert!(count > 0);
    }

    #[test]
    fn series_files() {
        mutate("series_file", super::series_file);
    }

    #[test]
    fn cold_runs() {
        mutate("cold_run", super::cold_run);
    }
}
