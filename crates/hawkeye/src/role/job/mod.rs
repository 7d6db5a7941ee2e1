//! Jobs as series: whether each is well, how late it is, how long it ran; beside the doors of the whole server.
//!
//! Why: a strategy, a chart and a rehearsal know series; so a silent backup needs no second way to an alarm.
//! How: once a minute each job that is not paused gives points by the door that agents use, with the job's name as
//! endpoint and its tags: `job.up`, `job.late_s`, and as far as known `job.since_ok_s`, `job.exit_code`; in the minute
//! behind an end `job.duration_s`. The newest `job.up` of all jobs shows when the process before this one was there
//! last: what lies between is a gap, in which no heartbeat could be heard, and moves the deadlines ([`Gaps`]). A
//! process that stood still has a gap too, as has a clock that was set forward. Gaps are saved: a second restart must
//! not forget the long stop before the first.
//! Invariants: time is an argument of whatever decides. Jobs that cannot be read cost a minute, and are tried again.
//! Memory: all jobs (`portal/job.rs`) while a minute's points are made.
//! Compat: Hawkeye's own.

use crate::clock;
use crate::engine::fed::Fed;
use crate::engine::ingest::{Door, Ingest};
use crate::engine::listening::GAP_S;
use crate::engine::{Engine, IngestError};
use crate::portal::Portal;
use crate::portal::job::{self, Gaps, Heard, Job, State};
use crate::watch::health::Outage;
use anyhow::{Context, Result};
use model::CounterType;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use wire::Item;

/// Seconds between two points of a job.
const STEP_S: i64 = 60;
/// Pause between two looks at the clock.
const LOOK: Duration = Duration::from_secs(1);

/// Makes points of jobs.
#[derive(Clone)]
pub struct Jobs {
    pub portal: Portal,
    pub engine: Arc<Engine>,
    pub ingest: Arc<Ingest>,
    pub heard: Heard,
    /// Told while jobs cannot be read.
    pub unread: Outage,
    /// Told while points of jobs are not taken.
    pub untaken: Outage,
}

impl Jobs {
    /// Makes the points of each minute until the stop.
    pub async fn run(self, mut stopping: watch::Receiver<bool>) -> Result<()> {
        let (mut minutes, mut fed) = (Minutes::default(), Fed::default());
        let mut kept = None;
        loop {
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return Ok(()),
                () = tokio::time::sleep(LOOK) => {}
            }
            let now = clock::now();
            self.heard.cut_after(now);
            if let Some((from, until)) = minutes.gap(now) {
                self.heard.note(from, until);
            }
            if !minutes.is_due(now) {
                continue;
            }
            let jobs = match self.read(&mut kept, now).await {
                Ok(jobs) => jobs,
                Err(error) => {
                    self.unread.fails(error.to_string());
                    continue;
                }
            };
            fed.note(jobs.iter().filter(|job| job.pause == 0).map(|job| job.name.clone()).collect(), now);
            let gone = fed.due(0, now);
            let (work, before) = (self.clone(), minutes.made(now));
            let making = self.engine.spawn_blocking(move |engine| {
                for name in &gone {
                    if let Err(error) = engine.end_alarms(name, "job.", "the job was deleted, paused or renamed") {
                        tracing::warn!(job = name, %error, "alarms of a job that is gone stay open");
                    }
                }
                work.make(&jobs, before, now)
            });
            self.untaken.note(making.await.context("making points of jobs")?);
            self.unread.note(self.keep_gaps(&mut kept).await);
        }
    }

    /// All jobs; before the first ones the saved gaps are taken over, which `kept` repeats from then on.
    async fn read(&self, kept: &mut Option<Gaps>, now: i64) -> sqlx::Result<Vec<Job>> {
        if kept.is_none() {
            let before = job::load_gaps(&self.portal).await?;
            self.heard.follow(&before);
            self.heard.cut_after(now);
            *kept = Some(before);
        }
        job::all(&self.portal).await
    }

    /// Saves the gaps where they are others than `kept`.
    async fn keep_gaps(&self, kept: &mut Option<Gaps>) -> Result<()> {
        let gaps = self.heard.gaps();
        if kept.as_ref() != Some(&gaps) {
            job::save_gaps(&self.portal, &gaps).await?;
            *kept = Some(gaps);
        }
        Ok(())
    }

    /// Sends in the points of `now`; `before` is when the last ones were made by this process.
    fn make(&self, jobs: &[Job], before: Option<i64>, now: i64) -> Result<(), IngestError> {
        let before = before.or_else(|| self.of_last_run(jobs, now)).unwrap_or(now - STEP_S);
        let (gaps, mut batch) = (self.heard.gaps(), self.ingest.begin(Door::Job, now));
        for job in jobs {
            for (metric, value) in values(job, before, now, &gaps) {
                batch.push(&Item {
                    endpoint: &job.name,
                    metric,
                    tags: &job.tags,
                    value,
                    step: STEP_S as u32,
                    counter_type: CounterType::Gauge,
                    timestamp: now,
                });
            }
        }
        batch.finish().map(drop)
    }

    /// When the process before this one made points; the time since then is noted as a gap.
    fn of_last_run(&self, jobs: &[Job], now: i64) -> Option<i64> {
        let store = self.engine.store();
        let last = jobs.iter().filter_map(|job| {
            let counter = if job.tags.is_empty() { "job.up".to_string() } else { format!("job.up/{}", job.tags) };
            let found = store.find_each(&[&job.name], &[&counter]);
            store.last(found.into_iter().next()??)
        });
        let last = last.map(|point| point.time).filter(|time| *time <= now).max()?;
        if now - last > STEP_S + GAP_S {
            self.heard.note(last, now);
        }
        Some(last)
    }
}

/// The points of a job at `now`; `before` is when the last ones were made. A paused job has none.
fn values(job: &Job, before: i64, now: i64, gaps: &Gaps) -> Vec<(&'static str, f64)> {
    let state = job.state(now, gaps);
    if state == State::Paused {
        return Vec::new();
    }
    let up = if state.is_up() { 1.0 } else { 0.0 };
    let mut values = vec![("job.up", up), ("job.late_s", job.late_s(now, gaps).max(0) as f64)];
    if job.ok_at > 0 {
        values.push(("job.since_ok_s", (now - job.ok_at).max(0) as f64));
    }
    if job.ended_at > 0 {
        values.push(("job.exit_code", job.exit_code as f64));
    }
    if job.duration >= 0 && (before..now).contains(&job.ended_at) {
        values.push(("job.duration_s", job.duration as f64));
    }
    values
}

/// The clock at the last look, and the minute of the last points.
#[derive(Default)]
struct Minutes {
    looked: Option<i64>,
    made: Option<i64>,
}

impl Minutes {
    /// The stretch since the last look, where that is too long for one.
    fn gap(&mut self, now: i64) -> Option<(i64, i64)> {
        let looked = self.looked.replace(now)?;
        (now - looked > GAP_S).then_some((looked, now))
    }

    /// Whether a minute has begun for which no points were made; a clock that was set back begins one too.
    fn is_due(&self, now: i64) -> bool {
        self.made.is_none_or(|made| made.div_euclid(STEP_S) != now.div_euclid(STEP_S))
    }

    /// Notes that points are made at `now`; answers when they were made before.
    fn made(&mut self, now: i64) -> Option<i64> {
        self.made.replace(now)
    }
}

#[cfg(test)]
mod tests;
