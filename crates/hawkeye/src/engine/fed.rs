//! Fed: endpoints to whose series rows of the portal give points (probes, jobs), and the alarms of those that get none
//! any more.
//!
//! Why: a probe that is deleted while it is down gets no point that would end its alarm, and would stay red for ever.
//! How: whoever makes the points notes which endpoints have some. One that is missing is due some time later: agents go
//! on for a minute, and a point of theirs would open the alarm again.
//! Invariants: what is missing at the first look may have been there before, and is not known; nothing is due twice.
//! Memory: the names.

use std::collections::{BTreeMap, BTreeSet};

/// Endpoints that rows give points to.
#[derive(Debug, Default)]
pub struct Fed {
    /// None before the first look.
    fed: Option<BTreeSet<String>>,
    /// Unix seconds since which each gets no more points.
    left: BTreeMap<String, i64>,
}

impl Fed {
    /// Notes which endpoints get points at `now`.
    pub fn note(&mut self, fed: BTreeSet<String>, now: i64) {
        self.left.retain(|name, _| !fed.contains(name));
        let before = self.fed.as_ref().into_iter().flatten();
        let gone: Vec<String> = before.filter(|name| !fed.contains(*name)).cloned().collect();
        self.left.extend(gone.into_iter().map(|name| (name, now)));
        self.fed = Some(fed);
    }

    /// Takes the endpoints that have had none for `grace` seconds; all, where the clock was set back.
    pub fn due(&mut self, grace: i64, now: i64) -> Vec<String> {
        let due = self.left.extract_if(.., |_, since| now - *since >= grace || *since > now);
        due.map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gets_no_more_points_is_due_once() {
        let set = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<BTreeSet<_>>();
        let mut fed = Fed::default();
        fed.note(set(&["a", "b", "c"]), 100);
        assert_eq!(fed.due(0, 100), [""; 0]);
        fed.note(set(&["c"]), 110);
        assert_eq!(fed.due(60, 169), [""; 0]);
        // Back in time.
        fed.note(set(&["b", "c"]), 120);
        assert_eq!(fed.due(60, 170), ["a"]);
        assert_eq!(fed.due(60, 1000), [""; 0]);
        fed.note(set(&[]), 2000);
        assert_eq!(fed.due(60, 500), ["b", "c"], "the clock was set back");
    }
}
