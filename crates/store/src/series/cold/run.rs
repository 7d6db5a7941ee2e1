//! Run: an immutable sorted file of names on disk: finding one, and visiting them in order.
//!
//! Invariants: no byte is trusted before its checksum, and none after it to make sense; the file stays open, so that a
//! run can be read to the end while its file is replaced or removed; a visit skips damage, visits the rest, and tells
//! of it.
//! Memory: one page, some 4 KiB and 52 KiB at most; reading takes a page per level, or a window of 64 KiB.

use super::footer::{self, FOOTER_BYTES, MAGIC};
use super::key;
use super::page::{self, Entries, Kind, PAGE_MAX};
use super::tree::Root;
use crate::error::{Error, Result};
use crate::record::{self, Item, Stream};
use crate::series::Meta;
use model::{SeriesId, SeriesKey};
use std::borrow::Cow;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use stdx::{Disk, DiskFile};

/// The entry of a series in a run, besides its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColdFound {
    pub id: SeriesId,
    /// The endpoint's number.
    pub endpoint: u32,
    pub meta: Meta,
    /// No point of the series is younger.
    pub newest: u32,
}

impl ColdFound {
    /// Columns of the series' entry in a page.
    pub fn numbers(self) -> [u64; 4] {
        [self.id.0, self.endpoint, self.meta.pack(), self.newest].map(u64::from)
    }

    /// `None` for numbers that no series has.
    fn of_numbers(numbers: &[u64]) -> Option<ColdFound> {
        let small = |i: usize| u32::try_from(*numbers.get(i)?).ok();
        let meta = Meta::unpack(small(2)?)?;
        let meta = Meta::new(meta.counter_type, meta.step).ok()?;
        Some(ColdFound { id: SeriesId(small(0)?), endpoint: small(1)?, meta, newest: small(3)? })
    }
}

/// A series in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColdSeries<'a> {
    pub key: SeriesKey<'a>,
    pub found: ColdFound,
}

/// An endpoint of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColdEndpoint<'a> {
    pub number: u32,
    pub name: &'a str,
    /// Series of it in this run.
    pub series_count: u64,
}

/// A run on disk.
pub struct Run {
    pub path: PathBuf,
    file: Arc<dyn DiskFile>,
    /// The runs that it was made of had the sequences from this on.
    pub first_sequence: u64,
    /// The last of those sequences: of two runs with the same name the one with the higher counts.
    pub sequence: u64,
    pub series_count: u64,
    pub endpoint_count: u64,
    pub bytes: u64,
    /// No point of any of its series is younger.
    pub newest_max: u32,
    series: Root,
    endpoints: Root,
    /// Offset at which the pages of endpoints begin.
    pub endpoints_at: u64,
    footer_at: u64,
    /// The page at `series`.
    root_page: Box<[u8]>,
}

impl Run {
    /// Reads the footer and the first page.
    pub fn open(disk: &dyn Disk, path: PathBuf) -> Result<Run> {
        let file = disk.open(&path).map_err(Error::disk("open", &path))?;
        let footer = footer::read(&*file, &path)?;
        let mut run = Run {
            path,
            file,
            first_sequence: footer.first_sequence,
            sequence: footer.sequence,
            series_count: footer.series_count,
            endpoint_count: footer.endpoint_count,
            bytes: footer.at + FOOTER_BYTES as u64,
            newest_max: footer.newest_max,
            series: footer.series,
            endpoints: footer.endpoints,
            endpoints_at: footer.endpoints_at,
            footer_at: footer.at,
            root_page: Box::default(),
        };
        let kind = if run.series.height == 0 { Kind::Series } else { Kind::SeriesBranch };
        run.root_page = run.read_page(run.series.offset, run.series.bytes, kind)?.into();
        Ok(run)
    }

    /// Bytes of memory that an open run holds.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Run>() + self.root_page.len()
    }

    /// Finds a series by its name; `None` when the run has none. Reads some pages.
    pub fn find(&self, key: SeriesKey<'_>) -> Result<Option<ColdFound>> {
        let mut wanted = Vec::new();
        key::push(key, &mut wanted);
        let hash = page::hash(&wanted);
        let Some((offset, bytes)) = self.leaf_of(self.series, Kind::SeriesBranch, &wanted, Some(hash))? else {
            return Ok(None);
        };
        let page = self.page(offset, bytes, Kind::Series)?;
        let damaged = || self.corrupt(offset, "a page whose entries make no sense");
        let mut entries = Entries::new(Kind::Series);
        while entries.advance(&page).ok_or_else(damaged)? {
            if entries.key.as_slice() >= wanted.as_slice() {
                let found = ColdFound::of_numbers(&entries.numbers).ok_or_else(damaged)?;
                return Ok((entries.key == wanted).then_some(found));
            }
        }
        Ok(None)
    }

    /// Visits the endpoints whose names are `from` or after it, in their order, without reading series. Visits all that
    /// can be read, then answers an error if something could not.
    pub fn endpoints(&self, from: &str, visit: &mut dyn FnMut(ColdEndpoint<'_>) -> ControlFlow<()>) -> Result<()> {
        let mut leaves = self.leaves_from(self.endpoints, from.as_bytes(), Kind::Endpoint)?;
        while leaves.next()? {
            let Some(endpoint) = leaves.endpoint() else {
                leaves.damaged("an endpoint that makes no sense");
                continue;
            };
            if endpoint.name >= from && visit(endpoint).is_break() {
                break;
            }
        }
        leaves.result()
    }

    /// Visits the series from endpoint `from` on, in order of endpoint, metric, tags. Errors as in `endpoints`.
    pub fn series_from(&self, from: &str, visit: &mut dyn FnMut(ColdSeries<'_>) -> ControlFlow<()>) -> Result<()> {
        let mut first = Vec::new();
        key::push_endpoint(from, &mut first);
        let mut leaves = self.leaves_from(self.series, &first, Kind::Series)?;
        let mut texts = key::Texts::default();
        while leaves.next()? {
            let Some(series) = leaves.series(&mut texts) else {
                leaves.damaged("a series that makes no sense");
                continue;
            };
            if series.key.endpoint >= from && visit(series).is_break() {
                break;
            }
        }
        leaves.result()
    }

    /// Visits the series of an endpoint in order of metric, tags. Errors as in `endpoints`.
    pub fn series_of(&self, endpoint: &str, visit: &mut dyn FnMut(ColdSeries<'_>) -> ControlFlow<()>) -> Result<()> {
        self.series_from(endpoint, &mut |series| {
            if series.key.endpoint == endpoint { visit(series) } else { ControlFlow::Break(()) }
        })
    }

    /// All series in order, for merging.
    pub fn leaves(&self) -> Leaves {
        Leaves::new(self.file.clone(), self.path.clone(), MAGIC.len() as u64..self.endpoints_at, Kind::Series)
    }

    /// The leaves from the one on that would hold `key`. Where damage hides it, all of them.
    fn leaves_from(&self, root: Root, key: &[u8], kind: Kind) -> Result<Leaves> {
        let (section, branch) = match kind {
            Kind::Series => (MAGIC.len() as u64..self.endpoints_at, Kind::SeriesBranch),
            _ => (self.endpoints_at..self.footer_at, Kind::EndpointBranch),
        };
        let (start, damage) = match self.leaf_of(root, branch, key, None) {
            Ok(leaf) => (leaf.map_or(section.start, |(offset, _)| offset), None),
            Err(error @ Error::Corrupt { .. }) => (section.start, Some(error)),
            Err(error) => return Err(error),
        };
        let mut leaves = Leaves::new(self.file.clone(), self.path.clone(), start..section.end, kind);
        leaves.damage.extend(damage);
        Ok(leaves)
    }

    /// Offset and bytes of the leaf that would hold `key`; `None` when its filter says that it does not.
    fn leaf_of(&self, root: Root, branch: Kind, key: &[u8], hash: Option<u64>) -> Result<Option<(u64, u32)>> {
        let (mut offset, mut bytes) = (root.offset, root.bytes);
        for height in (1..=root.height).rev() {
            let page = self.page(offset, bytes, branch)?;
            let child = page::child_of(&page, branch, key);
            let child = child.ok_or_else(|| self.corrupt(offset, "a branch whose entries make no sense"))?;
            if height == 1 && hash.is_some_and(|hash| !page::may_hold(child.filter, hash)) {
                return Ok(None);
            }
            (offset, bytes) = (child.offset, child.bytes);
        }
        Ok(Some((offset, bytes)))
    }

    fn page(&self, offset: u64, bytes: u32, kind: Kind) -> Result<Cow<'_, [u8]>> {
        if offset == self.series.offset && self.root_page.first() == Some(&(kind as u8)) {
            return Ok(Cow::Borrowed(&self.root_page));
        }
        self.read_page(offset, bytes, kind).map(Cow::Owned)
    }

    fn read_page(&self, offset: u64, bytes: u32, kind: Kind) -> Result<Vec<u8>> {
        let bytes = bytes as usize;
        let end = offset.checked_add(bytes as u64).filter(|end| *end <= self.footer_at);
        if end.is_none() || bytes > PAGE_MAX + record::HEADER_BYTES {
            return Err(self.corrupt(offset, "a page that cannot be there"));
        }
        let mut page = vec![0; bytes];
        self.file.read_at(&mut page, offset).map_err(Error::disk("read", &self.path))?;
        let payload = record::at_front(&page).filter(|payload| payload.len() + record::HEADER_BYTES == bytes);
        if payload.is_none_or(|payload| payload.first() != Some(&(kind as u8))) {
            return Err(self.corrupt(offset, "a page's checksum does not fit"));
        }
        page.drain(..record::HEADER_BYTES);
        Ok(page)
    }

    fn corrupt(&self, offset: u64, what: &str) -> Error {
        Error::Corrupt { path: self.path.clone(), offset, what: what.to_string() }
    }
}

/// Places of damage that are listed; a file that is damaged in more has told enough.
const DAMAGE_MAX: usize = 20;

/// Reads the entries of all leaves between two offsets, in order, past damage.
pub struct Leaves {
    stream: Stream,
    path: PathBuf,
    kind: Kind,
    page: Vec<u8>,
    pub page_at: u64,
    pub entries: Entries,
    pub damage: Vec<Error>,
}

impl Leaves {
    /// A reader of the leaves in `section` of a run's file.
    pub fn new(file: Arc<dyn DiskFile>, path: PathBuf, section: std::ops::Range<u64>, kind: Kind) -> Leaves {
        let stream = Stream::new(file, section.start, section.end, PAGE_MAX);
        let entries = Entries::new(kind);
        Leaves { stream, path, kind, page: Vec::new(), page_at: section.start, entries, damage: Vec::new() }
    }

    /// Goes to the next entry; false when there is none.
    pub fn next(&mut self) -> Result<bool> {
        loop {
            match self.entries.advance(&self.page) {
                Some(true) => return Ok(true),
                Some(false) => {}
                None => self.damaged("a page whose entries make no sense"),
            }
            if !self.next_page()? {
                return Ok(false);
            }
        }
    }

    fn next_page(&mut self) -> Result<bool> {
        loop {
            let item = self.stream.next().map_err(Error::disk("read", &self.path))?;
            let (offset, bytes) = match item {
                None => return Ok(false),
                Some(Item::Payload(offset, payload)) => {
                    if payload.first() == Some(&(self.kind as u8)) {
                        self.page.clear();
                        self.page.extend_from_slice(payload);
                        self.page_at = offset as u64;
                        self.entries.begin_page();
                        return Ok(true);
                    }
                    continue;
                }
                Some(Item::Corrupt { offset, bytes } | Item::Torn { offset, bytes }) => (offset, bytes),
            };
            self.page_at = offset as u64;
            self.damaged(&format!("{bytes} bytes skipped"));
        }
    }

    /// Notes damage on the page at hand.
    pub fn damaged(&mut self, what: &str) {
        if self.damage.len() < DAMAGE_MAX {
            let (path, offset, what) = (self.path.clone(), self.page_at, what.to_string());
            self.damage.push(Error::Corrupt { path, offset, what });
        }
    }

    fn endpoint(&self) -> Option<ColdEndpoint<'_>> {
        let name = std::str::from_utf8(&self.entries.key).ok()?;
        let number = u32::try_from(self.entries.numbers[0]).ok()?;
        Some(ColdEndpoint { number, name, series_count: self.entries.numbers[1] })
    }

    /// The series of the entry at hand; `None` when its bytes make no sense.
    pub fn series<'a>(&self, texts: &'a mut key::Texts) -> Option<ColdSeries<'a>> {
        let key = texts.read(&self.entries.key)?;
        Some(ColdSeries { key, found: ColdFound::of_numbers(&self.entries.numbers)? })
    }

    /// Fails with the first damage, if there was any.
    pub fn result(self) -> Result<()> {
        self.damage.into_iter().next().map_or(Ok(()), Err)
    }
}
