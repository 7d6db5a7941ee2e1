//! Placing: which hosts run which probes.
//!
//! Why: a probe that two of a group's forty agents run must run on two, whoever restarts; and a host that dies must not
//! take its probes along.
//! How: a probe of a group without a number runs on all its hosts, in maintenance or not: what a probe watches is
//! something else. Of a probe with a number each host of the group has a weight that follows from both names alone
//! (rendezvous hashing), and of the hosts that are *there* the heaviest run it. Who has asked within [`THERE_S`] is
//! there. So the end of a host moves its own probes only, and its return those alone.
//! An hbs that has just begun knows of nobody. Until [`THERE_S`] an agent that shows a version, and to which this hbs
//! has given none, keeps what it has: so a restart moves nothing. Only an agent that lost its probes too, in that time,
//! may run more than its share until then.
//! Invariants: no clock is read here, and none of the wall is needed; weights are the same in all versions and on all
//! machines.
//! Memory: 50 bytes per host that asks, of those in the table of hosts; per probe with a number, that number; the names
//! of groups with such probes, as numbers.

use crate::rules::probes::Planned;
use crate::rules::snapshot::{HostRow, Snapshot};
use netprobe::delivery::{Handle, PROBES_MAX, Told};
use std::collections::HashMap;
use std::sync::Arc;

/// Seconds that a host which has asked is there: two questions, each a minute apart, and half of one.
pub const THERE_S: u64 = 150;
/// Seconds between two looks at who has fallen silent; each may cost a weight per probe and host.
const LOOK_S: u64 = 10;

/// Who is there, and what follows from that of one version of the tables.
#[derive(Default)]
pub struct Placing {
    there: HashMap<u64, Seen>,
    looked_s: u64,
    of: Option<Arc<Snapshot>>,
    /// Numbers of the hosts of groups that have probes with a number.
    members: HashMap<i64, Vec<u64>>,
    /// The heaviest hosts that are there, with their weights, heaviest first, by probe.
    chosen: HashMap<i64, Vec<(u64, u64)>>,
}

/// A host that has asked.
struct Seen {
    asked_s: u64,
    /// Version that it was given last.
    given: Option<u64>,
}

/// Answer to a host that has asked.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub told: Told,
    /// Probes beyond [`PROBES_MAX`], which the host does not run.
    pub beyond: usize,
}

impl Placing {
    /// Notes that a host asks at `now_s`, seconds since the first moment that it could, and answers what it is to run.
    /// `version` is of what it has.
    pub fn ask(&mut self, snapshot: &Arc<Snapshot>, hostname: &str, version: &str, now_s: u64) -> Answer {
        self.turn_to(snapshot);
        self.forget_silent(now_s);
        let shown = u64::from_str_radix(version, 16).ok();
        let host = snapshot.host(hostname);
        if let Some(host) = host {
            self.arrive(snapshot, host, now_s);
        }
        let number = hash(hostname);
        let given = self.there.get(&number).and_then(|seen| seen.given);
        if now_s < THERE_S && host.is_some() && shown.is_some() && given.is_none() {
            let told = Told { version: version.to_string(), probes: None };
            return Answer { told, beyond: 0 };
        }
        let mut probes = host.map_or_else(Vec::new, |host| self.probes_of(snapshot, host));
        let beyond = probes.len().saturating_sub(PROBES_MAX);
        probes.truncate(PROBES_MAX);
        let version = version_of(&probes);
        if let Some(seen) = self.there.get_mut(&number) {
            seen.given = Some(version);
        }
        let handle = |probe: &&Planned| Handle { id: probe.id, digest: digest_text(probe.digest) };
        let handles = (shown != Some(version)).then(|| probes.iter().map(handle).collect());
        Answer { told: Told { version: digest_text(version), probes: handles }, beyond }
    }

    /// Whether a host is to run a probe, as who is there stands. What a host has kept from before this hbs began may be
    /// more: `or_may` says yes to that, too.
    pub fn runs(&mut self, snapshot: &Arc<Snapshot>, hostname: &str, probe: &Planned, or_may: bool) -> bool {
        self.turn_to(snapshot);
        let is_member = snapshot.host(hostname).is_some_and(|host| host.groups.contains(&probe.grp_id));
        is_member && (or_may || self.is_chosen(snapshot, hash(hostname), probe))
    }

    /// Bytes that are held.
    pub fn memory_bytes(&self) -> usize {
        let members: usize = self.members.values().map(|list| list.capacity() * size_of::<u64>()).sum();
        let chosen: usize = self.chosen.values().map(|list| list.capacity() * size_of::<(u64, u64)>()).sum();
        let lists = (self.members.capacity() + self.chosen.capacity()) * (size_of::<(i64, Vec<u64>)>() + 1);
        self.there.capacity() * (size_of::<(u64, Seen)>() + 1) + members + chosen + lists
    }

    /// What a host is to run, by id.
    fn probes_of<'s>(&mut self, snapshot: &'s Arc<Snapshot>, host: &HostRow) -> Vec<&'s Planned> {
        let number = hash(&host.hostname);
        let groups = host.groups.iter().filter(|group| **group != crate::portal::probe::SERVER);
        let of_groups = groups.flat_map(|group| snapshot.probes.of_group(*group));
        let mut probes: Vec<&Planned> = of_groups.filter(|probe| self.is_chosen(snapshot, number, probe)).collect();
        probes.sort_unstable_by_key(|probe| probe.id);
        probes
    }

    fn is_chosen(&mut self, snapshot: &Snapshot, number: u64, probe: &Planned) -> bool {
        if probe.places == 0 {
            return true;
        }
        if !self.chosen.contains_key(&probe.id) {
            let chosen = self.choose(snapshot, probe);
            self.chosen.insert(probe.id, chosen);
        }
        self.chosen[&probe.id].iter().any(|(_, host)| *host == number)
    }

    /// The heaviest hosts of a probe's group that are there.
    fn choose(&mut self, snapshot: &Snapshot, probe: &Planned) -> Vec<(u64, u64)> {
        let members = self.members.entry(probe.grp_id).or_insert_with(|| {
            let of_group = snapshot.hosts.iter().filter(|host| host.groups.contains(&probe.grp_id));
            of_group.map(|host| hash(&host.hostname)).collect()
        });
        let there = members.iter().filter(|host| self.there.contains_key(host));
        let mut weighed: Vec<(u64, u64)> = there.map(|host| (weight(probe.id, *host), *host)).collect();
        weighed.sort_unstable_by(|a, b| b.cmp(a));
        weighed.truncate(probe.places);
        weighed.shrink_to_fit();
        weighed
    }

    /// Notes a host that asks. One that was not there takes its places from lighter ones.
    fn arrive(&mut self, snapshot: &Snapshot, host: &HostRow, now_s: u64) {
        let number = hash(&host.hostname);
        if let Some(seen) = self.there.get_mut(&number) {
            seen.asked_s = now_s;
            return;
        }
        self.there.insert(number, Seen { asked_s: now_s, given: None });
        for probe in host.groups.iter().flat_map(|group| snapshot.probes.of_group(*group)) {
            let Some(chosen) = self.chosen.get_mut(&probe.id) else { continue };
            let one = (weight(probe.id, number), number);
            let place = chosen.partition_point(|other| *other > one);
            chosen.insert(place, one);
            chosen.truncate(probe.places);
        }
    }

    /// Forgets who has not asked for too long, whose places others take.
    fn forget_silent(&mut self, now_s: u64) {
        if now_s < self.looked_s + LOOK_S {
            return;
        }
        self.looked_s = now_s;
        let before = self.there.len();
        self.there.retain(|_, seen| seen.asked_s + THERE_S >= now_s);
        if self.there.len() < before {
            self.chosen.clear();
        }
    }

    /// Forgets what followed from other tables.
    fn turn_to(&mut self, snapshot: &Arc<Snapshot>) {
        if !self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, snapshot)) {
            self.of = Some(snapshot.clone());
            self.members.clear();
            self.chosen.clear();
        }
    }
}

/// Version of what a host runs: follows from the ids and digests.
fn version_of(probes: &[&Planned]) -> u64 {
    probes.iter().fold(0, |version, probe| mix(mix(version ^ probe.id as u64) ^ probe.digest))
}

/// A digest, or a version, as agents get it.
pub fn digest_text(digest: u64) -> String {
    format!("{digest:016x}")
}

/// Weight of a host for a probe.
fn weight(probe: i64, host: u64) -> u64 {
    mix(mix(probe as u64) ^ host)
}

/// FNV-1a with a finish.
fn hash(text: &str) -> u64 {
    mix(text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// SplitMix64's step: each bit of the result depends on each of `value`.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::probe::Probe;
    use crate::rules::probes::Probes;

    const GROUP: i64 = 7;

    fn row(id: i64, places: i64) -> Probe {
        let definition = format!(r#"{{"name":"p","kind":"icmp","target":"10.0.0.{id}"}}"#);
        Probe { id, name: format!("p{id}"), grp_id: GROUP, places, definition, ..Probe::default() }
    }

    fn snapshot(hosts: usize, rows: Vec<Probe>) -> Arc<Snapshot> {
        let host = |i: usize| HostRow { hostname: name(i), groups: vec![GROUP], ..HostRow::default() };
        let mut hosts: Vec<HostRow> = (0..hosts).map(host).collect();
        hosts.push(HostRow { hostname: "other".into(), groups: vec![8], ..HostRow::default() });
        Arc::new(Snapshot { hosts, probes: Arc::new(Probes::of(rows)), ..Snapshot::default() })
    }

    fn name(host: usize) -> String {
        format!("h{host:03}")
    }

    /// What all hosts but some are told at `now_s`, each with the version that it got last.
    fn round(
        placing: &mut Placing,
        snapshot: &Arc<Snapshot>,
        versions: &mut [String],
        silent: &[usize],
        now_s: u64,
    ) -> Vec<(usize, i64)> {
        let mut runs = Vec::new();
        for host in (0..versions.len()).filter(|host| !silent.contains(host)) {
            let told = placing.ask(snapshot, &name(host), "", now_s).told;
            versions[host] = told.version;
            runs.extend(told.probes.expect("all").iter().map(|probe| (host, probe.id)));
        }
        runs
    }

    #[test]
    fn each_probe_has_its_places_whoever_comes_and_goes() {
        let rows = (1..=60).map(|id| row(id, 2)).chain([row(100, 0)]).collect();
        let (snapshot, mut placing, mut versions) = (snapshot(10, rows), Placing::default(), vec![String::new(); 10]);
        round(&mut placing, &snapshot, &mut versions, &[], 1000);
        let before = round(&mut placing, &snapshot, &mut versions, &[], 1060);
        let count = |runs: &[(usize, i64)], id| runs.iter().filter(|(_, probe)| *probe == id).count();
        assert!((1..=60).all(|id| count(&before, id) == 2) && count(&before, 100) == 10);
        let most = (0..10).map(|host| before.iter().filter(|(of, _)| *of == host).count()).max();
        assert!(most < Some(30), "{most:?}");
        // One that is silent for a minute keeps its probes.
        round(&mut placing, &snapshot, &mut versions, &[3], 1120);
        for now in [1180, 1211, 1240] {
            round(&mut placing, &snapshot, &mut versions, &[3], now);
        }
        let without = round(&mut placing, &snapshot, &mut versions, &[3], 1300);
        assert!((1..=60).all(|id| count(&without, id) == 2), "others have taken them");
        let stayed = before.iter().filter(|(host, _)| *host != 3).all(|run| without.contains(run));
        assert!(stayed, "the others' own have not moved");
        // It comes back, and has what it had.
        round(&mut placing, &snapshot, &mut versions, &[], 1360);
        assert_eq!(round(&mut placing, &snapshot, &mut versions, &[], 1420), before);
    }

    #[test]
    fn what_is_unchanged_is_told_in_a_word() {
        let (one, mut placing) = (snapshot(1, vec![row(1, 0), row(2, 1)]), Placing::default());
        let first = placing.ask(&one, "h000", "", 0).told;
        assert_eq!(first.probes.as_ref().map(Vec::len), Some(2));
        let again = placing.ask(&one, "h000", &first.version, 60).told;
        assert_eq!(again, Told { version: first.version.clone(), probes: None });
        assert!(serde_json::to_vec(&again).expect("JSON").len() < 100);
        let changed = snapshot(1, vec![Probe { definition: row(9, 0).definition, ..row(1, 0) }, row(2, 1)]);
        let told = placing.ask(&changed, "h000", &first.version, 90).told;
        let (old, new) = (first.probes.expect("all"), told.probes.expect("a change"));
        assert!(old[0] != new[0] && old[1] == new[1]);
        assert_ne!(told.version, first.version);
        for (hostname, why) in [("other", "its group has none"), ("stranger", "nobody knows it")] {
            let told = placing.ask(&one, hostname, "", 90).told;
            assert_eq!(told.probes, Some(Vec::new()), "{why}");
            assert_eq!(placing.ask(&one, hostname, &told.version, 90).told.probes, None);
        }
        // A host whose last probe goes is told so.
        assert_eq!(placing.ask(&snapshot(1, Vec::new()), "h000", &first.version, 90).told.probes, Some(Vec::new()));
    }

    /// An hbs that begins takes nothing away, and no probe is lost meanwhile.
    #[test]
    fn a_restart_moves_nothing() {
        let tables = snapshot(10, (1..=20).map(|id| row(id, 1)).collect());
        let (mut placing, mut versions) = (Placing::default(), vec![String::new(); 10]);
        round(&mut placing, &tables, &mut versions, &[], 0);
        let before = round(&mut placing, &tables, &mut versions, &[], 60);
        let mut placing = Placing::default();
        for now in [0, 60, 120, 180] {
            for (host, version) in versions.iter().enumerate() {
                let told = placing.ask(&tables, &name(host), version, now).told;
                assert_eq!(told, Told { version: version.clone(), probes: None }, "{host} at {now}");
            }
        }
        assert_eq!(round(&mut placing, &tables, &mut versions, &[], 240), before);
        // What this hbs has given itself, it takes back at once.
        let (none, mut placing) = (snapshot(10, Vec::new()), Placing::default());
        let given = placing.ask(&tables, "h000", "", 1).told;
        assert_eq!(placing.ask(&none, "h000", &given.version, 2).told.probes, Some(Vec::new()));
        // A version that is none keeps nothing.
        assert!(placing.ask(&tables, "h001", "v7?", 3).told.probes.is_some());
    }

    #[test]
    fn who_may_tell_of_a_probe() {
        let (tables, mut placing) = (snapshot(3, vec![row(1, 1)]), Placing::default());
        let probe = &tables.probes.all()[0];
        assert!(!placing.runs(&tables, "h000", probe, false), "nobody is there");
        assert!(placing.runs(&tables, "h000", probe, true) && !placing.runs(&tables, "other", probe, true));
        for host in 0..3 {
            placing.ask(&tables, &name(host), "", 0);
        }
        let runs = (0..3).filter(|host| placing.runs(&tables, &name(*host), probe, false)).count();
        assert_eq!(runs, 1);
        assert!(placing.memory_bytes() > 0);
    }

    #[test]
    fn a_host_has_no_more_probes_than_it_can_bear() {
        let (tables, mut placing) = (snapshot(1, (1..=2010).map(|id| row(id, 0)).collect()), Placing::default());
        let Answer { told, beyond } = placing.ask(&tables, "h000", "", 0);
        assert_eq!((told.probes.map(|probes| probes.len()), beyond), (Some(PROBES_MAX), 10));
        assert_eq!(placing.ask(&tables, "h000", &told.version, 1).told.probes, None);
    }
}
