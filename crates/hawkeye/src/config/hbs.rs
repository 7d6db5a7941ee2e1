//! `[hbs]`: settings that agents get from hbs.

use serde::Deserialize;
use settings::Faults;

/// Section `hbs`: answers to agents.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HbsConfig {
    /// Addresses that agents trust for their control routes (`Agent.TrustableIps`).
    pub trustable: Vec<String>,
}

impl HbsConfig {
    pub(super) fn check(&self, faults: &mut Faults) {
        // Agents get the list as one text with commas between.
        let is_wrong = |address: &&String| address.is_empty() || address.contains([',', ' ']);
        if let Some(address) = self.trustable.iter().find(is_wrong) {
            faults.add(format!("hbs.trustable has {address:?}: give one address in each text, like \"10.0.0.5\""));
        }
    }
}
