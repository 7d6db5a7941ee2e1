//! Signals: SIGINT, SIGTERM and SIGHUP, of which the first asks for an orderly end and the second ends the process at
//! once. While a process starts the first ends it at once too.
//!
//! Why at once: whoever asks twice does not want to wait, and a start that reads a long log has accepted nothing yet.
//! Nothing that was answered is lost by that, since an answer leaves after what it confirms is on the disk.

use crate::log;
use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The exit status of a process that a signal has ended at once; shells use it for SIGINT.
const AT_ONCE: i32 = 130;

/// The signals that ask a process to stop.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

/// The start of a process, which any signal ends at once.
pub struct Starting {
    over: oneshot::Sender<()>,
    waiting: JoinHandle<Signals>,
}

impl Signals {
    /// Takes the signals over; from now on they end nothing by themselves.
    pub fn new() -> Result<Signals> {
        let interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
        let terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
        let hangup = signal(SignalKind::hangup()).context("cannot handle SIGHUP")?;
        Ok(Signals { interrupt, terminate, hangup })
    }

    /// Returns when the process is asked to stop.
    pub async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }

    /// Has a signal end the process at once until [`Starting::over`].
    pub fn end_at_once_while_starting(mut self) -> Starting {
        let (over, is_over) = oneshot::channel();
        let waiting = tokio::spawn(async move {
            tokio::select! {
                () = self.asked() => end_at_once(),
                _ = is_over => self,
            }
        });
        Starting { over, waiting }
    }

    /// Ends the process when it is asked again, whatever it does then.
    pub fn end_at_once_when_asked_again(mut self) {
        tokio::spawn(async move {
            self.asked().await;
            end_at_once();
        });
    }
}

fn end_at_once() -> ! {
    log::flush();
    std::process::exit(AT_ONCE)
}

impl Starting {
    /// Gives the signals back: from now on the first asks for an orderly end.
    pub async fn over(self) -> Signals {
        // Refused only by a task that has ended the process.
        let _ = self.over.send(());
        self.waiting.await.expect("the task that waits for signals does not panic")
    }
}
