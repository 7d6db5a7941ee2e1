//! The certificate while the server runs: read anew when its files change, and told when it is of no use.
//!
//! How: the files are read every [`LOOK_EVERY`], which costs two reads of the page cache. What is of no use at two
//! looks in a row is no change half done, and is told in the log and by `/health` until it is mended.

use crate::clock;
use crate::watch::health::{Health, Reason};
use anyhow::{Context, Result};
use metrics::Metrics;
use net::tls::{Look, Tls};
use std::time::Duration;
use supervisor::Supervisor;
use tokio::sync::watch;

/// Time between two looks at the files; who renews a certificate does so weeks before its end.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Starts the part that looks after the certificate, if there is one.
pub fn keep(parts: &mut Supervisor, tls: &Option<Tls>, metrics: &Metrics, health: &Health) {
    let Some(tls) = tls.clone() else { return };
    let told = tls.clone();
    metrics.source(move |figures| {
        let text = "Unix time at which the certificate of [tls] expires";
        figures.gauge("tls_certificate_expires", text, told.not_after() as f64);
    });
    let (told, begin) = (tls.clone(), clock::now());
    health.source(move |reasons| {
        let since = told.not_after();
        if since < clock::now() {
            let why = "give tls.cert and tls.key a new pair; it is read without a restart".to_string();
            reasons.push(Reason { what: "the certificate of [tls] has expired", why, since });
        }
        if told.not_before() > clock::now() {
            let why = "give tls.cert and tls.key another pair, which is read without a restart, or set the clock right";
            let what = "the certificate of [tls] is not valid yet";
            reasons.push(Reason { what, why: why.to_string(), since: begin });
        }
    });
    let outage = health.outage("the files of [tls] are of no use; the certificate before them stays in use");
    parts.start("looking after the certificate", |stop| async move {
        let mut stopping: watch::Receiver<bool> = stop.signal;
        loop {
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return Ok(()),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            outage.begin();
            // A file system that hangs is told, and must not hold up the stop.
            let found = tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return Ok(()),
                found = look(tls.clone()) => found?,
            };
            match found {
                Look::Same => outage.works(),
                Look::Changed => {
                    outage.works();
                    tracing::info!("new connections get the new certificate of tls.cert");
                }
                Look::Unsettled => {}
                Look::Refused(why) => outage.fails(why),
            }
        }
    });
}

async fn look(tls: Tls) -> Result<Look> {
    tokio::task::spawn_blocking(move || tls.look(clock::now())).await.context("looking at the certificate")
}
