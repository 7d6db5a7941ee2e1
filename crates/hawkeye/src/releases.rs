//! Releases: programs of agents that this server has, for new hosts to download and for agents to be offered.
//!
//! Why: a host needs nothing but its server to get an agent, and a fleet is upgraded from one directory.
//! How: `agents_dir` has files `hawkeye-agent-<version>-<arch>`, each with its signature in `….sig` if it has one; the
//! directory is looked at again every [`LOOK_EACH`], and a file that is new or has changed is read for its digest. A
//! `hawkeye-agent` beside this program, as packages put it there, is for new hosts of this machine's kind while the
//! directory has none. Whoever copies a file in gives it its name last (`mv`), or a half is offered, and refused.
//! Invariants: nothing is opened but what [`Release::of_name`] reads as a name in that directory; nothing is verified
//! here, for no server has a key: agents do that.
//! Memory: some 300 bytes for each of at most [`FILES_MAX`] files.

use agent::release::{ARCH, PROGRAM_MAX, Release, SIGNATURE_MAX, Version};
use agent::signature::sha256_of;
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use stdx::small_file;

/// The time for which a look at the directory is believed.
const LOOK_EACH: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 10 });
/// Programs that are looked at: ten versions for six kinds of machines.
const FILES_MAX: usize = 64;
/// Names that a look reads: programs, signatures, and as much again that is neither.
const NAMES_MAX: usize = 4 * FILES_MAX;
/// Program of an agent that was installed beside this one.
const BESIDE: &str = "hawkeye-agent";

/// A program of an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// What it is; none for the one beside this program, which says no version.
    pub release: Option<Release>,
    pub path: PathBuf,
    pub size: u64,
    /// Digest of the file, in lower-case hexadecimal.
    pub sha256: String,
    /// Base64 of its signature; none for one that nobody has signed.
    pub signature: Option<String>,
    modified: Option<SystemTime>,
}

impl Program {
    /// Reads `bytes_max` bytes from `offset` on, or fewer where the file ends. A file that is another by now is an
    /// error.
    pub fn read_at(&self, offset: u64, bytes_max: usize) -> Result<Vec<u8>> {
        let file = File::open(&self.path).with_context(|| format!("cannot open {}", self.path.display()))?;
        let about = file.metadata()?;
        ensure!(
            about.len() == self.size && about.modified().ok() == self.modified,
            "{} has changed: ask again",
            self.path.display()
        );
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; bytes_max.min(left)];
        file.read_exact_at(&mut bytes, offset).with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok(bytes)
    }
}

/// Programs of a directory; clones share what is known.
#[derive(Clone)]
pub struct Releases {
    dir: Arc<PathBuf>,
    beside: Option<Arc<PathBuf>>,
    known: Arc<Mutex<Known>>,
    /// Held by whoever looks.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Known {
    looked: Option<Instant>,
    programs: Vec<Arc<Program>>,
}

impl Releases {
    /// Programs in `dir`, which need not be there, and the one beside this program.
    pub fn new(dir: &Path) -> Releases {
        let own = std::env::current_exe().ok();
        let beside = own.and_then(|own| Some(Arc::new(own.parent()?.join(BESIDE))));
        Releases { dir: Arc::new(dir.to_path_buf()), beside, known: Arc::default(), turn: Arc::default() }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What a new host gets: this version, or the newest.
    pub async fn for_download(&self, arch: &str, version: Option<Version>) -> Option<Arc<Program>> {
        let programs = self.programs().await;
        let fits = |program: &&Arc<Program>| {
            program.release.as_ref().is_some_and(|release| {
                release.arch() == arch && version.is_none_or(|version| version == release.version)
            })
        };
        let newest = programs.iter().filter(fits).max_by_key(|program| version_of(program));
        let beside = || programs.iter().find(|program| program.release.is_none() && arch == ARCH && version.is_none());
        newest.or_else(beside).cloned()
    }

    /// What an agent may be offered: what is signed, of this version, or the newest.
    pub async fn signed(&self, arch: &str, version: Option<Version>) -> Option<Arc<Program>> {
        let programs = self.programs().await;
        let fits = |program: &&Arc<Program>| {
            let is_wanted =
                |release: &Release| release.arch() == arch && version.is_none_or(|version| version == release.version);
            program.signature.is_some() && program.release.as_ref().is_some_and(is_wanted)
        };
        programs.iter().filter(fits).max_by_key(|program| version_of(program)).cloned()
    }

    /// Programs as they were a moment ago. While somebody else looks, what was found before is good enough.
    async fn programs(&self) -> Vec<Arc<Program>> {
        let (is_known, is_fresh, programs) = {
            let known = self.known();
            let age = known.looked.map(|looked| looked.elapsed());
            (age.is_some(), age.is_some_and(|age| age < LOOK_EACH), known.programs.clone())
        };
        if is_fresh {
            return programs;
        }
        let turn = match self.turn.clone().try_lock_owned() {
            Ok(turn) => turn,
            Err(_) if is_known => return programs,
            Err(_) => self.turn.clone().lock_owned().await,
        };
        let (dir, beside) = (self.dir.clone(), self.beside.clone());
        let looked =
            tokio::task::spawn_blocking(move || look(&dir, beside.as_deref().map(PathBuf::as_path), &programs));
        let Ok(found) = looked.await else { return Vec::new() };
        *self.known() = Known { looked: Some(Instant::now()), programs: found.clone() };
        drop(turn);
        found
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn version_of(program: &Program) -> Option<Version> {
    program.release.as_ref().map(|release| release.version)
}

/// Reads the directory. A file that is as it was in `before` is not read again.
fn look(dir: &Path, beside: Option<&Path>, before: &[Arc<Program>]) -> Vec<Arc<Program>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(dir).into_iter().flatten().take(NAMES_MAX);
    for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let Some(release) = Release::of_name(&name) else { continue };
        if found.len() == FILES_MAX {
            tracing::warn!(dir = %dir.display(), "more than {FILES_MAX} programs of agents: some are not looked at");
            break;
        }
        found.extend(look_at(&dir.join(&name), Some(release), before));
    }
    found.extend(beside.and_then(|path| look_at(path, None, before)));
    found
}

fn look_at(path: &Path, release: Option<Release>, before: &[Arc<Program>]) -> Option<Arc<Program>> {
    let about = fs::metadata(path).ok()?;
    if !about.is_file() || !(1..=PROGRAM_MAX).contains(&about.len()) {
        return None;
    }
    let (size, modified) = (about.len(), about.modified().ok());
    let signature = release.as_ref().and_then(|release| {
        let bytes = small_file::read(&path.with_file_name(release.signature_name()), SIGNATURE_MAX).ok()?;
        Some(String::from_utf8(bytes).ok()?.trim().to_string())
    });
    let same = before.iter().find(|known| known.path == path && known.size == size && known.modified == modified);
    if let Some(same) = same.filter(|same| same.signature == signature) {
        return Some(same.clone());
    }
    let (sha256, read) = match same {
        Some(same) => (same.sha256.clone(), size),
        None => File::open(path).and_then(sha256_of).ok()?,
    };
    // One that grows is looked at again when it is whole.
    (read == size).then(|| Arc::new(Program { release, path: path.to_path_buf(), size, sha256, signature, modified }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().expect(text)
    }

    fn put(dir: &Path, name: &str, content: &str) {
        fs::write(dir.join(name), content).expect("room");
    }

    #[tokio::test]
    async fn the_newest_by_number_and_no_other_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let releases = Releases::new(dir.path());
        assert!(releases.for_download("sparc64", None).await.is_none());
        for name in ["1.9.0-sparc64", "1.10.0-sparc64", "2.0.0-x86_64", "3.0-sparc64", "9.0.0-sparc64.sig", "9.0.0-"] {
            put(dir.path(), &format!("hawkeye-agent-{name}"), name);
        }
        put(dir.path(), "hawkeye-agent-9.9.9-sparc64", "");
        fs::create_dir(dir.path().join("hawkeye-agent-8.0.0-sparc64")).expect("room");
        let newest = releases.for_download("sparc64", None).await.expect("there are two");
        assert_eq!(newest.path, dir.path().join("hawkeye-agent-1.10.0-sparc64"));
        assert_eq!(newest.size, 14);
        let told = releases.for_download("sparc64", Some(version("1.9.0"))).await.expect("it is there");
        assert_eq!(told.path, dir.path().join("hawkeye-agent-1.9.0-sparc64"));
        assert!(releases.for_download("sparc64", Some(version("2.0.0"))).await.is_none());
        assert!(releases.for_download("../etc", None).await.is_none());
    }

    #[tokio::test]
    async fn only_what_is_signed_is_offered_and_changes_are_seen() {
        let dir = tempfile::tempdir().expect("a directory");
        let releases = Releases::new(dir.path());
        put(dir.path(), "hawkeye-agent-1.0.0-sparc64", "one");
        put(dir.path(), "hawkeye-agent-1.0.0-sparc64.sig", "c2ln\n");
        put(dir.path(), "hawkeye-agent-1.1.0-sparc64", "two");
        let offered = releases.signed("sparc64", None).await.expect("one is signed");
        assert_eq!((version_of(&offered), offered.signature.as_deref()), (Some(version("1.0.0")), Some("c2ln")));
        put(dir.path(), "hawkeye-agent-1.1.0-sparc64.sig", "c2lnMg==");
        let offered = releases.signed("sparc64", None).await.expect("two are signed");
        assert_eq!(version_of(&offered), Some(version("1.1.0")));
        let (digest, _) = sha256_of(&b"two"[..]).expect("in memory");
        assert_eq!(offered.sha256, digest);
        assert_eq!(offered.read_at(1, 100).expect("it is there"), b"wo");
        put(dir.path(), "hawkeye-agent-1.1.0-sparc64", "longer");
        assert!(offered.read_at(0, 100).expect_err("another file").to_string().contains("has changed"));
        let offered = releases.signed("sparc64", Some(version("1.1.0"))).await.expect("it is there");
        assert_eq!(offered.size, 6);
    }

    #[tokio::test]
    async fn the_program_beside_this_one_is_for_hosts_of_its_kind() {
        let dir = tempfile::tempdir().expect("a directory");
        let beside = dir.path().join("beside");
        put(dir.path(), "beside", "program");
        let releases = Releases { beside: Some(Arc::new(beside.clone())), ..Releases::new(&dir.path().join("none")) };
        let found = releases.for_download(ARCH, None).await.expect("it is there");
        assert_eq!((found.path.as_path(), &found.release), (beside.as_path(), &None));
        assert!(releases.for_download("sparc64", None).await.is_none());
        assert!(releases.for_download(ARCH, Some(version("1.0.0"))).await.is_none());
        assert!(releases.signed(ARCH, None).await.is_none());
    }
}
