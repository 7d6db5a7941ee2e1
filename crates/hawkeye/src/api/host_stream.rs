//! Stream of hosts: each host whose row or state differs from the last look, and each that is gone.
//!
//! How: one task looks at all hosts each [`LOOK_EACH`] while somebody reads, whoever many they are, and tells the
//! difference. A stream is open once the first look is done, so whoever lists the hosts (`GET /host`) then misses
//! nothing.
//! Invariants: a reader who is more than [`BEHIND_MAX`] messages behind is told `lost`, and lists anew.
//! Memory: a number per host while somebody reads.

use super::Context;
use super::auth::Caller;
use super::error::Answer;
use super::host::{Listed, all_listed};
use super::stream::{Ended, Writer, answer};
use crate::portal::host;
use axum::extract::{Request, State};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender, channel};
use tokio::sync::watch;

/// The time between two looks: a state changes with minutes.
const LOOK_EACH: Duration = Duration::from_secs(2);
/// Messages that a slow reader may be behind: a switch that dies takes a thousand hosts with it.
const BEHIND_MAX: usize = 4_096;

/// What is told of a host.
#[derive(Clone, Debug)]
enum Told {
    Host(Arc<Value>),
    Gone { id: i64 },
}

/// The watch over all hosts, which runs while somebody reads.
#[derive(Clone, Default)]
pub struct HostWatch(Arc<Mutex<Option<Running>>>);

#[derive(Clone)]
struct Running {
    sender: Sender<Told>,
    /// True once the first look is done.
    looked: watch::Receiver<bool>,
}

impl HostWatch {
    /// Reads along; begins the watch when nobody did.
    fn subscribe(&self, context: &Context) -> (Receiver<Told>, watch::Receiver<bool>) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Running { sender, looked }) = &*running {
            return (sender.subscribe(), looked.clone());
        }
        let ((sender, receiver), (first, looked)) = (channel(BEHIND_MAX), watch::channel(false));
        *running = Some(Running { sender: sender.clone(), looked: looked.clone() });
        tokio::spawn(look(self.clone(), context.clone(), sender, first));
        (receiver, looked)
    }

    /// Ends the watch when nobody reads any more.
    fn ends(&self, sender: &Sender<Told>) -> bool {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.receiver_count() > 0 {
            return false;
        }
        *running = None;
        true
    }
}

async fn look(watch: HostWatch, context: Context, sender: Sender<Told>, first: watch::Sender<bool>) {
    let mut known: Option<HashMap<i64, u64>> = None;
    let mut each = tokio::time::interval(LOOK_EACH);
    each.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        each.tick().await;
        if watch.ends(&sender) {
            return;
        }
        // A portal that cannot be read now can be at the next look.
        let Ok(hosts) = all(&context).await else { continue };
        let mut now = HashMap::with_capacity(hosts.len());
        for host in hosts {
            let (id, sum) = (host.host.id, sum_of(&host));
            now.insert(id, sum);
            if known.as_ref().is_some_and(|known| known.get(&id) != Some(&sum)) {
                let host = serde_json::to_value(&host).unwrap_or_default();
                // Nobody reads: the next look ends this.
                let _ = sender.send(Told::Host(Arc::new(host)));
            }
        }
        for id in known.iter().flat_map(HashMap::keys).filter(|id| !now.contains_key(*id)) {
            let _ = sender.send(Told::Gone { id: *id });
        }
        known = Some(now);
        first.send_replace(true);
    }
}

async fn all(context: &Context) -> Result<Vec<Listed>, super::error::ApiError> {
    let hosts = host::all(&context.portal).await?;
    all_listed(context, hosts).await
}

/// A number that differs when what is told of a host differs; the time of its last point alone is no change.
fn sum_of(host: &Listed) -> u64 {
    let mut hasher = DefaultHasher::new();
    let row = &host.host;
    (&row.hostname, &row.ip, &row.agent_version, &row.plugin_version).hash(&mut hasher);
    (row.maintain_begin, row.maintain_end, host.state).hash(&mut hasher);
    hasher.finish()
}

pub async fn stream(State(context): State<Context>, _caller: Caller, request: Request) -> Answer {
    let (told, looked) = context.hosts.subscribe(&context);
    answer(&context, request.into_parts().0, move |writer| write(writer, told, looked))
}

async fn write(mut writer: Writer, mut told: Receiver<Told>, mut looked: watch::Receiver<bool>) -> Result<(), Ended> {
    let mut id = 0_u64;
    if writer.wait(looked.wait_for(|looked| *looked)).await?.is_err() {
        return Err(Ended);
    }
    writer.open("0").await?;
    loop {
        let next = writer.wait(told.recv()).await?;
        id += 1;
        let number = id.to_string();
        match next {
            Ok(Told::Host(host)) => writer.message(&number, "host", &*host).await?,
            Ok(Told::Gone { id }) => writer.message(&number, "gone", &json!({ "id": id })).await?,
            Err(RecvError::Lagged(count)) => writer.message(&number, "lost", &json!({ "messages": count })).await?,
            Err(RecvError::Closed) => return Err(Ended),
        }
    }
}
