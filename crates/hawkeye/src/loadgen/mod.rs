//! `hawkeye loadgen`: a simulated fleet of agents, over the agents' real protocol or over that of the transfer behind
//! them.
//!
//! Why: to load a server (ours, or an original transfer) as thousands of hosts would, and to measure what it answers.
//! How: rounds of one step each. In a round every host sends its collector groups, one call after the other; a host has
//! a connection of its own, or shares one with others in turn, with one outstanding call, as agents do. The texts of an
//! item that do not change are encoded once, so that the generator stays out of the way of what it measures. With
//! `--gob` or `--judge-gob` the same points go to a graph or a judge as a transfer would send them on; with
//! `--victoria` and `--remote-write` to another system, to be measured beside.
//! Invariants: points depend on the arguments alone (`mix.rs`), times apart; no host begins a round before all have
//! ended the last. An unanswered, failed or wrongly answered call is counted, and the run goes on with a new
//! connection.
//! Memory: per connection its socket and one batch (up to some 30 kB); per series of one host its texts; 15 kB of
//! latencies per connection.

mod fleet;
mod labels;
mod latency;
mod link;
mod mix;
mod peer;
mod verify;

use crate::clock;
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use fleet::Fleet;
use latency::Latency;
use link::{GobRole, Link};
use peer::Peer;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use supervisor::causes::line_of;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use verify::{AnsweredCalls, Api, ReadSource, ReadVerdict, verify};

/// Items of one call to a graph, as in transfer's shipped configuration.
const GRAPH_BATCH: usize = 200;
/// Series of one request to another system: all of a usual host. Smaller requests would cost that system more per
/// point.
const PEER_BATCH: usize = 1000;
/// Connections at most; more of them are an experiment of their own, to be asked for with `--connections`.
const CONNECTIONS_DEFAULT: usize = 1000;
/// Files that the process needs besides its connections: a guess with room.
const FILES_RESERVED: u64 = 64;
/// Seconds ahead of the clock that a server with default settings takes: `ingest.future_max`.
const FUTURE_MAX_S: i64 = 300;
/// Error texts that are printed; the first ones say most.
const ERRORS_SHOWN: usize = 5;

#[derive(Clone, Debug, Args)]
pub struct LoadgenArgs {
    /// The transfer to report to, by its JSON-RPC address.
    #[arg(long, default_value = "127.0.0.1:8433", value_name = "ADDRESS")]
    target: String,
    /// Send to this graph instead, as a transfer does: Graph.Send over Go's net/rpc.
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["target", "verify", "dry_run"])]
    gob: Option<String>,
    /// Send to this judge instead, as a transfer does: Judge.Send over Go's net/rpc.
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["target", "gob", "verify", "dry_run"])]
    judge_gob: Option<String>,
    /// Read every point that was answered for back with Graph.Query when all is sent; needs --gob.
    #[arg(long, requires = "gob")]
    read_back: bool,
    /// Send to this OpenTSDB listener of VictoriaMetrics instead; it answers nothing, so ask VictoriaMetrics what
    /// arrived.
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["target", "gob", "verify", "dry_run"])]
    victoria: Option<String>,
    /// Send to this URL by Prometheus' remote write instead, e.g. http://127.0.0.1:9090/api/v1/write
    #[arg(long, value_name = "URL", conflicts_with_all = ["target", "gob", "victoria", "verify", "dry_run"])]
    remote_write: Option<String>,
    /// Simulated hosts.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    hosts: u32,
    /// Series of each host.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    metrics: u32,
    /// Seconds between two points of a series.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    step: u32,
    /// Points of each series.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Speed of the rounds: max is as fast as the target answers, real is one round per step.
    #[arg(long, value_enum, default_value_t = Speed::Max)]
    speed: Speed,
    /// Time of the first round: `-1h`, `now`, or Unix seconds [default: so that the last round is now; with `--speed
    /// real`: now]
    #[arg(long, value_parser = parse_start, allow_hyphen_values = true, value_name = "TIME")]
    start: Option<StartTime>,
    /// The seed of the values; the same seed gives the same points.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Connections that the hosts share [default: one per host, at most 1000].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: Option<u32>,
    /// Endpoints are named <PREFIX>00000 and so on.
    #[allow(rustdoc::invalid_html_tags, reason = "the text is the help of the command line")]
    #[arg(long, default_value = "load-")]
    prefix: String,
    /// Encode everything and send nothing, to measure the generator itself.
    #[arg(long)]
    dry_run: bool,
    /// Read every point that was answered for back from this API when all is sent, e.g. http://127.0.0.1:8080
    #[arg(long, value_name = "URL", requires = "token", conflicts_with = "dry_run")]
    verify: Option<String>,
    /// The sig that a login of root answered, or NAME:SIG; for --verify.
    #[arg(long, value_name = "SIG", env = "HAWKEYE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// What the server's ingest.token asks for.
    #[arg(long, value_name = "TOKEN", env = "HAWKEYE_INGEST_TOKEN", hide_env_values = true)]
    ingest_token: Option<String>,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Speed {
    Max,
    Real,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StartTime {
    /// Seconds before now.
    Ago(i64),
    At(i64),
}

fn parse_start(text: &str) -> Result<StartTime, String> {
    if text == "now" {
        return Ok(StartTime::Ago(0));
    }
    if let Some(ago) = text.strip_prefix('-') {
        let duration =
            humantime::parse_duration(ago).map_err(|error| format!("{error}; want -1h, now or Unix seconds"))?;
        return i64::try_from(duration.as_secs()).map(StartTime::Ago).map_err(|_| "too long ago".to_string());
    }
    text.parse().map(StartTime::At).map_err(|_| "want -1h, now or Unix seconds".to_string())
}

/// Runs to the end, or to Ctrl-C, and prints the figures. Fails if anything was refused or failed.
pub fn run(args: &LoadgenArgs) -> Result<()> {
    let plan = RunPlan::new(args, clock::now())?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    let report = if args.dry_run { plan.encode_only() } else { runtime.block_on(plan.send())? };
    report.print(args.json);
    report.check()
}

/// The arguments of a run, resolved.
struct RunPlan {
    target: String,
    ingest_token: Option<String>,
    /// The role of the target when it speaks gob; a transfer otherwise.
    gob: Option<GobRole>,
    /// The target when it is another system.
    peer: Option<Peer>,
    fleet: Arc<Fleet>,
    rounds: u32,
    connections: usize,
    /// True for one round per step; otherwise nothing waits.
    paced: bool,
    /// The API to read everything back from; the graph itself without one.
    api: Option<Api>,
    /// The calls that were answered, kept for reading back only.
    answered: Option<Arc<AnsweredCalls>>,
}

impl RunPlan {
    fn new(args: &LoadgenArgs, now: i64) -> Result<RunPlan> {
        let paced = args.speed == Speed::Real;
        let span = i64::from(args.step) * i64::from(args.rounds);
        let start = match args.start {
            Some(StartTime::At(start)) => start,
            Some(StartTime::Ago(ago)) => now - ago,
            None if paced => now,
            None => now - span,
        };
        let ahead = start + span - now;
        if !paced && ahead > FUTURE_MAX_S {
            bail!(
                "the last round would be {ahead} s ahead of now and be refused; use an earlier --start or fewer --rounds"
            );
        }
        if args.prefix.len() > wire::item::ENDPOINT_BYTES_MAX - 10 {
            bail!("--prefix is {} bytes long; want at most {}", args.prefix.len(), wire::item::ENDPOINT_BYTES_MAX - 10);
        }
        let hosts = args.hosts as usize;
        let connections = args.connections.map_or(CONNECTIONS_DEFAULT, |count| count as usize).min(hosts);
        let fleet = Fleet::new(&args.prefix, hosts, args.metrics as usize, args.step, start, args.seed);
        let gob = match (&args.gob, &args.judge_gob) {
            (Some(graph), _) => Some((graph, GobRole::Graph)),
            (None, judge) => judge.as_ref().map(|judge| (judge, GobRole::Judge)),
        };
        let fleet = if gob.is_some() { fleet.in_batches_of(GRAPH_BATCH) } else { fleet };
        let peer = match (&args.victoria, &args.remote_write) {
            (Some(address), _) => Some(Peer::victoria(address)?),
            (None, url) => url.as_deref().map(Peer::remote_write).transpose()?,
        };
        let fleet = if peer.is_some() { fleet.in_batches_of(PEER_BATCH) } else { fleet };
        let api =
            args.verify.as_ref().map(|url| Api::new(url, args.token.as_deref().unwrap_or_default())).transpose()?;
        if api.is_some() && args.step < verify::STEP_MIN {
            bail!(
                "--verify needs a --step of at least {}: transfer lets points of smaller steps fall together",
                verify::STEP_MIN
            );
        }
        let reads_back = api.is_some() || args.read_back;
        let answered = reads_back.then(|| Arc::new(AnsweredCalls::new(hosts, args.rounds, fleet.groups())));
        let target = gob.map_or(&args.target, |(target, _)| target).clone();
        let (gob, rounds) = (gob.map(|(_, role)| role), args.rounds);
        let ingest_token = args.ingest_token.clone();
        Ok(RunPlan {
            target,
            ingest_token,
            gob,
            peer,
            fleet: Arc::new(fleet),
            rounds,
            connections,
            paced,
            api,
            answered,
        })
    }

    fn encode_only(&self) -> RunReport {
        let started = std::time::Instant::now();
        let (mut out, mut tally) = (Vec::new(), SendTally::default());
        for round in 0..self.rounds {
            for host in 0..self.fleet.hosts() {
                let moment = self.fleet.moment(host, round);
                for group in 0..self.fleet.groups() {
                    out.clear();
                    self.fleet.encode(&moment, group, tally.calls, &mut out);
                    tally.sent += self.fleet.points(group) as u64;
                    tally.calls += 1;
                    std::hint::black_box(&out);
                }
            }
        }
        RunReport { took: started.elapsed(), rounds: self.rounds, tally, ..RunReport::default() }
    }

    async fn send(&self) -> Result<RunReport> {
        raise_file_limit(self.connections as u64 + FILES_RESERVED)?;
        self.say_hello().await?;
        let stop = stop_on_ctrl_c();
        let mut connections: Vec<FleetConnection> = (0..self.connections).map(|index| self.connection(index)).collect();
        let started = Instant::now();
        let mut rounds = 0;
        while rounds < self.rounds && !stop.load(Ordering::Relaxed) {
            let mut tasks = JoinSet::new();
            for connection in connections.drain(..) {
                tasks.spawn(connection.round(rounds, self.paced.then_some(started), stop.clone()));
            }
            while let Some(connection) = tasks.join_next().await {
                connections.push(connection.context("a connection's task died")?);
            }
            rounds += 1;
        }
        let mut report = RunReport { took: started.elapsed(), rounds, ..RunReport::default() };
        for connection in connections {
            report.tally.add(connection.tally);
            report.latency.add(&connection.latency);
        }
        if let Some(answered) = &self.answered {
            let mut source = match &self.api {
                Some(api) => ReadSource::Api(api.clone()),
                None => {
                    let graph = Link::graph(&self.target).with_token(self.ingest_token.as_deref());
                    ReadSource::Graph(Box::new(graph))
                }
            };
            report.verdict = Some(verify(&self.fleet, self.rounds, answered, &mut source).await?);
        }
        Ok(report)
    }

    /// Makes one call before the load, so that a wrong address is one clear line.
    async fn say_hello(&self) -> Result<()> {
        let what = match (&self.peer, self.gob) {
            (Some(_), _) => "server of that kind listening there? (--victoria, --remote-write)",
            (None, None) => "transfer listening there? (--target)",
            (None, Some(GobRole::Graph)) => "graph listening there? (--gob)",
            (None, Some(GobRole::Judge)) => "judge listening there? (--judge-gob)",
        };
        self.link().ping().await.map_err(|error| anyhow::anyhow!("{}; is a {what}", line_of(&*error)))
    }

    fn link(&self) -> Link {
        if let Some(peer) = &self.peer {
            return Link::peer(peer);
        }
        let link = self.gob.map_or_else(|| Link::transfer(&self.target), |role| Link::gob(&self.target, role));
        link.with_token(self.ingest_token.as_deref())
    }

    fn connection(&self, index: usize) -> FleetConnection {
        FleetConnection {
            link: self.link(),
            fleet: self.fleet.clone(),
            index,
            stride: self.connections,
            tally: SendTally::default(),
            latency: Latency::default(),
            answered: self.answered.clone(),
        }
    }
}

fn stop_on_ctrl_c() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            flag.store(true, Ordering::Relaxed);
        }
    });
    stop
}

/// Each connection is a file; shells allow 1,024 by default but can be asked for more.
fn raise_file_limit(needed: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    if enough(limit.current) {
        return Ok(());
    }
    if !enough(limit.maximum) {
        let maximum = limit.maximum.unwrap_or(0);
        bail!("{needed} open files are needed and {maximum} allowed; use fewer --connections or raise ulimit -n");
    }
    let raised = Rlimit { current: Some(needed), maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open files; use fewer --connections")
}

/// Some hosts of the fleet, and the connection by which they report.
struct FleetConnection {
    link: Link,
    fleet: Arc<Fleet>,
    /// The first of the hosts, which are `index`, `index + stride` and so on.
    index: usize,
    stride: usize,
    tally: SendTally,
    latency: Latency,
    answered: Option<Arc<AnsweredCalls>>,
}

impl FleetConnection {
    /// Sends one round of all its hosts. With `paced` (when the run started), each host waits for its time.
    async fn round(mut self, round: u32, paced: Option<Instant>, stop: Arc<AtomicBool>) -> FleetConnection {
        let fleet = self.fleet.clone();
        for host in (self.index..fleet.hosts()).step_by(self.stride) {
            if let Some(started) = paced {
                sleep_until(started + fleet.due(host, round)).await;
            }
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let moment = fleet.moment(host, round);
            for group in 0..fleet.groups() {
                let complete = self.update(&fleet, &moment, group).await;
                if let (true, Some(answered)) = (complete, &self.answered) {
                    answered.mark(host, round, group);
                }
            }
        }
        self
    }

    /// Makes one call and counts the outcome; true when every point was accepted.
    async fn update(&mut self, fleet: &Fleet, moment: &fleet::HostRound, group: usize) -> bool {
        let (started, points) = (Instant::now(), fleet.points(group) as u64);
        let answer = self.link.send(fleet, moment, group).await;
        self.tally.calls += 1;
        self.tally.sent += points;
        match answer {
            Ok(refused) => {
                self.tally.refused += refused;
                self.latency.record(started.elapsed());
                refused == 0
            }
            Err(error) => {
                self.tally.fail(points, line_of(&*error));
                false
            }
        }
    }
}

/// The fates of the points that were sent.
#[derive(Clone, Debug, Default)]
struct SendTally {
    calls: u64,
    failed_calls: u64,
    /// Points in all calls.
    sent: u64,
    /// Points that the server counted as `Invalid`.
    refused: u64,
    /// Points of failed calls: nobody knows whether they arrived.
    lost: u64,
    errors: Vec<String>,
}

impl SendTally {
    fn fail(&mut self, points: u64, error: String) {
        self.failed_calls += 1;
        self.lost += points;
        if self.errors.len() < ERRORS_SHOWN && !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    fn add(&mut self, other: SendTally) {
        self.calls += other.calls;
        self.failed_calls += other.failed_calls;
        self.sent += other.sent;
        self.refused += other.refused;
        self.lost += other.lost;
        for error in other.errors {
            if self.errors.len() < ERRORS_SHOWN && !self.errors.contains(&error) {
                self.errors.push(error);
            }
        }
    }
}

/// The figures of a run.
#[derive(Default)]
struct RunReport {
    took: Duration,
    rounds: u32,
    tally: SendTally,
    latency: Latency,
    /// The result of reading back, if that was asked for.
    verdict: Option<ReadVerdict>,
}

impl RunReport {
    fn points_per_s(&self) -> f64 {
        let taken = self.tally.sent - self.tally.refused - self.tally.lost;
        taken as f64 / self.took.as_secs_f64().max(1e-9)
    }

    fn print(&self, json: bool) {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let (tally, rate, took) = (&self.tally, self.points_per_s(), self.took.as_secs_f64());
        let (p50, p99, max) = (ms(self.latency.quantile(0.5)), ms(self.latency.quantile(0.99)), ms(self.latency.max()));
        let verdict = self.verdict.clone().unwrap_or_default();
        for line in tally.errors.iter().chain(&verdict.findings) {
            eprintln!("hawkeye: {line}");
        }
        if json {
            let line = serde_json::json!({
                "rounds": self.rounds, "points_sent": tally.sent, "points_refused": tally.refused,
                "points_in_failed_calls": tally.lost, "calls": tally.calls, "calls_failed": tally.failed_calls,
                "seconds": took, "points_per_s": rate, "latency_ms": {"p50": p50, "p99": p99, "max": max},
                "verified": self.verdict.as_ref().map(|verdict| serde_json::json!({
                    "expected": verdict.expected, "missing": verdict.missing, "wrong": verdict.wrong,
                })),
            });
            println!("{line}");
            return;
        }
        println!("points   sent {}  refused {}  in failed calls {}", tally.sent, tally.refused, tally.lost);
        println!("calls    {}  failed {}", tally.calls, tally.failed_calls);
        println!("rate     {rate:.0} points/s over {took:.2} s ({} rounds)", self.rounds);
        println!("latency  p50 {p50:.2} ms  p99 {p99:.2} ms  max {max:.2} ms");
        if self.verdict.is_some() {
            println!("verified {}  missing {}  wrong {}", verdict.expected, verdict.missing, verdict.wrong);
        }
    }

    fn check(&self) -> Result<()> {
        if self.tally.failed_calls > 0 || self.tally.refused > 0 {
            bail!("{} calls failed, {} points were refused", self.tally.failed_calls, self.tally.refused);
        }
        match &self.verdict {
            Some(verdict) if verdict.missing + verdict.wrong > 0 => {
                bail!("{} points are missing, {} are wrong", verdict.missing, verdict.wrong)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
