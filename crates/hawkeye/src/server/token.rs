//! The token of `ingest.token_file` while the process runs: read anew when its file changes, and told when it is of no
//! use.
//!
//! How: the file is read every [`LOOK_EVERY`]. What is of no use at two looks in a row is no change half done, and is
//! told in the log and by `/health` until it is mended.
//! Invariants: the token before stays valid until there is another; who is connected stays so.

use crate::config::IngestConfig;
use crate::watch::health::Health;
use anyhow::Context;
use net::gate::Gate;
use settings::Secret;
use std::time::Duration;
use supervisor::Supervisor;
use tokio::sync::watch;

/// Time between two looks at the file.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Starts the part that looks after the file, if there is one; `secret` is what it held at the start.
pub fn keep(parts: &mut Supervisor, config: &IngestConfig, secret: Option<&Secret>, gate: &Gate, health: &Health) {
    let Some(secret) = secret.filter(|_| config.token.is_none()) else { return };
    let (config, gate, mut now) = (config.clone(), gate.clone(), secret.clone());
    let outage = health.outage("ingest.token_file is of no use; the token before it stays valid");
    parts.start("looking after the token", |stop| async move {
        let (mut stopping, mut was_useless): (watch::Receiver<bool>, bool) = (stop.signal, false);
        loop {
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return Ok(()),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let read = config.clone();
            outage.begin();
            // A file system that hangs is told, and must not hold up the stop.
            let read = tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return Ok(()),
                read = tokio::task::spawn_blocking(move || read.secret()) => read.context("looking at the token")?,
            };
            match read {
                Ok(secret) => {
                    if let Some(secret) = secret.filter(|secret| secret.text() != now.text()) {
                        gate.change(secret.text().as_bytes());
                        now = secret;
                        tracing::info!("senders show the new token of ingest.token_file from now on");
                    }
                    outage.works();
                    was_useless = false;
                }
                Err(error) if was_useless => outage.fails(format!("{error:#}")),
                Err(_) => was_useless = true,
            }
        }
    });
}
