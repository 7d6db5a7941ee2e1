//! Repository: the git repository that the plugin directory is a clone of.
//!
//! How: `update` clones or pulls, `reset` takes back what was changed in the directory, when somebody asks for it;
//! nothing is pulled by itself. `version` is the commit, which hbs is told with each heartbeat.
//! Invariants: one git at a time; it asks nobody for a password, and has its time ([`UPDATE_TIMEOUT`],
//! [`VERSION_TIMEOUT`]), at whose end it may remove its locks before it is killed; whoever asked may go away meanwhile.
//! Words of git are handed on without the user and password of the repository's address. A git that the kernel still
//! holds is not started a second time.
//! Compat: texts of answers are the original's, with git's last words added to an error. git runs with the agent's own
//! rights: a directory of somebody else is refused by git itself ("dubious ownership"), whose words say what to do.

use super::child::{Child, Ended, Limits, Output};
use crate::hand::Hand;
use crate::plugin_config::PluginConfig;
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::process::Command;
use tokio::time::{Instant, sleep_until};

/// The time of a clone, pull or reset. A guess: plugins are some MB of text, over the slowest line of a fleet.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(300);
/// The time of reading the commit, which is milliseconds, so that a heartbeat does not wait longer for a directory that
/// hangs.
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that git may print; a pull prints a line for each file that has changed.
const OUTPUT_MAX: usize = 1 << 20;
/// Bytes of git's errors that are kept, of which the last line says why.
const ERRORS_KEPT: usize = 16 << 10;
/// Characters of git's words in an answer.
const WORDS_MAX: usize = 300;
/// Width of the column for the version in Open-Falcon's table of hosts.
const VERSION_MAX: usize = 128;
/// Variables that would lead git to another repository, e.g. where the agent was started by a hook.
const LEADING_ELSEWHERE: [&str; 3] = ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"];
const DOES_NOT_ANSWER: &str = "the plugin directory does not answer: look for a mount that hangs";

/// Access to the repository; clones share it.
#[derive(Clone)]
pub struct Repository {
    hand: Hand,
    /// The turn for whoever changes the directory.
    changing: Arc<tokio::sync::Mutex<()>>,
    /// The turn for git, with a git that was killed and had not ended.
    turn: Arc<tokio::sync::Mutex<Option<Child>>>,
    /// The version that was told last.
    told: Arc<Mutex<String>>,
}

impl Repository {
    /// Nothing is known of the repository yet.
    pub fn new(hand: Hand) -> Repository {
        let told = Arc::new(Mutex::new("Error:not read yet".to_string()));
        Repository { hand, changing: Arc::default(), turn: Arc::default(), told }
    }

    /// Clones the repository, or pulls where the directory exists; answers the original's text.
    pub async fn update(&self, config: &PluginConfig) -> String {
        let (repository, config) = (self.clone(), config.clone());
        self.at_once(async move { repository.try_update(&config).await }).await
    }

    /// Takes back what was changed in the directory, where it exists; answers the original's text.
    pub async fn reset(&self, config: &PluginConfig) -> String {
        let (repository, config) = (self.clone(), config.clone());
        self.at_once(async move {
            if !repository.exists(&config.dir).await? {
                return Ok(());
            }
            let mut turn = repository.turn.lock().await;
            let done = repository.git(&mut turn, &["reset", "--hard"], &config.dir, UPDATE_TIMEOUT).await;
            done.map(drop)
                .map_err(|error| format!("git reset --hard in dir:{} fail. error: {error}", config.dir.display()))
        })
        .await
    }

    /// Commit of the directory, or why there is none, in the original's words.
    pub async fn version(&self, config: &PluginConfig) -> String {
        // While git is at work the commit changes: the next heartbeat tells it.
        if let Ok(mut turn) = self.turn.try_lock() {
            let version = self.read_version(&mut turn, &config.dir).await;
            *self.told.lock().expect("nothing panics while this is locked") = version;
        }
        self.told.lock().expect("nothing panics while this is locked").clone()
    }

    async fn read_version(&self, turn: &mut Option<Child>, dir: &Path) -> String {
        match self.exists(dir).await {
            Ok(false) => return "plugin dir not existent".to_string(),
            Err(error) => return format!("Error:{error}"),
            Ok(true) => {}
        }
        match self.git(turn, &["rev-parse", "HEAD"], dir, VERSION_TIMEOUT).await {
            Ok(commit) => commit.trim().chars().take(VERSION_MAX).collect(),
            Err(GitError { what, .. }) => format!("Error:{what}").chars().take(VERSION_MAX).collect(),
        }
    }

    async fn try_update(&self, config: &PluginConfig) -> Result<(), String> {
        let dir = &config.dir;
        let masked = |error: GitError| without_secret(&error.to_string(), &config.git);
        let mut turn = self.turn.lock().await;
        if self.exists(dir).await? {
            let done = self.git(&mut turn, &["pull"], dir, UPDATE_TIMEOUT).await;
            return done
                .map(drop)
                .map_err(|error| format!("git pull in dir:{} fail. error: {}", dir.display(), masked(error)));
        }
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let failed = |error: String| format!("git clone in dir:{} fail. error: {error}", parent.display());
        let Some(name) = dir.file_name().map(|name| name.to_string_lossy().into_owned()) else {
            return Err(failed(format!("plugin.dir is {dir:?}: give a directory that can be made")));
        };
        if config.git.is_empty() {
            return Err(failed("plugin.git is \"\": name the repository".into()));
        }
        self.make_folder(parent).await.map_err(failed)?;
        let done = self.git(&mut turn, &["clone", "--", &config.git, &name], parent, UPDATE_TIMEOUT).await;
        done.map(drop).map_err(|error| failed(masked(error)))
    }

    /// Does the work to its end, whether somebody waits for the answer or not; refuses while other work is under way.
    async fn at_once(&self, work: impl Future<Output = Result<(), String>> + Send + 'static) -> String {
        let Ok(changing) = self.changing.clone().try_lock_owned() else {
            return "git is at work already: ask again when it is done".to_string();
        };
        let work = async move {
            let done = work.await;
            drop(changing);
            done
        };
        match tokio::spawn(work).await {
            Ok(Ok(())) => "success".to_string(),
            Ok(Err(text)) => {
                tracing::warn!(error = text, "the plugin repository is as it was");
                text
            }
            Err(error) => format!("the agent stops: {error}"),
        }
    }

    async fn exists(&self, dir: &Path) -> Result<bool, String> {
        let dir = dir.to_path_buf();
        let found = self.hand.run(Instant::now() + VERSION_TIMEOUT, move || fs::exists(dir)).await;
        found.ok_or(DOES_NOT_ANSWER)?.map_err(|error| error.to_string())
    }

    async fn make_folder(&self, folder: &Path) -> Result<(), String> {
        let folder = folder.to_path_buf();
        let made = self.hand.run(Instant::now() + VERSION_TIMEOUT, move || fs::create_dir_all(folder)).await;
        made.ok_or(DOES_NOT_ANSWER)?.map_err(|error| error.to_string())
    }

    /// Runs git in a directory; answers what it prints.
    async fn git(
        &self,
        turn: &mut Option<Child>,
        args: &[&str],
        dir: &Path,
        timeout: Duration,
    ) -> Result<String, GitError> {
        let deadline = Instant::now() + timeout;
        if turn.as_mut().is_some_and(Child::is_stuck) {
            return Err(GitError::new(
                "a git that was killed is still held by the kernel: look for a mount that hangs",
            ));
        }
        *turn = None;
        let command = git_command(args, dir);
        let started = self.hand.run(deadline, move || Child::start(command, Signal::TERM)).await;
        let mut child = started
            .ok_or_else(|| GitError::new(DOES_NOT_ANSWER))?
            .map_err(|error| GitError::new(&format!("git cannot be started: {error}")))?;
        let mut output = Output::default();
        let limits = Limits { output_max: OUTPUT_MAX, errors_kept: ERRORS_KEPT };
        let ended = child.finish(limits, &mut output, sleep_until(deadline), &self.hand).await;
        match ended.map_err(|error| GitError::new(&error.to_string()))? {
            Ended::Exit(status) if status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            Ended::Exit(status) => {
                Err(GitError { what: status.to_string().replacen(": ", " ", 1), words: words_of(&output.stderr) })
            }
            Ended::TimedOut => {
                *turn = Some(child);
                Err(GitError::new(&format!("not done within {} s", timeout.as_secs())))
            }
            Ended::Flooded => Err(GitError::new("git prints without end")),
        }
    }
}

/// What went wrong with git.
struct GitError {
    what: String,
    /// What git says of it.
    words: String,
}

impl GitError {
    fn new(what: &str) -> GitError {
        GitError { what: what.to_string(), words: String::new() }
    }
}

impl std::fmt::Display for GitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let separator = if self.words.is_empty() { "" } else { ": " };
        write!(f, "{}{separator}{}", self.what, self.words)
    }
}

fn git_command(args: &[&str], dir: &Path) -> Command {
    let mut command = Command::new("git");
    command.args(args).current_dir(PathBuf::from(dir));
    for name in LEADING_ELSEWHERE {
        command.env_remove(name);
    }
    // Nobody is there to be asked for a password, or for the text of a merge.
    command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_MERGE_AUTOEDIT", "no").env("LC_ALL", "C");
    command
}

/// The last lines of git's errors, as one.
fn words_of(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let words = lines.join("; ");
    let skipped = words.chars().count().saturating_sub(WORDS_MAX);
    words.chars().skip(skipped).collect()
}

/// A text without the user and password of an address.
fn without_secret(text: &str, address: &str) -> String {
    match secret_of(address) {
        Some(secret) => text.replace(secret, "***"),
        None => text.to_string(),
    }
}

/// An address without its user and password.
pub fn masked(address: &str) -> String {
    without_secret(address, address)
}

/// User and password of `scheme://user:password@host/path`.
fn secret_of(address: &str) -> Option<&str> {
    let (_, rest) = address.split_once("://")?;
    let place = rest.split('/').next()?;
    place.rsplit_once('@').map(|(secret, _)| secret).filter(|secret| !secret.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::patience::until;

    fn sh(script: &str) {
        let status = std::process::Command::new("sh").args(["-ec", script]).status().expect("sh");
        assert!(status.success(), "{script}");
    }

    fn config(dir: &Path, git: &str) -> PluginConfig {
        PluginConfig { enabled: true, dir: dir.to_path_buf(), git: git.to_string(), ..PluginConfig::default() }
    }

    const COMMIT: &str = "git -c user.name=t -c user.email=t@t commit -qm";

    #[tokio::test]
    async fn clones_pulls_resets_and_tells_the_commit() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let base = temporary.path().display();
        let work = format!("{base}/work");
        sh(&format!(
            "unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE; git init -q --bare -b main {base}/bare.git; git init -q -b main {work}; \
             cd {work}; echo 1 > 60_a.sh; git add .; {COMMIT} one; git push -q {base}/bare.git main"
        ));
        let dir = temporary.path().join("below/plugin");
        let config = config(&dir, &format!("{base}/bare.git"));
        let repository = Repository::new(Hand::default());
        assert_eq!(repository.version(&config).await, "plugin dir not existent");
        assert_eq!(repository.reset(&config).await, "success", "nothing to take back");
        assert_eq!(repository.update(&config).await, "success");
        let first = repository.version(&config).await;
        assert!(first.len() == 40 && first.bytes().all(|byte| byte.is_ascii_hexdigit()), "{first}");

        sh(&format!("cd {work}; echo 2 > 60_a.sh; {COMMIT} two -a; git push -q {base}/bare.git main"));
        fs::write(dir.join("60_a.sh"), "changed here").expect("own file");
        let answer = repository.update(&config).await;
        let expected = format!("git pull in dir:{} fail. error: exit status 1: ", dir.display());
        assert!(answer.starts_with(&expected) && answer.contains("60_a.sh"), "{answer}");
        assert_eq!(repository.reset(&config).await, "success");
        assert_eq!(fs::read_to_string(dir.join("60_a.sh")).expect("taken back"), "1\n");
        assert_eq!(repository.update(&config).await, "success");
        assert_eq!(fs::read_to_string(dir.join("60_a.sh")).expect("pulled"), "2\n");
        assert_ne!(repository.version(&config).await, first);
    }

    #[tokio::test]
    async fn what_cannot_be_cloned_is_told_without_its_password() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let dir = temporary.path().join("plugin");
        let repository = Repository::new(Hand::default());
        let check = async |git: &str, part: &str| {
            let answer = repository.update(&config(&dir, git)).await;
            let begin = format!("git clone in dir:{} fail. error: ", temporary.path().display());
            assert!(answer.starts_with(&begin) && answer.contains(part), "{answer}");
            assert!(!answer.contains("pass"), "{answer}");
        };
        check("", "plugin.git is \"\"").await;
        check("file://user:pass@/nowhere/plugin.git", "exit status 128").await;
        check("--upload-pack=touch", "exit status 128").await;
        assert_eq!(repository.version(&config(temporary.path(), "")).await, "Error:exit status 128");
    }

    #[tokio::test]
    async fn work_goes_on_when_who_asked_has_gone() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let base = temporary.path().display();
        sh(&format!(
            "unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE; git init -q -b main {base}/work; cd {base}/work; echo 1 > 60_a.sh; \
             git add .; {COMMIT} one"
        ));
        let config = config(&temporary.path().join("plugin"), &format!("{base}/work"));
        let repository = Repository::new(Hand::default());
        let asked = tokio::spawn({
            let (repository, config) = (repository.clone(), config.clone());
            async move { repository.update(&config).await }
        });
        until("the begin of the work", async || repository.changing.try_lock().is_err()).await;
        asked.abort();
        until("the end of the work", async || repository.changing.try_lock().is_ok()).await;
        assert_eq!(fs::read_to_string(config.dir.join("60_a.sh")).expect("cloned"), "1\n");
    }

    #[tokio::test]
    async fn one_at_a_time() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let config = config(&temporary.path().join("plugin"), "");
        let repository = Repository::new(Hand::default());
        let (changing, turn) = (repository.changing.lock().await, repository.turn.lock().await);
        assert!(repository.update(&config).await.contains("at work already"));
        assert!(repository.reset(&config).await.contains("at work already"));
        assert_eq!(repository.version(&config).await, "Error:not read yet");
        drop((changing, turn));
        assert_eq!(repository.version(&config).await, "plugin dir not existent");
    }

    #[test]
    fn secrets_of_addresses() {
        let check = |address: &str, secret: Option<&str>| assert_eq!(secret_of(address), secret, "{address}");
        check("https://user:pass@host/a.git", Some("user:pass"));
        check("https://token@host/a@b.git", Some("token"));
        check("https://us@er:p@ss@host/a.git", Some("us@er:p@ss"));
        check("https://host/a@b.git", None);
        check("git@host:a.git", None);
        check("/srv/plugin.git", None);
        assert_eq!(without_secret("cannot reach https://u:p@h/x", "https://u:p@h/x"), "cannot reach https://***@h/x");
    }
}
