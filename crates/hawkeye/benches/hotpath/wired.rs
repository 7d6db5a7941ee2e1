//! Steps from bytes to items, and from tags to their canonical text.

use crate::{BATCH, Step, Work};
use model::{CounterType, Tags};
use std::hint::black_box;
use wire::gob::client::Requests;
use wire::gob::{Decoder, GobScratch, GraphItem, JudgeItem};
use wire::{Framer, OutItem, Scratch, decode_items, jsonrpc, write_item};

/// Steps that decode.
pub fn steps() -> Vec<Step> {
    vec![
        Step { name: "json-rpc-decode", set_up: json_decode },
        Step { name: "gob-graph-decode", set_up: graph_decode },
        Step { name: "gob-judge-decode", set_up: judge_decode },
        Step { name: "tags-canonical", set_up: canonical },
        Step { name: "tags-unsorted", set_up: unsorted },
    ]
}

/// Series of a host: metrics, tags and types in about the shares of a real agent.
pub const SERIES: [(&str, &str, CounterType); 10] = [
    ("cpu.idle", "", CounterType::Gauge),
    ("net.if.in.bytes", "iface=eth0", CounterType::Counter),
    ("net.if.in.errors", "iface=eth0", CounterType::Counter),
    ("net.if.total.dropped", "iface=ifb1", CounterType::Counter),
    ("df.bytes.free.percent", "fstype=ext4,mount=/", CounterType::Gauge),
    ("df.bytes.used", "fstype=ext4,mount=/", CounterType::Gauge),
    ("disk.io.avgqu-sz", "device=vda", CounterType::Gauge),
    ("TcpExt.TCPAbortOnTimeout", "", CounterType::Counter),
    ("snmp.Udp.InDatagrams", "", CounterType::Counter),
    ("disk.io.read_requests", "device=vda", CounterType::Counter),
];

/// Value of a series in a round: fractions, counts that grow, small whole numbers.
pub fn value(series: usize, round: i64) -> f64 {
    match series % 5 {
        0 => (series as i64 * 7 + round * 13 % 400) as f64 / 4.01,
        1 => (1_000_000 * round + series as i64) as f64,
        _ => (series % 17) as f64,
    }
}

/// `Transfer.Update` with one batch of a host, `names` its metrics.
pub fn json_request(host: &str, names: &[String], time: i64, round: i64, out: &mut Vec<u8>) {
    jsonrpc::begin_request(out, "Transfer.Update");
    for (i, metric) in names.iter().enumerate() {
        let (_, tags, counter_type) = SERIES[i % SERIES.len()];
        out.push(if i == 0 { b'[' } else { b',' });
        let value = value(i, round);
        let item = OutItem { endpoint: host, metric, value, step: 60, counter_type, tags, timestamp: time };
        write_item(out, &item);
    }
    out.push(b']');
    jsonrpc::end_request(out, 7);
}

/// Metrics of a batch, one for each of its items.
pub fn names() -> Vec<String> {
    (0..BATCH).map(|i| format!("{}.{}", SERIES[i % SERIES.len()].0, i / SERIES.len())).collect()
}

fn json_decode() -> Work {
    let (mut stream, mut envelope, mut texts) = (Vec::new(), Scratch::new(), Scratch::new());
    json_request("web-shanghai-0042", &names(), 1_795_376_640, 1, &mut stream);
    let mut framer = Framer::new(1 << 20);
    Box::new(move |count| {
        for _ in 0..count / BATCH {
            framer.reset();
            let range = framer.scan(black_box(&stream)).expect("own frame").expect("whole");
            let request = jsonrpc::request(&stream[range], &mut envelope).expect("own request");
            let param = request.param.expect("own items");
            let total = decode_items(param, &mut texts, &mut |item| assert!(black_box(item).is_ok()));
            assert_eq!(total, Ok(BATCH));
        }
    })
}

/// Items of a `Graph.Send` with one batch of a host.
pub fn graph_items<'a>(host: &'a str, names: &'a [String], time: i64) -> impl ExactSizeIterator<Item = GraphItem<'a>> {
    names.iter().enumerate().map(move |(i, metric)| {
        let (_, tags, counter_type) = SERIES[i % SERIES.len()];
        GraphItem {
            endpoint: host,
            metric,
            tags,
            value: value(i, time / 60),
            timestamp: time,
            ds_type: counter_type.ds_type(),
            step: 60,
            heartbeat: 120,
            min: "0",
            max: "U",
        }
    })
}

fn judge_items<'a>(names: &'a [String]) -> impl ExactSizeIterator<Item = JudgeItem<'a>> {
    names.iter().enumerate().map(|(i, metric)| {
        let (_, tags, counter_type) = SERIES[i % SERIES.len()];
        JudgeItem {
            endpoint: "web-shanghai-0042",
            metric,
            value: value(i, 1),
            timestamp: 1_795_376_640,
            judge_type: counter_type.as_str(),
            tags,
        }
    })
}

/// A decoder that has heard the types, and the bytes of the call after that.
fn described(mut send: impl FnMut(&mut Requests, &mut Vec<u8>, u64)) -> (Decoder, Vec<u8>) {
    let (mut requests, mut decoder, mut first, mut then) = (Requests::new(), Decoder::new(1 << 20), vec![], vec![]);
    send(&mut requests, &mut first, 0);
    assert!(decoder.next(&first).expect("own request").is_some());
    send(&mut requests, &mut then, 1);
    (decoder, then)
}

fn graph_decode() -> Work {
    let names = names();
    let (mut decoder, stream) = described(|requests, out, seq| {
        requests.graph_send(out, seq, graph_items("web-shanghai-0042", &names, 1_795_376_640));
    });
    let mut scratch = GobScratch::new();
    Box::new(move |count| {
        for _ in 0..count / BATCH {
            let (mut good, (_, call)) = (0, decoder.next(black_box(&stream)).expect("own request").expect("whole"));
            let items = call.graph_items(&decoder, &mut scratch, &mut |item| good += usize::from(item.check().is_ok()));
            assert!(items.is_ok() && good == BATCH);
        }
    })
}

fn judge_decode() -> Work {
    let names = names();
    let (mut decoder, stream) = described(|requests, out, seq| requests.judge_send(out, seq, judge_items(&names)));
    let mut scratch = GobScratch::new();
    Box::new(move |count| {
        for _ in 0..count / BATCH {
            let (mut seen, (_, call)) = (0, decoder.next(black_box(&stream)).expect("own request").expect("whole"));
            let items =
                call.judge_items(&decoder, &mut scratch, &mut |item| seen += black_box(item).endpoint.len().min(1));
            assert!(items.is_ok() && seen == BATCH);
        }
    })
}

fn canonical() -> Work {
    tags("fstype=ext4,mount=/data")
}

fn unsorted() -> Work {
    tags("mount=/data,fstype=ext4")
}

fn tags(text: &'static str) -> Work {
    let mut buffer = String::new();
    Box::new(move |count| {
        for _ in 0..count {
            black_box(Tags::canonical(black_box(text), &mut buffer).as_str().len());
        }
    })
}
