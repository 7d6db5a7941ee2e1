//! Manifest: the names of the files that the store consists of, and how long the segments of its log were when they
//! were synced, in `manifest` in its directory, so that a start notices what is gone.
//!
//! Why: a block, a segment of the log or a run that was deleted by mistake, or lost by a file system, leaves nothing
//! behind that could be missed: its points would just not be there. A segment that somebody emptied or cut looks like
//! one whose last write a kill tore.
//! How: written whole, under a temporary name, synced, renamed, when the list of files has changed. A name comes into
//! the manifest soon after its file is durable, and leaves it before its file is removed. docs/format/manifest.md draws
//! the bytes.
//! Invariants: whenever the power goes, what the manifest names is there, and as long as it says, unless somebody else
//! took it; so whoever removes a file calls [`Manifest::before_removal`] first. A manifest that is missing or damaged
//! costs the check.
//! Memory: the names as written, some 40 bytes per file.

use crate::error::{Error, Result};
use crate::record;
use std::collections::BTreeMap;
use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stdx::Disk;
use stdx::varint::{push_u64, take_u64};

const NAME: &str = "manifest";
const TEMP_NAME: &str = "manifest.tmp";
const MAGIC: &[u8; 8] = b"HKMANI02";
/// Begins one that knows of no lengths.
const MAGIC_01: &[u8; 8] = b"HKMANI01";

/// What a manifest says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct List {
    /// The files, relative to the directory.
    pub names: Vec<String>,
    /// Bytes of segments of the log that are on the disk, by number; a segment may have more.
    pub log_ends: BTreeMap<u64, u64>,
}

/// What the manifest said at the start.
pub enum Listed {
    Files(List),
    /// There is none.
    Missing,
    /// It is none that this version reads.
    Damaged,
}

/// The manifest of a store.
pub struct Manifest {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// The file's content; none when it is not known what is in it.
    written: Option<List>,
}

impl Manifest {
    /// The manifest in `dir`, of which nothing is known yet.
    pub fn new(disk: Arc<dyn Disk>, dir: &Path) -> Manifest {
        Manifest { disk, dir: dir.to_path_buf(), written: None }
    }

    /// Reads the manifest in `dir`.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Listed> {
        let path = dir.join(NAME);
        let file = match disk.open(&path) {
            Err(cause) if cause.kind() == NotFound => return Ok(Listed::Missing),
            opened => opened.map_err(Error::disk("open", &path))?,
        };
        let len = file.len().map_err(Error::disk("read", &path))?;
        // A longer one was never written.
        let mut bytes = vec![0; len.min(1 << 24) as usize];
        file.read_at(&mut bytes, 0).map_err(Error::disk("read", &path))?;
        Ok(parse(&bytes).map_or(Listed::Damaged, Listed::Files))
    }

    /// Makes the manifest say this, if it does not yet; all of it is durable. On an error it says what it did.
    pub fn keep(&mut self, list: List) -> Result<()> {
        if self.written.as_ref() == Some(&list) {
            return Ok(());
        }
        let (path, temp) = (self.dir.join(NAME), self.dir.join(TEMP_NAME));
        let file = self.disk.open_or_create(&temp).map_err(Error::disk("create", &temp))?;
        let bytes = encode(&list);
        file.set_len(0).and_then(|()| file.write_at(&bytes, 0)).map_err(Error::disk("write", &temp))?;
        file.sync().map_err(Error::disk("sync", &temp))?;
        self.disk.rename(&temp, &path).map_err(Error::disk("rename", &temp))?;
        self.written = None;
        self.disk.sync_dir(&self.dir).map_err(Error::disk("sync", &self.dir))?;
        self.written = Some(list);
        Ok(())
    }

    /// Makes sure that the manifest names no other files than these: what it named besides may be removed. A disk that
    /// has no room for it may need that very removal: then the manifest goes, until there is room.
    pub fn before_removal(&mut self, list: List) -> Result<()> {
        if self.keep(list).is_ok() {
            return Ok(());
        }
        self.written = None;
        let path = self.dir.join(NAME);
        match self.disk.remove(&path) {
            Err(cause) if cause.kind() != NotFound => return Err(Error::disk("remove", &path)(cause)),
            _ => {}
        }
        self.disk.sync_dir(&self.dir).map_err(Error::disk("sync", &self.dir))
    }

    /// Bytes of what is written.
    pub fn memory_bytes(&self) -> usize {
        let Some(List { names, log_ends }) = &self.written else { return 0 };
        let names: usize = names.iter().map(|name| size_of::<String>() + name.capacity()).sum();
        names + log_ends.len() * 2 * size_of::<(u64, u64)>()
    }
}

fn encode(list: &List) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    let start = record::begin(&mut bytes);
    for name in &list.names {
        push_u64(name.len() as u64, &mut bytes);
        bytes.extend_from_slice(name.as_bytes());
    }
    record::seal(&mut bytes, start);
    let start = record::begin(&mut bytes);
    for (number, end) in &list.log_ends {
        push_u64(*number, &mut bytes);
        push_u64(*end, &mut bytes);
    }
    record::seal(&mut bytes, start);
    bytes
}

fn parse(bytes: &[u8]) -> Option<List> {
    if let Some(old) = bytes.strip_prefix(MAGIC_01) {
        return Some(List { names: parse_names(record::at_front(old)?)?, ..List::default() });
    }
    let records = bytes.strip_prefix(MAGIC)?;
    let names = record::at_front(records)?;
    let ends = record::at_front(&records[record::HEADER_BYTES + names.len()..])?;
    Some(List { names: parse_names(names)?, log_ends: parse_ends(ends)? })
}

fn parse_ends(mut rest: &[u8]) -> Option<BTreeMap<u64, u64>> {
    let mut ends = BTreeMap::new();
    while !rest.is_empty() {
        ends.insert(take_u64(&mut rest)?, take_u64(&mut rest)?);
    }
    Some(ends)
}

fn parse_names(mut rest: &[u8]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    while !rest.is_empty() {
        let len = usize::try_from(take_u64(&mut rest)?).ok()?;
        let (name, behind) = rest.split_at_checked(len)?;
        names.push(std::str::from_utf8(name).ok()?.to_string());
        rest = behind;
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stdx::FakeDisk;

    #[test]
    fn names_read_back_and_damage_is_no_name() {
        let names = ["series", "block/20200913-raw-00000001.blk", ""].map(str::to_string).to_vec();
        let list = List { names, log_ends: BTreeMap::from([(7, 8), (1 << 40, 1 << 24)]) };
        let bytes = encode(&list);
        assert_eq!(parse(&bytes).as_ref(), Some(&list));
        assert_eq!(parse(&encode(&List::default())), Some(List::default()));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(parse(&damaged), None, "byte {at}");
            assert_eq!(parse(&bytes[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn one_of_version_01_has_names_only() {
        let names = vec!["series".to_string(), "log/00000003.log".to_string()];
        let mut bytes = MAGIC_01.to_vec();
        let start = record::begin(&mut bytes);
        bytes.extend_from_slice(b"\x06series\x10log/00000003.log");
        record::seal(&mut bytes, start);
        assert_eq!(parse(&bytes), Some(List { names, ..List::default() }));
    }

    #[test]
    fn without_room_it_goes_before_a_file_that_it_names() {
        let (disk, dir) = (FakeDisk::default(), Path::new("data"));
        let mut manifest = Manifest::new(Arc::new(disk.clone()), dir);
        let names =
            |count: usize| List { names: (0..count).map(|i| format!("block/{i}")).collect(), ..List::default() };
        manifest.keep(names(3)).expect("room");
        disk.set_room(Some(5));
        assert!(manifest.keep(names(2)).is_err());
        assert!(matches!(Manifest::read(&disk, dir), Ok(Listed::Files(listed)) if listed == names(3)));
        manifest.before_removal(names(2)).expect("removing needs no room");
        assert!(matches!(Manifest::read(&disk, dir), Ok(Listed::Missing)));
        disk.set_room(None);
        manifest.keep(names(2)).expect("room");
        assert!(matches!(Manifest::read(&disk, dir), Ok(Listed::Files(listed)) if listed == names(2)));
    }
}
