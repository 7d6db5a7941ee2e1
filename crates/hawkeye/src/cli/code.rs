//! `hawkeye export DIR` and `hawkeye apply DIR`: the portal as TOML files.
//!
//! How: with `--url` a running server is asked, which notices the change at once. Without, the tables in the data
//! directory are read and written; a server that runs there would not notice, so `apply` refuses (the store's lock is
//! held meanwhile). Both ways mean the same and refuse the same.
//! Invariants: `export` writes and removes files that end with `.toml` in the folders of the kinds, and nothing else.
//! `apply --dry-run` ends with 0 where nothing would change, with 2 where something would, with 1 for mistakes.

use super::client::LoginArgs;
use super::server::ServerArgs;
use crate::api::code::{Actor, ApplyError, Outcome, Sent, apply, export, folders};
use crate::api::code_diff as diff;
use crate::api::code_file::{ENDING, odd_path};
use crate::clock;
use crate::config::Config;
use crate::portal::Portal;
use crate::portal::audit::{self, Keep};
use crate::portal::audit_text;
use crate::watch::log::say;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// The time that an answer may take: a whole site is checked and written in some seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// Exit code of a dry run that would change something.
const WOULD_CHANGE: u8 = 2;
/// Bytes of one file that is read; the largest, a group of 20,000 hosts, has less than 1 MB.
const FILE_BYTES_MAX: u64 = 4 << 20;

#[derive(Args)]
pub struct PlaceArgs {
    /// The address of a running server's API, e.g. http://127.0.0.1:8080; without it the data directory is used.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    login: LoginArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args)]
pub struct ExportArgs {
    /// The directory that gets a folder for each kind.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Args)]
pub struct ApplyArgs {
    /// The directory with the folders; a kind whose folder is absent is left as it is.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Only say what would become different: the exit code is 0 for nothing, 2 for something, 1 for a mistake.
    #[arg(long)]
    dry_run: bool,
    /// Keep what has no file in its kind's folder, in place of deleting it.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Writes the files of the portal.
pub fn run_export(args: &ExportArgs) -> Result<()> {
    let sent = runtime()?.block_on(fetch(&args.place))?;
    let (written, removed) = write(&args.dir, &sent)?;
    let dir = args.dir.display();
    say(format_args!("hawkeye: {} files in {dir}: {written} written, {removed} removed", sent.files.len()));
    Ok(())
}

/// Makes the portal what the files say.
pub fn run_apply(args: &ApplyArgs) -> Result<ExitCode> {
    let sent = Sent { keep: args.keep, dry_run: args.dry_run, ..read(&args.dir)? };
    let outcome = runtime()?.block_on(send(&args.place, sent))?;
    let text = diff::lines(&outcome.changes);
    if !text.is_empty() {
        say(format_args!("{}", text.trim_end()));
    }
    let count = outcome.changes.len();
    let (what, code) = match (count, outcome.applied) {
        (0, _) => ("nothing is different".to_string(), ExitCode::SUCCESS),
        (count, true) => (format!("{count} changed"), ExitCode::SUCCESS),
        (count, false) => (format!("{count} would change"), ExitCode::from(WOULD_CHANGE)),
    };
    say(format_args!("hawkeye: {what}"));
    Ok(code)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")
}

async fn fetch(place: &PlaceArgs) -> Result<Sent> {
    if let Some(url) = &place.url {
        let client = place.login.client(url, "--url", PATIENCE).await?;
        return serde_json::from_str(&client.get("/export").await?).context("the answer is no export of a portal");
    }
    let portal = open(&place.server.data_dir()?).await?;
    let exported = export(&portal).await;
    portal.close().await;
    exported
}

async fn send(place: &PlaceArgs, sent: Sent) -> Result<Outcome> {
    if let Some(url) = &place.url {
        let client = place.login.client(url, "--url", PATIENCE).await?;
        let (status, text) = client.post_for_any("/apply", serde_json::to_string(&sent)?).await?;
        if status.is_success() {
            return serde_json::from_str(&text).context("the answer is none of /api/v1/apply");
        }
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        let faults: Vec<String> = answer["faults"].as_array().into_iter().flatten().map(line).collect();
        bail!("{}", if faults.is_empty() { client.error_of(status, &text) } else { mistakes(&faults) });
    }
    let config = place.server.load()?;
    ensure!(config.portal.url.is_none(), "the portal is in MySQL (portal.url): ask its server, with --url");
    let data = place.server.data_dir()?;
    let _lock = lock(&data)?;
    let portal = open(&data).await?;
    let dry_run = sent.dry_run;
    let bundle = sent.bundle().map_err(anyhow::Error::msg)?;
    let applied = apply(&portal, &config, &Actor::machine(), &bundle, dry_run).await;
    if let Ok(outcome) = &applied
        && outcome.applied
    {
        record(&portal, &config, outcome).await?;
    }
    portal.close().await;
    applied.map_err(|error| match error {
        ApplyError::Faults(faults) => {
            anyhow::anyhow!("{}", mistakes(&faults.iter().map(ToString::to_string).collect::<Vec<_>>()))
        }
        ApplyError::Other(error) => error,
    })
}

/// Keeps what was changed where the server keeps what is changed over REST.
async fn record(portal: &Portal, config: &Config, outcome: &Outcome) -> Result<()> {
    let became = audit_text::difference(None, Some(serde_json::json!({ "changes": outcome.changes }))).1;
    let change = audit::Change {
        id: 0,
        at: clock::now(),
        who: "(this machine)".to_string(),
        token: String::new(),
        peer: String::new(),
        action: "hawkeye apply".to_string(),
        subject: "portal:".to_string(),
        status: 200,
        was: String::new(),
        became,
    };
    let keep = Keep { seconds: config.api.audit_keep, bytes: config.api.audit_max.cast_signed() };
    let recorded = audit::begin(portal, &change, keep).await;
    recorded.map(drop).context("the changes were made, and who made them cannot be kept")
}

fn line(fault: &Value) -> String {
    format!(
        "{}:{}: {}",
        fault["file"].as_str().unwrap_or_default(),
        fault["line"],
        fault["text"].as_str().unwrap_or_default()
    )
}

fn mistakes(faults: &[String]) -> String {
    format!("nothing was changed, for there are mistakes:\n{}", faults.join("\n"))
}

async fn open(data: &Path) -> Result<Portal> {
    let path = data.join(super::backup::PORTAL);
    ensure!(
        path.exists(),
        "{} is not there: name the data directory with --data-dir or --config, or a running server with --url",
        path.display()
    );
    Portal::open_existing(&path).await
}

/// Holds the directory of a server that does not run, so that none begins meanwhile.
fn lock(data: &Path) -> Result<Option<File>> {
    let store = data.join("store");
    if !store.is_dir() {
        return Ok(None);
    }
    // The name of the store's own lock.
    let path = store.join("LOCK");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            bail!("a server runs on {}, and would not notice the change: ask it, with --url", data.display())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// The files of a directory, by kind.
fn read(dir: &Path) -> Result<Sent> {
    let (mut files, mut kinds) = (BTreeMap::new(), Vec::new());
    for folder in folders() {
        let path = dir.join(folder);
        if !path.is_dir() {
            continue;
        }
        kinds.push(folder.to_string());
        for name in toml_files(&path)? {
            let path = path.join(&name);
            let found = fs::symlink_metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
            ensure!(found.is_file(), "{} is no file, but a link or the like: put a file there", path.display());
            let size = found.len();
            ensure!(size <= FILE_BYTES_MAX, "{} has {size} bytes, more than {FILE_BYTES_MAX}", path.display());
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.insert(format!("{folder}/{name}"), text);
        }
    }
    ensure!(!kinds.is_empty(), "{} has none of the folders {}", dir.display(), folders().join(", "));
    Ok(Sent { files, kinds, ..Sent::default() })
}

/// Names of the files of a folder that are ours, in their order.
fn toml_files(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let name = entry?.file_name().into_string();
        let name = name.map_err(|name| anyhow::anyhow!("{}/{name:?} is no UTF-8: rename it", folder.display()))?;
        if name.ends_with(ENDING) && !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Writes what differs, and removes what is there no more; answers how many files that were.
fn write(dir: &Path, sent: &Sent) -> Result<(usize, usize)> {
    let (mut written, mut removed) = (0, 0);
    // A server says what the files are called, and may be anybody's.
    let is_in_folder = |path: &str| folders().contains(&path.split('/').next().unwrap_or_default());
    let is_ours = |path: &&String| is_in_folder(path) && odd_path(path).is_none();
    let odd = sent.kinds.iter().find(|kind| !folders().contains(&kind.as_str()));
    if let Some(odd) = odd.or_else(|| sent.files.keys().find(|path| !is_ours(path))) {
        bail!("the server has a file {odd:?}, which is none of the folders {}", folders().join(", "));
    }
    for kind in &sent.kinds {
        let folder = dir.join(kind);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let wanted = |name: &str| sent.files.contains_key(&format!("{kind}/{name}"));
        for name in toml_files(&folder)?.iter().filter(|name| !wanted(name)) {
            let path = folder.join(name);
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            removed += 1;
        }
    }
    for (path, text) in &sent.files {
        let path = dir.join(path);
        if fs::read(&path).is_ok_and(|old| old == text.as_bytes()) {
            continue;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        written += 1;
    }
    Ok((written, removed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::{group, template};
    use clap::Parser;

    #[derive(Parser)]
    struct Export {
        #[command(flatten)]
        args: ExportArgs,
    }

    #[derive(Parser)]
    struct Apply {
        #[command(flatten)]
        args: ApplyArgs,
    }

    fn export_to(data: &Path, dir: &Path) -> Result<()> {
        let line = ["export", dir.to_str().expect("UTF-8"), "--data-dir", data.to_str().expect("UTF-8")];
        run_export(&Export::parse_from(line).args)
    }

    fn apply_from(data: &Path, dir: &Path, flags: &[&str]) -> Result<ExitCode> {
        let line = ["apply", dir.to_str().expect("UTF-8"), "--data-dir", data.to_str().expect("UTF-8")];
        run_apply(&Apply::parse_from(line.iter().chain(flags)).args)
    }

    /// Beside the test's own runtime, as the command has one too.
    #[test]
    fn a_data_directory_is_written_and_read() -> Result<()> {
        let runtime = runtime()?;
        let (data, portal) = runtime.block_on(crate::portal::tests::in_file())?;
        runtime.block_on(async {
            template::create(&portal, "Linux base", 0, 0, "root").await?;
            group::create(&portal, "web", "root").await
        })?;
        let dir = tempfile::tempdir()?;
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("templates"))?;
        fs::write(path("templates/stale.toml"), "name = \"stale\"\n")?;
        fs::write(path("templates/README.md"), "ours")?;
        export_to(data.path(), dir.path())?;
        assert_eq!(
            fs::read_to_string(path("templates/Linux%20base.toml"))?,
            "name = \"Linux base\"\nowner = \"root\"\n"
        );
        assert!(!path("templates/stale.toml").exists() && path("templates/README.md").exists());
        assert!(path("users").is_dir(), "a kind without things is in scope");
        let code = |code: ExitCode| format!("{code:?}");
        assert_eq!(code(apply_from(data.path(), dir.path(), &["--dry-run"])?), code(ExitCode::SUCCESS));
        fs::write(path("groups/db.toml"), "name = \"db\"\ntemplates = [\"linux BASE\"]\nhosts = [\"db-01\"]\n")?;
        fs::remove_file(path("groups/web.toml"))?;
        assert_eq!(code(apply_from(data.path(), dir.path(), &["--dry-run"])?), code(ExitCode::from(WOULD_CHANGE)));
        assert_eq!(runtime.block_on(group::all(&portal))?.len(), 1, "a dry run changes nothing");
        apply_from(data.path(), dir.path(), &["--keep"])?;
        let names = || -> Result<Vec<String>> {
            Ok(runtime.block_on(group::all(&portal))?.into_iter().map(|group| group.grp_name).collect())
        };
        assert_eq!(names()?, ["web", "db"]);
        apply_from(data.path(), dir.path(), &[])?;
        assert_eq!(names()?, ["db"]);
        // A folder that is away is out of scope.
        fs::remove_dir_all(path("groups"))?;
        apply_from(data.path(), dir.path(), &[])?;
        assert_eq!(names()?, ["db"]);
        fs::write(path("templates/bad.toml"), "name = \"\"\n\n[[strategy]]\nmetrik = \"m\"\n")?;
        let error = format!("{:#}", apply_from(data.path(), dir.path(), &[]).expect_err("mistakes"));
        for part in [
            "templates/bad.toml:1: name is required",
            "templates/bad.toml:3: metric is required",
            "bad.toml:4: metrik is no key",
        ] {
            assert!(error.contains(part), "{error}");
        }
        Ok(())
    }

    #[test]
    fn a_server_names_no_file_elsewhere() {
        let dir = tempfile::tempdir().expect("a directory");
        for path in ["users/../../x.toml", "/etc/x.toml", "other/x.toml", "users/x.sh", "users/a\u{1b}.toml", "x.toml"]
        {
            let files = [(path.to_string(), String::new())].into();
            let sent = Sent { files, kinds: vec!["users".to_string()], ..Sent::default() };
            assert!(write(dir.path(), &sent).is_err(), "{path}");
        }
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
    }

    #[test]
    fn a_server_that_runs_is_asked_itself() -> Result<()> {
        let runtime = runtime()?;
        let (data, _portal) = runtime.block_on(crate::portal::tests::in_file())?;
        let dir = tempfile::tempdir()?;
        fs::create_dir(dir.path().join("groups"))?;
        fs::create_dir(data.path().join("store"))?;
        let held = lock(data.path())?;
        let error = format!("{:#}", apply_from(data.path(), dir.path(), &[]).expect_err("a server runs"));
        assert!(error.contains("would not notice the change: ask it, with --url"), "{error}");
        drop(held);
        apply_from(data.path(), dir.path(), &[])?;
        let error = format!("{:#}", apply_from(data.path(), data.path(), &[]).expect_err("no folders"));
        assert!(error.contains("has none of the folders users, teams, templates"), "{error}");
        let error = format!("{:#}", export_to(dir.path(), dir.path()).expect_err("no portal"));
        assert!(error.contains("portal.db is not there"), "{error}");
        Ok(())
    }
}
