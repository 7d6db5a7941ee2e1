//! `cargo bench -p wire`: nanoseconds, and allocations, per item for each step of a batch of 200 items as agents send
//! it.
//!
//! The best of many rounds is printed: on a shared machine the others measure the neighbours.

use model::CounterType;
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use wire::gob::client::Requests;
use wire::gob::{Decoder, GobScratch, GraphItem, JudgeItem};
use wire::packed::{read_packed, write_packed};
use wire::{Framer, OutItem, Scratch, decode_items, json, jsonrpc, write_item};

const ITEMS: usize = 200;
const ROUNDS: usize = 2000;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Metrics, tags and shapes of value in about the shares of a real agent.
fn items() -> Vec<OutItem<'static>> {
    let series: [(&str, &str, CounterType, f64); 10] = [
        ("cpu.idle", "", CounterType::Gauge, 98.98989898989899),
        ("net.if.in.bytes", "iface=eth0", CounterType::Counter, 8275160178.0),
        ("net.if.in.errors", "iface=eth0", CounterType::Counter, 0.0),
        ("net.if.total.dropped", "iface=ifb1", CounterType::Counter, 0.0),
        ("df.bytes.free.percent", "mount=/,fstype=ext4", CounterType::Gauge, 80.1963161638374),
        ("df.bytes.used", "mount=/,fstype=ext4", CounterType::Gauge, 19141648384.0),
        ("disk.io.avgqu-sz", "device=vda", CounterType::Gauge, 0.003),
        ("TcpExt.TCPAbortOnTimeout", "", CounterType::Counter, 0.0),
        ("snmp.Udp.InDatagrams", "", CounterType::Counter, 0.0),
        ("disk.io.read_requests", "device=vda", CounterType::Counter, 577309.0),
    ];
    (0..ITEMS)
        .map(|i| {
            let (metric, tags, counter_type, value) = series[i % series.len()];
            let (endpoint, step, timestamp) = ("web-shanghai-0042", 60, 1_795_376_687);
            OutItem { endpoint, metric, value, step, counter_type, tags, timestamp }
        })
        .collect()
}

fn message(items: &[OutItem<'_>], out: &mut Vec<u8>) {
    jsonrpc::begin_request(out, "Transfer.Update");
    for (i, item) in items.iter().enumerate() {
        out.push(if i == 0 { b'[' } else { b',' });
        write_item(out, item);
    }
    out.push(b']');
    jsonrpc::end_request(out, 7);
}

fn measure(name: &str, run: impl FnMut()) {
    measure_of(ITEMS, name, run);
}

/// Measures what is done with so many items.
fn measure_of(items: usize, name: &str, mut run: impl FnMut()) {
    run();
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let mut best = u128::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_nanos());
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    let ns = best as f64 / items as f64;
    println!("{name:<28} {ns:7.1} ns/item  {:.3} allocations/item", allocations as f64 / (ROUNDS * items) as f64);
}

fn main() {
    let items = items();
    let (mut stream, mut names, mut texts) = (Vec::new(), Scratch::new(), Scratch::new());
    message(&items, &mut stream);
    println!("batch of {ITEMS} items, {} bytes/item, best of {ROUNDS} rounds", stream.len() / ITEMS);
    let param = jsonrpc::request(&stream, &mut names).expect("own request").param.expect("own items");
    measure("Framer::scan", || drop(black_box(Framer::new(1 << 20).scan(black_box(&stream)))));
    let mut scratch = Scratch::new();
    measure("jsonrpc::request", || assert!(black_box(jsonrpc::request(black_box(&stream), &mut scratch)).is_ok()));
    measure("json::check", || assert!(json::check(black_box(param)).is_ok()));
    measure("decode_items", || {
        let mut sum = 0.0;
        let total = decode_items(black_box(param), &mut texts, &mut |item| sum += item.map_or(0.0, |item| item.value));
        assert_eq!(total, Ok(ITEMS));
        black_box(sum);
    });
    measure("all of the above", || {
        let range = Framer::new(1 << 20).scan(black_box(&stream)).expect("own frame").expect("whole");
        let param = jsonrpc::request(&stream[range], &mut scratch).expect("own request").param.expect("own items");
        let total = decode_items(param, &mut texts, &mut |item| assert!(black_box(item).is_ok()));
        assert_eq!(total, Ok(ITEMS));
    });
    let mut out = Vec::with_capacity(stream.len());
    measure("write_item", || {
        out.clear();
        message(black_box(&items), &mut out);
    });
    gob(&items, &mut out);
    packed();
}

/// The largest batch that was recorded of an agent, as it is and compressed, and what that costs either side.
fn packed() {
    let stream = testdata::bytes("jsonrpc/agent_transfer.c2s.bin");
    let (mut framer, mut rest, mut largest) = (Framer::new(1 << 20), &stream[..], Vec::new());
    while let Some(range) = framer.scan(rest).expect("recorded frames") {
        let mut scratch = Scratch::new();
        let request = jsonrpc::request(&rest[range.clone()], &mut scratch).expect("a recorded request");
        let param = request.param.expect("recorded items");
        if param.len() > largest.len() {
            largest = param.to_vec();
        }
        rest = &rest[range.end..];
        framer.reset();
    }
    let items = decode_items(&largest, &mut Scratch::new(), &mut |_| {}).expect("an array");
    let (mut param, mut array) = (Vec::new(), Vec::new());
    assert!(write_packed(&mut param, &largest), "it is worth it");
    println!("recorded batch of {items} items: {} bytes, compressed {}", largest.len(), param.len());
    measure_of(items, "write_packed", || {
        param.clear();
        assert!(write_packed(&mut param, black_box(&largest)));
    });
    measure_of(items, "read_packed", || assert_eq!(read_packed(black_box(&param), &mut array), Ok(())));
    measure_of(items, "decode_items of the same", || {
        let total =
            decode_items(black_box(&largest), &mut Scratch::new(), &mut |item| assert!(black_box(item).is_ok()));
        assert_eq!(total, Ok(items));
    });
}

/// The same items as an old transfer sends them, from the bytes of a connection to checked items.
fn gob(items: &[OutItem<'_>], out: &mut Vec<u8>) {
    let tags: Vec<String> = items.iter().map(|item| model::tags::canonical_string(item.tags)).collect();
    let graph_items = || {
        items.iter().zip(&tags).map(|(item, tags)| GraphItem {
            endpoint: item.endpoint,
            metric: item.metric,
            tags,
            value: item.value,
            timestamp: item.timestamp,
            ds_type: item.counter_type.ds_type(),
            step: item.step.into(),
            heartbeat: 2 * i64::from(item.step),
            min: "0",
            max: "U",
        })
    };
    let judge_items = || {
        items.iter().zip(&tags).map(|(item, tags)| JudgeItem {
            endpoint: item.endpoint,
            metric: item.metric,
            value: item.value,
            timestamp: item.timestamp,
            judge_type: item.counter_type.as_str(),
            tags,
        })
    };
    let (mut requests, mut decoder, mut scratch) = (Requests::new(), Decoder::new(1 << 20), GobScratch::new());
    let mut described = Vec::new();
    requests.graph_send(&mut described, 0, graph_items());
    requests.judge_send(&mut described, 1, judge_items());
    let (first, _) = decoder.next(&described).expect("own request").expect("whole");
    assert!(decoder.next(&described[first..]).expect("own request").is_some());
    measure("gob write Graph.Send", || {
        out.clear();
        requests.graph_send(out, 2, black_box(graph_items()));
    });
    measure("gob read Graph.Send", || {
        let (mut good, (_, call)) = (0, decoder.next(black_box(out)).expect("own request").expect("whole"));
        let items = call.graph_items(&decoder, &mut scratch, &mut |item| good += usize::from(item.check().is_ok()));
        assert!(items.is_ok() && good == ITEMS);
    });
    println!("{:<28} {:7} bytes/item", "", out.len() / ITEMS);
    out.clear();
    requests.judge_send(out, 3, judge_items());
    measure("gob read Judge.Send", || {
        let (mut count, (_, call)) = (0, decoder.next(black_box(out)).expect("own request").expect("whole"));
        let items =
            call.judge_items(&decoder, &mut scratch, &mut |item| count += black_box(item).endpoint.len().min(1));
        assert!(items.is_ok() && count == ITEMS);
    });
}
