//! url.check.health: 1 when a HEAD request is answered with 200, else 0.
//!
//! Compat: a check is what `curl -I -m TIMEOUT` does: no redirects are followed, certificates are checked, `http_proxy`
//! and its like are obeyed, `http://` is assumed where a URL has no scheme. Tags as the original builds them: url,
//! timeout, src.
//! Memory: a client only while there are URLs to check; bodies are never read.

use anyhow::{Context, Result};
use model::tags::canonical_string;
use probe::{Reading, UrlCheck};
use reqwest::{Client, StatusCode, redirect};
use std::time::Duration;
use tokio::task::JoinSet;

/// Checks at a time; a guess: enough that a few that time out do not delay the others beyond an interval.
const PARALLEL_MAX: usize = 16;
/// The longest timeout of a check: longer ones would overlap with the next round; 0, "for ever" to curl, counts as
/// this.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Makes the HTTP client of the checks: no redirects, no connection that is kept.
pub fn client() -> Result<Client> {
    // An error says that the server in the same process has set a provider before; then that one is used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder().redirect(redirect::Policy::none()).pool_max_idle_per_host(0);
    builder.build().context("cannot start the HTTP client for url.check.health")
}

/// Checks URLs, some at a time; a check that fails is a reading, too.
pub async fn collect(client: &Client, checks: &[UrlCheck], hostname: &str) -> Vec<Reading> {
    let (mut running, mut out) = (JoinSet::new(), Vec::new());
    for check in checks {
        if running.len() == PARALLEL_MAX {
            out.extend(running.join_next().await.and_then(Result::ok));
        }
        let tags = format!("url={},timeout={},src={hostname}", check.url, check.timeout_s);
        let (client, check) = (client.clone(), check.clone());
        running.spawn(async move {
            let is_healthy = is_healthy(&client, &check).await;
            Reading::gauge("url.check.health", &canonical_string(&tags), f64::from(u8::from(is_healthy)))
        });
    }
    while let Some(reading) = running.join_next().await {
        out.extend(reading.ok());
    }
    out
}

async fn is_healthy(client: &Client, check: &UrlCheck) -> bool {
    let url = if check.url.contains("://") { check.url.clone() } else { format!("http://{}", check.url) };
    let timeout = match check.timeout_s {
        0 => TIMEOUT_MAX,
        seconds => Duration::from_secs(u64::from(seconds)).min(TIMEOUT_MAX),
    };
    let answer = client.head(url).timeout(timeout).send().await;
    answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers one request with `status`; returns what was asked.
    async fn serve_once(listener: TcpListener, status: &'static str) -> String {
        let (mut stream, _) = listener.accept().await.expect("connection");
        let mut request = vec![0; 4096];
        let read = stream.read(&mut request).await.expect("request");
        let answer = format!("HTTP/1.1 {status}\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.expect("answer");
        String::from_utf8_lossy(&request[..read]).into_owned()
    }

    #[tokio::test]
    async fn only_200_is_healthy() {
        let client = client().expect("client");
        for (status, expected) in [("200 OK", 1.0), ("204 No Content", 0.0), ("302 Found", 0.0), ("500 Oh", 0.0)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("free port");
            let url = format!("{}/x?a=b", listener.local_addr().expect("bound"));
            let checks = [UrlCheck { url: url.clone(), timeout_s: 5 }];
            let (readings, request) = tokio::join!(collect(&client, &checks, "h"), serve_once(listener, status));
            assert_eq!(readings[0].value, expected, "{status}");
            assert_eq!(readings[0].tags, format!("src=h,timeout=5,url={url}"));
            assert!(request.starts_with("HEAD /x?a=b HTTP/1.1"), "{request}");
        }
    }

    #[tokio::test]
    async fn nobody_there_and_nonsense_are_not_healthy() {
        let client = client().expect("client");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("free port");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        drop(listener);
        let checks = [UrlCheck { url, timeout_s: 2 }, UrlCheck { url: "::".into(), timeout_s: 2 }];
        let values: Vec<f64> = collect(&client, &checks, "h").await.iter().map(|reading| reading.value).collect();
        assert_eq!(values, [0.0, 0.0]);
    }
}
