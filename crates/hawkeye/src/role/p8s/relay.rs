//! Relay: what a transfer sends to falcon2p8s (`P8sRelay.Send`), kept as Prometheus is shown it.
//!
//! Compat: a gauge has its last value; a counter grows by what its value grew, the first value whole, and does not
//! shrink; negative values of counters are dropped. A metric keeps its type. The original deletes a series that is
//! silent for 70 s, also where its step is longer; here such a one has twice its step.
//! Invariants: at most `series_max` series; a point of one more is counted, and not taken.
//! Memory: the names of a series twice over, and 60 bytes.

use super::page::{Names, Page};
use crate::clock;
use model::{CounterType, SeriesKey, Tags};
use net::gob::{Service, Session};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wire::gob::{Call, P8sItem};
use wire::jsonrpc::unknown_method;

/// Seconds without a point after which the original forgets a series.
const SILENT_S: i64 = 70;
/// Seconds between two looks for silent series when there are too many.
const SWEEP_S: i64 = 10;

/// Label of what was not taken.
#[derive(Clone, Debug, Hash, PartialEq, Eq, prometheus_client::encoding::EncodeLabelSet)]
struct RefusedLabel {
    reason: &'static str,
}

/// The service and its series; clones share them.
#[derive(Clone)]
pub struct Relay {
    table: Arc<Mutex<Table>>,
    series_max: usize,
    now: fn() -> i64,
    taken: Counter,
    refused: Family<RefusedLabel, Counter>,
}

#[derive(Default)]
struct Table {
    /// By name and labels, with a byte between them that neither has.
    series: HashMap<String, Shown>,
    names: Names,
    key: String,
    swept: i64,
}

/// A series as it is shown.
struct Shown {
    is_gauge: bool,
    name_bytes: usize,
    shown: f64,
    /// Value of a counter as it came last.
    last: f64,
    until: i64,
}

impl Relay {
    /// A relay without a series.
    pub fn new(series_max: usize, metrics: &metrics::Metrics) -> Relay {
        let (table, taken, refused) = (Arc::<Mutex<Table>>::default(), Counter::default(), Family::default());
        metrics.register(|registry| {
            registry.register("p8s_points", "Points that P8sRelay.Send brought", taken.clone());
            let refused: Family<RefusedLabel, Counter> = Family::clone(&refused);
            registry.register("p8s_points_refused", "Points of P8sRelay.Send that are not shown", refused);
        });
        let told = table.clone();
        metrics.ledger().source(move |report| {
            let table = lock(&told);
            let names: usize = table.series.capacity() * size_of::<(String, Shown)>();
            let texts: usize = table.series.keys().map(String::capacity).sum();
            report.line("p8s series", (names + texts) as u64, None, Some(table.series.len() as u64));
        });
        Relay { table, series_max, now: clock::now, taken, refused }
    }

    /// Adds what is not silent to a page.
    pub fn show(&self, page: &mut Page) {
        let now = (self.now)();
        let mut table = lock(&self.table);
        table.series.retain(|_, shown| shown.until >= now);
        for (key, shown) in &table.series {
            let (name, labels) = (&key[..shown.name_bytes], &key[shown.name_bytes + 1..]);
            page.add(name, labels, shown.is_gauge, shown.shown);
        }
    }

    fn send(&self, call: &Call<'_>, session: &mut Session) -> Result<(), String> {
        let Session { decoder, scratch, .. } = session;
        let now = (self.now)();
        let mut table = lock(&self.table);
        let read = call.p8s_items(decoder, scratch, &mut |item| match table.take(&item, now, self.series_max) {
            Ok(()) => _ = self.taken.inc(),
            Err(reason) => _ = self.refused.get_or_create(&RefusedLabel { reason }).inc(),
        });
        read.map_err(|error| error.to_string())
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Table {
    fn take(&mut self, item: &P8sItem<'_>, now: i64, series_max: usize) -> Result<(), &'static str> {
        let is_gauge = match CounterType::parse(item.metric_type.as_bytes()) {
            Some(CounterType::Gauge) => true,
            Some(CounterType::Counter) => false,
            _ => return Err("type"),
        };
        if item.endpoint.is_empty() || item.metric.is_empty() || !item.value.is_finite() {
            return Err("invalid");
        }
        if !is_gauge && item.value < 0.0 {
            return Err("negative_counter");
        }
        let tags = Tags::assume_canonical(item.tags);
        self.names.set(&SeriesKey { endpoint: item.endpoint, metric: item.metric, tags });
        self.key.clear();
        self.key.push_str(&self.names.name);
        self.key.push('\n');
        self.key.push_str(&self.names.labels);
        let until = now.saturating_add(SILENT_S.max(item.step.saturating_mul(2)));
        if let Some(shown) = self.series.get_mut(&self.key) {
            if shown.is_gauge != is_gauge {
                return Err("other_type");
            }
            shown.set(item.value);
            shown.until = until;
            return Ok(());
        }
        if self.series.len() >= series_max && now >= self.swept.saturating_add(SWEEP_S) {
            self.series.retain(|_, shown| shown.until >= now);
            self.swept = now;
        }
        if self.series.len() >= series_max {
            return Err("too_many_series");
        }
        let name_bytes = self.names.name.len();
        let shown = Shown { is_gauge, name_bytes, shown: item.value, last: item.value, until };
        self.series.insert(self.key.clone(), shown);
        Ok(())
    }
}

impl Shown {
    fn set(&mut self, value: f64) {
        if self.is_gauge {
            self.shown = value;
        } else {
            // A counter that began anew grows from where it is.
            self.shown += (value - self.last).max(0.0);
            self.last = value;
        }
    }
}

impl Service for Relay {
    async fn call(&self, call: Call<'_>, session: &mut Session, out: &mut Vec<u8>) {
        let (method, seq) = (call.method, call.seq);
        let answered = match method {
            "P8sRelay.Send" => self.send(&call, session),
            "P8sRelay.Ping" => Ok(()),
            _ => Err(unknown_method(&["P8sRelay"], method)),
        };
        match answered {
            Ok(()) => session.encoder.simple(out, method, seq, 0),
            Err(text) => session.encoder.error(out, method, seq, &text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::gob::testing::exchange;
    use wire::gob::client::{Replies, Requests};

    fn item(metric: &'static str, metric_type: &'static str, value: f64, step: i64) -> P8sItem<'static> {
        P8sItem { endpoint: "h", metric, tags: "a=1,b=2", value, timestamp: 0, metric_type, step }
    }

    fn page(relay: &Relay) -> String {
        let mut page = Page::default();
        relay.show(&mut page);
        String::from_utf8(page.text()).expect("UTF-8")
    }

    #[tokio::test]
    async fn what_transfer_sends_is_shown() {
        let relay = Relay { now: || 1000, ..Relay::new(3, &metrics::Metrics::new()) };
        let (mut requests, mut input) = (Requests::new(), Vec::new());
        requests.ping(&mut input, "P8sRelay.Ping", 0);
        let first = [
            item("g.one", "GAUGE", 1.5, 60),
            item("c.one", "COUNTER", 10.0, 60),
            item("c.one", "GAUGE", 10.0, 60),
            item("c.neg", "COUNTER", -1.0, 60),
            item("d", "DERIVE", 1.0, 60),
        ];
        requests.p8s_send(&mut input, 1, first.into_iter());
        let second = [
            item("g.one", "GAUGE", -2.0, 60),
            item("c.one", "COUNTER", 15.0, 60),
            item("c.one", "COUNTER", 2.0, 60),
            item("c.one", "COUNTER", 3.0, 60),
            item("third", "GAUGE", 3.0, 300),
            item("fourth", "GAUGE", 4.0, 60),
        ];
        requests.p8s_send(&mut input, 2, second.into_iter());
        requests.ping(&mut input, "P8sRelay.Query", 3);
        let answers = exchange(&relay, 1 << 20, &input).await;
        let (mut replies, mut rest, mut errors) = (Replies::new(1 << 20), &answers[..], Vec::new());
        while let Some((end, reply)) = replies.next(rest).expect("gob") {
            errors.push(reply.error.into_owned());
            rest = &rest[end..];
        }
        assert_eq!(errors, ["", "", "", "rpc: can't find method P8sRelay.Query"]);
        let labels = "{hostname=\"h\",a=\"1\",b=\"2\"}";
        let expected = format!(
            "# TYPE c_one counter\nc_one{labels} 16\n# TYPE g_one gauge\ng_one{labels} -2\n# TYPE third gauge\nthird{labels} 3\n"
        );
        assert_eq!(page(&relay), expected);
        let refused = |reason: &'static str| relay.refused.get_or_create(&RefusedLabel { reason }).get();
        assert_eq!(["other_type", "negative_counter", "type", "too_many_series"].map(refused), [1, 1, 1, 1]);
        assert_eq!(relay.taken.get(), 7);
        // Silent for longer than 70 s and twice the step, but for the one that has 300 s.
        let later = Relay { now: || 1000 + 121, ..relay.clone() };
        assert_eq!(page(&later), format!("# TYPE third gauge\nthird{labels} 3\n"));
    }
}
