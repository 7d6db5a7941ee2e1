//! Unkept: whether points cannot be kept now, as `/health` says it.
//!
//! Why: a sender that is refused comes again after a minute, or never. The trouble is over when the disk takes points,
//! and not only when somebody has sent some.
//! How: the door notes what became of each batch; where one was refused, the keeper's thread looks each second whether
//! the disk takes points again ([`Unkept::look`]).
//! Invariants: a batch that is kept costs no lock; nothing is asked of the disk while nothing was refused.

use super::IngestError;
use crate::watch::health::{Health, Outage};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// State of the keeping of points.
#[derive(Default)]
pub struct Unkept {
    outage: OnceLock<Outage>,
    is_refusing: AtomicBool,
    /// A batch was refused since the last look.
    is_fresh: AtomicBool,
}

impl Unkept {
    /// Has `/health` say while points cannot be kept.
    pub fn tell(&self, health: &Health) {
        self.outage.get_or_init(|| health.outage("points cannot be kept, and senders are told so"));
    }

    /// Notes that the disk has refused a batch.
    pub fn refused(&self, error: &IngestError) {
        self.is_fresh.store(true, Ordering::Release);
        self.is_refusing.store(true, Ordering::Release);
        if let Some(outage) = self.outage.get() {
            outage.fails(error.to_string());
        }
    }

    /// Notes that a batch was kept.
    pub fn kept(&self) {
        if self.is_refusing.load(Ordering::Acquire) {
            self.ends();
        }
    }

    /// Ends the trouble if no batch was refused since the last look and `takes_points` finds the disk well; call this
    /// each second.
    pub fn look(&self, takes_points: impl FnOnce() -> bool) {
        let is_over = self.is_refusing.load(Ordering::Acquire)
            && !self.is_fresh.swap(false, Ordering::AcqRel)
            && takes_points()
            && !self.is_fresh.load(Ordering::Acquire);
        if is_over {
            self.ends();
        }
    }

    fn ends(&self) {
        self.is_refusing.store(false, Ordering::Release);
        if let Some(outage) = self.outage.get() {
            outage.works();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trouble_ends_with_a_batch_or_by_itself() {
        let (unkept, health) = (Unkept::default(), Health::default());
        unkept.tell(&health);
        unkept.look(|| panic!("nothing was refused"));
        let is_told = || !health.reasons().is_empty();
        unkept.refused(&IngestError::EventsWait);
        unkept.kept();
        assert!(!is_told(), "a batch was kept");
        unkept.look(|| panic!("it is over"));
        unkept.refused(&IngestError::EventsWait);
        unkept.look(|| panic!("a batch was refused a moment ago"));
        unkept.look(|| false);
        assert!(is_told());
        unkept.look(|| {
            unkept.refused(&IngestError::EventsWait);
            true
        });
        assert!(is_told(), "one was refused meanwhile");
        unkept.look(|| true);
        unkept.look(|| true);
        assert!(!is_told());
    }
}
