//! Policy: all that people have written about alarms, ready to be used.

use crate::inhibit::Explaining;
use crate::route::{Receiver, Tree};
use crate::silence::Silence;
use std::collections::HashMap;
use std::sync::Arc;

/// What decides about alarms.
#[derive(Clone, Debug)]
pub struct Policy {
    pub tree: Tree,
    pub silences: Vec<Silence>,
    pub explaining: Explaining,
    pub escalations: HashMap<Arc<str>, Escalation>,
    /// None where nobody wants to know.
    pub flapping: Option<Flapping>,
    pub storm: Option<Storm>,
}

/// People who are told one after another, until one of them acknowledges.
#[derive(Clone, Debug, PartialEq)]
pub struct Escalation {
    /// In ascending order of their times.
    pub steps: Vec<Step>,
    /// How often all steps are gone through again.
    pub repeat: u32,
}

/// Step of an escalation.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Seconds from the first message.
    pub after: i64,
    pub to: Arc<[Receiver]>,
}

/// When an alarm opens and ends too often to be told each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flapping {
    /// Changes within the window, 2 to [`crate::flap::CHANGES_MAX`].
    pub changes: usize,
    /// Seconds; as long without a change, an alarm is calm again.
    pub window: i64,
}

/// When so many hosts have alarms that one summary says more than all messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storm {
    /// Hosts that have alarms anew within the window.
    pub hosts: usize,
    /// Seconds.
    pub window: i64,
    /// Seconds for which groups wait behind the summary.
    pub hold: i64,
}

impl Default for Policy {
    /// The policy of a site that configures nothing: Open-Falcon's.
    fn default() -> Policy {
        Policy {
            tree: Tree::original(),
            silences: Vec::new(),
            explaining: Explaining::default(),
            escalations: HashMap::new(),
            flapping: None,
            storm: None,
        }
    }
}
