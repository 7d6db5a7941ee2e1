//! Rules: the condition that strategies and expressions have in common, checked before it can reach a judge.
//!
//! Why: the original checks neither function nor expression texts, and one bad row stops its judge or hbs at each
//! start.
//! Compat: the texts are the original's for what the original checks; other texts name the field and the fault.

use super::Context;
use super::body::{Fields, check_length};
use super::error::ApiError;
use crate::config::Config;
use crate::portal::action::{self, Action};
use crate::portal::team;
use reqwest::Url;

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

/// The largest priority: an old alarm reads the queues `event:p0` to `event:p6`, and pages know no other.
const PRIORITY_MAX: i64 = 6;
/// PROBLEMs that one alarm may send; more is a mistake. A guess, far above what anybody sets.
pub const MAX_STEP_MAX: i64 = 1_000_000;

/// Reads and checks the condition of a rule, whose fields must all be there.
pub fn required_condition(config: &Config, fields: &Fields, lengths: &Lengths) -> Result<Condition, ApiError> {
    let condition = Condition {
        max_step: fields.required_int("max_step")?,
        priority: fields.int("priority")?,
        func: fields.required_line("func", lengths.func)?,
        op: fields.required_line("op", lengths.op)?,
        right_value: fields.required_line("right_value", lengths.right_value)?,
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
    check_function(config, &condition)?;
    Ok(condition)
}

/// Refuses a key like that of `mount!=/data`, which would be a tag named `mount!`.
pub fn check_key(key: &str) -> Result<(), String> {
    if key.trim_end().ends_with(['!', '~', '<', '>']) {
        return Err(format!("{key:?} is no name of a tag: tags are compared by = only"));
    }
    Ok(())
}

/// A checked action, and what its user should know although it is saved.
pub struct CheckedAction {
    pub action: Action,
    pub warning: Option<String>,
}

/// The action that the fields describe, without its id, with the teams `teams`. `within` is before the names of its
/// fields in errors.
pub async fn checked_action(
    context: &Context,
    fields: &Fields,
    within: &str,
    teams: &[&str],
) -> Result<CheckedAction, ApiError> {
    let action = required_action(fields, within, teams)?;
    let mut unknown = Vec::new();
    for name in teams {
        if team::by_name(&context.portal, name).await?.is_none() {
            unknown.push(name.to_string());
        }
    }
    let text = faults_of(&context.config, &action, within, &unknown).join("; ");
    if !text.is_empty() && context.config.is_strict() {
        return Err(ApiError::bad(text));
    }
    // Scripts of an old installation may create the team afterwards, and its callbacks were allowed there.
    Ok(CheckedAction { action, warning: Some(text).filter(|text| !text.is_empty()) })
}

/// The action that the fields describe, with the teams `teams`; see [`checked_action`].
pub fn required_action(fields: &Fields, within: &str, teams: &[&str]) -> Result<Action, ApiError> {
    let uic = teams.join(",");
    check_length(&format!("{within}uic"), &uic, action::UIC_MAX)?;
    let action = Action {
        id: 0,
        uic,
        url: fields.line("url", action::URL_MAX)?,
        callback: fields.flag("callback")?,
        before_callback_sms: fields.flag("before_callback_sms")?,
        before_callback_mail: fields.flag("before_callback_mail")?,
        after_callback_sms: fields.flag("after_callback_sms")?,
        after_callback_mail: fields.flag("after_callback_mail")?,
    };
    check_url(&action).map_err(|error| ApiError::bad(format!("{within}{error}")))?;
    Ok(action)
}

/// What is wrong with an action that an old installation may have: a callback that is not allowed, teams that are
/// `unknown`.
pub fn faults_of(config: &Config, action: &Action, within: &str, unknown: &[String]) -> Vec<String> {
    let mut faults = Vec::new();
    if action.callback == 1 {
        let checked = config.alarm.callback_targets().check_url(&action.url);
        faults.extend(checked.err().map(|fault| format!("{within}url: {fault}")));
    }
    if !unknown.is_empty() {
        let unknown: Vec<String> = unknown.iter().map(|name| format!("{name:?}")).collect();
        faults.push(format!("{within}uic: there is no team {}: make it, or name another", unknown.join(", ")));
    }
    faults
}

/// Refuses a URL that no callback can call.
fn check_url(action: &Action) -> Result<(), String> {
    let url = action.url.as_str();
    if url.is_empty() {
        return if action.callback == 1 { Err("url is required with callback 1".to_string()) } else { Ok(()) };
    }
    let want = "want one like http://10.0.0.5:8000/repair";
    let wrong = match Url::parse(url) {
        _ if url.contains(char::is_whitespace) => "it has a blank".to_string(),
        Ok(parsed) if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() => {
            "it does not begin with http:// or https:// and a host".to_string()
        }
        Ok(parsed) if parsed.port() == Some(0) => "its port is 0".to_string(),
        Ok(parsed) if !is_host(parsed.host_str().unwrap_or_default()) => {
            "a part of its host is empty or longer than 63 bytes, or all of it longer than 253".to_string()
        }
        Ok(_) => return Ok(()),
        Err(error) => error.to_string(),
    };
    Err(format!("url {url:?} cannot be called: {wrong}; {want}"))
}

/// Whether a resolver takes this host of a URL, which may end with the root's dot.
fn is_host(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.len() <= 253 && host.split('.').all(|label| (1..=63).contains(&label.len()))
}

fn check_function(config: &Config, condition: &Condition) -> Result<(), ApiError> {
    check_judged(config, &condition.func, &condition.op, &condition.right_value)
}

/// Refuses a condition that cannot be judged.
pub fn check_judged(config: &Config, func: &str, op: &str, right_value: &str) -> Result<(), ApiError> {
    // The text is decimal digits: `is_decimal` was asked before.
    let right_value = right_value.parse().unwrap_or(f64::INFINITY);
    judge::check(func, op, right_value, config.rule_points_max()).map_err(|error| ApiError::bad(error.to_string()))
}

/// True for what the original's pattern `^(>|=|<|!)(=)?$` takes.
fn is_operator(op: &str) -> bool {
    matches!(op, ">" | "=" | "<" | "!" | ">=" | "==" | "<=" | "!=")
}

/// True for what the original's pattern `^-?\d+(\.\d+)?$` takes.
pub fn is_decimal(text: &str) -> bool {
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
    fn urls_of_callbacks() {
        let check = |url: &str, callback: i64, error: &str| {
            let checked = check_url(&Action { url: url.to_string(), callback, ..Action::default() });
            match (&checked, error) {
                (Ok(()), "") => {}
                (Err(got), error) if !error.is_empty() => assert!(got.contains(error), "{url:?}: {got}"),
                _ => panic!("{url:?}: {checked:?}, want {error:?}"),
            }
        };
        for url in [
            "http://h",
            "https://h:8443/x?y=1",
            "http://127.0.0.1:80/x",
            "http://[::1]:8/",
            "HTTP://h/王",
            "http://u:p@h/",
            "http://hooks.example.com./x",
        ] {
            check(url, 1, "");
        }
        check("", 0, "");
        check("", 1, "url is required with callback 1");
        for callback in [0, 1] {
            check("not a url", callback, "\"not a url\" cannot be called: it has a blank");
            check("127.0.0.1:80/x", callback, "cannot be called");
            check("h:80/x", callback, "does not begin with http://");
            check("/x", callback, "cannot be called");
            check("h/x", callback, "cannot be called");
            check("ftp://h/x", callback, "does not begin with http://");
            check("javascript:alert(1)", callback, "does not begin with http://");
            check("file:///etc/passwd", callback, "does not begin with http://");
            check("http://", callback, "cannot be called");
            check("http://h:99999/", callback, "cannot be called");
            check("http://h:0/", callback, "port is 0");
            check("http://h/a b", callback, "it has a blank");
            for host in ["a..b", ".a", "a..", &"x".repeat(64), &["x".repeat(60).as_str(); 5].join(".")] {
                check(&format!("http://{host}/"), callback, "a part of its host is empty or longer than 63 bytes");
            }
        }
        check(&format!("http://{}.{}/", "x".repeat(63), "y".repeat(63)), 1, "");
    }

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
