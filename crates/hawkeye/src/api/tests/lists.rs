//! Lists: each has pages and an order, and asks the database as often for few rows as for many.

use super::docs::{filled, fresh};
use crate::api::docs;
use crate::portal::db::take_statements;
use crate::portal::tests::{fill, run};
use anyhow::{Context as _, Result};
use serde_json::Value;

/// Answers with a list that is no list of rows: what was asked for by name, for Grafana, or within one thing.
const NO_LISTS: [&str; 6] = [
    "GET /graph/endpointobj",
    "GET /grafana",
    "GET /grafana/metrics/find",
    "GET /grafana/render",
    "GET /team/t/{team_id}",
    "GET /team/name/{team_name}",
];

/// The rows of an answer: a list, or the one list of objects in an object.
fn rows_of(answer: &Value) -> Option<&Vec<Value>> {
    match answer {
        Value::Array(list) => Some(list),
        Value::Object(map) => map.values().find_map(Value::as_array),
        _ => None,
    }
}

#[tokio::test]
async fn each_list_has_pages_and_an_order() -> Result<()> {
    let site = filled().await?;
    let mut lists = 0;
    for doc in docs::all() {
        let (status, answer) = site.ask(&format!("{} {}", doc.method(), doc.example_path()), doc.example.body).await?;
        if doc.method() != "GET" || doc.example.is_stream {
            continue;
        }
        let is_list = doc.all_fields().any(|field| field.name == "sort");
        let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
        if !is_list {
            // A list of plain texts is no list of rows.
            let has_rows = answer.as_array().is_some_and(|rows| rows.first().is_none_or(Value::is_object));
            let is_told = NO_LISTS.contains(&doc.line) || !has_rows;
            assert!(is_told, "{} answers a list without page, limit and sort", doc.line);
            continue;
        }
        lists += 1;
        let asked = |query: &str| {
            // The example may have a part and an order already.
            let (path, own) = doc.example_path().split_once('?').unwrap_or((doc.example_path(), ""));
            let is_kept = |pair: &&str| !["page=", "limit=", "sort="].iter().any(|name| pair.starts_with(name));
            let pairs: Vec<&str> =
                own.split('&').filter(|pair| !pair.is_empty()).filter(is_kept).chain([query]).collect();
            format!("GET {path}?{}", pairs.join("&"))
        };
        assert_eq!(status, 200, "{}: {answer}", doc.line);
        let (status, _) = site.ask(&asked("page=1&limit=1"), "").await?;
        assert_eq!(status, 200, "{}", doc.line);
        let (_, part) = site.ask(&asked("page=1&limit=1"), "").await?;
        let part: Value = serde_json::from_str(&part)?;
        let count = rows_of(&part).with_context(|| format!("{} answers no rows", doc.line))?.len();
        assert!(count <= 1, "{}: {count} rows of 1", doc.line);
        let (_, beyond) = site.ask(&asked("page=1000&limit=1000"), "").await?;
        let beyond: Value = serde_json::from_str(&beyond)?;
        assert_eq!(rows_of(&beyond).map(Vec::len), Some(0), "{}", doc.line);
        for wrong in
            ["page=0&limit=1", "page=1&limit=0", "page=-1&limit=1", "page=x&limit=1", "page=1&limit=x", "sort=nope"]
        {
            let (status, answer) = site.ask(&asked(wrong), "").await?;
            assert!(status == 400 && answer.contains("\"error\":"), "{} with {wrong}: {status} {answer}", doc.line);
            let is_named = ["page", "limit", "sort"].iter().any(|name| wrong.contains(name) && answer.contains(name));
            assert!(is_named, "{} with {wrong}: {answer}", doc.line);
        }
        // The first of those that the refusal names.
        let (_, refusal) = site.ask(&asked("sort=nope"), "").await?;
        let fields = refusal.split("give ").nth(1).with_context(|| format!("{}: {refusal}", doc.line))?;
        let fields = fields.trim_start_matches("one of ").trim_start_matches('-');
        let field = fields.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
        for order in [field.to_string(), format!("-{field}")] {
            let (status, answer) = site.ask(&asked(&format!("sort={order}")), "").await?;
            assert_eq!(status, 200, "{} by {order}: {answer}", doc.line);
        }
    }
    assert!(lists > 25, "only {lists} lists");
    Ok(())
}

/// Rows of all tables that lists read. What the examples of the documents name has `count` rows of its own: group,
/// template, strategy and screen 2, host and user 3.
const ROWS: &[&str] = &[
    "INSERT INTO uic.user (name) SELECT i",
    "INSERT INTO uic.team (name) SELECT i",
    "INSERT INTO uic.rel_team_user (tid, uid) SELECT i, 3",
    "INSERT INTO uic.rel_team_user (tid, uid) SELECT 2, i",
    "INSERT INTO uic.hawkeye_token (name, uid, kept, scopes, created_at, created_by) SELECT i, 3, i, 'read', 1, 'root'",
    "INSERT INTO uic.hawkeye_audit (at, who, peer, action, subject, was, became) SELECT i, 'root', '', '', 'token:1', '', ''",
    "INSERT INTO falcon_portal.host (hostname) SELECT i",
    "INSERT INTO falcon_portal.hawkeye_agent (hostname, told_at) SELECT i, 1",
    "INSERT INTO falcon_portal.grp (grp_name, create_user) SELECT i, 'root'",
    "INSERT INTO falcon_portal.grp_host (grp_id, host_id) SELECT i, 3",
    "INSERT INTO falcon_portal.grp_host (grp_id, host_id) SELECT 2, i",
    "INSERT INTO falcon_portal.action (uic) SELECT i",
    "INSERT INTO falcon_portal.tpl (tpl_name, parent_id, action_id) SELECT i, i - 1, i",
    "INSERT INTO falcon_portal.grp_tpl (grp_id, tpl_id) SELECT i, 2",
    "INSERT INTO falcon_portal.grp_tpl (grp_id, tpl_id) SELECT 2, i",
    "INSERT INTO falcon_portal.strategy (metric, right_value, tpl_id) SELECT i, '1', 2",
    "INSERT INTO falcon_portal.hawkeye_exception (strategy_id, kind, target) SELECT 2, 'host', i",
    "INSERT INTO falcon_portal.expression (expression, action_id) SELECT 'each(metric=m a=b)', i",
    "INSERT INTO falcon_portal.plugin_dir (grp_id, dir) SELECT 2, i",
    "INSERT INTO falcon_portal.mockcfg (name, t_create) SELECT i, '2020-01-01 00:00:00'",
    "INSERT INTO falcon_portal.cluster (grp_id, numerator, denominator, endpoint, metric, tags, ds_type, step, creator)
     SELECT 2, '1', '1', 'e', i, '', 'GAUGE', 60, 'root'",
    "INSERT INTO falcon_portal.hawkeye_probe (name, definition) SELECT i, '{}'",
    "INSERT INTO falcon_portal.hawkeye_probe_state (probe_id, place, up, reason, changed_at) SELECT i, 'server', 1, '', 1",
    "INSERT INTO falcon_portal.hawkeye_job (name, kept, period, grace) SELECT i, i, 60, 0",
    "INSERT INTO dashboard.dashboard_screen (name) SELECT i",
    "INSERT INTO dashboard.dashboard_graph (title, screen_id) SELECT i, 2",
    "INSERT INTO alarms.event_cases (id, endpoint, metric, cond, priority, status, timestamp, update_at, closed_at)
     SELECT i, 'e', 'm', '', 0, 'PROBLEM', '2020-01-01 00:00:00', '2020-01-01 00:00:00', '2020-01-01 00:00:00'",
    "INSERT INTO alarms.events (event_caseId, cond, timestamp)
     SELECT 's_2_08d0f3650b4ce6526c78d4a187cb65c9', '', '2020-01-01 00:00:00'",
    "INSERT INTO alarms.event_note (event_caseId, note, status, timestamp, user_id)
     SELECT 's_2_08d0f3650b4ce6526c78d4a187cb65c9', 'n', 'comment', '2020-01-01 00:00:00', i + 1",
];

/// Statements and rows of each list, on a site with `count` rows of everything.
async fn costs(count: i64) -> Result<Vec<(&'static str, u64, usize)>> {
    let site = fresh().await?;
    run(
        &site.context.portal,
        "INSERT INTO alarms.event_cases (id, endpoint, metric, cond, priority, status, timestamp) VALUES
         ('s_2_08d0f3650b4ce6526c78d4a187cb65c9', 'web-01', 'm', 'c', 0, 'PROBLEM', '2020-01-01 00:00:00')",
    )
    .await?;
    for insert in ROWS {
        fill(&site.context.portal, insert, count).await?;
    }
    let mut costs = Vec::new();
    for doc in docs::all().filter(|doc| doc.method() == "GET" && doc.all_fields().any(|field| field.name == "sort")) {
        // The examples look for names that are not here.
        let path = doc.example_path();
        let is_needed = doc.fields.iter().any(|field| field.is_required) || !doc.is_list;
        let path = if is_needed { path } else { path.split('?').next().unwrap_or(path) };
        take_statements();
        let (status, answer) = site.ask(&format!("GET {path}"), "").await?;
        let statements = take_statements();
        assert_eq!(status, 200, "{}: {answer}", doc.line);
        let rows = rows_of(&serde_json::from_str(&answer)?).map_or(0, Vec::len);
        costs.push((doc.line, statements, rows));
    }
    Ok(costs)
}

#[tokio::test]
async fn a_list_asks_the_database_as_often_for_few_rows_as_for_many() -> Result<()> {
    let (few, many) = (costs(3).await?, costs(60).await?);
    assert!(few.len() > 25, "{few:?}");
    for ((line, statements, rows), (_, of_many, many_rows)) in few.into_iter().zip(many) {
        assert_eq!(statements, of_many, "{line}: {rows} rows, {many_rows} rows");
        assert!((1..=8).contains(&statements), "{line}: {statements} statements");
        // The series are not the database's.
        let is_of_store = line.starts_with("GET /graph/");
        assert!(is_of_store || (rows >= 2 && many_rows >= 50), "{line}: {rows} rows, {many_rows} rows");
    }
    Ok(())
}
