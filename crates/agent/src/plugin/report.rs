//! Report: what the agent says about its plugins, as points.
//!
//! | metric | type | tags | meaning |
//! | --- | --- | --- | --- |
//! | `agent.plugin.ok` | GAUGE | `plugin`, `args` | 1 after a run that was as it should be, else 0 |
//! | `agent.plugin.exit` | GAUGE | `plugin`, `args` | exit code, or 128 + signal; absent if killed by us |
//! | `agent.plugin.duration` | GAUGE | `plugin`, `args` | seconds that the run took |
//! | `agent.plugin.runs` | COUNTER | | runs of all plugins |
//! | `agent.plugin.failures` | COUNTER | `reason` | runs that failed, by the name of a [`Reason`] |
//!
//! How: the first three once per run, at its time and with its cycle as step; the others once per interval of the agent
//! while plugins are bound.
//! Invariants: `plugin` is the path, `args` what stands between the parentheses, both without blanks and with `_` for
//! commas, as every tag of a name; no `args` where there are none.

use super::plan::Plugin;
use super::run::{Ran, Reason};
use model::tags::canonical_string;
use probe::Reading;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start.
#[derive(Default)]
pub struct Counters {
    pub runs: AtomicU64,
    /// Runs that failed, in the order of [`Reason::ALL`].
    failures: [AtomicU64; Reason::ALL.len()],
}

impl Counters {
    /// Counts a run.
    pub fn count(&self, ran: &Ran) {
        self.runs.fetch_add(1, Ordering::Relaxed);
        if let Some(fault) = &ran.fault {
            self.failures[fault.reason() as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Runs that failed.
    pub fn failures(&self) -> u64 {
        self.failures.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Readings of the counts.
    pub fn readings(&self) -> Vec<Reading> {
        let runs = self.runs.load(Ordering::Relaxed) as f64;
        let failures = Reason::ALL.iter().map(|reason| {
            let count = self.failures[*reason as usize].load(Ordering::Relaxed) as f64;
            Reading::counter("agent.plugin.failures", &format!("reason={}", reason.as_str()), count)
        });
        std::iter::once(Reading::counter("agent.plugin.runs", "", runs)).chain(failures).collect()
    }
}

/// Readings about a run.
pub fn readings(plugin: &Plugin, ran: &Ran) -> Vec<Reading> {
    let tags = tags_of(plugin);
    let ok = f64::from(u8::from(ran.fault.is_none()));
    let mut readings = vec![
        Reading::gauge("agent.plugin.ok", &tags, ok),
        Reading::gauge("agent.plugin.duration", &tags, ran.duration.as_secs_f64()),
    ];
    readings.extend(ran.exit.map(|code| Reading::gauge("agent.plugin.exit", &tags, f64::from(code))));
    readings
}

fn tags_of(plugin: &Plugin) -> String {
    let safe = |text: &str| text.replace(',', "_");
    let args = safe(&plugin.args).replace(' ', "");
    let args = if args.is_empty() { args } else { format!(",args={args}") };
    canonical_string(&format!("plugin={}{args}", safe(&plugin.path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_cannot_be_broken_by_a_path_or_arguments() {
        let check = |path: &str, args: &str, tags: &str| {
            let plugin = Plugin { path: path.into(), mtime: 0, cycle_s: 60, args: args.into() };
            assert_eq!(tags_of(&plugin), tags);
        };
        check("sys/60_a.sh", "", "plugin=sys/60_a.sh");
        check("sys/60_a.sh", " ", "plugin=sys/60_a.sh");
        check("sys/60_a b,c=d.sh", "a, \"b c\",k=v", "args=a_\"bc\"_k=v,plugin=sys/60_ab_c=d.sh");
    }

    #[test]
    fn reasons_count_by_their_place() {
        assert!(Reason::ALL.iter().enumerate().all(|(index, reason)| *reason as usize == index));
    }
}
