//! Alarms from a strategy made over REST to a callback, through crashes.

use crate::harness::{Api, Server, Target, gauge, this_minute, until};
use serde_json::{Value, json};

/// A strategy `cpu.idle all(#1) < 10` on a group with `host`, whose action calls `target`.
pub fn make_strategy(api: &Api<'_>, host: &str, target: &Target) -> Value {
    let group = api.post("/hostgroup", json!({"name": format!("group of {host}")}));
    api.post("/hostgroup/host", json!({"hostgroup_id": group["id"], "hosts": [host]}));
    let template = api.post("/template", json!({"name": format!("template of {host}"), "parent_id": 0}));
    api.post(
        "/template/action",
        json!({"tpl_id": template["id"], "uic": "", "url": target.url, "callback": 1, "before_callback_sms": 0,
               "before_callback_mail": 0, "after_callback_sms": 0, "after_callback_mail": 0}),
    );
    api.post(
        "/strategy",
        json!({"tpl_id": template["id"], "metric": "cpu.idle", "tags": "", "max_step": 1, "priority": 1, "func": "all(#1)",
               "op": "<", "right_value": "10", "note": "cpu is busy", "run_begin": "", "run_end": ""}),
    );
    api.post("/hostgroup/template", json!({"tpl_id": template["id"], "grp_id": group["id"]}));
    template["id"].clone()
}

#[test]
fn strategy_fires_recovers_and_survives_a_crash() {
    let target = Target::start();
    let mut server = Server::start("");
    let template = make_strategy(&server.admin(), "web-01", &target);
    let start = this_minute() - 600;
    let push = |server: &Server, minute: i64, value: f64| {
        server.update(json!([gauge("web-01", "cpu.idle", value, start + 60 * minute)]));
    };
    push(&server, 0, 50.0);
    push(&server, 1, 5.0);
    let first = target.next();
    for part in ["status=PROBLEM", "endpoint=web-01", "metric=cpu.idle", "step=1", "priority=1", "left_value=5"] {
        assert!(first.contains(part), "{part} in {first}");
    }
    assert!(first.contains(&format!("tpl_id={template}")), "{first}");
    push(&server, 2, 60.0);
    assert!(target.next().contains("status=OK"));
    assert_eq!(server.metric("hawkeye_event_latency_seconds_count"), 2.0);

    push(&server, 3, 4.0);
    assert!(target.next().contains("status=PROBLEM"));
    server.wait_for_deliveries();
    server.kill();
    server.restart();
    push(&server, 4, 3.0);
    push(&server, 5, 70.0);
    let after = target.next();
    assert!(after.contains("status=OK"), "the open PROBLEM was sent again: {after}");

    let api = server.admin();
    let cases = api.get("/alarm/eventcases?endpoints=web-01&status=OK&startTime=0&endTime=4102444800");
    assert_eq!(cases.as_array().map(Vec::len), Some(1), "{cases}");
    let events = api.get(&format!(
        "/alarm/events?event_id={}&startTime=0&endTime=4102444800",
        cases[0]["id"].as_str().expect("id")
    ));
    assert_eq!(events.as_array().map(Vec::len), Some(4), "{events}");
    assert_eq!(target.try_next(), None);
}

/// An expression `qps{module=shop} func > 100`, whose action calls `target`.
fn make_expression(api: &Api<'_>, target: &Target, func: &str) {
    api.post("/team", json!({"team_name": "ops", "resume": "", "users": []}));
    api.post(
        "/expression",
        json!({"expression": "each(metric=qps module=shop)", "func": func, "op": ">", "right_value": "100",
               "max_step": 1, "priority": 2, "note": "busy", "pause": 0,
               "action": {"uic": ["ops"], "url": target.url, "callback": 1, "before_callback_sms": 0,
                          "before_callback_mail": 0, "after_callback_sms": 0, "after_callback_mail": 0}}),
    );
}

#[test]
fn expression_fires_by_tags() {
    let target = Target::start();
    let server = Server::start("");
    make_expression(&server.admin(), &target, "max(#2)");
    let start = this_minute() - 600;
    let item = |minute: i64, value: f64, module: &str| {
        let mut item = gauge("web-02", "qps", value, start + 60 * minute);
        item["tags"] = json!(format!("idc=bj,module={module}"));
        item
    };
    server.update(json!([item(0, 50.0, "shop"), item(0, 500.0, "other")]));
    server.update(json!([item(1, 150.0, "shop"), item(1, 500.0, "other")]));
    let request = target.next();
    assert!(request.contains("status=PROBLEM") && request.contains("left_value=150"), "{request}");
    assert!(request.contains("module%3Ashop"), "{request}");
}

/// A rule with a text finds the point of the same text, as transfer reads it.
#[test]
fn rules_match_what_is_pushed_with_their_tags() {
    let target = Target::start();
    let server = Server::start("");
    let api = server.admin();
    let template = make_strategy(&api, "web-01", &target);
    let tagged = |endpoint: &str, metric: &str, tags: &str| {
        let mut item = gauge(endpoint, metric, 1.0, this_minute() - 60);
        item["tags"] = json!(tags);
        item
    };
    for (index, tags) in ["mount=/data, fstype=ext4", " module=x ", "mount=/my disk"].into_iter().enumerate() {
        let metric = format!("metric.{index}");
        let saved = api.post(
            "/strategy",
            json!({"tpl_id": template, "metric": metric, "tags": tags, "max_step": 1, "priority": 1, "func": "all(#1)",
                   "op": "<", "right_value": "10", "note": "", "run_begin": "", "run_end": ""}),
        );
        assert_eq!(saved["tags"], tags);
        server.update(json!([tagged("web-01", &metric, tags)]));
        let request = target.next();
        assert!(request.contains(&format!("metric={metric}")), "{tags:?}: {request}");
    }
    let expressions = ["each(metric=e.0, jmxport=9995)", "each(metric=e.1 endpoint=web-*)"];
    for (index, text) in expressions.into_iter().enumerate() {
        api.post(
            "/expression",
            json!({"expression": text, "func": "all(#1)", "op": "<", "right_value": "10", "max_step": 1, "priority": 2,
                   "note": "", "pause": 0, "action": {"uic": [], "url": target.url, "callback": 1}}),
        );
        let metric = format!("e.{index}");
        server.update(json!([tagged("db-01", &metric, "a=b"), tagged("web-07", &metric, "jmxport=9995,a=b")]));
        let request = target.next();
        assert!(
            request.contains(&format!("metric={metric}")) && request.contains("endpoint=web-07"),
            "{text}: {request}"
        );
    }
    assert_eq!(target.try_next(), None);
}

#[test]
fn rules_that_cannot_be_parsed_are_refused_when_saved() {
    let server = Server::start("");
    let api = server.admin();
    let template = api.post("/template", json!({"name": "t", "parent_id": 0}));
    let refuse = |field: &str, value: &str| {
        let mut strategy = json!({"tpl_id": template["id"], "metric": "m", "tags": "", "max_step": 1, "priority": 1,
            "func": "all(#1)", "op": "<", "right_value": "10", "note": "", "run_begin": "", "run_end": ""});
        strategy[field] = json!(value);
        let (status, answer) = api.request("POST", "/strategy", strategy);
        assert_eq!(status, 400, "{field}={value}: {answer}");
        assert!(!answer["error"].as_str().unwrap_or_default().is_empty(), "{answer}");
    };
    for func in ["", "all", "all(3)", "all(#)", "all(#0)", "nope(#1)", "lookup(#3)", "all(#99999999999)"] {
        refuse("func", func);
    }
    refuse("op", "~");
    refuse("right_value", "ten");
    refuse("run_begin", "noon");
    let (status, answer) = api.request(
        "POST",
        "/expression",
        json!({"expression": "metric=qps", "func": "max(#2)", "op": ">", "right_value": "1", "max_step": 1, "priority": 2,
               "note": "", "pause": 0, "action": {"uic": ["x"], "url": "", "callback": 0, "before_callback_sms": 0,
               "before_callback_mail": 0, "after_callback_sms": 0, "after_callback_mail": 0}}),
    );
    assert_eq!(status, 400, "{answer}");
}

/// A deleted strategy stops firing without a restart.
#[test]
fn deleted_strategy_is_silent() {
    let target = Target::start();
    let server = Server::start("");
    let api = server.admin();
    let template = make_strategy(&api, "web-03", &target);
    let strategies = api.get(&format!("/strategy?tid={template}"));
    let (status, answer) = api.request("DELETE", &format!("/strategy/{}", strategies[0]["id"]), Value::Null);
    assert_eq!(status, 200, "{answer}");
    let start = this_minute() - 600;
    server.update(json!([gauge("web-03", "cpu.idle", 1.0, start)]));
    // A rule of another host that fires afterwards shows that the first had its chance.
    make_strategy(&api, "web-04", &target);
    server.update(json!([gauge("web-04", "cpu.idle", 1.0, start)]));
    assert!(target.next().contains("endpoint=web-04"));
    assert_eq!(target.try_next(), None);
}

/// An alarm whose series is deleted never recovers; who was told of it is told that it is over, and its case is closed.
#[test]
fn deleting_an_endpoint_closes_its_cases() {
    let target = Target::start();
    let server = Server::start("");
    let api = server.admin();
    make_strategy(&api, "web-05", &target);
    server.update(json!([gauge("web-05", "cpu.idle", 1.0, this_minute() - 600)]));
    assert!(target.next().contains("status=PROBLEM"));
    let cases = |status: &str| {
        let path = format!("/alarm/eventcases?endpoints=web-05&status={status}&startTime=0&endTime=4102444800");
        api.get(&path).as_array().map(Vec::len)
    };
    assert_eq!(cases("PROBLEM"), Some(1));
    let (status, answer) = api.request("DELETE", "/graph/endpoint", json!(["web-05", "unknown"]));
    assert_eq!((status, answer), (200, json!({"affected_endpoint": 1, "affected_counter": 1})));
    // Closing goes the way of events: by the queue, some milliseconds behind the answer.
    until("the end of the case", || (cases("PROBLEM"), cases("OK")) == (Some(0), Some(1)));
    assert!(target.next().contains("status=OK"));
}

/// Cases are closed when their strategy goes, also if the process is killed right behind that.
#[test]
fn a_strategy_that_goes_closes_its_cases() {
    let target = Target::start();
    let mut server = Server::start("");
    let template = make_strategy(&server.admin(), "web-06", &target);
    server.update(json!([gauge("web-06", "cpu.idle", 1.0, this_minute() - 600)]));
    assert!(target.next().contains("status=PROBLEM"));
    let strategies = server.admin().get(&format!("/strategy?tid={template}"));
    let (status, answer) = server.admin().request("DELETE", &format!("/strategy/{}", strategies[0]["id"]), Value::Null);
    assert_eq!(status, 200, "{answer}");
    // Wherever alarm stands now.
    server.kill();
    server.restart();
    let api = server.admin();
    let cases = || api.get("/alarm/eventcases?endpoints=web-06&startTime=0&endTime=4102444800");
    until("the end of the case", || cases()[0]["status"] == "OK");
    assert_eq!(cases().as_array().map(Vec::len), Some(1));
    assert_eq!(cases()[0]["closed_note"], "the strategy was deleted");
    let events = api.get(&format!(
        "/alarm/events?event_id={}&startTime=0&endTime=4102444800",
        cases()[0]["id"].as_str().expect("id")
    ));
    assert_eq!(events[0]["explanation"]["closed"], "the strategy was deleted", "{events}");
    let problem = &events[1]["explanation"];
    let text = problem["text"].as_str().unwrap_or_default();
    assert!(text.starts_with("all(#1) < 10: 1 of 1 point below 10: 1 ("), "{events}");
    assert_eq!(problem["rule_version"], events[0]["explanation"]["rule_version"], "{events}");
    // A call that the kill cut off is told as unknown, and not made again.
    let is_unknown = || cases()[0]["told"].as_str().is_some_and(|told| told.contains("unknown"));
    until("the callback, or that nobody knows of it", || {
        target.try_next().is_some_and(|call| call.contains("status=OK")) || is_unknown()
    });
}

/// A template is deleted as a whole, with whom its alarms are told to: they learn of the end all the same.
#[test]
fn a_template_that_goes_tells_that_its_alarms_ended() {
    let target = Target::start();
    let server = Server::start("");
    let api = server.admin();
    let template = make_strategy(&api, "web-10", &target);
    server.update(json!([gauge("web-10", "cpu.idle", 1.0, this_minute() - 600)]));
    assert!(target.next().contains("status=PROBLEM"));
    let (status, answer) = api.request("DELETE", &format!("/template/{template}"), Value::Null);
    assert_eq!(status, 200, "{answer}");
    assert!(target.next().contains("status=OK"));
    assert_ended(&server, "web-10", "the strategy was deleted");
}

#[test]
fn an_expression_that_goes_tells_that_its_alarms_ended() {
    let target = Target::start();
    let server = Server::start("");
    let api = server.admin();
    make_expression(&api, &target, "max(#1)");
    let mut item = gauge("web-11", "qps", 150.0, this_minute() - 600);
    item["tags"] = json!("module=shop");
    server.update(json!([item]));
    assert!(target.next().contains("status=PROBLEM"));
    let expressions = api.get("/expression");
    let (status, answer) = api.request("DELETE", &format!("/expression/{}", expressions[0]["id"]), Value::Null);
    assert_eq!(status, 200, "{answer}");
    assert!(target.next().contains("status=OK"));
    assert_ended(&server, "web-11", "the expression was deleted");
}

/// The only case of `host` is over for this reason, and its rule's action was there to be told to.
fn assert_ended(server: &Server, host: &str, why: &str) {
    let cases = server.admin().get(&format!("/alarm/eventcases?endpoints={host}&startTime=0&endTime=4102444800"));
    assert_eq!((cases.as_array().map(Vec::len), &cases[0]["status"]), (Some(1), &json!("OK")), "{cases}");
    assert_eq!(cases[0]["closed_note"], why, "{cases}");
    assert!(!cases[0]["told"].as_str().is_some_and(|told| told.contains("action")), "{cases}");
}

/// A condition over two metrics, and a host that goes into maintenance while it holds.
#[test]
fn a_condition_over_two_metrics_ends_with_maintenance() {
    let target = Target::start();
    let server = Server::start("");
    let api = server.admin();
    let template = make_strategy(&api, "web-07", &target);
    let mut strategy = api.get(&format!("/strategy?tid={template}"))[0].clone();
    strategy["func"] = json!("all(#1) and max(#1) of mem.memfree.percent < 20");
    strategy["op"] = json!("<");
    let (status, answer) = api.request("PUT", "/strategy", strategy);
    assert_eq!(status, 200, "{answer}");
    let now = this_minute();
    server.update(json!([gauge("web-07", "cpu.idle", 1.0, now - 120)]));
    server.update(json!([gauge("web-07", "mem.memfree.percent", 90.0, now - 120)]));
    server.update(json!([gauge("web-07", "cpu.idle", 2.0, now - 60)]));
    server.update(json!([gauge("web-07", "mem.memfree.percent", 5.0, now - 60)]));
    let request = target.next();
    for part in ["status=PROBLEM", "metric=cpu.idle", "left_value=2"] {
        assert!(request.contains(part), "{part} in {request}");
    }
    let hosts = api.get(&format!("/hostgroup/{}", api.get("/hostgroup")[0]["id"]));
    let ids = json!([hosts["hosts"][0]["id"]]);
    let (begin, end) = (now - 3600, now + 3600);
    let (status, answer) =
        api.request("POST", "/host/maintain", json!({"ids": ids, "maintain_begin": begin, "maintain_end": end}));
    assert_eq!(status, 200, "{answer}");
    assert!(target.next().contains("status=OK"));
    let cases = api.get("/alarm/eventcases?endpoints=web-07&startTime=0&endTime=4102444800");
    let note = cases[0]["closed_note"].as_str().unwrap_or_default();
    assert!(note.starts_with("the host is in maintenance until 2"), "{cases}");
}

/// A callback runs a script: one that was on its way when the server was killed may have been received.
#[test]
fn a_callback_cut_off_by_a_kill_is_told_and_not_made_again() {
    let target = Target::silent();
    let mut server = Server::start("");
    make_strategy(&server.admin(), "web-08", &target);
    let start = this_minute() - 600;
    server.update(json!([gauge("web-08", "cpu.idle", 1.0, start)]));
    assert!(target.next().contains("status=PROBLEM"));
    server.kill();
    server.restart();
    let unknown = "hawkeye_alarm_deliveries_total{kind=\"callback\",result=\"unknown\"}";
    until("the end of the callback", || server.metric(unknown) == 1.0);
    let cases = server.admin().get("/alarm/eventcases?endpoints=web-08&startTime=0&endTime=4102444800");
    let told = cases[0]["told"].as_str().unwrap_or_default();
    assert!(told.starts_with("callback for PROBLEM failed: unknown: the server ended during this call"), "{cases}");
    server.update(json!([gauge("web-08", "cpu.idle", 90.0, start + 60)]));
    assert!(target.next().contains("status=OK"), "the PROBLEM is not called for again");
    assert_eq!(target.try_next(), None);
}

#[test]
fn a_callback_to_loopback_is_refused_unless_allowed() {
    let target = Target::start();
    // Only here is such a callback saved, with a warning; under "strict" it is refused.
    let server = Server::start("[api]\nrights = \"open-falcon\"\n[alarm]\n");
    make_strategy(&server.admin(), "web-09", &target);
    server.update(json!([gauge("web-09", "cpu.idle", 1.0, this_minute() - 600)]));
    let denied = "hawkeye_alarm_deliveries_total{kind=\"callback\",result=\"denied\"}";
    until("the end of the callback", || server.metric(denied) == 1.0);
    let cases = server.admin().get("/alarm/eventcases?endpoints=web-09&startTime=0&endTime=4102444800");
    let told = cases[0]["told"].as_str().unwrap_or_default();
    assert!(told.contains("127.0.0.1 is a loopback address") && told.contains("alarm.callback_allow"), "{cases}");
    assert_eq!(target.try_next(), None);
}
