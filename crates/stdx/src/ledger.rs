//! Ledger: who holds how much memory, and how much each may hold at most.
//!
//! Why: "2 GB resident" is no answer. A process whose memory has owners can say which of them grew, and what is left
//! over when all of them have spoken is a figure of its own, to be kept small.
//! How: an owner whose memory comes and goes by events keeps an [`Account`], an atomic number. One that can say at any
//! time what it holds registers a source, which is asked when somebody looks and costs nothing otherwise.
//! What a line counts is what was taken from the allocator, capacity × size and not length; what the allocator adds to
//! it by rounding up is the allocator's own line, not the owner's.
//! Invariants: names are fixed texts, one line each (asserted in debug builds); an account never goes below zero, so a
//! mistake in one owner cannot make the sum of the others wrong; sources are asked one after the other without a lock
//! of the ledger that an account would need.
//! Memory: some 50 bytes per owner.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Source = Box<dyn Fn(&mut Report) + Send + Sync>;

/// All owners of memory.
#[derive(Default)]
pub struct Ledger {
    accounts: Mutex<Vec<Account>>,
    sources: Mutex<Vec<Source>>,
}

/// The memory that one owner holds now; clones are the same account.
#[derive(Clone)]
pub struct Account {
    name: &'static str,
    bound: Option<u64>,
    bytes: Arc<AtomicU64>,
}

/// The answer of one owner that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub owner: &'static str,
    pub bytes: u64,
    /// Most bytes that the owner may hold; None where another bound (of series, of connections) decides.
    pub bound: Option<u64>,
    /// Count of the things that these bytes hold, where that is what one wants to divide by.
    pub count: Option<u64>,
    /// Whether the memory is not from the program's allocator but from the C library's, or the system's.
    pub elsewhere: bool,
}

/// All owners, asked at one moment. They go on meanwhile, so the lines are of about the same time.
#[derive(Debug, Default)]
pub struct Report {
    lines: Vec<Line>,
}

impl Ledger {
    /// A ledger without owners.
    pub fn new() -> Ledger {
        Ledger::default()
    }

    /// Registers an owner that counts what it takes and gives back.
    pub fn account(&self, name: &'static str, bound: Option<u64>) -> Account {
        let account = Account::new(name, bound);
        let mut accounts = lock(&self.accounts);
        debug_assert!(accounts.iter().all(|other| other.name != name), "two accounts are called {name}");
        accounts.push(account.clone());
        account
    }

    /// Registers owners that are asked when somebody looks: quick to answer, and never walking over all series.
    pub fn source(&self, source: impl Fn(&mut Report) + Send + Sync + 'static) {
        lock(&self.sources).push(Box::new(source));
    }

    /// Asks everybody.
    pub fn report(&self) -> Report {
        let mut report = Report::default();
        for source in lock(&self.sources).iter() {
            source(&mut report);
        }
        for account in lock(&self.accounts).iter() {
            report.line(account.name, account.bytes(), account.bound, None);
        }
        report
    }
}

impl Report {
    /// Adds the line of one owner.
    pub fn line(&mut self, owner: &'static str, bytes: u64, bound: Option<u64>, count: Option<u64>) {
        self.push(Line { owner, bytes, bound, count, elsewhere: false });
    }

    /// Adds the line of an owner whose memory the program's allocator knows nothing of.
    pub fn elsewhere(&mut self, owner: &'static str, bytes: u64, bound: Option<u64>) {
        self.push(Line { owner, bytes, bound, count: None, elsewhere: true });
    }

    fn push(&mut self, line: Line) {
        debug_assert!(self.of(line.owner).is_none(), "two owners are called {}", line.owner);
        self.lines.push(line);
    }

    /// Lines in the order in which the owners were registered; sources before accounts.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Line of an owner by its name.
    pub fn of(&self, owner: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.owner == owner)
    }

    /// Bytes that all owners have of the program's allocator.
    pub fn bytes(&self) -> u64 {
        self.lines.iter().filter(|line| !line.elsewhere).map(|line| line.bytes).sum()
    }
}

impl Account {
    /// An account that no ledger lists: for a part that tells its owner, who tells the ledger.
    pub fn new(name: &'static str, bound: Option<u64>) -> Account {
        Account { name, bound, bytes: Arc::default() }
    }

    /// Begins a share, of nothing yet; what it takes is given back when it is dropped, whatever ends the work.
    pub fn hold(&self) -> Held {
        Held { account: self.clone(), bytes: 0 }
    }

    /// Adds bytes that the owner took.
    pub fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// Takes off bytes that the owner gave back; never below zero.
    pub fn sub(&self, bytes: u64) {
        let rest = |held: u64| Some(held.saturating_sub(bytes));
        let held = self.bytes.fetch_update(Relaxed, Relaxed, rest).unwrap_or_else(|held| held);
        debug_assert!(held >= bytes, "{} gives back {bytes} bytes of {held}", self.name);
    }

    /// Sets the bytes that the owner holds.
    pub fn set(&self, bytes: u64) {
        self.bytes.store(bytes, Relaxed);
    }

    /// Bytes that the owner holds.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }
}

/// The share of an [`Account`] that one piece of work holds.
pub struct Held {
    account: Account,
    bytes: u64,
}

impl Held {
    /// Sets how much is held from now on.
    pub fn set(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        if bytes >= self.bytes {
            self.account.add(bytes - self.bytes);
        } else {
            self.account.sub(self.bytes - bytes);
        }
        self.bytes = bytes;
    }

    /// Sets how much is held, but never less than before: the most that the work held is what its buffers still have.
    pub fn at_least(&mut self, bytes: usize) {
        self.set(bytes.max(self.bytes as usize));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.account.sub(self.bytes);
    }
}

/// Locks a mutex, poisoned or not: a source that panicked has said nothing; the others are asked all the same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_asked_when_somebody_looks() {
        let ledger = Ledger::new();
        let buffers = ledger.account("buffers", Some(100));
        let clone = buffers.clone();
        ledger.source(|report| {
            report.line("index", 1000, None, Some(10));
            report.line("chunks", 200, Some(400), None);
            report.elsewhere("database", 5000, None);
        });
        buffers.add(70);
        clone.sub(30);
        let report = ledger.report();
        let line = |owner, bytes, bound, count| Line { owner, bytes, bound, count, elsewhere: false };
        let expected = [
            line("index", 1000, None, Some(10)),
            line("chunks", 200, Some(400), None),
            Line { elsewhere: true, ..line("database", 5000, None, None) },
            line("buffers", 40, Some(100), None),
        ];
        assert_eq!(report.lines(), expected);
        assert_eq!(report.bytes(), 1240);
        clone.set(5);
        assert_eq!(ledger.report().of("buffers").map(|line| line.bytes), Some(5));
        assert_eq!(report.of("nobody"), None);
    }

    #[test]
    fn what_work_holds_goes_with_it() {
        let account = Account::new("x", None);
        let (mut one, mut other) = (account.hold(), account.hold());
        one.set(100);
        other.set(10);
        one.set(30);
        one.at_least(20);
        assert_eq!(account.bytes(), 40);
        drop(one);
        assert_eq!(account.bytes(), 10);
        drop(other);
        assert_eq!(account.bytes(), 0);
    }

    #[test]
    fn a_source_may_use_accounts() {
        let ledger = Ledger::new();
        let account = ledger.account("seen", None);
        ledger.source({
            let account = account.clone();
            move |_| account.add(1)
        });
        ledger.report();
        assert_eq!(ledger.report().bytes(), 2);
    }

    #[test]
    #[should_panic(expected = "two owners are called x")]
    #[cfg(debug_assertions)]
    fn a_name_is_one_line() {
        let ledger = Ledger::new();
        ledger.account("x", None);
        ledger.source(|report| report.line("x", 1, None, None));
        ledger.report();
    }

    #[test]
    #[should_panic(expected = "x gives back 2 bytes of 1")]
    #[cfg(debug_assertions)]
    fn more_back_than_taken_is_a_mistake() {
        let account = Ledger::new().account("x", None);
        account.add(1);
        account.sub(2);
    }
}
