//! Issued tokens: secrets of the portal with the scope `ingest`, which let senders in beside `ingest.token`.
//!
//! How: read when the portal announces a change, which the making and the deletion of a token are, and each
//! [`LOOK_EACH`], for tokens expire and users are blocked by themselves.
//! Invariants: while the portal cannot be read, those of before stay.

use crate::clock;
use crate::portal::{Portal, token};
use crate::watch::health::{Health, Outage};
use net::gate::Issued;
use std::time::Duration;
use supervisor::Supervisor;
use tokio::sync::watch;

/// Time between two looks.
const LOOK_EACH: Duration = Duration::from_secs(60);

/// Starts the part that keeps `issued` as the portal has it.
pub fn keep(parts: &mut Supervisor, issued: Issued, portal: Portal, health: &Health) {
    let outage = health.outage("the tokens of senders cannot be read; those of before stay");
    parts.start("reading the tokens of senders", |stop| async move {
        run(&issued, &portal, outage, stop.signal).await;
        Ok(())
    });
}

async fn run(issued: &Issued, portal: &Portal, outage: Outage, mut stopping: watch::Receiver<bool>) {
    let mut changes = portal.changes();
    loop {
        changes.borrow_and_update();
        match token::ingest_sums(portal, clock::now()).await {
            Ok(sums) => {
                outage.works();
                issued.replace(sums.into_iter().collect());
            }
            Err(error) => outage.fails(error.to_string()),
        }
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return,
            _ = changes.changed() => {}
            () = tokio::time::sleep(LOOK_EACH) => {}
        }
    }
}
