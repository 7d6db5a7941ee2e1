//! Fleet: the hosts and their series, and the bytes of each of their calls.
//!
//! How: of an item only endpoint, value and time change; the texts between them are made once, per series, for all
//! hosts. What comes out is, to the byte, what [`wire::write_item`] writes.

use super::mix::{self, Moment, Series};
use std::ops::Range;
use std::time::Duration;
use wire::json::{push_integer, push_number, push_string};
use wire::jsonrpc;

pub struct Fleet {
    prefix: String,
    hosts: usize,
    step: u32,
    /// Unix seconds of the first round.
    start: i64,
    seed: u64,
    series: Vec<EncodedSeries>,
    /// Series of one call.
    groups: Vec<Range<usize>>,
}

struct EncodedSeries {
    series: Series,
    /// From behind the endpoint's text to the value.
    before_value: Vec<u8>,
    /// From behind the value to the timestamp.
    after_value: Vec<u8>,
}

/// One host in one round.
pub struct HostRound {
    moment: Moment,
    /// `{"endpoint":"…"`, the start of each of its items.
    opening: Vec<u8>,
    timestamp: i64,
}

impl Fleet {
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

    pub fn hosts(&self) -> usize {
        self.hosts
    }

    /// Calls that each host makes in a round.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    pub fn endpoint(&self, host: usize) -> String {
        format!("{}{host:05}", self.prefix)
    }

    /// When a host reports, from the start of the run on: hosts are spread evenly over the step, as a fleet is.
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
    pub fn value(&self, host: usize, round: u32, series: &Series) -> f64 {
        Moment::new(self.seed, host, round).value(series)
    }

    /// The series of one call with their counters, as they are read back.
    pub fn counters(&self, group: usize) -> impl Iterator<Item = (String, &Series)> {
        self.series[self.groups[group].clone()].iter().map(|encoded| {
            let series = &encoded.series;
            let tags = model::tags::canonical_string(&series.tags);
            let tags = model::Tags::assume_canonical(&tags);
            (model::SeriesKey { endpoint: "", metric: &series.metric, tags }.counter(), series)
        })
    }

    pub fn moment(&self, host: usize, round: u32) -> HostRound {
        let mut opening = b"{\"endpoint\":".to_vec();
        push_string(&mut opening, &self.endpoint(host));
        let timestamp = self.time(host, round);
        HostRound { moment: Moment::new(self.seed, host, round), opening, timestamp }
    }

    /// Appends the call for one group of series; returns the number of its points.
    pub fn encode(&self, host: &HostRound, group: usize, id: u64, out: &mut Vec<u8>) -> usize {
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
        series.len()
    }
}

impl EncodedSeries {
    fn new(series: Series, step: u32) -> EncodedSeries {
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
        EncodedSeries { series, before_value, after_value }
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
            let count = fleet.encode(&host, group, 5, &mut out);
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
