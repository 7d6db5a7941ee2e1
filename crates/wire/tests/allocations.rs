//! Nothing is allocated per item in the steady state: the whole way of a batch is run under an allocator that counts
//! what its thread allocates.

mod counting;

use counting::ALLOCATIONS;
use model::{CounterType, Tags};
use wire::{Framer, OutItem, Scratch, jsonrpc, transfer};

/// 200 items: plain ones, some with escapes, values as numbers and as strings, some invalid.
fn write_batch(out: &mut Vec<u8>, id: u64) {
    jsonrpc::begin_request(out, "Transfer.Update");
    out.push(b'[');
    for i in 0..200u32 {
        if i > 0 {
            out.push(b',');
        }
        match i % 10 {
            8 => out.extend_from_slice(br#"{"metric":"a\u002eb","endpoint":"h\/1","value":"17.5","tags":"mount=\/data","step":60,"counterType":"GAUGE"}"#),
            9 => out.extend_from_slice(br#"{"metric":"m","endpoint":"h","value":[1],"step":"x","counterType":"GAUGE"}"#),
            _ => wire::write_item(
                out,
                &OutItem {
                    endpoint: "golden-host-01",
                    metric: "net.if.in.bytes",
                    value: 100.0 * f64::from(i) / 603.0,
                    step: 60,
                    counter_type: CounterType::Counter,
                    tags: "iface=eth0",
                    timestamp: 1_600_000_000,
                },
            ),
        }
    }
    out.push(b']');
    jsonrpc::end_request(out, id);
}

/// One batch from its bytes to the answer.
fn round(stream: &[u8], framer: &mut Framer, names: &mut Scratch, texts: &mut Scratch, answer: &mut Vec<u8>) -> usize {
    let range = framer.scan(stream).expect("a frame").expect("a whole message");
    framer.reset();
    let request = jsonrpc::request(&stream[range], names).expect("a request");
    let (mut invalid, mut bytes) = (0, 0);
    let items = wire::decode_items(request.param.expect("items"), texts, &mut |item| match item {
        Ok(item) => bytes += item.endpoint.len() + item.metric.len() + item.tags.len(),
        Err(_) => invalid += 1,
    });
    let total = items.expect("an array");
    assert!(bytes > 0 && total == 200 && invalid == 20);
    answer.clear();
    jsonrpc::begin_result(answer, request.id);
    transfer::write_answer(answer, &transfer::UpdateAnswer { total, invalid, latency_ms: 0 });
    jsonrpc::end_result(answer);
    total
}

#[test]
fn none_per_item() {
    let mut framer = Framer::new(1 << 20);
    let (mut names, mut texts) = (Scratch::new(), Scratch::new());
    let (mut stream, mut answer) = (Vec::new(), Vec::new());
    let mut run = |id| {
        stream.clear();
        write_batch(&mut stream, id);
        round(&stream, &mut framer, &mut names, &mut texts, &mut answer)
    };
    run(100); // buffers find their size
    let before = ALLOCATIONS.get();
    let items: usize = (101..=200).map(run).sum();
    let allocations = ALLOCATIONS.get() - before;
    println!("{allocations} allocations for {items} items written, framed, decoded and answered");
    assert_eq!(allocations, 0);
}

/// Agents send the tags of a file system in this order.
#[test]
fn none_for_tags_that_are_not_in_order() {
    let mut scratch = String::new();
    let mut run = |raw: &str| Tags::canonical(raw, &mut scratch).as_str().len();
    run("mount=/data/with/a/long/name, fstype=ext4, a=1");
    let before = ALLOCATIONS.get();
    assert_eq!(run("mount=/data,fstype=ext4"), run("fstype=ext4, mount=/data"));
    assert_eq!(ALLOCATIONS.get() - before, 0);
}
