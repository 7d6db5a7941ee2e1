//! Installing into the root of an image, as whoever runs the tests.

use super::settings::SettingsArgs;
use super::*;
use crate::config::AgentConfig;
use clap::Parser;
use std::os::unix::fs::PermissionsExt;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: InstallArgs,
}

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    args: SettingsArgs,
}

fn install_at(root: &Path, line: &str) -> Result<()> {
    let root = root.display().to_string();
    let words = ["install", "--root", &root].into_iter().chain(line.split_whitespace());
    install(&Line::try_parse_from(words).expect(line).args)
}

fn made(line: &str) -> Result<AgentConfig> {
    let args = Settings::try_parse_from(["install"].into_iter().chain(line.split_whitespace())).expect(line).args;
    let made = args.make("/etc/hawkeye/agent-ca.pem")?;
    AgentConfig::load(&made.text, std::iter::once(("STATE_DIRECTORY".into(), "/state".into())), &[], "host-1")
}

/// An image whose users have the agent's, as this process.
fn image() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("etc")).expect("room");
    let (user, group) = (geteuid().as_raw(), rustix::process::getegid().as_raw());
    fs::write(dir.path().join("etc/passwd"), format!("hawkeye-agent:x:{user}:{group}::/:/bin/false\n")).expect("room");
    dir
}

/// Every file of an image with its mode, content and inode.
fn files(dir: &Path) -> Vec<(PathBuf, u32, Vec<u8>, u64)> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let about = fs::symlink_metadata(&path).expect("there");
        match about.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((path.clone(), about.mode(), fs::read(&path).unwrap_or_default(), about.ino())),
        }
    }
    found.sort();
    found
}

#[test]
fn a_second_run_changes_nothing() -> Result<()> {
    let dir = image();
    let at = |path: &str| dir.path().join(path.trim_start_matches('/'));
    install_at(dir.path(), "--server 10.0.0.1 --hostname web-01")?;
    let config = fs::read_to_string(at(CONFIG))?;
    assert!(config.contains("\"10.0.0.1:8433\"") && config.contains("\"10.0.0.1:6030\""), "{config}");
    assert_eq!(fs::metadata(at(CONFIG))?.permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::metadata(at(STATE_DIR))?.permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read(at(PROGRAM))?, fs::read(std::env::current_exe()?)?);
    let unit = fs::read_to_string(at(UNIT_PATH))?;
    assert!(unit.contains("ExecStart=/usr/local/bin/hawkeye-agent --config /etc/hawkeye/agent.toml"), "{unit}");
    assert!(!unit.contains(PACKAGED) && unit.contains("StateDirectory=hawkeye-agent\n"), "{unit}");
    let before = files(dir.path());
    install_at(dir.path(), "--server 10.0.0.1 --hostname web-01")?;
    assert_eq!(files(dir.path()), before);
    Ok(())
}

#[test]
fn a_run_that_was_cut_short_is_made_whole_and_a_configuration_stays() -> Result<()> {
    let dir = image();
    let at = |path: &str| dir.path().join(path.trim_start_matches('/'));
    install_at(dir.path(), "--server 10.0.0.1")?;
    let whole = files(dir.path()).len();
    fs::write(at(CONFIG), "transfer_addrs = [\"h:1\"]\n")?;
    fs::write(at(PROGRAM), "half")?;
    fs::remove_file(at(UNIT_PATH))?;
    fs::write(at("/usr/local/bin/.hawkeye-agent.new"), "left")?;
    install_at(dir.path(), "--server 10.0.0.9")?;
    assert_eq!(fs::read_to_string(at(CONFIG))?, "transfer_addrs = [\"h:1\"]\n");
    assert_eq!(fs::read(at(PROGRAM))?, fs::read(std::env::current_exe()?)?);
    assert_eq!(files(dir.path()).len(), whole);
    Ok(())
}

#[test]
fn a_look_changes_nothing() -> Result<()> {
    let dir = image();
    let before = files(dir.path());
    install_at(dir.path(), "--server 10.0.0.1 --dry-run")?;
    assert_eq!(files(dir.path()), before);
    Ok(())
}

#[test]
fn uninstall_keeps_the_configuration_unless_all_is_to_go() -> Result<()> {
    let dir = image();
    let at = |path: &str| dir.path().join(path.trim_start_matches('/'));
    install_at(dir.path(), "--server 10.0.0.1")?;
    let end = |purge| {
        // The user's line is of no one who can be deleted by the tests.
        fs::write(at("/etc/passwd"), "root:x:0:0::/:/bin/sh\n")?;
        uninstall(&UninstallArgs { purge, place: PlaceArgs { root: dir.path().to_path_buf(), dry_run: false } })
    };
    end(false)?;
    assert!(at(CONFIG).exists() && at(STATE_DIR).exists());
    assert!(!at(PROGRAM).exists() && !at(UNIT_PATH).exists());
    end(true)?;
    assert!(!at(CONFIG).exists() && !at(STATE_DIR).exists());
    Ok(())
}

#[test]
fn a_package_is_left_to_its_distribution() -> Result<()> {
    let dir = image();
    let list = dir.path().join(DPKG.trim_start_matches('/'));
    fs::create_dir_all(list.parent().expect("a directory"))?;
    fs::write(list, "/usr/bin/hawkeye-agent\n")?;
    let error = install_at(dir.path(), "--server h").expect_err("a package").to_string();
    assert!(error.contains("the package hawkeye-agent is installed"), "{error}");
    assert!(!dir.path().join("usr").exists());
    Ok(())
}

#[test]
fn the_line_becomes_a_configuration() -> Result<()> {
    let check = |line: &str, transfers: &[&str], hbs: &str| {
        let config = made(line).expect(line);
        assert_eq!(
            (config.transfer_addrs.as_slice(), config.hbs_addr.as_str()),
            (to_texts(transfers).as_slice(), hbs),
            "{line}"
        );
    };
    check("--server h", &["h:8433"], "h:6030");
    check("--server fd00::1", &["[fd00::1]:8433"], "[fd00::1]:6030");
    check("--server h --transfer a:1 --transfer b:2", &["a:1", "b:2"], "h:6030");
    check("--transfer a:1", &["a:1"], "");
    check("--server h --hbs b:2", &["h:8433"], "b:2");
    let dir = tempfile::tempdir()?;
    let token = dir.path().join("token");
    fs::write(&token, "a-token-of-more-than-16\n")?;
    let config = made(&format!("--server h --hostname web-01 --token-file {}", token.display()))?;
    assert_eq!((config.hostname.as_str(), config.token.text()), ("web-01", "a-token-of-more-than-16"));
    let key = "iojjEvkFMzRr/iBaSMgtpY2nY9oZ0xVOuFq4QmBm8pY=";
    let config = made(&format!("--server h --upgrade-key {key}"))?;
    assert_eq!((config.upgrade.public_key.as_str(), config.upgrade.dir), (key, "/state/agent-upgrade".into()));
    Ok(())
}

fn to_texts(places: &[&str]) -> Vec<String> {
    places.iter().map(ToString::to_string).collect()
}

#[test]
fn a_line_that_makes_no_configuration_is_refused() {
    let check = |line: &str, part: &str| {
        let error = format!("{:#}", made(line).expect_err(line));
        assert!(error.contains(part), "{line} gave {error}");
    };
    check("", "give --server HOST");
    check("--tls", "give --server HOST");
    check("--server h --tls", "ca is \"\"");
    check("--server a/b", "want HOST:PORT");
    check("--transfer h", "want HOST:PORT");
    check("--server h --upgrade-key short", "upgrade.public_key is no public key");
    check("--server h --token-file /nowhere/token", "cannot read /nowhere/token");
    check("--server h --ca /nowhere/ca.pem", "cannot read /nowhere/ca.pem");
    check("--from /nowhere/cfg.json", "cannot read /nowhere/cfg.json");
}

#[test]
fn an_old_agents_settings_are_taken_over() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("cfg.json");
    let text = r#"{
        "debug": false, "hostname": "db-07", "ip": "",
        "plugin": { "enabled": true, "dir": "./plugin", "git": "https://h/p.git", "logs": "./logs" },
        "heartbeat": { "enabled": true, "addr": "10.0.0.5:6030", "interval": 30, "timeout": 1000 },
        "transfer": { "enabled": true, "addrs": ["10.0.0.5:8433", "10.0.0.6:8433"], "interval": 30, "timeout": 500 },
        "http": { "enabled": true, "listen": ":1988", "backdoor": false },
        "collector": { "ifacePrefix": ["eth"], "mountPoint": ["/data"] },
        "default_tags": { "idc": "bj" }, "ignore": { "cpu.busy": true, "df.bytes.free": false }
    }"#;
    fs::write(&path, text)?;
    let original =
        AgentConfig::load(text, std::iter::once(("STATE_DIRECTORY".into(), "/state".into())), &[], "host-1")?;
    let taken = made(&format!("--from {}", path.display()))?;
    let same = AgentConfig { agent_http_key: taken.agent_http_key, ..original };
    assert_eq!(taken, same);
    let moved = made(&format!("--from {} --server new", path.display()))?;
    assert_eq!((moved.transfer_addrs, moved.hbs_addr.as_str()), (to_texts(&["new:8433"]), "new:6030"));
    assert_eq!(moved.hostname, "db-07");
    fs::write(&path, "transfer_addrs = []")?;
    let error = format!("{:#}", made(&format!("--from {}", path.display())).expect_err("no cfg.json"));
    assert!(!error.is_empty(), "{error}");
    Ok(())
}
