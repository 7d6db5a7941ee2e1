//! The program `hawkeye-agent` itself: what a start becomes when the shelf has a newer program, which is a script here.

use agent::release::{ARCH, Release};
use agent::signature::{PublicKey, sha256_of};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

/// Versions newer than any of the installed program for a while.
const OLD: &str = "900.0.0";
const NEW: &str = "900.0.1";
/// A key of the configuration that only a newer program knows.
const UNKNOWN: &str = "of_a_newer_program";

struct Host {
    dir: tempfile::TempDir,
    signer: Ed25519KeyPair,
}

impl Host {
    fn new() -> Host {
        let dir = tempfile::tempdir().expect("a directory");
        let signer = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("any seed is one");
        let host = Host { dir, signer };
        let key = PublicKey::of_bytes(host.signer.public_key().as_ref()).expect("32 bytes");
        let shelf = host.shelf();
        fs::create_dir(&shelf).expect("room");
        let text = format!("{UNKNOWN} = 1\n[upgrade]\npublic_key = \"{key}\"\ndir = \"{}\"\n", shelf.display());
        fs::write(host.config(), text).expect("room");
        host
    }

    fn shelf(&self) -> std::path::PathBuf {
        self.dir.path().join("shelf")
    }

    fn config(&self) -> std::path::PathBuf {
        self.dir.path().join("agent.toml")
    }

    /// Puts a program onto the shelf, signed as if it had `signed` in it.
    fn put(&self, version: &str, program: &str, signed: &str) {
        let release = Release::new(version.parse().expect(version), ARCH).expect("a machine");
        let path = self.shelf().join(release.file_name());
        fs::write(&path, program).expect("room");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("its own file");
        let (sha256, _) = sha256_of(signed.as_bytes()).expect("in memory");
        let signature = self.signer.sign(release.signed_text(&sha256).as_bytes());
        fs::write(self.shelf().join(release.signature_name()), BASE64_STANDARD.encode(signature)).expect("room");
    }

    fn start(&self) -> Output {
        let config = self.config();
        let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_hawkeye-agent")));
        command.args(["--config", &config.display().to_string()]).output().expect("it runs")
    }

    /// Starts and expects the program that says `said`.
    fn becomes(&self, said: &str) {
        let output = self.start();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), said, "{output:?}");
    }

    /// Starts and expects the installed program, which does not know a key of the configuration.
    fn stays(&self) {
        let output = self.start();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(complaint.contains(UNKNOWN), "{output:?}");
    }

    fn refused(&self) -> String {
        fs::read_to_string(self.shelf().join("refused")).unwrap_or_default()
    }
}

/// A program that says its name and its arguments, and ends.
fn dying(name: &str) -> String {
    format!("#!/bin/sh\necho \"{name} $1 ${{HAWKEYE_AGENT_LAUNCHER%% *}}\"\nexit 1\n")
}

#[test]
fn a_program_that_dies_is_given_up_for_the_one_before() {
    let host = Host::new();
    host.stays();
    let (old, new) = (dying("old"), dying("new"));
    host.put(OLD, &old, &old);
    host.put(NEW, &new, &new);
    // One of before that hbs had heard.
    fs::write(host.shelf().join("proven"), format!("{OLD}\n")).expect("room");
    let own = env!("CARGO_PKG_VERSION");
    for _ in 0..3 {
        host.becomes(&format!("new --config {own}"));
        assert_eq!(host.refused(), "");
    }
    for _ in 0..5 {
        host.becomes(&format!("old --config {own}"));
        assert!(host.refused().starts_with(&format!("{NEW} was not heard by hbs")), "{}", host.refused());
    }
}

#[test]
fn what_is_not_signed_does_not_run() {
    let host = Host::new();
    host.put(NEW, &dying("tampered"), &dying("signed"));
    host.stays();
    assert!(!host.shelf().join(format!("hawkeye-agent-{NEW}-{ARCH}")).exists(), "it is removed");
    assert_eq!(host.refused(), "", "the program that was signed may still come");
}

#[test]
fn what_cannot_be_started_is_refused_at_once() {
    let host = Host::new();
    let nothing = "#!/nowhere/interpreter\n";
    host.put(NEW, nothing, nothing);
    host.stays();
    assert!(host.refused().starts_with(&format!("{NEW} cannot be started")), "{}", host.refused());
}

#[test]
fn older_programs_are_not_looked_at() {
    let host = Host::new();
    let (zero, own) = (dying("zero"), dying("own"));
    host.put("0.0.1", &zero, &zero);
    host.put(env!("CARGO_PKG_VERSION"), &own, &own);
    host.stays();
}
