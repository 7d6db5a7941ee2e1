//! Tests of whole runs, over real sockets: a module per kind, and what is true of all.

mod dns;
mod grpc;
mod http;
mod icmp;
mod real;
mod script;
mod tcp;
mod tls;
pub(crate) mod world;

use crate::{Code, Policy};
use serde_json::json;
use world::{definition, down, is_down, silent, under};

#[tokio::test]
async fn a_definition_that_cannot_work_is_down_and_says_why() {
    let outcome = down("tcp", "nowhere", json!({"step": 1}), Code::Definition, "step is 1 s: give").await;
    assert!(outcome.reason.expect("a reason").text.contains("target: \"nowhere\" has no port: give HOST:PORT"));
    assert_eq!(outcome.readings.len(), 1);
}

/// A server's policy keeps every kind from loopback, by address and by name.
#[tokio::test]
async fn denied_targets_are_denied_to_every_kind() {
    let port = silent().await.port();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0"] {
        let place = format!("{host}:{port}");
        let checks = [
            ("http", format!("http://{place}/"), json!({})),
            ("tcp", place.clone(), json!({})),
            ("tls", place.clone(), json!({})),
            ("icmp", host.to_string(), json!({})),
            ("dns", place.clone(), json!({"query": "a.example"})),
            ("dns", place.clone(), json!({"query": "a.example", "transport": "tcp"})),
            ("grpc", place.clone(), json!({})),
        ];
        for (kind, target, more) in checks {
            let outcome = under(&Policy::server(), kind, target, more).await;
            is_down(&outcome, Code::Denied, "which the policy of this prober denies");
        }
    }
    let outcome = under(&Policy::server(), "script", "/bin/true", json!({})).await;
    is_down(&outcome, Code::Denied, "no folder of scripts");
}

/// What a run began ends with it, also where the other side only keeps the connection.
#[tokio::test]
async fn a_run_leaves_no_task_behind() {
    // Connections wait here until nobody takes them.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let more = [
        ("http", json!({"timeout_ms": 300})),
        ("http", json!({"timeout_ms": 300, "protocol": "2", "method": "POST", "body": "x".repeat(60_000)})),
        ("grpc", json!({"timeout_ms": 300})),
    ];
    for (kind, more) in more {
        let target = if kind == "http" { format!("http://{address}/") } else { address.to_string() };
        down(kind, target, more, Code::Timeout, "no answer from").await;
        net::patience::until("the end of all tasks", async || tasks() == 0).await;
    }
}

/// Each failure has a row in the documents, and each row is one of ours.
#[test]
fn reasons_are_documented() {
    let document = include_str!("../../../docs/probes.md");
    let section = document.split("## Reasons").nth(1).expect("a section").split("\n## ").next().expect("a text");
    let rows: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(rows, codes);
}

/// Definitions in the documents can work.
#[test]
fn examples_in_the_documents_are_definitions() {
    let document = include_str!("../../../docs/probes.md");
    let mut kinds = std::collections::BTreeSet::new();
    for example in document.split("```json\n").skip(1) {
        let text = example.split("```").next().expect("a text");
        let definition: crate::Definition =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(definition.check(), Vec::<String>::new(), "{text}");
        kinds.insert(definition.kind.as_str());
    }
    let all = ["dns", "grpc", "http", "icmp", "script", "tcp", "tls"];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), all);
    assert_eq!(definition("icmp", "h", json!({})).check(), Vec::<String>::new());
}
