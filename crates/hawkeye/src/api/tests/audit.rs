//! The audit: what goes along with a deletion, which ids things were made under, and what leaves no row.

use super::tokens::{changes, make};
use super::{Site, site, site_in};
use crate::portal::db::query;
use crate::portal::{group, user};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// Asks as root, and wants it done.
async fn done(site: &Site, line: &str, body: Value) -> Result<Value> {
    let (status, answer) = site.ask("root", line, body).await?;
    assert_eq!(status, 200, "{line}: {answer}");
    Ok(answer)
}

/// The newest row of an action.
async fn newest(site: &Site, action: &str) -> Result<Value> {
    let action = action.replace(' ', "%20").replace('{', "%7B").replace('}', "%7D");
    let rows = changes(site, &format!("action={action}")).await?;
    rows.into_iter().next().with_context(|| format!("no row of {action}"))
}

/// A template with a strategy that has an exception, bound to a group with a host, an aggregator and a plugin.
async fn filled() -> Result<Site> {
    let site = site(|_| {}).await?;
    done(&site, "POST /template", json!({ "name": "t" })).await?;
    let strategy =
        json!({ "tpl_id": 1, "metric": "m", "func": "all(#1)", "op": ">", "right_value": "1", "max_step": 1 });
    done(&site, "POST /strategy", strategy).await?;
    done(&site, "POST /hostgroup", json!({ "name": "web" })).await?;
    done(&site, "POST /hostgroup/host", json!({ "hostgroup_id": 1, "hosts": ["h"] })).await?;
    done(&site, "POST /hostgroup/template", json!({ "grp_id": 1, "tpl_id": 1 })).await?;
    done(&site, "POST /plugin", json!({ "hostgroup_id": 1, "dir_path": "sys/ntp" })).await?;
    let aggregator = json!({ "hostgroup_id": 1, "numerator": "$(m)", "denominator": "$#", "endpoint": "e", "metric": "sum",
                             "step": 60 });
    done(&site, "POST /aggregator", aggregator).await?;
    let exception = |kind: &str, target: &str| json!({ "strategy_id": 1, "kind": kind, "target": target, "pause": 1 });
    done(&site, "POST /exception", exception("group", "web")).await?;
    done(&site, "POST /exception", exception("host", "h")).await?;
    Ok(site)
}

#[tokio::test]
async fn what_goes_along_is_in_the_row() -> Result<()> {
    let site = filled().await?;
    done(&site, "DELETE /host/1", Value::Null).await?;
    assert_eq!(newest(&site, "DELETE /host/{id}").await?["was"]["groups"], json!(["web"]));
    done(&site, "DELETE /hostgroup/1", Value::Null).await?;
    let was = newest(&site, "DELETE /hostgroup/{id}").await?["was"].take();
    assert_eq!((&was["plugins"][0]["dir"], &was["aggregators"][0]["metric"]), (&json!("sys/ntp"), &json!("sum")));
    assert_eq!((&was["templates"], &was["exceptions"][0]["target"]), (&json!(["t"]), &json!("web")));

    let site = filled().await?;
    done(&site, "DELETE /strategy/1", Value::Null).await?;
    let was = newest(&site, "DELETE /strategy/{sid}").await?["was"].take();
    assert_eq!((&was["metric"], was["exceptions"].as_array().map(Vec::len)), (&json!("m"), Some(2)));

    let site = filled().await?;
    done(&site, "DELETE /template/1", Value::Null).await?;
    let was = newest(&site, "DELETE /template/{tpl_id}").await?["was"].take();
    assert_eq!((&was["groups"], &was["strategies"][0]["id"]), (&json!(["web"]), &json!(1)));
    assert_eq!(was["exceptions"].as_array().map(Vec::len), Some(2));

    done(&site, "POST /dashboard/screen", json!({ "name": "s" })).await?;
    let chart = json!({ "screen_id": 1, "title": "c", "endpoints": ["e"], "counters": ["c"] });
    done(&site, "POST /dashboard/graph", chart).await?;
    done(&site, "DELETE /dashboard/screen/1", Value::Null).await?;
    assert_eq!(newest(&site, "DELETE /dashboard/screen/{screen_id}").await?["was"]["graphs"][0]["title"], "c");

    let alice = user::by_name(&site.context.portal, "alice").await?.context("a user")?.id;
    done(&site, "POST /team", json!({ "team_name": "ops", "users": [alice] })).await?;
    make(&site, "alice", json!({ "name": "ci", "scopes": ["read"] })).await?;
    done(&site, "DELETE /admin/delete_user", json!({ "user_id": alice })).await?;
    let was = newest(&site, "DELETE /admin/delete_user").await?["was"].take();
    assert_eq!((&was["teams"], &was["tokens"][0]["name"]), (&json!(["ops"]), &json!("ci")));
    done(&site, "DELETE /team/1", Value::Null).await?;
    assert_eq!(newest(&site, "DELETE /team/{team_id}").await?["was"]["members"], json!([]));

    // By files, too.
    let apply = json!({ "files": {}, "kinds": ["groups", "aggregators"] });
    done(&site, "POST /apply", apply).await?;
    let went = newest(&site, "POST /apply").await?["became"].take();
    let hosts = json!({ "key": "hosts", "old": ["h"], "new": null });
    assert!(went["changes"][0]["fields"].as_array().context("fields")?.contains(&hosts), "{went}");
    assert_eq!(went["changes"][1]["kind"], "aggregators");
    Ok(())
}

#[tokio::test]
async fn what_is_made_is_told_with_its_id() -> Result<()> {
    let site = filled().await?;
    let profile = json!({ "name": "carol", "cnname": "C", "email": "c@x", "password": "p" });
    done(&site, "POST /user/create", profile).await?;
    done(&site, "POST /team", json!({ "team_name": "ops" })).await?;
    make(&site, "alice", json!({ "name": "ci", "scopes": ["read"] })).await?;
    let rule = json!({ "expression": "each(metric=m a=b)", "func": "all(#1)", "op": ">", "right_value": "1", "max_step": 1,
                       "priority": 1, "action": { "uic": [], "callback": 0 } });
    done(&site, "POST /expression", rule).await?;
    let nodata = json!({ "name": "n", "obj": "h", "obj_type": "host", "metric": "m", "dstype": "GAUGE", "step": 60 });
    done(&site, "POST /nodata/", nodata).await?;
    done(&site, "POST /dashboard/screen", json!({ "name": "s" })).await?;
    let chart = json!({ "screen_id": 1, "title": "c", "endpoints": ["e"], "counters": ["c"] });
    done(&site, "POST /dashboard/graph", chart).await?;
    let carol = user::by_name(&site.context.portal, "carol").await?.context("a user")?.id;
    for (action, subject) in [
        ("POST /user/create", format!("user:{carol}")),
        ("POST /team", "team:1".into()),
        ("POST /token", "token:1".into()),
        ("POST /template", "template:1".into()),
        ("POST /strategy", "template:1".into()),
        ("POST /hostgroup", "hostgroup:1".into()),
        ("POST /aggregator", "aggregator:1".into()),
        ("POST /exception", "exception:2".into()),
        ("POST /expression", "expression:1".into()),
        ("POST /nodata/", "nodata:1".into()),
        ("POST /dashboard/screen", "screen:1".into()),
        ("POST /dashboard/graph", "graph:1".into()),
    ] {
        let row = newest(&site, action).await?;
        assert_eq!((row["subject"].as_str(), &row["was"]["id"]), (Some(subject.as_str()), &Value::Null), "{row}");
        assert!(row["became"]["id"].is_i64() || action == "POST /strategy", "{row}");
    }
    assert_eq!(newest(&site, "POST /strategy").await?["became"]["strategies"][0]["id"], 1);
    assert_eq!(newest(&site, "POST /plugin").await?["became"]["plugins"][0]["id"], 1);
    Ok(())
}

#[tokio::test]
async fn what_was_not_there_leaves_no_row() -> Result<()> {
    let site = filled().await?;
    done(&site, "POST /dashboard/screen", json!({ "name": "s" })).await?;
    let before = changes(&site, "").await?.len();
    for (line, body) in [
        ("DELETE /strategy/99", Value::Null),
        ("DELETE /nodata/99", Value::Null),
        ("DELETE /team/99", Value::Null),
        ("DELETE /dashboard/screen/99", Value::Null),
        ("DELETE /dashboard/graph/99", Value::Null),
        ("PUT /dashboard/graph/99", json!({ "title": "t" })),
        ("DELETE /graph/endpoint", json!(["nobody"])),
        ("DELETE /graph/counter", json!({ "endpoints": ["nobody"], "counters": ["m"] })),
        // The one that is there is answered.
        ("POST /dashboard/screen", json!({ "name": "S" })),
    ] {
        done(&site, line, body).await?;
    }
    for line in ["DELETE /template/99", "DELETE /hostgroup/99", "DELETE /host/99", "DELETE /hostgroup/x"] {
        let (status, answer) = site.ask("root", line, Value::Null).await?;
        assert!(status >= 400, "{line}: {answer}");
    }
    assert_eq!(changes(&site, "").await?.len(), before);
    Ok(())
}

/// What a request leaves as it was has no row; what no row can show has one all the same.
#[tokio::test]
async fn what_changes_nothing_leaves_no_row() -> Result<()> {
    let site = filled().await?;
    let url = |secret: &str| json!({ "tpl_id": 1, "url": format!("http://u:{secret}@127.0.0.1/x"), "callback": 0 });
    done(&site, "POST /template/action", url("one")).await?;
    done(&site, "POST /dashboard/screen", json!({ "name": "s" })).await?;
    let before = changes(&site, "").await?.len();
    let strategy = json!({ "id": 1, "metric": "m", "func": "all(#1)", "op": ">", "right_value": "1", "max_step": 1 });
    for (line, body) in [
        ("PUT /strategy", strategy),
        ("PUT /hostgroup", json!({ "id": 1, "grp_name": "web" })),
        ("POST /hostgroup/host", json!({ "hostgroup_id": 1, "hosts": ["h"] })),
        ("PUT /dashboard/screen/1", json!({ "name": "s", "pid": 0 })),
        ("DELETE /host/maintain", json!({ "hosts": ["h"] })),
    ] {
        done(&site, line, body).await?;
        assert_eq!(changes(&site, "").await?.len(), before, "{line}");
    }
    let alice = user::by_name(&site.context.portal, "alice").await?.context("a user")?.id;
    done(&site, "PUT /admin/change_user_passwd", json!({ "user_id": alice, "password": "other-pw" })).await?;
    assert_eq!(newest(&site, "PUT /admin/change_user_passwd").await?["subject"], format!("user:{alice}"));
    let action = json!({ "id": 1, "url": "http://u:two@127.0.0.1/x", "callback": 0 });
    done(&site, "PUT /template/action", action).await?;
    let row = newest(&site, "PUT /template/action").await?;
    assert!(row["subject"] == "action:1" && !row.to_string().contains("two"), "{row}");
    Ok(())
}

#[tokio::test]
async fn a_session_that_is_given_is_told_with_the_id_of_its_user() -> Result<()> {
    let site = site(|_| {}).await?;
    done(&site, "POST /admin/login", json!({ "name": "Alice" })).await?;
    let alice = user::by_name(&site.context.portal, "alice").await?.context("a user")?.id;
    let row = newest(&site, "POST /admin/login").await?;
    assert_eq!((&row["subject"], &row["became"]), (&json!(format!("user:{alice}")), &json!({ "name": "Alice" })));
    Ok(())
}

#[tokio::test]
async fn a_limit_without_a_page_is_the_first_page() -> Result<()> {
    let site = filled().await?;
    let ids = async |query: &str| -> Result<Vec<i64>> {
        Ok(changes(&site, query).await?.iter().filter_map(|row| row["id"].as_i64()).collect())
    };
    let all = ids("").await?;
    for (query, expected) in [
        ("limit=3", &all[..3]),
        ("limit=3&page=", &all[..3]),
        ("limit=3&page=1", &all[..3]),
        ("limit=3&page=2", &all[3..6]),
    ] {
        assert_eq!(ids(query).await?, expected, "{query}");
    }
    assert_eq!(site.ask("root", "GET /audit?limit=0", Value::Null).await?.0, 400);
    Ok(())
}

/// Who applies is kept with what is applied, or neither is.
#[tokio::test]
async fn what_is_applied_is_in_its_row_or_not_done() -> Result<()> {
    // The trigger is SQLite's.
    let site = site_in(crate::portal::tests::in_file().await?, |_| {}).await?;
    let portal = &site.context.portal;
    let files = json!({ "groups/web.toml": "name = \"web\"\n" });
    let apply = json!({ "files": files, "kinds": ["groups"] });
    let refuse = "CREATE TRIGGER refuse BEFORE UPDATE ON hawkeye_audit BEGIN SELECT RAISE(ABORT, 'no room'); END";
    query(refuse).execute(portal).await?;
    assert_eq!(site.ask("root", "POST /apply", apply.clone()).await?.0, 500);
    assert_eq!(group::all(portal).await?.len(), 0);
    let row = newest(&site, "POST /apply").await?;
    assert_eq!((&row["status"], &row["became"]), (&json!(0), &Value::Null), "it began, and was cut off");
    query("DROP TRIGGER refuse").execute(portal).await?;
    done(&site, "POST /apply", apply).await?;
    let row = newest(&site, "POST /apply").await?;
    assert_eq!((&row["status"], &row["subject"]), (&json!(200), &json!("portal:")));
    assert_eq!(row["became"]["changes"][0]["name"], "web");
    Ok(())
}
