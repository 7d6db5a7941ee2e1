//! The buffer on disks that fail in every way: what was handed out in which order, and what is left.

use super::*;
use net::patience::in_time;
use std::any::Any;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Condvar, Mutex};
use stdx::{DiskFile, FakeDisk};

const MIB: u64 = 1 << 20;

/// What is in the queue is written at once, and the disk tried again at once.
const FAST: BufferTiming = BufferTiming {
    spill_after: Duration::ZERO,
    disk_patience: Duration::from_secs(30),
    disk_pause: Duration::from_millis(1),
};

fn buffer_on(disk: Arc<dyn Disk>, timing: BufferTiming) -> (Arc<Queue>, Buffer) {
    let queue = Arc::new(Queue::new(1 << 20));
    let place = Place { disk, dir: "/buffer".into(), bytes_max: MIB };
    (queue.clone(), Buffer::new(queue, Some(place), timing))
}

/// A batch of items that are numbers.
fn push(queue: &Queue, numbers: std::ops::Range<u64>) {
    let items: Vec<String> = numbers.map(|number| number.to_string()).collect();
    queue.push(Batch { json: format!("[{}]", items.join(",")).into_bytes().into(), items: items.len() });
}

fn numbers(batch: &Batch) -> Vec<u64> {
    let text = std::str::from_utf8(&batch.json).expect("UTF-8");
    text.trim_matches(['[', ']']).split(',').map(|number| number.parse().expect("a number")).collect()
}

/// The oldest batch, which stays.
async fn oldest(buffer: &mut Buffer) -> Waiting {
    in_time("a batch", buffer.oldest()).await
}

/// Waits, as the sender does with a batch under way, until the buffer has written so many items since its start.
async fn written(buffer: &mut Buffer, items: u64) {
    let figures = buffer.figures();
    let looking = net::patience::until("items on the disk", async || figures.written.load(Relaxed) >= items);
    buffer.during(looking).await;
}

/// Takes everything that can be had now; answers its numbers.
async fn drain(buffer: &mut Buffer) -> Vec<u64> {
    let mut all = Vec::new();
    while let Some(waiting) = in_time("a look", buffer.oldest_of_now()).await {
        all.extend(numbers(&waiting.batch));
        buffer.done(&waiting).await;
    }
    all
}

#[tokio::test]
async fn nothing_is_written_while_batches_are_taken() {
    let disk = Arc::new(FakeDisk::default());
    let (queue, mut buffer) = buffer_on(disk.clone(), BufferTiming { spill_after: Duration::from_secs(60), ..FAST });
    assert_eq!(drain(&mut buffer).await, [0_u64; 0]);
    let operations = disk.operations();
    for batch in 0..20 {
        push(&queue, batch * 10..batch * 10 + 10);
        let waiting = oldest(&mut buffer).await;
        buffer.during(tokio::task::yield_now()).await;
        assert_eq!(numbers(&waiting.batch)[0], batch * 10);
        buffer.done(&waiting).await;
    }
    assert_eq!((disk.operations(), queue.size().items), (operations, 0));
}

#[tokio::test]
async fn what_nobody_takes_is_written_and_comes_first_after_a_kill() {
    let disk = Arc::new(FakeDisk::default());
    let (queue, mut buffer) = buffer_on(disk.clone(), FAST);
    push(&queue, 0..10);
    assert_eq!(numbers(&oldest(&mut buffer).await.batch)[0], 0);
    push(&queue, 10..5000);
    written(&mut buffer, 5000).await;
    assert_eq!(queue.size().items, 0);
    drop(buffer);
    disk.restart_after_kill();
    let (queue, mut buffer) = buffer_on(disk.clone(), FAST);
    push(&queue, 5000..5005);
    assert_eq!(drain(&mut buffer).await, Vec::from_iter(0..5005));
    drop(buffer);
    disk.restart_after_kill();
    let (_, mut buffer) = buffer_on(disk, FAST);
    assert_eq!(drain(&mut buffer).await, [0_u64; 0], "what was taken does not come again");
}

#[tokio::test]
async fn a_batch_that_is_written_while_it_is_under_way_is_forgotten_with_its_answer() {
    let disk = Arc::new(FakeDisk::default());
    let (queue, mut buffer) = buffer_on(disk.clone(), FAST);
    push(&queue, 0..10);
    let under_way = oldest(&mut buffer).await;
    push(&queue, 10..20);
    written(&mut buffer, 20).await;
    buffer.done(&under_way).await;
    drop(buffer);
    disk.restart_after_kill();
    let (_, mut buffer) = buffer_on(disk, FAST);
    assert_eq!(drain(&mut buffer).await, Vec::from_iter(10..20));
}

#[tokio::test]
async fn what_comes_while_the_disk_is_sent_goes_behind_it() {
    let (queue, mut buffer) = buffer_on(Arc::new(FakeDisk::default()), FAST);
    push(&queue, 0..10);
    oldest(&mut buffer).await;
    written(&mut buffer, 10).await;
    let mut all = Vec::new();
    for round in 1..10 {
        let waiting = oldest(&mut buffer).await;
        assert!(waiting.is_from_disk());
        push(&queue, round * 10..round * 10 + 10);
        written(&mut buffer, round * 10 + 10).await;
        all.extend(numbers(&waiting.batch));
        buffer.done(&waiting).await;
    }
    all.append(&mut drain(&mut buffer).await);
    assert_eq!(all, Vec::from_iter(0..100));
}

#[tokio::test]
async fn a_stop_writes_what_is_left() {
    let disk = Arc::new(FakeDisk::default());
    let (queue, mut buffer) = buffer_on(disk.clone(), FAST);
    push(&queue, 0..10);
    oldest(&mut buffer).await;
    push(&queue, 10..20);
    assert_eq!((buffer.keep_rest().await, buffer.items()), (0, 20));
    drop(buffer);
    let (_, mut buffer) = buffer_on(disk, FAST);
    assert_eq!(drain(&mut buffer).await, Vec::from_iter(0..20));
}

#[tokio::test]
async fn a_full_disk_leaves_points_in_memory_and_takes_them_when_there_is_room() {
    let disk = Arc::new(FakeDisk::default());
    let (queue, mut buffer) = buffer_on(disk.clone(), FAST);
    assert_eq!(drain(&mut buffer).await, [0_u64; 0]);
    disk.set_room(Some(0));
    push(&queue, 0..1000);
    let under_way = oldest(&mut buffer).await;
    let figures = buffer.figures();
    let has_failed = net::patience::until("a failure", async || figures.faults.load(Relaxed) >= 2);
    buffer.during(has_failed).await;
    assert_eq!(queue.size().items, 1000);
    buffer.done(&under_way).await;
    push(&queue, 1000..2000);
    disk.set_room(None);
    assert_eq!(numbers(&oldest(&mut buffer).await.batch)[0], 1000);
    written(&mut buffer, 1000).await;
    assert_eq!(drain(&mut buffer).await, Vec::from_iter(1000..2000));
}

#[tokio::test]
async fn a_directory_that_another_agent_has_leaves_points_in_memory_until_it_is_free() {
    let disk = Arc::new(FakeDisk::default());
    let (first_queue, mut first) = buffer_on(disk.clone(), FAST);
    push(&first_queue, 0..10);
    oldest(&mut first).await;
    written(&mut first, 10).await;
    let (queue, mut buffer) = buffer_on(disk, FAST);
    push(&queue, 10..20);
    assert_eq!(numbers(&oldest(&mut buffer).await.batch), Vec::from_iter(10..20));
    assert!(buffer.figures().faults.load(Relaxed) > 0);
    drop(first);
    written(&mut buffer, 10).await;
    assert_eq!(drain(&mut buffer).await, Vec::from_iter(0..20));
}

#[tokio::test]
async fn damage_is_counted_and_the_rest_is_sent() {
    let disk = Arc::new(FakeDisk::default());
    let (queue, mut buffer) = buffer_on(disk.clone(), FAST);
    push(&queue, 0..10);
    oldest(&mut buffer).await;
    // Segments have 256 KiB.
    for batch in 0..10 {
        push(&queue, 10 + batch * 10_000..10 + (batch + 1) * 10_000);
    }
    written(&mut buffer, 100_010).await;
    drop(buffer);
    disk.restart_after_kill();
    let path = disk.paths().into_iter().find(|path| path.extension().is_some_and(|end| end == "spool"));
    disk.corrupt(&path.expect("a segment"), 100_000);
    let (_, mut buffer) = buffer_on(disk, FAST);
    let sent = drain(&mut buffer).await;
    let missing = 100_010 - sent.len() as u64;
    assert!(missing > 0 && sent.is_sorted() && sent.last() == Some(&100_009), "{missing} missing");
    assert_eq!(buffer.figures().missing.load(Relaxed), missing);
}

#[tokio::test]
async fn a_full_buffer_drops_the_oldest_and_counts_them() {
    let (queue, mut buffer) = buffer_on(Arc::new(FakeDisk::default()), FAST);
    push(&queue, 0..10);
    oldest(&mut buffer).await;
    for batch in 0..30 {
        push(&queue, 10 + batch * 10_000..10 + (batch + 1) * 10_000);
        written(&mut buffer, 10 + (batch + 1) * 10_000).await;
    }
    let sent = drain(&mut buffer).await;
    let dropped = buffer.figures().dropped.load(Relaxed);
    assert!(dropped > 0);
    assert_eq!(sent, Vec::from_iter(dropped..300_010));
}

/// A disk that takes no file while it is stuck, and does not say so.
struct Stuck {
    disk: FakeDisk,
    is_stuck: Arc<(Mutex<bool>, Condvar)>,
}

impl Stuck {
    fn set(is_stuck: &(Mutex<bool>, Condvar), to: bool) {
        *is_stuck.0.lock().expect("no panic") = to;
        is_stuck.1.notify_all();
    }

    fn pass(&self) {
        let (lock, woken) = &*self.is_stuck;
        let stuck = lock.lock().expect("no panic");
        drop(woken.wait_while(stuck, |stuck| *stuck).expect("no panic"));
    }
}

impl Disk for Stuck {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(path)
    }

    fn open_or_create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.pass();
        self.disk.open_or_create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.disk.lock(path)
    }
}

#[tokio::test]
async fn a_disk_that_hangs_holds_up_nothing_and_doubles_nothing() {
    let is_stuck = Arc::new((Mutex::new(false), Condvar::new()));
    let disk = Arc::new(Stuck { disk: FakeDisk::default(), is_stuck: is_stuck.clone() });
    let (queue, mut buffer) = buffer_on(disk, BufferTiming { disk_patience: Duration::from_millis(5), ..FAST });
    // The first write makes a file, and is not answered.
    net::patience::until("the files", async || {
        buffer.oldest_of_now().await;
        matches!(buffer.hold, Hold::Home(_))
    })
    .await;
    Stuck::set(&is_stuck, true);
    push(&queue, 0..10);
    let under_way = oldest(&mut buffer).await;
    push(&queue, 10..20);
    let _ = tokio::time::timeout(Duration::from_millis(5), buffer.during(std::future::pending::<()>())).await;
    assert!(matches!(buffer.hold, Hold::Away(..)), "a write has begun");
    buffer.done(&under_way).await;
    // What was to be written goes from memory all the same.
    let mut sent: BTreeSet<u64> = numbers(&under_way.batch).into_iter().collect();
    let next = oldest(&mut buffer).await;
    assert!(!next.is_from_disk());
    sent.extend(numbers(&next.batch));
    buffer.done(&next).await;
    push(&queue, 20..30);
    Stuck::set(&is_stuck, false);
    net::patience::until("the files", async || {
        buffer.come_back_in_time().await;
        matches!(buffer.hold, Hold::Home(_))
    })
    .await;
    assert!(buffer.figures().faults.load(Relaxed) > 0);
    for number in drain(&mut buffer).await {
        assert!(sent.insert(number), "{number} came twice");
    }
    assert_eq!(sent, BTreeSet::from_iter(0..30));
}
