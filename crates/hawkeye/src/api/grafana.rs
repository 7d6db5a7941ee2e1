//! Grafana: the routes of Open-Falcon's plugin for Grafana, which finds series segment by segment and draws them.
//!
//! How: a text like `{h1,h2}#cpu#idle` names hosts, and then the counter in the segments that its dots make, each a
//! regular expression. As the plugin sends every dot as `#`, a dot in a host is written `~`. Behind the hosts a last
//! segment `$` ends the counter there, and `%` stands for everything.
//! Invariants: who asks here may be anybody, so little is done at a time: [`LOOKUPS`] questions are looked up at once,
//! shared out by address; a question names at most [`HOSTS_MAX`] hosts, finds [`SERIES_MAX`] series, and its regular
//! expressions are small. A bad one finds nothing. Pages of other sites, which a browser in the site would fetch for
//! anybody, need a login.
//! Compat: docs/open-falcon/control-plane.md §4 and dashboard.md §4. The plugin sends no token, so anybody may ask,
//! unless `api.grafana` says otherwise. `#$` ends counters with dots too, which the original does not find.

use super::Context;
use super::auth::Caller;
use super::body::{Fields, SmallBodies};
use super::error::{Answer, ApiError, json};
use super::graph::{self, Asked, Names};
use super::old_graph;
use crate::config::Grafana;
use crate::engine::Engine;
use crate::plus_graph::PlusGraphs;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use net::http::{Guard, Peer};
use net::turns::{Holder, Turns};
use regex::{Regex, RegexBuilder};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::LazyLock;
use store::{Cf, CounterQuery, EndpointQuery};

/// Items of a list at most; the original's default.
const ITEMS_MAX: i64 = 1000;
/// Targets of one question; a panel of Grafana has some.
const TARGETS_MAX: usize = 100;
/// Hosts that all texts of a question may name between `{` and `}`.
const HOSTS_MAX: usize = 1000;
/// Series that a question may find; a panel of Grafana draws some tens.
const SERIES_MAX: usize = 2000;
/// Bytes that a compiled regular expression may take: names with some alternatives need a few thousand.
const REGEX_BYTES_MAX: usize = 64 << 10;
/// Questions that are looked up at the same time: each holds a thread.
const LOOKUPS_AT_ONCE: usize = 4;
static LOOKUPS: LazyLock<Turns> = LazyLock::new(|| Turns::new(LOOKUPS_AT_ONCE));
/// Characters of a text that names hosts and a counter.
const TEXT_MAX: usize = 50_000;
/// Counters that are looked at for segments; those beyond have the same ones, or are too many to choose from.
const COUNTERS_MAX: usize = 10_000;
/// Ends a counter.
const END: &str = "$";
/// Everything.
const ALL: &str = "%";

/// Routes of the plugin.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/grafana", get(find))
        .route("/grafana/metrics/find", get(find))
        .route("/grafana/render", get(render).post(render).layer(Extension(SmallBodies)))
}

/// Whoever may ask, as the holder of what an answer takes.
struct Reader(Holder);

impl FromRequestParts<Context> for Reader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Reader, ApiError> {
        if context.config.api.grafana == Grafana::Login || Guard::is_foreign(&parts.headers) {
            return Ok(Reader(Holder::user(&Caller::from_request_parts(parts, context).await?.name)));
        }
        Ok(Reader(parts.extensions.get::<Peer>().cloned().unwrap_or_default().holder))
    }
}

/// A segment of a name.
#[derive(Debug, PartialEq, Serialize)]
struct Item {
    text: String,
    /// Whether more segments follow.
    expandable: bool,
}

async fn find(State(context): State<Context>, Reader(holder): Reader, fields: Fields) -> Answer {
    let text = fields.text("query", TEXT_MAX)?;
    let limit = match fields.int("limit")? {
        0 => ITEMS_MAX,
        limit @ 1.. => limit.min(ITEMS_MAX),
        _ => return Err(ApiError::bad("limit must be a number from 1 on")),
    } as usize;
    let turn = LOOKUPS.take(&holder, 1).await;
    if let Some(graphs) = &context.graphs {
        let found = match text.split_once('#') {
            None => find_old_hosts(graphs, &text.replace('~', "."), limit).await?,
            Some((hosts, counter)) => find_old_segments(graphs, hosts_of(hosts)?, &segments_of(counter), limit).await?,
        };
        drop(turn);
        return json(found);
    }
    let found = graph::blocking(&context, move |engine| {
        let _turn = turn;
        match text.split_once('#') {
            None => find_hosts(engine, &text.replace('~', "."), limit).map_err(graph::unreadable),
            Some((hosts, counter)) => find_segments(engine, hosts_of(hosts)?, &segments_of(counter), limit),
        }
    });
    json(found.await??)
}

fn find_hosts(engine: &Engine, text: &str, limit: usize) -> Result<Vec<Item>, store::Error> {
    let Some(pattern) = regex(if text.is_empty() { ".+" } else { text }) else { return Ok(Vec::new()) };
    let query = EndpointQuery { patterns: &[pattern], tag_terms: &[], offset: 0, limit };
    let item = |(_, host): (u32, String)| Item { text: host.replace('.', "~"), expandable: true };
    Ok(engine.store().endpoints(&query)?.into_iter().map(item).collect())
}

fn find_segments(
    engine: &Engine,
    hosts: BTreeSet<String>,
    segments: &[&str],
    limit: usize,
) -> Result<Vec<Item>, ApiError> {
    let Some(pattern) = pattern_of(segments) else { return Ok(Vec::new()) };
    let hosts: Vec<String> = hosts.into_iter().collect();
    let found = counters_of(engine, &hosts, &pattern, COUNTERS_MAX).map_err(graph::unreadable)?;
    Ok(items(found.values().flatten().map(String::as_str), segments.len() - 1, limit))
}

async fn find_old_hosts(graphs: &PlusGraphs, text: &str, limit: usize) -> Result<Vec<Item>, ApiError> {
    let Some(pattern) = regex(if text.is_empty() { ".+" } else { text }) else { return Ok(Vec::new()) };
    let rows = old_graph::endpoints(graphs, vec![pattern], "", (0, limit)).await?;
    Ok(rows.into_iter().map(|row| Item { text: row.endpoint.replace('.', "~"), expandable: true }).collect())
}

async fn find_old_segments(
    graphs: &PlusGraphs,
    hosts: BTreeSet<String>,
    segments: &[&str],
    limit: usize,
) -> Result<Vec<Item>, ApiError> {
    let Some(pattern) = pattern_of(segments) else { return Ok(Vec::new()) };
    let found = old_graph::counters_of(graphs, hosts.into_iter().collect(), &pattern, COUNTERS_MAX).await?;
    Ok(items(found.iter().map(|(_, counter)| counter.as_str()), segments.len() - 1, limit))
}

fn regex(text: &str) -> Option<Regex> {
    RegexBuilder::new(text).case_insensitive(true).size_limit(REGEX_BYTES_MAX).build().ok()
}

/// The different segments that counters have at a depth, and the marks that may stand there.
fn items<'a>(counters: impl Iterator<Item = &'a str>, depth: usize, limit: usize) -> Vec<Item> {
    let mut texts: BTreeMap<&str, bool> = BTreeMap::new();
    for counter in counters {
        let mut segments = counter.split('.').skip(depth);
        if let Some(text) = segments.next() {
            *texts.entry(text).or_default() |= segments.next().is_some();
        }
    }
    let has_ends = texts.values().any(|expandable| !expandable);
    let is_empty = texts.is_empty();
    let item = |(text, expandable): (&str, bool)| Item { text: text.to_string(), expandable };
    let mut items: Vec<Item> = texts.into_iter().take(limit).map(item).collect();
    items.extend([END].into_iter().filter(|_| has_ends).map(|mark| item((mark, false))));
    items.extend([ALL].into_iter().filter(|_| !is_empty).map(|mark| item((mark, false))));
    items
}

/// The hosts of `h1` or `{h1,h2}`.
fn hosts_of(text: &str) -> Result<BTreeSet<String>, ApiError> {
    let inside = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
    let hosts: BTreeSet<String> =
        inside.split(',').map(|host| host.trim().replace('~', ".")).filter(|host| !host.is_empty()).collect();
    check_hosts(hosts.len())?;
    Ok(hosts)
}

fn check_hosts(count: usize) -> Result<(), ApiError> {
    if count > HOSTS_MAX {
        return Err(ApiError::bad(format!("{count} hosts in one question: name at most {HOSTS_MAX}")));
    }
    Ok(())
}

fn segments_of(counter: &str) -> Vec<&str> {
    counter.split('#').collect()
}

/// The expression that the counters of some segments match; none for one that is no regular expression.
fn pattern_of(segments: &[&str]) -> Option<Regex> {
    match segments {
        [parts @ .., END] if !parts.is_empty() => regex(&format!("^{}$", parts.join("\\."))),
        [parts @ .., ALL] => regex(&[parts, &[".+"]].concat().join("\\.")),
        parts => regex(&parts.join("\\.")),
    }
}

/// The counters of each of these hosts that an expression finds, at most `limit` in all.
fn counters_of(
    engine: &Engine,
    hosts: &[String],
    pattern: &Regex,
    limit: usize,
) -> Result<BTreeMap<String, Vec<String>>, store::Error> {
    let store = engine.store();
    let names: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let ids = store.endpoint_ids(&names)?;
    let known: HashMap<u32, &String> = ids.iter().zip(hosts).filter_map(|(id, host)| Some(((*id)?, host))).collect();
    let endpoint_ids: Vec<u32> = ids.into_iter().flatten().collect();
    let patterns = [(false, pattern.clone())];
    let query = CounterQuery { endpoint_ids: &endpoint_ids, patterns: &patterns, offset: 0, limit };
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in store.counters(&query)? {
        if let Some(host) = known.get(&row.endpoint_id) {
            found.entry((*host).clone()).or_default().push(row.counter);
        }
    }
    Ok(found)
}

/// A target of a question: hosts, and which of their counters.
struct Target {
    hosts: Vec<String>,
    pattern: Regex,
}

async fn render(State(context): State<Context>, Reader(holder): Reader, fields: Fields) -> Result<Response, ApiError> {
    let texts = fields.texts("target", TEXT_MAX)?.unwrap_or_default();
    if texts.is_empty() {
        return Err(ApiError::bad("target is required: a text like web-01#cpu#idle"));
    }
    if texts.len() > TARGETS_MAX {
        return Err(ApiError::bad(format!("{} targets: ask for at most {TARGETS_MAX}", texts.len())));
    }
    let name = fields.text("consolFun", 20)?;
    let name = if name.is_empty() { "AVERAGE" } else { &name };
    let cf = Cf::parse(name)
        .ok_or_else(|| ApiError::bad(format!("consolFun is {name:?}: give AVERAGE, MAX, MIN or LAST")))?;
    let query = graph::query(fields.required_int("from")?, fields.required_int("until")?, cf);
    let turn = LOOKUPS.take(&holder, 1).await;
    if let Some(graphs) = &context.graphs {
        let pairs = look_up_old(graphs, targets_of(&texts)?).await?;
        drop(turn);
        let (names, asked) = (Names::Pairs(pairs), graph::asked_of_graphs(&query));
        return old_graph::answer_history(&context, graphs, holder, names, asked).await;
    }
    let look_up = move |engine: &Engine| {
        let _turn = turn;
        look_up(engine, targets_of(&texts)?)
    };
    graph::answer_history(&context, holder, query, look_up).await
}

fn targets_of(texts: &[String]) -> Result<Vec<Target>, ApiError> {
    let (mut targets, mut count) = (Vec::new(), 0);
    for text in texts {
        let (hosts, counter) = text.split_once('#').unwrap_or((text, ALL));
        let hosts = hosts_of(hosts)?;
        count += hosts.len();
        check_hosts(count)?;
        let hosts = hosts.into_iter().collect();
        targets.extend(pattern_of(&segments_of(counter)).map(|pattern| Target { hosts, pattern }));
    }
    Ok(targets)
}

/// The series of all targets, each once.
fn look_up(engine: &Engine, targets: Vec<Target>) -> Result<Asked, ApiError> {
    let mut pairs: BTreeSet<(String, String)> = BTreeSet::new();
    for Target { hosts, pattern } in targets {
        for (host, counters) in counters_of(engine, &hosts, &pattern, SERIES_MAX + 1).map_err(graph::unreadable)? {
            pairs.extend(counters.into_iter().map(|counter| (host.clone(), counter)));
        }
        check_series(pairs.len())?;
    }
    let pairs: Vec<(String, String)> = pairs.into_iter().collect();
    let found = pairs.iter().map(|(host, counter)| graph::find(engine.store(), host, counter)).collect();
    Ok(Asked { names: Names::Pairs(pairs), found, is_raw: false, shows_unknown: false })
}

/// Names of the series of all targets, each once, as the index of old graphs has them.
async fn look_up_old(graphs: &PlusGraphs, targets: Vec<Target>) -> Result<Vec<(String, String)>, ApiError> {
    let mut pairs = BTreeSet::new();
    for Target { hosts, pattern } in targets {
        pairs.extend(old_graph::counters_of(graphs, hosts, &pattern, SERIES_MAX + 1).await?);
        check_series(pairs.len())?;
    }
    Ok(pairs.into_iter().collect())
}

fn check_series(count: usize) -> Result<(), ApiError> {
    if count > SERIES_MAX {
        return Err(ApiError::bad(format!("more than {SERIES_MAX} series: ask for fewer")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_segments_are_read() {
        let hosts = |text: &str| hosts_of(text).expect("hosts").into_iter().collect::<Vec<_>>();
        assert_eq!(hosts("web-01"), ["web-01"]);
        assert_eq!(hosts("{web-02, db~sh-01,}"), ["db.sh-01", "web-02"]);
        assert_eq!(hosts("{}"), [""; 0]);
        let many = (0..=HOSTS_MAX).map(|host| host.to_string()).collect::<Vec<_>>().join(",");
        assert!(hosts_of(&many).is_err_and(|error| error.text().contains("1001 hosts")));
        let check = |counter: &str, finds: &[&str], misses: &[&str]| {
            let pattern = pattern_of(&segments_of(counter)).expect("a regular expression");
            finds.iter().for_each(|counter| assert!(pattern.is_match(counter), "{pattern}: {counter}"));
            misses.iter().for_each(|counter| assert!(!pattern.is_match(counter), "{pattern}: {counter}"));
        };
        check("cpu#idle", &["cpu.idle", "cpu.idle.max", "CPU.idle"], &["cpu.busy", "cpuxidle"]);
        check("cpu#idle#$", &["cpu.idle"], &["cpu.idle.max", "my.cpu.idle"]);
        check("cpu#%", &["cpu.idle", "cpu.busy"], &["load.1min"]);
        check("%", &["cpu.idle"], &[]);
        check("$", &["cpu.idle"], &[]);
        assert!(pattern_of(&["("]).is_none());
        assert!(pattern_of(&["\\w{500}"]).is_none(), "too large");
        let many = |count: usize| targets_of(&vec!["{a,b,c,d,e,f,g,h,i,j}#cpu".to_string(); count]).is_ok();
        assert!(many(100) && !many(101));
    }

    #[test]
    fn items_are_the_segments_at_a_depth() {
        let counters = ["cpu.idle", "cpu.busy", "cpu.core.max", "load.1min", "qps"];
        let texts = |depth: usize, prefix: &str, limit: usize| -> Vec<String> {
            let counters = counters.iter().copied().filter(|counter| counter.starts_with(prefix));
            let mark = |item: Item| if item.expandable { format!("{}+", item.text) } else { item.text };
            items(counters, depth, limit).into_iter().map(mark).collect()
        };
        assert_eq!(texts(0, "", 9), ["cpu+", "load+", "qps", "$", "%"]);
        assert_eq!(texts(0, "cpu", 9), ["cpu+", "%"]);
        assert_eq!(texts(1, "cpu", 9), ["busy", "core+", "idle", "$", "%"]);
        assert_eq!(texts(1, "cpu", 1), ["busy", "$", "%"]);
        assert_eq!(texts(0, "none", 9), [""; 0]);
    }
}
