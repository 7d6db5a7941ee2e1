//! The way of points to transfers that come and go, that know more or less, and of which some are dead.

use super::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use wire::{json, packed};

/// A sender to these addresses, with files in `dir` if there is one.
struct Way {
    queue: Arc<Queue>,
    counters: Arc<SenderCounters>,
    transfers: Arc<TransferCounters>,
    buffer: Arc<BufferFigures>,
    sender: Sender,
}

impl Way {
    fn to(addresses: &[&str], dir: Option<&Path>, compress: bool) -> Way {
        let (queue, counters) = (Arc::new(Queue::new(1 << 20)), Arc::new(SenderCounters::default()));
        let place = dir.map(|dir| Place { disk: Arc::new(RealDisk), dir: dir.to_path_buf(), bytes_max: 1 << 20 });
        let timing = BufferTiming { spill_after: Duration::ZERO, ..FAST.buffer };
        let buffer = Buffer::new(queue.clone(), place, timing);
        let clients = addresses.iter().map(|address| Client::new(address, Duration::from_secs(5))).collect();
        let transfers = Transfers::new(clients, compress);
        let (figures, transfer_counters) = (buffer.figures(), transfers.counters());
        let sender = Sender::new(queue.clone(), buffer, transfers, FAST.sender, counters.clone());
        Way { queue, counters, transfers: transfer_counters, buffer: figures, sender }
    }
}

async fn written(buffer: &BufferFigures, items: u64) {
    net::patience::until("items on the disk", async || buffer.written.load(Ordering::Relaxed) >= items).await;
}

/// Numbers of an array.
fn numbers(array: &str) -> Vec<usize> {
    array.trim_matches(['[', ']']).split(',').map(|number| number.parse().expect("a number")).collect()
}

#[tokio::test]
async fn an_absence_with_a_kill_and_a_stop_of_the_agent_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut count = 0;
    let mut push = |queue: &Queue| {
        for _ in 0..20 {
            queue.push(numbered(count));
            count += 1;
        }
    };
    let is_away = Arc::new(AtomicBool::new(true));
    let away = is_away.clone();
    // Once it is there it goes away again for a call.
    let calls = AtomicU64::new(0);
    let mut transfer = Played::start(move |_, _| {
        let is_away = away.load(Ordering::Relaxed) || calls.fetch_add(1, Ordering::Relaxed) == 2;
        if is_away { Reply::Close } else { TAKEN }
    })
    .await;
    let address = transfer.address.clone();

    let way = Way::to(&[&address], Some(dir.path()), false);
    push(&way.queue);
    let (_never, stopping) = watch::channel(false);
    let running = tokio::spawn(way.sender.run(stopping));
    written(&way.buffer, 20).await;
    // Killed: nothing of it is run any more.
    running.abort();
    assert!(running.await.expect_err("it was aborted").is_cancelled());

    let way = Way::to(&[&address], Some(dir.path()), false);
    push(&way.queue);
    let (stop, stopping) = watch::channel(false);
    let running = tokio::spawn(way.sender.run(stopping));
    stop.send_replace(true);
    in_time("the end of the sender", running).await.expect("no panic");

    let way = Way::to(&[&address], Some(dir.path()), false);
    push(&way.queue);
    is_away.store(false, Ordering::Relaxed);
    let (stop, stopping) = watch::channel(false);
    let running = tokio::spawn(way.sender.run(stopping));
    let mut came = Vec::new();
    while came.last() != Some(&59) {
        let asked = transfer.next().await;
        if asked.is_answered {
            came.extend(numbers(&asked.param));
        }
    }
    assert_eq!(came, Vec::from_iter(0..60));
    stop.send_replace(true);
    in_time("the end of the sender", running).await.expect("no panic");
    assert_eq!((way.counters.items_sent.load(Ordering::Relaxed), way.queue.size().items), (60, 0));
}

#[tokio::test]
async fn a_dead_address_is_asked_once_and_the_one_that_works_stays() {
    let works = Played::start(|_, _| TAKEN).await;
    let mut dead = Played::start(|_, _| Reply::Close).await;
    let mut failovers = 0;
    for _ in 0..10 {
        let way = Way::to(&[&dead.address, &works.address], None, false);
        (0..20).for_each(|number| way.queue.push(numbered(number)));
        let (_stop, stopping) = watch::channel(true);
        in_time("the end of the sender", way.sender.run(stopping)).await;
        assert_eq!(way.counters.items_sent.load(Ordering::Relaxed), 20);
        assert_eq!(way.counters.failures.load(Ordering::Relaxed), 0);
        failovers += way.transfers.failovers.load(Ordering::Relaxed);
    }
    let mut asked = 0;
    while dead.asked.try_recv().is_ok() {
        asked += 1;
    }
    assert_eq!(asked, failovers);
    assert!(asked <= 10, "{asked} of 10 agents with 20 batches each");
}

/// Items of a host, enough to be worth packing.
fn batch() -> Batch {
    let item = |i: usize| format!("{{\"endpoint\":\"host-1\",\"metric\":\"metric.{i}\",\"value\":{i}}}");
    let items: Vec<String> = (0..100).map(item).collect();
    Batch { json: format!("[{}]", items.join(",")).into_bytes().into(), items: items.len() }
}

/// Sends `batches` compressed to a transfer; answers how often it was asked what, and the sender's counters.
async fn compressed(
    batches: usize,
    reply: impl Fn(usize, &str) -> Reply + Send + Sync + 'static,
) -> (BTreeMap<String, usize>, Bytes) {
    let mut transfer = Played::start(reply).await;
    let way = Way::to(&[&transfer.address], None, true);
    (0..batches).for_each(|_| way.queue.push(batch()));
    let (stop, stopping) = watch::channel(false);
    let running = tokio::spawn(way.sender.run(stopping));
    let taken = async || way.counters.items_sent.load(Ordering::Relaxed) == 100 * batches as u64;
    net::patience::until("all batches at the transfer", taken).await;
    stop.send_replace(true);
    in_time("the end of the sender", running).await.expect("no panic");
    let mut asked = BTreeMap::new();
    while let Ok(Asked { method, param, .. }) = transfer.asked.try_recv() {
        let array = match method.as_str() {
            packed::METHOD => {
                let mut array = Vec::new();
                packed::read_packed(param.as_bytes(), &mut array).expect("what the agent packs can be unpacked");
                array
            }
            _ => param.into_bytes(),
        };
        assert!(json::check(&array).is_ok() && array == batch().json, "{method}");
        *asked.entry(method).or_default() += 1;
    }
    let bytes = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (of_items, sent) = (bytes(&way.transfers.bytes_of_items), bytes(&way.transfers.bytes_sent));
    (asked, Bytes { of_items, sent })
}

/// Bytes of batches, and of what was sent for them.
struct Bytes {
    of_items: u64,
    sent: u64,
}

fn asked<const N: usize>(calls: [(&str, usize); N]) -> BTreeMap<String, usize> {
    calls.into_iter().map(|(method, count)| (method.to_string(), count)).collect()
}

#[tokio::test]
async fn batches_go_compressed_where_that_is_known() {
    let (calls, bytes) = compressed(3, |_, _| TAKEN).await;
    assert_eq!(calls, asked([(packed::METHOD, 3)]));
    assert!(bytes.sent * 3 < bytes.of_items, "{} of {}", bytes.sent, bytes.of_items);
}

#[tokio::test]
async fn an_old_transfer_is_offered_one_compressed_batch_and_gets_the_others_as_they_are() {
    let (calls, bytes) = compressed(3, |_, method| match method {
        packed::METHOD => Reply::Error("rpc: can't find method Transfer.UpdateCompressed"),
        _ => TAKEN,
    })
    .await;
    assert_eq!(calls, asked([(packed::METHOD, 1), ("Transfer.Update", 3)]));
    assert_eq!(bytes.sent, bytes.of_items);
}

#[tokio::test]
async fn a_transfer_that_drops_who_calls_what_it_does_not_know_is_asked_otherwise() {
    let (calls, _) = compressed(3, |_, method| if method == packed::METHOD { Reply::Close } else { TAKEN }).await;
    assert_eq!(calls, asked([(packed::METHOD, 1), ("Transfer.Update", 3)]));
}

#[tokio::test]
async fn a_transfer_that_was_away_is_offered_compressed_batches_again() {
    let (calls, _) = compressed(3, |count, _| if count == 1 { Reply::Close } else { TAKEN }).await;
    assert_eq!(calls, asked([(packed::METHOD, 4)]));
}
