//! Protobuf: the few ways to write a field, for messages that are written and never read here.
//!
//! Why not the usual crate: two messages of other people's formats (pprof's profile, Prometheus' remote write) need no
//! generated types and no build step; each field is a line.
//! Format: protobuf.dev, "Encoding". A field's key is its number and wire type; which wire type is the function's name.

use stdx::varint::push_u64;

/// Wire type 0: a number of variable length.
pub fn field_number(out: &mut Vec<u8>, field: u64, value: u64) {
    push_u64(field << 3, out);
    push_u64(value, out);
}

/// Wire type 1: eight bytes, the low ones first.
pub fn field_double(out: &mut Vec<u8>, field: u64, value: f64) {
    push_u64(field << 3 | 1, out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Wire type 2: bytes, a text, or a message within the message.
pub fn field_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    field_begin(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

/// Key and length that stand before the bytes of [`field_bytes`], for whoever appends them piece by piece.
pub fn field_begin(out: &mut Vec<u8>, field: u64, bytes: usize) {
    push_u64(field << 3 | 2, out);
    push_u64(bytes as u64, out);
}

/// Numbers of variable length in one field.
pub fn field_packed(out: &mut Vec<u8>, field: u64, values: impl Iterator<Item = u64>) {
    let mut packed = Vec::new();
    values.for_each(|value| push_u64(value, &mut packed));
    field_bytes(out, field, &packed);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the format's own description, and a double.
    #[test]
    fn fields_as_documented() {
        let mut out = Vec::new();
        field_number(&mut out, 1, 150);
        field_bytes(&mut out, 2, b"testing");
        field_packed(&mut out, 6, [3, 270, 86942].into_iter());
        field_double(&mut out, 1, 1.0);
        let expected: &[&[u8]] =
            &[b"\x08\x96\x01", b"\x12\x07testing", b"\x32\x06\x03\x8e\x02\x9e\xa7\x05", b"\x09\0\0\0\0\0\0\xf0\x3f"];
        assert_eq!(out, expected.concat());
    }
}
