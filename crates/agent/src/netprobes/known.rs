//! Known: the probes that hbs has given, by id, and which of them run.
//!
//! Why: hbs says what has changed only, so what it has given before is kept. A definition that cannot be run (of a kind
//! that this version does not know) is kept as well, so that it is not asked for each minute.
//! Invariants: pure. A probe whose new definition has not come yet runs as before; no two that run have one name.
//! Memory: [`PROBES_MAX`] probes, of whose definitions [`BYTES_MAX`] as JSON.

use netprobe::Definition;
use netprobe::delivery::{Handle, PROBES_MAX};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Bytes of all definitions as JSON: 2,000 of 2 KiB, where a usual one has 300 bytes.
pub const BYTES_MAX: usize = 4 << 20;
/// Bytes of a version or a digest; hbs writes 16 to 64.
const DIGEST_BYTES_MAX: usize = 128;
/// Bytes of what is wrong with a definition.
const FAULT_BYTES_MAX: usize = 240;

/// A probe as hbs gives it, whose definition may be of another version than ours.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Loose {
    pub id: i64,
    pub digest: String,
    pub definition: Value,
}

/// The probes that hbs has given.
#[derive(Debug, Default)]
pub struct Known {
    /// Version of all of it; "" where something is missing.
    version: String,
    probes: BTreeMap<i64, Entry>,
    /// Probes of hbs that are too many.
    left_out: usize,
}

/// A probe, read or refused.
#[derive(Debug)]
pub struct Entry {
    digest: String,
    bytes: usize,
    /// The reason where it cannot be run.
    definition: Result<Arc<Definition>, String>,
    /// There was no room for it; it is asked for again when something changes.
    is_left_out: bool,
}

/// Which of the known probes run.
#[derive(Debug, Default)]
pub struct Runnable {
    pub definitions: BTreeMap<i64, Arc<Definition>>,
    /// Probes that cannot be run, each with the reason.
    pub refused: Vec<(i64, String)>,
    /// Probes of hbs that are too many.
    pub left_out: usize,
}

impl Known {
    /// Version of what is known, for hbs.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether there is such a probe.
    pub fn has(&self, id: i64) -> bool {
        self.probes.contains_key(&id)
    }

    /// Ids of those among `handles` whose definition is to be asked for.
    pub fn wanted(&self, handles: &[Handle]) -> Vec<i64> {
        let is_here = |handle: &Handle| {
            self.probes.get(&handle.id).is_some_and(|entry| entry.digest == handle.digest && !entry.is_left_out)
        };
        let first = handles.iter().take(PROBES_MAX);
        first.filter(|handle| !is_here(handle)).map(|handle| handle.id).collect()
    }

    /// Makes what is known into `handles`, with the definitions that were `given`.
    pub fn take(&mut self, version: &str, handles: &[Handle], given: Vec<(i64, Entry)>) {
        let given_bytes: usize = given.iter().map(|(_, entry)| entry.bytes).sum();
        let mut given: HashMap<i64, Entry> = given.into_iter().collect();
        let mut before = std::mem::take(&mut self.probes);
        let (mut is_whole, mut bytes) = (version.len() <= DIGEST_BYTES_MAX, 0);
        for handle in handles.iter().take(PROBES_MAX) {
            let (old, new) = (before.remove(&handle.id), given.remove(&handle.id));
            let is_known = new.is_some() || old.as_ref().is_some_and(|old| old.digest == handle.digest);
            match new.or(old) {
                Some(entry) => {
                    bytes += entry.bytes;
                    let entry = if bytes > BYTES_MAX { Entry::left_out(entry.digest) } else { entry };
                    self.probes.insert(handle.id, entry);
                }
                // What was not asked for, for there is no room.
                None if given_bytes > BYTES_MAX => {
                    self.probes.insert(handle.id, Entry::left_out(handle.digest.clone()));
                    continue;
                }
                None => {}
            }
            is_whole &= is_known;
        }
        self.left_out = handles.len().saturating_sub(PROBES_MAX);
        self.version = if is_whole { version.to_string() } else { String::new() };
    }

    /// Which of the known probes run.
    pub fn runnable(&self) -> Runnable {
        let mut runnable = Runnable { left_out: self.left_out, ..Runnable::default() };
        let mut names = HashMap::new();
        for (id, entry) in &self.probes {
            match &entry.definition {
                Err(reason) => runnable.refused.push((*id, reason.clone())),
                Ok(definition) => match names.insert(definition.name.as_str(), *id) {
                    None => drop(runnable.definitions.insert(*id, definition.clone())),
                    Some(other) => {
                        names.insert(&definition.name, other);
                        let reason = format!("name is that of probe {other}, too: give it another one");
                        runnable.refused.push((*id, reason));
                    }
                },
            }
        }
        runnable
    }
}

impl Entry {
    /// Bytes of its definition as JSON.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Reads what hbs gives.
    pub fn of(loose: Loose) -> Entry {
        let mut digest = loose.digest;
        if digest.len() > DIGEST_BYTES_MAX {
            // Such a one is asked for each time, for it is never what was told.
            digest.clear();
        }
        let bytes = loose.definition.to_string().len();
        let definition = read(loose.definition).map(Arc::new);
        let bytes = if definition.is_ok() { bytes } else { 0 };
        Entry { digest, bytes, definition, is_left_out: false }
    }

    fn left_out(mut digest: String) -> Entry {
        digest.truncate(digest.floor_char_boundary(DIGEST_BYTES_MAX));
        let reason = format!("this agent has definitions of {BYTES_MAX} bytes already: give it to another");
        Entry { digest, bytes: 0, definition: Err(reason), is_left_out: true }
    }
}

/// Reads a definition; the error says why it cannot be run.
fn read(definition: Value) -> Result<Definition, String> {
    let shortened = |mut fault: String| {
        fault.truncate(fault.floor_char_boundary(FAULT_BYTES_MAX));
        fault
    };
    let own = format!("this agent ({}) cannot run it: ", env!("CARGO_PKG_VERSION"));
    let definition: Definition =
        serde_json::from_value(definition).map_err(|error| shortened(format!("{own}{error}")))?;
    let faults = definition.check();
    if faults.is_empty() { Ok(definition) } else { Err(shortened(format!("{own}{}", faults.join("; ")))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn handles(pairs: &[(i64, &str)]) -> Vec<Handle> {
        pairs.iter().map(|(id, digest)| Handle { id: *id, digest: digest.to_string() }).collect()
    }

    fn loose(id: i64, digest: &str, name: &str) -> (i64, Entry) {
        let definition = json!({"name": name, "kind": "icmp", "target": "10.0.0.1"});
        (id, Entry::of(Loose { id, digest: digest.into(), definition }))
    }

    #[test]
    fn only_what_has_changed_is_wanted() {
        let mut known = Known::default();
        let first = handles(&[(1, "a"), (2, "b")]);
        assert_eq!(known.wanted(&first), [1, 2]);
        known.take("v1", &first, vec![loose(1, "a", "x"), loose(2, "b", "y")]);
        assert_eq!((known.version(), known.wanted(&first)), ("v1", vec![]));
        let second = handles(&[(2, "c"), (3, "d")]);
        assert_eq!(known.wanted(&second), [2, 3]);
        // Without the new definition of 2 it runs as before, and is asked for again.
        known.take("v2", &second, vec![loose(3, "d", "z")]);
        assert_eq!((known.version(), known.wanted(&second)), ("", vec![2]));
        assert_eq!(known.runnable().definitions.into_keys().collect::<Vec<_>>(), [2, 3]);
        known.take("v2", &second, vec![loose(2, "c", "yy")]);
        assert_eq!((known.version(), known.wanted(&second)), ("v2", vec![]));
        assert_eq!(known.runnable().definitions[&2].name, "yy");
        known.take("v3", &[], Vec::new());
        assert!(known.runnable().definitions.is_empty() && !known.has(2));
    }

    #[test]
    fn what_cannot_be_run_costs_itself_and_is_not_wanted_again() {
        let check = |definition: Value, part: &str| {
            let mut known = Known::default();
            let told = handles(&[(1, "a"), (2, "b")]);
            known.take(
                "v",
                &told,
                vec![(1, Entry::of(Loose { id: 1, digest: "a".into(), definition })), loose(2, "b", "fine")],
            );
            let runnable = known.runnable();
            assert_eq!(runnable.definitions.into_keys().collect::<Vec<_>>(), [2]);
            assert_eq!((runnable.refused[0].0, known.wanted(&told)), (1, vec![]));
            let reason = &runnable.refused[0].1;
            assert!(reason.contains(part) && reason.len() <= FAULT_BYTES_MAX, "{reason}, want {part}");
        };
        check(json!({"name": "a", "kind": "gopher", "target": "h"}), "kind: give");
        check(json!({"name": "a", "kind": "icmp", "target": "h", "novel": 1}), "novel");
        check(json!({"name": "a", "kind": "icmp", "target": "h", "step": 1}), "step is 1");
        check(json!(7), "cannot run it");
        check(json!({"name": "a".repeat(9000), "kind": "icmp", "target": "h"}), "name is");
    }

    #[test]
    fn names_are_one_probes() {
        let mut known = Known::default();
        known.take("v", &handles(&[(1, "a"), (2, "b")]), vec![loose(1, "a", "x"), loose(2, "b", "x")]);
        let runnable = known.runnable();
        assert_eq!(runnable.definitions.into_keys().collect::<Vec<_>>(), [1]);
        assert_eq!(runnable.refused, [(2, "name is that of probe 1, too: give it another one".to_string())]);
        // Two that exchange their names.
        known.take("w", &handles(&[(1, "a"), (2, "b")]), vec![loose(1, "a", "x"), loose(2, "b", "y")]);
        known.take("x", &handles(&[(1, "c"), (2, "d")]), vec![loose(1, "c", "y"), loose(2, "d", "x")]);
        assert!(known.runnable().refused.is_empty());
    }

    #[test]
    fn more_than_an_agent_runs_is_left_out() {
        let many: Vec<Handle> = (0..PROBES_MAX as i64 + 5).map(|id| Handle { id, digest: "a".into() }).collect();
        let mut known = Known::default();
        assert_eq!(known.wanted(&many).len(), PROBES_MAX);
        known.take("v", &many, many.iter().map(|handle| loose(handle.id, "a", &format!("p{}", handle.id))).collect());
        let runnable = known.runnable();
        assert_eq!((runnable.definitions.len(), runnable.left_out, known.version()), (PROBES_MAX, 5, "v"));
        let told: Vec<Handle> = many[..60].to_vec();
        let large = |id: i64| {
            let body = json!({"name": format!("p{id}"), "kind": "http", "target": "http://h/", "method": "POST",
                              "headers": {"content-type": "text/plain"}, "body": "x".repeat(60 << 10)});
            (id, Entry::of(Loose { id, digest: "b".into(), definition: body }))
        };
        known.take("w", &told, (0..60).map(large).collect());
        assert!(known.runnable().refused.is_empty(), "60 of 60 KiB are below the bound");
        known.take("x", &many[..80], (0..80).map(large).collect());
        let runnable = known.runnable();
        assert!(runnable.refused.len() > 5 && runnable.refused[0].1.contains("give it to another"));
        assert_eq!((runnable.definitions.len() + runnable.refused.len(), runnable.left_out), (80, 0));
    }
}
