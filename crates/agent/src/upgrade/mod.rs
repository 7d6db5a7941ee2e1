//! Upgrade: newer programs by the server's word, if this host's owner has switched that on.
//!
//! Why: a fleet is upgraded from one place, and a server that was taken must not get a program onto it: each is signed
//! by a key that no server has (`signature`), newer than what runs, and stays only if it is heard.
//! How: every ten minutes hbs is asked (`Hawkeye.Agent`). An offer is verified before a byte of it is fetched, for the
//! signature covers the digest; then it comes in parts (`Hawkeye.AgentPart`) into the state directory (`shelf`), is
//! asked for its version and for what it thinks of this configuration, and is put in its place. The process ends in
//! order, points that wait go to the buffer's disk, and the installed program begins anew (`launch`).
//! What root installed is never written to: a package of the distribution stays whole, and is what a new program that
//! hbs does not hear within [`STARTS_MAX`](shelf::STARTS_MAX) starts is given up for.
//! Invariants: nothing is taken that is not newer than what runs, whatever is signed. A fault costs this try, and is
//! told once, in the log and to hbs.
//! Memory: a part of at most [`PART_MAX`] bytes, while one is on its way.
//! Compat: Hawkeye's own; an original hbs does not know the calls, and is asked again each time.

mod launch;
mod shelf;

pub use launch::{Launcher, launch};

use crate::client::{CallError, Client};
use crate::collect::{Output, Program};
use crate::hand::Hand;
use crate::release::{ARCH, Release, Version};
use crate::signature::PublicKey;
use crate::upgrade_config::UpgradeConfig;
use anyhow::{Result, anyhow, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rand::RngExt;
use serde::Deserialize;
use serde_json::json;
use shelf::{Offer, Shelf, check_offer};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use supervisor::causes::line_of;
use tokio::sync::watch;
use tokio::time::Instant;

/// The time between two questions: a fleet is upgraded within half an hour, for five calls a minute per 50 hosts.
const ASK_EACH: Duration = Duration::from_secs(600);
/// The time between two questions of a program that was taken and has not been heard yet.
const PROVE_EACH: Duration = Duration::from_secs(15);
/// The time after which a program that was not heard begins anew, which counts as a start: hbs may be away as long.
const HEARD_WITHIN: Duration = Duration::from_secs(900);
/// Bytes of a part that are taken, and that each part but the last must have, so that a program is 2,048 calls at most.
const PART_MAX: usize = 256 << 10;
const PART_MIN: usize = 16 << 10;
/// The time that one piece of work on the disk may take; a part is written within milliseconds.
const DISK_TIMEOUT: Duration = Duration::from_secs(30);
/// The time that a new program may take to say its version, or what is wrong with the configuration.
const TRY_TIMEOUT: Duration = Duration::from_secs(20);
/// Tries to run a file that is still open elsewhere, and the time between two: a child becomes its program in a moment.
const BUSY_TRIES: u32 = 10;
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// Bytes of what a new program says of itself.
const SAID_MAX: usize = 4 << 10;

/// Counts since the start.
#[derive(Default)]
pub struct UpgradeCounters {
    /// Questions that hbs has answered.
    pub asked: AtomicU64,
    /// Offers that were not taken, and questions without an answer.
    pub failures: AtomicU64,
}

/// Whoever asks hbs for a newer program, and takes it.
pub struct Taker {
    /// Makes a connection to hbs, which is there for one question and its parts.
    pub client: Box<dyn Fn() -> Client + Send + Sync>,
    pub hostname: String,
    pub key: PublicKey,
    pub shelf: Shelf,
    /// The arguments of this process that say where the configuration is.
    pub arguments: Vec<String>,
    pub launcher: Launcher,
    pub counters: Arc<UpgradeCounters>,
    /// Ends the process in order.
    pub exit: Arc<watch::Sender<bool>>,
    state: State,
}

/// What a taker knows from one question to the next.
#[derive(Default)]
struct State {
    hand: Hand,
    /// What was told last: it is told once.
    trouble: String,
    /// Whether hbs was told of it.
    is_told: bool,
}

impl Taker {
    /// Someone who asks hbs over connections that `client` makes.
    pub fn new(
        client: impl Fn() -> Client + Send + Sync + 'static,
        hostname: &str,
        (config, key): (&UpgradeConfig, PublicKey),
        arguments: Vec<String>,
        launcher: Launcher,
        counters: Arc<UpgradeCounters>,
        exit: Arc<watch::Sender<bool>>,
    ) -> Taker {
        let (client, hostname, shelf) = (Box::new(client), hostname.to_string(), Shelf::new(&config.dir));
        Taker { client, hostname, key, shelf, arguments, launcher, counters, exit, state: State::default() }
    }

    /// Asks until `shutdown` turns true.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => {}
            () = self.ask_for_ever() => {}
        }
    }

    async fn ask_for_ever(&mut self) {
        if self.launcher.is_taken && !self.on_disk(|shelf| shelf.is_proven(Version::own())).await.unwrap_or(false) {
            self.be_heard().await;
        } else {
            // Hosts that begin together, after a fault of their power, do not ask together.
            let first = rand::rng().random_range(Duration::ZERO..ASK_EACH);
            tokio::time::sleep(first).await;
        }
        loop {
            match self.ask().await {
                Ok(false) => self.state.trouble.clear(),
                Ok(true) => return self.begin_anew().await,
                Err(error) => self.tell(&line_of(&*error)),
            }
            tokio::time::sleep(ASK_EACH).await;
        }
    }

    /// Asks until hbs answers, which proves this program; begins anew when that takes too long.
    async fn be_heard(&mut self) {
        let until = Instant::now() + HEARD_WITHIN;
        loop {
            let before = self.counters.asked.load(Relaxed);
            match self.offered(&mut (self.client)()).await {
                Ok(_) => break,
                // What it answers is a matter of the next question.
                Err(_) if self.counters.asked.load(Relaxed) > before => break,
                Err(error) => self.tell(&line_of(&*error)),
            }
            if Instant::now() >= until {
                tracing::error!(version = %Version::own(), "hbs has not heard this new program: starting again");
                return self.begin_anew().await;
            }
            tokio::time::sleep(PROVE_EACH).await;
        }
        let version = Version::own();
        let noted = self.on_disk(move |shelf| shelf.prove(version)).await;
        match noted {
            Ok(Ok(())) => tracing::info!(%version, "this new program works: hbs has heard it"),
            Ok(Err(error)) => self.tell(&format!("cannot note that this program works: {error}")),
            Err(error) => self.tell(&line_of(&*error)),
        }
    }

    /// Ends the process, for the installed program to begin anew, and waits to be ended with it.
    async fn begin_anew(&self) {
        self.launcher.ask();
        self.exit.send_replace(true);
        std::future::pending().await
    }

    /// Tells a trouble that is new.
    fn tell(&mut self, trouble: &str) {
        self.counters.failures.fetch_add(1, Relaxed);
        if self.state.trouble != trouble {
            tracing::warn!(trouble, "no upgrade of this agent");
            self.state.trouble = trouble.to_string();
            self.state.is_told = false;
        }
    }

    /// Asks once, and takes what is offered; true when a newer program is in its place.
    async fn ask(&mut self) -> Result<bool> {
        let mut client = (self.client)();
        let Some(offer) = self.offered(&mut client).await? else { return Ok(false) };
        check_offer(&offer, Version::own(), ARCH, &self.key).map_err(anyhow::Error::msg)?;
        let version = offer.release.version;
        let refused = self.on_disk(Shelf::refused).await?;
        if let Some((_, why)) = refused.iter().find(|(refused, _)| *refused == version) {
            let file = self.shelf.refused_path();
            bail!(
                "hbs offers {version}, which was refused here ({why}): delete its line in {} to try again",
                file.display()
            );
        }
        let (installed, wanted) = (self.launcher.version, offer.clone());
        self.on_disk(move |shelf| shelf.tidy(installed, Version::own(), Some(&wanted))).await?;
        self.fetch(&mut client, &offer).await?;
        drop(client);
        self.try_out(&offer).await?;
        let placed = offer.clone();
        self.on_disk(move |shelf| shelf.put(&placed)).await?.map_err(|error| self.disk_error(&error))?;
        tracing::info!(from = %Version::own(), to = %version, "took a newer program: starting it");
        Ok(true)
    }

    /// What hbs offers; an hbs that knows nothing of programs offers none.
    async fn offered(&mut self, client: &mut Client) -> Result<Option<Offer>> {
        let trouble = if self.state.is_told { "" } else { &self.state.trouble };
        let param = json!({
            "Hostname": self.hostname,
            "Version": Version::own().to_string(),
            "Arch": ARCH,
            "Trouble": trouble,
        });
        match client.call("Hawkeye.Agent", param.to_string().as_bytes()).await {
            Ok(result) => {
                self.counters.asked.fetch_add(1, Relaxed);
                self.state.is_told = true;
                read_offer(&result)
            }
            Err(CallError::Refused(text)) if text.contains("can't find") => Ok(None),
            Err(error) => bail!("Hawkeye.Agent: {error}"),
        }
    }

    /// Fetches what is not here yet of an offer's program.
    async fn fetch(&mut self, client: &mut Client, offer: &Offer) -> Result<()> {
        let wanted = offer.clone();
        let mut offset =
            self.on_disk(move |shelf| shelf.bytes_of(&wanted)).await?.map_err(|error| self.disk_error(&error))?;
        while offset < offer.size {
            let part = part_at(client, offer, offset).await?;
            let (at, wanted, bytes) = (offset, offer.clone(), part.len() as u64);
            self.on_disk(move |shelf| shelf.append(&wanted, at, &part))
                .await?
                .map_err(|error| self.disk_error(&error))?;
            offset += bytes;
        }
        Ok(())
    }

    /// Looks whether a program that is here as a whole is what it is said to be, and takes this host's configuration.
    /// One that says otherwise is refused for good.
    async fn try_out(&mut self, offer: &Offer) -> Result<()> {
        let (release, wanted) = (&offer.release, offer.clone());
        let path = self.on_disk(move |shelf| shelf.complete(&wanted)).await?.map_err(anyhow::Error::msg)?;
        let program = Program::new(&path.display().to_string());
        let said = try_run(&program, &["--version"]).await?;
        let expected = format!("hawkeye-agent {}", release.version);
        if said.code != Some(0) || said.text.trim_end() != expected {
            return self
                .refuse(offer, &format!("says {:?} for its version, want {expected:?}", said.text.trim_end()))
                .await;
        }
        let arguments = ["check-config"].into_iter().chain(self.arguments.iter().map(String::as_str));
        let arguments: Vec<&str> = arguments.collect();
        let said = try_run(&program, &arguments).await?;
        if said.code != Some(0) {
            return self.refuse(offer, &format!("does not take this host's configuration: {}", said.complaint)).await;
        }
        Ok(())
    }

    /// Refuses a version for good; the error says why.
    async fn refuse(&mut self, offer: &Offer, why: &str) -> Result<()> {
        let (version, reason) = (offer.release.version, why.to_string());
        let noted = self.on_disk(move |shelf| shelf.refuse(version, &reason)).await?;
        noted.map_err(|error| self.disk_error(&error))?;
        bail!("{} {why}: it is not tried again", offer.release.file_name())
    }

    fn disk_error(&self, error: &io::Error) -> anyhow::Error {
        let dir = self.shelf.refused_path();
        anyhow!("cannot write to {}: {error}", dir.parent().unwrap_or(&dir).display())
    }

    /// Works on the shelf, on a thread that may hang with its disk.
    async fn on_disk<T: Send + 'static>(&self, work: impl FnOnce(&Shelf) -> T + Send + 'static) -> Result<T> {
        let shelf = self.shelf.clone();
        let done = self.state.hand.run(Instant::now() + DISK_TIMEOUT, move || work(&shelf)).await;
        done.ok_or_else(|| anyhow!("the disk of upgrade.dir did not answer within {DISK_TIMEOUT:?}"))
    }
}

/// Runs a program that was just written. A child that was being started then may still hold the file open for writing,
/// for as long as it takes to become its own program.
async fn try_run(program: &Program, arguments: &[&str]) -> Result<Output> {
    for _ in 1..BUSY_TRIES {
        match program.run(arguments, TRY_TIMEOUT, SAID_MAX).await {
            Err(error) if error.contains("Text file busy") => tokio::time::sleep(BUSY_PAUSE).await,
            said => return said.map_err(anyhow::Error::msg),
        }
    }
    program.run(arguments, TRY_TIMEOUT, SAID_MAX).await.map_err(anyhow::Error::msg)
}

/// Asks for the part at `offset` of an offer's program.
async fn part_at(client: &mut Client, offer: &Offer, offset: u64) -> Result<Vec<u8>> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    struct Part {
        data: String,
    }
    let param = json!({
        "Version": offer.release.version.to_string(),
        "Arch": offer.release.arch(),
        "Sha256": offer.sha256,
        "Offset": offset,
    });
    let result = client.call("Hawkeye.AgentPart", param.to_string().as_bytes()).await;
    let result = result.map_err(|error| anyhow!("Hawkeye.AgentPart: {error}"))?;
    let part: Part =
        serde_json::from_slice(&result).map_err(|_| anyhow!("Hawkeye.AgentPart: the result is no part"))?;
    let bytes = BASE64_STANDARD.decode(part.data).map_err(|_| anyhow!("Hawkeye.AgentPart: Data is no base64"))?;
    let left = offer.size - offset;
    let least = left.min(PART_MIN as u64);
    ensure!(
        bytes.len() <= PART_MAX && (least..=left).contains(&(bytes.len() as u64)),
        "Hawkeye.AgentPart: {} bytes at {offset} of {}, want {least} to {}",
        bytes.len(),
        offer.size,
        left.min(PART_MAX as u64)
    );
    Ok(bytes)
}

/// Reads the answer to `Hawkeye.Agent`; one without a version is no offer.
fn read_offer(result: &[u8]) -> Result<Option<Offer>> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    struct Answer {
        version: String,
        arch: String,
        size: u64,
        sha256: String,
        signature: String,
    }
    let answer: Option<Answer> =
        serde_json::from_slice(result).map_err(|_| anyhow!("Hawkeye.Agent: the result is no offer"))?;
    let Some(answer) = answer.filter(|answer| !answer.version.is_empty()) else { return Ok(None) };
    let version = answer.version.parse().map_err(|error| anyhow!("Hawkeye.Agent: {error}"))?;
    let release = Release::new(version, &answer.arch).map_err(|error| anyhow!("Hawkeye.Agent: {error}"))?;
    Ok(Some(Offer { release, size: answer.size, sha256: answer.sha256, signature: answer.signature }))
}

#[cfg(test)]
mod tests;
