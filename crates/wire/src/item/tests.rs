use super::*;
use crate::json;
use proptest::prelude::*;

const GOOD: Item<'static> = Item {
    endpoint: "h",
    metric: "m",
    tags: "a=1",
    value: 1.5,
    step: 60,
    counter_type: CounterType::Gauge,
    timestamp: 1_600_000_000,
};

/// Decodes an array; items in a readable form, or the reason.
fn decode(array: &str) -> Result<Vec<Result<String, Invalid>>, JsonError> {
    let mut seen = Vec::new();
    let total = decode_items(array.as_bytes(), &mut Scratch::new(), &mut |item| {
        seen.push(item.map(|item| format!("{item:?}")));
    })?;
    assert_eq!(total, seen.len());
    Ok(seen)
}

#[track_caller]
fn good(text: &str, expected: Item<'_>) {
    assert_eq!(decode(&format!("[{text}]")), Ok(vec![Ok(format!("{expected:?}"))]), "of {text}");
}

#[track_caller]
fn bad(text: &str, expected: Invalid) {
    // The neighbours are not harmed.
    let neighbour = Ok(format!("{GOOD:?}"));
    let array = format!("[{BASE},{text},{BASE}]");
    assert_eq!(decode(&array), Ok(vec![neighbour.clone(), Err(expected), neighbour]), "of {text}");
}

const BASE: &str =
    r#"{"endpoint":"h","metric":"m","value":1.5,"step":60,"counterType":"GAUGE","tags":"a=1","timestamp":1600000000}"#;

/// The good item with one field written otherwise (`""` leaves it out).
fn with(name: &str, value: &str) -> String {
    let mut fields = Vec::new();
    json::fields(BASE.as_bytes(), &mut Scratch::new(), |field, raw| {
        let raw = if field == name { value } else { std::str::from_utf8(raw).expect("UTF-8") };
        if !raw.is_empty() {
            fields.push(format!("\"{field}\":{raw}"));
        }
    })
    .expect("BASE is JSON");
    format!("{{{}}}", fields.join(","))
}

#[test]
fn arrays() {
    assert_eq!(decode("null"), Ok(vec![]));
    assert_eq!(decode("[]"), Ok(vec![]));
    assert_eq!(decode(" [ ] "), Ok(vec![]));
    assert!(decode("{}").is_err());
    assert!(decode("5").is_err());
    assert!(decode("").is_err());
    assert!(decode("[] x").is_err());
    assert!(decode(&format!("[{BASE}")).is_err());
    assert!(decode(&format!("[{BASE},]")).is_err());
    assert!(decode(&format!("[{BASE} {BASE}]")).is_err());
}

#[test]
fn any_order_case_and_company() {
    good(BASE, GOOD);
    good(
        r#"{"timestamp":1600000000,"tags":"a=1","counterType":"GAUGE","step":60,"value":1.5,"metric":"m","endpoint":"h"}"#,
        GOOD,
    );
    good(
        r#"{"Endpoint":"h","METRIC":"m","Value":1.5,"Step":60,"countertype":"GAUGE","TAGS":"a=1","TimeStamp":1600000000}"#,
        GOOD,
    );
    good(
        r#" { "endpoint" : "h" , "metric":"m","value":1.5,"x":[{"y":"}"}],"step":60,"counterType":"GAUGE","tags":"a=1","timestamp":1600000000} "#,
        GOOD,
    );
    good(
        r#"{"\u0065ndpoint":"\u0068","metric":"\u006d","value":"\u0031.5","step":60,"counterType":"GAUG\u0045","tags":"a\u003d1","timestamp":1600000000}"#,
        GOOD,
    );
    // Of equal names the last wins; null changes nothing, except a value.
    good(&BASE.replacen('{', r#"{"endpoint":"x","step":1,"value":"x","tags":"z","#, 1), GOOD);
    good(
        &BASE.replacen('}', r#","endpoint":null,"step":null,"tags":null,"timestamp":null,"counterType":null}"#, 1),
        GOOD,
    );
}

#[test]
fn escaped_strings() {
    let tags = "mount=/data,name=\"进程\"";
    good(&with("tags", r#""mount=\/data,name=\"\u8fdb程\"""#), Item { tags, ..GOOD });
    good(&with("endpoint", r#""a\tb""#), Item { endpoint: "a\tb", ..GOOD });
}

#[test]
fn values() {
    let value = |text: &str, value| good(&with("value", text), Item { value, ..GOOD });
    value("0", 0.0);
    value("-0", 0.0);
    value("-0.0", 0.0);
    value("42", 42.0);
    value("-1e-7", -1e-7);
    value("80.1963161638374", 80.1963161638374);
    value("1.7976931348623157e308", f64::MAX);
    value("\"42\"", 42.0);
    value("\"+1.5e3\"", 1500.0);
    value("\".5\"", 0.5);
    value("\"5.\"", 5.0);
    value("\"-0\"", 0.0);
    let refused = |text: &str, why| bad(&with("value", text), why);
    refused("\"\"", Invalid::EmptyValue);
    refused("", Invalid::NotANumber);
    refused("null", Invalid::NotANumber);
    refused("true", Invalid::NotANumber);
    refused("[1]", Invalid::NotANumber);
    refused("{\"a\":1}", Invalid::NotANumber);
    refused("\"x\"", Invalid::NotANumber);
    refused("\" 1\"", Invalid::NotANumber);
    refused("\"1_000\"", Invalid::NotANumber);
    refused("\"NaN\"", Invalid::NotFinite);
    refused("\"-Inf\"", Invalid::NotFinite);
    refused("\"infinity\"", Invalid::NotFinite);
    refused("\"1e999\"", Invalid::NotFinite);
    refused("1e999", Invalid::NotFinite);
}

#[test]
fn steps_and_timestamps() {
    let step = |text: &str, step| good(&with("step", text), Item { step, ..GOOD });
    step("\"30\"", 30);
    step("30.0", 30);
    step("3e1", 30);
    step("4294967295", u32::MAX);
    bad(&with("step", "0"), Invalid::Step);
    bad(&with("step", "-60"), Invalid::Step);
    bad(&with("step", ""), Invalid::Step);
    bad(&with("step", "null"), Invalid::Step);
    bad(&with("step", "4294967296"), Invalid::Step);
    bad(&with("step", "1.5"), Invalid::WrongType(Field::Step));
    bad(&with("step", "\"x\""), Invalid::WrongType(Field::Step));
    bad(&with("step", "true"), Invalid::WrongType(Field::Step));
    let timestamp = |text: &str, timestamp| good(&with("timestamp", text), Item { timestamp, ..GOOD });
    timestamp("\"1600000000\"", 1_600_000_000);
    timestamp("1.6e9", 1_600_000_000);
    timestamp("9223372036854775807", i64::MAX);
    timestamp("0", 0);
    timestamp("-5", 0);
    timestamp("", 0);
    timestamp("null", 0);
    bad(&with("timestamp", "1600000000.5"), Invalid::WrongType(Field::Timestamp));
    bad(&with("timestamp", "9223372036854775808"), Invalid::WrongType(Field::Timestamp));
    bad(&with("timestamp", "{}"), Invalid::WrongType(Field::Timestamp));
}

#[test]
fn names_and_types() {
    let long = |bytes: usize| format!("\"{}\"", "x".repeat(bytes));
    bad("null", Invalid::Null);
    bad("5", Invalid::NotAnObject);
    bad("[]", Invalid::NotAnObject);
    bad("{}", Invalid::EmptyMetric);
    bad(&with("metric", "\"kernel.hostname\""), Invalid::KernelHostname);
    bad(&with("metric", "\"\""), Invalid::EmptyMetric);
    bad(&with("endpoint", "\"\""), Invalid::EmptyEndpoint);
    bad(&with("endpoint", ""), Invalid::EmptyEndpoint);
    bad(&with("counterType", "\"gauge\""), Invalid::CounterType);
    bad(&with("counterType", ""), Invalid::CounterType);
    bad(&with("endpoint", "1"), Invalid::WrongType(Field::Endpoint));
    bad(&with("metric", "[]"), Invalid::WrongType(Field::Metric));
    bad(&with("counterType", "0"), Invalid::WrongType(Field::CounterType));
    bad(&with("tags", r#"{"a":"1"}"#), Invalid::WrongType(Field::Tags));
    good(&with("tags", ""), Item { tags: "", ..GOOD });
    good(&with("tags", "null"), Item { tags: "", ..GOOD });
    let tags = "x".repeat(509);
    good(&with("tags", &long(509)), Item { tags: &tags, ..GOOD });
    bad(&with("tags", &long(510)), Invalid::CounterTooLong);
    let endpoint = "x".repeat(255);
    good(&with("endpoint", &long(255)), Item { endpoint: &endpoint, ..GOOD });
    bad(&with("endpoint", &long(256)), Invalid::EndpointTooLong);
}

/// The first reason in the original's order is the one that counts.
#[test]
fn order_of_reasons() {
    bad(r#"{"metric":"kernel.hostname"}"#, Invalid::KernelHostname);
    bad(r#"{"metric":"m"}"#, Invalid::EmptyEndpoint);
    bad(r#"{"metric":"m","endpoint":"h","value":""}"#, Invalid::CounterType);
    bad(r#"{"metric":"m","endpoint":"h","value":"","counterType":"GAUGE"}"#, Invalid::EmptyValue);
    bad(r#"{"metric":"m","endpoint":"h","value":"x","counterType":"GAUGE"}"#, Invalid::Step);
}

#[test]
fn bytes_that_are_not_utf8_become_replacements() {
    let array =
        [br#"[{"endpoint":"h"#.as_slice(), b"\xb5", br#"","metric":"m","value":1,"step":1,"counterType":"GAUGE"}]"#];
    let mut endpoints = Vec::new();
    let total = decode_items(&array.concat(), &mut Scratch::new(), &mut |item| {
        endpoints.push(item.map(|item| item.endpoint.to_string()));
    });
    assert_eq!((total, endpoints), (Ok(1), vec![Ok("h\u{fffd}".to_string())]));
}

#[test]
fn labels_are_distinct() {
    let labels: std::collections::BTreeSet<&str> = Invalid::ALL.iter().map(|why| why.as_str()).collect();
    assert_eq!(labels.len(), Invalid::ALL.len());
}

#[test]
fn writes_as_go_does() {
    let mut out = Vec::new();
    let (endpoint, metric, tags) = ("golden-host-01", "plugin.demo", "a=1,b=x y");
    let (value, step, counter_type, timestamp) = (1.5, 5, CounterType::Gauge, 1_795_376_687);
    write_item(&mut out, &OutItem { endpoint, metric, value, step, counter_type, tags, timestamp });
    assert_eq!(
        String::from_utf8(out).expect("UTF-8"),
        r#"{"endpoint":"golden-host-01","metric":"plugin.demo","value":1.5,"step":5,"counterType":"GAUGE","tags":"a=1,b=x y","timestamp":1795376687}"#
    );
}

fn counter_type() -> impl Strategy<Value = CounterType> {
    prop::sample::select(&[CounterType::Gauge, CounterType::Counter, CounterType::Derive][..])
}

proptest! {
    #[test]
    fn what_is_written_reads_back(
        endpoint in ".{1,20}", metric in ".{1,20}", tags in ".{0,40}",
        value in any::<f64>().prop_filter("finite", |value| value.is_finite()),
        step in 1u32.., counter_type in counter_type(), timestamp in 1i64..1 << 53,
    ) {
        let mut out = b"[".to_vec();
        let item = OutItem { endpoint: &endpoint, metric: &metric, value, step, counter_type, tags: &tags, timestamp };
        write_item(&mut out, &item);
        out.push(b']');
        let mut seen = 0;
        let total = decode_items(&out, &mut Scratch::new(), &mut |read| {
            seen += 1;
            let expected = Item { endpoint: &endpoint, metric: &metric, tags: &tags, value, step, counter_type, timestamp };
            assert_eq!(read, Ok(expected));
        });
        prop_assert_eq!((total, seen), (Ok(1), 1));
    }

    /// Whatever stands in the fields: never a panic, every element is handed out, and broken JSON is told from bad
    /// items.
    #[test]
    fn odd_items(fields in prop::collection::vec((
        prop::sample::select(&["endpoint", "metric", "value", "step", "counterType", "tags", "timestamp", "Value", "x"][..]),
        prop::sample::select(&["\"h\"", "\"GAUGE\"", "1", "60", "-1", "1.5", "1e999", "null", "true", "[]", "{}", "\"\"", "\"1\"", "\"NaN\"", "\"\\u0031\"", "tru", "\"\\x\""][..]),
    ), 0..10)) {
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let array = format!("[{BASE},{{{}}},{BASE}]", fields.join(","));
        let decoded = decode(&array);
        prop_assert_eq!(decoded.is_ok(), json::check(array.as_bytes()).is_ok());
        if let Ok(items) = decoded {
            prop_assert_eq!(items.len(), 3);
            prop_assert!(items[0].is_ok() && items[2].is_ok());
        }
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for start in ["", "[", "[{\"endpoint\":", "[{\"value\":"] {
            let bytes = [start.as_bytes(), &bytes].concat();
            let _ = decode_items(&bytes, &mut Scratch::new(), &mut |_| {});
        }
    }
}
