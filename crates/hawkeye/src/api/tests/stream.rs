//! Streams: what their readers are told, and when they end.

use super::tokens::make;
use super::{Site, router, site};
use crate::portal::db::query;
use crate::portal::{alarm, group, host, user};
use anyhow::{Context as _, Result, bail, ensure};
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;
use tower::ServiceExt;

/// A stream that is being read.
struct Reader {
    body: Body,
    text: String,
}

impl Reader {
    async fn open(site: &Site, path: &str) -> Result<Reader> {
        Reader::open_with(site, path, ("apitoken", site.token("alice").await?)).await
    }

    async fn open_with(site: &Site, path: &str, header: (&str, String)) -> Result<Reader> {
        let request = Request::builder().uri(format!("/api/v1{path}")).header(header.0, header.1);
        let response = site.router.clone().oneshot(request.body(Body::empty())?).await?;
        ensure!(response.status() == 200, "{}", response.status());
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        let mut reader = Reader { body: response.into_body(), text: String::new() };
        assert_eq!(reader.next().await?.1, "open");
        Ok(reader)
    }

    /// The id, the event and the data of the next message; comments are passed over.
    async fn next(&mut self) -> Result<(String, String, Value)> {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let message: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| message.lines().find_map(|line| line.strip_prefix(name).map(str::to_string));
                if let (Some(id), Some(event), Some(data)) = (field("id: "), field("event: "), field("data: ")) {
                    return Ok((id, event, serde_json::from_str(&data)?));
                }
            }
            let frame = timeout(Duration::from_secs(60), self.body.frame()).await.context("a message in a minute")?;
            let Some(frame) = frame else { bail!("the stream has ended") };
            self.text += std::str::from_utf8(frame?.data_ref().context("data")?)?;
        }
    }
}

async fn event(site: &Site, case: &str) -> Result<()> {
    let portal = &site.context.portal;
    for sql in [
        "INSERT INTO alarms.event_cases (id, endpoint, metric, cond, priority, status, timestamp)
         VALUES (?, 'web-01', 'cpu.idle', '1 < 2', 0, 'PROBLEM', '2020-01-01 00:00:00')",
        "INSERT INTO alarms.events (event_caseId, cond, status, timestamp) VALUES (?, '1 < 2', 0, '2020-01-01 00:00:00')",
    ] {
        query(sql).bind(case).execute(portal).await?;
    }
    portal.announce_alarms();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alarms_and_notes_are_told_in_order_and_a_new_stream_goes_on() -> Result<()> {
    let site = site(|_| {}).await?;
    event(&site, "before").await?;
    let mut reader = Reader::open(&site, "/alarm/stream").await?;
    event(&site, "first").await?;
    let (first, kind, data) = reader.next().await?;
    assert_eq!(
        (kind.as_str(), &data["case"]["id"], &data["event"]["cond"]),
        ("alarm", &json!("first"), &json!("1 < 2"))
    );
    let note = json!({ "event_id": "first", "note": "mine", "status": "in progress" });
    assert_eq!(site.ask("bob", "POST /alarm/event_note", note).await?.0, 200);
    let (_, kind, data) = reader.next().await?;
    assert_eq!((kind.as_str(), &data["user"], &data["note"]), ("note", &json!("bob"), &json!("mine")));
    drop(reader);
    event(&site, "meanwhile").await?;
    let mut again = Reader::open(&site, &format!("/alarm/stream?since={first}")).await?;
    let told = [again.next().await?.1, again.next().await?.1];
    assert_eq!(told, ["alarm", "note"], "what the first reader was told last, and what came while nobody read");
    let wrong = site.ask("alice", "GET /alarm/stream?since=yesterday", Value::Null).await?;
    assert_eq!(wrong.1["error"], "since is \"yesterday\": give the id of a message, like \"17-3\"");
    assert_eq!(site.ask("", "GET /alarm/stream", Value::Null).await?.0, 401);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_is_told_whole() -> Result<()> {
    let site = site(|_| {}).await?;
    let mut reader = Reader::open(&site, "/alarm/stream").await?;
    for number in 0..250 {
        event(&site, &format!("case {number}")).await?;
    }
    for number in 0..250 {
        assert_eq!(reader.next().await?.2["case"]["id"], format!("case {number}"));
    }
    let newest = alarm::newest(&site.context.portal).await?;
    assert_eq!(newest.event, 250);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_change_and_go_are_told() -> Result<()> {
    let site = site(|_| {}).await?;
    let portal = &site.context.portal;
    let group = group::create(portal, "g", "root").await?;
    let ids = group::replace_hosts(portal, group.id, &["a".into(), "b".into()]).await?.context("room")?;
    let mut reader = Reader::open(&site, "/host/stream").await?;
    let window = json!({ "hosts": ["a"], "maintain_begin": 1, "maintain_end": 4_000_000_000_u32 });
    assert_eq!(site.ask("root", "POST /host/maintain", window).await?.0, 200);
    let told = reader.next().await?;
    assert_eq!((told.1.as_str(), &told.2["hostname"]), ("host", &json!("a")));
    host::delete(portal, ids[1]).await?;
    let (_, kind, data) = reader.next().await?;
    assert_eq!((kind.as_str(), data), ("gone", json!({ "id": ids[1] })));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_ends_its_streams() -> Result<()> {
    let mut site = site(|_| {}).await?;
    let (stop, stopping) = tokio::sync::watch::channel(false);
    site.context.stopping = stopping;
    site.router = router(site.context.clone());
    let mut reader = Reader::open(&site, "/alarm/stream").await?;
    stop.send(true)?;
    assert!(reader.next().await.is_err_and(|error| error.to_string() == "the stream has ended"));
    Ok(())
}

/// What happens after a logout, or after a token or its user is gone, is told to nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_its_session_its_token_and_its_user() -> Result<()> {
    let site = site(|_| {}).await?;
    let session = site.token("bob").await?;
    let secret = make(&site, "alice", json!({ "name": "page", "scopes": ["read"] })).await?;
    let mut by_session = Reader::open_with(&site, "/alarm/stream", ("apitoken", session.clone())).await?;
    let mut by_token = Reader::open_with(&site, "/alarm/stream", ("authorization", format!("Bearer {secret}"))).await?;
    let mut of_user = Reader::open(&site, "/host/stream").await?;
    event(&site, "before").await?;
    assert_eq!((by_session.next().await?.1, by_token.next().await?.1), ("alarm".into(), "alarm".into()));
    assert_eq!(site.send("GET /user/logout", &[("apitoken", session)], String::new()).await?.0, 200);
    assert_eq!(site.ask("alice", "DELETE /token/1", Value::Null).await?.0, 200);
    let uid = user::by_name(&site.context.portal, "alice").await?.context("a user")?.id;
    assert_eq!(site.ask("root", "DELETE /admin/delete_user", json!({ "user_id": uid })).await?.0, 200);
    event(&site, "secret").await?;
    let group = group::create(&site.context.portal, "g", "root").await?;
    group::replace_hosts(&site.context.portal, group.id, &["a".into()]).await?.context("room")?;
    for reader in [&mut by_session, &mut by_token, &mut of_user] {
        let told = reader.next().await;
        assert!(told.as_ref().is_err_and(|error| error.to_string() == "the stream has ended"), "{told:?}");
    }
    Ok(())
}

/// A browser that reloads a page with all the streams a user may have gets them again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_its_reader_closes_gives_its_place_back_at_once() -> Result<()> {
    let site = site(|_| {}).await?;
    let header = ("apitoken", site.token("root").await?);
    let open = async || Reader::open_with(&site, "/alarm/stream", header.clone()).await;
    let mut readers = Vec::new();
    let refused = loop {
        match open().await {
            Ok(reader) => readers.push(reader),
            Err(error) => break error,
        }
    };
    assert_eq!((readers.len(), refused.to_string().as_str()), (32, "503 Service Unavailable"));
    readers.clear();
    // Far less than until the next comment.
    let again = timeout(Duration::from_secs(5), async {
        loop {
            if let Ok(reader) = open().await {
                return reader;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    again.await.context("a place")?;
    Ok(())
}
