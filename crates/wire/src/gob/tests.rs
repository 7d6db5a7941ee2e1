use super::client::{Replies, Requests};
use super::write::{Fields, push_float, push_int, push_message, push_text, push_uint};
use super::*;
use crate::jsonrpc::unknown_method;
use proptest::prelude::*;

const LIMIT: usize = 1 << 20;

/// A stream written by hand; types are given ids from 64 on.
#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    types: i64,
}

impl Stream {
    /// One that has described `Request`.
    fn new() -> Stream {
        let mut stream = Stream::default();
        stream.define_struct(&[("ServiceMethod", 6), ("Seq", 3)]);
        stream
    }

    /// Appends the definition of the next type: what `write` appends, behind its id.
    fn define(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> i64 {
        let id = 64 + self.types;
        self.types += 1;
        push_message(&mut self.bytes, |out| {
            push_int(out, -id);
            write(out);
        });
        id
    }

    fn define_struct(&mut self, fields: &[(&str, i64)]) -> i64 {
        self.define(|out| {
            let mut outer = Fields::new(out);
            let mut inner = Fields::new(outer.begin(2));
            let out = inner.begin(1);
            push_uint(out, fields.len() as u64);
            for (name, type_id) in fields {
                Fields::new(out).text(0, name).int(1, *type_id).end();
            }
            inner.end();
            outer.end();
        })
    }

    /// A slice (kind 1, of `a`), array (0, of `b` times `a`) or map (3, from `a` to `b`).
    fn define_list(&mut self, kind: u64, a: i64, b: i64) -> i64 {
        self.define(|out| {
            let mut outer = Fields::new(out);
            Fields::new(outer.begin(kind)).int(1, a).int(2, b).end();
            outer.end();
        })
    }

    fn value(&mut self, type_id: i64, value: &[u8]) -> &mut Stream {
        push_message(&mut self.bytes, |out| {
            push_int(out, type_id);
            out.extend_from_slice(value);
        });
        self
    }

    fn header(&mut self, method: &str) -> &mut Stream {
        let mut value = Vec::new();
        Fields::new(&mut value).text(0, method).end();
        self.value(64, &value)
    }

    /// How the first request fares; the argument is read as a list of items.
    fn outcome(&self) -> Result<usize, String> {
        let mut decoder = Decoder::new(LIMIT);
        let text = |error: GobError| error.to_string();
        let (consumed, call) = decoder.next(&self.bytes).map_err(text)?.expect("a whole request");
        assert_eq!(consumed, self.bytes.len());
        let mut count = 0;
        call.graph_items(&decoder, &mut GobScratch::new(), &mut |_| count += 1).map_err(text)?;
        Ok(count)
    }

    #[track_caller]
    fn fails(&self, expected: &str) {
        let error = self.outcome().expect_err("must fail");
        assert!(error.contains(expected), "{error:?}, want {expected:?}");
    }
}

#[test]
fn methods_that_nobody_serves_get_gos_texts() {
    let check = |method: &str, expected: &str| assert_eq!(unknown_method(&["Graph"], method), expected);
    check("Graph.Nope", "rpc: can't find method Graph.Nope");
    check("NoSuch.Thing", "rpc: can't find service NoSuch.Thing");
    check("Graph.A.B", "rpc: can't find service Graph.A.B");
    check("Graph", "rpc: service/method request ill-formed: Graph");
    check("", "rpc: service/method request ill-formed: ");
}

/// The stream of `testdata/gob/odd.go`.
#[test]
fn other_types_of_a_go_client() {
    let stream = testdata::bytes("gob/odd.c2s.bin");
    let (mut decoder, mut scratch, mut rest, mut found) =
        (Decoder::new(LIMIT), GobScratch::new(), &stream[..], Vec::new());
    while let Some((consumed, call)) = decoder.next(rest).expect("Go's own bytes") {
        assert_eq!(call.seq, found.len() as u64);
        let mut list = Vec::new();
        let outcome = match call.method {
            "Graph.Send" => call.graph_items(&decoder, &mut scratch, &mut |item| {
                list.push(format!("{} {} {} {} {}", item.endpoint, item.metric, item.tags, item.value, item.step));
            }),
            "Judge.Send" => call.judge_items(&decoder, &mut scratch, &mut |_| {}),
            "Graph.Query" => call.graph_query(&decoder).map(|query| list.push(query.start.to_string())),
            "Graph.GetRrd" => call.text().map(|text| list.push(text.to_string())),
            _ => Ok(()),
        };
        let outcome = outcome.map_err(|error| error.to_string().split_once(": ").expect("a place").1.to_string());
        found.push(outcome.map(|()| list.join(", ")));
        rest = &rest[consumed..];
    }
    assert!(rest.is_empty());
    let expected = [
        Ok(" m k=v 0.25 60,  m  0 0,  m k=v 0.25 60"),
        Ok("h   0 0,    0 0"),
        Err("value of an interface type; want a plain type"),
        Err("field Step: want a signed integer"),
        Err("struct has none of the fields of this call"),
        Err("want a slice of structs"),
        Err("want a slice of structs"),
        Ok("-1"),
        Err("want a string"),
        Ok("key"),
        Ok(""),
        Err("want a struct that was defined before"),
    ];
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_eq!(found.as_deref().map_err(String::as_str), *expected, "call {i}");
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn lengths_are_refused_before_their_bytes_are_here() {
    let check = |start: &[u8], expected: &str| {
        let error = Decoder::new(100).next(start).expect_err("must fail");
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(&[0], "empty message");
    check(&[0xff, 0xff], "longer than the limit");
    check(&[100], "longer than the limit"); // with its own length 101
    check(&[0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "longer than the limit");
    check(&[0xf7], "integer of more than 8 bytes");
    check(b"GET / HTTP/1.1\r\nHost: somewhere, with enough bytes to fill the first message of this", "invalid gob");
    assert!(Decoder::new(100).next(&[99]).expect("may come").is_none());
    assert!(Decoder::new(100).next(&[0xff]).expect("may come").is_none());
    // Types count against the limit of the request that they stand before.
    let mut stream = Stream::new();
    let element = stream.define_struct(&[("Endpoint", 6)]);
    let list = stream.define_list(1, element, 0);
    stream.header("Graph.Send").value(list, &[0, 0]);
    assert!(Decoder::new(stream.bytes.len()).next(&stream.bytes).expect("fits").is_some());
    assert!(Decoder::new(stream.bytes.len() - 1).next(&stream.bytes).is_err());
}

#[test]
fn headers() {
    let check = |fields: &[(&str, i64)], value: &[u8], expected: &str| {
        let mut stream = Stream::default();
        let id = stream.define_struct(fields);
        stream.value(id, value).value(6, &[0, 0]);
        stream.fails(expected);
    };
    check(&[("ServiceMethod", 5), ("Seq", 3)], &[0], "field ServiceMethod: want a string");
    check(&[("ServiceMethod", 6), ("Seq", 2)], &[0], "field Seq: want an unsigned integer");
    check(&[("Name", 6)], &[0], "none of the fields");
    check(&[("ServiceMethod", 6)], &[1, 1, 0xff, 0], "field ServiceMethod: not UTF-8");
    check(&[("ServiceMethod", 6)], &[1, 9, b'a', 0], "string is longer than its message");
    check(&[("ServiceMethod", 6)], &[2, 0, 0], "field number is out of range");
    check(&[("ServiceMethod", 6)], &[1, 0], "message ends inside a value");
    check(&[("ServiceMethod", 6)], &[0, 0], "bytes follow the value");
    let mut stream = Stream::default();
    stream.value(6, &[0, 0]).value(6, &[0, 0]);
    stream.fails("want a struct that was defined before");
    // Go's zero values.
    let mut stream = Stream::new();
    stream.value(64, &[0]).value(6, &[0, 0]);
    let (_, call) = Decoder::new(LIMIT).next(&stream.bytes).expect("a request").expect("whole");
    assert_eq!((call.method, call.seq), ("", 0));
}

#[test]
fn definitions() {
    let check = |definition: &[u8], expected: &str| {
        let mut stream = Stream::new();
        stream.define(|out| out.extend_from_slice(definition));
        stream.fails(expected);
    };
    check(&[0], "type is of no kind");
    check(&[1, 2, 12, 0, 1, 2, 12, 0, 0], "type is of two kinds");
    check(&[9, 0, 0], "unknown kind of type");
    check(&[0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "field number is out of range");
    check(&[2, 0, 0], "names no element type");
    check(&[4, 2, 12, 0, 0], "names no element type");
    check(&[1, 2, 12, 1, 1, 0, 0], "array of negative length");
    check(&[2, 2, 0, 0, 0], "type id is out of range");
    check(&[2, 2, 1, 0, 0], "type id is out of range");
    check(&[2, 5, 0, 0], "unknown field in a type definition");
    check(&[3, 2, 1, 1, 1, b'a', 0, 0, 0], "field without a type");
    check(&[3, 2, 65], "more elements announced");
    check(&[[3, 2, 65].as_slice(), &[0; 100]].concat(), "struct of more than 64 fields");
    check(&[2, 2, 12, 0, 0, 7], "bytes follow the value");
    check(&[], "message ends inside a value");
    // Ids that are Go's own, too large, or taken.
    for (id, expected) in [(63, "out of range"), (1 << 31, "out of range"), (i64::MIN, "out of range"), (64, "twice")] {
        let mut stream = Stream::new();
        push_message(&mut stream.bytes, |out| {
            push_int(out, if id == i64::MIN { id } else { -id });
            out.extend_from_slice(&[2, 2, 12, 0, 0]);
        });
        stream.fails(expected);
    }
    let mut stream = Stream::new();
    stream.value(1 << 32, &[0]);
    stream.fails("type id is out of range");
}

#[test]
fn tables_of_types_are_bounded() {
    let mut stream = Stream::new();
    for _ in 0..TYPES_MAX {
        stream.define_list(1, 6, 0);
    }
    stream.fails("more than 256 types");
    let names: Vec<String> = (0..FIELDS_MAX).map(|i| format!("F{i}")).collect();
    let fields: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), 6)).collect();
    let mut stream = Stream::new();
    for _ in 0..32 {
        stream.define_struct(&fields);
    }
    stream.fails("more than 2048 fields");
    let mut decoder = Decoder::new(LIMIT);
    assert!(decoder.next(&stream.bytes).is_err());
    assert!(decoder.memory_bytes() <= 22 << 10, "{}", decoder.memory_bytes());
}

/// A list of items of one struct; `skipped` is the type of its field that is not ours.
fn with_skipped(stream: &mut Stream, skipped: i64, value: &[u8]) {
    let element = stream.define_struct(&[("Unknown", skipped), ("Endpoint", 6)]);
    let list = stream.define_list(1, element, 0);
    let item = [&[1], value, &[1, 1, b'h', 0]].concat();
    stream.header("Graph.Send").value(list, &[&[0, 2][..], &item, &item].concat());
}

#[test]
fn nesting_is_bounded() {
    // type list struct { Next *list }: itself, before it is complete
    let nested = |depth: usize| {
        let mut stream = Stream::new();
        let own_id = 64 + stream.types;
        stream.define_struct(&[("Next", own_id)]);
        with_skipped(&mut stream, own_id, &[vec![1; depth - 1], vec![0; depth]].concat());
        stream
    };
    assert_eq!(nested(DEPTH_MAX as usize).outcome(), Ok(2));
    nested(DEPTH_MAX as usize + 1).fails("nested deeper than 32 levels");
    nested(100_000).fails("nested deeper than 32 levels");
    // A slice of itself.
    let mut stream = Stream::new();
    let own_id = 64 + stream.types;
    stream.define_list(1, own_id, 0);
    with_skipped(&mut stream, own_id, &[1; 40]);
    stream.fails("nested deeper than 32 levels");
}

#[test]
fn what_is_passed_over_is_checked() {
    let check = |skipped: fn(&mut Stream) -> i64, value: &[u8], expected: Result<usize, &str>| {
        let mut stream = Stream::new();
        let skipped = skipped(&mut stream);
        with_skipped(&mut stream, skipped, value);
        match expected {
            Ok(count) => assert_eq!(stream.outcome(), Ok(count), "{value:?}"),
            Err(text) => stream.fails(text),
        }
    };
    check(|_| 1, &[1], Ok(2));
    check(|_| 4, &[0xfe, 0x31, 0x40], Ok(2));
    check(|_| 7, &[0xfe, 0x31, 0x40, 0], Ok(2));
    check(|_| 5, &[2, 0, 0], Ok(2));
    check(|_| 8, &[0], Ok(2));
    check(|_| 8, &[1, b'x'], Err("value of an interface type"));
    check(|_| 9, &[0], Err("value of a type that was not defined"));
    check(|_| 500, &[0], Err("value of a type that was not defined"));
    check(|stream| stream.define_list(1, 6, 0), &[2, 0, 1, b'a'], Ok(2));
    check(|stream| stream.define_list(1, 6, 0), &[0x7f, 0], Err("more elements announced"));
    check(|stream| stream.define_list(0, 2, 3), &[3, 0, 1, 2], Ok(2));
    check(|stream| stream.define_list(0, 2, 3), &[2, 0, 1], Err("array of another length"));
    check(|stream| stream.define_list(3, 6, 2), &[1, 1, b'a', 7], Ok(2));
    check(|stream| stream.define(|out| out.extend_from_slice(&[5, 0, 0])), &[3, 1, 2, 3], Ok(2));
    check(|stream| stream.define_struct(&[]), &[0], Ok(2));
    check(|stream| stream.define_struct(&[("A", 2)]), &[1, 4, 0], Ok(2));
    check(|stream| stream.define_struct(&[("A", 2)]), &[2, 4, 0], Err("field number is out of range"));
}

/// What `read` makes of the one item of a `Graph.Send` with this endpoint and this map.
fn item_of<R>(endpoint: &[u8], tags: &[(&[u8], &[u8])], read: impl FnOnce(GraphItem<'_>) -> R) -> Result<R, GobError> {
    let mut stream = Stream::new();
    let map = stream.define_list(3, 6, 6);
    let element = stream.define_struct(&[("Endpoint", 6), ("Tags", map), ("Value", 4), ("DsType", 6), ("Step", 2)]);
    let list = stream.define_list(1, element, 0);
    let mut value = vec![0, 1, 1];
    let push = |out: &mut Vec<u8>, bytes: &[u8]| {
        push_uint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    };
    push(&mut value, endpoint);
    value.push(1);
    push_uint(&mut value, tags.len() as u64);
    for (key, tag) in tags {
        push(&mut value, key);
        push(&mut value, tag);
    }
    value.push(1);
    push_float(&mut value, 1.5);
    value.push(1);
    push_text(&mut value, "DERIVE");
    value.push(1);
    push_int(&mut value, 60);
    value.push(0);
    stream.header("Graph.Send").value(list, &value);
    let mut decoder = Decoder::new(LIMIT);
    let (_, call) = decoder.next(&stream.bytes)?.expect("whole");
    let (mut read, mut found) = (Some(read), None);
    call.graph_items(&decoder, &mut GobScratch::new(), &mut |item| found = read.take().map(|read| read(item)))?;
    Ok(found.expect("one item"))
}

#[test]
fn maps_become_canonical_tags() {
    let check = |tags: &[(&str, &str)], expected: &str| {
        let tags: Vec<(&[u8], &[u8])> = tags.iter().map(|(key, tag)| (key.as_bytes(), tag.as_bytes())).collect();
        item_of(b"h", &tags, |item| {
            assert_eq!(item.tags, expected);
            assert_eq!(model::tags::canonical_string(item.tags), expected);
        })
        .expect("an item");
    };
    check(&[], "");
    check(&[("a", "1")], "a=1");
    check(&[("a", "")], "a=");
    check(&[("", "b")], "=b");
    check(&[("b", "2"), ("a", "1"), ("c", "3")], "a=1,b=2,c=3");
    check(&[("a", "1"), ("ab", "2"), ("a-", "3")], "a=1,a-=3,ab=2");
    check(&[("ż", "1"), ("z", "2")], "z=2,ż=1");
    check(&[("a", "x=y")], "a=x=y");
    // Of equal keys the last, as in a map of Go's.
    check(&[("b", "0"), ("a", "1"), ("a", "3"), ("a", "2")], "a=2,b=0");
    // What the text of the original would mean: nothing else can be asked for later.
    check(&[("a b", "c d")], "ab=cd");
    check(&[("a=b", "c")], "a=b=c");
    check(&[("a=b", "c"), ("a", "z")], "a=b=c");
    check(&[("k", "v,w")], "k=v");
    check(&[("k", "v,a=1"), ("b", "2")], "a=1,b=2,k=v");
}

#[test]
fn bytes_that_are_not_utf_8() {
    item_of(b"h\xff", &[(b"b\xfe", b"\xfd"), (b"a", b"1")], |item| {
        assert_eq!((item.endpoint, item.tags, item.ds_type), ("h\u{fffd}", "a=1,b\u{fffd}=\u{fffd}", "DERIVE"));
    })
    .expect("an item");
}

#[test]
fn many_tags() {
    let keys: Vec<String> = (0..257).map(|i| format!("key{i}")).collect();
    let tags: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (key.as_bytes(), &b"v"[..])).collect();
    item_of(b"h", &tags[..256], |item| assert_eq!(item.tags.split(',').count(), 256)).expect("an item");
    let error = item_of(b"h", &tags, |_| ()).expect_err("too many");
    assert!(error.to_string().contains("more than 256 tags on one item"), "{error}");
}

#[test]
fn items_are_checked_as_at_every_door() {
    use crate::Invalid;
    let good =
        GraphItem { endpoint: "h", metric: "m", tags: "a=1", ds_type: "GAUGE", step: 60, ..GraphItem::default() };
    let item = good.check().expect("a good item");
    assert_eq!((item.endpoint, item.metric, item.tags, item.step, item.value), ("h", "m", "a=1", 60, 0.0));
    assert_eq!(GraphItem { value: f64::NAN, ..good }.check(), Err(Invalid::NotFinite));
    assert_eq!(GraphItem { metric: "", ..good }.check(), Err(Invalid::EmptyMetric));
    assert_eq!(GraphItem { ds_type: "", ..good }.check(), Err(Invalid::CounterType));
    assert_eq!(GraphItem { step: -1, ..good }.check(), Err(Invalid::Step));
    assert_eq!(GraphItem { tags: &"x".repeat(510), ..good }.check(), Err(Invalid::CounterTooLong));
}

/// An argument that does not fit is the call's own fault: the next one is read as if nothing had been.
#[test]
fn the_connection_outlives_a_bad_argument() {
    let mut stream = Stream::new();
    stream.header("Graph.Send").value(6, &[0, 3, b'a']);
    let end = stream.bytes.len();
    stream.header("Graph.GetRrd").value(6, &[0, 3, b'k', b'e', b'y']);
    let mut decoder = Decoder::new(LIMIT);
    let (consumed, call) = decoder.next(&stream.bytes).expect("a request").expect("whole");
    assert_eq!(consumed, end);
    assert!(call.graph_items(&decoder, &mut GobScratch::new(), &mut |_| {}).is_err());
    assert!(call.text().is_err());
    let (_, call) = decoder.next(&stream.bytes[consumed..]).expect("a request").expect("whole");
    assert_eq!(call.text().as_deref(), Ok("key"));
}

/// Texts; timestamp, step and heartbeat; value; tags as pairs, without their separators.
type AnyItem = ([String; 5], [i64; 3], f64, Vec<(String, String)>);

fn any_item() -> impl Strategy<Value = AnyItem> {
    let texts = [".{0,40}", ".{0,300}", "GAUGE|DERIVE|", "U|0|", "U|"];
    let bits = any::<u64>().prop_map(f64::from_bits);
    let value = prop_oneof![Just(0.0), Just(-0.0), Just(f64::NAN), Just(1.0), bits];
    (texts, any::<[i64; 3]>(), value, prop::collection::vec(("[^ ,=]{0,5}", "[^ ,]{0,5}"), 0..6))
}

fn canonical(pairs: &[(String, String)]) -> String {
    let text: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    model::tags::canonical_string(&text.join(","))
}

proptest! {
    #[test]
    fn items_read_back(items in prop::collection::vec(any_item(), 0..8), seq: u64, size in 1usize..200) {
        let tags: Vec<String> = items.iter().map(|item| canonical(&item.3)).collect();
        let all = || items.iter().zip(&tags).map(|((texts, numbers, value, _), tags)| GraphItem {
            endpoint: &texts[0], metric: &texts[1], ds_type: &texts[2], min: &texts[3], max: &texts[4], tags,
            value: *value, timestamp: numbers[0], step: numbers[1], heartbeat: numbers[2],
        });
        let judged = |item: GraphItem<'_>| format!(
            "{} {} {} {} {} {}", item.endpoint, item.metric, item.tags, item.ds_type, item.timestamp, item.value + 0.0,
        );
        let (mut requests, mut bytes) = (Requests::new(), Vec::new());
        requests.graph_send(&mut bytes, seq, all());
        let judge_items = all().map(|item| JudgeItem {
            endpoint: item.endpoint, metric: item.metric, value: item.value, timestamp: item.timestamp,
            judge_type: item.ds_type, tags: item.tags,
        }).collect::<Vec<_>>();
        requests.judge_send(&mut bytes, seq.wrapping_add(1), judge_items.into_iter());
        let (mut decoder, mut scratch, mut start, mut calls) = (Decoder::new(LIMIT), GobScratch::new(), 0, 0);
        for end in (0..bytes.len()).step_by(size).chain([bytes.len()]) {
            while let Some((consumed, call)) = decoder.next(&bytes[start..end])? {
                prop_assert_eq!(call.seq, seq.wrapping_add(calls));
                let (mut expected, mut same) = (all(), true);
                if calls == 0 {
                    call.graph_items(&decoder, &mut scratch, &mut |item| {
                        let expected = expected.next().expect("as many items");
                        same &= format!("{:?}", GraphItem { value: item.value + 0.0, ..item })
                            == format!("{:?}", GraphItem { value: expected.value + 0.0, ..expected });
                    })?;
                } else {
                    call.judge_items(&decoder, &mut scratch, &mut |item| {
                        let JudgeItem { endpoint, metric, value, timestamp, judge_type, tags } = item;
                        let item = GraphItem {
                            endpoint, metric, tags, value, timestamp, ds_type: judge_type, ..GraphItem::default()
                        };
                        same &= judged(item) == judged(expected.next().expect("as many items"));
                    })?;
                }
                prop_assert!(same && expected.next().is_none());
                start += consumed;
                calls += 1;
            }
        }
        prop_assert_eq!((start, calls), (bytes.len(), 2));
    }

    #[test]
    fn rows_read_back(rows in prop::collection::vec(any::<(i64, u64)>(), 0..300), step: i64, endpoint: String) {
        let rows: Vec<(i64, f64)> = rows.into_iter().map(|(time, bits)| (time, f64::from_bits(bits))).collect();
        let (mut encoder, mut bytes) = (Encoder::new(), Vec::new());
        let head = QueryHead { endpoint: &endpoint, counter: "m", ds_type: "GAUGE", step };
        encoder.graph_query(&mut bytes, "Graph.Query", 7, &head, rows.iter().copied());
        let mut replies = Replies::new(LIMIT);
        let (consumed, reply) = replies.next(&bytes)?.expect("whole");
        prop_assert_eq!(consumed, bytes.len());
        let mut found = Vec::new();
        let reply = reply.graph_query(&replies, &mut |time, value| found.push((time, value)))?;
        prop_assert_eq!((&*reply.endpoint, &*reply.counter, &*reply.ds_type, reply.step), (&*endpoint, "m", "GAUGE", step));
        let bits = |rows: &[(i64, f64)]| rows.iter().map(|row| (row.0, (row.1 + 0.0).to_bits())).collect::<Vec<_>>();
        prop_assert_eq!(bits(&found), bits(&rows));
    }
}
