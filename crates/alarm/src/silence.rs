//! Silence: alarms of which nobody is told for a while, because somebody said so.
//!
//! How: matchers that all must match, a time, and within it perhaps times of the week: backups run each Sunday night.
//! Invariants: a silence without a matcher, which would silence all, is none.

use crate::fact::Fact;
use crate::matcher::{MATCHERS_MAX, Matcher, all_match};
use crate::window::Window;

/// Alarms that tell nobody.
#[derive(Clone, Debug, PartialEq)]
pub struct Silence {
    pub id: i64,
    pub matchers: Vec<Matcher>,
    /// Unix seconds.
    pub from: i64,
    /// Unix seconds; the silence is over then.
    pub until: i64,
    /// Times of the week; none is all the time.
    pub window: Option<Window>,
    pub comment: String,
    pub who: String,
}

impl Silence {
    /// Everything that is wrong, each with the fix.
    pub fn check(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.matchers.is_empty() || self.matchers.len() > MATCHERS_MAX {
            faults.push(format!("matchers has {}: give 1 to {MATCHERS_MAX}", self.matchers.len()));
        }
        if self.until <= self.from {
            faults.push(format!("until is {}, and from {}: give a later one", self.until, self.from));
        }
        faults
    }

    /// Whether it silences anything at a moment.
    pub fn is_on(&self, at: i64) -> bool {
        (self.from..self.until).contains(&at) && self.window.as_ref().is_none_or(|window| window.contains(at))
    }

    /// Whether it silences this alarm, while it is on.
    pub fn matches(&self, fact: &Fact) -> bool {
        !self.matchers.is_empty() && all_match(&self.matchers, fact)
    }

    /// The next moment at which [`is_on`](Silence::is_on) may be another; none where it is over.
    pub fn next_change(&self, at: i64) -> Option<i64> {
        if at >= self.until {
            return None;
        }
        if at < self.from {
            return Some(self.from);
        }
        let of_week = self.window.as_ref().and_then(|window| window.next_change(at));
        Some(of_week.map_or(self.until, |change| change.min(self.until)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;

    fn silence(matchers: &[&str], window: Option<&str>) -> Silence {
        let matchers = matchers.iter().map(|text| Matcher::parse(text).expect(text)).collect();
        let window = window.map(|text| Window::parse(&[text], TimeZone::UTC).expect(text));
        Silence { id: 1, matchers, from: 1000, until: 1_000_000, window, comment: String::new(), who: String::new() }
    }

    #[test]
    fn on_and_over() {
        let always = silence(&["priority=1"], None);
        assert_eq!([999, 1000, 999_999, 1_000_000].map(|at| always.is_on(at)), [false, true, true, false]);
        let changes = [0, 1000, 999_999, 1_000_000].map(|at| always.next_change(at));
        assert_eq!(changes, [Some(1000), Some(1_000_000), Some(1_000_000), None]);
        // 1970-01-04 was a Sunday.
        let nights = silence(&["priority=1"], Some("sun 02:00-04:00"));
        let sunday = 3 * 86_400;
        assert_eq!(nights.next_change(1000), Some(sunday + 7200));
        assert!(nights.is_on(sunday + 7200) && !nights.is_on(sunday + 4 * 3600));
        assert_eq!(nights.next_change(sunday + 7200), Some(sunday + 4 * 3600));
    }

    #[test]
    fn nothing_silences_everything() {
        assert!(!silence(&[], None).matches(&Fact::default()));
        assert_eq!(silence(&[], None).check().len(), 1);
        assert_eq!(Silence { until: 0, ..silence(&["priority=1"], None) }.check().len(), 1);
        assert!(silence(&["priority=0"], None).matches(&Fact::default()));
    }
}
