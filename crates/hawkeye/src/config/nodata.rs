//! `[nodata]`: values that stand for silent series.

use serde::Deserialize;
use settings::Faults;

/// Section `nodata`: mocks.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodataConfig {
    /// Share of the series of one nodata that may fall silent at once and be mocked, above 0; where more do, none of
    /// them is, and a series says so. 1 turns this guard off.
    pub flood_share: f64,
}

impl Default for NodataConfig {
    fn default() -> NodataConfig {
        NodataConfig { flood_share: 0.5 }
    }
}

impl NodataConfig {
    pub(super) fn check(&self, faults: &mut Faults) {
        if !(self.flood_share > 0.0 && self.flood_share <= 1.0) {
            faults.add(format!("nodata.flood_share is {}: give a share above 0, up to 1", self.flood_share));
        }
    }
}
