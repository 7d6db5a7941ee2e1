//! Log: structured lines on standard error, and the few lines for who starts a program by hand on standard output.
//!
//! Why: standard error may be a full disk, a closed pipe, or a pipe that nobody reads. A line must then neither end
//! the process nor hold up whoever has something to say, a thread that takes points for one.
//! How: a line goes into a queue of [`LINES_MAX`], which a thread of its own writes. A line that finds the queue full
//! is left out; how many were is a line itself as soon as there is room. Panics are lines, too. [`flush`] waits for
//! what is in the queue, for a process that ends. While lines are lost, [`trouble`] says so to whoever asks: the log
//! itself cannot.
//! Invariants: what cannot be written is left out; nothing here waits for standard error but that thread, and for a
//! second [`flush`].
//! Memory: [`LINES_MAX`] lines of [`LINE_BYTES_MAX`] at most, 2 MiB; none while standard error is written.

use anyhow::{Result, anyhow};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Display;
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};
use tracing_subscriber::EnvFilter;

/// Lines that may wait to be written: a burst of a start or of a fault.
const LINES_MAX: usize = 512;
/// Bytes of a line that are written; texts from outside may be long.
const LINE_BYTES_MAX: usize = 4096;
/// Longest wait of a process that ends for its last lines.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// The queue of the process's log, once it has begun.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Begins the log of the process. The variable `RUST_LOG` overrides `filter`, the configured one.
pub fn to_stderr(filter: &str) -> Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) => parse_filter("RUST_LOG", &text)?,
        Err(_) => parse_filter("log", filter)?,
    };
    let (lines, queue) = Lines::new();
    thread::Builder::new().name("log".to_string()).spawn(move || queue.write_to(&mut io::stderr()))?;
    let lines = LINES.get_or_init(|| lines);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || lines)
        // Else a line that cannot be written is complained of on standard error, which panics.
        .log_internal_errors(false)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .init();
    std::panic::set_hook(Box::new(tell_panic));
    Ok(())
}

/// Reads a filter; the error names `key`, where the text stands.
pub fn parse_filter(key: &str, text: &str) -> Result<EnvFilter> {
    let wanted = "give a filter like \"info\" or \"hawkeye=debug,warn\"";
    // A word that is no level is taken for the name of a part of the program, which then is all that may speak.
    let words = || text.split(',').map(str::trim).filter(|word| !word.is_empty());
    if words().next().is_some()
        && !words().any(|word| word.contains(['=', '[']) || word.parse::<tracing::level_filters::LevelFilter>().is_ok())
    {
        return Err(anyhow!("{key} is {text:?}, which has no level: {wanted}"));
    }
    EnvFilter::try_new(text).map_err(|error| anyhow!("{key} is {text:?}: {error}; {wanted}"))
}

/// Waits until the lines so far are written, or [`FLUSH_MAX`].
pub fn flush() {
    if let Some(lines) = LINES.get() {
        lines.flush();
    }
}

/// What keeps the lines of the log from being read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub why: String,
    /// Unix seconds when it began.
    pub since: i64,
}

/// Says whether lines of the log are lost now: the last one could not be written, or some had no room in the queue and
/// none was written since.
pub fn trouble() -> Option<Trouble> {
    LINES.get()?.state.trouble()
}

/// Prints a line for who has started the program.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Prints the one line with which a program gives up, behind the log's lines.
pub fn give_up(line: impl Display) {
    flush();
    let _ = writeln!(io::stderr(), "{line}");
}

fn tell_panic(panic: &PanicHookInfo<'_>) {
    let current = thread::current();
    let (thread, message) = (current.name().unwrap_or("unnamed"), panic.payload_as_str().unwrap_or("no text"));
    let place = panic.location().map_or(String::new(), ToString::to_string);
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => tracing::error!(thread, place, "a thread panicked: {message}\n{backtrace}"),
        _ => tracing::error!(thread, place, "a thread panicked: {message}"),
    }
}

/// Writing end of the queue of lines.
struct Lines {
    sender: SyncSender<Entry>,
    state: &'static State,
}

/// Reading end of the queue of lines.
struct Queue {
    entries: Receiver<Entry>,
    state: &'static State,
}

/// What both ends of the queue know.
#[derive(Default)]
struct State {
    /// Lines without room since the last one that was written.
    left_out: AtomicU64,
    /// Unix seconds since when lines are lost; 0 while none are.
    since: AtomicI64,
    /// Why the last line could not be written.
    error: Mutex<Option<String>>,
}

impl State {
    fn begin_trouble(&self) {
        let now = SystemTime::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_secs().max(1) as i64);
        let _ = self.since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn leave_out(&self) {
        self.begin_trouble();
        self.left_out.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes how the writing of a line has ended.
    fn note(&self, written: io::Result<()>) {
        let error = written.err().map(|error| error.to_string());
        match error {
            Some(_) => self.begin_trouble(),
            None => self.since.store(0, Ordering::Relaxed),
        }
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    fn trouble(&self) -> Option<Trouble> {
        let (error, left_out) = (self.error.lock().unwrap_or_else(PoisonError::into_inner).clone(), &self.left_out);
        let why = match (error, left_out.load(Ordering::Relaxed)) {
            (Some(error), _) => error,
            (None, 0) => return None,
            (None, left_out) => format!("{left_out} lines were left out: standard error is not read"),
        };
        Some(Trouble { why, since: self.since.load(Ordering::Relaxed) })
    }
}

enum Entry {
    Line(Vec<u8>),
    /// Somebody waits for the lines before this.
    Flush(SyncSender<()>),
}

impl Lines {
    fn new() -> (Lines, Queue) {
        let (sender, entries) = sync_channel(LINES_MAX);
        // Leaked on purpose: the log lasts as long as the process, and both ends count.
        let state: &State = Box::leak(Box::default());
        (Lines { sender, state }, Queue { entries, state })
    }

    fn flush(&self) {
        let (done, is_done) = sync_channel(1);
        // A queue that is full is not written to: nobody waits for its end.
        if self.sender.try_send(Entry::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(FLUSH_MAX);
        }
    }
}

impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut kept = line[..line.len().min(LINE_BYTES_MAX)].to_vec();
        if kept.len() < line.len() {
            kept.push(b'\n');
        }
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.sender.try_send(Entry::Line(kept)) {
            self.state.leave_out();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Queue {
    /// Writes what comes until nobody can send any more.
    fn write_to(self, out: &mut impl Write) {
        for entry in &self.entries {
            match entry {
                Entry::Line(line) => self.state.note(out.write_all(&line)),
                // Refused when whoever asked waits no more.
                Entry::Flush(done) => drop(done.try_send(())),
            }
            let left_out = self.state.left_out.swap(0, Ordering::Relaxed);
            if left_out > 0 {
                let _ = writeln!(out, "{left_out} lines of the log were left out: standard error was not read");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    /// A place that takes the first line, and is not written to until the test lets it.
    struct Slow {
        stands: std::sync::mpsc::Sender<()>,
        go_on: Receiver<()>,
        written: std::sync::mpsc::Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.stands.send(());
            // An error when the test goes on without a word: nothing stands any more.
            let _ = self.go_on.recv();
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_filter_has_a_level() {
        for text in ["info", "hawkeye=debug,warn", "", "off", "WARN", "[span]=trace", "hawkeye=info"] {
            assert!(parse_filter("log", text).is_ok(), "{text:?}");
        }
        for text in ["verbose", "hawkeye", "hawkeye,store", "hawkeye=loud"] {
            let error = parse_filter("log", text).expect_err(text).to_string();
            assert!(error.contains(&format!("log is {text:?}")) && error.contains("give a filter like"), "{error}");
        }
    }

    #[test]
    fn whoever_logs_does_not_wait_and_what_was_left_out_is_told() {
        let (lines, queue) = Lines::new();
        let ((stands, is_standing), (go, go_on)) = (channel(), channel());
        let (written, is_written) = channel();
        let thread = thread::spawn(move || queue.write_to(&mut Slow { stands, go_on, written }));
        let log = |line: &str| assert_eq!((&lines).write(line.as_bytes()).expect("never an error"), line.len());
        log("first\n");
        is_standing.recv().expect("a writer that stands");
        (0..LINES_MAX + 7).for_each(|_| log("line\n"));
        log(&"x".repeat(LINE_BYTES_MAX + 1));
        lines.flush();
        let trouble = lines.state.trouble().expect("lines are lost");
        assert_eq!(trouble.why, "8 lines were left out: standard error is not read");
        assert!(trouble.since > 0);
        let state = lines.state;
        drop(go);
        drop(lines);
        thread.join().expect("an end with the last sender");
        let written: Vec<u8> = is_written.into_iter().flatten().collect();
        let text = String::from_utf8(written).expect("texts");
        assert_eq!(text.matches("line\n").count(), LINES_MAX, "{text}");
        assert!(text.contains("8 lines of the log were left out"), "{text}");
        assert_eq!(state.trouble(), None, "it is read again");
    }

    /// A place that refuses lines with this text in them, as a full disk does.
    struct Full(Vec<u8>);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if bytes.starts_with(b"refused") {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_cannot_be_written_is_a_trouble_until_one_can() {
        let trouble_after = |texts: &[&str]| {
            let (lines, queue) = Lines::new();
            texts.iter().for_each(|text| (&lines).write_all(text.as_bytes()).expect("never an error"));
            let state = lines.state;
            drop(lines);
            queue.write_to(&mut Full(Vec::new()));
            state.trouble()
        };
        assert_eq!(trouble_after(&["taken\n"]), None);
        let trouble = trouble_after(&["taken\n", "refused\n"]).expect("a trouble");
        assert_eq!(trouble.why, io::Error::from(io::ErrorKind::StorageFull).to_string());
        assert!(trouble.since > 0);
        assert_eq!(trouble_after(&["refused\n", "taken\n"]), None);
    }

    #[test]
    fn a_flush_waits_for_the_lines_before_it_and_long_lines_are_cut() {
        let (lines, queue) = Lines::new();
        (&lines).write_all("y".repeat(LINE_BYTES_MAX + 9).as_bytes()).expect("never an error");
        let thread = thread::spawn(move || {
            let mut out = Vec::new();
            queue.write_to(&mut out);
            out
        });
        lines.flush();
        drop(lines);
        let written = thread.join().expect("no panic");
        assert_eq!(written, ["y".repeat(LINE_BYTES_MAX).as_bytes(), b"\n"].concat());
    }
}
