//! StatsD: points that programs of this host send as datagrams, put together for each report.
//!
//! How: `name:value|kind` with `|@rate` for what was sent in part, and `|#key:value` for tags; lines of one datagram
//! are separated. A counter (`c`) becomes a count and a rate; a timer (`ms`, `h`, `d`) a count, mean, extremes and
//! percentiles; a set (`s`) the number of its members; all of these begin anew with each report. A gauge (`g`) stays
//! what it was, `+` and `-` move it, until nobody has set it for [`GAUGE_REPORTS`] reports.
//! Percentiles come from a histogram whose buckets are five percent wide, so they are right within 2.5 %.
//! Invariants: one that sends nonsense costs the datagram's line; what is refused or past a bound is counted
//! (`statsd.refused`) and told.
//! Memory: at most [`SERIES_MAX`] series, [`MEMBERS_MAX`] members of all sets, and [`BUCKETS_MAX`] buckets of all
//! timers: some ten megabytes where all are as long as they may be.
//! Compat: ours.

use super::Collected;
use model::tags::canonical_string;
use probe::Reading;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

/// Series of one report; a guess: a host's programs have some hundreds.
const SERIES_MAX: usize = 10_000;
/// Members of all sets together.
const MEMBERS_MAX: usize = 20_000;
/// Buckets of all timers together; a timer of a service has some fifty.
const BUCKETS_MAX: usize = 50_000;
/// Bytes of a datagram; loopback takes 64 KiB, and no library sends more.
const DATAGRAM_BYTES: usize = 64 << 10;
/// Bytes of a name and of tags, as many as a transfer takes.
const NAME_BYTES_MAX: usize = 200;
/// Reports for which a gauge is repeated that nobody sets.
const GAUGE_REPORTS: u32 = 10;
/// Logarithm by which the buckets of timers grow: five percent.
const BUCKET: f64 = 1.05;
/// Values of timers that are told apart; lesser ones are in the first bucket, larger ones in the last.
const TIMER_MIN: f64 = 1e-4;
const TIMER_MAX: f64 = 1e9;

/// The socket and what came through it since the last report.
#[derive(Debug)]
pub struct Statsd {
    address: String,
    table: Arc<Mutex<Table>>,
    /// Who takes datagrams, while the socket is open.
    taking: Option<AbortHandle>,
    #[cfg(test)]
    bound: Option<std::net::SocketAddr>,
}

#[derive(Debug, Default)]
struct Table {
    series: BTreeMap<Key, Value>,
    members: usize,
    buckets: usize,
    refused: u64,
    /// A line that was refused, for the log.
    example: Option<String>,
}

/// Kind, name and tags.
type Key = (Kind, String, String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Count,
    Gauge,
    Timer,
    Set,
}

#[derive(Debug)]
enum Value {
    Count(f64),
    Gauge { value: f64, age: u32 },
    Timer(Timer),
    Set(BTreeSet<String>),
}

#[derive(Debug, Default)]
struct Timer {
    /// Values, with those that a rate stands for.
    count: f64,
    sum: f64,
    min: f64,
    max: f64,
    buckets: BTreeMap<i16, f64>,
}

/// A line that was understood.
#[derive(Clone, Debug, PartialEq)]
struct Line<'d> {
    kind: Kind,
    name: String,
    tags: String,
    value: &'d str,
    /// Part of the values that are sent, above 0 and at most 1.
    rate: f64,
}

impl Statsd {
    /// Takes datagrams on an address, once the first report has opened it.
    pub fn new(address: &str) -> Statsd {
        Statsd {
            address: address.to_string(),
            table: Arc::default(),
            taking: None,
            #[cfg(test)]
            bound: None,
        }
    }

    /// What came in since the report before, which was as many milliseconds ago.
    pub async fn collect(&mut self, elapsed_ms: u64) -> Collected {
        let mut collected = Collected::default();
        if self.taking.as_ref().is_none_or(AbortHandle::is_finished)
            && let Err(error) = self.open().await
        {
            collected.fail(&self.address, format!("collect.statsd cannot listen: {error}"));
        }
        let mut table = lock(&self.table);
        table.report(elapsed_ms, &mut collected);
        collected
    }

    async fn open(&mut self) -> std::io::Result<()> {
        let socket = UdpSocket::bind(&self.address).await?;
        #[cfg(test)]
        {
            self.bound = Some(socket.local_addr()?);
        }
        let table = self.table.clone();
        let taking = tokio::spawn(async move {
            let mut datagram = vec![0; DATAGRAM_BYTES];
            while let Ok((length, _)) = socket.recv_from(&mut datagram).await {
                lock(&table).take(&datagram[..length]);
            }
        });
        self.taking = Some(taking.abort_handle());
        Ok(())
    }
}

impl Drop for Statsd {
    fn drop(&mut self) {
        if let Some(taking) = &self.taking {
            taking.abort();
        }
    }
}

/// What a report has of one datagram, for the fuzz target.
pub fn of_datagram(datagram: &[u8]) -> Collected {
    let (mut table, mut collected) = (Table::default(), Collected::default());
    table.take(datagram);
    table.report(1000, &mut collected);
    collected
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    // Whatever was being added when somebody panicked is one line.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Table {
    fn take(&mut self, datagram: &[u8]) {
        for line in datagram.split(|byte| *byte == b'\n') {
            let text = String::from_utf8_lossy(line);
            let text = text.trim();
            if !text.is_empty() && self.take_line(text).is_none() {
                self.refused += 1;
                if self.example.is_none() {
                    self.example = Some(text.chars().take(NAME_BYTES_MAX).collect());
                }
            }
        }
    }

    /// Adds the values of a line, which newer clients pack with colons between; none where one of them is refused.
    fn take_line(&mut self, text: &str) -> Option<()> {
        let line = parse(text)?;
        let is_packed = line.kind != Kind::Set && line.value.contains(':');
        let values = line.value.split(if is_packed { ':' } else { '\n' });
        values.map(|value| self.add(&Line { value: value.trim(), ..line.clone() })).fold(Some(()), Option::and)
    }

    /// Adds a value; none where it is no number, or past a bound.
    fn add(&mut self, line: &Line<'_>) -> Option<()> {
        let number = || line.value.parse().ok().filter(|value: &f64| value.is_finite());
        let key = (line.kind, line.name.clone(), line.tags.clone());
        if self.series.len() >= SERIES_MAX && !self.series.contains_key(&key) {
            return None;
        }
        match line.kind {
            Kind::Count => {
                let value = number()? / line.rate;
                let Value::Count(sum) = self.series.entry(key).or_insert(Value::Count(0.0)) else { return None };
                *sum = Some(*sum + value).filter(|sum| sum.is_finite())?;
            }
            Kind::Gauge => {
                let (given, is_move) = (number()?, line.value.starts_with(['+', '-']));
                let zero = Value::Gauge { value: 0.0, age: 0 };
                let Value::Gauge { value, age } = self.series.entry(key).or_insert(zero) else { return None };
                let moved = if is_move { *value + given } else { given };
                (*value, *age) = (Some(moved).filter(|moved| moved.is_finite())?, 0);
            }
            Kind::Timer => {
                let value = number()?;
                let fresh = Value::Timer(Timer::default());
                let Value::Timer(timer) = self.series.entry(key).or_insert(fresh) else { return None };
                if !timer.buckets.contains_key(&bucket_of(value)) {
                    if self.buckets >= BUCKETS_MAX {
                        return None;
                    }
                    self.buckets += 1;
                }
                timer.add(value, 1.0 / line.rate);
            }
            Kind::Set => {
                let is_full = self.members >= MEMBERS_MAX || line.value.len() > NAME_BYTES_MAX;
                let fresh = Value::Set(BTreeSet::new());
                let Value::Set(members) = self.series.entry(key).or_insert(fresh) else { return None };
                if !members.contains(line.value) {
                    if is_full {
                        return None;
                    }
                    members.insert(line.value.to_string());
                    self.members += 1;
                }
            }
        }
        Some(())
    }

    /// Appends what there is, and begins anew.
    fn report(&mut self, elapsed_ms: u64, collected: &mut Collected) {
        for ((_, name, tags), value) in &self.series {
            value.push(name, tags, elapsed_ms, &mut collected.readings);
        }
        self.series.retain(|_, value| match value {
            Value::Gauge { age, .. } => {
                *age += 1;
                *age < GAUGE_REPORTS
            }
            _ => false,
        });
        (self.members, self.buckets) = (0, 0);
        let refused = std::mem::take(&mut self.refused);
        collected.readings.push(Reading::gauge("statsd.refused", "", refused as f64));
        if let Some(example) = self.example.take() {
            collected.fail("statsd", format!("{refused} lines are no StatsD, or too many series; one is {example:?}"));
        }
    }
}

impl Value {
    fn push(&self, name: &str, tags: &str, elapsed_ms: u64, out: &mut Vec<Reading>) {
        let mut gauge = |suffix: &str, value: f64| {
            // Sums of finite numbers may be none.
            if value.is_finite() {
                out.push(Reading::gauge(format!("{name}{suffix}"), tags, value));
            }
        };
        match self {
            Value::Count(sum) => {
                gauge(".count", *sum);
                if elapsed_ms > 0 {
                    gauge(".rate", sum * 1000.0 / elapsed_ms as f64);
                }
            }
            Value::Gauge { value, .. } => gauge("", *value),
            Value::Set(members) => gauge(".count", members.len() as f64),
            Value::Timer(timer) => {
                gauge(".count", timer.count);
                gauge(".mean", timer.sum / timer.count);
                gauge(".min", timer.min);
                gauge(".max", timer.max);
                for (suffix, share) in [(".p50", 0.5), (".p95", 0.95), (".p99", 0.99)] {
                    gauge(suffix, timer.percentile(share));
                }
            }
        }
    }
}

impl Timer {
    fn add(&mut self, value: f64, weight: f64) {
        if self.count == 0.0 {
            (self.min, self.max) = (value, value);
        }
        (self.min, self.max) = (self.min.min(value), self.max.max(value));
        self.count += weight;
        self.sum += value * weight;
        *self.buckets.entry(bucket_of(value)).or_default() += weight;
    }

    /// The value that this share of the values does not exceed.
    fn percentile(&self, share: f64) -> f64 {
        let mut below = 0.0;
        for (bucket, weight) in &self.buckets {
            below += weight;
            if below >= self.count * share {
                // The middle of the bucket; values outside of all buckets are nearest to an extreme.
                return BUCKET.powf(f64::from(*bucket) + 0.5).clamp(self.min, self.max);
            }
        }
        self.max
    }
}

fn bucket_of(value: f64) -> i16 {
    (value.clamp(TIMER_MIN, TIMER_MAX).ln() / BUCKET.ln()).floor() as i16
}

/// Reads `name:value|kind`, and what may follow.
fn parse(text: &str) -> Option<Line<'_>> {
    let (name, rest) = text.split_once(':')?;
    let mut parts = rest.split('|');
    let (value, kind) = (parts.next()?.trim(), parts.next()?.trim());
    let kind = match kind {
        "c" => Kind::Count,
        "g" => Kind::Gauge,
        "ms" | "h" | "d" => Kind::Timer,
        "s" => Kind::Set,
        _ => return None,
    };
    let (mut rate, mut tags) = (1.0, String::new());
    for part in parts {
        if let Some(text) = part.strip_prefix('@') {
            rate = text.parse().ok().filter(|rate| *rate > 0.0 && *rate <= 1.0)?;
        } else if let Some(text) = part.strip_prefix('#') {
            tags = tags_of(text);
        }
        // What other dialects add (a container's name, a time) changes nothing here.
    }
    let name = name_of(name);
    let is_short = name.len() <= NAME_BYTES_MAX && tags.len() <= NAME_BYTES_MAX;
    (!name.is_empty() && !value.is_empty() && is_short).then_some(Line { kind, name, tags, value, rate })
}

/// A name in the signs that a series' name may have.
fn name_of(text: &str) -> String {
    let is_fine = |c: char| c.is_ascii_graphic() && !"/,=|".contains(c);
    text.trim().chars().map(|c| if is_fine(c) { c } else { '_' }).collect()
}

/// `key:value,flag` as tags; a flag alone is `flag=1`.
fn tags_of(text: &str) -> String {
    let pair = |part: &str| {
        let (key, value) = part.split_once(':').unwrap_or((part, "1"));
        (!key.trim().is_empty() && !value.trim().is_empty()).then(|| probe::tag(&name_of(key), value))
    };
    let pairs: Vec<String> = text.split(',').filter_map(pair).collect();
    canonical_string(&pairs.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Readings of these datagrams after ten seconds, and how many lines were refused.
    fn report(table: &mut Table, datagrams: &[&str]) -> (Vec<String>, f64) {
        datagrams.iter().for_each(|datagram| table.take(datagram.as_bytes()));
        let mut collected = Collected::default();
        table.report(10_000, &mut collected);
        let refused = collected.readings.pop().expect("the count");
        crate::collect::tests::rows(std::slice::from_ref(&refused));
        assert_eq!(collected.faults.len(), usize::from(refused.value > 0.0));
        let row = |reading: &Reading| format!("{} {} {}", reading.metric, reading.tags, reading.value);
        (collected.readings.iter().map(row).collect(), refused.value)
    }

    fn check(datagrams: &[&str], expected: &[&str]) {
        let (rows, refused) = report(&mut Table::default(), datagrams);
        assert_eq!((rows, refused), (expected.iter().map(|row| row.to_string()).collect(), 0.0), "{datagrams:?}");
    }

    #[test]
    fn kinds() {
        check(&["a:1|c\na:2|c", "a:1|c|@0.1\n"], &["a.count  13", "a.rate  1.3"]);
        check(&["g:5|g", "g:+3|g", "g:-1|g"], &["g  7"]);
        check(&["g:5|g", "g:2|g"], &["g  2"]);
        check(&["u:a|s", "u:b|s", "u:a|s"], &["u.count  2"]);
        check(&["p:1:2:3|c"], &["p.count  6", "p.rate  0.6"]);
        check(&["u:a:b|s"], &["u.count  1"]);
        let timer = ["t.count  2", "t.mean  15", "t.min  10", "t.max  20"];
        let (rows, _) = report(&mut Table::default(), &["t:10|ms", "t:20|ms"]);
        assert_eq!(rows[..4], timer);
        check(&["a.b:1|c|#env:prod,flag,x:"], &["a.b.count env=prod,flag=1 1", "a.b.rate env=prod,flag=1 0.1"]);
        check(&["a:1|g|#k=l:v w,:x"], &["a k_l=vw 1"]);
        check(&["a:1|c|c:abc|T1656581409"], &["a.count  1", "a.rate  0.1"]);
        check(&["a/b c,d:1|g"], &["a_b_c_d  1"]);
    }

    #[test]
    fn percentiles_are_right_within_the_width_of_a_bucket() {
        let mut timer = Timer::default();
        (1..=1000).for_each(|value| timer.add(f64::from(value), 1.0));
        for (share, expected) in [(0.5, 500.0), (0.95, 950.0), (0.99, 990.0)] {
            let found = timer.percentile(share);
            assert!((found / expected - 1.0).abs() <= 0.026, "{share}: {found}, want {expected}");
        }
        assert!(timer.percentile(1.0) <= timer.max && timer.buckets.len() < 150);
        let mut odd = Timer::default();
        [-5.0, 0.0, 1e300].iter().for_each(|value| odd.add(*value, 1.0));
        assert!(odd.percentile(0.5) >= -5.0 && odd.percentile(1.0) <= 1e300 && odd.buckets.len() == 2);
    }

    #[test]
    fn all_begin_anew_but_gauges_until_nobody_sets_them() {
        let mut table = Table::default();
        let (rows, _) = report(&mut table, &["c:1|c", "g:4|g", "s:x|s"]);
        assert_eq!(rows.len(), 4);
        for _ in 1..GAUGE_REPORTS {
            assert_eq!(report(&mut table, &[]).0, ["g  4"]);
        }
        assert!(report(&mut table, &[]).0.is_empty());
    }

    #[test]
    fn nonsense_is_counted() {
        let lines = ["", "a", "a:1", "a:1|x", ":1|c", "a:|c", "a:x|c", "a:1|c|@0", "a:1|c|@2", "a:inf|g", "a:NaN|ms"];
        let (rows, refused) = report(&mut Table::default(), &[&lines.join("\n"), "fine:1|g"]);
        assert_eq!((rows, refused), (vec!["fine  1".to_string()], 10.0));
        assert_eq!(report(&mut Table::default(), &["a:1:x|c"]).1, 1.0);
        let long = format!("{}:1|c", "x".repeat(NAME_BYTES_MAX + 1));
        assert_eq!(report(&mut Table::default(), &[&long]).1, 1.0);
    }

    #[test]
    fn bounds() {
        let mut table = Table::default();
        (0..SERIES_MAX + 7).for_each(|index| table.take(format!("m{index}:1|g").as_bytes()));
        table.take(b"m0:2|g");
        let (rows, refused) = report(&mut table, &[]);
        assert_eq!((rows.len(), refused), (SERIES_MAX, 7.0));
        // Each timer has a bucket for each of a hundred values, ten percent apart.
        let mut table = Table::default();
        for index in 0..=BUCKETS_MAX {
            table.take(format!("t{}:{}|ms", index / 100, 1.1_f64.powi((index % 100) as i32)).as_bytes());
        }
        assert_eq!((table.buckets, report(&mut table, &[]).1), (BUCKETS_MAX, 1.0));
        let mut table = Table::default();
        (0..MEMBERS_MAX + 3).for_each(|index| table.take(format!("s:{index}|s").as_bytes()));
        let (rows, refused) = report(&mut table, &[]);
        assert_eq!((rows, refused), (vec![format!("s.count  {MEMBERS_MAX}")], 3.0));
    }

    #[tokio::test]
    async fn over_a_socket() {
        let mut statsd = Statsd::new("127.0.0.1:0");
        assert!(statsd.collect(0).await.faults.is_empty());
        let sender = UdpSocket::bind("127.0.0.1:0").await.expect("free port");
        let address = statsd.bound.expect("open");
        sender.send_to(b"hits:3|c", address).await.expect("sent");
        let arrived = async {
            while lock(&statsd.table).series.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        net::patience::in_time("the datagram", arrived).await;
        let collected = statsd.collect(1000).await;
        assert_eq!(collected.readings[0].value, 3.0);

        let mut second = Statsd::new(&address.to_string());
        let fault = &second.collect(0).await.faults[0];
        assert!(fault.why.contains("collect.statsd cannot listen"), "{fault:?}");
        drop(statsd);
        let free = async {
            while !second.collect(0).await.faults.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        net::patience::in_time("the port", free).await;
    }
}
