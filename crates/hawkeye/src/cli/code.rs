//! `hawkeye export DIR` and `hawkeye apply DIR`: the portal as TOML files.
//!
//! How: with `--url` a running server is asked, which notices the change at once. Without, the tables in the data
//! directory are read and written; a server that runs there would not notice, so `apply` refuses (the store's lock is
//! held meanwhile). Both ways mean the same and refuse the same.
//! Invariants: `export` writes and removes files that end with `.toml` in the folders of the kinds, and nothing else: a
//! folder or a file that is a link, a FIFO or the like is refused before anything is written, and each file takes its
//! place whole, by a rename. `apply` refuses the same, and files at a place where no kind is.
//! `apply --dry-run` ends with 0 where nothing would change, with 2 where something would, with 1 for mistakes.

use super::client::LoginArgs;
use super::server::ServerArgs;
use crate::api::code::{Actor, ApplyError, Outcome, SUBJECT, Sent, Trace, apply, export, folders};
use crate::api::code_diff as diff;
use crate::api::code_file::{ENDING, odd_path};
use crate::clock;
use crate::portal::Portal;
use crate::portal::audit;
use crate::watch::log::say;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::time::Duration;
use supervisor::causes::one_line;

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
        if faults.is_empty() {
            bail!("{}", client.error_of(status, &text));
        }
        bail!(Mistakes(faults));
    }
    let config = place.server.load()?;
    ensure!(config.portal.url.is_none(), "the portal is in MySQL (portal.url): ask its server, with --url");
    let data = place.server.data_dir()?;
    let _lock = lock(&data)?;
    let portal = open(&data).await?;
    let dry_run = sent.dry_run;
    let bundle = sent.bundle().map_err(anyhow::Error::msg)?;
    let actor = Actor { trace: Trace::Whole(row()), ..Actor::machine() };
    let applied = apply(&portal, &config, &actor, &bundle, dry_run).await;
    portal.close().await;
    applied.map_err(|error| match error {
        ApplyError::Faults(faults) => Mistakes(faults.iter().map(ToString::to_string).collect()).into(),
        ApplyError::Other(error) => error,
    })
}

/// The row of the audit, where the server keeps what is changed over REST.
fn row() -> audit::Change {
    audit::Change {
        id: 0,
        at: clock::now(),
        who: "(this machine)".to_string(),
        token: String::new(),
        peer: String::new(),
        action: "hawkeye apply".to_string(),
        subject: SUBJECT.to_string(),
        status: 200,
        was: String::new(),
        became: String::new(),
    }
}

fn line(fault: &Value) -> String {
    format!(
        "{}:{}: {}",
        fault["file"].as_str().unwrap_or_default(),
        fault["line"],
        fault["text"].as_str().unwrap_or_default()
    )
}

/// Mistakes in files, which are printed a line each.
#[derive(Debug)]
pub struct Mistakes(Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing was changed, for there are mistakes:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n{}", one_line(fault)))
    }
}

impl Error for Mistakes {}

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
    check_places(dir)?;
    let (mut files, mut kinds) = (BTreeMap::new(), Vec::new());
    for folder in folders() {
        let path = dir.join(folder);
        if !is_folder(&path)? {
            continue;
        }
        kinds.push(folder.to_string());
        check_no_toml_below(&path)?;
        for name in toml_files(&path)? {
            let path = path.join(&name);
            let size = file_size(&path)?.unwrap_or_default();
            ensure!(size <= FILE_BYTES_MAX, "{} has {size} bytes, more than {FILE_BYTES_MAX}", path.display());
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.insert(format!("{folder}/{name}"), text);
        }
    }
    ensure!(!kinds.is_empty(), "{} has none of the folders {}", dir.display(), folders().join(", "));
    Ok(Sent { files, kinds, ..Sent::default() })
}

/// What is at a path itself, not behind a link; None where nothing is.
fn found_at(path: &Path) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Whether the folder of a kind is there; what is no folder at its place is refused.
fn is_folder(path: &Path) -> Result<bool> {
    let Some(found) = found_at(path)? else { return Ok(false) };
    let shown = path.display();
    ensure!(
        found.is_dir(),
        "{shown} is no folder, but a file, a link or the like: put a folder there, or take it away"
    );
    Ok(true)
}

/// Bytes of the file, if it is there; what is no file at its place is refused.
fn file_size(path: &Path) -> Result<Option<u64>> {
    let Some(found) = found_at(path)? else { return Ok(None) };
    ensure!(found.is_file(), "{} is no file, but a link or the like: put a file there", path.display());
    Ok(Some(found.len()))
}

/// Refuses files of ours where no kind is: a folder whose name is misspelt would be no scope, without a word.
fn check_places(dir: &Path) -> Result<()> {
    let known = folders();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if known.contains(&name.as_str()) || name.starts_with('.') {
            continue;
        }
        let what = if is_toml(&name) {
            "is in no folder of its kind: move it"
        } else if path.is_dir() && has_toml(&path) {
            "is the folder of no kind, and has .toml files: rename it"
        } else {
            continue;
        };
        bail!("{} {what}; the folders are {}", path.display(), known.join(", "));
    }
    Ok(())
}

/// Refuses files of ours that the folder of a kind has in folders of its own, or that no reader would take for ours.
fn check_no_toml_below(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.starts_with('.') || name.ends_with(ENDING) {
            continue;
        }
        let shown = path.display();
        ensure!(!is_toml(&name), "{shown} would not be read: let its name end with {ENDING}");
        ensure!(!(path.is_dir() && has_toml(&path)), "{shown} has .toml files, which would not be read: move them up");
    }
    Ok(())
}

/// Whether people take this for the name of a file of ours.
fn is_toml(name: &str) -> bool {
    !name.starts_with('.') && name.to_ascii_lowercase().ends_with(ENDING)
}

/// Whether a folder has files of ours; one that cannot be read has none that matter.
fn has_toml(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| is_toml(&entry.file_name().to_string_lossy()))
}

/// Names of the files of a folder that are ours, in their order.
fn toml_files(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let name = entry?.file_name().into_string();
        let name = name.map_err(|name| anyhow::anyhow!("{}/{name:?} is no UTF-8: rename it", folder.display()))?;
        if name.ends_with(ENDING) && !name.starts_with('.') {
            file_size(&folder.join(&name))?;
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Writes what differs, and removes what is there no more; answers how many files that were.
fn write(dir: &Path, sent: &Sent) -> Result<(usize, usize)> {
    // A server says what the files are called, and may be anybody's.
    let is_in_folder = |path: &str| folders().contains(&path.split('/').next().unwrap_or_default());
    let is_ours = |path: &&String| is_in_folder(path) && odd_path(path).is_none();
    let odd = sent.kinds.iter().find(|kind| !folders().contains(&kind.as_str()));
    if let Some(odd) = odd.or_else(|| sent.files.keys().find(|path| !is_ours(path))) {
        bail!("the server has a file {odd:?}, which is none of the folders {}", folders().join(", "));
    }
    // All that is there is looked at before anything is written.
    let mut stale = Vec::new();
    for kind in folders() {
        let folder = dir.join(kind);
        if !is_folder(&folder)? {
            continue;
        }
        let is_stale = |name: &String| {
            sent.kinds.iter().any(|own| own == kind) && !sent.files.contains_key(&format!("{kind}/{name}"))
        };
        stale.extend(toml_files(&folder)?.iter().filter(|name| is_stale(name)).map(|name| folder.join(name)));
    }
    for kind in sent.kinds.iter().map(String::as_str).chain(sent.files.keys().filter_map(|path| path.split('/').next()))
    {
        let folder = dir.join(kind);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    for path in &stale {
        fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    let mut written = 0;
    for (path, text) in &sent.files {
        let path = dir.join(path);
        // A disk that tells no case apart has the file, although no list of names does.
        let is_same = file_size(&path)? == Some(text.len() as u64);
        if is_same && fs::read(&path).is_ok_and(|old| old == text.as_bytes()) {
            continue;
        }
        put(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        written += 1;
    }
    Ok((written, stale.len()))
}

/// Puts a file in its place whole, with the rights of the one that was there.
fn put(path: &Path, text: &str) -> io::Result<()> {
    // Hidden, so that one which a kill leaves is no file of ours.
    let fresh = path.with_file_name(format!(".hawkeye-{}.new", process::id()));
    // One that is there is of a process that is gone, and had this number.
    let _ = fs::remove_file(&fresh);
    let mut file = OpenOptions::new().write(true).create_new(true).open(&fresh)?;
    let put = file.write_all(text.as_bytes()).and_then(|()| {
        match fs::metadata(path) {
            Ok(old) => file.set_permissions(old.permissions())?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        drop(file);
        fs::rename(&fresh, path)
    });
    if put.is_err() {
        // The error that matters is told.
        let _ = fs::remove_file(&fresh);
    }
    put
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
        let lines: Vec<&str> = error.lines().collect();
        for part in [
            "templates/bad.toml:1: name is required",
            "templates/bad.toml:3: metric is required",
            "templates/bad.toml:4: metrik is no key",
        ] {
            assert!(lines.iter().any(|line| line.starts_with(part)), "a line each: {error}");
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

    /// Makes each thing that is no file or folder at `path`, and wants it refused by name.
    fn check_odd(path: &Path, run: impl Fn() -> Result<()>) {
        use std::os::unix::fs::symlink;
        let elsewhere = tempfile::tempdir().expect("a directory");
        fs::write(elsewhere.path().join("a.toml"), "name = \"elsewhere\"\n").expect("written");
        let is_file = path.ends_with("a.toml");
        let targets = [elsewhere.path().to_path_buf(), elsewhere.path().join("a.toml"), "nowhere".into()];
        let check = |what: &str| {
            let error = format!("{:#}", run().expect_err(what));
            let wanted = if is_file { "is no file" } else { "is no folder" };
            assert!(error.contains(&path.display().to_string()) && error.contains(wanted), "{what}: {error}");
            fs::remove_file(path).or_else(|_| fs::remove_dir(path)).expect("taken away");
        };
        for target in targets {
            symlink(&target, path).expect("a link");
            check(&format!("a link to {}", target.display()));
        }
        if is_file {
            fs::create_dir(path).expect("a folder");
            check("a folder");
        } else {
            fs::write(path, "").expect("a file");
            check("a file");
        }
        let _socket = std::os::unix::net::UnixListener::bind(path).expect("a socket");
        check("a socket, which is opened as little as a FIFO");
        assert_eq!(fs::read_dir(elsewhere.path()).expect("there").count(), 1);
        let kept = fs::read_to_string(elsewhere.path().join("a.toml")).expect("there");
        assert_eq!(kept, "name = \"elsewhere\"\n");
    }

    /// Neither way follows a link or waits for a FIFO, and `export` has written nothing before it says so.
    #[test]
    fn what_is_no_file_or_folder_is_refused_before_anything_is_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |path: &str| (path.to_string(), "name = \"a\"\n".to_string());
        let files = [file("groups/b.toml"), file("users/a.toml")].into();
        let sent = Sent { files, kinds: vec!["groups".into(), "users".into()], ..Sent::default() };
        let refused = || write(dir.path(), &sent).map(drop);
        check_odd(&dir.path().join("users"), refused);
        fs::create_dir(dir.path().join("users")).expect("made");
        check_odd(&dir.path().join("users/a.toml"), refused);
        assert!(!dir.path().join("groups").exists());
        // A kind that the server does not have is read by `apply` all the same.
        check_odd(&dir.path().join("teams"), refused);
        assert_eq!(write(dir.path(), &sent).expect("nothing odd is left"), (2, 0));
        let names = |folder: &str| fs::read_dir(dir.path().join(folder)).expect("there").count();
        assert_eq!((names("groups"), names("users")), (1, 1), "nothing else is left behind");
        check_odd(&dir.path().join("templates"), || read(dir.path()).map(drop));
        fs::remove_file(dir.path().join("users/a.toml")).expect("taken away");
        check_odd(&dir.path().join("users/a.toml"), || read(dir.path()).map(drop));
    }

    #[test]
    fn files_in_no_folder_of_a_kind_are_no_less_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let put = |path: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, "name = \"a\"\n").expect("written");
        };
        for fine in ["groups/a.toml", "README.md", ".git/x.toml", ".hidden.toml", "docs/x.md", "groups/old/x.md"] {
            put(fine);
        }
        assert_eq!(read(dir.path()).expect("all fine").files.len(), 1);
        for (odd, part) in [
            (
                "template/a.toml",
                "template is the folder of no kind, and has .toml files: rename it; the folders are users,",
            ),
            ("Templates/a.TOML", "Templates is the folder of no kind"),
            ("a.toml", "a.toml is in no folder of its kind: move it; the folders are users,"),
            ("groups/old/a.toml", "old has .toml files, which would not be read: move them up"),
            ("groups/b.Toml", "b.Toml would not be read: let its name end with .toml"),
        ] {
            put(odd);
            let error = format!("{:#}", read(dir.path()).expect_err(odd));
            assert!(error.contains(part), "{odd}: {error}");
            fs::remove_file(dir.path().join(odd)).expect("taken away");
        }
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
