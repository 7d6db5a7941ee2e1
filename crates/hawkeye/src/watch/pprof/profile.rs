//! Profile: sampled stacks with their figures, as pprof's protobuf or as a flame graph.
//!
//! Why not the usual crate: it knows one figure per stack, where `go tool pprof` wants four of a heap, and leaves the
//! allocator's own frames in, so that `top` names nothing but the allocator.
//! How: each address is resolved once (`symbols.rs`), with the calls that were inlined there; the innermost frames that
//! belong to the allocator are cut off; then the message is written field by field, which is a page of code.
//! Format: github.com/google/pprof, proto/profile.proto; gzipped. Numbers below are its field numbers.
//! Memory: the stacks and their texts.

use super::symbols::{Frame, Resolved, Resolver};
use anyhow::Result;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wire::protobuf::{field_bytes, field_number, field_packed};

/// The name of a figure and its unit.
pub type SampleKind = (&'static str, &'static str);

pub struct Profile {
    pub kinds: &'static [SampleKind],
    /// The index in `kinds` of the figure that `top` shows when not asked for another.
    pub shown: usize,
    /// The kind that is sampled, and how much of it one sample stands for.
    pub period: (SampleKind, i64),
    pub duration: Duration,
    pub samples: Vec<ProfileSample>,
}

pub struct ProfileSample {
    /// Addresses of the stack, the innermost first. All but the innermost are addresses to return to.
    pub addresses: Vec<usize>,
    /// A figure per kind.
    pub figures: Vec<i64>,
}

/// True for functions that take memory for their caller: jemalloc, and Rust's way to it.
fn is_allocator(frame: &Frame) -> bool {
    const STARTS: [&str; 14] = [
        "prof_",
        "_rjem_",
        "je_",
        "imalloc",
        "do_rallocx",
        "__rust_alloc",
        "__rust_realloc",
        "__rustc::__rust_",
        "<tikv_jemallocator::",
        // The functions by which a `Box` and a `Vec` take memory.
        "alloc::alloc::",
        "<alloc::alloc::",
        "alloc::raw_vec::",
        "<alloc::raw_vec::",
        "alloc::boxed::box_new_uninit",
    ];
    STARTS.iter().any(|start| frame.function.starts_with(start)) || frame.function.ends_with("::with_capacity_in")
}

/// True for collections and texts of the standard library and its like, which take memory for whoever uses them.
fn is_collection(frame: &Frame) -> bool {
    const STARTS: [&str; 8] =
        ["alloc::", "<alloc::", "core::", "<core::", "std::", "<std::", "hashbrown::", "<hashbrown::"];
    // What the standard library does for every type, `<T as Into>::into`, has no path of its own.
    const FILES: [&str; 2] = ["/library/", "/hashbrown-"];
    STARTS.iter().any(|start| frame.function.starts_with(start)) || FILES.iter().any(|file| frame.file.contains(file))
}

impl Profile {
    /// True for figures about memory, where the function that asked is of interest; for time, the function that spent
    /// it is.
    fn is_of_memory(&self) -> bool {
        self.period.0.1 == "bytes"
    }

    fn resolved(&self, resolver: Resolver) -> Resolved {
        resolver.resolve(self.samples.iter().flat_map(resolvable).collect::<BTreeSet<usize>>())
    }

    /// The profile as gzipped protobuf.
    pub fn to_pprof(&self, resolver: Resolver) -> Result<Vec<u8>> {
        let mut writer = Writer::new(self.resolved(resolver));
        for sample in &self.samples {
            writer.sample(sample, self.is_of_memory());
        }
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&writer.finish(self))?;
        Ok(gzip.finish()?)
    }

    /// The shown figure as a flame graph: an SVG that a browser opens with nothing else.
    pub fn to_svg(&self, title: &str, resolver: Resolver) -> Result<Vec<u8>> {
        if self.samples.iter().all(|sample| sample.figures[self.shown] == 0) {
            return Ok(svg_of_nothing(title).into_bytes());
        }
        let resolved = self.resolved(resolver);
        let mut lines: HashMap<String, i64> = HashMap::new();
        for sample in &self.samples {
            let places = places_of(sample, &resolved, self.is_of_memory());
            let names = places.iter().rev().flat_map(|place| {
                let frames = &resolved[&place.address][place.skipped..];
                frames.iter().rev().map(|frame| frame.function.as_str())
            });
            // A `;` divides the frames of a line.
            let line = names.map(|name| name.replace(';', ":")).collect::<Vec<_>>().join(";");
            *lines.entry(line).or_default() += sample.figures[self.shown];
        }
        let lines: Vec<String> = lines.into_iter().map(|(line, figure)| format!("{line} {figure}")).collect();
        let mut options = inferno::flamegraph::Options::default();
        options.title = title.to_string();
        options.count_name = self.kinds[self.shown].1.to_string();
        let mut svg = Vec::new();
        inferno::flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)?;
        Ok(svg)
    }
}

/// A picture that says that nothing was sampled: of a processor that was idle there is no flame to show.
fn svg_of_nothing(title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1200\" height=\"60\" font-family=\"sans-serif\">\
         <text x=\"20\" y=\"35\">{title}: no samples. Nothing of it happened while this profile was taken.</text></svg>"
    )
}

/// An address of a stack, without the innermost `skipped` of the functions that are there.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    address: usize,
    skipped: usize,
}

/// The addresses of a sample as they are resolved: `backtrace` looks one byte before an address to return to, where the
/// call is.
fn resolvable(sample: &ProfileSample) -> impl Iterator<Item = usize> + '_ {
    sample.addresses.iter().enumerate().map(|(depth, address)| if depth == 0 { address + 1 } else { *address })
}

/// The addresses of a sample, the innermost first, without those of the allocator at the beginning, and for memory
/// without those of collections.
fn places_of(sample: &ProfileSample, resolved: &Resolved, is_of_memory: bool) -> Vec<Place> {
    let addresses: Vec<usize> = resolvable(sample).collect();
    let mut first = Place { address: 0, skipped: 0 };
    let mut start = 0;
    for (depth, address) in addresses.iter().enumerate() {
        let frames = &resolved[address];
        let Some(outermost) = frames.iter().rposition(is_allocator) else { continue };
        (start, first) = if outermost + 1 == frames.len() {
            (depth + 1, Place { address: 0, skipped: 0 })
        } else {
            (depth, Place { address: *address, skipped: outermost + 1 })
        };
    }
    // A thread of the allocator itself has no other frames.
    let rest = if start < addresses.len() { &addresses[start..] } else { &addresses[..] };
    let mut places: Vec<Place> = rest.iter().map(|address| Place { address: *address, skipped: 0 }).collect();
    if let Some(place) = places.first_mut().filter(|place| place.address == first.address) {
        *place = first;
    }
    if is_of_memory {
        skip_collections(&mut places, resolved);
    }
    places
}

/// Drops the collections at the beginning of a stack; a stack of nothing else stays as it is.
fn skip_collections(places: &mut Vec<Place>, resolved: &Resolved) {
    let user = places.iter().enumerate().find_map(|(depth, place)| {
        let frames = &resolved[&place.address][place.skipped..];
        Some((depth, frames.iter().position(|frame| !is_collection(frame))?))
    });
    if let Some((depth, collections)) = user {
        places.drain(..depth);
        places[0].skipped += collections;
    }
}

/// The message being built: parts that refer to each other by number.
struct Writer {
    out: Vec<u8>,
    resolved: Resolved,
    locations: HashMap<Place, u64>,
    functions: HashMap<(i64, i64), u64>,
    strings: HashMap<String, i64>,
    texts: Vec<u8>,
}

impl Writer {
    fn new(resolved: Resolved) -> Writer {
        let mut writer = Writer {
            out: Vec::new(),
            resolved,
            locations: HashMap::new(),
            functions: HashMap::new(),
            strings: HashMap::new(),
            texts: Vec::new(),
        };
        // The first text is the empty one.
        writer.string("");
        writer
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(number) = self.strings.get(text) {
            return *number;
        }
        let number = self.strings.len() as i64;
        self.strings.insert(text.to_string(), number);
        field_bytes(&mut self.texts, 6, text.as_bytes());
        number
    }

    fn sample(&mut self, sample: &ProfileSample, is_of_memory: bool) {
        let resolved = std::mem::take(&mut self.resolved);
        let places = places_of(sample, &resolved, is_of_memory);
        let locations: Vec<u64> = places.iter().map(|place| self.location(*place, &resolved)).collect();
        self.resolved = resolved;
        let mut message = Vec::new();
        field_packed(&mut message, 1, locations.into_iter());
        field_packed(&mut message, 2, sample.figures.iter().map(|figure| *figure as u64));
        field_bytes(&mut self.out, 2, &message);
    }

    fn location(&mut self, place: Place, resolved: &Resolved) -> u64 {
        let next = self.locations.len() as u64 + 1;
        let number = match self.locations.entry(place) {
            Entry::Occupied(entry) => return *entry.get(),
            Entry::Vacant(entry) => *entry.insert(next),
        };
        let mut message = Vec::new();
        field_number(&mut message, 1, number);
        field_number(&mut message, 2, 1);
        field_number(&mut message, 3, place.address as u64);
        for frame in &resolved[&place.address][place.skipped..] {
            let mut line = Vec::new();
            field_number(&mut line, 1, self.function(frame));
            field_number(&mut line, 2, u64::from(frame.line));
            field_bytes(&mut message, 4, &line);
        }
        field_bytes(&mut self.out, 4, &message);
        number
    }

    fn function(&mut self, frame: &Frame) -> u64 {
        // A reader that finds both names equal takes the first for one of C++, and shortens it.
        let symbol = if frame.symbol == frame.function { "" } else { &frame.symbol };
        let (name, symbol) = (self.string(&frame.function), self.string(symbol));
        let file = self.string(&frame.file);
        let next = self.functions.len() as u64 + 1;
        let number = match self.functions.entry((name, file)) {
            Entry::Occupied(entry) => return *entry.get(),
            Entry::Vacant(entry) => *entry.insert(next),
        };
        let mut message = Vec::new();
        for (field, value) in [(1, number), (2, name as u64), (3, symbol as u64), (4, file as u64)] {
            field_number(&mut message, field, value);
        }
        field_bytes(&mut self.out, 5, &message);
        number
    }

    fn kind(&mut self, (kind, unit): SampleKind) -> Vec<u8> {
        let mut message = Vec::new();
        field_number(&mut message, 1, self.string(kind) as u64);
        field_number(&mut message, 2, self.string(unit) as u64);
        message
    }

    fn finish(mut self, profile: &Profile) -> Vec<u8> {
        for kind in profile.kinds {
            let message = self.kind(*kind);
            field_bytes(&mut self.out, 1, &message);
        }
        // One mapping, with everything resolved: the reader has nothing to look up.
        let binary = std::env::current_exe().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        let mut mapping = Vec::new();
        for (field, value) in [(1, 1), (3, u64::MAX), (5, self.string(&binary) as u64), (7, 1), (8, 1), (9, 1), (10, 1)]
        {
            field_number(&mut mapping, field, value);
        }
        field_bytes(&mut self.out, 3, &mapping);
        let (period_kind, shown) = (self.kind(profile.period.0), self.string(profile.kinds[profile.shown].0));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        field_number(&mut self.out, 9, now.as_nanos() as u64);
        field_number(&mut self.out, 10, profile.duration.as_nanos() as u64);
        field_bytes(&mut self.out, 11, &period_kind);
        field_number(&mut self.out, 12, profile.period.1 as u64);
        field_number(&mut self.out, 14, shown as u64);
        self.out.extend_from_slice(&self.texts);
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The innermost function of a stack of these, each `address: function@file, …` with the inlined first.
    fn shown(stack: &[&[(&str, &str)]], is_of_memory: bool) -> String {
        let frame = |(function, file): &(&str, &str)| {
            let (function, file) = (function.to_string(), file.to_string());
            Frame { symbol: function.clone(), function, file, line: 1 }
        };
        let addresses: Vec<usize> = (0..stack.len()).map(|depth| 100 * (depth + 1)).collect();
        let sample = ProfileSample { addresses, figures: vec![1] };
        let frames = stack.iter().map(|frames| frames.iter().map(frame).collect());
        let resolved: Resolved = resolvable(&sample).zip(frames).collect();
        let place = places_of(&sample, &resolved, is_of_memory)[0];
        resolved[&place.address][place.skipped].function.clone()
    }

    #[test]
    fn memory_is_shown_under_who_uses_it() {
        const STD: &str = "/rustc/0/library/alloc/src/vec/mod.rs";
        let check = |stack: &[&[(&str, &str)]], memory: &str, time: &str| {
            assert_eq!((shown(stack, true).as_str(), shown(stack, false).as_str()), (memory, time), "{stack:?}");
        };
        let jemalloc = ("_rjem_malloc", "");
        check(&[&[jemalloc], &[("push", STD), ("fill", "store.rs")]], "fill", "push");
        check(&[&[jemalloc], &[("from_elem", STD)], &[("fill", "store.rs")], &[("run", STD)]], "fill", "from_elem");
        check(&[&[jemalloc], &[("alloc::fmt::format", "")], &[("name", "")]], "name", "alloc::fmt::format");
        check(&[&[jemalloc], &[("std::rt::init", "")]], "std::rt::init", "std::rt::init");
        check(&[&[("fill", "store.rs")]], "fill", "fill");
        let reserve = ("<alloc::raw_vec::RawVecInner<A>>::reserve::{closure}", "");
        check(&[&[reserve, ("alloc::vec::Vec<T,A>::push", "")], &[("fill", "")]], "fill", "alloc::vec::Vec<T,A>::push");
        let capacity = ("alloc::vec::Vec<T,A>::with_capacity_in", "");
        check(&[&[("<alloc::alloc::Global as Allocator>::allocate", ""), capacity, ("fill", "")]], "fill", "fill");
    }
}
