//! `[graph]`: how long points are kept, in memory and on disk, the index of an old api, and the old graphs behind an
//! api that stands alone.

use super::{Mode, MysqlUrl, RingConfig};
use model::ring::REPLICAS_DEFAULT;
use serde::Deserialize;
use settings::Faults;
use settings::units::seconds;
use std::collections::BTreeMap;

/// Section `graph`: the store, and what is asked of it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GraphConfig {
    pub retention: Retention,
    /// Moments at which points are forced to the disk: "always" before an answer, each "second", or "never".
    pub fsync: Fsync,
    /// Time that the judge and the newest charts look back without touching the disk (seconds).
    #[serde(deserialize_with = "seconds")]
    pub hot_window: i64,
    /// Points this much older than the newest of their series are still merged in order (seconds).
    #[serde(deserialize_with = "seconds")]
    pub late_window: i64,
    /// A series without a point for so long leaves memory; it stays searchable and readable (seconds; 0 is never).
    #[serde(deserialize_with = "seconds")]
    pub silent_after: i64,
    /// The most points in the answer to one query.
    pub query_points_max: usize,
    /// Open-Falcon's index database, kept for an old api beside this server; an api alone searches it. "" is none.
    pub index_url: MysqlUrl,
    /// Time between two writes of the `ts` of every live series to the index (seconds).
    #[serde(deserialize_with = "seconds")]
    pub index_refresh: i64,
    /// Address of each old graph by its name, for an api that runs alone.
    pub cluster: BTreeMap<String, String>,
    /// Points of a graph on the ring; the same everywhere in a site.
    pub replicas: u32,
}

/// Section `graph.retention`: times for which points and roll-ups are kept.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Time for which points are kept as they came (seconds).
    #[serde(deserialize_with = "seconds")]
    pub raw: i64,
    /// Time for which roll-ups of five minutes are kept (seconds); with 0 none are made.
    #[serde(rename = "5m", deserialize_with = "seconds")]
    pub five_minutes: i64,
    /// Time for which roll-ups of an hour are kept (seconds); with 0 none are made.
    #[serde(rename = "1h", deserialize_with = "seconds")]
    pub hour: i64,
}

/// Moments at which points are forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fsync {
    Always,
    Second,
    Never,
}

impl Default for GraphConfig {
    fn default() -> Self {
        GraphConfig {
            retention: Retention::default(),
            fsync: Fsync::Second,
            hot_window: 2 * 3600,
            late_window: 3600,
            silent_after: 2 * 86_400,
            query_points_max: 2_000_000,
            index_url: MysqlUrl::default(),
            // Four times a day: programs that clean the index count in days.
            index_refresh: 6 * 3600,
            cluster: BTreeMap::new(),
            replicas: REPLICAS_DEFAULT,
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Retention { raw: 30 * 86_400, five_minutes: 180 * 86_400, hour: 730 * 86_400 }
    }
}

/// A day in seconds.
const DAY: i64 = 86_400;

impl GraphConfig {
    /// The limits of the store (`store::Options`), by the names of the keys.
    pub(super) fn check(&self, mode: Option<Mode>, faults: &mut Faults) {
        self.check_cluster(mode, faults);
        if !(600..=30 * DAY).contains(&self.hot_window) {
            faults.add(format!("graph.hot_window is {} s: give \"10m\" to \"30days\"", self.hot_window));
        }
        if !(0..=30 * DAY).contains(&self.late_window) {
            faults.add(format!("graph.late_window is {} s: give \"0s\" to \"30days\"", self.late_window));
        }
        let silent_after = self.silent_after;
        if silent_after != 0 && !(self.hot_window.max(3600)..=1000 * DAY).contains(&silent_after) {
            faults.add(format!(
                "graph.silent_after is {silent_after} s: give \"0s\", or at least \"1h\" and graph.hot_window, up to \
                 \"1000days\""
            ));
        }
        if self.query_points_max == 0 {
            faults.add("graph.query_points_max is 0: no answer could hold a point; give at least 1");
        }
        if !(10..=DAY).contains(&self.index_refresh) {
            faults.add(format!("graph.index_refresh is {} s: give \"10s\" to \"1day\"", self.index_refresh));
        }
        self.retention.check(faults);
    }

    fn check_cluster(&self, mode: Option<Mode>, faults: &mut Faults) {
        let ring = RingConfig { replicas: self.replicas, cluster: self.cluster.clone() };
        ring.check("graph", false, faults);
        if mode == Some(Mode::Api) && self.cluster.is_empty() {
            faults.add(
                "graph.cluster is {}: an api alone reads the points of old graphs; give their names and addresses as in the \
                 old api's cfg.json, like { graph-00 = \"10.0.0.1:6070\" }, or take all six roles",
            );
        }
        if mode.is_some_and(|mode| mode != Mode::Api) && !self.cluster.is_empty() {
            faults.add(
                "graph.cluster is for an api that runs alone (roles = [\"api\"]): leave it {}; a transfer sends to \
                 transfer.graph.cluster",
            );
        }
    }
}

impl Retention {
    fn check(&self, faults: &mut Faults) {
        if !(3600..=1000 * DAY).contains(&self.raw) {
            faults.add(format!("graph.retention.raw is {} s: give \"1h\" to \"1000days\"", self.raw));
        }
        for (key, time) in [("5m", self.five_minutes), ("1h", self.hour)] {
            if time != 0 && !(3600..=20_000 * DAY).contains(&time) {
                faults.add(format!(
                    "graph.retention.{key} is {time} s: give \"1h\" to \"20000days\", or \"0s\" for no such roll-ups"
                ));
            }
        }
    }
}
