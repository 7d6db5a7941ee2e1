//! Rota: who is on call, and when somebody else takes over.
//!
//! How: layers of people who take turns, counted from a local time, so that a hand-over at nine stays at nine over a
//! change of the clock; a later layer wins over those before it, and an override over all. A layer may hold at some
//! times of the week only.
//! Invariants: who is on call changes at [`next_change`](Rota::next_change) and at no moment before. Nobody on call is
//! a gap, which is shown.

use crate::window::{Window, date_of, moment};
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, Unit};

/// Layers of a rota.
const LAYERS_MAX: usize = 8;
/// People of a layer.
const PEOPLE_MAX: usize = 64;
/// Shifts of one list; a year of half days has 730.
pub const SHIFTS_MAX: usize = 2000;

/// Who is on call.
#[derive(Clone, Debug)]
pub struct Rota {
    pub name: String,
    pub zone: TimeZone,
    /// Each wins over those before it.
    pub layers: Vec<Layer>,
    pub overrides: Vec<Override>,
}

/// People who take turns.
#[derive(Clone, Debug)]
pub struct Layer {
    pub people: Vec<String>,
    /// Local time of the first hand-over.
    pub start: DateTime,
    pub turn: Turn,
    /// Times of the week; none is always.
    pub during: Option<Window>,
}

/// How long one has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Whole days, by the local clock.
    Days(u16),
    /// Hours, by the steady clock.
    Hours(u16),
}

/// Somebody who stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    pub person: String,
    /// Unix seconds.
    pub from: i64,
    /// Unix seconds; the override is over then.
    pub until: i64,
}

/// A time in which one is on call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shift {
    /// None is a gap.
    pub person: Option<String>,
    pub from: i64,
    pub until: i64,
}

impl Rota {
    /// Everything that is wrong, each with the fix.
    pub fn check(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.layers.is_empty() || self.layers.len() > LAYERS_MAX {
            faults.push(format!("layers has {}: give 1 to {LAYERS_MAX}", self.layers.len()));
        }
        for (at, layer) in self.layers.iter().enumerate() {
            if layer.people.is_empty() || layer.people.len() > PEOPLE_MAX {
                faults.push(format!("layer {at}: people has {}: give 1 to {PEOPLE_MAX}", layer.people.len()));
            }
            if matches!(layer.turn, Turn::Days(0) | Turn::Hours(0)) {
                faults.push(format!("layer {at}: a turn has no length: give at least one hour"));
            }
            if moment(&self.zone, layer.start.date(), layer.start.time()).is_none() {
                faults.push(format!("layer {at}: start is {}, which no calendar has: give another", layer.start));
            }
        }
        for other in self.overrides.iter().filter(|other| other.until <= other.from) {
            faults.push(format!("the override by {:?} ends before it begins: give a later end", other.person));
        }
        faults
    }

    /// Who is on call at a moment.
    pub fn on_call(&self, at: i64) -> Option<&str> {
        let stands_in = self.overrides.iter().rev().find(|other| (other.from..other.until).contains(&at));
        if let Some(other) = stands_in {
            return Some(&other.person);
        }
        self.layers.iter().rev().find_map(|layer| layer.on_call(&self.zone, at))
    }

    /// The next moment at which somebody else may be on call.
    pub fn next_change(&self, at: i64) -> Option<i64> {
        let of_layers = self.layers.iter().filter_map(|layer| layer.next_change(&self.zone, at));
        let of_overrides = self.overrides.iter().flat_map(|other| [other.from, other.until]);
        of_layers.chain(of_overrides.filter(|edge| *edge > at)).min()
    }

    /// Shifts between two moments, without a break; at most [`SHIFTS_MAX`].
    pub fn shifts(&self, from: i64, until: i64) -> Vec<Shift> {
        let (mut shifts, mut at): (Vec<Shift>, i64) = (Vec::new(), from);
        while at < until && shifts.len() < SHIFTS_MAX {
            let end = self.next_change(at).unwrap_or(until).min(until);
            let person = self.on_call(at).map(str::to_string);
            match shifts.last_mut().filter(|last| last.person == person) {
                Some(last) => last.until = end,
                None => shifts.push(Shift { person, from: at, until: end }),
            }
            at = end;
        }
        shifts
    }
}

impl Layer {
    fn on_call(&self, zone: &TimeZone, at: i64) -> Option<&str> {
        if self.during.as_ref().is_some_and(|window| !window.contains(at)) {
            return None;
        }
        let turn = usize::try_from(self.turns(zone, at)?).ok()?;
        Some(&self.people[turn % self.people.len()])
    }

    /// Turns that have ended at a moment; none before the start.
    fn turns(&self, zone: &TimeZone, at: i64) -> Option<i64> {
        let start = moment(zone, self.start.date(), self.start.time())?;
        if at < start || self.people.is_empty() {
            return None;
        }
        match self.turn {
            Turn::Hours(hours) => (at - start).checked_div(i64::from(hours) * 3600),
            Turn::Days(days) => {
                let since = self.start.date().until((Unit::Day, date_of(zone, at))).ok()?.get_days();
                let mut turns = i64::from(since).checked_div(days.into())?;
                // On the day of a hand-over the turn before lasts until its time.
                while turns > 0 && self.begin(zone, turns)? > at {
                    turns -= 1;
                }
                Some(turns)
            }
        }
    }

    /// The moment at which a turn begins.
    fn begin(&self, zone: &TimeZone, turn: i64) -> Option<i64> {
        match self.turn {
            Turn::Hours(hours) => {
                Some(moment(zone, self.start.date(), self.start.time())? + turn * i64::from(hours) * 3600)
            }
            Turn::Days(days) => {
                let days = Span::new().try_days(turn.checked_mul(days.into())?).ok()?;
                let date: Date = self.start.date().checked_add(days).ok()?;
                moment(zone, date, self.start.time())
            }
        }
    }

    fn next_change(&self, zone: &TimeZone, at: i64) -> Option<i64> {
        let next = self.turns(zone, at).map_or(0, |turns| turns + 1);
        let of_week = self.during.as_ref().and_then(|window| window.next_change(at));
        [self.begin(zone, next), of_week].into_iter().flatten().filter(|edge| *edge > at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone")
    }

    fn at(text: &str) -> i64 {
        text.parse::<DateTime>().expect(text).to_zoned(berlin()).expect(text).timestamp().as_second()
    }

    fn layer(people: &[&str], start: &str, turn: Turn, during: &[&str]) -> Layer {
        let during = (!during.is_empty()).then(|| Window::parse(during, berlin()).expect("times"));
        let people = people.iter().map(|name| name.to_string()).collect();
        Layer { people, start: start.parse().expect(start), turn, during }
    }

    fn rota(layers: Vec<Layer>) -> Rota {
        Rota { name: "web".into(), zone: berlin(), layers, overrides: Vec::new() }
    }

    #[test]
    fn turns_keep_their_local_time_over_a_change_of_the_clock() {
        let weekly = rota(vec![layer(&["a", "b"], "2026-03-23T09:00", Turn::Days(7), &[])]);
        let check = |time: &str, who: Option<&str>| assert_eq!(weekly.on_call(at(time)), who, "{time}");
        check("2026-03-23T08:59:59", None);
        check("2026-03-23T09:00:00", Some("a"));
        check("2026-03-30T08:59:59", Some("a"));
        check("2026-03-30T09:00:00", Some("b"));
        check("2026-04-06T09:00:00", Some("a"));
        assert_eq!(weekly.next_change(at("2026-03-24T00:00:00")), Some(at("2026-03-30T09:00:00")));
        let hourly = rota(vec![layer(&["a", "b"], "2026-03-28T20:00", Turn::Hours(12), &[])]);
        assert_eq!(hourly.next_change(at("2026-03-28T20:00:00")), Some(at("2026-03-29T09:00:00")));
    }

    #[test]
    fn later_layers_and_overrides_win_and_gaps_are_shown() {
        let mut rota = rota(vec![
            layer(&["day"], "2026-11-02T00:00", Turn::Days(1), &["mon-fri 08:00-20:00"]),
            layer(&["lead"], "2026-11-02T00:00", Turn::Days(1), &["mon 08:00-10:00"]),
        ]);
        rota.overrides.push(Override {
            person: "other".into(),
            from: at("2026-11-30T09:00:00"),
            until: at("2026-11-30T12:00:00"),
        });
        let shifts = rota.shifts(at("2026-11-30T00:00:00"), at("2026-12-01T00:00:00"));
        let seen: Vec<(Option<&str>, i64)> =
            shifts.iter().map(|shift| (shift.person.as_deref(), (shift.until - shift.from) / 3600)).collect();
        let expected = [(None, 8), (Some("lead"), 1), (Some("other"), 3), (Some("day"), 8), (None, 4)];
        assert_eq!(seen, expected);
    }

    #[test]
    fn faults() {
        let mut broken = rota(vec![layer(&[], "2026-11-02T00:00", Turn::Days(0), &[])]);
        broken.overrides.push(Override { person: "x".into(), from: 5, until: 5 });
        assert_eq!(broken.check().len(), 3);
        assert_eq!((broken.on_call(2_000_000_000), broken.next_change(2_000_000_000)), (None, None));
        assert_eq!(rota(vec![layer(&["a"], "2026-11-02T00:00", Turn::Days(1), &[])]).check(), [""; 0]);
    }

    proptest! {
        #[test]
        fn nobody_takes_over_before_the_next_change(
            days in 1_u16..20, hours in 1_u16..50, by_day in any::<bool>(), start in 1_770_000_000_i64..1_800_000_000
        ) {
            let turn = if by_day { Turn::Days(days) } else { Turn::Hours(hours) };
            let rota = rota(vec![
                layer(&["a", "b", "c"], "2026-02-01T09:30", turn, &[]),
                layer(&["d"], "2026-05-01T00:00", Turn::Days(1), &["sat,sun 22:00-07:00"]),
            ]);
            let end = rota.next_change(start).expect("turns go on");
            prop_assert!(end > start);
            for step in 0..100 {
                let moment = start + (end - start) * step / 100;
                prop_assert_eq!(rota.on_call(moment), rota.on_call(start));
            }
            let shifts = rota.shifts(start, start + 40 * 86_400);
            prop_assert!(shifts.windows(2).all(|pair| pair[0].until == pair[1].from && pair[0].person != pair[1].person));
            prop_assert_eq!(shifts.last().map(|last| last.until), Some(start + 40 * 86_400));
        }
    }
}
