//! Jobs: cron jobs and backups that report by a token, and the door where they do.
//!
//! Why: who has to log in to say that a backup ended writes no such line into a crontab.
//! How: the token is the right, and opens nothing else. It is shown when a job is made or its token is made anew. The
//! paths are those of healthchecks.io (`/start`, `/fail`, `/<exit code>`), so that wrappers for it work.
//! Invariants: a heartbeat is POST only, for a preview of a link must not report a backup. An unknown token costs one
//! look into an index, and [`UNKNOWN_PER_MINUTE`] of them close the door to an address for the rest of a minute; a job
//! has [`BEATS_PER_MINUTE`]. No token is in the audit, in a log, or in an answer but those two.
//! Memory: a counter for each address with an unknown token and each job that reported within a minute, at most
//! [`COUNTED_MAX`]; further ones are refused until the minute is over.
//! Compat: Hawkeye's own.

use super::Context;
use super::aggregator::check_series;
use super::attempts::Origin;
use super::auth::Caller;
use super::body::{self, Fields, parse_form, parse_int};
use super::error::{Answer, ApiError, json, made, message};
use super::hostgroup::odd_name;
use super::paging::{Paging, Search};
use super::rights::{self, HostChange};
use super::strategy::checked_tags;
use crate::clock;
use crate::portal::host::Selection;
use crate::portal::job::{self, Beat, Gaps, Heard, JOBS_MAX, Job, NOTE_MAX, State as JobState, TIME_MAX};
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use metrics::Metrics;
use serde::Serialize;
use serde_json::json as object;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use stdx::is_hidden;

/// Unknown tokens of one address in a minute. A guess: a fleet behind one address with some dozens of old crontabs.
const UNKNOWN_PER_MINUTE: u32 = 60;
/// Heartbeats of one job in a minute: one that begins and ends each second.
const BEATS_PER_MINUTE: u32 = 120;
/// Addresses and jobs that are counted in a minute: all jobs, and as many strangers; 2 MB at most.
const COUNTED_MAX: usize = 2 * JOBS_MAX as usize;
const MINUTE: Duration = Duration::from_secs(60);
/// Shortest period: what is looked at once a minute cannot be late by less.
const PERIOD_MIN: i64 = 60;
const NAME_MAX: usize = 255;
const TAGS_MAX: usize = 512;

/// Routes of jobs and of their heartbeats.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/job", get(list).post(create))
        .route("/job/{id}", get(show).put(update).delete(remove))
        .route("/job/{id}/token", put(renew))
        .route("/heartbeat/{token}", post(beat))
        .route("/heartbeat/{token}/{event}", post(beat_of))
}

/// What the door of heartbeats knows; clones share it.
#[derive(Clone, Default)]
pub struct Heartbeats {
    /// Stretches in which no heartbeat could be heard.
    pub heard: Heard,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    counted: Mutex<Counted>,
    unknown: AtomicU64,
    refused: AtomicU64,
}

#[derive(Default)]
struct Counted {
    since: Option<Instant>,
    counts: HashMap<Who, u32>,
}

/// Whose requests are counted together.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Who {
    Stranger(Origin),
    Job(i64),
}

impl Heartbeats {
    /// A door whose process notes its gaps in `heard`.
    pub fn over(heard: Heard) -> Heartbeats {
        Heartbeats { heard, ..Heartbeats::default() }
    }

    /// Shows what was not taken.
    pub fn show_on(&self, metrics: &Metrics) {
        let shared = self.shared.clone();
        metrics.source(move |figures| {
            let help = "Heartbeats with a token that no job has, since the start";
            figures.gauge("heartbeats_unknown", help, shared.unknown.load(Relaxed) as f64);
            let help = "Heartbeats that were refused because too many came, since the start";
            figures.gauge("heartbeats_refused", help, shared.refused.load(Relaxed) as f64);
        });
    }

    /// Counts one more of `who` at `now`; false when there were `max` within the minute.
    fn count(&self, who: Who, max: u32, now: Instant) -> bool {
        let mut counted = self.shared.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.begin(now);
        if counted.counts.len() >= COUNTED_MAX && !counted.counts.contains_key(&who) {
            return false;
        }
        let count = counted.counts.entry(who).or_default();
        *count = count.saturating_add(1);
        *count <= max
    }

    fn refuse(&self) -> ApiError {
        self.shared.refused.fetch_add(1, Relaxed);
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too many heartbeats: try again in a minute")
    }
}

impl Counted {
    fn begin(&mut self, now: Instant) {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= MINUTE) {
            *self = Counted { since: Some(now), counts: HashMap::new() };
        }
    }
}

/// A job as it is shown.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    job: Job,
    state: JobState,
    /// What is wrong; "" where nothing is.
    reason: String,
}

impl Default for Shown {
    fn default() -> Shown {
        Shown { job: Job::default(), state: JobState::New, reason: String::new() }
    }
}

fn shown(job: Job, now: i64, gaps: &Gaps) -> Shown {
    let (state, reason) = (job.state(now, gaps), job::reason(&job, now, gaps).unwrap_or_default());
    Shown { job, state, reason }
}

async fn list(State(context): State<Context>, _caller: Caller, fields: Fields) -> Answer {
    let (page, search) = (Paging::of(&fields)?, Search::of(&fields)?);
    let jobs = job::all(&context.portal).await?.into_iter().filter(|job| search.finds(&job.name));
    let (now, gaps) = (clock::now(), context.heartbeats.heard.gaps());
    json(page.rows(jobs.map(|job| shown(job, now, &gaps)))?)
}

async fn show(State(context): State<Context>, _caller: Caller, Path(id): Path<String>) -> Answer {
    let found = find(&context, &id).await?;
    let gaps = context.heartbeats.heard.gaps();
    json(shown(found, clock::now(), &gaps))
}

async fn create(State(context): State<Context>, caller: Caller, fields: Fields) -> Answer {
    let now = clock::now();
    let new = Job { create_user: caller.name.clone(), create_at: now, ..required_job(&fields)? };
    check_endpoint(&context, &caller, &new).await?;
    let created = job::create(&context.portal, &new).await.map_err(|error| taken(error, &new.name))?;
    let Some((id, token)) = created else {
        return Err(ApiError::refused(format!("there are {JOBS_MAX} jobs: delete those that nobody runs")));
    };
    made(id, json(object!({ "id": id, "name": new.name, "token": token })))
}

async fn update(State(context): State<Context>, caller: Caller, Path(id): Path<String>, fields: Fields) -> Answer {
    let changed = required_job(&fields)?;
    let old = find(&context, &id).await?;
    check_maker(&caller, &old)?;
    check_endpoint(&context, &caller, &changed).await?;
    let is_resumed = old.pause != 0 && changed.pause == 0;
    let resumed_at = if is_resumed { clock::now() } else { old.resumed_at };
    let changed = Job { id: old.id, resumed_at, ..changed };
    let updated = job::update(&context.portal, &changed).await;
    updated.map_err(|error| taken(error.into(), &changed.name))?;
    message(format!("job:{} has been updated", old.id))
}

async fn remove(State(context): State<Context>, caller: Caller, Path(id): Path<String>) -> Answer {
    let found = find(&context, &id).await?;
    check_maker(&caller, &found)?;
    job::delete(&context.portal, found.id).await?;
    message(format!("job:{} has been deleted", found.id))
}

async fn renew(State(context): State<Context>, caller: Caller, Path(id): Path<String>) -> Answer {
    let found = find(&context, &id).await?;
    check_maker(&caller, &found)?;
    let token = job::renew_token(&context.portal, found.id).await?;
    json(object!({ "id": found.id, "name": found.name, "token": token }))
}

async fn find(context: &Context, id: &str) -> Result<Job, ApiError> {
    let found = job::by_id(&context.portal, parse_int("id", id)?).await?;
    found.ok_or_else(|| ApiError::refused("record not found"))
}

/// Lets those pass who made the job, and administrators.
fn check_maker(caller: &Caller, job: &Job) -> Result<(), ApiError> {
    if caller.owns(&job.create_user) {
        return Ok(());
    }
    Err(caller.denied(ApiError::bad("You don't have permission! Who made the job, or an administrator, may do this.")))
}

fn taken(error: anyhow::Error, name: &str) -> ApiError {
    match error.downcast::<sqlx::Error>() {
        Ok(error) => {
            let text = format!("a job named {name:?} exists already");
            ApiError::duplicate(error, StatusCode::EXPECTATION_FAILED, text)
        }
        Err(error) => error.into(),
    }
}

/// Refuses the name of a host of others: a stranger would make up points of it.
async fn check_endpoint(context: &Context, caller: &Caller, job: &Job) -> Result<(), ApiError> {
    let host = Selection::Names(vec![job.name.clone()]);
    rights::check_hosts(context, caller, &host, HostChange::Maintain).await
}

/// The job that the fields describe; all that is wrong with them is told at once.
fn required_job(fields: &Fields) -> Result<Job, ApiError> {
    // A mistyped deadline would be none. What a list shows may be sent back.
    const KEYS: [&str; 6] = ["name", "period", "grace", "runtime_max", "tags", "pause"];
    const SHOWN: [&str; 12] = [
        "id",
        "create_user",
        "create_at",
        "resumed_at",
        "started_at",
        "ended_at",
        "ok_at",
        "duration",
        "exit_code",
        "note",
        "state",
        "reason",
    ];
    let is_known = |name: &&str| KEYS.iter().chain(&SHOWN).any(|known| known.eq_ignore_ascii_case(name));
    let unknown = fields.names().filter(|name| !is_known(name));
    let mut wrong: Vec<String> =
        unknown.map(|name| format!("{name} is no key of a job: give {}", KEYS.join(", "))).collect();
    let new = Job {
        name: kept(fields.required_line("name", NAME_MAX), &mut wrong),
        period: kept(seconds(fields, "period", PERIOD_MIN), &mut wrong),
        grace: kept(seconds(fields, "grace", 0), &mut wrong),
        runtime_max: kept(seconds(fields, "runtime_max", 0), &mut wrong),
        tags: kept(fields.text("tags", TAGS_MAX).and_then(checked_tags), &mut wrong),
        pause: kept(fields.flag("pause"), &mut wrong),
        ..Job::default()
    };
    if let Some(what) = odd_name(&new.name) {
        wrong.push(format!("name: {:?} {what}: it is the endpoint of the job's series", new.name));
    }
    kept(check_series(&new.name, "job.duration_s", &new.tags), &mut wrong);
    if wrong.is_empty() { Ok(new) } else { Err(ApiError::bad(wrong.join("; "))) }
}

/// The value, or its default with the fault noted.
fn kept<T: Default>(value: Result<T, ApiError>, wrong: &mut Vec<String>) -> T {
    value.unwrap_or_else(|error| {
        wrong.push(error.text().to_string());
        T::default()
    })
}

fn seconds(fields: &Fields, name: &str, min: i64) -> Result<i64, ApiError> {
    match fields.int(name)? {
        value if (min..=TIME_MAX).contains(&value) => Ok(value),
        value => Err(ApiError::bad(format!("{name} is {value}: give {min} to {TIME_MAX} seconds"))),
    }
}

async fn beat(State(context): State<Context>, origin: Origin, Path(token): Path<String>, request: Request) -> Answer {
    heard(&context, origin, &token, None, request).await
}

async fn beat_of(
    State(context): State<Context>,
    origin: Origin,
    Path((token, event)): Path<(String, String)>,
    request: Request,
) -> Answer {
    heard(&context, origin, &token, Some(event), request).await
}

/// Takes one heartbeat in.
async fn heard(context: &Context, origin: Origin, token: &str, event: Option<String>, request: Request) -> Answer {
    let (door, steady) = (&context.heartbeats, Instant::now());
    // A right token is let in whatever others do from the same address, which may be a whole site's.
    let Some(mut job) = job::by_token(&context.portal, token).await? else {
        door.shared.unknown.fetch_add(1, Relaxed);
        if !door.count(Who::Stranger(origin), UNKNOWN_PER_MINUTE, steady) {
            return Err(door.refuse());
        }
        return Err(ApiError::new(StatusCode::NOT_FOUND, "no job has this token: PUT /api/v1/job/:id/token makes one"));
    };
    if !door.count(Who::Job(job.id), BEATS_PER_MINUTE, steady) {
        return Err(door.refuse());
    }
    let (parts, body) = request.into_parts();
    let body = body::read(&parts, body).await?;
    let (beat, note) = said(event, parts.uri.query().unwrap_or(""), &body)?;
    let now = clock::now();
    if job.beat(&beat, &note, now) {
        job::save_beat(&context.portal, &job, &beat).await?;
    }
    let state = job.state(now, &door.heard.gaps());
    json(object!({ "job": job.name, "state": state }))
}

/// What a request says: by its path, its query, or a form in its body; a body that is no such form is the note.
fn said(event: Option<String>, query: &str, body: &[u8]) -> Result<(Beat, String), ApiError> {
    const NAMES: [&str; 3] = ["event", "exit_code", "note"];
    let mut pairs = parse_form(query.as_bytes());
    let form = parse_form(body);
    let is_form = form.iter().any(|(name, _)| NAMES.contains(&name.as_str()));
    let text = if is_form { String::new() } else { String::from_utf8_lossy(body).into_owned() };
    pairs.extend(form.into_iter().filter(|_| is_form));
    let field = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let beat = beat_named(event.or_else(|| field("event")).as_deref(), field("exit_code").as_deref())?;
    Ok((beat, one_line(&field("note").unwrap_or(text))))
}

fn beat_named(event: Option<&str>, exit_code: Option<&str>) -> Result<Beat, ApiError> {
    let code = |text: &str| match text.parse::<i64>() {
        Ok(code @ 0..=255) => Ok(code),
        _ => Err(ApiError::bad("exit_code must be 0 to 255, as a shell has it in $?")),
    };
    let given = exit_code.map(code).transpose()?;
    match event {
        Some("start") => Ok(Beat::Start),
        None | Some("end") => Ok(Beat::End(given.unwrap_or(0))),
        Some("fail") => Ok(Beat::End(given.filter(|code| *code != 0).unwrap_or(1))),
        Some(other) if other.bytes().all(|byte| byte.is_ascii_digit()) => code(other).map(Beat::End),
        Some(_) => Err(ApiError::bad("event must be start, end, fail or an exit code from 0 to 255")),
    }
}

/// The text as one line of at most [`NOTE_MAX`] characters: control characters and runs of blanks become a blank.
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || is_hidden(c)).filter(|word| !word.is_empty());
    let mut line = String::new();
    for word in words {
        if line.len() > 4 * NOTE_MAX {
            break;
        }
        line += if line.is_empty() { "" } else { " " };
        line += word;
    }
    line.chars().take(NOTE_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_says() {
        let check = |event: Option<&str>, query: &str, body: &str, beat: Beat, note: &str| {
            let said = said(event.map(str::to_string), query, body.as_bytes()).expect("a heartbeat");
            assert_eq!(said, (beat, note.to_string()), "{event:?} {query} {body}");
        };
        check(None, "", "", Beat::End(0), "");
        check(Some("start"), "", "", Beat::Start, "");
        check(Some("fail"), "", "disk\nfull\u{7}", Beat::End(1), "disk full");
        check(Some("fail"), "exit_code=0", "", Beat::End(1), "");
        check(Some("17"), "", "", Beat::End(17), "");
        check(None, "event=end&exit_code=2&note=no%20space", "ignored", Beat::End(2), "no space");
        check(None, "", "event=fail&note=a+b", Beat::End(1), "a b");
        check(None, "", "copied=12 files", Beat::End(0), "copied=12 files");
        check(None, "", &"é".repeat(NOTE_MAX + 1), Beat::End(0), &"é".repeat(NOTE_MAX));
        for (event, query) in [(Some("stop"), ""), (Some("256"), ""), (Some("-1"), ""), (None, "exit_code=x")] {
            assert!(said(event.map(str::to_string), query, b"").is_err(), "{event:?} {query}");
        }
    }

    #[test]
    fn a_flood_is_refused_until_the_minute_is_over() {
        let (door, start) = (Heartbeats::default(), Instant::now());
        for _ in 0..BEATS_PER_MINUTE {
            assert!(door.count(Who::Job(1), BEATS_PER_MINUTE, start));
        }
        assert!(!door.count(Who::Job(1), BEATS_PER_MINUTE, start));
        assert!(door.count(Who::Job(2), BEATS_PER_MINUTE, start), "another job is not refused for it");
        assert!(!door.count(Who::Job(1), BEATS_PER_MINUTE, start + MINUTE / 2));
        assert!(door.count(Who::Job(1), BEATS_PER_MINUTE, start + MINUTE));
        for id in 0..=COUNTED_MAX as i64 {
            door.count(Who::Job(id), 1, start + MINUTE);
        }
        assert!(door.shared.counted.lock().expect("not poisoned").counts.len() <= COUNTED_MAX);
    }
}
