//! `[aggregator]`: what an aggregator that runs alone asks, and where its points go.

use super::{Mode, Role, old_api};
use serde::Deserialize;
use settings::Faults;
use std::collections::BTreeSet;

/// Section `aggregator`: the neighbours of an aggregator that runs alone. In a whole server all is "".
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AggregatorConfig {
    /// The old api that has the rows and the last points, and its server token.
    pub plus_api: String,
    pub plus_api_token: String,
    /// Where points go: an agent's `/v1/push`, or a transfer's `/api/push`.
    pub push_api: String,
}

impl AggregatorConfig {
    pub(super) fn check(&self, mode: Option<Mode>, roles: &BTreeSet<Role>, faults: &mut Faults) {
        let keys = [&self.plus_api, &self.plus_api_token, &self.push_api].map(String::as_str);
        old_api::check("aggregator", mode, roles.contains(&Role::Aggregator), keys, faults);
    }
}
