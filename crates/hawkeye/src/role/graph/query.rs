//! `Graph.Query` and `Graph.Info`: the store's answers in the original's shape.
//!
//! Compat: docs/open-falcon/graph.md §7 and §10. The range is widened to whole steps; within 720 steps of now the rows
//! are one step apart, from the start's step on, NaN where nothing is known, and for a GAUGE one row goes past the end;
//! further back they are the store's coarser rows. A range inside one step has no rows. A `cf` that is none is ignored
//! where rows hold one point, and has no rows elsewhere.
//! Different on purpose: what is known is in the answer, also unflushed; no row is read past the end of a buffer; rates
//! are at the later of two points; LAST exists. See docs/compat.md.

use model::point::align;
use model::{SeriesKey, Tags};
use store::{Cf, Query, Store};
use wire::gob::GraphQuery;

/// Rows of one answer: five weeks at 60 s. The original's files have 8448 in all; an answer is built whole, as gob
/// wants its length first, and takes some 50 bytes a row on the way.
pub const ROWS_MAX: usize = 50_000;

/// Steps back from now up to which rows are one step apart.
const FINEST_STEPS: i64 = 720;

/// Question of a `Graph.Query`, in values of its own.
pub struct Asked {
    pub start: i64,
    pub end: i64,
    pub cf: String,
    pub endpoint: String,
    pub counter: String,
}

impl Asked {
    /// Copies the question out of a message.
    pub fn of(query: &GraphQuery<'_>) -> Asked {
        Asked {
            start: query.start,
            end: query.end,
            cf: query.consol_fun.to_string(),
            endpoint: query.endpoint.to_string(),
            counter: query.counter.to_string(),
        }
    }
}

/// Rows of a `Graph.Query`; empty for a series that is not known.
#[derive(Debug, Default, PartialEq)]
pub struct GraphRows {
    pub ds_type: &'static str,
    pub step: i64,
    /// Time (Unix seconds) and value of each row; NaN where nothing is known.
    pub values: Vec<(i64, f64)>,
}

/// Answer to a `Graph.Info`; empty for a series that is not known.
#[derive(Debug, Default, PartialEq)]
pub struct Info {
    pub ds_type: &'static str,
    pub step: i64,
    /// Name that the original would give its file: scripts read the key out of it.
    pub filename: String,
}

/// Answers a question from the store. The error is a text for the caller.
pub fn answer(store: &Store, asked: &Asked, now: i64) -> Result<GraphRows, String> {
    let found = store.find(&asked.endpoint, &asked.counter).map_err(|error| error.to_string())?;
    let Some(found) = found else { return Ok(GraphRows::default()) };
    let (ds_type, step) = (found.counter_type.ds_type(), found.step);
    let mut answer = GraphRows { ds_type, step: i64::from(step), values: Vec::new() };
    let clamped = |time: i64| align(time.clamp(0, i64::from(u32::MAX)), step);
    let (start, end) = (clamped(asked.start), clamped(asked.end));
    let finest = start >= align(now, step) - FINEST_STEPS * i64::from(step);
    let cf = Cf::parse(&asked.cf).or(finest.then_some(Cf::Average));
    let Some(cf) = cf.filter(|_| end > start) else { return Ok(answer) };
    let past_end = if finest && found.counter_type.is_gauge() { i64::from(step) } else { 0 };
    let query = Query { from: start, to: end + past_end, cf, now };
    let rows = query.rows(found);
    if rows > ROWS_MAX {
        return Err(format!("the answer would have {rows} rows, more than {ROWS_MAX}: ask for a shorter time"));
    }
    let grid = store.query(found, &query).map_err(|error| error.to_string())?;
    answer.values.extend(grid.values.iter().map(|(time, value)| (*time, value.unwrap_or(f64::NAN))));
    Ok(answer)
}

/// Answers a `Graph.Info`. The error is a text for the caller.
pub fn info(store: &Store, endpoint: &str, counter: &str) -> Result<Info, String> {
    let found = store.find(endpoint, counter).map_err(|error| error.to_string())?;
    let Some(found) = found else { return Ok(Info::default()) };
    let (ds_type, step) = (found.counter_type.ds_type(), found.step);
    let (metric, tags) = model::series::split_counter(counter);
    let mut scratch = String::new();
    let md5 = SeriesKey { endpoint, metric, tags: Tags::canonical(tags, &mut scratch) }.md5_hex();
    Ok(Info { ds_type, step: i64::from(step), filename: format!("{}/{md5}_{ds_type}_{step}.rrd", &md5[..2]) })
}
