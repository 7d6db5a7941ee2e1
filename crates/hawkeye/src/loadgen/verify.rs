//! Verify: reads every point that was answered for back, over REST or from a graph over gob, and compares it with the
//! point that was sent.
//!
//! Why: "nothing acknowledged is ever lost" is checked from outside, also when the server was killed in the middle of a
//! run and started again: calls that failed are left out, all others count.
//! How: a bit per host, round and group says which calls were answered ([`AnsweredCalls`]); the mix says what was in
//! them. A GAUGE must come back with its value, a counter as the rate between two answered rounds.
//! Invariants: never asks for more than [`POINTS_PER_REQUEST`] points at once. Points under the same names from another
//! run at the same times count as wrong, since the first of two equal times is the one that is kept.

use super::fleet::Fleet;
use super::link::{Link, RefusedCall};
use super::mix::SimulatedSeries;
use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use wire::Scratch;
use wire::gob::GraphQuery;
use wire::json::{self, name_eq};

/// Points of one request for history: about 5 MB of JSON.
const POINTS_PER_REQUEST: usize = 100_000;
/// The time that a server may take to come (back) up; the aim of the server is five seconds.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Findings that are printed; more of them say nothing new.
const FINDINGS_SHOWN: usize = 5;
/// The least step that can be verified: transfer raises smaller ones, and then points of two rounds fall together.
pub const STEP_MIN: u32 = 30;

/// The calls that were answered, a bit each.
pub struct AnsweredCalls {
    rounds: usize,
    groups: usize,
    bits: Vec<AtomicU64>,
}

impl AnsweredCalls {
    /// No call answered yet.
    pub fn new(hosts: usize, rounds: u32, groups: usize) -> AnsweredCalls {
        let rounds = rounds as usize;
        let words = (hosts * rounds * groups).div_ceil(64);
        AnsweredCalls { rounds, groups, bits: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Notes that a call was answered.
    pub fn mark(&self, host: usize, round: u32, group: usize) {
        let bit = self.bit(host, round, group);
        self.bits[bit / 64].fetch_or(1 << (bit % 64), Ordering::Relaxed);
    }

    /// Whether a call was answered.
    pub fn was(&self, host: usize, round: u32, group: usize) -> bool {
        let bit = self.bit(host, round, group);
        self.bits[bit / 64].load(Ordering::Relaxed) >> (bit % 64) & 1 == 1
    }

    fn bit(&self, host: usize, round: u32, group: usize) -> usize {
        (host * self.rounds + round as usize) * self.groups + group
    }
}

/// An API, and as whom to ask there.
#[derive(Clone, Debug)]
pub struct Api {
    /// Host and port of the API.
    address: String,
    token: String,
}

impl Api {
    /// `url` as in `http://127.0.0.1:8080`; `token` is a session's sig, with `name:` before it if the name is not root.
    pub fn new(url: &str, token: &str) -> Result<Api> {
        let address = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        let Some(address) = address.filter(|address| !address.is_empty() && !address.contains('/')) else {
            bail!("--verify {url}: want http://host:port");
        };
        let (name, sig) = token.split_once(':').unwrap_or(("root", token));
        let token = serde_json::json!({"name": name, "sig": sig}).to_string();
        Ok(Api { address: address.to_string(), token })
    }

    /// Posts until somebody answers, as long as [`PATIENCE`] lasts.
    async fn post(&self, path: &str, body: &str) -> Result<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let error = match TcpStream::connect(&self.address).await {
                Ok(stream) => return self.exchange(stream, path, body).await,
                Err(error) => error,
            };
            if Instant::now() > deadline {
                return Err(error).with_context(|| format!("cannot connect to {} (--verify)", self.address));
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Makes one request by HTTP/1.0, so that the answer ends with the connection and is never in chunks.
    async fn exchange(&self, mut stream: TcpStream, path: &str, body: &str) -> Result<Vec<u8>> {
        let head = format!(
            "POST {path} HTTP/1.0\r\nHost: {}\r\nApitoken: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.address,
            self.token,
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").context("answer is not HTTP")? + 4;
        let status = answer.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        if status != b"200" {
            bail!("{} answered {}", self.address, String::from_utf8_lossy(&answer).trim());
        }
        answer.drain(..end);
        Ok(answer)
    }
}

/// The server to read points back from.
pub enum ReadSource {
    Api(Api),
    Graph(Box<Link>),
}

/// The result of reading back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadVerdict {
    /// Points that must be there.
    pub expected: u64,
    pub missing: u64,
    pub wrong: u64,
    pub findings: Vec<String>,
}

impl ReadVerdict {
    fn find(&mut self, text: String) {
        if self.findings.len() < FINDINGS_SHOWN {
            self.findings.push(text);
        }
    }
}

/// Values by time of each counter.
type History = HashMap<String, HashMap<i64, Option<f64>>>;

/// Reads back what was answered for, and compares each value. Fails when the server cannot be asked.
pub async fn verify(
    fleet: &Fleet,
    rounds: u32,
    answered: &AnsweredCalls,
    source: &mut ReadSource,
) -> Result<ReadVerdict> {
    let mut verdict = ReadVerdict::default();
    let per_request = (POINTS_PER_REQUEST / rounds.max(1) as usize).max(1);
    let mut series: Vec<(usize, String, &SimulatedSeries)> = Vec::new();
    for group in 0..fleet.groups() {
        series.extend(fleet.counters(group).map(|(counter, one)| (group, counter, one)));
    }
    for host in 0..fleet.hosts() {
        for part in series.chunks(per_request) {
            let counters: Vec<&str> = part.iter().map(|(_, counter, _)| counter.as_str()).collect();
            let history = source.history(fleet, host, rounds, &counters).await?;
            for (group, counter, one) in part {
                compare(
                    fleet,
                    host,
                    rounds,
                    &|round| answered.was(host, round, *group),
                    counter,
                    one,
                    &history,
                    &mut verdict,
                );
            }
        }
    }
    Ok(verdict)
}

impl ReadSource {
    async fn history(&mut self, fleet: &Fleet, host: usize, rounds: u32, counters: &[&str]) -> Result<History> {
        // Points are stored at the start of their step; one more step on each side costs nothing.
        let step = i64::from(fleet.step());
        let start = fleet.time(host, 0) - 2 * step;
        let end = fleet.time(host, rounds.saturating_sub(1)) + step;
        match self {
            ReadSource::Api(api) => {
                let request = serde_json::json!({
                    "hostnames": [fleet.endpoint(host)],
                    "counters": counters,
                    "consol_fun": "AVERAGE",
                    "start_time": start,
                    "end_time": end,
                });
                let answer = api.post("/api/v1/graph/history", &request.to_string()).await?;
                read_history(&answer).with_context(|| format!("{} does not answer like graph/history", api.address))
            }
            ReadSource::Graph(link) => {
                let mut history = History::new();
                for counter in counters {
                    let (endpoint, consol_fun) = (fleet.endpoint(host).into(), "AVERAGE".into());
                    let query = GraphQuery { start, end, consol_fun, endpoint, counter: (*counter).into(), step: 0 };
                    history.insert((*counter).to_string(), query_patiently(link, &query).await?);
                }
                Ok(history)
            }
        }
    }
}

/// Asks until there is an answer, as long as [`PATIENCE`] lasts.
async fn query_patiently(link: &mut Link, query: &GraphQuery<'_>) -> Result<HashMap<i64, Option<f64>>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut values = HashMap::new();
        let mut keep = |time, value: f64| {
            values.insert(time, Some(value).filter(|value| !value.is_nan()));
        };
        match link.query(query, &mut keep).await {
            Ok(()) => return Ok(values),
            Err(error) if Instant::now() > deadline || error.is::<RefusedCall>() => return Err(error),
            Err(_) => sleep(RETRY_PAUSE).await,
        }
    }
}

fn read_history(answer: &[u8]) -> Result<History, wire::JsonError> {
    let (mut history, mut scratch, mut text, mut fault) = (History::new(), Scratch::new(), Scratch::new(), None);
    json::elements(answer, |series| {
        let (mut counter, mut values) = (String::new(), HashMap::new());
        let fields = json::fields(series, &mut scratch, |name, raw| {
            if name_eq(name, "counter") {
                counter = json::string(raw, &mut text).unwrap_or_default().to_string();
            } else if name_eq(name, "Values") {
                fault = read_values(raw, &mut text, &mut values).err().or(fault);
            }
        });
        fault = fields.err().or(fault);
        history.insert(counter, values);
    })?;
    fault.map_or(Ok(history), Err)
}

fn read_values(
    raw: &[u8],
    scratch: &mut Scratch,
    values: &mut HashMap<i64, Option<f64>>,
) -> Result<(), wire::JsonError> {
    let mut fault = None;
    json::elements(raw, |point| {
        let (mut time, mut value) = (0, None);
        let fields = json::fields(point, scratch, |name, raw| {
            if name_eq(name, "timestamp") {
                time = json::integer(raw).unwrap_or(0);
            } else if name_eq(name, "value") {
                value = json::number(raw);
            }
        });
        fault = fields.err().or(fault);
        values.insert(time, value);
    })?;
    fault.map_or(Ok(()), Err)
}

/// Compares one series of one host over all rounds whose calls were `answered`.
#[allow(clippy::too_many_arguments)] // a loop's body, which is easier to read by itself
fn compare(
    fleet: &Fleet,
    host: usize,
    rounds: u32,
    answered: &dyn Fn(u32) -> bool,
    counter: &str,
    series: &SimulatedSeries,
    history: &History,
    verdict: &mut ReadVerdict,
) {
    let stored = history.get(counter);
    for round in (0..rounds).filter(|round| answered(*round)) {
        let now = fleet.value(host, round, series);
        let expected = if series.counter_type.is_gauge() {
            now
        } else {
            // The first rate needs a round before it; after a restart of the host there is none to compare.
            if round == 0 || !answered(round - 1) {
                continue;
            }
            let before = fleet.value(host, round - 1, series);
            if now < before {
                continue;
            }
            (now - before) / f64::from(fleet.step())
        };
        verdict.expected += 1;
        let time = model::point::align(fleet.time(host, round), fleet.step());
        match stored.and_then(|values| values.get(&time)).copied().flatten() {
            Some(value) if close(value, expected) => {}
            Some(value) => {
                verdict.wrong += 1;
                verdict.find(format!(
                    "{} {counter} at {time}: {value} is stored, {expected} was sent",
                    fleet.endpoint(host)
                ));
            }
            None => {
                verdict.missing += 1;
                verdict.find(format!(
                    "{} {counter} at {time}: {expected} was answered for and is missing",
                    fleet.endpoint(host)
                ));
            }
        }
    }
}

/// True for values that are equal as far as REST shows: six decimals, and large values lose more to the double itself.
fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 + b.abs() * 1e-12
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits() {
        let answered = AnsweredCalls::new(3, 100, 4);
        answered.mark(2, 99, 3);
        answered.mark(0, 0, 0);
        assert!(answered.was(2, 99, 3) && answered.was(0, 0, 0));
        assert!(!answered.was(2, 99, 2) && !answered.was(1, 0, 0));
    }

    #[test]
    fn addresses() {
        let api = Api::new("http://127.0.0.1:8080/", "abc").expect("a good address");
        assert_eq!((api.address.as_str(), api.token.as_str()), ("127.0.0.1:8080", r#"{"name":"root","sig":"abc"}"#));
        assert_eq!(Api::new("http://h:1", "joe:x").expect("good").token, r#"{"name":"joe","sig":"x"}"#);
        assert!(Api::new("https://h:1", "x").is_err());
        assert!(Api::new("h:1", "x").is_err());
    }

    /// The history that a server with all points would answer, in REST's form.
    fn stored(fleet: &Fleet, rounds: u32) -> History {
        let mut json = String::from("[");
        for (counter, one) in fleet.counters(0) {
            let mut values = Vec::new();
            for round in 0..rounds {
                let time = model::point::align(fleet.time(0, round), fleet.step());
                let (now, before) = (fleet.value(0, round, one), fleet.value(0, round.saturating_sub(1), one));
                let value = if one.counter_type.is_gauge() { now } else { (now - before) / f64::from(fleet.step()) };
                values.push(format!("{{\"timestamp\":{time},\"value\":{value:.6}}}"));
            }
            let comma = if json.len() > 1 { "," } else { "" };
            json.push_str(&format!("{comma}{{\"counter\":\"{counter}\",\"Values\":[{}]}}", values.join(",")));
        }
        read_history(format!("{json}]").as_bytes()).expect("own JSON")
    }

    fn judge(fleet: &Fleet, history: &History, answered: &dyn Fn(u32) -> bool) -> ReadVerdict {
        let mut verdict = ReadVerdict::default();
        for (counter, one) in fleet.counters(0) {
            compare(fleet, 0, 10, answered, &counter, one, history, &mut verdict);
        }
        verdict
    }

    #[test]
    fn finds_what_is_missing_or_wrong() {
        let fleet = Fleet::new("h", 1, 100, 60, 1_600_000_000, 1);
        let mut history = stored(&fleet, 10);
        let verdict = judge(&fleet, &history, &|_| true);
        assert!(verdict.expected > 700 && verdict.missing == 0 && verdict.wrong == 0, "{verdict:?}");
        let time = model::point::align(fleet.time(0, 4), 60);
        let idle = history.get_mut("cpu.idle").expect("in every mix");
        idle.insert(time, Some(-1.0));
        idle.remove(&(time + 60));
        let verdict = judge(&fleet, &history, &|_| true);
        assert_eq!((verdict.missing, verdict.wrong), (1, 1));
        assert!(verdict.findings[0].contains("cpu.idle") && verdict.findings[0].contains("-1 is stored"));
        let verdict = judge(&fleet, &history, &|round| round != 4 && round != 5);
        assert_eq!((verdict.missing, verdict.wrong), (0, 0), "calls that failed do not count");
        // Of a single round only the gauges are known: a rate needs two.
        let gauges = fleet.counters(0).filter(|(_, one)| one.counter_type.is_gauge()).count() as u64;
        let verdict = judge(&fleet, &History::new(), &|round| round == 3);
        assert_eq!((verdict.expected, verdict.missing), (gauges, gauges));
    }
}
