use super::*;
use proptest::prelude::*;

const LIMIT: usize = 1000;

/// Feeds `stream` in parts of the given sizes (the last repeats); what came out, and the error that ended it.
fn run(stream: &[u8], sizes: &[usize]) -> (Vec<String>, Option<FrameError>) {
    let mut framer = Framer::new(LIMIT);
    let (mut buffer, mut messages, mut rest) = (Vec::new(), Vec::new(), stream);
    let mut sizes = sizes.iter().copied().chain(std::iter::repeat(sizes.last().copied().unwrap_or(1)));
    while !rest.is_empty() {
        let (part, tail) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
        buffer.extend_from_slice(part);
        rest = tail;
        loop {
            match framer.scan(&buffer) {
                Ok(Some(range)) => {
                    messages.push(String::from_utf8_lossy(&buffer[range.clone()]).into_owned());
                    buffer.drain(..range.end);
                    framer.reset();
                }
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

#[track_caller]
fn check(stream: &str, expected: &[&str], error: Option<FrameError>) {
    for size in [1, 2, 3, 7, 63, 64, 65, 100_000] {
        let (messages, got) = run(stream.as_bytes(), &[size]);
        assert_eq!(messages, expected, "in parts of {size}");
        assert_eq!(got, error, "in parts of {size}");
    }
}

#[test]
fn messages_glued_and_split() {
    check("", &[], None);
    check(" \n\t\r", &[], None);
    check("{}", &["{}"], None);
    check("\n {} {}\n{\"a\":1}{", &["{}", "{}", "{\"a\":1}"], None);
    check(r#"{"a":[{"b":[]}]}{"c":"#, &[r#"{"a":[{"b":[]}]}"#], None);
    let long = format!("{{\"a\":\"{}\",\"b\":[{}1]}}", "x".repeat(200), "1,".repeat(100));
    check(&format!("{long}{long}\n{long}"), &[&long, &long, &long], None);
}

#[test]
fn strings_hide_brackets() {
    for text in [r#"{"}":"]["}"#, r#"{"a\"}":"\\"}"#, r#"{"\\":"}\\\"}"}"#, r#"{"{\u007d":1}"#] {
        check(&format!("{text} {text}"), &[text, text], None);
        // Behind 60 bytes the escape crosses the border of a block.
        for pad in 50..70 {
            let text = format!("{{\"{}\":{text}}}", "p".repeat(pad));
            check(&format!("{text}{text}"), &[&text, &text], None);
        }
    }
}

#[test]
fn lost_frames() {
    check("GET / HTTP/1.1\r\n", &[], Some(FrameError::NotAnObject { at: 0, byte: b'G' }));
    check("{}\n[1]", &["{}"], Some(FrameError::NotAnObject { at: 1, byte: b'[' }));
    check("{\"a\":[}", &[], Some(FrameError::Unbalanced { at: 6 }));
    check("{\"a\":1]", &[], Some(FrameError::Unbalanced { at: 6 }));
    check(&format!("{{\"a\":{}", "[".repeat(64)), &[], Some(FrameError::TooDeep { at: 5 + 63 }));
}

#[test]
fn length_is_limited() {
    let of_length = |length: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(length - 8));
    check(&of_length(LIMIT), &[&of_length(LIMIT)], None);
    check(&of_length(LIMIT + 1), &[], Some(FrameError::TooLong { limit: LIMIT }));
    check(&" ".repeat(LIMIT + 1), &[], Some(FrameError::TooLong { limit: LIMIT }));
    // A message within the limit is found even when more bytes than the limit are buffered.
    check(&format!("{}{}", of_length(10), of_length(LIMIT)), &[&of_length(10), &of_length(LIMIT)], None);
}

/// What scanning costs must not depend on how often `scan` is called: it goes on where it stopped.
#[test]
fn looks_at_each_byte_once() {
    let mut framer = Framer::new(usize::MAX);
    let mut buffer = b"{\"a\":\"".to_vec();
    assert_eq!(framer.scan(&buffer), Ok(None));
    assert_eq!(framer.looked, buffer.len());
    // Were these bytes looked at again, the bracket would now close the message.
    buffer.fill(b'}');
    buffer.extend_from_slice(b"x\"}");
    assert_eq!(framer.scan(&buffer), Ok(Some(0..buffer.len())));
}

#[test]
fn errors_in_words() {
    let text = FrameError::NotAnObject { at: 3, byte: b'G' }.to_string();
    assert_eq!(text, "message must be a JSON object; got byte 0x47 at 3, want '{'");
}

fn near_messages() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        "\"",
        "\\",
        "\\\"",
        "\\\\",
        " ",
        "\n",
        "a",
        "{}",
        "{\"a\":1}",
        "[{}]",
        "\"x\"",
        "é",
        "{\"0123456789012345678901234567890123456789012345678901234567890123456789\":[]}",
    ];
    prop::collection::vec(prop::sample::select(PIECES), 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn independent_of_splits(stream in near_messages(), sizes in prop::collection::vec(1usize..90, 1..20)) {
        prop_assert_eq!(run(stream.as_bytes(), &sizes), run(stream.as_bytes(), &[usize::MAX]));
    }

    #[test]
    fn noise_is_independent_of_splits(
        noise in prop::collection::vec(any::<u8>(), 0..300),
        sizes in prop::collection::vec(1usize..90, 1..20),
    ) {
        let stream = [b"{", &noise[..]].concat();
        prop_assert_eq!(run(&stream, &sizes), run(&stream, &[usize::MAX]));
    }

    #[test]
    fn masks_agree(block in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"\"\\{}[]"[..])], 64)) {
        let block: &[u8; 64] = block.as_slice().try_into().expect("64 bytes");
        let (masks, portable) = (Masks::of(block), Masks::portable(block));
        prop_assert_eq!(masks.quotes, portable.quotes);
        prop_assert_eq!(masks.backslashes, portable.backslashes);
        prop_assert_eq!(masks.brackets, portable.brackets);
    }
}
