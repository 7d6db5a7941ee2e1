//! Answers: what agents are to run, encoded once for all hosts that are to run the same.
//!
//! Why: ten thousand agents ask each minute, and mostly belong to a few dozen lists of groups and templates.
//! How: what a host is told follows from its templates (probes) or groups (plugins). Each list of these is answered
//! once per version of the tables; of an answer all is kept but its time.
//! Invariants: an answer is of the snapshot that it was asked of. Lists beyond [`LISTS_MAX`] are answered anew each
//! time.
//! Memory: the answers of at most [`LISTS_MAX`] lists of each kind, and the snapshot that they are of.

use super::agents;
use crate::rules::snapshot::Snapshot;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wire::hbs;

/// Lists of templates, and lists of groups, whose answers are kept. A guess: a site has tens.
const LISTS_MAX: usize = 1024;
/// End of an answer of the time 0, which is taken away.
const END: &[u8] = b"0}";

/// An answer without its end.
struct Told {
    checksum: String,
    text: Vec<u8>,
}

/// The answers of one version of the tables; clones share them.
#[derive(Clone, Default)]
pub struct Answers(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    of: Option<Arc<Snapshot>>,
    probes: HashMap<Vec<i64>, Arc<Told>>,
    plugins: HashMap<Vec<i64>, Arc<Told>>,
}

impl Answers {
    /// Appends the answer to `Agent.BuiltinMetrics` for a host that has the probes of `checksum`.
    pub fn builtin_metrics(
        &self,
        snapshot: &Arc<Snapshot>,
        hostname: &str,
        checksum: &str,
        now: i64,
        out: &mut Vec<u8>,
    ) {
        let templates = snapshot.host(hostname).map_or(&[][..], |host| &host.templates);
        let told = self.told(
            snapshot,
            templates,
            |kept| &mut kept.probes,
            || {
                let (metrics, checksum) = agents::builtin_metrics(snapshot, templates);
                let mut text = Vec::new();
                hbs::write_builtin_metrics(&mut text, Some(&metrics), &checksum, 0);
                Told { checksum, text }
            },
        );
        if told.checksum == checksum {
            hbs::write_builtin_metrics(out, Some(&[]), checksum, now);
        } else {
            told.write(now, out);
        }
    }

    /// Appends the answer to `Agent.MinePlugins`.
    pub fn plugins(&self, snapshot: &Arc<Snapshot>, hostname: &str, now: i64, out: &mut Vec<u8>) {
        let groups = snapshot.host(hostname).map_or(&[][..], |host| &host.groups);
        let told = self.told(
            snapshot,
            groups,
            |kept| &mut kept.plugins,
            || {
                let mut text = Vec::new();
                hbs::write_plugins(&mut text, Some(&agents::plugins(snapshot, groups)), 0);
                Told { checksum: String::new(), text }
            },
        );
        told.write(now, out);
    }

    fn told(
        &self,
        snapshot: &Arc<Snapshot>,
        list: &[i64],
        kind: impl Fn(&mut Kept) -> &mut HashMap<Vec<i64>, Arc<Told>>,
        make: impl FnOnce() -> Told,
    ) -> Arc<Told> {
        if let Some(told) = kind(&mut self.of(snapshot)).get(list) {
            return told.clone();
        }
        let mut told = make();
        told.text.truncate(told.text.len().saturating_sub(END.len()));
        told.text.shrink_to_fit();
        let told = Arc::new(told);
        let mut kept = self.of(snapshot);
        let kept = kind(&mut kept);
        if kept.len() < LISTS_MAX {
            kept.insert(list.to_vec(), told.clone());
        }
        told
    }

    /// What is kept of this snapshot.
    fn of(&self, snapshot: &Arc<Snapshot>) -> MutexGuard<'_, Kept> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, snapshot)) {
            *kept = Kept { of: Some(snapshot.clone()), ..Kept::default() };
        }
        kept
    }

    /// Bytes that the answers hold.
    pub fn memory_bytes(&self) -> usize {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = |told: &Arc<Told>| size_of::<Told>() + told.text.capacity() + told.checksum.capacity();
        let list = |(list, of): (&Vec<i64>, &Arc<Told>)| list.capacity() * size_of::<i64>() + told(of);
        let places = (kept.probes.capacity() + kept.plugins.capacity()) * size_of::<(Vec<i64>, Arc<Told>)>();
        places + kept.probes.iter().chain(&kept.plugins).map(list).sum::<usize>()
    }
}

impl Told {
    fn write(&self, now: i64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.text);
        out.extend_from_slice(format!("{now}}}").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::strategy::Strategy;
    use crate::rules::snapshot::HostRow;

    fn snapshot(port: &str) -> Arc<Snapshot> {
        let host = |hostname: &str, templates: &[i64], groups: &[i64]| HostRow {
            hostname: hostname.to_string(),
            templates: templates.to_vec(),
            groups: groups.to_vec(),
            ..HostRow::default()
        };
        let row = Strategy { metric: "net.port.listen".into(), tags: port.into(), tpl_id: 1, ..Strategy::default() };
        Arc::new(Snapshot {
            hosts: vec![host("a", &[1], &[7]), host("b", &[1], &[7]), host("c", &[], &[])],
            parents: HashMap::from([(1, 0)]),
            strategies: vec![row],
            by_template: HashMap::from([(1, vec![0])]),
            plugin_dirs: HashMap::from([(7, vec!["sys/ntp".to_string()])]),
            ..Snapshot::default()
        })
    }

    #[test]
    fn hosts_of_one_list_share_an_answer_until_the_tables_change() {
        let answers = Answers::default();
        let probes = |snapshot: &Arc<Snapshot>, host: &str, checksum: &str| {
            let mut out = Vec::new();
            answers.builtin_metrics(snapshot, host, checksum, 60, &mut out);
            let answer: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
            assert_eq!(answer["Timestamp"], 60);
            answer
        };
        let first = snapshot("port=22");
        let told = probes(&first, "a", "nil");
        assert_eq!(told["Metrics"][0]["Tags"], "port=22");
        assert_eq!(probes(&first, "b", "nil"), told);
        assert_eq!(answers.of(&first).probes.len(), 1);
        let checksum = told["Checksum"].as_str().expect("a text");
        assert_eq!(probes(&first, "b", checksum)["Metrics"], serde_json::json!([]));
        assert_eq!(probes(&first, "c", "nil")["Checksum"], "");
        assert_eq!(probes(&first, "unknown", "")["Metrics"], serde_json::json!([]));
        let mut out = Vec::new();
        answers.plugins(&first, "a", 61, &mut out);
        assert_eq!(out, b"{\"Plugins\":[\"sys/ntp\"],\"Timestamp\":61}");
        assert!(answers.memory_bytes() > 100);
        let second = snapshot("port=23");
        assert_eq!(probes(&second, "a", checksum)["Metrics"][0]["Tags"], "port=23");
        let kept = answers.of(&second);
        assert_eq!((kept.probes.len(), kept.plugins.len()), (1, 0));
    }
}
