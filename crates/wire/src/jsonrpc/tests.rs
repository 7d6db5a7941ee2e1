use super::*;

#[track_caller]
fn check(message: &str, method: &str, id: &str, param: Result<&str, &'static str>) {
    let mut scratch = Scratch::new();
    let request = request(message.as_bytes(), &mut scratch).expect(message);
    assert_eq!(request.method, method, "of {message}");
    assert_eq!(String::from_utf8_lossy(request.id), id, "of {message}");
    let got = request.param.map(|param| String::from_utf8_lossy(param).into_owned());
    assert_eq!(got.as_deref(), param.ok(), "of {message}");
    assert_eq!(request.param_fault, param.err().unwrap_or(""), "of {message}");
}

#[test]
fn requests() {
    check(r#"{"method":"A.B","params":[{"x":1}],"id":0}"#, "A.B", "0", Ok(r#"{"x":1}"#));
    check(r#" { "id" : "x" , "params" : [ 1 , 2 ] , "method" : "A.B" } "#, "A.B", "\"x\"", Ok("1"));
    check(r#"{"METHOD":"A.B","Params":[[]],"Id":1.0,"more":{}}"#, "A.B", "1.0", Ok("[]"));
    check(r#"{"method":"\u0041.B","params":[null],"id":null}"#, "A.B", "null", Ok("null"));
    check(
        r#"{"method":"A.B","method":"C.D","method":null,"params":[],"id":{"a":[1]}}"#,
        "C.D",
        r#"{"a":[1]}"#,
        Ok("null"),
    );
}

/// The sender is told, and the connection goes on.
#[test]
fn requests_without_parameter() {
    check(r#"{"method":"A.B","id":1}"#, "A.B", "1", Err(NO_PARAMS));
    check(r#"{"method":"A.B","params":null,"id":1}"#, "A.B", "1", Err(NO_PARAMS));
    check(r#"{"method":"A.B","params":{"x":1},"id":1}"#, "A.B", "1", Err(NOT_AN_ARRAY));
    check(r#"{"method":"A.B","params":5,"id":1}"#, "A.B", "1", Err(NOT_AN_ARRAY));
    check("{}", "", "null", Err(NO_PARAMS));
}

#[test]
fn broken_requests() {
    for message in [
        "",
        "[]",
        "{\"method\":1}",
        "{\"method\":\"A.B\",}",
        "{\"params\":[1,tru]}",
        "{\"params\":[{]}",
        "{} x",
        "{\"id\":01}",
    ] {
        let mut scratch = Scratch::new();
        assert!(request(message.as_bytes(), &mut scratch).is_err(), "{message}");
    }
}

#[test]
fn unknown_methods() {
    let check = |method: &str, text: &str| assert_eq!(unknown_method(&["Agent", "Hbs"], method), text);
    check("X.Y", "rpc: can't find service X.Y");
    check("X", "rpc: service/method request ill-formed: X");
    check("Hbs.Nope", "rpc: can't find method Hbs.Nope");
    check("Hbs.X.Nope", "rpc: can't find service Hbs.X.Nope");
}

/// Texts as recorded from Go.
#[test]
fn exact_texts() {
    let written = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("UTF-8")
    };
    let text = written(&|out| write_result(out, b"1", b"{\"code\":0}"));
    assert_eq!(text, "{\"id\":1,\"result\":{\"code\":0},\"error\":null}\n");
    let text = written(&|out| write_error(out, b"\"x\"", "can't <\"find\">"));
    assert_eq!(text, "{\"id\":\"x\",\"result\":null,\"error\":\"can't \\u003c\\\"find\\\"\\u003e\"}\n");
    let text = written(&|out| write_request(out, "Agent.TrustableIps", 3, b"{}"));
    assert_eq!(text, "{\"method\":\"Agent.TrustableIps\",\"params\":[{}],\"id\":3}\n");
}

#[test]
fn responses() {
    let read = |text: &'static str| response(text.as_bytes(), &mut Scratch::new());
    let ok = Response { id: Some(7), result: b"{\"code\":0}".as_slice(), error: None };
    assert_eq!(read(r#"{"id":7,"result":{"code":0},"error":null}"#), Ok(ok));
    let failed = Response { id: Some(0), result: b"null".as_slice(), error: Some("no <such>".to_string()) };
    assert_eq!(read(r#"{"error":"no \u003csuch\u003e","ID":0}"#), Ok(failed));
    let odd = Response { id: Some(0), result: b"null".as_slice(), error: Some("{\"a\":1}".to_string()) };
    assert_eq!(read(r#"{"error":{"a":1},"id":0,"result":null}"#), Ok(odd));
    let none = Response { id: None, result: b"null".as_slice(), error: Some("not a call".to_string()) };
    assert_eq!(read(r#"{"id":null,"result":null,"error":"not a call"}"#), Ok(none));
    assert!(read(r#"{"id":null,"result":1}"#).is_err());
    assert!(read(r#"{"id":-1,"result":1}"#).is_err());
    assert!(read(r#"{"id":1,"result":}"#).is_err());
}
