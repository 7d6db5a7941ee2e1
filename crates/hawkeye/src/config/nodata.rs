//! `[nodata]`: values that stand for silent series.

use super::{Mode, Role, old_api};
use serde::Deserialize;
use settings::Faults;
use std::collections::BTreeSet;

/// Section `nodata`: mocks.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodataConfig {
    /// Share of the series of one nodata that may fall silent at once and be mocked, above 0; where more do, none of
    /// them is, and a series says so. 1 turns this guard off.
    pub flood_share: f64,
    /// Where nodata runs alone: the old api that has the rows and the last points, and its server token.
    pub plus_api: String,
    pub plus_api_token: String,
    /// Where mocks go then: an agent's `/v1/push`, or a transfer's `/api/push`.
    pub push_api: String,
}

impl Default for NodataConfig {
    fn default() -> NodataConfig {
        let text = String::new;
        NodataConfig { flood_share: 0.5, plus_api: text(), plus_api_token: text(), push_api: text() }
    }
}

impl NodataConfig {
    pub(super) fn check(&self, mode: Option<Mode>, roles: &BTreeSet<Role>, faults: &mut Faults) {
        let keys = [&self.plus_api, &self.plus_api_token, &self.push_api].map(String::as_str);
        old_api::check("nodata", mode, roles.contains(&Role::Nodata), keys, faults);
        if !(self.flood_share > 0.0 && self.flood_share <= 1.0) {
            faults.add(format!("nodata.flood_share is {}: give a share above 0, up to 1", self.flood_share));
        }
    }
}
