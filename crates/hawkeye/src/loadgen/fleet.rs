//! Fleet: the hosts and their series, and the bytes of each of their calls.
//!
//! How: only endpoint, value and time of an item change; the texts between them are made once, per series, for all
//! hosts. The bytes are exactly those that [`wire::write_item`] writes.

use super::labels::SeriesTexts;
use super::mix::{self, Moment, SimulatedSeries};
use std::ops::Range;
use std::time::Duration;
use wire::gob::{GraphItem, JudgeItem};
use wire::json::{push_integer, push_number, push_string};
use wire::jsonrpc;

/// Simulated hosts with their series, and the calls in which they send them.
pub struct Fleet {
    prefix: String,
    hosts: usize,
    step: u32,
    /// Unix seconds of the first round.
    start: i64,
    seed: u64,
    series: Vec<EncodedSeries>,
    /// The series of each call.
    groups: Vec<Range<usize>>,
}

struct EncodedSeries {
    series: SimulatedSeries,
    /// Canonical tags.
    tags: String,
    /// The JSON between the endpoint's text and the value.
    before_value: Vec<u8>,
    /// The JSON between the value and the timestamp.
    after_value: Vec<u8>,
    /// The texts of the series in the protocols of other systems.
    texts: SeriesTexts,
}

/// A host in one round.
pub struct HostRound {
    moment: Moment,
    endpoint: String,
    /// `{"endpoint":"…"`, the start of each of its items.
    opening: Vec<u8>,
    timestamp: i64,
}

impl HostRound {
    /// Endpoint of the host.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Unix seconds of all its points.
    pub fn timestamp(&self) -> i64 {
        self.timestamp
    }
}

impl Fleet {
    /// The fleet with its series in calls of `batch` items each, as a transfer sends them on.
    pub fn in_batches_of(mut self, batch: usize) -> Fleet {
        let count = self.series.len();
        self.groups = (0..count).step_by(batch).map(|from| from..count.min(from + batch)).collect();
        self
    }

    /// A fleet of `hosts`, each with `metrics` series of `step` seconds; the first round is at `start` (Unix seconds).
    pub fn new(prefix: &str, hosts: usize, metrics: usize, step: u32, start: i64, seed: u64) -> Fleet {
        let series: Vec<EncodedSeries> =
            mix::series(metrics, seed).into_iter().map(|series| EncodedSeries::new(series, step)).collect();
        let mut groups: Vec<Range<usize>> = Vec::new();
        for (index, encoded) in series.iter().enumerate() {
            let same = index > 0 && series[index - 1].series.group == encoded.series.group;
            match groups.last_mut() {
                Some(group) if same => group.end = index + 1,
                _ => groups.push(index..index + 1),
            }
        }
        Fleet { prefix: prefix.to_string(), hosts, step, start, seed, series, groups }
    }

    /// Number of hosts.
    pub fn hosts(&self) -> usize {
        self.hosts
    }

    /// Calls that each host makes in a round.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Items of one call.
    pub fn points(&self, group: usize) -> usize {
        self.groups[group].len()
    }

    /// Endpoint of a host.
    pub fn endpoint(&self, host: usize) -> String {
        format!("{}{host:05}", self.prefix)
    }

    /// The time of a host's report, counted from the start of the run: hosts are spread evenly over the step, as a
    /// fleet is.
    pub fn due(&self, host: usize, round: u32) -> Duration {
        let step = Duration::from_secs(u64::from(self.step));
        step * round + step.mul_f64(host as f64 / self.hosts as f64)
    }

    /// Seconds between rounds.
    pub fn step(&self) -> u32 {
        self.step
    }

    /// Unix seconds of a host's points in a round.
    pub fn time(&self, host: usize, round: u32) -> i64 {
        self.start + self.due(host, round).as_secs() as i64
    }

    /// The value of one series.
    pub fn value(&self, host: usize, round: u32, series: &SimulatedSeries) -> f64 {
        Moment::new(self.seed, host, round).value(series)
    }

    /// The series of one call with their counters, as they are read back.
    pub fn counters(&self, group: usize) -> impl Iterator<Item = (String, &SimulatedSeries)> {
        self.series[self.groups[group].clone()].iter().map(|encoded| {
            let series = &encoded.series;
            let tags = model::Tags::assume_canonical(&encoded.tags);
            (model::SeriesKey { endpoint: "", metric: &series.metric, tags }.counter(), series)
        })
    }

    /// A host in a round, for its calls.
    pub fn moment(&self, host: usize, round: u32) -> HostRound {
        let (endpoint, mut opening) = (self.endpoint(host), b"{\"endpoint\":".to_vec());
        push_string(&mut opening, &endpoint);
        let timestamp = self.time(host, round);
        HostRound { moment: Moment::new(self.seed, host, round), endpoint, opening, timestamp }
    }

    /// The items of one call as a transfer makes them of an agent's (docs/open-falcon/transfer.md §4).
    pub fn graph_items<'f>(
        &'f self,
        host: &'f HostRound,
        group: usize,
    ) -> impl ExactSizeIterator<Item = GraphItem<'f>> + 'f {
        let (step, timestamp) = (i64::from(self.step), model::point::align(host.timestamp, self.step));
        self.series[self.groups[group].clone()].iter().map(move |encoded| {
            let counter_type = encoded.series.counter_type;
            GraphItem {
                endpoint: &host.endpoint,
                metric: &encoded.series.metric,
                tags: &encoded.tags,
                value: host.moment.value(&encoded.series),
                timestamp,
                ds_type: counter_type.ds_type(),
                step,
                heartbeat: 2 * step,
                min: if counter_type.is_gauge() { "U" } else { "0" },
                max: "U",
            }
        })
    }

    /// The items of one call as a transfer makes them for a judge, which gets no step.
    pub fn judge_items<'f>(
        &'f self,
        host: &'f HostRound,
        group: usize,
    ) -> impl ExactSizeIterator<Item = JudgeItem<'f>> + 'f {
        let timestamp = model::point::align(host.timestamp, self.step);
        self.series[self.groups[group].clone()].iter().map(move |encoded| JudgeItem {
            endpoint: &host.endpoint,
            metric: &encoded.series.metric,
            tags: &encoded.tags,
            value: host.moment.value(&encoded.series),
            timestamp,
            judge_type: encoded.series.counter_type.as_str(),
        })
    }

    /// The points of one call, each with the texts of its series.
    pub fn each_point(&self, host: &HostRound, group: usize, mut each: impl FnMut(&SeriesTexts, f64)) {
        for encoded in &self.series[self.groups[group].clone()] {
            each(&encoded.texts, host.moment.value(&encoded.series));
        }
    }

    /// Appends the call for one group of series.
    pub fn encode(&self, host: &HostRound, group: usize, id: u64, out: &mut Vec<u8>) {
        let series = &self.series[self.groups[group].clone()];
        jsonrpc::begin_request(out, "Transfer.Update");
        for (i, encoded) in series.iter().enumerate() {
            out.push(if i == 0 { b'[' } else { b',' });
            out.extend_from_slice(&host.opening);
            out.extend_from_slice(&encoded.before_value);
            push_number(out, host.moment.value(&encoded.series));
            out.extend_from_slice(&encoded.after_value);
            push_integer(out, host.timestamp);
            out.push(b'}');
        }
        out.push(b']');
        jsonrpc::end_request(out, id);
    }
}

impl EncodedSeries {
    fn new(series: SimulatedSeries, step: u32) -> EncodedSeries {
        let mut before_value = b",\"metric\":".to_vec();
        push_string(&mut before_value, &series.metric);
        before_value.extend_from_slice(b",\"value\":");
        let mut after_value = b",\"step\":".to_vec();
        push_integer(&mut after_value, i64::from(step));
        after_value.extend_from_slice(b",\"counterType\":");
        push_string(&mut after_value, series.counter_type.as_str());
        after_value.extend_from_slice(b",\"tags\":");
        push_string(&mut after_value, &series.tags);
        after_value.extend_from_slice(b",\"timestamp\":");
        let tags = model::tags::canonical_string(&series.tags);
        let texts = SeriesTexts::new(&series, &tags);
        EncodedSeries { series, tags, before_value, after_value, texts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Framer, OutItem, Scratch};

    /// Each call is one frame whose items, written anew, are the same bytes.
    #[test]
    fn calls_are_what_an_agent_writes() {
        let fleet = Fleet::new("h-", 7, 300, 60, 1_600_000_000, 1);
        let (mut points, mut out) = (0, Vec::new());
        for group in 0..fleet.groups() {
            let host = fleet.moment(3, 2);
            out.clear();
            fleet.encode(&host, group, 5, &mut out);
            let count = fleet.points(group);
            let frame = Framer::new(out.len()).scan(&out).expect("a frame").expect("a whole one");
            let mut scratch = Scratch::new();
            let request = jsonrpc::request(&out[frame], &mut scratch).expect("a request");
            assert_eq!((request.method, request.id), ("Transfer.Update", b"5".as_slice()));
            let mut again = b"[".to_vec();
            let total = wire::decode_items(request.param.expect("items"), &mut Scratch::new(), &mut |item| {
                let wire::Item { endpoint, metric, tags, value, step, counter_type, timestamp } = item.expect("valid");
                assert_eq!((endpoint, step, timestamp), ("h-00003", 60, 1_600_000_000 + 120 + 60 * 3 / 7));
                if again.len() > 1 {
                    again.push(b',');
                }
                wire::write_item(&mut again, &OutItem { endpoint, metric, value, step, counter_type, tags, timestamp });
            });
            again.push(b']');
            assert_eq!(total, Ok(count));
            assert_eq!(Some(again.as_slice()), request.param);
            points += count;
        }
        assert_eq!(points, 300);
    }

    /// Checks against the items that a transfer would make of the calls above.
    #[test]
    fn items_are_what_a_transfer_writes() {
        let fleet = Fleet::new("h-", 7, 450, 60, 1_600_000_000, 1).in_batches_of(200);
        let host = fleet.moment(3, 2);
        let items: Vec<GraphItem<'_>> =
            (0..fleet.groups()).flat_map(|group| fleet.graph_items(&host, group).collect::<Vec<_>>()).collect();
        assert_eq!((fleet.groups(), fleet.points(2), items.len()), (3, 50, 450));
        let counters: Vec<String> =
            (0..3).flat_map(|group| fleet.counters(group).map(|(counter, _)| counter).collect::<Vec<_>>()).collect();
        for (item, counter) in items.iter().zip(counters) {
            let tags = model::Tags::assume_canonical(item.tags);
            assert_eq!(model::SeriesKey { endpoint: "", metric: item.metric, tags }.counter(), counter);
            assert_eq!((item.endpoint, item.timestamp % 60, item.step, item.heartbeat), ("h-00003", 0, 60, 120));
            assert!(matches!((item.ds_type, item.min), ("GAUGE", "U") | ("DERIVE", "0")));
        }
    }

    #[test]
    fn groups_are_those_of_an_agent() {
        let sizes = |metrics| -> Vec<usize> {
            Fleet::new("h", 1, metrics, 60, 0, 1).groups.iter().map(ExactSizeIterator::len).collect()
        };
        assert_eq!(sizes(198), [180, 13, 5]);
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(1000).len(), 4);
    }

    #[test]
    fn hosts_report_one_after_the_other_within_a_step() {
        let fleet = Fleet::new("h", 4, 1, 60, 0, 1);
        let due: Vec<u64> = (0..4).map(|host| fleet.due(host, 1).as_secs()).collect();
        assert_eq!(due, [60, 75, 90, 105]);
    }
}
