//! Supervisor: the parts of a process, started in order, watched, and stopped in reverse order.
//!
//! Why: a server consists of some ten parts (doors, threads, loops, files to be closed), and each must be started after
//! what it uses, be missed when it dies, and end before what it uses. Written out by hand that is three lists which
//! have to agree; here it is one, in the order of the starts.
//! How: a part is a future with a name, a task of its own. [`Stop`] tells it when to end. [`Supervisor::ended`] names
//! the first part that ends before it was told to; [`Supervisor::stop`] tells the parts one by one, the last started
//! first, and waits for the end of each before it tells the next. A part that has a bound for its end keeps it by
//! itself. [`signals`] has the signals that stop a process.
//! Invariants: a part that returns, fails or panics is noticed, whichever it is; a fault while stopping keeps no other
//! part from its orderly end; the first fault is what the process ends with, and the others are logged.
//! The lines that a process writes for people are in [`log`], and [`causes`] writes an error as one.
//! Absent: restarts. A process without one of its parts is worse than one that is seen to be down.

pub mod causes;
pub mod log;
pub mod signals;

use anyhow::{Context, Error, Result, anyhow};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle};

/// The running parts of a process.
pub struct Supervisor {
    /// Parts in the order of their starts.
    parts: Vec<Part>,
    /// Held, so that `reports` does not end while parts come and go.
    reporter: mpsc::UnboundedSender<Error>,
    reports: mpsc::UnboundedReceiver<Error>,
}

struct Part {
    name: &'static str,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<()>>,
}

/// A part's side of its supervision.
pub struct Stop {
    /// Turns true when the part is to end.
    pub signal: watch::Receiver<bool>,
    reporter: mpsc::UnboundedSender<Error>,
}

impl Stop {
    /// Returns when the part is to end.
    pub async fn asked(&mut self) {
        // An error means that nobody is left to say stop, which is a stop too.
        let _ = self.signal.wait_for(|stop| *stop).await;
    }

    /// Reports that something within the part has ended by itself, for a part whose rest goes on until it is its turn.
    pub fn report(&self, fault: Error) {
        // Nobody listens while the process stops: its end has another reason then.
        let _ = self.reporter.send(fault);
    }
}

impl Default for Supervisor {
    fn default() -> Supervisor {
        let (reporter, reports) = mpsc::unbounded_channel();
        Supervisor { parts: Vec::new(), reporter, reports }
    }
}

impl Supervisor {
    /// Starts a part, which runs until its [`Stop`] says so.
    pub fn start<F>(&mut self, name: &'static str, part: impl FnOnce(Stop) -> F)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let (stop, signal) = watch::channel(false);
        let task = tokio::spawn(part(Stop { signal, reporter: self.reporter.clone() }));
        self.parts.push(Part { name, stop, task });
    }

    /// Adds what has only an end: a file to be synced, a database to be closed.
    pub fn at_end(&mut self, name: &'static str, end: impl Future<Output = Result<()>> + Send + 'static) {
        self.start(name, |mut stop| async move {
            stop.asked().await;
            end.await
        });
    }

    /// Adds an end that may wait for the disk, and has a thread for that.
    pub fn at_end_blocking(&mut self, name: &'static str, end: impl FnOnce() -> Result<()> + Send + 'static) {
        self.at_end(name, async move { tokio::task::spawn_blocking(end).await.context(name)? });
    }

    /// Returns why the first part ended that was not told to.
    pub async fn ended(&mut self) -> Error {
        poll_fn(|context| {
            if let Poll::Ready(Some(fault)) = self.reports.poll_recv(context) {
                return Poll::Ready(fault);
            }
            for index in 0..self.parts.len() {
                if let Poll::Ready(ended) = Pin::new(&mut self.parts[index].task).poll(context) {
                    return Poll::Ready(why(self.parts.remove(index).name, ended));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Stops all parts in the reverse order of their starts. The error is `first`, if there is one, or the first part's
    /// that did not end well.
    pub async fn stop(self, first: Option<Error>) -> Result<()> {
        let mut faults: Vec<Error> = first.into_iter().collect();
        for Part { name, stop, task } in self.parts.into_iter().rev() {
            stop.send_replace(true);
            let ended = task.await;
            if !matches!(ended, Ok(Ok(()))) {
                faults.push(why(name, ended));
            }
        }
        let mut faults = faults.into_iter();
        let first = faults.next();
        faults.for_each(|fault| tracing::error!(error = causes::line_of(&*fault), "while stopping"));
        first.map_or(Ok(()), Err)
    }
}

/// Error for a part that runs until it is told to stop and has ended otherwise.
fn why(name: &'static str, ended: Result<Result<()>, JoinError>) -> Error {
    match ended {
        Ok(Ok(())) => anyhow!("{name} ended by itself"),
        Ok(Err(error)) => error,
        Err(panicked) => Error::new(panicked).context(name),
    }
}

#[cfg(test)]
mod tests;
