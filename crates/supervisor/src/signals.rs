//! Signals: SIGINT and SIGTERM, of which the first asks for an orderly end and the second ends the process at once.
//!
//! Why at once: whoever asks twice does not want to wait. Nothing that was answered is lost by that, since an answer leaves
//! after what it confirms is on the disk.

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The exit status of a process that was ended by a second signal; shells use it for SIGINT.
const ASKED_AGAIN: i32 = 130;

/// The signals that ask a process to stop.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the two signals over; from now on they end nothing by themselves.
    pub fn new() -> Result<Signals> {
        let interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
        let terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
        Ok(Signals { interrupt, terminate })
    }

    /// Returns when the process is asked to stop.
    pub async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Ends the process when it is asked again, whatever it does then.
    pub fn end_at_once_when_asked_again(mut self) {
        tokio::spawn(async move {
            self.asked().await;
            std::process::exit(ASKED_AGAIN);
        });
    }
}
