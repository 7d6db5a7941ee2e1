//! Graph data over REST: endpoints, counters, history and last points of the store, and deleting series. Where points
//! are in old graphs, each handler hands what was asked on to [`super::old_graph`].
//!
//! How: the store's calls are synchronous and may read files, so they run on blocking threads. A history answer is
//! written one series at a time and sent in pieces as it is made, so that a large one costs one series and a few pieces
//! of memory. A reader that is slower than the writing holds neither thread nor turn: the writing goes on when the
//! reader has taken what is there. Turns are shared out by user.
//! Invariants: the number of points an answer may hold is computed before it begins, and refused with a text that says
//! what to narrow; a bad regular expression answers an empty list, as the original does; an answer in which something
//! is missing, since a file is damaged, says so in the series that it concerns, and in a header if that was not sent
//! yet.
//! Compat: docs/open-falcon/control-plane.md §4 "Graph data" and §6. Values have six decimals, unknown ones are null.

use super::Context;
use super::auth::Caller;
use super::body::{Fields, JsonBody, flag, parse_form};
use super::error::{self, Answer, ApiError, unchanged};
use super::old_graph;
use super::paging::{Paging, Sort};
use super::pieces::Pieces;
use super::rights;
use crate::engine::Engine;
use crate::plus_graph::index::CounterRow;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use model::CounterType;
use model::point::align;
use net::turns::{Holder, Turns};
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{HashSet, VecDeque};
use std::fmt::Write;
use std::sync::LazyLock;
use store::{Cf, CounterQuery, EndpointQuery, Found, Grid, Query, Store};
use tokio::sync::oneshot;

/// The original's default page for endpoints and counters.
const PAGE_ROWS: usize = 500;
/// Rows of one page; paging is for more.
const PAGE_ROWS_MAX: usize = 10_000;
/// Rows that are sorted for one page: of a million endpoints each page would cost a copy of all names.
const SORTED_MAX: usize = 100_000;
/// Bytes a compiled regular expression of a user may take.
const REGEX_BYTES_MAX: usize = 1 << 20;
/// Terms of one search; each costs a compiled expression, or a look at every text of the table. People type two or
/// three.
const TERMS_MAX: usize = 16;
/// Histories written at the same time; each holds a blocking thread, of which the runtime has 512 for everything.
const HISTORIES_AT_ONCE: usize = 32;
/// Header of an answer in which something is missing, since a file is damaged; its value says which.
const INCOMPLETE: HeaderName = HeaderName::from_static("hawkeye-incomplete");
/// Seconds of a day.
const DAY_S: i64 = 86_400;
static HISTORIES: LazyLock<Turns> = LazyLock::new(|| Turns::new(HISTORIES_AT_ONCE));
/// History answers that have begun and are not read to their end, each with up to four pieces of 64 KiB.
const ANSWERS_AT_ONCE: usize = 64;
pub(super) static ANSWERS: LazyLock<Turns> = LazyLock::new(|| Turns::new(ANSWERS_AT_ONCE));
/// The most (host, counter) pairs of one request for history, last points or deletion.
const PAIRS_MAX: usize = 100_000;

/// Routes of series and their points.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/graph/endpoint", get(endpoints).delete(delete_endpoints))
        .route("/graph/endpointobj", get(endpoint_objects))
        .route("/graph/endpoint_counter", get(counters))
        .route("/graph/history", post(history))
        .route("/graph/lastpoint", post(last_points))
        .route("/graph/counter", delete(delete_counters))
}

/// Runs `work` on a thread that may wait for the disk.
pub(super) async fn blocking<T: Send + 'static>(
    context: &Context,
    work: impl FnOnce(&Engine) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let working = context.engine.spawn_blocking(work);
    working.await.map_err(|error| ApiError::from(anyhow::Error::new(error).context("a query of the store")))
}

/// Runs `work` on a thread that may wait for the disk, for work that may fail to read a file.
pub(super) async fn reading<T: Send + 'static>(
    context: &Context,
    work: impl FnOnce(&Engine) -> Result<T, store::Error> + Send + 'static,
) -> Result<T, ApiError> {
    blocking(context, work).await?.map_err(unreadable)
}

/// The answer where names of series cannot be read.
pub(super) fn unreadable(error: store::Error) -> ApiError {
    ApiError::from(anyhow::Error::new(error).context("reading names"))
}

/// Query parameters as pairs; a name may repeat.
fn pairs(query: &RawQuery) -> Vec<(String, String)> {
    parse_form(query.0.as_deref().unwrap_or("").as_bytes())
}

fn parameter<'q>(pairs: &'q [(String, String)], name: &str) -> &'q str {
    pairs.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}

/// The part of a list that `limit` (500) and `page` (1) ask for, in the order of `sort`.
fn page(pairs: &[(String, String)]) -> Result<Paging, ApiError> {
    let number = |name: &str, default: usize| match parameter(pairs, name) {
        "" => Ok(default),
        text => text
            .parse::<usize>()
            .ok()
            .filter(|n| *n > 0)
            .ok_or_else(|| ApiError::bad(format!("{name} is {text:?}: give a number from 1 on"))),
    };
    let limit = number("limit", PAGE_ROWS)?.min(PAGE_ROWS_MAX);
    let page = number("page", 1)?;
    let sort = Sort::of(&Fields::Form(pairs.to_vec()))?;
    Ok(Paging { offset: (page - 1).saturating_mul(limit), limit: Some(limit), sort })
}

/// Offset and limit of the rows that the store is asked for: of a list that is sorted here all that fit, and one more
/// than there may be.
fn asked(page: &Paging) -> (usize, usize) {
    match page.sort {
        Some(_) => (0, SORTED_MAX + 1),
        None => (page.offset, page.limit.unwrap_or(PAGE_ROWS)),
    }
}

/// The rows that the store has answered, cut where they were sorted here.
fn paged(page: &Paging, sample: &Value, rows: Vec<Value>) -> Result<Vec<Value>, ApiError> {
    match page.sort {
        None => Ok(rows),
        Some(_) if rows.len() > SORTED_MAX => {
            Err(ApiError::bad(format!("sort: more than {SORTED_MAX} rows fit: ask for fewer, or leave it out")))
        }
        Some(_) => page.rows_like(sample, rows.into_iter()),
    }
}

fn regex(text: &str) -> Option<Regex> {
    RegexBuilder::new(text).case_insensitive(true).size_limit(REGEX_BYTES_MAX).build().ok()
}

fn check_terms(name: &str, count: usize) -> Result<(), ApiError> {
    if count > TERMS_MAX {
        return Err(ApiError::bad(format!("{name} has {count} terms: give at most {TERMS_MAX}")));
    }
    Ok(())
}

async fn endpoints(State(context): State<Context>, _: Caller, query: RawQuery) -> Result<Response, ApiError> {
    let pairs = pairs(&query);
    let (q, tags) = (parameter(&pairs, "q").to_string(), parameter(&pairs, "tags").to_string());
    if q.is_empty() && tags.is_empty() {
        return Err(ApiError::bad("q and labels are all missing"));
    }
    check_terms("q", q.split_whitespace().count())?;
    check_terms("tags", tags.split(',').count())?;
    let page = page(&pairs)?;
    let (offset, limit) = asked(&page);
    let sample = json!({ "endpoint": "", "id": 0 });
    let Some(patterns) = q.split_whitespace().map(regex).collect::<Option<Vec<_>>>() else {
        return Ok(Json(paged(&page, &sample, Vec::new())?).into_response());
    };
    if let Some(graphs) = &context.graphs {
        let rows = old_graph::endpoints(graphs, patterns, &tags, (offset, limit)).await?;
        let rows: Vec<Value> = rows.into_iter().map(|row| json!({"endpoint": row.endpoint, "id": row.id})).collect();
        return Ok(Json(paged(&page, &sample, rows)?).into_response());
    }
    let (rows, damage) = reading(&context, move |engine| {
        let tag_terms: Vec<&str> = tags.split(',').map(str::trim).filter(|term| !term.is_empty()).collect();
        let mut rows =
            engine.store().endpoints(&EndpointQuery { patterns: &patterns, tag_terms: &tag_terms, offset, limit })?;
        // Tags that match nothing are ignored when there is a q, as in the original.
        if rows.is_empty() && !patterns.is_empty() && !tag_terms.is_empty() {
            rows = engine.store().endpoints(&EndpointQuery { patterns: &patterns, tag_terms: &[], offset, limit })?;
        }
        Ok((rows, damaged_names(engine.store())))
    })
    .await?;
    let rows: Vec<Value> = rows.into_iter().map(|(id, endpoint)| json!({"endpoint": endpoint, "id": id})).collect();
    Ok(with_incomplete(Json(paged(&page, &sample, rows)?).into_response(), damage))
}

async fn endpoint_objects(State(context): State<Context>, _: Caller, query: RawQuery) -> Result<Json<Value>, ApiError> {
    let pairs = pairs(&query);
    let names: Vec<String> =
        pairs.iter().filter(|(key, _)| key == "endpoints").map(|(_, value)| value.clone()).collect();
    if names.is_empty() {
        return Err(ApiError::bad("endpoints missing"));
    }
    let deadline: i64 = parameter(&pairs, "deadline").parse().unwrap_or(0);
    if let Some(graphs) = &context.graphs {
        let rows = old_graph::named(graphs, names.into_iter().take(PAGE_ROWS_MAX).collect()).await?.into_iter();
        let rows = rows.filter(|row| row.ts >= deadline);
        return Ok(Json(rows.map(|row| json!({"id": row.id, "endpoint": row.endpoint, "ts": row.ts})).collect()));
    }
    let rows = reading(&context, move |engine| {
        let store = engine.store();
        let mut rows = Vec::new();
        for name in names.iter().take(PAGE_ROWS_MAX) {
            let Some(id) = store.endpoint_ids(&[name])?[0] else { continue };
            let ts = store.endpoint_last_time(id).unwrap_or(0);
            if ts >= deadline {
                rows.push(json!({"id": id, "endpoint": name, "ts": ts}));
            }
        }
        Ok(rows)
    })
    .await?;
    Ok(Json(rows.into()))
}

async fn counters(State(context): State<Context>, _: Caller, query: RawQuery) -> Result<Response, ApiError> {
    let pairs = pairs(&query);
    let eid = parameter(&pairs, "eid");
    if eid.is_empty() {
        return Err(ApiError::bad("eid is missing"));
    }
    let mut endpoint_ids = eid
        .split(',')
        .map(|id| id.trim().parse::<u32>())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| ApiError::bad(format!("eid is {eid:?}: give endpoint ids joined by commas")))?;
    // An id that is named twice is looked up once, as in an SQL list.
    let mut seen = HashSet::new();
    endpoint_ids.retain(|id| seen.insert(*id));
    check_terms("metricQuery", parameter(&pairs, "metricQuery").split_whitespace().count())?;
    let page = page(&pairs)?;
    let (offset, limit) = asked(&page);
    let sample = json!({ "endpoint_id": 0, "counter": "", "step": 0, "type": "" });
    let terms = parameter(&pairs, "metricQuery").split_whitespace().map(|term| {
        let (negated, text) = term.strip_prefix('!').map_or((false, term), |rest| (true, rest));
        regex(text).map(|regex| (negated, regex))
    });
    let Some(patterns) = terms.collect::<Option<Vec<_>>>() else {
        return Ok(Json(paged(&page, &sample, Vec::new())?).into_response());
    };
    if let Some(graphs) = &context.graphs {
        let ids: Vec<u64> = endpoint_ids.into_iter().map(u64::from).collect();
        let row = |row: CounterRow| json!({"endpoint_id": row.endpoint_id, "counter": row.counter, "step": row.step, "type": row.ds_type});
        let rows = old_graph::counters(graphs, &ids, &patterns, (offset, limit)).await?;
        let rows: Vec<Value> = rows.into_iter().map(row).collect();
        return Ok(Json(paged(&page, &sample, rows)?).into_response());
    }
    let (rows, damage) = reading(&context, move |engine| {
        let store = engine.store();
        let query = CounterQuery { endpoint_ids: &endpoint_ids, patterns: &patterns, offset, limit };
        Ok((store.counters(&query)?, damaged_names(store)))
    })
    .await?;
    let row = |row: store::CounterRow| {
        json!({
            "endpoint_id": row.endpoint_id, "counter": row.counter, "step": row.step,
            "type": row.counter_type.ds_type(),
        })
    };
    let rows: Vec<Value> = rows.into_iter().map(row).collect();
    Ok(with_incomplete(Json(paged(&page, &sample, rows)?).into_response(), damage))
}

/// What is known of a damaged file with names of series that sleep: some may be missing in a search.
fn damaged_names(store: &Store) -> Option<String> {
    store.damaged_files().into_iter().find(|text| text.contains(".run "))
}

#[derive(Deserialize)]
struct HistoryRequest {
    hostnames: Vec<String>,
    counters: Vec<String>,
    consol_fun: Option<String>,
    start_time: i64,
    end_time: i64,
    step: Option<i64>,
    /// True for the points as they are stored, and not for rows; the original does not know it.
    #[serde(default, deserialize_with = "flag")]
    raw: bool,
}

impl HistoryRequest {
    fn cf(&self) -> Result<Cf, ApiError> {
        match &self.consol_fun {
            // Stored points are not consolidated.
            None if self.raw => Ok(Cf::Average),
            None => Err(ApiError::bad("consol_fun is missing: give AVERAGE, MAX, MIN or LAST")),
            Some(text) => Cf::parse(text)
                .ok_or_else(|| ApiError::bad(format!("consol_fun is {text:?}: give AVERAGE, MAX, MIN or LAST"))),
        }
    }
}

async fn history(
    State(context): State<Context>,
    caller: Caller,
    JsonBody(request): JsonBody<HistoryRequest>,
) -> Result<Response, ApiError> {
    let cf = request.cf()?;
    if request.hostnames.len().saturating_mul(request.counters.len()) > PAIRS_MAX {
        return Err(ApiError::bad(format!("more than {PAIRS_MAX} pairs of hostnames and counters: ask for fewer")));
    }
    let query = query(request.start_time, request.end_time, cf);
    let user = Holder::user(&caller.name);
    if let Some(graphs) = &context.graphs {
        if request.raw {
            return Err(old_graph::refused("raw is true"));
        }
        let asked = old_graph::Asked { shows_unknown: request.step.is_some(), ..asked_of_graphs(&query) };
        let names = Names::Product { hosts: request.hostnames, counters: request.counters };
        return old_graph::answer_history(&context, graphs, user, names, asked).await;
    }
    answer_history(&context, user, query, move |engine| Ok(look_up(engine, request))).await
}

/// A question for this time; what no point can have is cut off.
pub(super) fn query(from: i64, to: i64, cf: Cf) -> Query {
    let times = 0..=i64::from(u32::MAX) + DAY_S;
    let within = |time: i64| time.clamp(*times.start() - 1, *times.end());
    Query { from: within(from), to: within(to), cf, now: crate::clock::now() }
}

/// The question as an old graph is asked.
pub(super) fn asked_of_graphs(query: &Query) -> old_graph::Asked {
    let consol_fun = match query.cf {
        Cf::Average => "AVERAGE",
        Cf::Max => "MAX",
        Cf::Min => "MIN",
        Cf::Last => "LAST",
    };
    old_graph::Asked { from: query.from, to: query.to, consol_fun, shows_unknown: false }
}

/// Series that an answer is made of.
pub(super) struct Asked {
    pub names: Names,
    /// The series of all names; none for one that is unknown.
    pub found: Vec<Option<Found>>,
    /// Stored points, and not rows.
    pub is_raw: bool,
    /// An unknown series is answered without values, and not left out.
    pub shows_unknown: bool,
}

/// Hosts and counters of the series of an answer, in its order.
pub(super) enum Names {
    /// Each counter of each host, host by host.
    Product {
        hosts: Vec<String>,
        counters: Vec<String>,
    },
    Pairs(Vec<(String, String)>),
}

impl Names {
    /// How many series there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Names::Product { hosts, counters } => hosts.len() * counters.len(),
            Names::Pairs(pairs) => pairs.len(),
        }
    }

    pub(super) fn at(&self, pair: usize) -> (&str, &str) {
        match self {
            Names::Product { hosts, counters } => (&hosts[pair / counters.len()], &counters[pair % counters.len()]),
            Names::Pairs(pairs) => (&pairs[pair].0, &pairs[pair].1),
        }
    }
}

/// Answers the histories of the series that `look_up` finds.
pub(super) async fn answer_history(
    context: &Context,
    user: Holder,
    query: Query,
    look_up: impl FnOnce(&Engine) -> Result<Asked, ApiError> + Send + 'static,
) -> Result<Response, ApiError> {
    let points_max = context.config.graph.query_points_max as u64;
    let checked = blocking(context, move |engine| {
        let asked = look_up(engine)?;
        let points = |found: &Found| match asked.is_raw {
            true => stored_points_max(engine.store(), *found, &query),
            false => query.rows(*found) as u64,
        };
        let points = asked.found.iter().flatten().map(points).fold(0, u64::saturating_add);
        Ok::<_, ApiError>((asked, points))
    });
    let (asked, points) = checked.await??;
    if points > points_max {
        return Err(too_many_points(points, points_max));
    }
    let begun = ANSWERS.take(&user, 1).await;
    let (pieces, body) = Pieces::new();
    let (head, told) = oneshot::channel();
    let history = History::new(asked, query, head);
    let context = context.clone();
    tokio::spawn(async move {
        send_history(context, user, history, pieces).await;
        drop(begun);
    });
    // Told with the first piece, or by nobody where writing it panicked.
    let incomplete = told.await.unwrap_or_default();
    let response = ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], body).into_response();
    Ok(with_incomplete(response, incomplete))
}

pub(super) fn too_many_points(points: u64, points_max: u64) -> ApiError {
    ApiError::bad(format!(
        "the answer would hold {points} points, more than graph.query_points_max = {points_max}: \
         ask for a shorter time or fewer counters"
    ))
}

/// The response with a header that says what is missing in it, if something is.
pub(super) fn with_incomplete(mut response: Response, incomplete: Option<String>) -> Response {
    if let Some(text) = incomplete {
        let value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("a file is damaged"));
        response.headers_mut().insert(INCOMPLETE, value);
    }
    response
}

/// The most points that may be stored of a series within the range.
fn stored_points_max(store: &Store, found: Found, query: &Query) -> u64 {
    let oldest = store.oldest_kept(query.now);
    let from = query.from.max(store.oldest_points().map_or(oldest, |points| points.min(oldest)));
    let to = query.to.min(query.now + DAY_S);
    let stretches = store.metas(found).stretches();
    let within = stretches.iter().map(|one| (to.min(one.to) - from.max(one.from), i64::from(one.step)));
    within.filter(|(seconds, _)| *seconds >= 0).map(|(seconds, step)| (seconds / step) as u64 + 1).sum()
}

/// The series of all pairs, host by host.
fn look_up(engine: &Engine, request: HistoryRequest) -> Asked {
    let HistoryRequest { hostnames: hosts, counters, .. } = request;
    let pairs = hosts.iter().flat_map(|host| counters.iter().map(move |counter| (host, counter)));
    let found = pairs.map(|(endpoint, counter)| find(engine.store(), endpoint, counter)).collect();
    Asked {
        names: Names::Product { hosts, counters },
        found,
        is_raw: request.raw,
        shows_unknown: request.step.is_some(),
    }
}

/// A series whose name cannot be read counts as unknown here, and the log says why.
pub(super) fn find(store: &Store, endpoint: &str, counter: &str) -> Option<Found> {
    store.find(endpoint, counter).unwrap_or_else(|error| {
        tracing::error!(endpoint, counter, %error, "cannot look up a series; the answer shows it as unknown");
        None
    })
}

/// Says in the log that an answer is broken off; of a missing file the log is told once, by whoever keeps the store.
fn complain(error: &store::Error, what: &str) {
    if error.is_missing_file() {
        tracing::debug!(%error, "{what}");
    } else {
        tracing::error!(%error, "{what}");
    }
}

/// Writes and sends an answer. The thread and the turn are given up whenever the reader is behind.
async fn send_history(context: Context, user: Holder, mut history: History, mut pieces: Pieces) {
    loop {
        let turn = HISTORIES.take(&user, 1).await;
        if !pieces.is_wanted() {
            return;
        }
        let writing = context.engine.spawn_blocking(move |engine| {
            let _turn = turn;
            let is_whole = history.write(engine, &mut pieces);
            (history, pieces, is_whole)
        });
        // After a panic the pieces are gone, and the reader's answer is broken off.
        let Ok((written, to_send, is_whole)) = writing.await else { return };
        (history, pieces) = (written, to_send);
        if is_whole {
            return pieces.finish().await;
        }
        if !pieces.has_room().await {
            return;
        }
    }
}

/// A history answer on its way: a JSON list, series by series, host by host. A series that is unknown is left out
/// without `step` in the request, and empty with one, as in the original.
struct History {
    asked: Asked,
    query: Query,
    /// The pair that is written next.
    next: usize,
    /// Stored points of that pair that are still to be written, of an answer with `raw`.
    parts: VecDeque<Part>,
    /// Separator before the next series, and before the next value of one.
    separator: char,
    value_separator: &'static str,
    /// What is missing in the series that is being written, and in the answer, as was met first.
    damage: Option<String>,
    incomplete: Option<String>,
    /// Told what is missing when the first piece is sent: a header can say it no later.
    head: Option<oneshot::Sender<Option<String>>>,
}

/// Stored points of a series within a day, all of one type and step.
struct Part {
    counter_type: CounterType,
    step: u32,
    from: i64,
    to: i64,
    is_first: bool,
    is_last: bool,
}

impl History {
    fn new(asked: Asked, query: Query, head: oneshot::Sender<Option<String>>) -> History {
        History {
            asked,
            query,
            next: 0,
            parts: VecDeque::new(),
            separator: '[',
            value_separator: "",
            damage: None,
            incomplete: None,
            head: Some(head),
        }
    }

    /// Goes on writing until the answer is whole (true), or the reader is behind or gone.
    fn write(&mut self, engine: &Engine, out: &mut Pieces) -> bool {
        let goes_on = match self.asked.is_raw {
            true => self.write_points(engine.store(), out),
            false => self.write_rows(engine.store(), out),
        };
        let is_whole = goes_on && self.unknown_until(self.asked.found.len(), out);
        if is_whole {
            out.text.push_str(if self.separator == '[' { "[]" } else { "]" });
            self.tell_head();
        }
        is_whole
    }

    /// Writes rows from the next pair on, up to the last that is known; false when the writing has to stop.
    fn write_rows(&mut self, store: &Store, out: &mut Pieces) -> bool {
        let known: Vec<usize> =
            (self.next..self.asked.found.len()).filter(|pair| self.asked.found[*pair].is_some()).collect();
        let series: Vec<Found> = known.iter().filter_map(|pair| self.asked.found[*pair]).collect();
        let (query, mut goes_on) = (self.query, true);
        let each = |i: usize, grid: Result<Grid, store::Error>| {
            goes_on = self.unknown_until(known[i], out);
            if goes_on {
                self.rows(series[i], grid, out);
                goes_on = self.pass_on(out);
            }
            goes_on
        };
        if let Err(error) = store.query_many(&series, &query, each) {
            // The number of points was checked before, so this is a disk; half an answer must not look whole.
            complain(&error, "cannot read the history; the answer is broken off");
            out.give_up();
            return false;
        }
        goes_on
    }

    fn rows(&mut self, found: Found, grid: Result<Grid, store::Error>, out: &mut Pieces) {
        let (values, incomplete) = match grid {
            Ok(grid) => (grid.values, grid.incomplete),
            Err(store::Error::UnknownSeries(_)) => return self.unknown(out),
            Err(error) => {
                let (endpoint, counter) = self.name();
                if !error.is_missing_file() {
                    tracing::error!(endpoint, counter, %error, "cannot read a series; the answer says so");
                }
                (Vec::new(), Some(error.to_string()))
            }
        };
        self.begin(found.counter_type, found.step, out);
        // The original has no rows for a range inside one step.
        let is_inside = align(self.query.to, found.step) <= align(self.query.from, found.step);
        for (time, value) in values.iter().filter(|_| !is_inside) {
            self.value(*time, *value, out);
        }
        self.damage = incomplete;
        self.end_series(out);
        self.next += 1;
    }

    /// Writes the points of the series as they are stored, of a COUNTER its readings, in one entry for each stretch of
    /// time in which the series had one type and step; day by day, so that a day's points are in memory.
    fn write_points(&mut self, store: &Store, out: &mut Pieces) -> bool {
        let (mut histories, mut points) = (store.histories(), Vec::new());
        while self.next < self.asked.found.len() {
            let Some(found) = self.asked.found[self.next] else {
                self.unknown(out);
                if !self.pass_on(out) {
                    return false;
                }
                continue;
            };
            if self.parts.is_empty() {
                self.parts = parts_of(store, found, &self.query);
                if self.parts.is_empty() {
                    self.next += 1;
                    continue;
                }
            }
            while let Some(part) = self.parts.pop_front() {
                if part.is_first {
                    self.begin(part.counter_type, part.step, out);
                }
                points.clear();
                match histories.read(found, part.from, part.to, &mut points) {
                    // Removed since it was looked up.
                    Ok(()) | Err(store::Error::UnknownSeries(_)) => {}
                    Err(error) => {
                        complain(&error, "cannot read stored points; the answer is broken off");
                        out.give_up();
                        return false;
                    }
                }
                points.iter().for_each(|point| self.value(point.time, Some(point.value), out));
                self.damage = self.damage.take().or(histories.take_damage());
                if part.is_last {
                    self.end_series(out);
                }
                self.next += usize::from(self.parts.is_empty());
                if !self.pass_on(out) {
                    return false;
                }
                if self.parts.is_empty() {
                    break;
                }
            }
        }
        true
    }

    /// Host and counter of the next pair.
    fn name(&self) -> (&str, &str) {
        self.asked.names.at(self.next)
    }

    fn begin_entry(&mut self, out: &mut Pieces) {
        let (endpoint, counter) = self.name();
        let head = json!({"endpoint": endpoint, "counter": counter}).to_string();
        out.text.push(std::mem::replace(&mut self.separator, ','));
        out.text.push_str(head.trim_end_matches('}'));
    }

    /// Begins a series of this type and step, up to its values.
    fn begin(&mut self, counter_type: CounterType, step: u32, out: &mut Pieces) {
        self.begin_entry(out);
        self.value_separator = "";
        let ds_type = counter_type.ds_type();
        write!(out.text, ",\"dstype\":\"{ds_type}\",\"step\":{step},\"Values\":[").expect("String");
    }

    fn value(&mut self, time: i64, value: Option<f64>, out: &mut Pieces) {
        let separator = std::mem::replace(&mut self.value_separator, ",");
        write!(out.text, "{separator}{{\"timestamp\":{time},\"value\":").expect("String");
        push_value(value, &mut out.text);
        out.text.push('}');
    }

    /// Ends the values of a series, with what is missing among them.
    fn end_series(&mut self, out: &mut Pieces) {
        out.text.push(']');
        if let Some(text) = self.damage.take() {
            write!(out.text, ",\"incomplete\":{}", Value::from(text.as_str())).expect("String");
            self.incomplete.get_or_insert(text);
        }
        out.text.push('}');
    }

    /// Writes the pairs before `pair`, all unknown; false when the writing has to stop.
    fn unknown_until(&mut self, pair: usize, out: &mut Pieces) -> bool {
        while self.next < pair {
            self.unknown(out);
            if !self.pass_on(out) {
                return false;
            }
        }
        true
    }

    fn unknown(&mut self, out: &mut Pieces) {
        if self.asked.shows_unknown {
            self.begin_entry(out);
            out.text.push_str(",\"dstype\":\"\",\"step\":0,\"Values\":[]}");
        }
        self.next += 1;
    }

    fn pass_on(&mut self, out: &mut Pieces) -> bool {
        if out.is_due() {
            self.tell_head();
        }
        out.pass_on()
    }

    fn tell_head(&mut self) {
        if let Some(head) = self.head.take() {
            // Nobody is there when the request was given up.
            let _ = head.send(self.incomplete.clone());
        }
    }
}

/// Stored points of a series within the query's time, a part for each day of each stretch.
fn parts_of(store: &Store, found: Found, query: &Query) -> VecDeque<Part> {
    let mut parts = VecDeque::new();
    let mut stretches = store.metas(found).stretches();
    stretches.retain(|one| one.from <= query.to && one.to >= query.from);
    for one in &stretches {
        let days = days(store, one.from.max(query.from).max(0), one.to.min(query.to), query.now);
        let last = days.len().saturating_sub(1);
        let (counter_type, step) = (one.counter_type, one.step);
        parts.extend(days.into_iter().enumerate().map(|(day, (from, to))| {
            let (is_first, is_last) = (day == 0, day == last);
            Part { counter_type, step, from, to, is_first, is_last }
        }));
    }
    parts
}

/// Parts of [from, to] that hold a day of stored points each, but for what is before and behind all of them.
fn days(store: &Store, from: i64, to: i64, now: i64) -> Vec<(i64, i64)> {
    let begin = store.oldest_points().unwrap_or(i64::MAX);
    let (mut next, mut days) = (from, Vec::new());
    while next <= to {
        let last = if next < begin {
            begin - 1
        } else if next > now {
            to
        } else {
            next / DAY_S * DAY_S + DAY_S - 1
        };
        days.push((next, last.min(to)));
        next = last.min(to) + 1;
    }
    days
}

/// Appends a value with six decimals, or null.
pub(super) fn push_value(value: Option<f64>, out: &mut String) {
    match value.filter(|value| value.is_finite()) {
        Some(value) => write!(out, "{value:.6}").expect("String"),
        None => out.push_str("null"),
    }
}

#[derive(Deserialize)]
struct EndpointCounter {
    endpoint: String,
    counter: String,
}

async fn last_points(
    State(context): State<Context>,
    _: Caller,
    JsonBody(asked): JsonBody<Vec<EndpointCounter>>,
) -> Result<Response, ApiError> {
    if asked.len() > PAIRS_MAX {
        return Err(ApiError::bad(format!("more than {PAIRS_MAX} counters: ask for fewer")));
    }
    if let Some(graphs) = &context.graphs {
        let pairs = asked.into_iter().map(|pair| (pair.endpoint, pair.counter)).collect();
        return Ok(old_graph::last_points(graphs, pairs).await);
    }
    let text = blocking(&context, move |engine| {
        let mut text = "[".to_string();
        for (i, pair) in asked.iter().enumerate() {
            let store = engine.store();
            let last = find(store, &pair.endpoint, &pair.counter).and_then(|found| store.last(found));
            let comma = if i == 0 { "" } else { "," };
            // An unknown series has time 0 and value 0, as in the original.
            let (time, value) = last.map_or((0, 0.0), |point| (point.time, point.value));
            push_last(comma, &pair.endpoint, &pair.counter, time, value, &mut text);
        }
        text.push(']');
        text
    })
    .await?;
    Ok(([(header::CONTENT_TYPE, "application/json; charset=utf-8")], text).into_response())
}

/// Appends the newest point of a series.
pub(super) fn push_last(comma: &str, endpoint: &str, counter: &str, time: i64, value: f64, out: &mut String) {
    let head = json!({"endpoint": endpoint, "counter": counter}).to_string();
    write!(out, "{comma}{},\"value\":{{\"timestamp\":{time},\"value\":", head.trim_end_matches('}')).expect("String");
    push_value(Some(value), out);
    out.push_str("}}");
}

/// Runs `work`, which deletes series.
async fn deleting<T: Send + 'static>(
    context: &Context,
    work: impl FnOnce(&Engine) -> Result<T, store::Error> + Send + 'static,
) -> Result<T, ApiError> {
    let result = blocking(context, work).await?;
    result.map_err(|error| ApiError::from(anyhow::Error::new(error).context("deleting series")))
}

async fn delete_endpoints(
    State(context): State<Context>,
    caller: Caller,
    JsonBody(names): JsonBody<Vec<String>>,
) -> Answer {
    rights::check_admin(&context, &caller)?;
    if let Some(graphs) = &context.graphs {
        return old_graph::delete_endpoints(graphs, names).await;
    }
    let (endpoints, counters) = deleting(&context, move |engine| engine.remove_endpoints(&names)).await?;
    let answer = error::json(json!({"affected_endpoint": endpoints, "affected_counter": counters}));
    if endpoints == 0 { unchanged(answer) } else { answer }
}

#[derive(Deserialize)]
struct DeleteCounters {
    endpoints: Vec<String>,
    counters: Vec<String>,
}

async fn delete_counters(
    State(context): State<Context>,
    caller: Caller,
    JsonBody(asked): JsonBody<DeleteCounters>,
) -> Answer {
    rights::check_admin(&context, &caller)?;
    if asked.endpoints.len().saturating_mul(asked.counters.len()) > PAIRS_MAX {
        return Err(ApiError::bad(format!("more than {PAIRS_MAX} pairs of endpoints and counters: name fewer")));
    }
    if let Some(graphs) = &context.graphs {
        return old_graph::delete_counters(graphs, asked.endpoints, asked.counters).await;
    }
    let affected = deleting(&context, move |engine| {
        let mut affected = 0;
        for endpoint in &asked.endpoints {
            for counter in &asked.counters {
                if let Some(found) = engine.store().find(endpoint, counter)? {
                    engine.remove_series(found.id)?;
                    affected += 1;
                }
            }
        }
        Ok(affected)
    })
    .await?;
    let answer = error::json(json!({"affected_counter": affected}));
    if affected == 0 { unchanged(answer) } else { answer }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_six_decimals() {
        let check = |value, expected: &str| {
            let mut out = String::new();
            push_value(value, &mut out);
            assert_eq!(out, expected);
        };
        check(Some(59.0), "59.000000");
        check(Some(f64::NAN), "null");
        check(None, "null");
    }

    #[test]
    fn pages() {
        let pairs = |text: &str| parse_form(text.as_bytes());
        let part = |text: &str| page(&pairs(text)).map(|page| (page.offset, page.limit)).ok();
        assert_eq!(part(""), Some((0, Some(500))));
        assert_eq!(part("limit=3&page=2"), Some((3, Some(3))));
        let sorted = page(&pairs("limit=3&page=2&sort=-id")).expect("an order");
        assert_eq!(asked(&sorted), (0, SORTED_MAX + 1));
        let rows = |count: usize| (0..count).map(|id| json!({ "id": id })).collect::<Vec<_>>();
        let part = paged(&sorted, &json!({ "id": 0 }), rows(5)).expect("few");
        assert_eq!(part, [json!({ "id": 1 }), json!({ "id": 0 })]);
        assert!(paged(&sorted, &json!({ "id": 0 }), rows(SORTED_MAX + 1)).is_err());
        assert!(paged(&sorted, &json!({ "endpoint": "" }), Vec::new()).is_err(), "no such field");
        assert!(page(&pairs("page=0")).is_err());
        assert!(page(&pairs("limit=x")).is_err());
    }
}
