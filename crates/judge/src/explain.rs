//! Explain: the comparison in words, as `3 of 3 points above 90`.
//!
//! How: the words are written when an event is made and never before; docs/rules.md shows what each function says. They
//! hold no times; `model::explanation` says why.

use crate::finding::Evidence;
use crate::function::{Comparison, FunctionKind, Operator, Verdict};
use crate::program::Question;
use model::number::five_decimals;
use model::{EventRule, Explanation, TermExplanation};

/// One term in words: a PROBLEM is told by what opens it, a recovery by what no longer keeps it open.
pub(crate) fn term(
    text: &str,
    counter: String,
    question: &Question,
    verdict: Verdict,
    evidence: &Evidence,
) -> TermExplanation {
    let words = match question {
        Question::Silence { steps } => silence(*steps, verdict, evidence),
        Question::Values { opens, stays } => {
            let condition = if verdict.holds { opens } else { stays };
            values(condition, verdict, evidence.holding[usize::from(!verdict.holds)], evidence.unknown)
        }
    };
    let mut points = evidence.points.clone();
    points.reverse();
    TermExplanation { text: text.to_string(), counter, holds: verdict.holds, words, points }
}

pub(crate) fn whole(rule: &EventRule, terms: Vec<TermExplanation>) -> Box<Explanation> {
    Box::new(Explanation { rule_version: rule.version(), terms, ..Explanation::default() })
}

/// The text of a rule that is one function: `all(#3) > 90`.
pub(crate) fn plain_text(rule: &EventRule) -> String {
    let (func, operator, right) = match rule {
        EventRule::Strategy(s) => (&s.func, &s.operator, s.right_value),
        EventRule::Expression(e) => (&e.func, &e.operator, e.right_value),
    };
    // A text with a comparison of its own says it better.
    match crate::grammar::is_extended(func) {
        true => func.clone(),
        false => format!("{func} {operator} {}", five_decimals(right)),
    }
}

fn values(condition: &Comparison, verdict: Verdict, holding: u32, unknown: u32) -> String {
    let function = condition.function;
    let (n, first) = (function.n, function.first);
    let left = five_decimals(verdict.left);
    let compared = comparison(condition);
    let not = if verdict.holds { "" } else { "not " };
    let points = if n == 1 { "point" } else { "points" };
    match function.kind {
        FunctionKind::All | FunctionKind::Lookup => {
            let unknown = if unknown > 0 { format!(", {unknown} unknown") } else { String::new() };
            let wanted =
                if function.kind == FunctionKind::Lookup { format!(", {first} wanted") } else { String::new() };
            format!("{holding} of {n} {points} {compared}{wanted}{unknown}")
        }
        FunctionKind::Max => format!("the maximum of {n} {points} is {left}, {not}{compared}"),
        FunctionKind::Min => format!("the minimum of {n} {points} is {left}, {not}{compared}"),
        FunctionKind::Sum => format!("the sum of {n} {points} is {left}, {not}{compared}"),
        FunctionKind::Avg => format!("the average of {n} {points} is {left}, {not}{compared}"),
        FunctionKind::Diff => {
            format!("the newest point differs by {left} from one of the {n} before it, {not}{compared}")
        }
        FunctionKind::Pdiff => {
            format!("the newest point differs by {left}% from one of the {n} before it, {not}{compared}")
        }
        FunctionKind::Stddev => {
            let deviations = five_decimals(condition.right);
            let verb = if verdict.holds { "is" } else { "is not" };
            format!("the newest point, {left}, {verb} more than {deviations} standard deviations from the mean of {n}")
        }
        FunctionKind::Kdiff | FunctionKind::Kpdiff => {
            let percent = if function.kind == FunctionKind::Kpdiff { "%" } else { "" };
            let all = if verdict.holds { "each" } else { "not each" };
            format!(
                "{all} of the newest {n} {points} differs from the {first} before them by a value {compared} (last {left}{percent})"
            )
        }
    }
}

fn comparison(condition: &Comparison) -> String {
    let right = five_decimals(condition.right);
    match condition.operator {
        Operator::Equal => format!("equal to {right}"),
        Operator::NotEqual => format!("different from {right}"),
        Operator::Less => format!("below {right}"),
        Operator::LessOrEqual => format!("at most {right}"),
        Operator::Greater => format!("above {right}"),
        Operator::GreaterOrEqual => format!("at least {right}"),
        Operator::Inside => format!("inside {right}..{}", five_decimals(condition.high)),
        Operator::Outside => format!("outside {right}..{}", five_decimals(condition.high)),
        Operator::Never => "of an unknown operator".to_string(),
    }
}

fn silence(steps: u32, verdict: Verdict, evidence: &Evidence) -> String {
    let period = evidence.period_s;
    let periods = |count: &str| if count == "1" { "1 period".to_string() } else { format!("{count} periods") };
    if verdict.holds {
        return format!("no point for {} of {period} s", periods(&five_decimals(verdict.left)));
    }
    format!("a point came within {} of {period} s", periods(&steps.to_string()))
}
