//! Framer: finds where a message ends in a stream of JSON objects that follow each other without any mark between.
//!
//! Why: JSON-RPC 1.0 over TCP has no length prefix, and TCP splits and glues as it likes. Parsing from the start after
//! each read would look at the bytes of a large message once per read.
//! How: only strings and brackets matter. [`Framer`] remembers how far it looked and what is open there. 64 bytes at a
//! time become three bit masks (quotes, backslashes, brackets); the parity of the quotes before a byte tells whether it
//! is inside a string.
//! Invariants: the answer depends on the bytes alone, never on how they were split; each byte is looked at once; no
//! allocation. Whether the text between the brackets is JSON is for its decoder to say.
//! Memory: none but the framer itself; a message (with the white space before it) longer than the limit is refused, so
//! the caller's buffer has a bound.

use crate::json::Nesting;
use std::fmt;
use std::ops::Range;

/// Reason for which no message can begin or end here; the connection has lost its frame and must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Something other than `{` stands where a message must start.
    NotAnObject { at: usize, byte: u8 },
    /// A bracket closes another kind of bracket than is open.
    Unbalanced { at: usize },
    /// More than `json::DEPTH_MAX` levels.
    TooDeep { at: usize },
    /// More bytes than the limit, and no end.
    TooLong { limit: usize },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::NotAnObject { at, byte } => {
                write!(f, "message must be a JSON object; got byte 0x{byte:02x} at {at}, want '{{'")
            }
            FrameError::Unbalanced { at } => write!(f, "bracket at byte {at} closes another kind of bracket"),
            FrameError::TooDeep { at } => write!(f, "message is nested deeper than 64 levels at byte {at}"),
            FrameError::TooLong { limit } => write!(f, "message is longer than {limit} bytes; send smaller batches"),
        }
    }
}

impl std::error::Error for FrameError {}

impl FrameError {
    /// The label of the error in counters.
    pub fn as_str(&self) -> &'static str {
        match self {
            FrameError::NotAnObject { .. } => "not_an_object",
            FrameError::Unbalanced { .. } => "unbalanced",
            FrameError::TooDeep { .. } => "too_deep",
            FrameError::TooLong { .. } => "too_long",
        }
    }
}

/// The place up to which a stream was looked at, and what is open there.
#[derive(Clone, Debug)]
pub struct Framer {
    limit: usize,
    /// Whether a message may also be an array.
    arrays: bool,
    /// Everything before this offset is accounted for in the fields below.
    looked: usize,
    start: Option<usize>,
    nesting: Nesting,
    in_string: bool,
    escaped: bool,
}

impl Framer {
    /// A framer that lets messages of up to `limit` bytes through.
    pub fn new(limit: usize) -> Framer {
        Framer {
            limit,
            arrays: false,
            looked: 0,
            start: None,
            nesting: Nesting::default(),
            in_string: false,
            escaped: false,
        }
    }

    /// A framer of one value in the midst of a message, an object or an array.
    pub(crate) fn of_value(limit: usize) -> Framer {
        Framer { arrays: true, ..Framer::new(limit) }
    }

    /// Begins anew, when the message was consumed and the buffer starts behind it.
    pub fn reset(&mut self) {
        *self = Framer { arrays: self.arrays, ..Framer::new(self.limit) };
    }

    /// Looks at what was appended to `buffered` since the last call; returns the first message once it is complete.
    /// White space before it is left out of the range but must be consumed with it. After an error, or a message, the
    /// next call must follow a `reset`.
    pub fn scan(&mut self, buffered: &[u8]) -> Result<Option<Range<usize>>, FrameError> {
        // Bytes behind the limit are not looked at: whether they are here yet depends on the split.
        let visible = &buffered[..buffered.len().min(self.limit)];
        if self.start.is_none() && !self.find_start(visible)? {
            return self.incomplete(buffered);
        }
        let end = self.find_end(visible)?;
        match (self.start, end) {
            (Some(start), Some(end)) => Ok(Some(start..end)),
            _ => self.incomplete(buffered),
        }
    }

    fn incomplete(&self, buffered: &[u8]) -> Result<Option<Range<usize>>, FrameError> {
        if buffered.len() > self.limit { Err(FrameError::TooLong { limit: self.limit }) } else { Ok(None) }
    }

    fn find_start(&mut self, visible: &[u8]) -> Result<bool, FrameError> {
        while let Some(byte) = visible.get(self.looked) {
            match byte {
                b' ' | b'\n' | b'\r' | b'\t' => self.looked += 1,
                b'{' => {
                    self.start = Some(self.looked);
                    return Ok(true);
                }
                b'[' if self.arrays => {
                    self.start = Some(self.looked);
                    return Ok(true);
                }
                byte => return Err(FrameError::NotAnObject { at: self.looked, byte: *byte }),
            }
        }
        Ok(false)
    }

    fn find_end(&mut self, visible: &[u8]) -> Result<Option<usize>, FrameError> {
        while let Some(block) = visible.get(self.looked..).and_then(|rest| rest.first_chunk::<64>()) {
            let masks = Masks::of(block);
            let end =
                if masks.backslashes == 0 && !self.escaped { self.block(block, &masks)? } else { self.bytes(block)? };
            if end.is_some() {
                return Ok(end);
            }
        }
        self.bytes(&visible[self.looked..])
    }

    /// Looks at a block without backslashes.
    fn block(&mut self, block: &[u8; 64], masks: &Masks) -> Result<Option<usize>, FrameError> {
        // Bit i is set when an odd number of quotes stands at or before byte i.
        let mut inside = masks.quotes;
        for shift in [1, 2, 4, 8, 16, 32] {
            inside ^= inside << shift;
        }
        if self.in_string {
            inside = !inside;
        }
        let mut brackets = masks.brackets & !inside;
        let base = self.looked;
        while brackets != 0 {
            let at = brackets.trailing_zeros() as usize;
            brackets &= brackets - 1;
            if self.bracket(block[at], base + at)? {
                self.looked = base + at + 1;
                return Ok(Some(self.looked));
            }
        }
        self.in_string = inside >> 63 == 1;
        self.looked = base + block.len();
        Ok(None)
    }

    /// Looks at `bytes`, which stand at `self.looked`, one by one.
    fn bytes(&mut self, bytes: &[u8]) -> Result<Option<usize>, FrameError> {
        for byte in bytes {
            let at = self.looked;
            self.looked += 1;
            if self.escaped {
                self.escaped = false;
            } else if self.in_string {
                match byte {
                    b'"' => self.in_string = false,
                    b'\\' => self.escaped = true,
                    _ => {}
                }
            } else {
                match byte {
                    b'"' => self.in_string = true,
                    b'{' | b'[' | b'}' | b']' if self.bracket(*byte, at)? => return Ok(Some(self.looked)),
                    _ => {}
                }
            }
        }
        Ok(None)
    }

    /// Opens or closes a level; true when the message ends here.
    #[inline]
    fn bracket(&mut self, byte: u8, at: usize) -> Result<bool, FrameError> {
        let object = byte & CASE != 0;
        if matches!(byte, b'{' | b'[') {
            return if self.nesting.push(object) { Ok(false) } else { Err(FrameError::TooDeep { at }) };
        }
        if self.nesting.in_object() != Some(object) {
            return Err(FrameError::Unbalanced { at });
        }
        self.nesting.pop();
        Ok(self.nesting.in_object().is_none())
    }
}

/// One bit per byte of a block, the first byte in the lowest bit.
struct Masks {
    quotes: u64,
    backslashes: u64,
    brackets: u64,
}

/// `{`, `[` and `}`, `]` differ from each other in this bit only.
const CASE: u8 = 0x20;

impl Masks {
    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn of(block: &[u8; 64]) -> Masks {
        // SAFETY: SSE2 belongs to the x86-64 baseline: no such processor is without it.
        unsafe { Masks::sse2(block) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "sse2")]
    fn sse2(block: &[u8; 64]) -> Masks {
        use std::arch::x86_64::*;
        let mut masks = Masks { quotes: 0, backslashes: 0, brackets: 0 };
        for (i, part) in block.as_chunks::<16>().0.iter().enumerate() {
            let number = u128::from_le_bytes(*part);
            let part = _mm_set_epi64x((number >> 64) as i64, number as i64);
            let equals = |part: __m128i, byte: u8| _mm_cmpeq_epi8(part, _mm_set1_epi8(byte as i8));
            let bits = |mask: __m128i| u64::from(_mm_movemask_epi8(mask) as u16) << (16 * i);
            let folded = _mm_or_si128(part, _mm_set1_epi8(CASE as i8));
            masks.quotes |= bits(equals(part, b'"'));
            masks.backslashes |= bits(equals(part, b'\\'));
            masks.brackets |= bits(_mm_or_si128(equals(folded, b'{'), equals(folded, b'}')));
        }
        masks
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn of(block: &[u8; 64]) -> Masks {
        Masks::portable(block)
    }

    #[cfg(any(test, not(target_arch = "x86_64")))] // the test compares both
    fn portable(block: &[u8; 64]) -> Masks {
        let mut masks = Masks { quotes: 0, backslashes: 0, brackets: 0 };
        for (i, byte) in block.iter().enumerate() {
            masks.quotes |= u64::from(*byte == b'"') << i;
            masks.backslashes |= u64::from(*byte == b'\\') << i;
            masks.brackets |= u64::from(matches!(byte | CASE, b'{' | b'}')) << i;
        }
        masks
    }
}

#[cfg(test)]
mod tests;
