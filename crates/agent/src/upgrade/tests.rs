//! An agent that takes programs from an hbs that the test plays; the programs are scripts.

use super::*;
use crate::signature::sha256_of;
use crate::signature::tests::{public_key, signed, signer};
use net::patience::in_time;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wire::{Framer, Scratch, jsonrpc};

/// Newer than any version of this program for a while.
const NEW: &str = "900.0.0";
/// Bytes of a part of the played hbs.
const PART: usize = 20_000;

/// A program of several parts, which says `version` and ends `check-config` with `code`.
fn script(version: &str, code: u8) -> Vec<u8> {
    let mut text = format!(
        "#!/bin/sh\ncase \"$1\" in\n--version) echo 'hawkeye-agent {version}' ;;\n\
         check-config) echo \"odd: $2\" >&2; exit {code} ;;\nesac\nexit 0\n#"
    );
    text.extend(std::iter::repeat_n('.', 2 * PART));
    text.into_bytes()
}

/// An offer of this program, as hbs writes it, signed by `seed`'s owner.
fn offer_of(program: &[u8], version: &str, seed: u8) -> Value {
    let (sha256, size) = sha256_of(program).expect("in memory");
    let signature = signed(&signer(seed), &format!("hawkeye-agent-{version}-{ARCH}"), program);
    json!({ "Version": version, "Arch": ARCH, "Size": size, "Sha256": sha256, "Signature": signature })
}

/// What the played hbs has.
struct Hbs {
    offer: Value,
    program: Vec<u8>,
    /// Offset at which it closes the connection once.
    cut_at: Option<u64>,
    /// Questions so far.
    asked: Vec<(String, Value)>,
}

impl Hbs {
    fn new(offer: Value, program: Vec<u8>) -> Arc<Mutex<Hbs>> {
        Arc::new(Mutex::new(Hbs { offer, program, cut_at: None, asked: Vec::new() }))
    }

    /// The answer; none closes the connection.
    fn answer(&mut self, method: &str, param: Value) -> Option<Value> {
        self.asked.push((method.to_string(), param.clone()));
        if method == "Hawkeye.Agent" {
            return Some(self.offer.clone());
        }
        let offset = param["Offset"].as_u64().expect("an offset");
        if self.cut_at.take_if(|cut| *cut == offset).is_some() {
            return None;
        }
        let from = &self.program[usize::try_from(offset).expect("small")..];
        Some(json!({ "Data": BASE64_STANDARD.encode(&from[..from.len().min(PART)]) }))
    }
}

/// The address of an hbs, which answers until the test ends.
async fn play(hbs: Arc<Mutex<Hbs>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("free port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            serve(stream, &hbs).await;
        }
    });
    address
}

async fn serve(mut stream: TcpStream, hbs: &Mutex<Hbs>) {
    let (mut framer, mut input) = (Framer::new(1 << 20), Vec::new());
    loop {
        let Some(range) = framer.scan(&input).expect("the agent's frames are whole") else {
            match stream.read_buf(&mut input).await {
                Ok(1..) => continue,
                _ => return,
            }
        };
        let mut out = Vec::new();
        {
            let mut scratch = Scratch::new();
            let request = jsonrpc::request(&input[range.clone()], &mut scratch).expect("a request");
            let param = serde_json::from_slice(request.param.expect("a parameter")).expect("JSON");
            let answer = hbs.lock().expect("not poisoned").answer(request.method, param);
            let Some(answer) = answer else { return };
            jsonrpc::write_result(&mut out, request.id, answer.to_string().as_bytes());
        }
        if stream.write_all(&out).await.is_err() {
            return;
        }
        input.drain(..range.end);
        framer.reset();
    }
}

fn taker(address: String, dir: &Path, is_taken: bool) -> Taker {
    let config = UpgradeConfig { public_key: String::new(), dir: dir.to_path_buf() };
    let client = move || Client::new(&address, net::patience::PATIENCE);
    let launcher = Launcher::new(Path::new("/installed"), Version::own(), is_taken);
    let arguments = vec!["--config".to_string(), "/etc/x.toml".to_string()];
    let exit = Arc::new(watch::Sender::new(false));
    Taker::new(client, "host-1", (&config, public_key(&signer(1))), arguments, launcher, Arc::default(), exit)
}

/// Has an agent asked once; the error's text, or whether a program was taken.
async fn ask(hbs: &Arc<Mutex<Hbs>>, dir: &Path) -> Result<bool, String> {
    let mut taker = taker(play(hbs.clone()).await, dir, false);
    in_time("the question", taker.ask()).await.map_err(|error| format!("{error:#}"))
}

fn release(version: &str) -> Release {
    Release::new(version.parse().expect(version), ARCH).expect("a machine")
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn takes_what_is_newer_and_signed() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = script(NEW, 0);
    let hbs = Hbs::new(offer_of(&program, NEW, 1), program.clone());
    assert_eq!(ask(&hbs, dir.path()).await, Ok(true));
    let file = dir.path().join(release(NEW).file_name());
    assert_eq!(fs::read(&file).expect("in its place"), program);
    assert_eq!(fs::metadata(&file).expect("in its place").permissions().mode() & 0o777, 0o700);
    let shelf = Shelf::new(dir.path());
    assert_eq!(shelf.newer(Version::own(), ARCH), [release(NEW)]);
    assert_eq!(shelf.verified(&release(NEW), &public_key(&signer(1))), Ok(file));
    let asked = &hbs.lock().expect("not poisoned").asked;
    assert_eq!(asked[0].1["Hostname"], "host-1");
    assert_eq!((&asked[0].1["Version"], &asked[0].1["Arch"]), (&json!(Version::own().to_string()), &json!(ARCH)));
    let parts = asked.iter().filter(|(method, _)| method == "Hawkeye.AgentPart").count();
    assert_eq!(parts, program.len().div_ceil(PART));
}

#[tokio::test]
async fn an_hbs_that_offers_nothing_is_fine() {
    let dir = tempfile::tempdir().expect("a directory");
    for nothing in [json!({}), json!({ "Version": "" })] {
        assert_eq!(ask(&Hbs::new(nothing, Vec::new()), dir.path()).await, Ok(false));
    }
    assert!(names(dir.path()).is_empty());
}

/// What is offered with these changes is refused with `part`, before a byte of it is asked for.
async fn refused_unseen(changes: Value, part: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let program = script(NEW, 0);
    let mut offer = offer_of(&program, NEW, 1);
    for (key, value) in changes.as_object().expect("an object") {
        offer[key] = value.clone();
    }
    let hbs = Hbs::new(offer, program);
    let error = ask(&hbs, dir.path()).await.expect_err(part);
    assert!(error.contains(part), "{changes} gave {error}");
    assert_eq!(hbs.lock().expect("not poisoned").asked.len(), 1, "{changes}");
    assert!(names(dir.path()).is_empty(), "{changes}");
}

#[tokio::test]
async fn refuses_offers_that_are_not_for_this_host_or_not_signed() {
    refused_unseen(json!({ "Arch": "sparc64" }), "and this is").await;
    refused_unseen(json!({ "Arch": "../x" }), "no machine").await;
    refused_unseen(json!({ "Version": "latest" }), "no version").await;
    refused_unseen(json!({ "Version": "900.0.1" }), "is not by this agent's upgrade.public_key").await;
    refused_unseen(json!({ "Size": 0 }), "with 0 bytes").await;
    refused_unseen(json!({ "Size": 1_u64 << 40 }), "want 1 to 33554432").await;
    refused_unseen(json!({ "Size": -1 }), "no offer").await;
    refused_unseen(json!({ "Sha256": "AB" }), "64 hexadecimal digits").await;
    refused_unseen(json!({ "Sha256": "0".repeat(64) }), "is not by this agent's").await;
    refused_unseen(json!({ "Signature": "" }), "is not by this agent's").await;
    refused_unseen(json!({ "Signature": "A".repeat(4000) }), "a signature of 4000 bytes").await;
    let foreign = offer_of(&script(NEW, 0), NEW, 2);
    refused_unseen(json!({ "Signature": foreign["Signature"] }), "is not by this agent's").await;
}

/// A program that was signed once must not come back when it is old: its version is in what was signed.
#[tokio::test]
async fn never_downgrades() {
    let own = Version::own().to_string();
    for version in [own.as_str(), "0.0.1"] {
        let offer = offer_of(&script(version, 0), version, 1);
        refused_unseen(offer, "agents are never downgraded").await;
    }
    let mut replayed = offer_of(&script("0.0.1", 0), "0.0.1", 1);
    replayed["Version"] = json!(NEW);
    refused_unseen(replayed, "is not by this agent's").await;
}

#[tokio::test]
async fn bytes_that_are_not_those_of_the_signature_are_thrown_away() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = script(NEW, 0);
    let mut tampered = program.clone();
    *tampered.last_mut().expect("not empty") = b'!';
    let hbs = Hbs::new(offer_of(&program, NEW, 1), tampered);
    let error = ask(&hbs, dir.path()).await.expect_err("tampered");
    assert!(error.contains("with digest"), "{error}");
    assert!(names(dir.path()).is_empty(), "{:?}", names(dir.path()));
    hbs.lock().expect("not poisoned").program = program;
    assert_eq!(ask(&hbs, dir.path()).await, Ok(true), "and the next try begins anew");
}

#[tokio::test]
async fn parts_of_a_wrong_size_end_a_try() {
    let check = async |program: Vec<u8>, part: &str| {
        let dir = tempfile::tempdir().expect("a directory");
        let hbs = Hbs::new(offer_of(&script(NEW, 0), NEW, 1), program);
        let error = ask(&hbs, dir.path()).await.expect_err(part);
        assert!(error.contains(part), "{error}");
    };
    let whole = script(NEW, 0);
    check(whole[..100].to_vec(), "100 bytes at 0 of").await;
    check([&whole[..], b"more"].concat(), "at 40000 of").await;
    check(whole[..2 * PART].to_vec(), "0 bytes at 40000 of").await;
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_was_cut() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = script(NEW, 0);
    let hbs = Hbs::new(offer_of(&program, NEW, 1), program);
    hbs.lock().expect("not poisoned").cut_at = Some(PART as u64);
    let error = ask(&hbs, dir.path()).await.expect_err("cut");
    assert!(error.contains("the connection was closed"), "{error}");
    let begun = hbs.lock().expect("not poisoned").asked.len();
    assert_eq!(ask(&hbs, dir.path()).await, Ok(true));
    let asked = &hbs.lock().expect("not poisoned").asked;
    assert_eq!(asked[begun + 1].1["Offset"], json!(PART), "{:?}", asked[begun + 1]);
}

#[tokio::test]
async fn a_disk_that_takes_nothing_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("room");
    let program = script(NEW, 0);
    let hbs = Hbs::new(offer_of(&program, NEW, 1), program);
    let error = ask(&hbs, &file.join("shelf")).await.expect_err("no directory");
    assert!(error.contains("cannot write to") && error.contains("file/shelf"), "{error}");
}

/// A program that is signed and of no use here is refused for good, and hbs's next offer of it costs nothing.
async fn refused_after_a_look(program: Vec<u8>, part: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let hbs = Hbs::new(offer_of(&program, NEW, 1), program);
    let error = ask(&hbs, dir.path()).await.expect_err(part);
    assert!(error.contains(part) && error.contains("not tried again"), "{error}");
    let asked = hbs.lock().expect("not poisoned").asked.len();
    let error = ask(&hbs, dir.path()).await.expect_err(part);
    assert!(error.contains("was refused here") && error.contains(part), "{error}");
    assert_eq!(hbs.lock().expect("not poisoned").asked.len(), asked + 1);
    assert!(Shelf::new(dir.path()).newer(Version::own(), ARCH).is_empty());
}

#[tokio::test]
async fn looks_at_a_program_before_it_takes_it() {
    refused_after_a_look(script("900.0.1", 0), "says \"hawkeye-agent 900.0.1\" for its version").await;
    refused_after_a_look(script(NEW, 3), "does not take this host's configuration: odd: --config").await;
}

#[tokio::test]
async fn a_trouble_is_told_to_hbs_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let hbs = Hbs::new(offer_of(&script(NEW, 0), NEW, 2), Vec::new());
    let mut taker = taker(play(hbs.clone()).await, dir.path(), false);
    for _ in 0..3 {
        let error = in_time("the question", taker.ask()).await.expect_err("not signed");
        taker.tell(&format!("{error:#}"));
    }
    let asked = &hbs.lock().expect("not poisoned").asked;
    let told: Vec<bool> = asked.iter().map(|(_, param)| param["Trouble"] != "").collect();
    assert_eq!(told, [false, true, false]);
    assert_eq!(taker.counters.failures.load(Relaxed), 3);
}

#[tokio::test]
async fn a_program_that_hbs_hears_is_proven() {
    let dir = tempfile::tempdir().expect("a directory");
    let hbs = Hbs::new(json!({}), Vec::new());
    let mut taker = taker(play(hbs).await, dir.path(), true);
    in_time("an answer", taker.be_heard()).await;
    let shelf = Shelf::new(dir.path());
    assert!(shelf.is_proven(Version::own()));
    assert_eq!(shelf.begin(Version::own()).expect("room"), 0, "its starts are no longer counted");
}

#[test]
fn starts_are_counted_per_version_until_it_is_proven() {
    let dir = tempfile::tempdir().expect("a directory");
    let shelf = Shelf::new(&dir.path().join("made"));
    let version = |text: &str| text.parse::<Version>().expect(text);
    let check = |text: &str, starts: u32| assert_eq!(shelf.begin(version(text)).expect("room"), starts, "{text}");
    check("1.2.3", 1);
    check("1.2.3", 2);
    check("1.2.4", 1);
    check("1.2.4", 2);
    shelf.prove(version("1.2.4")).expect("room");
    check("1.2.4", 0);
    check("1.2.5", 1);
    fs::write(dir.path().join("made/tried"), "nonsense\n").expect("room");
    check("1.2.5", 1);
}

#[test]
fn refused_versions_have_bounds() {
    let dir = tempfile::tempdir().expect("a directory");
    let shelf = Shelf::new(dir.path());
    for patch in 0..40 {
        let version = format!("1.2.{patch}").parse().expect("a version");
        shelf.refuse(version, &format!("{}\nline", "é".repeat(300))).expect("room");
    }
    let refused = shelf.refused();
    assert_eq!(refused.len(), 16);
    assert_eq!(refused[15].0.to_string(), "1.2.39");
    assert!(refused.iter().all(|(_, why)| why.len() <= 250), "{refused:?}");
}

#[test]
fn tidies_what_no_start_wants() {
    let dir = tempfile::tempdir().expect("a directory");
    let shelf = Shelf::new(dir.path());
    let put = |name: &str| fs::write(dir.path().join(name), "x").expect("room");
    for version in ["1.0.0", "1.1.0", "1.2.0", "1.3.0"] {
        put(&release(version).file_name());
        put(&release(version).signature_name());
    }
    put("hawkeye-agent-1.3.0-x86_64-0123456789abcdef.part");
    put("tried.new");
    put("tried");
    shelf.tidy("1.0.0".parse().expect("a version"), "1.2.0".parse().expect("a version"), None);
    let mut expected = vec!["tried".to_string()];
    for version in ["1.2.0", "1.3.0"] {
        expected.extend([release(version).file_name(), release(version).signature_name()]);
    }
    expected.sort();
    assert_eq!(names(dir.path()), expected);
}

#[test]
fn a_shelf_is_read_newest_first_without_what_is_foreign_or_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let shelf = Shelf::new(dir.path());
    for name in ["1.2.9", "1.2.10", "1.3.0", "0.9.0"].map(|version| release(version).file_name()) {
        fs::write(dir.path().join(name), "x").expect("room");
    }
    fs::write(dir.path().join("hawkeye-agent-9.0.0-sparc64"), "x").expect("room");
    shelf.refuse("1.3.0".parse().expect("a version"), "dies").expect("room");
    assert_eq!(shelf.newer("1.0.0".parse().expect("a version"), ARCH), [release("1.2.10"), release("1.2.9")]);
}
