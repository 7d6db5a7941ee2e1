//! Definition: what a probe asks, whom, how often, and what it wants to hear; the JSON of the API and of hbs.
//!
//! How: one flat object. `kind` says which further keys there are; each kind is a file with its own struct. A key that
//! nobody knows is refused, for a wrong name of an expectation would expect nothing.
//! Invariants: [`Definition::check`] tells everything that is wrong, each with its key and the fix; what it takes can
//! run, and nothing runs that it refuses.
//! Memory: at most [`BYTES_MAX`] of texts per definition.

use crate::dns::Dns;
use crate::fault::short;
use crate::grpc::Grpc;
use crate::http::Http;
use crate::icmp::Icmp;
use crate::script::Script;
use crate::tcp::{Tcp, TlsTarget};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;

/// Bytes of an endpoint's name, as transfer takes them.
const NAME_BYTES_MAX: usize = 255;
/// Tags of a probe beside its target; agents send two per series.
const TAGS_MAX: usize = 16;
/// Bytes of a tag's key or value.
const TAG_BYTES_MAX: usize = 128;
/// Bytes of a target; the longest URL that common servers take.
const TARGET_BYTES_MAX: usize = 8192;
/// Bytes of all texts of a definition, as JSON: a chain of certificates, a body and some headers.
pub const BYTES_MAX: usize = 128 << 10;
/// Seconds between two runs: a probe is a whole connection, so once in five seconds is often.
const STEPS: std::ops::RangeInclusive<u32> = 5..=86_400;
/// Milliseconds of a run. A minute is the step of most probes, and nobody waits longer for an answer.
const TIMEOUTS_MS: std::ops::RangeInclusive<u32> = 10..=60_000;

/// What a probe asks, and what it wants to hear.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Definition {
    /// Name of the probe, the endpoint of its series.
    pub name: String,
    /// URL (http), `HOST:PORT` (tcp, tls, grpc; dns: `HOST` or `HOST:PORT` of the server), `HOST` (icmp), absolute path
    /// of the program (script).
    pub target: String,
    /// Seconds between two runs, 5 to 86400.
    pub step: u32,
    /// Milliseconds that a run may take as a whole, 10 to 60000 and no more than the step.
    pub timeout_ms: u32,
    /// Tags of all its series, beside `target`.
    pub tags: BTreeMap<String, String>,
    #[serde(flatten)]
    pub kind: Kind,
}

/// Kind of a probe, with what only this kind has.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Kind {
    // Boxed: the others are a tenth of it.
    Http(Box<Http>),
    Tcp(Tcp),
    Tls(TlsTarget),
    Icmp(Icmp),
    Dns(Dns),
    Grpc(Grpc),
    Script(Script),
}

impl Kind {
    /// Name of the kind, as in JSON and in metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Kind::Http(_) => "http",
            Kind::Tcp(_) => "tcp",
            Kind::Tls(_) => "tls",
            Kind::Icmp(_) => "icmp",
            Kind::Dns(_) => "dns",
            Kind::Grpc(_) => "grpc",
            Kind::Script(_) => "script",
        }
    }

    fn check(&self, target: &str, faults: &mut Vec<String>) {
        match self {
            Kind::Http(http) => http.check(target, faults),
            Kind::Tcp(tcp) => tcp.check(target, faults),
            Kind::Tls(tls) => tls.check(target, faults),
            Kind::Icmp(icmp) => icmp.check(target, faults),
            Kind::Dns(dns) => dns.check(target, faults),
            Kind::Grpc(grpc) => grpc.check(target, faults),
            Kind::Script(script) => script.check(target, faults),
        }
    }

    /// The target in its one form, for the tag; nothing where it is none.
    fn target_tag(&self, target: &str) -> Option<String> {
        let of_place = |place: crate::place::Place| place.to_string();
        match self {
            Kind::Http(_) => crate::http::Url::parse(target).ok().map(|url| of_place(url.place)),
            Kind::Tcp(_) | Kind::Tls(_) | Kind::Grpc(_) => crate::place::Place::parse(target).ok().map(of_place),
            Kind::Dns(_) => crate::dns::server_of(target).ok().map(of_place),
            Kind::Icmp(_) => crate::place::host_of(target).ok(),
            Kind::Script(_) => target.rsplit('/').next().map(str::to_string),
        }
    }
}

/// Keys that all kinds have.
#[derive(Deserialize)]
struct Common {
    name: String,
    target: String,
    #[serde(default = "sixty")]
    step: u32,
    #[serde(default = "five_seconds")]
    timeout_ms: u32,
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

const COMMON: [&str; 5] = ["name", "target", "step", "timeout_ms", "tags"];

fn sixty() -> u32 {
    60
}

fn five_seconds() -> u32 {
    5000
}

impl<'de> Deserialize<'de> for Definition {
    /// Reads the flat object. By hand, since the library's own flattening takes keys that nobody knows.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Definition, D::Error> {
        let mut own = Map::deserialize(deserializer)?;
        let common = COMMON.iter().filter_map(|key| own.remove_entry(*key)).collect();
        let kind = own.remove("kind");
        let Common { name, target, step, timeout_ms, tags } = read(common)?;
        let kind = match kind.as_ref().and_then(Value::as_str) {
            Some("http") => Kind::Http(read(own)?),
            Some("tcp") => Kind::Tcp(read(own)?),
            Some("tls") => Kind::Tls(read(own)?),
            Some("icmp") => Kind::Icmp(read(own)?),
            Some("dns") => Kind::Dns(read(own)?),
            Some("grpc") => Kind::Grpc(read(own)?),
            Some("script") => Kind::Script(read(own)?),
            _ => {
                return Err(D::Error::custom(
                    "kind: give \"http\", \"tcp\", \"tls\", \"icmp\", \"dns\", \"grpc\" or \"script\"",
                ));
            }
        };
        Ok(Definition { name, target, step, timeout_ms, tags, kind })
    }
}

fn read<T: DeserializeOwned, E: Error>(keys: Map<String, Value>) -> Result<T, E> {
    T::deserialize(Value::Object(keys)).map_err(E::custom)
}

impl Definition {
    /// Everything that is wrong, each with its key and the fix; nothing where the probe can run.
    pub fn check(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX || self.name.chars().any(char::is_control) {
            faults.push(format!(
                "name is {:?}: give 1 to {NAME_BYTES_MAX} bytes without control characters",
                short(&self.name)
            ));
        }
        if !STEPS.contains(&self.step) {
            faults.push(format!("step is {} s: give {} to {}", self.step, STEPS.start(), STEPS.end()));
        }
        if !TIMEOUTS_MS.contains(&self.timeout_ms) {
            let (least, most) = (TIMEOUTS_MS.start(), TIMEOUTS_MS.end());
            faults.push(format!("timeout_ms is {}: give {least} to {most}", self.timeout_ms));
        } else if u64::from(self.timeout_ms) > u64::from(self.step) * 1000 {
            faults.push(format!(
                "timeout_ms is {}, longer than the step of {} s: give at most the step",
                self.timeout_ms, self.step
            ));
        }
        if let Kind::Icmp(icmp) = &self.kind
            && icmp.span() >= self.timeout()
        {
            let (span, limit) = (icmp.span().as_millis(), self.timeout_ms);
            faults.push(format!(
                "count and pace_ms take {span} ms, and timeout_ms is {limit}: give fewer, a smaller pace or a longer time"
            ));
        }
        self.check_tags(&mut faults);
        if self.target.len() > TARGET_BYTES_MAX {
            faults.push(format!("target has {} bytes: give at most {TARGET_BYTES_MAX}", self.target.len()));
        } else {
            self.kind.check(&self.target, &mut faults);
        }
        let bytes = serde_json::to_vec(self).map_or(usize::MAX, |json| json.len());
        if bytes > BYTES_MAX {
            faults.push(format!("the definition has {bytes} bytes: give at most {BYTES_MAX}, with shorter texts"));
        }
        faults
    }

    fn check_tags(&self, faults: &mut Vec<String>) {
        if self.tags.len() > TAGS_MAX {
            faults.push(format!("tags has {}: give at most {TAGS_MAX}", self.tags.len()));
        }
        for (key, value) in &self.tags {
            let is_fine = |text: &str, also: &[char]| {
                (1..=TAG_BYTES_MAX).contains(&text.len())
                    && !text.contains(|c: char| c.is_control() || c == ',' || c == ' ' || also.contains(&c))
            };
            if !is_fine(key, &['=']) || !is_fine(value, &[]) {
                faults.push(format!(
                    "tags has {:?} = {:?}: give 1 to {TAG_BYTES_MAX} bytes without comma, blank and control characters, \
                     a key also without =",
                    short(key),
                    short(value)
                ));
            }
            if ["target", "from", "label", "unit"].contains(&key.as_str()) {
                faults.push(format!("tags has {key:?}, which probes set themselves: give it another name"));
            }
        }
    }

    /// Time that a run may take as a whole.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(u64::from(self.timeout_ms))
    }

    /// Canonical tags of its series: `target` and its own.
    pub fn series_tags(&self) -> String {
        let mut tags = String::from("target=");
        let target = self.kind.target_tag(&self.target).unwrap_or_else(|| short(&self.target).to_string());
        tags.extend(target.chars().map(|c| if matches!(c, ',' | '=' | ' ') || c.is_control() { '_' } else { c }));
        for (key, value) in &self.tags {
            tags.push(',');
            tags.push_str(key);
            tags.push('=');
            tags.push_str(value);
        }
        model::tags::canonical_string(&tags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(json: Value) -> Definition {
        serde_json::from_value(json).expect("a definition")
    }

    /// Checks that each fault has its part, in this order.
    fn check(json: Value, parts: &[&str]) {
        let faults = read(json).check();
        assert_eq!(faults.len(), parts.len(), "{faults:#?}");
        for (fault, part) in faults.iter().zip(parts) {
            assert!(fault.contains(part) && fault.contains("give"), "{fault}, want {part}");
        }
    }

    #[test]
    fn defaults_and_the_way_back() {
        let definition = read(json!({"name": "shop", "kind": "http", "target": "https://Shop.example/health"}));
        assert_eq!((definition.step, definition.timeout_ms), (60, 5000));
        assert_eq!(definition.check(), Vec::<String>::new());
        assert_eq!(definition.series_tags(), "target=shop.example:443");
        for kind in ["http", "tcp", "tls", "icmp", "dns", "grpc", "script"] {
            let definition = read(json!({"name": "a", "kind": kind, "target": "h:1", "tags": {"b": "c"}}));
            assert_eq!(definition.kind.as_str(), kind);
            assert_eq!(read(serde_json::to_value(&definition).expect("JSON")), definition);
        }
    }

    #[test]
    fn what_nobody_knows_is_refused() {
        let check = |json: Value, part: &str| {
            let error = serde_json::from_value::<Definition>(json).expect_err(part).to_string();
            assert!(error.contains(part), "{error}, want {part}");
        };
        check(json!({"name": "a", "kind": "http", "target": "http://a", "expct": 1}), "expct");
        check(json!({"name": "a", "kind": "gopher", "target": "a"}), "kind: give");
        check(json!({"name": "a", "target": "a"}), "kind: give");
        check(json!({"kind": "icmp", "target": "a"}), "name");
        check(json!({"name": "a", "kind": "icmp", "target": 1}), "string");
        check(json!({"name": "a", "kind": "icmp", "target": "a", "step": -1}), "-1");
        check(json!({"name": "a", "kind": "tls", "target": "a:1", "tls": {"verfy": false}}), "verfy");
    }

    #[test]
    fn all_faults_are_told_at_once() {
        check(
            json!({"name": "a\nb", "kind": "tcp", "target": "h", "step": 1, "timeout_ms": 0,
                   "tags": {"a=b": "c", "from": "x", "k": "a,b"}}),
            &["name", "step", "timeout_ms", "tags has \"a=b\"", "tags has \"from\"", "tags has \"k\"", "target"],
        );
        check(
            json!({"name": "a", "kind": "icmp", "target": "h", "step": 5, "timeout_ms": 6000}),
            &["longer than the step"],
        );
        check(json!({"name": "a", "kind": "icmp", "target": "h", "count": 30}), &["count and pace_ms take 5800 ms"]);
        check(json!({"name": "", "kind": "icmp", "target": "a".repeat(9000)}), &["name", "target has 9000 bytes"]);
        check(
            json!({"name": "a", "kind": "http", "target": "http://a/", "method": "POST", "body": "x".repeat(200_000)}),
            &["body", "the definition has"],
        );
    }

    #[test]
    fn targets_have_one_form_in_tags() {
        let check = |kind: &str, target: &str, expected: &str| {
            let definition = read(json!({"name": "a", "kind": kind, "target": target, "tags": {"z": "1", "b": "2"}}));
            assert_eq!(definition.series_tags(), format!("b=2,target={expected},z=1"));
        };
        check("http", "http://A.example/x?a=b,c", "a.example:80");
        check("tls", "[::1]:443", "[::1]:443");
        check("icmp", "Host.", "host");
        check("dns", "8.8.8.8", "8.8.8.8:53");
        check("script", "/opt/check_disk", "check_disk");
        check("tcp", "what, is=this", "what__is_this");
    }
}
