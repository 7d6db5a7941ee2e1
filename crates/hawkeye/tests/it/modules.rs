//! Modules beside the way of a point: aggregators, and the routes of old modules and of the old dashboard.

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

/// Monitors ask the old alarm, aggregator and nodata.
#[test]
fn old_routes_of_alarm_aggregator_and_nodata_answer() {
    let server = Server::start("[ingest]\nmin_step = 1\n");
    let api = server.admin();
    let text = |listener: &str, path: &str| {
        let (status, body) = server.http(listener, "GET", path, "", "");
        assert_eq!(status, 200, "{listener}{path}: {body}");
        body
    };
    for listener in ["alarm_http", "aggregator_http", "nodata_http"] {
        assert_eq!(text(listener, "/health").trim_end(), "ok");
        assert_eq!(text(listener, "/version").trim_end(), env!("CARGO_PKG_VERSION"));
        for hidden in ["/workdir", "/config"] {
            assert_eq!(server.http(listener, "GET", hidden, "", "").0, 404, "{listener}{hidden}");
        }
    }
    let group = api.post("/hostgroup", json!({ "name": "web" }));
    api.post("/hostgroup/host", json!({ "hostgroup_id": group["id"], "hosts": ["web-01", "web-02"] }));
    api.post(
        "/aggregator",
        json!({
            "hostgroup_id": group["id"], "numerator": "$(qps)", "denominator": "$#", "endpoint": "web",
            "metric": "qps.mean", "tags": "a=b", "step": 60,
        }),
    );
    let line = "<Id:1, GroupId:1, Numerator:$(qps), Denominator:$#, Endpoint:web, Metric:qps.mean, Tags:a=b, \
                DsType:GAUGE, Step:60>\n";
    assert_eq!(text("aggregator_http", "/items"), line);
    assert!(text("aggregator_http", "/config/reload").starts_with("nothing to reload"));
    api.post(
        "/nodata/",
        json!({
            "name": "alive", "obj": "web", "obj_type": "group", "metric": "agent.alive", "tags": "b=2,a=1",
            "dstype": "GAUGE", "step": 60, "mock": -1,
        }),
    );
    let ask = |path: &str| {
        let answer: serde_json::Value = serde_json::from_str(&text("nodata_http", path)).expect("JSON");
        assert_eq!(answer["msg"], "success", "{path}");
        answer["data"].clone()
    };
    let series = "web-01/agent.alive/a=1,b=2";
    let row = json!({
        "id": 1, "name": "alive", "objType": "group", "endpoint": "web-01", "metric": "agent.alive",
        "tags": { "a": "1", "b": "2" }, "type": "GAUGE", "step": 60, "mock": -1.0,
    });
    assert_eq!(ask(&format!("/proc/config/{series}")), row);
    let all = ask("/proc/config");
    assert_eq!((all.as_object().map(serde_json::Map::len), &all[series]), (Some(2), &row));
    assert_eq!(ask("/proc/config/none/x")["id"], 0);
    assert_eq!(ask(&format!("/proc/status/{series}"))["Status"], "OK");
    assert_eq!(ask("/proc/status/none/x")["Key"], "");
    assert_eq!(ask("/proc/group/web"), json!({ "web-01": 1, "web-02": 2 }));
    server.update(json!([{ "endpoint": "web-01", "metric": "agent.alive", "value": 1, "step": 60,
                           "counterType": "GAUGE", "tags": "a=1,b=2", "timestamp": now() }]));
    let collected = ask(&format!("/proc/collect/{series}"));
    assert!(collected.as_str().is_some_and(|text| text.contains(", value:1.000000, ") && text.ends_with("fstatus:OK")));
    let counters = ask("/proc/counters");
    let names: Vec<_> = counters.as_array().expect("a list").iter().filter_map(|one| one["Name"].as_str()).collect();
    assert_eq!((names.len(), names[0], names[14]), (15, "ConfigCronCnt", "nodata.blocking"));
    assert_eq!(ask("/statistics/all").as_array().map(Vec::len), Some(15));
    // Scripts ask the old dashboard for the hosts of a group, by its name or id.
    let ask_dashboard = |group: &str, headers: &str| {
        let (status, body) = server.http("api", "GET", &format!("/api/group/{group}/hosts.json"), headers, "");
        (status, serde_json::from_str::<serde_json::Value>(&body).expect("JSON"))
    };
    assert_eq!(ask_dashboard("web", "").0, 401);
    let token = format!("Apitoken: {}\r\n", api.token);
    let hosts = json!({ "msg": "", "data": ["web-01", "web-02"] });
    assert_eq!(ask_dashboard("web", &token), (200, hosts.clone()));
    assert_eq!(ask_dashboard("1", &token), (200, hosts));
    assert_eq!(ask_dashboard("none", &token), (200, json!({ "msg": "no such group none" })));
}

/// A Prometheus reads what the store has of chosen metrics, and what a transfer sends.
#[test]
fn a_prometheus_reads_the_store_and_what_transfers_send() {
    let server = Server::start("[p8s]\nmetrics = [\"cpu.\"]\n");
    let point = |metric: &str, kind: &str, value: f64| {
        json!({ "endpoint": "prom-host", "metric": metric, "value": value, "step": 60, "counterType": kind,
                "tags": "core=0", "timestamp": now() })
    };
    server.update(json!([
        point("cpu.idle", "GAUGE", 1.5),
        point("cpu.switches", "COUNTER", 7.0),
        point("mem", "GAUGE", 1.0)
    ]));
    let page = || {
        let (status, page) = server.http("p8s_http", "GET", "/metrics", "", "");
        assert_eq!(status, 200, "{page}");
        page
    };
    let expected = "# TYPE cpu_idle gauge\ncpu_idle{hostname=\"prom-host\",core=\"0\"} 1.5\n\
                    # TYPE cpu_switches counter\ncpu_switches{hostname=\"prom-host\",core=\"0\"} 7\n";
    assert_eq!(page(), expected);
    let p8s = format!("127.0.0.1:{}", server.port("p8s_rpc"));
    let transfer = Server::start(&format!("roles = [\"transfer\"]\n[transfer.p8s]\ncluster = {{ a = {p8s:?} }}\n"));
    transfer.update(json!([point("2xx.count", "COUNTER", 3.0)]));
    find("what the transfer sent", || {
        page().contains("F_2xx_count{hostname=\"prom-host\",core=\"0\"} 3\n").then_some(())
    });
}
