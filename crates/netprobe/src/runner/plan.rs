//! Plan: which probe is due when.
//!
//! How: a heap of due times by the steady clock. When a probe begins, its next time is worked out from the wall clock:
//! its offset in the next slot. A clock that jumps is so believed at the next run, and can hold a probe up for two
//! steps at most.
//! Invariants: pure, times are arguments (milliseconds); at most one run in each slot.

use crate::definition::Definition;
use crate::spread::spread;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

/// Now, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// Milliseconds since 1970.
    pub wall_ms: i64,
    /// Milliseconds since some start.
    pub steady_ms: i64,
}

/// Probes and their times.
#[derive(Debug, Default)]
pub(super) struct Plan {
    probes: Vec<Planned>,
    /// Due times with places in `probes`, the next first.
    due: BinaryHeap<Reverse<(i64, usize)>>,
}

#[derive(Debug)]
struct Planned {
    definition: Arc<Definition>,
    offset_ms: i64,
    /// Slot of the last run; `None` before the first.
    last_slot: Option<i64>,
}

/// A probe that is to run now.
pub(super) struct Due {
    pub definition: Arc<Definition>,
    /// Slots that went by without a run since the last one.
    pub missed: u64,
}

impl Planned {
    fn step_ms(&self) -> i64 {
        i64::from(self.definition.step.max(1)) * 1000
    }

    /// Milliseconds until its next time: in this slot, or the next where it has run in this one or its time is over.
    fn wait_ms(&self, wall_ms: i64) -> i64 {
        let step_ms = self.step_ms();
        let slot = wall_ms.div_euclid(step_ms);
        let in_this = slot * step_ms + self.offset_ms;
        let has_run = self.last_slot == Some(slot);
        let next = if has_run || in_this < wall_ms { in_this + step_ms } else { in_this };
        next - wall_ms
    }
}

impl Plan {
    /// Plans these probes; those that were planned before, by name and step, keep their time. `place` is added to the
    /// names for the offsets.
    pub fn replace(&mut self, definitions: &[Arc<Definition>], place: &str, now: Now) {
        let (before, times) = (std::mem::take(&mut self.probes), std::mem::take(&mut self.due));
        let known: HashMap<(&str, u32), (i64, Option<i64>)> = times
            .iter()
            .map(|Reverse((due, at))| {
                let Planned { definition, last_slot, .. } = &before[*at];
                ((definition.name.as_str(), definition.step), (*due, *last_slot))
            })
            .collect();
        for definition in definitions {
            let known = known.get(&(definition.name.as_str(), definition.step));
            let probe = Planned {
                offset_ms: spread(&format!("{}{place}", definition.name), definition.step).as_millis() as i64,
                last_slot: known.and_then(|(_, last_slot)| *last_slot),
                definition: definition.clone(),
            };
            let due = known.map_or_else(|| now.steady_ms + probe.wait_ms(now.wall_ms), |(due, _)| *due);
            self.due.push(Reverse((due, self.probes.len())));
            self.probes.push(probe);
        }
    }

    /// Milliseconds until a probe is due; `None` where there is none.
    pub fn wait_ms(&self, steady_ms: i64) -> Option<u64> {
        self.due.peek().map(|Reverse((due, _))| (due - steady_ms).max(0) as u64)
    }

    /// Takes a probe that is due, and plans its next run.
    pub fn take(&mut self, now: Now) -> Option<Due> {
        let Reverse((_, at)) = self.due.peek().copied().filter(|Reverse((due, _))| *due <= now.steady_ms)?;
        self.due.pop();
        let probe = &mut self.probes[at];
        let slot = now.wall_ms.div_euclid(probe.step_ms());
        // A clock that was set back has missed nothing.
        let missed = probe.last_slot.map_or(0, |last| (slot - last - 1).max(0) as u64);
        probe.last_slot = Some(slot);
        self.due.push(Reverse((now.steady_ms + probe.wait_ms(now.wall_ms), at)));
        Some(Due { definition: probe.definition.clone(), missed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn probes(count: usize, step: u32) -> Vec<Arc<Definition>> {
        let read =
            |i| serde_json::from_value(json!({"name": format!("p{i}"), "kind": "icmp", "target": "h", "step": step}));
        (0..count).map(|i| Arc::new(read(i).expect("a definition"))).collect()
    }

    /// Times (wall clock, seconds) of the runs until the steady clock says `until_s`; `wall` has the wall clock's
    /// seconds for the steady one's.
    fn runs(plan: &mut Plan, until_s: i64, wall: impl Fn(i64) -> i64) -> Vec<i64> {
        let mut at = Vec::new();
        for second in 0..until_s {
            let now = Now { wall_ms: wall(second) * 1000, steady_ms: second * 1000 };
            while plan.take(now).is_some() {
                at.push(wall(second));
            }
        }
        at
    }

    #[test]
    fn one_run_in_each_slot() {
        for name in 0..20 {
            let mut plan = Plan::default();
            let own = probes(name + 1, 60).split_off(name);
            plan.replace(&own, "", Now { wall_ms: 1_000_000_000, steady_ms: 0 });
            let slots: Vec<i64> = runs(&mut plan, 3600, |s| 1_000_000 + s).iter().map(|at| at / 60).collect();
            assert!(slots.windows(2).all(|pair| pair[1] == pair[0] + 1) && slots.len() >= 59, "{slots:?}");
        }
    }

    #[test]
    fn a_change_neither_repeats_nor_skips_a_slot() {
        let (mut plan, mut slots) = (Plan::default(), Vec::new());
        let own = probes(1, 60);
        for second in 0..3600 {
            let now = Now { wall_ms: (1_000_000 + second) * 1000, steady_ms: second * 1000 };
            // Somebody saves a probe every seven seconds.
            if second % 7 == 0 {
                plan.replace(&own, "", now);
            }
            while plan.take(now).is_some() {
                slots.push((1_000_000 + second) / 60);
            }
        }
        assert!(slots.windows(2).all(|pair| pair[1] == pair[0] + 1) && slots.len() >= 59, "{slots:?}");
    }

    #[test]
    fn a_clock_that_jumps_holds_nothing_up() {
        let check = |jump_s: i64| {
            let mut plan = Plan::default();
            plan.replace(&probes(1, 60), "", Now { wall_ms: 0, steady_ms: 0 });
            let count = runs(&mut plan, 3600, |s| 1_000_000 + if s < 1000 { s } else { s + jump_s }).len();
            assert!((58..=61).contains(&count), "{jump_s}: {count}");
        };
        check(0);
        check(86_400);
        check(-86_400);
        check(30);
        check(-30);
    }

    #[test]
    fn slots_that_went_by_are_counted() {
        let mut plan = Plan::default();
        plan.replace(&probes(1, 60), "", Now { wall_ms: 0, steady_ms: 0 });
        let missed = |plan: &mut Plan, ms| plan.take(Now { wall_ms: ms, steady_ms: ms }).map(|due| due.missed);
        assert_eq!(missed(&mut plan, 59_999), Some(0));
        assert_eq!(missed(&mut plan, 59_999), None);
        assert_eq!(missed(&mut plan, 300_000), Some(4));
        assert_eq!(Plan::default().wait_ms(0), None);
    }
}
