//! Write: the primitives of gob, appended to a buffer, as [`super::value`] reads them.

pub(super) fn push_uint(out: &mut Vec<u8>, uint: u64) {
    if uint < 0x80 {
        out.push(uint as u8);
        return;
    }
    let count = 8 - uint.leading_zeros() / 8;
    out.push((count as u8).wrapping_neg());
    out.extend_from_slice(&uint.to_be_bytes()[8 - count as usize..]);
}

pub(super) fn push_int(out: &mut Vec<u8>, int: i64) {
    push_uint(out, if int < 0 { (!int as u64) << 1 | 1 } else { (int as u64) << 1 });
}

pub(super) fn push_float(out: &mut Vec<u8>, float: f64) {
    push_uint(out, float.to_bits().swap_bytes());
}

pub(super) fn push_text(out: &mut Vec<u8>, text: &str) {
    push_uint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Appends a message: what `write` appends, with its length before it.
pub(super) fn push_message(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    let end = out.len();
    push_uint(out, (end - start) as u64);
    // The length was appended; it belongs in front.
    let width = out.len() - end;
    out[start..].rotate_right(width);
}

/// Writes the fields of one struct, in ascending order of their numbers; zero values are left out, as Go does.
pub(super) struct Fields<'o> {
    pub out: &'o mut Vec<u8>,
    /// The number of the next field if its difference is 1.
    next: u64,
}

impl<'o> Fields<'o> {
    pub fn new(out: &'o mut Vec<u8>) -> Fields<'o> {
        Fields { out, next: 0 }
    }

    /// Begins a field, the value of which the caller appends.
    pub fn begin(&mut self, number: u64) -> &mut Vec<u8> {
        debug_assert!(number >= self.next, "fields ascend");
        push_uint(self.out, number + 1 - self.next);
        self.next = number + 1;
        self.out
    }

    pub fn text(&mut self, number: u64, text: &str) -> &mut Self {
        if !text.is_empty() {
            push_text(self.begin(number), text);
        }
        self
    }

    pub fn int(&mut self, number: u64, int: i64) -> &mut Self {
        if int != 0 {
            push_int(self.begin(number), int);
        }
        self
    }

    pub fn uint(&mut self, number: u64, uint: u64) -> &mut Self {
        if uint != 0 {
            push_uint(self.begin(number), uint);
        }
        self
    }

    /// Writes a float. −0 is a zero too, and arrives as 0.
    pub fn float(&mut self, number: u64, float: f64) -> &mut Self {
        if float != 0.0 {
            push_float(self.begin(number), float);
        }
        self
    }

    pub fn end(&mut self) {
        self.out.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::Reader;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_reads_back(uint: u64, shift in 0..64u32, int: i64, bits: u64, text: String) {
            let (uint, int, float) = (uint >> shift, int >> shift, f64::from_bits(bits));
            let mut out = Vec::new();
            push_message(&mut out, |out| {
                push_uint(out, uint);
                push_int(out, int);
                push_float(out, float);
                push_text(out, &text);
            });
            let mut reader = Reader::new(&out, 0);
            prop_assert_eq!(reader.count(), Ok(reader.left()));
            prop_assert_eq!(reader.uint(), Ok(uint));
            prop_assert_eq!(reader.int(), Ok(int));
            prop_assert_eq!(reader.float().map(f64::to_bits), Ok(float.to_bits()));
            prop_assert_eq!(reader.bytes(), Ok(text.as_bytes()));
            prop_assert_eq!(reader.end(), Ok(()));
        }
    }

    #[test]
    fn as_go_writes_them() {
        let check = |write: fn(&mut Vec<u8>), expected: &[u8]| {
            let mut out = Vec::new();
            write(&mut out);
            assert_eq!(out, expected);
        };
        check(|out| push_uint(out, 127), &[127]);
        check(|out| push_uint(out, 256), &[0xfe, 1, 0]);
        check(|out| push_int(out, -129), &[0xfe, 1, 1]);
        check(|out| push_int(out, i64::MIN), &[0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        check(|out| push_float(out, 17.0), &[0xfe, 0x31, 0x40]);
        check(|out| Fields::new(out).int(0, 22).int(1, 33).end(), &[1, 0x2c, 1, 0x42, 0]);
        check(|out| Fields::new(out).int(0, 0).float(1, -0.0).text(2, "").uint(5, 1).end(), &[6, 1, 0]);
    }
}
