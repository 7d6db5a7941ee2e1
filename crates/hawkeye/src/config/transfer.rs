//! `[transfer]`: where points go on to, for a gateway and for a transfer that stands alone.
//!
//! Compat: the keys say what those of the original's cfg.json say (docs/open-falcon/transfer.md §1). A section without
//! an address is off; connections and retries are not set: there is one of the former, and no end of the latter.

use super::{Listen, Mode};
use model::ring::REPLICAS_DEFAULT;
use serde::Deserialize;
use settings::units::{is_host_and_port, is_place, size};
use settings::{Faults, Secret};
use std::collections::{BTreeMap, BTreeSet};

/// The smallest share of `buffer_max` that a next hop can work with.
const BUFFER_SHARE_MIN: u64 = 1 << 20;
/// Nodes of a ring: each has a buffer with two open files, and a task.
const NODES_MAX: usize = 512;
/// Replicas of a node at most; more only cost memory.
const REPLICAS_MAX: u32 = 10_000;
/// Points of a call at most: the original's default is 200, and a call must fit the other side's longest message.
const BATCH_MAX: usize = 5_000;

/// Section `transfer`: the next hops.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransferConfig {
    /// Bytes of points that wait on the disk, in equal shares for all next hops.
    #[serde(deserialize_with = "size")]
    pub buffer_max: u64,
    /// Points of a call.
    pub batch: usize,
    pub graph: RingConfig,
    pub judge: RingConfig,
    pub next: NextConfig,
    pub p8s: P8sRelayConfig,
    pub tsdb: TsdbConfig,
    pub influxdb: InfluxConfig,
}

/// Nodes on a ring.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RingConfig {
    /// Points of a node on the ring; the same everywhere in a site.
    pub replicas: u32,
    /// Address of each node by its name; a graph's may be several with commas between, which all get its points.
    pub cluster: BTreeMap<String, String>,
}

/// Several falcon2p8s on a ring.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct P8sRelayConfig {
    /// Address of each by its name; several with commas between all get its points.
    pub cluster: BTreeMap<String, String>,
    /// Beginnings of metrics that they do not get.
    pub not_sync_metrics: Vec<String>,
}

impl P8sRelayConfig {
    /// The ring, with the replicas that the original has.
    pub fn ring(&self) -> RingConfig {
        RingConfig { cluster: self.cluster.clone(), ..RingConfig::default() }
    }
}

/// Other transfers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NextConfig {
    /// Addresses, of which any is asked.
    pub addrs: Vec<String>,
    /// Their `ingest.token`; "" shows none.
    pub token: Secret,
}

/// An OpenTSDB.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TsdbConfig {
    pub address: String,
}

/// An InfluxDB.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InfluxConfig {
    /// URL, like `http://10.0.0.5:8086`.
    pub address: String,
    pub db: String,
    pub username: String,
    pub password: Secret,
    pub precision: Precision,
}

/// Unit of the times of an InfluxDB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Precision {
    #[default]
    #[serde(rename = "s")]
    Seconds,
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "u")]
    Microseconds,
    #[serde(rename = "ns")]
    Nanoseconds,
}

impl Precision {
    /// The text of the query parameter.
    pub fn as_str(self) -> &'static str {
        match self {
            Precision::Seconds => "s",
            Precision::Milliseconds => "ms",
            Precision::Microseconds => "u",
            Precision::Nanoseconds => "ns",
        }
    }

    /// How many of it make a second.
    pub fn per_second(self) -> i64 {
        match self {
            Precision::Seconds => 1,
            Precision::Milliseconds => 1_000,
            Precision::Microseconds => 1_000_000,
            Precision::Nanoseconds => 1_000_000_000,
        }
    }
}

impl Default for TransferConfig {
    fn default() -> Self {
        TransferConfig {
            // A gateway of 2,000 hosts with 200 series each keeps some eight hours of them.
            buffer_max: 1 << 30,
            batch: 200,
            graph: RingConfig::default(),
            judge: RingConfig::default(),
            next: NextConfig::default(),
            p8s: P8sRelayConfig::default(),
            tsdb: TsdbConfig::default(),
            influxdb: InfluxConfig::default(),
        }
    }
}

impl Default for RingConfig {
    fn default() -> Self {
        RingConfig { replicas: REPLICAS_DEFAULT, cluster: BTreeMap::new() }
    }
}

impl InfluxConfig {
    /// URL of its route for writing.
    pub fn url(&self) -> String {
        let db: String = form_urlencoded::byte_serialize(self.db.as_bytes()).collect();
        format!("{}/write?db={db}&precision={}", self.address.trim_end_matches('/'), self.precision.as_str())
    }
}

impl TransferConfig {
    /// How many next hops there are.
    fn hops(&self) -> usize {
        let mirrors =
            |ring: &RingConfig| -> usize { ring.cluster.values().map(|addresses| addresses.split(',').count()).sum() };
        let one = |is_on: bool| usize::from(is_on);
        mirrors(&self.graph)
            + mirrors(&self.judge)
            + mirrors(&self.p8s.ring())
            + one(!self.next.addrs.is_empty())
            + one(!self.tsdb.address.is_empty())
            + one(!self.influxdb.address.is_empty())
    }

    /// Addresses of next hops that may speak TLS, each with its key; those of a node with commas between.
    pub(super) fn places(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let next = self.next.addrs.iter().map(|place| ("transfer.next.addrs", place));
        next.chain(places_of("transfer.graph.cluster", &self.graph.cluster))
            .chain(places_of("transfer.judge.cluster", &self.judge.cluster))
            .chain(places_of("transfer.p8s.cluster", &self.p8s.cluster))
    }

    pub(super) fn check(&self, mode: Option<Mode>, listen: &Listen, faults: &mut Faults) {
        for address in self.next.addrs.iter().filter(|address| is_own(&listen.transfer_rpc, address)) {
            faults.add(format!(
                "transfer.next.addrs has {address:?}, where this process listens itself (listen.transfer_rpc): points would go \
                 round without end; give the address of another transfer"
            ));
        }
        for address in twice(self.next.addrs.iter().map(String::as_str)) {
            faults.add(format!("transfer.next.addrs has {address:?} twice: give each transfer once"));
        }
        self.graph.check("transfer.graph", true, faults);
        self.judge.check("transfer.judge", false, faults);
        self.p8s.ring().check("transfer.p8s", true, faults);
        if self.p8s.not_sync_metrics.iter().any(String::is_empty) {
            faults.add(
                "transfer.p8s.not_sync_metrics has \"\", which every name begins with: give beginnings like \"cpu.\"",
            );
        }
        for address in self.next.addrs.iter().filter(|address| !is_place(address)) {
            faults.add(format!(
                "transfer.next.addrs has {address:?}: want HOST:PORT, like \"10.0.0.1:8433\", or \"tls://10.0.0.1:8433\""
            ));
        }
        if !self.next.token.is_none()
            && let Some(fault) = self.next.token.fault_as_token()
        {
            faults.add(format!("transfer.next.token {fault}"));
        }
        if !self.next.token.is_none() && self.next.addrs.is_empty() {
            faults.add("transfer.next.token is set, and nobody is shown it: set transfer.next.addrs, or leave it \"\"");
        }
        if !self.tsdb.address.is_empty() && !is_host_and_port(&self.tsdb.address) {
            faults.add(format!("transfer.tsdb.address is {:?}: want HOST:PORT, or \"\" for none", self.tsdb.address));
        }
        self.influxdb.check(faults);
        if !(1..=BATCH_MAX).contains(&self.batch) {
            faults.add(format!("transfer.batch is {}: give a number from 1 to {BATCH_MAX}", self.batch));
        }
        let hops = self.hops();
        let share = self.buffer_max / hops.max(1) as u64;
        if share < BUFFER_SHARE_MIN {
            faults.add(format!(
                "transfer.buffer_max is {} bytes for {hops} next hops: give at least \"1MiB\" for each",
                self.buffer_max
            ));
        }
        self.check_mode(mode, hops, faults);
    }

    fn check_mode(&self, mode: Option<Mode>, hops: usize, faults: &mut Faults) {
        match mode {
            Some(Mode::Gateway) if self.next.addrs.is_empty() || hops > 1 => faults.add(
                "transfer.next.addrs is where a gateway sends, and nowhere else: set it, and take the other next hops of \
                 [transfer] away, or give roles = [\"transfer\"]",
            ),
            Some(Mode::Transfer) if hops == 0 => faults.add(
                "transfer has no next hop, and the transfer alone keeps nothing itself: set transfer.graph.cluster, \
                 transfer.judge.cluster, transfer.next.addrs, transfer.p8s.cluster, transfer.tsdb.address or transfer.influxdb.address",
            ),
            Some(mode) if !matches!(mode, Mode::Transfer | Mode::Gateway) && hops > 0 => faults.add(
                "transfer has next hops, and this process keeps points itself: take them away, or give \
                 roles = [\"transfer\"] or [\"gateway\"] alone",
            ),
            _ => {}
        }
    }
}

fn places_of<'a>(
    key: &'static str,
    cluster: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = (&'static str, &'a String)> {
    cluster.values().map(move |places| (key, places))
}

/// The addresses that are named more than once, whatever their case and the blanks around them.
fn twice<'a>(addresses: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let plain = |address: &'a str| address.trim().trim_start_matches("tls://").to_ascii_lowercase();
    let addresses = addresses.map(plain);
    addresses.filter(|address| !address.is_empty()).filter(|address| !seen.insert(address.clone())).collect()
}

/// Whether `address` surely leads back to a process that listens at `listener`: on this machine, by its port.
fn is_own(listener: &str, address: &str) -> bool {
    let address = address.trim_start_matches("tls://");
    let (Some((host, port)), Some((to, to_port))) = (listener.rsplit_once(':'), address.rsplit_once(':')) else {
        return false;
    };
    let is_all = |host: &str| matches!(host, "" | "0.0.0.0" | "[::]");
    let is_local = |host: &str| is_all(host) || host == "localhost" || host == "[::1]" || host.starts_with("127.");
    port == to_port && port != "0" && (host == to || (is_local(to) && is_local(host)))
}

impl RingConfig {
    pub(super) fn check(&self, key: &str, may_mirror: bool, faults: &mut Faults) {
        if !(1..=REPLICAS_MAX).contains(&self.replicas) {
            faults
                .add(format!("{key}.replicas is {}: give a number from 1 to {REPLICAS_MAX}, like 500", self.replicas));
        }
        if self.cluster.len() > NODES_MAX {
            faults.add(format!("{key}.cluster has {} nodes: give at most {NODES_MAX}", self.cluster.len()));
        }
        let addresses = self.cluster.values().flat_map(|addresses| addresses.split(','));
        for address in twice(addresses) {
            faults.add(format!(
                "{key}.cluster has {address:?} twice, which would get its points twice: give each address once, as a node or as one \
                 of a node's mirrors"
            ));
        }
        for (node, addresses) in &self.cluster {
            let is_name = (1..=64).contains(&node.len())
                && node.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
                && !node.starts_with('.');
            if !is_name {
                faults.add(format!(
                    "{key}.cluster has a node {node:?}: give a name of letters, digits, \".\", \"_\" and \"-\""
                ));
            }
            if !may_mirror && addresses.contains(',') {
                faults.add(format!(
                    "{key}.cluster.{node} is {addresses:?}: give one address, for only graphs that a transfer sends to have mirrors"
                ));
            } else if !addresses.split(',').all(|address| is_place(address.trim())) {
                faults.add(format!(
                    "{key}.cluster.{node} is {addresses:?}: want HOST:PORT, like \"10.0.0.1:6070\", or \"tls://10.0.0.1:6070\""
                ));
            }
        }
    }
}

impl InfluxConfig {
    fn check(&self, faults: &mut Faults) {
        if self.address.is_empty() {
            for (key, is_set) in [
                ("db", !self.db.is_empty()),
                ("username", !self.username.is_empty()),
                ("password", !self.password.is_none()),
            ] {
                if is_set {
                    faults.add(format!("transfer.influxdb.{key} is set without an address: set transfer.influxdb.address, or leave it \"\""));
                }
            }
            return;
        }
        let is_url = self.address.parse::<axum::http::Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
        });
        if !is_url || self.address.contains(['@', '?', '#']) {
            // An address may hold a password.
            faults.add("transfer.influxdb.address is no URL of an InfluxDB: give one like \"http://10.0.0.5:8086\"");
        }
        if self.db.is_empty() {
            faults.add("transfer.influxdb.db is \"\": give the name of the database");
        }
        if self.username.is_empty() && !self.password.is_none() {
            faults.add("transfer.influxdb.username is \"\" beside a password: give the user's name");
        }
    }
}
