//! Exceptions of strategies: what is refused, that they are live at once, and what holds on a host.

use super::{Site, site};
use crate::portal::{exception, group, host, strategy, template};
use crate::rules::snapshot::Snapshot;
use anyhow::Result;
use serde_json::{Value, json};

/// A site whose template `base` is bound to the group `Web` with the hosts db-01 and web-01, and its strategy.
async fn with_strategy() -> Result<(Site, i64)> {
    let site = site(|_| {}).await?;
    let portal = &site.context.portal;
    let template = template::create(portal, "base", 0, 0, "alice").await?;
    let group = group::create(portal, "Web", "alice").await?;
    group::replace_hosts(portal, group.id, &["db-01".to_string(), "web-01".to_string()]).await?;
    group::bind_template(portal, group.id, template.id, "alice").await?;
    let (status, saved) = site.ask("alice", "POST /strategy", df(template.id)).await?;
    assert_eq!(status, 200, "{saved}");
    Ok((site, saved["id"].as_i64().unwrap_or_default()))
}

fn df(tpl_id: i64) -> Value {
    json!({ "metric": "df.bytes.used.percent", "tags": "fstype=ext4", "max_step": 3, "priority": 0, "op": ">",
            "func": "all(#3) recover 70", "right_value": "90", "tpl_id": tpl_id })
}

fn on(strategy_id: i64, kind: &str, target: &str, change: Value) -> Value {
    let mut body = json!({ "strategy_id": strategy_id, "kind": kind, "target": target });
    for (key, value) in change.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    body
}

#[tokio::test]
async fn exceptions_that_cannot_work_are_refused() -> Result<()> {
    let (site, id) = with_strategy().await?;
    let five = || json!({ "right_value": "95" });
    let before = site.context.portal.version();
    let cases = [
        (on(99, "host", "h", five()), "strategy_id: there is no strategy 99"),
        (on(0, "host", "h", five()), "strategy_id is required"),
        (on(id, "hosts", "h", five()), "kind is \"hosts\": give host, group or tag"),
        (on(id, "host", "", five()), "target is required"),
        (on(id, "host", "web-*", five()), "target: \"web-*\" has a comma, a semicolon, a `*` or a blank in it"),
        (on(id, "host", "a,b", five()), "name one host"),
        (on(id, "host", &"x".repeat(256), five()), "target is longer than 255"),
        (on(id, "group", "none", five()), "target: there is no host group \"none\": make it, or name another"),
        (on(id, "tag", "mount", five()), "target: \"mount\" is not of the form key=value"),
        (on(id, "tag", "a=1,b=2", five()), "has a comma, and is one tag"),
        (on(id, "tag", "mount=", five()), "has no key or no value"),
        (on(id, "tag", "mount!=/", five()), "tags are compared by = only"),
        (on(id, "tag", "fstype=nfs", five()), "no series of the strategy has fstype=nfs, for all have fstype=ext4"),
        (on(id, "tag", "fstype=ext4", five()), "each series of the strategy has fstype=ext4"),
        (on(id, "host", "h", json!({})), "the exception changes nothing: give right_value, max_step or pause"),
        (on(id, "host", "h", json!({ "pause": 0, "note": "n" })), "changes nothing"),
        (on(id, "host", "h", json!({ "pause": 2 })), "pause must be 0 or 1"),
        (on(id, "host", "h", json!({ "pause": 1, "max_step": 1 })), "pause is 1, so right_value and max_step mean"),
        (on(id, "host", "h", json!({ "max_step": -1 })), "max_step must be from 1 to 1000000"),
        (on(id, "host", "h", json!({ "right_value": "many" })), "right_value is \"many\": give a number"),
        (on(id, "host", "h", json!({ "right_value": "60" })), "right_value 60: func `all(#3) recover 70`"),
        (on(id, "host", "h", json!({ "pause": 1, "note": "n".repeat(129) })), "note is longer than 128"),
    ];
    for (body, part) in cases {
        let (status, answer) = site.ask("alice", "POST /exception", body.clone()).await?;
        let text = answer["error"].as_str().unwrap_or_default();
        assert!(status == 400 && text.contains(part), "{body}: {status} {text:?}, want {part:?}");
    }
    assert_eq!(site.context.portal.version(), before, "what is refused changes nothing");
    Ok(())
}

#[tokio::test]
async fn an_exception_is_saved_changed_and_deleted() -> Result<()> {
    let (site, id) = with_strategy().await?;
    let portal = &site.context.portal;
    let before = portal.version();
    let new = on(id, "group", "wEB", json!({ "right_value": " 95 ", "note": "noisy" }));
    let (status, saved) = site.ask("alice", "POST /exception", new.clone()).await?;
    assert_eq!((status, &saved["target"], &saved["right_value"]), (200, &json!("Web"), &json!("95")), "{saved}");
    assert_eq!((&saved["create_user"], portal.version()), (&json!("alice"), before + 1));
    let (status, answer) = site.ask("alice", "POST /exception", new).await?;
    let twice = format!("the strategy has an exception for the group \"Web\" already: PUT /exception/{}", saved["id"]);
    assert_eq!((status, &answer["error"]), (400, &json!(twice)));
    let line = |method: &str| format!("{method} /exception/{}", saved["id"]);
    let pause = json!({ "pause": 1, "note": "" });
    let (status, changed) = site.ask("alice", &line("PUT"), pause.clone()).await?;
    assert_eq!((status, &changed["pause"], &changed["right_value"]), (200, &json!(1), &json!("")));
    assert_eq!(site.ask("bob", &line("GET"), Value::Null).await?, (200, changed));
    assert_eq!(site.ask("bob", &line("PUT"), pause).await?.0, 400);
    let stays = "strategy_id, kind and target of an exception stay: make another one";
    site.check("alice", &line("PUT"), json!({ "target": "Other", "pause": 1 }), 400, stays).await?;
    let (_, listed) = site.ask("bob", &format!("GET /exception?strategy_id={id}&page=1&limit=5"), Value::Null).await?;
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    assert_eq!(site.ask("bob", "GET /exception?strategy_id=99", Value::Null).await?.1, json!([]));
    site.check("alice", &line("DELETE"), Value::Null, 200, format!("exception:{} has been deleted", saved["id"]))
        .await?;
    assert_eq!(site.ask("alice", &line("DELETE"), Value::Null).await?.0, 417);
    assert_eq!(exception::all(portal).await?, []);
    Ok(())
}

/// A strategy is not changed into one that cannot be judged with its exceptions.
#[tokio::test]
async fn a_strategy_is_changed_together_with_its_exceptions() -> Result<()> {
    let (site, id) = with_strategy().await?;
    let portal = &site.context.portal;
    for new in
        [on(id, "host", "h", json!({ "right_value": "75" })), on(id, "tag", "mount=/data", json!({ "pause": 1 }))]
    {
        assert_eq!(site.ask("alice", "POST /exception", new).await?.0, 200);
    }
    let change = async |change: Value| -> Result<(u16, String)> {
        let mut body = df(0);
        body["id"] = id.into();
        for (key, value) in change.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        let (status, answer) = site.ask("alice", "PUT /strategy", body).await?;
        Ok((status, answer["error"].as_str().unwrap_or_default().to_string()))
    };
    let (status, text) = change(json!({ "func": "all(#3) recover 80" })).await?;
    assert!(status == 400 && text.contains("exception 1 (host h): right_value 75: func"), "{text}");
    let (status, text) = change(json!({ "tags": "mount=/" })).await?;
    assert!(status == 400 && text.contains("exception 2 (tag mount=/data): target: no series"), "{text}");
    assert_eq!(change(json!({ "right_value": "85" })).await?.0, 200);
    assert_eq!(site.ask("alice", &format!("DELETE /strategy/{id}"), Value::Null).await?.0, 200);
    assert_eq!(exception::all(portal).await?, []);
    Ok(())
}

#[tokio::test]
async fn what_holds_on_a_host_is_told_with_its_reasons() -> Result<()> {
    let (site, id) = with_strategy().await?;
    let portal = &site.context.portal;
    let base = template::all(portal).await?[0].id;
    let leaf = template::create(portal, "leaf", base, 0, "alice").await?.id;
    let groups = group::all(portal).await?;
    group::unbind_template(portal, groups[0].id, base).await?;
    group::bind_template(portal, groups[0].id, leaf, "alice").await?;
    let save = async |tpl_id: i64, metric: &str| -> Result<i64> {
        let mut body = df(tpl_id);
        body["metric"] = metric.into();
        let (_, saved) = site.ask("alice", "POST /strategy", body).await?;
        Ok(saved["id"].as_i64().unwrap_or_default())
    };
    let (replaced, by, late) = (save(base, "m").await?, save(leaf, "m").await?, save(leaf, "late").await?);
    let hours = strategy::by_id(portal, late).await?.expect("saved");
    let minute = |shift: i64| crate::clock::local_text(crate::clock::now() + shift)[11..16].to_string();
    let hours = strategy::Strategy { run_begin: minute(7200), run_end: minute(10_800), ..hours };
    strategy::update(portal, &hours).await?;
    for new in [
        on(id, "host", "db-01", json!({ "pause": 1, "note": "a copy" })),
        on(id, "tag", "mount=/data", json!({ "max_step": 1 })),
        on(by, "group", "web", json!({ "right_value": "99" })),
    ] {
        assert_eq!(site.ask("alice", "POST /exception", new).await?.0, 200);
    }
    let hosts = host::all(portal).await?;
    let of = async |name: &str| -> Result<Value> {
        let host = hosts.iter().find(|host| host.hostname == name).expect("made with the site");
        Ok(site.ask("bob", &format!("GET /host/{}/rule", host.id), Value::Null).await?.1)
    };
    let web = of("web-01").await?;
    let one = |answer: &Value, id: i64| {
        let all = answer["strategies"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|one| one["id"] == id).unwrap_or_default()
    };
    assert_eq!((&web["host"], &web["groups"]), (&json!("web-01"), &json!(["Web"])));
    let held = one(&web, id);
    assert_eq!((&held["template"], &held["bound"], &held["in_effect"]), (&json!("base"), &json!("leaf"), &json!(true)));
    assert_eq!((&held["applied"]["right_value"], &held["applied"]["exception"]), (&json!("90"), &Value::Null));
    let tag = &held["tags"][0];
    assert_eq!(
        (&tag["max_step"], &tag["right_value"], &tag["exception"]["target"]),
        (&json!(1), &json!("90"), &json!("mount=/data"))
    );
    assert_eq!(one(&web, by)["applied"]["right_value"], "99");
    let why = |answer: &Value, id: i64| one(answer, id)["why_not"].as_str().unwrap_or_default().to_string();
    assert_eq!(
        why(&web, replaced),
        format!("strategy {by} of the template leaf takes its place: the same metric and tags")
    );
    assert!(why(&web, late).starts_with("outside the strategy's hours"), "{web}");
    let db = of("db-01").await?;
    assert_eq!(why(&db, id), "an exception pauses the strategy for the host db-01: a copy");
    assert_eq!(one(&db, id)["tags"], json!([]), "the host counts before the tag");
    // What is listed as in effect is what the judges have.
    let (rules, _) = Snapshot::load(portal).await?.rules(&jiff::Zoned::now(), 1);
    for (name, answer) in [("web-01", &web), ("db-01", &db)] {
        let judged: Vec<i64> =
            rules.hosts[name].iter().filter(|one| !one.is_excepted_part()).map(|one| one.id).collect();
        let listed = answer["strategies"].as_array().into_iter().flatten().filter(|one| one["in_effect"] == true);
        assert_eq!(listed.filter_map(|one| one["id"].as_i64()).collect::<Vec<_>>(), judged, "{name}");
    }
    host::maintain(portal, &host::Selection::Ids(vec![hosts[1].id]), 1, 4_000_000_000).await?;
    assert!(why(&of(&hosts[1].hostname).await?, id).starts_with("the host is in maintenance until"));
    assert_eq!(site.ask("bob", "GET /host/99/rule", Value::Null).await?.0, 417);
    Ok(())
}

/// Expressions that may be about a host are listed, also those that are switched off.
#[tokio::test]
async fn expressions_of_a_host() -> Result<()> {
    let (site, _) = with_strategy().await?;
    for (text, pause) in [("a=b", 0), ("endpoint=web-*", 0), ("endpoint=db-01", 0), ("c=d", 1)] {
        let new = json!({ "expression": format!("each(metric=m {text})"), "func": "all(#1)", "op": ">", "pause": pause,
                          "right_value": "1", "max_step": 1, "priority": 1, "action": { "uic": [] } });
        assert_eq!(site.ask("alice", "POST /expression", new).await?.0, 200);
    }
    let host = host::by_name(&site.context.portal, "web-01").await?.expect("made with the site").id;
    let (_, answer) = site.ask("bob", &format!("GET /host/{host}/rule"), Value::Null).await?;
    let all = answer["expressions"].as_array().cloned().unwrap_or_default();
    let shown: Vec<_> = all.iter().map(|one| format!("{} {}", one["expression"], one["why_not"])).collect();
    let expected = [
        "\"each(metric=m a=b)\" \"\"",
        "\"each(metric=m endpoint=web-*)\" \"\"",
        "\"each(metric=m c=d)\" \"the expression is paused\"",
    ];
    assert_eq!(shown, expected);
    Ok(())
}
