//! Probes: what is asked over the network, from where, and what the places say of it.
//!
//! How: a probe is shown flat: the keys of its definition (docs/probes.md), and beside them `id`, `from`, `pause`, who
//! made it, and `states`. What is sent has the same form (`probe_said.rs`). `probe_once.rs` tries a definition out.
//! Invariants: a definition that is saved can run. Agents of a group ask what its probes say, so whoever puts a probe
//! there may change the group; what the server asks its policy bounds. Secrets in URLs and headers are `***` to all who
//! may not change the probe, in lists, and for tokens that only read.
//! Compat: the routes are Hawkeye's own; who may change an aggregator of a group may change a probe (`rights.rs`).

use super::Context;
use super::auth::Caller;
use super::body::{Fields, parse_int};
use super::code_secret as secret;
use super::error::{Answer, ApiError, json, made, message};
use super::paging::{Paging, Search};
use super::probe_once as once;
use super::probe_said::{self as said, Keys, Said};
use super::rights::{self, HostChange};
use crate::clock;
use crate::portal::group::{self, Group};
use crate::portal::host::Selection;
use crate::portal::probe::{self, DEFINITIONS_BYTES_MAX, PROBES_MAX, Probe, Refusal, SERVER, State};
use axum::Router;
use axum::extract::{Path, State as Shared};
use axum::routing::{get, post};
use netprobe::Definition;
use serde_json::{Value, json as object};
use std::collections::HashMap;

/// Routes of probes.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/probe", get(list).post(create))
        .route("/probe/test", post(test))
        .route("/probe/{id}", get(show).put(update).delete(remove))
}

/// States that one row of a list shows; [`show`] has all.
const STATES_SHOWN: usize = 100;
/// Name of a definition that is only tried.
const UNNAMED: &str = "test";

async fn list(Shared(context): Shared<Context>, _caller: Caller, fields: Fields) -> Answer {
    let (page, search) = (Paging::from_first(&fields)?, Search::of(&fields)?);
    let kind = fields.line("kind", 16)?;
    let group = Some(fields.line("group", group::NAME_MAX)?).filter(|_| fields.has("group"));
    let names = group_names(&context).await?;
    let rows = probe::all(&context.portal).await?.into_iter().map(|row| shown(&row, &names, false));
    let is_wanted = |row: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let is_of_group = |group: &String| text(&row["from"]["group"]).eq_ignore_ascii_case(group);
        (search.finds(&text(&row["name"])) || search.finds(&text(&row["target"])))
            && (kind.is_empty() || row["kind"] == kind.as_str())
            && group.as_ref().is_none_or(is_of_group)
    };
    let rows = page.rows_like(&sample(), rows.filter(is_wanted))?;
    json(with_states(&context, rows, STATES_SHOWN).await?)
}

async fn show(Shared(context): Shared<Context>, caller: Caller, Path(id): Path<String>) -> Answer {
    let found = find(&context, &id).await?;
    let is_open = caller.scopes.write && may_change(&context, &caller, &found).await?;
    json(whole(&context, &found, is_open).await?)
}

async fn create(Shared(context): Shared<Context>, caller: Caller, fields: Fields) -> Answer {
    note_place(&fields);
    let Said { definition, from, pause } = said(fields, &Keys::new())?;
    let definition = definition.ok_or_else(|| ApiError::bad("name, kind and target are required: docs/probes.md"))?;
    let from = from.unwrap_or_default();
    let new = Probe {
        places: from.places,
        pause: pause.unwrap_or(0),
        create_user: caller.name.clone(),
        create_at: clock::now(),
        ..row_of(&definition)?
    };
    let new = placed(&context, &caller, new, &definition, from.group.as_deref().unwrap_or_default()).await?;
    check_endpoint(&context, &caller, &new).await?;
    let created = probe::create(&context.portal, new).await?.map_err(refused)?;
    made(created.id, json(whole(&context, &created, true).await?))
}

async fn update(Shared(context): Shared<Context>, caller: Caller, Path(id): Path<String>, fields: Fields) -> Answer {
    let old = find_own(&context, &caller, &id).await?;
    let keys = keys_of(&old);
    note_place(&fields);
    let Said { definition, from, pause } = said(fields, &keys)?;
    let definition = match definition {
        Some(definition) => definition,
        None => said::definition(keys, &Keys::new()).map_err(|faults| ApiError::bad(faults.join("; ")))?,
    };
    let changed = Probe {
        pause: pause.unwrap_or(old.pause),
        grp_id: old.grp_id,
        places: old.places,
        id: old.id,
        ..row_of(&definition)?
    };
    let changed = Probe { create_user: old.create_user, create_at: old.create_at, ..changed };
    let changed = match from {
        Some(from) => {
            let group = from.group.unwrap_or_default();
            placed(&context, &caller, Probe { places: from.places, ..changed }, &definition, &group).await?
        }
        None => {
            said::check_place(&definition, changed.grp_id == SERVER).map_err(ApiError::bad)?;
            changed
        }
    };
    if !changed.name.eq_ignore_ascii_case(&old.name) {
        check_endpoint(&context, &caller, &changed).await?;
    }
    probe::update(&context.portal, &changed).await?.map_err(refused)?;
    json(whole(&context, &changed, true).await?)
}

async fn remove(Shared(context): Shared<Context>, caller: Caller, Path(id): Path<String>) -> Answer {
    let old = find_own(&context, &caller, &id).await?;
    probe::delete(&context.portal, old.id).await?;
    message(format!("probe:{} has been deleted", old.id))
}

/// Runs a definition once, from the server. With the `id` of a probe, `***` stands for the secrets of that one.
async fn test(Shared(context): Shared<Context>, caller: Caller, fields: Fields) -> Answer {
    let id = fields.int("id")?;
    let known = if id == 0 { Keys::new() } else { keys_of(&find_own(&context, &caller, &id.to_string()).await?) };
    let named = match fields {
        Fields::Json(mut keys) => {
            keys.entry("name").or_insert_with(|| UNNAMED.into());
            Fields::Json(keys)
        }
        form => form,
    };
    let definition = said(named, &known)?.definition;
    let definition = definition.ok_or_else(|| ApiError::bad("kind and target are required: docs/probes.md"))?;
    json(once::run(&context, &definition).await?.json())
}

/// What a body says, or all that is wrong with it.
fn said(fields: Fields, old: &Keys) -> Result<Said, ApiError> {
    // What docs/api.md tells of; the keys of each kind are in docs/probes.md.
    for key in ["name", "kind", "target", "step", "timeout_ms", "tags"] {
        fields.has(key);
    }
    let Fields::Json(keys) = fields else {
        return Err(ApiError::bad("the body is a form: send the definition as JSON, docs/probes.md"));
    };
    said::said(keys, old).map_err(|faults| ApiError::bad(faults.join("; ")))
}

/// Asks for the fields that say where a probe runs, for the test of docs/api.md; [`said()`] reads them.
fn note_place(fields: &Fields) {
    for key in ["from", "pause"] {
        fields.has(key);
    }
}

/// The row of a definition, which nobody made, for the server.
fn row_of(definition: &Definition) -> Result<Probe, ApiError> {
    Ok(Probe { name: definition.name.clone(), definition: text_of(definition)?, ..Probe::default() })
}

/// The JSON of a definition as the table has it.
pub(super) fn text_of(definition: &Definition) -> Result<String, ApiError> {
    serde_json::to_string(definition).map_err(|error| anyhow::Error::new(error).context("encoding a probe").into())
}

/// The keys of a definition that is saved, without those that have no value; none where an old row cannot be read.
pub(super) fn keys_of(row: &Probe) -> Keys {
    let mut keys: Keys = serde_json::from_str(&row.definition).unwrap_or_default();
    keys.retain(|key, value| {
        // What a body must have may be null.
        if key != "json" {
            leave_out_nulls(value);
        }
        !value.is_null()
    });
    keys
}

fn leave_out_nulls(value: &mut Value) {
    match value {
        Value::Object(keys) => {
            keys.retain(|_, value| !value.is_null());
            keys.values_mut().for_each(leave_out_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(leave_out_nulls),
        _ => {}
    }
}

/// The probe in the group of this name, "" for the server, if it can run there and the caller may put it there.
async fn placed(
    context: &Context,
    caller: &Caller,
    row: Probe,
    definition: &Definition,
    group: &str,
) -> Result<Probe, ApiError> {
    said::check_place(definition, group.is_empty()).map_err(ApiError::bad)?;
    if group.is_empty() {
        return Ok(Probe { grp_id: SERVER, ..row });
    }
    let groups = group::all(&context.portal).await?;
    let known = groups.into_iter().find(|one| one.grp_name.eq_ignore_ascii_case(group));
    let unknown = || ApiError::bad(format!("from.group: there is no host group {group:?}: make it, or name another"));
    let Group { id, create_user, .. } = known.ok_or_else(unknown)?;
    if id != row.grp_id && !rights::may_change_group(context, caller, id, &create_user).await? {
        return Err(denied(caller));
    }
    Ok(Probe { grp_id: id, ..row })
}

/// Refuses the name of a host of others: its points would be made up by a stranger.
async fn check_endpoint(context: &Context, caller: &Caller, row: &Probe) -> Result<(), ApiError> {
    let host = Selection::Names(vec![row.name.clone()]);
    rights::check_hosts(context, caller, &host, HostChange::Maintain).await
}

async fn find(context: &Context, id: &str) -> Result<Probe, ApiError> {
    let found = probe::by_id(&context.portal, parse_int("id", id)?).await?;
    found.ok_or_else(|| ApiError::refused("record not found"))
}

/// The probe with this id, if the caller may change it.
async fn find_own(context: &Context, caller: &Caller, id: &str) -> Result<Probe, ApiError> {
    let found = find(context, id).await?;
    if may_change(context, caller, &found).await? { Ok(found) } else { Err(denied(caller)) }
}

/// Whether the caller made the probe, or may change its group.
async fn may_change(context: &Context, caller: &Caller, row: &Probe) -> Result<bool, ApiError> {
    if rights::may_change(context, caller, &row.create_user, "").await? {
        return Ok(true);
    }
    match group::by_id(&context.portal, row.grp_id).await? {
        Some(group) => rights::may_change_group(context, caller, group.id, &group.create_user).await,
        None => Ok(false),
    }
}

fn denied(caller: &Caller) -> ApiError {
    caller.denied(ApiError::bad("You don't have permission!"))
}

fn refused(refusal: Refusal) -> ApiError {
    ApiError::bad(match refusal {
        Refusal::Taken(id, name) => format!("name: a probe named {name:?} exists already: PUT /probe/{id}"),
        Refusal::TooMany => format!("there are {PROBES_MAX} probes: delete what nobody needs"),
        Refusal::TooLong => format!(
            "all definitions together would have more than {DEFINITIONS_BYTES_MAX} bytes: give shorter texts, or delete \
             probes that nobody needs"
        ),
    })
}

async fn group_names(context: &Context) -> Result<HashMap<i64, String>, ApiError> {
    Ok(group::all(&context.portal).await?.into_iter().map(|group| (group.id, group.grp_name)).collect())
}

/// A probe with all its states; `is_open`: with its secrets.
async fn whole(context: &Context, row: &Probe, is_open: bool) -> Result<Value, ApiError> {
    let group = group::by_id(&context.portal, row.grp_id).await?;
    let names = group.into_iter().map(|group| (group.id, group.grp_name)).collect();
    let mut rows = with_states(context, vec![shown(row, &names, is_open)], usize::MAX).await?;
    Ok(rows.remove(0))
}

/// A probe without its states.
fn shown(row: &Probe, groups: &HashMap<i64, String>, is_open: bool) -> Value {
    let mut keys = keys_of(row);
    if !is_open {
        secret::mask_probe(&mut keys);
    }
    let from = object!({ "group": groups.get(&row.grp_id), "places": row.places });
    let own = [
        ("id", object!(row.id)),
        ("name", object!(row.name)),
        ("from", from),
        ("pause", object!(row.pause)),
        ("create_user", object!(row.create_user)),
        ("create_at", object!(row.create_at)),
    ];
    keys.extend(own.map(|(key, value)| (key.to_string(), value)));
    Value::Object(keys)
}

/// A row with the fields by which a list can be ordered.
fn sample() -> Value {
    object!({ "id": 0, "name": "", "kind": "", "target": "", "step": 0, "timeout_ms": 0, "pause": 0, "create_user": "",
              "create_at": 0, "from": { "group": "", "places": 0 } })
}

/// Rows with what their places say, at most `max` each, those that are down first.
async fn with_states(context: &Context, mut rows: Vec<Value>, max: usize) -> Result<Vec<Value>, ApiError> {
    let ids: Vec<i64> = rows.iter().filter_map(|row| row["id"].as_i64()).collect();
    let mut of_probe: HashMap<i64, Vec<State>> = HashMap::new();
    for state in probe::states(&context.portal, &ids).await? {
        of_probe.entry(state.probe_id).or_default().push(state);
    }
    for row in &mut rows {
        let states = row["id"].as_i64().and_then(|id| of_probe.remove(&id)).unwrap_or_default();
        row["states_left_off"] = states.len().saturating_sub(max).into();
        row["states"] = states.into_iter().take(max).map(shown_state).collect();
    }
    Ok(rows)
}

fn shown_state(state: State) -> Value {
    let State { place, up, code, reason, changed_at, .. } = state;
    object!({ "place": place, "up": up == 1, "code": code, "reason": reason, "since": changed_at })
}
