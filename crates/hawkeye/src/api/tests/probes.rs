//! Probes: what is refused, what is shown to whom, states, tests from the server, and what the audit has.

use super::{Site, site};
use crate::portal::db::query;
use crate::portal::token::{self, NewToken, Scopes};
use crate::portal::{group, probe, user};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};

fn shop() -> Value {
    json!({ "name": "shop", "kind": "http", "target": "https://shop.example/health?token=abc", "step": 30,
            "headers": { "Authorization": "Bearer secret", "Accept": "*/*" }, "tags": { "team": "web" } })
}

fn with(mut value: Value, change: Value) -> Value {
    for (key, changed) in change.as_object().into_iter().flatten() {
        value[key] = changed.clone();
    }
    value
}

/// A site with alice's group `Web`, and her probe `shop` in it.
async fn with_shop() -> Result<(Site, String)> {
    let site = site(|_| {}).await?;
    group::create(&site.context.portal, "Web", "alice").await?;
    let (status, made) =
        site.ask("alice", "POST /probe", with(shop(), json!({ "from": { "group": "web", "places": 2 } }))).await?;
    assert_eq!(status, 200, "{made}");
    Ok((site, format!("/probe/{}", made["id"])))
}

async fn state(site: &Site, probe_id: i64, place: &str, up: i64, code: &str) -> Result<()> {
    query("INSERT INTO falcon_portal.hawkeye_probe_state (probe_id, place, up, code, reason, changed_at) VALUES (?, ?, ?, ?, '', 7)")
        .bind(probe_id)
        .bind(place)
        .bind(up)
        .bind(code)
        .execute(&site.context.portal)
        .await?;
    Ok(())
}

#[tokio::test]
async fn probes_that_cannot_run_are_refused() -> Result<()> {
    let (site, line) = with_shop().await?;
    let before = site.context.portal.version();
    let cases = [
        (json!({}), "name, kind and target are required: docs/probes.md"),
        (json!({ "pause": 1 }), "name, kind and target are required"),
        (json!({ "name": "a", "kind": "icmp", "target": "h", "colour": 1 }), "colour: unknown field `colour`"),
        (
            json!({ "name": "a", "kind": "tcp", "target": "h", "step": 1 }),
            "step is 1 s: give 5 to 86400; timeout_ms is 5000",
        ),
        (
            json!({ "name": "a", "kind": "script", "target": "/opt/x" }),
            "kind is script, which only agents run: give the group",
        ),
        (with(shop(), json!({ "name": "SHOP" })), "name: a probe named \"shop\" exists already: PUT /probe/1"),
        (
            with(shop(), json!({ "name": "b", "from": { "group": "db" } })),
            "from.group: there is no host group \"db\": make it",
        ),
        (
            with(shop(), json!({ "name": "b", "from": { "group": "web", "places": -1 } })),
            "from.places is -1: give 1 to 100",
        ),
        (
            with(shop(), json!({ "name": "b", "headers": { "Cookie": "***" } })),
            "headers: *** stands for a secret, and none",
        ),
        (with(shop(), json!({ "name": "b", "target": "http://h/?token=***" })), "target: *** stands for a secret"),
    ];
    for (body, part) in cases {
        let (status, answer) = site.ask("alice", "POST /probe", body.clone()).await?;
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(status == 400 && error.contains(part), "{body} gave {status} {answer}, want {part}");
    }
    let form =
        [("content-type", "application/x-www-form-urlencoded".to_string()), ("apitoken", site.token("alice").await?)];
    let (status, answer) = site.send("POST /probe", &form, "name=a&kind=icmp".to_string()).await?;
    assert_eq!(
        (status, &answer["error"]),
        (400, &json!("the body is a form: send the definition as JSON, docs/probes.md"))
    );
    site.check(
        "alice",
        &format!("PUT {line}"),
        json!({ "from": { "places": 1 } }),
        400,
        "from.places counts the hosts of a group, and there is none: give a group, or leave it out",
    )
    .await?;
    for asked in ["GET /probe/99", "PUT /probe/99", "DELETE /probe/99"] {
        site.check("alice", asked, json!({}), 417, "record not found").await?;
    }
    assert_eq!(site.context.portal.version(), before, "nothing was changed");
    Ok(())
}

#[tokio::test]
async fn a_probe_is_shown_flat_and_may_be_sent_back() -> Result<()> {
    let (site, line) = with_shop().await?;
    let before = site.context.portal.version();
    let (_, shown) = site.ask("alice", &format!("GET {line}"), Value::Null).await?;
    let expected = json!({ "group": "Web", "places": 2 });
    assert_eq!((&shown["from"], &shown["kind"], &shown["step"]), (&expected, &json!("http"), &json!(30)));
    assert_eq!(
        (&shown["create_user"], &shown["states"], &shown["timeout_ms"]),
        (&json!("alice"), &json!([]), &json!(5000))
    );
    let (status, back) =
        site.ask("alice", &format!("PUT {line}"), with(shown.clone(), json!({ "name": "shop 2" }))).await?;
    assert_eq!((status, back), (200, with(shown.clone(), json!({ "name": "shop 2" }))));
    assert!(site.context.portal.version() > before, "hbs is told");
    // The rest stays when only one thing is said.
    let (_, paused) = site.ask("alice", &format!("PUT {line}"), json!({ "pause": true })).await?;
    assert_eq!(paused, with(shown.clone(), json!({ "name": "shop 2", "pause": 1 })));
    let (_, moved) = site.ask("alice", &format!("PUT {line}"), json!({ "from": {} })).await?;
    let server = json!({ "group": null, "places": 0 });
    assert_eq!((&moved["from"], &moved["pause"], &moved["headers"]), (&server, &json!(1), &shown["headers"]));
    site.check("alice", &format!("DELETE {line}"), Value::Null, 200, "probe:1 has been deleted").await?;
    assert!(probe::all(&site.context.portal).await?.is_empty());
    Ok(())
}

/// Who may not change a probe, a list and a token that only reads see no secret; what is masked means what is there.
#[tokio::test]
async fn secrets_are_for_those_who_may_change_a_probe() -> Result<()> {
    let (site, line) = with_shop().await?;
    let portal = &site.context.portal;
    let alice = user::by_name(portal, "alice").await?.context("made with the site")?.id;
    let reads = Scopes::parse("read").expect("a scope");
    let new = NewToken { name: "r".into(), uid: alice, scopes: reads, created_by: "alice".into(), expires_at: 0 };
    let (_, secret) = token::create(portal, &new, crate::clock::now()).await?.context("room")?;
    let shown = |answer: &Value| (answer["headers"]["Authorization"].clone(), answer["target"].clone());
    let open = (json!("Bearer secret"), json!("https://shop.example/health?token=abc"));
    let masked = (json!("***"), json!("https://shop.example/health?token=***"));
    for (who, expected) in [("alice", &open), ("root", &open), ("bob", &masked)] {
        let (_, answer) = site.ask(who, &format!("GET {line}"), Value::Null).await?;
        assert_eq!((&shown(&answer), &answer["headers"]["Accept"]), (expected, &json!("*/*")), "{who}");
        let (_, list) = site.ask(who, "GET /probe", Value::Null).await?;
        assert_eq!(shown(&list[0]), masked, "{who}");
    }
    let bearer = [("authorization", format!("Bearer {secret}"))];
    let (status, answer) = site.send(&format!("GET {line}"), &bearer, String::new()).await?;
    assert_eq!((status, shown(&answer)), (200, masked.clone()));
    let (_, list) = site.ask("alice", "GET /probe", Value::Null).await?;
    let (status, changed) =
        site.ask("alice", &format!("PUT {line}"), with(list[0].clone(), json!({ "step": 60 }))).await?;
    assert_eq!((status, shown(&changed), &changed["step"]), (200, open, &json!(60)));
    let (_, rows) = site.ask("root", "GET /audit?subject=probe:1", Value::Null).await?;
    let rows_text = rows.to_string();
    assert!(!rows_text.contains("Bearer secret") && !rows_text.contains("token=abc"), "{rows_text}");
    assert_eq!(rows[0]["was"]["definition"], json!({ "step": 30 }), "{rows_text}");
    assert_eq!(rows[0]["became"]["definition"], json!({ "step": 60 }), "{rows_text}");
    assert_eq!(rows[1]["became"]["definition"]["headers"]["Authorization"], "***", "{rows_text}");
    // A change of a secret is one, and is not shown.
    let other = json!({ "headers": { "Authorization": "Bearer other", "Accept": "*/*" } });
    assert_eq!(site.ask("alice", &format!("PUT {line}"), with(list[0].clone(), other)).await?.0, 200);
    let (_, rows) = site.ask("root", "GET /audit?subject=probe:1", Value::Null).await?;
    assert_eq!((rows.as_array().map(Vec::len), rows.to_string().contains("Bearer")), (Some(3), false));
    Ok(())
}

#[tokio::test]
async fn lists_are_searched_and_have_states() -> Result<()> {
    let (site, _) = with_shop().await?;
    for (name, kind, target) in [("gateway", "icmp", "10.0.0.1"), ("mail", "tcp", "mx.example:25")] {
        let body = json!({ "name": name, "kind": kind, "target": target });
        assert_eq!(site.ask("bob", "POST /probe", body).await?.0, 200);
    }
    state(&site, 1, "web-01", 1, "").await?;
    state(&site, 1, "web-02", 0, "timeout").await?;
    for at in 0..110 {
        state(&site, 3, &format!("h{at:03}"), i64::from(at != 105), "").await?;
    }
    let names = async |query: &str| -> Result<String> {
        let (status, list) = site.ask("bob", &format!("GET /probe?{query}"), Value::Null).await?;
        assert_eq!(status, 200, "{list}");
        let names = list.as_array().into_iter().flatten().filter_map(|row| row["name"].as_str());
        Ok(names.collect::<Vec<_>>().join(" "))
    };
    let cases = [
        ("", "shop gateway mail"),
        ("q=MAIL", "mail"),
        ("q=example", "shop mail"),
        ("kind=icmp", "gateway"),
        ("group=web", "shop"),
        ("group=", "gateway mail"),
        ("sort=-name&limit=2", "shop mail"),
        ("page=2&limit=2", "mail"),
        ("sort=places&q=(shop|mail)", "mail shop"),
    ];
    for (query, expected) in cases {
        assert_eq!(names(query).await?, expected, "{query}");
    }
    let (_, list) = site.ask("bob", "GET /probe", Value::Null).await?;
    let states = json!([
        { "place": "web-02", "up": false, "code": "timeout", "reason": "", "since": 7 },
        { "place": "web-01", "up": true, "code": "", "reason": "", "since": 7 },
    ]);
    assert_eq!((&list[0]["states"], &list[0]["states_left_off"]), (&states, &json!(0)));
    assert_eq!((&list[2]["states"][0]["place"], &list[2]["states_left_off"]), (&json!("h105"), &json!(10)));
    let (_, whole) = site.ask("bob", "GET /probe/3", Value::Null).await?;
    assert_eq!((whole["states"].as_array().map(Vec::len), &whole["states_left_off"]), (Some(110), &json!(0)));
    Ok(())
}

#[tokio::test]
async fn a_definition_is_tried_under_the_policy_of_the_server() -> Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let target = listener.local_addr()?.to_string();
    let asked = json!({ "kind": "tcp", "target": target });
    let closed = site(|_| {}).await?;
    let (status, found) = closed.ask("bob", "POST /probe/test", asked.clone()).await?;
    assert_eq!((status, &found["up"], &found["reason"]["code"]), (200, &json!(false), &json!("denied")));
    let site =
        site(|config| config.probe.allow = vec![netprobe::Rule::parse("127.0.0.0/8").expect("a network")]).await?;
    let (status, found) = site.ask("bob", "POST /probe/test", asked.clone()).await?;
    assert_eq!(
        (status, &found["up"], &found["reason"], &found["peer"]),
        (200, &json!(true), &Value::Null, &json!(target))
    );
    assert_eq!(found["readings"][0], json!({ "metric": "probe.up", "tags": format!("target={target}"), "value": 1.0 }));
    assert!(found["phases_ms"]["connect"].is_number(), "{found}");
    let script = json!({ "kind": "script", "target": "/bin/true" });
    let (status, refused) = site.ask("bob", "POST /probe/test", script).await?;
    assert!(
        status == 400 && refused["error"].as_str().is_some_and(|text| text.contains("runs on agents only")),
        "{refused}"
    );
    let (status, refused) = site.ask("bob", "POST /probe/test", json!({ "kind": "tcp", "target": "h" })).await?;
    assert!(status == 400 && refused["error"].as_str().is_some_and(|text| text.starts_with("target")), "{refused}");
    site.check("bob", "POST /probe/test", Value::Null, 400, "the body is empty: send JSON").await?;
    let taken = site.context.tester.taken(0);
    let (status, refused) = site.ask("bob", "POST /probe/test", asked.clone()).await?;
    assert_eq!(
        (status, &refused["error"]),
        (429, &json!("4 tests of probes are running: try again when one has ended"))
    );
    drop(taken);
    let _taken = site.context.tester.taken(1);
    assert_eq!(site.ask("bob", "POST /probe/test", asked).await?.0, 200, "a place is free again");
    Ok(())
}

/// What a test asks with `***` are the secrets of the probe that it names.
#[tokio::test]
async fn a_test_knows_the_secrets_of_a_probe() -> Result<()> {
    let (site, _) = with_shop().await?;
    let (_, list) = site.ask("alice", "GET /probe", Value::Null).await?;
    let at_home = with(list[0].clone(), json!({ "target": "http://127.0.0.1:1/" }));
    let (status, found) = site.ask("alice", "POST /probe/test", at_home.clone()).await?;
    assert_eq!((status, &found["reason"]["code"]), (200, &json!("denied")), "{found}");
    site.check("bob", "POST /probe/test", at_home.clone(), 400, "You don't have permission!").await?;
    let mut unnamed = at_home;
    unnamed["id"].take();
    let (status, refused) = site.ask("alice", "POST /probe/test", unnamed).await?;
    assert!(
        status == 400 && refused["error"].as_str().is_some_and(|text| text.starts_with("headers: ***")),
        "{refused}"
    );
    let (_, rows) = site.ask("root", "GET /audit?action=POST%20/probe/test", Value::Null).await?;
    assert_eq!(rows[0]["became"]["target"], "http://127.0.0.1:1/", "{rows}");
    assert!(!rows.to_string().contains("Bearer"), "{rows}");
    Ok(())
}

/// Probes go with their group, and the audit has which.
#[tokio::test]
async fn a_group_takes_its_probes_along() -> Result<()> {
    let (site, _) = with_shop().await?;
    assert_eq!(site.ask("bob", "POST /probe", json!({ "name": "own", "kind": "icmp", "target": "h" })).await?.0, 200);
    assert_eq!(site.ask("alice", "DELETE /hostgroup/1", Value::Null).await?.0, 200);
    let left: Vec<String> = probe::all(&site.context.portal).await?.into_iter().map(|row| row.name).collect();
    assert_eq!(left, ["own"]);
    let (_, rows) = site.ask("root", "GET /audit?subject=hostgroup:1", Value::Null).await?;
    assert_eq!(rows[0]["was"]["probes"][0]["name"], "shop", "{rows}");
    Ok(())
}
