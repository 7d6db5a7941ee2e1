//! Old graphs: graph data over REST where the points are in the graphs of an Open-Falcon (`graph.cluster`).
//!
//! How: a series is one call to the graph that has it; [`AHEAD`] calls are under way at a time, and their answers are
//! written in the order of the request. A history is sent in pieces as it is made.
//! Invariants: a graph that is away costs only its series: a history has them without values and with the reason
//! (`"incomplete"`), a list of last points leaves them out, and the header `Hawkeye-Incomplete` has the first reason
//! unless the answer has begun before.
//! Memory: the rows of [`AHEAD`] series, and some pieces.
//! Compat: docs/open-falcon/control-plane.md §4 "Graph data": rows outside the range are dropped, rates below 0 are
//! null.

use super::Context;
use super::error::{self, Answer, ApiError, unchanged};
use super::graph::{self, ANSWERS, Names};
use super::pieces::Pieces;
use crate::plus_graph::index::{CounterRow, EndpointRow, Index, Page};
use crate::plus_graph::{History, PlusGraphs};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use net::turns::Holder;
use regex::Regex;
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wire::gob::GraphQuery;

/// Calls of one answer that are under way at a time: two for each connection to a graph.
const AHEAD: usize = 32;
/// Rows that an old graph answers at most for one series: 766 of its widest archive, and 720 of its cache.
const ROWS_MAX: i64 = 1_500;
/// The least seconds between two points that an old transfer lets through, for an estimate of an answer's size.
const STEP_MIN: i64 = 30;

/// A question for rows.
#[derive(Clone, Copy)]
pub struct Asked {
    pub from: i64,
    pub to: i64,
    pub consol_fun: &'static str,
    /// Whether an unknown series is in the answer, without values.
    pub shows_unknown: bool,
}

/// What an answer is refused with that an old graph cannot give.
pub(super) fn refused(what: &str) -> ApiError {
    ApiError::bad(format!("{what}: the points are in old graphs (graph.cluster), which keep rows and not points"))
}

fn unanswered(why: String) -> ApiError {
    ApiError::refused(why)
}

pub(super) fn index(graphs: &PlusGraphs) -> Result<&Index, ApiError> {
    let missing = "series of old graphs are searched in their MySQL: set graph.index_url";
    graphs.index().ok_or_else(|| ApiError::refused(missing))
}

/// Endpoints that all patterns match, of which some counter has all terms.
pub(super) async fn endpoints(
    graphs: &PlusGraphs,
    patterns: Vec<Regex>,
    tags: &str,
    (offset, limit): (usize, usize),
) -> Result<Vec<EndpointRow>, ApiError> {
    let (index, page) = (index(graphs)?, Page { offset, limit });
    let terms: Vec<String> =
        tags.split(',').map(str::trim).filter(|term| !term.is_empty()).map(str::to_string).collect();
    let takes = |name: &str| patterns.iter().all(|pattern| pattern.is_match(name));
    let rows = index.endpoints(&takes, &terms, page).await.map_err(unanswered)?;
    if rows.is_empty() && !patterns.is_empty() && !terms.is_empty() {
        // Tags that match nothing are ignored when there is a q, as in the original.
        return index.endpoints(&takes, &[], page).await.map_err(unanswered);
    }
    Ok(rows)
}

/// The endpoints of these names, in the order of the names.
pub(super) async fn named(graphs: &PlusGraphs, names: Vec<String>) -> Result<Vec<EndpointRow>, ApiError> {
    index(graphs)?.named(&names).await.map_err(unanswered)
}

/// Counters of endpoints that match all patterns, and none of the negated ones.
pub(super) async fn counters(
    graphs: &PlusGraphs,
    ids: &[u64],
    patterns: &[(bool, Regex)],
    (offset, limit): (usize, usize),
) -> Result<Vec<CounterRow>, ApiError> {
    let takes = |counter: &str| patterns.iter().all(|(negated, pattern)| pattern.is_match(counter) != *negated);
    index(graphs)?.counters(ids, &takes, Page { offset, limit }).await.map_err(unanswered)
}

/// The counters of each of these hosts that an expression finds, at most `limit` in all.
pub(super) async fn counters_of(
    graphs: &PlusGraphs,
    hosts: Vec<String>,
    pattern: &Regex,
    limit: usize,
) -> Result<Vec<(String, String)>, ApiError> {
    let known = named(graphs, hosts).await?;
    let names: HashMap<u64, String> = known.into_iter().map(|row| (row.id, row.endpoint)).collect();
    let ids: Vec<u64> = names.keys().copied().collect();
    let rows = counters(graphs, &ids, &[(false, pattern.clone())], (0, limit)).await?;
    Ok(rows.into_iter().filter_map(|row| Some((names.get(&row.endpoint_id)?.clone(), row.counter))).collect())
}

/// Answers the histories of these series.
pub(super) async fn answer_history(
    context: &Context,
    graphs: &PlusGraphs,
    user: Holder,
    names: Names,
    asked: Asked,
) -> Result<Response, ApiError> {
    let rows = ((asked.to - asked.from) / STEP_MIN + 2).clamp(0, ROWS_MAX) as u64;
    let (points, points_max) = (rows.saturating_mul(names.len() as u64), context.config.graph.query_points_max as u64);
    if points > points_max {
        return Err(graph::too_many_points(points, points_max));
    }
    let begun = ANSWERS.take(&user, 1).await;
    let (pieces, body) = Pieces::new();
    let (head, told) = oneshot::channel();
    let graphs = graphs.clone();
    tokio::spawn(async move {
        send(graphs, names, asked, pieces, head).await;
        drop(begun);
    });
    // Told with the first piece, or by nobody where writing it panicked.
    let incomplete = told.await.unwrap_or_default();
    let response = ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], body).into_response();
    Ok(graph::with_incomplete(response, incomplete))
}

/// Calls under way, whose answers are taken in the order in which they were made; those left are given up.
struct Under<T>(VecDeque<JoinHandle<T>>);

impl<T> Drop for Under<T> {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl<T: Send + 'static> Under<T> {
    async fn next(&mut self) -> Option<Result<T, String>> {
        let answer = self.0.front_mut()?.await.map_err(|error| format!("a call was broken off: {error}"));
        self.0.pop_front();
        Some(answer)
    }
}

/// Writes the answer, series by series.
async fn send(
    graphs: PlusGraphs,
    names: Names,
    asked: Asked,
    mut pieces: Pieces,
    head: oneshot::Sender<Option<String>>,
) {
    let (mut under, mut next, mut writing) = (Under(VecDeque::new()), 0, Writing::default());
    let mut head = Some(head);
    for pair in 0..names.len() {
        while next < names.len() && under.0.len() < AHEAD {
            let (endpoint, counter) = names.at(next);
            under.0.push_back(tokio::spawn(ask(graphs.clone(), endpoint.to_string(), counter.to_string(), asked)));
            next += 1;
        }
        let Some(answer) = under.next().await else { break };
        writing.series(names.at(pair), answer.and_then(|answer| answer), asked, &mut pieces.text);
        if pieces.is_due() {
            tell(&mut head, &writing);
            if !pieces.has_room().await {
                return;
            }
        }
    }
    pieces.text.push_str(if writing.has_begun { "]" } else { "[]" });
    tell(&mut head, &writing);
    pieces.finish().await;
}

fn tell(head: &mut Option<oneshot::Sender<Option<String>>>, writing: &Writing) {
    if let Some(head) = head.take() {
        // Nobody is there when the request was given up.
        let _ = head.send(writing.incomplete.clone());
    }
}

async fn ask(graphs: PlusGraphs, endpoint: String, counter: String, asked: Asked) -> Result<History, String> {
    let Asked { from: start, to: end, consol_fun, .. } = asked;
    let (endpoint, counter) = (endpoint.into(), counter.into());
    graphs.query(&GraphQuery { start, end, consol_fun: consol_fun.into(), endpoint, counter, step: 0 }).await
}

/// A list of series while it is written.
#[derive(Default)]
struct Writing {
    has_begun: bool,
    /// What was missing first.
    incomplete: Option<String>,
}

impl Writing {
    fn series(
        &mut self,
        (endpoint, counter): (&str, &str),
        answer: Result<History, String>,
        asked: Asked,
        out: &mut String,
    ) {
        let is_unknown = answer.as_ref().is_ok_and(|history| history.ds_type.is_empty() && history.values.is_empty());
        if is_unknown && !asked.shows_unknown {
            return;
        }
        let (History { ds_type, step, values }, why) = match answer {
            Ok(history) => (history, None),
            Err(why) => (History::default(), Some(why)),
        };
        let head = json!({ "endpoint": endpoint, "counter": counter, "dstype": ds_type, "step": step }).to_string();
        out.push(if std::mem::replace(&mut self.has_begun, true) { ',' } else { '[' });
        out.push_str(head.trim_end_matches('}'));
        out.push_str(",\"Values\":[");
        let is_rate = ds_type != "GAUGE";
        let within = values.iter().filter(|(time, _)| (asked.from..=asked.to).contains(time));
        for (i, (time, value)) in within.enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(out, "{comma}{{\"timestamp\":{time},\"value\":").expect("String");
            graph::push_value(Some(*value).filter(|value| !is_rate || *value >= 0.0), out);
            out.push('}');
        }
        out.push(']');
        if let Some(why) = why {
            write!(out, ",\"incomplete\":{}", Value::from(why.as_str())).expect("String");
            self.incomplete.get_or_insert(why);
        }
        out.push('}');
    }
}

/// Answers the newest points of series; those of a graph that is away are left out.
pub(super) async fn last_points(graphs: &PlusGraphs, pairs: Vec<(String, String)>) -> Response {
    let (mut under, mut waiting) = (Under(VecDeque::new()), pairs.iter().cloned());
    let (mut text, mut incomplete) = (String::from("["), None);
    for (endpoint, counter) in &pairs {
        while under.0.len() < AHEAD {
            let Some((endpoint, counter)) = waiting.next() else { break };
            let graphs = graphs.clone();
            under.0.push_back(tokio::spawn(async move { graphs.last(&endpoint, &counter).await }));
        }
        let Some(answer) = under.next().await else { break };
        match answer.and_then(|answer| answer) {
            Ok((time, value)) => {
                let comma = if text.len() > 1 { "," } else { "" };
                graph::push_last(comma, endpoint, counter, time, value, &mut text);
            }
            Err(why) => _ = incomplete.get_or_insert(why),
        }
    }
    text.push(']');
    let response = ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], text).into_response();
    graph::with_incomplete(response, incomplete)
}

/// Deletes endpoints: their series in the graphs, then what the index has of them.
pub(super) async fn delete_endpoints(graphs: &PlusGraphs, names: Vec<String>) -> Answer {
    let index = index(graphs)?;
    let known = named(graphs, names).await?;
    let names: HashMap<u64, &str> = known.iter().map(|row| (row.id, row.endpoint.as_str())).collect();
    let ids: Vec<u64> = names.keys().copied().collect();
    let rows = counters(graphs, &ids, &[], (0, usize::MAX)).await?;
    let series = rows.into_iter().filter_map(|row| {
        let endpoint = (*names.get(&row.endpoint_id)?).to_string();
        Some(crate::plus_graph::Series { endpoint, counter: row.counter, ds_type: row.ds_type, step: row.step })
    });
    graphs.delete(&series.collect::<Vec<_>>()).await.map_err(unanswered)?;
    let (endpoints, counters) = index.remove_endpoints(&ids).await.map_err(unanswered)?;
    let answer = error::json(json!({ "affected_endpoint": endpoints, "affected_counter": counters }));
    if endpoints == 0 { unchanged(answer) } else { answer }
}

/// Deletes these series in the graphs, and in the index where there is one.
pub(super) async fn delete_counters(graphs: &PlusGraphs, endpoints: Vec<String>, counters: Vec<String>) -> Answer {
    let mut series = Vec::new();
    for endpoint in &endpoints {
        for counter in &counters {
            series.extend(graphs.info(endpoint, counter).await.map_err(unanswered)?);
        }
    }
    graphs.delete(&series).await.map_err(unanswered)?;
    if let Some(index) = graphs.index() {
        for row in index.named(&endpoints).await.map_err(unanswered)? {
            for counter in &counters {
                index.remove_counter(row.id, counter).await.map_err(unanswered)?;
            }
        }
    }
    let answer = error::json(json!({ "affected_counter": series.len() }));
    if series.is_empty() { unchanged(answer) } else { answer }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_written_as_the_originals_api_writes_them() {
        let asked = |shows_unknown| Asked { from: 60, to: 180, consol_fun: "AVERAGE", shows_unknown };
        let text = |answers: Vec<Result<History, String>>, shows_unknown| {
            let (mut writing, mut out) = (Writing::default(), String::new());
            for answer in answers {
                writing.series(("h", "c\"/a=b"), answer, asked(shows_unknown), &mut out);
            }
            (out, writing.incomplete)
        };
        let values = vec![(0, 1.0), (60, -1.0), (120, f64::NAN), (180, 2.5), (240, 3.0)];
        let history = |ds_type: &str| History { ds_type: ds_type.to_string(), step: 60, values: values.clone() };
        let rows = |first: &str| {
            format!(
                "{{\"timestamp\":60,\"value\":{first}}},{{\"timestamp\":120,\"value\":null}},{{\"timestamp\":180,\"value\":2.500000}}"
            )
        };
        let entry = |ds_type: &str, step: i64, rows: &str| {
            format!(
                "{{\"counter\":\"c\\\"/a=b\",\"dstype\":\"{ds_type}\",\"endpoint\":\"h\",\"step\":{step},\"Values\":[{rows}]"
            )
        };
        let (gauge, rate) = (entry("GAUGE", 60, &rows("-1.000000")), entry("DERIVE", 60, &rows("null")));
        let both = vec![Ok(history("GAUGE")), Ok(history("DERIVE"))];
        assert_eq!(text(both, false), (format!("[{gauge}}},{rate}}}"), None));
        let unknown = || vec![Ok(History::default())];
        assert_eq!(text(unknown(), false), (String::new(), None));
        assert_eq!(text(unknown(), true).0, format!("[{}}}", entry("", 0, "")));
        let (out, incomplete) = text(vec![Err("a: away".to_string())], false);
        assert_eq!(out, format!("[{},\"incomplete\":\"a: away\"}}", entry("", 0, "")));
        assert_eq!(incomplete.as_deref(), Some("a: away"));
    }
}
