//! Open: all runs of a directory, and what a merge or a writer left unfinished there.

use super::footer::{SUFFIX, sequence_of_name};
use super::run::Run;
use crate::error::{Error, Result};
use std::path::Path;
use std::sync::Arc;
use stdx::Disk;

const TEMP_SUFFIX: &str = ".tmp";

/// The runs of a directory, and what was wrong there.
pub struct Opened {
    /// Runs that can be used, in order of sequence.
    pub runs: Vec<Arc<Run>>,
    /// No file has this sequence or a higher one.
    pub next_sequence: u64,
    pub corrupt: Vec<String>,
    /// Runs that another one covers: their files are to be removed.
    pub superseded: Vec<Arc<Run>>,
}

/// Opens all runs in `dir`. What a merge or a writer left unfinished is removed; a file that is no run is reported and
/// left where it is.
pub fn open_all(disk: &dyn Disk, dir: &Path) -> Result<Opened> {
    disk.create_dir(dir).map_err(Error::disk("create", dir))?;
    let (mut runs, mut newest, mut corrupt) = (Vec::new(), 0, Vec::new());
    for name in disk.list(dir).map_err(Error::disk("list", dir))? {
        let path = dir.join(&name);
        if name.ends_with(TEMP_SUFFIX) {
            disk.remove(&path).map_err(Error::disk("remove", &path))?;
        } else if name.ends_with(SUFFIX) {
            newest = newest.max(sequence_of_name(&path));
            match Run::open(disk, path) {
                Ok(run) => runs.push(Arc::new(run)),
                Err(error @ Error::Corrupt { .. }) => corrupt.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
    }
    runs.sort_by_key(|run| (run.sequence, run.first_sequence));
    newest = runs.last().map_or(newest, |run| newest.max(run.sequence));
    let covers = |run: &Run, other: &Run| {
        run.path != other.path && run.first_sequence <= other.first_sequence && other.sequence <= run.sequence
    };
    let superseded = |run: &Arc<Run>| runs.iter().any(|other| covers(other, run));
    let (superseded, runs): (Vec<_>, Vec<_>) = runs.iter().cloned().partition(superseded);
    Ok(Opened { runs, next_sequence: newest + 1, corrupt, superseded })
}
