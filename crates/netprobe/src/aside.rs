//! Aside: calls of the system that may hang, each on a thread of its own, only so many at once.
//!
//! Why not the runtime's blocking threads: an agent has few, and its collectors need them. A resolver without a server
//! or a program on a dead mount would hold them all; here what hangs holds up only its own kind.
//! Invariants: who gives up leaves the call its turn until it ends.
//! Memory: a stack of [`STACK_BYTES`] per call that goes on, of which the system touches a part.

use crate::outcome::{Code, Reason};
use std::sync::Arc;
use tokio::sync::{Semaphore, oneshot};

/// Stack of a call: glibc's resolver and its modules ask for up to 64 KiB at once, and call each other.
const STACK_BYTES: usize = 512 << 10;

/// Turns for one kind of call; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Aside {
    name: &'static str,
    turns: Arc<Semaphore>,
}

impl Aside {
    /// Calls of this name, as their threads are called, at most `count` at a time.
    pub fn new(name: &'static str, count: usize) -> Aside {
        Aside { name, turns: Arc::new(Semaphore::new(count)) }
    }

    /// What the call gives, when its turn has come.
    pub async fn call<T: Send + 'static>(&self, call: impl FnOnce() -> T + Send + 'static) -> Result<T, Reason> {
        let turn = self.turns.clone().acquire_owned().await.expect("nobody closes it");
        let (tell, told) = oneshot::channel();
        let thread = move || {
            // Who asked may have given up meanwhile.
            let _ = tell.send(call());
            drop(turn);
        };
        let name = self.name;
        let started = std::thread::Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(thread);
        started.map_err(|error| Reason::new(Code::Local, format!("cannot start a thread to {name}: {error}")))?;
        told.await.map_err(|_| Reason::new(Code::Local, format!("a thread to {name} has failed")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_gives_up_keeps_no_turn() {
        let aside = Aside::new("test", 2);
        for _ in 0..10 {
            drop(aside.call(|| ()));
        }
        let calls: Vec<_> = (0..10)
            .map(|i| {
                let aside = aside.clone();
                tokio::spawn(async move { aside.call(move || i).await })
            })
            .collect();
        for (i, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.expect("no panic"), Ok(i));
        }
    }

    #[tokio::test]
    async fn a_call_that_panics_is_a_failure_and_gives_its_turn_back() {
        let aside = Aside::new("test", 1);
        let failed: Result<(), Reason> = aside.call(|| panic!("meant to")).await;
        assert!(failed.is_err_and(|reason| reason.code == Code::Local));
        assert_eq!(aside.call(|| 5).await, Ok(5));
    }
}
