//! Backups under load, killed at many points, without room; and what is restored from them.

use crate::alarms::make_strategy;
use crate::harness::{Server, Target, command, find, gauge, output, this_minute, until};
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

fn hawkeye(arguments: &[&str], dir: &Path, server: &Server) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hawkeye"));
    command
        .arg(arguments[0])
        .arg(dir)
        .args(&arguments[1..])
        .arg("--config")
        .arg(server.dir.path().join("hawkeye.toml"));
    command
}

fn succeeds(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = output(command);
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("UTF-8")
}

fn fails(command: &mut Command, part: &str) {
    let output = output(command);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains(part), "{command:?}: {text:?}");
}

/// All files below `dir`, with their sizes.
fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().map_while(Result::ok) {
        match entry.metadata() {
            Ok(about) if about.is_dir() => found.extend(files(&entry.path())),
            Ok(about) => found.push((entry.path(), about.len())),
            Err(_) => {}
        }
    }
    found
}

fn is_private(dir: &Path) {
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o7777;
    assert_eq!(mode(dir), 0o700);
    for (path, _) in files(dir) {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        assert_eq!(mode(path.parent().expect("a folder")), 0o700, "{}", path.display());
    }
}

const HOSTS: usize = 3;
const METRICS: usize = 40;

fn batch(host: usize, minute: i64, start: i64) -> Value {
    let items = (0..METRICS)
        .map(|metric| gauge(&format!("h{host}"), &format!("m{metric}"), minute as f64, start + 60 * minute));
    items.collect()
}

/// Backups while points and alarms come: each has all that was answered before it began, and an alarm that was open is
/// open, told to nobody again, and recovers.
#[test]
fn a_backup_under_load_has_what_was_answered() {
    let target = Target::start();
    let mut server = Server::start("");
    make_strategy(&server.admin(), "web-01", &target);
    let (start, now) = (this_minute() - 11 * 3600, this_minute() - 600);
    server.update(json!([gauge("web-01", "cpu.idle", 5.0, now)]));
    assert!(target.next().contains("status=PROBLEM"));
    server.wait_for_deliveries();

    let (answered, is_over) = (AtomicI64::new(0), AtomicBool::new(false));
    let dirs: Vec<PathBuf> = (0..3).map(|i| server.dir.path().join(format!("backup-{i}"))).collect();
    let before: Vec<i64> = std::thread::scope(|scope| {
        scope.spawn(|| {
            for minute in 0..600 {
                (0..HOSTS).for_each(|host| _ = server.update(batch(host, minute, start)));
                answered.store(minute + 1, Ordering::Release);
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let back_up = |dir: &PathBuf| {
            let wanted = answered.load(Ordering::Acquire) + 3;
            until("some points more", || answered.load(Ordering::Acquire) >= wanted.min(600));
            let before = answered.load(Ordering::Acquire);
            succeeds(&mut hawkeye(&["backup"], dir, &server));
            before
        };
        let before = dirs.iter().map(back_up).collect();
        is_over.store(true, Ordering::Relaxed);
        before
    });
    server.update(json!([gauge("web-01", "cpu.idle", 50.0, now + 60)]));
    assert!(target.next().contains("status=OK"), "the server goes on");
    server.wait_for_deliveries();
    fails(&mut hawkeye(&["restore", "--replace"], &dirs[0], &server), "stop it");
    server.stop();

    for (dir, before) in dirs.iter().zip(before) {
        is_private(dir);
        fails(&mut hawkeye(&["restore"], dir, &server), "is not empty");
        assert!(succeeds(&mut hawkeye(&["restore", "--replace"], dir, &server)).contains("replaced-"));
        is_private(&server.data_dir());
        server.restart();
        let api = server.admin();
        for host in 0..HOSTS {
            let found = api.history(&format!("h{host}"), "m7", start, start + 60 * (before - 1));
            let expected: Vec<(i64, f64)> = (0..before).map(|minute| (start + 60 * minute, minute as f64)).collect();
            assert_eq!(found, expected, "h{host} of {}", dir.display());
        }
        assert_eq!(api.history("web-01", "cpu.idle", now, now + 60), [(now, 5.0)]);
        assert_eq!(target.try_next(), None, "the PROBLEM was told before the backup");
        server.update(json!([gauge("web-01", "cpu.idle", 50.0, now + 60)]));
        assert!(target.next().contains("status=OK"));
        server.wait_for_deliveries();
        assert!(server.stop().success());
    }
}

/// Ends `child` with SIGKILL when `dir` has `count` files, unless it has ended before; true when it was killed.
fn kill_at(mut child: Child, dir: &Path, count: usize) -> bool {
    let ended = find("files, or an end", || {
        let ended = child.try_wait().expect("wait");
        (ended.is_some() || files(dir).len() >= count).then_some(ended)
    });
    let _ = child.kill();
    child.wait().expect("wait");
    ended.is_none()
}

fn started(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts")
}

/// Killed at every number of files, a backup is whole or refused, and a restore is whole or keeps the server from
/// starting until it was done again.
#[test]
fn killed_half_way_nothing_looks_whole() {
    let mut server = Server::start("");
    let start = this_minute() - 11 * 3600;
    for minute in 0..20 {
        server.update(batch(0, minute, start));
    }
    for i in 0..10 {
        // Some more files, of the kind that is copied as it is.
        std::fs::write(server.data_dir().join(format!("note-{i}")), vec![b'x'; 300_000]).expect("a file");
    }
    let whole = server.dir.path().join("whole");
    succeeds(&mut hawkeye(&["backup"], &whole, &server));
    let all = files(&whole).len();

    let mut killed = 0;
    for count in 1..=all {
        let dir = server.dir.path().join(format!("killed-{count}"));
        let was_killed = kill_at(started(&mut hawkeye(&["backup"], &dir, &server)), &dir, count);
        if was_killed && !dir.join("SHA256SUMS").exists() {
            killed += 1;
            let elsewhere = ["restore", "--data-dir", "nowhere/at-all"];
            fails(&mut hawkeye(&elsewhere, &dir, &server), "one that was not finished");
            assert!(!Path::new("nowhere").exists());
            fails(&mut hawkeye(&["backup"], &dir, &server), "is not empty");
        } else {
            assert_eq!(files(&dir).len(), all);
        }
    }
    assert!(killed >= all / 4, "{killed} of {all} backups were killed before their end");

    server.stop();
    killed = 0;
    for count in 1..=all {
        std::fs::remove_dir_all(server.data_dir()).expect("the data directory");
        let restore = started(&mut hawkeye(&["restore"], &whole, &server));
        if kill_at(restore, &server.data_dir(), count) && server.data_dir().join("restore-unfinished").exists() {
            killed += 1;
            fails(&mut command(server.dir.path()), "run `hawkeye restore` again");
            fails(&mut hawkeye(&["backup"], &whole.join("of-half"), &server), "was not finished");
            succeeds(&mut hawkeye(&["restore"], &whole, &server));
        }
        let names = |dir: &Path| {
            let mut names: Vec<_> = files(dir).into_iter().filter(|(path, _)| !path.ends_with("SHA256SUMS")).collect();
            names.iter_mut().for_each(|(path, _)| *path = path.strip_prefix(dir).expect("below").to_path_buf());
            names.sort();
            names
        };
        if server.data_dir().join("portal.db").exists() {
            assert_eq!(names(&server.data_dir()), names(&whole), "killed at {count} files");
        }
    }
    assert!(killed >= all / 4, "{killed} of {all} restores were killed before their end");
    if !server.data_dir().join("portal.db").exists() {
        succeeds(&mut hawkeye(&["restore"], &whole, &server));
    }
    server.restart();
    assert_eq!(server.admin().history("h0", "m7", start, start + 60 * 19).len(), 20);
}

/// Where no file may grow beyond `blocks` of 512 bytes, as on a disk without room.
fn without_room(blocks: u32, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\""));
    shell.arg(command.get_program()).args(command.get_args());
    shell
}

#[test]
fn without_room_nothing_is_left_that_looks_whole() {
    let mut server = Server::start("");
    let start = this_minute() - 11 * 3600;
    for minute in 0..20 {
        server.update(batch(0, minute, start));
    }
    let mut note = std::fs::File::create(server.data_dir().join("zz-note")).expect("a file");
    note.write_all(&vec![b'x'; 2 << 20]).expect("room");
    let dir = server.dir.path().join("backup");
    for blocks in [1, 16, 512, 1024] {
        fails(&mut without_room(blocks, &hawkeye(&["backup"], &dir, &server)), "cannot back up");
        assert!(!dir.exists(), "{blocks}");
    }
    succeeds(&mut hawkeye(&["backup"], &dir, &server));
    server.stop();
    std::fs::remove_dir_all(server.data_dir()).expect("the data directory");
    for blocks in [1, 16, 512, 1024] {
        fails(&mut without_room(blocks, &hawkeye(&["restore"], &dir, &server)), "run the same command again");
        fails(&mut command(server.dir.path()), "run `hawkeye restore` again");
    }
    succeeds(&mut hawkeye(&["restore"], &dir, &server));
    server.restart();
    assert_eq!(server.admin().history("h0", "m7", start, start + 60 * 19).len(), 20);
}

/// A password set beside the running server counts at once, and ends the sessions.
#[test]
fn a_password_is_set_beside_the_server() {
    let server = Server::start("");
    let api = server.admin();
    assert_eq!(api.request("GET", "/user/current", Value::Null).0, 200);
    let mut passwd = Command::new(env!("CARGO_BIN_EXE_hawkeye"));
    passwd.args(["passwd", "root", "--config"]).arg(server.dir.path().join("hawkeye.toml")).stdin(Stdio::piped());
    fails(passwd.stdin(Stdio::null()), "no password came");
    let empty = server.dir.path().join("empty");
    std::fs::write(&empty, "\n").expect("writable");
    let made = succeeds(passwd.stdin(std::fs::File::open(&empty).expect("just written")));
    assert_eq!(api.request("GET", "/user/current", Value::Null).0, 401);
    let made = made.split(" is now ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a password");
    let login = |password: &str| {
        let body = json!({"name": "root", "password": password}).to_string();
        server.http("api", "POST", "/api/v1/user/login", "Content-Type: application/json\r\n", &body).0
    };
    assert_eq!(login(made), 200);
    let line = server.dir.path().join("line");
    std::fs::write(&line, "my own\n").expect("a file");
    succeeds(passwd.stdin(std::fs::File::open(&line).expect("just written")));
    assert_eq!((login(made), login("my own")), (400, 200));
}

/// Files that an older version has left open to all are closed at the start, and new ones are made so.
#[test]
fn the_data_directory_is_its_owners() {
    let mut server = Server::start("");
    is_private(&server.data_dir());
    server.stop();
    let open = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("ours");
    files(&server.data_dir()).iter().for_each(|(path, _)| open(path, 0o644));
    for folder in ["", "store", "store/log", "events"] {
        open(&server.data_dir().join(folder), 0o755);
    }
    server.restart();
    server.update(json!([gauge("h", "m", 1.0, this_minute())]));
    is_private(&server.data_dir());
}
