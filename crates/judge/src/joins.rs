//! Joins: conditions over several series, in which the judges of all shards meet.
//!
//! Why: the series of one endpoint live in several shards, and a judge sees its own only. So each series says its part
//! when it has a point, here, and whoever speaks last has the whole answer worked out.
//! How: a [`Join`] per rule (of a strategy in parts: per part) and endpoint; in it stand the series that carry the
//! alarm and those that terms ask. A series holds a [`Seat`] in each join that it belongs to. A seat points at its
//! join, so a point never looks into the table.
//!
//! Locks, always in this order: judge of a shard → table → join → outbox. Each has its bound beside it.
//! - A point takes the locks of the joins in which its series has a seat, one after another; two endpoints never wait
//!   for each other.
//! - The table is locked while a series is bound or unbound, and while a rule set is brought into force.
//! - The outbox is locked for as long as events are moved in or out.
//!
//! Order: a decision appends its events to the outbox while its join is locked, and [`Joins::hand_over`] gives them on
//! in that order. An alarm belongs to one join, so the events of an alarm keep their order, also when the points that
//! made them came in several shards at once.
//! Rules: the first judge that loads a rule set brings it into force here too. A judge that still has another one is
//! not heard; after a load every series with a seat is asked anew ([`crate::Judge::refill`]).
//! Memory: nothing without such rules; about 1 KB per host for a condition over three series (what each term said last,
//! with its newest points, at most [`model::explanation::POINTS_MAX`]). A join has at most [`SEATS_MAX`] seats; what is
//! refused beyond them is counted. [`Joins::stats`] has the figures.

use crate::Options;
use crate::finding::View;
pub use crate::join::SEATS_MAX;
use crate::join::{Join, Members};
use crate::locks;
use crate::occasion::{Cause, Occasion};
use crate::program::{Program, Subject};
use crate::rule_set::{Rule, RuleSet};
use crate::state::{OpenProblem, RuleId};
use crate::touched::Touched;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use model::{Event, SeriesId, SeriesKey};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use stdx::RankedMutex;

/// The conditions over several series, shared by the judges of all shards.
pub struct Joins {
    /// Bound: binding a series takes a look-up and one join's lock per rule; only while a rule set is loaded a look at
    /// all its rules besides. A load takes the lock of each join once. No message waits here but one that brings a new
    /// series.
    table: RankedMutex<Table>,
    /// Bound: moving events, at most one per carrier of a join; nothing is made, written or freed under it.
    outbox: RankedMutex<Vec<Event>>,
    /// Events that were decided and are not handed over yet.
    waiting: AtomicUsize,
    seats_refused: AtomicU64,
}

impl Default for Joins {
    fn default() -> Joins {
        Joins {
            table: RankedMutex::new(locks::JOINS, Table::default()),
            outbox: RankedMutex::new(locks::OUTBOX, Vec::new()),
            waiting: AtomicUsize::new(0),
            seats_refused: AtomicU64::new(0),
        }
    }
}

/// Numbers of joins and of their seats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct JoinStats {
    /// Pairs of a rule and an endpoint.
    pub count: usize,
    /// Seats of series that carry an alarm.
    pub carriers: usize,
    /// Seats of series that are asked by the alarms of others.
    pub others: usize,
    /// Seats that were refused since the start, because their join was full. The series has no part in that condition:
    /// it carries no alarm of it, or is not asked by it.
    pub seats_refused: u64,
    pub memory_bytes: usize,
}

#[derive(Default)]
struct Table {
    /// The rule set in force. Each join has its rule from this set, or none.
    rules: Arc<RuleSet>,
    /// Found by rule, part of it, and endpoint.
    joins: HashTable<Arc<Join>>,
    hasher: RandomState,
}

/// The place of a series in a join, kept by its judge.
#[derive(Clone)]
pub(crate) struct Seat {
    join: Arc<Join>,
    pub subject: Subject,
}

impl PartialEq for Seat {
    fn eq(&self, other: &Seat) -> bool {
        Arc::ptr_eq(&self.join, &other.join) && self.subject == other.subject
    }
}

impl Seat {
    /// Rule of the join.
    pub fn rule(&self) -> RuleId {
        self.join.id
    }

    /// Rule of the join, and which part of it.
    pub fn place(&self) -> (RuleId, &str) {
        (self.join.id, &self.join.part)
    }

    /// Whether the join is that of a rule; parts of one strategy have joins of their own.
    pub fn is_of(&self, rule: &Rule) -> bool {
        self.join.id == rule.id() && rule.is_part(&self.join.part)
    }
}

impl Joins {
    /// Gives the events that were decided to `take`, in their order, and says how many there were. Call it whenever
    /// [`Joins::is_waiting`], from one thread at a time: under the lock that keeps the order of events.
    pub fn hand_over(&self, take: impl FnOnce(&mut Vec<Event>)) -> usize {
        let mut events = std::mem::take(&mut *self.outbox.lock());
        let count = events.len();
        if count > 0 {
            take(&mut events);
            // Not before: whoever decided one of them must not go on before it is durable.
            self.waiting.fetch_sub(count, Ordering::Release);
        }
        count
    }

    /// Whether events were decided that nobody has taken yet.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Decides each alarm once, after a restart, when all series have been asked ([`crate::Judge::refill`]): what
    /// [`crate::Judge::catch_up`] does for the alarms of one series.
    pub fn settle(&self, now: i64, options: &Options) {
        // One order, so that the same start gives the same row of events.
        let mut joins: Vec<Arc<Join>> = self.table.lock().joins.iter().cloned().collect();
        joins.sort_unstable_by(|a, b| (a.id, &a.endpoint, &a.part).cmp(&(b.id, &b.endpoint, &b.part)));
        let occasion = Occasion::new(Cause::CatchUp, now, options);
        for join in joins {
            let mut members = join.members.lock();
            self.decide(&join, &mut members, occasion, |_, _| true);
        }
    }

    /// Numbers of joins and seats now. Takes the lock of the table, and of each join.
    pub fn stats(&self) -> JoinStats {
        let table = self.table.lock();
        let mut stats = JoinStats {
            count: table.joins.len(),
            seats_refused: self.seats_refused.load(Ordering::Relaxed),
            memory_bytes: table.joins.allocation_size(),
            ..JoinStats::default()
        };
        for join in &table.joins {
            let members = join.members.lock();
            stats.carriers += members.carriers();
            stats.others += members.others();
            stats.memory_bytes += join.memory_bytes(&members);
        }
        stats
    }

    /// Brings a rule set into force, unless it is already; the PROBLEMs of rules that are gone.
    pub(crate) fn load(&self, rules: &Arc<RuleSet>, touched: &Touched) -> Vec<OpenProblem> {
        let mut table = self.table.lock();
        if Arc::ptr_eq(&table.rules, rules) {
            return Vec::new();
        }
        table.rules = rules.clone();
        let mut closed = Vec::new();
        table.joins.retain(|join| {
            let mut members = join.members.lock();
            let stays = rules.has(join.id);
            if stays {
                members.load(rules, touched);
            } else {
                // Whoever still has a seat in it finds neither a rule nor a member.
                closed.extend(members.end());
            }
            stays
        });
        closed.sort_unstable_by_key(|open: &OpenProblem| (open.rule, open.series));
        closed
    }

    /// Gives a series its place in the join of a rule, a program of `rules`, at its endpoint; none if the join is full.
    pub(crate) fn seat(&self, rules: &Arc<RuleSet>, rule: u32, series: SeriesId, key: SeriesKey<'_>) -> Option<Seat> {
        let found = &rules.rules[rule as usize];
        let (program, id, subject) = (rules.program(found)?, found.id(), found.subject());
        // The rule itself stands before its operands.
        let place = match subject {
            Subject::Own => rule,
            Subject::Other(operand) => rule - 1 - u32::from(operand),
        };
        let mut table = self.table.lock();
        let in_force = if Arc::ptr_eq(&table.rules, rules) {
            Some(place)
        } else {
            table.find(&rules.rules[place as usize].source)
        };
        let join = table.join(id, &found.part(), key.endpoint, program);
        let mut members = join.members.lock();
        if let Some(rule) = in_force {
            members.set_rule(&table.rules, rule);
        }
        members.set_program(program);
        if !members.add(subject, series, key) {
            self.seats_refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        drop(members);
        Some(Seat { join, subject })
    }

    /// Takes a place away; the PROBLEM that was open there.
    pub(crate) fn leave(&self, seat: &Seat, series: SeriesId) -> Option<OpenProblem> {
        let mut table = self.table.lock();
        let mut members = seat.join.members.lock();
        let open = members.remove(seat.subject, series);
        if members.is_empty() {
            table.remove(&seat.join);
        }
        open
    }

    /// Sets the state of the alarm that a series carries.
    pub(crate) fn restore(&self, seat: &Seat, series: SeriesId, last: Option<OpenProblem>) {
        seat.join.members.lock().restore(seat.subject, series, last);
    }

    pub(crate) fn open_problem(&self, seat: &Seat, series: SeriesId) -> Option<OpenProblem> {
        seat.join.members.lock().open_problem(seat.subject, series)
    }

    /// A series says all its parts in one condition; the alarms that it is part of are decided.
    pub(crate) fn hear(
        &self,
        rules: &Arc<RuleSet>,
        seats: &[Seat],
        series: SeriesId,
        view: &View<'_>,
        occasion: Occasion,
    ) {
        let Some(Seat { join, .. }) = seats.first() else { return };
        let mut members = join.members.lock();
        if !members.is_judged_by(rules) {
            return;
        }
        seats.iter().for_each(|seat| members.note(seat.subject, series, view));
        if occasion.decides_joins() {
            let is_news =
                |members: &Members, carrier| seats.iter().any(|seat| members.is_news(seat.subject, series, carrier));
            self.decide(join, &mut members, occasion, is_news);
        }
    }

    /// Decides the alarms of the carriers for which `is_asked`, and puts their events into the outbox.
    fn decide(
        &self,
        join: &Join,
        members: &mut Members,
        occasion: Occasion,
        is_asked: impl Fn(&Members, usize) -> bool,
    ) {
        members.look_at_clock(occasion);
        for carrier in 0..members.carriers() {
            if !is_asked(members, carrier) {
                continue;
            }
            if let Some(event) = members.decide(join, carrier, occasion) {
                let mut outbox = self.outbox.lock();
                outbox.push(event);
                self.waiting.fetch_add(1, Ordering::Release);
            }
        }
    }
}

impl Table {
    fn find(&self, source: &model::EventRule) -> Option<u32> {
        let found = self.rules.rules.iter().position(|rule| rule.carries_alarm() && rule.source == *source);
        found.map(|number| number as u32)
    }

    /// The join of a rule, or of a part of it, at an endpoint, which is made if there is none.
    fn join(&mut self, id: RuleId, part: &str, endpoint: &str, program: &Arc<Program>) -> Arc<Join> {
        let Table { joins, hasher, .. } = self;
        let hash = |join: &Arc<Join>| hasher.hash_one((join.id, &*join.endpoint));
        let is_same = |join: &Arc<Join>| join.id == id && *join.part == *part && *join.endpoint == *endpoint;
        let entry = joins.entry(hasher.hash_one((id, endpoint)), is_same, hash);
        entry.or_insert_with(|| Arc::new(Join::new(id, part, endpoint, program.clone()))).get().clone()
    }

    fn remove(&mut self, join: &Arc<Join>) {
        let hash = self.hasher.hash_one((join.id, &*join.endpoint));
        if let Ok(entry) = self.joins.find_entry(hash, |other| Arc::ptr_eq(other, join)) {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests;
