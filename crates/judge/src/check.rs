//! Check: whether a rule may be saved, and if not, at which column it is wrong and what would be right.
//!
//! Invariants: no text panics; an error's column is within the text or just behind it.

use crate::error::{RuleError, quote};
use crate::function::Operator;
use crate::grammar::{self, TermDefaults, is_extended};
use crate::rule_text::read_strictly;

/// Whether a rule may be saved. The texts of an old installation are read less strictly; see `rule_text.rs`.
///
/// `points_max` is the window that the judge is sure to have. The type of the series is not known here, so one point
/// more is counted, which a counter needs.
pub fn check(func: &str, operator: &str, right_value: f64, points_max: u32) -> Result<(), RuleError> {
    if is_extended(func) {
        let own = Operator::parse(operator).ok_or_else(|| RuleError::Operator { operator: quote(operator) })?;
        return grammar::read(func, TermDefaults { operator: own, right: right_value, points_max, spare: 1 })
            .map(|_| ());
    }
    let text = read_strictly(func)?;
    let function = text.function(func)?;
    if function.values_needed() + 1 > u64::from(points_max) {
        let points = function.values_needed() + 1;
        return Err(RuleError::Window { func: quote(func), column: text.arguments[0].column, points, points_max });
    }
    match Operator::parse(operator) {
        Some(_) => Ok(()),
        None => Err(RuleError::Operator { operator: quote(operator) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule_text::parse;
    use proptest::prelude::*;

    #[test]
    fn accepts_what_is_right() {
        for func in [
            "all(#1)",
            "max(#119)",
            "diff(#118)",
            "lookup(#2,3)",
            "all(#3) and all(#2) of m > 5",
            "lookup(#3,3)",
            "kdiff(#10,5)",
            "stddev(#4)",
        ] {
            assert_eq!(check(func, "<=", 9.0, 120), Ok(()), "{func}");
        }
    }

    #[test]
    fn errors_name_column_and_fix() {
        let check = |func: &str, expected: &str| {
            let error = check(func, ">", 9.0, 120).expect_err(func).to_string();
            assert!(error.starts_with(expected), "{func}: {error}");
        };
        check("", "func ``, column 1: want a function's name");
        check("all[#3)", "func `all[#3)`, column 4: want `(#`");
        check("all(3)", "func `all(3)`, column 4: want `(#`");
        check("all (#3)", "func `all (#3)`, column 4: want `(#`");
        check("All(#3)", "func `All(#3)`, column 1: unknown function");
        check("foo(#3)", "func `foo(#3)`, column 1: unknown function; want one of all,");
        check("all(#+3)", "func `all(#+3)`, column 6: want a whole number");
        check("all(#03)", "func `all(#03)`, column 6: want a whole number without leading zeros");
        check("all(#)", "func `all(#)`, column 6: want a whole number");
        check("all(#3", "func `all(#3`, column 7: want `)`");
        check("all(#3]", "func `all(#3]`, column 7: want `)`");
        check("all(#3) or", "func `all(#3) or`, column 11: want a function");
        check("all(#3) ", "func `all(#3) `, column 8: want nothing behind");
        check("all(#3）", "func `all(#3）`, column 7: want `)`");
        check("sum(#2,5)", "func `sum(#2,5)`, column 7: want `)`, as this function");
        check("lookup(#3)", "func `lookup(#3)`, column 10: want `,` and a second number");
        check("lookup(#4,3)", "func `lookup(#4,3)`, column 9: want M to be at most 3");
        check("lookup(#0,3)", "func `lookup(#0,3)`, column 9: want M to be a whole number from 1");
        check("all(#0)", "func `all(#0)`, column 6: want N to be a whole number from 1");
        check("kdiff(#2,0)", "func `kdiff(#2,0)`, column 10: want N to be");
        check("all(#99999999999999999999)", "func `all(#99999999999999999999)`, column 6: want a smaller number");
        check("all(#120)", "func `all(#120)`, column 6: needs 121 points, but the judge looks back 120");
        check("diff(#119)", "func `diff(#119)`, column 7: needs 121 points");
        check("内存(#3)", "func `内存(#3)`, column 1: want a function's name");
    }

    #[test]
    fn operators() {
        for operator in ["=", "==", "!=", "<", "<=", ">", ">="] {
            assert_eq!(check("all(#1)", operator, 9.0, 120), Ok(()));
        }
        for operator in ["", "!", "=>", "<>", " >"] {
            assert_eq!(check("all(#1)", operator, 9.0, 120), Err(RuleError::Operator { operator: operator.into() }));
        }
    }

    /// Texts near the grammar, and any others.
    fn texts() -> impl Strategy<Value = String> {
        let near = "(all|max|sum|diff|pdiff|lookup|stddev|kdiff|kpdiff|foo|)[(\\[ ]{0,2}#?[+-]?[0-9]{0,4}[, ]{0,2}[0-9]{0,4}[)\\] ]{0,2}";
        prop_oneof![near, "\\PC{0,20}", ".{0,12}#.{0,12}"]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]

        #[test]
        fn columns_are_within_the_text_or_just_behind_it(func in texts()) {
            let error = check(&func, "<", 9.0, 120).err().into_iter().chain(parse(&func).err());
            for error in error {
                if let RuleError::Syntax { column, .. } | RuleError::Condition { column, .. } | RuleError::Argument { column, .. } | RuleError::Window { column, .. } = error {
                    prop_assert!((1..=func.chars().count() + 1).contains(&column), "{:?}: {}", func, column);
                }
            }
        }
    }
}
