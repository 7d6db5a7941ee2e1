//! Modules that make points of points: what is saved over REST is computed, stored and judged.

use crate::harness::{Server, find, now};
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
