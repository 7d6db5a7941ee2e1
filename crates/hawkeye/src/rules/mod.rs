//! Rules in effect: from the portal's tables to judges and to hbs's answers, as soon as something changes.
//!
//! Why: every original judge pulls all strategies of all hosts each minute. Here a change is announced by whoever made
//! it; the tables that rules depend on are read once (of a change that is one strategy's only its row), the rules
//! computed once, the judges get what is new.
//! How: one task waits for the portal's announcements, for the next minute (run windows begin and end with one) and for
//! the second at which a maintenance begins or is over; what the clock does not change is not loaded again.
//! A start takes what can be read of tables that are damaged, for a rule that is not judged calls nobody; from then on
//! they are read whole or not at all, and the rules in effect stay.
//! Invariants: [`InEffect`] is immutable and always whole; the full answers for old judges are encoded once per
//! version, and only when somebody asks.

pub mod aggregate;
pub mod computed;
pub mod except;
pub mod follow;
mod gone;
pub mod holding;
pub mod probes;
pub mod pull;
pub mod rehearsal;
mod resolve;
pub mod snapshot;

use crate::clock;
use crate::engine::Engine;
use crate::portal::{Announced, Portal};
use crate::watch::c_heap;
use crate::watch::health::{Health, Outage, Reason};
use anyhow::Result;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use model::Rules;
use snapshot::Snapshot;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use stdx::ledger::{Ledger, Report};
use tokio::sync::watch;

/// Pause after a failed read of the portal; the rules in effect stay.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What is wrong while rows of damaged tables are missing in the rules.
const IN_PART: &str =
    "rules cannot be read and are not judged, and their open alarms stay open: restore a backup of the portal";

/// The tables as of one version, the rules that follow from them now, and the encoded answers for judges that pull.
pub struct InEffect {
    pub snapshot: Arc<Snapshot>,
    pub rules: Rules,
    strategies_json: OnceLock<Vec<u8>>,
    expressions_json: OnceLock<Vec<u8>>,
    rules_bytes: usize,
    snapshot_bytes: usize,
}

impl InEffect {
    /// Rules of one version, nothing of them encoded yet.
    pub fn new(snapshot: Arc<Snapshot>, rules: Rules) -> InEffect {
        let (rules_bytes, snapshot_bytes) = (rules.memory_bytes(), snapshot.memory_bytes());
        let (strategies_json, expressions_json) = (OnceLock::new(), OnceLock::new());
        InEffect { snapshot, rules, strategies_json, expressions_json, rules_bytes, snapshot_bytes }
    }

    /// Whether no row of the tables is missing here: then what is not here does not exist.
    pub fn is_whole(&self) -> bool {
        self.snapshot.unread.is_empty()
    }

    fn report(&self, report: &mut Report) {
        let json = [&self.strategies_json, &self.expressions_json].map(|json| json.get().map_or(0, Vec::capacity));
        report.line("rule texts", self.rules_bytes as u64, None, Some(self.rules.hosts.len() as u64));
        report.line("portal cache", (self.snapshot_bytes + json.iter().sum::<usize>()) as u64, None, None);
    }

    /// The result of `Hbs.GetStrategies`.
    pub fn strategies_json(&self) -> &[u8] {
        self.strategies_json.get_or_init(|| encoded(|out| wire::hbs::write_strategies(out, &self.rules)))
    }

    /// The result of `Hbs.GetExpressions`.
    pub fn expressions_json(&self) -> &[u8] {
        self.expressions_json.get_or_init(|| encoded(|out| wire::hbs::write_expressions(out, &self.rules)))
    }
}

fn what_is_unread(snapshot: &Snapshot, since: i64) -> Option<Reason> {
    let why = format!("damaged tables: {}", snapshot.unread.join(", "));
    (!snapshot.unread.is_empty()).then_some(Reason { what: IN_PART, why, since })
}

fn encoded(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out.shrink_to_fit();
    out
}

/// Follows the portal and keeps the engine's rules up to date.
pub struct RulesTask {
    portal: Portal,
    engine: Arc<Engine>,
    /// Subscribed before the first read, so that no change falls between that and [`RulesTask::run`].
    changes: watch::Receiver<u64>,
    current: watch::Sender<Arc<InEffect>>,
}

impl RulesTask {
    /// Reads and loads the rules once, so that the first point is already judged by them, and says in `health` while
    /// some of them are not read.
    pub async fn start(portal: Portal, engine: Arc<Engine>, health: &Health) -> Result<RulesTask> {
        let (changes, version) = (portal.changes(), portal.version());
        // All is read now.
        portal.take_announced();
        let (snapshot, gap) = Snapshot::load_readable(&portal).await?;
        c_heap::give_back();
        if let Some(error) = gap {
            tracing::error!(%error, tables = snapshot.unread.join(", "), "{IN_PART}");
        }
        let snapshot = Arc::new(snapshot);
        let rules = compute(&snapshot, version, true);
        load(&engine, &snapshot, rules.clone()).await;
        let current = watch::Sender::new(Arc::new(InEffect::new(snapshot, rules)));
        let (told, since) = (current.subscribe(), clock::now());
        health.source(move |reasons| reasons.extend(what_is_unread(&told.borrow().snapshot, since)));
        Ok(RulesTask { portal, engine, changes, current })
    }

    /// Whether no row of the tables is missing in the rules in effect.
    pub fn are_whole(&self) -> bool {
        self.current.borrow().is_whole()
    }

    /// Names what is kept of the portal in the ledger.
    pub fn register_memory(&self, ledger: &Ledger) {
        let in_effect = self.subscribe();
        ledger.source(move |report| in_effect.borrow().report(report));
    }

    /// Follows the rules in effect: whoever waits on the receiver sees each change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<InEffect>> {
        self.current.subscribe()
    }

    /// Keeps the rules up to date until `shutdown` turns true; `outage` says while they cannot be read.
    pub async fn run(mut self, outage: Outage, mut shutdown: watch::Receiver<bool>) {
        loop {
            let next = self.current.borrow().snapshot.next_moment(clock::now());
            let reread = tokio::select! {
                biased;
                _ = shutdown.wait_for(|stop| *stop) => return,
                changed = self.changes.changed() => changed.is_ok(),
                () = tokio::time::sleep(next) => false,
            };
            let refreshed = self.refresh(reread).await;
            let failed = refreshed.is_err();
            outage.note(refreshed);
            if failed {
                tokio::time::sleep(RETRY_AFTER).await;
                self.changes.mark_changed();
            }
        }
    }

    /// The tables as they are now, of which only what was announced is read. After a failure all that is read the next
    /// time.
    async fn read(&self, before: &InEffect) -> Result<Arc<Snapshot>> {
        let announced = self.portal.take_announced();
        let read = match &announced {
            Announced::Strategies(ids) if before.is_whole() => before.snapshot.with_strategies(&self.portal, ids).await,
            _ => {
                let read = Snapshot::load(&self.portal).await;
                c_heap::give_back();
                read
            }
        };
        if read.is_err() {
            self.portal.announce_anew(announced);
        }
        read.map(Arc::new)
    }

    /// Computes the rules anew, from the tables when `reread`, and loads them if they differ.
    async fn refresh(&self, reread: bool) -> Result<()> {
        let before = self.current.borrow().clone();
        let (version, snapshot) = match reread {
            // The version is taken first: what is announced while we read is read again.
            true => (self.portal.version(), self.read(&before).await?),
            false => (before.rules.version, before.snapshot.clone()),
        };
        let rules = compute(&snapshot, version, reread);
        let same = rules.hosts == before.rules.hosts && rules.expressions == before.rules.expressions;
        if !same {
            load(&self.engine, &snapshot, rules.clone()).await;
        }
        if !before.is_whole() && snapshot.unread.is_empty() {
            let engine = self.engine.clone();
            tokio::task::spawn_blocking(move || engine.restore_kept()).await?;
        }
        if !same || reread {
            self.current.send_replace(Arc::new(InEffect::new(snapshot, rules)));
        }
        Ok(())
    }
}

/// Longest time that the answer to a change waits for the judges; past it the change follows by itself.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);

/// State of [`settle`]: the portal's version, and the rules in effect.
#[derive(Clone)]
pub struct Settling {
    pub portal: Portal,
    pub in_effect: watch::Receiver<Arc<InEffect>>,
}

/// Middleware: a request that changed the portal is answered when the judges have the change, so that a client which
/// saves a strategy and then sends a point sees it judged.
pub async fn settle(State(mut settling): State<Settling>, request: Request, next: Next) -> Response {
    let before = settling.portal.version();
    let response = next.run(request).await;
    let after = settling.portal.version();
    if after > before {
        let loaded = settling.in_effect.wait_for(|in_effect| in_effect.rules.version >= after);
        if tokio::time::timeout(SETTLE_TIMEOUT, loaded).await.is_err() {
            tracing::warn!(
                version = after,
                "the judges do not have a change yet; the change is answered before they have it"
            );
        }
    }
    response
}

/// `tell`: of tables just read. Each minute computes from the same again, and has nothing new to say of their rows.
fn compute(snapshot: &Snapshot, version: u64, tell: bool) -> Rules {
    let (rules, skipped) = snapshot.rules(&jiff::Zoned::now(), version);
    for reason in skipped.into_iter().filter(|_| tell) {
        tracing::warn!(reason, "a row of the portal was skipped");
    }
    rules
}

/// Puts rules into effect, on a thread that may be busy: compiling and binding take milliseconds of processor time per
/// hundred thousand series.
async fn load(engine: &Arc<Engine>, snapshot: &Arc<Snapshot>, rules: Rules) {
    let (engine, snapshot) = (engine.clone(), snapshot.clone());
    let now = jiff::Zoned::now();
    let why = move |rule, key: model::SeriesKey<'_>| snapshot.why_gone(rule, key, &now);
    let refused = match tokio::task::spawn_blocking(move || engine.load(&rules, &why)).await {
        Ok(refused) => refused,
        Err(error) => return tracing::error!(%error, "loading the rules failed; the rules in effect stay"),
    };
    for rule in refused {
        tracing::warn!(rule = rule.name, error = %rule.error, "a rule cannot be judged");
    }
}
