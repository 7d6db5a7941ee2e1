//! Real servers: nginx, dnsmasq, a mail server and a Nagios plugin, which tests/services/probes.sh starts.

use super::world::*;
use crate::{Code, Policy, Scripts};
use serde_json::{Value, json};
use std::path::Path;

/// Value of a variable that the script sets.
fn variable(name: &str) -> String {
    std::env::var(format!("TEST_PROBE_{name}")).unwrap_or_else(|_| panic!("run tests/services/probes.sh: no {name}"))
}

#[tokio::test]
#[ignore = "needs the servers of tests/services/probes.sh"]
async fn real_servers_are_seen_as_they_are() {
    web().await;
    certificates().await;
    names().await;
    let talk = json!([{"expect": "^220 "}, {"send": "EHLO probe\r\n", "expect": "^250 "}, {"send": "QUIT\r\n"}]);
    let mail = format!("localhost:{}", variable("SMTP"));
    up("tcp", &mail, json!({"talk": talk})).await;
    let outcome = up("tls", &mail, json!({"starttls": "smtp", "tls": {"ca": ca()}})).await;
    assert!(value(&outcome, "probe.tls.days_left").is_some_and(|days| days > 0.0));
    plugin().await;
}

async fn web() {
    let plain = format!("http://localhost:{}", variable("PLAIN"));
    let healthy = json!({"json": {"path": "checks.0.state", "value": "ok"}});
    let outcome = up("http", format!("{plain}/health"), healthy).await;
    assert_eq!(value(&outcome, "probe.http.version"), Some(1.1));
    let wanted = json!({"headers": {"accept-encoding": "gzip"}, "body_match": {"pattern": "checks"}});
    down("http", format!("{plain}/health"), wanted, Code::Match, "the body has no").await;
    down("http", format!("{plain}/none"), json!({}), Code::Status, "status 404, want 200-299").await;
    down("http", format!("{plain}/broken"), json!({}), Code::Status, "status 503, want 200-299").await;
    down("http", format!("{plain}/circle"), json!({"redirects": 5}), Code::Redirects, "more than 5 times").await;
    let moved = json!({"redirects": 1, "tls": {"ca": ca()}, "body_match": {"pattern": "checks"}});
    let outcome = up("http", format!("{plain}/moved"), moved).await;
    assert_eq!(value(&outcome, "probe.http.version"), Some(2.0));
    assert!(value(&outcome, "probe.http.tls_ms").is_some_and(|ms| ms > 0.0));
    let secure = format!("https://localhost:{}/health", variable("TLS"));
    up("http", &secure, json!({"protocol": "1.1", "tls": {"ca": ca()}})).await;
    let plain_to_tls = format!("http://localhost:{}/", variable("TLS"));
    down("http", plain_to_tls, json!({"protocol": "1.1"}), Code::Status, "status 400").await;
}

async fn certificates() {
    let check = async |port: &str, tls: Value, code: Code, part: &str| {
        let place = format!("localhost:{}", variable(port));
        down("tls", &place, json!({"tls": tls}), code, part).await;
        down("http", format!("https://{place}/health"), json!({"tls": tls}), code, part).await;
    };
    check("EXPIRED", json!({"ca": ca()}), Code::CertificateExpired, " days ago").await;
    check("OTHER", json!({"ca": ca()}), Code::CertificateName, "for other.example, not for localhost").await;
    check("TLS", json!({"ca": ca(), "days_left_min": 10_000}), Code::CertificateSoon, "want 10000 days").await;
    check("PLAIN", json!({"ca": ca()}), Code::NoTls, "speaks no TLS").await;
}

async fn names() {
    let server = format!("127.0.0.1:{}", variable("DNS"));
    let check = async |query: &str, record: &str, records: Value| {
        for transport in ["udp", "tcp"] {
            let more = json!({"query": query, "record": record, "records": records, "transport": transport});
            up("dns", &server, more).await;
        }
    };
    check("shop.example", "A", json!(["10.0.0.1"])).await;
    check("shop.example", "AAAA", json!(["2001:db8::1"])).await;
    check("www.shop.example", "A", json!(["10.0.0.1"])).await;
    check("www.shop.example", "CNAME", json!(["shop.example"])).await;
    check("shop.example", "MX", json!(["10 mx.shop.example"])).await;
    check("shop.example", "TXT", json!(["v=spf1"])).await;
    down("dns", &server, json!({"query": "none.example"}), Code::Rcode, "NXDOMAIN, want NOERROR").await;
}

async fn plugin() {
    let program = variable("PLUGIN");
    let folder = Path::new(&program).parent().expect("a folder").to_path_buf();
    let policy = Policy { scripts: Scripts { dirs: vec![folder], user: None }, ..Policy::server() };
    for (state, code) in [("1", Code::ScriptWarning), ("2", Code::ScriptCritical), ("3", Code::ScriptUnknown)] {
        let outcome = under(&policy, "script", &program, json!({"args": [state, "as it was told"]})).await;
        is_down(&outcome, code, "as it was told");
    }
    let outcome = under(&policy, "script", &program, json!({"args": ["0", "fine"]})).await;
    assert!(outcome.up && outcome.reason.is_some_and(|reason| reason.text == "OK: fine"));
}
