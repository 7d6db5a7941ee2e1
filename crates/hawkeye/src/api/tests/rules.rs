//! Templates, strategies and expressions: what is refused when it is saved, and that changes are announced.

use super::{Site, site};
use crate::portal::{action, template};
use anyhow::Result;
use serde_json::{Value, json};

/// `base` with the keys of `change` set.
fn with(base: &Value, change: Value) -> Value {
    let mut value = base.clone();
    for (key, changed) in change.as_object().into_iter().flatten() {
        value[key] = changed.clone();
    }
    value
}

/// A site with a template; returns its id.
async fn with_template() -> Result<(Site, i64)> {
    let site = site(|_| {}).await?;
    let template = template::create(&site.context.portal, "base", 0, 0, "alice").await?;
    Ok((site, template.id))
}

fn strategy(tpl_id: i64) -> Value {
    json!({ "metric": "cpu.idle", "tags": "", "max_step": 3, "priority": 0, "func": "all(#3)", "op": "<",
            "right_value": "10", "note": "", "run_begin": "", "run_end": "", "tpl_id": tpl_id })
}

fn expression() -> Value {
    json!({ "expression": "each(metric=agent.alive endpoint=web-01)", "func": "all(#2)", "op": "==", "right_value": "0",
            "max_step": 3, "priority": 1, "note": "", "pause": 0, "action": { "uic": ["ops"], "callback": 0 } })
}

/// Asks with each change and looks for a part of the error.
async fn refuses(site: &Site, line: &str, base: &Value, cases: Vec<(Value, &str)>) -> Result<()> {
    let before = site.context.portal.version();
    for (change, part) in cases {
        let (status, answer) = site.ask("alice", line, with(base, change.clone())).await?;
        let text = answer["error"].as_str().unwrap_or_default();
        assert!(status == 400 && text.contains(part), "{line} {change}: {status} {text:?}, want {part:?}");
    }
    assert_eq!(site.context.portal.version(), before, "what is refused changes nothing");
    Ok(())
}

#[tokio::test]
async fn strategies_that_cannot_be_judged_are_refused() -> Result<()> {
    let (site, tpl_id) = with_template().await?;
    let cases = || {
        vec![
            (json!({ "func": "lookup(#3)" }), "func `lookup(#3)`, column"),
            (json!({ "func": "all(#0)" }), "func `all(#0)`, column"),
            (json!({ "func": "all(3)" }), "func `all(3)`, column"),
            (json!({ "func": "mean(#3)" }), "unknown function"),
            (json!({ "func": "all(#999)" }), "judge looks back"),
            (json!({ "func": "" }), "func is required"),
            (json!({ "func": "all(#1)".repeat(80) }), "func is longer than 512 characters"),
            (json!({ "func": "all(#3) and" }), "func `all(#3) and`, column 12: want a function"),
            (json!({ "func": "all(#3) recover 50", "op": ">", "right_value": "10" }), "column 17: want at most 10"),
            (json!({ "op": "!" }), "operator `!`"),
            (json!({ "op": "<>" }), "op's formating is not vaild"),
            (json!({ "right_value": "1e3" }), "right_value's formating is not vaild"),
            (json!({ "right_value": "9".repeat(65) }), "right_value is longer than 64"),
            (json!({ "right_value": 10 }), "right_value must be a text, got 10"),
            (json!({ "metric": "m".repeat(129) }), "metric is longer than 128"),
            (json!({ "tags": "mount" }), "tags: \"mount\" is not of the form key=value"),
            (json!({ "tags": "a=1,,b=2" }), "tags: \"\" is not of the form key=value"),
            (json!({ "max_step": -1 }), "max_step must be from 1"),
            (json!({ "priority": 128 }), "priority must be from 0 to 127"),
            (json!({ "run_begin": "8:00" }), "run_begin's formating is not vaild"),
            (json!({ "run_end": "24:0x" }), "run_end's formating is not vaild"),
            (json!({ "note": "n".repeat(129) }), "note is longer than 128"),
        ]
    };
    let base = strategy(tpl_id);
    refuses(&site, "POST /strategy", &base, cases()).await?;
    refuses(&site, "POST /strategy", &base, vec![(json!({ "tpl_id": 99 }), "there is no template 99")]).await?;
    let (status, saved) = site.ask("alice", "POST /strategy", base.clone()).await?;
    assert_eq!(status, 200);
    refuses(&site, "PUT /strategy", &with(&base, json!({ "id": saved["id"] })), cases()).await?;
    let (_, now) = site.ask("alice", &format!("GET /strategy/{}", saved["id"]), Value::Null).await?;
    assert_eq!(now, saved);
    Ok(())
}

#[tokio::test]
async fn expressions_that_cannot_be_judged_are_refused() -> Result<()> {
    let site = site(|_| {}).await?;
    let cases = vec![
        (json!({ "expression": "each metric=a b=c" }), "expression: no opening parenthesis"),
        (json!({ "expression": "each(metric=a)" }), "expression: a metric and at least one tag"),
        (json!({ "expression": "each(a=b c=d)" }), "expression: metric=… is missing"),
        (json!({ "expression": "x".repeat(1025) }), "expression is longer than 1024"),
        (json!({ "func": "avg(#2" }), "func `avg(#2`"),
        (json!({ "op": "!" }), "operator `!`"),
        (json!({ "right_value": "1".repeat(17) }), "right_value is longer than 16"),
        (json!({ "priority": 0 }), "priority is required"),
        (json!({ "pause": 2 }), "pause must be 0 or 1"),
        (json!({ "action": { "callback": 1 } }), "action.uic is required"),
        (json!({ "action": { "uic": ["a,b"] } }), "contains a comma"),
        (json!({ "action": { "uic": ["a"], "callback": 7 } }), "callback must be 0 or 1"),
        (json!({ "action": [] }), "action must be an object"),
    ];
    refuses(&site, "POST /expression", &expression(), cases).await?;
    assert_eq!(site.ask("alice", "GET /expression", Value::Null).await?, (200, json!([])));
    Ok(())
}

#[tokio::test]
async fn templates_cannot_be_their_own_ancestors() -> Result<()> {
    let (site, base) = with_template().await?;
    let portal = &site.context.portal;
    let child = template::create(portal, "child", base, 0, "alice").await?.id;
    let line = "PUT /template";
    let change = |parent_id: i64| json!({ "tpl_id": base, "name": "base", "parent_id": parent_id });
    for parent_id in [base, child] {
        let (status, answer) = site.ask("alice", line, change(parent_id)).await?;
        assert!(status == 400 && answer["error"].to_string().contains("cycle"), "{status} {answer}");
    }
    // A parent that is gone is no cycle, and an old cycle does not stop a renaming.
    site.check("alice", line, change(999), 200, "template updated").await?;
    template::update(portal, base, "base", child).await?;
    let rename = json!({ "tpl_id": base, "name": "renamed", "parent_id": child });
    site.check("alice", line, rename, 200, "template updated").await?;
    Ok(())
}

#[tokio::test]
async fn a_template_whose_action_is_gone_can_still_be_opened() -> Result<()> {
    let site = site(|_| {}).await?;
    let template = template::create(&site.context.portal, "t", 0, 77, "alice").await?;
    let (status, answer) = site.ask("alice", &format!("GET /template/{}", template.id), Value::Null).await?;
    assert_eq!((status, &answer["action"]["id"], &answer["action"]["uic"]), (200, &json!(0), &json!("")));
    Ok(())
}

#[tokio::test]
async fn deleting_an_expression_deletes_its_action_whoever_does_it() -> Result<()> {
    let site = site(|_| {}).await?;
    site.check("alice", "POST /expression", expression(), 200, "expression created").await?;
    let (_, list) = site.ask("alice", "GET /expression", Value::Null).await?;
    let (id, action_id) = (&list[0]["id"], list[0]["action_id"].as_i64().unwrap_or_default());
    assert!(action::by_id(&site.context.portal, action_id).await?.is_some());
    let text = format!("expression:{id} has been deleted");
    site.check("root", &format!("DELETE /expression/{id}"), Value::Null, 200, text).await?;
    assert_eq!(action::by_id(&site.context.portal, action_id).await?, None);
    Ok(())
}

#[tokio::test]
async fn whatever_changes_rules_is_announced() -> Result<()> {
    let (site, tpl_id) = with_template().await?;
    let (_, group) = site.ask("alice", "POST /hostgroup", json!({ "name": "web" })).await?;
    let (_, saved) = site.ask("alice", "POST /strategy", strategy(tpl_id)).await?;
    site.check("alice", "POST /expression", expression(), 200, "expression created").await?;
    let (_, expressions) = site.ask("alice", "GET /expression", Value::Null).await?;
    let (grp_id, eid) = (&group["id"], &expressions[0]["id"]);
    let (_, plugin) = site.ask("alice", "POST /plugin", json!({ "hostgroup_id": grp_id, "dir_path": "sys" })).await?;
    let binding = json!({ "grp_id": grp_id, "tpl_id": tpl_id });
    let group_path = |rest: &str| format!("/hostgroup/{grp_id}{rest}");
    let changes = [
        ("POST /template".to_string(), json!({ "name": "t2" })),
        ("PUT /template".to_string(), json!({ "tpl_id": tpl_id, "name": "t3" })),
        ("POST /template/action".to_string(), json!({ "tpl_id": tpl_id, "uic": "ops" })),
        ("POST /strategy".to_string(), strategy(tpl_id)),
        ("PUT /strategy".to_string(), with(&strategy(tpl_id), json!({ "id": saved["id"], "op": ">" }))),
        ("POST /hostgroup/template".to_string(), binding.clone()),
        ("POST /hostgroup/host".to_string(), json!({ "hostgroup_id": grp_id, "hosts": ["a", "b"] })),
        (format!("PATCH {}", group_path("/host")), json!({ "action": "add", "hosts": ["c"] })),
        (format!("PATCH {}", group_path("/host")), json!({ "action": "remove", "hosts": ["c"] })),
        ("PUT /hostgroup/host".to_string(), json!({ "hostgroup_id": grp_id, "host_id": 1 })),
        ("POST /host/maintain".to_string(), json!({ "hosts": ["a"], "maintain_begin": 1, "maintain_end": 2 })),
        ("DELETE /host/maintain".to_string(), json!({ "hosts": ["a"] })),
        ("POST /plugin".to_string(), json!({ "hostgroup_id": grp_id, "dir_path": "sys/ntp" })),
        (format!("DELETE /plugin/{}", plugin["id"]), Value::Null),
        ("PUT /hostgroup/template".to_string(), binding),
        ("PUT /expression".to_string(), with(&expression(), json!({ "id": eid, "pause": 1 }))),
        (format!("DELETE /expression/{eid}"), Value::Null),
        (format!("DELETE /strategy/{}", saved["id"]), Value::Null),
        (format!("DELETE /template/{tpl_id}"), Value::Null),
        (format!("DELETE {}", group_path("")), Value::Null),
    ];
    for (line, body) in changes {
        let before = site.context.portal.version();
        let (status, answer) = site.ask("alice", &line, body).await?;
        assert_eq!(status, 200, "{line}: {answer}");
        assert_eq!(site.context.portal.version(), before + 1, "{line}");
    }
    Ok(())
}
