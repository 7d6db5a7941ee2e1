//! Starts that cannot work end with one line that names the fix; a stop is orderly, or at once when it is asked for
//! twice.

use crate::harness::{Server, command, find, free_ports, output, until};
use sqlx::Connection;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

/// Runs a server that must fail, and answers what it printed as its error.
fn fails(dir: &std::path::Path, config: &str) -> String {
    fails_with(dir, config, &[])
}

fn fails_with(dir: &std::path::Path, config: &str, arguments: &[&str]) -> String {
    std::fs::write(dir.join("hawkeye.toml"), config).expect("configuration");
    let output = output(command(dir).args(arguments));
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("hawkeye: ")).collect();
    assert_eq!(lines.len(), 1, "one line, not {text:?}");
    assert_eq!(text.lines().last(), Some(lines[0]), "nothing follows it: {text:?}");
    lines[0].to_string()
}

/// Every listener on a port that the system chooses.
fn listeners() -> String {
    let mut text = "[listen]\n".to_string();
    for name in crate::harness::LISTENERS {
        text.push_str(&format!("{name} = \"127.0.0.1:0\"\n"));
    }
    text
}

#[test]
fn busy_port() {
    let server = Server::start("");
    let dir = tempfile::tempdir().expect("directory");
    let config = format!(
        "data_dir = {:?}\n{}",
        dir.path().join("data"),
        listeners().replace("api = \"127.0.0.1:0\"", &format!("api = \"127.0.0.1:{}\"", server.port("api")))
    );
    let error = fails(dir.path(), &config);
    assert!(error.contains("listen.api") && error.contains("another program has this port"), "{error}");
}

#[test]
fn second_server_on_the_same_directory() {
    let server = Server::start("");
    let dir = tempfile::tempdir().expect("directory");
    let error = fails(dir.path(), &format!("data_dir = {:?}\n{}", server.data_dir(), listeners()));
    assert!(error.contains("another server"), "{error}");
}

#[test]
fn data_directory_that_cannot_be_written() {
    let dir = tempfile::tempdir().expect("directory");
    // A file where the directory should be: the one obstacle that stops root as well.
    std::fs::write(dir.path().join("data"), "in the way").expect("file");
    let error = fails(dir.path(), &format!("data_dir = {:?}\n{}", dir.path().join("data"), listeners()));
    assert!(error.contains("data directory") && error.contains("data_dir"), "{error}");
}

#[test]
fn configuration_mistakes() {
    let dir = tempfile::tempdir().expect("directory");
    assert!(fails(dir.path(), "colour = 1").contains("colour"));
    // The other listeners are not on their usual ports, which a server of this machine may have.
    let nonsense = listeners().replace("api = \"127.0.0.1:0\"", "api = \"nonsense\"");
    assert!(fails(dir.path(), &nonsense).contains("listen.api"));
    assert!(fails(dir.path(), "not toml at all").contains("hawkeye.toml"));
}

#[test]
fn roles_that_do_not_run_together() {
    let dir = tempfile::tempdir().expect("directory");
    let error = fails_with(dir.path(), "", &["--roles", "graph"]);
    assert!(error.contains("listen.graph_rpc"), "{error}");
    let error = fails_with(dir.path(), "", &["--roles", "judge"]);
    assert!(error.contains("listen.judge_rpc"), "{error}");
    let error = fails_with(dir.path(), "", &["--roles", "graph,api"]);
    assert!(error.contains("give [\"graph\"], [\"judge\"]") && error.contains("all six"), "{error}");
    let graph = ["--roles", "graph", "--with-agent", "--set", "listen.graph_rpc=127.0.0.1:0"];
    let error = fails_with(dir.path(), "", &graph);
    assert!(error.contains("--with-agent"), "{error}");
}

/// The page shows nothing without a login; the link that a start prints is one, once.
#[test]
fn the_link_of_a_start_logs_in_once() {
    let mut server = Server::start("");
    let link = |server: &Server| {
        let line =
            server.stdout.iter().find_map(|line| line.split_once("/#login=").map(|(_, secret)| secret.to_string()));
        line.unwrap_or_else(|| panic!("no link in {:?}", server.stdout))
    };
    let first = link(&server);
    assert!(
        server.stdout.iter().any(|line| line.contains(&format!("http://127.0.0.1:{}/#login=", server.port("api"))))
    );
    assert_eq!(server.http("api", "GET", "/ui/overview", "", "").0, 401);
    let (status, session) = server.http("api", "POST", "/ui/enter", "", &first);
    assert_eq!(status, 200, "{session}");
    let token = format!("Apitoken: {session}\r\n");
    assert_eq!(server.http("api", "GET", "/ui/overview", &token, "").0, 200);
    assert_eq!(server.http("api", "GET", "/api/v1/user/current", &token, "").0, 200);
    assert_eq!(server.http("api", "POST", "/ui/enter", "", &first).0, 401, "once");
    server.stop();
    server.restart();
    let second = link(&server);
    assert_ne!(first, second);
    assert_eq!(server.http("api", "POST", "/ui/enter", "", &first).0, 401);
    assert_eq!(server.http("api", "POST", "/ui/enter", "", &second).0, 200);
    assert_eq!(server.http("api", "GET", "/ui/overview", &token, "").0, 200, "the session stays");
}

#[test]
fn password_file_is_private() {
    let server = Server::start("");
    let file = std::fs::metadata(server.data_dir().join("admin-password")).expect("admin-password");
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
}

/// Variables of other commands may stand in the environment of a server; a key that does not exist may not.
#[test]
fn variables_of_other_commands_are_no_keys() {
    let check = |name: &str| output(Command::new(env!("CARGO_BIN_EXE_hawkeye")).arg("check").env(name, "x"));
    for name in ["HAWKEYE_TOKEN", "HAWKEYE_PASSWORD", "HAWKEYE_AGENT__IP"] {
        let output = check(name);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let output = check("HAWKEYE_TOKENS");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("unknown field `tokens`"), "{text}");
}

/// All that is wrong with each file is said at once; files of agents are recognised.
#[test]
fn check_says_everything() {
    let dir = tempfile::tempdir().expect("directory");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let check = |arguments: &[&std::ffi::OsStr]| {
        let output = output(Command::new(env!("CARGO_BIN_EXE_hawkeye")).arg("check").args(arguments));
        let text = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
        text.lines().map(|line| line.replace(&format!("{}/", dir.path().display()), "")).collect::<Vec<String>>()
    };
    let server = file("hawkeye.toml", "roles = [\"graph\"]\n[listen]\ngraph_rpc = \"127.0.0.1:6070\"");
    let agent = file("agent.toml", "transfer_addrs = [\"10.0.0.1:8433\"]");
    let cfg = file("cfg.json", r#"{"transfer": {"enabled": true, "addrs": ["10.0.0.1:8433"]}}"#);
    let fine = check(&[server.as_ref(), agent.as_ref(), cfg.as_ref(), "--agent".as_ref(), cfg.as_ref()]);
    let whose = ["hawkeye.toml is fine, for a server", "agent.toml is fine, for an agent"];
    let of_cfg = "cfg.json is fine, for an agent";
    assert_eq!(fine, [whose[0], whose[1], of_cfg, of_cfg]);
    assert_eq!(check(&[]), ["the configuration is fine, for a server"]);

    let server = file(
        "hawkeye.toml",
        "[listen]\napi = \"127.0.0.1:99999\"\n[alarm]\nsms = \"gateway.local\"\ndashboard = \"nope\"",
    );
    let agent = file("agent.toml", "transfer_addrs = [\"10.0.0.1\"]\ninterval = \"soon\"");
    let cfg = file("cfg.json", r#"{"transfer": {"enabled": true, "addrs": ["10.0.0.1"], "interval": 0}}"#);
    let broken = file("broken.toml", "[listen\n");
    let broken_cfg = file("broken", "{\n \"hostname\": \"a\"\n \"ip\": 5}");
    let named_json = file("named.json", "a = 1");
    let files = [&server, &agent, &cfg, &broken, &broken_cfg, &named_json];
    let arguments: Vec<&std::ffi::OsStr> =
        std::iter::once("--config".as_ref()).chain(files.iter().map(|file| file.as_os_str())).collect();
    let lines = check(&arguments);
    let expected = [
        "hawkeye.toml: listen.api is",
        "hawkeye.toml: alarm.sms is no URL",
        "hawkeye.toml: alarm.dashboard is no URL",
        "agent.toml: interval: \"soon\" is not a duration",
        "agent.toml: transfer_addrs has \"10.0.0.1\"",
        "cfg.json: transfer.addrs has \"10.0.0.1\"",
        "cfg.json: transfer.interval is 0 s: give a number",
        "broken.toml: cannot parse broken.toml: line 1",
        "broken: cannot parse the cfg.json: expected `,` or `}` at line 3 column 2",
        "named.json: cannot parse the cfg.json: expected value at line 1 column 1",
        "hawkeye: 10 faults in all",
    ];
    assert!(
        lines.len() == expected.len() && lines.iter().zip(expected).all(|(line, part)| line.starts_with(part)),
        "{lines:#?}"
    );
}

/// Beside a server the agent has no file and no flags: the hint names the variable that it does read.
#[test]
fn a_busy_port_of_the_agent_beside_a_server_names_what_sets_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let dir = tempfile::tempdir().expect("directory");
    let config = format!("data_dir = {:?}\nlog = \"error\"\n{}", dir.path().join("data"), listeners());
    std::fs::write(dir.path().join("hawkeye.toml"), config).expect("configuration");
    let variable = "HAWKEYE_AGENT__LISTEN__AGENT_HTTP";
    let output = output(command(dir.path()).arg("--with-agent").env(variable, &address));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains(variable) && !text.contains("--set"), "{text}");
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    let mut server = Server::start("");
    // Half a message, for whose end the door waits some seconds.
    let mut stream = server.connect("transfer_rpc");
    stream.write_all(br#"{"method":"Transfer.Ping","#).expect("write");
    // Signals that come together are one; so they come until there is an end.
    let status = find("the end after a second signal", || {
        server.ask_to_stop();
        server.try_wait()
    });
    assert_eq!(status.code(), Some(130));
}

/// A reader of the log that went, and a full disk, are no reason to end: not while it runs, not when it stops.
#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let mut server = Server::start("log = \"debug\"\n");
    server.stop();
    let full = std::fs::File::options().write(true).open("/dev/full").expect("Linux");
    server.restart_with_log(full);
    assert_eq!(server.update(serde_json::json!([]))["Total"], 0);
    let mut stream = server.connect("transfer_rpc");
    stream.write_all(b"no JSON").expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer, though the log has no room for its line");
    assert!(answer.contains("error"), "{answer}");
    until("a reason where the log cannot say it", || {
        let (status, health) = server.http("admin", "GET", "/health", "", "");
        status == 503 && health.contains("lines of the log are lost: No space left on device")
    });
    assert!(server.stop().success());

    server.restart();
    server.stop();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    server.restart_with_log(std::fs::File::from(std::os::fd::OwnedFd::from(writer)));
    assert_eq!(server.update(serde_json::json!([]))["Total"], 0);
    assert!(server.stop().success());
}

/// A pipe that is full, and that nobody reads, holds nobody up.
#[test]
fn a_log_that_nobody_reads_is_not_waited_for() {
    use rustix::fs::{OFlags, fcntl_setfl};
    let mut server = Server::start("log = \"debug\"\n");
    server.stop();
    let (_reader, mut writer) = std::io::pipe().expect("a pipe");
    fcntl_setfl(&writer, OFlags::NONBLOCK).expect("a flag");
    while writer.write(&[b'x'; 512]).is_ok() {}
    fcntl_setfl(&writer, OFlags::empty()).expect("a flag");
    server.restart_with_log(std::fs::File::from(std::os::fd::OwnedFd::from(writer)));
    for _ in 0..2000 {
        let mut stream = server.connect("transfer_rpc");
        stream.write_all(b"no JSON").expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer, though its line cannot be written");
        assert!(answer.contains("error"), "{answer}");
    }
    let (status, health) = server.http("admin", "GET", "/health", "", "");
    assert_eq!(status, 503);
    assert!(health.contains("lines were left out: standard error is not read"), "{health}");
    assert!(server.stop().success());
}

/// The list of files forgets a file that is gone at the start that misses it; whoever runs the server does not.
#[test]
fn a_lost_file_is_told_at_each_start_until_somebody_has_taken_note() {
    let mut server = Server::start("");
    let point = serde_json::json!([{"endpoint": "h", "metric": "m", "value": 1, "step": 60, "counterType": "GAUGE",
        "tags": "", "timestamp": crate::harness::this_minute()}]);
    assert_eq!(server.update(point)["Invalid"], 0);
    let (name, store) = ("log/00000001.log", server.data_dir().join("store"));
    until("a list of files with the log", || {
        let list = std::fs::read(store.join("manifest")).unwrap_or_default();
        list.windows(name.len()).any(|window| window == name.as_bytes())
    });
    let health = |server: &Server| server.http("admin", "GET", "/health", "", "");
    assert_eq!(health(&server).0, 200);
    server.kill();
    std::fs::remove_file(store.join(name)).expect("the log");
    for _ in 0..2 {
        server.restart();
        let (status, text) = health(&server);
        assert!(status == 503 && text.contains("points of the store are lost") && text.contains(name), "{text}");
        server.kill();
    }
    server.restart();
    std::fs::remove_file(server.data_dir().join("losses")).expect("a note");
    until("a server that is well again", || health(&server).0 == 200);
}

/// After an orderly stop each byte of the log is known; what a kill tears of it is nothing to be told.
#[test]
fn a_log_that_was_cut_after_a_stop_is_told() {
    let mut server = Server::start("");
    let push = |server: &Server| {
        let point = serde_json::json!([{"endpoint": "h", "metric": "m", "value": 1, "step": 60, "counterType": "GAUGE",
            "tags": "", "timestamp": crate::harness::this_minute()}]);
        assert_eq!(server.update(point)["Invalid"], 0);
    };
    let path = server.data_dir().join("store/log/00000001.log");
    push(&server);
    assert!(server.stop().success());
    let log = std::fs::OpenOptions::new().write(true).open(&path).expect("the log");
    let len = log.metadata().expect("a file").len();
    log.set_len(len - 1).expect("room");
    server.restart();
    let (status, text) = server.http("admin", "GET", "/health", "", "");
    assert!(status == 503 && text.contains("points of the store are lost"), "{text}");
    assert!(text.contains("00000001.log at byte "), "{text}");
    std::fs::remove_file(server.data_dir().join("losses")).expect("a note");
    server.kill();
    server.restart();
    assert_eq!(server.http("admin", "GET", "/health", "", "").0, 200);
}

/// A start may take long; nothing is accepted before its end, so nobody has to wait for it.
#[test]
fn a_signal_ends_a_start_at_once() {
    let mut server = Server::start("");
    server.stop();
    let database = format!("sqlite://{}", server.data_dir().join("portal.db").display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _held = runtime.block_on(async {
        let mut connection = sqlx::SqliteConnection::connect(&database).await.expect("the portal's file");
        let hold = "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE";
        sqlx::raw_sql(hold).execute(&mut connection).await.expect("nobody else has it");
        connection
    });
    let mut starting = command(server.dir.path()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let log = BufReader::new(starting.stderr.take().expect("piped"));
    let mut lines = log.lines().map(|line| line.expect("UTF-8"));
    lines.find(|line| line.contains("store open")).expect("the store opens before the portal");
    let pid = rustix::process::Pid::from_child(&starting);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signal");
    let status = find("the end of a start", || starting.try_wait().expect("wait"));
    assert_eq!(status.code(), Some(130));
}

/// A file of keys that an agent has too is a server's where flags or variables say so, and is checked with them.
#[test]
fn a_check_with_flags_or_variables_is_of_a_server() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("neutral.toml");
    std::fs::write(&file, "log = \"info\"\n").expect("room");
    let check = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_hawkeye"));
        let output = output(program.arg("check").args(arguments).arg(&file).envs(variables.iter().copied()));
        let text = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
        text.into_owned()
    };
    let says = |arguments: &[&str], variables: &[(&str, &str)], part: &str| {
        let text = check(arguments, variables);
        assert!(text.contains(part), "{arguments:?} {variables:?}: {text}");
    };
    for arguments in [&["--roles", "judge", "--config"][..], &["--roles", "judge"], &["--set", "roles=[\"judge\"]"]] {
        says(arguments, &[], "listen.judge_rpc");
    }
    says(&["--config"], &[("HAWKEYE_ROLES", "[\"judge\"]")], "listen.judge_rpc");
    says(&["--config"], &[("HAWKEYE_AGENT__IP", "10.0.0.1"), ("HAWKEYE_TOKEN", "x")], "fine, for a server");
    std::fs::write(&file, "transfer_addrs = [\"10.0.0.1:8433\"]").expect("room");
    says(&["--config"], &[("HAWKEYE_AGENT__IP", "10.0.0.1")], "fine, for an agent");
    says(&[], &[("HAWKEYE_LOG", "info")], "fine, for an agent");
    says(&["--config"], &[("HAWKEYE_LOG", "info")], "transfer_addrs");
    says(&["--data-dir", "d", "--config"], &[], "transfer_addrs");
}

/// Kubernetes adds variables for a Service called like the program, and other programs leave bytes that are no text.
#[test]
fn variables_of_the_surroundings_are_no_keys() {
    use std::os::unix::ffi::OsStrExt;
    let wild = std::ffi::OsStr::from_bytes(b"a\xff");
    let check = |name: &str, value: &std::ffi::OsStr| {
        output(Command::new(env!("CARGO_BIN_EXE_hawkeye")).arg("check").env(name, value))
    };
    for (name, value) in [("HAWKEYE_PORT", "tcp://10.0.0.1:8080".as_ref()), ("BAD", wild)] {
        let output = check(name, value);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let output = check("HAWKEYE_LOG", wild);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("HAWKEYE_LOG is not UTF-8"), "{text}");
}

/// A listener that is set in vain is told before a start, as at one.
#[test]
fn a_check_says_which_listeners_stay_closed() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("hawkeye.toml");
    let text = "roles = [\"hbs\"]\nportal.url = \"mysql://u:p@h:1\"\nlisten.graph_rpc = \"127.0.0.1:6070\"\n";
    std::fs::write(&file, text).expect("room");
    let output = output(Command::new(env!("CARGO_BIN_EXE_hawkeye")).arg("check").arg(&file));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("listen.graph_rpc is set, and not opened by these roles"),
        "{text}"
    );
}

/// A MySQL that is not there is told of at once, and asked again; meanwhile admin answers with the reason, and no other
/// port takes a connection.
#[test]
fn hbs_alone_says_at_once_that_mysql_is_away() {
    says_that_mysql_is_away("hbs", "hbs_rpc", &[]);
}

/// An api alone waits for its MySQL as hbs does.
#[test]
fn api_alone_says_at_once_that_mysql_is_away() {
    says_that_mysql_is_away("api", "api", &["--set", "graph.cluster={ graph-00 = \"127.0.0.1:1\" }"]);
}

fn says_that_mysql_is_away(role: &str, listener: &str, more: &[&str]) {
    let dir = tempfile::tempdir().expect("a directory");
    let [admin, port, ..] = free_ports();
    let mut program = Command::new(env!("CARGO_BIN_EXE_hawkeye"));
    program.args(["server", "--roles", role, "--set", "portal.url=mysql://u:p@127.0.0.1:1"]).args(more);
    program.args(["--set", &format!("listen.admin=127.0.0.1:{admin}")]);
    program.args(["--set", &format!("listen.{listener}=127.0.0.1:{port}"), "--data-dir"]).arg(dir.path());
    let mut server = program.stderr(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(server.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let is_told = |line: &String| ["portal.url", "tried again", "refused"].iter().all(|part| line.contains(part));
    assert!(lines.any(|line| is_told(&line)), "{role} says nothing");
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", admin)).expect("admin listens");
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").as_bytes()).expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let health = ask("/health");
    assert!(health.starts_with("HTTP/1.0 503") && health.contains("the MySQL of the portal (portal.url)"), "{health}");
    let status = ask("/status");
    assert!(status.contains("\"admin\"") && !status.contains(&format!("\"{listener}\":")), "{status}");
    let refused = TcpStream::connect(("127.0.0.1", port)).expect_err("nobody is there to answer");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(server.try_wait().expect("a process").is_none(), "it goes on to ask");
    server.kill().expect("kill");
    server.wait().expect("wait");
}

/// What `open-falcon check` was asked for: whether a server runs, what it is, and whether all of it works.
#[test]
fn status_says_what_runs() {
    let mut server = Server::start("");
    let config = server.dir.path().join("hawkeye.toml");
    let ask = |arguments: &[&str]| {
        let output = output(Command::new(env!("CARGO_BIN_EXE_hawkeye")).arg("status").args(arguments));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let of_file = ["--config", config.to_str().expect("a path")];
    let (code, text) = ask(&of_file);
    assert_eq!(code, Some(0), "{text}");
    for part in [": ok\n", "roles      transfer judge graph hbs alarm api\n", "transfer_rpc", env!("CARGO_PKG_VERSION")]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Without a file, by its address.
    let address = format!("127.0.0.1:{}", server.port("admin"));
    let (code, text) = ask(&["--addr", &address, "--json"]);
    let status: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((code, &status["health"]["status"]), (Some(0), &serde_json::json!("ok")));
    assert_eq!(status["listeners"]["admin"], serde_json::json!(address));
    // Without the door admin, the door api says whether all works.
    let (code, text) = ask(&[of_file[0], of_file[1], "--set", "listen.admin="]);
    assert_eq!((code, text.lines().count()), (Some(0), 2), "{text}");
    assert!(text.contains("note       version, roles and listeners are told by listen.admin only"), "{text}");
    let api = format!("127.0.0.1:{}", server.port("api"));
    assert_eq!(ask(&["--addr", &api]), (code, text), "the same by its address");
    let (code, text) = ask(&["--addr", &format!("127.0.0.1:{}", server.port("transfer_http"))]);
    assert!(code == Some(2) && text.contains("not as a Hawkeye server's listen.admin or listen.api does"), "{text}");
    server.stop();
    let (code, text) = ask(&of_file);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("nobody answers at"), "{text}");
    assert_eq!(ask(&["--config", "/none"]).0, Some(2));
}
