//! Numbers and tables as they stand in `/proc`.
//!
//! Compat: a field that is no number counts as 0 and one that is too large as the largest (docs/open-falcon/agent.md
//! §8), so that one odd field costs itself and nothing else.

use std::num::IntErrorKind;

/// A signed number.
pub(crate) fn int(field: &str) -> i64 {
    field.parse().unwrap_or_else(|error: std::num::ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => i64::MAX,
        IntErrorKind::NegOverflow => i64::MIN,
        _ => 0,
    })
}

/// An unsigned number.
pub(crate) fn uint(field: &str) -> u64 {
    field.parse().unwrap_or_else(|error: std::num::ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => u64::MAX,
        _ => 0,
    })
}

/// The columns of the pair of lines that begin with `prefix` in `/proc/net/{netstat,snmp}`: names, then values.
pub(crate) fn columns<'a>(text: &'a str, prefix: &str) -> Option<impl Iterator<Item = (&'a str, u64)>> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(prefix)?.strip_prefix(':'));
    let (names, values) = (lines.next()?, lines.next()?);
    Some(names.split_whitespace().zip(values.split_whitespace().map(uint)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_fields() {
        assert_eq!((int("12"), int("x"), int("-3"), int("")), (12, 0, -3, 0));
        assert_eq!(int("18446744073709551615"), i64::MAX);
        assert_eq!(int("-18446744073709551615"), i64::MIN);
        assert_eq!((uint("18446744073709551615"), uint("-1"), uint("99999999999999999999")), (u64::MAX, 0, u64::MAX));
    }

    #[test]
    fn pair_of_lines() {
        let text = "Udp: A B C\nUdp: 1 2\nUdpLite: A\nUdpLite: 9\n";
        assert_eq!(columns(text, "Udp").expect("there").collect::<Vec<_>>(), [("A", 1), ("B", 2)]);
        assert!(columns(text, "Tcp").is_none());
        assert!(columns("Udp: A\n", "Udp").is_none());
    }
}
