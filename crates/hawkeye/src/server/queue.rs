//! Queue: opens the durable queue of events, and says how rules are judged into it.
//!
//! Why a boot is looked at: events of the last second need not be on the disk when the power goes, though alarm may
//! have handled them, and the pages of a file reach the disk in any order. A kill loses none of that. So what looks
//! alike is normal where the machine was started anew since the last start of this process (`<data_dir>/boot` has the
//! kernel's name of that boot), and else it is a loss.
//! Why what was told is kept: a damaged place stays in its file until newer events have taken its place, which may be
//! weeks. It is told until the next start, and `<data_dir>/events-told` has what need not be told again.

use super::data_dir::fix;
use crate::clock;
use crate::config::{Config, Fsync, Semantics};
use crate::watch::health::{Health, Reason};
use anyhow::Result;
use events::{Damage, EventQueue, Recovery};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const LOST: &str = "events in the data directory are lost or damaged; alarms that were open may be made anew";

/// Events that judges make in one second at the most, and so those that a power cut may keep from the disk.
const OF_A_SECOND: u64 = 1 << 16;

/// The queue, as it was found.
pub struct OpenedQueue {
    pub queue: Arc<EventQueue>,
    pub recovered: Recovery,
    /// Whether the machine was started anew since the queue was opened before: the power may have gone.
    was_rebooted: bool,
    /// The file of what earlier starts have told.
    told: PathBuf,
}

/// Opens the event queue; answers with it the alarms that were open when it was closed.
pub fn open_event_queue(config: &Config) -> Result<OpenedQueue> {
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
    for damage in &recovered.unwritten {
        tracing::warn!(file = %damage.file.display(), bytes = ?damage.bytes, "events are missing where the disk has zeros");
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
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let was_rebooted = is_other_boot(&config.data_dir.join("boot"), boot.trim()).unwrap_or_else(|error| {
        tracing::warn!(%error, "which boot of the machine this is cannot be kept: a power cut may look like damage");
        false
    });
    let told = config.data_dir.join("events-told");
    Ok(OpenedQueue { queue: Arc::new(queue), recovered, was_rebooted, told })
}

/// Whether the file names another boot than this one, whose name it gets. Nobody knows where there is no name.
fn is_other_boot(path: &Path, boot: &str) -> io::Result<bool> {
    let before = read(path)?;
    let before = before.trim();
    if before != boot && !boot.is_empty() {
        replace(path, &format!("{boot}\n"))?;
    }
    Ok(!before.is_empty() && !boot.is_empty() && before != boot)
}

/// The text of a file; empty where there is none.
fn read(path: &Path) -> io::Result<String> {
    match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        read => Ok(String::from_utf8_lossy(&read?).into_owned()),
    }
}

/// Puts a text into a file, whole or not at all.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("tmp");
    let mut file = std::fs::File::create(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

impl OpenedQueue {
    /// Makes what is gone from the queue's files a reason, until the next start: damage, and events that alarm has
    /// handled (all up to `handled`, 0 where nobody can say) and that the files no longer hold. A write that was not
    /// finished is none, for a kill leaves it, and neither is what a power cut leaves.
    pub fn tell_lost_events(&self, health: &Health, handled: u64) {
        let lost = self.what_is_lost(handled);
        let new = untold(&self.told, &lost).unwrap_or_else(|error| {
            tracing::warn!(file = %self.told.display(), %error, "what is told of lost events will be told at the next start");
            lost
        });
        if new.is_empty() {
            return;
        }
        let why = format!("{}; what is left was read, and the next start says no more of it", new.join("; "));
        tracing::error!(why, "{LOST}");
        let since = clock::now();
        health.source(move |reasons| reasons.push(Reason { what: LOST, why: why.clone(), since }));
    }

    fn what_is_lost(&self, handled: u64) -> Vec<String> {
        let Recovery { damaged, unwritten, unreadable, snapshot_lost, .. } = &self.recovered;
        let (mut found, end) = (Vec::new(), self.queue.end_when_opened());
        let is_of_power_cut = self.was_rebooted && !snapshot_lost && handled.saturating_sub(end) <= OF_A_SECOND;
        if end < handled && !is_of_power_cut {
            let gone = handled - end;
            found.push(format!("alarm has handled events up to {handled}, and the files end at {end}, {gone} before"));
        }
        let unwritten = unwritten.iter().filter(|_| !self.was_rebooted);
        let damaged: Vec<&Damage> = damaged.iter().chain(unwritten).collect();
        if let [Damage { file, bytes }, ..] = damaged[..] {
            let (file, count) = (file.display(), damaged.len());
            found.push(format!("{count} damaged places, the first in {file} at byte {}", bytes.start));
        }
        if *snapshot_lost {
            found.push("the list of open alarms in the newest file is not whole".to_string());
        }
        if *unreadable > 0 {
            found.push(format!("{unreadable} events that are not understood"));
        }
        found
    }
}

/// What of `lost` the file does not have; from now on it has all of it, and no more.
fn untold(path: &Path, lost: &[String]) -> io::Result<Vec<String>> {
    let before = read(path)?;
    let new = lost.iter().filter(|text| !before.lines().any(|line| line == text.as_str()));
    let text: String = lost.iter().map(|text| format!("{text}\n")).collect();
    if text.is_empty() && !before.is_empty() {
        std::fs::remove_file(path)?;
    } else if text != before {
        replace(path, &text)?;
    }
    Ok(new.cloned().collect())
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

    /// Reasons of the start number `start` on the directory, and what was opened.
    fn started(dir: &Path, handled: u64, was_rebooted: bool, start: i64) -> (Vec<Reason>, OpenedQueue) {
        let (queue, recovered) = EventQueue::open_with(dir, Options::default(), NOW + 60 * start).expect("a queue");
        let opened = OpenedQueue { queue: Arc::new(queue), recovered, was_rebooted, told: dir.join("told") };
        let health = Health::default();
        opened.tell_lost_events(&health, handled);
        (health.reasons(), opened)
    }

    fn reasons(dir: &Path, handled: u64) -> Vec<Reason> {
        started(dir, handled, false, 1).0
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
            let (found, opened) = started(dir.path(), last, false, 2);
            assert_eq!(found.len(), 1, "{what}");
            drop(opened);
            assert_eq!(started(dir.path(), last, false, 3).0, [], "{what}, and a start after it without a new event");
            assert_eq!(started(dir.path(), last + (1 << 40), false, 4).0.len(), 1, "{what}, and then more was lost");
            let expected = if what == "bit flipped" { "1 damaged places, the first in" } else { "alarm has handled" };
            assert!(found[0].why.starts_with(expected) && found[0].what == LOST, "{what}: {}", found[0].why);
        }
    }

    /// What a power cut leaves of the files is a loss where the power did not go.
    #[test]
    fn what_a_power_cut_leaves_is_no_damage() {
        type Cut = fn(&[u8]) -> Vec<u8>;
        let cuts: [(&str, Cut); 3] = [
            ("the last second is not there", |bytes| bytes[..bytes.len() - 200].to_vec()),
            ("nor is the end of the file", |bytes| [&bytes[..bytes.len() - 200], &[0; 8192]].concat()),
            ("one page of it is not there", |bytes| [&bytes[..4096], &[0; 4096], &bytes[8192..]].concat()),
        ];
        for (what, cut) in cuts {
            for was_rebooted in [true, false] {
                let dir = tempfile::tempdir().expect("a directory");
                let (_, first) = filled(dir.path());
                let queue = started(dir.path(), first, false, 1).1.queue;
                let events: Vec<Event> = (0..60).map(|host| event(&format!("db-{host}"))).collect();
                let last = queue.append(&events).expect("room").seq;
                drop(queue);
                let mut files =
                    fs::read_dir(dir.path()).expect("a directory").map(|entry| entry.expect("an entry").path());
                let file = files.find(|path| path.extension().is_some_and(|ext| ext == "events")).expect("a segment");
                let bytes = fs::read(&file).expect("a file");
                assert!(bytes.len() > 3 * 4096, "{}", bytes.len());
                fs::write(&file, cut(&bytes)).expect("room");
                let (found, _) = started(dir.path(), last, was_rebooted, 2);
                assert_eq!(found.len(), usize::from(!was_rebooted), "{what}, rebooted: {was_rebooted}: {found:?}");
            }
        }
    }

    /// What no power cut does is a loss also after a boot: what was there for long is gone.
    #[test]
    fn a_boot_does_not_excuse_everything() {
        type Spoil = fn(&Path);
        let spoils: [Spoil; 3] = [
            |file| fs::write(file, "").expect("room"),
            |file| fs::remove_file(file).expect("a file"),
            |file| {
                let mut bytes = fs::read(file).expect("a file");
                bytes[100] ^= 1;
                fs::write(file, bytes).expect("room");
            },
        ];
        for (number, spoil) in spoils.into_iter().enumerate() {
            let dir = tempfile::tempdir().expect("a directory");
            let (file, last) = filled(dir.path());
            spoil(&file);
            assert_eq!(started(dir.path(), last, true, 1).0.len(), 1, "{number}");
        }
    }

    #[test]
    fn a_boot_is_another_one_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("boot");
        let other = |boot| is_other_boot(&path, boot).expect("room");
        assert_eq!(["a", "a", "b", "b", "", "b"].map(other), [false, false, true, false, false, false]);
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
