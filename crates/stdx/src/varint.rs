//! Varint: small integers in few bytes, seven bits a byte, lowest first (LEB128); signed ones zigzagged.

/// The most bytes that a `u64` takes.
pub const BYTES_MAX: usize = 10;

/// Appends a value.
pub fn push_u64(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a value, zigzagged.
pub fn push_i64(value: i64, out: &mut Vec<u8>) {
    push_u64(zigzag(value), out);
}

/// Takes a value off the front of `input`; `None` when it is cut short or longer than a `u64`.
pub fn take_u64(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (i, byte) in input.iter().enumerate().take(BYTES_MAX) {
        let bits = u64::from(byte & 0x7f);
        if i == BYTES_MAX - 1 && bits > 1 {
            return None;
        }
        value |= bits << (7 * i);
        if byte & 0x80 == 0 {
            *input = &input[i + 1..];
            return Some(value);
        }
    }
    None
}

/// Takes a zigzagged value off the front of `input`; `None` as by [`take_u64`].
pub fn take_i64(input: &mut &[u8]) -> Option<i64> {
    take_u64(input).map(unzigzag)
}

/// Maps small magnitudes of either sign to small unsigned numbers.
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Undoes [`zigzag`].
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_and_leaves_the_tail() {
        for value in [0, 1, -1, 63, 64, -65, i64::from(u32::MAX), i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            push_i64(value, &mut bytes);
            bytes.push(7);
            let mut input = bytes.as_slice();
            assert_eq!(take_i64(&mut input), Some(value));
            assert_eq!(input, [7]);
        }
    }

    #[test]
    fn refuses_short_and_overlong() {
        assert_eq!(take_u64(&mut [0x80].as_slice()), None);
        assert_eq!(take_u64(&mut [].as_slice()), None);
        assert_eq!(take_u64(&mut [0xff; 11].as_slice()), None);
        assert_eq!(take_u64(&mut [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2].as_slice()), None);
    }
}
