//! Taken: which events of Redis are in the event queue, so that a kill between two steps tells none of them twice.
//!
//! How: before a batch is appended, a file (`<data_dir>/taken`) says its number in Redis, how many of its events were
//! there already, and the sequence number that the first of the rest gets. What the queue has from there on was
//! appended, whatever came in between: nobody else appends to the queue of an alarm that runs alone.
//! Invariants: the file is replaced as a whole, and synced behind the queue, so it never stands on the disk for events
//! that the disk does not hold, and nobody waits for it; without it, events of the last batch are told again.
//! Memory: three numbers.

use events::EventQueue;
use model::Event;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use stdx::checked_line;

const HEAD: &str = "hawkeye taken 1 ";

/// How far the events of Redis are in the queue.
#[derive(Clone)]
pub struct Taken {
    path: PathBuf,
    /// Number of the batch in Redis, and how many of its events are in the queue.
    batch: Option<(u64, usize)>,
}

impl Taken {
    /// What the run before has noted, in a queue that was opened and not written to since.
    pub fn open(data_dir: &Path, queue: &EventQueue) -> Taken {
        let path = data_dir.join("taken");
        let batch = fs::read(&path).ok().and_then(|bytes| {
            let mut words = checked_line::read(HEAD, &bytes)?.split(' ').map(str::parse::<u64>);
            let (number, before, seq) = (words.next()?.ok()?, words.next()?.ok()?, words.next()?.ok()?);
            let have = before.saturating_add(queue.records_from(seq));
            Some((number, usize::try_from(have).ok()?))
        });
        Taken { path, batch }
    }

    /// Appends the events of batch `number` that are not in the queue yet, and has the disk keep them.
    pub fn append(&mut self, queue: &EventQueue, number: u64, events: &[Event]) -> io::Result<()> {
        let have = self.batch.filter(|(before, _)| *before == number).map_or(0, |(_, have)| have);
        let Some(rest) = events.get(have..).filter(|rest| !rest.is_empty()) else { return Ok(()) };
        let seq = queue.next_seq();
        self.note(&format!("{number} {have} {seq}"))?;
        queue.append(rest)?;
        self.batch = Some((number, events.len()));
        queue.sync()?;
        File::open(&self.path)?.sync_all()
    }

    fn note(&self, words: &str) -> io::Result<()> {
        let new = self.path.with_extension("tmp");
        let mut file = File::create(&new)?;
        file.write_all(checked_line::write(HEAD, words).as_bytes())?;
        fs::rename(&new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::alarm::tests::problem;
    use events::{Fsync, Record};
    use std::sync::Arc;

    fn open(dir: &Path) -> Arc<EventQueue> {
        let now = crate::clock::now();
        Arc::new(EventQueue::open(&dir.join("events"), Fsync::Never, now).expect("a queue").0)
    }

    fn hosts(queue: &Arc<EventQueue>) -> Vec<String> {
        let mut records: Vec<Record> = Vec::new();
        queue.consumer(0).read(100, &mut records).expect("it reads");
        records
            .into_iter()
            .filter_map(|record| match record.entry {
                events::Entry::Event(event) => Some(event.endpoint),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_batch_that_is_shown_again_is_appended_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let events = |hosts: &[&str]| hosts.iter().map(|host| problem(1, host)).collect::<Vec<_>>();
        let queue = open(dir.path());
        let mut taken = Taken::open(dir.path(), &queue);
        taken.append(&queue, 7, &events(&["a", "b"])).expect("room");
        // The answer of Redis was lost: the batch is there again, and more behind it.
        taken.append(&queue, 7, &events(&["a", "b", "c"])).expect("room");
        assert_eq!(hosts(&queue), ["a", "b", "c"]);
        drop((queue, taken));
        // So it is after a kill, and after another.
        for more in ["d", "e"] {
            let queue = open(dir.path());
            let mut taken = Taken::open(dir.path(), &queue);
            let mut all = hosts(&queue);
            all.push(more.to_string());
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            taken.append(&queue, 7, &events(&all)).expect("room");
            assert_eq!(hosts(&queue), all);
        }
        let queue = open(dir.path());
        let mut taken = Taken::open(dir.path(), &queue);
        taken.append(&queue, 12, &events(&["a"])).expect("room");
        assert_eq!(hosts(&queue), ["a", "b", "c", "d", "e", "a"], "another batch");
    }
}
