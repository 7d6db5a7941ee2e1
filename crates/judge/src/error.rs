//! RuleError: why a rule is refused, at which column, and what would be right.
//!
//! The texts are shown to whoever saves a rule, so they name the field as the form does (`func`, `operator`), count
//! columns from 1 in characters, and say what to write instead. Quoted rule text is cut: it comes from a database.

use std::fmt;

#[derive(Clone, Debug, PartialEq)]
pub enum RuleError {
    /// `func` is not `name(#N)` or `name(#A,N)`.
    Syntax { func: String, column: usize, want: &'static str },
    /// `func` has the right form, but no such function exists.
    UnknownFunction { func: String },
    /// An argument of `func` can never make the rule hold.
    Argument { func: String, column: usize, argument: &'static str, want: String },
    /// `func` looks back further than points are kept.
    Window { func: String, column: usize, points: u64, points_max: u32 },
    /// `operator` is none of the six.
    Operator { operator: String },
    /// `rightValue` is not a finite number.
    RightValue,
    /// An expression without tags matches nothing.
    NoTags,
    /// More rules than indexes; see `rule_set.rs`.
    TooManyRules,
}

/// Longest piece of rule text in an error, in characters. A guess: the longest sensible text, `kpdiff(#100,100)`, has 17.
const QUOTE_CHARS_MAX: usize = 40;

/// `text` as it may be put into an error.
pub(crate) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTE_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_string(),
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuleError::Syntax { func, column, want } => {
                write!(f, "func `{func}`, column {column}: want {want}, as in all(#3) or lookup(#2,3)")
            }
            RuleError::UnknownFunction { func } => write!(
                f,
                "func `{func}`, column 1: unknown function; want one of all, max, min, sum, avg, diff, pdiff, lookup, stddev, \
                 kdiff, kpdiff (lower case)"
            ),
            RuleError::Argument { func, column, argument, want } => {
                write!(f, "func `{func}`, column {column}: want {argument} to be {want}")
            }
            RuleError::Window { func, column, points, points_max } => write!(
                f,
                "func `{func}`, column {column}: needs {points} points, but the judge looks back {points_max}; use smaller numbers \
                 (one point more is needed for counters, one more for diff and pdiff)"
            ),
            RuleError::Operator { operator } => {
                write!(f, "operator `{operator}`: want one of = == != < <= > >=")
            }
            RuleError::RightValue => write!(f, "rightValue: want a finite number"),
            RuleError::NoTags => write!(
                f,
                "tags: want at least one tag, such as endpoint=host1; an expression without tags matches nothing"
            ),
            RuleError::TooManyRules => write!(f, "more rules than the judge can number; remove some"),
        }
    }
}

impl std::error::Error for RuleError {}
