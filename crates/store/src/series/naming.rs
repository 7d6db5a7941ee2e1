//! Naming: the series file with the ids that are free, and how the table follows what the file says.
//!
//! How: at start every change in the file is applied to an empty table; later each change is written first and applied
//! then.
//! Invariants: ids and endpoint numbers are never given twice, also not after a definition was lost; a removed id stays
//! removed; a change that makes no sense after those before it is told, and costs nothing else.

use super::file::{Change, Replay, SeriesFile};
use super::meta::Meta;
use super::table::Table;
use crate::error::Result;
use model::{SeriesId, SeriesKey};
use std::path::Path;
use std::sync::Arc;
use stdx::Disk;

/// Ids that may be missing in a row, to sleeping series or a damaged stretch of the file; a further jump would be
/// damage that the checksum did not see. 64 million ids are 6 MB of the table's directory.
const JUMP_MAX: u32 = 1 << 26;

/// The series file, and the next id and endpoint number to give.
pub struct Naming {
    pub file: SeriesFile,
    pub next_id: u32,
    pub next_endpoint: u32,
}

impl Naming {
    /// Opens the series file in `dir` and makes the table that it tells of.
    pub fn open(disk: &Arc<dyn Disk>, dir: &Path) -> Result<(Naming, Table, Replay)> {
        let (mut table, mut next_endpoint, mut applied) = (Table::default(), 1, Ok(()));
        let (file, replay) = SeriesFile::open(disk, dir, &mut |change| {
            apply_change(&mut table, &mut next_endpoint, change).unwrap_or_else(|error| {
                applied = Err(error);
                true
            })
        })?;
        applied?;
        let mut sweep = table.begin_sweep();
        while !table.sweep(&mut sweep, usize::MAX) {}
        Ok((Naming { file, next_id: table.end(), next_endpoint }, table, replay))
    }
}

/// Puts a series into the table, whose endpoint may not be there yet.
pub fn insert(table: &mut Table, id: SeriesId, endpoint: u32, key: SeriesKey<'_>, meta: Meta) -> Result<bool> {
    let place = table.hold_endpoint(endpoint, key.endpoint)?;
    let inserted = table.insert(id, place, key.metric, key.tags.as_str(), meta);
    table.let_go_endpoint(place);
    inserted
}

/// Applies what the series file says; false when it makes no sense after what came before. The file may tell of a state
/// older than what is known already (see `file.rs`): removed stays removed, and what is known is not an error.
fn apply_change(table: &mut Table, next_endpoint: &mut u32, change: Change<'_>) -> Result<bool> {
    match change {
        Change::Endpoint { number, .. } => *next_endpoint = (*next_endpoint).max(number.saturating_add(1)),
        Change::Define { id, endpoint, endpoint_name, metric, tags, meta } => {
            *next_endpoint = (*next_endpoint).max(endpoint.saturating_add(1));
            if !is_near(table, id.0) {
                return Ok(false);
            }
            return define(table, id, endpoint, SeriesKey { endpoint: endpoint_name, metric, tags }, meta);
        }
        // Not an error if it is not there: see above.
        Change::Meta { id, meta } => _ = table.set_meta(id, meta),
        Change::Past { id, past } if is_near(table, id.0) => table.note_past(id, past),
        Change::Past { .. } => return Ok(false),
        Change::Sleep { id } => _ = table.forget(id),
        Change::Remove { id } if is_near(table, id.0) => table.remove(id),
        Change::Remove { .. } => return Ok(false),
        Change::Removed { group, bits } => {
            let ids = (0..256).filter(|bit| bits[*bit as usize / 64] >> (bit % 64) & 1 != 0);
            for id in ids.map(|bit| group.saturating_mul(256).saturating_add(bit)) {
                if !is_near(table, id) {
                    return Ok(false);
                }
                table.remove(SeriesId(id));
            }
        }
        Change::Next { endpoint, series } => {
            *next_endpoint = (*next_endpoint).max(endpoint);
            if !is_near(table, series.saturating_sub(1)) {
                return Ok(false);
            }
            table.set_end(series);
        }
    }
    Ok(true)
}

/// The last number is the table's "none".
fn is_near(table: &Table, id: u32) -> bool {
    id < u32::MAX && id <= table.end().saturating_add(JUMP_MAX)
}

fn define(table: &mut Table, id: SeriesId, endpoint: u32, key: SeriesKey<'_>, meta: Meta) -> Result<bool> {
    if table.is_removed(id) {
        return Ok(true);
    }
    let place = table.place_of(key.endpoint);
    let known = place.and_then(|place| table.find_drowsy_of(place, key.metric, key.tags.as_str()));
    if let Some(known) = known {
        return Ok(known.id == id && table.set_meta(id, meta));
    }
    let other = table.place_of_number(endpoint);
    if other.is_some() && other != place {
        return Ok(false);
    }
    insert(table, id, endpoint, key, meta)
}
