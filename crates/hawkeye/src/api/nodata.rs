//! Nodata: mocks, the values that stand for series which are silent.
//!
//! Compat: anybody may change them in the original (`rights.rs`). What can never be mocked is refused: another type
//! than GAUGE, or a group that is not there.

use super::Context;
use super::aggregator::{check_series, required_metric, required_step};
use super::auth::Caller;
use super::body::{Fields, check_length, parse_int};
use super::error::{Answer, ApiError, json, made, message};
use super::hostgroup::odd_name;
use super::paging::Paging;
use super::rights::{self, HostChange};
use super::strategy::checked_tags;
use super::text::{line, named};
use crate::config::Config;
use crate::portal::group;
use crate::portal::host::Selection;
use crate::portal::mock::{self, Mock};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Redirect;
use axum::routing::get;

/// Routes of mocks. Two have a slash at the end in the original, which redirects to them.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/nodata", get(list).post(redirect).put(redirect))
        .route("/nodata/", get(list).post(create).put(update))
        .route("/nodata/{nid}", get(show).delete(remove))
}

async fn redirect() -> Redirect {
    Redirect::temporary("/api/v1/nodata/")
}

async fn list(State(context): State<Context>, _caller: Caller, fields: Fields) -> Answer {
    let page = Paging::of(&fields)?;
    json(page.rows(mock::all(&context.portal).await?.into_iter())?)
}

async fn show(State(context): State<Context>, _caller: Caller, Path(id): Path<String>) -> Answer {
    let found = mock::by_id(&context.portal, parse_int("nid", &id)?).await?;
    json(found.ok_or_else(|| ApiError::bad("record not found"))?)
}

async fn create(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let name = fields.required_line("name", mock::NAME_MAX)?;
    let new = required_mock(&context.config, &fields)?;
    check_groups(&context, &new).await?;
    check_rights(&context, &caller, &new).await?;
    let created = mock::create(&context.portal, Mock { name: name.clone(), creator: caller.name, ..new }).await;
    let taken = |error| {
        let text = format!("a nodata named {name:?} exists already");
        ApiError::duplicate(error, StatusCode::EXPECTATION_FAILED, text)
    };
    let created = created.map_err(taken)?;
    made(created.id, json(created))
}

async fn update(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let id = fields.required_int("id")?;
    let changed = required_mock(&context.config, &fields)?;
    check_groups(&context, &changed).await?;
    let old = mock::by_id(&context.portal, id).await?.ok_or_else(|| ApiError::refused("record not found"))?;
    rights::check(&context, &caller, &old.creator, "").await?;
    check_rights(&context, &caller, &changed).await?;
    let changed = Mock { id, name: old.name, creator: old.creator, ..changed };
    mock::update(&context.portal, &changed).await?;
    json(changed)
}

async fn remove(State(context): State<Context>, caller: Caller, Path(id): Path<String>) -> Answer {
    let id = parse_int("nid", &id)?;
    if let Some(found) = mock::by_id(&context.portal, id).await? {
        rights::check(&context, &caller, &found.creator, "").await?;
        mock::delete(&context.portal, id).await?;
    }
    message(format!("mockcfg:{id} is deleted"))
}

/// The mock that the fields describe, without id, name and creator; whether there are such groups is not asked yet.
pub(super) fn required_mock(config: &Config, fields: &Fields) -> Result<Mock, ApiError> {
    let obj = fields.required_text("obj", usize::MAX)?;
    let obj_type = fields.required_line("obj_type", mock::NAME_MAX)?;
    if !["group", "host", "other"].contains(&obj_type.as_str()) {
        return Err(ApiError::bad("obj_type only accpect \"group, host, other\""));
    }
    let names = names(&obj)?;
    if obj_type != "group" {
        check_hosts(&names)?;
    }
    let dstype = fields.required_line("dstype", mock::NAME_MAX)?;
    if dstype != "GAUGE" {
        return Err(ApiError::bad(format!("dstype is {dstype:?}: only a GAUGE can be mocked")));
    }
    let mock = Mock {
        obj: names.join("\n"),
        obj_type,
        metric: required_metric(fields, mock::METRIC_MAX)?,
        tags: checked_tags(fields.text("tags", mock::TAGS_MAX)?)?,
        dstype,
        step: required_step(config, fields)?,
        mock: fields.float("mock")?,
        ..Mock::default()
    };
    mock.names().try_for_each(|endpoint| check_series(endpoint, &mock.metric, &mock.tags))?;
    Ok(mock)
}

/// Refuses to put values into series of others: of a group, or of hosts in groups, that the caller may not change.
async fn check_rights(context: &Context, caller: &Caller, mock: &Mock) -> Result<(), ApiError> {
    if mock.obj_type != "group" {
        let hosts = Selection::Names(mock.names().map(str::to_string).collect());
        return rights::check_hosts(context, caller, &hosts, HostChange::Maintain).await;
    }
    for group in group::all(&context.portal).await? {
        if mock.names().any(|name| name.eq_ignore_ascii_case(&group.grp_name)) {
            rights::check_group(context, caller, &group).await?;
        }
    }
    Ok(())
}

/// Refuses what is a list, a pattern or a sentence where a host is meant.
fn check_hosts(names: &[String]) -> Result<(), ApiError> {
    match names.iter().find_map(|name| odd_name(name).map(|what| (name, what))) {
        None => Ok(()),
        Some((name, what)) => {
            Err(ApiError::bad(format!("obj: {name:?} {what}: write each endpoint on a line of its own")))
        }
    }
}

/// The names in `obj`, a line each.
fn names(obj: &str) -> Result<Vec<String>, ApiError> {
    let mut names = Vec::new();
    for (index, text) in obj.split('\n').enumerate() {
        let name = line(&format!("obj, line {}", index + 1), text, mock::OBJ_MAX)?;
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    check_length("obj", &names.join("\n"), mock::OBJ_MAX)?;
    if names.is_empty() { Err(ApiError::bad("obj is required: a name in each line")) } else { Ok(names) }
}

async fn check_groups(context: &Context, mock: &Mock) -> Result<(), ApiError> {
    if mock.obj_type != "group" || !context.config.is_strict() {
        return Ok(());
    }
    let groups = group::all(&context.portal).await?;
    check_known(mock, |name| groups.iter().any(|group| group.grp_name.eq_ignore_ascii_case(name)))
}

/// Refuses names of groups that are not there.
pub(super) fn check_known(mock: &Mock, is_group: impl Fn(&str) -> bool) -> Result<(), ApiError> {
    let unknown: Vec<String> = mock.names().filter(|name| !is_group(name)).map(str::to_string).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(ApiError::bad(format!("obj: there is no host group {}: make it, or name another", named(&unknown))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lines() {
        assert_eq!(names(" web-01\r\nweb-02\n\nweb-01").expect("names"), ["web-01", "web-02"]);
        for empty in ["\n", " \r\n"] {
            assert!(names(empty).is_err_and(|error| error.text().contains("a name in each line")));
        }
        let long = "x\n".repeat(3) + &"y".repeat(mock::OBJ_MAX);
        assert!(names(&long).is_err_and(|error| error.text().contains("obj is longer than")));
        assert!(names("a\nb\u{7}").is_err_and(|error| error.text().contains("obj, line 2 has a control character")));
    }
}
