//! Pull: the judge alone gets its rules from an original hbs, every `judge.hbs_interval`.
//!
//! Why: a judge beside an old hbs has no portal to announce changes; it must ask for everything again and again, and
//! should not pay for what did not change. How: one connection to the hbs that answered last, both calls on it, the
//! answers read as a stream into [`KnownRules`] (`wire::hbs`); the addresses are tried in turn, the one that answered
//! last first.
//! Invariants: rules change when both answers were complete, and then both together; whatever else happens leaves those
//! in effect. A failure is told when it begins and when it is over. An answer that has suddenly lost all its strategies
//! or all its expressions is believed when it was so for two minutes: an original hbs that could not read its tables
//! when it started answers so, and believing it would close every alarm.
//! Memory: what [`KnownRules`] keeps, bounded by [`wire::hbs::AnswerLimits`], and [`READ_BYTES`] during a pull.
//! Compat: docs/open-falcon/judge.md §7, wire.md §5. The original gives a whole answer 3 s; here only silence counts.

use crate::clock;
use crate::watch::health::Outage;
use anyhow::{Result, anyhow};
use judge::RuleId;
use metrics::{Figures, Metrics};
use model::Rules;
use net::tls::client::{Outgoing, SCHEME, Trust};
use prometheus_client::metrics::counter::Counter;
use settings::Secret;
use std::cell::OnceCell;
use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use wire::hbs::{AnswerError, AnswerLimits, AnswerReader, Call, KnownRules, Omissions, Progress};
use wire::{Framer, Scratch, jsonrpc};

/// Bytes that are read from the socket at a time: some 200 strategies.
const READ_BYTES: usize = 64 << 10;

/// Pause after the first pull that fails; doubled each time up to the interval.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Times that an hbs may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub connect: Duration,
    /// Longest time without a byte.
    pub silence: Duration,
    /// Longest time for both answers of one hbs, however steadily they drip.
    pub pull: Duration,
    /// Time for which an hbs that has suddenly nothing must say so to be believed.
    pub empty: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            // The original judge's.
            connect: Duration::from_millis(300),
            // The original gives a whole answer 3 s, so an hbs that serves such judges begins to answer within them.
            silence: Duration::from_secs(5),
            // 26 MB (1,000 hosts with 80 strategies) in a minute are 3.5 Mbit/s.
            pull: Duration::from_secs(60),
            // An original hbs reads its tables again each 60 s, one after another.
            empty: Duration::from_secs(120),
        }
    }
}

/// Result of a pull.
#[derive(Debug)]
pub enum Pulled {
    /// Rules stay as they are, also when an answer is not believed yet.
    Unchanged,
    /// Rules that are in effect from now on. The first complete answers are always a change.
    Changed(Arc<Rules>),
}

/// Counts of pulls and what they brought, for `/metrics`.
#[derive(Default)]
pub struct PullCounts {
    pulls: Counter,
    unchanged: Counter,
    errors: Counter,
    bytes: Counter,
    /// Time of the last pull that worked (Unix seconds); the start of the process while there is none.
    last_success: AtomicI64,
    hosts: AtomicU64,
    distinct: AtomicU64,
    distinct_bytes: AtomicU64,
    memory_bytes: AtomicU64,
    left_out: AtomicU64,
}

impl PullCounts {
    /// Puts the counts on the metrics page.
    pub fn register(metrics: &Metrics) -> Arc<PullCounts> {
        let own = Arc::new(PullCounts { last_success: AtomicI64::new(clock::now()), ..PullCounts::default() });
        metrics.register(|registry| {
            registry.register("hbs_pulls", "Complete answers of an hbs, both calls", own.pulls.clone());
            registry.register(
                "hbs_pulls_unchanged",
                "Pulls that brought the same rules as before",
                own.unchanged.clone(),
            );
            registry.register("hbs_pull_errors", "Pulls that no hbs has answered completely", own.errors.clone());
            registry.register("hbs_pull_bytes", "Bytes that came from an hbs", own.bytes.clone());
        });
        let counts = own.clone();
        metrics.source(move |page| counts.write(page));
        own
    }

    /// Bytes of the rules pulled, for the memory ledger.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    fn write(&self, figures: &mut Figures<'_>) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        let age = clock::now() - self.last_success.load(Ordering::Relaxed);
        figures.gauge("hbs_pull_age_seconds", "Seconds since the last complete answer of an hbs", age as f64);
        figures.gauge("hbs_hosts", "Hosts with strategies, as pulled", count(&self.hosts));
        figures.gauge("hbs_rules_distinct", "Distinct rules pulled", count(&self.distinct));
        let help = "Bytes of the texts of the distinct rules pulled";
        figures.gauge("hbs_rules_distinct_bytes", help, count(&self.distinct_bytes));
        let help = "Memory of the rules pulled and of how they are recognised";
        figures.gauge("hbs_rules_memory_bytes", help, self.memory_bytes() as f64);
        figures.gauge("hbs_rules_left_out", "Rules in the last answers that cannot be read", count(&self.left_out));
    }

    fn note(&self, known: &KnownRules, changed: bool) {
        self.pulls.inc();
        if changed {
            self.memory_bytes.store(known.memory_bytes() as u64, Ordering::Relaxed);
        } else {
            self.unchanged.inc();
        }
        self.last_success.store(clock::now(), Ordering::Relaxed);
        self.hosts.store(known.rules().hosts.len() as u64, Ordering::Relaxed);
        self.distinct.store(known.distinct() as u64, Ordering::Relaxed);
        self.distinct_bytes.store(known.distinct_bytes() as u64, Ordering::Relaxed);
        self.left_out.store(known.left_out().count, Ordering::Relaxed);
    }
}

/// What a Hawkeye's hbs may want to see, and by what it is believed.
#[derive(Clone, Default)]
pub struct Access {
    pub token: Secret,
    pub trust: Option<Trust>,
}

/// Bytes of the answer to a token; an error is a text.
const SHOWN_MAX: usize = 64 << 10;

/// Rules of an original hbs, and the connection to it.
pub struct Puller {
    /// Addresses of hbs, at least one.
    addresses: Vec<String>,
    access: Access,
    timeouts: Timeouts,
    counts: Arc<PullCounts>,
    known: KnownRules,
    reader: AnswerReader,
    /// Index of the address that answered last.
    first: usize,
    /// Connection to the address `first`.
    link: Option<Link>,
    /// Time since which the hbs says that there is nothing any more.
    empty_since: Option<Instant>,
    /// Omissions of rules that cannot be read, as they were last told in the log.
    told: Omissions,
}

struct Link {
    stream: Outgoing,
    next_id: u64,
}

/// Failure of one hbs to give rules.
enum Failure {
    /// Failure of the connection, not of what came through it.
    Link(String),
    Answer(AnswerError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Link(text) => write!(f, "{text}"),
            Failure::Answer(error) => write!(f, "{error}"),
        }
    }
}

impl Puller {
    /// `addresses` are tried in this order at first.
    pub fn new(
        addresses: Vec<String>,
        access: Access,
        timeouts: Timeouts,
        limits: AnswerLimits,
        counts: Arc<PullCounts>,
    ) -> Puller {
        assert!(!addresses.is_empty(), "the configuration was checked");
        Puller {
            addresses,
            access,
            timeouts,
            counts,
            known: KnownRules::new(limits),
            reader: AnswerReader::new(),
            first: 0,
            link: None,
            empty_since: None,
            told: Omissions::default(),
        }
    }

    /// Asks for all rules. On an error those of the last pull stay. May be dropped half-way: that closes the
    /// connection.
    pub async fn pull(&mut self) -> Result<Pulled> {
        let mut failures = Vec::new();
        for turn in 0..self.addresses.len() {
            let index = (self.first + turn) % self.addresses.len();
            let limit = self.timeouts.pull;
            let asked = match timeout(limit, self.ask(index)).await {
                Ok(asked) => asked,
                Err(_) => Err(Failure::Link(format!("the answers were not complete within {limit:?}"))),
            };
            match asked {
                Ok(link) => {
                    self.first = index;
                    self.link = Some(link);
                    return Ok(self.settle());
                }
                Err(failure) => {
                    self.known.abandon();
                    failures.push(format!("{}: {failure}", self.addresses[index]));
                }
            }
        }
        self.counts.errors.inc();
        Err(anyhow!("{}", failures.join("; ")))
    }

    /// Makes both calls to one hbs; what comes is put into `known`, not into effect.
    async fn ask(&mut self, index: usize) -> Result<Link, Failure> {
        // Only ever to `first`, and of no use once another is asked.
        if let Some(link) = self.link.take().filter(|_| index == self.first) {
            match self.exchange(link).await {
                // The hbs was restarted since, perhaps: that is no failure of the one that is there now.
                Err(Failure::Link(_)) => {}
                result => return result,
            }
        }
        let link = self.connect(&self.addresses[index]).await?;
        self.exchange(link).await
    }

    async fn connect(&self, address: &str) -> Result<Link, Failure> {
        // A handshake is two more ways there and back.
        let limit = if address.starts_with(SCHEME) { self.timeouts.silence } else { self.timeouts.connect };
        let stream = timeout(limit, Outgoing::connect(address, self.access.trust.as_ref())).await;
        let stream = stream.map_err(|_| Failure::Link(format!("no connection within {limit:?}")))?;
        let mut link = Link { stream: stream.map_err(Failure::Link)?, next_id: 0 };
        if !self.access.token.is_none() {
            let shown = timeout(self.timeouts.silence, show(&mut link, &self.access.token)).await;
            let why = |why| Failure::Link(format!("judge.hbs_token is to be its ingest.token: {why}"));
            shown.map_err(|_| why("no answer to it".to_string()))?.map_err(why)?;
        }
        Ok(link)
    }

    async fn exchange(&mut self, mut link: Link) -> Result<Link, Failure> {
        self.known.begin();
        let mut input = vec![0; READ_BYTES];
        for call in [Call::Strategies, Call::Expressions] {
            self.call(call, &mut link, &mut input).await?;
        }
        Ok(link)
    }

    async fn call(&mut self, call: Call, link: &mut Link, input: &mut [u8]) -> Result<(), Failure> {
        let silence = self.timeouts.silence;
        let silent = |_| Failure::Link(format!("no byte of {} within {silence:?}", call.method()));
        let mut request = Vec::new();
        jsonrpc::write_request(&mut request, call.method(), link.next_id, b"{}");
        self.reader.begin(call, link.next_id);
        link.next_id += 1;
        let stream = &mut link.stream;
        let written = async { stream.write_all(&request).await.and(stream.flush().await) };
        let sent = timeout(silence, written).await.map_err(silent)?;
        sent.map_err(|error| broken("cannot send", error))?;
        loop {
            let read = timeout(silence, link.stream.read(input)).await.map_err(silent)?;
            let read = read.map_err(|error| broken("cannot receive", error))?;
            if read == 0 {
                return Err(Failure::Link(format!("the connection was closed before {} was answered", call.method())));
            }
            self.counts.bytes.inc_by(read as u64);
            let fed = self.reader.feed(&input[..read], &mut self.known).map_err(Failure::Answer)?;
            if fed == Progress::Done {
                return Ok(());
            }
        }
    }

    /// Decides what complete answers mean.
    fn settle(&mut self) -> Pulled {
        if self.known.has_emptied() && !self.is_believed_empty() {
            self.known.abandon();
            self.counts.note(&self.known, false);
            return Pulled::Unchanged;
        }
        self.empty_since = None;
        let changed = self.known.finish();
        self.tell_left_out();
        self.counts.note(&self.known, changed.is_some());
        changed.map_or(Pulled::Unchanged, Pulled::Changed)
    }

    fn is_believed_empty(&mut self) -> bool {
        let address = &self.addresses[self.first];
        let limit = self.timeouts.empty;
        let Some(since) = self.empty_since else {
            self.empty_since = Some(Instant::now());
            tracing::warn!(
                hbs = address,
                "hbs has no strategies, or no expressions: perhaps it could not read its tables; believed if it says so for \
                 {limit:?}"
            );
            return false;
        };
        let believed = since.elapsed() >= limit;
        if believed {
            tracing::warn!(hbs = address, "hbs still has no strategies, or no expressions, and is believed now");
        }
        believed
    }

    /// Tells which rules cannot be read, once for each set of them.
    fn tell_left_out(&mut self) {
        let left_out = self.known.left_out();
        if left_out.sum == self.told.sum && left_out.count == self.told.count {
            return;
        }
        for reason in &left_out.named {
            tracing::warn!(reason, "a rule of hbs is left out");
        }
        match left_out.count {
            0 => tracing::info!("all rules of hbs can be read again"),
            count => tracing::warn!(count, "rules of hbs cannot be read; the first of them are named above"),
        }
        self.told = left_out.clone();
    }
}

/// Shows a token. Who knows of none (an original hbs) is fine without.
async fn show(link: &mut Link, token: &Secret) -> Result<(), String> {
    let mut out = Vec::new();
    let param = serde_json::json!({ "token": token.text() }).to_string();
    jsonrpc::write_request(&mut out, net::gate::AUTH, link.next_id, param.as_bytes());
    link.next_id += 1;
    let io = |error: io::Error| error.to_string();
    link.stream.write_all(&out).await.map_err(io)?;
    link.stream.flush().await.map_err(io)?;
    let (mut framer, mut input) = (Framer::new(SHOWN_MAX), Vec::new());
    loop {
        if let Some(range) = framer.scan(&input).map_err(|error| error.to_string())? {
            let answer = jsonrpc::response(&input[range], &mut Scratch::new()).map_err(|error| error.to_string())?;
            return answer.error.filter(|error| !error.contains("can't find")).map_or(Ok(()), Err);
        }
        if link.stream.read_buf(&mut input).await.map_err(io)? == 0 {
            return Err("it closed the connection".to_string());
        }
    }
}

fn broken(what: &str, error: io::Error) -> Failure {
    Failure::Link(format!("{what}: {error}"))
}

/// Pulls at once and then each `interval`, until told to stop. `load` puts rules into effect; it runs on a blocking
/// thread, one call at a time, in order of versions. `outage` says that no rules come, from the start on.
pub async fn run(
    mut puller: Puller,
    interval: Duration,
    load: impl Fn(Arc<Rules>) + Send + Sync + 'static,
    outage: Outage,
    mut stopping: watch::Receiver<bool>,
) {
    let load = Arc::new(load);
    let mut failed_for = Duration::ZERO;
    outage.fails("none has answered yet; no points are taken before".to_string());
    loop {
        outage.begin();
        let pulled = tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => return,
            pulled = puller.pull() => pulled,
        };
        let pause = match pulled {
            Ok(pulled) => {
                if std::mem::take(&mut failed_for) > Duration::ZERO {
                    tracing::info!("an hbs gives rules again");
                }
                if let Pulled::Changed(rules) = pulled {
                    load_one(load.clone(), rules).await;
                }
                outage.works();
                interval
            }
            Err(error) => {
                if failed_for == Duration::ZERO {
                    tracing::error!(%error, "no hbs gives rules; the rules in effect stay, and hbs is asked again");
                }
                outage.note(Err::<(), _>(error));
                failed_for = (failed_for * 2).clamp(RETRY_AFTER.min(interval), interval);
                failed_for
            }
        };
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Puts rules into effect, on a thread that may be busy: compiling and binding take milliseconds of processor time per
/// hundred thousand series.
async fn load_one(load: Arc<impl Fn(Arc<Rules>) + Send + Sync + 'static>, rules: Arc<Rules>) {
    let (version, hosts, expressions) = (rules.version, rules.hosts.len(), rules.expressions.len());
    match tokio::task::spawn_blocking(move || load(rules)).await {
        Ok(()) => tracing::info!(version, hosts, expressions, "rules of hbs are in effect"),
        Err(error) => tracing::error!(%error, "loading the rules failed; the rules in effect stay"),
    }
}

/// Says why a rule no longer applies to an endpoint, from what an hbs tells: which is little, as it has resolved
/// inheritance, hours and maintenance before.
pub struct Gone<'r> {
    rules: &'r Rules,
    /// Ids of all strategies in effect anywhere; made when first asked for.
    strategies: OnceCell<HashSet<i64>>,
}

impl<'r> Gone<'r> {
    /// Reasons according to the rules that are now in effect.
    pub fn new(rules: &'r Rules) -> Gone<'r> {
        Gone { rules, strategies: OnceCell::new() }
    }

    /// Reason why a rule applies to `endpoint` no longer, as a sentence for people.
    pub fn why(&self, rule: RuleId, endpoint: &str) -> String {
        match rule {
            RuleId::Strategy(_) if !self.rules.hosts.contains_key(endpoint) => {
                "hbs has no strategies for the host: it was removed, lost its templates, or is in maintenance"
            }
            RuleId::Strategy(id) if !self.strategies().contains(&id) => {
                "hbs no longer has the strategy: it was deleted, is bound to no host, or is outside its hours"
            }
            RuleId::Strategy(_) => "the strategy no longer applies to this series",
            RuleId::Expression(id) if !self.rules.expressions.iter().any(|expression| expression.id == id) => {
                "hbs no longer has the expression: it was deleted or paused"
            }
            RuleId::Expression(_) => "the expression no longer applies to this series",
        }
        .to_string()
    }

    fn strategies(&self) -> &HashSet<i64> {
        let all = || self.rules.hosts.values().flat_map(|list| list.iter()).map(|strategy| strategy.id).collect();
        self.strategies.get_or_init(all)
    }
}

#[cfg(test)]
mod tests;
