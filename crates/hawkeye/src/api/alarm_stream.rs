//! Stream of alarms: each event with its case, and each note, as soon as it is in the tables.
//!
//! How: a message's id is `<event>-<note>`, the rows that were sent last; when the portal says that there is more, rows
//! with higher ids are read. So nothing is lost between two streams, as long as the rows are there.

use super::Context;
use super::alarm::{case_json, event_json, note_json};
use super::auth::Caller;
use super::body::parse_form;
use super::error::{Answer, ApiError};
use super::stream::{Ended, Writer, answer};
use crate::portal::alarm::{self, Position};
use axum::extract::{Request, State};
use serde_json::json;

/// Rows that are read at once.
const BATCH: usize = 100;
/// Characters of an id, with room.
const ID_MAX: usize = 50;

pub async fn stream(State(context): State<Context>, _caller: Caller, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let last = parts.headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_string);
    let pairs = parse_form(parts.uri.query().unwrap_or("").as_bytes());
    let since = pairs.into_iter().find(|(name, _)| name == "since").map(|(_, id)| id);
    let at = match last.or(since).filter(|id| !id.is_empty()) {
        Some(id) => read_id(&id)?,
        None => alarm::newest(&context.portal).await?,
    };
    // Subscribed first: what comes while the rows are read is announced once more.
    let changes = context.portal.alarm_changes();
    answer(&context, parts, move |writer| write(writer, changes, at))
}

fn read_id(id: &str) -> Result<Position, ApiError> {
    let read = || {
        let (event, note) = id.split_once('-')?;
        Some(Position { event: event.parse().ok()?, note: note.parse().ok()? })
    };
    let shown: String = id.chars().take(ID_MAX).collect();
    read().ok_or_else(|| ApiError::bad(format!("since is {shown:?}: give the id of a message, like \"17-3\"")))
}

async fn write(
    mut writer: Writer,
    mut changes: tokio::sync::watch::Receiver<u64>,
    mut at: Position,
) -> Result<(), Ended> {
    writer.open(&id_of(at)).await?;
    loop {
        while send_new(&mut writer, &mut at).await? {}
        if writer.wait(changes.changed()).await?.is_err() {
            return Err(Ended);
        }
    }
}

/// Sends what is new; true when there may be more.
async fn send_new(writer: &mut Writer, at: &mut Position) -> Result<bool, Ended> {
    let portal = writer.context.portal.clone();
    let events = alarm::events_after(&portal, at.event, BATCH).await.map_err(|_| Ended)?;
    let notes = alarm::notes_after(&portal, at.note, BATCH).await.map_err(|_| Ended)?;
    let is_more = events.len() == BATCH || notes.len() == BATCH;
    for (event, case) in events {
        at.event = event.id;
        let data = json!({ "event": event_json(event), "case": case.map(case_json) });
        writer.message(&id_of(*at), "alarm", &data).await?;
    }
    for (id, note) in notes {
        at.note = id;
        writer.message(&id_of(*at), "note", &note_json(note)).await?;
    }
    Ok(is_more)
}

fn id_of(at: Position) -> String {
    format!("{}-{}", at.event, at.note)
}
