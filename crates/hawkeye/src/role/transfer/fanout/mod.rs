//! Fan-out: points that go on to other servers instead of into a store: a gateway, and a transfer that stands alone
//! (docs/open-falcon/transfer.md §4–6, docs/open-falcon/wire.md §13).
//!
//! How: a batch is decoded as at any door, its points get their time, and each is put, as a [`record::Record`], into
//! the frames of the hops it is for: the graph and the judge that the rings choose, and all others. The frames are
//! written to the hops' buffers; then the batch is answered. [`hop`] sends what is in them.
//! Invariants: answered means kept: a point is in the file of each of its hops before its answer; a batch that the disk
//! refuses is answered with the error, and what was written of it before is sent twice. Nothing waits for a hop.
//! Memory: the frames of the batches at hand, which threads share and refill; buffers are on the disk.
//! Compat: placement, alignment, names and formats are the original's. It drops what waits when 102,400 points do, or
//! when it ends; here the oldest go when `transfer.buffer_max` is full, and a restart loses nothing.

mod aside;
mod hop;
mod left;
mod lines;
mod link;
mod record;

use crate::config::{Config, RingConfig, TransferConfig};
use crate::engine::ingest::{Door, Received};
use crate::watch::health::Health;
use anyhow::{Context, Result};
use aside::Aside;
use hop::Hop;
pub use hop::{Figures, Kind};
use left::{Left, folder_of};
use link::{InfluxTarget, Link, Target};
use metrics::Metrics;
use model::{CounterType, Ring, SeriesKey, Tags};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use record::Record;
use spool::{Frames, Options, Spool};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use stdx::RealDisk;
use tokio::sync::watch;
use tokio::task::JoinSet;
use wire::{Item, JsonError, Scratch};

/// Sets of frames that are kept for the next batch; as many batches are at hand at once as there are threads.
const SETS_KEPT: usize = 8;
/// What the name of a folder ends with that has what the hop of the buffer beside it refused.
const REFUSED: &str = ".refused";
/// Bytes of a frame's room that is kept for the next batch.
const FRAMES_KEPT: usize = 16 << 10;
/// Bytes of the texts of a JSON message that are kept for the next batch.
const SCRATCH_KEPT: usize = 16 << 10;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DoorLabel {
    door: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusedLabel {
    door: &'static str,
    reason: &'static str,
}

/// The way on of all points, with its counters.
pub struct Fanout {
    min_step: u32,
    hops: Vec<Arc<Hop>>,
    routes: Routes,
    sets: Mutex<Vec<Set>>,
    /// Bytes of the frames that are kept.
    held: Arc<AtomicU64>,
    received: Family<DoorLabel, Counter>,
    refused: Family<RefusedLabel, Counter>,
}

/// Numbers of the hops that points go to.
#[derive(Default)]
struct Routes {
    /// By the node of the ring: a hop for each of its mirrors.
    graph: Option<(Ring, Vec<Vec<usize>>)>,
    judge: Option<(Ring, Vec<Vec<usize>>)>,
    p8s: Option<(Ring, Vec<Vec<usize>>)>,
    /// Beginnings of metrics that falcon2p8s does not get.
    not_p8s: Vec<String>,
    /// Hops that get every point.
    all: Vec<usize>,
    /// Hops that get every point but those of the telnet door, as in the original.
    not_by_telnet: Vec<usize>,
}

/// Room for one batch.
#[derive(Default)]
struct Set {
    frames: Vec<Frames>,
    record: Vec<u8>,
    tags: String,
    scratch: Scratch,
}

/// The hops of a configuration, each with how it is reached.
fn targets(config: &TransferConfig, min_step: u32) -> (Vec<(Kind, String, String, Target)>, Routes) {
    let (mut targets, mut routes) = (Vec::new(), Routes::default());
    let mut cluster = |kind: Kind, ring: &RingConfig| {
        let nodes = ring.cluster.iter().map(|(node, addresses)| {
            let mirrors = addresses.split(',').map(str::trim).map(|address| {
                let address = address.to_string();
                let (word, target) = match kind {
                    Kind::Graph => ("graph", Target::Graph { address: address.clone(), min_step }),
                    Kind::P8sRelay => ("p8s", Target::P8s { address: address.clone(), min_step }),
                    _ => ("judge", Target::Judge { address: address.clone(), min_step }),
                };
                targets.push((
                    kind,
                    folder_of(word, &format!("{node}@{address}")),
                    format!("{word} {node} {address}"),
                    target,
                ));
                targets.len() - 1
            });
            mirrors.collect()
        });
        let nodes: Vec<Vec<usize>> = nodes.collect();
        let names = ring.cluster.keys().map(String::as_str);
        Ring::new(names, ring.replicas).map(|ring| (ring, nodes))
    };
    routes.graph = cluster(Kind::Graph, &config.graph);
    routes.judge = cluster(Kind::Judge, &config.judge);
    routes.p8s = cluster(Kind::P8sRelay, &config.p8s.ring());
    routes.not_p8s = config.p8s.not_sync_metrics.clone();
    if !config.next.addrs.is_empty() {
        let target =
            Target::Transfer { addresses: config.next.addrs.clone(), token: config.next.token.text().to_string() };
        routes.all.push(targets.len());
        let name = format!("transfer {}", config.next.addrs.join(","));
        targets.push((Kind::Transfer, "next".to_string(), name, target));
    }
    if !config.tsdb.address.is_empty() {
        let address = config.tsdb.address.clone();
        routes.not_by_telnet.push(targets.len());
        targets.push((Kind::Tsdb, folder_of("tsdb", &address), format!("tsdb {address}"), Target::Tsdb { address }));
    }
    if !config.influxdb.address.is_empty() {
        let influx = &config.influxdb;
        let target = Target::Influx(InfluxTarget {
            url: influx.url(),
            username: influx.username.clone(),
            password: influx.password.text().to_string(),
            precision: influx.precision,
        });
        routes.not_by_telnet.push(targets.len());
        let name = format!("influxdb {}", influx.address);
        let folder = folder_of("influxdb", &format!("{}@{}", influx.db, influx.address));
        targets.push((Kind::Influxdb, folder, name, target));
    }
    (targets, routes)
}

impl Fanout {
    /// Opens the buffers of all next hops; answers with them what sends them on.
    pub fn open(config: &Config, metrics: &Metrics, health: &Health) -> Result<(Arc<Fanout>, Sending)> {
        let min_step = config.ingest.min_step;
        let (targets, routes) = targets(&config.transfer, min_step);
        let dir = config.data_dir.join("buffer");
        let bytes_max = config.transfer.buffer_max / targets.len().max(1) as u64;
        let (mut hops, mut links, trust) = (Vec::new(), Vec::new(), config.tls.trust()?);
        // What is lost is written there, too.
        let mut known = ["losses", "losses.tmp"].map(str::to_string).to_vec();
        for (kind, folder, name, target) in targets {
            let refused = format!("{folder}{REFUSED}");
            let aside = Aside::open(Arc::new(RealDisk), dir.join(&refused));
            known.extend([folder.clone(), refused]);
            let folder = dir.join(folder);
            let spool = Spool::open(Arc::new(RealDisk), &folder, Options { bytes_max });
            let spool = spool.with_context(|| format!("cannot open the buffer {} of {name}", folder.display()))?;
            hops.push(Arc::new(Hop::new(kind, name, spool, aside)));
            links.push(Link::new(target, config.transfer.batch, trust.clone()).context("cannot make an HTTP client")?);
        }
        let left = Left::tell(&dir, &known, health);
        let held: Arc<AtomicU64> = Arc::default();
        let told = held.clone();
        metrics.ledger().source(move |report| report.line("fan-out frames", told.load(Relaxed), None, None));
        let fanout = Fanout {
            min_step,
            hops: hops.clone(),
            routes,
            sets: Mutex::default(),
            held,
            received: Family::default(),
            refused: Family::default(),
        };
        metrics.register(|registry| {
            registry.register("items_received", "Items that came in, valid or not", fanout.received.clone());
            registry.register("items_refused", "Items counted as Invalid", fanout.refused.clone());
        });
        show(metrics, &hops, &left);
        let told = hops.clone();
        health.source(move |reasons| reasons.extend(told.iter().flat_map(|hop| hop.troubles())));
        Ok((Arc::new(fanout), Sending { hops, links, left }))
    }

    /// Begins a batch that came by `door` at `now` (Unix seconds).
    pub fn begin(&self, door: Door, now: i64) -> Batch<'_> {
        let set = self.sets.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut set = set.unwrap_or_default();
        set.frames.resize(self.hops.len(), Frames::default());
        Batch { fanout: self, door, now, set, received: Received::default() }
    }

    /// Items that came by a door since the start, valid or not.
    pub fn received_by(&self, door: Door) -> u64 {
        self.received.get_or_create(&DoorLabel { door: door.name() }).get()
    }

    /// The smallest step of an item (seconds).
    pub fn min_step(&self) -> u32 {
        self.min_step
    }

    /// Figures of all hops of a kind together.
    pub fn figures(&self, kind: Kind) -> Figures {
        let hops = self.hops.iter().filter(|hop| hop.kind == kind);
        hops.map(|hop| hop.figures()).fold(Figures::default(), Figures::with)
    }

    /// What was found lost of the buffers and not taken yet.
    pub fn take_lost(&self) -> Vec<String> {
        self.hops.iter().flat_map(|hop| hop.take_lost()).collect()
    }

    /// Names of all hops.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.hops.iter().map(|hop| hop.name.as_str())
    }
}

/// Shows the figures of all hops.
fn show(metrics: &Metrics, hops: &[Arc<Hop>], left: &Arc<Left>) {
    type Of = fn(&Figures) -> u64;
    let shown: [(&str, &str, Of); 8] = [
        ("hop_points_sent", "Points that a next hop has taken since the start", |figures| figures.sent),
        ("hop_points_refused", "Points that a next hop refused for good", |figures| figures.refused),
        ("hop_failures", "Attempts to send that failed, and are made again", |figures| figures.failures),
        (
            "hop_points_dropped",
            "Points that a full buffer, or a full folder of refused ones, lost since it was made",
            |figures| figures.dropped,
        ),
        (
            "hop_points_missing",
            "Points that were gone or damaged in a buffer before they were sent, since it was made",
            |figures| figures.missing,
        ),
        ("hop_points_waiting", "Points in the buffer of a next hop", |figures| figures.waiting),
        ("hop_points_aside", "Refused points that are kept in a folder of their own", |figures| figures.aside),
        ("hop_buffer_bytes", "Bytes of the buffer of a next hop", |figures| figures.bytes),
    ];
    let (hops, left) = (hops.to_vec(), left.clone());
    metrics.source(move |out| {
        let figures: Vec<(&str, Figures)> = hops.iter().map(|hop| (hop.name.as_str(), hop.figures())).collect();
        for (name, help, of) in shown {
            out.gauges(name, help, "hop", figures.iter().map(|(hop, figures)| (*hop, of(figures))));
        }
        let help = "Points of buffers whose next hop the configuration does not have";
        out.gauge("points_without_hop", help, left.points() as f64);
    });
}

/// The tasks that send.
pub struct Sending {
    hops: Vec<Arc<Hop>>,
    links: Vec<Link>,
    left: Arc<Left>,
}

impl Sending {
    /// Sends until `stopping` turns true.
    pub async fn run(self, stopping: watch::Receiver<bool>) -> Result<()> {
        let mut tasks = JoinSet::new();
        let left = self.left.run(stopping.clone());
        tasks.spawn(async move {
            left.await;
            Ok(())
        });
        for (hop, link) in self.hops.into_iter().zip(self.links) {
            tasks.spawn(hop.run(link, stopping.clone()));
        }
        while let Some(ended) = tasks.join_next().await {
            ended.context("sending to a next hop")??;
        }
        Ok(())
    }
}

/// A batch on its way: what is pushed is kept by [`Batch::finish`], and nothing of a batch that is dropped before.
pub struct Batch<'b> {
    fanout: &'b Fanout,
    door: Door,
    now: i64,
    set: Set,
    received: Received,
}

impl Batch<'_> {
    /// Pushes the items of a JSON array of metric objects; those that cannot be used are refused one by one.
    pub fn push_json(&mut self, array: &[u8]) -> Result<(), JsonError> {
        let mut scratch = std::mem::take(&mut self.set.scratch);
        let decoded = wire::decode_items(array, &mut scratch, &mut |item| match item {
            Ok(item) => self.push(&item),
            Err(invalid) => self.refuse(invalid.as_str()),
        });
        self.set.scratch = scratch;
        decoded.map(|_| ())
    }

    /// Pushes an item as an agent or a script sends it. One without a time, or beyond twice now, has the time of now.
    pub fn push(&mut self, item: &Item<'_>) {
        self.received.total += 1;
        let time = match item.timestamp {
            ..=0 => self.now,
            time if time > self.now.saturating_mul(2) => self.now,
            time => time,
        };
        let Set { frames, record, tags, .. } = &mut self.set;
        let tags = Tags::canonical(item.tags, tags);
        let key = SeriesKey { endpoint: item.endpoint, metric: item.metric, tags };
        record.clear();
        Record { key, value: item.value, time, step: item.step, counter_type: item.counter_type }.write(record);
        let mut keep = |hop: usize| _ = frames[hop].push(|out| out.extend_from_slice(record));
        let Routes { graph, judge, p8s, not_p8s, all, not_by_telnet } = &self.fanout.routes;
        for (ring, nodes) in [graph, judge].into_iter().flatten() {
            nodes[ring.node_of(&key)].iter().copied().for_each(&mut keep);
        }
        let is_for_p8s = || {
            item.counter_type != CounterType::Derive
                && !not_p8s.iter().any(|prefix| item.metric.starts_with(prefix.as_str()))
        };
        if let Some((ring, nodes)) = p8s
            && is_for_p8s()
        {
            nodes[ring.node_of(&key)].iter().copied().for_each(&mut keep);
        }
        all.iter().copied().for_each(&mut keep);
        if self.door != Door::Telnet {
            not_by_telnet.iter().copied().for_each(&mut keep);
        }
    }

    /// Counts an item that came and cannot be used.
    pub fn refuse(&mut self, reason: &'static str) {
        self.received.total += 1;
        self.received.invalid += 1;
        self.fanout.refused.get_or_create(&RefusedLabel { door: self.door.name(), reason }).inc();
    }

    /// Writes what was pushed to the buffers of its hops. On an error the batch is to be sent again.
    pub fn finish(mut self) -> Result<Received, String> {
        for (hop, frames) in self.fanout.hops.iter().zip(&mut self.set.frames).filter(|(_, frames)| !frames.is_empty())
        {
            hop.append(frames).map_err(|error| {
                tracing::debug!(hop = hop.name, %error, "a batch was refused");
                format!("the buffer of {} cannot be written: {error}", hop.name)
            })?;
        }
        let label = DoorLabel { door: self.door.name() };
        self.fanout.received.get_or_create(&label).inc_by(self.received.total as u64);
        Ok(self.received)
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        let mut set = std::mem::take(&mut self.set);
        set.frames.iter_mut().for_each(|frames| frames.clear(FRAMES_KEPT));
        set.scratch.shrink_to(SCRATCH_KEPT);
        let mut sets = self.fanout.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if sets.len() < SETS_KEPT {
            sets.push(set);
        }
        let held: usize = sets.iter().flat_map(|set| &set.frames).map(Frames::memory_bytes).sum();
        self.fanout.held.store(held as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests;
