//! Message: questions and answers of DNS as bytes (RFC 1035 §4).
//!
//! Why own code: what a probe needs is one question, and ten types of records as text. The usual library decodes some
//! fifty types and brings its own names, URLs and tables for all scripts.
//! Invariants: no bytes make it panic or loop; a name's pointers lead backwards only, so each name ends.
//! Memory: [`RECORDS_MAX`] records of one message of at most 64 KiB.

use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Records of an answer that are read; a large set of addresses has some tens.
const RECORDS_MAX: usize = 256;
/// Bytes of a name as it is sent (RFC 1035 §2.3.4).
const NAME_BYTES_MAX: usize = 255;
/// Bytes that we take over UDP: what passes everywhere without fragments (the DNS flag day of 2020).
const UDP_BYTES: u16 = 1232;
const CLASS_IN: u16 = 1;
const TYPE_OPT: u16 = 41;

/// Type of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RecordType {
    #[default]
    A,
    Aaaa,
    Caa,
    Cname,
    Mx,
    Ns,
    Ptr,
    Soa,
    Srv,
    Txt,
}

impl RecordType {
    fn number(self) -> u16 {
        match self {
            RecordType::A => 1,
            RecordType::Ns => 2,
            RecordType::Cname => 5,
            RecordType::Soa => 6,
            RecordType::Ptr => 12,
            RecordType::Mx => 15,
            RecordType::Txt => 16,
            RecordType::Aaaa => 28,
            RecordType::Srv => 33,
            RecordType::Caa => 257,
        }
    }

    /// Name as in a zone file.
    pub fn as_str(self) -> &'static str {
        match self {
            RecordType::A => "A",
            RecordType::Aaaa => "AAAA",
            RecordType::Caa => "CAA",
            RecordType::Cname => "CNAME",
            RecordType::Mx => "MX",
            RecordType::Ns => "NS",
            RecordType::Ptr => "PTR",
            RecordType::Soa => "SOA",
            RecordType::Srv => "SRV",
            RecordType::Txt => "TXT",
        }
    }

    fn of(number: u16) -> Option<RecordType> {
        use RecordType::{A, Aaaa, Caa, Cname, Mx, Ns, Ptr, Soa, Srv, Txt};
        [A, Aaaa, Caa, Cname, Mx, Ns, Ptr, Soa, Srv, Txt].into_iter().find(|known| known.number() == number)
    }
}

/// One record as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Name in lower case, without a dot at its end.
    pub owner: String,
    pub kind: RecordType,
    /// As in a zone file, names in lower case and without a dot at the end; texts without quotes, in one piece.
    pub text: String,
}

/// What of an answer matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub id: u16,
    pub is_answer: bool,
    pub is_truncated: bool,
    pub rcode: u8,
    /// Name in lower case and number of the type that were asked; nothing where no question came back.
    pub question: Option<(String, u16)>,
    pub records: Vec<Record>,
}

impl Message {
    /// True where this answers the question.
    pub fn is_for(&self, id: u16, name: &str, kind: RecordType) -> bool {
        let is_same = |(asked, number): &(String, u16)| asked == name && *number == kind.number();
        // Servers that cannot read a question send none back.
        self.is_answer && self.id == id && self.question.as_ref().is_none_or(is_same)
    }

    /// Texts of the records that answer: of the wanted type, at the end of the chain of CNAMEs that begins at `name`.
    pub fn answers(&self, name: &str, kind: RecordType) -> Vec<&str> {
        let mut owner = name;
        if kind != RecordType::Cname {
            // A chain visits each record at most once; one that is a circle ends here too, without an answer.
            for _ in 0..self.records.len() {
                let alias = |record: &&Record| record.kind == RecordType::Cname && record.owner == owner;
                match self.records.iter().find(alias) {
                    Some(record) => owner = &record.text,
                    None => break,
                }
            }
        }
        let is_answer = |record: &&Record| record.kind == kind && record.owner == owner;
        self.records.iter().filter(is_answer).map(|record| record.text.as_str()).collect()
    }
}

/// A question, with the offer to take longer answers over UDP.
pub(super) fn question(id: u16, name: &str, kind: RecordType, recursion: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 29);
    let words = [id, if recursion { 0x0100 } else { 0 }, 1, 0, 0, 1];
    words.iter().for_each(|word| out.extend_from_slice(&word.to_be_bytes()));
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    [kind.number(), CLASS_IN].iter().for_each(|word| out.extend_from_slice(&word.to_be_bytes()));
    // OPT (RFC 6891) has the root as name, the size as class, no options.
    out.push(0);
    [TYPE_OPT, UDP_BYTES, 0, 0, 0].iter().for_each(|word| out.extend_from_slice(&word.to_be_bytes()));
    out
}

/// Reads an answer; nothing where the bytes are none.
pub(crate) fn read(bytes: &[u8]) -> Option<Message> {
    let mut reader = Reader { bytes, at: 0 };
    let [id, flags, questions, answers, _, _] = {
        let mut words = [0; 6];
        for word in &mut words {
            *word = reader.u16()?;
        }
        words
    };
    let mut question = None;
    for _ in 0..questions {
        let name = reader.name()?;
        let kind = reader.u16()?;
        reader.u16()?;
        question.get_or_insert((name, kind));
    }
    let is_truncated = flags & 0x0200 != 0;
    let mut records = Vec::new();
    for _ in 0..usize::from(answers).min(RECORDS_MAX) {
        match reader.record() {
            Some(record) => records.extend(record),
            // What is cut off is asked for again.
            None if is_truncated => break,
            None => return None,
        }
    }
    Some(Message { id, is_answer: flags & 0x8000 != 0, is_truncated, rcode: flags as u8 & 0x0f, question, records })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A name in lower case; bytes that no host has in its name are written as `\DDD`, as in a zone file.
    fn name(&mut self) -> Option<String> {
        let (mut text, mut wire_bytes) = (String::new(), 0);
        let (mut at, mut end) = (self.at, None);
        loop {
            let length = usize::from(*self.bytes.get(at)?);
            if length & 0xc0 == 0xc0 {
                let target = (length & 0x3f) << 8 | usize::from(*self.bytes.get(at + 1)?);
                end.get_or_insert(at + 2);
                if target >= at {
                    return None;
                }
                at = target;
                continue;
            }
            wire_bytes += length + 1;
            if length > 63 || wire_bytes > NAME_BYTES_MAX {
                return None;
            }
            if length == 0 {
                self.at = end.unwrap_or(at + 1);
                return Some(text);
            }
            let label = self.bytes.get(at + 1..at + 1 + length)?;
            if !text.is_empty() {
                text.push('.');
            }
            for byte in label {
                match byte {
                    b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'*' | b'/' => text.push(char::from(*byte)),
                    b'A'..=b'Z' => text.push(char::from(byte.to_ascii_lowercase())),
                    // Writing to a text cannot fail.
                    other => _ = write!(text, "\\{other:03}"),
                }
            }
            at += 1 + length;
        }
    }

    /// The next record; `Some(None)` for one of a type or class that is not looked at.
    fn record(&mut self) -> Option<Option<Record>> {
        let owner = self.name()?;
        let (number, class) = (self.u16()?, self.u16()?);
        self.u32()?;
        let length = usize::from(self.u16()?);
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        let known = RecordType::of(number).filter(|_| class == CLASS_IN);
        let record = match known {
            None => None,
            Some(kind) => Some(Record { owner, kind, text: self.data(kind, end)? }),
        };
        self.at = end;
        Some(record)
    }

    fn data(&mut self, kind: RecordType, end: usize) -> Option<String> {
        // What a name points to may lie before the record, what stands in it may not lie behind its end.
        let mut inside = Reader { bytes: &self.bytes[..end], at: self.at };
        Some(match kind {
            RecordType::A => Ipv4Addr::from(inside.u32()?).to_string(),
            RecordType::Aaaa => Ipv6Addr::from(<[u8; 16]>::try_from(inside.take(16)?).ok()?).to_string(),
            RecordType::Cname | RecordType::Ns | RecordType::Ptr => inside.name()?,
            RecordType::Mx => format!("{} {}", inside.u16()?, inside.name()?),
            RecordType::Srv => format!("{} {} {} {}", inside.u16()?, inside.u16()?, inside.u16()?, inside.name()?),
            RecordType::Txt => {
                let mut text = Vec::new();
                while inside.at < end {
                    let length = inside.u8()?;
                    text.extend_from_slice(inside.take(usize::from(length))?);
                }
                String::from_utf8_lossy(&text).into_owned()
            }
            RecordType::Soa => {
                let mut text = format!("{} {}", inside.name()?, inside.name()?);
                for _ in 0..5 {
                    _ = write!(text, " {}", inside.u32()?);
                }
                text
            }
            RecordType::Caa => {
                let (flags, length) = (inside.u8()?, inside.u8()?);
                let tag = String::from_utf8_lossy(inside.take(usize::from(length))?);
                let value = String::from_utf8_lossy(inside.take(end.checked_sub(inside.at)?)?);
                format!("{flags} {tag} {value}")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer to a question for `a.b`, with these records: owner, type, data.
    fn answer(records: &[(&[u8], u16, &[u8])]) -> Vec<u8> {
        let mut bytes = question(7, "a.b", RecordType::A, true);
        // Without OPT.
        bytes.truncate(bytes.len() - 11);
        bytes[2] |= 0x80;
        bytes[7] = records.len() as u8;
        bytes[11] = 0;
        for (owner, kind, data) in records {
            bytes.extend_from_slice(owner);
            bytes.extend_from_slice(&kind.to_be_bytes());
            bytes.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
            bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
            bytes.extend_from_slice(data);
        }
        bytes
    }

    /// Pointer to the name in the question.
    const ASKED: &[u8] = &[0xc0, 12];

    #[test]
    fn records_as_text() {
        let check = |number: u16, data: &[u8], expected: &str| {
            let message = read(&answer(&[(ASKED, number, data)])).expect(expected);
            assert_eq!(message.records[0].text, expected);
            assert_eq!(message.records[0].owner, "a.b");
        };
        check(1, &[10, 0, 0, 1], "10.0.0.1");
        check(28, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "2001:db8::1");
        check(5, b"\x03WWW\xc0\x0c", "www.a.b");
        check(15, b"\x00\x0a\x02mx\xc0\x0c", "10 mx.a.b");
        check(16, b"\x03v=s\x03pf1", "v=spf1");
        check(33, b"\x00\x01\x00\x02\x13\xc4\xc0\x0c", "1 2 5060 a.b");
        check(6, b"\x02ns\xc0\x0c\x00\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05", "ns.a.b  1 2 3 4 5");
        check(257, b"\x00\x05issueca.example", "0 issue ca.example");
        check(12, b"\x04a b.\x00", "a\\032b\\046");
        assert_eq!(read(&answer(&[(ASKED, 99, b"x")])).expect("a message").records, []);
    }

    #[test]
    fn chains_are_followed_and_circles_end() {
        let names: [&[u8]; 3] = [b"\x01x\x00", b"\x01y\x00", b"\x01z\x00"];
        let message = read(&answer(&[
            (names[0], 1, &[10, 0, 0, 9]),
            (names[1], 5, names[2]),
            (ASKED, 5, names[1]),
            (names[2], 1, &[10, 0, 0, 1]),
            (names[2], 1, &[10, 0, 0, 2]),
        ]));
        let message = message.expect("a message");
        assert_eq!(message.answers("a.b", RecordType::A), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(message.answers("a.b", RecordType::Cname), ["y"]);
        let circle = read(&answer(&[(ASKED, 5, names[0]), (names[0], 5, ASKED), (names[1], 1, &[1, 1, 1, 1])]));
        assert_eq!(circle.expect("a message").answers("a.b", RecordType::A), [""; 0]);
    }

    #[test]
    fn what_answers_a_question() {
        let message = read(&answer(&[])).expect("a message");
        assert!(message.is_for(7, "a.b", RecordType::A));
        assert!(!message.is_for(8, "a.b", RecordType::A), "another id");
        assert!(!message.is_for(7, "b.b", RecordType::A), "another name");
        assert!(!message.is_for(7, "a.b", RecordType::Mx), "another type");
        let asked = read(&question(7, "a.b", RecordType::A, true)).expect("a message");
        assert!(!asked.is_for(7, "a.b", RecordType::A), "a question");
    }

    /// Each byte of a message is replaced by each other one, and each message cut off anywhere.
    #[test]
    fn no_bytes_end_it() {
        let whole = answer(&[
            (ASKED, 6, b"\x02ns\xc0\x0c\x00\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05"),
            (ASKED, 16, b"\x01a"),
        ]);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            for byte in 0..=255 {
                changed[at] = byte;
                if let Some(message) = read(&changed) {
                    message.answers("a.b", RecordType::A);
                }
            }
            read(&whole[..at]);
        }
        crate::tests::world::broken_forms(&whole, |bytes| {
            if let Some(message) = read(bytes) {
                message.answers("a.b", RecordType::Soa);
            }
        });
        let to_itself = [&whole[..12], &[0xc0, 12, 0, 1, 0, 1][..]].concat();
        assert_eq!(read(&to_itself), None);
    }
}
