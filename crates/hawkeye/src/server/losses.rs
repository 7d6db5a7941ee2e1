//! Losses: what starts have found lost of the store, or of the buffers of next hops, told until somebody has taken note
//! of it.
//!
//! Why: a file that is missing is missed at one start only: from then on the list of files is without it. What is lost
//! of the log is not found again either, for the log goes when its points are in blocks. The points stay lost, and who
//! did not look at `/health` between two starts would never hear of it.
//! How: `<data_dir>/losses` has a line per loss with the time at which it was found (docs/format/losses.md). Whoever
//! has taken note, or has brought back what was missing, deletes the file, which is seen within [`LOOK`]; no start is
//! needed. Nobody else does: a file of a missing one's name may be a new one, for names are given again.
//! Buffers have a file of their own, `<data_dir>/buffer/losses`; damage that is met while they are sent comes to it.
//! Invariants: the file is written only when there is something to say; a file that cannot be written is told in the
//! log, and the loss at this start all the same.
//! Memory: [`LINES_MAX`] lines of [`LINE_MAX`] characters.

use crate::watch::health::{Health, Reason};
use anyhow::{Context, Result};
use jiff::Timestamp;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::Recovery;
use tokio::sync::watch;

/// What `/health` says is lost.
const OF_STORE: &str = "points of the store are lost";
const OF_BUFFERS: &str = "points that waited for next hops are lost";

/// Lines that are kept. Whoever loses more has one trouble, not a thousand.
const LINES_MAX: usize = 200;
/// Characters of a line.
const LINE_MAX: usize = 300;
/// Bytes of the file that are read: somebody may have put another one in its place.
const BYTES_MAX: u64 = 1 << 20;
/// Losses that the reason names; a reason is a line.
const NAMED_MAX: usize = 3;
/// Pause between two looks whether the file is still there.
const LOOK: Duration = Duration::from_secs(10);

/// Adds what a start has found to the file.
pub fn note(data: &Path, found: &Recovery, now: i64) {
    let missing = found.missing.iter().map(|name| format!("{name} is missing"));
    let found: Vec<String> = missing.chain(found.lost_of_log.clone()).collect();
    let path = path_in(data);
    let noted = read(&path).and_then(|before| {
        let after = merged(&before, &found, now);
        if after == before { Ok(()) } else { write(&path, &after) }
    });
    if let Err(error) = noted {
        tracing::error!(file = %path.display(), error = format!("{error:#}"), "what is lost will not be told at the next start");
    }
}

/// Whether anything is lost of which nobody has taken note.
pub fn are_there(data: &Path) -> bool {
    read(&path_in(data)).map_or(true, |lines| !lines.is_empty())
}

fn path_in(data: &Path) -> PathBuf {
    data.join("losses")
}

/// The lines of before, and those of what was found now.
fn merged(before: &[String], found: &[String], now: i64) -> Vec<String> {
    let mut lines = before.to_vec();
    let date = Timestamp::from_second(now).unwrap_or_default();
    for text in found {
        // A text that quotes a damaged file must not become two lines.
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LINE_MAX).collect();
        if lines.len() < LINES_MAX && !lines.iter().any(|line| text_of(line) == text) {
            lines.push(format!("{date} {text}"));
        }
    }
    lines
}

/// The line without its time.
fn text_of(line: &str) -> &str {
    line.split_once(' ').map_or("", |(_, text)| text)
}

/// The lines of the file; none where there is no file.
fn read(path: &Path) -> Result<Vec<String>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        opened => {
            opened.and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes)).context("cannot read")?;
        }
    }
    let lines = String::from_utf8_lossy(&bytes);
    Ok(lines.lines().filter(|line| !line.is_empty()).take(LINES_MAX).map(str::to_string).collect())
}

/// Replaces the file.
fn write(path: &Path, lines: &[String]) -> Result<()> {
    let fresh = path.with_extension("tmp");
    let mut file = File::create(&fresh).context("cannot create")?;
    file.write_all((lines.join("\n") + "\n").as_bytes()).context("cannot write")?;
    file.sync_all().context("cannot sync")?;
    fs::rename(&fresh, path).context("cannot rename")?;
    File::open(path.parent().unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all()).context("cannot sync")
}

/// What is lost, for `/health`.
pub struct Losses {
    what: &'static str,
    path: PathBuf,
    lines: Mutex<Vec<String>>,
    /// Whether the file lacks lines that it could not take.
    is_unwritten: AtomicBool,
    since: i64,
}

impl Losses {
    /// Reads what is lost, and makes it a reason of `health`.
    pub fn tell(data: &Path, health: &Health, since: i64) -> Arc<Losses> {
        Losses::tell_of(OF_STORE, path_in(data), health, since)
    }

    /// Reads what is lost of the buffers of next hops, adds what was `found`, and makes it a reason of `health`.
    pub fn tell_of_buffers(data: &Path, found: Vec<String>, health: &Health, since: i64) -> Arc<Losses> {
        let losses = Losses::tell_of(OF_BUFFERS, path_in(&data.join("buffer")), health, since);
        losses.add(found, since);
        losses
    }

    fn tell_of(what: &'static str, path: PathBuf, health: &Health, since: i64) -> Arc<Losses> {
        let lines = read(&path).unwrap_or_else(|error| vec![format!("- the file cannot be read: {error:#}")]);
        for line in &lines {
            tracing::error!(line, file = %path.display(), "lost; told at each start until the file is deleted");
        }
        let losses =
            Arc::new(Losses { what, path, lines: Mutex::new(lines), is_unwritten: AtomicBool::default(), since });
        let asked = losses.clone();
        health.source(move |reasons| reasons.extend(asked.reason()));
        losses
    }

    /// Adds what was found to what is told, and to the file.
    fn add(&self, found: Vec<String>, now: i64) {
        for loss in &found {
            tracing::error!(loss, file = %self.path.display(), "lost; told until the file is deleted");
        }
        {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let after = merged(&lines, &found, now);
            if *lines == after {
                return;
            }
            *lines = after;
        }
        if let Err(error) = self.keep() {
            let error = format!("{error:#}");
            tracing::error!(file = %self.path.display(), error, "what is lost cannot be written; tried until it can");
        }
    }

    /// Writes the file. A disk may take its time, so nobody who asks waits for it.
    fn keep(&self) -> Result<()> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.is_unwritten.store(true, Relaxed);
        write(&self.path, &lines)?;
        self.is_unwritten.store(false, Relaxed);
        Ok(())
    }

    fn reason(&self) -> Option<Reason> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let (named, more) = lines.split_at(lines.len().min(NAMED_MAX));
        if named.is_empty() {
            return None;
        }
        let more = if more.is_empty() { String::new() } else { format!("; {} more", more.len()) };
        let why = format!("told until {} is deleted: {}{more}", self.path.display(), named.join("; "));
        Some(Reason { what: self.what, why, since: self.since })
    }

    /// Whether the texts of the file name this loss.
    pub fn name(&self, loss: &str) -> bool {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|line| text_of(line) == loss)
    }

    /// Forgets what is lost once the file is gone; answers whether there is anything to be told.
    fn look(&self) -> bool {
        if self.is_unwritten.load(Relaxed) && self.keep().is_err() {
            return true;
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let is_deleted = || fs::metadata(&self.path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
        if !lines.is_empty() && is_deleted() {
            tracing::info!(file = %self.path.display(), "somebody has taken note of what is lost");
            lines.clear();
        }
        !lines.is_empty()
    }

    /// Asks `take` now and then what else was found, and looks whether somebody has taken note, until the stop.
    pub async fn run_asking(
        self: Arc<Self>,
        take: impl Fn() -> Vec<String> + Clone + Send + 'static,
        mut stopping: watch::Receiver<bool>,
    ) -> Result<()> {
        loop {
            let (losses, take) = (self.clone(), take.clone());
            let look = move || {
                losses.look();
                losses.add(take(), crate::clock::now());
            };
            tokio::task::spawn_blocking(look).await.context("looking for losses")?;
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return Ok(()),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Looks now and then whether somebody has taken note, until the stop.
    pub async fn run(self: Arc<Self>, mut stopping: watch::Receiver<bool>) -> Result<()> {
        loop {
            let losses = self.clone();
            if !tokio::task::spawn_blocking(move || losses.look()).await.context("looking for losses")? {
                break;
            }
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return Ok(()),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        // A part that ends before the stop is a fault.
        let _ = stopping.wait_for(|stop| *stop).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn start(data: &Path, missing: &[&str], lost_of_log: &[&str], now: i64) -> (Arc<Losses>, Vec<Reason>) {
        let [missing, lost_of_log] =
            [missing, lost_of_log].map(|texts| texts.iter().map(|text| text.to_string()).collect());
        note(data, &Recovery { missing, lost_of_log, ..Recovery::default() }, now);
        let health = Health::default();
        let losses = Losses::tell(data, &health, now);
        (losses, health.reasons())
    }

    #[test]
    fn what_is_lost_is_told_at_each_start_until_the_file_is_deleted() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path();
        assert_eq!(start(data, &[], &[], NOW).1, []);
        assert!(!data.join("losses").exists());
        let (losses, first) = start(data, &["block/1.blk"], &["log/7.log at byte 9: 3 bytes\nskipped"], NOW);
        let [Reason { what, why, .. }] = &first[..] else { panic!("{first:?}") };
        assert_eq!(*what, "points of the store are lost");
        let end = "losses is deleted: 2023-11-14T22:13:20Z block/1.blk is missing; \
                   2023-11-14T22:13:20Z log/7.log at byte 9: 3 bytes skipped";
        assert!(why.starts_with("told until /") && why.ends_with(end), "{why}");
        assert!(losses.name("block/1.blk is missing") && !losses.name("block/2.blk is missing"));
        // The next starts find nothing, or the same.
        assert_eq!(start(data, &[], &[], NOW + 86_400).1[0].why, *why);
        assert_eq!(start(data, &["block/1.blk"], &[], NOW + 86_400).1[0].why, *why);
        let (losses, _) = start(data, &[], &[], NOW);
        assert!(losses.look() && losses.reason().is_some());
        fs::remove_file(data.join("losses")).expect("a file");
        assert!(!losses.look() && losses.reason().is_none());
        assert_eq!(start(data, &[], &[], NOW).1, []);
    }

    #[test]
    fn what_is_lost_of_buffers_is_told_beside_them() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("buffer")).expect("room");
        let health = Health::default();
        let unmade = dir.path().join("unmade");
        let losses = Losses::tell_of_buffers(&unmade, vec!["1.spool".to_string()], &Health::default(), NOW);
        assert!(losses.look() && losses.reason().is_some(), "a file that could not be written was not deleted");
        fs::create_dir_all(unmade.join("buffer")).expect("room");
        assert!(losses.look() && unmade.join("buffer/losses").exists());
        let tell = |found: &[&str]| {
            let found = found.iter().map(|text| text.to_string()).collect();
            Losses::tell_of_buffers(dir.path(), found, &health, NOW)
        };
        let losses = tell(&[]);
        assert_eq!(losses.reason(), None);
        losses.add(vec!["next/1.spool missing, with 7 points".to_string()], NOW);
        let [reason] = &health.reasons()[..] else { panic!("{:?}", health.reasons()) };
        assert_eq!(reason.what, "points that waited for next hops are lost");
        let end = "buffer/losses is deleted: 2023-11-14T22:13:20Z next/1.spool missing, with 7 points";
        assert!(reason.why.ends_with(end), "{reason:?}");
        drop(losses);
        let losses = tell(&["next/2.spool was cut, and lacks 8 points"]);
        assert_eq!(losses.lines.lock().expect("no panic").len(), 2, "over a start");
        fs::remove_file(dir.path().join("buffer/losses")).expect("a file");
        assert!(!losses.look() && losses.reason().is_none());
    }

    #[test]
    fn what_is_kept_of_losses_is_bounded() {
        let dir = tempfile::tempdir().expect("a directory");
        let names: Vec<String> =
            (0..LINES_MAX + 10).map(|number| format!("{number}{}", "é".repeat(LINE_MAX))).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (losses, reasons) = start(dir.path(), &[], &names, NOW);
        let lines = losses.lines.lock().expect("no panic");
        assert_eq!(lines.len(), LINES_MAX);
        assert!(lines.iter().all(|line| text_of(line).chars().count() == LINE_MAX));
        assert!(reasons[0].why.contains("is deleted: "), "{reasons:?}");
        fs::write(dir.path().join("losses"), [0xff, b'\n', b'\n', b'x']).expect("room");
        assert_eq!(read(&dir.path().join("losses")).expect("readable").len(), 2);
    }
}
