//! Damage: the files in which reading met damage, each once, for whoever tells the operator.
//!
//! Why: damage costs what is damaged and hides nothing else, so an answer is just smaller. Somebody must hear which
//! file has it, once, and not at every query that meets it.
//! Invariants: a file is noted once; what it says is what was met first. Memory: the notes of [`FILES_MAX`] files.

use crate::error::Error;
use crate::locks;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use stdx::RankedMutex;

/// Damaged files that are remembered: a disk with more is one to replace, which fewer lines say as well.
const FILES_MAX: usize = 1000;

/// The damaged files since the start.
pub struct Damage {
    /// Held for a note.
    files: RankedMutex<Files>,
}

#[derive(Default)]
struct Files {
    noted: BTreeMap<PathBuf, String>,
    untold: Vec<String>,
}

impl Default for Damage {
    fn default() -> Damage {
        Damage { files: RankedMutex::new(locks::DAMAGE, Files::default()) }
    }
}

impl Damage {
    /// Notes what was met in a file.
    pub fn note(&self, error: &Error) {
        let Some(path) = error.path() else { return };
        let mut files = self.files.lock();
        if files.noted.contains_key(path) || files.noted.len() == FILES_MAX {
            return;
        }
        let text = error.to_string();
        files.noted.insert(path.to_path_buf(), text.clone());
        files.untold.push(text);
    }

    /// What was noted since the last call.
    pub fn take_untold(&self) -> Vec<String> {
        std::mem::take(&mut self.files.lock().untold)
    }

    /// What was noted of the files that are still in use, in order of their paths.
    pub fn of_files(&self, is_in_use: impl Fn(&Path) -> bool) -> Vec<String> {
        let files = self.files.lock();
        files.noted.iter().filter(|(path, _)| is_in_use(path)).map(|(_, text)| text.clone()).collect()
    }
}
