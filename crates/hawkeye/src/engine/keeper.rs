//! Keeper: the threads that keep the store, each waiting on the disk for one kind of work.
//!
//! Why threads: a sync each second is a promise, and must not wait for a flush of a minute. They are no async tasks,
//! for they stand still while the disk works.
//! How: `sync` makes the log and the event queue durable each second; `flush` moves points from memory to blocks and
//! drops what is older than the retention, when it is due and the clock is believed (`age.rs`), and lets silent series
//! leave memory; `merge` merges blocks
//! and makes roll-ups, at a pace that leaves the disk to others; `memory` holds the process to its budget
//! (`pressure.rs`). A fault is told when it begins and when it is over, and tried again when it is next due.
//! Invariants: a thread that ends by itself, by a panic, is reported by [`Keeper::run`], while the others go on; at the
//! stop each finishes what it has begun, all told before one is waited for.

use crate::clock;
use crate::engine::Engine;
use crate::engine::age::Age;
use crate::engine::pressure::{Pressure, Relief};
use crate::watch::health::{Health, Outage};
use anyhow::{Context, Result, anyhow};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use store::Past;
use supervisor::Stop;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Ticks between two calls for silent series, and two looks for what is past its time.
const SLEEP_TICKS: u32 = 60;

/// Bytes that a merge reads and writes between two pauses, about. A guess: some ten milliseconds of a slow disk.
const MERGE_STEP_BYTES: u64 = 1 << 20;

/// Bytes that merging may read and write together in a second. A million series of a day are some 3 GB: done in three
/// minutes.
const MERGE_BYTES_PER_S: f64 = (16 << 20) as f64;

/// Pause between two looks for something to merge.
const MERGE_LOOK: Duration = Duration::from_secs(60);

/// Pause between two syncs: a power cut may cost what came since the last one (`graph.fsync = "second"`).
const TICK: Duration = Duration::from_secs(1);

/// The running threads.
pub struct Keeper {
    engine: Arc<Engine>,
    threads: Vec<Worker>,
    ended: Receiver<&'static str>,
}

struct Worker {
    name: &'static str,
    /// Dropped to stop the thread.
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Starts the threads.
    pub fn start(engine: Arc<Engine>, age: Arc<Age>, pressure: Arc<Pressure>, health: &Health) -> Keeper {
        let (ending, ended) = channel(1);
        let threads = vec![
            Worker::start("sync", ending.clone(), TICK, sync_work(engine.clone(), health)),
            Worker::start("flush", ending.clone(), TICK, flush_work(engine.clone(), age, health)),
            Worker::start("merge", ending.clone(), TICK, merge_work(engine.clone(), health)),
            Worker::start("memory", ending, TICK, memory_work(engine.clone(), pressure, health)),
        ];
        Keeper { engine, threads, ended }
    }

    /// Lets the threads run until it is their turn to stop; reports one that ends before.
    pub async fn run(mut self, mut stop: Stop) -> Result<()> {
        tokio::select! {
            () = stop.asked() => {}
            Some(name) = self.ended.recv() => {
                stop.report(anyhow!("the store's {name} thread ended by itself"));
                stop.asked().await;
            }
        }
        tokio::task::spawn_blocking(move || self.stop()).await.context("the store's threads")?
    }

    fn stop(self) -> Result<()> {
        // All are told before one is waited for.
        let threads: Vec<_> = self.threads.into_iter().map(Worker::tell_to_stop).collect();
        for (name, thread) in threads {
            if thread.join().is_err() {
                tracing::error!(name, "a thread of the store panicked");
            }
        }
        let ticked = self.engine.tick();
        match self.engine.events_waiting() {
            0 => ticked.context("cannot sync the event queue"),
            lost => Err(anyhow!("{lost} events that no sender was answered for are lost: the disk takes none")),
        }
    }
}

impl Worker {
    /// Starts a thread that calls `work` after `pause`, and again each time after the pause that `work` answers.
    fn start(
        name: &'static str,
        ending: Sender<&'static str>,
        mut pause: Duration,
        mut work: impl FnMut() -> Duration + Send + 'static,
    ) -> Worker {
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::Builder::new()
            .name(format!("store-{name}"))
            .spawn(move || {
                let _tells = TellsItsEnd { name, ending };
                while stopped.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Timeout) {
                    pause = work();
                }
            })
            .expect("the system can start one more thread");
        Worker { name, stop, thread }
    }

    fn tell_to_stop(self) -> (&'static str, JoinHandle<()>) {
        drop(self.stop);
        (self.name, self.thread)
    }
}

/// Sends the thread's name when it ends, also by a panic.
struct TellsItsEnd {
    name: &'static str,
    ending: Sender<&'static str>,
}

impl Drop for TellsItsEnd {
    fn drop(&mut self) {
        // Full when another has ended before: one is reason enough. Closed when nobody asks any more.
        let _ = self.ending.try_send(self.name);
    }
}

fn sync_work(engine: Arc<Engine>, health: &Health) -> impl FnMut() -> Duration + use<> {
    let log = health.outage("the store's log cannot be synced");
    let events = health.outage("the event queue cannot be written");
    move || {
        events.begin();
        events.note(engine.tick());
        log.begin();
        log.note(engine.store().sync_if_due());
        engine.look_at_unkept();
        for damage in engine.store().take_untold_damage() {
            tracing::error!(damage, "a file of the store is damaged; answers lack what was in it, and say so");
        }
        TICK
    }
}

fn flush_work(engine: Arc<Engine>, age: Arc<Age>, health: &Health) -> impl FnMut() -> Duration + use<> {
    let flush = health.outage("the store cannot write blocks");
    let retention = health.outage("the store cannot remove old blocks");
    let sleep = health.outage("silent series cannot leave memory");
    let manifest = health.outage("the store's list of files cannot be written");
    let text = "the disk takes nothing and memory is full: points are refused and NOT JUDGED";
    let mut judging = Judging { outage: health.outage(text), unjudged: 0 };
    let (mut ticks, mut past) = (0, Past::default());
    move || {
        let (store, now) = (engine.store(), clock::now());
        flush.begin();
        flush.note(store.flush_if_due(now));
        if ticks == 0 {
            past = store.past(now);
        }
        let may_delete = age.may_delete(past, engine.intake().clocks.hosts());
        store.believe(age.believed().now());
        if may_delete {
            retention.note(store.expire_if_due(now));
        }
        manifest.note(store.keep_manifest());
        ticks += 1;
        if ticks == SLEEP_TICKS {
            ticks = 0;
            sleep.note(engine.sleep_silent(now));
        }
        judging.note(store.unjudged());
        TICK
    }
}

fn merge_work(engine: Arc<Engine>, health: &Health) -> impl FnMut() -> Duration + use<> {
    let merge = health.outage("the store cannot merge blocks");
    move || {
        let merged = engine.store().merge_step(clock::now(), MERGE_STEP_BYTES);
        let pause = match &merged {
            Ok(merged) if merged.more => Duration::from_secs_f64(merged.bytes as f64 / MERGE_BYTES_PER_S),
            _ => MERGE_LOOK,
        };
        merge.note(merged);
        pause
    }
}

fn memory_work(engine: Arc<Engine>, pressure: Arc<Pressure>, health: &Health) -> impl FnMut() -> Duration + use<> {
    let mut relief = Relief::new();
    let fault = health.outage("memory is short, and the store cannot give it back");
    move || {
        fault.note(relief.work(&pressure, &engine, clock::now()));
        TICK
    }
}

/// Outage of judging: points are refused without being judged, as neither disk nor memory has room for them.
struct Judging {
    outage: Outage,
    unjudged: u64,
}

impl Judging {
    fn note(&mut self, unjudged: u64) {
        let refused = unjudged - self.unjudged;
        self.unjudged = unjudged;
        match refused {
            0 => self.outage.works(),
            refused => self.outage.fails(format!("{refused} points in the last second, {unjudged} since the start")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::patience::in_time;

    #[tokio::test]
    async fn a_thread_that_panics_is_named() {
        let (ending, mut ended) = channel(1);
        let quiet = Worker::start("quiet", ending.clone(), Duration::MAX, || panic!("it is never its turn"));
        let _broken = Worker::start("broken", ending, Duration::ZERO, || panic!("as the test wants"));
        assert_eq!(in_time("the end of the thread that panics", ended.recv()).await, Some("broken"));
        let (_, quiet) = quiet.tell_to_stop();
        quiet.join().expect("an orderly end");
        assert_eq!(in_time("the end of the quiet thread", ended.recv()).await, Some("quiet"));
    }
}
