//! SMART: what disks say of their own state, through `smartctl --json`.
//!
//! How: a scan names the disks; each is asked by a program of its own, so that one that hangs costs itself only. A disk
//! that sleeps is left asleep (`--nocheck=standby`) and has no readings. The exit code of the program is a mask of what
//! it found: what counts is whether it printed the disk's state.
//! Compat: ours; names are the same for ATA and NVMe where the meaning is. Needs root, and smartmontools 7.
//! Memory: one answer per disk that is asked at the time, [`OUTPUT_MAX`] each.

use super::Collected;
use super::child::{Output, Program};
use probe::{Reading, tag};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tokio::task::JoinSet;

/// Disks that are asked; a shelf has 60, two hang on a host.
const DISKS_MAX: usize = 128;
/// Disks that are asked at a time.
const PARALLEL_MAX: usize = 4;
/// The time for an answer; a disk that has spun down under it takes ten seconds.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an answer; that of a disk with all its attributes has some 20 kB.
const OUTPUT_MAX: usize = 256 << 10;

/// Attributes of ATA disks whose raw value counts what went wrong, by their numbers.
const ATTRIBUTES: [(u32, &str); 5] = [
    (5, "smart.reallocated_sectors"),
    (187, "smart.uncorrectable_errors"),
    (197, "smart.pending_sectors"),
    (198, "smart.offline_uncorrectable"),
    (199, "smart.crc_errors"),
];

/// Disks that are asked, each by a program of its own.
#[derive(Debug)]
pub struct Smart {
    path: String,
    scan: Program,
    disks: BTreeMap<(String, String), Program>,
}

#[derive(Debug, Deserialize)]
struct Scan {
    #[serde(default)]
    devices: Vec<Device>,
}

#[derive(Clone, Debug, Deserialize)]
struct Device {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

impl Device {
    /// Disks behind one controller have one name, and a type with their number each.
    fn key(&self) -> (String, String) {
        (self.name.clone(), self.kind.clone())
    }
}

/// What a disk says; each part may be missing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    smart_status: Option<Status>,
    temperature: Option<Temperature>,
    power_on_time: Option<PowerOn>,
    ata_smart_attributes: Attributes,
    nvme_smart_health_information_log: Option<Health>,
    smartctl: Messages,
}

#[derive(Debug, Deserialize)]
struct Status {
    passed: bool,
}

#[derive(Debug, Deserialize)]
struct Temperature {
    current: f64,
}

#[derive(Debug, Deserialize)]
struct PowerOn {
    hours: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Attributes {
    table: Vec<Attribute>,
}

#[derive(Debug, Deserialize)]
struct Attribute {
    id: u32,
    raw: Raw,
}

#[derive(Debug, Deserialize)]
struct Raw {
    value: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Health {
    critical_warning: Option<f64>,
    available_spare: Option<f64>,
    percentage_used: Option<f64>,
    media_errors: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Messages {
    messages: Vec<Message>,
}

#[derive(Debug, Deserialize)]
struct Message {
    string: String,
    #[serde(default)]
    severity: String,
}

impl Smart {
    /// Asks by the program at `path`.
    pub fn new(path: &str) -> Smart {
        Smart { path: path.to_string(), scan: Program::new(path), disks: BTreeMap::new() }
    }

    /// Collects each disk that answers.
    pub async fn collect(&mut self) -> Collected {
        let mut collected = Collected::default();
        let mut devices = match self.devices().await {
            Ok(devices) => devices,
            Err(why) => {
                collected.fail("smartctl", why);
                return collected;
            }
        };
        if devices.len() > DISKS_MAX {
            collected
                .fail("collect.smart", format!("there are {} disks: the first {DISKS_MAX} are asked", devices.len()));
            devices.truncate(DISKS_MAX);
        }
        // A program that still waits for a disk keeps its place also while the disk is gone.
        self.disks.retain(|key, program| devices.iter().any(|device| device.key() == *key) || !program.is_idle());
        let mut asking = JoinSet::new();
        for device in devices {
            if asking.len() == PARALLEL_MAX
                && let Some(Ok((device, asked))) = asking.join_next().await
            {
                push(&device, asked, &mut collected);
            }
            let program = self.disks.entry(device.key()).or_insert_with(|| Program::new(&self.path)).clone();
            asking.spawn(async move {
                let asked = ask(&program, &device).await;
                (device, asked)
            });
        }
        while let Some(Ok((device, asked))) = asking.join_next().await {
            push(&device, asked, &mut collected);
        }
        collected
    }

    async fn devices(&self) -> Result<Vec<Device>, String> {
        let output = self.scan.run(&["--json=c", "--scan-open"], TIMEOUT, OUTPUT_MAX).await?;
        let scan: Scan = serde_json::from_str(&output.text).map_err(|_| not_json(&output))?;
        // What begins with a dash would be a flag.
        Ok(scan.devices.into_iter().filter(|device| device.name.starts_with('/')).collect())
    }
}

fn not_json(output: &Output) -> String {
    format!("smartctl said no JSON (it needs smartmontools 7): {}", output.complaint)
}

async fn ask(program: &Program, device: &Device) -> Result<State, String> {
    let arguments =
        ["--json=c", "--health", "--attributes", "--nocheck=standby,0", "--device", &device.kind, &device.name];
    let output = program.run(&arguments, TIMEOUT, OUTPUT_MAX).await?;
    serde_json::from_str(&output.text).map_err(|_| not_json(&output))
}

fn push(device: &Device, asked: Result<State, String>, collected: &mut Collected) {
    let state = match asked {
        Ok(state) => state,
        Err(why) => return collected.fail(&device.name, why),
    };
    let name = Path::new(&device.name).file_name().map_or(device.name.as_str().into(), |name| name.to_string_lossy());
    let tags = match device.kind.contains(',') {
        true => format!("{},{}", tag("device", &name), tag("type", &device.kind.replace(',', "-"))),
        false => tag("device", &name),
    };
    let before = collected.readings.len();
    let mut gauge = |metric: &'static str, value: Option<f64>| {
        let value = value.filter(|value| value.is_finite());
        collected.readings.extend(value.map(|value| Reading::gauge(metric, &tags, value)));
    };
    gauge("smart.passed", state.smart_status.map(|status| f64::from(u8::from(status.passed))));
    gauge("smart.temperature", state.temperature.map(|temperature| temperature.current));
    gauge("smart.power_on_hours", state.power_on_time.map(|time| time.hours));
    for (id, metric) in ATTRIBUTES {
        let attribute = state.ata_smart_attributes.table.iter().find(|attribute| attribute.id == id);
        gauge(metric, attribute.map(|attribute| attribute.raw.value));
    }
    let health = state.nvme_smart_health_information_log.unwrap_or_default();
    gauge("smart.critical_warning", health.critical_warning);
    gauge("smart.available_spare.percent", health.available_spare);
    gauge("smart.used.percent", health.percentage_used);
    gauge("smart.media_errors", health.media_errors);
    // A disk that sleeps has a message, and none of an error.
    let errors = state.smartctl.messages.iter().filter(|message| message.severity == "error");
    let errors: Vec<&str> = errors.map(|message| message.string.as_str()).collect();
    if collected.readings.len() == before && !errors.is_empty() {
        collected.fail(&device.name, errors.join("; "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::tests::{Script, rows};

    const SMARTCTL: &str = r#"
case "$*" in
"--json=c --scan-open") echo '{"devices":[{"name":"/dev/sda","type":"sat","protocol":"ATA"},
  {"name":"/dev/nvme0","type":"nvme"},{"name":"/dev/sdb","type":"sat"},{"name":"/dev/bus/0","type":"megaraid,4"},{"name":"/dev/sdz","type":"scsi"},
  {"name":"--help","type":"x"}]}' ;;
"--json=c --health --attributes --nocheck=standby,0 --device sat /dev/sda") echo '{"smart_status":{"passed":false},
  "temperature":{"current":41},"power_on_time":{"hours":30000,"minutes":5},"ata_smart_attributes":{"revision":16,"table":[
  {"id":5,"name":"Reallocated_Sector_Ct","value":100,"raw":{"value":8,"string":"8"}},
  {"id":9,"name":"Power_On_Hours","value":1,"raw":{"value":30000,"string":"30000"}},
  {"id":197,"name":"Current_Pending_Sector","value":100,"raw":{"value":2,"string":"2"}}]}}'; exit 8 ;;
*"sat /dev/sdb") echo '{"smartctl":{"messages":[{"string":"Device is in STANDBY mode, exit(0)","severity":"information"}]}}' ;;
*"nvme /dev/nvme0") echo '{"smart_status":{"passed":true,"nvme":{"value":0}},"temperature":{"current":36},
  "nvme_smart_health_information_log":{"critical_warning":0,"temperature":36,"available_spare":100,"percentage_used":3,
  "media_errors":0},"power_on_time":{"hours":12}}' ;;
*"megaraid,4 /dev/bus/0") echo '{"smart_status":{"passed":true}}' ;;
*) echo '{"smartctl":{"messages":[{"string":"Smartctl open device: /dev/sdz failed: No such device","severity":"error"}]}}'; exit 2 ;;
esac"#;

    #[tokio::test]
    async fn disks_of_each_kind() {
        let script = Script::new(SMARTCTL);
        let collected = Smart::new(script.path()).collect().await;
        let mut rows = rows(&collected.readings);
        rows.sort();
        let expected = [
            "smart.available_spare.percent device=nvme0 GAUGE 100",
            "smart.critical_warning device=nvme0 GAUGE 0",
            "smart.media_errors device=nvme0 GAUGE 0",
            "smart.passed device=0,type=megaraid-4 GAUGE 1",
            "smart.passed device=nvme0 GAUGE 1",
            "smart.passed device=sda GAUGE 0",
            "smart.pending_sectors device=sda GAUGE 2",
            "smart.power_on_hours device=nvme0 GAUGE 12",
            "smart.power_on_hours device=sda GAUGE 30000",
            "smart.reallocated_sectors device=sda GAUGE 8",
            "smart.temperature device=nvme0 GAUGE 36",
            "smart.temperature device=sda GAUGE 41",
            "smart.used.percent device=nvme0 GAUGE 3",
        ];
        assert_eq!(rows, expected);
        assert_eq!(collected.faults.len(), 1);
        assert!(collected.faults[0].of == "/dev/sdz" && collected.faults[0].why.contains("No such device"));
    }

    #[tokio::test]
    async fn without_the_program_or_its_json_it_is_told() {
        let fault = async |path: &str| {
            let collected = Smart::new(path).collect().await;
            assert!(collected.readings.is_empty());
            collected.faults[0].why.clone()
        };
        assert!(fault("/nowhere/smartctl").await.starts_with("cannot start /nowhere/smartctl"));
        let old = Script::new("echo 'UNRECOGNIZED OPTION: json=c' >&2; exit 1");
        assert!(fault(old.path()).await.contains("smartmontools 7"), "{}", fault(old.path()).await);
    }
}
