//! The routes under `/ui/`, over an engine with two hosts: `web-1` as Hawkeye's agent reports, `db-1` as Open-Falcon's
//! agent as shipped does, which leaves out the used shares.

use super::history::WILDCARD_SERIES_MAX;
use super::*;
use crate::clock;
use crate::config::Viewer;
use crate::portal::db::query;
use crate::portal::tests::fill;
use crate::portal::{session, user};
use crate::watch::health::Health;
use anyhow::{Context, Result};
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request as HttpRequest, StatusCode};
use model::{CounterType, Point, Sample, SeriesKey, Tags};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;
use tower::ServiceExt;

/// Counters of the two hosts: seconds since the newest point, and its value. The load of `web-1` has not come for an
/// hour.
const COUNTERS: [(&str, &str, i64, f64); 10] = [
    ("web-1", "cpu.busy", 10, 12.5),
    ("web-1", "net.if.in.bitsy/iface=eth1", 10, 3000.0),
    ("web-1", "net.if.in.bits/iface=eth1", 10, 2000.0),
    ("web-1", "net.if.in.bits/iface=eth0", 10, 1000.0),
    ("web-1", "mem.memused.percent", 10, 40.0),
    ("web-1", "load.1min", 3610, 0.5),
    ("web-1", "cpu.idle", 10, 80.0),
    ("db-1", "mem.memfree.percent", 4000, 30.0),
    ("db-1", "cpu.idle", 4000, 75.0),
    ("db-1", "df.bytes.free.percent/mount=/", 4000, 3.0),
];

/// An engine with nothing in it, whose files are in `dir`.
pub fn engine(dir: &Path) -> Result<Engine> {
    let options = store::Options { dir: dir.join("store"), shard_count: 1, ..store::Options::default() };
    let (store, _) = store::Store::open(options, clock::now())?;
    Ok(Engine::new(store, 1, judge::Options::default(), None))
}

/// Takes in a point of a GAUGE with a step of 60 s.
pub fn push(engine: &Engine, endpoint: &str, counter: &str, time: i64, value: f64) -> Result<()> {
    let (metric, tags) = counter.split_once('/').unwrap_or((counter, ""));
    let key = SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) };
    let taken = engine.create(key, CounterType::Gauge, 60, 0).and_then(|series| {
        engine.append(&[Sample { series, point: Point { time, value } }], clock::now(), Instant::now())
    });
    taken.map_err(|error| anyhow::anyhow!("{error}"))
}

/// The page's router on an engine and a fresh portal.
pub struct Site {
    pub router: Router,
    link: EntryLink,
    engine: Arc<Engine>,
    portal: Portal,
    dir: tempfile::TempDir,
}

/// A site with the two hosts.
async fn site(viewer: Viewer) -> Result<Site> {
    let site = empty_site(viewer).await?;
    let now = clock::now();
    for (host, counter, age, value) in COUNTERS {
        push(&site.engine, host, counter, now - age, value)?;
    }
    Ok(site)
}

/// A site without any series.
pub async fn empty_site(viewer: Viewer) -> Result<Site> {
    let (dir, portal) = crate::portal::tests::in_file().await?;
    let engine = Arc::new(engine(dir.path())?);
    let config = Config { api: ApiConfig { viewer, ..ApiConfig::default() }, ..Config::default() };
    let link = EntryLink::default();
    let router = router(
        Points { engine: engine.clone(), graphs: None },
        portal.clone(),
        &config,
        Health::default(),
        link.clone(),
    );
    Ok(Site { router, link, engine, portal, dir })
}

pub async fn ask(router: &Router, path: &str, headers: &[(&str, &str)]) -> Result<(StatusCode, HeaderMap, Vec<u8>)> {
    let mut request = HttpRequest::builder().uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = router.clone().oneshot(request.body(Body::empty())?).await?;
    let (parts, body) = response.into_parts();
    Ok((parts.status, parts.headers, to_bytes(body, 1 << 24).await?.to_vec()))
}

async fn ask_json(router: &Router, path: &str) -> Result<(StatusCode, Value)> {
    let (status, _, body) = ask(router, path, &[]).await?;
    let value = serde_json::from_slice(&body).with_context(|| format!("{path}: {}", String::from_utf8_lossy(&body)))?;
    Ok((status, value))
}

#[tokio::test]
async fn without_permission_a_session_is_needed() -> Result<()> {
    let site = site(Viewer::Loopback).await?;
    let uid = user::create(&site.portal, "root", "", &user::Profile::default(), user::ROOT, 0).await?;
    let sig = session::create(&site.portal, uid, clock::now()).await?;
    let good = json!({ "name": "ROOT", "sig": sig }).to_string();
    for path in ["/ui/overview", "/ui/history?endpoint=web-1&counter=cpu.idle", "/ui/counters?endpoint=web-1"] {
        // The test's requests have no peer address: they count as coming from elsewhere.
        let (status, body) = ask_json(&site.router, path).await?;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        assert!(body["error"].as_str().is_some_and(|text| text.starts_with("not allowed: log in")), "{body}");
        let (status, ..) = ask(&site.router, path, &[("apitoken", r#"{"name":"root","sig":"bad"}"#)]).await?;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(ask(&site.router, path, &[("apitoken", good.as_str())]).await?.0, StatusCode::OK, "{path}");
    }
    let (_, _, body) = ask(&site.router, "/ui/overview", &[("apitoken", good.as_str())]).await?;
    assert_eq!(serde_json::from_slice::<Value>(&body)?["user"], "root", "as the user table spells the name");
    // The files themselves hold no secret: the login form is among them.
    assert_eq!(ask(&site.router, "/", &[]).await?.0, StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn a_local_peer_needs_no_session() -> Result<()> {
    let site = site(Viewer::Loopback).await?;
    let peer = SocketAddr::from(([127, 0, 0, 1], 40_000));
    let mut request = HttpRequest::builder().uri("/ui/overview").header("host", "localhost:8080").body(Body::empty())?;
    request.extensions_mut().insert(ConnectInfo(peer));
    assert_eq!(site.router.oneshot(request).await?.status(), StatusCode::OK);
    Ok(())
}

/// The link of a start is worth one session of root, which the other routes take.
#[tokio::test]
async fn the_link_of_a_start_logs_in_once() -> Result<()> {
    let site = empty_site(Viewer::None).await?;
    user::create(&site.portal, "root", "", &user::Profile::default(), user::ROOT, 0).await?;
    let secret = site.link.renew(&site.portal).await?;
    let enter = async |secret: &str| -> Result<(StatusCode, Value)> {
        let request = HttpRequest::builder().method("POST").uri("/ui/enter").body(Body::from(secret.to_string()))?;
        let response = site.router.clone().oneshot(request).await?;
        let status = response.status();
        Ok((status, serde_json::from_slice(&to_bytes(response.into_body(), 1 << 16).await?)?))
    };
    let (status, refused) = enter("0123456789abcdef").await?;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{refused}");
    assert_eq!(enter(&"x".repeat(10_000)).await?.0, StatusCode::PAYLOAD_TOO_LARGE);
    let (status, session) = enter(&secret).await?;
    assert_eq!((status, &session["name"]), (StatusCode::OK, &json!("root")));
    let token = session.to_string();
    assert_eq!(ask(&site.router, "/ui/overview", &[("apitoken", &token)]).await?.0, StatusCode::OK);
    let cookie = format!("apitoken={token}; name=root; sig={}", session["sig"].as_str().unwrap_or_default());
    assert_eq!(ask(&site.router, "/ui/overview", &[("cookie", &cookie)]).await?.0, StatusCode::UNAUTHORIZED);
    let (status, refused) = enter(&secret).await?;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(refused["error"].as_str().is_some_and(|text| text.contains("next start")), "{refused}");
    // Who changes the password means the link as well, which nobody has used yet.
    let secret = site.link.renew(&site.portal).await?;
    let root = user::by_name(&site.portal, "root").await?.context("root")?;
    user::change_password(&site.portal, root.id, "another hash", None).await?;
    let (status, refused) = enter(&secret).await?;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(refused["error"].as_str().is_some_and(|text| text.contains("another password")), "{refused}");
    let secret = site.link.renew(&site.portal).await?;
    assert_eq!(enter(&secret).await?.0, StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn overview_names_hosts_and_open_alarms() -> Result<()> {
    let site = site(Viewer::All).await?;
    let insert = "INSERT INTO alarms.event_cases (id, endpoint, metric, func, cond, note, priority, status, timestamp, update_at) \
                  VALUES (?, 'db-1', 'df.bytes.free.percent/mount=/', ?, '3 < 5', 'disk full', 1, ?, ?, ?)";
    for (id, func, status, began, updated) in [
        ("s_1_a", Some("all(#3)"), "PROBLEM", "2026-01-31 12:00:00", "2026-01-31 12:10:00"),
        ("s_2_b", Some("all(#3)"), "OK", "2026-01-31 12:00:00", "2026-01-31 12:30:00"),
        ("s_3_c", None, "PROBLEM", "yesterday", "2026-01-31 12:20:00"),
    ] {
        query(insert).bind(id).bind(func).bind(status).bind(began).bind(updated).execute(&site.portal).await?;
    }
    let told = "UPDATE alarms.event_cases SET told = 'told nobody: the rule has no action' WHERE id <> 's_3_c'";
    query(told).execute(&site.portal).await?;
    let (status, body) = ask_json(&site.router, "/ui/overview").await?;
    assert_eq!(status, StatusCode::OK, "{body}");
    let now = body["now"].as_i64().context("now")?;
    let hosts = body["hosts"].as_array().context("hosts")?;
    let ages: Vec<i64> = hosts.iter().filter_map(|host| Some(now - host["last_report_s"].as_i64()?)).collect();
    assert!(ages.len() == 2 && ages[0] >= 4000 && ages[1] >= 10 && ages[1] < 4000, "{ages:?}");
    // The used shares of db-1 come from its free shares; the load of web-1 is too old to stand beside the rest.
    let values: Vec<Value> = hosts
        .iter()
        .map(|host| json!([host["name"], host["cpu_busy"], host["mem_used_percent"], host["load_1min"]]))
        .collect();
    assert_eq!(values, [json!(["db-1", 25.0, 70.0, null]), json!(["web-1", 12.5, 40.0, null])]);
    assert_eq!(
        json!([body["user"], body["series"], body["hosts_total"], body["hosts_reporting"], body["hosts_matched"]]),
        json!([null, 10, 2, 1, 2])
    );
    let began: jiff::civil::DateTime = "2026-01-31 12:00:00".parse()?;
    let began = began.to_zoned(jiff::tz::TimeZone::system())?.timestamp().as_second();
    let told = |id: &str| if id == "s_1_a" { "told nobody: the rule has no action" } else { "" };
    let alarm = |id: &str, func: &str, since: Option<i64>| {
        json!({"id": id, "priority": 1, "status": "PROBLEM", "endpoint": "db-1", "counter": "df.bytes.free.percent/mount=/",
               "func": func, "cond": "3 < 5", "note": "disk full", "told": told(id), "since": since})
    };
    assert_eq!(body["alarms"], json!([alarm("s_3_c", "", None), alarm("s_1_a", "all(#3)", Some(began))]));
    assert_eq!(json!([body["alarms_total"], body["alarms_untold"], body["no_gateway"]]), json!([2, 1, true]));
    Ok(())
}

#[tokio::test]
async fn more_alarms_than_listed_are_counted() -> Result<()> {
    let site = site(Viewer::All).await?;
    let insert = "INSERT INTO alarms.event_cases (id, endpoint, metric, cond, priority, status, timestamp, update_at) \
                  SELECT 's_' || i, 'e', 'm', '1 > 0', 0, 'PROBLEM', '2026-01-31 12:00:00', '2026-01-31 12:00:00'";
    fill(&site.portal, insert, 250).await?;
    let (_, body) = ask_json(&site.router, "/ui/overview").await?;
    assert_eq!(body["alarms"].as_array().map(Vec::len), Some(200));
    assert_eq!(body["alarms_total"], 250);
    Ok(())
}

#[tokio::test]
async fn overview_finds_hosts_by_part_of_their_name() -> Result<()> {
    let site = site(Viewer::All).await?;
    let (_, body) = ask_json(&site.router, "/ui/overview?q=WEB").await?;
    assert_eq!(json!([body["hosts_total"], body["hosts_matched"], body["hosts"][0]["name"]]), json!([2, 1, "web-1"]));
    Ok(())
}

#[tokio::test]
async fn history_of_named_and_wildcard_counters() -> Result<()> {
    let site = empty_site(Viewer::All).await?;
    let start = clock::now() / 60 * 60 - 600;
    let counters = ["cpu.idle", "net.if.in.bits/iface=eth1", "net.if.in.bits/iface=eth0", "net.if.in.bitsy/iface=eth1"];
    for counter in counters {
        push(&site.engine, "web-1", counter, start, 1.5)?;
        push(&site.engine, "web-1", counter, start + 120, 2.5)?;
    }
    let range = format!("start={start}&end={}", start + 120);
    let path = format!("/ui/history?endpoint=web-1&counter=cpu.idle&counter=net.if.in.bits/*&counter=absent&{range}");
    let (status, body) = ask_json(&site.router, &path).await?;
    let values = json!([[start, 1.5], [start + 60, null], [start + 120, 2.5]]);
    assert_eq!(
        (status, body),
        (
            StatusCode::OK,
            json!([
                {"counter": "cpu.idle", "step": 60, "values": values},
                {"counter": "net.if.in.bits/iface=eth0", "step": 60, "values": values},
                {"counter": "net.if.in.bits/iface=eth1", "step": 60, "values": values},
            ])
        )
    );
    Ok(())
}

/// A host whose metric `m` has 100 series: a wildcard stands for the first of them by name, and an answer with too many
/// points is refused with a text that says what to ask for instead.
#[tokio::test]
async fn history_of_very_many_series_is_cut_or_refused() -> Result<()> {
    let site = empty_site(Viewer::All).await?;
    let end = clock::now();
    for index in (0..100).rev() {
        push(&site.engine, "many", &format!("m/i={index:03}"), end, 1.0)?;
    }
    let (_, body) =
        ask_json(&site.router, &format!("/ui/history?endpoint=many&counter=m/*&start={}&end={end}", end - 60)).await?;
    assert_eq!(body.as_array().map(Vec::len), Some(WILDCARD_SERIES_MAX));
    assert_eq!(body[31]["counter"], "m/i=031");
    // Three times 32 series with some 700 rows each.
    let path = format!("/ui/history?endpoint=many{}&start={}&end={end}", "&counter=m/*".repeat(3), end - 715 * 60);
    let (status, body) = ask_json(&site.router, &path).await?;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    assert!(body["error"].as_str().is_some_and(|text| text.contains("more than 65536 points")), "{body}");
    Ok(())
}

#[tokio::test]
async fn history_that_cannot_be_read_is_an_error_that_names_the_file() -> Result<()> {
    let site = empty_site(Viewer::All).await?;
    let (now, days) = (clock::now(), 86_400);
    for age in [5 * days, 0] {
        push(&site.engine, "db-1", "cpu.idle", now - age, 1.0)?;
    }
    site.engine.store().flush(now)?;
    let blocks = site.dir.path().join("store/block");
    for entry in std::fs::read_dir(&blocks)? {
        std::fs::remove_file(entry?.path())?;
    }
    let path = format!("/ui/history?endpoint=db-1&counter=cpu.idle&start={}&end={now}", now - 6 * days);
    let (status, body) = ask_json(&site.router, &path).await?;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{body}");
    let named = |text: &str| text.contains("cannot") && text.contains(&blocks.display().to_string());
    assert!(body["error"].as_str().is_some_and(named), "{body}");
    Ok(())
}

#[tokio::test]
async fn wrong_requests_name_the_field() -> Result<()> {
    let site = site(Viewer::All).await?;
    let many = "&counter=c".repeat(33);
    for (path, part) in [
        ("/ui/history?counter=c", "endpoint is missing"),
        ("/ui/history?endpoint=&counter=c", "endpoint is missing"),
        ("/ui/history?endpoint=e", "got 0 counters"),
        (&format!("/ui/history?endpoint=e{many}"), "got 33 counters; want 1 to 32"),
        ("/ui/history?endpoint=e&counter=c&start=soon", "start is \"soon\""),
        ("/ui/history?endpoint=e&counter=c&end=-1", "end is \"-1\""),
        ("/ui/history?endpoint=e&counter=c&end=99999999999999999999", "end is"),
        ("/ui/history?endpoint=e&counter=c&start=20&end=10", "end - start is -10 s"),
        ("/ui/history?endpoint=e&counter=c&start=0&end=40000000", "end - start is 40000000 s"),
        ("/ui/history?endpoint=e&counter=c&cf=MAX", "unknown parameter cf"),
        ("/ui/counters?q=c", "endpoint is missing"),
        ("/ui/counters?endpoint=e&page=2", "unknown parameter page"),
    ] {
        let (status, body) = ask_json(&site.router, path).await?;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {body}");
        assert!(body["error"].as_str().is_some_and(|text| text.contains(part)), "{path}: {body}");
    }
    Ok(())
}

#[tokio::test]
async fn counters_of_a_host_by_part_of_their_text() -> Result<()> {
    let site = site(Viewer::All).await?;
    let (_, body) = ask_json(&site.router, "/ui/counters?endpoint=web-1&q=IFACE=eth1").await?;
    let expected = ["net.if.in.bits/iface=eth1", "net.if.in.bitsy/iface=eth1"];
    assert_eq!(body, json!({"total": 2, "counters": expected}));
    let (_, body) = ask_json(&site.router, "/ui/counters?endpoint=nobody").await?;
    assert_eq!(body, json!({"total": 0, "counters": []}));
    Ok(())
}

/// Texts are kept for who may, and shown to whoever has the path, as text.
#[tokio::test]
async fn links_are_stored_and_shown() -> Result<()> {
    let site = empty_site(Viewer::None).await?;
    let store = async |peer: &str, headers: &[(&str, &str)], body: &str| -> Result<(StatusCode, String)> {
        let mut request = HttpRequest::builder().method("POST").uri("/portal/links/store");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::from(body.to_string()))?;
        request.extensions_mut().insert(ConnectInfo::<SocketAddr>(peer.parse()?));
        let response = site.router.clone().oneshot(request).await?;
        let (status, body) = (response.status(), to_bytes(response.into_body(), 1 << 20).await?);
        Ok((status, String::from_utf8(body.to_vec())?))
    };
    let text = "[P3][PROBLEM][a],,<script>alert(1)</script>,,\u{ff}";
    let (status, path) = store("127.0.0.1:1", &[], text).await?;
    assert_eq!((status, path.len()), (StatusCode::OK, 8));
    let (status, headers, body) = ask(&site.router, &format!("/portal/links/{path}"), &[]).await?;
    let body = String::from_utf8(body)?;
    assert_eq!(status, StatusCode::OK);
    assert!(headers["content-type"].to_str()?.starts_with("text/html"));
    assert!(body.contains("<p>[P3][PROBLEM][a]</p>\n<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>"), "{body}");
    assert!(!body.contains("<script"), "{body}");
    assert_eq!(ask(&site.router, "/portal/links/none", &[]).await?.0, StatusCode::NOT_FOUND);
    // Who may not, and what is too long.
    let refused = StatusCode::UNAUTHORIZED;
    assert_eq!(store("10.0.0.1:1", &[], "x").await?.0, refused);
    for header in [("x-forwarded-for", "127.0.0.1"), ("origin", "http://evil"), ("sec-fetch-site", "same-origin")] {
        assert_eq!(store("127.0.0.1:1", &[header], "x").await?.0, refused, "{header:?}");
    }
    let uid = user::create(&site.portal, "u", "", &user::Profile::default(), user::NORMAL, 0).await?;
    let token = json!({ "name": "u", "sig": session::create(&site.portal, uid, clock::now()).await? }).to_string();
    assert_eq!(store("10.0.0.1:1", &[("apitoken", &token)], "x").await?.0, StatusCode::OK);
    let long = "x".repeat(crate::portal::link::CONTENT_MAX + 1);
    assert_eq!(store("127.0.0.1:1", &[], &long).await?.0, StatusCode::PAYLOAD_TOO_LARGE);
    Ok(())
}

/// What an alarm's mail links to is a place of the page.
#[tokio::test]
async fn addresses_in_mails_lead_to_the_page() -> Result<()> {
    let site = empty_site(Viewer::None).await?;
    for (path, place) in [
        ("/portal/template/view/7", "../../../#/template/7"),
        ("/portal/expression/view/12", "../../../#/expression/12"),
    ] {
        let (status, headers, _) = ask(&site.router, path, &[]).await?;
        assert_eq!((status, headers["location"].to_str()?), (StatusCode::FOUND, place));
    }
    assert_eq!(ask(&site.router, "/portal/template/view/x", &[]).await?.0, StatusCode::NOT_FOUND);
    Ok(())
}
