//! Screens, charts, nodata and aggregators: what is refused, and with which text.

use super::{Site, site};
use crate::config::Grafana;
use crate::portal::{dashboard, group};
use anyhow::Result;
use serde_json::{Value, json};

fn chart(change: Value) -> Value {
    let mut chart = json!({ "screen_id": 1, "title": "cpu", "endpoints": ["b", "a"], "counters": ["cpu.idle"] });
    for (key, value) in change.as_object().into_iter().flatten() {
        chart[key] = value.clone();
    }
    chart
}

#[tokio::test]
async fn charts_that_cannot_be_shown_are_refused() -> Result<()> {
    let site = site(|_| {}).await?;
    let screen = dashboard::ensure_screen(&site.context.portal, 0, "top").await?;
    let refused =
        async |change: Value, text: &str| site.check("alice", "POST /dashboard/graph", chart(change), 400, text).await;
    refused(json!({ "screen_id": 99 }), "screen_id: there is no screen 99").await?;
    refused(json!({ "title": null }), "title is required").await?;
    refused(json!({ "endpoints": ["a|b"] }), "endpoints: \"a|b\" has a `|`, which joins the names of the list").await?;
    refused(json!({ "counters": [] }), "counters is required: a list of names").await?;
    refused(json!({ "graph_type": "x" }), "graph_type is \"x\": give one of h, k, a").await?;
    refused(json!({ "method": "P99" }), "method is \"P99\": give one of SUM, AVERAGE, MAX, MIN, LAST").await?;
    refused(json!({ "timespan": -1 }), "timespan must be from 1 to 316224000 seconds").await?;
    let long = "counters is longer than 1024 characters";
    refused(json!({ "counters": ["x".repeat(600), "y".repeat(600)] }), long).await?;
    let (status, made) = site.ask("alice", "POST /dashboard/graph", chart(json!({ "method": "SUM" }))).await?;
    assert_eq!(status, 200);
    let line = format!("PUT /dashboard/graph/{}", made["id"]);
    site.check("bob", &line, json!({ "title": "new" }), 200, made.clone()).await?;
    let (_, shown) = site.ask("bob", &format!("GET /dashboard/graph/{}", made["id"]), Value::Null).await?;
    assert_eq!(
        (&shown["title"], &shown["method"], &shown["endpoints"]),
        (&json!("new"), &json!(""), &json!(["a", "b"]))
    );
    let line = format!("PUT /dashboard/screen/{}", screen.id);
    site.check("bob", &line, json!({ "pid": screen.id }), 400, "pid: a screen is not in itself").await?;
    site.check("bob", "PUT /dashboard/screen/99", json!({ "name": "x" }), 200, "ok").await?;
    let other = dashboard::ensure_screen(&site.context.portal, 0, "other").await?;
    let line = format!("PUT /dashboard/screen/{}", other.id);
    let taken = "a screen named \"Top\" exists there already";
    site.check("bob", &line, json!({ "name": "Top" }), 417, taken).await
}

#[tokio::test]
async fn what_cannot_be_computed_or_mocked_is_refused() -> Result<()> {
    let site = site(|_| {}).await?;
    let group = group::create(&site.context.portal, "web", "alice").await?.id;
    let aggregator = |numerator: &str, denominator: &str, step: i64| {
        json!({
            "hostgroup_id": group, "numerator": numerator, "denominator": denominator, "endpoint": "web", "metric": "m",
            "tags": "", "step": step,
        })
    };
    let check = async |body: Value, text: &str| site.check("alice", "POST /aggregator", body, 400, text).await;
    check(aggregator("$#", "1", 60), "numerator and denominator have no counter: write one as $(cpu.idle)").await?;
    let zero = "denominator is 0, and nothing is divided by that: write 1 for the numerator alone";
    check(aggregator("$(a)", "0", 60), zero).await?;
    check(aggregator("$(a)", "$#", 86_401), "step must be from 1 to 86400 seconds").await?;
    let unknown = json!({
        "hostgroup_id": 99, "numerator": "$(a)", "denominator": "$#", "endpoint": "web", "metric": "m", "step": 60,
    });
    site.check("alice", "POST /aggregator", unknown, 417, "record not found").await?;
    let nodata = |obj: &str, dstype: &str| json!({ "name": "n", "obj": obj, "obj_type": "group", "metric": "m", "dstype": dstype, "step": 60, "mock": -1 });
    let check = async |body: Value, text: &str| site.check("alice", "POST /nodata/", body, 400, text).await;
    check(nodata("web\nnone", "GAUGE"), "obj: there is no host group \"none\": make it, or name another").await?;
    check(nodata("web", "COUNTER"), "dstype is \"COUNTER\": only a GAUGE can be mocked").await?;
    let (status, made) = site.ask("alice", "POST /nodata/", nodata("Web\r\n web", "GAUGE")).await?;
    assert_eq!((status, &made["obj"]), (200, &json!("Web\nweb")));
    site.check("alice", "POST /nodata/", nodata("web", "GAUGE"), 417, "a nodata named \"n\" exists already").await
}

#[tokio::test]
async fn grafana_reads_without_a_login_where_it_may() -> Result<()> {
    let ask = async |site: &Site, user: &str, line: &str| site.ask(user, line, Value::Null).await;
    let open = site(|_| {}).await?;
    let login = site(|config| config.api.grafana = Grafana::Login).await?;
    for line in
        ["GET /grafana", "GET /grafana/metrics/find?query=a%23b", "GET /grafana/render?target=a%23b&from=1&until=2"]
    {
        assert_eq!(ask(&open, "", line).await?, (200, json!([])), "{line}");
        assert_eq!(ask(&login, "", line).await?.0, 401, "{line}");
        assert_eq!(ask(&login, "bob", line).await?, (200, json!([])), "{line}");
    }
    // A bad regular expression finds nothing.
    assert_eq!(ask(&open, "", "GET /grafana/metrics/find?query=(").await?, (200, json!([])));
    assert_eq!(ask(&open, "", "GET /grafana/metrics/find?query=a%23(").await?, (200, json!([])));
    let line = format!("GET /grafana/render?from=1&until=2{}", "&target=a".repeat(101));
    open.check("", &line, Value::Null, 400, "101 targets: ask for at most 100").await
}
