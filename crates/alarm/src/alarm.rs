//! Alarm: a case that is open, or ended a moment ago, with all that decides whether people hear of it.

use crate::fact::Fact;
use crate::flap::Changes;
use serde::{Deserialize, Serialize};

/// An alarm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// `s_<strategy>_<series>`: one per rule and series.
    pub id: Box<str>,
    pub fact: Fact,
    /// Unix seconds of its opening.
    pub since: i64,
    /// Unix seconds; none while it is open.
    pub ended: Option<i64>,
    pub acknowledged: Option<Box<Acknowledged>>,
    pub quiet: Quiet,
    pub is_flapping: bool,
    /// A route of its is the rule's own action.
    pub is_for_action: bool,
    /// The action was taken for this opening.
    pub is_acted: bool,
    pub changes: Changes,
    /// Groups that it is in.
    pub groups: Vec<u64>,
}

/// Somebody has taken it on himself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    pub who: Box<str>,
    /// Unix seconds, as the next.
    pub at: i64,
    /// None is until it ends.
    pub until: Option<i64>,
}

/// Why nobody is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quiet {
    #[default]
    Loud,
    /// By the silence of this number.
    Silenced(i64),
    /// By another alarm, as a rule says.
    Explained { alarm: Box<str>, rule: Box<str> },
}

impl Alarm {
    /// An alarm that opens now.
    pub fn new(id: &str, fact: Fact, now: i64) -> Alarm {
        let mut changes = Changes::default();
        changes.note(now);
        Alarm {
            id: id.into(),
            fact,
            since: now,
            ended: None,
            acknowledged: None,
            quiet: Quiet::Loud,
            is_flapping: false,
            is_for_action: false,
            is_acted: false,
            changes,
            groups: Vec::new(),
        }
    }

    pub fn is_open(&self) -> bool {
        self.ended.is_none()
    }

    /// Whether nothing keeps people from hearing that it is open.
    pub fn is_to_be_told(&self) -> bool {
        self.quiet == Quiet::Loud && self.acknowledged.is_none() && !self.is_flapping
    }

    /// Moves all times.
    pub fn shift(&mut self, by: i64) {
        self.since += by;
        self.changes.shift(by);
        if let Some(ended) = &mut self.ended {
            *ended += by;
        }
    }
}
