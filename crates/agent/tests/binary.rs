//! The slim binary as its users meet it: its command line, and what a wrong configuration gets.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hawkeye-agent"));
    command.args(arguments).env_remove("RUST_LOG").output().expect("the binary starts")
}

fn error_of(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

#[test]
fn says_its_version() {
    let output = run(&["--version"]);
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("hawkeye-agent {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_configuration_ends_it_with_one_line_that_names_the_key() {
    let check = |arguments: &[&str], part: &str| {
        let output = run(arguments);
        let error = error_of(&output);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.starts_with("hawkeye-agent: ") && error.contains(part), "{error}");
    };
    check(&["--set", "interval=0s"], "interval");
    check(&["--set", "colour=red"], "colour");
    check(&["--set", "colour"], "want KEY=VALUE");
    check(&["--config", "/nowhere/agent.toml"], "/nowhere/agent.toml");
}

/// `-c`, `-v` and `-check`, as old scripts call it.
#[test]
fn the_originals_flags_are_understood() {
    let output = run(&["-v"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("hawkeye-agent {}\n", env!("CARGO_PKG_VERSION")));
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("cfg.json");
    let text = r#"{"hostname": "h", "transfer": {"enabled": true, "addrs": ["127.0.0.1:1"], "interval": 60, "timeout": 1000}}"#;
    std::fs::write(&file, text).expect("room");
    let output = run(&["-c", file.to_str().expect("UTF-8"), "-check"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "no transfer answers: {said} {}", error_of(&output));
    for name in ["kernel   ... ok (4 values, ", "loadavg  ... ok (3 values, ", "transfer 127.0.0.1:1 ... fail: "] {
        assert!(said.contains(name), "{name}: {said}");
    }
}

/// Sends a request to an agent on this machine; answers the body. `connection: close` ends it.
fn ask(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_string())
}

#[test]
fn operators_update_plugins_and_end_it_over_http() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let base = dir.path().display();
    let script = format!(
        "unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE; git init -q -b main {base}/work; cd {base}/work; echo 1 > 60_a.sh; git add .; \
         git -c user.name=t -c user.email=t@t commit -qm one; git clone -q --bare . {base}/bare.git"
    );
    assert!(Command::new("sh").args(["-ec", &script]).status().expect("sh").success());
    let free = TcpListener::bind("127.0.0.1:0").expect("free port").local_addr().expect("bound").to_string();
    let file = dir.path().join("agent.toml");
    let text = format!(
        "hbs_addr = \"\"\n[listen]\nagent_http = {free:?}\n[plugin]\nenabled = true\ndir = \"{base}/plugin\"\n\
         git = \"{base}/bare.git\"\nlogs = \"{base}/logs\"\n"
    );
    std::fs::write(&file, &text).expect("room");
    let mut agent = Command::new(env!("CARGO_BIN_EXE_hawkeye-agent"))
        .arg("--config")
        .arg(&file)
        .env_remove("RUST_LOG")
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let deadline = Instant::now() + Duration::from_secs(60);
    while ask(&free, "/health").as_deref() != Some("ok") {
        assert!(Instant::now() < deadline && agent.try_wait().expect("own child").is_none(), "it does not answer");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(ask(&free, "/plugin/update").as_deref(), Some("success"), "cloned");
    assert_eq!(ask(&free, "/plugin/update").as_deref(), Some("success"), "pulled");
    assert_eq!(ask(&free, "/plugin/reset").as_deref(), Some("success"));
    assert_eq!(std::fs::read_to_string(dir.path().join("plugin/60_a.sh")).expect("cloned"), "1\n");
    assert_eq!(ask(&free, "/plugins").as_deref(), Some(r#"{"data":{},"msg":"success"}"#));
    std::fs::write(&file, text + "[default_tags]\nidc = \"bj\"\n").expect("room");
    let reloaded = ask(&free, "/config/reload").expect("an answer");
    assert!(
        reloaded.contains(r#""changed":["default_tags"]"#) && reloaded.contains(r#""needs_restart":[]"#),
        "{reloaded}"
    );
    assert_eq!(ask(&free, "/exit").as_deref(), Some("exiting..."));
    assert!(agent.wait().expect("own child").success());
}
