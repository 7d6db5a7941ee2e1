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
    let screen = dashboard::ensure_screen(&site.context.portal, 0, "top").await?.0;
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
    let child = dashboard::ensure_screen(&site.context.portal, screen.id, "child").await?.0;
    site.check("bob", &line, json!({ "pid": child.id }), 400, "pid: a screen is not in itself").await?;
    site.check("bob", "GET /dashboard/screens?limit=1&page=2", Value::Null, 200, json!([child])).await?;
    let form = [("apitoken", site.token("bob").await?)];
    let kept = site.send("POST /dashboard/tmpgraph", &form, "Endpoints=a&Endpoints=b&Counters=c".to_string()).await?;
    assert_eq!(kept.0, 200, "names of Go's fields");
    site.check("bob", "PUT /dashboard/screen/99", json!({ "name": "x" }), 200, "ok").await?;
    let other = dashboard::ensure_screen(&site.context.portal, 0, "other").await?.0;
    let line = format!("PUT /dashboard/screen/{}", other.id);
    let taken = "a screen named \"Top\" exists there already";
    site.check("bob", &line, json!({ "name": "Top" }), 417, taken).await
}

/// What is saved can be exported, and applied elsewhere: no screen is deeper than a file may say.
#[tokio::test]
async fn screens_are_no_deeper_than_files_say() -> Result<()> {
    let site = site(|_| {}).await?;
    let deep = "pid: screens are at most 10 deep: name a higher one";
    let within = async |pid: i64, name: &str| {
        site.ask("bob", "POST /dashboard/screen", json!({ "pid": pid, "name": name })).await
    };
    let mut chain = vec![0];
    for depth in 1..=10 {
        let (status, made) = within(chain[depth - 1], "s").await?;
        assert_eq!(status, 200, "{depth}: {made}");
        chain.push(made["id"].as_i64().expect("an id"));
    }
    assert_eq!(within(chain[10], "s").await?, (400, json!({ "error": deep })));
    // Moved, a screen takes along what is in it.
    let (_, other) = within(0, "other").await?;
    let (_, lower) = within(other["id"].as_i64().expect("an id"), "lower").await?;
    let line = format!("PUT /dashboard/screen/{}", other["id"]);
    site.check("bob", &line, json!({ "pid": chain[9] }), 400, deep).await?;
    site.check("bob", &line, json!({ "pid": chain[8] }), 200, "ok").await?;
    let line = format!("PUT /dashboard/screen/{}", lower["id"]);
    site.check("bob", &line, json!({ "name": "renamed" }), 200, "ok").await?;
    // A screen that another program has put too deep keeps its place, and may have another name.
    let lost = dashboard::ensure_screen(&site.context.portal, chain[10], "lost").await?.0;
    let line = format!("PUT /dashboard/screen/{}", lost.id);
    site.check("bob", &line, json!({ "name": "found", "pid": chain[10] }), 200, "ok").await?;
    site.check("bob", &line, json!({ "pid": chain[9] }), 200, "ok").await
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
    for step in [29, 86_401] {
        let text = "step must be from 30 (ingest.min_step) to 86400 seconds";
        check(aggregator("$(a)", "$#", step), text).await?;
    }
    let unknown = json!({
        "hostgroup_id": 99, "numerator": "$(a)", "denominator": "$#", "endpoint": "web", "metric": "m", "step": 60,
    });
    site.check("alice", "POST /aggregator", unknown, 417, "record not found").await?;
    let nodata = |obj: &str, dstype: &str| json!({ "name": "n", "obj": obj, "obj_type": "group", "metric": "m", "dstype": dstype, "step": 60, "mock": -1 });
    let check = async |body: Value, text: &str| site.check("alice", "POST /nodata/", body, 400, text).await;
    check(nodata("web\nnone", "GAUGE"), "obj: there is no host group \"none\": make it, or name another").await?;
    let with = |key: &str, value: Value| {
        let mut body = nodata("h", "GAUGE");
        (body["obj_type"], body[key]) = (json!("host"), value);
        body
    };
    let list =
        "obj: \"a,b\" has a comma, a semicolon, a `*` or a blank in it: write each endpoint on a line of its own";
    check(with("obj", json!("a,b")), list).await?;
    check(with("metric", json!("a*")), "metric \"a*\" has a `*` or `?`, and is no pattern: name one metric").await?;
    check(
        with("obj", json!("王".repeat(100))),
        &format!("obj: {:?} is longer than 255 bytes: write each endpoint on a line of its own", "王".repeat(100)),
    )
    .await?;
    check(nodata("web", "COUNTER"), "dstype is \"COUNTER\": only a GAUGE can be mocked").await?;
    let (status, made) = site.ask("alice", "POST /nodata/", nodata("Web\r\n web", "GAUGE")).await?;
    assert_eq!((status, &made["obj"]), (200, &json!("Web\nweb")));
    site.check("alice", "POST /nodata/", nodata("web", "GAUGE"), 417, "a nodata named \"n\" exists already").await?;
    // Renamed, the group is found by it no more.
    let (_, renamed) = site.ask("alice", "PUT /hostgroup", json!({ "id": group, "grp_name": "other" })).await?;
    let warning = "nodata \"n\" names the group \"web\", and finds no host by it now";
    assert_eq!(renamed["warning"], warning);
    Ok(())
}

/// A stranger puts no value into the series of a host that is somebody's.
#[tokio::test]
async fn series_of_others_are_not_made_up() -> Result<()> {
    let site = site(|_| {}).await?;
    let portal = &site.context.portal;
    let (own, other) =
        (group::create(portal, "bobs", "bob").await?.id, group::create(portal, "web", "alice").await?.id);
    group::replace_hosts(portal, other, &["h1".to_string()]).await?;
    let nodata = |obj: &str, obj_type: &str| {
        json!({ "name": format!("{obj} {obj_type}"), "obj": obj, "obj_type": obj_type, "metric": "m", "dstype": "GAUGE",
                "step": 60, "mock": 1 })
    };
    let aggregator = |endpoint: &str| {
        json!({ "hostgroup_id": own, "numerator": "1", "denominator": "$(x)", "endpoint": endpoint, "metric": "m",
                "step": 60 })
    };
    let status =
        async |user: &str, line: &str, body: Value| Ok::<_, anyhow::Error>(site.ask(user, line, body).await?.0);
    for (obj, obj_type) in [("h1", "host"), ("H1", "other"), ("web", "group")] {
        assert_eq!(status("bob", "POST /nodata/", nodata(obj, obj_type)).await?, 400, "{obj}");
    }
    assert_eq!(status("bob", "POST /aggregator", aggregator("h1")).await?, 400);
    assert_eq!(status("bob", "POST /aggregator", aggregator("bobs.mean")).await?, 200);
    assert_eq!(status("bob", "POST /nodata/", nodata("bobs", "group")).await?, 200);
    assert_eq!(status("alice", "POST /nodata/", nodata("web", "group")).await?, 200);
    assert_eq!(status("alice", "POST /nodata/", nodata("h1", "host")).await?, 200);
    Ok(())
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
    // A page of another site has a browser ask, which needs a login; scripts send no origin.
    let line = "GET /grafana/metrics/find?query=a%23b";
    for header in [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")] {
        let header = (header.0, header.1.to_string());
        assert_eq!(open.send(line, std::slice::from_ref(&header), String::new()).await?.0, 401, "{header:?}");
        let token = ("apitoken", open.token("bob").await?);
        assert_eq!(open.send(line, &[header, token], String::new()).await?.0, 200);
    }
    // A bad regular expression finds nothing.
    assert_eq!(ask(&open, "", "GET /grafana/metrics/find?query=(").await?, (200, json!([])));
    assert_eq!(ask(&open, "", "GET /grafana/metrics/find?query=a%23(").await?, (200, json!([])));
    let line = format!("GET /grafana/render?from=1&until=2{}", "&target=a".repeat(101));
    open.check("", &line, Value::Null, 400, "101 targets: ask for at most 100").await
}
