//! Probes: the portal's probes as agents and this server take them.
//!
//! Why: ten thousand agents ask each minute which probes they are to run; that is looked up, not computed.
//! How: rows are read once per version of the tables, with a digest that changes with the definition; which of them
//! concern a group is an index. What a row holds that is no definition is skipped and told.
//! Invariants: immutable; sorted by id; a probe that is paused is not here, for nobody runs it; a definition's name is
//! its row's.
//! Memory: the definitions, some 700 bytes each with what finds them.

use crate::portal::probe::{Probe, SERVER};
use netprobe::Definition;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;

/// Probes that somebody is to run.
#[derive(Clone, Debug, Default)]
pub struct Probes {
    list: Vec<Planned>,
    /// Places in `list`, by group.
    by_group: HashMap<i64, Vec<usize>>,
    /// Places in `list`, by name.
    by_name: HashMap<String, usize>,
}

/// A probe with what decides where it runs.
#[derive(Clone, Debug)]
pub struct Planned {
    pub id: i64,
    /// The host group whose agents run it; [`SERVER`] is the server.
    pub grp_id: i64,
    /// How many agents of the group run it; 0 is all.
    pub places: usize,
    /// Changes with the definition.
    pub digest: u64,
    pub definition: Arc<Definition>,
    /// Bytes of the definition as JSON.
    bytes: usize,
}

impl Probes {
    /// The probes of these rows; what is no definition is told in the log.
    pub fn of(mut rows: Vec<Probe>) -> Probes {
        rows.sort_unstable_by_key(|row| row.id);
        let mut probes = Probes::default();
        for row in rows.into_iter().filter(|row| row.pause == 0) {
            let definition = match serde_json::from_str::<Definition>(&row.definition) {
                Ok(definition) => Definition { name: row.name, ..definition },
                Err(error) => {
                    tracing::warn!(probe = row.name, %error, "a probe's definition cannot be read, and nobody runs it");
                    continue;
                }
            };
            probes.push(row.id, row.grp_id, row.places, definition);
        }
        probes
    }

    fn push(&mut self, id: i64, grp_id: i64, places: i64, definition: Definition) {
        let place = self.list.len();
        self.by_group.entry(grp_id).or_default().push(place);
        self.by_name.insert(definition.name.clone(), place);
        let (digest, bytes) = digest(&definition);
        let places = usize::try_from(places).unwrap_or(0);
        self.list.push(Planned { id, grp_id, places, digest, definition: Arc::new(definition), bytes });
    }

    /// All of them, by id.
    pub fn all(&self) -> &[Planned] {
        &self.list
    }

    /// Probes of a group, by id.
    pub fn of_group(&self, grp_id: i64) -> impl Iterator<Item = &Planned> {
        self.by_group.get(&grp_id).into_iter().flatten().map(|place| &self.list[*place])
    }

    /// Probes that the server runs, by id.
    pub fn of_server(&self) -> impl Iterator<Item = &Planned> {
        self.of_group(SERVER)
    }

    /// Finds a probe by its id.
    pub fn by_id(&self, id: i64) -> Option<&Planned> {
        self.list.binary_search_by_key(&id, |probe| probe.id).ok().map(|place| &self.list[place])
    }

    /// Finds a probe by its name.
    pub fn by_name(&self, name: &str) -> Option<&Planned> {
        self.by_name.get(name).map(|place| &self.list[*place])
    }

    /// Bytes that the probes hold; of a definition twice what it has as JSON is close enough.
    pub fn memory_bytes(&self) -> usize {
        let probe = |probe: &Planned| size_of::<Planned>() + size_of::<Definition>() + 2 * probe.bytes;
        let index = |list: &Vec<usize>| list.capacity() * size_of::<usize>() + size_of::<(i64, Vec<usize>)>();
        let names = self.by_name.keys().map(|name| name.capacity() + size_of::<(String, usize)>());
        self.list.iter().map(probe).sum::<usize>()
            + self.by_group.values().map(index).sum::<usize>()
            + names.sum::<usize>()
    }
}

/// The first bytes of the definition's hash, and its length as JSON. Spaces and the order of keys, which the portal's
/// text may have in any way, change neither.
fn digest(definition: &Definition) -> (u64, usize) {
    let json = serde_json::to_vec(definition).expect("texts, flags and numbers always have a JSON form");
    let hash = Sha256::digest(&json);
    let first = hash.first_chunk().expect("a hash has 32 bytes");
    (u64::from_be_bytes(*first), json.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: i64, name: &str, grp_id: i64, definition: &str) -> Probe {
        Probe { id, name: name.into(), grp_id, definition: definition.into(), ..Probe::default() }
    }

    #[test]
    fn rows_become_what_somebody_runs() {
        let icmp = r#"{"name":"a","kind":"icmp","target":"10.0.0.1"}"#;
        let spaced = r#"{ "target": "10.0.0.1", "kind": "icmp", "name": "a" }"#;
        let other = r#"{"name":"c","kind":"icmp","target":"10.0.0.2"}"#;
        let paused = Probe { pause: 1, ..row(4, "paused", 7, icmp) };
        let rows = vec![row(3, "c", 7, other), row(2, "renamed", 0, icmp), row(1, "a", 7, spaced), paused];
        let probes = Probes::of([rows, vec![row(5, "odd", 7, "{}"), row(6, "no JSON", 7, "")]].concat());
        let ids = |list: Vec<&Planned>| list.iter().map(|probe| probe.id).collect::<Vec<_>>();
        assert_eq!(ids(probes.all().iter().collect()), [1, 2, 3]);
        assert_eq!(ids(probes.of_group(7).collect()), [1, 3]);
        assert_eq!(ids(probes.of_server().collect()), [2]);
        assert_eq!(probes.by_name("renamed").map(|probe| probe.id), Some(2));
        assert_eq!(probes.by_id(2).map(|probe| probe.definition.name.as_str()), Some("renamed"));
        assert!(probes.by_id(4).is_none() && probes.by_name("odd").is_none());
        let of = |id| probes.by_id(id).map(|probe| probe.digest);
        assert!(of(1) != of(2) && of(1) != of(3), "name and target are parts of it");
        assert_eq!(of(1), Probes::of(vec![row(9, "a", 0, icmp)]).by_id(9).map(|probe| probe.digest));
        assert!(probes.memory_bytes() > icmp.len());
    }
}
