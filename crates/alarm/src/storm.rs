//! Storm: whether so many hosts have alarms at once that people are told of that first.
//!
//! Memory: an entry per alarm that has opened within the window.

use crate::policy::Storm;
use crate::route::Receiver;
use std::collections::{BTreeSet, HashMap, VecDeque};

/// The hosts that have alarms anew, and the storm that they make.
#[derive(Clone, Debug, Default)]
pub struct Weather {
    opened: VecDeque<(i64, Box<str>)>,
    hosts: HashMap<Box<str>, usize>,
    storm: Option<Raging>,
}

/// A storm.
#[derive(Clone, Debug)]
struct Raging {
    /// Groups wait until then.
    until: i64,
    /// Who has had the summary.
    told: BTreeSet<Receiver>,
}

impl Weather {
    /// Notes a host that has an alarm anew.
    pub fn note(&mut self, endpoint: &str, now: i64) {
        self.opened.push_back((now, endpoint.into()));
        *self.hosts.entry(endpoint.into()).or_default() += 1;
    }

    /// Looks at a moment whether there is a storm; true while there is.
    pub fn look(&mut self, settings: Option<Storm>, now: i64) -> bool {
        let Some(settings) = settings else {
            *self = Weather::default();
            return false;
        };
        while self.opened.front().is_some_and(|(at, _)| *at <= now - settings.window) {
            let Some((_, host)) = self.opened.pop_front() else { break };
            if let Some(count) = self.hosts.get_mut(&host) {
                *count -= 1;
                if *count == 0 {
                    self.hosts.remove(&host);
                }
            }
        }
        if self.hosts.len() >= settings.hosts.max(1) {
            let told = self.storm.take().map_or_else(BTreeSet::new, |storm| storm.told);
            self.storm = Some(Raging { until: now + settings.hold, told });
        } else if self.storm.as_ref().is_some_and(|storm| storm.until <= now) {
            self.storm = None;
        }
        self.storm.is_some()
    }

    /// Until when groups wait; none where there is no storm.
    pub fn until(&self) -> Option<i64> {
        self.storm.as_ref().map(|storm| storm.until)
    }

    /// Those of some receivers who do not have the summary of this storm, who have it from now on.
    pub fn untold(&mut self, to: &[Receiver]) -> Vec<Receiver> {
        let Some(storm) = &mut self.storm else { return Vec::new() };
        to.iter().filter(|receiver| storm.told.insert((*receiver).clone())).cloned().collect()
    }

    /// Hosts that have alarms anew.
    pub fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// Moves all times.
    pub fn shift(&mut self, by: i64) {
        self.opened.iter_mut().for_each(|(at, _)| *at += by);
        if let Some(storm) = &mut self.storm {
            storm.until += by;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_hosts_at_once_are_a_storm_until_it_is_quiet() {
        let settings = Some(Storm { hosts: 3, window: 60, hold: 120 });
        let mut weather = Weather::default();
        for (host, at) in [("a", 0), ("a", 1), ("b", 2)] {
            weather.note(host, at);
            assert!(!weather.look(settings, at));
        }
        weather.note("c", 10);
        assert!(weather.look(settings, 10));
        assert_eq!((weather.until(), weather.hosts()), (Some(130), 3));
        // `a` is old at 61.
        assert!(weather.look(settings, 61) && weather.hosts() == 2);
        assert!(weather.look(settings, 129) && !weather.look(settings, 130));
        assert!(weather.hosts.is_empty());
        assert!(!weather.look(None, 131));
    }
}
