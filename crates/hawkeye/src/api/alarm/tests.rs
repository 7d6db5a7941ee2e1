use super::*;
use crate::api::tests::site;
use crate::portal::alarm::record;
use anyhow::Result;
use model::{Event, EventRule, Status, Strategy, Template};
use std::sync::Arc;

fn event(id: i64, endpoint: &str, metric: &str, priority: i32, status: Status, time: i64) -> Event {
    let tpl = Template { id: 80 + id, creator: "alice".into(), ..Template::default() };
    let strategy =
        Strategy { id, metric: metric.into(), max_step: 3, priority, tpl, note: "n".into(), ..Strategy::default() };
    Event {
        rule: EventRule::Strategy(Arc::new(strategy)),
        status,
        endpoint: endpoint.into(),
        tags: String::new(),
        left_value: 5.0,
        current_step: 1,
        time,
        explanation: None,
    }
}

const T: i64 = 1_490_000_000;

/// Checks the cases that a request finds, by endpoint, in order.
#[tokio::test]
async fn cases_are_found_by_each_selector() -> Result<()> {
    let site = site(|_| {}).await?;
    let mut transaction = site.context.portal.write().await?;
    for event in [
        event(1, "web-01", "cpu.idle", 0, Status::Problem, T),
        event(2, "web-02", "df.percent", 2, Status::Problem, T + 60),
        event(2, "web-02", "df.percent", 2, Status::Ok, T + 120),
        event(3, "db", "agent.alive", 1, Status::Problem, T + 180),
    ] {
        record(&mut transaction, &event, "5 < 10").await?;
    }
    transaction.commit().await?;
    let check = async |query: &str, expected: &[&str]| -> Result<()> {
        let (status, answer) = site.ask("bob", &format!("GET /alarm/eventcases?{query}"), Value::Null).await?;
        let found: Vec<&str> =
            answer.as_array().into_iter().flatten().filter_map(|case| case["endpoint"].as_str()).collect();
        assert_eq!((status, found.as_slice()), (200, expected), "{query}: {answer}");
        Ok(())
    };
    let all = format!("startTime={T}");
    check(&all, &["db", "web-02", "web-01"]).await?;
    check(&format!("startTime={}&endTime={}", T + 1, T + 150), &["web-02"]).await?;
    check(&format!("{all}&priority=0"), &["web-01"]).await?;
    check(&format!("{all}&priority=-1"), &["db", "web-02", "web-01"]).await?;
    check(&format!("{all}&status=ok"), &["web-02"]).await?;
    check(&format!("{all}&status=PROBLEM,OK&process_status=resolved"), &[]).await?;
    check(&format!("{all}&metrics=%5EDF"), &["web-02"]).await?;
    check(&format!("{all}&metrics=.&page=2&limit=2"), &["web-01"]).await?;
    check(&format!("{all}&metrics=("), &[]).await?;
    check("endpoints=db&endpoints=web-01", &["db", "web-01"]).await?;
    check("strategy_id=2", &["web-02"]).await?;
    check("template_id=83", &["db"]).await?;
    check(&format!("{all}&limit=1"), &["db"]).await?;
    check(&format!("{all}&page=2&limit=2"), &["web-01"]).await?;
    check("event_id=none", &[]).await?;
    Ok(())
}

#[tokio::test]
async fn events_and_notes_of_a_case() -> Result<()> {
    let site = site(|_| {}).await?;
    let portal = &site.context.portal;
    let problem = event(1, "web-01", "cpu.idle", 0, Status::Problem, T);
    let (id, ok) = (problem.id(), event(1, "web-01", "cpu.idle", 0, Status::Ok, T + 60));
    let mut transaction = portal.write().await?;
    record(&mut transaction, &problem, "5 < 10").await?;
    record(&mut transaction, &ok, "50 < 10").await?;
    transaction.commit().await?;
    let time = |unix| rfc3339(&crate::clock::local_text(unix));
    let newest =
        object!({ "id": 2, "step": 1, "event_caseId": id, "cond": "50 < 10", "status": 1, "timestamp": time(T + 60) });
    let oldest =
        object!({ "id": 1, "step": 1, "event_caseId": id, "cond": "5 < 10", "status": 0, "timestamp": time(T) });
    let list = object!([newest, oldest]);
    site.check("bob", &format!("GET /alarm/events?event_id={id}"), Value::Null, 200, list).await?;
    let problems = object!({ "event_id": id, "status": 0 });
    site.check("bob", "POST /alarm/events", problems, 200, object!([oldest])).await?;
    let later = object!({ "event_id": id, "startTime": T + 1 });
    site.check("bob", "POST /alarm/events", later, 200, object!([newest])).await?;

    let note = |status: &str| object!({ "event_id": id, "note": "looking", "status": status, "case_id": "c1" });
    let added = object!({ "id": id, "message": format!("add note to {id} successfuled") });
    site.check("alice", "POST /alarm/event_note", note("resolved"), 200, added.clone()).await?;
    site.check("bob", "POST /alarm/event_note", note("comment"), 200, added).await?;
    let (_, notes) = site.ask("bob", &format!("GET /alarm/event_note?event_id={id}"), Value::Null).await?;
    // The newest first; both may be of one second.
    let mut users: Vec<&str> =
        notes.as_array().into_iter().flatten().filter_map(|note| note["user"].as_str()).collect();
    users.sort_unstable();
    assert_eq!(users, ["alice", "bob"]);
    let (_, only) =
        site.ask("bob", &format!("GET /alarm/event_note?event_id={id}&status=comment"), Value::Null).await?;
    assert_eq!(only.as_array().map(Vec::len), Some(1));
    let (_, case) = site.ask("bob", &format!("GET /alarm/eventcases?event_id={id}"), Value::Null).await?;
    assert_eq!((&case[0]["process_status"], &case[0]["process_note"]), (&object!("resolved"), &object!(1)));
    Ok(())
}

#[tokio::test]
async fn what_is_refused() -> Result<()> {
    let site = site(|config| config.api.server_token = "secret".into()).await?;
    let check = async |line: &str, body: Value, part: &str| -> Result<()> {
        let (status, answer) = site.ask("bob", line, body).await?;
        let text = answer["error"].as_str().unwrap_or_default();
        assert!(status == 400 && text.contains(part), "{line}: {status} {answer}");
        Ok(())
    };
    let cases = "POST /alarm/eventcases";
    check(cases, object!({}), "You have to at least pick one").await?;
    check(cases, object!({ "priority": 1, "status": "OK" }), "You have to at least pick one").await?;
    check(cases, object!({ "startTime": 1, "page": 1 }), "You set page but skip limit params").await?;
    check(cases, object!({ "startTime": 1, "limit": -1 }), "limit or page").await?;
    check(cases, object!({ "startTime": "x" }), "startTime must be a whole number").await?;
    let many: Vec<String> = (0..=ENDPOINTS_MAX).map(|n| n.to_string()).collect();
    check(cases, object!({ "endpoints": many }), "endpoints holds more than").await?;
    check("GET /alarm/events", Value::Null, "event_id is required").await?;
    check("POST /alarm/events", object!({ "event_id": "x", "status": 2 }), "status must be").await?;
    check("GET /alarm/event_note", Value::Null, "startTime, endTime OR event_id").await?;
    let note = |status: &str| object!({ "event_id": "x", "note": "n", "status": status });
    check("POST /alarm/event_note", note("done"), "params status").await?;
    check("POST /alarm/event_note", note("comment"), "event_id \"x\" is no event case").await?;
    check("POST /alarm/event_note", object!({ "event_id": "x", "status": "comment" }), "note is required").await?;
    assert_eq!(site.ask("", "GET /alarm/events?event_id=x", Value::Null).await?.0, 401);
    let token = object!({ "name": "robot", "sig": "secret" }).to_string();
    let headers = [("apitoken", token), ("content-type", "application/json".to_string())];
    let (status, _) = site.send("POST /alarm/event_note", &headers, note("comment").to_string()).await?;
    assert_eq!(status, 400, "a note needs an author");
    Ok(())
}
