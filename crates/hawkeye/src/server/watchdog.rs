//! Watchdog: tells somebody outside, again and again, that this server would alarm.
//!
//! Why: a server that is dead says nothing, and neither does one whose alarms go nowhere. Whoever is told of its life
//! (a service that waits for signs of it, or the heartbeat of a job at another Hawkeye) notices when the signs end.
//! How: a POST without a body each `watchdog.interval`, while nothing vital fails ([`Health::vital_reasons`]): events
//! move, and alarm can store and send. Otherwise no sign goes out, and that is the message.
//! Invariants: a sign that cannot be sent is a reason in `/health`, and tried again at the next interval; the address,
//! which is a secret, is told by its host alone.

use crate::config::WatchdogConfig;
use crate::watch::health::{Health, Outage};
use anyhow::{Context, Result, ensure};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use std::time::Duration;
use supervisor::Supervisor;
use supervisor::causes::line_of;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Time for a sign of life as a whole.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before the first: a server that dies again and again at its start gives no sign.
const FIRST: Duration = Duration::from_secs(10);

/// Starts the part that gives signs of life, where somebody waits for them.
pub fn keep(parts: &mut Supervisor, config: &WatchdogConfig, health: &Health) -> Result<()> {
    let Some(url) = config.address() else { return Ok(()) };
    // An error says that there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder()
        .timeout(TIMEOUT)
        .redirect(Policy::none())
        .no_proxy()
        .user_agent(concat!("hawkeye/", env!("CARGO_PKG_VERSION")))
        .build()
        .context("cannot prepare the HTTP client of the watchdog")?;
    let outage = health.outage("watchdog.url does not take our signs of life");
    let (health, every) = (health.clone(), Duration::from_secs(config.interval.unsigned_abs()));
    parts.start("the watchdog", move |stop| async move {
        run(&client, &url, every, FIRST.min(every), &health, &outage, stop.signal).await;
        Ok(())
    });
    Ok(())
}

async fn run(
    client: &Client,
    url: &Url,
    every: Duration,
    first: Duration,
    health: &Health,
    outage: &Outage,
    mut stopping: watch::Receiver<bool>,
) {
    let mut ticks = interval_at(Instant::now() + first, every);
    // After a pause of the machine one sign is enough.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return,
            _ = ticks.tick() => {}
        }
        if health.vital_reasons().is_empty() {
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return,
                sent = send(client, url) => outage.note(sent),
            }
        }
    }
}

async fn send(client: &Client, url: &Url) -> Result<()> {
    let host = url.host_str().unwrap_or_default();
    let answer = client.post(url.clone()).send().await;
    let answer = answer.map_err(|error| anyhow::Error::msg(line_of(&error.without_url())));
    let status = answer.with_context(|| format!("no answer from {host}"))?.status();
    ensure!(status.is_success(), "{host} answers {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::post;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

    /// Whoever waits for signs of life, and the status that he answers.
    async fn listener() -> (Url, Arc<AtomicU64>, Arc<AtomicU16>) {
        let (heard, status) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU16::new(200)));
        let (counted, answered) = (heard.clone(), status.clone());
        let route = post(move || async move {
            counted.fetch_add(1, Ordering::Relaxed);
            StatusCode::from_u16(answered.load(Ordering::Relaxed)).expect("a status")
        });
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(socket, Router::new().route("/ping/secret", route)).await });
        (Url::parse(&format!("http://{address}/ping/secret")).expect("a URL"), heard, status)
    }

    async fn until(mut is_so: impl FnMut() -> bool) {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    #[tokio::test]
    async fn signs_come_while_alarms_would_and_failures_are_told() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (url, heard, status) = listener().await;
        let health = Health::default();
        let (outage, alarms) = (health.outage("watchdog"), health.vital_outage("events do not move"));
        let (_stop, stopping) = watch::channel(false);
        let (running, kept) = (health.clone(), outage.clone());
        tokio::spawn(async move {
            let tick = Duration::from_millis(5);
            run(&Client::new(), &url, tick, tick, &running, &kept, stopping).await;
        });
        until(|| heard.load(Ordering::Relaxed) > 2).await;
        assert_eq!(health.reasons(), []);
        status.store(404, Ordering::Relaxed);
        until(|| !health.reasons().is_empty()).await;
        let reason = health.reasons()[0].line();
        assert!(reason.contains("127.0.0.1 answers 404") && !reason.contains("secret"), "{reason}");
        status.store(200, Ordering::Relaxed);
        until(|| health.reasons().is_empty()).await;
        // Where nobody would hear of an alarm, nobody is told that all is well.
        alarms.fails("3 wait".to_string());
        tokio::time::sleep(Duration::from_millis(20)).await;
        let before = heard.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(heard.load(Ordering::Relaxed) <= before + 1);
        alarms.works();
        until(|| heard.load(Ordering::Relaxed) > before + 2).await;
    }
}
