use super::*;
use proptest::prelude::*;

fn condition(kind: FunctionKind, first: u32, n: u32, operator: Operator, right: f64) -> Comparison {
    Comparison { function: Function { kind, first, n }, operator, right, high: right + 2.0 }
}

/// `values` newest first, `?` unknown; `expected` as `holds left`, or `?`.
fn check_partly(condition: Comparison, values: &str, expected: &str) {
    let values: Vec<f64> =
        values.split(' ').map(|v| if v == "?" { f64::NAN } else { v.parse().expect("number") }).collect();
    assert_eq!(values.len() as u64, condition.function.values_needed());
    let shown = condition.judge_partly(&values).map_or("?".to_string(), |v| format!("{} {}", v.holds, v.left));
    assert_eq!(shown, expected, "{condition:?} {values:?}");
}

#[test]
fn answers_only_what_is_sure() {
    let all = condition(FunctionKind::All, 0, 3, Operator::Less, 10.0);
    check_partly(all, "5 ? 5", "?");
    check_partly(all, "5 ? 50", "false 5");
    check_partly(all, "? 50 50", "?");
    let lookup = condition(FunctionKind::Lookup, 2, 4, Operator::Less, 10.0);
    check_partly(lookup, "5 ? 5 50", "true 5");
    check_partly(lookup, "50 ? 5 50", "?");
    check_partly(lookup, "50 ? 50 50", "false 50");
    let max = condition(FunctionKind::Max, 0, 3, Operator::Greater, 10.0);
    check_partly(max, "5 ? 50", "true 50");
    check_partly(max, "5 ? 5", "?");
    let max_below = condition(FunctionKind::Max, 0, 3, Operator::Less, 10.0);
    check_partly(max_below, "5 ? 50", "false 50");
    check_partly(max_below, "5 ? 5", "?");
    let min = condition(FunctionKind::Min, 0, 3, Operator::LessOrEqual, 10.0);
    check_partly(min, "50 ? 5", "true 5");
    check_partly(min, "50 ? 50", "?");
    check_partly(condition(FunctionKind::Min, 0, 3, Operator::Equal, 5.0), "50 ? 5", "?");
    let diff = condition(FunctionKind::Diff, 0, 2, Operator::Greater, 10.0);
    check_partly(diff, "50 ? 5", "true 45");
    check_partly(diff, "5 ? 5", "?");
    check_partly(condition(FunctionKind::Sum, 0, 2, Operator::Greater, 10.0), "50 ?", "?");
}

#[test]
fn differences_in_percent_pass_over_a_zero() {
    let pdiff = condition(FunctionKind::Pdiff, 0, 2, Operator::Greater, 50.0);
    assert_eq!(pdiff.judge(&[5.0, 0.0, 0.0]), Verdict { holds: false, left: 0.0 });
    assert_eq!(pdiff.judge(&[5.0, 0.0, 2.5]), Verdict { holds: true, left: 100.0 });
}

fn operators() -> impl Strategy<Value = Operator> {
    prop::sample::select(vec![
        Operator::Equal,
        Operator::NotEqual,
        Operator::Less,
        Operator::LessOrEqual,
        Operator::Greater,
        Operator::GreaterOrEqual,
        Operator::Inside,
        Operator::Outside,
    ])
}

fn conditions() -> impl Strategy<Value = Comparison> {
    let kinds = prop::sample::select(vec![
        FunctionKind::All,
        FunctionKind::Max,
        FunctionKind::Min,
        FunctionKind::Sum,
        FunctionKind::Avg,
        FunctionKind::Diff,
        FunctionKind::Pdiff,
        FunctionKind::Lookup,
        FunctionKind::Stddev,
        FunctionKind::Kdiff,
        FunctionKind::Kpdiff,
    ]);
    (kinds, 1..4u32, 1..4u32, operators(), -3..4i32).prop_map(|(kind, a, b, operator, right)| {
        let first = if kind.has_two_arguments() { a.min(b) } else { 0 };
        condition(kind, first, b.max(a), operator, f64::from(right))
    })
}

/// Small whole numbers, of which about every third is unknown, and what the unknown ones might have been.
fn windows() -> impl Strategy<Value = (Comparison, Vec<f64>)> {
    conditions().prop_flat_map(|condition| {
        let value = prop_oneof![2 => (-4..5i32).prop_map(f64::from), 1 => Just(f64::NAN)];
        let count = condition.function.values_needed() as usize;
        (Just(condition), prop::collection::vec(value, count))
    })
}

/// What unknown values are tried with: far out on both sides, around all thresholds used, and the threshold itself.
const GUESSES: [f64; 5] = [-1e9, -3.5, 0.0, 3.5, 1e9];

/// All verdicts that some choice of the unknown values gives.
fn possible(condition: &Comparison, values: &mut Vec<f64>, at: usize, out: &mut Vec<bool>) {
    match values[at..].iter().position(|v| v.is_nan()) {
        None => out.push(condition.judge(values).holds),
        Some(offset) => {
            for guess in GUESSES.into_iter().chain([condition.right, condition.high]) {
                values[at + offset] = guess;
                possible(condition, values, at + offset + 1, out);
            }
            values[at + offset] = f64::NAN;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// No value that the unknown ones could have had would change the answer; and where the answer is sure, it is
    /// given, so that rules are not silenced without need.
    #[test]
    fn an_answer_with_unknown_values_is_given_if_and_only_if_it_is_sure((condition, mut values) in windows()) {
        if values.iter().any(|v| v.is_nan()) {
            let verdict = condition.judge_partly(&values).map(|verdict| verdict.holds);
            let newest_is_known = !values[0].is_nan();
            let mut outcomes = Vec::new();
            possible(&condition, &mut values, 0, &mut outcomes);
            let sure = outcomes.iter().all(|holds| *holds == outcomes[0]).then_some(outcomes[0]);
            if verdict.is_some() || newest_is_known && is_decidable(&condition) {
                prop_assert_eq!(verdict, sure, "{:?} {:?}", condition, values);
            }
        }
    }
}

/// Where a look at single values is enough; sums and differences of all are left undecided.
fn is_decidable(condition: &Comparison) -> bool {
    match condition.function.kind {
        FunctionKind::All | FunctionKind::Lookup => true,
        FunctionKind::Max | FunctionKind::Min => !matches!(condition.operator, Operator::Equal | Operator::NotEqual),
        _ => false,
    }
}
