//! Parts that note when they begin and end, and parts that end in each wrong way.

use super::*;
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

/// What happened, in order.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn add(&self, text: &str, name: &str) {
        self.0.lock().expect("no note panics").push(format!("{text} {name}"));
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().expect("no note panics").clone()
    }
}

/// A part that needs a few turns of the runtime for its end.
fn orderly(parts: &mut Supervisor, notes: &Notes, name: &'static str) {
    let notes = notes.clone();
    parts.start(name, |mut stop| {
        notes.add("starts", name);
        async move {
            stop.asked().await;
            notes.add("stops", name);
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            notes.add("ended", name);
            Ok(())
        }
    });
}

#[tokio::test]
async fn parts_start_in_order_and_stop_in_reverse_one_after_the_other() {
    let (mut parts, notes) = (Supervisor::default(), Notes::default());
    let (log, threads) = (notes.clone(), notes.clone());
    parts.at_end("log", async move {
        log.add("synced", "log");
        Ok(())
    });
    parts.at_end_blocking("threads", move || {
        threads.add("joined", "threads");
        Ok(())
    });
    orderly(&mut parts, &notes, "rules");
    orderly(&mut parts, &notes, "doors");
    assert_eq!(notes.all(), ["starts rules", "starts doors"]);
    parts.stop(None).await.expect("an orderly end");
    let ends =
        ["stops doors", "ended doors", "stops rules", "ended rules", "joined threads", "synced log"].map(String::from);
    assert_eq!(notes.all()[2..], ends);
}

#[tokio::test]
async fn a_part_that_ends_by_itself_is_named_and_the_others_end_in_order() {
    let (mut parts, notes) = (Supervisor::default(), Notes::default());
    orderly(&mut parts, &notes, "below");
    parts.start("alarm", |_| async { Ok(()) });
    orderly(&mut parts, &notes, "above");
    let why = parts.ended().await;
    assert_eq!(why.to_string(), "alarm ended by itself");
    let error = parts.stop(Some(why)).await.expect_err("a part has ended");
    assert_eq!(error.to_string(), "alarm ended by itself");
    assert_eq!(notes.all()[2..], ["stops above", "ended above", "stops below", "ended below"].map(String::from));
}

#[tokio::test]
async fn a_part_that_fails_says_why() {
    let mut parts = Supervisor::default();
    parts.start("alarm", |_| async { Err(anyhow!("cannot read the queue")) });
    assert_eq!(parts.ended().await.to_string(), "cannot read the queue");
    parts.stop(None).await.expect("it has gone already, and is nobody's second fault");
}

#[tokio::test]
async fn a_part_that_panics_is_named() {
    let mut parts = Supervisor::default();
    parts.start("quiet", |mut stop| async move {
        stop.asked().await;
        Ok(())
    });
    parts.start("broken", |_| async { panic!("as the test wants") });
    let why = parts.ended().await;
    assert!(format!("{why:#}").starts_with("broken: "), "{why:#}");
    parts.stop(None).await.expect("the quiet one ends well");
}

/// As threads do of which one dies: the others are joined when it is their turn, not before.
#[tokio::test]
async fn a_part_reports_and_still_ends_at_its_turn() {
    let (mut parts, notes) = (Supervisor::default(), Notes::default());
    let threads = notes.clone();
    parts.start("threads", |mut stop| async move {
        stop.report(anyhow!("the flush thread ended by itself"));
        stop.asked().await;
        threads.add("joined", "threads");
        Ok(())
    });
    orderly(&mut parts, &notes, "doors");
    let why = parts.ended().await;
    assert_eq!(why.to_string(), "the flush thread ended by itself");
    assert!(parts.stop(Some(why)).await.is_err());
    assert_eq!(notes.all()[1..], ["stops doors", "ended doors", "joined threads"].map(String::from));
}

#[tokio::test]
async fn a_fault_while_stopping_keeps_no_other_part_from_its_end() {
    let (mut parts, notes) = (Supervisor::default(), Notes::default());
    orderly(&mut parts, &notes, "first");
    parts.at_end("log", async { Err(anyhow!("cannot sync the log")) });
    orderly(&mut parts, &notes, "second");
    parts.at_end_blocking("threads", || panic!("as the test wants"));
    orderly(&mut parts, &notes, "third");
    let error = parts.stop(None).await.expect_err("two faults");
    assert!(format!("{error:#}").starts_with("threads: "), "the first one counts: {error:#}");
    let ended: Vec<String> = notes.all().into_iter().filter(|note| note.starts_with("ended")).collect();
    assert_eq!(ended, ["ended third", "ended second", "ended first"]);
}

#[tokio::test]
async fn nothing_ends_early_while_all_parts_run() {
    let mut parts = Supervisor::default();
    let (end, ends) = oneshot::channel::<()>();
    parts.start("waits", |_| async move {
        ends.await?;
        Ok(())
    });
    // Polled once, and given up as for a signal.
    tokio::select! {
        biased;
        why = parts.ended() => panic!("{why}"),
        () = std::future::ready(()) => {}
    }
    end.send(()).expect("the part runs");
    assert_eq!(parts.ended().await.to_string(), "waits ended by itself");
}
