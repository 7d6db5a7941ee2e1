//! Checksum: CRC-32 (IEEE), the one checksum of every file that Hawkeye writes.
//!
//! Why CRC-32 and not something stronger: it guards against torn writes and rotten bits, not against people; it runs at
//! several GB/s with the CPU's instructions and every tool knows it.

/// The switch by which a fuzzer turns checksums off, as it would hardly ever reach what stands behind one. No other
/// build has the switch.
#[cfg(fuzzing)]
pub static OFF: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// The checksum of `parts` as if they were one slice.
pub fn crc32(parts: &[&[u8]]) -> u32 {
    #[cfg(fuzzing)]
    if OFF.load(std::sync::atomic::Ordering::Relaxed) {
        return 0;
    }
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::crc32;

    #[test]
    fn check_value_of_the_standard() {
        assert_eq!(crc32(&[b"1234", b"56789"]), 0xcbf4_3926);
    }
}
