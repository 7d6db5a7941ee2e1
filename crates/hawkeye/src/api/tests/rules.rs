//! Templates, strategies and expressions: what is refused when it is saved, and that changes are announced.

use super::{Site, site};
use crate::config::Rights;
use crate::portal::purge::UnownedActions;
use crate::portal::{action, expression, group, strategy, team, template};
use crate::rules::snapshot::Snapshot;
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

/// A site with the team ops.
async fn with_team(rights: Rights) -> Result<Site> {
    let site = site(|config| config.api.rights = rights).await?;
    team::create(&site.context.portal, "ops", "", 0, &[]).await?;
    Ok(site)
}

/// A site with the team ops and a template; returns its id.
async fn with_template() -> Result<(Site, i64)> {
    let site = with_team(Rights::Strict).await?;
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
            (json!({ "priority": 7 }), "priority must be from 0 to 6"),
            (json!({ "priority": -1 }), "priority must be from 0 to 6"),
            (json!({ "priority": 9_223_372_036_854_775_808_u64 }), "priority must be a whole number"),
            (json!({ "max_step": 1_000_001 }), "max_step must be from 1 to 1000000"),
            (json!({ "right_value": "NaN" }), "right_value's formating is not vaild"),
            (json!({ "right_value": "inf" }), "right_value's formating is not vaild"),
            (json!({ "right_value": "1\u{202e}0" }), "right_value has a mark that changes the direction of text"),
            (json!({ "metric": "cpu\u{0}idle" }), "metric has a zero byte"),
            (json!({ "metric": "cpu\nidle" }), "metric has a line break as character 4"),
            (json!({ "metric": " \t" }), "metric is required"),
            (json!({ "note": "a\nb" }), "note has a line break as character 2"),
            (json!({ "tags": "mount=/data\n" }), "tags has a line break as character 12"),
            (json!({ "tags": "port=1234 endpoint=h1" }), "looks like several tags: join them by commas"),
            (json!({ "tags": "t".repeat(257) }), "tags is longer than 256 characters"),
            (json!({ "run_end": "24:01" }), "run_end's formating is not vaild"),
            (json!({ "run_begin": "12:60" }), "run_begin's formating is not vaild"),
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
    let site = with_team(Rights::Strict).await?;
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
        (json!({ "action": { "uic": ["ops"], "callback": 7 } }), "callback must be 0 or 1"),
        (json!({ "action": { "uic": ["ops"], "callback": 1 } }), "action.url is required with callback 1"),
        (
            json!({ "action": { "uic": ["ops"], "url": "127.0.0.1:80/x" } }),
            "action.url \"127.0.0.1:80/x\" cannot be called",
        ),
        (json!({ "action": { "uic": ["ops", "no"] } }), "action.uic: there is no team \"no\""),
        (json!({ "action": { "uic": ["ops", " "] } }), "uic[1] is empty"),
        (json!({ "priority": 7 }), "priority must be from 0 to 6"),
        (json!({ "expression": "each(metric=a b=c) > 5" }), "behind `)` is not read"),
        (json!({ "expression": "each(metric=a\u{200b} b=c)" }), "expression has a character that does not show"),
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
    site.check("alice", line, change(999), 400, "parent_id: there is no template 999; 0 is none").await?;
    let new = json!({ "name": "n", "parent_id": 999 });
    site.check("alice", "POST /template", new, 400, "parent_id: there is no template 999; 0 is none").await?;
    // A parent that has gone, and an old cycle, do not stop a renaming.
    template::update(portal, base, "base", 999).await?;
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

/// Looks twice for actions that nobody has, as alarm does.
async fn purge_actions(site: &Site) -> Result<()> {
    let mut unowned = UnownedActions::default();
    unowned.look(&site.context.portal).await?;
    Ok(unowned.look(&site.context.portal).await?)
}

#[tokio::test]
async fn an_open_action_keeps_its_secrets() -> Result<()> {
    let (site, tpl_id) = with_template().await?;
    let url = "http://robot:hidden@hooks.example.com/fix?token=hidden&host=a";
    let action = json!({ "tpl_id": tpl_id, "url": url, "callback": 1 });
    let (status, made) = site.ask("root", "POST /template/action", action).await?;
    assert_eq!(status, 200, "{made}");
    let template = template::by_id(&site.context.portal, tpl_id).await?.expect("the template");
    let line = format!("GET /action/{}", template.action_id);
    for (user, shown) in [("", "http://robot:***@hooks.example.com/fix?token=***&host=a"), ("root", url)] {
        let (status, answer) = site.ask(user, &line, Value::Null).await?;
        assert_eq!((status, &answer["url"]), (200, &json!(shown)), "{user}");
    }
    Ok(())
}

#[tokio::test]
async fn deleting_an_expression_leaves_its_action_to_the_purge_whoever_does_it() -> Result<()> {
    let site = with_team(Rights::Strict).await?;
    site.check("alice", "POST /expression", expression(), 200, "expression created").await?;
    let (_, list) = site.ask("alice", "GET /expression", Value::Null).await?;
    let (id, action_id) = (&list[0]["id"], list[0]["action_id"].as_i64().unwrap_or_default());
    assert!(action::by_id(&site.context.portal, action_id).await?.is_some());
    let text = format!("expression:{id} has been deleted");
    site.check("root", &format!("DELETE /expression/{id}"), Value::Null, 200, text).await?;
    assert!(action::by_id(&site.context.portal, action_id).await?.is_some(), "recoveries are told to it");
    purge_actions(&site).await?;
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
        ("POST /host/maintain".to_string(), json!({ "hosts": ["b"], "maintain_begin": 1, "maintain_end": 2 })),
        ("DELETE /host/maintain".to_string(), json!({ "hosts": ["b"] })),
        ("POST /plugin".to_string(), json!({ "hostgroup_id": grp_id, "dir_path": "sys/ntp" })),
        (format!("DELETE /plugin/{}", plugin["id"]), Value::Null),
        ("PUT /hostgroup/template".to_string(), binding),
        ("PUT /expression".to_string(), with(&expression(), json!({ "id": eid, "pause": 1 }))),
        (format!("DELETE /expression/{eid}"), Value::Null),
        (
            "POST /exception".to_string(),
            json!({ "strategy_id": saved["id"], "kind": "group", "target": "web", "max_step": 1 }),
        ),
        ("PUT /exception/1".to_string(), json!({ "pause": 1 })),
        ("DELETE /exception/1".to_string(), Value::Null),
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

/// Tags and expressions are shown as they were typed, and sent to agents so; rules have them as a point has them.
#[tokio::test]
async fn tags_are_kept_as_typed_and_matched_as_a_points() -> Result<()> {
    let (site, tpl_id) = with_template().await?;
    let portal = &site.context.portal;
    let group = group::create(portal, "g", "alice").await?.id;
    group::replace_hosts(portal, group, &["web-01".to_string()]).await?;
    group::bind_template(portal, group, tpl_id, "alice").await?;
    let texts = ["mount=/data, fstype=ext4", " module=x ", "mount=/my disk", "cmdline=java -Da=b c", ""];
    for tags in texts {
        let new = with(&strategy(tpl_id), json!({ "metric": "proc.num", "tags": tags }));
        let (status, saved) = site.ask("alice", "POST /strategy", new).await?;
        assert_eq!((status, &saved["tags"]), (200, &json!(tags)));
    }
    let text = "each(metric=m, jmxport=9995)";
    let new = with(&expression(), json!({ "expression": text }));
    site.check("alice", "POST /expression", new, 200, "expression created").await?;
    assert_eq!(expression::all(portal).await?[0].expression, text);
    let snapshot = Snapshot::load(portal).await?;
    let for_agents: Vec<&str> = snapshot.strategies.iter().map(|row| row.tags.as_str()).collect();
    assert_eq!(for_agents, texts);
    let (rules, skipped) = snapshot.rules(&jiff::Zoned::now(), 1);
    assert_eq!(skipped, Vec::<String>::new());
    for (rule, tags) in rules.hosts["web-01"].iter().zip(texts) {
        let mut scratch = String::new();
        assert!(model::Tags::canonical(tags, &mut scratch).have(&rule.tags), "{tags:?}");
        assert_eq!(rule.tags, model::tags::wanted(tags), "{tags:?}");
    }
    assert_eq!((rules.expressions[0].metric.as_str(), rules.expressions[0].tags.get("jmxport")), ("m", Some("9995")));
    Ok(())
}

#[tokio::test]
async fn ends_are_trimmed_and_24_00_is_an_end() -> Result<()> {
    let (site, tpl_id) = with_template().await?;
    let change = json!({ "metric": " cpu.idle\r\n", "note": "\u{3000}busy ", "func": " all(#3) ", "op": " <", "right_value": "10 ",
                         "run_begin": "00:00 ", "run_end": "24:00", "priority": 6 });
    let (_, saved) = site.ask("alice", "POST /strategy", with(&strategy(tpl_id), change)).await?;
    let row = strategy::by_id(&site.context.portal, saved["id"].as_i64().unwrap_or_default()).await?.expect("saved");
    let texts = [&row.metric, &row.note, &row.func, &row.op, &row.right_value, &row.run_begin, &row.run_end];
    assert_eq!(texts, ["cpu.idle", "busy", "all(#3)", "<", "10", "00:00", "24:00"]);
    let (_, saved) = site.ask("alice", "POST /template", json!({ "name": " t2\t" })).await?;
    assert_eq!(saved["tpl_name"], "t2");
    let (status, answer) = site.ask("alice", "POST /template", json!({ "name": "t\u{2066}3" })).await?;
    assert!(status == 400 && answer["error"].to_string().contains("name has a mark"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn actions_that_tell_and_call_nobody_are_refused() -> Result<()> {
    let (site, tpl_id) = with_template().await?;
    let base = json!({ "tpl_id": tpl_id, "uic": "ops" });
    let cases = || {
        vec![
            (json!({ "uic": "nobodys" }), "uic: there is no team \"nobodys\": make it, or name another"),
            (json!({ "uic": "ops, a ,b" }), "uic: there is no team \"a\", \"b\""),
            (json!({ "uic": "ops，b" }), "uic: there is no team \"ops，b\""),
            (
                json!({ "url": "not a url" }),
                "url \"not a url\" cannot be called: it has a blank; want one like http://",
            ),
            (json!({ "url": "ftp://x/y" }), "url \"ftp://x/y\" cannot be called"),
            (json!({ "url": "" , "callback": 1 }), "url is required with callback 1"),
            (json!({ "url": format!("http://x/{}", "y".repeat(255)) }), "url is longer than 255 characters"),
            (json!({ "url": "http://x/\n y" }), "url has a line break"),
            (json!({ "callback": 2 }), "callback must be 0 or 1"),
        ]
    };
    refuses(&site, "POST /template/action", &base, cases()).await?;
    let text = format!("action is created and bind to template: {tpl_id}");
    let right = with(&base, json!({ "uic": " ops , OPS,", "url": " http://x/y ", "callback": 1 }));
    site.check("alice", "POST /template/action", right, 200, json!({ "message": text })).await?;
    let template = template::by_id(&site.context.portal, tpl_id).await?.expect("made with the site");
    let saved = action::by_id(&site.context.portal, template.action_id).await?.expect("saved");
    assert_eq!((saved.uic.as_str(), saved.url.as_str()), ("ops,OPS", "http://x/y"));
    refuses(&site, "PUT /template/action", &with(&base, json!({ "id": saved.id })), cases()).await?;
    let none = with(&base, json!({ "name": "t2", "action_id": 99 }));
    site.check("alice", "POST /template", none, 400, "action_id: there is no action 99; 0 is none").await?;
    Ok(())
}

/// Scripts of an old installation make the team afterwards.
#[tokio::test]
async fn an_unknown_team_is_a_warning_under_open_falcons_rights() -> Result<()> {
    let site = with_team(Rights::OpenFalcon).await?;
    let tpl_id = template::create(&site.context.portal, "t", 0, 0, "alice").await?.id;
    let (status, answer) =
        site.ask("bob", "POST /template/action", json!({ "tpl_id": tpl_id, "uic": "ops,new" })).await?;
    assert_eq!(
        (status, &answer["message"]),
        (200, &json!(format!("action is created and bind to template: {tpl_id}")))
    );
    assert_eq!(answer["warning"], "uic: there is no team \"new\": make it, or name another");
    let new = with(&expression(), json!({ "action": { "uic": ["new"] } }));
    let (status, answer) = site.ask("bob", "POST /expression", new).await?;
    assert_eq!((status, &answer["message"]), (200, &json!("expression created")));
    assert_eq!(answer["warning"], "action.uic: there is no team \"new\": make it, or name another");
    Ok(())
}

#[tokio::test]
async fn a_second_action_takes_the_place_of_the_first_and_the_answer_shows_it() -> Result<()> {
    let (site, tpl_id) = with_template().await?;
    let portal = &site.context.portal;
    let action_of = async || anyhow::Ok(template::by_id(portal, tpl_id).await?.expect("made with the site").action_id);
    let first = json!({ "tpl_id": tpl_id, "uic": "ops", "url": "http://first/", "callback": 1 });
    assert_eq!(site.ask("alice", "POST /template/action", first).await?.0, 200);
    let id = action_of().await?;
    let second = json!({ "tpl_id": tpl_id, "url": "http://second/" });
    let (status, answer) = site.ask("alice", "POST /template/action", second.clone()).await?;
    let text = format!("action is bind to template: {tpl_id}, in place of the one that it had: {id}");
    assert_eq!((status, &answer["message"]), (200, &json!(text)));
    let replaced = json!({ "id": id, "uic": "ops", "url": "http://first/", "callback": 1, "before_callback_sms": 0,
                           "before_callback_mail": 0, "after_callback_sms": 0, "after_callback_mail": 0 });
    assert_eq!(answer["replaced"], replaced);
    assert_eq!(action_of().await?, id, "an event on its way may name it");
    assert_eq!(action::by_id(portal, id).await?.map(|action| action.url).as_deref(), Some("http://second/"));

    // An action that a copy of the template has too is neither changed nor deleted by the copy.
    let copy = json!({ "name": "copy", "action_id": id });
    let (_, copy) = site.ask("alice", "POST /template", copy).await?;
    let own = with(&second, json!({ "tpl_id": copy["id"], "url": "http://copy/" }));
    let text = format!("action is created and bind to template: {}", copy["id"]);
    site.check("alice", "POST /template/action", own, 200, text).await?;
    assert_eq!(action::by_id(portal, id).await?.map(|action| action.url).as_deref(), Some("http://second/"));
    let (_, other) = site.ask("alice", "POST /template", json!({ "name": "other", "action_id": id })).await?;
    assert_eq!(site.ask("alice", &format!("DELETE /template/{}", other["id"]), Value::Null).await?.0, 200);
    purge_actions(&site).await?;
    assert!(action::by_id(portal, id).await?.is_some());
    assert_eq!(site.ask("alice", &format!("DELETE /template/{tpl_id}"), Value::Null).await?.0, 200);
    purge_actions(&site).await?;
    assert_eq!(action::by_id(portal, id).await?, None, "nobody has it any more");
    Ok(())
}

#[tokio::test]
async fn patterns_of_endpoints_are_refused_where_they_are_literal() -> Result<()> {
    let new = || with(&expression(), json!({ "expression": "each(metric=m endpoint=web-*)", "action": { "uic": [] } }));
    let on = site(|_| {}).await?;
    on.check("alice", "POST /expression", new(), 200, "expression created").await?;
    let off = site(|config| config.judge.endpoint_patterns = false).await?;
    refuses(&off, "POST /expression", &new(), vec![(json!({}), "judge.endpoint_patterns = true")]).await?;
    Ok(())
}

/// A callback that would be denied at each alarm is refused at once; scripts of an old installation are warned.
#[tokio::test]
async fn callbacks_that_go_nowhere_are_refused_or_warned_of() -> Result<()> {
    let with_url = |url: &str, callback: i64| {
        with(&expression(), json!({ "action": { "uic": ["ops"], "url": url, "callback": callback } }))
    };
    let strict = with_team(Rights::Strict).await?;
    let old = with_team(Rights::OpenFalcon).await?;
    for url in
        ["http://127.0.0.1:1988/x", "http://[::1]/", "http://localhost:80/", "http://169.254.169.254/", "http://0/"]
    {
        let (status, answer) = strict.ask("alice", "POST /expression", with_url(url, 1)).await?;
        let text = answer["error"].as_str().unwrap_or_default();
        assert!(status == 400 && text.starts_with("action.url: ") && text.contains("alarm.callback_allow"), "{answer}");
        let (status, answer) = old.ask("alice", "POST /expression", with_url(url, 1)).await?;
        let text = answer["warning"].as_str().unwrap_or_default();
        assert!(status == 200 && text.starts_with("action.url: ") && text.contains("alarm.callback_allow"), "{answer}");
        strict.check("alice", "POST /expression", with_url(url, 0), 200, "expression created").await?;
    }
    strict.check("alice", "POST /expression", with_url("http://10.0.0.5:8000/x", 1), 200, "expression created").await?;
    let (site, tpl_id) = with_template().await?;
    let new = json!({ "tpl_id": tpl_id, "uic": "ops", "url": "http://127.0.0.1/", "callback": 1 });
    let (status, answer) = site.ask("alice", "POST /template/action", new).await?;
    assert!(
        status == 400 && answer["error"].as_str().is_some_and(|text| text.starts_with("url: 127.0.0.1 ")),
        "{answer}"
    );
    let allowed = site_that_allows_loopback().await?;
    allowed.check("alice", "POST /expression", with_url("http://127.0.0.1/", 1), 200, "expression created").await?;
    Ok(())
}

async fn site_that_allows_loopback() -> Result<Site> {
    let site = site(|config| config.alarm.callback_allow = vec!["127.0.0.0/8".parse().expect("a network")]).await?;
    team::create(&site.context.portal, "ops", "", 0, &[]).await?;
    Ok(site)
}

#[tokio::test]
async fn a_strategy_that_is_hardly_meant_is_saved_with_a_warning() -> Result<()> {
    let (site, tpl_id) = with_template().await?;
    let odd = with(&strategy(tpl_id), json!({ "tags": "endpoint=h", "run_begin": "08:00", "run_end": "08:00" }));
    let (status, saved) = site.ask("alice", "POST /strategy", odd.clone()).await?;
    let warning = saved["warning"].as_str().unwrap_or_default().to_string();
    assert!(status == 200 && warning.contains("endpoint=") && warning.contains("one minute a day"), "{saved}");
    let (status, answer) = site.ask("alice", "PUT /strategy", with(&odd, json!({ "id": saved["id"] }))).await?;
    assert_eq!((status, answer["warning"].as_str()), (200, Some(warning.as_str())));
    let (_, plain) = site.ask("alice", "POST /strategy", strategy(tpl_id)).await?;
    assert_eq!(plain.get("warning"), None);
    Ok(())
}
