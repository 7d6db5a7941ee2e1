//! Steps from items to points in the store and back: texts, series, appends, tails, queries; and the whole way, judged.

use crate::wired::{SERIES, graph_items, json_request, names, value};
use crate::{BATCH, Step, Work, judged};
use judge::Judge;
use model::{CounterType, Event, Point, Sample, SeriesId, SeriesKey, Tags};
use std::hint::black_box;
use std::sync::Mutex;
use stdx::Interner;
use store::{Cf, Found, Options, Query, ShardView, Store};
use wire::gob::client::Requests;
use wire::gob::{Decoder, GobScratch};
use wire::{Framer, Scratch, decode_items, jsonrpc};

const HOSTS: usize = 50;
const START: i64 = 1_600_000_020;

/// Steps that store or read.
pub fn steps() -> Vec<Step> {
    vec![
        Step { name: "intern-known", set_up: intern_known },
        Step { name: "intern-new", set_up: intern_new },
        Step { name: "find-series", set_up: find },
        Step { name: "append", set_up: append },
        Step { name: "tail-3", set_up: || tail(3) },
        Step { name: "tail-10", set_up: || tail(10) },
        Step { name: "query-hour", set_up: query },
        Step { name: "whole-way-json", set_up: whole_json },
        Step { name: "whole-way-gob", set_up: whole_gob },
    ]
}

fn intern_known() -> Work {
    let mut interner = Interner::default();
    let names: Vec<String> = (0..1000).map(|i| format!("metric.name.{i}")).collect();
    for name in &names {
        interner.acquire(name).expect("room");
    }
    Box::new(move |count| {
        for name in names.iter().cycle().take(count) {
            black_box(interner.find(black_box(name)));
        }
    })
}

/// Made, and released again.
fn intern_new() -> Work {
    let mut interner = Interner::default();
    let names: Vec<String> = (0..1000).map(|i| format!("metric.name.{i}")).collect();
    Box::new(move |count| {
        for name in names.iter().cycle().take(count) {
            let id = interner.acquire(black_box(name)).expect("room");
            interner.release(id);
        }
    })
}

/// A store of [`HOSTS`] hosts of [`BATCH`] series each; their ids are dense, host by host.
struct Fleet {
    store: Store,
    hosts: Vec<String>,
    names: Vec<String>,
    samples: Vec<Sample>,
    rounds: i64,
    next_host: usize,
    _dir: tempfile::TempDir,
}

impl Fleet {
    fn new() -> Fleet {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = Options { dir: dir.path().into(), flush_bytes: usize::MAX, ..Options::default() };
        let (store, _) = Store::open(options, START).expect("opens");
        let hosts: Vec<String> = (0..HOSTS).map(|i| format!("web-shanghai-{i:04}")).collect();
        let names = names();
        for endpoint in &hosts {
            for (i, metric) in names.iter().enumerate() {
                let (_, tags, counter_type) = SERIES[i % SERIES.len()];
                let key = SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) };
                store.create(key, counter_type, 60).expect("room");
            }
        }
        Fleet { store, hosts, names, samples: Vec::new(), rounds: 0, next_host: 0, _dir: dir }
    }

    /// The host whose turn it is, and the time of its batch.
    fn turn(&mut self) -> (usize, i64) {
        let host = self.next_host;
        self.next_host = (host + 1) % HOSTS;
        self.rounds += i64::from(host == 0);
        (host, START + 60 * self.rounds)
    }

    fn append_batch(&mut self) {
        let (host, time) = self.turn();
        self.samples.clear();
        for i in 0..BATCH {
            let point = Point { time, value: value(i, self.rounds) };
            self.samples.push(Sample { series: SeriesId((host * BATCH + i) as u32), point });
        }
        self.store.append(&self.samples, time, &mut ()).expect("room");
    }

    fn filled(rounds: usize) -> Fleet {
        let mut fleet = Fleet::new();
        (0..rounds * HOSTS).for_each(|_| fleet.append_batch());
        fleet
    }
}

fn find() -> Work {
    let fleet = Fleet::new();
    Box::new(move |count| {
        for batch in 0..count / BATCH {
            let finder = fleet.store.finder();
            for (i, metric) in fleet.names.iter().enumerate() {
                let endpoint = &fleet.hosts[batch % HOSTS];
                let key = SeriesKey { endpoint, metric, tags: Tags::assume_canonical(SERIES[i % SERIES.len()].1) };
                assert!(finder.find(black_box(key)).is_some());
            }
        }
    })
}

fn append() -> Work {
    let mut fleet = Fleet::filled(2);
    Box::new(move |count| (0..count / BATCH).for_each(|_| fleet.append_batch()))
}

fn tail(points: usize) -> Work {
    let fleet = Fleet::filled(60);
    let mut out = Vec::with_capacity(points);
    Box::new(move |count| {
        for i in 0..count {
            let id = SeriesId((i % (HOSTS * BATCH)) as u32);
            out.clear();
            fleet.store.with_tail(id, |view| view.tail(id, points, &mut out));
            assert_eq!(out.len(), points);
        }
    })
}

/// The last hour of one series, from memory.
fn query() -> Work {
    let fleet = Fleet::filled(90);
    let now = START + 60 * 90;
    let query = Query { from: now - 3600, to: now, cf: Cf::Average, now };
    Box::new(move |count| {
        for i in 0..count {
            let id = SeriesId((i % (HOSTS * BATCH)) as u32);
            let found = Found { id, counter_type: CounterType::Gauge, step: 60 };
            black_box(fleet.store.query(found, &query).expect("in memory").values.len());
        }
    })
}

/// Judges as the engine does, with one judge for all shards, which has a rule for one series in five.
struct Judging {
    judge: Mutex<Judge>,
    events: Vec<Event>,
}

impl Judging {
    fn new(fleet: &Fleet) -> Judging {
        let mut judge = judged::judge("all(#3)");
        for series in (0..(HOSTS * BATCH) as u32).filter(|series| series % 5 == 0) {
            let counter_type = SERIES[series as usize % BATCH % SERIES.len()].2;
            let key = SeriesKey { endpoint: judged::HOST, metric: judged::METRIC, tags: Tags::EMPTY };
            judge.bind(SeriesId(series), key, counter_type);
        }
        assert_eq!(judge.stats().bound_series, fleet.hosts.len() * BATCH / 5);
        Judging { judge: Mutex::new(judge), events: Vec::new() }
    }
}

impl store::Observer for Judging {
    fn newest(&mut self, _: usize, sample: Sample, counter_type: CounterType, view: &ShardView<'_>) {
        let mut judge = self.judge.lock().expect("no panic");
        if judge.is_bound(sample.series) {
            judge.on_point(sample, counter_type, 60, &View(view), sample.point.time, &mut self.events);
        }
    }
}

struct View<'v>(&'v ShardView<'v>);

impl judge::PointSource for View<'_> {
    fn tail(&self, series: SeriesId, count: usize, out: &mut Vec<Point>) {
        self.0.tail(series, count, out);
    }

    fn meta(&self, series: SeriesId) -> Option<(CounterType, u32)> {
        self.0.meta(series)
    }

    fn key(&self, series: SeriesId, use_key: &mut dyn FnMut(SeriesKey<'_>)) {
        self.0.key(series, use_key);
    }
}

/// Measures the way from the bytes of `Transfer.Update` to points that are logged, stored and judged. Writing the
/// request is part of the way: a point must be new each time.
fn whole_json() -> Work {
    let mut fleet = Fleet::filled(3);
    let mut judging = Judging::new(&fleet);
    let (mut stream, mut envelope, mut texts, mut buffer) = (vec![], Scratch::new(), Scratch::new(), String::new());
    let mut framer = Framer::new(1 << 20);
    Box::new(move |count| {
        for _ in 0..count / BATCH {
            let (host, time) = fleet.turn();
            stream.clear();
            json_request(&fleet.hosts[host], &fleet.names, time, fleet.rounds, &mut stream);
            framer.reset();
            let range = framer.scan(&stream).expect("own frame").expect("whole");
            let request = jsonrpc::request(&stream[range], &mut envelope).expect("own request");
            fleet.samples.clear();
            let finder = fleet.store.finder();
            let decoded = decode_items(request.param.expect("own items"), &mut texts, &mut |item| {
                let item = item.expect("own item");
                let tags = Tags::canonical(item.tags, &mut buffer);
                let key = SeriesKey { endpoint: item.endpoint, metric: item.metric, tags };
                let series = finder.find(key).expect("it was made").id;
                let point = Point { time: model::point::align(item.timestamp, item.step), value: item.value };
                fleet.samples.push(Sample { series, point });
            });
            assert_eq!(decoded, Ok(BATCH));
            drop(finder);
            fleet.store.append(&fleet.samples, time, &mut judging).expect("room");
        }
        assert!(judging.events.is_empty());
    })
}

/// Measures the whole way over gob, from an old transfer.
fn whole_gob() -> Work {
    let mut fleet = Fleet::filled(3);
    let mut judging = Judging::new(&fleet);
    let (mut requests, mut decoder, mut scratch) = (Requests::new(), Decoder::new(1 << 20), GobScratch::new());
    let (mut stream, mut buffer, mut seq) = (vec![], String::new(), 0);
    Box::new(move |count| {
        for _ in 0..count / BATCH {
            let (host, time) = fleet.turn();
            stream.clear();
            requests.graph_send(&mut stream, seq, graph_items(&fleet.hosts[host], &fleet.names, time));
            seq += 1;
            let (_, call) = decoder.next(&stream).expect("own request").expect("whole");
            fleet.samples.clear();
            let finder = fleet.store.finder();
            let decoded = call.graph_items(&decoder, &mut scratch, &mut |item| {
                let item = item.check().expect("own item");
                let tags = Tags::canonical(item.tags, &mut buffer);
                let key = SeriesKey { endpoint: item.endpoint, metric: item.metric, tags };
                let series = finder.find(key).expect("it was made").id;
                fleet.samples.push(Sample { series, point: Point { time: item.timestamp, value: item.value } });
            });
            assert!(decoded.is_ok());
            drop(finder);
            fleet.store.append(&fleet.samples, time, &mut judging).expect("room");
        }
        assert!(judging.events.is_empty());
    })
}
