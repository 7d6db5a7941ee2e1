//! Numbers as Open-Falcon's processes print them. People and scripts parse these texts, so they are exact.

use std::fmt::Write;

/// Appends `value` as Go's `encoding/json` does: shortest digits that read back the same, exponent below 1e-6 and from
/// 1e21 on (`1e-7`, `1.5e+300`). `value` is finite.
pub fn push_go_json(value: f64, out: &mut String) {
    debug_assert!(value.is_finite());
    let magnitude = value.abs();
    let result = if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        let start = out.len();
        let result = write!(out, "{value:e}");
        // Rust writes 1e21 where Go writes 1e+21.
        if let Some(e) = out[start..].find('e')
            && out.as_bytes()[start + e + 1] != b'-'
        {
            out.insert(start + e + 1, '+');
        }
        result
    } else {
        write!(out, "{value}")
    };
    result.expect("writing to a String cannot fail");
}

/// The text of [`push_go_json`].
pub fn go_json(value: f64) -> String {
    let mut out = String::new();
    push_go_json(value, &mut out);
    out
}

/// The text of a value in alarm messages and callbacks: at most five decimals, trailing zeros and a trailing dot cut.
pub fn five_decimals(value: f64) -> String {
    let text = format!("{value:.5}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_string() } else { text.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cases of docs/open-falcon/judge.md §10.
    #[test]
    fn go_json_style() {
        let check = |value, expected: &str| assert_eq!(go_json(value), expected);
        check(1e-7, "1e-7");
        check(1.5e300, "1.5e+300");
        check(1e21, "1e+21");
        check(1e20, "100000000000000000000");
        check(0.000001, "0.000001");
        check(-2.5, "-2.5");
        check(0.0, "0");
        check(90.0, "90");
    }

    #[test]
    fn five_decimals_trimmed() {
        assert_eq!(five_decimals(1.5), "1.5");
        assert_eq!(five_decimals(100.0), "100");
        assert_eq!(five_decimals(0.123456), "0.12346");
        assert_eq!(five_decimals(-0.000001), "0");
    }
}
