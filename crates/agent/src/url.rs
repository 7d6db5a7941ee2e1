//! url.check.health: 1 when a HEAD request is answered with 200, else 0.
//!
//! How: each check is a probe of the crate `netprobe`, by an agent's policy.
//! Compat: a check is what `curl -I -m TIMEOUT` does: no redirects are followed, certificates are checked, `http://` is
//! assumed where a URL has no scheme. `http_proxy` and its like are not obeyed (docs/compat.md). Tags as the original
//! builds them: url, timeout, src.
//! Memory: the system's authorities while a round lasts that needs them; bodies are never read.

use model::tags::canonical_string;
use netprobe::{Definition, Http, Kind, Means, Policy, Protocol};
use probe::{Reading, UrlCheck};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Checks at a time; a guess: enough that a few that time out do not delay the others beyond an interval.
const PARALLEL_MAX: usize = 16;
/// The longest timeout of a check (milliseconds): longer ones would overlap with the next round; 0, "for ever" to curl,
/// counts as this.
const TIMEOUT_MAX_MS: u32 = 60_000;

/// Checks URLs, some at a time; a check that fails is a reading, too.
pub async fn collect(checks: &[UrlCheck], hostname: &str) -> Vec<Reading> {
    let (mut running, mut out) = (JoinSet::new(), Vec::new());
    if checks.is_empty() {
        return out;
    }
    let ground = Arc::new((Policy::agent(), Means::default()));
    for check in checks {
        if running.len() == PARALLEL_MAX {
            out.extend(running.join_next().await.and_then(Result::ok));
        }
        let tags = format!("url={},timeout={},src={hostname}", check.url, check.timeout_s);
        let (ground, definition) = (ground.clone(), definition(check));
        running.spawn(async move {
            let is_healthy = netprobe::run(&definition, &ground.0, &ground.1).await.up;
            Reading::gauge("url.check.health", &canonical_string(&tags), f64::from(u8::from(is_healthy)))
        });
    }
    while let Some(reading) = running.join_next().await {
        out.extend(reading.ok());
    }
    out
}

/// A check as a probe.
fn definition(check: &UrlCheck) -> Definition {
    let timeout_ms = match check.timeout_s {
        0 => TIMEOUT_MAX_MS,
        seconds => seconds.saturating_mul(1000).min(TIMEOUT_MAX_MS),
    };
    let http = Http { method: "HEAD".into(), status: "200".into(), protocol: Protocol::One, ..Http::default() };
    Definition {
        name: "url.check.health".into(),
        target: if check.url.contains("://") { check.url.clone() } else { format!("http://{}", check.url) },
        // No runner looks at it: a check is part of a report.
        step: TIMEOUT_MAX_MS / 1000,
        timeout_ms,
        tags: BTreeMap::new(),
        kind: Kind::Http(Box::new(http)),
    }
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
        for (status, expected) in [("200 OK", 1.0), ("204 No Content", 0.0), ("302 Found", 0.0), ("500 Oh", 0.0)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("free port");
            let url = format!("{}/x?a=b", listener.local_addr().expect("bound"));
            let checks = [UrlCheck { url: url.clone(), timeout_s: 5 }];
            let (readings, request) = tokio::join!(collect(&checks, "h"), serve_once(listener, status));
            assert_eq!(readings[0].value, expected, "{status}");
            assert_eq!(readings[0].tags, format!("src=h,timeout=5,url={url}"));
            assert!(request.starts_with("HEAD /x?a=b HTTP/1.1"), "{request}");
        }
    }

    #[tokio::test]
    async fn nobody_there_and_nonsense_are_not_healthy() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("free port");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        drop(listener);
        let checks = [UrlCheck { url, timeout_s: 2 }, UrlCheck { url: "::".into(), timeout_s: 2 }];
        let values: Vec<f64> = collect(&checks, "h").await.iter().map(|reading| reading.value).collect();
        assert_eq!(values, [0.0, 0.0]);
    }
}
