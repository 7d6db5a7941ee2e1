//! Options: how judges judge, the same for all of a process.

/// The results to give where the original's are wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Semantics {
    /// Values that are not known (a counter was reset, points are missing) neither alarm nor recover.
    #[default]
    Hawkeye,
    /// The original's results, wrong ones included.
    OpenFalcon,
}

/// Settings of a judge, the same for all shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    pub semantics: Semantics,
    /// Seconds between the time of a PROBLEM's point and the next PROBLEM of the same alarm.
    pub min_interval_s: i64,
    /// The largest window that a rule may ask for, in points: what the store's hot window is sure to hold.
    pub points_max: u32,
    /// Whether `*` and `?` in an expression's tag `endpoint` stand for any text and for one character (`pattern.rs`).
    pub endpoint_patterns: bool,
    /// Seconds that a time may be ahead of the clock, as the doors take it; what is further ahead was told by a clock
    /// that was wrong. A point of such a time is no newest point, and an alarm of such a time silences nobody; under
    /// [`Semantics::OpenFalcon`] both do, until then.
    pub future_max_s: i64,
}

impl Options {
    /// The latest time that a clock which is right can have told by `now`.
    pub(crate) fn latest(&self, now: i64) -> i64 {
        match self.semantics {
            Semantics::Hawkeye => now.saturating_add(self.future_max_s),
            Semantics::OpenFalcon => i64::MAX,
        }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            semantics: Semantics::Hawkeye,
            // alarm.minInterval of the original's shipped configuration.
            min_interval_s: 300,
            // The default hot window of 7200 s at the usual step of 60 s.
            points_max: 120,
            endpoint_patterns: true,
            // `ingest.future_max` as shipped.
            future_max_s: 300,
        }
    }
}
