//! Gone: why a rule applies to a host no longer, for those who were told of a PROBLEM and will hear of no recovery.
//!
//! How: the reason is looked for only when an alarm is closed, in the tables from which the rules were computed. Of all
//! reasons that are true the most deliberate one is told.

use super::resolve::{is_monitored, is_open};
use super::snapshot::Snapshot;
use crate::clock;
use crate::portal::template;
use jiff::Zoned;
use judge::RuleId;

impl Snapshot {
    /// The reason, as a sentence for people.
    pub fn why_gone(&self, rule: RuleId, endpoint: &str, now: &Zoned) -> String {
        match rule {
            RuleId::Strategy(id) => self.why_strategy_gone(id, endpoint, now),
            RuleId::Expression(id) if self.paused.contains(&id) => "the expression is paused".to_string(),
            RuleId::Expression(id) if self.expressions.iter().any(|expression| expression.id == id) => {
                "the expression no longer applies to this series".to_string()
            }
            RuleId::Expression(_) => "the expression was deleted".to_string(),
        }
    }

    fn why_strategy_gone(&self, id: i64, endpoint: &str, now: &Zoned) -> String {
        let Some(strategy) = self.strategies.iter().find(|strategy| strategy.id == id) else {
            return "the strategy was deleted".to_string();
        };
        let Some(host) = self.host(endpoint) else { return "the host was removed from the portal".to_string() };
        if !is_monitored(host, now.timestamp().as_second()) {
            return format!("the host is in maintenance until {}", clock::local_text(host.maintain_end));
        }
        let minute = format!("{:02}:{:02}", now.hour(), now.minute());
        if !is_open(&strategy.run_begin, &strategy.run_end, &minute) {
            return format!("outside the strategy's hours, {} to {}", strategy.run_begin, strategy.run_end);
        }
        let chains = host.templates.iter().filter_map(|leaf| template::chain(&self.parents, *leaf));
        if !chains.flatten().any(|id| id == strategy.tpl_id) {
            return "the strategy's template is no longer bound to the host".to_string();
        }
        "the strategy no longer applies to this series".to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::strategy::Strategy;
    use crate::rules::snapshot::HostRow;

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
            let why = snapshot.why_gone(RuleId::Strategy(1), "h", &now);
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
    }

    #[test]
    fn expressions_are_paused_or_deleted() {
        let now: Zoned = "2026-11-22T12:00:00[UTC]".parse().expect("a time");
        let snapshot = Snapshot { paused: vec![2], ..Snapshot::default() };
        assert_eq!(snapshot.why_gone(RuleId::Expression(2), "h", &now), "the expression is paused");
        assert_eq!(snapshot.why_gone(RuleId::Expression(3), "h", &now), "the expression was deleted");
    }
}
