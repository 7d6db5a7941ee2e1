//! Symbols: functions, files and lines of addresses, resolved in a process of its own.
//!
//! Why: reading the binary's debug information takes a hundred MB for a second or two. A look at the memory of a server
//! that is short of memory must not be its end; and afterwards the server's peak would say nothing about the server.
//! How: the same program is started again as `hawkeye symbols`; it reads places on its input and writes frames. An
//! address means nothing in another process, so a place is a file and how far behind the file's start it is mapped: a
//! line `<hex> <path>`. For each, in order, comes a line `= <frames>`, then a line of four texts with tabs between for
//! each frame. Where no process can be started, the addresses are resolved in this one, and the log says so.
//! Invariants: the other process reads all before it writes, so neither waits for the other; it offers itself to the
//! system first when memory runs out, and ends after [`CPU_S_MAX`] at the latest; its answer is bounded and checked.
//! Memory: the texts of the frames.

use super::names::readable;
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// The subcommand that [`serve`] is behind.
pub const SUBCOMMAND: &str = "symbols";

/// Processor seconds of one resolving; a profile has some thousand addresses, resolved within two seconds.
const CPU_S_MAX: u64 = 60;
/// Bytes of the longest answer; the frames of ten thousand addresses are some 10 MB.
const ANSWER_MAX: u64 = 128 << 20;
/// Functions inlined into each other at one address.
const FRAMES_MAX: usize = 1000;

#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    pub function: String,
    /// The name that the linker knows.
    pub symbol: String,
    pub file: String,
    pub line: u32,
}

/// Frames by address, the innermost (inlined) first.
pub type Resolved = HashMap<usize, Vec<Frame>>;

/// The program that resolves addresses.
#[derive(Clone, Copy)]
pub struct Resolver {
    /// The program to start with [`SUBCOMMAND`]; None resolves in this process.
    pub program: Option<&'static str>,
}

/// The program that is running, also when another one has taken its name meanwhile.
pub const THIS_PROGRAM: Resolver = Resolver { program: Some("/proc/self/exe") };

impl Resolver {
    /// The functions at addresses; where nobody knows one, what is mapped there stands for it.
    pub fn resolve(self, addresses: BTreeSet<usize>) -> Resolved {
        let mut resolved = self.named(addresses);
        let maps = Maps::of_this_process().unwrap_or(Maps { files: Vec::new() });
        for (address, frames) in resolved.iter_mut().filter(|(_, frames)| frames.is_empty()) {
            let function = maps.name_of(*address);
            frames.push(Frame { function, symbol: String::new(), file: String::new(), line: 0 });
        }
        resolved
    }

    fn named(self, addresses: BTreeSet<usize>) -> Resolved {
        if let Some(program) = self.program.filter(|_| !addresses.is_empty()) {
            match resolve_elsewhere(program, &addresses) {
                Ok(resolved) => return resolved,
                Err(error) => tracing::warn!(
                    "the server reads debug information itself, which takes a hundred MB for a moment, since no other process could: {error:#}"
                ),
            }
        }
        resolve_here(addresses)
    }
}

/// `backtrace` keeps what it has read of the binary until told to let go, and two threads must not do both at once.
static RESOLVING: Mutex<()> = Mutex::new(());

fn resolve_here(addresses: BTreeSet<usize>) -> Resolved {
    let _guard = RESOLVING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let resolved = addresses.into_iter().map(|address| (address, frames_at(address))).collect();
    backtrace::clear_symbol_cache();
    resolved
}

fn frames_at(address: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    backtrace::resolve(address as *mut _, |symbol| {
        let Some(name) = symbol.name() else { return };
        let file = symbol.filename().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        let (function, mangled) =
            (readable(&format!("{name:#}")), String::from_utf8_lossy(name.as_bytes()).into_owned());
        frames.push(Frame { function, symbol: mangled, file, line: symbol.lineno().unwrap_or(0) });
    });
    frames
}

fn resolve_elsewhere(program: &str, addresses: &BTreeSet<usize>) -> Result<Resolved> {
    let maps = Maps::of_this_process()?;
    let (mut asked, mut questions) = (Vec::new(), String::new());
    for address in addresses {
        // Code that is mapped from nowhere has no name anyway.
        if let Some((path, offset)) = maps.place_of(*address) {
            asked.push(*address);
            writeln!(questions, "{offset:x} {path}")?;
        }
    }
    let answers = ask(program, &questions)?;
    let mut resolved: Resolved = addresses.iter().map(|address| (*address, Vec::new())).collect();
    let mut lines = answers.lines();
    for address in asked {
        resolved.insert(address, read_frames(&mut lines)?);
    }
    Ok(resolved)
}

fn ask(program: &str, questions: &str) -> Result<String> {
    let mut child = Command::new(program)
        .arg(SUBCOMMAND)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the process that reads debug information")?;
    let talked: Result<String> = (|| {
        let mut input = child.stdin.take().context("the process that reads debug information has no input")?;
        input.write_all(questions.as_bytes())?;
        drop(input);
        let mut answers = String::new();
        let output = child.stdout.take().context("the process that reads debug information has no output")?;
        output.take(ANSWER_MAX).read_to_string(&mut answers)?;
        Ok(answers)
    })();
    if talked.is_err() {
        // The process may wait for somebody to read its output.
        let _ = child.kill();
    }
    let status = child.wait()?;
    let answers = talked.context("cannot talk to the process that reads debug information")?;
    ensure!(status.success(), "the process that reads debug information ended with {status}");
    Ok(answers)
}

fn read_frames<'l>(lines: &mut impl Iterator<Item = &'l str>) -> Result<Vec<Frame>> {
    let head = lines.next().context("an answer is missing")?;
    let count: usize = head.strip_prefix("= ").and_then(|count| count.parse().ok()).context("no head of an answer")?;
    ensure!(count <= FRAMES_MAX, "{count} frames at one address");
    let mut frames = Vec::with_capacity(count);
    for _ in 0..count {
        let mut texts = lines.next().context("a frame is missing")?.split('\t');
        let mut text = || texts.next().map(str::to_string).context("a frame is cut short");
        let (function, symbol, file, line) = (text()?, text()?, text()?, text()?);
        frames.push(Frame { function, symbol, file, line: line.parse().context("the line of a frame")? });
    }
    Ok(frames)
}

/// The other process: reads places and writes their frames.
pub fn serve() -> Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limit = Rlimit { current: Some(CPU_S_MAX), maximum: Some(CPU_S_MAX) };
    setrlimit(Resource::Cpu, limit).context("cannot limit the processor time")?;
    // A system that refuses this loses nothing.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let maps = Maps::of_this_process()?;
    let questions: Vec<String> = std::io::stdin().lock().lines().collect::<std::io::Result<_>>()?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for question in &questions {
        let (offset, path) = question.split_once(' ').context("a place is `<hex> <path>`")?;
        let offset = usize::from_str_radix(offset, 16).context("the offset of a place")?;
        let frames = maps.address_of(path, offset).map(frames_at).unwrap_or_default();
        let count = frames.len().min(FRAMES_MAX);
        writeln!(out, "= {count}")?;
        for Frame { function, symbol, file, line } in &frames[..count] {
            let [function, symbol, file] = [function, symbol, file].map(|text| text.replace(['\t', '\n'], " "));
            writeln!(out, "{function}\t{symbol}\t{file}\t{line}")?;
        }
    }
    Ok(out.flush()?)
}

/// The files that are mapped, and where.
struct Maps {
    /// Path, and the ranges of its mappings, ascending.
    files: Vec<(String, Vec<(usize, usize)>)>,
}

impl Maps {
    fn of_this_process() -> Result<Maps> {
        let file = std::fs::File::open("/proc/self/maps").context("cannot read /proc/self/maps")?;
        Maps::parse(BufReader::new(file))
    }

    /// Lines `<from>-<to> rwxp <offset> <device> <inode> <path>`.
    fn parse(maps: impl BufRead) -> Result<Maps> {
        let mut files: Vec<(String, Vec<(usize, usize)>)> = Vec::new();
        for line in maps.lines() {
            let line = line?;
            // What the kernel lends is mapped from no file, and called `[vdso]`.
            let Some(path) = line.find(['/', '[']).map(|at| &line[at..]) else { continue };
            let range = line.split([' ', '-']).take(2).map(|hex| usize::from_str_radix(hex, 16));
            let range = range.collect::<Result<Vec<_>, _>>().context("a range of /proc/self/maps")?;
            let [from, to] = range[..] else { continue };
            match files.iter_mut().find(|(known, _)| known == path) {
                Some((_, ranges)) => ranges.push((from, to)),
                None => files.push((path.to_string(), vec![(from, to)])),
            }
        }
        Ok(Maps { files })
    }

    /// The file that an address is in, and how far behind the file's first mapping.
    fn place_of(&self, address: usize) -> Option<(&str, usize)> {
        let is_in = |ranges: &[(usize, usize)]| ranges.iter().any(|(from, to)| (*from..*to).contains(&address));
        let (path, ranges) = self.files.iter().find(|(_, ranges)| is_in(ranges))?;
        Some((path, address - ranges.first()?.0))
    }

    /// What is mapped at an address, in brackets: `[vdso]`, or the last name of a file's path.
    fn name_of(&self, address: usize) -> String {
        let path = self.place_of(address).map_or("unknown", |(path, _)| path);
        let name = path.rsplit('/').next().unwrap_or(path);
        format!("[{}]", name.trim_matches(['[', ']']))
    }

    fn address_of(&self, path: &str, offset: usize) -> Option<usize> {
        let (_, ranges) = self.files.iter().find(|(known, _)| known == path)?;
        let address = ranges.first()?.0.checked_add(offset)?;
        ranges.iter().any(|(from, to)| (*from..*to).contains(&address)).then_some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_mean_the_same_in_another_process() {
        let here = "55d0a0000000-55d0a0100000 r--p 00000000 08:01 7 /opt/the program\n\
            55d0a0100000-55d0a0900000 r-xp 00100000 08:01 7 /opt/the program\n\
            7f1000000000-7f1000001000 rw-p 00000000 00:00 0\n\
            7f2000000000-7f2000100000 r-xp 00000000 08:01 9 /lib/libc.so.6\n\
            7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0 [vdso]\n";
        let there = here.replace("55d0a", "55aaa").replace("7f2000", "7f3000");
        let (here, there) = [here, &there].map(|maps| Maps::parse(maps.as_bytes()).expect("maps")).into();
        let (path, offset) = here.place_of(0x55d0_a010_0042).expect("in the program");
        assert_eq!((path, offset), ("/opt/the program", 0x10_0042));
        assert_eq!(there.address_of(path, offset), Some(0x55aa_a010_0042));
        let (path, offset) = here.place_of(0x7f20_0000_0007).expect("in the library");
        assert_eq!(there.address_of(path, offset), Some(0x7f30_0000_0007));
        assert_eq!(here.place_of(0x7f10_0000_0000), None);
        assert_eq!(here.place_of(0x7ffd_0000_0000), Some(("[vdso]", 0)));
        let names = [0x7ffd_0000_0000, 0x55d0_a010_0042, 0x7f20_0000_0007, 0x1].map(|address| here.name_of(address));
        assert_eq!(names, ["[vdso]", "[the program]", "[libc.so.6]", "[unknown]"]);
        assert_eq!(there.address_of("/opt/the program", usize::MAX), None);
        assert_eq!(there.address_of("/opt/the program", 0x90_0000), None);
        assert_eq!(there.address_of("/opt/another", 0), None);
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        let read = |text: &str| read_frames(&mut text.lines());
        let frame = Frame { function: "f".into(), symbol: "_f".into(), file: "a b.rs".into(), line: 3 };
        assert_eq!(read("= 1\nf\t_f\ta b.rs\t3\n").expect("a frame"), [frame]);
        assert_eq!(read("= 0").expect("no frames"), []);
        for text in ["", "running 0 tests", "= x", "= 1", "= 1\nf\t_f\ta.rs", "= 1\nf\t_f\ta.rs\tx", "= 4000000000"] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn this_function_is_found_here() {
        let address = this_function_is_found_here as *const () as usize + 1;
        // What cannot be started, or answers something else, leaves the work to this process.
        for program in [None, Some("/nonexistent"), Some("/bin/echo"), Some("/bin/false")] {
            let resolved = Resolver { program }.resolve([address].into());
            let found = |frame: &Frame| frame.function.contains("this_function_is_found_here");
            assert!(resolved[&address].iter().any(found), "{program:?}");
        }
    }
}
