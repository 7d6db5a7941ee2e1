//! Talk: the conversation with hbs about probes; what is said is in `netprobe::delivery`.
//!
//! How: what may wait goes over the heartbeat's connection ([`Probes::beat`]), what is urgent over one of its own that
//! is there as long as it is spoken over. One conversation at a time, so that states come in order.
//! Invariants: nothing that goes wrong here costs a heartbeat. Where hbs fails, what is known stays.
//! Compat: an original hbs knows no such methods; it is asked again once in [`ASK_AGAIN`].

use super::known::{BYTES_MAX, Entry, Known, Loose};
use super::{Probes, TELL_TIMEOUT};
use crate::client::{CallError, Client};
use netprobe::delivery::{ASKED_MAX, Ask, State, States, Told, Want};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// The time until an hbs that knows nothing of probes is asked again: it may be another program then.
const ASK_AGAIN: Duration = Duration::from_secs(600);

/// The state of the conversation.
#[derive(Default)]
pub(super) struct Talk {
    known: Known,
    /// No question before.
    quiet_until: Option<Instant>,
    /// Whether hbs has ever answered a question.
    has_answered: bool,
    /// Whether the log was told that something fails.
    is_failing: bool,
}

impl Probes {
    /// Asks hbs for changes over the heartbeat's connection, and tells what it does not know yet.
    pub async fn beat(&self, client: &mut Client) {
        self.client.get_or_init(|| client.another());
        let mut talk = self.talk.lock().await;
        if !self.live.now().probes.enabled || talk.quiet_until.is_some_and(|until| until > Instant::now()) {
            return;
        }
        let done = match self.ask(client, &mut talk).await {
            Ok(()) => self.tell_rest(client).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => {
                self.found().is_hbs_away = false;
                if std::mem::take(&mut talk.is_failing) {
                    tracing::info!("hbs answers about probes again");
                }
            }
            Err(error) => self.failed(&mut talk, &error),
        }
    }

    /// Takes note that a heartbeat has failed: hbs may begin anew, and is told everything once more.
    pub fn hbs_is_away(&self) {
        let mut found = self.found();
        found.is_hbs_away = true;
        found.states.forget();
    }

    fn failed(&self, talk: &mut Talk, error: &CallError) {
        let is_unknown = match error {
            CallError::Refused(text) => text.contains("can't find"),
            // Not every server survives a call that it does not know.
            CallError::Broken(_) => !talk.has_answered,
        };
        if is_unknown {
            tracing::debug!(%error, "this hbs knows no probes over the network");
            *talk = Talk { quiet_until: Some(Instant::now() + ASK_AGAIN), ..Talk::default() };
            self.put_in_effect(&talk.known);
            return;
        }
        self.failures.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(&mut talk.is_failing, true) {
            tracing::warn!(%error, "hbs does not answer about probes as it should: those that are known go on");
        }
    }

    async fn ask(&self, client: &mut Client, talk: &mut Talk) -> Result<(), CallError> {
        let (hostname, version) = (self.hostname.clone(), talk.known.version().to_string());
        let told: Told = call(client, "Hawkeye.Probes", &Ask { hostname, version }).await?;
        talk.has_answered = true;
        let Some(handles) = told.probes else { return Ok(()) };
        let wanted = talk.known.wanted(&handles);
        let (given, failed) = self.definitions_of(client, wanted).await;
        talk.known.take(&told.version, &handles, given);
        self.put_in_effect(&talk.known);
        failed.map_or(Ok(()), Err)
    }

    /// Asks for definitions until all have come, an answer brings nothing, or they are too many bytes; with what has
    /// come, why no more has. Each is read as it comes: JSON in memory is many times its text.
    async fn definitions_of(&self, client: &mut Client, wanted: Vec<i64>) -> (Vec<(i64, Entry)>, Option<CallError>) {
        let (mut wanted, mut given): (BTreeSet<i64>, Vec<(i64, Entry)>) = (wanted.into_iter().collect(), Vec::new());
        let mut bytes = 0;
        while !wanted.is_empty() && bytes <= BYTES_MAX {
            let ids = wanted.iter().copied().take(ASKED_MAX).collect();
            let want = Want { hostname: self.hostname.clone(), ids };
            let answer: Given = match call(client, "Hawkeye.ProbeDefinitions", &want).await {
                Ok(answer) => answer,
                Err(error) => return (given, Some(error)),
            };
            let before = wanted.len();
            for probe in answer.probes {
                match serde_json::from_value::<Loose>(probe) {
                    Ok(loose) if wanted.remove(&loose.id) => {
                        let entry = (loose.id, Entry::of(loose));
                        bytes += entry.1.bytes();
                        given.push(entry);
                    }
                    Ok(_) => {}
                    Err(error) => tracing::debug!(%error, "hbs gives what is no probe"),
                }
            }
            if wanted.len() == before {
                // What was asked for is no more; what is behind it may be.
                wanted.retain(|id| !want.ids.contains(id));
            }
        }
        (given, None)
    }

    /// Tells all states that hbs does not know.
    async fn tell_rest(&self, client: &mut Client) -> Result<(), CallError> {
        loop {
            let states = self.found().states.untold();
            if states.is_empty() {
                return Ok(());
            }
            self.tell(client, states).await?;
        }
    }

    /// Tells urgent states, for as long as points may wait; the next heartbeat tells the rest.
    pub(super) async fn tell_urgently(&self, urgent: &[State]) {
        // Whoever has a probe has had a heartbeat.
        let Some(mut client) = self.client.get().map(Client::another) else { return };
        let telling = async {
            let _talk = self.talk.lock().await;
            for states in urgent.chunks(ASKED_MAX) {
                self.tell(&mut client, states.to_vec()).await?;
            }
            Ok::<(), CallError>(())
        };
        if let Ok(Ok(())) = timeout(TELL_TIMEOUT, telling).await {
            return;
        }
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.found().is_hbs_away = true;
    }

    async fn tell(&self, client: &mut Client, states: Vec<State>) -> Result<(), CallError> {
        let states = States { hostname: self.hostname.clone(), states };
        let _taken: Value = call(client, "Hawkeye.ProbeStates", &states).await?;
        self.told.fetch_add(states.states.len() as u64, Ordering::Relaxed);
        self.found().states.told(&states.states);
        Ok(())
    }
}

/// Answer to `Hawkeye.ProbeDefinitions`, of which one definition may be of another version than ours.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    #[serde(default)]
    probes: Vec<Value>,
}

async fn call<T: DeserializeOwned>(client: &mut Client, method: &str, param: &impl Serialize) -> Result<T, CallError> {
    let param = serde_json::to_vec(param).expect("texts and numbers are JSON");
    let result = client.call(method, &param).await?;
    serde_json::from_slice(&result)
        .map_err(|error| CallError::Refused(format!("{method}: the answer is wrong: {error}")))
}
