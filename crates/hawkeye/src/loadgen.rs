//! `hawkeye loadgen`: a simulated fleet of agents, over the agents' real protocol.
//!
//! Why: to load a server (ours, or an original transfer) as thousands of hosts would, and to measure what it answers.
//! How: rounds of one step each. In a round every host sends its collector groups, one call after the other; a host has
//! a connection of its own, or shares one with others in turn, with one outstanding call, as agents do. The texts of
//! an item that do not change are encoded once, so that the generator stays out of the way of what it measures.
//! Invariants: points depend on the arguments alone (`mix.rs`), times apart; no host begins a round before all have
//! ended the last. An unanswered, failed or wrongly answered call is counted, and the run goes on with a new connection.
//! Memory: per connection its socket and one batch (up to some 30 kB); per series of one host its texts; 15 kB of
//! latencies per connection.

mod fleet;
mod latency;
mod mix;
mod verify;

use crate::clock;
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use fleet::Fleet;
use latency::Latency;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use verify::{Answered, Api, Verdict, verify};
use wire::{Framer, Scratch, jsonrpc, transfer};

/// As in the original agent's shipped configuration.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// As in the original agent.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// An answer to `Transfer.Update` has about 90 bytes; an error text may be longer.
const ANSWER_MAX: usize = 64 << 10;
/// More connections are an experiment of its own, to be asked for: `--connections`.
const CONNECTIONS_DEFAULT: usize = 1000;
/// Files that the process needs besides its connections: a guess with room.
const FILES_RESERVED: u64 = 64;
/// What a server with default settings lets through: `ingest.future_max`.
const FUTURE_MAX_S: i64 = 300;
/// Error texts that are printed; the first ones tell most.
const ERRORS_SHOWN: usize = 5;

#[derive(Clone, Debug, Args)]
pub struct LoadgenArgs {
    /// Where agents would report to: a transfer's JSON-RPC address.
    #[arg(long, default_value = "127.0.0.1:8433", value_name = "ADDRESS")]
    target: String,
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
    /// As fast as the target answers, or one round per step.
    #[arg(long, value_enum, default_value_t = Speed::Max)]
    speed: Speed,
    /// Time of the first round: `-1h`, `now`, or Unix seconds [default: so that the last round is now; with `--speed real`: now]
    #[arg(long, value_parser = parse_start, allow_hyphen_values = true, value_name = "TIME")]
    start: Option<Start>,
    /// Same seed, same points.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Connections that the hosts share [default: one per host, at most 1000].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: Option<u32>,
    /// Endpoints are named <PREFIX>00000 and so on.
    #[arg(long, default_value = "load-")]
    prefix: String,
    /// Encode everything and send nothing: what the generator itself can do.
    #[arg(long)]
    dry_run: bool,
    /// When all is sent, read every point that was answered for back from this API, e.g. http://127.0.0.1:8080
    #[arg(long, value_name = "URL", requires = "token", conflicts_with = "dry_run")]
    verify: Option<String>,
    /// For --verify: the sig that a login of root answered, or NAME:SIG
    #[arg(long, value_name = "SIG", env = "HAWKEYE_TOKEN", hide_env_values = true)]
    token: Option<String>,
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
enum Start {
    /// Seconds before now.
    Ago(i64),
    At(i64),
}

fn parse_start(text: &str) -> Result<Start, String> {
    if text == "now" {
        return Ok(Start::Ago(0));
    }
    if let Some(ago) = text.strip_prefix('-') {
        let duration =
            humantime::parse_duration(ago).map_err(|error| format!("{error}; want -1h, now or Unix seconds"))?;
        return i64::try_from(duration.as_secs()).map(Start::Ago).map_err(|_| "too long ago".to_string());
    }
    text.parse().map(Start::At).map_err(|_| "want -1h, now or Unix seconds".to_string())
}

/// Runs to the end, or to Ctrl-C, and prints what happened. An error if anything was refused or failed.
pub fn run(args: &LoadgenArgs) -> Result<()> {
    let plan = Plan::new(args, clock::now())?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    let report = if args.dry_run { plan.encode_only() } else { runtime.block_on(plan.send())? };
    report.print(args.json);
    report.check()
}

/// The arguments, resolved.
struct Plan {
    target: String,
    fleet: Arc<Fleet>,
    rounds: u32,
    connections: usize,
    /// One round per step; otherwise no waiting.
    paced: bool,
    /// Where to read everything back.
    api: Option<Api>,
    /// Kept for reading back only.
    answered: Option<Arc<Answered>>,
}

impl Plan {
    fn new(args: &LoadgenArgs, now: i64) -> Result<Plan> {
        let paced = args.speed == Speed::Real;
        let span = i64::from(args.step) * i64::from(args.rounds);
        let start = match args.start {
            Some(Start::At(start)) => start,
            Some(Start::Ago(ago)) => now - ago,
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
        let api =
            args.verify.as_ref().map(|url| Api::new(url, args.token.as_deref().unwrap_or_default())).transpose()?;
        if api.is_some() && args.step < verify::STEP_MIN {
            bail!(
                "--verify needs a --step of at least {}: transfer lets points of smaller steps fall together",
                verify::STEP_MIN
            );
        }
        let answered = api.is_some().then(|| Arc::new(Answered::new(hosts, args.rounds, fleet.groups())));
        let (target, rounds) = (args.target.clone(), args.rounds);
        Ok(Plan { target, fleet: Arc::new(fleet), rounds, connections, paced, api, answered })
    }

    fn encode_only(&self) -> Report {
        let started = std::time::Instant::now();
        let (mut out, mut tally) = (Vec::new(), Tally::default());
        for round in 0..self.rounds {
            for host in 0..self.fleet.hosts() {
                let moment = self.fleet.moment(host, round);
                for group in 0..self.fleet.groups() {
                    out.clear();
                    tally.sent += self.fleet.encode(&moment, group, tally.calls, &mut out) as u64;
                    tally.calls += 1;
                    std::hint::black_box(&out);
                }
            }
        }
        Report { took: started.elapsed(), rounds: self.rounds, tally, ..Report::default() }
    }

    async fn send(&self) -> Result<Report> {
        raise_file_limit(self.connections as u64 + FILES_RESERVED)?;
        self.say_hello().await?;
        let stop = stop_on_ctrl_c();
        let mut connections: Vec<Connection> = (0..self.connections).map(|index| self.connection(index)).collect();
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
        let mut report = Report { took: started.elapsed(), rounds, ..Report::default() };
        for connection in connections {
            report.tally.add(connection.tally);
            report.latency.add(&connection.latency);
        }
        if let (Some(api), Some(answered)) = (&self.api, &self.answered) {
            report.verdict = Some(verify(&self.fleet, self.rounds, answered, api).await?);
        }
        Ok(report)
    }

    /// One call before the load, so that a wrong address is one clear line.
    async fn say_hello(&self) -> Result<()> {
        let mut hello = self.connection(0);
        jsonrpc::write_request(&mut hello.output, "Transfer.Ping", 0, b"{}");
        let answered = hello.call(0, |result, _| result == b"{\"code\":0}").await;
        match answered {
            Ok(true) => Ok(()),
            Ok(false) => bail!("{} does not answer Transfer.Ping like a transfer", self.target),
            Err(error) => bail!("{error:#}; is a transfer listening there? (--target)"),
        }
    }

    fn connection(&self, index: usize) -> Connection {
        Connection {
            target: self.target.clone(),
            fleet: self.fleet.clone(),
            index,
            stride: self.connections,
            stream: None,
            next_id: 0,
            framer: Framer::new(ANSWER_MAX),
            input: Vec::new(),
            output: Vec::new(),
            scratch: Scratch::new(),
            tally: Tally::default(),
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
struct Connection {
    target: String,
    fleet: Arc<Fleet>,
    /// Its hosts are `index`, `index + stride` and so on.
    index: usize,
    stride: usize,
    stream: Option<TcpStream>,
    next_id: u64,
    framer: Framer,
    input: Vec<u8>,
    output: Vec<u8>,
    scratch: Scratch,
    tally: Tally,
    latency: Latency,
    answered: Option<Arc<Answered>>,
}

impl Connection {
    /// Sends one round of all its hosts. With `paced` (when the run started), each host waits for its time.
    async fn round(mut self, round: u32, paced: Option<Instant>, stop: Arc<AtomicBool>) -> Connection {
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

    /// One `Transfer.Update`, counted; true when every point was accepted.
    async fn update(&mut self, fleet: &Fleet, moment: &fleet::HostRound, group: usize) -> bool {
        let id = self.next_id;
        self.next_id += 1;
        self.output.clear();
        let points = fleet.encode(moment, group, id, &mut self.output) as u64;
        let started = Instant::now();
        let answer = self.call(id, transfer::read_answer).await;
        self.tally.calls += 1;
        self.tally.sent += points;
        let fault = match answer {
            Ok(Ok(answer)) if answer.total as u64 == points => {
                self.tally.refused += answer.invalid as u64;
                self.latency.record(started.elapsed());
                return answer.invalid == 0;
            }
            Ok(Ok(answer)) => format!("{} items were sent, {} answered for", points, answer.total),
            Ok(Err(error)) => format!("answer is not a transfer's: {error}"),
            Err(error) => format!("{error:#}"),
        };
        self.tally.fail(points, fault);
        false
    }

    /// Sends what is in `output` and hands the answer's result to `read`. A connection that failed is not used again.
    async fn call<T>(&mut self, id: u64, read: impl FnOnce(&[u8], &mut Scratch) -> T) -> Result<T> {
        let target = self.target.clone();
        let result = match timeout(CALL_TIMEOUT, self.exchange(id, read)).await {
            Ok(result) => result,
            Err(_) => Err(anyhow::anyhow!("{target} did not answer within {CALL_TIMEOUT:?}")),
        };
        // An error told by the server leaves the connection usable; after any other nobody knows what comes next.
        if result.as_ref().is_err_and(|error| !error.is::<Refusal>()) {
            self.stream = None;
        }
        result
    }

    async fn exchange<T>(&mut self, id: u64, read: impl FnOnce(&[u8], &mut Scratch) -> T) -> Result<T> {
        let target = &self.target;
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                self.input.clear();
                self.framer.reset();
                let connect = timeout(CONNECT_TIMEOUT, TcpStream::connect(target)).await;
                let stream = connect.context("timed out").and_then(|stream| Ok(stream?));
                let stream = stream.with_context(|| format!("cannot connect to {target}"))?;
                // A batch is written whole; waiting for more to send would only delay it.
                stream.set_nodelay(true)?;
                self.stream.insert(stream)
            }
        };
        stream.write_all(&self.output).await.with_context(|| format!("cannot send to {target}"))?;
        let message = loop {
            if let Some(message) = self.framer.scan(&self.input)? {
                break message;
            }
            let count = stream.read_buf(&mut self.input).await.with_context(|| format!("cannot read from {target}"))?;
            if count == 0 {
                bail!("{target} closed the connection");
            }
        };
        let response = jsonrpc::response(&self.input[message.clone()], &mut self.scratch)?;
        if response.id != id {
            bail!("answer has id {}, want {id}", response.id);
        }
        let result = match response.error {
            None => Ok(read(response.result, &mut self.scratch)),
            Some(text) => Err(Refusal(text).into()),
        };
        self.input.drain(..message.end);
        self.framer.reset();
        result
    }
}

/// An answer that is an error.
#[derive(Debug)]
struct Refusal(String);

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "answered with an error: {}", self.0)
    }
}

impl std::error::Error for Refusal {}

/// What became of the points.
#[derive(Clone, Debug, Default)]
struct Tally {
    calls: u64,
    failed_calls: u64,
    /// Points in all calls.
    sent: u64,
    /// Counted as `Invalid` by the server.
    refused: u64,
    /// Points of failed calls: nobody knows whether they arrived.
    lost: u64,
    errors: Vec<String>,
}

impl Tally {
    fn fail(&mut self, points: u64, error: String) {
        self.failed_calls += 1;
        self.lost += points;
        if self.errors.len() < ERRORS_SHOWN && !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    fn add(&mut self, other: Tally) {
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

#[derive(Default)]
struct Report {
    took: Duration,
    rounds: u32,
    tally: Tally,
    latency: Latency,
    /// What reading back found, if it was asked for.
    verdict: Option<Verdict>,
}

impl Report {
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
