//! Spread: when within its step a probe runs.
//!
//! Why: a thousand probes that all begin with the minute are a second of work and fifty-nine of none, and their targets
//! see a flood.
//! How: a probe runs once in each slot of its step of the wall clock, at an offset that comes from its name. Receivers
//! align times down to the slot, so each slot gets one point.
//! Invariants: pure; the offset of a name is the same in all versions and on all machines.

use std::time::Duration;

/// Parts of a slot, at either end, in which nothing runs: one in this many. A clock that is stepped by less skips no
/// slot.
const MARGIN: u64 = 10;

/// Offset of a probe within its step (seconds, at least 1). Who runs one probe from several places adds the place to
/// the name, so that they do not all ask at once.
pub fn spread(name: &str, step: u32) -> Duration {
    let step_ms = u64::from(step.max(1)) * 1000;
    let margin = step_ms / MARGIN;
    Duration::from_millis(margin + hash(name) % (step_ms - 2 * margin))
}

/// FNV-1a with a finish, whose result is written down here and changes with no library.
fn hash(text: &str) -> u64 {
    let sum = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    // Names that differ in their last byte only would come close to each other.
    let sum = (sum ^ (sum >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    sum ^ (sum >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_probes_are_spread() {
        let mut seconds = [0; 60];
        for i in 0..1000 {
            seconds[spread(&format!("probe{i}"), 60).as_secs() as usize] += 1;
        }
        assert_eq!(seconds[..6].iter().chain(&seconds[54..]).sum::<i32>(), 0, "{seconds:?}");
        assert!(seconds[6..54].iter().all(|count| (5..=45).contains(count)), "{seconds:?}");
    }

    #[test]
    fn an_offset_stays() {
        assert_eq!(spread("shop", 60), spread("shop", 60));
        assert_eq!(spread("shop", 60).as_millis(), OFFSET_OF_SHOP);
        assert!(spread("shop", 0) < Duration::from_secs(1));
    }

    /// As it was first.
    const OFFSET_OF_SHOP: u128 = 47_220;
}
