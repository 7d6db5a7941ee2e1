//! A gob connection, read as requests and as replies: the first byte says how the rest is split.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::gob::client::{Replies, Requests};
use wire::gob::{Call, Decoder, GobError, GobScratch, GraphItem};

/// Small, so that the fuzzer reaches it.
const LIMIT: usize = 2048;

fuzz_target!(|input: &[u8]| {
    let Some((size, stream)) = input.split_first() else { return };
    assert_eq!(requests(stream, usize::from(*size).max(1)), requests(stream, usize::MAX));
    replies(stream);
});

/// What every call is, and how the stream ends.
fn requests(stream: &[u8], size: usize) -> (Vec<String>, Option<GobError>) {
    let (mut decoder, mut start, mut calls) = (Decoder::new(LIMIT), 0, Vec::new());
    let mut end = 0;
    while end < stream.len() {
        end = end.saturating_add(size).min(stream.len());
        loop {
            match decoder.next(&stream[start..end]) {
                Ok(Some((consumed, call))) => {
                    calls.push(read(&call, &decoder));
                    start += consumed;
                }
                Ok(None) => break,
                Err(error) => return (calls, Some(error)),
            }
        }
    }
    assert!(decoder.memory_bytes() <= 22 << 10);
    (calls, None)
}

/// Reads the argument in every way.
fn read(call: &Call<'_>, decoder: &Decoder) -> String {
    let (mut scratch, mut again) = (GobScratch::new(), Vec::new());
    let mut found = format!("{} {}", call.method, call.seq);
    let graph = call.graph_items(decoder, &mut scratch, &mut |item| {
        assert_eq!(item.tags, model::tags::canonical_string(item.tags));
        again.clear();
        Requests::new().graph_send(&mut again, 1, [item].into_iter());
        let mut decoder = Decoder::new(usize::MAX);
        let (consumed, call) = decoder.next(&again).expect("own bytes").expect("whole");
        assert_eq!(consumed, again.len());
        let text = |item: &GraphItem<'_>| format!("{:?}", GraphItem { value: item.value + 0.0, ..*item });
        let mut same = false;
        let read = call.graph_items(&decoder, &mut GobScratch::new(), &mut |read| same = text(&read) == text(&item));
        assert!(read.is_ok() && same);
        found.push_str(&text(&item));
    });
    let judge = call.judge_items(decoder, &mut scratch, &mut |item| found.push_str(&format!("{item:?}")));
    let p8s = call.p8s_items(decoder, &mut scratch, &mut |item| found.push_str(&format!("{item:?}")));
    let delete = call.graph_delete(decoder, &mut |delete| found.push_str(&format!("{delete:?}")));
    let (query, series, text) = (call.graph_query(decoder), call.graph_series(decoder), call.text());
    format!("{found} {graph:?} {judge:?} {p8s:?} {delete:?} {query:?} {series:?} {text:?}")
}

fn replies(stream: &[u8]) {
    let (mut replies, mut rest) = (Replies::new(LIMIT), stream);
    while let Ok(Some((consumed, reply))) = replies.next(rest) {
        let _ = reply.graph_query(&replies, &mut |_, _| {});
        let _ = (reply.code(&replies), reply.graph_info(&replies), reply.graph_last(&replies));
        rest = &rest[consumed..];
    }
}
