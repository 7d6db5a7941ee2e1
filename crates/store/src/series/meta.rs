//! Meta: what is known of a series besides its name: type and step, and what a look-up answers.

use crate::error::{Error, Result};
use crate::sizes::{STEP_MAX, TEXT_MAX};
use model::{CounterType, SeriesId, SeriesKey};

/// Number of no series: the end of a chain, or a place in a page that is empty.
pub const NONE: u32 = u32::MAX;

/// Type and step of a series in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    pub counter_type: CounterType,
    pub step: u32,
}

impl Meta {
    /// Type and step; an error for a step of 0 or one that has no room.
    pub fn new(counter_type: CounterType, step: u32) -> Result<Meta> {
        if step == 0 || step > STEP_MAX { Err(Error::BadStep(step)) } else { Ok(Meta { counter_type, step }) }
    }

    /// The word that a record holds.
    pub fn pack(self) -> u32 {
        self.step << 2 | self.counter_type as u32
    }

    /// Reads a packed word; `None` for one that no series has.
    pub fn unpack(meta: u32) -> Option<Meta> {
        Some(Meta { counter_type: CounterType::from_u8((meta & 3) as u8)?, step: meta >> 2 })
    }
}

/// A series as a look-up answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub id: SeriesId,
    pub counter_type: CounterType,
    pub step: u32,
}

impl Found {
    pub(crate) fn new(id: SeriesId, meta: Meta) -> Found {
        Found { id, counter_type: meta.counter_type, step: meta.step }
    }
}

/// Refuses texts that a definition on disk has no room for.
pub fn check_texts(key: SeriesKey<'_>) -> Result<()> {
    for (what, text) in [("endpoint", key.endpoint), ("metric", key.metric), ("tags", key.tags.as_str())] {
        if text.len() > TEXT_MAX {
            return Err(Error::TextTooLong { what, bytes: text.len(), limit: TEXT_MAX });
        }
    }
    Ok(())
}
