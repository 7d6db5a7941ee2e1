//! Connections recorded from the original transfer, judge and graph and from a Go client: every request and answer,
//! however split; what we write is what was recorded, byte for byte.
//!
//! `testdata/gob/<name>.c2s.bin` and `.s2c.bin` are whole connections, `.json` what an independent Go program read in
//! them.

use serde_json::{Value, json};
use wire::gob::client::{Replies, Reply, Requests};
use wire::gob::{
    Call, Decoder, Encoder, GobScratch, GraphDelete, GraphItem, GraphQuery, GraphSeries, JudgeItem, QueryHead,
};
use wire::jsonrpc::unknown_method;

const LIMIT: usize = 1 << 20;
const NAMES: [&str; 4] = ["transfer_graph", "transfer_judge", "client_graph", "client_judge"];

struct Recording {
    c2s: Vec<u8>,
    s2c: Vec<u8>,
    calls: Vec<Value>,
}

fn recording(name: &str) -> Recording {
    let read = |suffix| testdata::bytes(&format!("gob/{name}.{suffix}"));
    let json: Value = serde_json::from_slice(&read("json")).expect("JSON");
    Recording { c2s: read("c2s.bin"), s2c: read("s2c.bin"), calls: json["calls"].as_array().expect("calls").clone() }
}

/// Hands out what a stream that arrives in parts of `size` bytes contains.
fn each_request(stream: &[u8], size: usize, mut each: impl FnMut(Call<'_>, &Decoder)) {
    let (mut decoder, mut buffer) = (Decoder::new(LIMIT), Vec::new());
    for part in stream.chunks(size) {
        buffer.extend_from_slice(part);
        while let Some((consumed, call)) = decoder.next(&buffer).expect("a recorded request") {
            each(call, &decoder);
            buffer.drain(..consumed);
        }
    }
    assert!(buffer.is_empty());
}

fn each_reply(stream: &[u8], size: usize, mut each: impl FnMut(Reply<'_>, &Replies)) {
    let (mut replies, mut buffer) = (Replies::new(LIMIT), Vec::new());
    for part in stream.chunks(size) {
        buffer.extend_from_slice(part);
        while let Some((consumed, reply)) = replies.next(&buffer).expect("a recorded reply") {
            each(reply, &replies);
            buffer.drain(..consumed);
        }
    }
    assert!(buffer.is_empty());
}

/// As the recordings spell it: what JSON cannot say is a text, whole numbers may be integers.
fn number(value: f64) -> Value {
    if value.is_nan() {
        json!("NaN")
    } else if value.is_infinite() {
        json!(if value > 0.0 { "+Inf" } else { "-Inf" })
    } else {
        json!(value)
    }
}

/// Makes every number in a `Value` field a double, and an absent map an empty one.
fn normal(value: &Value) -> Value {
    match value {
        Value::Array(list) => list.iter().map(normal).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| {
                let value = match (name.as_str(), value) {
                    ("Value", Value::Number(number)) => json!(number.as_f64()),
                    ("Tags", Value::Null) => json!({}),
                    _ => normal(value),
                };
                (name.clone(), value)
            })
            .collect(),
        other => other.clone(),
    }
}

fn tags(canonical: &str) -> Value {
    let tags = model::Tags::assume_canonical(canonical);
    tags.iter().map(|(key, value)| (key.to_string(), json!(value))).collect()
}

fn arguments(call: &Call<'_>, decoder: &Decoder) -> Value {
    let (mut list, mut scratch) = (Vec::new(), GobScratch::new());
    match call.method {
        "Graph.Send" => {
            let items = call.graph_items(decoder, &mut scratch, &mut |item| {
                list.push(json!({
                    "Endpoint": item.endpoint, "Metric": item.metric, "Tags": tags(item.tags),
                    "Value": number(item.value), "Timestamp": item.timestamp, "DsType": item.ds_type,
                    "Step": item.step, "Heartbeat": item.heartbeat, "Min": item.min, "Max": item.max,
                }));
            });
            items.expect("recorded items");
        }
        "Judge.Send" => {
            let items = call.judge_items(decoder, &mut scratch, &mut |item| {
                list.push(json!({
                    "Endpoint": item.endpoint, "Metric": item.metric, "Value": number(item.value),
                    "Timestamp": item.timestamp, "JudgeType": item.judge_type, "Tags": tags(item.tags),
                }));
            });
            items.expect("recorded items");
        }
        "Graph.Delete" => {
            let deletes = call.graph_delete(decoder, &mut |delete| {
                list.push(json!({
                    "Endpoint": delete.endpoint, "Metric": delete.metric, "Step": delete.step,
                    "DsType": delete.ds_type, "Tags": delete.tags,
                }));
            });
            deletes.expect("recorded series");
        }
        "Graph.Query" => {
            let query = call.graph_query(decoder).expect("a recorded query");
            return json!({
                "Start": query.start, "End": query.end, "ConsolFun": query.consol_fun, "Endpoint": query.endpoint,
                "Counter": query.counter, "Step": query.step,
            });
        }
        "Graph.Info" | "Graph.Last" | "Graph.LastRaw" => {
            let series = call.graph_series(decoder).expect("a recorded series");
            return json!({ "Endpoint": series.endpoint, "Counter": series.counter });
        }
        "Graph.GetRrd" => return json!(call.text().expect("a recorded text")),
        _ => return json!({}),
    }
    json!(list)
}

fn result(reply: &Reply<'_>, replies: &Replies) -> Value {
    match &*reply.method {
        _ if !reply.error.is_empty() => json!({}),
        "Graph.Query" => {
            let mut values = Vec::new();
            let head = reply.graph_query(replies, &mut |timestamp, value| {
                values.push(json!({ "Timestamp": timestamp, "Value": number(value) }));
            });
            let head = head.expect("a recorded answer");
            json!({
                "Endpoint": head.endpoint, "Counter": head.counter, "DsType": head.ds_type, "Step": head.step,
                "Values": if values.is_empty() { Value::Null } else { json!(values) },
            })
        }
        "Graph.Info" => {
            let info = reply.graph_info(replies).expect("a recorded answer");
            json!({ "ConsolFun": info.ds_type, "Step": info.step, "Filename": info.filename })
        }
        "Graph.Last" | "Graph.LastRaw" => {
            let last = reply.graph_last(replies).expect("a recorded answer");
            json!({
                "Endpoint": last.endpoint, "Counter": last.counter,
                "Value": { "Timestamp": last.timestamp, "Value": number(last.value) },
            })
        }
        "Graph.Delete" => json!({}),
        _ => json!({ "Code": reply.code(replies).expect("a recorded answer") }),
    }
}

#[test]
fn every_request() {
    for name in NAMES {
        let recording = recording(name);
        for size in [recording.c2s.len(), 1, 2, 3, 7, 64, 1000] {
            let mut expected = recording.calls.iter();
            each_request(&recording.c2s, size, |call, decoder| {
                let expected = expected.next().expect("as many calls");
                assert_eq!(call.method, expected["method"]);
                assert_eq!(call.seq, expected["seq"]);
                assert_eq!(arguments(&call, decoder), normal(&expected["args"]), "{name} {}", call.seq);
            });
            assert_eq!(expected.next(), None);
        }
    }
}

#[test]
fn every_answer() {
    for name in NAMES {
        let recording = recording(name);
        for size in [recording.s2c.len(), 1, 2, 3, 7, 64, 1000] {
            let mut count = 0;
            each_reply(&recording.s2c, size, |reply, replies| {
                let call = recording.calls.iter().find(|call| call["seq"] == reply.seq).expect("an answer has a call");
                assert_eq!(*reply.method, call["method"]);
                assert_eq!(*reply.error, call["response"]["error"]);
                assert_eq!(result(&reply, replies), normal(&call["response"]["reply"]), "{name} {}", reply.seq);
                count += 1;
            });
            assert_eq!(count, recording.calls.len());
        }
    }
}

#[test]
fn answers_written_again_are_the_recorded_bytes() {
    for name in NAMES {
        let recording = recording(name);
        let (mut encoder, mut out) = (Encoder::new(), Vec::new());
        each_reply(&recording.s2c, LIMIT, |reply, replies| write_again(&mut encoder, &mut out, &reply, replies));
        assert_eq!(out, recording.s2c, "{name}");
    }
}

fn write_again(encoder: &mut Encoder, out: &mut Vec<u8>, reply: &Reply<'_>, replies: &Replies) {
    let (method, seq) = (&*reply.method, reply.seq);
    match method {
        _ if !reply.error.is_empty() => {
            let unknown = unknown_method(&["Graph", "Judge"], method);
            assert!(reply.error == unknown || method == "Graph.GetRrd");
            encoder.error(out, method, seq, &reply.error);
        }
        "Graph.Query" => {
            let mut values = Vec::new();
            let head = reply.graph_query(replies, &mut |timestamp, value| values.push((timestamp, value)));
            let head = head.expect("a recorded answer");
            let head =
                QueryHead { endpoint: &head.endpoint, counter: &head.counter, ds_type: &head.ds_type, step: head.step };
            encoder.graph_query(out, method, seq, &head, values.into_iter());
        }
        "Graph.Info" => {
            let info = reply.graph_info(replies).expect("a recorded answer");
            encoder.graph_info(out, method, seq, &info.ds_type, info.step, &info.filename);
        }
        "Graph.Last" | "Graph.LastRaw" => {
            let last = reply.graph_last(replies).expect("a recorded answer");
            encoder.graph_last(out, method, seq, &last.endpoint, &last.counter, (last.timestamp, last.value));
        }
        "Graph.Delete" => encoder.graph_delete(out, method, seq),
        _ => encoder.simple(out, method, seq, reply.code(replies).expect("a recorded answer")),
    }
}

#[test]
fn requests_written_again_read_the_same() {
    for name in NAMES {
        let recording = recording(name);
        let (mut requests, mut out, mut ends, mut same) = (Requests::new(), Vec::new(), Vec::new(), 0);
        each_request(&recording.c2s, LIMIT, |call, decoder| {
            write_request_again(&mut requests, &mut out, &call, decoder);
            ends.push(out.len());
        });
        let mut expected = recording.calls.iter();
        each_request(&out, LIMIT, |call, decoder| {
            let expected = expected.next().expect("as many calls");
            assert_eq!((json!(call.method), json!(call.seq)), (expected["method"].clone(), expected["seq"].clone()));
            assert_eq!(arguments(&call, decoder), normal(&expected["args"]), "{name} {}", call.seq);
        });
        // Transfer's process had given other types no numbers before: the same bytes, up to the order of tags.
        if name == "transfer_judge" {
            assert_eq!(out.len(), recording.c2s.len());
            let mut start = 0;
            for (end, call) in ends.iter().zip(&recording.calls) {
                let tags = |item: &Value| item["Tags"].as_object().map_or(0, |tags| tags.len());
                if call["args"].as_array().expect("items").iter().all(|item| tags(item) < 2) {
                    assert_eq!(out[start..*end], recording.c2s[start..*end], "call {}", call["seq"]);
                    same += 1;
                }
                start = *end;
            }
            assert!(same >= 15, "{same}");
        }
    }
}

fn write_request_again(requests: &mut Requests, out: &mut Vec<u8>, call: &Call<'_>, decoder: &Decoder) {
    let (seq, mut scratch) = (call.seq, GobScratch::new());
    let own = |text: &str| text.to_string();
    match call.method {
        "Graph.Send" => {
            let mut items = Vec::new();
            let all = call.graph_items(decoder, &mut scratch, &mut |item| {
                let texts = [item.endpoint, item.metric, item.tags, item.ds_type, item.min, item.max].map(own);
                items.push((texts, item.value, item.timestamp, item.step, item.heartbeat));
            });
            all.expect("recorded items");
            let items = items.iter().map(|(texts, value, timestamp, step, heartbeat)| {
                let [endpoint, metric, tags, ds_type, min, max] = texts.each_ref().map(String::as_str);
                let (value, timestamp, step, heartbeat) = (*value, *timestamp, *step, *heartbeat);
                GraphItem { endpoint, metric, tags, value, timestamp, ds_type, step, heartbeat, min, max }
            });
            requests.graph_send(out, seq, items);
        }
        "Judge.Send" => {
            let mut items = Vec::new();
            let all = call.judge_items(decoder, &mut scratch, &mut |item| {
                let texts = [item.endpoint, item.metric, item.judge_type, item.tags].map(own);
                items.push((texts, item.value, item.timestamp));
            });
            all.expect("recorded items");
            let items = items.iter().map(|(texts, value, timestamp)| {
                let [endpoint, metric, judge_type, tags] = texts.each_ref().map(String::as_str);
                JudgeItem { endpoint, metric, value: *value, timestamp: *timestamp, judge_type, tags }
            });
            requests.judge_send(out, seq, items);
        }
        "Graph.Delete" => {
            let mut list: Vec<GraphDelete> = Vec::new();
            call.graph_delete(decoder, &mut |delete| list.push(delete)).expect("recorded series");
            requests.graph_delete(out, seq, &list);
        }
        "Graph.Query" => {
            let query: GraphQuery = call.graph_query(decoder).expect("a recorded query");
            requests.graph_query(out, seq, &query);
        }
        "Graph.Info" => requests.graph_info(out, seq, &series(call, decoder)),
        "Graph.Last" | "Graph.LastRaw" => requests.graph_last(out, call.method, seq, &series(call, decoder)),
        "Graph.GetRrd" => requests.text(out, call.method, seq, &call.text().expect("a recorded text")),
        method => requests.ping(out, method, seq),
    }
}

fn series<'a>(call: &Call<'a>, decoder: &Decoder) -> GraphSeries<'a> {
    call.graph_series(decoder).expect("a recorded series")
}

/// Reads everything in every way, whatever the method says, until the stream ends or is refused.
fn read_all(stream: &[u8], limit: usize) {
    let (mut decoder, mut scratch, mut rest) = (Decoder::new(limit), GobScratch::new(), stream);
    while let Ok(Some((consumed, call))) = decoder.next(rest) {
        let mut bytes = 0;
        let _ = call.graph_items(&decoder, &mut scratch, &mut |item| {
            assert!(item.tags == model::tags::canonical_string(item.tags));
            bytes += item.endpoint.len() + item.metric.len() + item.ds_type.len();
        });
        let _ = call.judge_items(&decoder, &mut scratch, &mut |item| bytes += item.endpoint.len());
        let _ = call.graph_delete(&decoder, &mut |delete| bytes += delete.endpoint.len());
        let _ = (call.graph_query(&decoder), call.graph_series(&decoder), call.text());
        assert!(bytes <= 9 * consumed, "texts are the message's own");
        rest = &rest[consumed..];
    }
    assert!(decoder.memory_bytes() <= 22 << 10);
    let (mut replies, mut rest) = (Replies::new(limit), stream);
    while let Ok(Some((consumed, reply))) = replies.next(rest) {
        let _ = reply.graph_query(&replies, &mut |_, _| {});
        let _ = (reply.code(&replies), reply.graph_info(&replies), reply.graph_last(&replies));
        rest = &rest[consumed..];
    }
}

/// Flipped, cut, doubled and overwritten bytes, always the same ones: nothing panics, nothing is invented.
#[test]
fn damaged_recordings() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize % below
    };
    let odd = testdata::bytes("gob/odd.c2s.bin");
    let streams = NAMES.map(recording).into_iter().flat_map(|recording| [recording.c2s, recording.s2c]);
    for stream in streams.chain([odd]) {
        // The beginning has the definitions, where damage does most.
        let stream = &stream[..stream.len().min(2000)];
        for _ in 0..2000 {
            let mut damaged = stream.to_vec();
            for _ in 0..=random(3) {
                let at = random(damaged.len());
                match random(5) {
                    0 => damaged[at] ^= 1 << random(8),
                    1 => damaged[at] = [0, 1, 0x7f, 0x80, 0xf8, 0xff][random(6)],
                    2 => damaged.truncate(at.max(1)),
                    3 => drop(damaged.drain(at..=at)),
                    _ => {
                        let from = random(stream.len());
                        let part = &stream[from..(from + random(40)).min(stream.len())];
                        damaged.splice(at..at, part.iter().copied());
                    }
                }
                if damaged.is_empty() {
                    break;
                }
            }
            read_all(&damaged, LIMIT);
        }
    }
}
