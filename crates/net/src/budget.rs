//! Byte budget: what all connections together may hold in unfinished messages.
//!
//! Why: ten thousand connections that each send half a 16 MiB message must not take the memory of the machine. An idle
//! connection holds no buffer at all; one with an unfinished message holds a share of one budget.
//! How: a semaphore that counts KiB. The first share is waited for (back-pressure), growth is not: whoever cannot grow
//! gives up its connection, so that holders never wait for each other. Growth leaves a quarter free: a few huge
//! messages must not stand in the way of the many small ones, which fit into their first share.
//! Memory: at most the budget given; shown as `hawkeye_buffer_bytes` and `hawkeye_buffer_max_bytes`.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes are counted in units of so many.
pub const UNIT: usize = 1024;

/// The byte budget; clones share it.
#[derive(Clone)]
pub struct Budget {
    units: Arc<Semaphore>,
    bytes_max: usize,
}

/// Bytes taken from a [`Budget`]; given back when dropped.
pub struct Share(OwnedSemaphorePermit);

impl Budget {
    /// A budget of so many bytes, none taken yet.
    pub fn new(bytes_max: u64) -> Budget {
        let units = (bytes_max as usize / UNIT).clamp(1, Semaphore::MAX_PERMITS);
        Budget { units: Arc::new(Semaphore::new(units)), bytes_max: units * UNIT }
    }

    /// Waits until `bytes` are free.
    pub async fn take(&self, bytes: usize) -> Share {
        let units = units_of(bytes).min(self.bytes_max / UNIT) as u32;
        Share(self.units.clone().acquire_many_owned(units).await.expect("the semaphore is never closed"))
    }

    /// Adds `bytes` to `share`, or answers false when they are not free now.
    pub fn grow(&self, share: &mut Share, bytes: usize) -> bool {
        let units = units_of(bytes);
        if self.units.available_permits() < units + self.kept_free() {
            return false;
        }
        match self.units.clone().try_acquire_many_owned(units as u32) {
            Ok(more) => {
                share.0.merge(more);
                true
            }
            Err(_) => false,
        }
    }

    /// Bytes that are taken now.
    pub fn bytes_used(&self) -> usize {
        self.bytes_max - self.units.available_permits() * UNIT
    }

    /// Bytes that can be taken together.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// The largest message that can be had, when nobody else has any.
    pub fn message_max(&self) -> usize {
        self.bytes_max - self.kept_free() * UNIT
    }

    /// Units that growth leaves to first shares.
    fn kept_free(&self) -> usize {
        self.bytes_max / UNIT / 4
    }
}

impl Share {
    /// Gives back what is above `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        let surplus = self.0.num_permits().saturating_sub(units_of(bytes));
        drop(self.0.split(surplus));
    }
}

fn units_of(bytes: usize) -> usize {
    bytes.div_ceil(UNIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bounds_and_gives_back() {
        let budget = Budget::new(64 << 10);
        let mut share = budget.take(16 << 10).await;
        assert!(budget.grow(&mut share, 32 << 10));
        assert!(!budget.grow(&mut share, 1), "the last quarter is for first shares");
        assert_eq!(budget.bytes_used(), budget.message_max());
        let other = budget.take(16 << 10).await;
        assert_eq!(budget.bytes_used(), 64 << 10);
        share.shrink(1);
        assert_eq!(budget.bytes_used(), 17 << 10);
        share.shrink(2 << 10);
        assert_eq!(budget.bytes_used(), 17 << 10);
        drop((share, other));
        assert_eq!(budget.bytes_used(), 0);
    }
}
