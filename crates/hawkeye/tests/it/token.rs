//! The token of the ports that points come by: each protocol with it, without it, and with another.

use crate::harness::{Server, find, gauge, lines_of, output, read_line, this_minute, until};
use serde_json::{Value, json};
use std::io::{BufReader, Read, Write};
use std::process::{Command, Stdio};
use wire::gob::client::{Replies, Requests};

const TOKEN: &str = "0123456789abcdef";

fn start() -> Server {
    Server::start(&format!("[ingest]\ntoken = {TOKEN:?}\n"))
}

/// Calls over one connection; the answers as far as there are any before it is closed.
fn calls(server: &Server, listener: &str, calls: &[(&str, Value)]) -> Vec<Value> {
    let mut stream = BufReader::new(server.connect(listener));
    let mut answers = Vec::new();
    for (method, param) in calls {
        let request = json!({"method": method, "params": [param], "id": 1}).to_string();
        if stream.get_mut().write_all(request.as_bytes()).is_err() {
            break;
        }
        answers.push(read_line(&mut stream));
    }
    answers
}

fn show(token: &str) -> (&'static str, Value) {
    ("Hawkeye.Auth", json!({ "token": token }))
}

#[test]
fn json_rpc_is_heard_behind_the_token() {
    let server = start();
    let update = ("Transfer.Update", json!([gauge("token-host", "rpc", 1.0, this_minute())]));
    let heard = calls(&server, "transfer_rpc", &[update.clone(), show(TOKEN), update.clone()]);
    assert!(heard[0]["error"].as_str().is_some_and(|text| text.contains("call Hawkeye.Auth")), "{heard:?}");
    assert_eq!(heard[1]["result"], json!({"code": 0}));
    assert_eq!(heard[2]["result"]["Total"], 1);
    let ping = ("Agent.MinePlugins", json!({"Hostname": "token-host"}));
    assert_ne!(calls(&server, "hbs_rpc", std::slice::from_ref(&ping))[0]["error"], Value::Null);
    assert_eq!(calls(&server, "hbs_rpc", &[show(TOKEN), ping])[1]["error"], Value::Null);
    let wrong = show("0123456789abcdeF");
    let refused = calls(&server, "transfer_rpc", &[wrong.clone(), wrong.clone(), wrong]);
    assert!(refused.iter().all(|answer| answer["error"].as_str().is_some_and(|text| text.contains("not valid"))));
    until("a connection that was closed", || {
        server.metric("hawkeye_rpc_faults_total{listener=\"transfer_rpc\",reason=\"no_token\"}") == 1.0
    });
    assert_eq!(server.metric("hawkeye_auth_refused_total{listener=\"transfer_rpc\"}"), 4.0);
}

#[test]
fn pushes_lines_and_gob_are_heard_behind_the_token() {
    let server = start();
    let body = json!([gauge("token-host", "http", 2.0, this_minute())]).to_string();
    let push = |headers: &str| server.http("transfer_http", "POST", "/api/push", headers, &body);
    let (status, text) = push("");
    assert!(status == 401 && text.starts_with("{\"error\":") && text.contains("Authorization: Bearer TOKEN"), "{text}");
    assert_eq!(push("Authorization: Bearer wrong\r\n").0, 401);
    assert_eq!(push(&format!("Authorization: Bearer {TOKEN}\r\n")).0, 200);
    // The password of the user `u`.
    assert_eq!(push("Authorization: Basic dTowMTIzNDU2Nzg5YWJjZGVm\r\n").0, 200);
    assert_eq!(server.http("transfer_http", "GET", "/health", "", "").0, 200, "nothing is pushed by it");

    let say = |first: &str, metric: &str| {
        let mut stream = server.connect("transfer_telnet");
        // A connection that is closed early takes no more.
        let _ = write!(stream, "{first}update token-host {metric} {} 3.5 GAUGE 60\nquit\n", this_minute());
        let _ = stream.read_to_end(&mut Vec::new());
    };
    say(&format!("auth {TOKEN}\n"), "told");
    say("", "untold");
    say("auth 0123456789abcdeF\n", "wrong");
    let trace = |metric: &str| server.http("transfer_http", "GET", &format!("/trace/token-host/{metric}"), "", "").1;
    find("the line behind the token", || trace("told").contains("3.5").then_some(()));
    assert!(!trace("untold").contains("3.5") && !trace("wrong").contains("3.5"));

    let mut stream = server.connect("graph_rpc");
    let (mut requests, mut replies, mut input) = (Requests::new(), Replies::new(1 << 20), Vec::new());
    let mut call = |write: &dyn Fn(&mut Requests, &mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut requests, &mut out);
        stream.write_all(&out).expect("it reads");
        loop {
            if let Some((end, reply)) = replies.next(&input).expect("gob") {
                let error = reply.error.into_owned();
                input.drain(..end);
                return error;
            }
            let mut bytes = [0; 4096];
            let read = stream.read(&mut bytes).expect("an answer");
            assert!(read > 0, "the connection is open");
            input.extend_from_slice(&bytes[..read]);
        }
    };
    assert!(call(&|requests, out| requests.ping(out, "Graph.Ping", 0)).contains("call Hawkeye.Auth"));
    assert_eq!(call(&|requests, out| requests.text(out, "Hawkeye.Auth", 1, TOKEN)), "");
    assert_eq!(call(&|requests, out| requests.ping(out, "Graph.Ping", 2)), "");
}

#[test]
fn the_agent_and_loadgen_show_it() {
    let server = start();
    let target = format!("127.0.0.1:{}", server.port("transfer_rpc"));
    let load = |token: &[&str]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_hawkeye"));
        program.args(["loadgen", "--hosts", "2", "--metrics", "5", "--rounds", "2", "--target", &target]).args(token);
        output(&mut program)
    };
    assert!(load(&["--ingest-token", TOKEN]).status.success());
    let refused = load(&[]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Hawkeye.Auth"), "{refused:?}");

    let hbs = format!("127.0.0.1:{}", server.port("hbs_rpc"));
    let mut program = Command::new(env!("CARGO_BIN_EXE_hawkeye"));
    program.args(["agent", "--set", "interval=1s", "--set", "hostname=token-agent", "--set", "listen.agent_http="]);
    program.args(["--set", &format!("transfer_addrs=[{target:?}]"), "--set", &format!("hbs_addr={hbs}")]);
    program.args(["--set", &format!("token={TOKEN}")]).stdout(Stdio::piped());
    let mut agent = program.spawn().expect("it starts");
    let _said = lines_of(agent.stdout.take().expect("piped"));
    let trace = || server.http("transfer_http", "GET", "/trace/token-agent/agent.alive", "", "").1;
    until("a point of the agent", || trace().contains("token-agent"));
    agent.kill().expect("kill");
    agent.wait().expect("wait");
}

#[test]
fn a_file_may_hold_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).expect("room");
    let server = Server::start(&format!("[ingest]\ntoken_file = {file:?}\n"));
    assert_eq!(calls(&server, "transfer_rpc", &[show(TOKEN)])[0]["result"], json!({"code": 0}));
    // Another takes its place without a restart, and what is none does not.
    let other = "another-of-sixteen";
    std::fs::write(&file, other).expect("room");
    until("the new token", || calls(&server, "transfer_rpc", &[show(other)])[0]["result"] == json!({"code": 0}));
    assert_ne!(calls(&server, "transfer_rpc", &[show(TOKEN)])[0]["error"], Value::Null);
    std::fs::write(&file, "short\n").expect("room");
    let health = || server.http("admin", "GET", "/health", "", "").1;
    until("a reason", || health().contains("ingest.token_file is of no use; the token before it stays valid"));
    assert_eq!(calls(&server, "transfer_rpc", &[show(other)])[0]["result"], json!({"code": 0}));
    let config = dir.path().join("hawkeye.toml");
    std::fs::write(&config, format!("[ingest]\ntoken_file = {file:?}\n")).expect("room");
    let checked = output(Command::new(env!("CARGO_BIN_EXE_hawkeye")).arg("check").arg(&config));
    let text = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(
        text.contains("ingest.token_file: ") && text.contains("give at least 16") && !text.contains("short\n"),
        "{text}"
    );
}
