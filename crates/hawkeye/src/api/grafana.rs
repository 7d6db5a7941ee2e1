//! Grafana: the routes of Open-Falcon's plugin for Grafana, which finds series segment by segment and draws them.
//!
//! How: a text like `{h1,h2}#cpu#idle` names hosts, and then the counter in the segments that its dots make, each a
//! regular expression. As the plugin sends every dot as `#`, a dot in a host is written `~`. Behind the hosts a last
//! segment `$` ends the counter there, and `%` stands for everything.
//! Invariants: an answer has at most [`ITEMS_MAX`] items, a question [`TARGETS_MAX`] targets; a bad regular expression
//! finds nothing.
//! Compat: docs/open-falcon/control-plane.md §4 and dashboard.md §4. The plugin sends no token, so anybody may ask,
//! unless `api.grafana` says otherwise. `#$` ends counters with dots too, which the original does not find.

use super::Context;
use super::auth::Caller;
use super::body::Fields;
use super::error::{Answer, ApiError, json};
use super::graph::{self, Asked, Names, PAIRS_MAX};
use crate::config::Grafana;
use crate::engine::Engine;
use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::get;
use net::http::Peer;
use net::turns::Holder;
use regex::Regex;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use store::{Cf, CounterQuery, EndpointQuery, Query};

/// Items of a list without `limit`, as in the original.
const ITEMS: i64 = 1000;
/// Items of a list at most.
const ITEMS_MAX: i64 = 10_000;
/// Targets of one question; a panel of Grafana has some.
const TARGETS_MAX: usize = 100;
/// Hosts that one text may name between `{` and `}`.
const HOSTS_MAX: usize = 1000;
/// Characters of a text that names hosts and a counter.
const TEXT_MAX: usize = 100_000;
/// Ends a counter.
const END: &str = "$";
/// Everything.
const ALL: &str = "%";

/// Routes of the plugin.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/grafana", get(find))
        .route("/grafana/metrics/find", get(find))
        .route("/grafana/render", get(render).post(render))
}

/// Whoever may ask, as the holder of what an answer takes.
struct Reader(Holder);

impl FromRequestParts<Context> for Reader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Reader, ApiError> {
        Ok(Reader(match context.config.api.grafana {
            Grafana::Open => parts.extensions.get::<Peer>().cloned().unwrap_or_default().holder,
            Grafana::Login => Holder::user(&Caller::from_request_parts(parts, context).await?.name),
        }))
    }
}

/// A segment of a name.
#[derive(Debug, PartialEq, Serialize)]
struct Item {
    text: String,
    /// Whether more segments follow.
    expandable: bool,
}

async fn find(State(context): State<Context>, _: Reader, fields: Fields) -> Answer {
    let text = fields.text("query", TEXT_MAX)?;
    let limit = match fields.int("limit")? {
        0 => ITEMS,
        limit @ 1.. => limit.min(ITEMS_MAX),
        _ => return Err(ApiError::bad("limit must be a number from 1 on")),
    } as usize;
    let Some((hosts, counter)) = text.split_once('#') else {
        return json(find_hosts(&context, &text.replace('~', "."), limit).await?);
    };
    let (hosts, segments) = (hosts_of(hosts)?, segments_of(counter));
    let Some(pattern) = pattern_of(&segments) else { return json([(); 0]) };
    let depth = segments.len() - 1;
    let found = graph::reading(&context, move |engine| counters_of(engine, &hosts, &pattern, ITEMS_MAX as usize));
    json(items(found.await?.values().flatten().map(String::as_str), depth, limit))
}

async fn find_hosts(context: &Context, text: &str, limit: usize) -> Result<Vec<Item>, ApiError> {
    let pattern = if text.is_empty() { ".+" } else { text };
    let Some(pattern) = graph::regex(pattern) else { return Ok(Vec::new()) };
    let found = graph::reading(context, move |engine| {
        let query = EndpointQuery { patterns: &[pattern], tag_terms: &[], offset: 0, limit };
        engine.store().endpoints(&query)
    });
    let item = |(_, host): (u32, String)| Item { text: host.replace('.', "~"), expandable: true };
    Ok(found.await?.into_iter().map(item).collect())
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
fn hosts_of(text: &str) -> Result<Vec<String>, ApiError> {
    let inside = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
    let hosts: BTreeSet<String> =
        inside.split(',').map(|host| host.trim().replace('~', ".")).filter(|host| !host.is_empty()).collect();
    if hosts.len() > HOSTS_MAX {
        return Err(ApiError::bad(format!("{} hosts in one text: name at most {HOSTS_MAX}", hosts.len())));
    }
    Ok(hosts.into_iter().collect())
}

fn segments_of(counter: &str) -> Vec<&str> {
    counter.split('#').collect()
}

/// The expression that the counters of some segments match; none for one that is no regular expression.
fn pattern_of(segments: &[&str]) -> Option<Regex> {
    match segments {
        [parts @ .., END] if !parts.is_empty() => graph::regex(&format!("^{}$", parts.join("\\."))),
        [parts @ .., ALL] => graph::regex(&[parts, &[".+"]].concat().join("\\.")),
        parts => graph::regex(&parts.join("\\.")),
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
    let mut targets = Vec::new();
    for text in &texts {
        let (hosts, counter) = text.split_once('#').unwrap_or((text, ALL));
        let hosts = hosts_of(hosts)?;
        targets.extend(pattern_of(&segments_of(counter)).map(|pattern| Target { hosts, pattern }));
    }
    let name = fields.text("consolFun", 20)?;
    let name = if name.is_empty() { "AVERAGE" } else { &name };
    let cf = Cf::parse(name)
        .ok_or_else(|| ApiError::bad(format!("consolFun is {name:?}: give AVERAGE, MAX, MIN or LAST")))?;
    let (from, to) = (fields.required_int("from")?, fields.required_int("until")?);
    let query = Query { from, to, cf, now: crate::clock::now() };
    graph::answer_history(&context, holder, query, move |engine| look_up(engine, &targets)).await
}

/// The series of all targets, each once.
fn look_up(engine: &Engine, targets: &[Target]) -> Result<Asked, ApiError> {
    let mut pairs: BTreeSet<(String, String)> = BTreeSet::new();
    for Target { hosts, pattern } in targets {
        for (host, counters) in counters_of(engine, hosts, pattern, PAIRS_MAX + 1).map_err(graph::unreadable)? {
            pairs.extend(counters.into_iter().map(|counter| (host.clone(), counter)));
        }
        if pairs.len() > PAIRS_MAX {
            return Err(ApiError::bad(format!("more than {PAIRS_MAX} series: ask for fewer")));
        }
    }
    let pairs: Vec<(String, String)> = pairs.into_iter().collect();
    let found = pairs.iter().map(|(host, counter)| graph::find(engine.store(), host, counter)).collect();
    Ok(Asked { names: Names::Pairs(pairs), found, is_raw: false, shows_unknown: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_segments_are_read() {
        let hosts = |text: &str| hosts_of(text).expect("hosts");
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
