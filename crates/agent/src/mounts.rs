//! Mounts: the space of each file system, of which any may hang.
//!
//! Why: `statvfs` on a mount whose server is gone does not come back, for hours. The original asks one after another,
//! so that no disk of the host is reported any more.
//! How: a blocking thread asks one mount after the other. Where an answer takes longer than [`ASK_TIMEOUT`] that
//! thread is left behind with its mount, and another one goes on with the rest. In later rounds a mount that is still
//! being asked is passed by, at no cost; once it answers, it is asked again.
//! Invariants: one round at a time; a mount that hangs holds one thread, [`HUNG_MAX`] of them at most.
//! Memory: the answers of a round, and the paths that are being asked.

use crate::collect::Fault;
use probe::{Mounted, Scope, Space};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// The time that a file system may take to say how large it is. A local one takes microseconds, a slow NFS server
/// some tens of milliseconds.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Mounts that may hang at the same time, each with a thread; with more of them none is asked. A guess: a host has a
/// handful of servers.
pub const HUNG_MAX: usize = 16;

type Ask = dyn Fn(&Path) -> Option<Space> + Send + Sync;

/// Asks mounts; shared by the report and by whoever looks.
pub struct Mounts {
    ask: Arc<Ask>,
    /// Paths that are being asked; between rounds, those that hang.
    asked: Arc<Mutex<BTreeSet<PathBuf>>>,
    turn: Semaphore,
}

/// Answers of a round.
#[derive(Default)]
pub struct Answers {
    pub spaces: Vec<(Mounted, Space)>,
    pub faults: Vec<Fault>,
}

impl Mounts {
    /// Mounts that the kernel is asked about.
    pub fn new() -> Mounts {
        Mounts::that_are_asked(Space::of)
    }

    fn that_are_asked(ask: impl Fn(&Path) -> Option<Space> + Send + Sync + 'static) -> Mounts {
        Mounts { ask: Arc::new(ask), asked: Arc::default(), turn: Semaphore::new(1) }
    }

    /// Asks every mount of the scope, and tells which did not answer.
    pub async fn ask(&self, scope: &Scope) -> Answers {
        let _turn = self.turn.acquire().await;
        let scope = scope.clone();
        let mounts = match tokio::task::spawn_blocking(move || scope.mounts()).await {
            Ok(Ok(mounts)) => mounts,
            Ok(Err(error)) => return Answers { faults: vec![Fault::of_file(&error)], ..Answers::default() },
            Err(error) => return failed(&error.to_string()),
        };
        let hanging = lock(&self.asked).clone();
        let (passed, mut rest): (Vec<Mounted>, Vec<Mounted>) =
            mounts.into_iter().partition(|mounted| hanging.contains(&mounted.path));
        let mut answers = Answers { spaces: Vec::new(), faults: passed.iter().map(hangs).collect() };
        while !rest.is_empty() {
            if lock(&self.asked).len() >= HUNG_MAX {
                answers.faults.extend(rest.iter().map(is_not_asked));
                break;
            }
            let said = self.ask_until_one_hangs(&rest).await;
            let mut after = rest.split_off(said.len());
            let of_rest = rest.into_iter().zip(said);
            answers.spaces.extend(of_rest.filter_map(|(mounted, space)| Some((mounted, space?))));
            answers.faults.extend(after.first().map(hangs));
            after.drain(..after.len().min(1));
            rest = after;
        }
        answers
    }

    /// What mounts say, in their order, up to the first that does not answer in time.
    async fn ask_until_one_hangs(&self, mounts: &[Mounted]) -> Vec<Option<Space>> {
        let paths: Vec<PathBuf> = mounts.iter().map(|mounted| mounted.path.clone()).collect();
        let (ask, asked) = (self.ask.clone(), self.asked.clone());
        let (answers, mut answered) = mpsc::channel(paths.len().max(1));
        tokio::task::spawn_blocking(move || {
            for path in paths {
                lock(&asked).insert(path.clone());
                let space = ask(&path);
                lock(&asked).remove(&path);
                // Nobody listens any more: another thread has the rest.
                if answers.try_send(space).is_err() {
                    return;
                }
            }
        });
        let mut said = Vec::new();
        while said.len() < mounts.len() {
            let Ok(Some(space)) = tokio::time::timeout(ASK_TIMEOUT, answered.recv()).await else { break };
            said.push(space);
        }
        said
    }
}

fn hangs(mounted: &Mounted) -> Fault {
    let why = format!("it does not say how large it is within {ASK_TIMEOUT:?}; is its server gone?");
    Fault { of: mounted.point(), why }
}

fn is_not_asked(mounted: &Mounted) -> Fault {
    Fault { of: mounted.point(), why: format!("it is not asked: {HUNG_MAX} others hang") }
}

fn failed(why: &str) -> Answers {
    let why = format!("it failed, which is a fault of the agent: {why}");
    Answers { spaces: Vec::new(), faults: vec![Fault { of: "df".into(), why }] }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::patience::until;
    use probe::Roots;
    use std::sync::mpsc::{Receiver, channel};

    fn scope(mounts: &[&str]) -> (tempfile::TempDir, Scope) {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(root.path().join("proc/1")).expect("directories");
        let line = |(i, point): (usize, &&str)| format!("{i} 1 0:{i} / {point} rw - nfs server:{point} rw\n");
        let text: String = mounts.iter().enumerate().map(line).collect();
        std::fs::write(root.path().join("proc/1/mountinfo"), text).expect("room");
        let scope = Scope {
            roots: Roots::new(root.path()),
            iface_prefixes: Vec::new(),
            virtual_ifaces: false,
            mount_points: Vec::new(),
            container_mounts: false,
        };
        (root, scope)
    }

    /// Mounts of which `hung` hang until the sender goes; and all that are asked.
    fn hanging(hung: &'static [&'static str]) -> (Mounts, std::sync::mpsc::Sender<()>, Arc<Mutex<Vec<String>>>) {
        let (release, gate) = channel::<()>();
        let (gate, asked): (Mutex<Receiver<()>>, Arc<Mutex<Vec<String>>>) = (Mutex::new(gate), Arc::default());
        let seen = asked.clone();
        let mounts = Mounts::that_are_asked(move |path| {
            let name = path.file_name()?.to_str()?;
            lock(&seen).push(name.to_string());
            if hung.contains(&name) {
                let _ = lock(&gate).recv();
            }
            Some(Space { bytes_total: 4, bytes_used: 1, bytes_free: 3, inodes_total: 0, inodes_free: 0 })
        });
        (mounts, release, asked)
    }

    fn points(answers: &Answers) -> (Vec<String>, Vec<&str>) {
        let spaces = answers.spaces.iter().map(|(mounted, _)| mounted.point()).collect();
        (spaces, answers.faults.iter().map(|fault| fault.of.as_str()).collect())
    }

    #[tokio::test]
    async fn a_mount_that_hangs_costs_itself() {
        let (_root, scope) = scope(&["/a", "/b", "/c"]);
        let (mounts, release, asked) = hanging(&["b"]);
        for _ in 0..3 {
            let answers = mounts.ask(&scope).await;
            assert_eq!(points(&answers), (vec!["/a".to_string(), "/c".into()], vec!["/b"]));
        }
        assert_eq!(lock(&asked).iter().filter(|name| *name == "b").count(), 1, "it holds one thread");
        // The server is back.
        drop(release);
        until("its answer", async || lock(&mounts.asked).is_empty()).await;
        assert_eq!(points(&mounts.ask(&scope).await), (vec!["/a".to_string(), "/b".into(), "/c".into()], vec![]));
    }

    #[tokio::test]
    async fn with_too_many_that_hang_none_is_asked() {
        let (_root, scope) = scope(&["/a", "/b"]);
        let (mounts, _release, asked) = hanging(&[]);
        lock(&mounts.asked).extend((0..HUNG_MAX).map(|i| PathBuf::from(format!("/hangs/{i}"))));
        let answers = mounts.ask(&scope).await;
        assert_eq!(points(&answers), (vec![], vec!["/a", "/b"]));
        assert!(lock(&asked).is_empty() && answers.faults[0].why.contains("others hang"));
    }

    #[tokio::test]
    async fn no_list_is_one_fault() {
        let (root, scope) = scope(&[]);
        std::fs::remove_dir_all(root.path().join("proc")).expect("it is there");
        let answers = Mounts::new().ask(&scope).await;
        assert_eq!((answers.spaces.len(), answers.faults.len()), (0, 1), "{:?}", answers.faults);
    }
}
