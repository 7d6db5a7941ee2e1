//! The wall clock. Cores take time as an argument; this is where the argument comes from.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix seconds.
pub fn now() -> i64 {
    // A clock before 1970 is a machine without time; 0 makes every point "future", which is refused and counted.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
