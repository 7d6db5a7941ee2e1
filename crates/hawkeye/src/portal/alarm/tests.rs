use super::*;
use crate::clock::local_text;
use crate::portal::tests::temporary;
use crate::portal::user;
use anyhow::Result;
use model::{EventRule, Expression, Strategy, Template};
use std::sync::Arc;

const T: i64 = 1_490_000_000;

fn event(status: Status, step: i32, time: i64) -> Event {
    let strategy = Strategy {
        id: 12,
        metric: "df".into(),
        func: "all(#3)".into(),
        max_step: 3,
        priority: 2,
        note: format!("note {step}"),
        tpl: Template { id: 7, creator: "alice".into(), ..Template::default() },
        ..Strategy::default()
    };
    Event {
        rule: EventRule::Strategy(Arc::new(strategy)),
        status,
        endpoint: "web-01".into(),
        tags: "mount=/".into(),
        left_value: 3.0,
        current_step: step,
        time,
        explanation: None,
    }
}

async fn store(portal: &Portal, event: &Event, condition: &str) -> Result<Case> {
    let mut transaction = portal.write().await?;
    record(&mut transaction, event, condition).await?;
    transaction.commit().await?;
    let filter = CaseFilter { id: event.id(), ..CaseFilter::default() };
    Ok(cases(portal, &filter, 0, 1).await?.remove(0))
}

#[tokio::test]
async fn a_new_case_holds_the_whole_event() -> Result<()> {
    let (_dir, portal) = temporary().await?;
    let first = event(Status::Problem, 1, T);
    let expected = Case {
        id: first.id(),
        endpoint: "web-01".into(),
        metric: "df/mount=/".into(),
        func: "all(#3)".into(),
        cond: "3 < 5".into(),
        note: "note 1".into(),
        max_step: 3,
        current_step: 1,
        priority: 2,
        status: "PROBLEM".into(),
        timestamp: local_text(T),
        update_at: Some(local_text(T)),
        closed_at: None,
        closed_note: String::new(),
        user_modified: 0,
        tpl_creator: "alice".into(),
        expression_id: 0,
        strategy_id: 12,
        template_id: 7,
        process_note: 0,
        process_status: "unresolved".into(),
        told: String::new(),
    };
    assert_eq!(store(&portal, &first, "3 < 5").await?, expected);
    let expression = Expression { id: 4, metric: "m".into(), ..Expression::default() };
    let of_expression = Event { rule: EventRule::Expression(Arc::new(expression)), ..first };
    let case = store(&portal, &of_expression, "c").await?;
    assert_eq!((case.expression_id, case.strategy_id, case.template_id, case.tpl_creator.as_str()), (4, 0, 0, ""));
    Ok(())
}

/// The rules of what a later event changes: `before` is the process status it finds.
#[tokio::test]
async fn a_later_event_brings_the_case_up_to_date() -> Result<()> {
    let (_dir, portal) = temporary().await?;
    let id = event(Status::Ok, 1, T).id();
    store(&portal, &event(Status::Problem, 1, T), "a").await?;
    let check = async |before: &str, later: Event, timestamp: i64, process: (&str, i64)| -> Result<()> {
        query("UPDATE alarms.event_cases SET process_status = ?, process_note = 9, timestamp = ? WHERE id = ?")
            .bind(before)
            .bind(local_text(T))
            .bind(&id)
            .execute(&portal)
            .await?;
        let case = store(&portal, &later, "later").await?;
        let got = (case.timestamp.as_str(), case.process_status.as_str(), case.process_note);
        assert_eq!(got, (local_text(timestamp).as_str(), process.0, process.1), "{before} then {later:?}");
        assert_eq!((case.update_at, case.cond.as_str()), (Some(local_text(later.time)), "later"));
        assert_eq!((case.status.as_str(), case.note), (later.status.as_str(), later.note().to_string()));
        assert_eq!(case.current_step, i64::from(later.current_step));
        Ok(())
    };
    let problem = |step| event(Status::Problem, step, T + 600);
    let ok = || event(Status::Ok, 1, T + 900);
    check("unresolved", problem(2), T, ("unresolved", 9)).await?;
    check("in progress", problem(3), T, ("in progress", 9)).await?;
    check("resolved", problem(2), T, ("unresolved", 0)).await?;
    check("ignored", problem(2), T, ("unresolved", 0)).await?;
    check("in progress", problem(1), T + 600, ("in progress", 9)).await?;
    check("unresolved", ok(), T + 900, ("unresolved", 9)).await?;
    check("resolved", ok(), T + 900, ("unresolved", 0)).await?;
    let filter = OccurrenceFilter { case_id: id, ..OccurrenceFilter::default() };
    let events = events(&portal, &filter, None, 0, 50).await?;
    assert_eq!(events.len(), 8, "each occurrence is a row");
    assert_eq!(events.iter().filter(|event| event.status == 1).count(), 2);
    Ok(())
}

/// The reason of a closing, an explanation and a note are kept, and nothing but an event moves the time of a case.
#[tokio::test]
async fn a_case_that_is_closed_keeps_its_reason_and_its_notes() -> Result<()> {
    let (_dir, portal) = temporary().await?;
    let problem = event(Status::Problem, 1, T);
    store(&portal, &problem, "3 < 5").await?;
    let (cases_open, count) = open::newest(&portal, 10).await?;
    assert_eq!((cases_open.len(), cases_open[0].timestamp.clone(), count), (1, local_text(T), 1));
    assert_eq!(open::newest(&portal, 0).await?, (vec![], 1), "those that are not listed are counted");
    let explanation =
        Explanation { closed: "主机没了".into(), rule_version: "😀".into(), ..Explanation::default() };
    let end = Event { explanation: Some(Box::new(explanation.clone())), ..event(Status::Ok, 2, T + 60) };
    let case = store(&portal, &end, "3 < 5").await?;
    assert_eq!((case.closed_at, case.timestamp), (Some(local_text(T + 60)), local_text(T)));
    assert_eq!(open::newest(&portal, 10).await?, (vec![], 0));
    let filter = OccurrenceFilter { case_id: end.id(), ..OccurrenceFilter::default() };
    let told = events(&portal, &filter, Some(1), 0, 10).await?;
    assert_eq!(told.iter().map(|event| event.explanation.as_ref()).collect::<Vec<_>>(), [Some(&explanation)]);
    assert_eq!(told[0].timestamp, Some(local_text(T + 60)));

    let user_id = user::create(&portal, "alice", "", &user::Profile::default(), user::NORMAL, 0).await?;
    let note = |status: &str| NewNote {
        event_id: end.id(),
        note: status.to_uppercase(),
        status: status.into(),
        case_id: String::new(),
        user_id,
    };
    assert!(add_note(&portal, &note("resolved"), T + 70).await?);
    assert!(add_note(&portal, &note(COMMENT), T + 80).await?);
    assert!(!add_note(&portal, &NewNote { event_id: "none".into(), ..note(COMMENT) }, T).await?);
    let find = async |status: &str| notes(&portal, &filter, status, 0, 10).await;
    let shown: Vec<_> = find("").await?.into_iter().map(|note| (note.note, note.user, note.timestamp)).collect();
    let row = |note: &str, time| (note.to_string(), "alice".to_string(), Some(local_text(time)));
    assert_eq!(shown, [row("COMMENT", T + 80), row("RESOLVED", T + 70)]);
    let filter = CaseFilter { process_status: vec!["RESOLVED".into(), "ignored".into()], ..CaseFilter::default() };
    let case = cases(&portal, &filter, 0, 10).await?.remove(0);
    assert_eq!((case.process_note > 0, case.timestamp), (true, local_text(T)), "states compare without case");
    user::delete(&portal, user_id).await?;
    let left = find("resolved").await?.remove(0);
    assert_eq!((left.user.as_str(), left.timestamp), ("", Some(local_text(T + 70))), "a note outlives its writer");
    Ok(())
}

/// What was closed by maintenance and alarms again is not closed, nor is what recovers then by itself; a case that
/// somebody has modified keeps what he wrote.
#[tokio::test]
async fn a_case_that_is_open_again_loses_the_reason_of_its_closing() -> Result<()> {
    let (_dir, portal) = temporary().await?;
    let problem = |step| event(Status::Problem, step, T + 600);
    let closing = Event {
        explanation: Some(Box::new(Explanation { closed: "in maintenance".into(), ..Explanation::default() })),
        ..event(Status::Ok, 1, T + 60)
    };
    let reason = async |later: &Event| -> Result<(Option<String>, String)> {
        let case = store(&portal, later, "c").await?;
        Ok((case.closed_at, case.closed_note))
    };
    let (closed, open) = ((Some(local_text(T + 60)), "in maintenance".to_string()), (None, String::new()));
    store(&portal, &event(Status::Problem, 1, T), "c").await?;
    assert_eq!(reason(&closing).await?, closed);
    assert_eq!(reason(&problem(1)).await?, open);
    assert_eq!(reason(&event(Status::Ok, 1, T + 900)).await?, open);
    assert_eq!(reason(&closing).await?, closed);
    query("UPDATE alarms.event_cases SET user_modified = 1, timestamp = timestamp").execute(&portal).await?;
    assert_eq!(reason(&problem(1)).await?, closed);
    Ok(())
}

#[tokio::test]
async fn old_events_go_in_batches_and_the_oldest_first() -> Result<()> {
    let (_dir, portal) = temporary().await?;
    for step in 1..=5 {
        store(&portal, &event(Status::Problem, step, T + i64::from(step)), "c").await?;
    }
    let drop = async |cutoff: i64, limit: usize| -> Result<u64> {
        let mut transaction = portal.write().await?;
        let dropped = drop_events_before(&mut transaction, cutoff, limit).await?;
        transaction.commit().await?;
        Ok(dropped)
    };
    assert_eq!((drop(T, 10).await?, drop(T + 5, 3).await?), (0, 3));
    let filter = OccurrenceFilter { case_id: event(Status::Ok, 1, T).id(), ..OccurrenceFilter::default() };
    let steps = async || -> Result<Vec<i64>> {
        Ok(events(&portal, &filter, None, 0, 10).await?.into_iter().map(|event| event.step).collect())
    };
    assert_eq!(steps().await?, [5, 4]);
    assert_eq!((drop(T + 5, 3).await?, steps().await?), (1, vec![5]));
    Ok(())
}

#[tokio::test]
async fn a_case_says_what_of_its_telling_failed() -> Result<()> {
    let (_dir, portal) = temporary().await?;
    let event = event(Status::Problem, 1, T);
    store(&portal, &event, "c").await?;
    let told = async || -> Result<(String, String)> {
        let filter = CaseFilter { id: event.id(), ..CaseFilter::default() };
        let case = cases(&portal, &filter, 0, 1).await?.remove(0);
        assert_eq!(open::newest(&portal, 9).await?.0[0].told, case.told);
        Ok((case.told, case.timestamp))
    };
    let mut transaction = portal.write().await?;
    tell_more(&mut transaction, &event.id(), "sms failed: x").await?;
    tell_more(&mut transaction, &event.id(), "im failed: 磁").await?;
    tell_more(&mut transaction, "unknown", "x").await?;
    transaction.commit().await?;
    assert_eq!(told().await?, ("sms failed: x; im failed: 磁".to_string(), local_text(T)));
    assert_eq!(open::untold(&portal).await?, 0);
    let mut transaction = portal.write().await?;
    tell(&mut transaction, &event.id(), &format!("{TOLD_NOBODY}: {}", "磁".repeat(TOLD_MAX))).await?;
    transaction.commit().await?;
    assert_eq!((told().await?.0.chars().count(), open::untold(&portal).await?), (TOLD_MAX, 1));
    let mut transaction = portal.write().await?;
    tell(&mut transaction, &event.id(), "").await?;
    transaction.commit().await?;
    assert_eq!((told().await?.0.as_str(), open::untold(&portal).await?), ("", 0));
    Ok(())
}
