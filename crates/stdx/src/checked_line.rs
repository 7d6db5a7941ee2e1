//! Checked line: a small file of one line, `<head><words> <crc32 of what is before, 8 hex digits>`, that says by
//! itself whether it is whole.

use crate::crc32;

/// The line that holds `words` behind `head`.
pub fn write(head: &str, words: impl std::fmt::Display) -> String {
    let text = format!("{head}{words} ");
    format!("{text}{:08x}\n", crc32(&[text.as_bytes()]))
}

/// The words in a line that begins with `head`; none when the line is damaged, or another one.
pub fn read<'l>(head: &str, bytes: &'l [u8]) -> Option<&'l str> {
    let line = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let (before, crc) = line.split_at_checked(line.len().checked_sub(8)?)?;
    if u32::from_str_radix(crc, 16).ok()? != crc32(&[before.as_bytes()]) {
        return None;
    }
    Some(before.strip_prefix(head)?.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_whole_or_nothing() {
        let line = write("head 1 ", 42);
        assert_eq!(read("head 1 ", line.as_bytes()), Some("42"));
        assert_eq!(read("head 2 ", line.as_bytes()), None);
        assert_eq!(read("head 1 ", line.replace("42", "43").as_bytes()), None);
        assert!((0..line.len()).all(|end| read("head 1 ", &line.as_bytes()[..end]).is_none()));
    }
}
