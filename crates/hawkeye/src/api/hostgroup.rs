//! Host groups: their hosts, template bindings and plugin directories.
//!
//! Compat: who may change what is in `rights.rs`; the original asks for no owner where a group is renamed or a template
//! bound. A name that is listed twice counts once.

use super::Context;
use super::auth::Caller;
use super::body::{Fields, parse_int};
use super::error::{Answer, ApiError, json, made, message, message_with};
use super::paging::{Paging, Search};
use super::rights::{self, HostChange};
use super::text::named;
use crate::portal::group::{self, Group};
use crate::portal::host::Selection;
use crate::portal::{host, mock, plugin, template};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, patch, post};
use serde_json::json as object;
use std::collections::HashSet;

/// Routes of host groups.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/hostgroup", get(list).post(create).put(rename))
        .route("/hostgroup/{id}", get(show).delete(remove))
        .route("/hostgroup/host", post(replace_hosts).put(remove_host))
        .route("/hostgroup/{id}/host", patch(change_hosts))
        .route("/hostgroup/template", post(bind_template).put(unbind_template))
        .route("/hostgroup/{id}/template", get(templates))
        .route("/hostgroup/{id}/plugins", get(plugins))
        .route("/plugin", post(create_plugin))
        .route("/plugin/{id}", delete(remove_plugin))
}

/// The old dashboard's list of a group's hosts, for scripts; it lies beside the API.
pub fn old_routes() -> Router<Context> {
    Router::new().route("/api/group/{group}/hosts.json", get(host_names))
}

/// Names of the hosts of a group, which is told by its id or its name.
async fn host_names(State(context): State<Context>, _caller: Caller, Path(told): Path<String>) -> Answer {
    let groups = group::all(&context.portal).await?;
    let id = told.parse::<i64>().ok();
    let by_id = groups.iter().find(|group| Some(group.id) == id);
    let found = by_id.or_else(|| groups.iter().find(|group| group.grp_name.eq_ignore_ascii_case(&told)));
    let Some(found) = found else { return json(object!({ "msg": format!("no such group {told}") })) };
    let hosts = host::of_group(&context.portal, found.id).await?;
    let names: Vec<String> = hosts.into_iter().map(|host| host.hostname).collect();
    json(object!({ "msg": "", "data": names }))
}

async fn list(State(context): State<Context>, _caller: Caller, fields: Fields) -> Answer {
    let (page, search) = (Paging::of(&fields)?, Search::of(&fields)?);
    let groups = group::all(&context.portal).await?;
    json(page.rows(groups.into_iter().filter(|group| search.finds(&group.grp_name)))?)
}

async fn create(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let name = group_name(&fields, "name")?;
    let created = group::create(&context.portal, &name, &caller.name).await.map_err(|error| taken(error, &name))?;
    made(created.id, json(created))
}

async fn rename(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let group = find(&context, fields.required_int("id")?).await?;
    let name = group_name(&fields, "grp_name")?;
    rights::check_group(&context, &caller, &group).await?;
    group::rename(&context.portal, group.id, &name).await.map_err(|error| taken(error, &name))?;
    let warning = if name == group.grp_name { None } else { nodata_warning(&context, &group).await? };
    message_with("hostgroup profile updated", warning)
}

async fn show(State(context): State<Context>, _caller: Caller, Path(id): Path<String>, fields: Fields) -> Answer {
    let (page, search) = (Paging::of(&fields)?, Search::of(&fields)?);
    let group = find(&context, parse_int("id", &id)?).await?;
    let hosts = host::of_group(&context.portal, group.id).await?.into_iter();
    let hosts = page.rows(hosts.filter(|host| search.finds(&host.hostname)))?;
    json(object!({ "hostgroup": group, "hosts": hosts }))
}

async fn remove(State(context): State<Context>, caller: Caller, Path(id): Path<String>) -> Answer {
    let group = find(&context, parse_int("id", &id)?).await?;
    check_owner(&context, &caller, &group).await?;
    group::delete(&context.portal, group.id).await?;
    message_with(format!("hostgroup:{} has been deleted", group.id), nodata_warning(&context, &group).await?)
}

/// What its user should know of a group that is called so no more.
async fn nodata_warning(context: &Context, group: &Group) -> Result<Option<String>, ApiError> {
    let mocks = mock::all(&context.portal).await?;
    let names = |mock: &&mock::Mock| {
        mock.obj_type == "group" && mock.names().any(|name| name.eq_ignore_ascii_case(&group.grp_name))
    };
    let found: Vec<String> = mocks.iter().filter(names).map(|mock| mock.name.clone()).collect();
    let text = format!("nodata {} names the group {:?}, and finds no host by it now", named(&found), group.grp_name);
    Ok((!found.is_empty()).then_some(text))
}

async fn replace_hosts(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let (id, hosts) = (fields.required_int("hostgroup_id")?, required_hosts(&fields)?);
    let group = find(&context, id).await?;
    check_member_owner(&context, &caller, &group).await?;
    check_new_hosts(&context, &caller, &group, &hosts).await?;
    check_names(&context, &hosts).await?;
    let ids = group::replace_hosts(&context.portal, id, &hosts).await?.ok_or_else(too_many_hosts)?;
    let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
    message(format!("[{}] bind to hostgroup: {id}", ids.join(" ")))
}

async fn remove_host(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let (id, host_id) = (fields.required_int("hostgroup_id")?, fields.required_int("host_id")?);
    let group = find(&context, id).await?;
    check_owner(&context, &caller, &group).await?;
    group::remove_host(&context.portal, id, host_id).await?;
    message(format!("unbind host:{host_id} of hostgroup: {id}"))
}

async fn change_hosts(
    State(context): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
    fields: Fields,
) -> Answer {
    let (action, hosts) = (fields.required_text("action", 10)?, required_hosts(&fields)?);
    if action != "add" && action != "remove" {
        return Err(ApiError::bad("action must be add or remove"));
    }
    let group = find(&context, parse_int("id", &id)?).await?;
    check_member_owner(&context, &caller, &group).await?;
    if action == "remove" {
        let removed = group::remove_hosts(&context.portal, group.id, hosts).await?;
        return message(format!("[{}] unbind to hostgroup: {}", removed.join(" "), group.grp_name));
    }
    check_new_hosts(&context, &caller, &group, &hosts).await?;
    check_names(&context, &hosts).await?;
    let done = group::add_hosts(&context.portal, group.id, hosts).await?.ok_or_else(too_many_hosts)?;
    let (added, existing) = (done.added.join(" "), done.existing.join(" "));
    message(format!("[{added}] bind to hostgroup: {}, [{existing}] have been exist", group.grp_name))
}

async fn templates(State(context): State<Context>, _caller: Caller, Path(id): Path<String>, fields: Fields) -> Answer {
    let page = Paging::of(&fields)?;
    let group = find(&context, parse_int("id", &id)?).await?;
    let templates = page.rows(group::templates(&context.portal, group.id).await?.into_iter())?;
    json(object!({ "hostgroup": group, "templates": templates }))
}

async fn bind_template(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let (tpl_id, grp_id) = (fields.required_int("tpl_id")?, fields.required_int("grp_id")?);
    let unknown = |what: &str, id: i64| ApiError::bad(format!("{what}: {id} ; record not found"));
    let group = group::by_id(&context.portal, grp_id).await?.ok_or_else(|| unknown("hostgroup", grp_id))?;
    template::by_id(&context.portal, tpl_id).await?.ok_or_else(|| unknown("template", tpl_id))?;
    rights::check_group(&context, &caller, &group).await?;
    if !group::bind_template(&context.portal, grp_id, tpl_id, &caller.name).await? {
        return Err(ApiError::bad("this binding already existing, reject!"));
    }
    json(object!({ "grp_id": grp_id, "tpl_id": tpl_id, "bind_user": caller.name }))
}

async fn unbind_template(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let (tpl_id, grp_id) = (fields.required_int("tpl_id")?, fields.required_int("grp_id")?);
    let bind_user = group::bind_user(&context.portal, grp_id, tpl_id).await?;
    let bind_user = bind_user.ok_or_else(|| ApiError::bad("record not found"))?;
    // The group's owner may unbind what somebody else bound to it, other than in the original.
    let group = if context.config.is_strict() { group::by_id(&context.portal, grp_id).await? } else { None };
    let may_change_group = match group {
        Some(group) => rights::may_change_group(&context, &caller, grp_id, &group.create_user).await?,
        None => false,
    };
    if !may_change_group && !caller.owns(&bind_user) {
        return Err(caller.denied(ApiError::bad("You don't have permission can do this.")));
    }
    group::unbind_template(&context.portal, grp_id, tpl_id).await?;
    message(format!("template: {tpl_id} is unbind of HostGroup: {grp_id}"))
}

async fn plugins(State(context): State<Context>, _caller: Caller, Path(id): Path<String>, fields: Fields) -> Answer {
    let page = Paging::of(&fields)?;
    json(page.rows(plugin::of_group(&context.portal, parse_int("id", &id)?).await?.into_iter())?)
}

async fn create_plugin(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let (grp_id, dir) = (fields.required_int("hostgroup_id")?, fields.required_line("dir_path", plugin::DIR_MAX)?);
    plugin::check_dir(&dir).map_err(ApiError::bad)?;
    let group = find(&context, grp_id).await?;
    check_owner(&context, &caller, &group).await?;
    json(plugin::create(&context.portal, grp_id, &dir, &caller.name).await?)
}

async fn remove_plugin(State(context): State<Context>, caller: Caller, Path(id): Path<String>) -> Answer {
    let plugin = plugin::by_id(&context.portal, parse_int("id", &id)?).await?;
    let plugin = plugin.ok_or_else(|| ApiError::refused("record not found"))?;
    // The group's owner may remove a directory that somebody else left in his group.
    let group = group::by_id(&context.portal, plugin.grp_id).await?;
    let owner = group.map_or(String::new(), |group| group.create_user);
    let may_change_group = rights::may_change_group(&context, &caller, plugin.grp_id, &owner).await?;
    if !may_change_group && !caller.owns(&plugin.create_user) {
        return Err(caller.denied(ApiError::bad("You don't have permission!")));
    }
    plugin::delete(&context.portal, plugin.id).await?;
    message(format!("plugin:{} has been deleted", plugin.id))
}

async fn find(context: &Context, id: i64) -> Result<Group, ApiError> {
    group::by_id(&context.portal, id).await?.ok_or_else(|| ApiError::refused("record not found"))
}

pub(super) fn group_name(fields: &Fields, field: &str) -> Result<String, ApiError> {
    let name = fields.required_line(field, group::NAME_MAX)?;
    if super::has_dangerous_characters(&name) {
        return Err(ApiError::bad(format!("{field} is invalid")));
    }
    Ok(name)
}

pub(super) fn required_hosts(fields: &Fields) -> Result<Vec<String>, ApiError> {
    let hosts = fields.lines("hosts", host::HOSTNAME_MAX)?;
    let mut hosts = hosts.ok_or_else(|| ApiError::bad("hosts is required: a list of host names"))?;
    let mut seen = HashSet::new();
    hosts.retain(|host| seen.insert(host.to_ascii_lowercase()));
    Ok(hosts)
}

async fn check_owner(context: &Context, caller: &Caller, group: &Group) -> Result<(), ApiError> {
    let may = rights::may_change_group(context, caller, group.id, &group.create_user).await?;
    if may { Ok(()) } else { Err(caller.denied(ApiError::bad("You don't have permission!"))) }
}

/// Lets those pass who may change a group, with the status and text of the routes that change a group's hosts.
async fn check_member_owner(context: &Context, caller: &Caller, group: &Group) -> Result<(), ApiError> {
    let may = rights::may_change_group(context, caller, group.id, &group.create_user).await?;
    if may { Ok(()) } else { Err(caller.denied(ApiError::refused("You don't have permission."))) }
}

/// Refuses to put hosts of others into a group; those that it has already may stay.
async fn check_new_hosts(context: &Context, caller: &Caller, group: &Group, hosts: &[String]) -> Result<(), ApiError> {
    if rights::may_all(context, caller) {
        return Ok(());
    }
    let members = host::of_group(&context.portal, group.id).await?;
    let members: HashSet<String> = members.into_iter().map(|host| host.hostname.to_ascii_lowercase()).collect();
    let new = hosts.iter().filter(|host| !members.contains(&host.to_ascii_lowercase())).cloned().collect();
    rights::check_hosts(context, caller, &Selection::Names(new), HostChange::Join).await
}

/// Refuses to make a host of what is a list, a pattern or a sentence. One that is there already has reported so.
async fn check_names(context: &Context, hosts: &[String]) -> Result<(), ApiError> {
    let odd: Vec<String> = hosts.iter().filter(|host| odd_name(host).is_some()).cloned().collect();
    for host in host::unknown(&context.portal, &Selection::Names(odd)).await? {
        let Some(what) = odd_name(&host) else { continue };
        return Err(ApiError::bad(format!("hosts: {host:?} {what}: list each host by itself, by its full name")));
    }
    Ok(())
}

pub(super) fn odd_name(host: &str) -> Option<&'static str> {
    if host.len() > host::HOSTNAME_MAX {
        return Some("is longer than 255 bytes");
    }
    let odd = |c: char| c.is_whitespace() || matches!(c, ',' | ';' | '*' | '，' | '；');
    host.contains(odd).then_some("has a comma, a semicolon, a `*` or a blank in it")
}

fn taken(error: sqlx::Error, name: &str) -> ApiError {
    ApiError::duplicate(error, StatusCode::EXPECTATION_FAILED, format!("grp_name {name:?} exists already"))
}

fn too_many_hosts() -> ApiError {
    ApiError::refused(format!("the table of hosts is full ({} hosts): delete what no longer reports", host::HOSTS_MAX))
}
