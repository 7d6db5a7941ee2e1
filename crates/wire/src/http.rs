//! HTTP where none is spoken: tells a request of a browser from a line of the protocols without one.
//!
//! Why: a page in the browser of a machine that may send can make the browser send lines of the page's choice to any
//! port, as the body of a request. The request's own lines come first, and give it away.

/// Methods that a page can have a browser send, or that other programs do.
const METHODS: [&[u8]; 10] =
    [b"GET", b"POST", b"HEAD", b"OPTIONS", b"PUT", b"PATCH", b"DELETE", b"CONNECT", b"TRACE", b"PRI"];

/// True for the first line of an HTTP request, or the beginning of one, and for the line `Host:`.
pub fn is_http(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    let has_method = METHODS.iter().any(|method| line.strip_prefix(*method).is_some_and(|rest| rest.starts_with(b" ")));
    let names_host = line.get(..5).is_some_and(|name| name.eq_ignore_ascii_case(b"host:"));
    has_method || names_host || line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_from_lines() {
        let check = |line: &str, expected: bool| assert_eq!(is_http(line.as_bytes()), expected, "{line:?}");
        check("GET / HTTP/1.1\r\n", true);
        check("POST /api/push HTTP/1.1", true);
        check("POST /a long path that has no end yet", true);
        check("update / HTTP/1.1\r", true);
        check("Host: 127.0.0.1:4444\r\n", true);
        check("hOsT:x", true);
        check("PRI * HTTP/2.0", true);
        check("update h m 1600000000 1.5", false);
        check("GETS h", false);
        check("quit\r\n", false);
        check("host h", false);
        check("{\"method\":\"Transfer.Update\"}", false);
        check("", false);
    }
}
