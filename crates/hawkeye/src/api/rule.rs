//! Rules: the condition that strategies and expressions have in common, checked before it can reach a judge.
//!
//! Why: the original checks neither function nor expression texts, and one bad row stops its judge or hbs at each
//! start.
//! Compat: the texts are the original's for what the original checks; other texts name the field and the fault.

use super::Context;
use super::body::Fields;
use super::error::ApiError;
use crate::portal::action::{self, Action};

/// The checked condition of a rule.
pub struct Condition {
    pub func: String,
    pub op: String,
    pub right_value: String,
    pub max_step: i64,
    pub priority: i64,
}

/// Lengths of columns, which differ between strategies and expressions.
pub struct Lengths {
    pub func: usize,
    pub op: usize,
    pub right_value: usize,
}

/// The largest priority: the column is a tinyint.
const PRIORITY_MAX: i64 = 127;
/// PROBLEMs that one alarm may send; more is a mistake. A guess, far above what anybody sets.
const MAX_STEP_MAX: i64 = 1_000_000;

/// Reads and checks the condition of a rule, whose fields must all be there.
pub fn required_condition(context: &Context, fields: &Fields, lengths: &Lengths) -> Result<Condition, ApiError> {
    let condition = Condition {
        max_step: fields.required_int("max_step")?,
        priority: fields.int("priority")?,
        func: fields.required_text("func", lengths.func)?,
        op: fields.required_text("op", lengths.op)?,
        right_value: fields.required_text("right_value", lengths.right_value)?,
    };
    if !is_operator(&condition.op) {
        return Err(ApiError::bad("op's formating is not vaild"));
    }
    if !is_decimal(&condition.right_value) {
        return Err(ApiError::bad("right_value's formating is not vaild"));
    }
    if !(1..=MAX_STEP_MAX).contains(&condition.max_step) {
        return Err(ApiError::bad(format!("max_step must be from 1 to {MAX_STEP_MAX}")));
    }
    if !(0..=PRIORITY_MAX).contains(&condition.priority) {
        return Err(ApiError::bad(format!("priority must be from 0 to {PRIORITY_MAX}")));
    }
    check_function(context, &condition)?;
    Ok(condition)
}

/// The action that the fields describe, without its id; its teams are given as `uic`.
pub fn action_of(fields: &Fields, uic: String) -> Result<Action, ApiError> {
    Ok(Action {
        id: 0,
        uic,
        url: fields.text("url", action::URL_MAX)?,
        callback: fields.flag("callback")?,
        before_callback_sms: fields.flag("before_callback_sms")?,
        before_callback_mail: fields.flag("before_callback_mail")?,
        after_callback_sms: fields.flag("after_callback_sms")?,
        after_callback_mail: fields.flag("after_callback_mail")?,
    })
}

fn check_function(context: &Context, condition: &Condition) -> Result<(), ApiError> {
    // The text is decimal digits: `is_decimal` was asked before.
    let right_value = condition.right_value.parse().unwrap_or(f64::INFINITY);
    judge::check(&condition.func, &condition.op, right_value, context.config.rule_points_max())
        .map_err(|error| ApiError::bad(error.to_string()))
}

/// True for what the original's pattern `^(>|=|<|!)(=)?$` takes.
fn is_operator(op: &str) -> bool {
    matches!(op, ">" | "=" | "<" | "!" | ">=" | "==" | "<=" | "!=")
}

/// True for what the original's pattern `^-?\d+(\.\d+)?$` takes.
fn is_decimal(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    match text.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals() {
        for right in ["0", "10", "-5.5", "007", "1.0"] {
            assert!(is_decimal(right), "{right}");
        }
        for wrong in ["", "-", "ten", "1.", ".5", "1e5", "+1", " 1", "--1", "NaN", "1.2.3", "١"] {
            assert!(!is_decimal(wrong), "{wrong}");
        }
    }
}
