//! Strategies: the conditions of templates.
//!
//! Compat: who may change a strategy follows its template (`rights.rs`). A strategy that cannot be judged is refused,
//! so no judge ever sees one. Tags are kept as they were typed, for agents take them for arguments, and are read as
//! those of a point (`model::tags::wanted`).

use super::Context;
use super::auth::Caller;
use super::body::{Fields, parse_int};
use super::error::{Answer, ApiError, json, message_with};
use super::exception::check_against;
use super::paging::Paging;
use super::rights;
use super::rule::{self, Lengths};
use super::text::check_visible;
use crate::config::Config;
use crate::portal::exception::{self, Exception};
use crate::portal::strategy::{self, Strategy};
use crate::portal::template;
use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;

/// Routes of strategies.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/strategy", get(list).post(create).put(update))
        .route("/strategy/{sid}", get(show).delete(remove))
}

const LENGTHS: Lengths =
    Lengths { func: strategy::FUNC_MAX, op: strategy::OP_MAX, right_value: strategy::RIGHT_VALUE_MAX };

async fn list(State(context): State<Context>, _caller: Caller, fields: Fields) -> Answer {
    let (page, tid) = (Paging::of(&fields)?, fields.text("tid", 20)?);
    if tid.is_empty() {
        return Err(ApiError::bad("tid is missing"));
    }
    json(page.rows(strategy::of_template(&context.portal, parse_int("tid", &tid)?).await?.into_iter())?)
}

async fn show(State(context): State<Context>, _caller: Caller, Path(id): Path<String>) -> Answer {
    let strategy = strategy::by_id(&context.portal, parse_int("sid", &id)?).await?;
    json(strategy.ok_or_else(|| ApiError::bad("record not found"))?)
}

async fn create(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let strategy = required_strategy(&context.config, &fields)?;
    let tpl_id = fields.required_int("tpl_id")?;
    let template = template::by_id(&context.portal, tpl_id).await?;
    let template = template.ok_or_else(|| ApiError::bad(format!("tpl_id: there is no template {tpl_id}")))?;
    rights::check_template(&context, &caller, &template).await?;
    let mut strategy = Strategy { tpl_id, ..strategy };
    strategy.id = strategy::create(&context.portal, &strategy).await?;
    let Some(warning) = warning_of(&strategy) else { return json(strategy) };
    let mut answer = serde_json::to_value(&strategy).map_err(anyhow::Error::new)?;
    answer["warning"] = warning.into();
    json(answer)
}

async fn update(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let strategy = required_strategy(&context.config, &fields)?;
    let id = fields.required_int("id")?;
    let found = strategy::by_id(&context.portal, id).await?;
    let found = found.ok_or_else(|| ApiError::refused("find strategy got error:record not found"))?;
    check_rights(&context, &caller, &found).await?;
    for exception in exception::of_strategy(&context.portal, id).await? {
        check_against(&context.config, &strategy, &exception).map_err(|error| {
            let Exception { id, kind, target, .. } = &exception;
            ApiError::bad(format!("exception {id} ({kind} {target}): {}; change or delete it first", error.text()))
        })?;
    }
    let warning = warning_of(&strategy);
    strategy::update(&context.portal, &Strategy { id, ..strategy }).await?;
    message_with(format!("stragtegy:{id} has been updated"), warning)
}

async fn remove(State(context): State<Context>, caller: Caller, Path(id): Path<String>) -> Answer {
    let id = parse_int("sid", &id)?;
    if let Some(strategy) = strategy::by_id(&context.portal, id).await? {
        check_rights(&context, &caller, &strategy).await?;
    }
    strategy::delete(&context.portal, id).await?;
    message_with(format!("strategy:{id} has been deleted"), None)
}

/// What is hardly meant, of a strategy that can be judged.
fn warning_of(strategy: &Strategy) -> Option<String> {
    let mut warnings = Vec::new();
    for (key, hint) in [
        ("endpoint", "bind the template to a group of that host, or save an expression"),
        ("metric", "the metric is a field of its own"),
    ] {
        if tag_keys(&strategy.tags).any(|tag| tag == key) {
            warnings.push(format!("tags: {key}= finds only points that have a tag of that name: {hint}"));
        }
    }
    if !strategy.run_begin.is_empty() && strategy.run_begin == strategy.run_end {
        warnings.push(format!(
            "run_begin and run_end are both {}: the strategy is in force for one minute a day; leave both empty for always",
            strategy.run_begin
        ));
    }
    (!warnings.is_empty()).then(|| warnings.join("; "))
}

/// The keys of tags as a point would have them: without blanks.
fn tag_keys(tags: &str) -> impl Iterator<Item = String> {
    tags.split(',').filter_map(|piece| piece.split_once('=')).map(|(key, _)| key.replace(' ', ""))
}

/// Lets those pass who may change the strategy's template; a strategy whose template is gone is the administrators'.
pub(super) async fn check_rights(context: &Context, caller: &Caller, strategy: &Strategy) -> Result<(), ApiError> {
    let template = template::by_id(&context.portal, strategy.tpl_id).await?.unwrap_or_default();
    rights::check_template(context, caller, &template).await
}

/// The strategy that the fields describe, without ids.
pub(super) fn required_strategy(config: &Config, fields: &Fields) -> Result<Strategy, ApiError> {
    let metric = fields.required_line("metric", strategy::METRIC_MAX)?;
    let tags = checked_tags(fields.text("tags", strategy::TAGS_MAX)?)?;
    let condition = rule::required_condition(config, fields, &LENGTHS)?;
    Ok(Strategy {
        id: 0,
        metric,
        tags,
        max_step: condition.max_step,
        priority: condition.priority,
        func: condition.func,
        op: condition.op,
        right_value: condition.right_value,
        note: fields.line("note", strategy::NOTE_MAX)?,
        run_begin: time_of_day(fields, "run_begin", "23:59", "00:00")?,
        run_end: time_of_day(fields, "run_end", "24:00", "24:00")?,
        tpl_id: 0,
    })
}

/// Keys whose values are free texts, in which blanks and `=` are normal.
const FREE_TEXT_KEYS: [&str; 2] = ["cmdline", "url"];

/// The tags as they were typed, if a point can have them.
pub(super) fn checked_tags(tags: String) -> Result<String, ApiError> {
    check_visible("tags", &tags)?;
    if tags.trim().is_empty() {
        return Ok(String::new());
    }
    if let Some(wide) = tags.chars().find(|c| c.is_whitespace() && *c != ' ') {
        return Err(ApiError::bad(format!("tags: a blank is no usual one (U+{:04X}): type it anew", u32::from(wide))));
    }
    for piece in tags.split(',') {
        let Some((key, _)) = piece.split_once('=') else {
            return Err(ApiError::bad(format!("tags: {piece:?} is not of the form key=value (joined by commas)")));
        };
        rule::check_key(key).map_err(|error| ApiError::bad(format!("tags: {error}")))?;
        if !FREE_TEXT_KEYS.contains(&key.trim()) && is_several(piece) {
            return Err(ApiError::bad(format!(
                "tags: {piece:?} looks like several tags: join them by commas, as in mount=/data,fstype=ext4"
            )));
        }
    }
    let keys: Vec<String> = tag_keys(&tags).collect();
    if let Some((_, key)) = keys.iter().enumerate().find(|(at, key)| keys[..*at].contains(key)) {
        return Err(ApiError::bad(format!("tags: {key}= is there twice, and a point has it once: take one out")));
    }
    Ok(tags)
}

/// True for `a=1 b=2`, also with another separator than a blank: the one tag that transfer would make of this text is
/// nobody's.
fn is_several(piece: &str) -> bool {
    let is_tag = |word: &str| match word.split_once('=') {
        Some((key, value)) => {
            let is_name = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
            key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && key.chars().all(is_name)
                && !value.contains('=')
        }
        None => false,
    };
    let words: Vec<&str> = piece.split([' ', ';', '；', '，', '、']).filter(|word| !word.is_empty()).collect();
    words.len() > 1 && words.into_iter().all(is_tag)
}

/// A field that is "HH:MM", at most `last`, or "".
fn time_of_day(fields: &Fields, name: &str, last: &str, example: &str) -> Result<String, ApiError> {
    let text = fields.line(name, strategy::RUN_MAX)?;
    let is_time = |text: &str| {
        let [a, b, b':', c, d] = text.as_bytes() else { return false };
        [a, b, c, d].iter().all(|byte| byte.is_ascii_digit()) && *c < b'6' && text <= last
    };
    if text.is_empty() || is_time(&text) {
        return Ok(text);
    }
    Err(ApiError::bad(format!("{name}'s formating is not vaild, please refer ex. {example}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_kept_as_typed_or_refused() {
        let check = |tags: &str, expected: Result<&str, &str>| match (checked_tags(tags.to_string()), expected) {
            (Ok(kept), Ok(expected)) => assert_eq!(kept, expected),
            (Err(error), Err(expected)) => assert!(error.text().contains(expected), "{tags:?}: {}", error.text()),
            (got, expected) => panic!("{tags:?}: {got:?}, want {expected:?}"),
        };
        for tags in [
            "mount=/data, fstype=ext4",
            " module=x ",
            "mount=/my disk",
            "k = v",
            "b=x=y",
            "cmdline=java -Xms=1g -Da=b",
            "cmdline=env A=b",
            "name=java,cmdline=a=1;b=2",
            "url=http://h/?a=b;c=d",
            "note=a b",
            "name=王 小=二",
        ] {
            check(tags, Ok(tags));
        }
        check("  ", Ok(""));
        check("port=1234 endpoint=h1", Err("\"port=1234 endpoint=h1\" looks like several tags: join them by commas"));
        check("a=1,b=2  c=3", Err("\"b=2  c=3\" looks like several tags"));
        check("a=1,mount!=/data", Err("\"mount!\" is no name of a tag: tags are compared by = only"));
        check("a=1;b=2", Err("looks like several tags"));
        check("mount=/data，fstype=ext4", Err("looks like several tags"));
        check("mount=/data\u{3000}", Err("U+3000"));
        check("mount=/data\n", Err("a line break"));
        check("mount=/da\tta", Err("a tab"));
        check("a=1,a=2", Err("a= is there twice, and a point has it once"));
        check("a=1,b=2, a =1", Err("a= is there twice"));
        check("a=1,", Err("\"\" is not of the form key=value"));
    }

    #[test]
    fn what_is_hardly_meant_is_said() {
        let check = |tags: &str, (begin, end): (&str, &str), expected: &str| {
            let (tags, run_begin, run_end) = (tags.to_string(), begin.to_string(), end.to_string());
            let warning = warning_of(&Strategy { tags, run_begin, run_end, ..Strategy::default() });
            assert_eq!(warning.unwrap_or_default(), expected);
        };
        check("", ("", ""), "");
        check("mount=/,my.endpoint=1", ("08:00", "20:00"), "");
        check("", ("", "08:00"), "");
        check("", ("00:00", "24:00"), "");
        let endpoint = "tags: endpoint= finds only points that have a tag of that name: bind the template to a group of \
                        that host, or save an expression";
        check("mount=/, endpoint=h", ("", ""), endpoint);
        let metric = "tags: metric= finds only points that have a tag of that name: the metric is a field of its own";
        let minute = "run_begin and run_end are both 00:00: the strategy is in force for one minute a day; leave both \
                      empty for always";
        check("metric=m", ("00:00", "00:00"), &format!("{metric}; {minute}"));
    }

    #[test]
    fn times_of_day() {
        let check = |field: &str, last: &str, text: &str, expected: Option<&str>| {
            let fields = Fields::Form(vec![(field.to_string(), text.to_string())]);
            let got = time_of_day(&fields, field, last, last).ok();
            assert_eq!(got.as_deref(), expected, "{field} {text:?}");
        };
        for right in ["", "00:00", "08:05", "23:59", " 08:05 "] {
            check("run_begin", "23:59", right, Some(right.trim()));
        }
        check("run_end", "24:00", "24:00", Some("24:00"));
        for wrong in
            ["24:00", "24:01", "25:00", "99:99", "12:60", "8:00", "08:00:00", "08.00", "0800", "-8:00", "０8:00"]
        {
            check("run_begin", "23:59", wrong, None);
        }
        check("run_end", "24:00", "24:01", None);
    }
}
