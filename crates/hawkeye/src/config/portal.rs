//! `[portal]`: where the control plane's tables are.

use serde::Deserialize;
use settings::Faults;

/// Section `portal`: the database of the control plane.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PortalConfig {
    /// The database: "" is SQLite in the data directory, the only one so far.
    pub url: String,
}

impl PortalConfig {
    pub(super) fn check(&self, faults: &mut Faults) {
        if !self.url.is_empty() {
            // The URL of a database has a password in it.
            faults.add("portal.url is set: only \"\" (SQLite in data_dir) is known so far");
        }
    }
}
