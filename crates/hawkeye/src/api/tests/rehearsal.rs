//! `POST /strategy/replay`: which series and events it finds, what it refuses, and that it saves nothing.

use super::{Site, site};
use crate::clock;
use crate::portal::{group, strategy, template};
use anyhow::Result;
use model::{CounterType, Point, Sample, SeriesKey, Tags};
use serde_json::{Value, json};

const LINE: &str = "POST /strategy/replay";

/// Minutes from the beginning of the history to now.
const MINUTES: i64 = 120;

/// A site whose hosts a, b and c have a history of `cpu.idle` that is low in its minutes 10 to 14, 20 to 29, and never;
/// and of `load` that is high from minute 12 on. The template is bound to a group with a and b.
struct Past {
    site: Site,
    tpl_id: i64,
    start: i64,
}

async fn past() -> Result<Past> {
    let site = site(|_| {}).await?;
    let now = clock::now();
    let start = now - now % 60 - MINUTES * 60;
    for (host, low) in [("a", 10..15), ("b", 20..30), ("c", 0..0)] {
        push(&site, host, "cpu.idle", start, |minute| if low.contains(&minute) { 5.0 } else { 50.0 })?;
        push(&site, host, "load", start, |minute| if minute >= 12 { 9.0 } else { 1.0 })?;
    }
    let portal = &site.context.portal;
    let template = template::create(portal, "base", 0, 0, "alice").await?;
    let group = group::create(portal, "web", "alice").await?;
    group::replace_hosts(portal, group.id, &["a".to_string(), "b".to_string()]).await?;
    group::bind_template(portal, group.id, template.id, "alice").await?;
    Ok(Past { site, tpl_id: template.id, start })
}

fn push(site: &Site, endpoint: &str, metric: &str, start: i64, value: impl Fn(i64) -> f64) -> Result<()> {
    let key = SeriesKey { endpoint, metric, tags: Tags::EMPTY };
    let series =
        site.context.engine.create(key, CounterType::Gauge, 60, 0).map_err(|error| anyhow::anyhow!("{error}"))?;
    let sample = |minute| Sample { series, point: Point { time: start + minute * 60, value: value(minute) } };
    let samples: Vec<Sample> = (0..=MINUTES).map(sample).collect();
    site.context
        .engine
        .append(&samples, clock::now(), std::time::Instant::now())
        .map_err(|error| anyhow::anyhow!("{error}"))
}

fn low(change: Value) -> Value {
    let mut rule = json!({ "metric": "cpu.idle", "func": "all(#3)", "op": "<", "right_value": "10", "max_step": 1 });
    for (name, value) in change.as_object().into_iter().flatten() {
        rule[name] = value.clone();
    }
    rule
}

impl Past {
    async fn ask(&self, body: Value) -> Result<Value> {
        let (status, answer) = self.site.ask("bob", LINE, body.clone()).await?;
        assert_eq!(status, 200, "{body}: {answer}");
        Ok(answer)
    }

    /// The events as (host, status, minute).
    fn events(&self, answer: &Value) -> Vec<(String, String, i64)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let events = answer["events"].as_array().into_iter().flatten();
        events
            .map(|event| {
                let minute = (event["time"].as_i64().unwrap_or_default() - self.start) / 60;
                (text(&event["endpoint"]), text(&event["status"]), minute)
            })
            .collect()
    }

    async fn check(&self, body: Value, expected: &[(&str, &str, i64)]) -> Result<()> {
        let answer = self.ask(body.clone()).await?;
        let events = self.events(&answer);
        let events: Vec<_> =
            events.iter().map(|(host, status, minute)| (host.as_str(), status.as_str(), *minute)).collect();
        assert_eq!(events, expected, "{body}");
        Ok(())
    }
}

const OF_A: [(&str, &str, i64); 2] = [("a", "PROBLEM", 12), ("a", "OK", 15)];
const OF_B: [(&str, &str, i64); 2] = [("b", "PROBLEM", 22), ("b", "OK", 30)];

#[tokio::test]
async fn a_rule_that_is_not_saved() -> Result<()> {
    let past = past().await?;
    let both = [OF_A, OF_B].concat();
    let before = past.site.context.portal.version();
    past.check(low(json!({ "tpl_id": past.tpl_id })), &both).await?;
    past.check(low(json!({ "hosts": ["b", "c", "nobody"] })), &OF_B).await?;
    past.check(low(json!({ "hosts": ["*"] })), &both).await?;
    past.check(low(json!({ "hosts": ["*"], "from": past.start + 16 * 60 })), &OF_B).await?;
    past.check(low(json!({ "hosts": ["*"], "from": "-2d", "to": (past.start + 16 * 60).to_string() })), &OF_A).await?;
    // The window is warm: the third low point is the first that counts.
    past.check(low(json!({ "hosts": ["a"], "from": past.start + 12 * 60 })), &OF_A).await?;
    past.check(low(json!({ "hosts": ["a"], "tags": "no=such" })), &[]).await?;
    past.check(low(json!({ "hosts": ["a", "b"], "func": "all(#3) and all(#1) of load > 5" })), &both).await?;
    past.check(
        low(json!({ "hosts": ["a"], "func": "all(#1) and all(#1) of load < 5" })),
        &[("a", "PROBLEM", 10), ("a", "OK", 12)],
    )
    .await?;
    assert_eq!(past.site.context.portal.version(), before, "nothing is saved");
    Ok(())
}

#[tokio::test]
async fn a_saved_rule_with_changes() -> Result<()> {
    let past = past().await?;
    let saved = json!({ "metric": "cpu.idle", "tags": "", "max_step": 3, "priority": 0, "func": "all(#3)", "op": "<",
                        "right_value": "1", "note": "", "run_begin": "", "run_end": "", "tpl_id": past.tpl_id });
    let (status, saved) = past.site.ask("alice", "POST /strategy", saved).await?;
    assert_eq!(status, 200, "{saved}");
    let id = saved["id"].as_i64().unwrap_or_default();
    past.check(json!({ "id": id }), &[]).await?;
    past.check(json!({ "id": id, "right_value": "10", "max_step": 1 }), &[OF_A, OF_B].concat()).await?;
    past.check(json!({ "id": id, "right_value": "10", "max_step": 1, "hosts": ["a"] }), &OF_A).await?;
    let row = strategy::by_id(&past.site.context.portal, id).await?;
    assert_eq!(row.map(|row| row.right_value).as_deref(), Some("1"));
    Ok(())
}

#[tokio::test]
async fn a_template_below_is_watched_and_one_that_replaces_is_not() -> Result<()> {
    let past = past().await?;
    let portal = &past.site.context.portal;
    let leaf = template::create(portal, "leaf", past.tpl_id, 0, "alice").await?;
    let group = group::create(portal, "leaf", "alice").await?;
    group::replace_hosts(portal, group.id, &["c".to_string()]).await?;
    group::bind_template(portal, group.id, leaf.id, "alice").await?;
    let high = json!({ "metric": "load", "func": "all(#1)", "op": ">", "right_value": "5", "tpl_id": past.tpl_id, "max_step": 1 });
    let hosts = |answer: Value| past.events(&answer).into_iter().map(|(host, _, _)| host).collect::<Vec<_>>();
    assert_eq!(hosts(past.ask(high.clone()).await?), ["a", "b", "c"]);
    let own = json!({ "metric": "load", "tags": "", "max_step": 3, "priority": 0, "func": "all(#3)", "op": "<",
                      "right_value": "1", "note": "", "run_begin": "", "run_end": "", "tpl_id": leaf.id });
    assert_eq!(past.site.ask("alice", "POST /strategy", own).await?.0, 200);
    assert_eq!(hosts(past.ask(high).await?), ["a", "b"]);
    Ok(())
}

#[tokio::test]
async fn an_expression_saved_or_not() -> Result<()> {
    let past = past().await?;
    let rule = json!({ "expression": "each(metric=cpu.idle endpoint=b)", "func": "all(#3)", "op": "<", "right_value": "10",
                       "max_step": 1 });
    past.check(rule.clone(), &OF_B).await?;
    let mut saved = rule;
    saved["action"] = json!({ "uic": [], "callback": 0 });
    saved["priority"] = json!(1);
    saved["right_value"] = json!("1");
    assert_eq!(past.site.ask("alice", "POST /expression", saved).await?.0, 200);
    past.check(json!({ "expression_id": 1 }), &[]).await?;
    past.check(json!({ "expression_id": 1, "right_value": "10" }), &OF_B).await?;
    past.check(
        json!({ "expression_id": 1, "right_value": "10", "expression": "each(metric=cpu.idle endpoint=a)" }),
        &OF_A,
    )
    .await
}

#[tokio::test]
async fn what_the_answer_says() -> Result<()> {
    let past = past().await?;
    let answer = past.ask(low(json!({ "hosts": ["*"], "priority": 2 }))).await?;
    assert_eq!((&answer["series"], &answer["hosts"], &answer["complete"]), (&json!(3), &json!(3), &json!(true)));
    assert_eq!(answer["points"], json!(3 * (MINUTES + 1)));
    assert_eq!(answer["points_from"], Value::Null);
    let summary = &answer["summary"];
    let expected = json!({ "events": 4, "alarms": 2, "repeats": 0, "recoveries": 2, "open_at_end": 0, "problem_seconds": 660,
        "hosts": 2, "series": 2,
        "noisiest_hosts": [{ "endpoint": "b", "alarms": 1, "events": 2, "problem_seconds": 480 },
                           { "endpoint": "a", "alarms": 1, "events": 2, "problem_seconds": 180 }],
        "noisiest_series": [{ "endpoint": "b", "counter": "cpu.idle", "alarms": 1, "events": 2, "problem_seconds": 480 },
                            { "endpoint": "a", "counter": "cpu.idle", "alarms": 1, "events": 2, "problem_seconds": 180 }] });
    assert_eq!(summary, &expected);
    let first = &answer["events"][0];
    assert_eq!((&first["step"], &first["max_step"], &first["priority"]), (&json!(1), &json!(1), &json!(2)));
    assert_eq!((&first["left_value"], &first["counter"]), (&json!(5.0), &json!("cpu.idle")));
    let text = first["text"].as_str().unwrap_or_default();
    assert!(text.starts_with("all(#3) < 10: 3 of 3 points below 10: 5, 5, 5 ("), "{text}");
    assert_eq!(first["explanation"]["terms"][0]["points"].as_array().map(Vec::len), Some(3));
    let none = past.ask(low(json!({ "hosts": ["nobody"] }))).await?;
    assert_eq!(none["notes"], json!(["no series matches: see hosts, metric and tags"]));
    Ok(())
}

/// A rule is out of force outside its hours, and its alarm ends with them.
#[tokio::test]
async fn hours_are_honoured() -> Result<()> {
    let past = past().await?;
    let at = |minute: i64| crate::clock::local_text(past.start + minute * 60)[11..16].to_string();
    // Two hours of history: no minute of the day comes twice.
    let body = low(json!({ "hosts": ["*"], "run_begin": at(0), "run_end": at(24) }));
    past.check(body.clone(), &[OF_A.as_slice(), &[("b", "PROBLEM", 22), ("b", "OK", 25)]].concat()).await?;
    let answer = past.ask(body).await?;
    let expected = format!("closed: outside the strategy's hours, {} to {}", at(0), at(24));
    assert_eq!(answer["events"][3]["text"], json!(expected));
    Ok(())
}

#[tokio::test]
async fn silence_is_rehearsed_to_the_end() -> Result<()> {
    let past = past().await?;
    let site = &past.site;
    push(site, "d", "ping", past.start - 30 * 60, |_| 1.0)?;
    let body =
        json!({ "metric": "ping", "func": "nodata(#3)", "op": "=", "right_value": "0", "hosts": ["*"], "max_step": 1 });
    past.check(body, &[("d", "PROBLEM", MINUTES - 30 + 4)]).await
}

#[tokio::test]
async fn text_for_people() -> Result<()> {
    let past = past().await?;
    let ask = async |line: &str, accept: &str| -> Result<String> {
        let headers = vec![
            ("content-type", "application/json".to_string()),
            ("accept", accept.to_string()),
            ("apitoken", past.site.token("bob").await?),
        ];
        Ok(past.site.send_for_text(line, &headers, low(json!({ "hosts": ["*"] })).to_string()).await?.1)
    };
    let text = ask("POST /strategy/replay?format=text", "*/*").await?;
    let first = crate::clock::local_text(past.start + 12 * 60);
    assert!(text.starts_with(&format!("{first}  PROBLEM 1/1  a cpu.idle  5  all(#3) < 10: 3 of 3 points")), "{text}");
    assert!(text.contains("events   4: 2 alarms, 0 repeats, 2 recoveries\n"), "{text}");
    assert!(ask(LINE, "text/plain").await?.starts_with(&first));
    assert!(ask("POST /strategy/replay?format=json", "text/plain").await?.starts_with('{'));
    assert!(ask("POST /strategy/replay?format=xml", "*/*").await?.contains("give json or text"));
    Ok(())
}

#[tokio::test]
async fn what_is_refused() -> Result<()> {
    let past = past().await?;
    let cases = [
        (low(json!({ "hosts": ["a"], "func": "all(#3) und all(#1)" })), "func `all(#3) und all(#1)`, column 9"),
        (low(json!({ "hosts": ["a"], "func": "all(#999)" })), "judge looks back"),
        (low(json!({ "hosts": ["a"], "op": "~" })), "op's formating is not vaild"),
        (low(json!({ "hosts": ["a"], "right_value": 10 })), "right_value must be a text"),
        (low(json!({ "hosts": ["a"], "run_begin": "noon" })), "run_begin's formating"),
        (low(json!({})), "hosts is required, unless tpl_id or id names a template"),
        (low(json!({ "tpl_id": 99 })), "tpl_id: there is no template 99"),
        (json!({ "id": 99 }), "id: there is no strategy 99"),
        (json!({ "expression_id": 99 }), "expression_id: there is no expression 99"),
        (json!({ "expression": "cpu.idle" }), "func is required"),
        (
            json!({ "expression": "cpu.idle", "func": "all(#1)", "op": ">", "right_value": "1" }),
            "no opening parenthesis",
        ),
        (low(json!({ "hosts": ["a"], "rightvalue": "1" })), "rightvalue is no field of this request"),
        (low(json!({ "hosts": ["a"], "from": "yesterday" })), "from is \"yesterday\": give Unix seconds"),
        (low(json!({ "hosts": ["a"], "from": "now" })), "from must be the earlier"),
        (low(json!({ "hosts": ["a"], "from": 0, "to": [] })), "to is []: give Unix seconds"),
        (json!([1]), "the body is not the JSON wanted"),
    ];
    for (body, part) in cases {
        let (status, answer) = past.site.ask("bob", LINE, body.clone()).await?;
        let text = answer["error"].as_str().unwrap_or_default();
        assert!(status == 400 && text.contains(part), "{body}: {status} {text:?}, want {part:?}");
    }
    let (status, answer) = past.site.ask("", LINE, low(json!({ "hosts": ["a"] }))).await?;
    assert_eq!((status, &answer["error"]), (401, &json!("token key is not set")));
    Ok(())
}

/// Exceptions that are saved for a strategy are played as well, also with another threshold.
#[tokio::test]
async fn exceptions_of_a_saved_rule_are_played() -> Result<()> {
    let past = past().await?;
    let mut saved = low(json!({ "tpl_id": past.tpl_id, "priority": 0 }));
    saved["right_value"] = "1".into();
    let (status, saved) = past.site.ask("alice", "POST /strategy", saved).await?;
    assert_eq!(status, 200, "{saved}");
    let id = saved["id"].as_i64().unwrap_or_default();
    let except = async |target: &str, change: Value| -> Result<()> {
        let mut body = json!({ "strategy_id": id, "kind": "host", "target": target });
        for (name, value) in change.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        let (status, answer) = past.site.ask("alice", "POST /exception", body).await?;
        assert_eq!(status, 200, "{answer}");
        Ok(())
    };
    except("a", json!({ "right_value": "10" })).await?;
    past.check(json!({ "id": id }), &OF_A).await?;
    past.check(json!({ "id": id, "hosts": ["a", "b"] }), &OF_A).await?;
    past.check(json!({ "id": id, "hosts": ["*"] }), &OF_A).await?;
    except("b", json!({ "pause": 1 })).await?;
    past.check(json!({ "id": id, "right_value": "100", "hosts": ["b"] }), &[]).await?;
    past.check(json!({ "id": id, "right_value": "10" }), &OF_A).await?;
    Ok(())
}
