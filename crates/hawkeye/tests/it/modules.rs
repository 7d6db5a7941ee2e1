//! Modules beside the way of a point: aggregators, and the routes of an old hbs.

use crate::alarms::make_strategy;
use crate::harness::{Server, Target, find, now};
use serde_json::json;

/// The mean of a group over REST: created, computed, charted, explained, and gone with its group.
#[test]
fn a_group_has_the_mean_of_its_hosts() {
    let server = Server::start("[ingest]\nmin_step = 1\n");
    let api = server.admin();
    let group = api.post("/hostgroup", json!({ "name": "web" }));
    api.post("/hostgroup/host", json!({ "hostgroup_id": group["id"], "hosts": ["web-01", "web-02", "web-03"] }));
    let aggregator = api.post(
        "/aggregator",
        json!({
            "hostgroup_id": group["id"], "numerator": "$(qps/module=shop)", "denominator": "$#", "endpoint": "web",
            "metric": "qps.mean", "tags": "module=shop", "step": 2,
        }),
    );
    let path = format!("/aggregator/{}/last", aggregator["id"]);
    let last = find("a value of the aggregator", || {
        let item = |endpoint: &str, value: f64| {
            json!({ "endpoint": endpoint, "metric": "qps", "value": value, "step": 1, "counterType": "GAUGE",
                    "tags": "module=shop", "timestamp": now() })
        };
        server.update(json!([item("web-01", 10.0), item("web-02", 20.0)]));
        let (status, last) = api.request("GET", &path, json!(null));
        (status == 200 && last["valid"] == 2).then_some(last)
    });
    assert_eq!((&last["value"], &last["hosts"], &last["why"]), (&json!(15.0), &json!(3), &json!("")));
    assert_eq!(last["missing"], json!([{ "endpoint": "web-03", "counter": "qps/module=shop" }]));
    let point = api.post("/graph/lastpoint", json!([{ "endpoint": "web", "counter": "qps.mean/module=shop" }]));
    assert_eq!(point[0]["value"]["value"], json!(15.0));
    assert!(server.metric("hawkeye_items_received_total{door=\"aggregator\"}") >= 1.0);
    // With the group it goes.
    assert_eq!(api.request("DELETE", &format!("/hostgroup/{}", group["id"]), json!(null)).0, 200);
    assert_eq!(api.request("GET", &path, json!(null)).0, 417);
}

/// Scripts ask the original's hbs what holds.
#[test]
fn old_routes_of_hbs_answer() {
    let target = Target::start();
    let server = Server::start("");
    let api = server.admin();
    let template = make_strategy(&api, "web-01", &target);
    let ask = |path: &str| {
        let (status, body) = server.http("hbs_http", "GET", path, "", "");
        assert_eq!(status, 200, "{path}: {body}");
        let answer: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(answer["msg"], "success", "{path}");
        answer["data"].clone()
    };
    assert_eq!(server.http("hbs_http", "GET", "/health", "", ""), (200, "ok".to_string()));
    assert_eq!(ask("/hosts"), json!({ "1": { "Id": 1, "Name": "web-01" } }));
    assert_eq!(ask("/agents"), json!([]), "it is in a group, and has not reported");
    let report = json!({ "Hostname": "web-01", "IP": "10.0.0.1", "AgentVersion": "7.0", "PluginVersion": "" });
    server.call("hbs_rpc", "Agent.ReportStatus", report);
    assert_eq!(ask("/agents"), json!(["web-01"]));
    let strategies = ask("/strategies");
    assert_eq!((&strategies["1"]["metric"], &strategies["1"]["tpl"]["id"]), (&json!("cpu.idle"), &template));
    let name = "template of web-01";
    let expected = json!({ "1": { "id": 1, "name": name, "parentId": 0, "actionId": 1, "creator": "root" } });
    assert_eq!(ask("/templates"), expected);
    assert_eq!((ask("/expressions"), ask("/plugins/web-01")), (json!([]), json!([])));
    let window = json!({ "hosts": ["web-01"], "maintain_begin": now() - 60, "maintain_end": now() + 600 });
    api.post("/host/maintain", window);
    assert_eq!(ask("/hosts"), json!({}));
}
