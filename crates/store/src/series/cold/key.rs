//! Key: endpoint, metric and tags as one string of bytes that sorts as the three do, one after the other.
//!
//! How: the texts, with a 0 byte behind the first and the second. A 0 in a text is written 0 255: 255 is in no UTF-8,
//! so what follows a separating 0 is always less, and a text sorts before those that it begins.

use crate::sizes::TEXT_MAX;
use model::{SeriesKey, Tags};

const END: u8 = 0;
const ESCAPED: u8 = 255;

/// Appends the key of a series.
pub fn push(key: SeriesKey<'_>, out: &mut Vec<u8>) {
    push_endpoint(key.endpoint, out);
    push_text(key.metric, out);
    out.push(END);
    push_text(key.tags.as_str(), out);
}

/// Appends the bytes that the keys of all series of an endpoint begin with, and no other.
pub fn push_endpoint(endpoint: &str, out: &mut Vec<u8>) {
    push_text(endpoint, out);
    out.push(END);
}

fn push_text(text: &str, out: &mut Vec<u8>) {
    for (i, piece) in text.as_bytes().split(|byte| *byte == END).enumerate() {
        if i > 0 {
            out.extend_from_slice(&[END, ESCAPED]);
        }
        out.extend_from_slice(piece);
    }
}

/// Buffers that keys are read into.
#[derive(Default)]
pub struct Texts([Vec<u8>; 3]);

impl Texts {
    /// `None` when the bytes are no key of a series that could have been written.
    pub fn read(&mut self, key: &[u8]) -> Option<SeriesKey<'_>> {
        self.0.iter_mut().for_each(Vec::clear);
        let mut at = 0;
        let mut rest = key;
        loop {
            let plain = rest.iter().position(|byte| *byte == END).unwrap_or(rest.len());
            self.0.get_mut(at)?.extend_from_slice(&rest[..plain]);
            rest = match rest[plain..] {
                [] => break,
                [_, ESCAPED, ..] => {
                    self.0[at].push(END);
                    &rest[plain + 2..]
                }
                _ => {
                    at += 1;
                    &rest[plain + 1..]
                }
            };
        }
        let [endpoint, metric, tags] = &self.0;
        let (endpoint, metric) = (std::str::from_utf8(endpoint).ok()?, std::str::from_utf8(metric).ok()?);
        let tags = std::str::from_utf8(tags).ok()?;
        if at != 2 || [endpoint, metric, tags].iter().any(|text| text.len() > TEXT_MAX) {
            return None;
        }
        let canonical = Tags::canonical(tags, &mut String::new()).as_str() == tags;
        canonical.then(|| SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key_of<'a>(endpoint: &'a str, metric: &'a str, tags: &'a str) -> (Vec<u8>, SeriesKey<'a>) {
        let key = SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) };
        let mut bytes = Vec::new();
        push(key, &mut bytes);
        (bytes, key)
    }

    fn text() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!['\0', '\u{1}', 'a', 'b', '\u{7f}', 'ÿ', '\u{10ffff}']), 0..4)
            .prop_map(|chars| chars.into_iter().collect())
    }

    proptest! {
        #[test]
        fn keys_sort_as_their_texts_and_read_back(
            left in (text(), text(), text()),
            right in (text(), text(), text()),
        ) {
            let tags = [format!("k={}", left.2), format!("k={}", right.2)];
            let (left_bytes, left_key) = key_of(&left.0, &left.1, &tags[0]);
            let (right_bytes, right_key) = key_of(&right.0, &right.1, &tags[1]);
            let order = |key: SeriesKey<'_>| [key.endpoint, key.metric, key.tags.as_str()].map(str::to_string);
            prop_assert_eq!(left_bytes.cmp(&right_bytes), order(left_key).cmp(&order(right_key)));
            let mut texts = Texts::default();
            prop_assert_eq!(texts.read(&left_bytes), Some(left_key));
            prop_assert_eq!(texts.read(&right_bytes), Some(right_key));
        }

        #[test]
        fn hostile_keys_end(bytes in prop::collection::vec(prop::sample::select(vec![0, 1, b'a', b'=', 255]), 0..12)) {
            let mut texts = Texts::default();
            if let Some(key) = texts.read(&bytes) {
                let mut again = Vec::new();
                push(key, &mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
