//! The slim binary while its transfer is away, killed and stopped meanwhile: every point arrives, and none twice.
//!
//! How: the test plays a transfer that counts points by metric and time; away is a port that nobody listens on.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use wire::{Framer, Scratch, decode_items, jsonrpc};

/// Far above what anything here takes; reached only when something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Series that are pushed, a point of each at once: two calls' worth of three minutes.
const SERIES: usize = 300;

/// Between two looks at another process, which announces nothing.
const PAUSE: Duration = Duration::from_millis(5);

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "missing after {PATIENCE:?}: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// A port outside of the range that the system gives to others by itself: it must be free again after an absence.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let base = std::process::id().wrapping_mul(997);
    let next = || (10_000 + base.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 22_000) as u16;
    let mut ports = std::iter::repeat_with(next).take(22_000);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

/// How often each point came that was answered for: pushed ones, by their metric and time.
type Points = BTreeMap<(String, i64), usize>;

/// A transfer at a port; dropped, it is away, with the connections it had.
struct Transfer {
    place: SocketAddr,
    stopping: Arc<Mutex<bool>>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    listening: Option<std::thread::JoinHandle<()>>,
}

impl Transfer {
    fn start(port: u16, points: &Arc<Mutex<Points>>) -> Transfer {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        let place = listener.local_addr().expect("bound");
        let (stopping, streams) = (Arc::new(Mutex::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stop, opened, points) = (stopping.clone(), streams.clone(), points.clone());
        let listening = std::thread::spawn(move || {
            let mut serving = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                if *stop.lock().expect("no panic") {
                    break;
                }
                opened.lock().expect("no panic").push(stream.try_clone().expect("a socket"));
                let points = points.clone();
                serving.push(std::thread::spawn(move || serve(stream, &points)));
            }
            serving.into_iter().for_each(|thread| thread.join().expect("no panic"));
        });
        Transfer { place, stopping, streams, listening: Some(listening) }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        *self.stopping.lock().expect("no panic") = true;
        // Wakes the listener.
        let _ = TcpStream::connect(self.place);
        for stream in self.streams.lock().expect("no panic").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(listening) = self.listening.take() {
            listening.join().expect("no panic");
        }
    }
}

/// Answers calls until the connection ends.
fn serve(mut stream: TcpStream, points: &Mutex<Points>) {
    let (mut framer, mut input, mut buffer) = (Framer::new(16 << 20), Vec::new(), [0; 16 << 10]);
    loop {
        let Some(range) = framer.scan(&input).expect("the agent's frames are whole") else {
            match stream.read(&mut buffer) {
                Ok(read @ 1..) => input.extend_from_slice(&buffer[..read]),
                _ => return,
            }
            continue;
        };
        let (mut scratch, mut out, mut came) = (Scratch::new(), Vec::new(), Vec::new());
        let request = jsonrpc::request(&input[range.clone()], &mut scratch).expect("the agent's requests are right");
        assert_eq!(request.method, "Transfer.Update");
        decode_items(request.param.expect("a parameter"), &mut Scratch::new(), &mut |item| {
            let item = item.expect("a valid item");
            if item.endpoint == "pushed" {
                came.push((item.metric.to_string(), item.timestamp));
            }
        })
        .expect("an array");
        jsonrpc::write_result(&mut out, request.id, br#"{"Message":"ok","Total":1,"Invalid":0,"Latency":0}"#);
        // What could not be answered for is sent again, as it should be.
        let mut points = points.lock().expect("no panic");
        if stream.write_all(&out).is_err() {
            return;
        }
        came.into_iter().for_each(|point| *points.entry(point).or_default() += 1);
        drop(points);
        input.drain(..range.end);
        framer.reset();
    }
}

/// The agent, which reports what is pushed, and this host once a day.
struct Agent {
    child: Child,
    port: u16,
}

impl Agent {
    fn start(dir: &Path, transfer: u16) -> Agent {
        let port = free_port();
        let text = format!(
            "transfer_addrs = [\"127.0.0.1:{transfer}\"]\nhbs_addr = \"\"\ninterval = \"24h\"\nbuffer_dir = {:?}\n\
             [listen]\nagent_http = \"127.0.0.1:{port}\"\n",
            dir.join("buffer")
        );
        let config = dir.join("agent.toml");
        std::fs::write(&config, text).expect("room");
        let mut command = Command::new(env!("CARGO_BIN_EXE_hawkeye-agent"));
        let child = command.arg("--config").arg(config).stderr(Stdio::null()).spawn().expect("the binary starts");
        let agent = Agent { child, port };
        until("the agent's door", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        agent
    }

    fn http(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the agent listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        let head = format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.split_once("\r\n\r\n").expect("a body").1.to_string()
    }

    /// Pushes a point of each series.
    fn push(&self, time: i64) {
        let item = |i: usize| {
            format!(
                "{{\"endpoint\":\"pushed\",\"metric\":\"m{i}\",\"value\":1,\"step\":60,\"counterType\":\"GAUGE\",\
                 \"tags\":\"\",\"timestamp\":{time}}}"
            )
        };
        let items: Vec<String> = (0..SERIES).map(item).collect();
        assert_eq!(self.http("POST", "/v1/push", &format!("[{}]", items.join(","))), "success");
    }

    fn metric(&self, name: &str) -> u64 {
        let page = self.http("GET", "/metrics", "");
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {page}"))
    }

    /// Returns when so many pushes are on the disk, at least.
    fn keeps(&self, pushes: usize) {
        until("items on the disk", || self.metric("hawkeye_agent_buffer_disk_items") >= (pushes * SERIES) as u64);
    }

    fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signal");
        let mut status = None;
        until("the agent's end", || {
            status = self.child.try_wait().expect("wait");
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Already gone after `kill` or `stop`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_kill_of_transfer_with_a_kill_and_a_restart_of_the_agent_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (port, points) = (free_port(), Arc::new(Mutex::new(Points::new())));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64;
    let minute = |index: i64| now / 60 * 60 + 60 * index;
    let came = |count: usize| until("points at the transfer", || points.lock().expect("no panic").len() == count);

    let transfer = Transfer::start(port, &points);
    let agent = Agent::start(dir.path(), port);
    agent.push(minute(0));
    came(SERIES);
    drop(transfer);
    (1..4).for_each(|index| agent.push(minute(index)));
    agent.keeps(3);
    agent.kill();
    let agent = Agent::start(dir.path(), port);
    (4..7).for_each(|index| agent.push(minute(index)));
    agent.keeps(6);
    agent.push(minute(7));
    agent.stop();
    let agent = Agent::start(dir.path(), port);
    agent.keeps(7);
    let transfer = Transfer::start(port, &points);
    agent.push(minute(8));
    came(9 * SERIES);
    until("an empty buffer", || agent.metric("hawkeye_agent_buffer_disk_items") == 0);
    agent.stop();
    // What was answered does not come again with the next start.
    let agent = Agent::start(dir.path(), port);
    agent.push(minute(9));
    came(10 * SERIES);
    agent.stop();
    drop(transfer);

    let points = points.lock().expect("no panic");
    let expected: Points =
        (0..10).flat_map(|index| (0..SERIES).map(move |i| ((format!("m{i}"), minute(index)), 1))).collect();
    assert!(*points == expected, "doubled: {:?}", points.iter().find(|(_, count)| **count > 1));
}
