//! Validity: from when until when a certificate is valid, read out of its DER (RFC 5280 §4.1).
//!
//! Why: a server with an expired certificate works for nobody, and nobody sees why; the TLS library reads only the
//! certificates of others, and tells nobody how long they are valid.
//! How: tag, length and value are walked as far as `notAfter`, the second time in the third sequence after the serial
//! number; for [`is_self_issued`] as far as the subject, the next one. Nothing else is looked at.

use anyhow::{Context, Result, ensure};

const SEQUENCE: u8 = 0x30;
/// `[0]`, which holds the version and may be missing.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Unix seconds from which, and after which no longer, a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: i64,
    pub not_after: i64,
}

impl Validity {
    /// What is wrong with the certificate at `time`.
    pub fn fault_at(self, time: i64) -> Option<&'static str> {
        match time {
            time if time > self.not_after => Some("has expired"),
            time if time < self.not_before => Some("is not valid yet"),
            _ => None,
        }
    }
}

/// When the certificate is valid.
pub fn of(der: &[u8]) -> Result<Validity> {
    let (_, certificate, _) = element(der)?;
    let (_, signed, _) = element(certificate)?;
    let mut rest = signed;
    if rest.first() == Some(&VERSION) {
        (_, _, rest) = element(rest)?;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        (_, _, rest) = element(rest)?;
    }
    let (tag, validity, _) = element(rest)?;
    ensure!(tag == SEQUENCE, "no validity");
    let (tag, text, rest) = element(validity)?;
    let not_before = time(tag, text)?;
    let (tag, text, _) = element(rest)?;
    Ok(Validity { not_before, not_after: time(tag, text)? })
}

/// True where the certificate names itself as who has issued it.
pub fn is_self_issued(der: &[u8]) -> Result<bool> {
    let (_, certificate, _) = element(der)?;
    let (_, signed, _) = element(certificate)?;
    let mut rest = signed;
    if rest.first() == Some(&VERSION) {
        (_, _, rest) = element(rest)?;
    }
    // Serial number, algorithm.
    for _ in 0..2 {
        (_, _, rest) = element(rest)?;
    }
    let (_, issuer, rest) = element(rest)?;
    let (_, _, rest) = element(rest)?;
    let (_, subject, _) = element(rest)?;
    Ok(issuer == subject)
}

/// Tag and content of the first element, and what follows it.
fn element(input: &[u8]) -> Result<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first().context("no tag")?;
    let (&first, mut rest) = rest.split_first().context("no length")?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let count = usize::from(first & 0x7f);
        ensure!((1..=4).contains(&count) && rest.len() >= count, "a length of {count} bytes");
        let (digits, after) = rest.split_at(count);
        length = digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit));
        rest = after;
    }
    ensure!(length <= rest.len(), "a length beyond the end");
    let (content, after) = rest.split_at(length);
    Ok((tag, content, after))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` as unix seconds.
fn time(tag: u8, text: &[u8]) -> Result<i64> {
    let digits = text.strip_suffix(b"Z").context("a time that is not UTC")?;
    ensure!(digits.iter().all(u8::is_ascii_digit), "a time that is no number");
    let number = |digits: &[u8]| digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year = number(&digits[..2]);
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => anyhow::bail!("a time of an unknown form"),
    };
    let [month, day, hour, minute, second] = std::array::from_fn(|i| number(&rest[2 * i..2 * i + 2]));
    ensure!((1..=12).contains(&month) && (1..=31).contains(&day), "no date");
    Ok(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days since 1970 of a date of the Gregorian calendar; years begin in March, so that leap days come last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let in_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year / 4 - year / 100 + year / 400 + in_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!(days(2000, 2, 29), 11_016);
        assert_eq!(days(2024, 12, 31), 20_088);
        assert_eq!(time(UTC_TIME, b"200101000000Z").expect("a time"), 1_577_836_800);
        assert_eq!(time(GENERALIZED_TIME, b"20500101000001Z").expect("a time"), 2_524_608_001);
        for (tag, text) in [(UTC_TIME, &b"200101000000"[..]), (UTC_TIME, b"20x101000000Z"), (GENERALIZED_TIME, b"Z")] {
            assert!(time(tag, text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn no_bytes_end_it() {
        for bytes in [&[][..], &[0x30], &[0x30, 0x80], &[0x30, 0x84, 255, 255, 255, 255], &[0x30, 2, 0x30, 9]] {
            assert!(of(bytes).is_err() && is_self_issued(bytes).is_err(), "{bytes:?}");
        }
    }
}
