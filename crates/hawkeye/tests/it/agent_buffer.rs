//! The agent and a server that is killed: what waits for the server, over kills of both, arrives once. Batches are
//! compressed, and so are what the server is asked by others.

use crate::harness::{Server, free_ports, gauge, this_minute, until};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Series that are pushed, a point of each at once.
const SERIES: usize = 300;

struct Agent {
    child: Child,
    port: u16,
}

impl Agent {
    /// An agent that reports what is pushed, and the host that it is called, once a day.
    fn start(dir: &Path, server: &Server, hostname: &str) -> Agent {
        let port = free_ports()[0];
        let text = format!(
            "hostname = {hostname:?}\ntransfer_addrs = [\"127.0.0.1:{}\"]\nhbs_addr = \"\"\ninterval = \"24h\"\n\
             compress = true\nbuffer_dir = {:?}\n[listen]\nagent_http = \"127.0.0.1:{port}\"\n",
            server.port("transfer_rpc"),
            dir.join("buffer")
        );
        let config = dir.join("agent.toml");
        std::fs::write(&config, text).expect("room");
        let mut command = Command::new(env!("CARGO_BIN_EXE_hawkeye"));
        let child = command.args(["agent", "--config"]).arg(config).stderr(Stdio::null()).spawn();
        let agent = Agent { child: child.expect("the binary starts"), port };
        until("the agent's door", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        agent
    }

    fn http(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the agent listens");
        let head = format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.split_once("\r\n\r\n").expect("a body").1.to_string()
    }

    fn push(&self, time: i64) {
        let items: Vec<Value> = (0..SERIES).map(|i| gauge("pushed", &format!("m{i}"), 1.0, time)).collect();
        assert_eq!(self.http("POST", "/v1/push", &json!(items).to_string()), "success");
    }

    fn metric(&self, name: &str) -> usize {
        let page = self.http("GET", "/metrics", "");
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {page}"))
    }

    fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Already gone after `kill`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_killed_server_misses_nothing_and_gets_nothing_twice_also_where_the_agent_is_killed_meanwhile() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut server = Server::start("");
    let first = this_minute() - 600;
    let agent = Agent::start(dir.path(), &server, "agent-1");
    agent.push(first);
    // The host's own report goes, too; nothing is under way when all of it is answered.
    until("an answer to all", || {
        agent.metric("hawkeye_agent_items_sent_total") > SERIES && agent.metric("hawkeye_agent_buffer_items") == 0
    });
    assert!(server.metric("hawkeye_transfer_compressed_batches_total") > 0.0);
    server.kill();
    (1..4).for_each(|minute| agent.push(first + 60 * minute));
    until("points on the disk", || agent.metric("hawkeye_agent_buffer_disk_items") >= 3 * SERIES);
    agent.kill();
    let agent = Agent::start(dir.path(), &server, "agent-2");
    agent.push(first + 240);
    until("points on the disk", || agent.metric("hawkeye_agent_buffer_disk_items") >= 4 * SERIES);
    server.restart();
    agent.push(first + 300);
    until("an empty buffer", || {
        let waiting = ["hawkeye_agent_buffer_items", "hawkeye_agent_buffer_disk_items"].map(|name| agent.metric(name));
        waiting == [0, 0]
    });
    let api = server.admin();
    for series in [0, SERIES / 2, SERIES - 1] {
        let points = api.history("pushed", &format!("m{series}"), first, first + 300);
        let expected: Vec<(i64, f64)> = (0..6).map(|minute| (first + 60 * minute, 1.0)).collect();
        assert_eq!(points, expected, "m{series}");
    }
    assert_eq!(server.metric("hawkeye_points_duplicate_total"), 0.0);
}

#[test]
fn a_compressed_batch_is_answered_as_any_other_and_a_bomb_is_refused() {
    let server = Server::start("");
    let minute = this_minute();
    let call = |param: Value| server.call("transfer_rpc", wire::packed::METHOD, param);
    let pack = |array: &str| {
        let mut param = Vec::new();
        assert!(wire::packed::write_packed(&mut param, array.as_bytes()));
        serde_json::from_slice::<Value>(&param).expect("JSON")
    };
    let items: Vec<Value> = (0..100).map(|i| gauge("packed", &format!("m{i}"), 1.0, minute)).collect();
    let mut with_bad = items.clone();
    with_bad.push(json!({"metric": "bad"}));
    let answer = call(pack(&json!(with_bad).to_string()));
    assert_eq!((&answer["result"]["Total"], &answer["result"]["Invalid"]), (&json!(101), &json!(1)), "{answer}");
    let refused = |param: Value, part: &str| {
        let answer = call(param);
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(error.contains(part), "{answer}");
    };
    let broken = format!("{}x", json!(items));
    refused(pack(&broken), "JSON");
    // 100,000 blanks, in 121 bytes.
    let bomb = "eNrtwTEBAAAAwqAq65/SGh5AAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAK8GHgnW0Q==";
    refused(json!({"zlib": bomb}), "Transfer.Update");
    refused(json!({"zlib": "?"}), "base64");
    refused(json!([]), "JSON");
    assert_eq!(server.metric("hawkeye_transfer_compressed_refused_total{reason=\"too_dense\"}"), 1.0);
    assert_eq!(server.metric("hawkeye_transfer_compressed_refused_total"), 3.0);
    assert_eq!(server.metric("hawkeye_transfer_compressed_batches_total"), 2.0);
}
