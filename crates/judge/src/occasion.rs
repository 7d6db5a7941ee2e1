//! Occasion: why a series is judged, and what decides besides its points.
//!
//! Invariants: the clock comes from the caller; a core has none.

use crate::Options;

/// The call that has a series judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cause {
    /// A point has come.
    Point,
    /// The newest point is judged again after a restart.
    CatchUp,
    /// The conditions over several series are to know what the series says, without deciding.
    Refill,
    /// A point has not come.
    Tick,
}

/// A moment at which something is decided.
#[derive(Clone, Copy)]
pub(crate) struct Occasion {
    pub cause: Cause,
    /// The wall clock.
    pub now: i64,
    /// [`crate::Options::min_interval_s`].
    pub min_interval_s: i64,
    /// The latest time that a clock which is right can have told: see [`Options::future_max_s`].
    pub latest: i64,
}

impl Occasion {
    /// An occasion at `now`.
    pub fn new(cause: Cause, now: i64, options: &Options) -> Occasion {
        Occasion { cause, now, min_interval_s: options.min_interval_s, latest: options.latest(now) }
    }

    /// Whether rules that are one function are asked: what they say is made of points only.
    pub fn asks_plain_rules(&self) -> bool {
        matches!(self.cause, Cause::Point | Cause::CatchUp)
    }

    /// Whether conditions over several series are decided. After a restart, and after a load, all series speak first.
    pub fn decides_joins(&self) -> bool {
        matches!(self.cause, Cause::Point | Cause::Tick)
    }
}
