use super::*;
use model::number::go_json;
use model::rule::push_json_string;
use proptest::prelude::*;

#[track_caller]
fn text_is(raw: &[u8], expected: &str) {
    assert_eq!(string(raw, &mut Scratch::new()), Some(expected));
}

#[test]
fn strings() {
    text_is(br#""""#, "");
    text_is(br#" "a" "#, "a");
    text_is(br#""0123456789abcdef""#, "0123456789abcdef");
    text_is("\"进程 é\"".as_bytes(), "进程 é");
    text_is(br#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t");
    text_is(br#""\u0041\u00e9\u8fdb""#, "Aé进");
    text_is(br#""\ud83d\ude00""#, "😀");
    text_is(br#""\u003cUNDEFINED\u003e""#, "<UNDEFINED>");
}

/// Go replaces what is not a character by U+FFFD.
#[test]
fn strings_that_are_not_unicode() {
    text_is(br#""\ud83d""#, "\u{fffd}");
    text_is(br#""\ud83dx""#, "\u{fffd}x");
    text_is(br#""\ude00\ud83d""#, "\u{fffd}\u{fffd}");
    text_is(br#""\ud83d\u0041""#, "\u{fffd}A");
    text_is(b"\"a\xffb\"", "a\u{fffd}b");
    text_is(b"\"\xe8\xbf\"", "\u{fffd}\u{fffd}");
}

#[test]
fn borrows_when_it_can() {
    let (input, mut scratch) = (br#""plain""#, Scratch::new());
    let text = string(input, &mut scratch).expect("a string");
    assert_eq!(text.as_ptr(), input[1..].as_ptr());
    assert_eq!(scratch.capacity(), 0);
}

#[track_caller]
fn fails(input: &str, at: usize, part: &str) {
    let error = check(input.as_bytes()).expect_err(input);
    assert_eq!(error.at, at, "{error} in {input:?}");
    assert!(error.what.contains(part), "{error} in {input:?} does not name {part:?}");
}

#[test]
fn errors_name_the_place() {
    fails("", 0, "ends");
    fails("[1,]", 3, "value");
    fails("[1 2]", 3, "comma or ]");
    fails("[1", 2, "ends inside an array");
    fails(r#"{"a""#, 4, "colon");
    fails(r#"{"a":1,}"#, 7, "string");
    fails(r#"{"a":1 "b""#, 7, "comma or }");
    fails(r#"{"a":1"#, 6, "ends inside an object");
    fails("{1:2}", 1, "string");
    fails("[}", 1, "value");
    fails(r#""abc"#, 4, "ends inside a string");
    fails("\"a\nb\"", 2, "control");
    fails(r#""\x""#, 1, "escape");
    fails(r#""\u12g4""#, 1, "hexadecimal");
    fails("tru", 0, "value");
    fails("01", 0, "start with 0");
    fails("-", 1, "digit");
    fails("1.", 2, "digit");
    fails("1e+", 3, "digit");
    fails("1 2", 2, "nothing may follow");
    fails(&"[".repeat(65), 64, "64 levels");
}

#[test]
fn depth_is_bounded_and_sufficient() {
    let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(check(nested(64).as_bytes()), Ok(()));
    assert!(check(nested(65).as_bytes()).is_err());
    assert!(check(nested(1_000_000).as_bytes()).is_err());
}

#[test]
fn integers() {
    let check = |text: &str, expected| assert_eq!(integer(text.as_bytes()), expected, "of {text}");
    check("60", Some(60));
    check(" -60 ", Some(-60));
    check("60.0", Some(60));
    check("6e1", Some(60));
    check("9223372036854775807", Some(i64::MAX));
    check("9223372036854775808", None);
    check("1.5", None);
    check("1e300", None);
    check("\"60\"", None);
    check("null", None);
}

#[test]
fn numbers_are_the_nearest_doubles() {
    for text in [
        "0",
        "-0",
        "1.5",
        "80.1963161638374",
        "97.11047815264281",
        "0.000001",
        "4503599627370497.5",
        "9007199254740993",
        "18446744073709551615",
        "18446744073709551616",
        "123456789012345678901234567890",
        "1e22",
        "1e23",
        "3e-324",
        "1.7976931348623157e308",
        "1e-400",
        "0e999999999999",
        "0.1e1",
        "2.2250738585072011e-308",
    ] {
        let expected: f64 = text.parse().expect("a number");
        let read = number(text.as_bytes()).expect(text);
        assert_eq!(read.to_bits(), expected.to_bits(), "of {text}: {read} is not {expected}");
    }
    assert_eq!(number(b"1e999"), Some(f64::INFINITY));
    assert_eq!(number(b"-1e999999999999"), Some(f64::NEG_INFINITY));
}

#[test]
fn fields_of_objects() {
    let list = |object: &str| {
        let mut seen = Vec::new();
        let done = fields(object.as_bytes(), &mut Scratch::new(), |name, value| {
            seen.push(format!("{name}={}", String::from_utf8_lossy(value)));
        });
        done.map(|()| seen.join(" "))
    };
    assert_eq!(list(r#" { "a" : 1 , "\u0062":{"c":[2]},"a":null}"#), Ok(r#"a=1 b={"c":[2]} a=null"#.to_string()));
    assert_eq!(list("{}"), Ok(String::new()));
    assert_eq!(list("null"), Ok(String::new()));
    assert!(list("[]").is_err());
    assert!(list(r#"{"a":1}x"#).is_err());
}

#[test]
fn elements_of_arrays() {
    let list = |array: &str| {
        let mut seen = Vec::new();
        elements(array.as_bytes(), |value| seen.push(String::from_utf8_lossy(value).into_owned())).map(|()| seen)
    };
    assert_eq!(list(r#"[1, "a" ,[2]]"#), Ok(vec!["1".to_string(), "\"a\"".to_string(), "[2]".to_string()]));
    assert_eq!(list("[]"), Ok(Vec::new()));
    assert_eq!(list("null"), Ok(Vec::new()));
    assert!(list("{}").is_err());
}

#[test]
fn names_without_case() {
    assert!(name_eq("COUNTERtype", "counterType"));
    assert!(!name_eq("counter_type", "counterType"));
}

#[test]
fn writes_integers() {
    for value in [0, 1, -1, 9, 10, 1_600_000_000, i64::MAX, i64::MIN] {
        let mut out = Vec::new();
        push_integer(&mut out, value);
        assert_eq!(out, value.to_string().as_bytes());
    }
}

/// Pieces that make near-JSON likely: everything that has a meaning, and halves of it.
fn near_json() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\"a\"",
        "\"k\":",
        "\\",
        "\\n",
        "\\u00e9",
        "\\u00",
        "0",
        "1",
        "-",
        ".",
        "e",
        "E+",
        "true",
        "null",
        "fals",
        "false",
        " ",
        "\n",
        "\u{1}",
        "é",
        "{\"a\":1}",
        "[1,2]",
        "12345678",
    ];
    prop::collection::vec(prop::sample::select(PIECES), 0..24).prop_map(|pieces| pieces.concat())
}

/// Valid values, with the text that serde_json writes for them.
fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        any::<f64>().prop_map(serde_json::Value::from),
        ".*".prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
            prop::collection::hash_map(".*", inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Rebuilds a value with this module's functions only.
fn rebuild(raw: &[u8]) -> Result<serde_json::Value, JsonError> {
    let mut scratch = Scratch::new();
    Ok(match Reader::new(raw).kind()? {
        Kind::Null => serde_json::Value::Null,
        Kind::Bool => (raw == b"true").into(),
        Kind::Number => match std::str::from_utf8(raw).expect("ASCII").parse::<i64>() {
            Ok(expected) => {
                assert_eq!(integer(raw), Some(expected));
                expected.into()
            }
            Err(_) => number(raw).expect("kind is number").into(),
        },
        Kind::String => string(raw, &mut scratch).expect("kind is string").into(),
        Kind::Array => {
            let mut list = Vec::new();
            elements(raw, |element| list.push(rebuild(element).expect("checked by elements")))?;
            list.into()
        }
        Kind::Object => {
            let mut map = serde_json::Map::new();
            fields(raw, &mut scratch, |name, value| {
                map.insert(name.to_string(), rebuild(value).expect("checked by fields"));
            })?;
            map.into()
        }
    })
}

proptest! {
    #[test]
    fn validity_agrees_with_serde_json(text in near_json()) {
        let expected = serde_json::from_str::<serde_json::Value>(&text);
        // serde_json also refuses what no double can hold; that is a question of value, not of form.
        if expected.as_ref().is_err_and(|error| error.to_string().contains("out of range")) {
            return Ok(());
        }
        prop_assert_eq!(check(text.as_bytes()).is_ok(), expected.is_ok(), "{:?}", text);
    }

    #[test]
    fn values_agree_with_serde_json(value in value(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let text = text.expect("a value is writable");
        prop_assert_eq!(rebuild(text.as_bytes()), Ok(value), "{}", text);
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut scratch = Scratch::new();
        let _ = check(&bytes);
        let _ = fields(&bytes, &mut scratch, |_, _| {});
        let _ = elements(&bytes, |_| {});
        let _ = string(&bytes, &mut scratch);
        let _ = number(&bytes);
    }

    #[test]
    fn every_prefix_is_refused(value in value()) {
        let text = serde_json::to_string(&value).expect("a value is writable");
        // A number is also complete when it is cut; everything else knows its end.
        if !value.is_number() {
            for end in 0..text.len() {
                prop_assert!(check(&text.as_bytes()[..end]).is_err());
            }
        }
    }

    #[test]
    fn numbers_read_as_std_reads_them(value in any::<f64>().prop_filter("finite", |value| value.is_finite())) {
        let text = format!("{value:e}");
        prop_assert_eq!(number(text.as_bytes()).map(f64::to_bits), Some(value.to_bits()));
        let text = go_json(value);
        prop_assert_eq!(number(text.as_bytes()).map(f64::to_bits), Some(value.to_bits()));
    }

    #[test]
    fn numbers_are_written_as_model_writes_them(value in any::<f64>().prop_filter("finite", |value| value.is_finite())) {
        for value in [value, value.trunc(), value.fract(), (value * 1e-300).trunc()] {
            let mut out = Vec::new();
            push_number(&mut out, value);
            prop_assert_eq!(String::from_utf8(out), Ok(go_json(value)));
        }
    }

    #[test]
    fn strings_are_written_as_model_writes_them(text in ".*", special in "[<>&\"\\\\\n\u{2027}-\u{2030}\u{1}é]*") {
        for text in [text, special] {
            let (mut out, mut expected) = (Vec::new(), String::new());
            push_string(&mut out, &text);
            push_json_string(&text, &mut expected);
            prop_assert_eq!(std::str::from_utf8(&out), Ok(expected.as_str()));
            let mut scratch = Scratch::new();
            prop_assert_eq!(string(&out, &mut scratch), Some(text.as_str()));
        }
    }
}
