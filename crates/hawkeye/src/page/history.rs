//! `GET /ui/history?endpoint=&counter=&counter=…&start=&end=`: rows of series of one host, averaged; of a COUNTER,
//! rates.

use super::Sources;
use super::counters::find_counters;
use super::error::{PageError, bad, broken};
use super::old_graph;
use crate::clock;
use axum::extract::State;
use axum::{Extension, Json};
use net::turns::Holder;
use serde::Serialize;
use store::{Cf, Found, Grid, Query, Store};

/// Counters that one request may name; the largest chart of the page names 7.
const COUNTERS_MAX: usize = 32;
/// Series that one counter ending in `/*` stands for: more lines than that are no chart.
pub const WILDCARD_SERIES_MAX: usize = 32;
/// Points in one answer, about 2.5 MB of JSON. A series has at most about 800 rows in any range, as older ranges have
/// wider rows, so this is 64 series at least.
pub const POINTS_MAX: usize = 65_536;
/// The longest range of one request: a year and a day.
const RANGE_MAX_S: i64 = 366 * 86_400;
/// Range when the request names none: what the page shows first.
const RANGE_DEFAULT_S: i64 = 3600;

#[derive(Debug, PartialEq)]
pub struct HistoryQuery {
    pub endpoint: String,
    /// Each a counter text, or `metric/*` for all tag sets of a metric.
    pub counters: Vec<String>,
    pub start: i64,
    pub end: i64,
}

/// Rows of one series.
#[derive(Serialize)]
pub struct SeriesRows {
    pub counter: String,
    /// Seconds from row to row.
    pub step: u32,
    /// Ascending; null where nothing is known.
    pub values: Vec<(i64, Option<f64>)>,
    /// Name of a damaged file, whose points are missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
}

/// A series that does not exist is left out of the answer.
pub async fn history(
    State(sources): State<Sources>,
    Extension(viewer): Extension<Holder>,
    axum::extract::Query(query): axum::extract::Query<Vec<(String, String)>>,
) -> Result<Json<Vec<SeriesRows>>, PageError> {
    let query = HistoryQuery::parse(query, clock::now()).map_err(bad)?;
    if let Some(graphs) = &sources.graphs {
        let _turn = sources.reads.take(&viewer, 1).await;
        return Ok(Json(old_graph::history(graphs, query).await?));
    }
    Ok(Json(sources.read(&viewer, move |engine| read_history(engine.store(), &query)).await?))
}

impl HistoryQuery {
    fn parse(pairs: Vec<(String, String)>, now: i64) -> Result<HistoryQuery, String> {
        let (mut endpoint, mut counters, mut start, mut end) = (None, Vec::new(), None, None);
        for (key, value) in pairs {
            match key.as_str() {
                "endpoint" => endpoint = Some(value),
                "counter" => counters.push(value),
                "start" => start = Some(parse_time("start", &value)?),
                "end" => end = Some(parse_time("end", &value)?),
                _ => return Err(format!("unknown parameter {key}; want endpoint, counter, start, end")),
            }
        }
        let endpoint = endpoint.filter(|text| !text.is_empty()).ok_or("endpoint is missing: name the host")?;
        if counters.is_empty() || counters.len() > COUNTERS_MAX {
            return Err(format!("got {} counters; want 1 to {COUNTERS_MAX}", counters.len()));
        }
        let end = end.unwrap_or(now);
        let start = start.unwrap_or(end - RANGE_DEFAULT_S);
        if !(1..=RANGE_MAX_S).contains(&(end - start)) {
            return Err(format!("end - start is {} s; want 1 to {RANGE_MAX_S}", end - start));
        }
        Ok(HistoryQuery { endpoint, counters, start, end })
    }
}

/// The bound is the year 2286; it keeps sums of times far from overflow.
fn parse_time(field: &str, text: &str) -> Result<i64, String> {
    let time = text.parse().ok().filter(|time| (0..10_000_000_000).contains(time));
    time.ok_or_else(|| format!("{field} is {text:?}; want Unix seconds"))
}

fn read_history(store: &Store, query: &HistoryQuery) -> Result<Vec<SeriesRows>, PageError> {
    let known = find_series(store, query).map_err(broken)?;
    let series: Vec<Found> = known.iter().map(|(_, found)| *found).collect();
    let range = Query { from: query.start, to: query.end, cf: Cf::Average, now: clock::now() };
    let (mut answer, mut points, mut unreadable) = (Vec::new(), 0, None);
    let each = |i: usize, grid: Result<Grid, store::Error>| match grid {
        Ok(Grid { step, values, incomplete }) => {
            points += values.len();
            answer.push(SeriesRows { counter: known[i].0.clone(), step, values, incomplete });
            points <= POINTS_MAX
        }
        // Removed since it was looked up.
        Err(store::Error::UnknownSeries(_)) => true,
        Err(error) => {
            unreadable = Some(error);
            false
        }
    };
    store.query_many(&series, &range, each).map_err(broken)?;
    if let Some(error) = unreadable {
        return Err(broken(error));
    }
    if points > POINTS_MAX {
        return Err(bad(format!("more than {POINTS_MAX} points: ask for fewer counters or a shorter range")));
    }
    Ok(answer)
}

/// The series that the query names, with their counters' texts.
fn find_series(store: &Store, query: &HistoryQuery) -> Result<Vec<(String, Found)>, store::Error> {
    let mut known = Vec::new();
    for counter in query.counters.iter().flat_map(|counter| expand(store, &query.endpoint, counter)) {
        if let Some(found) = store.find(&query.endpoint, &counter)? {
            known.push((counter, found));
        }
    }
    Ok(known)
}

/// `metric/*` becomes the metric's counters, at most [`WILDCARD_SERIES_MAX`]; any other text stays as it is.
fn expand(store: &Store, host: &str, counter: &str) -> Vec<String> {
    let Some(prefix) = counter.strip_suffix('*').filter(|prefix| prefix.ends_with('/')) else {
        return vec![counter.to_string()];
    };
    let mut counters = find_counters(store, host, |text| text.starts_with(prefix));
    counters.truncate(WILDCARD_SERIES_MAX);
    counters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_without_times_is_the_last_hour() {
        let pairs = vec![("endpoint".to_string(), "h".to_string()), ("counter".to_string(), "c".to_string())];
        let query = HistoryQuery::parse(pairs, 10_000).expect("valid");
        assert_eq!((query.start, query.end), (6_400, 10_000));
    }
}
