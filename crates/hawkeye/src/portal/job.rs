//! Jobs (`falcon_portal.hawkeye_job`): cron jobs and backups that say when they begin and end, as rows.
//!
//! Why: a job that no longer runs writes no log and fails nowhere; only who waits for it notices.
//! How: a job must end well once in `period`, `grace` seconds late at most. Each heartbeat changes a copy of the row
//! ([`Job::beat`]), of which one statement saves what was said. What is wrong with a job ([`Job::state`], [`reason`])
//! follows from its row, the time, and the [`Gaps`] in which no heartbeat could be heard, which outlast a restart as a
//! text of `alarms.hawkeye_state`.
//! Invariants: time is an argument. A gap never makes a job late: each deadline moves by the gaps behind its begin. The
//! table holds SHA-256 of a token, which needs no salt, for tokens are random.
//! Memory: a row is below 3 kB, so all [`JOBS_MAX`] are below 30 MB for the moment in which they are looked at; nearly
//! all have a short note and take a tenth of it.
//! Compat: the table is Hawkeye's own.

use super::db::{query, record, select};
use super::{Portal, password, state, token};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Jobs of a site at most: what is looked at once a minute in a few milliseconds.
pub const JOBS_MAX: i64 = 10_000;
/// Characters of a note: a line of a log. The column of MySQL has 1,024.
pub const NOTE_MAX: usize = 256;
/// Longest period, grace and run in seconds: a year and a day, for what is done once a year.
pub const TIME_MAX: i64 = 366 * 86_400;
/// The beginning of each token, by which people and scanners of leaked secrets know it for one.
pub const PREFIX: &str = "hj_";
/// Gaps that are remembered. A guess: a server that is started more often in one period of a job has other troubles.
const GAPS_MAX: usize = 64;
/// Name of the text that holds the gaps.
const GAPS_KEPT: &str = "job.gaps";

record! {
    /// Row of a job, without its token.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Job {
        pub id: i64,
        /// Endpoint of its series.
        pub name: String,
        /// Seconds in which it must end well once.
        pub period: i64,
        /// Seconds that it may be late.
        pub grace: i64,
        /// Seconds from start to end; 0 is any.
        pub runtime_max: i64,
        /// Canonical tags of its series.
        pub tags: String,
        /// 1 where nobody waits for it.
        pub pause: i64,
        pub create_user: String,
        /// Unix seconds, as the other times; 0 is never.
        pub create_at: i64,
        pub resumed_at: i64,
        pub started_at: i64,
        pub ended_at: i64,
        pub ok_at: i64,
        /// Seconds of the last run; -1 is unknown.
        pub duration: i64,
        /// Exit code of the last end.
        pub exit_code: i64,
        /// One line that the job said at its last end.
        pub note: String,
    }
}

/// What a job says of itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Beat {
    Start,
    /// The end, with its exit code; 0 is well.
    End(i64),
}

/// What a job is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Paused,
    /// Nothing was heard of it yet, and it is not late.
    New,
    Up,
    Running,
    Late,
    Failed,
    /// The run takes longer than it may.
    Overrun,
}

impl State {
    /// Whether `job.up` is 1.
    pub fn is_up(self) -> bool {
        matches!(self, State::New | State::Up | State::Running)
    }
}

impl Job {
    /// Takes in what the job says at `now`; false when it said the same in this second already.
    pub fn beat(&mut self, beat: &Beat, note: &str, now: i64) -> bool {
        let before = self.clone();
        match beat {
            // A run that may take so long is waited for until something ends: the next one hides no run that hangs.
            Beat::Start if self.runtime_max > 0 && self.is_running() => {}
            Beat::Start => self.started_at = now,
            Beat::End(code) => {
                if self.ended_at != now {
                    self.duration = if self.is_running() { (now - self.started_at).max(0) } else { -1 };
                }
                (self.ended_at, self.exit_code, self.note) = (now, *code, note.to_string());
                if *code == 0 {
                    self.ok_at = now;
                }
            }
        }
        *self != before
    }

    /// Whether it has begun, and not ended.
    pub fn is_running(&self) -> bool {
        self.started_at > self.ended_at
    }

    /// Seconds beyond period and grace; 0 or less while it is in time.
    pub fn late_s(&self, now: i64, gaps: &Gaps) -> i64 {
        let since = self.ok_at.max(self.resumed_at).max(self.create_at);
        now - since - self.period - self.grace - gaps.behind(since)
    }

    /// Seconds of the run that goes on beyond what it may take; 0 or less while that is well.
    fn overrun_s(&self, now: i64, gaps: &Gaps) -> i64 {
        if self.runtime_max == 0 || !self.is_running() {
            return 0;
        }
        now - self.started_at - self.runtime_max - gaps.behind(self.started_at)
    }

    /// What it is in at `now`. A failure outlasts the next start: only a good end ends it.
    pub fn state(&self, now: i64, gaps: &Gaps) -> State {
        if self.pause != 0 {
            State::Paused
        } else if self.overrun_s(now, gaps) > 0 {
            State::Overrun
        } else if self.ended_at > 0 && self.exit_code != 0 {
            State::Failed
        } else if self.late_s(now, gaps) > 0 {
            State::Late
        } else if self.is_running() {
            State::Running
        } else if self.ok_at == 0 {
            State::New
        } else {
            State::Up
        }
    }
}

/// What is wrong with a job at `now`, in words for an alarm; None where nothing is.
pub fn reason(job: &Job, now: i64, gaps: &Gaps) -> Option<String> {
    match job.state(now, gaps) {
        State::Overrun => {
            let runs = span(now - job.started_at);
            Some(format!("running for {runs}, at most {}", span(job.runtime_max)))
        }
        State::Failed if job.note.is_empty() => Some(format!("exit code {}", job.exit_code)),
        State::Failed => Some(format!("exit code {}: {}", job.exit_code, job.note)),
        State::Late => {
            let since = job.ok_at.max(job.resumed_at).max(job.create_at);
            Some(format!("no heartbeat for {}, want one each {}", span(now - since), span(job.period)))
        }
        State::Paused | State::New | State::Up | State::Running => None,
    }
}

/// Seconds in the greatest unit of which there are two or more, rounded down; a day and an hour are 25 h.
fn span(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Stretches of time in which no heartbeat could be heard, the newest last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gaps(VecDeque<(i64, i64)>);

impl Gaps {
    /// Notes that nothing was heard from `from` to `until` (Unix seconds); nothing where that is no stretch. What is
    /// known of it already counts once.
    pub fn note(&mut self, from: i64, until: i64) {
        while self.0.back().is_some_and(|last| last.0 >= from && last.1 <= until) {
            self.0.pop_back();
        }
        let known = self.0.back().map(|last| last.1).filter(|known| *known <= until);
        let from = known.map_or(from, |known| from.max(known));
        if until <= from {
            return;
        }
        if self.0.len() == GAPS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((from, until));
    }

    /// Cuts off what lies after `now`: the clock that showed it was ahead, and no job would be late until then.
    pub fn cut_after(&mut self, now: i64) {
        self.0.retain(|(from, _)| *from < now);
        self.0.iter_mut().for_each(|(_, until)| *until = now.min(*until));
    }

    /// Seconds behind `since` in which nothing was heard.
    fn behind(&self, since: i64) -> i64 {
        self.0.iter().map(|(from, until)| (until - since.max(*from)).max(0)).sum()
    }
}

/// The gaps of this process; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<Mutex<Gaps>>);

impl Heard {
    /// The gaps so far.
    pub fn gaps(&self) -> Gaps {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes one, as [`Gaps::note`].
    pub fn note(&self, from: i64, until: i64) {
        self.change(|gaps| gaps.note(from, until));
    }

    /// Cuts them off, as [`Gaps::cut_after`].
    pub fn cut_after(&self, now: i64) {
        self.change(|gaps| gaps.cut_after(now));
    }

    /// Puts the gaps of the processes before this one in front of its own.
    pub fn follow(&self, before: &Gaps) {
        self.change(|gaps| {
            let own = std::mem::replace(gaps, before.clone());
            own.0.into_iter().for_each(|(from, until)| gaps.note(from, until));
        });
    }

    fn change(&self, change: impl FnOnce(&mut Gaps)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The gaps that were saved last. A text that holds none is told, and is none.
pub async fn load_gaps(portal: &Portal) -> sqlx::Result<Gaps> {
    let Some(text) = state::load(portal, GAPS_KEPT).await? else { return Ok(Gaps::default()) };
    Ok(serde_json::from_str(&text).unwrap_or_else(|error| {
        tracing::warn!(%error, "hawkeye_state holds no gaps as {GAPS_KEPT}: jobs may be late for a stop of the server");
        Gaps::default()
    }))
}

/// Saves the gaps for the processes after this one.
pub async fn save_gaps(portal: &Portal, gaps: &Gaps) -> Result<()> {
    Ok(state::save(portal, GAPS_KEPT, &serde_json::to_string(gaps)?).await?)
}

/// All jobs, oldest first.
pub async fn all(portal: &Portal) -> sqlx::Result<Vec<Job>> {
    select::<Job>("FROM falcon_portal.hawkeye_job ORDER BY id").all(portal).await
}

/// Finds a job by its id.
pub async fn by_id(portal: &Portal, id: i64) -> sqlx::Result<Option<Job>> {
    select::<Job>("FROM falcon_portal.hawkeye_job WHERE id = ?").bind(id).optional(portal).await
}

/// Finds a job by its name.
pub async fn by_name(portal: &Portal, name: &str) -> sqlx::Result<Option<Job>> {
    select::<Job>("FROM falcon_portal.hawkeye_job WHERE name = ?").bind(name).optional(portal).await
}

/// Finds the job of a token.
pub async fn by_token(portal: &Portal, secret: &str) -> sqlx::Result<Option<Job>> {
    let found = select::<Job>("FROM falcon_portal.hawkeye_job WHERE kept = ?");
    found.bind(token::kept(secret)).optional(portal).await
}

/// A new token.
fn fresh_token() -> Result<String> {
    Ok(format!("{PREFIX}{}{}", password::random_sig()?, password::random_sig()?))
}

/// Saves a new job, whose id is ignored; answers its id and its token, or None when there are [`JOBS_MAX`]. A name that
/// exists is a unique violation.
pub async fn create(portal: &Portal, new: &Job) -> Result<Option<(i64, String)>> {
    let secret = fresh_token()?;
    let mut transaction = portal.write().await?;
    let count = query("SELECT count(*) FROM falcon_portal.hawkeye_job").one::<i64>(&mut transaction).await?;
    if count >= JOBS_MAX {
        return Ok(None);
    }
    let insert = query(
        "INSERT INTO falcon_portal.hawkeye_job (name, kept, period, grace, runtime_max, tags, pause, create_user,
         create_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    );
    let named = insert.bind(&new.name).bind(token::kept(&secret)).bind(new.period).bind(new.grace);
    let bound = named.bind(new.runtime_max).bind(&new.tags).bind(new.pause).bind(&new.create_user).bind(new.create_at);
    let id = bound.execute(&mut transaction).await?.id;
    transaction.commit().await?;
    Ok(Some((id, secret)))
}

/// Saves what people enter: all but the times and the last end. A heartbeat that comes meanwhile stays.
pub async fn update(portal: &Portal, changed: &Job) -> sqlx::Result<()> {
    let update = query(
        "UPDATE falcon_portal.hawkeye_job SET name = ?, period = ?, grace = ?, runtime_max = ?, tags = ?, pause = ?,
         resumed_at = ? WHERE id = ?",
    );
    let bound = update.bind(&changed.name).bind(changed.period).bind(changed.grace).bind(changed.runtime_max);
    bound.bind(&changed.tags).bind(changed.pause).bind(changed.resumed_at).bind(changed.id).execute(portal).await?;
    Ok(())
}

/// Saves what a heartbeat has changed, and nothing else: a start and an end that overlap both stay.
pub async fn save_beat(portal: &Portal, job: &Job, beat: &Beat) -> sqlx::Result<()> {
    let update = match beat {
        Beat::Start => query("UPDATE falcon_portal.hawkeye_job SET started_at = ? WHERE id = ?").bind(job.started_at),
        Beat::End(0) => {
            let sets = query(
                "UPDATE falcon_portal.hawkeye_job SET ok_at = ?, ended_at = ?, duration = ?, exit_code = ?, note = ?
                 WHERE id = ?",
            );
            sets.bind(job.ok_at).bind(job.ended_at).bind(job.duration).bind(job.exit_code).bind(&job.note)
        }
        Beat::End(_) => {
            let sets = query(
                "UPDATE falcon_portal.hawkeye_job SET ended_at = ?, duration = ?, exit_code = ?, note = ?
                 WHERE id = ?",
            );
            sets.bind(job.ended_at).bind(job.duration).bind(job.exit_code).bind(&job.note)
        }
    };
    update.bind(job.id).execute(portal).await?;
    Ok(())
}

/// Gives a job another token, and answers it; the one before opens nothing from then on.
pub async fn renew_token(portal: &Portal, id: i64) -> Result<String> {
    let secret = fresh_token()?;
    let update = query("UPDATE falcon_portal.hawkeye_job SET kept = ? WHERE id = ?");
    update.bind(token::kept(&secret)).bind(id).execute(portal).await?;
    Ok(secret)
}

/// Deletes a job, if it is there.
pub async fn delete(portal: &Portal, id: i64) -> sqlx::Result<()> {
    query("DELETE FROM falcon_portal.hawkeye_job WHERE id = ?").bind(id).execute(portal).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::tests::temporary;

    const NOW: i64 = 1_700_000_000;
    const HOUR: i64 = 3_600;
    const DAY: i64 = 24 * HOUR;

    /// A daily backup that may be an hour late and run for two.
    fn backup() -> Job {
        let name = "backup".to_string();
        Job { name, period: DAY, grace: HOUR, runtime_max: 2 * HOUR, create_at: NOW, ..Job::default() }
    }

    fn after(beats: &[(i64, Beat, &str)]) -> Job {
        let mut job = backup();
        for (at, beat, note) in beats {
            job.beat(beat, note, NOW + at);
        }
        job
    }

    #[test]
    fn what_a_job_is_in_and_why() {
        let none = Gaps::default();
        let check = |job: &Job, at: i64, state: State, why: &str| {
            assert_eq!(job.state(NOW + at, &none), state, "{job:?} at {at}");
            assert_eq!(reason(job, NOW + at, &none).unwrap_or_default(), why);
        };
        let new = backup();
        check(&new, 25 * HOUR, State::New, "");
        check(&new, 25 * HOUR + 1, State::Late, "no heartbeat for 25 h, want one each 24 h");
        check(&Job { pause: 1, ..new.clone() }, 90 * HOUR, State::Paused, "");
        check(&Job { resumed_at: NOW + 10 * HOUR, ..new }, 35 * HOUR, State::New, "");

        let ended = after(&[(0, Beat::Start, ""), (60, Beat::End(0), "done")]);
        check(&ended, 25 * HOUR + 60, State::Up, "");
        check(&ended, 72 * HOUR + 60, State::Late, "no heartbeat for 3 days, want one each 24 h");
        assert_eq!((ended.duration, ended.late_s(NOW + 25 * HOUR + 90, &none)), (60, 30));

        let running = after(&[(0, Beat::End(0), ""), (10, Beat::Start, "")]);
        check(&running, 2 * HOUR + 10, State::Running, "");
        check(&running, 3 * HOUR + 10, State::Overrun, "running for 3 h, at most 2 h");
        check(&Job { runtime_max: 0, ..running }, 3 * HOUR, State::Running, "");

        let failed = after(&[(0, Beat::End(2), "disk full")]);
        check(&failed, 1, State::Failed, "exit code 2: disk full");
        let again = after(&[(0, Beat::End(1), ""), (10, Beat::Start, "")]);
        check(&again, 20, State::Failed, "exit code 1");
        check(&after(&[(0, Beat::End(1), ""), (10, Beat::End(0), "")]), 20, State::Up, "");
        let crashing = after(&[(0, Beat::End(0), ""), (DAY, Beat::Start, ""), (2 * DAY, Beat::Start, "")]);
        check(&crashing, 2 * DAY + 60, State::Overrun, "running for 24 h, at most 2 h");
        // The next run hides none that hangs.
        let hangs = after(&[(0, Beat::End(0), ""), (10, Beat::Start, ""), (3 * HOUR, Beat::Start, "")]);
        check(&hangs, 3 * HOUR + 60, State::Overrun, "running for 3 h, at most 2 h");
    }

    #[test]
    fn a_beat_that_is_heard_twice_changes_nothing() {
        let mut job = backup();
        assert!(job.beat(&Beat::Start, "", NOW) && !job.beat(&Beat::Start, "", NOW));
        assert!(job.beat(&Beat::End(0), "", NOW + 9) && !job.beat(&Beat::End(0), "", NOW + 9));
        assert_eq!(job.duration, 9);
        assert!(job.beat(&Beat::End(3), "", NOW + 9), "a failure within the same second is not lost");
        assert!(job.beat(&Beat::End(0), "", NOW + 20));
        assert_eq!(job.duration, -1, "nobody said when it began");
        job.beat(&Beat::Start, "", NOW + 100);
        job.beat(&Beat::End(0), "", NOW + 50);
        assert!(job.duration <= 0, "the clock was set back");
    }

    #[test]
    fn what_could_not_be_heard_makes_no_job_late() {
        let ended = after(&[(0, Beat::End(0), "")]);
        let mut gaps = Gaps::default();
        gaps.note(NOW + 20 * HOUR, NOW + 30 * HOUR);
        gaps.note(NOW + 31 * HOUR, NOW + 31 * HOUR);
        for (from, until) in [(22, 29), (25, 30), (20, 30)] {
            gaps.note(NOW + from * HOUR, NOW + until * HOUR);
        }
        assert_eq!(ended.state(NOW + 35 * HOUR, &gaps), State::Up);
        assert_eq!(ended.state(NOW + 35 * HOUR + 1, &gaps), State::Late);
        let newer = after(&[(29 * HOUR, Beat::End(0), "")]);
        assert_eq!(newer.late_s(NOW + 55 * HOUR, &gaps), 0, "an hour of the gap lies behind its end");
        let running = after(&[(19 * HOUR, Beat::Start, "")]);
        assert_eq!(running.state(NOW + 31 * HOUR, &gaps), State::Running);
        assert_eq!(running.state(NOW + 31 * HOUR + 1, &gaps), State::Overrun);
        for round in 0..2 * GAPS_MAX as i64 {
            gaps.note(NOW + round, NOW + round + 1);
        }
        assert_eq!(gaps.0.len(), GAPS_MAX);
    }

    #[tokio::test]
    async fn gaps_outlast_a_restart_but_no_clock_that_was_ahead() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        assert_eq!(load_gaps(&portal).await?, Gaps::default());
        let (first, second) = (Heard::default(), Heard::default());
        first.note(NOW, NOW + 9 * HOUR);
        save_gaps(&portal, &first.gaps()).await?;
        second.note(NOW + 10 * HOUR, NOW + 11 * HOUR);
        second.follow(&load_gaps(&portal).await?);
        assert_eq!(second.gaps().0, [(NOW, NOW + 9 * HOUR), (NOW + 10 * HOUR, NOW + 11 * HOUR)]);
        second.note(NOW + 12 * HOUR, NOW + 9_000 * DAY);
        second.cut_after(NOW + 13 * HOUR);
        assert_eq!(second.gaps().behind(NOW), 11 * HOUR);
        second.cut_after(NOW + 10 * HOUR);
        assert_eq!(second.gaps().0, [(NOW, NOW + 9 * HOUR)]);
        state::save(&portal, GAPS_KEPT, "none").await?;
        assert_eq!(load_gaps(&portal).await?, Gaps::default());
        Ok(())
    }

    /// Each request has read the row before any of the others saved what it says.
    #[tokio::test]
    async fn beats_that_overlap_all_stay() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let (id, secret) = create(&portal, &backup()).await?.expect("room");
        let read = by_token(&portal, &secret).await?.expect("made above");
        for (at, beat) in [(9, Beat::End(0)), (1, Beat::Start), (12, Beat::End(2))] {
            let mut job = read.clone();
            job.beat(&beat, "", NOW + at);
            save_beat(&portal, &job, &beat).await?;
        }
        let kept = by_id(&portal, id).await?.expect("made above");
        assert_eq!((kept.started_at, kept.ok_at), (NOW + 1, NOW + 9));
        assert_eq!((kept.ended_at, kept.exit_code), (NOW + 12, 2));
        Ok(())
    }

    #[tokio::test]
    async fn a_token_is_kept_as_its_sum_and_can_be_made_anew() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let (id, secret) = create(&portal, &backup()).await?.expect("room");
        let mut job = by_token(&portal, &secret).await?.expect("made above");
        assert_eq!((job.id, job.period, job.duration), (id, DAY, -1));
        job.beat(&Beat::End(2), "disk full", NOW);
        save_beat(&portal, &job, &Beat::End(2)).await?;
        update(&portal, &Job { id, grace: 5, ..backup() }).await?;
        let changed = by_id(&portal, id).await?.expect("made above");
        assert_eq!((changed.grace, changed.exit_code, changed.note.as_str()), (5, 2, "disk full"));
        let texts: Vec<String> = query("SELECT kept FROM falcon_portal.hawkeye_job").all(&portal).await?;
        assert!(texts.iter().all(|text| !text.contains(&secret[PREFIX.len()..])), "the table holds no token");
        let renewed = renew_token(&portal, id).await?;
        assert!(by_token(&portal, &secret).await?.is_none() && by_token(&portal, &renewed).await?.is_some());
        delete(&portal, id).await?;
        assert!(by_token(&portal, &renewed).await?.is_none() && all(&portal).await?.is_empty());
        Ok(())
    }
}
