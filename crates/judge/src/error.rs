//! RuleError: why a rule is refused, at which column, and what would be right.
//!
//! The texts are shown to whoever saves a rule, so they name the field as the form does (`func`, `operator`), count
//! columns from 1 in characters, and say what to write instead. Quoted rule text is cut: it comes from a database.

use std::fmt;

/// Reason for which a rule is refused.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleError {
    /// `func` is not `name(#N)` or `name(#A,N)`.
    Syntax { func: String, column: usize, want: &'static str },
    /// `func` is more than one function, and not of the form in docs/rules.md.
    Condition { func: String, column: usize, want: String },
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

/// Longest piece of rule text in an error, in characters. A guess: the
/// longest single function, `kpdiff(#100,100)`, has 17, and of a condition the part around the column is enough.
const QUOTE_CHARS_MAX: usize = 40;

/// `text` as it may be put into an error that points at `column`: the part around it, where the text is long.
pub(crate) fn quote_at(text: &str, column: usize) -> String {
    let before = column.saturating_sub(1 + QUOTE_CHARS_MAX / 2);
    if before == 0 || text.chars().count() <= QUOTE_CHARS_MAX {
        return quote(text);
    }
    let rest = text.char_indices().nth(before).map_or("", |(at, _)| &text[at..]);
    format!("…{}", quote(rest))
}

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
            RuleError::Condition { func, column, want } => write!(f, "func `{func}`, column {column}: want {want}"),
            RuleError::UnknownFunction { func } => write!(
                f,
                "func `{func}`, column 1: unknown function; want one of all, max, min, sum, avg, diff, pdiff, lookup, stddev, \
                 kdiff, kpdiff, nodata (lower case)"
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
