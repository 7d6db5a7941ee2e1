//! Queue: opens the durable queue of events, and says how rules are judged into it.

use super::data_dir::fix;
use crate::clock;
use crate::config::{Config, Fsync, Semantics};
use crate::watch::health::{Health, Reason};
use anyhow::Result;
use events::{Damage, EventQueue, Recovery};
use std::sync::Arc;

const LOST: &str = "events in the data directory are lost or damaged; alarms that were open may be made anew";

/// Opens the event queue; answers with it the alarms that were open when it was closed.
pub fn open_event_queue(config: &Config) -> Result<(Arc<EventQueue>, Recovery)> {
    let fsync = match config.graph.fsync {
        Fsync::Always => events::Fsync::Always,
        Fsync::Second => events::Fsync::EverySecond,
        Fsync::Never => events::Fsync::Never,
    };
    let (queue, recovered) =
        EventQueue::open(&config.data_dir.join("events"), fsync, clock::now()).map_err(|error| {
            let text = format!("cannot open the event queue in {} ({})", config.data_dir.display(), fix(&error));
            anyhow::Error::new(error).context(text)
        })?;
    if recovered.torn_bytes_cut > 0 {
        tracing::warn!(bytes = recovered.torn_bytes_cut, "cut off an unfinished write of events");
    }
    for damage in &recovered.damaged {
        tracing::error!(file = %damage.file.display(), bytes = ?damage.bytes, "events are damaged; the rest was read");
    }
    if recovered.unreadable > 0 {
        tracing::error!(
            count = recovered.unreadable,
            "events of the queue are not understood: another version may have written them"
        );
    }
    Ok((Arc::new(queue), recovered))
}

/// Makes what is gone from the queue's files a reason, until the next start: damage, and events that alarm has handled
/// (all up to `handled`, 0 where nobody can say) and that the files no longer hold. A write that was not finished is
/// none: a kill leaves it.
pub fn tell_lost_events(health: &Health, queue: &EventQueue, recovered: &Recovery, handled: u64) {
    let Some(why) = what_is_lost(recovered, queue.end_when_opened(), handled) else { return };
    tracing::error!(why, "{LOST}");
    let since = clock::now();
    health.source(move |reasons| reasons.push(Reason { what: LOST, why: why.clone(), since }));
}

fn what_is_lost(recovered: &Recovery, end: u64, handled: u64) -> Option<String> {
    let mut found = Vec::new();
    if end < handled {
        found.push(format!("alarm has handled events up to {handled}, and the files end at {end}"));
    }
    if let Some(Damage { file, bytes }) = recovered.damaged.first() {
        let (file, count) = (file.display(), recovered.damaged.len());
        found.push(format!("{count} damaged places, the first in {file} at byte {}", bytes.start));
    }
    if recovered.unreadable > 0 {
        found.push(format!("{} events that are not understood", recovered.unreadable));
    }
    (!found.is_empty()).then(|| found.join("; "))
}

/// Options of every judge of this process.
pub fn judge_options(config: &Config) -> ::judge::Options {
    ::judge::Options {
        semantics: match config.judge.semantics {
            Semantics::Hawkeye => ::judge::Semantics::Hawkeye,
            Semantics::OpenFalcon => ::judge::Semantics::OpenFalcon,
        },
        min_interval_s: config.judge.min_interval,
        points_max: config.rule_points_max(),
        endpoint_patterns: config.judge.endpoint_patterns,
        future_max_s: config.ingest.future_max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::Options;
    use model::{Event, EventRule, Status, Strategy};
    use std::fs;
    use std::path::{Path, PathBuf};

    const NOW: i64 = 1_600_000_000;

    fn event(endpoint: &str) -> Event {
        let strategy = Strategy { id: 1, metric: "cpu.idle".into(), func: "all(#1)".into(), ..Strategy::default() };
        Event {
            rule: EventRule::Strategy(Arc::new(strategy)),
            status: Status::Problem,
            endpoint: endpoint.into(),
            tags: "".into(),
            left_value: 1.0,
            current_step: 1,
            time: NOW,
            explanation: None,
        }
    }

    /// Reasons of a start on the directory.
    fn reasons(dir: &Path, handled: u64) -> Vec<Reason> {
        let (queue, recovered) = EventQueue::open_with(dir, Options::default(), NOW).expect("a queue");
        let health = Health::default();
        tell_lost_events(&health, &queue, &recovered, handled);
        health.reasons()
    }

    /// A queue of ten events, its file, and the number of the last event.
    fn filled(dir: &Path) -> (PathBuf, u64) {
        let (queue, _) = EventQueue::open_with(dir, Options::default(), NOW).expect("a queue");
        let events: Vec<Event> = (0..10).map(|i| event(&format!("web-{i}"))).collect();
        let last = queue.append(&events).expect("room").seq;
        let mut files = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
        (files.find(|path| path.extension().is_some_and(|ext| ext == "events")).expect("a segment"), last)
    }

    #[test]
    fn events_that_are_gone_or_damaged_are_a_reason_until_the_next_start() {
        type Spoil = fn(&Path);
        let spoils: [(&str, Spoil); 4] = [
            ("emptied", |file| fs::write(file, "").expect("room")),
            ("deleted", |file| fs::remove_file(file).expect("a file")),
            ("cut in half", |file| {
                let bytes = fs::read(file).expect("a file");
                fs::write(file, &bytes[..bytes.len() / 2]).expect("room");
            }),
            ("bit flipped", |file| {
                let mut bytes = fs::read(file).expect("a file");
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(file, bytes).expect("room");
            }),
        ];
        for (what, spoil) in spoils {
            let dir = tempfile::tempdir().expect("a directory");
            let (file, last) = filled(dir.path());
            assert_eq!(reasons(dir.path(), last), []);
            spoil(&file);
            let found = reasons(dir.path(), last);
            assert_eq!(found.len(), 1, "{what}");
            let expected = if what == "bit flipped" { "1 damaged places, the first in" } else { "alarm has handled" };
            assert!(found[0].why.starts_with(expected) && found[0].what == LOST, "{what}: {}", found[0].why);
        }
    }

    #[test]
    fn an_unfinished_write_is_no_reason() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, last) = filled(dir.path());
        let bytes = fs::read(&file).expect("a file");
        fs::write(&file, &bytes[..bytes.len() - 5]).expect("room");
        assert_eq!(reasons(dir.path(), last - 1), [], "alarm has not handled it, so it was never whole");
    }
}
