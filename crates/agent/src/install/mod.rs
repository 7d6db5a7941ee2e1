//! Install: this program as a service of systemd on this host (`hawkeye-agent install`), and its end (`uninstall`).
//!
//! Why: a new host is one line that its owner copies: it fetches the program from the server and runs it once.
//! How: everything is checked before anything is written; then steps follow each other, each of which looks first, so
//! that a second run changes nothing, and one that was cut short is made whole by the next. The unit is the packages'
//! (packaging/hawkeye-agent.service) with the program's path in it.
//! Invariants: a configuration that is there stays as it is; no shell is run; what a package of the distribution has
//! installed is left to it.
//! Compat: `--from cfg.json` takes an Open-Falcon agent's settings over, as far as `original` translates them.

mod host;
mod settings;

pub use self::settings::SettingsArgs;

use anyhow::{Result, bail, ensure};
use clap::Args;
use host::{Host, Owner, USER};
use rustix::process::geteuid;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use supervisor::log::say;

/// The packages' unit: one text for all ways to install.
const UNIT: &str = include_str!("../../../../packaging/hawkeye-agent.service");
/// Where the unit has the program, and where it is without a package: that of the distribution stays its own.
const PACKAGED: &str = "/usr/bin/hawkeye-agent";
const PROGRAM: &str = "/usr/local/bin/hawkeye-agent";
const UNIT_NAME: &str = "hawkeye-agent.service";
const UNIT_PATH: &str = "/etc/systemd/system/hawkeye-agent.service";
const CONFIG_DIR: &str = "/etc/hawkeye";
const CONFIG: &str = "/etc/hawkeye/agent.toml";
const CA: &str = "/etc/hawkeye/agent-ca.pem";
const STATE_DIR: &str = "/var/lib/hawkeye-agent";
/// What dpkg has of an agent that it installed.
const DPKG: &str = "/var/lib/dpkg/info/hawkeye-agent.list";
/// What is there while systemd runs a host.
const SYSTEMD: &str = "/run/systemd/system";

/// Flags of `hawkeye-agent install`.
#[derive(Args)]
pub struct InstallArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    place: PlaceArgs,
    /// Writes everything and starts nothing.
    #[arg(long)]
    no_start: bool,
}

/// Flags of `hawkeye-agent uninstall`.
#[derive(Args)]
pub struct UninstallArgs {
    /// Takes the configuration, the state and the user away as well.
    #[arg(long)]
    purge: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Where, and whether in earnest.
#[derive(Args)]
struct PlaceArgs {
    /// The root of the file system, for an image that is being made; nothing is started there.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Says what would be done, and does nothing.
    #[arg(long)]
    dry_run: bool,
}

impl PlaceArgs {
    fn is_image(&self) -> bool {
        self.root != Path::new("/")
    }

    fn host(&self) -> Result<Host> {
        ensure!(self.root.is_absolute() && self.root.is_dir(), "--root is {}: give a directory", self.root.display());
        let is_root = geteuid().is_root();
        ensure!(
            is_root || self.dry_run || self.is_image(),
            "this makes a user and a service, which only root may: run it with sudo, or look with --dry-run"
        );
        Ok(Host { root: self.root.clone(), is_dry: self.dry_run, is_root })
    }

    /// Whether systemd runs here.
    fn has_systemd(&self) -> bool {
        !self.is_image() && Path::new(SYSTEMD).is_dir()
    }
}

/// Says what a step has done.
fn tell(done: impl Display) {
    say(format_args!("hawkeye-agent: {done}"));
}

/// Installs this program.
pub fn install(args: &InstallArgs) -> Result<()> {
    let host = args.place.host()?;
    ensure!(
        !host.at(DPKG).exists(),
        "the package hawkeye-agent is installed, and has a unit of its own: edit {CONFIG}, or remove the package first"
    );
    let starts = args.place.has_systemd() && !args.no_start;
    if !starts && !args.no_start && !args.place.is_image() && !args.place.dry_run {
        bail!(
            "systemd does not run this host ({SYSTEMD} is not there): run this with --no-start, which writes all files, and \
             have your init start `{PROGRAM} --config {CONFIG}` as user {USER}, with STATE_DIRECTORY={STATE_DIR}"
        );
    }
    let is_there = host.at(CONFIG).exists();
    let made = if is_there { None } else { Some(args.settings.make(CA)?) };
    let program = fs::read(std::env::current_exe()?)?;

    let mut changed = host.file(PROGRAM, &program, 0o755, Owner::Root)?;
    host.user(STATE_DIR)?;
    host.dir(CONFIG_DIR, 0o755, Owner::Root)?;
    host.dir(STATE_DIR, 0o700, Owner::Agent)?;
    match &made {
        Some(made) => {
            if let Some(ca) = &made.ca {
                changed |= host.file(CA, ca, 0o644, Owner::Root)?;
            }
            // The file may have a token.
            changed |= host.file(CONFIG, made.text.as_bytes(), 0o640, Owner::RootAndAgent)?;
            made.notes.iter().for_each(tell);
        }
        None => {
            tell(format_args!("{CONFIG} is there and stays as it is"));
            if args.settings.says_anything() {
                tell(format_args!("flags for a new configuration were not used: delete the file to have it made anew"));
            }
        }
    }
    let unit = UNIT.replace(PACKAGED, PROGRAM);
    let is_new_unit = host.file(UNIT_PATH, unit.as_bytes(), 0o644, Owner::Root)?;
    start(&args.place, &host, starts, is_new_unit, changed)
}

/// Has systemd know the unit, start it with the host, and now.
fn start(place: &PlaceArgs, host: &Host, starts: bool, is_new_unit: bool, is_new_program: bool) -> Result<()> {
    if place.is_image() {
        host.link("/etc/systemd/system/multi-user.target.wants/hawkeye-agent.service", UNIT_PATH)?;
        return Ok(());
    }
    if !place.has_systemd() {
        tell(format_args!("nothing was started: start `{PROGRAM} --config {CONFIG}` as user {USER}"));
        return Ok(());
    }
    if is_new_unit {
        host.run("systemctl", &["daemon-reload"])?;
    }
    if !starts {
        return host.run("systemctl", &["enable", UNIT_NAME]);
    }
    host.run("systemctl", &["enable", "--now", UNIT_NAME])?;
    if is_new_unit || is_new_program {
        host.run("systemctl", &["restart", UNIT_NAME])?;
    }
    tell(format_args!("look at it with `systemctl status {UNIT_NAME}` and `journalctl -u {UNIT_NAME}`"));
    Ok(())
}

/// Takes away what `install` made; the configuration and the state stay, unless all is to go.
pub fn uninstall(args: &UninstallArgs) -> Result<()> {
    let host = args.place.host()?;
    ensure!(
        !host.at(DPKG).exists(),
        "the package hawkeye-agent is installed: remove it, like `apt remove hawkeye-agent`"
    );
    let has_unit = host.at(UNIT_PATH).exists();
    if has_unit && args.place.has_systemd() {
        host.run("systemctl", &["disable", "--now", UNIT_NAME])?;
    }
    host.remove("/etc/systemd/system/multi-user.target.wants/hawkeye-agent.service")?;
    host.remove(UNIT_PATH)?;
    host.remove(PROGRAM)?;
    if has_unit && args.place.has_systemd() {
        host.run("systemctl", &["daemon-reload"])?;
    }
    if !args.purge {
        tell(format_args!("{CONFIG} and {STATE_DIR} stay, and the user {USER}: --purge takes them away"));
        return Ok(());
    }
    host.remove(CONFIG)?;
    host.remove(CA)?;
    host.remove(STATE_DIR)?;
    host.no_user()
}

#[cfg(test)]
mod tests;
