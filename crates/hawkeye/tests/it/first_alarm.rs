//! docs/first-alarm.md, followed line by line: its blocks of shell are given to bash as a reader pastes them.
//!
//! Invariants: the lines are the document's but for ports, and for the URL of whoever is called.

use crate::harness::{PATIENCE, Server, Target, lines_of};
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;

/// The lines of a document that readers are to run.
pub fn blocks(document: &str) -> Vec<&str> {
    document.split("```sh\n").skip(1).map(|rest| rest.split("```").next().expect("a first part")).collect()
}

/// A reader's shell in the directory of the server; it ends with the test.
pub struct Shell {
    child: Child,
    lines: Receiver<String>,
}

impl Shell {
    pub fn start(server: &Server) -> Shell {
        let mut command = Command::new("bash");
        command.arg("-e").current_dir(server.dir.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("bash");
        let lines = lines_of(child.stdout.take().expect("piped"));
        Shell { child, lines }
    }

    pub fn paste(&mut self, text: &str) {
        self.child.stdin.as_mut().expect("piped").write_all(text.as_bytes()).expect("bash goes on");
    }

    /// The next line with `part`; others are passed over.
    pub fn line(&self, part: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("no line has {part}: {error}"));
            if line.contains(part) {
                return line;
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Already gone where a line failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_document_leads_to_an_alarm_and_its_callback() {
    let (mut server, target) = (Server::start(""), Target::start());
    let address = |port: &str| format!("127.0.0.1:{}", server.port(port));
    let document = include_str!("../../../../docs/first-alarm.md")
        .replace("127.0.0.1:8080", &address("api"))
        .replace("127.0.0.1:6060", &address("transfer_http"))
        .replace("http://127.0.0.1:9999/", &target.url);
    let blocks = blocks(&document);
    let (called, alarm) = blocks.split_last().expect("blocks of shell");

    let mut shell = Shell::start(&server);
    shell.paste(&alarm.concat());
    let case = shell.line("PROBLEM");
    for part in ["\"cond\":\"250 > 100\"", "\"endpoint\":\"web-01\"", "told nobody: the rule has no action"] {
        assert!(case.contains(part), "{part} in {case}");
    }

    server.stop();
    server.restart();
    shell.paste(called);
    let call = target.next();
    for part in ["endpoint=web-01", "metric=queue.length", "status=OK", "left_value=5"] {
        assert!(call.contains(part), "{part} in {call}");
    }
    assert_eq!(target.try_next(), None);
}
