//! Clock: the wall clock, for whoever puts a time on points or keeps to its slots.

use std::time::{SystemTime, UNIX_EPOCH};

/// Time now (Unix seconds).
pub fn unix_now() -> i64 {
    unix_ms() / 1000
}

/// Time now (Unix milliseconds); 0 while the clock stands before 1970.
pub fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
