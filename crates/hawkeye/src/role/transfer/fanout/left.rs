//! Left: buffers on the disk whose next hop the configuration does not have any more.
//!
//! Why: a buffer belongs to the name and address of its hop, so that no edit of a list sends points to the wrong
//! server. The points of a hop that was taken away, or has a new address, therefore stay, and somebody must hear of it.
//! How: a start looks what is in the folders that are no hop's; those with points are in the log and in `/health` until
//! they are gone, or have become a hop's at the next start.
//! Invariants: nothing is deleted or changed here.

use crate::clock;
use crate::watch::health::{Health, Reason};
use spool::Spool;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use stdx::RealDisk;
use tokio::sync::watch;

/// What `/health` says of them.
const LEFT: &str = "points wait for a next hop that the configuration does not have";
/// What to do with them.
const WAYS_OUT: &str = "name the hop again, or, with the process stopped, rename the folder to that of the hop that is to \
                        have them (data_dir/buffer), or delete it";
/// Pause between two looks whether a folder is still there.
const LOOK: Duration = Duration::from_secs(10);
/// Folders that the reason names; a reason is a line.
const NAMED_MAX: usize = 3;
/// Characters of a folder's name; a file system has 255.
const NAME_MAX: usize = 200;

/// A folder with points that nobody sends.
struct Folder {
    path: PathBuf,
    points: u64,
    bytes: u64,
}

/// Folders with points that nobody sends.
pub struct Left {
    folders: Mutex<Vec<Folder>>,
    since: i64,
}

/// Name of the folder of the hop that `word` and `parts` (node, address) name: no two hops have the same.
pub fn folder_of(word: &str, parts: &str) -> String {
    let mut name = format!("{word}-");
    for byte in parts.bytes().map(|byte| byte.to_ascii_lowercase()) {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b':' | b'@' | b'[' | b']' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02x}")),
        }
    }
    if name.len() > NAME_MAX {
        let sum = stdx::crc32(&[name.as_bytes()]);
        // Only ASCII comes here.
        name.truncate(NAME_MAX - 9);
        name.push_str(&format!("~{sum:08x}"));
    }
    name
}

impl Left {
    /// Looks for folders in `dir` beside those that are `known`, and makes those with points a reason of `health`.
    pub fn tell(dir: &Path, known: &[String], health: &Health) -> Arc<Left> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut folders = Vec::new();
        for path in names.filter(|name| !known.contains(name)).map(|name| dir.join(name)) {
            match Spool::look(&RealDisk, &path) {
                Ok(stats) if stats.waiting > 0 => {
                    tracing::error!(
                        folder = %path.display(), points = stats.waiting, bytes = stats.bytes, "{LEFT}: {WAYS_OUT}"
                    );
                    folders.push(Folder { path, points: stats.waiting, bytes: stats.bytes });
                }
                Ok(_) => {
                    tracing::info!(folder = %path.display(), "no next hop has this folder, in which nothing waits")
                }
                Err(error) => tracing::warn!(folder = %path.display(), %error, "no next hop has this folder"),
            }
        }
        let left = Arc::new(Left { folders: Mutex::new(folders), since: clock::now() });
        let asked = left.clone();
        health.source(move |reasons| reasons.extend(asked.reason()));
        left
    }

    /// Points that nobody sends.
    pub fn points(&self) -> u64 {
        self.lock().iter().map(|folder| folder.points).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Folder>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reason(&self) -> Option<Reason> {
        let folders = self.lock();
        let (named, more) = folders.split_at(folders.len().min(NAMED_MAX));
        if named.is_empty() {
            return None;
        }
        let text = |Folder { path, points, bytes }: &Folder| format!("{points} ({bytes} bytes) in {}", path.display());
        let named: Vec<String> = named.iter().map(text).collect();
        let more = if more.is_empty() { String::new() } else { format!(", and {} more folders", more.len()) };
        let why = format!("{}{more}: {WAYS_OUT}", named.join(", "));
        Some(Reason { what: LEFT, why, since: self.since })
    }

    /// Forgets folders that are gone.
    fn look(&self) {
        // Asked without the lock: a disk may take its time.
        let paths: Vec<PathBuf> = {
            let folders = self.lock();
            folders.iter().map(|folder| folder.path.clone()).collect()
        };
        let is_gone = |path: &PathBuf| {
            let found = std::fs::metadata(path);
            found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        };
        let gone: Vec<PathBuf> = paths.into_iter().filter(is_gone).collect();
        if !gone.is_empty() {
            self.lock().retain(|folder| !gone.contains(&folder.path));
        }
    }

    /// Looks now and then whether the folders are still there, until the stop.
    pub async fn run(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let left = self.clone();
            // A look that panics tells nothing new, and the next one is made all the same.
            let _ = tokio::task::spawn_blocking(move || left.look()).await;
        }
    }
}
