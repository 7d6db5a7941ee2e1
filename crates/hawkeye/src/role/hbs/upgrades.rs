//! Upgrades: newer programs for agents that take them, by the site's word (`hbs.agent_upgrade`).
//!
//! How: `Hawkeye.Agent` says what a host may take, if it is older and its name falls into the share of hosts that are
//! asked (`hbs.agent_upgrade_percent`: the same hosts each time, so a share that grows keeps those that have it);
//! `Hawkeye.AgentPart` hands out its bytes.
//! Invariants: nothing older than what a host has is offered; only what is signed is, and the host verifies that.
//! Memory: [`PARTS_MAX`] parts of [`PART_BYTES`] at once; who comes later waits.
//! Compat: Hawkeye's own; original agents do not ask.

use crate::config::{HbsConfig, Wanted};
use crate::releases::Releases;
use agent::release::Version;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use net::seldom::Seldom;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use supervisor::causes::line_of;
use tokio::sync::Semaphore;

/// Bytes of a part: some 80 calls for a program, and little for an agent to hold.
const PART_BYTES: usize = 64 << 10;
/// Parts that are read at once: what a disk does side by side.
const PARTS_MAX: usize = 16;
/// Bytes of what an agent says of its trouble that reach the log.
const TROUBLE_BYTES: usize = 300;

/// What agents are told of newer programs; clones share it.
#[derive(Clone)]
pub struct Upgrades(Arc<Inner>);

struct Inner {
    releases: Releases,
    wanted: Option<Wanted>,
    percent: u8,
    places: Semaphore,
    /// Agents that said why they take no newer program.
    troubles: AtomicU64,
    said: Seldom,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Question {
    hostname: String,
    version: String,
    arch: String,
    trouble: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct PartQuestion {
    version: String,
    arch: String,
    sha256: String,
    offset: u64,
}

impl Upgrades {
    /// Programs of `releases`, offered as the configuration says.
    pub fn new(releases: Releases, config: &HbsConfig) -> Upgrades {
        let (wanted, percent) = (config.wanted(), config.agent_upgrade_percent);
        let places = Semaphore::new(PARTS_MAX);
        let (troubles, said) = (AtomicU64::new(0), Seldom::default());
        Upgrades(Arc::new(Inner { releases, wanted, percent, places, troubles, said }))
    }

    /// Agents that said why they take no newer program, since the start.
    pub fn troubles(&self) -> u64 {
        self.0.troubles.load(Relaxed)
    }

    /// Answers `Hawkeye.Agent`.
    pub async fn offer(&self, param: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let question: Question = read(param)?;
        self.note(&question);
        let offered = self.offered(&question).await;
        let nothing = || json!({ "Version": "", "Arch": "", "Size": 0, "Sha256": "", "Signature": "" });
        out.extend_from_slice(offered.unwrap_or_else(nothing).to_string().as_bytes());
        Ok(())
    }

    async fn offered(&self, question: &Question) -> Option<serde_json::Value> {
        let wanted = self.0.wanted.as_ref()?;
        let own: Version = question.version.parse().ok()?;
        if !is_asked(&question.hostname, self.0.percent) {
            return None;
        }
        let program = self.0.releases.signed(&question.arch, wanted.version()).await?;
        let release = program.release.as_ref().filter(|release| release.version > own)?;
        Some(json!({
            "Version": release.version.to_string(),
            "Arch": release.arch(),
            "Size": program.size,
            "Sha256": program.sha256,
            "Signature": program.signature,
        }))
    }

    /// Answers `Hawkeye.AgentPart`.
    pub async fn part(&self, param: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let question: PartQuestion = read(param)?;
        let version = question.version.parse::<Version>()?;
        let program = self.0.releases.signed(&question.arch, Some(version)).await;
        let program = program.filter(|program| program.sha256 == question.sha256);
        let program = program.ok_or("there is no such program any more: ask for an offer again")?;
        // Nobody closes it.
        let _place = self.0.places.acquire().await.map_err(|error| error.to_string())?;
        let read = tokio::task::spawn_blocking(move || program.read_at(question.offset, PART_BYTES)).await;
        let bytes = read.map_err(|error| error.to_string())?.map_err(|error| line_of(&*error))?;
        out.extend_from_slice(b"{\"Data\":\"");
        out.extend_from_slice(BASE64_STANDARD.encode(bytes).as_bytes());
        out.extend_from_slice(b"\"}");
        Ok(())
    }

    /// Tells a host's trouble, one a minute; the figure has the others.
    fn note(&self, question: &Question) {
        if question.trouble.is_empty() {
            return;
        }
        self.0.troubles.fetch_add(1, Relaxed);
        if self.0.said.may_say() {
            let trouble: String = question.trouble.chars().take(TROUBLE_BYTES).collect();
            tracing::warn!(
                hostname = question.hostname,
                version = question.version,
                trouble,
                "an agent is not upgraded"
            );
        }
    }
}

fn read<'q, T: Deserialize<'q>>(param: &'q [u8]) -> Result<T, String> {
    serde_json::from_slice(param).map_err(|error| format!("the parameter is no question: {error}"))
}

/// Whether a host is among the first `percent` of a hundred, by its name.
fn is_asked(hostname: &str, percent: u8) -> bool {
    let sum = Sha256::digest(hostname);
    let number = u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]]);
    number % 100 < u32::from(percent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::fs;

    fn upgrades(dir: &std::path::Path, wanted: &str, percent: u8) -> Upgrades {
        let config = HbsConfig { agent_upgrade: wanted.into(), agent_upgrade_percent: percent, ..HbsConfig::default() };
        Upgrades::new(Releases::new(dir), &config)
    }

    async fn ask(upgrades: &Upgrades, version: &str) -> Value {
        let param = json!({ "Hostname": "web-01", "Version": version, "Arch": "sparc64", "Trouble": "" }).to_string();
        let mut out = Vec::new();
        upgrades.offer(param.as_bytes(), &mut out).await.expect("a question");
        serde_json::from_slice(&out).expect("JSON")
    }

    fn put(dir: &std::path::Path, version: &str, program: &[u8]) {
        let name = format!("hawkeye-agent-{version}-sparc64");
        fs::write(dir.join(&name), program).expect("room");
        fs::write(dir.join(format!("{name}.sig")), "c2ln").expect("room");
    }

    #[tokio::test]
    async fn offers_what_is_newer_as_far_as_that_is_switched_on() {
        let dir = tempfile::tempdir().expect("a directory");
        put(dir.path(), "1.9.0", b"old");
        put(dir.path(), "1.10.0", b"new");
        let check = async |wanted: &str, percent: u8, own: &str, version: &str| {
            let offered = ask(&upgrades(dir.path(), wanted, percent), own).await;
            assert_eq!(offered["Version"], version, "{wanted} {percent} {own}: {offered}");
        };
        check("newest", 100, "1.0.0", "1.10.0").await;
        check("newest", 100, "1.10.0", "").await;
        check("newest", 100, "1.11.0", "").await;
        check("newest", 100, "nonsense", "").await;
        check("newest", 0, "1.0.0", "").await;
        check("1.9.0", 100, "1.0.0", "1.9.0").await;
        check("1.9.0", 100, "1.9.0", "").await;
        check("1.9.5", 100, "1.0.0", "").await;
        check("", 100, "1.0.0", "").await;
    }

    #[tokio::test]
    async fn hands_out_the_bytes_of_what_was_offered() {
        let dir = tempfile::tempdir().expect("a directory");
        let program: Vec<u8> = (0..PART_BYTES + 100).map(|at| (at % 251) as u8).collect();
        put(dir.path(), "2.0.0", &program);
        let upgrades = upgrades(dir.path(), "newest", 100);
        let offer = ask(&upgrades, "1.0.0").await;
        assert_eq!((&offer["Size"], &offer["Signature"]), (&json!(program.len()), &json!("c2ln")));
        let part = async |offset: u64, sha256: &Value| {
            let param =
                json!({ "Version": "2.0.0", "Arch": "sparc64", "Sha256": sha256, "Offset": offset }).to_string();
            let mut out = Vec::new();
            upgrades.part(param.as_bytes(), &mut out).await.map(|()| {
                let answer: Value = serde_json::from_slice(&out).expect("JSON");
                BASE64_STANDARD.decode(answer["Data"].as_str().expect("a text")).expect("base64")
            })
        };
        let first = part(0, &offer["Sha256"]).await.expect("it is there");
        let rest = part(first.len() as u64, &offer["Sha256"]).await.expect("it is there");
        assert_eq!([first, rest].concat(), program);
        assert_eq!(part(u64::MAX, &offer["Sha256"]).await, Ok(Vec::new()));
        let error = part(0, &json!("0".repeat(64))).await.expect_err("another file");
        assert!(error.contains("ask for an offer again"), "{error}");
    }

    #[test]
    fn a_share_of_hosts_grows_by_hosts_that_stay() {
        let asked =
            |percent: u8| -> Vec<u32> { (0..1000).filter(|n| is_asked(&format!("web-{n}"), percent)).collect() };
        let (few, many) = (asked(10), asked(50));
        assert!((60..140).contains(&few.len()) && (420..580).contains(&many.len()), "{} {}", few.len(), many.len());
        assert!(few.iter().all(|host| many.contains(host)));
        assert_eq!((asked(0).len(), asked(100).len()), (0, 1000));
    }

    #[tokio::test]
    async fn troubles_are_counted() {
        let upgrades = upgrades(std::path::Path::new("/nowhere"), "newest", 100);
        let mut out = Vec::new();
        let param = json!({ "Hostname": "h", "Trouble": "no room" }).to_string();
        upgrades.offer(param.as_bytes(), &mut out).await.expect("a question");
        assert_eq!(upgrades.troubles(), 1);
        assert!(upgrades.offer(b"1", &mut out).await.is_err());
    }
}
