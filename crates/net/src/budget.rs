//! Byte budget: what all connections together may hold in unfinished messages.
//!
//! Why: ten thousand connections that each send half a 16 MiB message must not take the memory of the machine, and one
//! peer's unfinished messages must not take the room of all others. An idle connection holds no buffer at all; one with
//! an unfinished message holds a share of one budget.
//! How: [`Turns`] that count KiB, so one peer alone has at most three quarters. The first share is waited for
//! (back-pressure), growth is not: whoever cannot grow gives up its connection, so that holders never wait for each
//! other. Growth leaves a sixteenth free for first shares: a few huge messages must not stand in the way of the many
//! small ones.
//! Memory: at most the budget given; shown as `hawkeye_buffer_bytes` and `hawkeye_buffer_max_bytes`.

use super::turns::{Holder, Turn, Turns};

/// Bytes are counted in units of so many.
pub const UNIT: usize = 1024;
/// The part of the budget that growth leaves to first shares.
const KEPT_FREE: usize = 16;

/// The byte budget; clones share it.
#[derive(Clone)]
pub struct Budget {
    units: Turns,
}

/// Bytes taken from a [`Budget`]; given back when dropped.
pub struct Share {
    units: Turn,
    kept_free: usize,
}

impl Budget {
    /// A budget of so many bytes, none taken yet.
    pub fn new(bytes_max: u64) -> Budget {
        Budget { units: Turns::new((bytes_max as usize / UNIT).max(1)) }
    }

    /// Waits until `bytes` are free for `holder`.
    pub async fn take(&self, holder: &Holder, bytes: usize) -> Share {
        let units = self.units.take(holder, bytes.div_ceil(UNIT)).await;
        Share { units, kept_free: self.units.count() / KEPT_FREE }
    }

    /// Bytes that are taken now.
    pub fn bytes_used(&self) -> usize {
        (self.units.count() - self.units.free()) * UNIT
    }

    /// Bytes that can be taken together.
    pub fn bytes_max(&self) -> usize {
        self.units.count() * UNIT
    }

    /// The largest message that can be had, when nobody else has any.
    pub fn message_max(&self) -> usize {
        self.units.most() * UNIT
    }
}

impl Share {
    /// Adds `bytes`, or answers false when they are not free for this holder now.
    pub fn grow(&mut self, bytes: usize) -> bool {
        self.units.grow(bytes.div_ceil(UNIT), self.kept_free)
    }

    /// Gives back what is above `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        self.units.shrink_to(bytes.div_ceil(UNIT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patience::in_time;

    #[tokio::test]
    async fn bounds_and_gives_back() {
        let budget = Budget::new(64 << 10);
        let (one, another) = (Holder::user("one"), Holder::user("another"));
        let mut share = budget.take(&one, 16 << 10).await;
        assert!(share.grow(32 << 10));
        assert!(!share.grow(1), "the last quarter is for others");
        assert_eq!(budget.bytes_used(), budget.message_max());
        let other = in_time("the share of another peer", budget.take(&another, 16 << 10)).await;
        assert_eq!(budget.bytes_used(), 64 << 10);
        share.shrink(1);
        assert_eq!(budget.bytes_used(), 17 << 10);
        share.shrink(2 << 10);
        assert_eq!(budget.bytes_used(), 17 << 10);
        drop((share, other));
        assert_eq!(budget.bytes_used(), 0);
    }

    #[tokio::test]
    async fn growth_leaves_room_for_first_shares() {
        let budget = Budget::new(64 << 10);
        let mut shares = Vec::new();
        for index in 0..2 {
            let mut share = budget.take(&Holder::user(&index.to_string()), 1 << 10).await;
            while share.grow(1 << 10) {}
            shares.push(share);
        }
        assert_eq!(budget.bytes_used(), 60 << 10);
        drop(in_time("a first share", budget.take(&Holder::user("late"), 4 << 10)).await);
    }
}
