//! Connections recorded from the original agent, judge, transfer and hbs: every request and answer, however split.

use model::{Expression, Rules, Strategy};
use serde_json::Value;
use std::sync::Arc;
use wire::{Framer, Scratch, hbs, jsonrpc, transfer};

const LIMIT: usize = 1 << 20;

struct Recording {
    c2s: Vec<u8>,
    s2c: Vec<u8>,
    calls: Vec<Value>,
}

fn recording(name: &str) -> Recording {
    let read = |suffix: &str| testdata::bytes(&format!("jsonrpc/{name}.{suffix}"));
    let lines = testdata::text(&format!("jsonrpc/{name}.jsonl"));
    let calls = lines.lines().map(|line| serde_json::from_str(line).expect("a call")).collect();
    Recording { c2s: read("c2s.bin"), s2c: read("s2c.bin"), calls }
}

/// Cuts a stream that arrives in parts of `size` bytes into messages.
fn messages(stream: &[u8], size: usize) -> Vec<Vec<u8>> {
    let (mut framer, mut buffer, mut found) = (Framer::new(LIMIT), Vec::new(), Vec::new());
    for part in stream.chunks(size) {
        buffer.extend_from_slice(part);
        while let Some(range) = framer.scan(&buffer).expect("recorded stream") {
            found.push(buffer[range.clone()].to_vec());
            buffer.drain(..range.end);
            framer.reset();
        }
    }
    assert_eq!(buffer, b"\n", "Go ends each message with a newline");
    found
}

/// The messages of a stream, after checking that no way to split it changes them.
fn messages_of(stream: &[u8]) -> Vec<Vec<u8>> {
    let glued = messages(stream, stream.len());
    for size in [1, 2, 63, 64, 65, 1000, 16384] {
        assert_eq!(messages(stream, size), glued, "in parts of {size}");
    }
    for message in glued.iter().filter(|message| message.len() < 2000) {
        for at in 0..message.len() {
            let mut framer = Framer::new(LIMIT);
            assert_eq!(framer.scan(&message[..at]), Ok(None), "cut at {at}");
            assert_eq!(framer.scan(message), Ok(Some(0..message.len())), "cut at {at}");
        }
    }
    glued
}

#[test]
fn every_request_and_answer() {
    for name in ["agent_transfer", "agent_hbs", "judge_hbs"] {
        let recording = recording(name);
        let (requests, answers) = (messages_of(&recording.c2s), messages_of(&recording.s2c));
        assert_eq!(requests.len(), recording.calls.len());
        let mut scratch = Scratch::new();
        for (message, call) in requests.iter().zip(&recording.calls) {
            let request = jsonrpc::request(message, &mut scratch).expect("recorded request");
            assert_eq!(request.method, call["method"]);
            assert_eq!(parsed(request.id), call["id"]);
            let param = request.param.expect("every call has a parameter");
            assert_eq!(parsed(param), call["params"][0]);
            // Written again it is the same message, byte for byte.
            let mut again = Vec::new();
            jsonrpc::write_request(&mut again, request.method, call["id"].as_u64().expect("a number"), param);
            assert_eq!(again.trim_ascii_end(), message);
        }
        for message in &answers {
            let answer = jsonrpc::response(message, &mut scratch).expect("recorded answer");
            let call = recording
                .calls
                .iter()
                .find(|call| Some(&call["id"]) == answer.id.map(Value::from).as_ref())
                .expect("an answer has a call");
            assert_eq!(parsed(answer.result), call["result"]);
            assert_eq!(answer.error, None);
            let mut again = Vec::new();
            jsonrpc::write_result(&mut again, answer.id.expect("an id").to_string().as_bytes(), answer.result);
            assert_eq!(again.trim_ascii_end(), message);
        }
    }
}

fn parsed(raw: &[u8]) -> Value {
    serde_json::from_slice(raw).expect("raw JSON")
}

#[test]
fn every_item_of_an_agent() {
    let recording = recording("agent_transfer");
    let (mut scratch, mut names, mut count) = (Scratch::new(), Scratch::new(), 0);
    for (message, call) in messages(&recording.c2s, 4096).iter().zip(&recording.calls) {
        let param = jsonrpc::request(message, &mut names).expect("recorded request").param.expect("items");
        let mut expected = call["params"][0].as_array().expect("an array").iter();
        let total = wire::decode_items(param, &mut scratch, &mut |item| {
            let (item, expected) = (item.expect("agents send good items"), expected.next().expect("as many items"));
            assert_eq!(item.endpoint, expected["endpoint"]);
            assert_eq!(item.metric, expected["metric"]);
            assert_eq!(item.tags, expected["tags"]);
            assert_eq!(item.counter_type.as_str(), expected["counterType"]);
            assert_eq!(i64::from(item.step), expected["step"]);
            assert_eq!(item.timestamp, expected["timestamp"]);
            let text = expected["value"].as_str().map_or(expected["value"].to_string(), str::to_string);
            assert_eq!(item.value, text.parse::<f64>().expect("a number"));
            assert_same_text(&item, &expected["value"], param);
            count += 1;
        });
        let answer = transfer::UpdateAnswer { total: total.expect("recorded items"), invalid: 0, latency_ms: 0 };
        let mut result = Vec::new();
        transfer::write_answer(&mut result, &answer);
        let recorded = transfer::read_answer(call["result"].to_string().as_bytes(), &mut names).expect("an answer");
        assert_eq!(transfer::UpdateAnswer { latency_ms: 0, ..recorded }, answer);
    }
    assert_eq!(count, 39 + 2 * 26 + 5 * 7 + 7 * 6 + 174 * 6);
}

/// The item written by us is the agent's text.
fn assert_same_text(item: &wire::Item<'_>, value: &Value, param: &[u8]) {
    if value.is_string() {
        return; // a plug-in's own spelling; we write numbers
    }
    let mut out = Vec::new();
    let wire::Item { endpoint, metric, tags, value, step, counter_type, timestamp } = *item;
    wire::write_item(&mut out, &wire::OutItem { endpoint, metric, value, step, counter_type, tags, timestamp });
    assert!(param.windows(out.len()).any(|window| window == out), "{}", String::from_utf8_lossy(&out));
}

#[test]
fn every_heartbeat() {
    let recording = recording("agent_hbs");
    let mut scratch = Scratch::new();
    for call in &recording.calls {
        let (param, result) = (&call["params"][0], &call["result"]);
        let text = param.to_string();
        let mut out = Vec::new();
        match call["method"].as_str().expect("a name") {
            "Agent.ReportStatus" => {
                let report = hbs::read_report(text.as_bytes(), &mut scratch).expect("a report");
                assert_eq!(report.hostname, param["Hostname"]);
                assert_eq!(report.plugin_version, param["PluginVersion"]);
                hbs::write_code(&mut out, 0);
            }
            "Agent.MinePlugins" => {
                let heartbeat = hbs::read_heartbeat(text.as_bytes(), &mut scratch).expect("a heartbeat");
                assert_eq!(heartbeat.hostname, param["Hostname"]);
                let plugins: Vec<&str> =
                    list(&result["Plugins"]).map(|plugin| plugin.as_str().expect("text")).collect();
                hbs::write_plugins(&mut out, Some(&plugins), result["Timestamp"].as_i64().expect("a time"));
            }
            "Agent.BuiltinMetrics" => {
                let heartbeat = hbs::read_heartbeat(text.as_bytes(), &mut scratch).expect("a heartbeat");
                assert_eq!(heartbeat.checksum, param["Checksum"]);
                let metrics: Vec<hbs::BuiltinMetric> = list(&result["Metrics"]).map(builtin_metric).collect();
                let checksum = result["Checksum"].as_str().expect("text");
                let timestamp = result["Timestamp"].as_i64().expect("a time");
                hbs::write_builtin_metrics(&mut out, Some(&metrics), checksum, timestamp);
            }
            _ => hbs::write_trustable_ips(&mut out, result.as_str().expect("text")),
        }
        assert_eq!(parsed(&out), *result);
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().expect("an array").iter()
}

fn builtin_metric(value: &Value) -> hbs::BuiltinMetric {
    let text = |name: &str| value[name].as_str().expect("text").to_string();
    hbs::BuiltinMetric { metric: text("Metric"), tags: text("Tags") }
}

#[test]
fn every_rule() {
    let recording = recording("judge_hbs");
    for message in messages(&recording.s2c, 1000) {
        let answer = jsonrpc::response(&message, &mut Scratch::new()).expect("recorded answer");
        let mut result = parsed(answer.result);
        let (mut rules, mut out) = (Rules::default(), Vec::new());
        if result.get("hostStrategies").is_some() {
            for host in list(&result["hostStrategies"]) {
                let name = host["hostname"].as_str().expect("text").to_string();
                let strategy = |value: &Value| -> Arc<Strategy> {
                    Arc::new(serde_json::from_value(value.clone()).expect("a strategy"))
                };
                rules.hosts.insert(name, list(&host["strategies"]).map(strategy).collect());
            }
            hbs::write_strategies(&mut out, &rules);
        } else {
            let expression = |value: &Value| -> Arc<Expression> {
                Arc::new(serde_json::from_value(value.clone()).expect("an expression"))
            };
            rules.expressions = list(&result["expressions"]).map(expression).collect();
            hbs::write_expressions(&mut out, &rules);
        }
        // The original's hosts come in the order of a Go map; all else is the same, to the byte.
        if let Some(hosts) = result.get_mut("hostStrategies").and_then(Value::as_array_mut) {
            hosts.sort_by_key(|host| host["hostname"].to_string());
        } else {
            assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(answer.result));
        }
        assert_eq!(parsed(&out), result);
        assert_eq!(out.len(), answer.result.len());
    }
}

/// One connection of the original judge: 15 pulls, in the time of which the rules changed and hosts came in any order.
#[test]
fn every_pull_of_rules() {
    let recording = recording("judge_hbs");
    let expected = expected_pulls(&recording);
    for size in [1, 7, 1000, recording.s2c.len()] {
        let pulls = pulled(&recording, size);
        assert_eq!(pulls.len(), expected.len());
        let mut before = None;
        for (pulled, expected) in pulls.iter().zip(&expected) {
            let same = |rules: &Rules| rules.hosts == expected.hosts && rules.expressions == expected.expressions;
            assert!(same(&pulled.1), "parts of {size}");
            let differs = before.is_none_or(|before: &Rules| !same(before));
            assert_eq!(pulled.0, differs, "parts of {size}: rules are new when they differ, and only then");
            before = Some(expected);
        }
    }
}

/// Whether they are new, and the rules, after each pull.
fn pulled(recording: &Recording, size: usize) -> Vec<(bool, Arc<Rules>)> {
    let mut known = hbs::KnownRules::new(hbs::AnswerLimits::default());
    let (mut reader, mut pulls, mut at) = (hbs::AnswerReader::new(), Vec::new(), 0);
    let ends = messages(&recording.s2c, 4096);
    for (message, call) in ends.iter().zip(&recording.calls) {
        let strategies = call["method"] == "Hbs.GetStrategies";
        if strategies {
            known.begin();
        }
        let kind = if strategies { hbs::Call::Strategies } else { hbs::Call::Expressions };
        assert_eq!(call["method"], kind.method());
        reader.begin(kind, call["id"].as_u64().expect("a number"));
        let text = &recording.s2c[at..at + message.len() + 1];
        at += text.len();
        let fed = text.chunks(size).map(|part| reader.feed(part, &mut known)).last();
        assert_eq!(fed, Some(Ok(hbs::Progress::Done)));
        if !strategies {
            let changed = known.finish().is_some();
            pulls.push((changed, known.rules().clone()));
        }
    }
    assert_eq!(known.left_out().count, 0);
    pulls
}

/// By serde, in order of id.
fn expected_pulls(recording: &Recording) -> Vec<Rules> {
    let rules = |pair: &[Value]| {
        let mut rules = Rules::default();
        for host in list(&pair[0]["result"]["hostStrategies"]) {
            let mut strategies: Vec<Arc<Strategy>> = list(&host["strategies"])
                .map(|value| Arc::new(serde_json::from_value(value.clone()).expect("a strategy")))
                .collect();
            strategies.sort_by_key(|strategy| strategy.id);
            if !strategies.is_empty() {
                rules.hosts.insert(host["hostname"].as_str().expect("text").to_string(), strategies.into());
            }
        }
        rules.expressions = list(&pair[1]["result"]["expressions"])
            .map(|value| Arc::new(serde_json::from_value(value.clone()).expect("an expression")))
            .collect();
        rules.expressions.sort_by_key(|expression| expression.id);
        rules
    };
    recording.calls.chunks(2).map(rules).collect()
}
