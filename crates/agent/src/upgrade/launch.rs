//! Launch: which program a start becomes: the one that root installed, or a newer one that was taken.
//!
//! How: the installed program begins each start. It looks at the shelf, verifies the newest program, notes the start
//! and becomes that program by `execve`, in the same process with the same arguments; [`LAUNCHER`] tells it who it was
//! started by. A program that has had [`STARTS_MAX`] starts without being heard by hbs is refused for ever, and the
//! next newest, or the installed one, runs in its place.
//! Invariants: of the configuration only section `upgrade` is looked at, so that a file with keys that only the newer
//! program knows does not end the older one. Nothing here ends a start: what is wrong is told, and the installed
//! program runs.

use super::shelf::{STARTS_MAX, Shelf};
use crate::release::{ARCH, Release, Version};
use crate::signature::PublicKey;
use crate::upgrade_config::UpgradeConfig;
use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The variable by which a program that was taken knows the path and the version of the installed one.
const LAUNCHER: &str = "HAWKEYE_AGENT_LAUNCHER";

/// The installed program, from a process that may become another.
#[derive(Clone, Debug)]
pub struct Launcher {
    path: PathBuf,
    /// The version of the installed program.
    pub version: Version,
    /// Whether this process runs a program that was taken.
    pub is_taken: bool,
    is_asked: Arc<AtomicBool>,
}

impl Launcher {
    pub(super) fn new(path: &Path, version: Version, is_taken: bool) -> Launcher {
        Launcher { path: path.to_path_buf(), version, is_taken, is_asked: Arc::default() }
    }

    /// The launcher that has started this process, by the text that it left.
    fn of_variable(text: &str) -> Option<Launcher> {
        let (version, path) = text.split_once(' ')?;
        Some(Launcher::new(Path::new(path), version.parse().ok()?, true))
    }

    /// Has the process begin anew once it has ended in order.
    pub fn ask(&self) {
        self.is_asked.store(true, Ordering::Release);
    }

    /// Begins the start anew if that was asked for. Answers why it could not.
    pub fn begin_anew(&self) -> Option<String> {
        if !self.is_asked.load(Ordering::Acquire) {
            return None;
        }
        let mut command = Command::new(&self.path);
        let error = command.args(arguments()).env_remove(LAUNCHER).exec();
        Some(format!("cannot start {} again: {error}", self.path.display()))
    }
}

fn arguments() -> impl Iterator<Item = OsString> {
    env::args_os().skip(1)
}

/// Becomes the newest program of the shelf that may run, and does not return then. Else answers who is to be asked when
/// a newer program was taken, and what is to be told; no launcher where upgrades are off.
pub fn launch(config: Option<UpgradeConfig>) -> (Option<Launcher>, Vec<String>) {
    if let Some(launcher) = env::var(LAUNCHER).ok().and_then(|text| Launcher::of_variable(&text)) {
        return (Some(launcher), Vec::new());
    }
    let Some((config, key)) = config.and_then(|config| config.key().map(|key| (config, key))) else {
        return (None, Vec::new());
    };
    let own = match env::current_exe() {
        Ok(path) => path,
        Err(error) => return (None, vec![format!("cannot tell where this program is, so none is taken: {error}")]),
    };
    let launcher = Launcher::new(&own, Version::own(), false);
    let (shelf, mut told) = (Shelf::new(&config.dir), Vec::new());
    let mut found = shelf.newer(launcher.version, ARCH).into_iter();
    while let Some((release, path)) = choose(&shelf, &key, &mut found, &mut told) {
        let left = format!("{} {}", launcher.version, own.display());
        let error = Command::new(&path).args(arguments()).env(LAUNCHER, left).exec();
        refuse(&shelf, &release, &format!("cannot be started: {error}"), &mut told);
    }
    (Some(launcher), told)
}

/// The next program that may be started, whose start is noted by that.
fn choose(
    shelf: &Shelf,
    key: &PublicKey,
    found: &mut impl Iterator<Item = Release>,
    told: &mut Vec<String>,
) -> Option<(Release, PathBuf)> {
    found.find_map(|release| match may_start(shelf, &release, key) {
        Ok(path) => Some((release, path)),
        Err(Why::Refused(why)) => {
            refuse(shelf, &release, &why, told);
            None
        }
        Err(Why::Unusable(why)) => {
            told.push(why);
            None
        }
    })
}

/// Why a program of the shelf is not started.
#[derive(Debug, PartialEq)]
enum Why {
    /// The program had its chances.
    Refused(String),
    /// The program is not whole, or its start cannot be noted.
    Unusable(String),
}

/// Verifies a program and notes its start.
fn may_start(shelf: &Shelf, release: &Release, key: &PublicKey) -> Result<PathBuf, Why> {
    let path = shelf.verified(release, key).map_err(|why| {
        shelf.discard(release);
        Why::Unusable(format!("{why}; it was removed"))
    })?;
    let starts = shelf.begin(release.version).map_err(|error| {
        Why::Unusable(format!("{} is not started, for its start cannot be noted: {error}", release.file_name()))
    })?;
    if starts > STARTS_MAX {
        return Err(Why::Refused(format!("was not heard by hbs after {STARTS_MAX} starts")));
    }
    Ok(path)
}

fn refuse(shelf: &Shelf, release: &Release, why: &str, told: &mut Vec<String>) {
    let name = release.file_name();
    told.push(match shelf.refuse(release.version, why) {
        Ok(()) => format!(
            "{name} {why}: it is not tried again, unless its line in {} is deleted",
            shelf.refused_path().display()
        ),
        Err(error) => format!("{name} {why}, which cannot be noted: {error}"),
    });
}
