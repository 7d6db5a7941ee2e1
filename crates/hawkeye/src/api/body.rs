//! Fields: the named values of a request, from JSON, a form or the query.
//!
//! Why: the original binds GET from the query and the rest by Content-Type; clients use all of them, and its JSON names
//! match without case. Handlers ask for a field by name, kind and length and get the value or a 400 that names the
//! field.
//! How: GET and HEAD read the query. A body is JSON when its Content-Type says so or when it begins with `{` or `[`
//! (curl sends `-d '{…}'` as a form); otherwise it is a form, and the query is read as well.
//! Invariants: a body has at most [`BODY_MAX`] bytes and must arrive within [`BODY_TIMEOUT`]; nobody waits for a body
//! of somebody else.
//! Memory: what has come of a body counts against the byte budget of unfinished messages, until it is parsed; parsed, a
//! body of many small numbers takes sixteen times its length. Routes that ask for no token take small bodies only
//! ([`SmallBodies`]).

use super::error::ApiError;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use net::http::{BodyError, Peer, Received, read_body};
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde_json::{Map, Value};
use std::pin::Pin;
use std::time::Duration;

/// Bytes of the longest body; a list of [`LIST_MAX`] host names has about 800 kB.
pub const BODY_MAX: usize = 1 << 20;
/// Bytes of a small body: anything but a long list fits.
pub const SMALL_BODY_MAX: usize = 64 << 10;
/// Bytes of a large body: all rules of a site, as files. One of 1,000 hosts with 80 templates of 40 strategies has
/// 1 MB.
pub const LARGE_BODY_MAX: usize = 16 << 20;
/// The time within which a body must arrive; a guess: the slowest useful link sends 300 kB in half of this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Elements of one list: twice the hosts of the largest published installation. Each element may cost a statement or
/// two under the write lock.
const LIST_MAX: usize = 20_000;

/// Fields of a request, from JSON or a form.
#[derive(Clone, Debug)]
pub enum Fields {
    Json(Map<String, Value>),
    Form(Vec<(String, String)>),
}

/// An extension of routes that anybody may call: their bodies have at most [`SMALL_BODY_MAX`] bytes.
#[derive(Clone, Copy, Debug)]
pub struct SmallBodies;

/// An extension of the route that takes all rules of a site: its bodies have at most [`LARGE_BODY_MAX`] bytes.
#[derive(Clone, Copy, Debug)]
pub struct LargeBodies;

/// A JSON body of a given shape, for the few routes whose body is no object of plain fields.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Fields, ApiError> {
        if request.method() == Method::GET || request.method() == Method::HEAD {
            return Ok(Fields::Form(parse_form(request.uri().query().unwrap_or("").as_bytes())));
        }
        let (parts, body) = request.into_parts();
        let body = read(&parts, body).await?;
        Fields::parse(&parts, &body)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<JsonBody<T>, ApiError> {
        let (parts, body) = request.into_parts();
        let body = read(&parts, body).await?;
        parse_json(&body).map(JsonBody)
    }
}

/// Reads a flag of a body as [`Fields::flag`] does.
pub fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match <Value as serde::Deserialize>::deserialize(deserializer)? {
        Value::Bool(is_set) => Ok(is_set),
        Value::Null => Ok(false),
        Value::Number(number) if number.as_u64().is_some_and(|number| number <= 1) => Ok(number.as_u64() == Some(1)),
        other => Err(D::Error::custom(format!("{other} is no flag: give true or false"))),
    }
}

impl Fields {
    /// Reads the body of a request that has one.
    pub fn parse(parts: &Parts, body: &[u8]) -> Result<Fields, ApiError> {
        if says_json(&parts.headers) || looks_like_json(body) {
            return Ok(Fields::Json(parse_json(body)?));
        }
        let mut pairs = parse_form(body);
        pairs.extend(parse_form(parts.uri.query().unwrap_or("").as_bytes()));
        Ok(Fields::Form(pairs))
    }

    /// A text of at most `max` characters; "" when absent.
    pub fn text(&self, name: &str, max: usize) -> Result<String, ApiError> {
        let text = match self {
            Fields::Form(pairs) => find_pair(pairs, name).unwrap_or_default().to_string(),
            Fields::Json(map) => match find_value(map, name) {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(text)) => text.clone(),
                Some(other) => return Err(wrong_kind(name, "a text", other)),
            },
        };
        check_zero(name, &text)?;
        check_length(name, &text, max)?;
        Ok(text)
    }

    /// A text as by [`Fields::text`], but not an empty one.
    pub fn required_text(&self, name: &str, max: usize) -> Result<String, ApiError> {
        let text = self.text(name, max)?;
        if text.is_empty() {
            return Err(ApiError::bad(format!("{name} is required")));
        }
        Ok(text)
    }

    /// A whole number; 0 when absent.
    pub fn int(&self, name: &str) -> Result<i64, ApiError> {
        match self {
            Fields::Form(pairs) => match find_pair(pairs, name) {
                None | Some("") => Ok(0),
                Some(text) => parse_int(name, text),
            },
            Fields::Json(map) => match find_value(map, name) {
                None | Some(Value::Null) => Ok(0),
                Some(value) => value.as_i64().ok_or_else(|| wrong_kind(name, "a whole number", value)),
            },
        }
    }

    /// A whole number as by [`Fields::int`], but not 0, which the original's "required" refuses.
    pub fn required_int(&self, name: &str) -> Result<i64, ApiError> {
        match self.int(name)? {
            0 => Err(ApiError::bad(format!("{name} is required, and must not be 0"))),
            value => Ok(value),
        }
    }

    /// A finite number; 0 when absent.
    pub fn float(&self, name: &str) -> Result<f64, ApiError> {
        let number: Option<f64> = match self {
            Fields::Form(pairs) => match find_pair(pairs, name) {
                None | Some("") => Some(0.0),
                Some(text) => text.trim().parse().ok(),
            },
            Fields::Json(map) => match find_value(map, name) {
                None | Some(Value::Null) => Some(0.0),
                Some(value) => Some(value.as_f64().ok_or_else(|| wrong_kind(name, "a number", value))?),
            },
        };
        let number = number.filter(|number| number.is_finite());
        number.ok_or_else(|| ApiError::bad(format!("{name} must be a number")))
    }

    /// A flag, as 0 or 1, or as false or true; 0 when absent.
    pub fn flag(&self, name: &str) -> Result<i64, ApiError> {
        match self {
            Fields::Form(pairs) if find_pair(pairs, name) == Some("true") => return Ok(1),
            Fields::Form(pairs) if find_pair(pairs, name) == Some("false") => return Ok(0),
            Fields::Json(map) if let Some(Value::Bool(is_set)) = find_value(map, name) => return Ok((*is_set).into()),
            _ => {}
        }
        match self.int(name)? {
            value @ (0 | 1) => Ok(value),
            other => Err(ApiError::bad(format!("{name} must be 0 or 1, got {other}"))),
        }
    }

    /// A list of texts, none of them empty; a form repeats the name. None when absent.
    pub fn texts(&self, name: &str, max: usize) -> Result<Option<Vec<String>>, ApiError> {
        let texts = match self {
            Fields::Form(pairs) => collect_pairs(pairs, name).map(|texts| texts.map(str::to_string).collect()),
            Fields::Json(map) => list(map, name, "texts", |value| value.as_str().map(str::to_string))?,
        };
        check_list(name, texts.as_deref().unwrap_or_default())?;
        for (index, text) in texts.iter().flatten().enumerate() {
            if text.is_empty() {
                return Err(ApiError::bad(format!("{name}[{index}] is empty")));
            }
            check_zero(&format!("{name}[{index}]"), text)?;
            check_length(&format!("{name}[{index}]"), text, max)?;
        }
        Ok(texts)
    }

    /// A list of whole numbers; a form repeats the name. None when absent.
    pub fn ints(&self, name: &str) -> Result<Option<Vec<i64>>, ApiError> {
        let ints: Option<Vec<i64>> = match self {
            Fields::Form(pairs) => {
                collect_pairs(pairs, name).map(|texts| texts.map(|text| parse_int(name, text)).collect()).transpose()?
            }
            Fields::Json(map) => list(map, name, "whole numbers", Value::as_i64)?,
        };
        check_list(name, ints.as_deref().unwrap_or_default())?;
        Ok(ints)
    }

    /// An object inside a JSON body; empty when absent, so that the missing field inside it is the one reported.
    pub fn object(&self, name: &str) -> Result<Fields, ApiError> {
        match self {
            Fields::Form(_) => Ok(Fields::Json(Map::new())),
            Fields::Json(map) => match find_value(map, name) {
                None | Some(Value::Null) => Ok(Fields::Json(Map::new())),
                Some(Value::Object(inner)) => Ok(Fields::Json(inner.clone())),
                Some(other) => Err(wrong_kind(name, "an object", other)),
            },
        }
    }

    /// Names of all fields.
    pub fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Fields::Json(object) => Box::new(object.keys().map(String::as_str)),
            Fields::Form(pairs) => Box::new(pairs.iter().map(|(name, _)| name.as_str())),
        }
    }

    /// True when the field is there at all, whatever its value.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Fields::Form(pairs) => find_pair(pairs, name).is_some(),
            Fields::Json(map) => find_value(map, name).is_some_and(|value| !value.is_null()),
        }
    }
}

/// Parses a number that came as text: in the path, the query or a form.
pub fn parse_int(name: &str, text: &str) -> Result<i64, ApiError> {
    text.parse().map_err(|_| ApiError::bad(format!("{name} must be a whole number, got {:?}", cut(text))))
}

/// Refuses a text of more than `max` characters.
pub fn check_length(name: &str, text: &str, max: usize) -> Result<(), ApiError> {
    // Bytes first: they are known, and a text with few bytes has few characters.
    if text.len() > max && text.chars().count() > max {
        return Err(ApiError::bad(format!("{name} is longer than {max} characters")));
    }
    Ok(())
}

/// Refuses a zero byte: no text needs one, and whoever reads the tables in C ends there.
fn check_zero(name: &str, text: &str) -> Result<(), ApiError> {
    if text.contains('\0') {
        return Err(ApiError::bad(format!("{name} has a zero byte (U+0000): take it out")));
    }
    Ok(())
}

fn check_list<T>(name: &str, list: &[T]) -> Result<(), ApiError> {
    if list.len() > LIST_MAX {
        return Err(ApiError::bad(format!(
            "{name} has {} elements, more than {LIST_MAX}: send it in parts",
            list.len()
        )));
    }
    Ok(())
}

/// `a=1&b=x%20y` → pairs. Bytes that are not valid UTF-8 become U+FFFD; a `%` that begins no escape stays as it is.
pub fn parse_form(text: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(text).into_owned().collect()
}

fn says_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn looks_like_json(body: &[u8]) -> bool {
    matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// Reads the body, which stays in the byte budget until it is dropped. Boxed, as most handlers wait for it: see
/// [`crate::portal::db::Running`].
pub fn read(parts: &Parts, body: Body) -> Pin<Box<dyn Future<Output = Result<Received, ApiError>> + Send + '_>> {
    Box::pin(read_within(parts, body))
}

async fn read_within(parts: &Parts, body: Body) -> Result<Received, ApiError> {
    let max = match &parts.extensions {
        small if small.get::<SmallBodies>().is_some() => SMALL_BODY_MAX,
        large if large.get::<LargeBodies>().is_some() => LARGE_BODY_MAX,
        _ => BODY_MAX,
    };
    let peer = parts.extensions.get::<Peer>().cloned().unwrap_or_default();
    read_body(&peer, body, max, BODY_TIMEOUT).await.map_err(|error| match error {
        BodyError::TooLong => too_large(max),
        error => ApiError::new(error.status(), error.text()),
    })
}

fn too_large(max: usize) -> ApiError {
    ApiError::new(BodyError::TooLong.status(), format!("the body is longer than {max} bytes: send it in parts"))
}

fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    if body.trim_ascii().is_empty() {
        return Err(ApiError::bad("the body is empty: send JSON"));
    }
    serde_json::from_slice(body).map_err(|error| ApiError::bad(format!("the body is not the JSON wanted: {error}")))
}

fn find_pair<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    note_asked(name);
    let exact = pairs.iter().find(|(key, _)| key == name);
    // Go's names of fields begin with a capital.
    let found = exact.or_else(|| pairs.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)));
    found.map(|(_, value)| value.as_str())
}

/// All values of a name or of the PHP-like `name[]`; None when there is no such pair.
fn collect_pairs<'a>(pairs: &'a [(String, String)], name: &'a str) -> Option<impl Iterator<Item = &'a str>> {
    note_asked(name);
    let is_name = move |key: &str| key.strip_suffix("[]").unwrap_or(key).eq_ignore_ascii_case(name);
    let mut values = pairs.iter().filter(move |(key, _)| is_name(key)).map(|(_, value)| value.as_str()).peekable();
    values.peek()?;
    Some(values)
}

/// The value of a key: first of the exact key, then of one that matches without case, as Go's decoder does.
fn find_value<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    note_asked(name);
    map.get(name).or_else(|| map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value))
}

/// Notes that a handler asked for a field, for the test that compares this with what users are told.
fn note_asked(name: &str) {
    #[cfg(test)]
    ASKED.with_borrow_mut(|asked| asked.insert(name.to_string()));
    #[cfg(not(test))]
    let _ = name;
}

#[cfg(test)]
thread_local! {
    static ASKED: std::cell::RefCell<std::collections::BTreeSet<String>> = std::cell::RefCell::default();
}

/// The fields that handlers on this thread asked for since the last call.
#[cfg(test)]
pub fn take_asked() -> std::collections::BTreeSet<String> {
    ASKED.take()
}

fn list<T>(
    map: &Map<String, Value>,
    name: &str,
    kind: &str,
    convert: impl Fn(&Value) -> Option<T>,
) -> Result<Option<Vec<T>>, ApiError> {
    match find_value(map, name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(values)) => {
            let convert = |value| convert(value).ok_or_else(|| wrong_kind(name, &format!("a list of {kind}"), value));
            values.iter().map(convert).collect::<Result<_, _>>().map(Some)
        }
        Some(other) => Err(wrong_kind(name, &format!("a list of {kind}"), other)),
    }
}

fn wrong_kind(name: &str, want: &str, got: &Value) -> ApiError {
    ApiError::bad(format!("{name} must be {want}, got {}", cut(&got.to_string())))
}

/// The beginning of a text, for error messages.
fn cut(text: &str) -> &str {
    const SHOWN: usize = 60; // enough to recognise it
    text.char_indices().nth(SHOWN).map_or(text, |(at, _)| &text[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fields(method: &str, uri: &str, content_type: &str, body: &str) -> Result<Fields, ApiError> {
        let request = Request::builder().method(method).uri(uri).header(header::CONTENT_TYPE, content_type);
        let request = request.body(Body::from(body.to_string())).expect("a valid request");
        Fields::from_request(request, &()).await
    }

    fn error<T: std::fmt::Debug>(result: Result<T, ApiError>) -> String {
        format!("{:?}", result.expect_err("must be refused"))
    }

    #[tokio::test]
    async fn fields_come_from_json_form_and_query() {
        let json = fields("POST", "/?name=q", "application/json; charset=utf-8", r#"{"Name":"a","n":5,"l":["x"]}"#);
        let json = json.await.expect("valid");
        assert_eq!(json.text("name", 9).expect("text"), "a");
        assert_eq!(json.int("n").expect("int"), 5);
        assert_eq!(json.int("absent").expect("int"), 0);
        assert_eq!(json.texts("l", 9).expect("list"), Some(vec!["x".to_string()]));
        let form = fields("POST", "/?q=%5Ea", "application/x-www-form-urlencoded", "name=a+b%21%zz&l=1&l=2");
        let form = form.await.expect("valid");
        assert_eq!(form.text("name", 9).expect("text"), "a b!%zz");
        assert_eq!(form.text("q", 9).expect("text"), "^a");
        assert_eq!(form.ints("l").expect("list"), Some(vec![1, 2]));
        let curl = fields("POST", "/", "application/x-www-form-urlencoded", r#" {"name":"a"}"#).await.expect("valid");
        assert_eq!(curl.text("name", 9).expect("text"), "a");
        let get = fields("GET", "/?name=a&name=b", "application/json", "").await.expect("valid");
        assert_eq!(get.text("name", 9).expect("text"), "a");
    }

    #[tokio::test]
    async fn errors_name_the_field() {
        let body = r#"{"n":"5","f":1.5,"t":7,"long":"äöü","flag":2,"l":[1,"x"],"e":[""],"o":3,"z":"a\u0000","y":["a","\u0000"],
                       "big":9223372036854775808}"#;
        let json = fields("POST", "/", "application/json", body).await.expect("valid");
        assert!(error(json.int("n")).contains("n must be a whole number, got \\\"5\\\""));
        assert!(error(json.int("f")).contains("f must be a whole number"));
        assert!(error(json.text("t", 9)).contains("t must be a text, got 7"));
        assert!(error(json.text("long", 2)).contains("long is longer than 2 characters"));
        assert!(json.text("long", 3).is_ok(), "characters are counted, not bytes");
        assert!(error(json.required_text("none", 9)).contains("none is required"));
        assert!(error(json.required_int("none")).contains("none is required"));
        assert!(error(json.flag("flag")).contains("flag must be 0 or 1, got 2"));
        for (text, is_set) in [("1", 1), ("0", 0), ("true", 1), ("false", 0)] {
            let in_json: Map<String, Value> = serde_json::from_str(&format!("{{\"f\":{text}}}")).expect("JSON");
            let in_form = Fields::Form(parse_form(format!("f={text}").as_bytes()));
            assert_eq!([Fields::Json(in_json), in_form].map(|fields| fields.flag("f").expect(text)), [is_set; 2]);
        }
        assert!(error(json.ints("l")).contains("l must be a list of whole numbers"));
        assert!(error(json.texts("e", 9)).contains("e[0] is empty"));
        assert!(error(json.object("o")).contains("o must be an object"));
        assert!(error(json.text("z", 9)).contains("z has a zero byte (U+0000): take it out"));
        assert!(error(json.texts("y", 9)).contains("y[1] has a zero byte (U+0000): take it out"));
        assert!(error(json.int("big")).contains("big must be a whole number, got 9223372036854775808"));
    }

    #[tokio::test]
    async fn bodies_that_are_no_fields() {
        let check = async |body: &str, part: &str| {
            let text = error(fields("POST", "/", "application/json", body).await);
            assert!(text.contains(part), "{text}");
        };
        check("", "empty").await;
        check("{", "not the JSON wanted").await;
        check("[1]", "not the JSON wanted").await;
        check(r#"{"a":"\ud800"}"#, "not the JSON wanted").await;
        check(r#"{"a":"\udc00b"}"#, "not the JSON wanted").await;
        check(&format!("{{\"a\":{}", "[".repeat(100_000)), "recursion").await;
        check(&"x".repeat(BODY_MAX + 1), "longer than").await;
    }

    #[tokio::test]
    async fn bodies_are_bounded_also_when_their_length_is_unknown() {
        let ask = async |length: usize, declared: bool, small: bool| {
            let body = format!("{{\"a\":\"{}\"}}", "x".repeat(length - 8));
            let mut request = Request::builder().method("POST");
            if declared {
                request = request.header(header::CONTENT_LENGTH, length);
            }
            if small {
                request = request.extension(SmallBodies);
            }
            let request = request.body(Body::from(body)).expect("a valid request");
            Fields::from_request(request, &()).await.is_ok()
        };
        for declared in [true, false] {
            assert!(ask(BODY_MAX, declared, false).await);
            assert!(!ask(BODY_MAX + 1, declared, false).await);
            assert!(ask(SMALL_BODY_MAX, declared, true).await);
            assert!(!ask(SMALL_BODY_MAX + 1, declared, true).await);
        }
    }
}
