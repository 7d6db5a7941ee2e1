//! Snapshot: the rows of a thing as the audit keeps them, with what goes when the thing goes.
//!
//! Why: who deletes a group deletes its aggregators and exceptions too, and nobody could say afterwards which.
//! Invariants: no password, session or token is in it; a URL may have a secret, which the audit takes out.
//! Memory: rows of one thing; the longest list is that of a group's hosts. The charts of a screen are at most
//! [`CHARTS_MAX`].

use super::changes::Kind;
use crate::portal::host::{self, Selection};
use crate::portal::{
    Portal, action, aggregator, dashboard, exception, expression, group, job, mock, plugin, probe, strategy, team,
    template, token, user,
};
use serde::Serialize;
use serde_json::{Value, json};

/// Charts of a screen that are kept; no screen shows more.
const CHARTS_MAX: usize = 1000;

/// A thing with a row.
pub enum Thing {
    Id(Kind, i64),
    Hosts(Selection),
}

/// The rows of a thing; None where it is not there.
pub async fn snapshot(portal: &Portal, thing: &Thing) -> sqlx::Result<Option<Value>> {
    let (kind, id) = match thing {
        Thing::Id(kind, id) => (*kind, *id),
        Thing::Hosts(which) => return windows(portal, which).await.map(Some),
    };
    let found = match kind {
        Kind::Action => action::by_id(portal, id).await?.map(value),
        Kind::Aggregator => aggregator::by_id(portal, id).await?.map(value),
        Kind::Exception => exception::by_id(portal, id).await?.map(value),
        Kind::Expression => of_expression(portal, id).await?,
        Kind::Graph => dashboard::graph(portal, id).await?.map(value),
        Kind::Group => of_group(portal, id).await?,
        Kind::Host => of_host(portal, id).await?,
        Kind::Job => job::by_id(portal, id).await?.map(value),
        Kind::Nodata => mock::by_id(portal, id).await?.map(value),
        Kind::Plugin => plugin::by_id(portal, id).await?.map(value),
        Kind::Probe => probe::by_id(portal, id).await?.map(of_probe),
        Kind::Screen => of_screen(portal, id).await?,
        Kind::Strategy => of_strategy(portal, id).await?,
        Kind::Team => of_team(portal, id).await?,
        Kind::Template => of_template(portal, id).await?,
        Kind::Token => token::by_id(portal, id).await?.map(value),
        Kind::User => of_user(portal, id).await?,
        Kind::Case | Kind::Hosts | Kind::Portal | Kind::Series => None,
    };
    Ok(found)
}

async fn of_expression(portal: &Portal, id: i64) -> sqlx::Result<Option<Value>> {
    let Some(found) = expression::by_id(portal, id).await? else { return Ok(None) };
    let action = action::by_id(portal, found.action_id).await?;
    Ok(Some(with(found, [("action", value(action))])))
}

async fn of_group(portal: &Portal, id: i64) -> sqlx::Result<Option<Value>> {
    let Some(found) = group::by_id(portal, id).await? else { return Ok(None) };
    let lists = [
        ("hosts", names(host::of_group(portal, id).await?, |host| host.hostname)),
        ("templates", names(group::templates(portal, id).await?, |template| template.tpl_name)),
        ("plugins", value(plugin::of_group(portal, id).await?)),
        ("aggregators", value(aggregator::of_group(portal, id).await?)),
        ("probes", probe::of_group(portal, id).await?.into_iter().map(of_probe).collect()),
        ("exceptions", value(exception::of_group(portal, &found.grp_name).await?)),
    ];
    Ok(Some(with(found, lists)))
}

async fn of_host(portal: &Portal, id: i64) -> sqlx::Result<Option<Value>> {
    let Some(found) = host::by_id(portal, id).await? else { return Ok(None) };
    let groups = names(group::of_host(portal, id).await?, |group| group.grp_name);
    Ok(Some(with(found, [("groups", groups)])))
}

/// A probe with its definition as an object, so that what differs within is told, and its secrets are found.
fn of_probe(row: probe::Probe) -> Value {
    let definition = super::probe::keys_of(&row);
    with(row, [("definition", Value::Object(definition))])
}

async fn of_screen(portal: &Portal, id: i64) -> sqlx::Result<Option<Value>> {
    let Some(found) = dashboard::screen(portal, id).await? else { return Ok(None) };
    let charts = value(dashboard::graphs(portal, id, CHARTS_MAX).await?);
    Ok(Some(with(found, [("graphs", charts)])))
}

async fn of_strategy(portal: &Portal, id: i64) -> sqlx::Result<Option<Value>> {
    let Some(found) = strategy::by_id(portal, id).await? else { return Ok(None) };
    let exceptions = value(exception::of_strategy(portal, id).await?);
    Ok(Some(with(found, [("exceptions", exceptions)])))
}

async fn of_team(portal: &Portal, id: i64) -> sqlx::Result<Option<Value>> {
    let Some(found) = team::by_id(portal, id).await? else { return Ok(None) };
    let members = names(team::members(portal, id).await?, |user| user.name);
    Ok(Some(with(found, [("members", members)])))
}

async fn of_template(portal: &Portal, id: i64) -> sqlx::Result<Option<Value>> {
    let Some(found) = template::by_id(portal, id).await? else { return Ok(None) };
    let parts = [
        ("action", value(action::by_id(portal, found.action_id).await?)),
        ("strategies", value(strategy::of_template(portal, id).await?)),
        ("exceptions", value(exception::of_template(portal, id).await?)),
        ("groups", names(group::of_template(portal, id).await?, |group| group.grp_name)),
    ];
    Ok(Some(with(found, parts)))
}

async fn of_user(portal: &Portal, id: i64) -> sqlx::Result<Option<Value>> {
    let Some(found) = user::by_id(portal, id).await? else { return Ok(None) };
    // When a token was used last is no change of its user.
    let tokens = token::list(portal, Some(id)).await?.into_iter();
    let tokens = tokens.map(|token| json!({ "id": token.id, "name": token.name, "scopes": token.scopes }));
    let parts = [
        ("teams", names(team::of_user(portal, id).await?, |team| team.name)),
        ("tokens", tokens.collect::<Vec<Value>>().into()),
    ];
    Ok(Some(with(found, parts)))
}

async fn windows(portal: &Portal, which: &Selection) -> sqlx::Result<Value> {
    let hosts = host::find(portal, which).await?;
    let windows = hosts.into_iter().map(|host| (host.hostname, json!([host.maintain_begin, host.maintain_end])));
    Ok(Value::Object(windows.collect()))
}

fn value(thing: impl Serialize) -> Value {
    serde_json::to_value(thing).unwrap_or_default()
}

fn names<T>(list: Vec<T>, name: fn(T) -> String) -> Value {
    list.into_iter().map(name).collect::<Vec<String>>().into()
}

fn with<const N: usize>(thing: impl Serialize, parts: [(&str, Value); N]) -> Value {
    let mut thing = value(thing);
    for (name, part) in parts {
        thing[name] = part;
    }
    thing
}
