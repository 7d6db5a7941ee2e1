//! Reason: why a probe is down, or what is wrong with a job, for the text of its alarm.
//!
//! Why: "probe.up 0 == 0" sends people to a page to learn what `certificate expired 2 d ago` says in the message.
//! How: what the probe's places say stands in a table before the points come that raise the alarm. Of a series with the
//! tag `from` the reason of this place is taken; of one that places say together those of the places that are down,
//! three of them. A job's row says what is wrong with it (`portal/job.rs`).
//! Invariants: what a place has said before its alarm was OK last is not quoted, for then it is over; an alarm never
//! waits for its reason, and where the tables cannot be read there is none.

use crate::clock;
use crate::portal::Portal;
use crate::portal::job::{self, Gaps};
use crate::portal::probe::State;
use crate::portal::probe_state;
use model::{Event, Status, Tags};

/// Beginning of the metrics of probes.
const PROBES: &str = "probe.";
/// Beginning of the metrics of jobs.
const JOBS: &str = "job.";

/// Whether an event may have a reason.
pub fn is_wanted(event: &Event) -> bool {
    let has_none = event.explanation.as_ref().is_none_or(|explanation| explanation.reason.is_empty());
    event.status == Status::Problem && [PROBES, JOBS].iter().any(|begin| event.metric().starts_with(begin)) && has_none
}

/// Why the probe of an event is down, or what is wrong with its job; empty where nobody says so. Fails as the database
/// does.
pub async fn of_event(portal: &Portal, event: &Event) -> sqlx::Result<String> {
    if event.metric().starts_with(JOBS) {
        let found = job::by_name(portal, &event.endpoint).await?;
        return Ok(found.and_then(|job| job::reason(&job, clock::now(), &Gaps::default())).unwrap_or_default());
    }
    let place = Tags::assume_canonical(&event.tags).find("from");
    let (mut down, count) = probe_state::down(portal, &event.endpoint, place).await?;
    if place.is_none() {
        return Ok(of_places(&down, count));
    }
    let Some(state) = down.pop() else { return Ok(String::new()) };
    let is_over = match probe_state::ok_before(portal, event).await? {
        Some(ok) => clock::local_text(state.changed_at) < ok,
        None => false,
    };
    Ok(if is_over { String::new() } else { state.why().to_string() })
}

/// What some of the `count` places that are down say.
fn of_places(down: &[State], count: i64) -> String {
    let texts: Vec<String> = down.iter().map(|state| format!("{}: {}", state.place, state.why())).collect();
    let text = texts.join("; ");
    match count - down.len() as i64 {
        ..=0 => text,
        1 => format!("{text}; and 1 other"),
        others => format!("{text}; and {others} others"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::alarm;
    use crate::portal::tests::{run, temporary};
    use anyhow::Result;
    use model::{EventRule, Expression};
    use std::sync::Arc;

    const NOW: i64 = 1_700_000_000;

    fn event(status: Status, tags: &str, metric: &str, time: i64) -> Event {
        let expression = Expression { id: 5, metric: metric.into(), ..Expression::default() };
        Event {
            rule: EventRule::Expression(Arc::new(expression)),
            status,
            endpoint: "shop".into(),
            tags: tags.into(),
            left_value: 0.0,
            current_step: 1,
            time,
            explanation: None,
        }
    }

    async fn say(portal: &Portal, place: &str, reason: &str, changed_at: i64) -> Result<()> {
        let up = i64::from(reason.is_empty());
        let code = if reason.is_empty() { "" } else { "status" }.to_string();
        let state = State { probe_id: 1, place: place.into(), up, code, reason: reason.into(), changed_at };
        probe_state::set(portal, place, &[state]).await?;
        Ok(())
    }

    #[tokio::test]
    async fn each_series_has_the_reasons_of_its_places() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        run(&portal, "INSERT INTO falcon_portal.hawkeye_probe (id, name, definition) VALUES (1, 'shop', '{}')").await?;
        let of = async |tags: &str| of_event(&portal, &event(Status::Problem, tags, "probe.up", NOW)).await;
        assert_eq!(of("from=a,target=h:80").await?, "");
        say(&portal, "a", "status 503, want 200-299", NOW - 60).await?;
        say(&portal, "b", "", NOW - 60).await?;
        assert_eq!(of("from=a,target=h:80").await?, "status 503, want 200-299");
        assert_eq!(of("from=b,target=h:80").await?, "", "up");
        assert_eq!(of("target=h:80").await?, "a: status 503, want 200-299");
        for (place, reason) in [("c", "refused"), ("d", "timeout"), ("e", "reset")] {
            say(&portal, place, reason, NOW).await?;
        }
        let three = "a: status 503, want 200-299; c: refused; d: timeout";
        assert_eq!(of("target=h:80").await?, format!("{three}; and 1 other"));
        say(&portal, "f", "reset", NOW).await?;
        assert_eq!(of("target=h:80").await?, format!("{three}; and 2 others"));
        // What was said before the alarm was over is not why it is there again.
        let mut transaction = portal.write().await?;
        let ok = event(Status::Ok, "from=a,target=h:80", "probe.up", NOW - 30);
        alarm::record(&mut transaction, &ok, "0 == 0").await?;
        transaction.commit().await?;
        assert_eq!(of("from=a,target=h:80").await?, "");
        say(&portal, "a", "status 500", NOW - 10).await?;
        assert_eq!(of("from=a,target=h:80").await?, "status 500");
        Ok(())
    }

    #[tokio::test]
    async fn a_job_says_what_is_wrong_with_it() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let of = async |endpoint: &str| {
            let event = Event { endpoint: endpoint.into(), ..event(Status::Problem, "", "job.up", NOW) };
            of_event(&portal, &event).await
        };
        run(
            &portal,
            "INSERT INTO falcon_portal.hawkeye_job (name, kept, period, grace, ended_at, exit_code, note, create_at)
             VALUES ('backup', 'x', 86400, 60, 5, 2, 'disk full', 1)",
        )
        .await?;
        assert_eq!(of("backup").await?, "exit code 2: disk full");
        assert_eq!(of("web-01").await?, "");
        Ok(())
    }

    #[test]
    fn only_problems_of_probes_have_reasons() {
        let check = |status, metric, is| assert_eq!(is_wanted(&event(status, "", metric, NOW)), is, "{metric}");
        check(Status::Problem, "probe.up", true);
        check(Status::Problem, "probe.places_down", true);
        check(Status::Ok, "probe.up", false);
        check(Status::Problem, "cpu.idle", false);
        let told = model::Explanation { reason: "refused".into(), ..Default::default() };
        let event = Event { explanation: Some(told.into()), ..event(Status::Problem, "", "probe.up", NOW) };
        assert!(!is_wanted(&event));
    }
}
