//! The wall clock: now, and times as people and Open-Falcon's tables write them, the local zone's `YYYY-MM-DD
//! HH:MM:SS`.
//!
//! Why here: cores take time as an argument; this is where the argument comes from.
//! Compat: docs/open-falcon/alarm.md §5–6; the API shows the same times in RFC 3339, as the original does. The zone is
//! the machine's, or that of `TZ`. In the hour that a clock change repeats, a text means its first occurrence.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use std::time::{SystemTime, UNIX_EPOCH};

const FORM: &str = "%Y-%m-%d %H:%M:%S";

/// Unix seconds.
pub fn now() -> i64 {
    // A clock before 1970 is a machine without time; 0 makes every point "future", which is refused and counted.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// Unix milliseconds.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Unix seconds → `2026-11-22 19:58:40`.
pub fn local_text(unix: i64) -> String {
    format_in(unix, TimeZone::system())
}

/// The text of a table's column → Unix seconds; None when it is no time.
pub fn unix(text: &str) -> Option<i64> {
    let civil: DateTime = text.parse().ok()?;
    Some(civil.to_zoned(TimeZone::system()).ok()?.timestamp().as_second())
}

/// The text of a table's column → `2026-11-22T19:58:40+08:00`; None when it is no time.
pub fn rfc3339(text: &str) -> Option<String> {
    rfc3339_in(text, TimeZone::system())
}

fn format_in(unix: i64, zone: TimeZone) -> String {
    in_zone(unix, zone).strftime(FORM).to_string()
}

fn rfc3339_in(text: &str, zone: TimeZone) -> Option<String> {
    let time = DateTime::strptime(FORM, text).ok()?.to_zoned(zone).ok()?;
    let form = if time.offset().is_zero() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
    Some(time.strftime(form).to_string())
}

/// A time that no calendar holds (an agent sent a broken clock) is shown as the nearest that one does.
fn in_zone(unix: i64, zone: TimeZone) -> Zoned {
    let nearest = if unix < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_second(unix).unwrap_or(nearest).to_zoned(zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_texts() {
        let beijing = TimeZone::fixed(jiff::tz::offset(8));
        assert_eq!(format_in(1_490_000_000, beijing.clone()), "2017-03-20 16:53:20");
        assert_eq!(format_in(1_490_000_000, TimeZone::UTC), "2017-03-20 08:53:20");
        assert_eq!(rfc3339_in("2017-03-20 16:53:20", beijing).as_deref(), Some("2017-03-20T16:53:20+08:00"));
        assert_eq!(rfc3339_in("2017-03-20 08:53:20", TimeZone::UTC).as_deref(), Some("2017-03-20T08:53:20Z"));
        assert_eq!(rfc3339_in("yesterday", TimeZone::UTC), None);
        assert_eq!(format_in(i64::MAX, TimeZone::UTC).len(), 19);
    }
}
