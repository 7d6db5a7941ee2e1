//! Site: the tables that people fill in, as of one moment: what is kept as code.
//!
//! Invariants: rows are as they are, in the order of their ids. No password, session or token is read.
//! Memory: the rows; a site of 1,000 hosts with 80 templates of 40 strategies has about 2 MB.

use super::action::Action;
use super::aggregator::Aggregator;
use super::dashboard::{Graph, Screen};
use super::db::{Transaction, query, select};
use super::exception::{self, Exception};
use super::expression::Expression;
use super::group::Group;
use super::mock::Mock;
use super::plugin::Plugin;
use super::probe::{self, Probe};
use super::strategy::Strategy;
use super::team::Team;
use super::template::Template;
use super::user::User;

/// Rows of the tables, oldest first.
#[derive(Debug, Default)]
pub struct Site {
    pub users: Vec<User>,
    pub teams: Vec<Team>,
    /// Ids of team and user.
    pub members: Vec<(i64, i64)>,
    /// Ids and names.
    pub hosts: Vec<(i64, String)>,
    pub groups: Vec<Group>,
    /// Ids of group and host.
    pub group_hosts: Vec<(i64, i64)>,
    /// Ids of group and template.
    pub bindings: Vec<(i64, i64)>,
    pub plugins: Vec<Plugin>,
    pub templates: Vec<Template>,
    pub actions: Vec<Action>,
    pub strategies: Vec<Strategy>,
    pub exceptions: Vec<Exception>,
    pub expressions: Vec<Expression>,
    pub mocks: Vec<Mock>,
    pub aggregators: Vec<Aggregator>,
    pub probes: Vec<Probe>,
    pub screens: Vec<Screen>,
    /// Charts by their positions.
    pub charts: Vec<Graph>,
}

impl Site {
    /// Reads all tables. Fails as the database does, and where a row cannot be read.
    pub async fn read(t: &mut Transaction) -> sqlx::Result<Site> {
        Ok(Site {
            users: select::<User>("FROM uic.user ORDER BY id").all(&mut *t).await?,
            teams: select::<Team>("FROM uic.team ORDER BY id").all(&mut *t).await?,
            members: query("SELECT tid, uid FROM uic.rel_team_user ORDER BY id").all(&mut *t).await?,
            hosts: query("SELECT id, hostname FROM falcon_portal.host ORDER BY id").all(&mut *t).await?,
            groups: select::<Group>("FROM falcon_portal.grp ORDER BY id").all(&mut *t).await?,
            group_hosts: query("SELECT grp_id, host_id FROM falcon_portal.grp_host").all(&mut *t).await?,
            bindings: query("SELECT grp_id, tpl_id FROM falcon_portal.grp_tpl").all(&mut *t).await?,
            plugins: select::<Plugin>("FROM falcon_portal.plugin_dir ORDER BY id").all(&mut *t).await?,
            templates: select::<Template>("FROM falcon_portal.tpl ORDER BY id").all(&mut *t).await?,
            actions: select::<Action>("FROM falcon_portal.action ORDER BY id").all(&mut *t).await?,
            strategies: select::<Strategy>("FROM falcon_portal.strategy ORDER BY id").all(&mut *t).await?,
            exceptions: exception::all(&mut *t).await?,
            expressions: select::<Expression>("FROM falcon_portal.expression ORDER BY id").all(&mut *t).await?,
            mocks: select::<Mock>("FROM falcon_portal.mockcfg ORDER BY id").all(&mut *t).await?,
            aggregators: select::<Aggregator>("FROM falcon_portal.cluster ORDER BY id").all(&mut *t).await?,
            probes: probe::all(&mut *t).await?,
            screens: select::<Screen>("FROM dashboard.dashboard_screen ORDER BY id").all(&mut *t).await?,
            charts: select::<Graph>("FROM dashboard.dashboard_graph ORDER BY position, id").all(t).await?,
        })
    }
}
