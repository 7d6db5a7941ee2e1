//! Trouble: what went wrong in the queue, for the operator's log.
//!
//! Why: most of it happens under locks that points wait for, where no line may be written; whoever ticks the queue
//! takes the troubles and logs them.

use crate::entry::AlarmKey;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// One thing that went wrong.
#[derive(Debug)]
pub enum Trouble {
    /// An event that no record can hold.
    EventTooLong {
        key: AlarmKey,
        error: io::Error,
    },
    /// The alarm is closed without an event.
    ProblemUnreadable {
        id: String,
        error: String,
    },
    /// A record was skipped: written by another version, or by a mistake.
    EventUnreadable {
        seq: u64,
        error: String,
    },
    /// Events go on in the segment that is full; the next upkeep tries again.
    SegmentNotStarted {
        dir: PathBuf,
        error: io::Error,
    },
    /// A disk that is full refuses events from now on.
    NoRoomSetAside {
        dir: PathBuf,
        error: io::Error,
    },
    SegmentNotDeleted {
        file: PathBuf,
        error: io::Error,
    },
    /// A sync failed, and what it was to make durable cannot be read back any more.
    EventsLost {
        file: PathBuf,
        bytes: u64,
    },
    /// The oldest events are dropped for a reader that lags too far.
    EventsDropped {
        reader: &'static str,
        lost: u64,
    },
    /// Segments behind the reader's cursor are not there any more.
    EventsGone {
        reader: &'static str,
        cursor: u64,
        oldest: u64,
    },
}

impl Trouble {
    /// True when events are lost by it, or may be.
    pub fn is_loss(&self) -> bool {
        use Trouble::{NoRoomSetAside, SegmentNotDeleted, SegmentNotStarted};
        !matches!(self, SegmentNotStarted { .. } | NoRoomSetAside { .. } | SegmentNotDeleted { .. })
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::EventTooLong { key, error } => write!(f, "an event of {key} is lost: {error}"),
            Trouble::ProblemUnreadable { id, error } => write!(f, "cannot read the alarm {id} that is closed: {error}"),
            Trouble::EventUnreadable { seq, error } => write!(f, "skipping event {seq} that cannot be read: {error}"),
            Trouble::SegmentNotStarted { dir, error } => {
                write!(f, "cannot start a new event segment in {}, going on in the last: {error}", dir.display())
            }
            Trouble::NoRoomSetAside { dir, error } => {
                write!(f, "cannot set room aside for events in {}: {error}", dir.display())
            }
            Trouble::SegmentNotDeleted { file, error } => {
                write!(f, "cannot delete the old event segment {}: {error}", file.display())
            }
            Trouble::EventsLost { file, bytes } => {
                write!(
                    f,
                    "the disk has forgotten {bytes} bytes of events that it could not write in {}",
                    file.display()
                )
            }
            Trouble::EventsDropped { reader, lost } => {
                write!(f, "{reader} lags too far behind the events: the oldest {lost} are dropped for it")
            }
            Trouble::EventsGone { reader, cursor, oldest } => {
                write!(
                    f,
                    "events that {reader} had not taken may be gone: it stands at {cursor}, the queue begins at {oldest}"
                )
            }
        }
    }
}
