//! Jobs over a store in a temporary directory.

use super::*;
use crate::portal::job::Beat;
use crate::watch::health::Health;

const NOW: i64 = 1_700_000_000;
const DAY: i64 = 86_400;

fn daily() -> Job {
    let (name, tags) = ("backup".to_string(), "db=main".to_string());
    Job { id: 1, name, tags, period: DAY, grace: 60, create_at: NOW, duration: -1, ..Job::default() }
}

#[test]
fn a_minute_has_these_points() {
    let check = |job: &Job, now: i64, expected: &[(&str, f64)]| {
        assert_eq!(values(job, now - 60, now, &Gaps::default()), expected, "{job:?}");
    };
    check(&daily(), NOW + DAY, &[("job.up", 1.0), ("job.late_s", 0.0)]);
    check(&daily(), NOW + DAY + 90, &[("job.up", 0.0), ("job.late_s", 30.0)]);
    check(&Job { pause: 1, ..daily() }, NOW + 9 * DAY, &[]);
    let mut ended = daily();
    ended.beat(&Beat::Start, "", NOW);
    ended.beat(&Beat::End(0), "", NOW + 20);
    let (up, late, code) = (("job.up", 1.0), ("job.late_s", 0.0), ("job.exit_code", 0.0));
    check(&ended, NOW + 40, &[up, late, ("job.since_ok_s", 20.0), code, ("job.duration_s", 20.0)]);
    check(&ended, NOW + 100, &[up, late, ("job.since_ok_s", 80.0), code]);
    ended.beat(&Beat::End(3), "", NOW + 130);
    check(&ended, NOW + 200, &[("job.up", 0.0), late, ("job.since_ok_s", 180.0), ("job.exit_code", 3.0)]);
}

#[test]
fn each_minute_has_its_points_once_and_long_looks_are_gaps() {
    let mut minutes = Minutes::default();
    assert!(minutes.gap(NOW).is_none() && minutes.is_due(NOW));
    assert_eq!((minutes.made(NOW), minutes.is_due(NOW + 1)), (None, false));
    assert!(minutes.gap(NOW + GAP_S).is_none());
    assert_eq!(minutes.gap(NOW + 3 * GAP_S), Some((NOW + GAP_S, NOW + 3 * GAP_S)));
    assert!(minutes.gap(NOW - 900).is_none() && minutes.is_due(NOW - 900), "the clock was set back");
}

/// The process before this one made its last point two days ago.
#[tokio::test]
async fn points_are_stored_and_tell_the_next_process_of_its_gap() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let (_portal_dir, portal) = crate::portal::tests::temporary().await?;
    let (engine, ingest) = crate::role::tests::door(dir.path())?;
    let health = Health::default();
    let (unread, untaken) = (health.outage("unread"), health.outage("untaken"));
    let jobs = Jobs { portal, engine: engine.clone(), ingest, heard: Heard::default(), unread, untaken };
    let now = clock::now().div_euclid(STEP_S) * STEP_S;
    let job = Job { create_at: now - 3 * DAY, ok_at: now - 2 * DAY - 100, ..daily() };
    jobs.make(std::slice::from_ref(&job), None, now - 2 * DAY).ok();
    assert_eq!(jobs.heard.gaps(), Gaps::default(), "a first start has no gap");
    jobs.make(std::slice::from_ref(&job), None, now).ok();
    let found = engine.store().find_each(&["backup"], &["job.up/db=main", "job.late_s/db=main"]);
    let last: Vec<f64> =
        found.into_iter().filter_map(|found| engine.store().last(found?)).map(|point| point.value).collect();
    assert_eq!(last, [1.0, 0.0], "two days in which nobody listened make no job late");
    jobs.make(&[job], Some(now - 60), now).ok();
    let mut expected = Gaps::default();
    expected.note(now - 2 * DAY, now);
    assert_eq!(jobs.heard.gaps(), expected, "noted once");

    jobs.keep_gaps(&mut None).await?;
    let (next, mut kept) = (Jobs { heard: Heard::default(), ..jobs }, None);
    next.read(&mut kept, now + 300).await?;
    assert_eq!((next.heard.gaps(), kept), (expected.clone(), Some(expected)), "a second restart knows it too");
    Ok(())
}
