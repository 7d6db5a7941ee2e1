//! Dashboard: screens, their charts, and charts that are kept for a link.
//!
//! Compat: the routes say *graph* for a chart. Rows have no owner, so whoever has logged in changes them, as in the
//! original; unknown ids are no error where something is changed or deleted.

use super::Context;
use super::auth::Caller;
use super::body::{Fields, check_length, parse_int};
use super::error::{Answer, ApiError, json, made, message, unchanged};
use super::paging::{Paging, Sort};
use crate::clock;
use crate::portal::dashboard::{self, Graph, SEPARATOR, Screen};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde::Serialize;
use serde_json::{Value, json as object};

/// Rows of a list without `limit`, as in the original.
const ROWS: usize = 500;
/// Rows of a list at most; more are no dashboard.
const ROWS_MAX: usize = 10_000;
/// Screens within one another; the old dashboard shows two.
pub(super) const DEPTH_MAX: usize = 10;
/// Seconds that a chart shows without `timespan`.
const TIMESPAN_S: i64 = 3600;
/// Longest time that a chart shows: ten years.
const TIMESPAN_MAX_S: i64 = 10 * 366 * 86_400;

/// Routes of screens and charts.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/dashboard/screen", post(create_screen))
        .route("/dashboard/screen/{screen_id}", get(show_screen).put(update_screen).delete(remove_screen))
        .route("/dashboard/screens", get(screens))
        .route("/dashboard/screens/pid/{pid}", get(screens_within))
        .route("/dashboard/graph", post(create_graph))
        .route("/dashboard/graph/{id}", get(show_graph).put(update_graph).delete(remove_graph))
        .route("/dashboard/graphs/screen/{screen_id}", get(graphs))
        .route("/dashboard/tmpgraph", post(keep_graph))
        .route("/dashboard/tmpgraph/{id}", get(show_kept_graph))
}

async fn create_screen(State(context): State<Context>, _caller: Caller, fields: Fields) -> Answer {
    let name = fields.line("name", dashboard::NAME_MAX)?;
    if name.is_empty() {
        return Err(ApiError::bad("empty name"));
    }
    let pid = pid(&fields)?;
    check_parents(&context, None, pid).await?;
    let (screen, is_new) = dashboard::ensure_screen(&context.portal, pid, &name).await?;
    if is_new { made(screen.id, json(screen)) } else { unchanged(json(screen)) }
}

async fn show_screen(State(context): State<Context>, _caller: Caller, Path(id): Path<String>) -> Answer {
    let screen = dashboard::screen(&context.portal, id_in_path("screen", &id)?).await?;
    json(screen.ok_or_else(not_found)?)
}

async fn update_screen(
    State(context): State<Context>,
    _caller: Caller,
    Path(id): Path<String>,
    fields: Fields,
) -> Answer {
    let id = id_in_path("screen", &id)?;
    let name = fields.line("name", dashboard::NAME_MAX)?;
    let pid = if fields.has("pid") { Some(pid(&fields)?) } else { None };
    if let Some(old) = dashboard::screen(&context.portal, id).await? {
        let name = if name.is_empty() { old.name } else { name };
        let changed = Screen { id, pid: pid.unwrap_or(old.pid), name };
        if changed.pid != old.pid {
            check_parents(&context, Some(id), changed.pid).await?;
        }
        let taken = |error| {
            let text = format!("a screen named {:?} exists there already", changed.name);
            ApiError::duplicate(error, StatusCode::EXPECTATION_FAILED, text)
        };
        dashboard::update_screen(&context.portal, &changed).await.map_err(taken)?;
    }
    message("ok")
}

/// Refuses a parent that is the screen itself or within it, and one in which the screen, or what is in it, would be too
/// deep; a new screen has no `id` yet.
async fn check_parents(context: &Context, id: Option<i64>, pid: i64) -> Result<(), ApiError> {
    let (mut above, mut depth) = (pid, 1);
    while let Some(screen) = dashboard::screen(&context.portal, above).await? {
        if Some(above) == id {
            return Err(ApiError::bad("pid: a screen is not in itself"));
        }
        (above, depth) = (screen.pid, deeper(depth)?);
    }
    let mut level = Vec::from_iter(id);
    while !level.is_empty() {
        level = dashboard::within(&context.portal, level).await?;
        depth = if level.is_empty() { depth } else { deeper(depth)? };
    }
    Ok(())
}

fn deeper(depth: usize) -> Result<usize, ApiError> {
    if depth == DEPTH_MAX {
        return Err(ApiError::bad(format!("pid: screens are at most {DEPTH_MAX} deep: name a higher one")));
    }
    Ok(depth + 1)
}

async fn remove_screen(State(context): State<Context>, _caller: Caller, Path(id): Path<String>) -> Answer {
    dashboard::delete_screen(&context.portal, id_in_path("screen", &id)?).await?;
    message("ok")
}

async fn screens(State(context): State<Context>, _caller: Caller, fields: Fields) -> Answer {
    json(page(&Screen::default(), dashboard::screens(&context.portal, None, ROWS_MAX).await?, &fields)?)
}

async fn screens_within(
    State(context): State<Context>,
    _caller: Caller,
    Path(pid): Path<String>,
    fields: Fields,
) -> Answer {
    let pid = pid.parse().map_err(|_| ApiError::bad("invalid screen pid"))?;
    json(page(&Screen::default(), dashboard::screens(&context.portal, Some(pid), ROWS_MAX).await?, &fields)?)
}

async fn create_graph(State(context): State<Context>, _caller: Caller, fields: Fields) -> Answer {
    check_required(&fields, &["screen_id", "title", "endpoints", "counters"])?;
    let graph = changed_graph(&context, &fields, new_graph()).await?;
    // The original reads them only where a chart is changed.
    let graph = Graph { falcon_tags: String::new(), ..graph };
    let id = dashboard::create_graph(&context.portal, &graph).await?;
    made(id, json(object!({ "id": id })))
}

/// Refuses fields that lack one of these.
pub(super) fn check_required(fields: &Fields, names: &[&str]) -> Result<(), ApiError> {
    match names.iter().find(|name| !fields.has(name)) {
        Some(name) => Err(ApiError::bad(format!("{name} is required"))),
        None => Ok(()),
    }
}

async fn show_graph(State(context): State<Context>, _caller: Caller, Path(id): Path<String>) -> Answer {
    let graph = dashboard::graph(&context.portal, id_in_path("graph", &id)?).await?;
    json(shown(graph.ok_or_else(not_found)?))
}

async fn update_graph(
    State(context): State<Context>,
    _caller: Caller,
    Path(id): Path<String>,
    fields: Fields,
) -> Answer {
    let id = id_in_path("graph", &id)?;
    if let Some(old) = dashboard::graph(&context.portal, id).await? {
        let changed = changed_graph(&context, &fields, old).await?;
        dashboard::update_graph(&context.portal, &changed).await?;
    }
    json(object!({ "id": id }))
}

async fn remove_graph(State(context): State<Context>, _caller: Caller, Path(id): Path<String>) -> Answer {
    let id = id_in_path("graph", &id)?;
    dashboard::delete_graph(&context.portal, id).await?;
    json(object!({ "id": id }))
}

async fn graphs(
    State(context): State<Context>,
    _caller: Caller,
    Path(screen_id): Path<String>,
    fields: Fields,
) -> Answer {
    let graphs = dashboard::graphs(&context.portal, id_in_path("screen", &screen_id)?, ROWS_MAX).await?;
    json(page(&shown(Graph::default()), graphs.into_iter().map(shown).collect(), &fields)?)
}

async fn keep_graph(State(context): State<Context>, _caller: Caller, fields: Fields) -> Answer {
    let endpoints = list(&fields, "endpoints", dashboard::LIST_MAX)?;
    let counters = list(&fields, "counters", dashboard::LIST_MAX)?;
    let (Some(endpoints), Some(counters)) = (endpoints, counters) else {
        return Err(ApiError::bad("endpoints and counters are required: lists of names"));
    };
    let now = clock::local_text(clock::now());
    json(object!({ "id": dashboard::keep_graph(&context.portal, &endpoints, &counters, &now).await? }))
}

async fn show_kept_graph(State(context): State<Context>, _caller: Caller, Path(id): Path<String>) -> Answer {
    let kept = dashboard::kept_graph(&context.portal, id_in_path("graph", &id)?).await?.ok_or_else(not_found)?;
    json(object!({ "endpoints": parts(&kept.endpoints), "counters": parts(&kept.counters) }))
}

/// The chart with what the fields change. `method` is cleared where it is not given, as in the original.
async fn changed_graph(context: &Context, fields: &Fields, old: Graph) -> Result<Graph, ApiError> {
    let mut graph = old;
    if fields.has("screen_id") {
        graph.screen_id = fields.required_int("screen_id")?;
        if dashboard::screen(&context.portal, graph.screen_id).await?.is_none() {
            return Err(ApiError::bad(format!("screen_id: there is no screen {}", graph.screen_id)));
        }
    }
    said_of_graph(fields, graph)
}

/// A chart as it is without any field.
pub(super) fn new_graph() -> Graph {
    Graph { timespan: TIMESPAN_S, graph_type: "h".to_string(), ..Graph::default() }
}

/// The chart with what the fields change, but for its screen.
pub(super) fn said_of_graph(fields: &Fields, old: Graph) -> Result<Graph, ApiError> {
    let mut graph = old;
    if fields.has("title") {
        graph.title = fields.required_line("title", dashboard::NAME_MAX)?;
    }
    graph.hosts = list(fields, "endpoints", dashboard::LIST_MAX)?.unwrap_or(graph.hosts);
    graph.counters = list(fields, "counters", dashboard::COUNTERS_MAX)?.unwrap_or(graph.counters);
    match fields.int("timespan")? {
        0 => {}
        timespan @ 1..=TIMESPAN_MAX_S => graph.timespan = timespan,
        _ => return Err(ApiError::bad(format!("timespan must be from 1 to {TIMESPAN_MAX_S} seconds"))),
    }
    graph.graph_type = choice(fields, "graph_type", &["h", "k", "a"])?.unwrap_or(graph.graph_type);
    graph.method = choice(fields, "method", &["SUM", "AVERAGE", "MAX", "MIN", "LAST"])?.unwrap_or_default();
    if fields.has("position") {
        graph.position = fields.int("position")?;
    }
    if fields.has("falcon_tags") {
        graph.falcon_tags = fields.line("falcon_tags", dashboard::TAGS_MAX)?;
    }
    Ok(graph)
}

/// One of some texts, as it was sent: the old dashboard's forms say `sum` for `SUM`. None for an empty one.
fn choice(fields: &Fields, name: &str, choices: &[&str]) -> Result<Option<String>, ApiError> {
    let text = fields.line(name, dashboard::NAME_MAX)?;
    if text.is_empty() {
        return Ok(None);
    }
    if choices.iter().any(|choice| choice.eq_ignore_ascii_case(&text)) {
        return Ok(Some(text));
    }
    Err(ApiError::bad(format!("{name} is {text:?}: give one of {}", choices.join(", "))))
}

/// A list as a table keeps it, sorted and joined; None when absent.
fn list(fields: &Fields, name: &str, max: usize) -> Result<Option<String>, ApiError> {
    let Some(mut names) = fields.lines(name, max)? else { return Ok(None) };
    if names.is_empty() {
        return Err(ApiError::bad(format!("{name} is required: a list of names")));
    }
    if let Some(wrong) = names.iter().find(|text| text.contains(SEPARATOR)) {
        return Err(ApiError::bad(format!("{name}: {wrong:?} has a `|`, which joins the names of the list")));
    }
    names.sort();
    let joined = names.join("|");
    check_length(name, &joined, max)?;
    Ok(Some(joined))
}

/// The names of a joined list.
pub(super) fn parts(joined: &str) -> Vec<&str> {
    joined.split(SEPARATOR).filter(|part| !part.is_empty()).collect()
}

/// A chart as the API shows it.
fn shown(graph: Graph) -> Value {
    object!({
        "graph_id": graph.id,
        "title": graph.title,
        "endpoints": parts(&graph.hosts),
        "counters": parts(&graph.counters),
        "screen_id": graph.screen_id,
        "graph_type": graph.graph_type,
        "timespan": graph.timespan,
        "method": graph.method,
        "position": graph.position,
        "falcon_tags": graph.falcon_tags,
    })
}

fn pid(fields: &Fields) -> Result<i64, ApiError> {
    fields.int("pid").ok().filter(|pid| *pid >= 0).ok_or_else(|| ApiError::bad("invalid screen pid"))
}

fn id_in_path(of: &str, id: &str) -> Result<i64, ApiError> {
    parse_int("id", id).map_err(|_| ApiError::bad(format!("invalid {of} id")))
}

/// The part of a list that `limit` and `page` ask for.
fn page<T: Serialize>(sample: &T, list: Vec<T>, fields: &Fields) -> Result<Vec<T>, ApiError> {
    // In the original each of the two has a default.
    let (limit, page) = (number(fields, "limit", ROWS)?, number(fields, "page", 1)?);
    let offset = (page - 1).saturating_mul(limit);
    Paging { offset, limit: Some(limit), sort: Sort::of(fields)? }.rows_like(sample, list.into_iter())
}

fn number(fields: &Fields, name: &str, default: usize) -> Result<usize, ApiError> {
    if fields.text(name, 20).is_ok_and(|text| text.is_empty()) {
        return Ok(default);
    }
    let number = usize::try_from(fields.int(name)?).ok().filter(|number| *number > 0);
    number.ok_or_else(|| ApiError::bad(format!("{name} must be a number from 1 on")))
}

fn not_found() -> ApiError {
    ApiError::bad("record not found")
}
