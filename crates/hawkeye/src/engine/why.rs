//! Why: an event's explanation as a sentence for people, with times.
//!
//! The judge says `3 of 3 points above 90` and which points; here they become
//! `all(#3) > 90: 3 of 3 points above 90: 95.2, 97, 99.1 (23:01-23:03)`. Used where people ask: the log and the API;
//! not in the texts of messages, which scripts read.

use crate::clock;
use model::number::five_decimals;
use model::{Explanation, Point, TermExplanation};

/// Sentence of an explanation, in English, with local times.
pub fn sentence(explanation: &Explanation) -> String {
    if !explanation.closed.is_empty() {
        return format!("closed: {}", explanation.closed);
    }
    let terms = explanation.terms.iter().map(term);
    let reason = (!explanation.reason.is_empty()).then(|| format!("reason: {}", explanation.reason));
    terms.chain(reason).collect::<Vec<_>>().join("; ")
}

fn term(term: &TermExplanation) -> String {
    let of = if term.counter.is_empty() || term.text.contains(&term.counter) {
        String::new()
    } else {
        format!(" on {}", term.counter)
    };
    format!("{}{of}: {}{}", term.text, term.words, points(&term.points))
}

fn points(points: &[Point]) -> String {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return String::new() };
    let values: Vec<String> = points.iter().map(|point| five_decimals(point.value)).collect();
    let (from, to) = (clock::local_text(first.time), clock::local_text(last.time));
    let time = |text: &str| text.get(11..16).unwrap_or(text).to_string();
    // The event has the date; hours and minutes are what is compared with a chart.
    let span = if from == to { time(&to) } else { format!("{}-{}", time(&from), time(&to)) };
    format!(": {} ({span})", values.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences() {
        let point = |time, value| Point { time, value };
        let at = |time| clock::local_text(time)[11..16].to_string();
        let (t, later) = (1_490_000_000, 1_490_000_120);
        let all = TermExplanation {
            text: "all(#3) > 90".into(),
            words: "3 of 3 points above 90".into(),
            points: vec![point(t, 95.2), point(t + 60, 97.0), point(later, 99.1)],
            ..TermExplanation::default()
        };
        let mem = TermExplanation {
            text: "nodata(#2) of mem".into(),
            counter: "mem/a=1".into(),
            words: "no point for 2 periods of 60 s".into(),
            points: vec![point(t, 5.0)],
            ..TermExplanation::default()
        };
        let explanation = Explanation { terms: vec![all, mem], ..Explanation::default() };
        assert_eq!(
            sentence(&explanation),
            format!(
                "all(#3) > 90: 3 of 3 points above 90: 95.2, 97, 99.1 ({}-{}); nodata(#2) of mem on mem/a=1: no point for \
                 2 periods of 60 s: 5 ({})",
                at(t),
                at(later),
                at(t)
            )
        );
        let all = TermExplanation { text: "all(#1) == 0".into(), words: "1 of 1 points".into(), ..Default::default() };
        let down = Explanation { terms: vec![all], reason: "status 503".into(), ..Explanation::default() };
        assert_eq!(sentence(&down), "all(#1) == 0: 1 of 1 points; reason: status 503");
        let closed = Explanation { closed: "the strategy was deleted".into(), ..Explanation::default() };
        assert_eq!(sentence(&closed), "closed: the strategy was deleted");
    }
}
