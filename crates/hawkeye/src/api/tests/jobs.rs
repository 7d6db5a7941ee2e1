//! Jobs over REST: the token is shown twice at most, opens only its heartbeats, and what is wrong is told.

use super::site;
use anyhow::{Context, Result};
use serde_json::{Value, json};

#[tokio::test]
async fn a_job_reports_by_its_token() -> Result<()> {
    let site = site(|_| {}).await?;
    let new = json!({ "name": "backup", "period": 86_400, "grace": 60, "tags": "db=main" });
    let (status, made) = site.ask("alice", "POST /job", new.clone()).await?;
    assert_eq!(status, 200, "{made}");
    let token = made["token"].as_str().context("a token")?.to_string();
    let again = "a job named \"backup\" exists already";
    site.check("alice", "POST /job", new.clone(), 417, again).await?;

    let beat =
        async |end: &str, body: &str| site.send(&format!("POST /heartbeat/{token}{end}"), &[], body.into()).await;
    assert_eq!(beat("/start", "").await?, (200, json!({ "job": "backup", "state": "running" })));
    assert_eq!(beat("/2", "disk\nfull").await?, (200, json!({ "job": "backup", "state": "failed" })));
    let (_, shown) = site.ask("bob", "GET /job/1", Value::Null).await?;
    assert_eq!(shown["reason"], "exit code 2: disk full");
    assert!(!shown.to_string().contains(&token), "{shown}");
    assert_eq!(beat("", "").await?.1["state"], "up");
    assert_eq!(beat("/stop", "").await?.0, 400);
    for line in [format!("GET /heartbeat/{token}"), format!("HEAD /heartbeat/{token}")] {
        let (status, _) = site.send_for_text(&line, &[], String::new()).await?;
        assert_eq!(status, 404, "{line}: a preview of a link must not report a backup");
    }

    let denied = site.ask("bob", "PUT /job/1/token", Value::Null).await?;
    assert_eq!(denied.0, 400, "{denied:?}");
    let (_, renewed) = site.ask("alice", "PUT /job/1/token", Value::Null).await?;
    assert_eq!(beat("", "").await?.0, 404, "the old token");
    let renewed = renewed["token"].as_str().context("a token")?.to_string();
    assert_eq!(site.send(&format!("POST /heartbeat/{renewed}"), &[], String::new()).await?.0, 200);

    let (_, audit) = site.ask("root", "GET /audit?subject=job:1", Value::Null).await?;
    let lines: Vec<&str> = audit.as_array().into_iter().flatten().filter_map(|row| row["action"].as_str()).collect();
    assert_eq!(lines, ["PUT /job/{id}/token", "POST /job"], "heartbeats are no changes");
    assert!(![&token, &renewed].iter().any(|token| audit.to_string().contains(*token)), "{audit}");

    let paused = json!({ "name": "backup", "period": 86_400, "pause": true });
    assert_eq!(site.ask("alice", "PUT /job/1", paused).await?.0, 200);
    assert_eq!(site.ask("alice", "GET /job/1", Value::Null).await?.1["state"], "paused");
    assert_eq!(site.ask("alice", "PUT /job/1", new).await?.0, 200);
    let (_, resumed) = site.ask("alice", "GET /job/1", Value::Null).await?;
    assert!(resumed["resumed_at"].as_i64() > Some(0) && resumed["state"] == "up", "{resumed}");
    assert_eq!(site.ask("alice", "DELETE /job/1", Value::Null).await?.0, 200);
    assert_eq!(site.send(&format!("POST /heartbeat/{renewed}"), &[], String::new()).await?.0, 404);
    Ok(())
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once() -> Result<()> {
    let site = site(|_| {}).await?;
    let (status, answer) =
        site.ask("alice", "POST /job", json!({ "name": "a b", "period": 5, "grace": -1, "perod": 9 })).await?;
    let text = answer.to_string();
    assert_eq!(status, 400, "{text}");
    for part in ["name", "period is 5", "grace is -1", "perod is no key of a job"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    Ok(())
}

#[tokio::test]
async fn who_guesses_tokens_is_shut_out_for_a_minute() -> Result<()> {
    let site = site(|_| {}).await?;
    let mut last = 0;
    for _ in 0..61 {
        last = site.send("POST /heartbeat/hj_none", &[], String::new()).await?.0;
    }
    assert_eq!(last, 429);
    // Whoever has a right one shares the address with strangers.
    let (_, made) = site.ask("alice", "POST /job", json!({ "name": "backup", "period": 60 })).await?;
    let path = format!("POST /heartbeat/{}", made["token"].as_str().expect("a token"));
    assert_eq!(site.send(&path, &[], String::new()).await?.0, 200);
    Ok(())
}
