//! `[portal]`: where the control plane's tables are.

use super::{Mode, MysqlUrl};
use serde::Deserialize;
use settings::Faults;

/// Section `portal`: the database of the control plane.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PortalConfig {
    /// The database: "" is SQLite in the data directory. An hbs or api that runs alone uses the MySQL of an
    /// Open-Falcon.
    pub url: MysqlUrl,
    /// A new portal has the default rules of `server/defaults.rs`.
    pub defaults: bool,
}

impl Default for PortalConfig {
    fn default() -> PortalConfig {
        PortalConfig { url: MysqlUrl::default(), defaults: true }
    }
}

impl PortalConfig {
    pub(super) fn check(&self, mode: Option<Mode>, faults: &mut Faults) {
        // The URL of a database has a password in it.
        if mode == Some(Mode::Hbs) && self.url.is_none() {
            faults.add(
                "portal.url is \"\": hbs alone reads an Open-Falcon's MySQL; give mysql://user:password@host:3306",
            );
        }
        if mode.is_some_and(|mode| !matches!(mode, Mode::Hbs | Mode::Api)) && !self.url.is_none() {
            faults.add(
                "portal.url is for an hbs or api that runs alone (roles = [\"hbs\"] or [\"api\"]) so far: leave it \"\" (SQLite in \
                 data_dir)",
            );
        }
    }
}
