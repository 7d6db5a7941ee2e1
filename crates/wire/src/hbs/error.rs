//! Error: the reasons for which an answer of an hbs cannot be used, each with what an operator can look for.

use std::fmt;

/// Reason for which an answer of an hbs cannot be used; the rules in effect stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerError {
    /// `at` counts from the first byte of the answer.
    Json {
        at: u64,
        what: &'static str,
    },
    Limit {
        what: &'static str,
        limit: u64,
    },
    /// The hbs answered with this error.
    Refused(String),
    WrongId {
        got: Option<i64>,
        want: u64,
    },
    /// A field of the answer is missing or not what it must be.
    Field {
        field: &'static str,
        want: &'static str,
    },
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnswerError::Json { at, what } => write!(f, "the answer is broken at byte {at}: {what}"),
            AnswerError::Limit { what, limit } => write!(f, "the answer has more {what} than allowed ({limit})"),
            AnswerError::Refused(text) => write!(f, "hbs answered with an error: {text}"),
            AnswerError::WrongId { got: Some(got), want } => write!(f, "the answer has id {got}, want {want}"),
            AnswerError::WrongId { got: None, want } => write!(f, "the answer has no id, want {want}"),
            AnswerError::Field { field, want } => write!(f, "{field} of the answer must be {want}"),
        }
    }
}

impl std::error::Error for AnswerError {}
