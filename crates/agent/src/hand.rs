//! Hand: one thread for work of one kind that may hang.
//!
//! Why: a directory on a dead mount holds whoever looks at it, and whoever starts a program from it, for as long as it
//! is dead. The agent has one thread for everything else, which must never be held.
//! Invariants: one piece of work of a hand at a time; who waits for it, or for a turn, gives up at a time of their own.
//! Work that hangs keeps the turn until it ends, so it holds one thread, however often it is asked for again.

use std::sync::Arc;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

/// Turn for work that may hang; clones share it.
#[derive(Clone, Default)]
pub struct Hand(Arc<Mutex<()>>);

impl Hand {
    /// Runs `work` on a thread of its own; None when it is not done at `deadline`. What it answers later is dropped.
    pub async fn run<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let turn = timeout_at(deadline, self.0.clone().lock_owned()).await.ok()?;
        let work = tokio::task::spawn_blocking(move || {
            let out = work();
            drop(turn);
            out
        });
        timeout_at(deadline, work).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::patience::in_time;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[tokio::test]
    async fn work_that_hangs_holds_one_thread_and_nobody_who_waits() {
        let (release, hanging) = channel::<()>();
        let hand = Hand::default();
        let soon = || Instant::now() + Duration::from_millis(10);
        assert!(hand.run(soon(), move || hanging.recv()).await.is_none());
        for _ in 0..3 {
            assert_eq!(hand.run(soon(), || 1).await, None, "the turn is taken");
        }
        release.send(()).expect("it still waits");
        let later = Instant::now() + net::patience::PATIENCE;
        assert_eq!(in_time("the turn", hand.run(later, || 2)).await, Some(2));
    }
}
