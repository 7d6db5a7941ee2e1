//! Merging: messages of low priority wait a minute, and those that say the same become one.
//!
//! Why: a broken switch makes a hundred P4 alarms, and a hundred messages say less than one.
//! How: such a message is a row for each receiver under a target of its own ([`MERGE`]), which nothing is sent to. Each
//! `alarm.merge` the rows of one receiver, channel, priority, status and metric are replaced by one delivery, in one
//! transaction: a single one says what it said, many are counted, with the texts in the mail, or behind a link in an
//! instant message.
//! An alarm that runs alone has no page, so an old dashboard keeps the texts, as in the original.
//! Invariants: each event reaches each receiver once, over any crash; messages of one receiver, channel, priority and
//! metric keep their order, also over retries, since they share a lane, and a recovery does not overtake its problem.
//! Memory: [`BATCH`] rows, in the order of their lanes, so that a lane is cut once at most; a message merges at most
//! [`MERGED_MAX`] and [`MERGED_BYTES_MAX`].
//! Compat: docs/open-falcon/alarm.md §4, to the letter.

use super::counters::{AlarmMetrics, Ended};
use super::deliver::Deliverer;
use super::message;
use super::plan::{Cases, MERGE, Mail, Text, Waiting};
use crate::plus_api;
use crate::portal::db::fault::{self, Fault};
use crate::portal::delivery::{self, Delivery, Kind, NewDelivery};
use crate::portal::link;
use anyhow::{Context, Result, bail};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder};
use std::time::Duration;
use tokio::time::Instant;

/// Times for an old dashboard, as in the original.
const CONNECT: Duration = Duration::from_secs(3);
const TOTAL: Duration = Duration::from_secs(10);
/// Time for which a dashboard that did not answer is not asked: all that alarm does waits for its answer.
const AWAY: Duration = Duration::from_secs(300);
/// The longest path that a dashboard answers; its column has 16 characters.
const PATH_MAX: usize = 64;
/// Rows of one transaction.
const BATCH: usize = 2000;
/// Messages that one merges; more is read by nobody.
const MERGED_MAX: usize = 200;
/// Bytes of the texts that one merges, so that a link has room for them.
const MERGED_BYTES_MAX: usize = 48 << 10;
const _: () = assert!(MERGED_BYTES_MAX + MERGED_MAX * SEPARATOR.len() <= link::CONTENT_MAX);
/// Between the texts behind a link, and in a mail.
const SEPARATOR: &str = ",,";
const NEXT_IN_MAIL: &str = "\r\n";

/// When messages are merged next.
pub struct Merging {
    /// Zero where new messages are not merged.
    every: Duration,
    /// None while nothing can wait.
    at: Option<Instant>,
    dashboard: String,
    /// Asks the dashboard to keep texts; none where the portal here does.
    asking: Option<Client>,
    /// Until when a dashboard that did not answer is left alone.
    away_until: Option<Instant>,
    counters: AlarmMetrics,
}

/// Rows that become one delivery.
struct Group {
    kind: Kind,
    priority: i64,
    lane: String,
    messages: Vec<Waiting>,
    bytes: usize,
}

impl Merging {
    /// Merges each `every` seconds from now on; with 0 once, for what an earlier run has left.
    pub fn new(every: i64, dashboard: String, counters: AlarmMetrics) -> Merging {
        let every = Duration::from_secs(every.max(0).unsigned_abs());
        Merging { every, at: Some(Instant::now() + every), dashboard, asking: None, away_until: None, counters }
    }

    /// Has the dashboard keep texts from now on. Fails where the client cannot be made.
    pub fn ask_dashboard(&mut self) -> Result<()> {
        let client = Client::builder().connect_timeout(CONNECT).timeout(TOTAL).no_proxy().redirect(Policy::none());
        self.asking = Some(client.build().context("cannot prepare the HTTP client")?);
        Ok(())
    }

    /// Time of the next merge.
    pub fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Merges a batch, if it is time.
    pub async fn step(&mut self, deliverer: &mut Deliverer) -> Result<()> {
        if self.at.is_none_or(|at| at > Instant::now()) {
            return Ok(());
        }
        let is_full = self.merge(deliverer).await.context("cannot merge messages")?;
        self.at = match (is_full, self.every) {
            (true, _) => Some(Instant::now()),
            (false, Duration::ZERO) => None,
            (false, every) => Some(Instant::now() + every),
        };
        Ok(())
    }

    /// Merges a batch of what waits; true when there may be more.
    async fn merge(&mut self, deliverer: &mut Deliverer) -> sqlx::Result<bool> {
        let rows = delivery::of_target(deliverer.tables(), MERGE, BATCH).await?;
        if rows.is_empty() {
            return Ok(false);
        }
        let with_links = deliverer.keeps_links;
        match self.replace(&rows, deliverer, with_links).await {
            // Without its table, or where that takes no such text, a message has no link, and goes all the same.
            Err(error) if with_links && !matches!(fault::of(&error), Some(Fault::Busy | Fault::Disk)) => {
                tracing::error!(%error, "links cannot be stored: merged messages go without");
                self.replace(&rows, deliverer, false).await?;
            }
            replaced => replaced?,
        }
        Ok(rows.len() == BATCH)
    }

    /// Puts deliveries in the place of rows.
    async fn replace(&mut self, rows: &[Delivery], deliverer: &mut Deliverer, with_links: bool) -> sqlx::Result<()> {
        let groups = groups(rows);
        let asked = self.ask(&groups).await;
        let mut transaction = deliverer.tables().write().await?;
        delivery::delete_all(&mut transaction, rows.iter().map(|row| row.id)).await?;
        let (mut new, mut merged) = (Vec::with_capacity(groups.len()), 0);
        for (group, asked) in groups.iter().zip(asked) {
            let mut path = asked;
            if let Some(texts) = group.linked().filter(|_| with_links && self.asking.is_none()) {
                link::store(&mut transaction, path.insert(link::new_path()), &texts).await?;
            }
            new.push(self.delivery(group, path.as_deref()));
            merged += if group.messages.len() > 1 { group.messages.len() as u64 } else { 0 };
        }
        let dropped = deliverer.store(&mut transaction, &new).await?;
        transaction.commit().await?;
        let unreadable = rows.len() - groups.iter().map(|group| group.messages.len()).sum::<usize>();
        (0..unreadable).for_each(|_| self.counters.delivery(None, Ended::GivenUp));
        self.counters.merged.inc_by(merged);
        deliverer.removed(rows.len() as u64);
        deliverer.added(&new, dropped);
        Ok(())
    }

    /// The paths under which the dashboard keeps the texts of each group, as far as it does.
    async fn ask(&mut self, groups: &[Group]) -> Vec<Option<String>> {
        let mut paths = vec![None; groups.len()];
        let Some(client) = self.asking.as_ref().filter(|_| self.away_until.is_none_or(|until| until <= Instant::now()))
        else {
            return paths;
        };
        let url = format!("{}/portal/links/store", self.dashboard.trim_end_matches('/'));
        for (group, path) in groups.iter().zip(&mut paths) {
            let Some(texts) = group.linked() else { continue };
            match stored(client.post(&url).body(texts)).await {
                Ok(stored) => *path = Some(stored),
                // One that is away would take its time for each.
                Err(error) => {
                    tracing::warn!(%error, "the dashboard keeps no texts of merged messages: they go without a link");
                    self.away_until = Some(Instant::now() + AWAY);
                    break;
                }
            }
        }
        paths
    }

    /// What a group says; `path` is where its texts are kept.
    fn delivery(&self, group: &Group, path: Option<&str>) -> NewDelivery {
        let Group { kind, priority, lane, messages, .. } = group;
        let first = &messages[0];
        let cases = messages.iter().map(|message| message.case.clone()).collect();
        let tos = first.to.clone();
        let body = match (messages.len(), kind) {
            (1, Kind::Im) => Cases { message: Text { tos, content: first.content.clone() }, cases }.to_json(),
            (1, _) => {
                let (subject, content) = (first.subject.clone(), first.content.clone());
                Cases { message: Mail { tos, subject, content }, cases }.to_json()
            }
            (count, Kind::Im) => {
                let head = message::merged(*priority, &first.status, count, &first.metric);
                let content = message::merged_text(&head, &first.content, &self.dashboard, path);
                Cases { message: Text { tos, content }, cases }.to_json()
            }
            (count, _) => {
                let subject = message::merged(*priority, &first.status, count, &first.metric);
                let contents: Vec<&str> = messages.iter().map(|message| message.content.as_str()).collect();
                Cases { message: Mail { tos, subject, content: contents.join(NEXT_IN_MAIL) }, cases }.to_json()
            }
        };
        NewDelivery { target: kind.as_str().to_string(), kind: *kind, lane: lane.clone(), body, priority: *priority }
    }
}

impl Group {
    /// The texts of a message that has a link to them.
    fn linked(&self) -> Option<String> {
        let contents = || self.messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>();
        (self.kind == Kind::Im && self.messages.len() > 1).then(|| contents().join(SEPARATOR))
    }
}

/// The path that a dashboard answers to a text.
async fn stored(request: RequestBuilder) -> Result<String> {
    let response = request.send().await.map_err(reqwest::Error::without_url)?;
    let status = response.status();
    if !status.is_success() {
        bail!("it answers {status}, want a path");
    }
    let path = String::from_utf8_lossy(&plus_api::read(response, PATH_MAX).await?).into_owned();
    let path = path.trim();
    if path.is_empty() || !path.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        bail!("it answers {path:?}, want a path");
    }
    Ok(path.to_string())
}

/// The rows by what they say together, in the order of their first ones. One that cannot be read is left out, and told.
fn groups(rows: &[Delivery]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    // Rows come in the order of their lanes, so the groups of a lane are the last ones.
    let mut lane_begins = 0;
    for row in rows {
        let (Some(kind), Ok(message)) = (row.kind, serde_json::from_str::<Waiting>(&row.body)) else {
            tracing::error!(id = row.id, "a message that waits to be merged cannot be read, and is given up");
            continue;
        };
        if groups.last().is_some_and(|last| last.lane != row.lane) {
            lane_begins = groups.len();
        }
        let takes = |group: &&mut Group| {
            let bytes = group.bytes + message.content.len();
            group.messages[0].status == message.status && group.messages.len() < MERGED_MAX && bytes <= MERGED_BYTES_MAX
        };
        match groups[lane_begins..].iter_mut().find(takes) {
            Some(group) => {
                group.bytes += message.content.len();
                group.messages.push(message);
            }
            None => groups.push(Group {
                kind,
                priority: row.priority,
                lane: row.lane.clone(),
                bytes: message.content.len(),
                messages: vec![message],
            }),
        }
    }
    groups
}

#[cfg(test)]
mod tests;
