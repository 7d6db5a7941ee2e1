//! Aside: points that a next hop refused again and again, in a folder of their own beside its buffer.
//!
//! Why: a batch that a hop will never take must not hold up all that come after it, and a point that was answered for
//! must not go without a word.
//! How: the folder is a spool of its own, so its points are as they were. It is open only while something is put there.
//! `/health` names it until somebody deletes it, which is seen within a second; no start is needed.
//! Invariants: at most [`BYTES_MAX`] bytes; past it the oldest points go, and are counted.

use crate::clock;
use crate::watch::health::Reason;
use spool::{Frames, Options, Spool};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use stdx::Disk;

/// Bytes of the points that are put aside for one hop: some ten thousand, enough to see what is wrong with them.
const BYTES_MAX: u64 = 4 << 20;
/// What `/health` says of them.
const ASIDE: &str = "points that a next hop refuses are put aside";

/// The points of one hop that are put aside.
pub struct Aside {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Points in the folder, and those that it had no room for.
    points: u64,
    dropped: u64,
    /// Why the last of them were refused; none is known of those of before the start.
    why: Option<String>,
    since: i64,
}

impl Aside {
    /// What earlier runs have put into `dir`, which need not be there.
    pub fn open(disk: Arc<dyn Disk>, dir: PathBuf) -> Aside {
        let mut state = State { since: clock::now(), ..State::default() };
        // A folder that is not there, or cannot be read, has nothing to tell; writing to it will say why.
        if let Ok(stats) = Spool::look(&*disk, &dir) {
            (state.points, state.dropped) = (stats.waiting, stats.dropped);
        }
        Aside { disk, dir, state: Mutex::new(state) }
    }

    /// Puts points into the folder, which were refused for this reason.
    pub fn put(&self, mut points: Frames, why: &str) -> io::Result<()> {
        let spool = Spool::open(self.disk.clone(), &self.dir, Options { bytes_max: BYTES_MAX })?;
        for loss in spool.take_found() {
            tracing::error!(loss, "points that were put aside are lost");
        }
        spool.append(&mut points)?;
        spool.sync()?;
        spool.keep_cursor()?;
        let stats = spool.stats();
        let mut state = self.lock();
        if state.points == 0 {
            state.since = clock::now();
        }
        (state.points, state.dropped, state.why) = (stats.waiting, stats.dropped, Some(why.to_string()));
        Ok(())
    }

    /// Points in the folder.
    pub fn points(&self) -> u64 {
        self.lock().points
    }

    /// Points that the folder had no room for.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Forgets the points once somebody has taken their folder away.
    pub fn look(&self) {
        if self.points() > 0 && self.disk.list(&self.dir).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            tracing::info!(folder = %self.dir.display(), "somebody has taken note of the points that were put aside");
            *self.lock() = State::default();
        }
    }

    /// What is put aside of the points of `hop`, if anything.
    pub fn trouble(&self, hop: &str) -> Option<Reason> {
        let state = self.lock();
        if state.points == 0 {
            return None;
        }
        let because = state.why.as_ref().map_or(String::new(), |why| format!(", the last because {why}"));
        let lost = match state.dropped {
            0 => String::new(),
            dropped => format!("; {dropped} older ones found no room"),
        };
        let (points, folder) = (state.points, self.dir.display());
        let why = format!("{hop}: {points} points{because}{lost}; told until {folder} is deleted");
        Some(Reason { what: ASIDE, why, since: state.since })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
