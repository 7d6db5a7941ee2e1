//! Metas: type and step of a series over time, for one that changed them.
//!
//! Why: a metric that was sent as COUNTER and is a GAUGE now has both in its history. What was stored before must not
//! be read as what it is not: raw counter readings are no values, and a rate knows the step of its own time.
//! How: points carry no type. A change notes until when the series was what it had been, and a point is what the
//! series was at its time: in memory, in blocks of any age, and after a replay of the log. Notes are few, for few
//! series ever change; they are in the series file, and in the table.
//! Invariants: notes ascend; at most [`PAST_MAX`] per series: of one that two senders pull to and fro the oldest
//! stretches become one.

use super::meta::Meta;
use model::CounterType;

/// Changes that are remembered of a series. Senders change a type once in a version or two; more is a quarrel between
/// two of them.
pub const PAST_MAX: usize = 16;

/// What a series was before `until` (Unix seconds), and after the note before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    pub until: u32,
    pub meta: Meta,
}

/// Type and step of a series at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metas {
    now: Meta,
    past: Box<[Past]>,
}

/// A stretch of time in which a series had one type and step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// First and last second.
    pub from: i64,
    pub to: i64,
    pub counter_type: CounterType,
    /// Seconds between points.
    pub step: u32,
}

impl Metas {
    /// A series that is `now` what it is, and was `past` before.
    pub fn new(now: Meta, past: &[Past]) -> Metas {
        Metas { now, past: past.into() }
    }

    /// Type and step at a time.
    #[inline]
    pub fn at(&self, time: u32) -> Meta {
        self.past.iter().find(|past| time < past.until).map_or(self.now, |past| past.meta)
    }

    /// Since when the series has been the gauge, or the counter, that it is at a time. 0 for always.
    #[inline]
    pub fn kind_since(&self, time: u32) -> u32 {
        // Nearly all series were always what they are.
        if self.past.is_empty() {
            return 0;
        }
        let before = self.past.partition_point(|past| past.until <= time);
        let meta = self.past.get(before).map_or(self.now, |past| past.meta);
        kind_since(meta, &self.past[..before])
    }

    /// Type and step of all stretches.
    fn all(&self) -> impl Iterator<Item = Meta> {
        self.past.iter().map(|past| past.meta).chain([self.now])
    }

    /// The longest step of a stretch in which the series was a counter; 0 if it never was.
    pub fn longest_counter_step(&self) -> u32 {
        self.all().filter(|meta| !meta.counter_type.is_gauge()).map(|meta| meta.step).max().unwrap_or(0)
    }

    /// All stretches, ascending.
    pub fn stretches(&self) -> Vec<Stretch> {
        let mut from = 0;
        let untils = self.past.iter().map(|past| i64::from(past.until)).chain([i64::MAX]);
        let stretch = |(meta, until): (Meta, i64)| {
            let begun = std::mem::replace(&mut from, until);
            Stretch { from: begun, to: until - 1, counter_type: meta.counter_type, step: meta.step }
        };
        self.all().zip(untils).map(stretch).collect()
    }
}

/// Since when a series has been a gauge, or has not: points before are no part of its window. 0 for always.
pub fn kind_since(now: Meta, past: &[Past]) -> u32 {
    let other = past.iter().rev().find(|past| past.meta.counter_type.is_gauge() != now.counter_type.is_gauge());
    other.map_or(0, |past| past.until)
}

/// Notes what a series was until a time; a note that is there already stays.
pub fn note(past: &mut Vec<Past>, new: Past) {
    let at = past.partition_point(|old| old.until < new.until);
    if past.get(at).is_some_and(|old| old.until == new.until) {
        return;
    }
    past.insert(at, new);
    if past.len() > PAST_MAX {
        past.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAUGE: Meta = Meta { counter_type: CounterType::Gauge, step: 60 };
    const COUNTER: Meta = Meta { counter_type: CounterType::Counter, step: 30 };
    const DERIVE: Meta = Meta { counter_type: CounterType::Derive, step: 60 };

    #[test]
    fn a_time_has_the_type_of_its_stretch() {
        let past = [Past { until: 100, meta: COUNTER }, Past { until: 200, meta: DERIVE }];
        let metas = Metas::new(GAUGE, &past);
        assert_eq!(
            [0, 99, 100, 199, 200, u32::MAX].map(|time| metas.at(time)),
            [COUNTER, COUNTER, DERIVE, DERIVE, GAUGE, GAUGE]
        );
        let told: Vec<_> = metas.stretches().iter().map(|one| (one.from, one.to, one.step)).collect();
        assert_eq!(told, [(0, 99, 30), (100, 199, 60), (200, i64::MAX - 1, 60)]);
        assert_eq!((metas.longest_counter_step(), Metas::new(GAUGE, &[]).longest_counter_step()), (60, 0));
        assert_eq!([0, 199, 200].map(|time| metas.kind_since(time)), [0, 0, 200]);
        assert_eq!((kind_since(GAUGE, &past), kind_since(COUNTER, &past), kind_since(GAUGE, &[])), (200, 0, 0));
    }

    #[test]
    fn notes_ascend_and_have_a_bound() {
        let mut past = Vec::new();
        for until in [50, 10, 30, 10, 50] {
            note(&mut past, Past { until, meta: GAUGE });
        }
        assert_eq!(past.iter().map(|past| past.until).collect::<Vec<_>>(), [10, 30, 50]);
        (0..100).for_each(|i| note(&mut past, Past { until: 1000 + i, meta: COUNTER }));
        assert_eq!((past.len(), past[PAST_MAX - 1].until), (PAST_MAX, 1099));
    }
}
