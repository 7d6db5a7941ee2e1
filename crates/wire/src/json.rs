//! JSON: a pull parser over bytes in memory, and a writer in the style of Go's `encoding/json`.
//!
//! Why: a general parser builds a tree or a map for each of the hundreds of items in a batch. Here the caller asks for
//! what it expects; strings and numbers stay where they are in the input.
//! How: [`Reader`] stands before a value; the caller looks at its [`Kind`] and reads or skips it. Everything that is
//! skipped is still checked to be JSON. Strings without escapes are borrowed, the others are unescaped into the
//! caller's [`Scratch`].
//! Invariants: never recurses (nesting is a stack of 64 bits); never allocates except to grow a [`Scratch`]; every
//! `&str` given out is UTF-8; reading stops at the first error.
//! Memory: a [`Scratch`] holds at most as many bytes as the strings of one message, whose length the framer bounds.
//! Compat: like Go, bytes that are not UTF-8 and unpaired surrogates become U+FFFD instead of an error, and names are
//! compared without case. Unlike Go, nesting ends at 64 levels instead of 10,000.

use std::fmt;
use std::io::Write;

/// Levels of arrays and objects that one value may open: one bit each in a `u64`. Open-Falcon's messages have four.
pub const DEPTH_MAX: u32 = 64;

/// Place at which a text stops being JSON, and the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// Offset from the start of the slice that was read.
    pub at: usize,
    pub what: &'static str,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid JSON at byte {}: {}", self.at, self.what)
    }
}

impl std::error::Error for JsonError {}

/// The kinds of JSON values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// A string as it stands in the input.
#[derive(Clone, Copy, Debug)]
pub enum Text<'a> {
    /// A string whose characters are the input's bytes.
    Plain(&'a str),
    /// A string with (valid) escapes, or bytes that are not UTF-8, between its quotes.
    Coded(&'a [u8]),
}

/// Room for strings that cannot be borrowed from the input. Keep one per connection; it only grows.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) text: String,
}

impl Scratch {
    /// Bytes that are kept for the next text.
    pub fn memory_bytes(&self) -> usize {
        self.text.capacity()
    }

    /// A scratch that holds nothing yet.
    pub fn new() -> Scratch {
        Scratch::default()
    }

    /// Bytes held, for the memory ledger.
    pub fn capacity(&self) -> usize {
        self.text.capacity()
    }

    /// Gives memory back after an unusual message, down to `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        self.text.clear();
        self.text.shrink_to(bytes);
    }
}

impl<'a> Text<'a> {
    /// The characters, with `scratch` cleared and used only when they cannot be borrowed.
    pub fn resolve<'s>(self, scratch: &'s mut Scratch) -> &'s str
    where
        'a: 's,
    {
        match self {
            Text::Plain(text) => text,
            Text::Coded(raw) => {
                scratch.text.clear();
                unescape(raw, &mut scratch.text);
                &scratch.text
            }
        }
    }
}

/// A number that obeys JSON's grammar. The value is computed when asked for.
#[derive(Clone, Copy, Debug)]
pub struct Number<'a> {
    raw: &'a [u8],
    /// All digits before the exponent as one integer; exact while `digits` ≤ 19.
    mantissa: u64,
    digits: u32,
    exponent: i32,
    negative: bool,
}

/// 10^19 − 1 is the largest run of nines that fits a `u64`.
const EXACT_DIGITS: u32 = 19;

/// Powers of ten that are exact doubles; with a mantissa below 2^53 one multiplication or division rounds correctly.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

impl Number<'_> {
    /// The nearest double; infinite when it is out of range.
    pub fn f64(&self) -> f64 {
        let magnitude = self.magnitude();
        if self.negative { -magnitude } else { magnitude }
    }

    fn magnitude(&self) -> f64 {
        if self.digits <= EXACT_DIGITS {
            if self.exponent == 0 || self.mantissa == 0 {
                return self.mantissa as f64;
            }
            let power = self.exponent.unsigned_abs() as usize;
            if self.mantissa < 1 << 53 && power < EXACT_POWERS.len() {
                let mantissa = self.mantissa as f64;
                let power = EXACT_POWERS[power];
                return if self.exponent < 0 { mantissa / power } else { mantissa * power };
            }
        }
        // JSON's grammar is a part of what `f64::from_str` reads, so neither step fails.
        let text = std::str::from_utf8(self.raw).unwrap_or_default();
        text.parse::<f64>().map_or(f64::NAN, f64::abs)
    }

    /// The integer, when the number is one (`60`, also `60.0` and `6e1`) and fits.
    pub fn i64(&self) -> Option<i64> {
        if self.exponent == 0 && self.digits <= EXACT_DIGITS {
            let magnitude = i64::try_from(self.mantissa).ok();
            return if self.negative { magnitude.map(|m| -m) } else { magnitude };
        }
        integral(self.f64())
    }
}

/// `value` as an integer, when it is one and small enough that the double is surely exact.
pub(crate) fn integral(value: f64) -> Option<i64> {
    /// Doubles are exact integers up to 2^53.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (value.fract() == 0.0 && value.abs() <= EXACT).then_some(value as i64)
}

/// A place in the input: before, in or behind a value.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader in front of the first byte.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// Offset of the next byte to be read.
    pub fn at(&self) -> usize {
        self.at
    }

    fn fail<T>(&self, what: &'static str) -> Result<T, JsonError> {
        Err(JsonError { at: self.at, what })
    }

    /// Skips white space and returns the byte behind it.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    /// The kind of the next value; errs where no value can start.
    #[inline]
    pub fn kind(&mut self) -> Result<Kind, JsonError> {
        match self.peek() {
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            Some(_) => self.fail("a value must stand here"),
            None => self.fail("the text ends where a value must stand"),
        }
    }

    /// Reads a string.
    #[inline]
    pub fn text(&mut self) -> Result<Text<'a>, JsonError> {
        let (raw, escaped) = self.raw_text()?;
        if escaped {
            return Ok(Text::Coded(raw));
        }
        Ok(std::str::from_utf8(raw).map_or(Text::Coded(raw), Text::Plain))
    }

    /// Reads a string: the bytes between the quotes, and whether they have escapes.
    #[inline]
    fn raw_text(&mut self) -> Result<(&'a [u8], bool), JsonError> {
        if self.peek() != Some(b'"') {
            return self.fail("a string must stand here");
        }
        let start = self.at + 1;
        let mut escaped = false;
        self.at = start;
        loop {
            self.at = plain_end(self.bytes, self.at);
            match self.bytes.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return self.fail("a control character must be escaped in a string"),
                None => return self.fail("the text ends inside a string"),
            }
        }
        let raw = &self.bytes[start..self.at];
        self.at += 1;
        Ok((raw, escaped))
    }

    /// Checks the escape at the backslash and moves behind it.
    fn escape(&mut self) -> Result<(), JsonError> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') if hex4(&self.bytes[self.at + 2..]).is_some() => self.at += 6,
            Some(b'u') => return self.fail("\\u must be followed by four hexadecimal digits"),
            _ => return self.fail("unknown escape in a string"),
        }
        Ok(())
    }

    /// Reads a number.
    #[inline]
    pub fn number(&mut self) -> Result<Number<'a>, JsonError> {
        let negative = self.peek() == Some(b'-');
        let start = self.at;
        self.at += usize::from(negative);
        let whole = self.at;
        let mut mantissa = 0u64;
        self.digits(&mut mantissa)?;
        if self.at - whole > 1 && self.bytes[whole] == b'0' {
            self.at = whole;
            return self.fail("a number must not start with 0");
        }
        let mut digits = self.at - whole;
        let mut exponent = 0i32;
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            let fraction = self.at;
            self.digits(&mut mantissa)?;
            let places = self.at - fraction;
            digits += places;
            exponent = -i32::try_from(places).unwrap_or(i32::MAX);
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            exponent = exponent.saturating_add(self.exponent()?);
        }
        let raw = &self.bytes[start..self.at];
        Ok(Number { raw, mantissa, digits: u32::try_from(digits).unwrap_or(u32::MAX), exponent, negative })
    }

    /// Reads one digit or more into `mantissa`, which wraps around when they are too many.
    #[inline]
    fn digits(&mut self, mantissa: &mut u64) -> Result<(), JsonError> {
        let start = self.at;
        while let Some(digit @ b'0'..=b'9') = self.bytes.get(self.at) {
            *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        if self.at == start {
            return self.fail("a digit must stand here");
        }
        Ok(())
    }

    fn exponent(&mut self) -> Result<i32, JsonError> {
        self.at += 1;
        let negative = self.bytes.get(self.at) == Some(&b'-');
        if let Some(b'+' | b'-') = self.bytes.get(self.at) {
            self.at += 1;
        }
        let (start, mut value) = (self.at, 0i32);
        while let Some(digit @ b'0'..=b'9') = self.bytes.get(self.at) {
            value = value.saturating_mul(10).saturating_add(i32::from(digit - b'0'));
            self.at += 1;
        }
        if self.at == start {
            return self.fail("a digit must stand here");
        }
        Ok(if negative { -value } else { value })
    }

    fn literal(&mut self, word: &'static [u8]) -> Result<(), JsonError> {
        if !self.bytes[self.at..].starts_with(word) {
            return self.fail("a value must stand here");
        }
        self.at += word.len();
        Ok(())
    }

    /// Reads `null` or a boolean, for which the caller has no use.
    fn word(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Some(b't') => self.literal(b"true"),
            Some(b'f') => self.literal(b"false"),
            _ => self.literal(b"null"),
        }
    }

    /// Enters an array; false when it has no element.
    pub fn array(&mut self) -> Result<bool, JsonError> {
        if self.peek() != Some(b'[') {
            return self.fail("an array must stand here");
        }
        self.at += 1;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(false);
        }
        Ok(true)
    }

    /// Moves on behind an element: true when another one follows, false when the array has ended.
    #[inline]
    pub fn next_element(&mut self) -> Result<bool, JsonError> {
        let more = match self.peek() {
            Some(b',') => true,
            Some(b']') => false,
            Some(_) => return self.fail("a comma or ] must stand here"),
            None => return self.fail("the text ends inside an array"),
        };
        self.at += 1;
        Ok(more)
    }

    /// Enters an object and reads its first name, if there is one. The value of the name comes next.
    #[inline]
    pub fn object(&mut self) -> Result<Option<Text<'a>>, JsonError> {
        if self.peek() != Some(b'{') {
            return self.fail("an object must stand here");
        }
        self.at += 1;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(None);
        }
        self.name().map(Some)
    }

    /// Moves on behind the value of a field: the next name, or none when the object has ended.
    #[inline]
    pub fn next_field(&mut self) -> Result<Option<Text<'a>>, JsonError> {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                self.name().map(Some)
            }
            Some(b'}') => {
                self.at += 1;
                Ok(None)
            }
            Some(_) => self.fail("a comma or } must stand here"),
            None => self.fail("the text ends inside an object"),
        }
    }

    /// Moves behind `prefix` if the input goes on with exactly these bytes: a short cut past a name that is expected.
    #[inline]
    pub(crate) fn take(&mut self, prefix: &[u8]) -> bool {
        let found = self.bytes[self.at..].starts_with(prefix);
        if found {
            self.at += prefix.len();
        }
        found
    }

    #[inline]
    fn name(&mut self) -> Result<Text<'a>, JsonError> {
        let name = self.text()?;
        self.colon()?;
        Ok(name)
    }

    /// Reads any value, checks it, and returns its bytes.
    pub fn skip(&mut self) -> Result<&'a [u8], JsonError> {
        let kind = self.kind()?;
        let start = self.at;
        match kind {
            Kind::String => drop(self.raw_text()?),
            Kind::Number => drop(self.number()?),
            Kind::Null | Kind::Bool => self.word()?,
            Kind::Array | Kind::Object => self.skip_nested()?,
        }
        Ok(&self.bytes[start..self.at])
    }

    fn skip_nested(&mut self) -> Result<(), JsonError> {
        let mut nesting = Nesting::default();
        loop {
            // A value starts here.
            let kind = self.kind()?;
            match kind {
                Kind::String => drop(self.raw_text()?),
                Kind::Number => drop(self.number()?),
                Kind::Null | Kind::Bool => self.word()?,
                Kind::Array | Kind::Object => {
                    let object = kind == Kind::Object;
                    if !nesting.push(object) {
                        return self.fail("nested deeper than 64 levels");
                    }
                    self.at += 1;
                    if self.peek() != Some(if object { b'}' } else { b']' }) {
                        if object {
                            self.skip_name()?;
                        }
                        continue;
                    }
                    self.at += 1;
                    nesting.pop();
                }
            }
            // A value ends here, and with it perhaps what it stands in.
            loop {
                let Some(object) = nesting.in_object() else { return Ok(()) };
                if object {
                    if self.peek() == Some(b',') {
                        self.at += 1;
                        self.skip_name()?;
                        break;
                    }
                    self.next_field()?;
                } else if self.next_element()? {
                    break;
                }
                nesting.pop();
            }
        }
    }

    #[inline]
    fn skip_name(&mut self) -> Result<(), JsonError> {
        self.raw_text()?;
        self.colon()
    }

    #[inline]
    fn colon(&mut self) -> Result<(), JsonError> {
        if self.peek() != Some(b':') {
            return self.fail("a colon must stand here");
        }
        self.at += 1;
        Ok(())
    }

    /// Refuses anything but white space behind the value.
    pub fn end(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => self.fail("nothing may follow the value"),
        }
    }
}

/// Kinds of the brackets that are open, innermost in the lowest bit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Nesting {
    objects: u64,
    depth: u32,
}

impl Nesting {
    /// False when [`DEPTH_MAX`] levels are open already.
    #[inline]
    pub fn push(&mut self, object: bool) -> bool {
        if self.depth == DEPTH_MAX {
            return false;
        }
        self.objects = self.objects << 1 | u64::from(object);
        self.depth += 1;
        true
    }

    #[inline]
    pub fn pop(&mut self) {
        self.objects >>= 1;
        self.depth -= 1;
    }

    /// Whether the innermost open bracket is an object's; none when nothing is open.
    #[inline]
    pub fn in_object(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.objects & 1 == 1)
    }
}

/// The first byte from `at` on that is a quote, a backslash or a control character; else the end.
#[inline]
fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // Eight bytes at a time. `(x - ONES) & !x & HIGH` marks zero bytes; a borrow can only mark wrongly behind a byte
    // that is marked rightly, and only the first mark counts.
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*word);
        let quote = word ^ (ONES * 0x22);
        let backslash = word ^ (ONES * 0x5c);
        let marks = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let marks = marks & HIGH;
        if marks != 0 {
            return at + marks.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(byte) = bytes.get(at) {
        if matches!(byte, b'"' | b'\\' | 0..=0x1f) {
            break;
        }
        at += 1;
    }
    at
}

/// The code unit written as four hexadecimal digits.
fn hex4(bytes: &[u8]) -> Option<u32> {
    let mut unit = 0;
    for byte in bytes.first_chunk::<4>()? {
        unit = unit << 4 | char::from(*byte).to_digit(16)?;
    }
    Some(unit)
}

/// Appends the characters of a string whose escapes were checked when it was read.
pub(crate) fn unescape(raw: &[u8], out: &mut String) {
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        push_lossy(&rest[..at], out);
        rest = &rest[at + 1..];
        let Some((code, tail)) = rest.split_first() else { return };
        rest = tail;
        match code {
            b'b' => out.push('\u{8}'),
            b'f' => out.push('\u{c}'),
            b'n' => out.push('\n'),
            b'r' => out.push('\r'),
            b't' => out.push('\t'),
            b'u' => rest = unescape_unicode(rest, out),
            other => out.push(char::from(*other)), // ", \ and /
        }
    }
    push_lossy(rest, out);
}

/// Appends the character of the escape whose `\u` was read, or of a pair of surrogates; returns the bytes that follow.
fn unescape_unicode<'a>(rest: &'a [u8], out: &mut String) -> &'a [u8] {
    let Some(unit) = hex4(rest) else { return rest };
    let rest = &rest[4..];
    if (0xd800..0xdc00).contains(&unit)
        && let Some(tail) = rest.strip_prefix(b"\\u")
        && let Some(low @ 0xdc00..0xe000) = hex4(tail)
    {
        let code = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
        out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        return &tail[4..];
    }
    out.push(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
    rest
}

fn push_lossy(bytes: &[u8], out: &mut String) {
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        // Go replaces each byte of a bad sequence, not the sequence.
        out.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
}

/// Checks that `bytes` are exactly one JSON value.
pub fn check(bytes: &[u8]) -> Result<(), JsonError> {
    let mut reader = Reader::new(bytes);
    reader.skip()?;
    reader.end()
}

/// Calls `each` with the name and raw value of every field, in order, duplicates included. `null` has no fields, as in
/// Go.
pub fn fields<'a>(
    object: &'a [u8],
    scratch: &mut Scratch,
    mut each: impl FnMut(&str, &'a [u8]),
) -> Result<(), JsonError> {
    let mut reader = Reader::new(object);
    if reader.kind()? == Kind::Null {
        reader.skip()?;
        return reader.end();
    }
    let mut name = reader.object()?;
    while let Some(text) = name {
        let value = reader.skip()?;
        each(text.resolve(scratch), value);
        name = reader.next_field()?;
    }
    reader.end()
}

/// Calls `each` with every element of an array. `null` has none, as in Go.
pub fn elements<'a>(array: &'a [u8], mut each: impl FnMut(&'a [u8])) -> Result<(), JsonError> {
    let mut reader = Reader::new(array);
    let mut more = if reader.kind()? == Kind::Null { reader.skip().map(|_| false)? } else { reader.array()? };
    while more {
        each(reader.skip()?);
        more = reader.next_element()?;
    }
    reader.end()
}

/// Whether a raw value is `null`.
pub fn is_null(raw: &[u8]) -> bool {
    raw.trim_ascii() == b"null"
}

/// The characters of a raw value, if it is a string.
pub fn string<'s, 'a: 's>(raw: &'a [u8], scratch: &'s mut Scratch) -> Option<&'s str> {
    let mut reader = Reader::new(raw);
    let text = reader.text().ok()?;
    reader.end().ok()?;
    Some(text.resolve(scratch))
}

/// The integer of a raw value, if it is a number without fraction and fits.
pub fn integer(raw: &[u8]) -> Option<i64> {
    let mut reader = Reader::new(raw);
    let number = reader.number().ok()?;
    reader.end().ok()?;
    number.i64()
}

/// The double of a raw value, if it is a number; infinite when out of range.
pub fn number(raw: &[u8]) -> Option<f64> {
    let mut reader = Reader::new(raw);
    let number = reader.number().ok()?;
    reader.end().ok()?;
    Some(number.f64())
}

/// Compares a name as Go's `encoding/json` does: without case. (Its two folds outside ASCII, ſ and K, are left out.)
pub fn name_eq(name: &str, expected: &str) -> bool {
    name.eq_ignore_ascii_case(expected)
}

/// Appends a JSON string as Go writes it: `<`, `>`, `&`, U+2028 and U+2029 are escaped as well.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| SPECIAL[*byte as usize]) {
        out.extend_from_slice(&rest[..at]);
        let width = push_special(out, &rest[at..]);
        rest = &rest[at + width..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Bytes that [`push_string`] may not copy blindly; 0xe2 starts U+2028 and U+2029.
const SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte < 0x20 || matches!(byte as u8, b'"' | b'\\' | b'<' | b'>' | b'&' | 0xe2);
        byte += 1;
    }
    table
};

/// Appends the escape of the first character of `rest`; returns how many bytes the character has.
fn push_special(out: &mut Vec<u8>, rest: &[u8]) -> usize {
    match rest {
        [0xe2, 0x80, last @ (0xa8 | 0xa9), ..] => {
            out.extend_from_slice(if *last == 0xa8 { b"\\u2028" } else { b"\\u2029" });
            return 3;
        }
        [b'"', ..] => out.extend_from_slice(b"\\\""),
        [b'\\', ..] => out.extend_from_slice(b"\\\\"),
        [b'\n', ..] => out.extend_from_slice(b"\\n"),
        [b'\r', ..] => out.extend_from_slice(b"\\r"),
        [b'\t', ..] => out.extend_from_slice(b"\\t"),
        [byte @ 0xe2, ..] => out.push(*byte),
        [byte, ..] => write!(out, "\\u{byte:04x}").expect("writing to a Vec cannot fail"),
        [] => return 0,
    }
    1
}

/// Appends a number as Go writes it (`model::number::push_go_json` says how). `value` is finite; should it not be,
/// `null` is written, which every reader refuses as a value, instead of a text that breaks the whole message.
pub fn push_number(out: &mut Vec<u8>, value: f64) {
    debug_assert!(value.is_finite());
    /// Every integer below is printed the same as an integer and as a double, and most values are integers.
    const INTEGRAL_MAX: f64 = 9_007_199_254_740_992.0;
    let magnitude = value.abs();
    if magnitude < INTEGRAL_MAX && value.fract() == 0.0 && !(value == 0.0 && value.is_sign_negative()) {
        return push_integer(out, value as i64);
    }
    if !value.is_finite() {
        out.extend_from_slice(b"null");
    } else if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        let start = out.len();
        write!(out, "{value:e}").expect("writing to a Vec cannot fail");
        // Rust writes 1e21 where Go writes 1e+21.
        if let Some(e) = out[start..].iter().position(|byte| *byte == b'e')
            && out[start + e + 1] != b'-'
        {
            out.insert(start + e + 1, b'+');
        }
    } else {
        write!(out, "{value}").expect("writing to a Vec cannot fail");
    }
}

/// Appends an integer.
pub fn push_integer(out: &mut Vec<u8>, value: i64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests;
