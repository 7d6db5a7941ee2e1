//! Effect: what follows from a decision: somebody is told, a line is added to an alarm's story.

use crate::route::Receiver;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// What follows.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// The rule's own action is taken, as Open-Falcon takes it: for the event at hand, or for the newest one where the
    /// alarm is no longer quiet.
    Action {
        alarm: Box<str>,
        has_ended: bool,
    },
    Notice(Notice),
    /// A line of an alarm's story.
    Story {
        alarm: Box<str>,
        line: Line,
    },
    /// A silence is over; these alarms that it silenced are still open.
    SilenceOver {
        silence: i64,
        open: Vec<Box<str>>,
    },
}

/// One message to some receivers.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// Number of the group; messages of one group follow each other.
    pub group: u64,
    /// Path of the route.
    pub route: Arc<str>,
    pub what: What,
    pub to: Arc<[Receiver]>,
    /// Open alarms that are told for the first time.
    pub fresh: Vec<Box<str>>,
    /// Open alarms that were told before.
    pub known: Vec<Box<str>>,
    /// Alarms that have ended since the message before.
    pub ended: Vec<Box<str>>,
}

/// Kind of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The first of a group.
    Problem,
    /// Something has changed.
    Update,
    /// Nothing has changed, and it is still so.
    Repeat,
    /// All alarms of the group have ended.
    Resolved,
    /// Nobody has acknowledged; the number of the step from 1.
    Escalation(usize),
    /// An alarm opens and ends again and again: so many changes.
    Flapping(usize),
    /// So many hosts have alarms at once; messages of groups come later.
    Storm(usize),
}

/// A line of an alarm's story.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Unix seconds.
    pub at: i64,
    pub text: String,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Problem => f.write_str("problem"),
            What::Update => f.write_str("update"),
            What::Repeat => f.write_str("repeat"),
            What::Resolved => f.write_str("resolved"),
            What::Escalation(step) => write!(f, "escalation step {step}"),
            What::Flapping(changes) => write!(f, "flapping, {changes} changes"),
            What::Storm(hosts) => write!(f, "storm, {hosts} hosts"),
        }
    }
}
