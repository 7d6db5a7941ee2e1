//! Host groups: their hosts, template bindings and plugin directories.
//!
//! Compat: renaming and binding ask for no owner, as in the original. Changing hosts, deleting, unbinding and plugins
//! ask for the owner or an administrator. A name that is listed twice counts once.

use super::Context;
use super::auth::Caller;
use super::body::{Fields, parse_int};
use super::error::{Answer, ApiError, json, message};
use super::paging::{Paging, Search};
use crate::portal::group::{self, Group};
use crate::portal::{host, plugin, template};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, patch, post};
use serde_json::json as object;

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

async fn list(State(context): State<Context>, _caller: Caller, fields: Fields) -> Answer {
    let (page, search) = (Paging::of(&fields)?, Search::of(&fields)?);
    let groups = group::all(&context.portal).await?;
    json(page.cut(groups.into_iter().filter(|group| search.finds(&group.grp_name))))
}

async fn create(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let name = group_name(&fields, "name")?;
    json(group::create(&context.portal, &name, &caller.name).await.map_err(|error| taken(error, &name))?)
}

async fn rename(State(context): State<Context>, _caller: Caller, fields: Fields) -> Answer {
    let group = find(&context, fields.required_int("id")?).await?;
    let name = group_name(&fields, "grp_name")?;
    group::rename(&context.portal, group.id, &name).await.map_err(|error| taken(error, &name))?;
    message("hostgroup profile updated")
}

async fn show(State(context): State<Context>, _caller: Caller, Path(id): Path<String>, fields: Fields) -> Answer {
    let search = Search::of(&fields)?;
    let group = find(&context, parse_int("id", &id)?).await?;
    let mut hosts = host::of_group(&context.portal, group.id).await?;
    hosts.retain(|host| search.finds(&host.hostname));
    json(object!({ "hostgroup": group, "hosts": hosts }))
}

async fn remove(State(context): State<Context>, caller: Caller, Path(id): Path<String>) -> Answer {
    let group = find(&context, parse_int("id", &id)?).await?;
    check_owner(&caller, &group.create_user)?;
    group::delete(&context.portal, group.id).await?;
    message(format!("hostgroup:{} has been deleted", group.id))
}

async fn replace_hosts(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let (id, hosts) = (fields.required_int("hostgroup_id")?, required_hosts(&fields)?);
    let group = find(&context, id).await?;
    check_member_owner(&caller, &group)?;
    let ids = group::replace_hosts(&context.portal, id, &hosts).await?.ok_or_else(too_many_hosts)?;
    let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
    message(format!("[{}] bind to hostgroup: {id}", ids.join(" ")))
}

async fn remove_host(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let (id, host_id) = (fields.required_int("hostgroup_id")?, fields.required_int("host_id")?);
    let group = find(&context, id).await?;
    check_owner(&caller, &group.create_user)?;
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
    check_member_owner(&caller, &group)?;
    if action == "remove" {
        let removed = group::remove_hosts(&context.portal, group.id, hosts).await?;
        return message(format!("[{}] unbind to hostgroup: {}", removed.join(" "), group.grp_name));
    }
    let done = group::add_hosts(&context.portal, group.id, hosts).await?.ok_or_else(too_many_hosts)?;
    let (added, existing) = (done.added.join(" "), done.existing.join(" "));
    message(format!("[{added}] bind to hostgroup: {}, [{existing}] have been exist", group.grp_name))
}

async fn templates(State(context): State<Context>, _caller: Caller, Path(id): Path<String>) -> Answer {
    let group = find(&context, parse_int("id", &id)?).await?;
    let templates = group::templates(&context.portal, group.id).await?;
    json(object!({ "hostgroup": group, "templates": templates }))
}

async fn bind_template(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let (tpl_id, grp_id) = (fields.required_int("tpl_id")?, fields.required_int("grp_id")?);
    let unknown = |what: &str, id: i64| ApiError::bad(format!("{what}: {id} ; record not found"));
    group::by_id(&context.portal, grp_id).await?.ok_or_else(|| unknown("hostgroup", grp_id))?;
    template::by_id(&context.portal, tpl_id).await?.ok_or_else(|| unknown("template", tpl_id))?;
    if !group::bind_template(&context.portal, grp_id, tpl_id, &caller.name).await? {
        return Err(ApiError::bad("this binding already existing, reject!"));
    }
    json(object!({ "grp_id": grp_id, "tpl_id": tpl_id, "bind_user": caller.name }))
}

async fn unbind_template(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let (tpl_id, grp_id) = (fields.required_int("tpl_id")?, fields.required_int("grp_id")?);
    let bind_user = group::bind_user(&context.portal, grp_id, tpl_id).await?;
    let bind_user = bind_user.ok_or_else(|| ApiError::bad("record not found"))?;
    if !caller.owns(&bind_user) {
        return Err(ApiError::bad("You don't have permission can do this."));
    }
    group::unbind_template(&context.portal, grp_id, tpl_id).await?;
    message(format!("template: {tpl_id} is unbind of HostGroup: {grp_id}"))
}

async fn plugins(State(context): State<Context>, _caller: Caller, Path(id): Path<String>) -> Answer {
    json(plugin::of_group(&context.portal, parse_int("id", &id)?).await?)
}

async fn create_plugin(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let (grp_id, dir) = (fields.required_int("hostgroup_id")?, fields.required_text("dir_path", plugin::DIR_MAX)?);
    plugin::check_dir(&dir).map_err(ApiError::bad)?;
    let group = find(&context, grp_id).await?;
    check_owner(&caller, &group.create_user)?;
    json(plugin::create(&context.portal, grp_id, &dir, &caller.name).await?)
}

async fn remove_plugin(State(context): State<Context>, caller: Caller, Path(id): Path<String>) -> Answer {
    let plugin = plugin::by_id(&context.portal, parse_int("id", &id)?).await?;
    let plugin = plugin.ok_or_else(|| ApiError::refused("record not found"))?;
    // The group's owner may remove a directory that somebody else left in his group.
    let group = group::by_id(&context.portal, plugin.grp_id).await?;
    if !group.is_some_and(|group| caller.owns(&group.create_user)) {
        check_owner(&caller, &plugin.create_user)?;
    }
    plugin::delete(&context.portal, plugin.id).await?;
    message(format!("plugin:{} has been deleted", plugin.id))
}

async fn find(context: &Context, id: i64) -> Result<Group, ApiError> {
    group::by_id(&context.portal, id).await?.ok_or_else(|| ApiError::refused("record not found"))
}

fn group_name(fields: &Fields, field: &str) -> Result<String, ApiError> {
    let name = fields.required_text(field, group::NAME_MAX)?;
    if super::has_dangerous_characters(&name) {
        return Err(ApiError::bad(format!("{field} is invalid")));
    }
    Ok(name)
}

fn required_hosts(fields: &Fields) -> Result<Vec<String>, ApiError> {
    let hosts = fields.texts("hosts", host::HOSTNAME_MAX)?;
    let mut hosts = hosts.ok_or_else(|| ApiError::bad("hosts is required: a list of host names"))?;
    let mut seen = std::collections::HashSet::new();
    hosts.retain(|host| seen.insert(host.to_ascii_lowercase()));
    Ok(hosts)
}

fn check_owner(caller: &Caller, create_user: &str) -> Result<(), ApiError> {
    if caller.owns(create_user) { Ok(()) } else { Err(ApiError::bad("You don't have permission!")) }
}

/// Lets the owner of a group and administrators pass, with the status and text of the routes that change a group's
/// hosts.
fn check_member_owner(caller: &Caller, group: &Group) -> Result<(), ApiError> {
    if caller.owns(&group.create_user) { Ok(()) } else { Err(ApiError::refused("You don't have permission.")) }
}

fn taken(error: sqlx::Error, name: &str) -> ApiError {
    ApiError::duplicate(error, StatusCode::EXPECTATION_FAILED, format!("grp_name {name:?} exists already"))
}

fn too_many_hosts() -> ApiError {
    ApiError::refused(format!("the table of hosts is full ({} hosts): delete what no longer reports", host::HOSTS_MAX))
}
