//! `[p8s]`: which series a Prometheus is shown, and how many.

use super::{Listen, Mode};
use serde::Deserialize;
use settings::Faults;

/// The most series that a page may have; Prometheus itself takes a page of some hundred megabytes.
const SERIES_MAX: usize = 1_000_000;

/// Section `p8s`: falcon2p8s' place.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct P8sConfig {
    /// Beginnings of the names of metrics of the own store that are shown.
    pub metrics: Vec<String>,
    /// The most series of each kind: of the own store, and of those that transfers send.
    pub series_max: usize,
}

impl Default for P8sConfig {
    fn default() -> Self {
        P8sConfig { metrics: Vec::new(), series_max: 100_000 }
    }
}

impl P8sConfig {
    pub(super) fn check(&self, mode: Option<Mode>, listen: &Listen, faults: &mut Faults) {
        if self.metrics.iter().any(String::is_empty) {
            faults.add("p8s.metrics has \"\", which every name begins with: give beginnings like \"cpu.\"");
        }
        if !self.metrics.is_empty() && listen.p8s_http.is_empty() {
            faults.add("p8s.metrics is set, and nobody can read them: set listen.p8s_http, like \"127.0.0.1:9090\"");
        }
        if mode == Some(Mode::Whole)
            && !listen.p8s_http.is_empty()
            && self.metrics.is_empty()
            && listen.p8s_rpc.is_empty()
        {
            faults.add(
                "listen.p8s_http would show nothing: set p8s.metrics to beginnings like [\"cpu.\"], or listen.p8s_rpc for \
                 transfers that send, or leave it \"\"",
            );
        }
        if !(1..=SERIES_MAX).contains(&self.series_max) {
            faults.add(format!("p8s.series_max is {}: give a number from 1 to {SERIES_MAX}", self.series_max));
        }
    }
}
