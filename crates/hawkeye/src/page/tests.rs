//! The page's files, who may look, and the answers, on a double of the series.

use super::*;
use crate::portal::db::query;
use crate::portal::tests::fill;
use anyhow::{Context, Result};
use axum::body::{Body, to_bytes};
use axum::http::Request as HttpRequest;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tower::ServiceExt;

/// Two hosts: `web-1` as Hawkeye's agent reports, `db-1` as Open-Falcon's agent as shipped does, which leaves out the
/// used shares.
struct Double {
    now: i64,
}

const COUNTERS: [(&str, &str, f64); 10] = [
    ("web-1", "cpu.busy", 12.5),
    ("web-1", "cpu.idle", 80.0),
    ("web-1", "load.1min", 0.5),
    ("web-1", "mem.memused.percent", 40.0),
    ("web-1", "net.if.in.bits/iface=eth0", 1000.0),
    ("web-1", "net.if.in.bits/iface=eth1", 2000.0),
    ("web-1", "net.if.in.bitsy/iface=eth1", 3000.0),
    ("db-1", "cpu.idle", 75.0),
    ("db-1", "mem.memfree.percent", 30.0),
    ("db-1", "broken", 0.0),
];

impl UiData for Double {
    fn series_count(&self) -> u64 {
        COUNTERS.len() as u64
    }

    fn for_each_host(&self, visit: &mut dyn FnMut(&str, i64)) {
        visit("web-1", self.now - 10);
        visit("db-1", self.now - 4000);
    }

    fn for_each_counter(&self, host: &str, visit: &mut dyn FnMut(&str)) {
        COUNTERS.iter().rev().filter(|row| row.0 == host).for_each(|row| visit(row.1));
        if host == "many" {
            (0..100).for_each(|index| visit(&format!("m/i={index:03}")));
        }
    }

    /// The load of `web-1` has not come for an hour.
    fn last(&self, host: &str, counter: &str) -> Option<Point> {
        let (_, _, value) = COUNTERS.iter().find(|row| row.0 == host && row.1 == counter)?;
        let age = if host == "db-1" { 4000 } else { 10 } + if counter == "load.1min" { 3600 } else { 0 };
        Some(Point { time: self.now - age, value: *value })
    }

    fn history(
        &self,
        host: &str,
        counters: &[String],
        (from, to): (i64, i64),
        visit: &mut dyn FnMut(&str, Grid) -> bool,
    ) -> Result<(), String> {
        for counter in counters {
            if counter == "broken" {
                return Err("cannot read block/1.blk".to_string());
            }
            if host != "many" && !COUNTERS.iter().any(|row| row.0 == host && row.1 == counter) {
                continue;
            }
            let times = (from..=to).filter(|time| time % 60 == 0);
            let values = times.map(|time| (time, (time % 120 == 0).then_some(1.5))).collect();
            if !visit(counter, Grid { step: 60, values }) {
                break;
            }
        }
        Ok(())
    }
}

/// A router on the double and a fresh portal. `sig=good` is the only session.
async fn page(viewer: Viewer) -> Result<(Router, Portal, tempfile::TempDir)> {
    let dir = tempfile::tempdir()?;
    let portal = Portal::open(&dir.path().join("portal.db")).await?;
    let user_of: UserOf = Arc::new(|headers| {
        let good = headers.get("apitoken").is_some_and(|token| contains(token.as_bytes(), b"good"));
        Box::pin(async move { good.then(|| "root".to_string()) })
    });
    let ui = Ui { data: Arc::new(Double { now: unix_now() }), portal: portal.clone(), viewer, user_of };
    Ok((router(ui), portal, dir))
}

async fn ask(router: &Router, path: &str, headers: &[(&str, &str)]) -> Result<(StatusCode, HeaderMap, Vec<u8>)> {
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

#[test]
fn who_may_look_without_login() {
    let check = |viewer, peer: &str, uri: &str, headers: &[(&str, &str)], expected: bool| {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                axum::http::HeaderName::from_bytes(name.as_bytes()).expect("a header name"),
                HeaderValue::from_str(value).expect("a header value"),
            );
        }
        let peer = peer.parse().ok();
        let got = may_look_without_login(viewer, peer, &uri.parse().expect("a URI"), &map);
        assert_eq!(got, expected, "{viewer:?} {peer:?} {uri} {headers:?}");
    };
    let local = ("host", "127.0.0.1:8080");
    let v = Viewer::Loopback;
    check(v, "127.0.0.1", "/", &[local], true);
    check(v, "127.0.0.1", "/", &[("host", "localhost:8080")], true);
    check(v, "127.0.0.1", "/", &[("host", "LocalHost")], true);
    check(v, "127.9.9.9", "/", &[("host", "127.9.9.9:8080")], true);
    check(v, "::1", "/", &[("host", "[::1]:8080")], true);
    check(v, "::ffff:127.0.0.1", "/", &[local], true);
    check(v, "127.0.0.1", "/", &[local, ("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-origin")], true);
    check(v, "127.0.0.1", "/", &[local, ("sec-fetch-site", "none")], true);
    check(v, "127.0.0.1", "http://localhost:8080/", &[local], true);
    // Not from this machine, or unknown where from.
    check(v, "10.0.0.1", "/", &[local], false);
    check(v, "none", "/", &[local], false);
    // Through a proxy.
    check(v, "127.0.0.1", "/", &[local, ("x-forwarded-for", "10.0.0.1")], false);
    check(v, "127.0.0.1", "/", &[local, ("forwarded", "for=10.0.0.1")], false);
    check(v, "127.0.0.1", "/", &[local, ("x-real-ip", "10.0.0.1")], false);
    // Under a foreign name.
    check(v, "127.0.0.1", "/", &[("host", "evil.example:8080")], false);
    check(v, "127.0.0.1", "/", &[("host", "127.0.0.1.evil.example")], false);
    check(v, "127.0.0.1", "/", &[("host", "localhost.evil.example:8080")], false);
    check(v, "127.0.0.1", "/", &[("host", "localhost:80@evil.example")], false);
    check(v, "127.0.0.1", "/", &[], false);
    check(v, "127.0.0.1", "/", &[local, ("host", "evil.example")], false);
    check(v, "127.0.0.1", "http://evil.example/", &[local], false);
    // From another site's page.
    check(v, "127.0.0.1", "/", &[local, ("origin", "http://evil.example")], false);
    check(v, "127.0.0.1", "/", &[local, ("origin", "null")], false);
    check(v, "127.0.0.1", "/", &[local, ("sec-fetch-site", "cross-site")], false);
    check(v, "127.0.0.1", "/", &[local, ("sec-fetch-site", "same-site")], false);
    // The other two settings.
    check(Viewer::All, "10.0.0.1", "/", &[("host", "hawkeye.example")], true);
    check(Viewer::None, "127.0.0.1", "/", &[local], false);
}

#[tokio::test]
async fn without_permission_a_session_is_needed() -> Result<()> {
    let (router, _portal, _dir) = page(Viewer::Loopback).await?;
    for path in ["/ui/overview", "/ui/history?endpoint=web-1&counter=cpu.idle", "/ui/counters?endpoint=web-1"] {
        // The test's requests have no peer address: they count as coming from elsewhere.
        let (status, body) = ask_json(&router, path).await?;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        assert!(body["error"].as_str().is_some_and(|text| text.starts_with("not allowed: log in")), "{body}");
        let (status, ..) = ask(&router, path, &[("apitoken", r#"{"name":"root","sig":"bad"}"#)]).await?;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        let (status, ..) = ask(&router, path, &[("apitoken", r#"{"name":"root","sig":"good"}"#)]).await?;
        assert_eq!(status, StatusCode::OK, "{path}");
    }
    // The files themselves hold no secret: the login form is among them.
    assert_eq!(ask(&router, "/", &[]).await?.0, StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn a_local_peer_needs_no_session() -> Result<()> {
    let (router, _portal, _dir) = page(Viewer::Loopback).await?;
    let peer = SocketAddr::from(([127, 0, 0, 1], 40_000));
    let mut request = HttpRequest::builder().uri("/ui/overview").header("host", "localhost:8080").body(Body::empty())?;
    request.extensions_mut().insert(ConnectInfo(peer));
    assert_eq!(router.oneshot(request).await?.status(), StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn files_have_types_tags_and_a_strict_policy() -> Result<()> {
    let (router, _portal, _dir) = page(Viewer::None).await?;
    for (path, content_type) in [("/", "text/html"), ("/ui/style.css", "text/css"), ("/ui/icon.svg", "image/svg+xml")]
        .into_iter()
        .chain(FILES.iter().filter(|file| file.path.ends_with(".js")).map(|file| (file.path, "text/javascript")))
    {
        let (status, headers, body) = ask(&router, path, &[]).await?;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert!(headers["content-type"].to_str()?.starts_with(content_type), "{path}: {headers:?}");
        assert!(headers["content-security-policy"].to_str()?.starts_with("default-src 'self';"), "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["cache-control"], "no-cache", "{path}");
        assert!(!body.is_empty(), "{path}");
        let tag = headers["etag"].to_str()?;
        let (status, headers, body) = ask(&router, path, &[("if-none-match", tag)]).await?;
        assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0), "{path}");
        assert_eq!(headers["etag"], tag, "{path}");
        assert_eq!(ask(&router, path, &[("if-none-match", "\"old\"")]).await?.0, StatusCode::OK, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn overview_names_hosts_and_open_alarms() -> Result<()> {
    let (router, portal, _dir) = page(Viewer::All).await?;
    let insert = "INSERT INTO alarms.event_cases (id, endpoint, metric, func, cond, note, priority, status, timestamp, update_at) \
                  VALUES (?, 'db-1', 'df.bytes.free.percent/mount=/', ?, '3 < 5', 'disk full', 1, ?, ?, ?)";
    for (id, func, status, began, updated) in [
        ("s_1_a", Some("all(#3)"), "PROBLEM", "2026-01-31 12:00:00", "2026-01-31 12:10:00"),
        ("s_2_b", Some("all(#3)"), "OK", "2026-01-31 12:00:00", "2026-01-31 12:30:00"),
        ("s_3_c", None, "PROBLEM", "yesterday", "2026-01-31 12:20:00"),
    ] {
        query(insert).bind(id).bind(func).bind(status).bind(began).bind(updated).execute(&portal).await?;
    }
    let (status, body) = ask_json(&router, "/ui/overview").await?;
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
    let alarm = |id: &str, func: &str, since: Option<i64>| {
        json!({"id": id, "priority": 1, "status": "PROBLEM", "endpoint": "db-1", "counter": "df.bytes.free.percent/mount=/",
               "func": func, "cond": "3 < 5", "note": "disk full", "since": since})
    };
    assert_eq!(body["alarms"], json!([alarm("s_3_c", "", None), alarm("s_1_a", "all(#3)", Some(began))]));
    assert_eq!(body["alarms_total"], 2);
    Ok(())
}

#[tokio::test]
async fn more_alarms_than_listed_are_counted() -> Result<()> {
    let (router, portal, _dir) = page(Viewer::All).await?;
    let insert = "INSERT INTO alarms.event_cases (id, endpoint, metric, cond, priority, status, timestamp, update_at) \
                  SELECT 's_' || i, 'e', 'm', '1 > 0', 0, 'PROBLEM', '2026-01-31 12:00:00', '2026-01-31 12:00:00'";
    fill(&portal, insert, 250).await?;
    let (_, body) = ask_json(&router, "/ui/overview").await?;
    assert_eq!(body["alarms"].as_array().map(Vec::len), Some(200));
    assert_eq!(body["alarms_total"], 250);
    Ok(())
}

#[tokio::test]
async fn overview_finds_hosts_by_part_of_their_name() -> Result<()> {
    let (router, _portal, _dir) = page(Viewer::All).await?;
    let (_, body) = ask_json(&router, "/ui/overview?q=WEB").await?;
    assert_eq!(json!([body["hosts_total"], body["hosts_matched"], body["hosts"][0]["name"]]), json!([2, 1, "web-1"]));
    Ok(())
}

#[test]
fn the_first_hosts_by_name_are_listed() {
    struct Many;
    impl UiData for Many {
        fn series_count(&self) -> u64 {
            0
        }
        fn for_each_host(&self, visit: &mut dyn FnMut(&str, i64)) {
            (0..HOSTS_MAX + 500).rev().for_each(|index| visit(&format!("h{index:05}"), 1000));
        }
        fn for_each_counter(&self, _: &str, _: &mut dyn FnMut(&str)) {}
        fn last(&self, _: &str, _: &str) -> Option<Point> {
            None
        }
        fn history(
            &self,
            _: &str,
            _: &[String],
            _: (i64, i64),
            _: &mut dyn FnMut(&str, Grid) -> bool,
        ) -> Result<(), String> {
            Ok(())
        }
    }
    let found = find_hosts(&Many, "", 1000 + SILENT_AFTER_S);
    assert_eq!((found.hosts_total, found.hosts_reporting, found.hosts_matched), (2500, 2500, 2500));
    let names: Vec<&str> = found.hosts.iter().map(|host| host.name.as_str()).collect();
    assert_eq!((names.len(), names[0], names[HOSTS_MAX - 1]), (HOSTS_MAX, "h00000", "h01999"));
    assert_eq!(find_hosts(&Many, "", 1001 + SILENT_AFTER_S).hosts_reporting, 0);
}

#[tokio::test]
async fn history_of_named_and_wildcard_counters() -> Result<()> {
    let (router, _portal, _dir) = page(Viewer::All).await?;
    let path =
        "/ui/history?endpoint=web-1&counter=cpu.idle&counter=net.if.in.bits/*&counter=absent&start=1200&end=1320";
    let (status, body) = ask_json(&router, path).await?;
    let values = json!([[1200, 1.5], [1260, null], [1320, 1.5]]);
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
    let (_, body) = ask_json(&router, "/ui/history?endpoint=many&counter=m/*&start=0&end=60").await?;
    assert_eq!(body.as_array().map(Vec::len), Some(WILDCARD_SERIES_MAX));
    assert_eq!(body[31]["counter"], "m/i=031");
    Ok(())
}

#[test]
fn history_without_times_is_the_last_hour() {
    let pairs = vec![("endpoint".to_string(), "h".to_string()), ("counter".to_string(), "c".to_string())];
    let query = HistoryQuery::parse(pairs, 10_000).expect("valid");
    assert_eq!((query.start, query.end), (6_400, 10_000));
}

#[tokio::test]
async fn wrong_requests_name_the_field() -> Result<()> {
    let (router, _portal, _dir) = page(Viewer::All).await?;
    let many = "&counter=c".repeat(HISTORY_COUNTERS_MAX + 1);
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
        ("/ui/history?endpoint=many&counter=m/*&start=0&end=400000", "more than 65536 points"),
        ("/ui/counters?q=c", "endpoint is missing"),
        ("/ui/counters?endpoint=e&page=2", "unknown parameter page"),
    ] {
        let (status, body) = ask_json(&router, path).await?;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {body}");
        assert!(body["error"].as_str().is_some_and(|text| text.contains(part)), "{path}: {body}");
    }
    let (status, body) = ask_json(&router, "/ui/history?endpoint=db-1&counter=broken").await?;
    assert_eq!((status, &body["error"]), (StatusCode::INTERNAL_SERVER_ERROR, &json!("cannot read block/1.blk")));
    Ok(())
}

#[tokio::test]
async fn counters_of_a_host_by_part_of_their_text() -> Result<()> {
    let (router, _portal, _dir) = page(Viewer::All).await?;
    let (_, body) = ask_json(&router, "/ui/counters?endpoint=web-1&q=IFACE=eth1").await?;
    let expected = ["net.if.in.bits/iface=eth1", "net.if.in.bitsy/iface=eth1"];
    assert_eq!(body, json!({"total": 2, "counters": expected}));
    let (_, body) = ask_json(&router, "/ui/counters?endpoint=nobody").await?;
    assert_eq!(body, json!({"total": 0, "counters": []}));
    Ok(())
}

fn file(name: &str) -> &'static str {
    FILES.iter().find(|file| file.path.ends_with(name)).map_or("", |file| file.body)
}

/// What index.html, style.css and the modules refer to is served, and nothing comes from another host.
#[test]
fn the_page_refers_to_its_own_files_only() {
    let mut imports = 0;
    for source in &FILES {
        let own = source.body.replace("http://www.w3.org/2000/svg", "");
        assert!(!own.contains("http://") && !own.contains("https://"), "{} refers to another host", source.path);
        for part in own.split("from \"./").skip(1).chain(own.split("=\"ui/").skip(1)) {
            let name = part.split('"').next().unwrap_or_default();
            assert!(FILES.iter().any(|file| file.path == format!("/ui/{name}")), "{}: no file {name}", source.path);
            imports += 1;
        }
    }
    assert!(imports >= FILES.len(), "the search found only {imports} references");
}

/// Both languages have the same texts with the same gaps, and the modules use each of them.
#[test]
fn both_languages_say_the_same() {
    let texts = file("/i18n.js");
    let (_, texts) = texts.split_once("\n  en: {").expect("English");
    let (english, rest) = texts.split_once("\n  zh: {").expect("Chinese");
    let (chinese, _) = rest.split_once("\n};").expect("the end");
    let read = |part: &'static str| -> BTreeSet<(String, Vec<String>)> {
        let lines = part.lines().filter_map(|line| line.trim().split_once(": \""));
        let gaps = |text: &str| {
            let mut gaps: Vec<String> =
                text.split('{').skip(1).filter_map(|gap| Some(gap.split_once('}')?.0.to_string())).collect();
            gaps.sort();
            gaps
        };
        lines.map(|(key, text)| (key.to_string(), gaps(text))).collect()
    };
    let (english, chinese) = (read(english), read(chinese));
    assert_eq!(english, chinese);
    assert!(english.len() > 50, "the search found only {} texts", english.len());
    let code: String = FILES.iter().filter(|file| file.path != "/ui/i18n.js").map(|file| file.body).collect();
    for (key, _) in &english {
        let composed = ["chart_", "range_"].iter().any(|prefix| key.starts_with(prefix));
        assert!(composed || code.contains(&format!("\"{key}\"")), "nobody uses the text {key}");
    }
}

/// The page's own tests, where node is there to run them.
#[test]
fn functions_of_the_page() -> Result<()> {
    let web = concat!(env!("CARGO_MANIFEST_DIR"), "/../../web");
    let output = match std::process::Command::new("node").arg("tests.mjs").current_dir(web).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: node is not installed, web/tests.mjs was not run");
            return Ok(());
        }
        output => output.context("starting node")?,
    };
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("stacks: ok"), "{text}");
    Ok(())
}
