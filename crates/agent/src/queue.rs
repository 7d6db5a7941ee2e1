//! Queue: batches that were collected or pushed, and that neither a transfer nor the disk has yet.
//!
//! Why: the original loses a round when no transfer answers; here the round waits and is sent in order afterwards.
//! How: the buffer looks at the oldest batch, has it sent, and only then removes it, so that a send that is given up
//! half-way loses nothing. When the bytes exceed the bound the oldest batches are dropped, counted by item.
//! Memory: `buffer_memory_max` bytes of batches, shown as `agent_buffer_bytes`.

use super::batch::Batch;
use std::collections::VecDeque;
use std::sync::Mutex;
use tokio::sync::Notify;

/// Bytes that a batch costs beside its JSON: the entry in the queue and the allocation's own cost, rounded up.
const BATCH_OVERHEAD: usize = 128;

/// Batches that wait for a transfer, the oldest first, bounded by their bytes.
pub struct Queue {
    state: Mutex<State>,
    filled: Notify,
    bytes_max: usize,
}

#[derive(Default)]
struct State {
    batches: VecDeque<(u64, Batch)>,
    next_id: u64,
    bytes: usize,
    /// Bytes of all batches that ever came.
    bytes_pushed: u64,
    items: usize,
    items_dropped: u64,
}

/// The size of the queue, for the metrics page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSize {
    pub bytes: usize,
    pub items: usize,
    pub items_dropped: u64,
}

impl Queue {
    /// An empty queue for `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Queue {
        Queue { state: Mutex::default(), filled: Notify::new(), bytes_max }
    }

    /// Adds a batch; the oldest batches make room.
    pub fn push(&self, batch: Batch) {
        {
            let mut state = self.lock();
            let id = state.next_id;
            state.next_id += 1;
            state.bytes += cost(&batch);
            state.bytes_pushed += batch.json.len() as u64;
            state.items += batch.items;
            state.batches.push_back((id, batch));
            while state.bytes > self.bytes_max {
                let Some(items) = state.pop() else { break };
                state.items_dropped += items as u64;
            }
        }
        self.filled.notify_one();
    }

    /// Waits until there is a batch; one waiter at a time.
    pub async fn filled(&self) {
        while self.lock().batches.is_empty() {
            // A permit left by a `push` since then ends the wait at once.
            self.filled.notified().await;
        }
    }

    /// The oldest batch, which stays in the queue, if there is one.
    pub fn try_oldest(&self) -> Option<(u64, Batch)> {
        self.lock().batches.front().cloned()
    }

    /// Number of the oldest batch, if there is one. Later batches have greater numbers.
    pub fn oldest_id(&self) -> Option<u64> {
        self.lock().batches.front().map(|(id, _)| *id)
    }

    /// All batches, which stay in the queue, the oldest first.
    pub fn all(&self) -> Vec<(u64, Batch)> {
        self.lock().batches.iter().cloned().collect()
    }

    /// Bytes of all batches that were ever pushed.
    pub fn bytes_pushed(&self) -> u64 {
        self.lock().bytes_pushed
    }

    /// Removes the batch that was sent, or written. A batch that was dropped meanwhile to make room is not counted as
    /// lost.
    pub fn remove(&self, id: u64, items: usize) {
        let mut state = self.lock();
        if state.batches.front().is_some_and(|(oldest, _)| *oldest == id) {
            state.pop();
        } else {
            state.items_dropped -= items as u64;
        }
    }

    /// Size of the queue now.
    pub fn size(&self) -> QueueSize {
        let state = self.lock();
        QueueSize { bytes: state.bytes, items: state.items, items_dropped: state.items_dropped }
    }

    /// Most bytes that may wait.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while the queue is locked")
    }
}

impl State {
    /// Removes the oldest batch; answers the number of its items.
    fn pop(&mut self) -> Option<usize> {
        let (_, batch) = self.batches.pop_front()?;
        self.bytes -= cost(&batch);
        self.items -= batch.items;
        Some(batch.items)
    }
}

fn cost(batch: &Batch) -> usize {
    batch.json.len() + BATCH_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(bytes: usize, items: usize) -> Batch {
        Batch { json: vec![b' '; bytes - BATCH_OVERHEAD].into(), items }
    }

    #[test]
    fn the_oldest_make_room_and_are_counted() {
        let queue = Queue::new(1000);
        for items in [1, 2, 3] {
            queue.push(batch(400, items));
        }
        assert_eq!(queue.size(), QueueSize { bytes: 800, items: 5, items_dropped: 1 });
        assert_eq!(queue.try_oldest().expect("two left").1.items, 2);
        queue.push(batch(2000, 7));
        assert_eq!(queue.size(), QueueSize { bytes: 0, items: 0, items_dropped: 13 });
        assert!(queue.try_oldest().is_none());
    }

    #[test]
    fn a_batch_that_was_dropped_while_it_was_sent_is_not_lost() {
        let queue = Queue::new(1000);
        queue.push(batch(600, 1));
        let (id, sending) = queue.try_oldest().expect("one");
        queue.push(batch(600, 2));
        assert_eq!(queue.size().items_dropped, 1);
        queue.remove(id, sending.items);
        assert_eq!(queue.size(), QueueSize { bytes: 600, items: 2, items_dropped: 0 });
        let (id, sending) = queue.try_oldest().expect("the newer one");
        queue.remove(id, sending.items);
        assert_eq!(queue.size(), QueueSize { bytes: 0, items: 0, items_dropped: 0 });
    }

    #[tokio::test]
    async fn waits_for_a_batch() {
        let queue = Queue::new(1000);
        tokio::join!(queue.filled(), async { queue.push(batch(200, 9)) });
        assert_eq!(queue.all()[0].1.items, 9);
        queue.filled().await;
    }
}
