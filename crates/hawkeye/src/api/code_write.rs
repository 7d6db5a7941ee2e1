//! Write: the tables as a plan wants them, inside one transaction.
//!
//! How: what goes is deleted first, so that its names are free; then kinds are written in the order in which they name
//! each other.
//! Invariants: rows that say the same are not touched; an error leaves nothing behind, for the caller drops the
//! transaction.

use super::code::Actor;
use super::code_diff::differs;
use super::code_model::{
    AggregatorThing, ExpressionThing, GroupThing, Model, ProbeThing, ScreenThing, TeamThing, TemplateThing, Thing,
};
use crate::clock;
use crate::portal::action::{self, Action};
use crate::portal::aggregator::{self, Aggregator};
use crate::portal::dashboard::{Graph, Screen};
use crate::portal::db::Transaction;
use crate::portal::exception::{self, Exception};
use crate::portal::mock::{self, Mock};
use crate::portal::probe::{self, Probe, SERVER};
use crate::portal::site::Site;
use crate::portal::strategy::{self, Strategy};
use crate::portal::team::{self, Team};
use crate::portal::template::{self, Template};
use crate::portal::user::{self, Profile, User};
use crate::portal::{dashboard, expression, group, plugin};
use anyhow::{Context, Result};
use std::collections::{BTreeSet, HashMap};

/// Ids by lower-case names.
type Ids = HashMap<String, i64>;

/// Makes the tables what `new` says.
pub async fn write(t: &mut Transaction, site: &Site, old: &Model, new: &Model, actor: &Actor) -> Result<()> {
    delete(t, old, new).await?;
    let users = users(t, &old.users, &new.users).await?;
    for thing in changed(&old.teams, &new.teams) {
        save_team(t, thing, &users).await?;
    }
    let templates = templates(t, site, old, new, actor).await?;
    let groups = groups(t, site, old, new, actor, &templates).await?;
    for thing in changed(&old.expressions, &new.expressions) {
        save_expression(t, thing).await?;
    }
    for row in changed(&old.nodata, &new.nodata) {
        save_mock(t, row).await?;
    }
    for thing in changed(&old.aggregators, &new.aggregators) {
        save_aggregator(t, thing, &groups).await?;
    }
    for thing in changed(&old.probes, &new.probes) {
        save_probe(t, thing, &groups).await?;
    }
    dashboards(t, old, new).await
}

/// Things that are new, or say something else than before.
fn changed<'n, T: Thing>(old: &[T], new: &'n [T]) -> impl Iterator<Item = &'n T> {
    let is_changed = |thing: &&T| {
        let before = old.iter().find(|old| thing.id() != 0 && old.id() == thing.id());
        before.is_none_or(|before| differs(before, thing))
    };
    new.iter().filter(is_changed).collect::<Vec<_>>().into_iter()
}

/// Ids of what is there no more.
fn gone<T: Thing>(old: &[T], new: &[T]) -> Vec<i64> {
    let stays: BTreeSet<i64> = new.iter().map(Thing::id).collect();
    old.iter().map(Thing::id).filter(|id| !stays.contains(id)).collect()
}

async fn delete(t: &mut Transaction, old: &Model, new: &Model) -> Result<()> {
    for id in gone(&old.dashboards, &new.dashboards) {
        dashboard::remove_screen(t, id).await?;
    }
    for id in gone(&old.probes, &new.probes) {
        probe::remove(t, id).await?;
    }
    for id in gone(&old.aggregators, &new.aggregators) {
        aggregator::remove(&mut *t, id).await?;
    }
    for id in gone(&old.nodata, &new.nodata) {
        mock::remove(&mut *t, id).await?;
    }
    for id in gone(&old.expressions, &new.expressions) {
        expression::remove(&mut *t, id).await?;
    }
    let groups = gone(&old.groups, &new.groups);
    take_out(t, old, new, &groups).await?;
    for id in groups {
        group::remove(t, id).await?;
    }
    for id in gone(&old.templates, &new.templates) {
        template::remove(t, id).await?;
    }
    for id in gone(&old.teams, &new.teams) {
        team::remove(t, id).await?;
    }
    for id in gone(&old.users, &new.users) {
        user::remove(t, id).await?;
    }
    Ok(())
}

/// Takes what stays out of groups that go, with which it would go; the group that it moves to is saved later.
async fn take_out(t: &mut Transaction, old: &Model, new: &Model, groups: &[i64]) -> Result<()> {
    let stays: BTreeSet<i64> = new.aggregators.iter().map(Thing::id).collect();
    for row in old.aggregators.iter().map(|thing| &thing.row) {
        if groups.contains(&row.grp_id) && stays.contains(&row.id) {
            aggregator::change(&mut *t, &Aggregator { grp_id: 0, ..row.clone() }).await?;
        }
    }
    let stays: BTreeSet<i64> = new.probes.iter().map(Thing::id).collect();
    for row in old.probes.iter().map(|thing| &thing.row) {
        if groups.contains(&row.grp_id) && stays.contains(&row.id) {
            probe::change(t, &Probe { grp_id: SERVER, ..row.clone() }).await?;
        }
    }
    Ok(())
}

fn key(name: &str) -> String {
    name.to_ascii_lowercase()
}

fn id_of(ids: &Ids, name: &str) -> Result<i64> {
    ids.get(&key(name)).copied().with_context(|| format!("{name:?} was not made"))
}

/// Saves users. A new one has no password, which no login has.
async fn users(t: &mut Transaction, old: &[User], new: &[User]) -> Result<Ids> {
    let mut ids: Ids = new.iter().map(|user| (key(&user.name), user.id)).collect();
    for row in changed(old, new) {
        let User { id, name, cnname, email, phone, im, qq, role } = row.clone();
        let profile = Profile { cnname, email, phone, im, qq };
        if id == 0 {
            let made = user::create(&mut *t, &name, "", &profile, role, 0).await;
            ids.insert(key(&name), made.with_context(|| format!("cannot make the user {name:?}"))?);
            continue;
        }
        user::update_profile(&mut *t, id, &profile).await?;
        user::rename(&mut *t, id, &name).await?;
        user::set_role(&mut *t, id, role).await?;
    }
    Ok(ids)
}

async fn save_team(t: &mut Transaction, thing: &TeamThing, users: &Ids) -> Result<()> {
    let creator = if thing.owner.is_empty() { 0 } else { id_of(users, &thing.owner)? };
    let mut row = Team { creator, ..thing.row.clone() };
    if row.id == 0 {
        row.id = team::insert(t, &row.name, &row.resume, creator).await?;
    } else {
        team::change(t, &row).await?;
    }
    let members = thing.members.iter().map(|name| id_of(users, name)).collect::<Result<Vec<i64>>>()?;
    team::set_members(t, row.id, &members).await?;
    Ok(())
}

/// Saves templates: first all that are new, so that each finds its parent.
async fn templates(t: &mut Transaction, site: &Site, old: &Model, new: &Model, actor: &Actor) -> Result<Ids> {
    let mut ids: Ids = new.templates.iter().map(|thing| (key(&thing.row.tpl_name), thing.row.id)).collect();
    for row in new.templates.iter().map(|thing| &thing.row).filter(|row| row.id == 0) {
        let id = template::insert(&mut *t, &Template { action_id: 0, parent_id: 0, ..row.clone() }).await?;
        ids.insert(key(&row.tpl_name), id);
    }
    for thing in changed(&old.templates, &new.templates) {
        let before = old.templates.iter().find(|old| thing.row.id != 0 && old.row.id == thing.row.id);
        let id = id_of(&ids, &thing.row.tpl_name)?;
        let action_id = save_action(t, site, thing, before).await?;
        let parent_id = if thing.parent.is_empty() { 0 } else { id_of(&ids, &thing.parent)? };
        template::change(&mut *t, &Template { id, parent_id, action_id, ..thing.row.clone() }).await?;
        save_strategies(t, thing, before, id, actor).await?;
    }
    Ok(ids)
}

/// Saves the action of a template, in place of its own, or as a new one where it shares one; answers its id.
async fn save_action(
    t: &mut Transaction,
    site: &Site,
    thing: &TemplateThing,
    before: Option<&TemplateThing>,
) -> Result<i64> {
    let Some(action) = &thing.action else { return Ok(0) };
    let Some(old) = before.and_then(|before| before.action.as_ref()) else {
        return Ok(action::insert(t, action).await?);
    };
    if *old == *action {
        return Ok(old.id);
    }
    let of_templates = site.templates.iter().map(|row| row.action_id);
    let owners = of_templates.chain(site.expressions.iter().map(|row| row.action_id)).filter(|id| *id == old.id);
    if owners.count() > 1 {
        return Ok(action::insert(t, action).await?);
    }
    action::update(&mut *t, &Action { id: old.id, ..action.clone() }).await?;
    Ok(old.id)
}

async fn save_strategies(
    t: &mut Transaction,
    thing: &TemplateThing,
    before: Option<&TemplateThing>,
    tpl_id: i64,
    actor: &Actor,
) -> Result<()> {
    let old = before.map_or(&[][..], |before| &before.strategies);
    let stays: BTreeSet<i64> = thing.strategies.iter().map(|one| one.row.id).collect();
    for gone in old.iter().filter(|old| !stays.contains(&old.row.id)) {
        strategy::remove(t, gone.row.id).await?;
    }
    for one in &thing.strategies {
        let before = old.iter().find(|old| one.row.id != 0 && old.row.id == one.row.id);
        let mut row = Strategy { tpl_id, ..one.row.clone() };
        match before {
            None => row.id = strategy::insert(&mut *t, &row).await?,
            Some(before) if before.row != row => strategy::change(&mut *t, &row).await?,
            Some(_) => {}
        }
        save_exceptions(t, before.map_or(&[][..], |before| &before.exceptions), &one.exceptions, row.id, actor).await?;
    }
    Ok(())
}

async fn save_exceptions(
    t: &mut Transaction,
    old: &[Exception],
    new: &[Exception],
    strategy_id: i64,
    actor: &Actor,
) -> Result<()> {
    let stays: BTreeSet<i64> = new.iter().map(|row| row.id).collect();
    for gone in old.iter().filter(|old| !stays.contains(&old.id)) {
        exception::remove(&mut *t, gone.id).await?;
    }
    for row in new {
        if row.id == 0 {
            let (create_user, create_at) = (actor.name.clone(), clock::now());
            exception::insert(&mut *t, &Exception { strategy_id, create_user, create_at, ..row.clone() }).await?;
        } else {
            exception::change(&mut *t, row).await?;
        }
    }
    Ok(())
}

async fn groups(
    t: &mut Transaction,
    site: &Site,
    old: &Model,
    new: &Model,
    actor: &Actor,
    templates: &Ids,
) -> Result<Ids> {
    let mut ids: Ids = new.groups.iter().map(|thing| (key(&thing.row.grp_name), thing.row.id)).collect();
    for thing in changed(&old.groups, &new.groups) {
        let before = old.groups.iter().find(|old| thing.row.id != 0 && old.row.id == thing.row.id);
        let id = match before {
            None => group::create(&mut *t, &thing.row.grp_name, &thing.row.create_user).await?.id,
            Some(before) => {
                if before.row.grp_name != thing.row.grp_name {
                    group::rename_within(t, before.row.id, &thing.row.grp_name).await?;
                }
                group::set_owner(t, before.row.id, &thing.row.create_user).await?;
                before.row.id
            }
        };
        ids.insert(key(&thing.row.grp_name), id);
        save_group(t, site, thing, before, id, actor, templates).await?;
    }
    Ok(ids)
}

/// Saves what a group has. Who bound what stays is not changed.
async fn save_group(
    t: &mut Transaction,
    site: &Site,
    thing: &GroupThing,
    before: Option<&GroupThing>,
    id: i64,
    actor: &Actor,
    templates: &Ids,
) -> Result<()> {
    if before.is_none_or(|before| before.hosts != thing.hosts) {
        let set = group::set_hosts(t, id, &thing.hosts).await?;
        let max = crate::portal::host::HOSTS_MAX;
        set.with_context(|| format!("the table of hosts is full ({max} hosts): delete what no longer reports"))?;
    }
    let wanted = thing.templates.iter().map(|name| id_of(templates, name)).collect::<Result<BTreeSet<i64>>>()?;
    for (_, tpl_id) in site.bindings.iter().filter(|(group, tpl_id)| *group == id && !wanted.contains(tpl_id)) {
        group::unbind_within(&mut *t, id, *tpl_id).await?;
    }
    for tpl_id in wanted {
        group::bind_within(&mut *t, id, tpl_id, &actor.name).await?;
    }
    let there: Vec<_> = site.plugins.iter().filter(|row| row.grp_id == id).collect();
    for row in there.iter().filter(|row| !thing.plugins.contains(&row.dir)) {
        plugin::remove(&mut *t, row.id).await?;
    }
    for dir in thing.plugins.iter().filter(|dir| !there.iter().any(|row| row.dir == **dir)) {
        plugin::insert(&mut *t, id, dir, &actor.name).await?;
    }
    Ok(())
}

async fn save_expression(t: &mut Transaction, thing: &ExpressionThing) -> Result<()> {
    let ExpressionThing { row, action } = thing;
    if row.id == 0 {
        expression::insert(t, row, action).await?;
        return Ok(());
    }
    expression::change(t, row, action).await?;
    Ok(expression::set_owner(t, row.id, &row.create_user).await?)
}

async fn save_mock(t: &mut Transaction, row: &Mock) -> Result<()> {
    if row.id == 0 {
        mock::insert(&mut *t, row).await?;
    } else {
        mock::change(&mut *t, row).await?;
    }
    Ok(())
}

async fn save_aggregator(t: &mut Transaction, thing: &AggregatorThing, groups: &Ids) -> Result<()> {
    let row = Aggregator { grp_id: id_of(groups, &thing.group)?, ..thing.row.clone() };
    if row.id == 0 {
        aggregator::insert(&mut *t, &row).await?;
    } else {
        aggregator::change(&mut *t, &row).await?;
    }
    Ok(())
}

async fn save_probe(t: &mut Transaction, thing: &ProbeThing, groups: &Ids) -> Result<()> {
    let grp_id = if thing.group.is_empty() { SERVER } else { id_of(groups, &thing.group)? };
    let row = Probe { grp_id, ..thing.row.clone() };
    if row.id == 0 {
        probe::insert(&mut *t, &Probe { create_at: clock::now(), ..row }).await?;
    } else {
        probe::change(t, &row).await?;
        probe::set_owner(t, row.id, &row.create_user).await?;
    }
    Ok(())
}

/// Saves screens, each behind the one that it is in.
async fn dashboards(t: &mut Transaction, old: &Model, new: &Model) -> Result<()> {
    let mut changed: Vec<&ScreenThing> = changed(&old.dashboards, &new.dashboards).collect();
    changed.sort_by_key(|thing| thing.parent.len());
    let path = |parts: &[String]| key(&parts.join("\0"));
    let mut ids: Ids = new.dashboards.iter().map(|thing| (path(&thing.parts()), thing.row.id)).collect();
    let before =
        |thing: &ScreenThing| old.dashboards.iter().find(|old| thing.row.id != 0 && old.row.id == thing.row.id);
    // Two screens may take each other's place, and no name is there twice in between.
    for old in changed.iter().filter_map(|thing| before(thing).filter(|old| old.parts() != thing.parts())) {
        let name = format!("\u{1}{}", old.row.id);
        dashboard::update_screen(&mut *t, &Screen { name, ..old.row.clone() }).await?;
    }
    for thing in changed {
        let pid = if thing.parent.is_empty() { 0 } else { id_of(&ids, &thing.parent.join("\0"))? };
        let name = &thing.row.name;
        let id = match thing.row.id {
            0 => dashboard::insert_screen(&mut *t, pid, name).await?,
            id => {
                dashboard::update_screen(&mut *t, &Screen { id, pid, name: name.clone() }).await?;
                id
            }
        };
        ids.insert(path(&thing.parts()), id);
        save_graphs(t, before(thing).map_or(&[][..], |old| &old.graphs), &thing.graphs, id).await?;
    }
    Ok(())
}

async fn save_graphs(t: &mut Transaction, old: &[Graph], new: &[Graph], screen_id: i64) -> Result<()> {
    let stays: BTreeSet<i64> = new.iter().map(|row| row.id).collect();
    for gone in old.iter().filter(|old| !stays.contains(&old.id)) {
        dashboard::delete_graph(&mut *t, gone.id).await?;
    }
    for row in new {
        let row = Graph { screen_id, ..row.clone() };
        match old.iter().find(|old| row.id != 0 && old.id == row.id) {
            None => drop(dashboard::create_graph(&mut *t, &row).await?),
            Some(before) if *before != row => dashboard::update_graph(&mut *t, &row).await?,
            Some(_) => {}
        }
    }
    Ok(())
}
