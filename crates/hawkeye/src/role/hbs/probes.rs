//! Probes over hbs: which probes an agent is to run, how they are defined, and what they have found.
//!
//! How: `Hawkeye.Probes`, `Hawkeye.ProbeDefinitions` and `Hawkeye.ProbeStates` (`netprobe::delivery`), over the probes
//! in effect and who is there ([`super::placing`]).
//! Invariants: only `ProbeStates` asks the database, and only for what differs; a definition, which may hold passwords,
//! goes to no host but one that is to run it; what a host says of probes that it does not run is dropped and counted.
//! Memory: see [`super::placing`]; definitions are encoded when they are asked for, some 512 KiB an answer.

use super::placing::{Placing, THERE_S, digest_text};
use crate::clock;
use crate::portal::Portal;
use crate::portal::probe::{self, SERVER};
use crate::portal::probe_state;
use crate::rules::InEffect;
use crate::rules::probes::Planned;
use crate::rules::snapshot::Snapshot;
use crate::watch::health::{Outage, Reason};
use anyhow::Result;
use metrics::Metrics;
use net::seldom::Seldom;
use netprobe::delivery::{ANSWER_BYTES_MAX, ASKED_MAX, Ask, Defined, State, States, Want};
use netprobe::{Code, Definition};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Pause between two sweeps over states that nobody stands behind; rows of probes that were deleted go with these.
const SWEEP: Duration = Duration::from_secs(3600);
/// Seconds that the time of a state may be off: an agent's clock is not the server's.
const TIME_OFF_MAX_S: i64 = 3600;

/// The answers about probes; clones share who is there.
#[derive(Clone)]
pub struct ProbeAnswers {
    shared: Arc<Shared>,
}

struct Shared {
    placing: Mutex<Placing>,
    begun: Instant,
    /// States that were dropped.
    dropped: AtomicU64,
    told: Seldom,
}

impl Default for ProbeAnswers {
    fn default() -> ProbeAnswers {
        let (placing, dropped, told) = (Mutex::default(), AtomicU64::new(0), Seldom::default());
        ProbeAnswers { shared: Arc::new(Shared { placing, begun: Instant::now(), dropped, told }) }
    }
}

impl ProbeAnswers {
    /// Shows what was dropped.
    pub fn show_on(&self, metrics: &Metrics) {
        let shared = self.shared.clone();
        metrics.source(move |figures| {
            let help = "States of probes that an agent told without being the one to run them, or that are none";
            figures.counter("hbs_probe_states_dropped", help, shared.dropped.load(Ordering::Relaxed));
        });
    }

    /// Bytes of who is there.
    pub fn memory_bytes(&self) -> usize {
        self.placing().memory_bytes()
    }

    /// Appends the answer to `Hawkeye.Probes`.
    pub fn probes(&self, snapshot: &Arc<Snapshot>, param: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let ask: Ask = read(param)?;
        let answer = self.placing().ask(snapshot, &ask.hostname, &ask.version, self.now_s());
        if answer.beyond > 0 && self.shared.told.may_say() {
            tracing::warn!(
                hostname = ask.hostname,
                beyond = answer.beyond,
                "a host has more probes than one agent runs; the youngest are left out: give them fewer places"
            );
        }
        write(&answer.told, out);
        Ok(())
    }

    /// Appends the answer to `Hawkeye.ProbeDefinitions`.
    pub fn definitions(&self, snapshot: &Arc<Snapshot>, param: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let want: Want = read(param)?;
        let found = want.ids.iter().take(ASKED_MAX).filter_map(|id| snapshot.probes.by_id(*id));
        let mut placing = self.placing();
        let may_have: Vec<&Planned> =
            found.filter(|probe| placing.runs(snapshot, &want.hostname, probe, false)).collect();
        drop(placing);
        out.extend_from_slice(b"{\"Probes\":[");
        let start = out.len();
        for (i, probe) in may_have.into_iter().enumerate() {
            let definition: &Definition = &probe.definition;
            let defined = Defined { id: probe.id, digest: digest_text(probe.digest), definition: definition.clone() };
            let before = out.len();
            out.extend_from_slice(if i > 0 { b"," } else { b"" });
            write(&defined, out);
            if i > 0 && out.len() - start > ANSWER_BYTES_MAX {
                out.truncate(before);
                break;
            }
        }
        out.extend_from_slice(b"]}");
        Ok(())
    }

    /// Takes what `Hawkeye.ProbeStates` tells.
    pub async fn take_states(&self, portal: &Portal, snapshot: &Arc<Snapshot>, param: &[u8]) -> Result<(), String> {
        let told: States = read(param)?;
        let (count, now) = (told.states.len(), clock::now());
        let States { hostname, states } = told;
        let taken = self.taken(snapshot, &hostname, states, now);
        let dropped = count - taken.len();
        if dropped > 0 {
            self.shared.dropped.fetch_add(dropped as u64, Ordering::Relaxed);
            tracing::debug!(hostname, dropped, "states of probes that are not this host's");
        }
        let written = probe_state::set(portal, &hostname, &taken).await;
        written.map(drop).map_err(|error| format!("cannot write the states of probes: {error}"))
    }

    /// The rows of those states that this host may tell.
    fn taken(&self, snapshot: &Arc<Snapshot>, hostname: &str, states: Vec<State>, now: i64) -> Vec<probe::State> {
        let or_may = self.is_young();
        let mut placing = self.placing();
        let mut may_tell = |state: &State| {
            let probe = snapshot.probes.by_id(state.id);
            probe.is_some_and(|probe| placing.runs(snapshot, hostname, probe, or_may))
        };
        let mut rows: Vec<probe::State> = Vec::new();
        for state in states.into_iter().take(ASKED_MAX).filter(|state| may_tell(state)) {
            let Some(row) = row_of(hostname, state, now) else { continue };
            match rows.iter_mut().find(|other| other.probe_id == row.probe_id) {
                // Of two the last holds.
                Some(other) => *other = row,
                None => rows.push(row),
            }
        }
        rows
    }

    /// Deletes once an hour what places say that no longer run the probe, until the stop.
    pub async fn sweep(
        self,
        portal: Portal,
        in_effect: watch::Receiver<Arc<InEffect>>,
        outage: Outage,
        mut stopping: watch::Receiver<bool>,
    ) -> Result<()> {
        loop {
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return Ok(()),
                () = tokio::time::sleep(SWEEP) => {}
            }
            let snapshot = in_effect.borrow().snapshot.clone();
            // A row that cannot be read was not deleted.
            if snapshot.has_all_probes() {
                outage.note(self.sweep_once(&portal, &snapshot).await);
            }
        }
    }

    async fn sweep_once(&self, portal: &Portal, snapshot: &Arc<Snapshot>) -> sqlx::Result<usize> {
        let mut gone = 0;
        for id in probe_state::probes(portal).await? {
            let probe = snapshot.probes.by_id(id);
            let runs = |place: &str| match probe {
                Some(probe) if probe.grp_id == SERVER => place == probe_state::SERVER,
                Some(probe) => self.placing().runs(snapshot, place, probe, false),
                None => false,
            };
            gone += probe_state::purge(portal, id, runs).await?;
        }
        Ok(gone)
    }

    /// Seconds since the first moment at which somebody could ask.
    fn now_s(&self) -> u64 {
        self.shared.begun.elapsed().as_secs()
    }

    /// Whether agents may still run what they had before this hbs began.
    fn is_young(&self) -> bool {
        self.now_s() < THERE_S
    }

    fn placing(&self) -> MutexGuard<'_, Placing> {
        self.shared.placing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The row of a state; none where it is no state.
fn row_of(hostname: &str, state: State, now: i64) -> Option<probe::State> {
    let State { id, up, code, reason, time } = state;
    let code = match code.as_str() {
        "" => None,
        code => Some(Code::ALL.iter().find(|known| known.as_str() == code)?),
    };
    // Whoever is down says why, and the text becomes one line of bounded length whatever it was.
    let reason = netprobe::Reason::new(code.copied().unwrap_or(Code::Local), reason).text;
    let is_near = (now - TIME_OFF_MAX_S..=now + TIME_OFF_MAX_S).contains(&time);
    Some(probe::State {
        probe_id: id,
        place: hostname.to_string(),
        up: up.into(),
        code: code.map_or("", |code| code.as_str()).to_string(),
        reason,
        changed_at: if is_near { time } else { now },
    })
}

/// The reason in `/health` of a process that has no runner, while there are probes that a server is to run.
pub fn without_runner(snapshot: &Snapshot, since: i64) -> Option<Reason> {
    let count = snapshot.probes.of_server().count();
    let what = "probes of the server have nobody who runs them";
    let why = format!("{count} have no group: give them a group of hosts with agents, or run a whole server");
    (count > 0).then_some(Reason { what, why, since })
}

fn read<T: DeserializeOwned>(param: &[u8]) -> Result<T, String> {
    serde_json::from_slice(param).map_err(|error| format!("the parameter cannot be read: {error}"))
}

fn write(value: &impl Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("texts, flags and numbers always have a JSON form");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::probe::Probe;
    use crate::portal::tests::temporary;
    use crate::rules::probes::Probes;
    use crate::rules::snapshot::HostRow;
    use serde_json::{Value, json};

    fn row(id: i64, grp_id: i64, body: usize) -> Probe {
        let body = "x".repeat(body);
        let definition = json!({ "name": "p", "kind": "http", "target": "http://h/", "method": "POST", "body": body });
        Probe { id, name: format!("p{id}"), grp_id, definition: definition.to_string(), ..Probe::default() }
    }

    fn snapshot(rows: Vec<Probe>) -> Arc<Snapshot> {
        let host = |hostname: &str, groups: &[i64]| HostRow {
            hostname: hostname.into(),
            groups: groups.to_vec(),
            ..HostRow::default()
        };
        let hosts = vec![host("a", &[7]), host("b", &[8])];
        Arc::new(Snapshot { hosts, probes: Arc::new(Probes::of(rows)), ..Snapshot::default() })
    }

    fn ask(of: impl FnOnce(&[u8], &mut Vec<u8>) -> Result<(), String>, param: Value) -> Value {
        let mut out = Vec::new();
        of(param.to_string().as_bytes(), &mut out).expect("an answer");
        serde_json::from_slice(&out).expect("JSON")
    }

    #[test]
    fn definitions_go_to_who_runs_them_and_as_many_as_there_is_room_for() {
        let answers = ProbeAnswers::default();
        let rows = (1..=20).map(|id| row(id, 7, 60_000)).chain([row(21, 8, 0), row(22, SERVER, 0)]).collect();
        let tables = snapshot(rows);
        let want = |hostname: &str, ids: Value| {
            let of = |param: &[u8], out: &mut Vec<u8>| answers.definitions(&tables, param, out);
            let given = ask(of, json!({ "Hostname": hostname, "Ids": ids }));
            let ids = given["Probes"].as_array().expect("a list").iter().map(|probe| probe["Id"].clone());
            Value::Array(ids.collect())
        };
        assert_eq!(want("a", json!([2, 21, 22, 99, -1])), json!([2]));
        assert_eq!(want("b", json!([2, 21])), json!([21]));
        assert_eq!(want("stranger", json!([2, 21])), json!([]));
        let all = want("a", json!((1..=20).collect::<Vec<_>>()));
        assert_eq!(all, json!([1, 2, 3, 4, 5, 6, 7, 8]), "eight of 60 kB fit into 512 KiB");
        let given = ask(|param, out| answers.definitions(&tables, param, out), json!({ "Hostname": "b", "Ids": [21] }));
        let told = ask(|param, out| answers.probes(&tables, param, out), json!({ "Hostname": "b", "Version": "" }));
        assert_eq!(given["Probes"][0]["Digest"], told["Probes"][0]["Digest"]);
        assert_eq!(given["Probes"][0]["Definition"]["name"], "p21");
    }

    #[tokio::test]
    async fn states_are_those_of_ones_own_probes() -> Result<()> {
        let (_dir, portal) = temporary().await?;
        let (answers, tables) = (ProbeAnswers::default(), snapshot(vec![row(1, 7, 0), row(2, 8, 0)]));
        crate::portal::tests::run(
            &portal,
            "INSERT INTO falcon_portal.hawkeye_probe (id, name, definition) VALUES (1, 'p1', '{}'), (2, 'p2', '{}')",
        )
        .await?;
        let now = clock::now();
        let state = |id: i64, code: &str, time: i64| json!({ "Id": id, "Up": false, "Code": code, "Reason": "refused\nby 10.0.0.1", "Time": time });
        let tell = async |hostname: &str, states: Vec<Value>| {
            let param = json!({ "Hostname": hostname, "States": states }).to_string();
            answers.take_states(&portal, &tables, param.as_bytes()).await
        };
        let told = vec![state(1, "refused", now), state(2, "refused", now), state(9, "refused", now)];
        assert_eq!(tell("a", told).await, Ok(()));
        let (down, count) = probe_state::down(&portal, "p1", None).await?;
        assert_eq!((down[0].place.as_str(), down[0].reason.as_str(), count), ("a", "refused by 10.0.0.1", 1));
        assert_eq!((down[0].code.as_str(), down[0].changed_at), ("refused", now));
        assert_eq!(probe_state::down(&portal, "p2", None).await?.1, 0);
        assert_eq!(answers.shared.dropped.load(Ordering::Relaxed), 2);
        // No code of ours, and a clock that is years off.
        assert_eq!(tell("b", vec![state(2, "<b>", now)]).await, Ok(()));
        assert_eq!(probe_state::down(&portal, "p2", None).await?.1, 0);
        assert_eq!(tell("b", vec![state(2, "timeout", 5), state(2, "refused", 5)]).await, Ok(()));
        let (down, _) = probe_state::down(&portal, "p2", None).await?;
        assert!(down[0].code == "refused" && down[0].changed_at >= now);
        assert!(tell("b", vec![json!(7)]).await.is_err());
        // Places that run it no longer.
        assert_eq!(answers.sweep_once(&portal, &tables).await?, 0);
        assert_eq!(answers.sweep_once(&portal, &snapshot(vec![row(1, 8, 0)])).await?, 2);
        assert_eq!(probe_state::probes(&portal).await?, [0; 0]);
        // What is known costs no database.
        portal.close().await;
        assert_eq!(tell("a", vec![state(9, "refused", now)]).await, Ok(()));
        assert!(tell("a", vec![state(1, "refused", now)]).await.is_err_and(|why| why.contains("states of probes")));
        Ok(())
    }

    #[test]
    fn who_has_no_runner_says_so() {
        assert_eq!(without_runner(&snapshot(vec![row(1, 7, 0)]), 5), None);
        let reason = without_runner(&snapshot(vec![row(1, SERVER, 0)]), 5).expect("a reason");
        assert!(reason.why.starts_with("1 have no group: give"), "{reason:?}");
    }
}
