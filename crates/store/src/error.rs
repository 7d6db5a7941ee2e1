//! Error: what can go wrong in the store, each with what an operator needs to mend it.

use crate::sizes::STEP_MAX;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Failure of a call on the store.
#[derive(Debug)]
pub enum Error {
    /// The disk refused; the call counts as not made.
    Disk { what: &'static str, path: PathBuf, cause: io::Error },
    /// Another process has the data directory.
    Locked { dir: PathBuf },
    /// A file is not what its name says.
    Corrupt { path: PathBuf, offset: u64, what: String },
    /// No room for another series; the field names the option or the limit.
    Full { what: &'static str, limit: u64 },
    /// The id is of no series of this store, or of one that was removed.
    UnknownSeries(u32),
    /// A series cannot have this step.
    BadStep(u32),
    /// Endpoint, metric or tags are longer than the limit.
    TextTooLong { what: &'static str, bytes: usize, limit: usize },
    /// The answer would be larger than `query_points_max`.
    TooManyPoints { limit: usize },
    /// An option makes no sense; the text says which and what would.
    Options(String),
}

/// `EIO`: what the system says of a sector that cannot be read.
const BAD_SECTOR: i32 = 5;

/// Result of a call on the store.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The file or directory that the error is about.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Error::Disk { path, .. } | Error::Corrupt { path, .. } => Some(path),
            _ => None,
        }
    }

    /// Name of the file that the error is about.
    pub(crate) fn file_name(&self) -> String {
        let name = self.path().and_then(Path::file_name);
        name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    /// Whether a file that is read is damaged: what else it has, and other files, may well be read.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Error::Corrupt { .. } => true,
            Error::Disk { cause, .. } => cause.raw_os_error() == Some(BAD_SECTOR),
            _ => false,
        }
    }

    /// Whether a file is gone that should be there. The store has noted it by then (`Store::take_untold_damage`): the
    /// log is told once, not for each answer that lacks it.
    pub fn is_missing_file(&self) -> bool {
        matches!(self, Error::Disk { cause, .. } if cause.kind() == io::ErrorKind::NotFound)
    }

    pub(crate) fn disk(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |cause| match cause.kind() {
            // Of a read: the file leads to a place that it does not have. That is damage, and the disk is well.
            io::ErrorKind::UnexpectedEof => {
                Error::Corrupt { path, offset: 0, what: "it ends before a place that it names".to_string() }
            }
            _ => Error::Disk { what, path, cause },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Disk { what, path, cause } => write!(f, "cannot {what} {}: {cause}", path.display()),
            Error::Locked { dir } => write!(
                f,
                "data directory {} is in use by another server; stop it or give this one another data_dir",
                dir.display()
            ),
            Error::Corrupt { path, offset, what } => {
                write!(f, "{} is corrupt at byte {offset}: {what}", path.display())
            }
            Error::Full { what, limit } => write!(f, "no room for another series: {what} is {limit}"),
            Error::UnknownSeries(id) => write!(f, "no series with id {id}"),
            Error::BadStep(step) => write!(f, "step {step} is not between 1 and {} seconds", STEP_MAX),
            Error::TextTooLong { what, bytes, limit } => write!(f, "{what} has {bytes} bytes, the limit is {limit}"),
            Error::TooManyPoints { limit } => {
                write!(f, "the query covers more than {limit} points; ask for a shorter range or fewer series")
            }
            Error::Options(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Disk { cause, .. } => Some(cause),
            _ => None,
        }
    }
}
