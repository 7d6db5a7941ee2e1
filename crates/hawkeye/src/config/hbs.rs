//! `[hbs]`: settings that agents get from hbs.

use serde::Deserialize;

/// Section `hbs`: answers to agents.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HbsConfig {
    /// Addresses that agents trust for their control routes (`Agent.TrustableIps`).
    pub trustable: Vec<String>,
}
