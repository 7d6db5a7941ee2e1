//! TLS of the real server: pages, messages and lines over it, a pair that changes under it, and starts without a pair.

use crate::harness::{PATIENCE, Server, command, find, gauge, now, output, until};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// A pair of `crates/net/testdata/tls`.
fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../net/testdata/tls").join(name)
}

fn put(from: &str, to: &Path) {
    std::fs::copy(recorded(from), to).expect("room");
}

/// The section that names the files of `dir`.
fn section(dir: &Path, listeners: &[&str]) -> String {
    let file = |name: &str| dir.join(name);
    format!("[tls]\ncert = {:?}\nkey = {:?}\nlisteners = {listeners:?}\n", file("cert.pem"), file("key.pem"))
}

/// A connection of a client that trusts one of the pairs; none where the handshake fails.
fn dial(server: &Server, listener: &str, trusted: &str) -> Option<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(recorded(trusted)).expect("PEM")).expect("a certificate");
    let client = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(Arc::new(client), name).expect("a client");
    let mut stream = server.connect(listener);
    stream.set_read_timeout(Some(PATIENCE)).expect("socket option");
    client.complete_io(&mut stream).ok()?;
    Some(StreamOwned::new(client, stream))
}

/// GET over TLS; answers status line and body.
fn get(server: &Server, listener: &str, path: &str) -> String {
    let mut stream = dial(server, listener, "one.crt").expect("a handshake");
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an announced end");
    answer
}

#[test]
fn everything_passes_over_tls() {
    let dir = tempfile::tempdir().expect("a directory");
    put("one.crt", &dir.path().join("cert.pem"));
    put("one.key", &dir.path().join("key.pem"));
    let server =
        Server::start(&section(dir.path(), &["api", "transfer_rpc", "transfer_http", "transfer_telnet", "hbs_rpc"]));
    let said = |part: &str| server.stdout.iter().any(|line| line.contains(part));
    assert!(said(&format!("the page is at https://127.0.0.1:{}/", server.port("api"))), "{:?}", server.stdout);
    assert!(said("over TLS (points)") && said("over TLS (hbs)"), "{:?}", server.stdout);
    assert!(get(&server, "api", "/health").ends_with("\r\n\r\nok\n"));

    let mut rpc = BufReader::new(dial(&server, "transfer_rpc", "one.crt").expect("a handshake"));
    for (id, value) in [(0, 1.5), (1, 2.5)] {
        let param = [gauge("tls-host", "m", value, now() / 60 * 60 - 60 + 60 * id)];
        let request = json!({"method": "Transfer.Update", "params": [param], "id": id});
        rpc.get_mut().write_all(request.to_string().as_bytes()).expect("it reads");
        let mut line = String::new();
        rpc.read_line(&mut line).expect("an answer");
        let answer: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!((&answer["id"], &answer["result"]["Total"]), (&json!(id), &json!(1)), "{answer}");
    }
    let mut telnet = dial(&server, "transfer_telnet", "one.crt").expect("a handshake");
    write!(telnet, "update tls-host t {} 3.5 GAUGE 60\nquit\n", now()).expect("it reads");
    // The end says that the lines are stored.
    let _ = telnet.read_to_end(&mut Vec::new());
    let trace = |metric: &str| get(&server, "transfer_http", &format!("/trace/tls-host/{metric}"));
    assert!(trace("m").contains("2.5") && trace("t").contains("3.5"), "{} {}", trace("m"), trace("t"));

    // Plain text is told so, and the other way round it is counted.
    let (status, text) = server.http("api", "GET", "/health", "", "");
    assert_eq!((status, text.as_str()), (400, "this port speaks TLS: ask with https://\n"));
    let answer = server.call("transfer_rpc", "Transfer.Ping", json!({}));
    assert_eq!(answer["error"], "this port speaks TLS");
    assert!(dial(&server, "admin", "one.crt").is_none());
    let refused = |listener: &str, reason: &str| {
        let name = format!("hawkeye_connections_refused_total{{listener=\"{listener}\",reason=\"{reason}\"}}");
        until(&name, || server.metric(&name) == 1.0);
    };
    refused("api", "plain_text");
    refused("transfer_rpc", "plain_text");
    refused("admin", "tls");
}

/// `hawkeye status` over TLS: by the certificate of the configuration, by `--ca`, and not by another.
#[test]
fn status_is_asked_over_tls() {
    let dir = tempfile::tempdir().expect("a directory");
    put("one.crt", &dir.path().join("cert.pem"));
    put("one.key", &dir.path().join("key.pem"));
    let server = Server::start(&section(dir.path(), &["admin", "api"]));
    let config = server.dir.path().join("hawkeye.toml");
    let ask = |arguments: &[&str]| {
        let output = output(Command::new(env!("CARGO_BIN_EXE_hawkeye")).arg("status").args(arguments));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let config = config.to_str().expect("a path");
    let (code, text) = ask(&["--config", config]);
    assert!(code == Some(0) && text.contains("roles      transfer"), "{text}");
    let (code, text) = ask(&["--config", config, "--set", "listen.admin=", "--set", "tls.listeners=[\"api\"]"]);
    assert!(code == Some(0) && text.contains(": ok\n"), "{text}");
    let address = format!("localhost:{}", server.port("admin"));
    let (one, two) = (recorded("one.crt"), recorded("two.crt"));
    let (code, text) = ask(&["--addr", &address, "--ca", one.to_str().expect("a path")]);
    assert!(code == Some(0) && text.contains("roles      transfer"), "{text}");
    let (code, text) = ask(&["--addr", &format!("https://{address}"), "--ca", two.to_str().expect("a path")]);
    assert!(code == Some(2) && text.contains("is --ca its certificate's?"), "{text}");
}

/// A gateway, an agent and a judge that ask over TLS, and what they say of a certificate that is another's.
#[test]
fn next_hops_agents_and_judges_speak_tls() {
    let dir = tempfile::tempdir().expect("a directory");
    put("one.crt", &dir.path().join("cert.pem"));
    put("one.key", &dir.path().join("key.pem"));
    let token = "0123456789abcdef";
    let more = format!("[ingest]\ntoken = {token:?}\n");
    let server = Server::start(&(section(dir.path(), &["transfer_rpc", "hbs_rpc"]) + &more));
    let place = |listener: &str| format!("tls://localhost:{}", server.port(listener));
    let trace =
        |host: &str, metric: &str| server.http("transfer_http", "GET", &format!("/trace/{host}/{metric}"), "", "").1;

    let gateway = |ca: &str| {
        let (next, ca) = (place("transfer_rpc"), recorded(ca));
        let top = format!("roles = [\"gateway\"]\n[tls]\nca = {ca:?}\n");
        Server::start(&format!("{top}[transfer.next]\naddrs = [{next:?}]\ntoken = {token:?}\n"))
    };
    let believing = gateway("one.crt");
    believing.update(json!([gauge("tls-far", "m", 4.5, now() / 60 * 60)]));
    until("the point", || trace("tls-far", "m").contains("4.5"));
    let doubting = gateway("two.crt");
    doubting.update(json!([gauge("tls-far", "n", 4.5, now() / 60 * 60)]));
    find("a reason", || {
        let (_, text) = doubting.http("admin", "GET", "/health", "", "");
        text.contains("neither it nor who signed it is in the file").then_some(())
    });

    let mut program = Command::new(env!("CARGO_BIN_EXE_hawkeye"));
    program.args(["agent", "--set", "interval=1s", "--set", "hostname=tls-agent", "--set", "listen.agent_http="]);
    program.args(["--set", &format!("transfer_addrs=[{:?}]", place("transfer_rpc"))]);
    program.args(["--set", &format!("hbs_addr={}", place("hbs_rpc")), "--set", &format!("token={token}")]);
    program.args(["--set", &format!("ca={}", recorded("one.crt").display())]);
    let mut agent = program.spawn().expect("it starts");
    until("a point of the agent", || trace("tls-agent", "agent.alive").contains("tls-agent"));
    agent.kill().expect("kill");
    agent.wait().expect("wait");

    let mut program = Command::new(env!("CARGO_BIN_EXE_hawkeye"));
    program.args(["server", "--roles", "judge", "--set", "listen.judge_rpc=127.0.0.1:0", "--set", "listen.admin="]);
    program.args(["--set", &format!("judge.hbs_addrs=[{:?}]", place("hbs_rpc"))]);
    program.args(["--set", &format!("judge.hbs_token={token}"), "--set", "judge.redis_url=127.0.0.1:1"]);
    program.args(["--set", &format!("tls.ca={}", recorded("one.crt").display()), "--data-dir"]).arg(dir.path());
    let mut judge = program.stderr(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(judge.stderr.take().expect("piped")).lines().map_while(Result::ok);
    // An answer of this hbs, which has no rules, and is not believed at once.
    assert!(lines.any(|line| line.contains("hbs has no strategies")), "the log ends with an answer");
    judge.kill().expect("kill");
    judge.wait().expect("wait");
}

#[test]
fn a_pair_changes_without_a_restart_and_a_broken_one_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    put("one.crt", &cert);
    put("one.key", &key);
    let server = Server::start(&section(dir.path(), &["api"]));
    let health = || server.http("admin", "GET", "/health", "", "");
    assert_eq!(health(), (200, "ok\n".to_string()));
    put("two.crt", &cert);
    put("two.key", &key);
    until("a handshake with the new pair", || dial(&server, "api", "two.crt").is_some());
    assert!(dial(&server, "api", "one.crt").is_none());

    for (from, why) in [("one.crt", "tls.key: "), ("one.key", "tls.cert: "), ("expired.crt", "has expired")] {
        put(from, &cert);
        if from == "expired.crt" {
            put("one.key", &key);
        }
        let text = find("a reason", || Some(health()).filter(|(_, text)| text.contains(why)));
        assert!(text.0 == 503 && text.1.contains("the certificate before them stays in use"), "{text:?}");
        assert!(text.1.contains("give "), "{text:?}");
        assert!(dial(&server, "api", "two.crt").is_some(), "the pair before it");
    }
    put("two.crt", &cert);
    put("two.key", &key);
    until("no reason", || health().0 == 200);
}

#[test]
fn an_expired_certificate_is_told_from_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    put("expired.crt", &dir.path().join("cert.pem"));
    put("one.key", &dir.path().join("key.pem"));
    let server = Server::start(&section(dir.path(), &["api"]));
    let (status, text) = server.http("admin", "GET", "/health", "", "");
    assert!(status == 503 && text.contains("the certificate of [tls] has expired: give tls.cert"), "{text}");
}

#[test]
fn a_pair_that_is_none_ends_the_start_and_the_check() {
    let dir = tempfile::tempdir().expect("a directory");
    put("one.crt", &dir.path().join("cert.pem"));
    let file = dir.path().join("hawkeye.toml");
    let refused_as = |text: &str, part: &str| {
        std::fs::write(&file, text).expect("configuration");
        for mut program in [command(dir.path()), Command::new(env!("CARGO_BIN_EXE_hawkeye"))] {
            let is_check = program.get_args().next().is_none();
            if is_check {
                program.arg("check").arg(&file);
            }
            let output = output(&mut program);
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && text.contains(part), "{text}");
        }
    };
    let refused = |part: &str| refused_as(&section(dir.path(), &["api"]), part);
    refused("tls.key: cannot read");
    put("two.key", &dir.path().join("key.pem"));
    refused("give the key that it was made for");
    put("one.key", &dir.path().join("key.pem"));
    for key in ["cert", "key", "ca"] {
        let pair = section(dir.path(), &["api"]);
        let other = dir.path().join(format!("{key}.pem"));
        let text = match key {
            "ca" => pair + "ca = \"/dev/null\"\n",
            _ => pair.replace(&format!("{other:?}"), "\"/dev/null\""),
        };
        refused_as(
            &text,
            &format!(
                "tls.{key}: cannot read /dev/null: give a PEM file that this user may read: it is no regular file"
            ),
        );
    }
    // Who asks nobody over TLS has no use for it, and says so all the same.
    refused_as("[tls]\nca = \"/dev/null\"\n", "tls.ca: cannot read /dev/null");
}
