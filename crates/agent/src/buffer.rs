//! Buffer: what no transfer has taken yet, in memory for a second and on the disk from then on.
//!
//! Why: hours without a transfer must neither be lost with the agent's process nor be held in its memory.
//! How: points go to the [`Queue`] and from there straight to a transfer. What is still in the queue a second later is
//! written to [`Files`], and the files are sent before the queue, so the order in which points came is the order in
//! which they go. A batch that is under way when it is written is on the disk, too: its answer takes it from there.
//! The work on the disk is done on a thread that may wait, one piece at a time; the files are with that thread
//! meanwhile ([`Hold::Away`]), so nothing here waits for a disk that hangs longer than [`DISK_PATIENCE`].
//! Invariants: while transfers answer, nothing is written. Every future here may be dropped half-way: the state is in
//! the fields. What the disk refuses stays in the queue, is told once, and counted; the disk is tried again.
//! Order: by time for each series, but where a disk comes back that could not be read: what it holds comes late then.
//! Memory: the queue; while the disk works, a copy of what is written or read.

#[cfg(test)]
mod tests;

use crate::batch::Batch;
use crate::files::{Files, Found, Written};
use crate::queue::Queue;
use spool::{Position, Read, Stats};
use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use stdx::Disk;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

/// The time that a batch may be in memory only, while no transfer answers for it: what a kill may cost.
pub const SPILL_AFTER: Duration = Duration::from_secs(1);
/// The time that the sender waits for the disk, before it goes on with what is in memory; far above what a busy disk
/// takes, and within what a stop may take.
const DISK_PATIENCE: Duration = Duration::from_secs(3);
/// The pause before a disk that has failed is tried again: soon enough for an operator who makes room.
const DISK_PAUSE: Duration = Duration::from_secs(30);

/// Where the files are.
pub struct Place {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    /// Bytes of all files.
    pub bytes_max: u64,
}

/// Durations that a test does not want to wait for.
#[derive(Clone, Copy)]
pub struct BufferTiming {
    pub spill_after: Duration,
    pub disk_patience: Duration,
    pub disk_pause: Duration,
}

impl BufferTiming {
    /// The timing of an agent that runs.
    pub const REAL: BufferTiming =
        BufferTiming { spill_after: SPILL_AFTER, disk_patience: DISK_PATIENCE, disk_pause: DISK_PAUSE };
}

/// Figures of the part on the disk, for the metrics page.
#[derive(Default)]
pub struct BufferFigures {
    pub items: AtomicU64,
    pub bytes: AtomicU64,
    /// Items that a full buffer lost, or that were found missing or damaged, since it was made.
    pub dropped: AtomicU64,
    pub missing: AtomicU64,
    /// Items that were written since the start.
    pub written: AtomicU64,
    /// Items that no record holds, and records that are no items.
    pub unusable: AtomicU64,
    /// Work that the disk has refused, and waits that were given up.
    pub faults: AtomicU64,
}

/// What is to be sent next.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub batch: Batch,
    from: From,
}

#[derive(Clone, Copy, Debug)]
enum From {
    Memory(u64),
    Disk(Read),
}

impl Waiting {
    /// Whether it has waited on the disk.
    pub fn is_from_disk(&self) -> bool {
        matches!(self.from, From::Disk(_))
    }
}

/// The batch of the queue that is under way, and where the files have it, too.
#[derive(Clone, Copy)]
struct Flight {
    id: u64,
    copy: Option<Debt>,
}

/// A place of the files up to which everything is to be forgotten, and the records between the debt before and it.
type Debt = (Position, u32);

/// Kinds of work on the disk, for what is told once of each.
#[derive(Clone, Copy)]
enum Work {
    Open,
    Write,
    Read,
    Forget,
    Wait,
}

const WORKS: usize = 5;

/// The files, or where they are.
enum Hold {
    /// None are wanted.
    Never,
    /// Tried again then.
    Closed(Instant),
    Home(Box<Files>),
    /// With a thread that works on them, since then.
    Away(JoinHandle<Done>, Instant),
}

/// What a thread comes back with.
enum Done {
    Opened(io::Result<Box<Files>>),
    Wrote { files: Box<Files>, written: Vec<Written>, was_empty: bool, result: io::Result<()> },
    Read { files: Box<Files>, result: io::Result<Found> },
    Peeked { files: Box<Files>, result: io::Result<Found> },
    Forgot { files: Box<Files>, result: io::Result<()> },
}

/// What waits for a transfer.
pub struct Buffer {
    queue: Arc<Queue>,
    place: Option<Place>,
    timing: BufferTiming,
    figures: Arc<BufferFigures>,
    hold: Hold,
    /// What was read and not handed out yet, and what was looked at behind that.
    found: Option<Waiting>,
    peeked: Option<Batch>,
    flight: Option<Flight>,
    /// Batches of the queue with smaller numbers are with a transfer.
    answered_until: u64,
    /// What is to be forgotten once the files are here.
    owed: Option<Debt>,
    /// The oldest batch of the queue when it was last looked at, and when it is to be written.
    spills: Option<(u64, Instant)>,
    /// No write before: the last one has failed.
    writes_after: Instant,
    /// By kind of work, whether its failure has been told.
    told: [bool; WORKS],
    told_dropped: u64,
}

impl Buffer {
    /// A buffer of what is in `queue`, with files at `place`, if any.
    pub fn new(queue: Arc<Queue>, place: Option<Place>, timing: BufferTiming) -> Buffer {
        let now = Instant::now();
        Buffer {
            queue,
            hold: if place.is_some() { Hold::Closed(now) } else { Hold::Never },
            place,
            timing,
            figures: Arc::default(),
            found: None,
            peeked: None,
            flight: None,
            answered_until: 0,
            owed: None,
            spills: None,
            writes_after: now,
            told: [false; WORKS],
            told_dropped: 0,
        }
    }

    /// The figures of the files, which this buffer keeps up to date.
    pub fn figures(&self) -> Arc<BufferFigures> {
        self.figures.clone()
    }

    /// Items that wait, in memory and on the disk, as far as that is known.
    pub fn items(&self) -> u64 {
        self.queue.size().items as u64 + self.figures.items.load(Relaxed)
    }

    /// Waits for something to send, and answers the oldest, which stays in the buffer.
    pub async fn oldest(&mut self) -> Waiting {
        loop {
            if let Some(oldest) = self.oldest_of_now().await {
                return oldest;
            }
            let again = match self.hold {
                Hold::Closed(at) => at,
                _ => far(),
            };
            let queue = self.queue.clone();
            tokio::select! {
                () = queue.filled() => {}
                () = self.come_back() => {}
                () = sleep_until(again) => {}
            }
        }
    }

    /// The oldest that can be had now.
    pub async fn oldest_of_now(&mut self) -> Option<Waiting> {
        loop {
            self.reopen();
            self.come_back_in_time().await;
            self.flight = None;
            if let Some(found) = self.found.take() {
                return Some(found);
            }
            if self.pay() {
                continue;
            }
            if matches!(&self.hold, Hold::Home(files) if files.may_have_more()) {
                self.begin(|mut files| {
                    let result = files.read();
                    Done::Read { files, result }
                });
                continue;
            }
            let (id, batch) = self.queue.try_oldest()?;
            self.flight = Some(Flight { id, copy: None });
            return Some(Waiting { batch, from: From::Memory(id) });
        }
    }

    /// What comes behind a batch that was handed out, as far as that can be had now.
    pub async fn behind(&mut self, waiting: &Waiting) -> Option<Batch> {
        self.come_back_in_time().await;
        let from = match (waiting.from, self.flight.and_then(|flight| flight.copy)) {
            (From::Disk(read), _) => read.next,
            (From::Memory(_), Some((end, _))) => end,
            (From::Memory(id), None) => {
                return self.queue.all().into_iter().find(|(other, _)| *other > id).map(|(_, batch)| batch);
            }
        };
        self.begin(move |files| {
            let result = files.peek(from);
            Done::Peeked { files, result }
        });
        self.come_back_in_time().await;
        self.peeked.take().or_else(|| self.queue.try_oldest().map(|(_, batch)| batch))
    }

    /// Removes a batch that is with a transfer, or that nobody wants; at once, whatever the disk does.
    pub async fn done(&mut self, waiting: &Waiting) {
        match waiting.from {
            From::Disk(read) => self.owe((read.next, read.records)),
            From::Memory(id) => {
                match self.flight.take().and_then(|flight| flight.copy) {
                    Some(copy) => self.owe(copy),
                    None => self.queue.remove(id, waiting.batch.items),
                }
                // A write that is going on may be of this batch, and owes it when it is done.
                self.answered_until = id + 1;
            }
        }
        self.come_back_in_time().await;
        self.pay();
        self.come_back_in_time().await;
    }

    /// Does `work`, and writes meanwhile what waits too long.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            done = work => done,
            never = self.tend() => match never {},
        }
    }

    /// Writes what is left in the queue; there is no time for another attempt. Answers the items that are in memory
    /// only.
    pub async fn keep_rest(&mut self) -> usize {
        self.come_back_in_time().await;
        self.pay();
        self.come_back_in_time().await;
        self.write();
        self.come_back_in_time().await;
        self.queue.size().items
    }

    /// Writes what has been in the queue for too long, for ever.
    async fn tend(&mut self) -> Infallible {
        loop {
            match self.hold {
                Hold::Never => std::future::pending::<()>().await,
                Hold::Away(..) => self.come_back().await,
                Hold::Closed(at) => {
                    sleep_until(at).await;
                    self.reopen();
                }
                Hold::Home(_) => {
                    self.queue.filled().await;
                    let Some(id) = self.queue.oldest_id() else { continue };
                    let at = match self.spills {
                        Some((seen, at)) if seen == id => at,
                        _ => Instant::now() + self.timing.spill_after,
                    };
                    self.spills = Some((id, at));
                    sleep_until(at.max(self.writes_after)).await;
                    if self.queue.oldest_id() == Some(id) {
                        self.write();
                    }
                }
            }
        }
    }

    /// Has all that is in the queue written, if the files are here.
    fn write(&mut self) {
        let batches = self.queue.all();
        if batches.is_empty() {
            return;
        }
        self.begin(move |mut files| {
            let was_empty = files.is_empty();
            let (written, result) = files.write(&batches);
            Done::Wrote { files, written, was_empty, result }
        });
    }

    /// Owes what is behind everything that is owed already.
    fn owe(&mut self, (to, records): Debt) {
        let before = self.owed.map_or(0, |(_, records)| records);
        self.owed = Some((to, before + records));
    }

    /// Has forgotten what is owed; whether that has begun.
    fn pay(&mut self) -> bool {
        let (true, Some((to, records))) = (matches!(self.hold, Hold::Home(_)), self.owed) else { return false };
        self.owed = None;
        self.begin(move |mut files| {
            let result = files.forget(to, records);
            Done::Forgot { files, result }
        });
        true
    }

    /// Opens the files, if that is wanted and due.
    fn reopen(&mut self) {
        let (Hold::Closed(at), Some(place)) = (&self.hold, &self.place) else { return };
        if *at > Instant::now() {
            return;
        }
        let Place { disk, dir, bytes_max } = place;
        let (disk, dir, bytes_max) = (disk.clone(), dir.clone(), *bytes_max);
        let work = tokio::task::spawn_blocking(move || Done::Opened(Files::open(&disk, &dir, bytes_max).map(Box::new)));
        self.hold = Hold::Away(work, Instant::now());
    }

    /// Gives the files to a thread, if they are here.
    fn begin(&mut self, work: impl FnOnce(Box<Files>) -> Done + Send + 'static) {
        match std::mem::replace(&mut self.hold, Hold::Never) {
            Hold::Home(files) => {
                self.hold = Hold::Away(tokio::task::spawn_blocking(move || work(files)), Instant::now());
            }
            other => self.hold = other,
        }
    }

    /// Waits until the files are here, if a thread has them, but not for ever.
    async fn come_back_in_time(&mut self) {
        let Hold::Away(_, since) = self.hold else { return };
        if timeout_at(since + self.timing.disk_patience, self.come_back()).await.is_err() {
            let why = format!("it has not answered for {:?}", self.timing.disk_patience);
            self.failed(Work::Wait, &why);
        }
    }

    /// Waits until the thread that has the files comes back; for ever where none has them.
    async fn come_back(&mut self) {
        let Hold::Away(work, _) = &mut self.hold else { return std::future::pending().await };
        let done = work.await;
        self.worked(Work::Wait);
        self.hold = Hold::Closed(Instant::now() + self.timing.disk_pause);
        match done {
            Ok(Done::Opened(Ok(files))) => self.opened(files),
            Ok(Done::Opened(Err(error))) => self.failed(Work::Open, &error.to_string()),
            Ok(Done::Wrote { files, written, was_empty, result }) => {
                self.wrote(&written, was_empty);
                if self.check(Work::Write, result).is_none() {
                    self.writes_after = Instant::now() + self.timing.disk_pause;
                }
                self.take_home(files);
            }
            // A file that cannot be read may be read when it is opened again.
            Ok(Done::Read { files, result }) => {
                if let Some(found) = self.check(Work::Read, result) {
                    self.read(found);
                    self.take_home(files);
                }
            }
            Ok(Done::Peeked { files, result }) => {
                if let Ok(Found::Batch(batch, _)) = result {
                    self.peeked = Some(batch);
                }
                self.take_home(files);
            }
            Ok(Done::Forgot { files, result }) => {
                self.check(Work::Forget, result);
                self.take_home(files);
            }
            Err(error) => {
                tracing::error!(%error, "work on the buffer failed: this is a fault of the agent");
            }
        }
    }

    fn opened(&mut self, files: Box<Files>) {
        self.worked(Work::Open);
        let Stats { waiting, torn_bytes, dropped, .. } = files.stats();
        let dir = files.dir().display();
        if torn_bytes > 0 {
            tracing::warn!(%dir, bytes = torn_bytes, "the end of the buffer was not whole, and was cut off");
        }
        if waiting > 0 {
            tracing::info!(%dir, items = waiting, "points that no transfer has taken are in the buffer: they go first");
        }
        self.told_dropped = dropped;
        self.take_home(files);
    }

    /// Takes from memory what is on the disk now.
    fn wrote(&mut self, written: &[Written], was_empty: bool) {
        for one in written {
            self.figures.written.fetch_add(u64::from(one.records), Relaxed);
            self.count_too_long((one.items as u64).saturating_sub(u64::from(one.records)));
            let debt = (one.end, one.records);
            if one.id < self.answered_until {
                // A batch that was answered while its write took too long is a double, which nothing older is before.
                if was_empty {
                    self.owe(debt);
                }
                continue;
            }
            match self.flight.as_mut() {
                Some(flight) if flight.id == one.id && was_empty => flight.copy = Some(debt),
                _ => {}
            }
            self.queue.remove(one.id, one.items);
        }
    }

    fn count_too_long(&self, items: u64) {
        if items > 0 && self.figures.unusable.fetch_add(items, Relaxed) == 0 {
            tracing::warn!(items, "items that are too long for the buffer are lost (said once, counted always)");
        }
    }

    fn read(&mut self, found: Found) {
        match found {
            Found::Batch(batch, read) => self.found = Some(Waiting { batch, from: From::Disk(read) }),
            Found::Unreadable(read) => {
                self.owe((read.next, read.records));
                if read.records > 0 {
                    self.figures.unusable.fetch_add(u64::from(read.records), Relaxed);
                    tracing::error!(records = read.records, "records of the buffer are no items, and are left out");
                }
            }
            Found::Nothing => {}
        }
    }

    /// Takes the files, and tells what they have found.
    fn take_home(&mut self, files: Box<Files>) {
        let stats = files.stats();
        let figures = &self.figures;
        figures.items.store(stats.waiting, Relaxed);
        figures.bytes.store(stats.bytes, Relaxed);
        figures.dropped.store(stats.dropped, Relaxed);
        figures.missing.store(stats.missing, Relaxed);
        for loss in files.take_found() {
            tracing::warn!(loss, "the buffer has lost points");
        }
        if stats.dropped > self.told_dropped {
            tracing::error!(
                dropped = stats.dropped,
                "the buffer is full and loses its oldest points: raise buffer_max (said once until it is empty)"
            );
            self.told_dropped = u64::MAX;
        }
        if stats.waiting == 0 {
            self.told_dropped = stats.dropped;
        }
        self.hold = Hold::Home(files);
    }

    /// The result of work, if it is none of failure; that is told once, and so is its end.
    fn check<T>(&mut self, work: Work, result: io::Result<T>) -> Option<T> {
        match result {
            Ok(value) => {
                self.worked(work);
                Some(value)
            }
            Err(error) => {
                self.failed(work, &error.to_string());
                None
            }
        }
    }

    fn failed(&mut self, work: Work, why: &str) {
        self.figures.faults.fetch_add(1, Relaxed);
        if !std::mem::replace(&mut self.told[work as usize], true) {
            let dir = self.place.as_ref().map(|place| place.dir.display().to_string());
            tracing::warn!(dir, why, "{}", work.as_str());
        }
    }

    fn worked(&mut self, work: Work) {
        if std::mem::take(&mut self.told[work as usize]) {
            tracing::info!("over: {}", work.as_str());
        }
    }
}

impl Work {
    fn as_str(self) -> &'static str {
        match self {
            Work::Open => "the buffer on the disk cannot be opened: points wait in memory only",
            Work::Write => "the disk refuses the buffer: points wait in memory only",
            Work::Read => "the buffer on the disk cannot be read: newer points go on",
            Work::Forget => "the disk does not note what was sent: a restart would send it again",
            Work::Wait => "the disk of the buffer hangs: points wait in memory only",
        }
    }
}

/// A time that does not come.
fn far() -> Instant {
    // A day: later ones are more than a timer takes on some systems, and whoever waits looks again.
    Instant::now() + Duration::from_secs(86_400)
}
