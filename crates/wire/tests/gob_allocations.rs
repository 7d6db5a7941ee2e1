//! Nothing is allocated per gob item in the steady state, nor for answers: calls are run under an allocator that counts
//! what its thread allocates.

mod counting;

use counting::ALLOCATIONS;
use wire::gob::client::Requests;
use wire::gob::{Decoder, Encoder, GobScratch, GraphItem, JudgeItem, QueryHead};

const TAGS: [&str; 4] = ["", "iface=eth0", "fstype=ext4,mount=/data", "a=1,b=2,c=3,d=4,e=5,f=6,g=7,h=8"];

/// As Go sends a map, in any order.
fn shuffle_tags(stream: &mut [u8]) -> usize {
    let (from, to) = (b"\x01a\x011\x01b\x012\x01c\x013", b"\x01c\x013\x01a\x011\x01b\x012");
    let (mut at, mut shuffled) = (0, 0);
    while let Some(found) = stream[at..].windows(from.len()).position(|window| window == from) {
        stream[at + found..][..to.len()].copy_from_slice(to);
        at += found + to.len();
        shuffled += 1;
    }
    shuffled
}

fn write_calls(requests: &mut Requests, out: &mut Vec<u8>, seq: u64) {
    requests.graph_send(
        out,
        seq,
        (0..200usize).map(|i| GraphItem {
            endpoint: "golden-host-01",
            metric: "net.if.in.bytes",
            tags: TAGS[i % 4],
            value: 100.0 * i as f64 / 603.0,
            timestamp: 1_600_000_000,
            ds_type: "DERIVE",
            step: 60,
            heartbeat: 120,
            min: "0",
            max: "U",
        }),
    );
    requests.judge_send(
        out,
        seq + 1,
        (0..200usize).map(|i| JudgeItem {
            endpoint: "golden-host-01",
            metric: "net.if.in.bytes",
            value: 100.0 * i as f64 / 603.0,
            timestamp: 1_600_000_000,
            judge_type: "COUNTER",
            tags: TAGS[i % 4],
        }),
    );
}

/// Both calls from their bytes to the answers.
fn round(stream: &[u8], decoder: &mut Decoder, scratch: &mut GobScratch, encoder: &mut Encoder, out: &mut Vec<u8>) {
    let (mut start, mut items, mut bytes) = (0, 0, 0);
    out.clear();
    while let Some((consumed, call)) = decoder.next(&stream[start..]).expect("a request") {
        if call.method == "Graph.Send" {
            let each = &mut |item: GraphItem<'_>| {
                items += usize::from(item.check().is_ok());
                bytes += item.tags.len();
            };
            call.graph_items(decoder, scratch, each).expect("items");
        } else {
            let each = &mut |item: JudgeItem<'_>| {
                items += 1;
                bytes += item.tags.len();
            };
            call.judge_items(decoder, scratch, each).expect("items");
        }
        encoder.simple(out, call.method, call.seq, 0);
        start += consumed;
    }
    assert_eq!((start, items), (stream.len(), 400));
    assert_eq!(bytes, 100 * TAGS.iter().map(|tags| tags.len()).sum::<usize>());
    let head = QueryHead { endpoint: "golden-host-01", counter: "cpu.idle", ds_type: "GAUGE", step: 60 };
    encoder.graph_query(out, "Graph.Query", 7, &head, (0..700usize).map(|i| (60 * i as i64, f64::NAN)));
}

#[test]
fn none_per_item() {
    let (mut requests, mut decoder, mut encoder) = (Requests::new(), Decoder::new(1 << 20), Encoder::new());
    let (mut scratch, mut stream, mut out) = (GobScratch::new(), Vec::new(), Vec::new());
    let mut run = |seq| {
        stream.clear();
        write_calls(&mut requests, &mut stream, seq);
        assert_eq!(shuffle_tags(&mut stream), 100);
        round(&stream, &mut decoder, &mut scratch, &mut encoder, &mut out);
    };
    run(1000); // types are described, buffers find their size
    let before = ALLOCATIONS.get();
    (1001..1100).for_each(|seq| run(2 * seq));
    let allocations = ALLOCATIONS.get() - before;
    println!("{allocations} allocations for {} items written, read and answered", 99 * 400);
    assert_eq!(allocations, 0);
}
