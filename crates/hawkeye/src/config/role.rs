//! Roles: the parts that one process runs, and which of them run together.

use anyhow::{Result, bail};
use serde::Deserialize;
use std::collections::BTreeSet;

/// A part of Open-Falcon that a process plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Transfer,
    Judge,
    Graph,
    Hbs,
    Alarm,
    Api,
    /// A transfer in front of other transfers.
    Gateway,
    /// Series computed over groups; in a whole server without being asked for.
    Aggregator,
    /// Values for silent series; in a whole server without being asked for.
    Nodata,
}

/// A set of roles that work together in one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All six roles, or all but alarm: an old alarm, or a site's own, then takes the events from Redis and tells
    /// people.
    Whole,
    /// The graph alone, behind an old transfer and in front of an old api.
    Graph,
    /// The judge alone, behind an old transfer, beside an old hbs and in front of an old alarm.
    Judge,
    /// Transfer alone: points go on to graphs, judges and others.
    Transfer,
    /// Gateway alone: points go on to other transfers.
    Gateway,
    /// The alarm alone, behind the Redis of an old judge, beside an old api.
    Alarm,
    /// Hbs alone, over the MySQL of an Open-Falcon.
    Hbs,
    /// Aggregator, nodata, or both alone, beside an old api.
    Modules,
    /// The api alone, in front of old graphs.
    Api,
}

/// The roles of a whole server.
pub const ALL_ROLES: [Role; 6] = [Role::Transfer, Role::Judge, Role::Graph, Role::Hbs, Role::Alarm, Role::Api];

impl Role {
    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Role::Transfer => "transfer",
            Role::Judge => "judge",
            Role::Graph => "graph",
            Role::Hbs => "hbs",
            Role::Alarm => "alarm",
            Role::Api => "api",
            Role::Gateway => "gateway",
            Role::Aggregator => "aggregator",
            Role::Nodata => "nodata",
        }
    }
}

impl Mode {
    /// The mode that the roles make; an error for roles that do not work together.
    pub fn of(roles: &BTreeSet<Role>) -> Result<Mode> {
        let roles: Vec<Role> = roles.iter().copied().collect();
        match roles[..] {
            [Role::Graph] => Ok(Mode::Graph),
            [Role::Judge] => Ok(Mode::Judge),
            [Role::Transfer] => Ok(Mode::Transfer),
            [Role::Gateway] => Ok(Mode::Gateway),
            [Role::Hbs] => Ok(Mode::Hbs),
            [Role::Alarm] => Ok(Mode::Alarm),
            [Role::Api] => Ok(Mode::Api),
            [Role::Aggregator] | [Role::Nodata] | [Role::Aggregator, Role::Nodata] => Ok(Mode::Modules),
            _ if ALL_ROLES.iter().all(|role| *role == Role::Alarm || roles.contains(role))
                && roles.iter().all(|role| ALL_ROLES.contains(role)) =>
            {
                Ok(Mode::Whole)
            }
            _ => bail!(
                "roles is {:?}: that does not run together in one process; give [\"graph\"], [\"judge\"], [\"hbs\"], [\"alarm\"], [\"api\"], [\"aggregator\"] or [\"nodata\"] alone, [\"transfer\"] or [\"gateway\"] alone, or all six: \
                 {:?} (or leave the key out); of these only alarm may be missing, where judge.redis_url says who tells people",
                roles.iter().map(|role| role.name()).collect::<Vec<_>>(),
                ALL_ROLES.map(Role::name),
            ),
        }
    }
}
