//! `hawkeye probe KIND TARGET`: runs a probe once, from here, and prints each phase.
//!
//! Why: whoever writes a probe, or is woken by one, wants to see what it sees.
//! How: kind, target and `--with KEY=VALUE` make the definition that the API would get, or `--file` is one. From the
//! command line any target may be asked, and any program run as a script: who types it could run it without us.
//! Invariants: the exit code is 0 where the probe is up, 1 where it is down, 2 where it cannot be run.

use crate::watch::log::{give_up, say};
use anyhow::{Context, Result, bail, ensure};
use netprobe::{Definition, Means, Outcome, Policy, Rest, Scripts};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use stdx::small_file;
use supervisor::causes::line_of;

/// Exit code where nothing could be asked.
const CANNOT: u8 = 2;
/// Name of a probe that has none.
const NAME: &str = "by hand";

#[derive(clap::Args)]
pub struct ProbeArgs {
    /// http, tcp, tls, icmp, dns, grpc or script.
    #[arg(value_name = "KIND", required_unless_present = "file")]
    kind: Option<String>,
    /// What is asked: a URL, HOST:PORT, a host, or a program; docs/probes.md says which kind takes what.
    #[arg(value_name = "TARGET", required_unless_present = "file")]
    target: Option<String>,
    /// A key of the definition, e.g. `--with status=200-299`; a value that is JSON counts as such. May be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    with: Vec<String>,
    /// A definition as a JSON file, instead of kind and target; keys of `--with` win.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kind", "target"])]
    file: Option<PathBuf>,
    /// Print what was found as one line of JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &ProbeArgs) -> ExitCode {
    match definition(args).and_then(|definition| Ok((ask(&definition)?, definition))) {
        Ok((outcome, definition)) => {
            let text = if args.json { outcome.json().to_string() } else { text(&definition, &outcome) };
            say(format_args!("{}", text.trim_end()));
            ExitCode::from(u8::from(!outcome.up))
        }
        Err(error) => {
            give_up(format_args!("hawkeye: {}", line_of(&*error)));
            ExitCode::from(CANNOT)
        }
    }
}

fn definition(args: &ProbeArgs) -> Result<Definition> {
    let mut keys = match &args.file {
        Some(path) => read(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => Map::new(),
    };
    for (key, value) in [("kind", &args.kind), ("target", &args.target)] {
        keys.extend(value.iter().map(|value| (key.to_string(), json!(value))));
    }
    for pair in &args.with {
        let Some((key, value)) = pair.split_once('=') else { bail!("--with {pair}: give KEY=VALUE") };
        keys.insert(key.to_string(), value_of(key, value));
    }
    keys.entry("name").or_insert_with(|| json!(NAME));
    let definition: Definition = serde_json::from_value(Value::Object(keys)).context("this is no probe")?;
    let faults = definition.check();
    ensure!(faults.is_empty(), "this is no probe: {}", faults.join("; "));
    Ok(definition)
}

fn read(path: &Path) -> Result<Map<String, Value>> {
    let text = small_file::read(path, netprobe::BYTES_MAX as u64)?;
    serde_json::from_slice(&text).context("it is no JSON object")
}

/// A value as it was typed: JSON, or else a text. A list of codes is one text, also where it is a single number.
fn value_of(key: &str, typed: &str) -> Value {
    match serde_json::from_str(typed) {
        Ok(Value::Number(_)) if key == "status" => json!(typed),
        Ok(value) => value,
        Err(_) => json!(typed),
    }
}

fn ask(definition: &Definition) -> Result<Outcome> {
    let dirs = Path::new(&definition.target).parent().map(Path::to_path_buf);
    let scripts = Scripts { dirs: Vec::from_iter(dirs), user: None };
    let policy = Policy { rest: Rest::Any, scripts, ..Policy::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(netprobe::run(definition, &policy, &Means::default()));
    // A name that is being resolved must not hold the process.
    runtime.shutdown_background();
    Ok(outcome)
}

fn text(definition: &Definition, outcome: &Outcome) -> String {
    let mut out =
        format!("{} {}: {}", definition.kind.as_str(), definition.target, if outcome.up { "up" } else { "down" });
    if let Some(reason) = &outcome.reason {
        write!(out, ", {} ({})", reason.text, reason.code.as_str()).expect("a String takes all");
    }
    out.push('\n');
    if let Some(peer) = outcome.peer {
        writeln!(out, "  spoken to {peer}").expect("a String takes all");
    }
    for (phase, time) in &outcome.phases {
        writeln!(out, "  {:<12} {:>10.1} ms", phase.as_str(), time.as_secs_f64() * 1e3).expect("a String takes all");
    }
    for reading in &outcome.readings {
        let blank = if reading.tags.is_empty() { "" } else { " " };
        let value = (reading.value * 1e3).round() / 1e3;
        writeln!(out, "{}{blank}{} {value}", reading.metric, reading.tags).expect("a String takes all");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::net::TcpListener;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ProbeArgs,
    }

    fn args(line: &[&str]) -> ProbeArgs {
        Line::try_parse_from(["probe"].iter().chain(line)).unwrap_or_else(|error| panic!("{error}")).args
    }

    #[test]
    fn what_is_typed_is_a_definition() {
        let typed = args(&["http", "https://h/x", "--with", "status=200", "--with", "tls={\"days_left_min\":14}"]);
        let made = definition(&typed).expect("a probe");
        let expected = json!({
            "name": NAME, "kind": "http", "target": "https://h/x", "status": "200", "tls": { "days_left_min": 14 },
        });
        assert_eq!(made, serde_json::from_value(expected).expect("a probe"));
        let check = |line: &[&str], part: &str| {
            let error = format!("{:#}", definition(&args(line)).expect_err(part));
            assert!(error.contains(part), "{line:?} gave {error}");
        };
        check(&["http", "https://h/", "--with", "colour=red"], "colour");
        check(&["http", "https://h/", "--with", "status"], "give KEY=VALUE");
        check(&["tcp", "h"], "target");
        check(&["smoke", "h"], "kind");
        check(&["--file", "/nonexistent"], "cannot read /nonexistent");
        assert!(Line::try_parse_from(["probe", "http"]).is_err(), "a target is needed");
    }

    #[test]
    fn a_file_is_a_definition() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("shop.json");
        std::fs::write(&file, r#"{"name": "shop", "kind": "tcp", "target": "h:1", "timeout_ms": 100}"#).expect("room");
        let path = file.to_str().expect("UTF-8");
        let made = definition(&args(&["--file", path, "--with", "timeout_ms=200"])).expect("a probe");
        assert_eq!((made.name.as_str(), made.timeout_ms), ("shop", 200));
        assert!(Line::try_parse_from(["probe", "tcp", "h:1", "--file", path]).is_err(), "one or the other");
    }

    #[test]
    fn phases_and_reasons_are_printed() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let target = listener.local_addr().expect("bound").to_string();
        let probe = definition(&args(&["tcp", &target])).expect("a probe");
        let found = ask(&probe).expect("a runtime");
        let shown = text(&probe, &found);
        assert!(shown.starts_with(&format!("tcp {target}: up\n  spoken to {target}\n  dns ")), "{shown}");
        assert!(shown.contains("\n  connect "), "{shown}");
        assert!(shown.contains(&format!("probe.up target={target} 1\n")), "{shown}");
        drop(listener);
        let found = ask(&probe).expect("a runtime");
        let shown = text(&probe, &found);
        assert!(shown.starts_with(&format!("tcp {target}: down, ")) && shown.contains("(refused)\n"), "{shown}");
        let json = found.json();
        assert_eq!((&json["up"], &json["reason"]["code"]), (&json!(false), &json!("refused")));
    }

    #[test]
    fn a_script_of_any_folder_runs() {
        let probe =
            definition(&args(&["script", "/bin/echo", "--with", "args=[\"OK - fine | t=5ms\"]"])).expect("a probe");
        let found = ask(&probe).expect("a runtime");
        assert!(found.up, "{found:?}");
        assert!(text(&probe, &found).contains("OK - fine"));
    }
}
