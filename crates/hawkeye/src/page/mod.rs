//! UI: the first page (`web/`, embedded) and the read-only routes under `/ui/` that it draws from.
//!
//! Why: whoever has typed `make run` wants to see hosts, charts and open alarms at once, without an account and without
//! a build step for the page.
//! How: the page is a few plain files, sent with an ETag so that a browser keeps them until they change. What it shows
//! comes from [`UiData`] (series and points) and from the portal's `event_cases` (open alarms).
//! Who may look: [`may_look_without_login`] says when no login is needed; otherwise the request carries the `Apitoken`
//! header of Open-Falcon's API, and whoever it belongs to may look.
//! Invariants: nothing here writes; no answer carries CORS headers, so no other site's script can read one; the page
//! loads nothing from other hosts, and its content security policy forbids it to.
//! Memory: an answer holds at most [`HOSTS_MAX`] hosts, [`ALARMS_MAX`] alarms, [`POINTS_MAX`] points; at most
//! [`READS_MAX`] of them are computed at a time, the others wait.

mod series;

use crate::config::Viewer;
use crate::portal::Portal;
use crate::portal::alarm::{self, Case};
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use md5::{Digest, Md5};
use model::Point;
use serde::Serialize;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;

/// A host that has reported nothing for this long is marked: three of the default steps of 60 s, so that one lost
/// report marks nobody.
const SILENT_AFTER_S: i64 = 180;
/// Hosts in one overview, about 200 kB of JSON; with more of them the page asks for a search text.
const HOSTS_MAX: usize = 2000;
/// Alarms in one overview; nobody reads more, and the total is told.
const ALARMS_MAX: usize = 200;
/// Counters that `/ui/counters` lists for one host; an agent sends about 200.
const COUNTERS_MAX: usize = 500;
/// Counters that one `/ui/history` request may name; the largest chart of the page names 7.
const HISTORY_COUNTERS_MAX: usize = 32;
/// Series that one counter ending in `/*` stands for: more lines than that are no chart.
const WILDCARD_SERIES_MAX: usize = 32;
/// Points in one `/ui/history` answer, about 2.5 MB of JSON. A series has at most about 800 rows in any range, as older
/// ranges have wider rows, so this is 64 series at least.
const POINTS_MAX: usize = 65_536;
/// The longest range of one `/ui/history` request: a year and a day.
const RANGE_MAX_S: i64 = 366 * 86_400;
/// Range when the request names none: what the page shows first.
const RANGE_DEFAULT_S: i64 = 3600;
/// Answers computed at a time. Each holds at most a few MB, and the machine has agents to listen to.
const READS_MAX: usize = 4;

/// What the page needs to know of the series. Called on threads that may block.
pub trait UiData: Send + Sync {
    fn series_count(&self) -> u64;

    /// Visits each endpoint, in any order, with the time of its newest point (Unix seconds).
    fn for_each_host(&self, visit: &mut dyn FnMut(&str, i64));

    /// Visits the counter text of each series of `host`, in any order.
    fn for_each_counter(&self, host: &str, visit: &mut dyn FnMut(&str));

    /// The newest point of a series; of a COUNTER, its rate.
    fn last(&self, host: &str, counter: &str) -> Option<Point>;

    /// Visits the rows of series of `host` in `[from, to]`, averaged; of a COUNTER, rates. Counters that are no series are
    /// left out; `visit` ends it by answering false.
    fn history(
        &self,
        host: &str,
        counters: &[String],
        range: (i64, i64),
        visit: &mut dyn FnMut(&str, Grid) -> bool,
    ) -> Result<(), String>;
}

/// Rows of one series, ascending, `step` seconds apart; `None` where nothing is known.
pub struct Grid {
    pub step: u32,
    pub values: Vec<(i64, Option<f64>)>,
}

/// Finds the user whose valid session an `Apitoken` header names.
pub type UserOf = Arc<dyn Fn(HeaderMap) -> Pin<Box<dyn Future<Output = Option<String>> + Send>> + Send + Sync>;

#[derive(Clone)]
pub struct Ui {
    pub data: Arc<dyn UiData>,
    pub portal: Portal,
    pub viewer: Viewer,
    pub user_of: UserOf,
}

/// `/`, `/ui/*`. Serve it with connect info: without the peer's address nobody counts as local. Keep it outside any CORS
/// layer, see the invariants above.
pub fn router(ui: Ui) -> Router {
    let shared = Shared { ui, reads: Arc::new(Semaphore::new(READS_MAX)) };
    let mut router = Router::new()
        .route("/ui/overview", get(overview))
        .route("/ui/history", get(history))
        .route("/ui/counters", get(counters))
        .layer(middleware::from_fn_with_state(shared.clone(), require_viewer))
        .with_state(shared);
    for file in &FILES {
        let etag = HeaderValue::from_str(&etag(file.body)).expect("hex and quotes");
        router = router.route(file.path, get(move |headers: HeaderMap| async move { send_file(file, etag, &headers) }));
    }
    router.layer(middleware::map_response(harden))
}

#[derive(Clone)]
struct Shared {
    ui: Ui,
    reads: Arc<Semaphore>,
}

// The page's files.

struct File {
    path: &'static str,
    content_type: &'static str,
    body: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

static FILES: [File; 11] = [
    File { path: "/", content_type: HTML, body: include_str!("../../../../web/index.html") },
    File { path: "/ui/style.css", content_type: CSS, body: include_str!("../../../../web/style.css") },
    File { path: "/ui/icon.svg", content_type: SVG, body: include_str!("../../../../web/icon.svg") },
    File { path: "/ui/app.js", content_type: SCRIPT, body: include_str!("../../../../web/app.js") },
    File { path: "/ui/api.js", content_type: SCRIPT, body: include_str!("../../../../web/api.js") },
    File { path: "/ui/chart.js", content_type: SCRIPT, body: include_str!("../../../../web/chart.js") },
    File { path: "/ui/dom.js", content_type: SCRIPT, body: include_str!("../../../../web/dom.js") },
    File { path: "/ui/format.js", content_type: SCRIPT, body: include_str!("../../../../web/format.js") },
    File { path: "/ui/home.js", content_type: SCRIPT, body: include_str!("../../../../web/home.js") },
    File { path: "/ui/host.js", content_type: SCRIPT, body: include_str!("../../../../web/host.js") },
    File { path: "/ui/i18n.js", content_type: SCRIPT, body: include_str!("../../../../web/i18n.js") },
];

fn etag(body: &str) -> String {
    let hex: String = Md5::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

/// `no-cache` lets the browser keep the file but ask each time, so that a new binary's page is seen at once.
fn send_file(file: &'static File, etag: HeaderValue, request: &HeaderMap) -> Response {
    let known = request.get(header::IF_NONE_MATCH).is_some_and(|tags| contains(tags.as_bytes(), etag.as_bytes()));
    let caching = [(header::ETAG, etag), (header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))];
    if known {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    (caching, [(header::CONTENT_TYPE, file.content_type)], file.body).into_response()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Puts on every answer what keeps a browser from using it for anything but the page.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

// Who may look.

/// The name of who looks, when logged in; handlers read it to tell the page.
#[derive(Clone)]
struct User(Option<String>);

async fn require_viewer(State(shared): State<Shared>, mut request: Request, next: Next) -> Response {
    let headers = request.headers();
    let user = if headers.contains_key("apitoken") { (shared.ui.user_of)(headers.clone()).await } else { None };
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    if user.is_none() && !may_look_without_login(shared.ui.viewer, peer, request.uri(), request.headers()) {
        let reason = "not allowed: log in (header Apitoken), or set api.viewer = \"all\" in the server's configuration";
        return Refusal(StatusCode::UNAUTHORIZED, reason.to_string()).into_response();
    }
    request.extensions_mut().insert(User(user));
    next.run(request).await
}

/// The rule of `api.viewer`. With `loopback` a request passes when it comes from this machine and says nothing else:
/// - its peer is a loopback address, and no proxy speaks for somebody behind it (`Forwarded`, `X-Forwarded-For`, …);
/// - it is addressed to a loopback name: a foreign name that was made to resolve to 127.0.0.1 (DNS rebinding) would let
///   that site's script read the answer;
/// - it was not started by another site's page (`Origin`, `Sec-Fetch-Site`).
fn may_look_without_login(viewer: Viewer, peer: Option<IpAddr>, uri: &Uri, headers: &HeaderMap) -> bool {
    match viewer {
        Viewer::All => true,
        Viewer::None => false,
        Viewer::Loopback => {
            peer.is_some_and(|ip| ip.to_canonical().is_loopback())
                && ["forwarded", "x-forwarded-for", "x-real-ip"].iter().all(|name| !headers.contains_key(*name))
                && addressed_to_loopback(uri, headers)
                && started_by_this_page(headers)
        }
    }
}

fn addressed_to_loopback(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    hosts.next().is_none()
        && host.is_some_and(is_loopback_authority)
        && uri.authority().is_none_or(|authority| is_loopback_authority(authority.as_str()))
}

fn started_by_this_page(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("not text"));
    let origin_is_local = text("origin")
        .is_none_or(|origin| origin.split_once("://").is_some_and(|(_, authority)| is_loopback_authority(authority)));
    origin_is_local && text("sec-fetch-site").is_none_or(|site| site == "same-origin" || site == "none")
}

/// True for `localhost`, `127.x.y.z` and `[::1]`, each with or without a port.
fn is_loopback_authority(text: &str) -> bool {
    let Ok(authority) = text.parse::<Authority>() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

// The routes.

/// What went wrong, as Open-Falcon's API says it: a status and `{"error": …}`.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(serde_json::json!({ "error": self.1 }))).into_response()
    }
}

fn bad(reason: impl Into<String>) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, reason.into())
}

fn broken(reason: impl std::fmt::Display) -> Refusal {
    Refusal(StatusCode::INTERNAL_SERVER_ERROR, reason.to_string())
}

#[derive(Serialize)]
struct Overview {
    /// The server's clock; ages are counted from it, as the browser's may be off.
    now: i64,
    /// Null when the viewer is not logged in.
    user: Option<String>,
    silent_after_s: i64,
    series: u64,
    #[serde(flatten)]
    hosts: Hosts,
    alarms_total: i64,
    alarms: Vec<Alarm>,
}

#[derive(Serialize)]
struct Hosts {
    hosts_total: usize,
    /// Of these, the ones that are not silent.
    hosts_reporting: usize,
    /// Of all, the ones whose name contains `q`.
    hosts_matched: usize,
    /// The first [`HOSTS_MAX`] of the matching ones, by name.
    hosts: Vec<Host>,
}

#[derive(Serialize)]
struct Host {
    name: String,
    last_report_s: i64,
    cpu_busy: Option<f64>,
    mem_used_percent: Option<f64>,
    load_1min: Option<f64>,
}

#[derive(Serialize)]
struct Alarm {
    id: String,
    priority: i64,
    status: String,
    endpoint: String,
    counter: String,
    func: String,
    /// "<left> <operator> <right>".
    cond: String,
    note: String,
    /// When the problem began, Unix seconds; null when its row says nothing readable.
    since: Option<i64>,
}

async fn overview(
    State(shared): State<Shared>,
    Extension(User(user)): Extension<User>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Overview>, Refusal> {
    let pattern = query.into_iter().find(|(key, _)| key == "q").map_or(String::new(), |(_, text)| text);
    let now = unix_now();
    let (hosts, series) =
        shared.read(move |data| Ok((find_hosts(data, &pattern.to_lowercase(), now), data.series_count()))).await?;
    let (alarms, alarms_total) = open_alarms(&shared.ui.portal).await.map_err(broken)?;
    Ok(Json(Overview { now, user, silent_after_s: SILENT_AFTER_S, series, hosts, alarms_total, alarms }))
}

/// Keeps the first hosts by name without holding the names of all.
fn find_hosts(data: &dyn UiData, pattern: &str, now: i64) -> Hosts {
    let (mut total, mut reporting, mut matched) = (0, 0, 0);
    let mut first: BTreeMap<String, i64> = BTreeMap::new();
    data.for_each_host(&mut |name, last_report_s| {
        total += 1;
        reporting += usize::from(now - last_report_s <= SILENT_AFTER_S);
        if !pattern.is_empty() && !name.to_lowercase().contains(pattern) {
            return;
        }
        matched += 1;
        first.insert(name.to_string(), last_report_s);
        if first.len() > HOSTS_MAX {
            first.pop_last();
        }
    });
    let hosts = first.into_iter().map(|(name, last_report_s)| describe_host(data, name, last_report_s)).collect();
    Hosts { hosts_total: total, hosts_reporting: reporting, hosts_matched: matched, hosts }
}

/// The used share is taken from the free share when a host does not send it: Open-Falcon's agent as shipped does not.
fn describe_host(data: &dyn UiData, name: String, last_report_s: i64) -> Host {
    // An older value is not the host's state; it would stand beside newer ones as if it were.
    let fresh = |counter: &str| {
        data.last(&name, counter).filter(|point| last_report_s - point.time <= SILENT_AFTER_S).map(|point| point.value)
    };
    let rest = |counter: &str| fresh(counter).map(|percent| 100.0 - percent);
    Host {
        last_report_s,
        cpu_busy: fresh("cpu.busy").or_else(|| rest("cpu.idle")),
        mem_used_percent: fresh("mem.memused.percent").or_else(|| rest("mem.memfree.percent")),
        load_1min: fresh("load.1min"),
        name,
    }
}

/// The newest open alarms, and how many there are. `timestamp` is when the problem began: later events of the same
/// problem only move `update_at`.
async fn open_alarms(portal: &Portal) -> sqlx::Result<(Vec<Alarm>, i64)> {
    let cases = alarm::open(portal, ALARMS_MAX).await?;
    let total = if cases.len() < ALARMS_MAX { cases.len() as i64 } else { alarm::count_open(portal).await? };
    let alarms = cases.into_iter().map(|case| {
        let Case { id, priority, status, endpoint, metric: counter, func, cond, note, timestamp, .. } = case;
        Alarm { id, priority, status, endpoint, counter, func, cond, note, since: parse_local_time(&timestamp) }
    });
    Ok((alarms.collect(), total))
}

/// Open-Falcon keeps local times as text, `2026-01-31 23:59:59`.
fn parse_local_time(text: &str) -> Option<i64> {
    let civil: jiff::civil::DateTime = text.parse().ok()?;
    Some(civil.to_zoned(jiff::tz::TimeZone::system()).ok()?.timestamp().as_second())
}

#[derive(Serialize)]
struct Counters {
    total: usize,
    /// The first [`COUNTERS_MAX`] of them, in byte order.
    counters: Vec<String>,
}

/// `GET /ui/counters?endpoint=&q=`: the counters of a host that contain `q`.
async fn counters(
    State(shared): State<Shared>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Counters>, Refusal> {
    let (mut endpoint, mut pattern) = (None, String::new());
    for (key, value) in query {
        match key.as_str() {
            "endpoint" => endpoint = Some(value),
            "q" => pattern = value.to_lowercase(),
            _ => return Err(bad(format!("unknown parameter {key}; want endpoint, q"))),
        }
    }
    let endpoint = endpoint.ok_or_else(|| bad("endpoint is missing: name the host"))?;
    let found = shared
        .read(move |data| {
            let (total, counters) =
                find_counters(data, &endpoint, COUNTERS_MAX, |counter| counter.to_lowercase().contains(&pattern));
            Ok(Counters { total, counters })
        })
        .await?;
    Ok(Json(found))
}

/// How many counters of `host` match, and the first `limit` of them in byte order.
fn find_counters(data: &dyn UiData, host: &str, limit: usize, matches: impl Fn(&str) -> bool) -> (usize, Vec<String>) {
    let (mut total, mut first) = (0, BTreeMap::new());
    data.for_each_counter(host, &mut |counter| {
        if matches(counter) {
            total += 1;
            first.insert(counter.to_string(), ());
            if first.len() > limit {
                first.pop_last();
            }
        }
    });
    (total, first.into_keys().collect())
}

#[derive(Serialize)]
struct Series {
    counter: String,
    step: u32,
    values: Vec<(i64, Option<f64>)>,
}

#[derive(Debug, PartialEq)]
struct HistoryQuery {
    endpoint: String,
    /// Each a counter text, or `metric/*` for all tag sets of a metric.
    counters: Vec<String>,
    start: i64,
    end: i64,
}

/// `GET /ui/history?endpoint=&counter=&counter=…&start=&end=`: a series that does not exist is left out.
async fn history(
    State(shared): State<Shared>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Vec<Series>>, Refusal> {
    let query = HistoryQuery::parse(query, unix_now()).map_err(bad)?;
    Ok(Json(shared.read(move |data| read_history(data, &query)).await?))
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
        if counters.is_empty() || counters.len() > HISTORY_COUNTERS_MAX {
            return Err(format!("got {} counters; want 1 to {HISTORY_COUNTERS_MAX}", counters.len()));
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

fn read_history(data: &dyn UiData, query: &HistoryQuery) -> Result<Vec<Series>, Refusal> {
    let mut answer: Vec<Series> = Vec::new();
    let mut points = 0;
    let counters: Vec<String> =
        query.counters.iter().flat_map(|counter| expand(data, &query.endpoint, counter)).collect();
    let mut visit = |counter: &str, Grid { step, values }: Grid| {
        points += values.len();
        answer.push(Series { counter: counter.to_string(), step, values });
        points <= POINTS_MAX
    };
    data.history(&query.endpoint, &counters, (query.start, query.end), &mut visit).map_err(broken)?;
    if points > POINTS_MAX {
        return Err(bad(format!("more than {POINTS_MAX} points: ask for fewer counters or a shorter range")));
    }
    Ok(answer)
}

/// `metric/*` becomes the metric's counters, at most [`WILDCARD_SERIES_MAX`]; any other text stays as it is.
fn expand(data: &dyn UiData, host: &str, counter: &str) -> Vec<String> {
    let Some(prefix) = counter.strip_suffix('*').filter(|prefix| prefix.ends_with('/')) else {
        return vec![counter.to_string()];
    };
    find_counters(data, host, WILDCARD_SERIES_MAX, |text| text.starts_with(prefix)).1
}

impl Shared {
    /// Runs `read` on a thread that may block, when it is its turn.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn UiData) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let turn = self.reads.clone().acquire_owned().await.expect("the semaphore is never closed");
        let data = self.ui.data.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            read(&*data)
        });
        task.await.map_err(broken)?
    }
}

fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs() as i64)
}

#[cfg(test)]
mod tests;
