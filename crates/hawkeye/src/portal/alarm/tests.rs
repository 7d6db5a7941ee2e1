use super::*;
use crate::clock::local_text;
use crate::portal::tests::temporary;
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
