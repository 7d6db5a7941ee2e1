//! Rights: who may change or delete what somebody made.
//!
//! Why: in the original any user may delete every template and all history; its clients are used to it, so the setting
//! `api.rights` chooses.
//! How: under "strict" a thing may be changed by its owner (who made it), by administrators, and by the owning team: a
//! team that the thing's action tells, or one that the owner and the caller are both in and that the owner or an
//! administrator made. What an administrator made belongs to the site, and to the teams of its action. A group has the
//! actions of its templates, of those that its owner or an administrator made: whoever is told of a host's alarms sets
//! its maintenance. A strategy and an action belong to their template or expression, a plugin to its group, a host to
//! the groups that it is in. Under
//! "open-falcon" it is as in the original: [`may_change`] is asked where the original asks, and means owner and
//! administrators; the other functions let everybody pass.
//! Invariants: a right never comes from what a stranger can do by himself: not from a team that he made, nor from a
//! group into which he put somebody's host, be it before somebody had it; so maintenance asks for all groups.
//! `tests/rights.rs` asks each route that changes something as each kind of caller, and fails for a route that it does
//! not know.

use super::Context;
use super::auth::Caller;
use super::error::ApiError;
use crate::portal::host::Selection;
use crate::portal::template::Template;
use crate::portal::{action, group, team, user};
use std::collections::HashMap;

/// Whether the caller may change what `create_user` made; `uic` are the teams of its action, or "".
pub async fn may_change(context: &Context, caller: &Caller, create_user: &str, uic: &str) -> Result<bool, ApiError> {
    if caller.owns(create_user) {
        return Ok(true);
    }
    Ok(context.config.is_strict() && is_in_owning_team(context, caller, create_user, uic).await?)
}

/// Refuses a change that the original lets anybody make, of what `create_user` made.
pub async fn check(context: &Context, caller: &Caller, create_user: &str, uic: &str) -> Result<(), ApiError> {
    if !context.config.is_strict() || may_change(context, caller, create_user, uic).await? {
        return Ok(());
    }
    Err(denied(caller))
}

/// As [`may_change`], of a group.
pub async fn may_change_group(
    context: &Context,
    caller: &Caller,
    id: i64,
    create_user: &str,
) -> Result<bool, ApiError> {
    if may_change(context, caller, create_user, "").await? {
        return Ok(true);
    }
    if !context.config.is_strict() {
        return Ok(false);
    }
    for (uic, owner) in group::told(&context.portal, id).await? {
        // The owner of a template that somebody else uses gets no right to what it is used for.
        let counts = owner.eq_ignore_ascii_case(create_user) || is_admin(context, &owner).await?;
        if counts && is_in_owning_team(context, caller, create_user, &uic).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// As [`check`], of a group.
pub async fn check_group(context: &Context, caller: &Caller, group: &group::Group) -> Result<(), ApiError> {
    if !context.config.is_strict() || may_change_group(context, caller, group.id, &group.create_user).await? {
        return Ok(());
    }
    Err(denied(caller))
}

/// Refuses a change of a template, or of what belongs to it, that the original lets anybody make.
pub async fn check_template(context: &Context, caller: &Caller, template: &Template) -> Result<(), ApiError> {
    check(context, caller, &template.create_user, &uic_of(context, template).await?).await
}

/// The teams that a template's action tells.
pub async fn uic_of(context: &Context, template: &Template) -> Result<String, ApiError> {
    Ok(action::by_id(&context.portal, template.action_id).await?.unwrap_or_default().uic)
}

/// Refuses a change of an action, unless the caller may change each template and expression that has it.
pub async fn check_action(context: &Context, caller: &Caller, id: i64) -> Result<(), ApiError> {
    if may_all(context, caller) {
        return Ok(());
    }
    let uic = action::by_id(&context.portal, id).await?.unwrap_or_default().uic;
    let owners = action::owners(&context.portal, id).await?;
    if owners.is_empty() {
        return Err(denied(caller));
    }
    for owner in owners {
        check(context, caller, &owner, &uic).await?;
    }
    Ok(())
}

/// What is to be done with hosts.
#[derive(Clone, Copy, PartialEq)]
pub enum HostChange {
    /// Put them into a group of the caller's. Who may change one of a host's groups may, and one that is in no group is
    /// everybody's: somebody must put it into his group first.
    Join,
    /// Set or end their maintenance, for everybody who watches them. Who may change all of a host's groups may: into
    /// one of his own a stranger may have put the host while it was in no other.
    Maintain,
}

/// Refuses a change of hosts, unless the caller may change the groups of each that [`HostChange`] asks for.
pub async fn check_hosts(
    context: &Context,
    caller: &Caller,
    which: &Selection,
    change: HostChange,
) -> Result<(), ApiError> {
    if may_all(context, caller) {
        return Ok(());
    }
    let mut of_group: HashMap<i64, bool> = HashMap::new();
    let mut of_host: HashMap<i64, bool> = HashMap::new();
    for (host, id, create_user) in group::of_hosts(&context.portal, which).await? {
        let may = match id {
            None => change == HostChange::Join,
            Some(id) => match of_group.get(&id) {
                Some(may) => *may,
                None => may_change_group(context, caller, id, &create_user.unwrap_or_default()).await?,
            },
        };
        if let Some(id) = id {
            of_group.insert(id, may);
        }
        let of_all = of_host.entry(host).or_insert(may);
        *of_all = match change {
            HostChange::Join => *of_all || may,
            HostChange::Maintain => *of_all && may,
        };
    }
    if of_host.values().all(|may| *may) {
        return Ok(());
    }
    Err(match change {
        HostChange::Join => denied(caller),
        HostChange::Maintain => caller.denied(ApiError::bad(
            "You don't have permission! Who may change all groups that a host is in, or an administrator, may do this \
             (api.rights = \"strict\").",
        )),
    })
}

/// Refuses what only administrators may do, and in the original anybody.
pub fn check_admin(context: &Context, caller: &Caller) -> Result<(), ApiError> {
    if may_all(context, caller) {
        return Ok(());
    }
    Err(caller.denied(ApiError::bad(
        "You don't have permission! Only an administrator may do this (api.rights = \"strict\").",
    )))
}

/// Whether nothing is to be asked: everybody, or administrators.
pub fn may_all(context: &Context, caller: &Caller) -> bool {
    !context.config.is_strict() || caller.is_admin()
}

fn denied(caller: &Caller) -> ApiError {
    caller.denied(ApiError::bad(
        "You don't have permission! Its owner, a member of the owning team, or an administrator may do this \
         (api.rights = \"strict\").",
    ))
}

async fn is_admin(context: &Context, name: &str) -> Result<bool, ApiError> {
    Ok(user::by_name(&context.portal, name).await?.is_some_and(|user| user.is_admin()))
}

async fn is_in_owning_team(context: &Context, caller: &Caller, create_user: &str, uic: &str) -> Result<bool, ApiError> {
    let portal = &context.portal;
    let Some(user) = &caller.user else { return Ok(false) };
    let teams = team::of_user(portal, user.id).await?;
    let is_told = |team: &team::Team| action::teams(uic).any(|name| name.eq_ignore_ascii_case(&team.name));
    if teams.iter().any(is_told) {
        return Ok(true);
    }
    let Some(owner) = user::by_name(portal, create_user).await? else { return Ok(false) };
    if owner.is_admin() {
        return Ok(false);
    }
    for team in teams {
        if team.creator == owner.id {
            return Ok(true);
        }
        let creator = user::by_id(portal, team.creator).await?;
        if creator.is_some_and(|creator| creator.is_admin()) && team::is_member(portal, team.id, owner.id).await? {
            return Ok(true);
        }
    }
    Ok(false)
}
