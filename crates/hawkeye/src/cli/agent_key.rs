//! `hawkeye agent-key new | sign`: the key of who says what a fleet's agents run, and its signatures.
//!
//! Why: agents take a newer program only if it is signed by this key. It stays on the operator's own machine; a server
//! has programs and signatures, and can make neither.
//! How: the file has the key as PKCS #8 in base64, of mode 0600. What is signed is in [`agent::release`].
//! Invariants: a file that is there is never written over; a key that others may read is not used.

use crate::watch::log::say;
use agent::release::{PROGRAM_MAX, Release};
use agent::signature::{PublicKey, sha256_of};
use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::{Args, Subcommand};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use stdx::small_file;

/// Bytes of a key's file: PKCS #8 of ed25519 has 112 characters in base64.
const KEY_MAX: u64 = 1 << 10;

#[derive(Args)]
pub struct AgentKeyArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a key, and print its public half for `upgrade.public_key` of agents.
    New {
        /// The file of the key, which must not be there.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Sign programs of agents: a file `….sig` beside each.
    Sign {
        /// The file of the key.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Programs, named `hawkeye-agent-1.2.3-x86_64` by version and machine.
        #[arg(value_name = "PROGRAM", required = true)]
        programs: Vec<PathBuf>,
    },
    /// Print the public half of a key.
    Public {
        /// The file of the key.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

pub fn run(args: &AgentKeyArgs) -> Result<()> {
    match &args.command {
        Command::New { file } => {
            let public = make(file)?;
            say(format_args!("hawkeye: {} has a new key: keep it from all servers, and keep a copy", file.display()));
            say(format_args!("public_key = \"{public}\""));
        }
        Command::Sign { key, programs } => {
            let key = read_key(key)?;
            for program in programs {
                let signature = sign(&key, program)?;
                say(format_args!("hawkeye: wrote {}", signature.display()));
            }
        }
        Command::Public { file } => say(public_of(&read_key(file)?)?),
    }
    Ok(())
}

/// Makes a key in `file`; answers its public half.
fn make(file: &Path) -> Result<PublicKey> {
    let random = SystemRandom::new();
    let document = Ed25519KeyPair::generate_pkcs8(&random).ok().context("the system gives no random numbers")?;
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let mut opened = opened.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            anyhow::anyhow!("{} is there: give another file, for a key that is lost is lost", file.display())
        }
        _ => anyhow::Error::new(error).context(format!("cannot make {}", file.display())),
    })?;
    let text = format!("{}\n", BASE64_STANDARD.encode(document.as_ref()));
    let written = opened.write_all(text.as_bytes()).and_then(|()| opened.sync_all());
    written.with_context(|| format!("cannot write {}", file.display()))?;
    public_of(&read_key(file)?)
}

fn read_key(file: &Path) -> Result<Ed25519KeyPair> {
    let shown = file.display();
    let about = fs::metadata(file).with_context(|| format!("cannot read the key {shown}"))?;
    ensure!(
        about.mode() & 0o077 == 0,
        "the key {shown} has mode {:o}, and may be read by others: chmod 600 it, and make a new one if somebody did",
        about.mode() & 0o777
    );
    let bytes = small_file::read(file, KEY_MAX).with_context(|| format!("cannot read the key {shown}"))?;
    let document = BASE64_STANDARD.decode(bytes.trim_ascii()).ok();
    let key = document.and_then(|document| Ed25519KeyPair::from_pkcs8(&document).ok());
    key.with_context(|| format!("{shown} is no key: give a file that `hawkeye agent-key new` made"))
}

fn public_of(key: &Ed25519KeyPair) -> Result<PublicKey> {
    PublicKey::of_bytes(key.public_key().as_ref()).context("a public key has 32 bytes")
}

/// Signs a program; answers the signature's file.
fn sign(key: &Ed25519KeyPair, program: &Path) -> Result<PathBuf> {
    let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some(release) = Release::of_name(name) else {
        bail!("{} does not say what it is: name it like hawkeye-agent-1.2.3-x86_64", program.display());
    };
    let file = File::open(program).with_context(|| format!("cannot read {}", program.display()))?;
    let (sha256, bytes) = sha256_of(file).with_context(|| format!("cannot read {}", program.display()))?;
    ensure!(
        (1..=PROGRAM_MAX).contains(&bytes),
        "{} has {bytes} bytes, and agents take 1 to {PROGRAM_MAX}",
        program.display()
    );
    let signature = BASE64_STANDARD.encode(key.sign(release.signed_text(&sha256).as_bytes()));
    public_of(key)?.verify(&release, &sha256, &signature).map_err(anyhow::Error::msg)?;
    let path = program.with_file_name(release.signature_name());
    let new = path.with_extension("sig.new");
    let written = fs::write(&new, format!("{signature}\n")).and_then(|()| fs::rename(&new, &path));
    written.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_signs_what_agents_verify() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("key");
        let public = make(&file)?;
        assert_eq!(fs::metadata(&file)?.mode() & 0o777, 0o600);
        assert_eq!(public.to_string().parse::<PublicKey>().map_err(anyhow::Error::msg)?, public);
        let program = dir.path().join("hawkeye-agent-1.2.3-x86_64");
        fs::write(&program, "program")?;
        let signed = sign(&read_key(&file)?, &program)?;
        assert_eq!(signed, dir.path().join("hawkeye-agent-1.2.3-x86_64.sig"));
        let (sha256, _) = sha256_of(&b"program"[..])?;
        let release = Release::of_name("hawkeye-agent-1.2.3-x86_64").context("a name")?;
        assert_eq!(public.verify(&release, &sha256, &fs::read_to_string(&signed)?), Ok(()));
        Ok(())
    }

    #[test]
    fn wrong_files_are_told() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let at = |name: &str| dir.path().join(name);
        make(&at("key"))?;
        let check = |result: Result<String>, part: &str| {
            let error = format!("{:#}", result.expect_err(part));
            assert!(error.contains(part), "{error}");
        };
        check(make(&at("key")).map(|key| key.to_string()), "is there: give another file");
        check(make(&at("none/key")).map(|key| key.to_string()), "cannot make");
        let read = |name: &str| read_key(&at(name)).map(|_| String::new());
        check(read("none"), "cannot read the key");
        fs::write(at("other"), "no key")?;
        check(read("other"), "may be read by others");
        fs::set_permissions(at("other"), fs::Permissions::from_mode(0o600))?;
        check(read("other"), "is no key");
        let key = read_key(&at("key"))?;
        let signed = |name: &str| sign(&key, &at(name)).map(|path| path.display().to_string());
        check(signed("hawkeye-agent"), "name it like hawkeye-agent-1.2.3-x86_64");
        check(signed("hawkeye-agent-1.2.3-x86_64"), "cannot read");
        fs::write(at("hawkeye-agent-1.2.3-x86_64"), "")?;
        check(signed("hawkeye-agent-1.2.3-x86_64"), "has 0 bytes");
        Ok(())
    }
}
