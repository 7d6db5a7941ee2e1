//! Output: the temporary file that a run's pages are written to, one behind the other.
//!
//! Memory: a write buffer of 64 KiB.

use crate::error::{Error, Result};
use crate::record;
use std::path::PathBuf;
use std::sync::Arc;
use stdx::{Disk, DiskFile};

const WRITE_BUFFER_BYTES: usize = 64 << 10;

/// The temporary file; removed when dropped before it got its name.
pub struct Output<'a> {
    pub disk: &'a dyn Disk,
    pub file: Arc<dyn DiskFile>,
    pub temp: PathBuf,
    /// Bytes that are in the file; the rest is in `buffer`.
    written: u64,
    pub buffer: Vec<u8>,
}

impl<'a> Output<'a> {
    /// Begins the file with these bytes; what an earlier try left is cut off.
    pub fn create(disk: &'a dyn Disk, temp: PathBuf, head: &[u8]) -> Result<Output<'a>> {
        let file = disk.open_or_create(&temp).map_err(Error::disk("create", &temp))?;
        file.set_len(0).map_err(Error::disk("cut", &temp))?;
        Ok(Output { disk, file, temp, written: 0, buffer: head.to_vec() })
    }

    /// Offset in the file at which the next byte will be.
    pub fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Returns the page's offset and bytes.
    pub fn push_page(&mut self, payload: &[u8]) -> Result<(u64, u32)> {
        let offset = self.offset();
        let start = record::begin(&mut self.buffer);
        self.buffer.extend_from_slice(payload);
        record::seal(&mut self.buffer, start);
        let bytes = (self.buffer.len() - start) as u32;
        if self.buffer.len() >= WRITE_BUFFER_BYTES {
            self.write_out()?;
        }
        Ok((offset, bytes))
    }

    /// Writes what the buffer holds.
    pub fn write_out(&mut self) -> Result<()> {
        self.file.write_at(&self.buffer, self.written).map_err(Error::disk("write", &self.temp))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        // Once renamed there is none; what cannot be removed now is removed at the next start.
        let _ = self.disk.remove(&self.temp);
    }
}
