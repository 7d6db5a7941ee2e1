//! Gone: why a rule applies to a host no longer, for those who were told of a PROBLEM and will hear of no recovery.
//!
//! How: the reason is looked for only when an alarm is closed, in the tables from which the rules were computed. Of all
//! reasons that are true the most deliberate one is told.

use super::except::Exceptions;
use super::resolve::{is_monitored, is_open, minute_of};
use super::snapshot::{HostRow, Snapshot};
use crate::clock;
use crate::portal::exception::Exception;
use crate::portal::strategy::Strategy;
use crate::portal::template;
use jiff::Zoned;
use judge::RuleId;
use model::SeriesKey;

impl Snapshot {
    /// The reason, as a sentence for people.
    pub fn why_gone(&self, rule: RuleId, key: SeriesKey<'_>, now: &Zoned) -> String {
        match rule {
            RuleId::Strategy(id) => self.why_strategy_gone(id, key, now),
            RuleId::Expression(id) if self.paused.contains(&id) => "the expression is paused".to_string(),
            RuleId::Expression(id) if self.expressions.iter().any(|expression| expression.id == id) => {
                "the expression no longer applies to this series".to_string()
            }
            RuleId::Expression(_) => "the expression was deleted".to_string(),
        }
    }

    fn why_strategy_gone(&self, id: i64, key: SeriesKey<'_>, now: &Zoned) -> String {
        let Some(strategy) = self.strategies.iter().find(|strategy| strategy.id == id) else {
            return "the strategy was deleted".to_string();
        };
        let Some(host) = self.host(key.endpoint) else { return "the host was removed from the portal".to_string() };
        if !is_monitored(host, now.timestamp().as_second()) {
            return in_maintenance(host);
        }
        if !is_open(&strategy.run_begin, &strategy.run_end, &minute_of(now)) {
            return outside_hours(strategy);
        }
        let chains = host.templates.iter().filter_map(|leaf| template::chain(&self.parents, *leaf));
        if !chains.flatten().any(|id| id == strategy.tpl_id) {
            return "the strategy's template is no longer bound to the host".to_string();
        }
        let exceptions = Exceptions::new(self, Some(id), &mut Vec::new());
        match exceptions.choice(id, host).of_series(key.tags) {
            Some(exception) if exception.is_pause() => why_paused(exception),
            _ => "the strategy no longer applies to this series".to_string(),
        }
    }
}

/// The reason that a strategy does not hold at another time of day.
pub(super) fn outside_hours(strategy: &Strategy) -> String {
    format!("outside the strategy's hours, {} to {}", strategy.run_begin, strategy.run_end)
}

/// The reason that a host's strategies do not hold while it is in maintenance.
pub(super) fn in_maintenance(host: &HostRow) -> String {
    format!("the host is in maintenance until {}", clock::local_text(host.maintain_end))
}

/// The reason that a strategy does not hold where `exception` counts.
pub(super) fn why_paused(exception: &Exception) -> String {
    let Exception { kind, target, note, .. } = exception;
    let note = if note.is_empty() { String::new() } else { format!(": {note}") };
    format!("an exception pauses the strategy for the {kind} {target}{note}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_most_deliberate_one() {
        let now: Zoned = "2026-11-22T12:00:00[UTC]".parse().expect("a time");
        let unix = now.timestamp().as_second();
        let check = |change: fn(&mut Snapshot, i64), expected: &str| {
            let host = HostRow { hostname: "h".into(), templates: vec![7], ..HostRow::default() };
            let mut snapshot = Snapshot { hosts: vec![host], ..Snapshot::default() };
            snapshot.parents.insert(7, 0);
            snapshot.set_strategies(vec![Strategy { id: 1, tpl_id: 7, ..Strategy::default() }]);
            change(&mut snapshot, unix);
            let why = snapshot.why_gone(RuleId::Strategy(1), key(), &now);
            assert!(why.starts_with(expected), "{why}");
        };
        check(|_, _| {}, "the strategy no longer applies to this series");
        check(|snapshot, _| snapshot.set_strategies(Vec::new()), "the strategy was deleted");
        check(|snapshot, _| snapshot.hosts.clear(), "the host was removed");
        check(|snapshot, _| snapshot.hosts[0].templates.clear(), "the strategy's template is no longer bound");
        check(|snapshot, now| snapshot.hosts[0].maintain_end = now + 600, "the host is in maintenance until 20");
        let night = |snapshot: &mut Snapshot, _| {
            snapshot.strategies[0].run_begin = "20:00".into();
            snapshot.strategies[0].run_end = "23:00".into();
        };
        check(night, "outside the strategy's hours, 20:00 to 23:00");
        check(paused, "an exception pauses the strategy for the tag mount=/data: full on purpose");
        let by_another_host = |snapshot: &mut Snapshot, now| {
            paused(snapshot, now);
            snapshot.exceptions.remove(0);
        };
        check(by_another_host, "the strategy no longer applies to this series");
    }

    /// Pauses strategy 1 for a tag, and for another host.
    fn paused(snapshot: &mut Snapshot, _: i64) {
        let row = |id, kind: &str, target: &str| Exception {
            id,
            strategy_id: 1,
            kind: kind.into(),
            target: target.into(),
            pause: 1,
            note: "full on purpose".into(),
            ..Exception::default()
        };
        snapshot.exceptions = vec![row(1, "tag", "mount=/data"), row(2, "host", "other")];
    }

    fn key() -> SeriesKey<'static> {
        SeriesKey { endpoint: "h", metric: "m", tags: model::Tags::assume_canonical("mount=/data") }
    }

    #[test]
    fn expressions_are_paused_or_deleted() {
        let now: Zoned = "2026-11-22T12:00:00[UTC]".parse().expect("a time");
        let snapshot = Snapshot { paused: vec![2], ..Snapshot::default() };
        assert_eq!(snapshot.why_gone(RuleId::Expression(2), key(), &now), "the expression is paused");
        assert_eq!(snapshot.why_gone(RuleId::Expression(3), key(), &now), "the expression was deleted");
    }
}
