//! `[hbs]`: settings that agents get from hbs.

use agent::release::Version;
use serde::Deserialize;
use settings::Faults;

/// Section `hbs`: answers to agents.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HbsConfig {
    /// Addresses that agents trust for their control routes (`Agent.TrustableIps`).
    pub trustable: Vec<String>,
    /// The version that agents are offered: "1.2.3", "newest" of `api.agents_dir`, or "" for none.
    pub agent_upgrade: String,
    /// Percentage of the hosts that are offered it, the same hosts each time.
    pub agent_upgrade_percent: u8,
}

/// The version that agents are offered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted {
    Newest,
    Version(Version),
}

impl Wanted {
    /// The version; none for the newest.
    pub fn version(&self) -> Option<Version> {
        match self {
            Wanted::Newest => None,
            Wanted::Version(version) => Some(*version),
        }
    }
}

impl Default for HbsConfig {
    fn default() -> Self {
        HbsConfig { trustable: Vec::new(), agent_upgrade: String::new(), agent_upgrade_percent: 100 }
    }
}

impl HbsConfig {
    /// The version that agents are offered; none where they are offered none.
    pub fn wanted(&self) -> Option<Wanted> {
        match self.agent_upgrade.as_str() {
            "newest" => Some(Wanted::Newest),
            text => text.parse().ok().map(Wanted::Version),
        }
    }

    pub(super) fn check(&self, faults: &mut Faults) {
        // Agents get the list as one text with commas between.
        let is_wrong = |address: &&String| address.is_empty() || address.contains([',', ' ']);
        if let Some(address) = self.trustable.iter().find(is_wrong) {
            faults.add(format!("hbs.trustable has {address:?}: give one address in each text, like \"10.0.0.5\""));
        }
        if !self.agent_upgrade.is_empty() && self.wanted().is_none() {
            faults.add(format!(
                "hbs.agent_upgrade is {:?}: give a version like \"1.2.3\", \"newest\", or \"\" for none",
                self.agent_upgrade
            ));
        }
        if self.agent_upgrade_percent > 100 {
            faults.add(format!("hbs.agent_upgrade_percent is {}: give 0 to 100", self.agent_upgrade_percent));
        }
    }
}
