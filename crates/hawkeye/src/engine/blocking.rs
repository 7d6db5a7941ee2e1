//! Blocking: queries and deletions of requests, on threads that may wait for the disk.
//!
//! Why not the runtime's `spawn_blocking`: a connection that is cut off leaves its thread behind, which would delete
//! from a store that is closed already. Threads that are started here are counted, and can be waited for.
//! Invariants: [`Engine::blocking_ended`] returns when all work that was started before has ended, also by a panic;
//! whoever calls it has closed the doors before, so that no more comes.
//! Memory: a count, and per thread at work what its closure holds.

use super::Engine;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

/// Number of threads at work.
pub type Running = watch::Sender<usize>;

/// One thread's part of the count.
struct Counted(Arc<Engine>);

impl Engine {
    /// Runs `work` on a thread that may wait for the disk. Nobody has to wait for it.
    pub fn spawn_blocking<T: Send + 'static>(
        self: &Arc<Engine>,
        work: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        self.blocking.send_modify(|running| *running += 1);
        let counted = Counted(self.clone());
        spawn_blocking(move || work(&counted.0))
    }

    /// Waits until no thread is at work.
    pub async fn blocking_ended(&self) {
        // The sender is a field of this engine, so it cannot end.
        let _ = self.blocking.subscribe().wait_for(|running| *running == 0).await;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.blocking.send_modify(|running| *running -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::patience::in_time;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::sync::mpsc::channel;
    use store::Store;

    fn engine(dir: &tempfile::TempDir) -> Arc<Engine> {
        let options = store::Options { dir: dir.path().to_path_buf(), ..store::Options::default() };
        let shards = options.shard_count;
        let (store, _) = Store::open(options, 0).expect("an empty directory");
        Arc::new(Engine::new(store, shards, judge::Options::default(), None))
    }

    #[tokio::test]
    async fn work_is_waited_for_when_nobody_wants_its_result() {
        let dir = tempfile::tempdir().expect("directory");
        let engine = engine(&dir);
        engine.blocking_ended().await;
        let (begins, has_begun) = tokio::sync::oneshot::channel();
        let (disk, disk_answers) = channel();
        let written = Arc::new(AtomicBool::new(false));
        let write = written.clone();
        let asking = engine.spawn_blocking(move |_| {
            begins.send(()).expect("the test waits for it");
            disk_answers.recv().expect("the disk answers");
            write.store(true, SeqCst);
        });
        in_time("the work", has_begun).await.expect("it runs");
        // The request that asked for it is cut off.
        asking.abort();
        drop(asking);
        let mut ended = Box::pin(engine.blocking_ended());
        tokio::select! {
            biased;
            () = &mut ended => panic!("the work still runs"),
            () = std::future::ready(()) => {}
        }
        disk.send(()).expect("the work");
        in_time("the end of the work", ended).await;
        assert!(written.load(SeqCst));
    }

    #[tokio::test]
    async fn work_that_panics_has_ended() {
        let dir = tempfile::tempdir().expect("directory");
        let engine = engine(&dir);
        let asking = engine.spawn_blocking(|_| panic!("as the test wants"));
        engine.blocking_ended().await;
        asking.await.expect_err("it panicked");
    }
}
