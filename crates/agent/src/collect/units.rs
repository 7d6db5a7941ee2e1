//! Units: the state of systemd's units, as `systemctl show` tells it.
//!
//! Why the program and not D-Bus: a connection to the bus is a library and a protocol for some lines a minute, and the
//! program knows where its manager is.
//! Invariants: a name that systemd does not know is inactive, not missing; a manager that does not answer is a fault.
//! Memory: the program's output, [`OUTPUT_MAX`] at most, and [`UNITS_MAX`] units.

use super::Collected;
use super::child::Program;
use model::tags::canonical_string;
use probe::Reading;
use std::collections::BTreeSet;
use std::time::Duration;

/// The time for an answer; the manager of a host that swaps needs seconds.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Units of one report; a host has some three hundred services.
const UNITS_MAX: usize = 1024;
/// Bytes of an answer: four short lines for each unit.
const OUTPUT_MAX: usize = UNITS_MAX * 512;
/// States in which a unit does its work.
const ACTIVE: [&str; 3] = ["active", "reloading", "refreshing"];

const PROPERTIES: &str = "--property=Id,ActiveState,NRestarts";

/// Collects the units whose names match, and how many of all have failed.
pub async fn collect(systemctl: &Program, units: &[String]) -> Collected {
    let mut collected = Collected::default();
    let mut ask = vec!["show", "--no-pager", PROPERTIES, "--"];
    ask.extend(units.iter().map(String::as_str));
    match said(systemctl, &ask).await {
        Ok(text) => push(&text, &mut collected),
        Err(why) => collected.fail("systemctl", why),
    }
    match said(systemctl, &["show", "--no-pager", "--property=NFailedUnits"]).await {
        Ok(text) => {
            let failed = value(&text, "NFailedUnits").and_then(|number| number.parse::<u32>().ok());
            collected.readings.extend(failed.map(|n| Reading::gauge("systemd.units.failed", "", f64::from(n))));
        }
        // A manager that did not answer a moment before has been told of.
        Err(_) if !collected.faults.is_empty() => {}
        Err(why) => collected.fail("systemctl", why),
    }
    collected
}

async fn said(systemctl: &Program, arguments: &[&str]) -> Result<String, String> {
    let output = systemctl.run(arguments, TIMEOUT, OUTPUT_MAX).await?;
    match output.code {
        Some(0) => Ok(output.text),
        _ => Err(format!("systemctl failed: {}", output.complaint)),
    }
}

/// Blocks of `Name=value` with an empty line between them.
fn push(text: &str, collected: &mut Collected) {
    let mut seen = BTreeSet::new();
    for block in text.split("\n\n") {
        let (Some(id), Some(state)) = (value(block, "Id"), value(block, "ActiveState")) else { continue };
        if !seen.insert(id) {
            continue;
        }
        if seen.len() > UNITS_MAX {
            return collected.fail("collect.units", format!("more than {UNITS_MAX} units match: give narrower names"));
        }
        let tags = canonical_string(&format!("unit={}", id.replace([',', '='], "_")));
        let is = |states: &[&str]| f64::from(u8::from(states.contains(&state)));
        collected.readings.push(Reading::gauge("systemd.unit.active", &tags, is(&ACTIVE)));
        collected.readings.push(Reading::gauge("systemd.unit.failed", &tags, is(&["failed"])));
        let restarts = value(block, "NRestarts").and_then(|number| number.parse::<u32>().ok());
        let restarts = restarts.map(|n| Reading::counter("systemd.unit.restarts", &tags, f64::from(n)));
        collected.readings.extend(restarts);
    }
}

fn value<'a>(block: &'a str, name: &str) -> Option<&'a str> {
    block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::tests::{Script, rows};

    const SYSTEMCTL: &str = r#"
case "$*" in
*NFailedUnits*) echo NFailedUnits=2 ;;
"show --no-pager --property=Id,ActiveState,NRestarts -- nginx.service *.timer gone.service")
    printf 'Id=nginx.service\nActiveState=active\nNRestarts=3\n\nId=a.timer\nActiveState=failed\n\n'
    printf 'Id=gone.service\nActiveState=inactive\nNRestarts=0\n\nId=nginx.service\nActiveState=active\nNRestarts=3\n' ;;
*) exit 9 ;;
esac"#;

    #[tokio::test]
    async fn states_as_systemctl_says_them() {
        let script = Script::new(SYSTEMCTL);
        let units = ["nginx.service", "*.timer", "gone.service"].map(String::from);
        let collected = collect(&script.program(), &units).await;
        assert!(collected.faults.is_empty(), "{:?}", collected.faults);
        let expected = [
            "systemd.unit.active unit=nginx.service GAUGE 1",
            "systemd.unit.failed unit=nginx.service GAUGE 0",
            "systemd.unit.restarts unit=nginx.service COUNTER 3",
            "systemd.unit.active unit=a.timer GAUGE 0",
            "systemd.unit.failed unit=a.timer GAUGE 1",
            "systemd.unit.active unit=gone.service GAUGE 0",
            "systemd.unit.failed unit=gone.service GAUGE 0",
            "systemd.unit.restarts unit=gone.service COUNTER 0",
            "systemd.units.failed  GAUGE 2",
        ];
        assert_eq!(rows(&collected.readings), expected);
    }

    #[tokio::test]
    async fn a_host_without_systemd_is_told_once() {
        let script = Script::new("echo 'System has not been booted with systemd' >&2; exit 1");
        let collected = collect(&script.program(), &["a".into()]).await;
        assert!(collected.readings.is_empty());
        assert_eq!(collected.faults.len(), 1, "{:?}", collected.faults);
        assert!(collected.faults[0].why.contains("System has not been booted"));
    }
}
