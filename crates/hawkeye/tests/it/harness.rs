//! Starts the binary, talks to it as agents and clients do, and ends it in every way.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Far above what anything here takes; reached only when something hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at another process, which announces nothing: leaves it the processor.
const PAUSE: Duration = Duration::from_millis(5);

/// Result of `look`, asked again and again; panics with `what` when there is nothing for [`PATIENCE`].
pub fn find<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "missing after {PATIENCE:?}: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// Returns when `is_so` answers true; panics with `what` when it never does.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    find(what, || is_so().then_some(()));
}

pub const LISTENERS: [&str; 14] = [
    "transfer_rpc",
    "transfer_http",
    "transfer_telnet",
    "hbs_rpc",
    "hbs_http",
    "graph_rpc",
    "judge_rpc",
    "alarm_http",
    "aggregator_http",
    "nodata_http",
    "p8s_rpc",
    "p8s_http",
    "api",
    "admin",
];

pub struct Server {
    child: Child,
    pub dir: tempfile::TempDir,
    ports: [u16; 14],
    pub stdout: Vec<String>,
    last_page: Mutex<String>,
}

impl Server {
    /// Starts a server with `extra` TOML appended to its listeners' configuration. Callbacks may go to loopback, where
    /// the targets are, unless `extra` has a section about alarms.
    pub fn start(extra: &str) -> Server {
        let dir = tempfile::tempdir().expect("temporary directory");
        let ports = free_ports();
        let mut text = format!("data_dir = {:?}\n", dir.path().join("data"));
        let first_section = if extra.starts_with('[') { Some(0) } else { extra.find("\n[").map(|end| end + 1) };
        let (top, sections) = extra.split_at(first_section.unwrap_or(extra.len()));
        text.push_str(top);
        text.push_str("[listen]\n");
        for (name, port) in LISTENERS.iter().zip(ports) {
            text.push_str(&format!("{name} = \"127.0.0.1:{port}\"\n"));
        }
        text.push_str(sections);
        // Tests count rules, and know their ids.
        if !sections.contains("[portal]") {
            text.push_str("\n[portal]\ndefaults = false\n");
        }
        if !sections.contains("[alarm]") {
            text.push_str("\n[alarm]\ncallback_allow = [\"127.0.0.0/8\"]\n");
        }
        std::fs::write(dir.path().join("hawkeye.toml"), text).expect("configuration");
        let (child, stdout) = spawn(&mut command(dir.path()));
        Server { child, dir, ports, stdout, last_page: Mutex::default() }
    }

    pub fn port(&self, listener: &str) -> u16 {
        self.ports[LISTENERS.iter().position(|name| *name == listener).expect("a listener's name")]
    }

    pub fn connect(&self, listener: &str) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port(listener))).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("socket option");
        stream.set_write_timeout(Some(PATIENCE)).expect("socket option");
        stream
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and wait until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.end("the server's end after SIGKILL");
    }

    /// Lets no file of the running server grow beyond `bytes`; `None` takes that back.
    pub fn limit_file_bytes(&self, bytes: Option<u64>) {
        use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
        let maximum = getrlimit(Resource::Fsize).maximum;
        let limit = Rlimit { current: bytes.or(maximum), maximum };
        prlimit(Some(Pid::from_child(&self.child)), Resource::Fsize, limit)
            .expect("a limit within what this process has");
    }

    /// Starts the program again on the same directory and ports, after `kill` or `stop`.
    pub fn restart(&mut self) {
        let mut command = command(self.dir.path());
        (self.child, self.stdout) = spawn(&mut command);
    }

    /// Does what `restart` does, with more arguments.
    pub fn restart_with(&mut self, arguments: &[&str]) {
        (self.child, self.stdout) = spawn(command(self.dir.path()).args(arguments));
    }

    /// Does what `restart` does, for a server whose log goes to `log`.
    pub fn restart_with_log(&mut self, log: std::fs::File) {
        let mut command = command(self.dir.path());
        (self.child, self.stdout) = spawn(command.stderr(log));
    }

    /// SIGTERM, and wait for the orderly end.
    pub fn stop(&mut self) -> ExitStatus {
        self.ask_to_stop();
        self.end("the server's end after SIGTERM")
    }

    /// SIGTERM.
    pub fn ask_to_stop(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signal");
    }

    fn end(&mut self, what: &str) -> ExitStatus {
        find(what, || self.child.try_wait().expect("wait"))
    }

    /// Status of a process that has ended.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait")
    }

    /// One call on a connection of its own.
    pub fn call(&self, listener: &str, method: &str, param: Value) -> Value {
        let mut stream = self.connect(listener);
        let request = json!({"method": method, "params": [param], "id": 7});
        stream.write_all(request.to_string().as_bytes()).expect("write");
        read_line(&mut BufReader::new(stream))
    }

    /// `Transfer.Update`; answers its result, or panics on an error.
    pub fn update(&self, items: Value) -> Value {
        let answer = self.call("transfer_rpc", "Transfer.Update", items);
        assert_eq!(answer["error"], Value::Null, "{answer}");
        answer["result"].clone()
    }

    pub fn http(&self, listener: &str, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = self.connect(listener);
        // HTTP/1.0, so that the answer ends with the connection and is never chunked.
        let head = format!("{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n", body.len());
        stream.write_all(format!("{head}{headers}\r\n{body}").as_bytes()).expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answer");
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("status line");
        (status, answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_string())
    }

    pub fn metric(&self, name: &str) -> f64 {
        // Asked twice in a row, the server may give the page that it gave before; a page that was made since counts at
        // least another connection.
        let mut last = self.last_page.lock().expect("no panic");
        *last = find("a page of metrics that is made anew", || {
            let (status, page) = self.http("admin", "GET", "/metrics", "", "");
            assert_eq!(status, 200);
            (page != *last).then_some(page)
        });
        last.lines()
            .filter(|line| line.starts_with(name))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Returns when nothing is to be delivered any more. After a crash between a target's answer and its note in the
    /// table nobody knows how the callback ended, which most tests are not about.
    pub fn wait_for_deliveries(&self) {
        until("the end of all deliveries", || self.metric("hawkeye_alarm_deliveries_waiting") == 0.0);
    }

    /// Logs in as root.
    pub fn admin(&self) -> Api<'_> {
        let password = std::fs::read_to_string(self.data_dir().join("admin-password")).expect("admin-password");
        let body = json!({"name": "root", "password": password.trim()}).to_string();
        let (status, text) =
            self.http("api", "POST", "/api/v1/user/login", "Content-Type: application/json\r\n", &body);
        assert_eq!(status, 200, "{text}");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        Api { server: self, token: json!({"name": answer["name"], "sig": answer["sig"]}).to_string() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone after `kill` or `stop`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// REST calls with a session.
pub struct Api<'s> {
    server: &'s Server,
    pub token: String,
}

impl Api<'_> {
    pub fn request(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let headers = format!("Content-Type: application/json\r\nApitoken: {}\r\n", self.token);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, text) = self.server.http("api", method, &format!("/api/v1{path}"), &headers, &body);
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub fn get(&self, path: &str) -> Value {
        let (status, answer) = self.request("GET", path, Value::Null);
        assert_eq!(status, 200, "GET {path}: {answer}");
        answer
    }

    pub fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.request("POST", path, body);
        assert_eq!(status, 200, "POST {path}: {answer}");
        answer
    }

    /// Non-null points of one series in [from, to].
    pub fn history(&self, endpoint: &str, counter: &str, from: i64, to: i64) -> Vec<(i64, f64)> {
        let answer = self.post(
            "/graph/history",
            json!({"hostnames": [endpoint], "counters": [counter], "consol_fun": "AVERAGE", "step": 60,
                   "start_time": from, "end_time": to}),
        );
        let values = answer[0]["Values"].as_array().unwrap_or_else(|| panic!("no Values in {answer}")).clone();
        values.iter().filter_map(|v| Some((v["timestamp"].as_i64()?, v["value"].as_f64()?))).collect()
    }
}

#[allow(clippy::zombie_processes)] // a panic ends the test program, and its child is then the system's to reap
fn spawn(command: &mut Command) -> (Child, Vec<String>) {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary starts");
    let lines = lines_of(child.stdout.take().expect("piped"));
    let mut said = Vec::new();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => said.push(line),
            Err(RecvTimeoutError::Disconnected) => panic!("the server ended at its start: {:?}", child.wait()),
            Err(RecvTimeoutError::Timeout) => {
                child.kill().expect("kill");
                panic!("missing after {PATIENCE:?}: the last line of a start; the server said {said:?}");
            }
        }
        let is_last = |line: &String| LAST_LINES.iter().any(|part| line.contains(part));
        if said.last().is_some_and(is_last) {
            return (child, said);
        }
    }
}

/// Parts of the last line that a start prints: of the whole server, the graph alone, the judge alone, a transfer alone,
/// the api alone.
const LAST_LINES: [&str; 5] = [
    "agents report to",
    "the graph takes points",
    "the judge takes points",
    "points come in at",
    "the api reads the graphs",
];

/// Lines as they are printed. All are read, also when nobody wants them any more: no program waits for the test.
pub fn lines_of(stdout: ChildStdout) -> Receiver<String> {
    let (send, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    lines
}

/// Output and exit of a program that must end by itself; one that does not is killed and named.
pub fn output(command: &mut Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let (stdout, stderr) = (bytes_of(child.stdout.take()), bytes_of(child.stderr.take()));
    let text = |bytes: &Receiver<Vec<u8>>| bytes.recv_timeout(PATIENCE);
    let (Ok(stdout), Ok(stderr)) = (text(&stdout), text(&stderr)) else {
        child.kill().expect("kill");
        panic!("missing after {PATIENCE:?}: the end of {command:?}");
    };
    Output { status: find("the program's end", || child.try_wait().expect("wait")), stdout, stderr }
}

fn bytes_of(stream: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (send, bytes) = channel();
    let mut stream = stream.expect("piped");
    std::thread::spawn(move || {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("a pipe");
        let _ = send.send(all);
    });
    bytes
}

/// `hawkeye server` on the configuration in `dir`.
pub fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hawkeye"));
    command.arg("server").arg("--config").arg(dir.join("hawkeye.toml"));
    command
}

/// The next ports of this process that are free, from a range that the system gives to nobody by itself: a port of the
/// ephemeral range may be some other test's before the server binds it, or between its end and its restart.
pub fn free_ports() -> [u16; 14] {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test processes that run beside each other have neighbouring ids.
    let base = std::process::id().wrapping_mul(997);
    std::array::from_fn(|_| {
        let next = || (FIRST + base.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT) as u16;
        let mut ports = std::iter::repeat_with(next).take(COUNT as usize);
        ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
    })
}

pub fn read_line(reader: &mut impl BufRead) -> Value {
    let mut line = String::new();
    reader.read_line(&mut line).expect("an answer");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
}

pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64
}

/// The start of the current minute.
pub fn this_minute() -> i64 {
    now() / 60 * 60
}

pub fn gauge(endpoint: &str, metric: &str, value: f64, timestamp: i64) -> Value {
    json!({"endpoint": endpoint, "metric": metric, "value": value, "step": 60, "counterType": "GAUGE", "tags": "",
           "timestamp": timestamp})
}

/// An HTTP server that answers 200 `ok`, or nothing, and hands on each request's first line.
pub struct Target {
    pub url: String,
    requests: Receiver<String>,
}

impl Target {
    pub fn start() -> Target {
        Target::new(true)
    }

    /// A target that takes requests, keeps their connections and answers none.
    pub fn silent() -> Target {
        Target::new(false)
    }

    fn new(answers: bool) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/alarm", listener.local_addr().expect("address"));
        let (send, requests) = channel();
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut lines = BufReader::new(stream.try_clone().expect("clone")).lines();
                let first = lines.next().and_then(Result::ok).unwrap_or_default();
                while lines.next().and_then(Result::ok).is_some_and(|line| !line.is_empty()) {}
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
                if answers {
                    // A server that was killed meanwhile takes no answer.
                    let _ = stream.write_all(answer.as_bytes());
                } else {
                    kept.push(stream);
                }
                if send.send(first).is_err() {
                    return;
                }
            }
        });
        Target { url, requests }
    }

    /// The next request's query parameter texts, in order of arrival.
    pub fn next(&self) -> String {
        self.requests.recv_timeout(PATIENCE).expect("a request in time")
    }

    pub fn try_next(&self) -> Option<String> {
        self.requests.try_recv().ok()
    }
}
