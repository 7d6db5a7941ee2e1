//! Places: what the places of a probe say together, as series.
//!
//! Why: one agent whose own network is down is no outage of what it asks; "two of five places fail" is.
//! How: of each probe that agents run, once a step and at a second of its own, the newest points of `probe.up` are
//! looked up, one per place that has reported in the last [`STEPS_X2`] half steps. Out of these come `probe.places`,
//! `probe.places_down` and `probe.places_down_percent`, with the tags of the probe's series but `from`, so "k of n
//! places fail" is a rule like any other. Where no place reports there is `probe.places` alone, with 0: nobody knows
//! then what is down.
//! Invariants: points ahead of now do not count; series of a definition with other tags are not those of this one. A
//! probe that the server runs has one place, whose own `probe.up` says as much.
//! Memory: a number per probe; while one is computed, the names of its series.

use super::{Door, Engine, InEffect, Ingest, IngestError, Outage};
use crate::clock;
use crate::engine::fed::Fed;
use crate::portal::probe::SERVER;
use crate::rules::probes::{Planned, Probes};
use anyhow::{Context, Result};
use model::{CounterType, Point, Tags};
use regex::Regex;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use store::CounterQuery;
use tokio::sync::watch;
use wire::Item;

/// Pause between two looks at what is due.
const LOOK: Duration = Duration::from_secs(1);
/// Half steps in which a place must have reported: one run may be missed, and each has a second of its own in its step.
const STEPS_X2: i64 = 5;
/// Series of a probe's places that are looked at; a group has fewer hosts.
const SERIES_MAX: usize = 10_000;

/// Seconds for which agents may go on with a probe that they are not to run: two heartbeats, and what waits meanwhile.
const POINTS_COME_S: i64 = 180;

/// Beginning of the counters that say whether a probe is up at a place.
const UP: &str = "probe.up/";
/// Finds [`UP`].
static UP_PATTERN: LazyLock<Regex> = LazyLock::new(|| Regex::new("^probe\\.up/").expect("a pattern of the source"));

/// Computes what places say together.
#[derive(Clone)]
pub struct Together {
    pub engine: Arc<Engine>,
    pub ingest: Arc<Ingest>,
}

impl Together {
    /// Computes each second what is due, until the stop. `outage` says while points are not taken.
    pub async fn run(
        self,
        in_effect: watch::Receiver<Arc<InEffect>>,
        outage: Outage,
        mut stopping: watch::Receiver<bool>,
    ) -> Result<()> {
        let (mut due, mut fed, mut seen) = (Due::default(), Fed::default(), None);
        loop {
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return Ok(()),
                () = tokio::time::sleep(LOOK) => {}
            }
            let (snapshot, now) = (in_effect.borrow().snapshot.clone(), clock::now());
            let probes = snapshot.probes.clone();
            // What cannot be read was not deleted.
            if snapshot.has_all_probes() && !seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &probes)) {
                fed.note(probes.all().iter().map(|probe| probe.definition.name.clone()).collect(), now);
                seen = Some(probes.clone());
            }
            self.end_alarms(fed.due(POINTS_COME_S, now)).await?;
            let ids = due.take(&probes, now);
            if ids.is_empty() {
                continue;
            }
            let work = self.clone();
            let computing = self.engine.spawn_blocking(move |_| work.compute(&probes, &ids, now));
            outage.note(computing.await.context("computing what places say together")?);
        }
    }

    /// Closes the alarms of probes that nobody runs any more.
    async fn end_alarms(&self, names: Vec<String>) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let ending = self.engine.spawn_blocking(move |engine| {
            names
                .iter()
                .try_for_each(|name| engine.end_alarms(name, "probe.", "the probe was deleted, paused or renamed"))
        });
        if let Err(error) = ending.await.context("closing alarms of probes")? {
            tracing::warn!(%error, "alarms of probes that are gone stay open");
        }
        Ok(())
    }

    /// Computes these probes at `now`, and sends their points in.
    pub fn compute(&self, probes: &Probes, ids: &[i64], now: i64) -> Result<(), IngestError> {
        // A batch holds the table of series, which is read here.
        let probes = ids.iter().filter_map(|id| probes.by_id(*id));
        let all_said: Vec<(&Planned, Said)> = probes.map(|probe| (probe, self.said(probe, now))).collect();
        let mut batch = self.ingest.begin(Door::Probe, now);
        for (probe, said) in all_said {
            let tags = probe.definition.series_tags();
            for (metric, value) in said.values() {
                batch.push(&Item {
                    endpoint: &probe.definition.name,
                    metric,
                    tags: &tags,
                    value,
                    step: probe.definition.step,
                    counter_type: CounterType::Gauge,
                    timestamp: now,
                });
            }
        }
        batch.finish().map(drop)
    }

    /// What the places of a probe have said last. A name that cannot be read is as good as none; whoever keeps the
    /// store has told of it.
    fn said(&self, probe: &Planned, now: i64) -> Said {
        let (store, name, tags) = (self.engine.store(), &probe.definition.name, probe.definition.series_tags());
        let ids = store.endpoint_ids(&[name.as_str()]).unwrap_or_default();
        let Some(id) = ids.first().copied().flatten() else { return Said::default() };
        let patterns = [(false, UP_PATTERN.clone())];
        let query = CounterQuery { endpoint_ids: &[id], patterns: &patterns, offset: 0, limit: SERIES_MAX };
        let rows = store.counters(&query).unwrap_or_default();
        let counters = rows.iter().map(|row| row.counter.as_str()).filter(|counter| is_of_place(counter, &tags));
        let points = counters.filter_map(|counter| store.last(store.find(name, counter).ok().flatten()?));
        // Points are kept in the slots of this step.
        Said::of(points, now, probe.definition.step.max(self.ingest.min_step()))
    }
}

/// How many places have reported, and how many of these are down.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Said {
    places: u32,
    down: u32,
}

impl Said {
    /// Out of the newest points of all places.
    fn of(points: impl Iterator<Item = Point>, now: i64, step: u32) -> Said {
        let oldest = now - i64::from(step) * STEPS_X2 / 2;
        points.filter(|point| (oldest..=now).contains(&point.time)).fold(Said::default(), |said, point| Said {
            places: said.places + 1,
            down: said.down + u32::from(point.value == 0.0),
        })
    }

    fn values(self) -> Vec<(&'static str, f64)> {
        let Said { places, down } = self;
        let (places, down) = (f64::from(places), f64::from(down));
        let mut values = vec![("probe.places", places)];
        if places > 0.0 {
            values.extend([("probe.places_down", down), ("probe.places_down_percent", down * 100.0 / places)]);
        }
        values
    }
}

/// Whether a counter is of `probe.up` with these tags and a place.
fn is_of_place(counter: &str, tags: &str) -> bool {
    let Some(of_place) = counter.strip_prefix(UP) else { return false };
    let of_place = Tags::assume_canonical(of_place);
    let others = of_place.iter().filter(|(key, _)| *key != "from");
    of_place.find("from").is_some() && others.eq(Tags::assume_canonical(tags).iter())
}

/// The step in which each probe was computed last.
#[derive(Default)]
struct Due(HashMap<i64, i64>);

impl Due {
    /// Ids of the probes that are due at `now`, which count as computed. A probe is due once a step, at a second of the
    /// step that its id gives; one that is new within the first step.
    fn take(&mut self, probes: &Probes, now: i64) -> Vec<i64> {
        self.0.retain(|id, _| probes.by_id(*id).is_some());
        let slot = |probe: &Planned| {
            let step = i64::from(probe.definition.step.max(1));
            (now - probe.id.rem_euclid(step)).div_euclid(step)
        };
        let of_agents = probes.all().iter().filter(|probe| probe.grp_id != SERVER);
        let due = of_agents.filter(|probe| {
            let slot = slot(probe);
            // A clock that was set back makes probes due too.
            self.0.insert(probe.id, slot).is_some_and(|before| before != slot)
        });
        due.map(|probe| probe.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::probe::Probe;

    #[test]
    fn who_counts_as_a_place() {
        let check = |counter: &str, tags: &str, is: bool| assert_eq!(is_of_place(counter, tags), is, "{counter}");
        check("probe.up/from=a,target=h:80", "target=h:80", true);
        check("probe.up/a=1,from=a,target=h:80,z=2", "a=1,target=h:80,z=2", true);
        check("probe.up/target=h:80", "target=h:80", false);
        check("probe.up/from=a,target=h:81", "target=h:80", false);
        check("probe.up/from=a,target=h:80,team=x", "target=h:80", false);
        check("probe.upper/from=a,target=h:80", "target=h:80", false);
    }

    #[test]
    fn what_places_say_together() {
        let check = |points: &[(i64, f64)], expected: &[(&str, f64)]| {
            let points = points.iter().map(|(time, value)| Point { time: *time, value: *value });
            assert_eq!(Said::of(points, 1000, 60).values(), expected);
        };
        check(&[], &[("probe.places", 0.0)]);
        check(&[(849, 0.0), (1001, 0.0)], &[("probe.places", 0.0)]);
        let two_of_three =
            [("probe.places", 3.0), ("probe.places_down", 2.0), ("probe.places_down_percent", 200.0 / 3.0)];
        check(&[(850, 0.0), (1000, 0.0), (960, 1.0), (700, 1.0)], &two_of_three);
    }

    #[test]
    fn each_probe_is_due_once_a_step() {
        let row = |id: i64, grp_id: i64, step: i64| {
            let definition = format!(r#"{{"name":"p","kind":"icmp","target":"h","step":{step}}}"#);
            Probe { id, name: format!("p{id}"), grp_id, definition, ..Probe::default() }
        };
        let (mut due, probes) = (Due::default(), Probes::of(vec![row(1, 7, 60), row(2, 7, 10), row(3, SERVER, 10)]));
        assert_eq!(due.take(&probes, 1_000_000), [0; 0], "a new one waits for its second");
        let mut count = [0; 4];
        for second in 1..=60 {
            for id in due.take(&probes, 1_000_000 + second) {
                count[id as usize] += 1;
            }
        }
        assert_eq!(count, [0, 1, 6, 0]);
    }
}
