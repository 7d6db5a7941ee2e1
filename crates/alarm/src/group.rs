//! Group: alarms of one route that people hear of together.
//!
//! How: a group waits from its first alarm on, then says what is there; later it says what has changed, not more often
//! than the route's interval, and repeats itself where the route wants that. When all its alarms have ended it says so
//! at once, and is gone.
//! Invariants: an alarm that was told of as open is told of as ended, and no other is.

use crate::inhibit::Serial;
use crate::route::Receiver;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Alarms that are told together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Path of the route, by which the route is found again.
    pub route: String,
    /// What its alarms have in common.
    pub key: Box<str>,
    /// Whom its route tells, or told when there still was one.
    pub to: Arc<[Receiver]>,
    pub members: BTreeMap<Serial, Member>,
    /// Unix seconds of the last message; none before the first.
    pub said: Option<i64>,
    /// Unix seconds of the next look at what has changed; none while nothing has.
    pub next: Option<i64>,
    pub escalating: Option<Escalating>,
}

/// An alarm in a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// People know of it.
    pub is_told: bool,
    /// People are told again, for the acknowledgement is over.
    pub is_asked_again: bool,
    /// Today the alarm would go another way; its end is told here all the same.
    pub has_left: bool,
}

/// How far an escalation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escalating {
    /// Unix seconds from which its steps count.
    pub since: i64,
    /// Steps that were taken.
    pub steps: usize,
    /// Rounds that are over.
    pub rounds: u32,
}

impl Group {
    /// A group without alarms.
    pub fn new(route: &str, key: &str, to: Arc<[Receiver]>) -> Group {
        Group {
            route: route.to_string(),
            key: key.into(),
            to,
            members: BTreeMap::new(),
            said: None,
            next: None,
            escalating: None,
        }
    }

    /// Whether people know of an alarm by this group.
    pub fn is_told(&self, serial: Serial) -> bool {
        self.members.get(&serial).is_some_and(|member| member.is_told)
    }

    /// Sees to a look at this moment at the latest.
    pub fn look_at(&mut self, at: i64) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// Moves all times.
    pub fn shift(&mut self, by: i64) {
        for time in [&mut self.said, &mut self.next].into_iter().flatten() {
            *time += by;
        }
        if let Some(escalating) = &mut self.escalating {
            escalating.since += by;
        }
    }
}
