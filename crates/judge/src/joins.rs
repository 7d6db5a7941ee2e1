//! Joins: what the terms of conditions over several series said last, and the alarms that follow.
//!
//! Why: the series of one endpoint live in several shards, and a judge sees its own only. So each series says its part when
//! it has a point, here, and whoever speaks last has the whole answer worked out.
//! How: a group per rule and endpoint. In it stand the series that carry the alarm (the rule's own metric), each with its
//! own terms and the state of its alarm, and the others that terms ask (`of`). An other with tags in the text speaks for all
//! carriers, one without for those that have the same tags or more. Where several others fit one term, the term holds if it
//! holds for one of them; those that have stopped do not count while another speaks.
//! One moment: a decision sees all series as they are then. A series that has several parts in a condition says them together, and
//! silence is read from the clock at each decision, so it does not matter which of several silent series is looked at first.
//! Order: events are put into an outbox under the lock under which they are decided, and [`Joins::hand_over`] gives them on in
//! that order, also when the points that made them came in several shards at once.
//! Locks: the innermost; nothing is called while it is held but the arithmetic of terms.
//! Rules: the first judge that loads a rule set brings it here too. What a judge says that still has another one is not
//! heard; after a load everybody is asked again ([`crate::Judge::refill`]).
//! Memory: nothing without such rules; about 1 KB per host for a condition over three series (what a term said last with its
//! newest points, at most [`model::explanation::POINTS_MAX`]). Bounded by the pairs of series and rule; see [`Joins::stats`].

use crate::explain::{self, Said};
use crate::program::{Operand, Program, Question, Subject, TERMS_MAX};
use crate::reading::{Evidence, Look, Reading, decide, read_silence};
use crate::rule_set::RuleSet;
use crate::silence::Silence;
use crate::state::{Moment, OpenProblem, RuleId, is_due_after_restart, next};
use crate::touched::Touched;
use model::{Event, SeriesId, SeriesKey, Status, Tags};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shared by the judges of all shards.
#[derive(Default)]
pub struct Joins {
    table: Mutex<Table>,
    /// Events that were decided and not handed over yet.
    waiting: AtomicUsize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct JoinStats {
    /// Pairs of a rule and an endpoint.
    pub groups: usize,
    /// Series that carry an alarm, and series that are asked.
    pub carriers: usize,
    pub others: usize,
    pub memory_bytes: usize,
}

#[derive(Default)]
struct Table {
    rules: Arc<RuleSet>,
    groups: Vec<Option<Group>>,
    free: Vec<u32>,
    by_name: HashMap<(RuleId, Box<str>), u32>,
    outbox: Vec<Event>,
}

struct Group {
    id: RuleId,
    endpoint: Box<str>,
    /// In the table's rules; none while the rule has been changed and its series are being bound anew.
    rule: Option<u32>,
    program: Arc<Program>,
    /// Both sorted by series (and operand).
    carriers: Vec<Carrier>,
    others: Vec<Other>,
}

struct Carrier {
    series: SeriesId,
    tags: Box<str>,
    terms: Box<[Heard]>,
    last: Option<OpenProblem>,
}

struct Other {
    series: SeriesId,
    operand: u8,
    counter: Box<str>,
    tags: Box<str>,
    terms: Box<[Heard]>,
}

/// What a term said last.
struct Heard {
    term: u8,
    reading: Reading,
    evidence: Evidence,
    /// For `nodata`: what it is read from anew when somebody else speaks.
    silence: Option<Silence>,
}

/// The place of a series in a group, kept by its judge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Seat {
    pub rule: RuleId,
    pub group: u32,
    pub subject: Subject,
}

/// Why the terms are asked.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Asked {
    /// To decide.
    Live,
    /// To know, and to decide later.
    Only,
}

/// What is decided with; the parts of `Options` that matter here.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub now: i64,
    pub min_interval_s: i64,
    /// Only what is due after a restart.
    pub is_restart: bool,
}

impl Joins {
    /// Gives the events that were decided to `take`, in their order, and says how many there were. Call it whenever
    /// [`Joins::is_waiting`], from one thread at a time: under the lock that keeps the order of events.
    pub fn hand_over(&self, take: impl FnOnce(&mut Vec<Event>)) -> usize {
        let mut events = std::mem::take(&mut self.lock().outbox);
        let count = events.len();
        if count > 0 {
            take(&mut events);
            // Not before: whoever decided one of them must not go on before it is durable.
            self.waiting.fetch_sub(count, Ordering::Release);
        }
        count
    }

    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// After a restart, when all series have been asked ([`crate::Judge::refill`]): decides each alarm once, as
    /// [`crate::Judge::catch_up`] does for the others.
    pub fn settle(&self, now: i64, min_interval_s: i64) {
        let mut table = self.lock();
        let Table { rules, groups, outbox, .. } = &mut *table;
        let limits = Limits { now, min_interval_s, is_restart: true };
        let before = outbox.len();
        for group in groups.iter_mut().flatten() {
            group.look_at_clock(now);
            for carrier in 0..group.carriers.len() {
                group.decide(carrier, rules, limits, outbox);
            }
        }
        self.waiting.fetch_add(outbox.len() - before, Ordering::Release);
    }

    pub fn stats(&self) -> JoinStats {
        let table = self.lock();
        let groups = || table.groups.iter().flatten();
        let terms = |terms: &[Heard]| {
            let points = terms.iter().map(|heard| heard.evidence.points.capacity() * size_of::<model::Point>());
            size_of_val(terms) + points.sum::<usize>()
        };
        let carrier = |c: &Carrier| c.tags.len() + terms(&c.terms);
        let other = |o: &Other| o.tags.len() + o.counter.len() + terms(&o.terms);
        let group = |group: &Group| {
            // The endpoint stands in the name too.
            2 * group.endpoint.len()
                + group.carriers.capacity() * size_of::<Carrier>()
                + group.others.capacity() * size_of::<Other>()
                + group.carriers.iter().map(carrier).sum::<usize>()
                + group.others.iter().map(other).sum::<usize>()
        };
        JoinStats {
            groups: groups().count(),
            carriers: groups().map(|group| group.carriers.len()).sum(),
            others: groups().map(|group| group.others.len()).sum(),
            memory_bytes: table.groups.capacity() * size_of::<Option<Group>>()
                + table.by_name.capacity() * (size_of::<(RuleId, Box<str>)>() + 5)
                + groups().map(group).sum::<usize>(),
        }
    }

    /// Brings a rule set into force, unless it is already; the PROBLEMs of rules that are gone.
    pub(crate) fn load(&self, rules: &Arc<RuleSet>, touched: &Touched) -> Vec<OpenProblem> {
        let mut table = self.lock();
        if Arc::ptr_eq(&table.rules, rules) {
            return Vec::new();
        }
        table.rules = rules.clone();
        let mut closed = Vec::new();
        for number in 0..table.groups.len() as u32 {
            let Some(group) = &mut table.groups[number as usize] else { continue };
            if !rules.has(group.id) {
                closed.extend(group.carriers.iter().filter_map(|carrier| carrier.last));
                table.remove(number);
                continue;
            }
            group.rule = group.rule.and_then(|rule| touched.successor(rule));
        }
        closed
    }

    /// Gives a series its place in the group of a rule, a program of `rules`, at its endpoint.
    pub(crate) fn seat(&self, rules: &Arc<RuleSet>, rule: u32, series: SeriesId, key: SeriesKey<'_>) -> Option<Seat> {
        let found = &rules.rules[rule as usize];
        let (program, id) = (rules.program(found)?.clone(), found.id());
        let subject = found.subject();
        let mut table = self.lock();
        // The rule itself stands before its operands.
        let place = match subject {
            Subject::Own => rule,
            Subject::Other(operand) => rule - 1 - u32::from(operand),
        };
        let in_force = if Arc::ptr_eq(&table.rules, rules) {
            Some(place)
        } else {
            table.find(&rules.rules[place as usize].source)
        };
        let group = table.group(id, key.endpoint, &program);
        let seat = Seat { rule: id, group, subject };
        let group = table.groups[group as usize].as_mut()?;
        group.rule = in_force.or(group.rule);
        if group.program != program {
            group.program = program;
            group.carriers.iter_mut().for_each(|carrier| carrier.terms = Box::default());
            group.others.iter_mut().for_each(|other| other.terms = Box::default());
        }
        let tags = || key.tags.as_str().into();
        match subject {
            Subject::Own => {
                if let Err(at) = group.carrier(series) {
                    let carrier = Carrier { series, tags: tags(), terms: Box::default(), last: None };
                    insert(&mut group.carriers, at, carrier);
                }
            }
            Subject::Other(operand) => {
                if let Err(at) = group.other(series, operand) {
                    let counter = key.counter().into();
                    insert(
                        &mut group.others,
                        at,
                        Other { series, operand, counter, tags: tags(), terms: Box::default() },
                    );
                }
            }
        }
        Some(seat)
    }

    /// Takes a place away; the PROBLEM that was open there.
    pub(crate) fn leave(&self, seat: Seat, series: SeriesId) -> Option<OpenProblem> {
        let mut table = self.lock();
        let group = table.of_seat(seat)?;
        let mut open = None;
        match seat.subject {
            Subject::Own => {
                let at = group.carrier(series).ok()?;
                open = group.carriers.remove(at).last;
            }
            Subject::Other(operand) => {
                let at = group.other(series, operand).ok()?;
                group.others.remove(at);
            }
        }
        if group.carriers.is_empty() && group.others.is_empty() {
            table.remove(seat.group);
        }
        open
    }

    /// Sets the state of the alarm that a series carries.
    pub(crate) fn restore(&self, seat: Seat, series: SeriesId, last: Option<OpenProblem>) {
        if let Some(carrier) = self.lock().carrier(seat, series) {
            carrier.last = last;
        }
    }

    pub(crate) fn open_problem(&self, seat: Seat, series: SeriesId) -> Option<OpenProblem> {
        self.lock().carrier(seat, series)?.last
    }

    /// A series says all its parts in one condition; the alarms that it is part of are decided.
    pub(crate) fn hear(
        &self,
        rules: &Arc<RuleSet>,
        seats: &[Seat],
        series: SeriesId,
        look: &Look<'_>,
        asked: Asked,
        limits: Limits,
    ) {
        let mut table = self.lock();
        if !Arc::ptr_eq(&table.rules, rules) {
            return;
        }
        let Table { rules, groups, outbox, .. } = &mut *table;
        let Some(seat) = seats.first() else { return };
        let Some(group) = groups.get_mut(seat.group as usize).and_then(Option::as_mut) else { return };
        if group.id != seat.rule || group.rule.is_none() {
            return;
        }
        seats.iter().for_each(|seat| group.note(seat.subject, series, look));
        if asked == Asked::Only {
            return;
        }
        let before = outbox.len();
        group.look_at_clock(limits.now);
        for carrier in 0..group.carriers.len() {
            if seats.iter().any(|seat| group.is_news(seat.subject, series, carrier)) {
                group.decide(carrier, rules, limits, outbox);
            }
        }
        self.waiting.fetch_add(outbox.len() - before, Ordering::Release);
    }

    /// A panic elsewhere leaves the table whole: it changes by single steps.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn find(&self, source: &model::EventRule) -> Option<u32> {
        let found = self.rules.rules.iter().position(|rule| rule.carries_alarm() && rule.source == *source);
        found.map(|number| number as u32)
    }

    /// The number of a group, which is made if there is none.
    fn group(&mut self, id: RuleId, endpoint: &str, program: &Arc<Program>) -> u32 {
        let name = (id, Box::from(endpoint));
        if let Some(&number) = self.by_name.get(&name) {
            return number;
        }
        let (carriers, others) = (Vec::new(), Vec::new());
        let group = Group { id, endpoint: name.1.clone(), rule: None, program: program.clone(), carriers, others };
        let number = match self.free.pop() {
            Some(number) => {
                self.groups[number as usize] = Some(group);
                number
            }
            None => {
                self.groups.push(Some(group));
                self.groups.len() as u32 - 1
            }
        };
        self.by_name.insert(name, number);
        number
    }

    fn remove(&mut self, number: u32) {
        if let Some(group) = self.groups[number as usize].take() {
            self.by_name.remove(&(group.id, group.endpoint));
            self.free.push(number);
        }
    }

    /// A group that was removed may have left its number to another.
    fn of_seat(&mut self, seat: Seat) -> Option<&mut Group> {
        let group = self.groups.get_mut(seat.group as usize)?.as_mut()?;
        (group.id == seat.rule).then_some(group)
    }

    fn carrier(&mut self, seat: Seat, series: SeriesId) -> Option<&mut Carrier> {
        let group = self.of_seat(seat).filter(|_| seat.subject == Subject::Own)?;
        let at = group.carrier(series).ok()?;
        Some(&mut group.carriers[at])
    }
}

impl Group {
    fn carrier(&self, series: SeriesId) -> Result<usize, usize> {
        self.carriers.binary_search_by_key(&series, |carrier| carrier.series)
    }

    fn other(&self, series: SeriesId, operand: u8) -> Result<usize, usize> {
        self.others.binary_search_by_key(&(series, operand), |other| (other.series, other.operand))
    }

    /// Notes what a series says as `subject`.
    fn note(&mut self, subject: Subject, series: SeriesId, look: &Look<'_>) {
        let (terms, open_since) = match subject {
            Subject::Own => {
                let Ok(at) = self.carrier(series) else { return };
                let carrier = &mut self.carriers[at];
                (&mut carrier.terms, carrier.last.map(|last| last.time))
            }
            Subject::Other(operand) => {
                let Ok(at) = self.other(series, operand) else { return };
                (&mut self.others[at].terms, None)
            }
        };
        refill(terms, &self.program, subject, look, open_since);
    }

    /// Reads all silences anew: those who are silent do not speak themselves.
    fn look_at_clock(&mut self, now: i64) {
        let program = &self.program;
        for carrier in &mut self.carriers {
            let open_since = carrier.last.map(|last| last.time);
            carrier.terms.iter_mut().for_each(|heard| heard.look_at_clock(program, open_since, now));
        }
        for other in &mut self.others {
            other.terms.iter_mut().for_each(|heard| heard.look_at_clock(program, None, now));
        }
    }

    /// Whether what a series says as `subject` matters to a carrier.
    fn is_news(&self, subject: Subject, series: SeriesId, carrier: usize) -> bool {
        let carrier = &self.carriers[carrier];
        match subject {
            Subject::Own => carrier.series == series,
            Subject::Other(operand) => self
                .other(series, operand)
                .is_ok_and(|other| tells(&self.program.operands[operand as usize], &self.others[other], carrier)),
        }
    }

    fn decide(&mut self, carrier: usize, rules: &RuleSet, limits: Limits, outbox: &mut Vec<Event>) {
        let Some(rule) = self.rule.map(|rule| &rules.rules[rule as usize]) else { return };
        let carrier = &self.carriers[carrier];
        let readings = |is_open| {
            let sources = self.sources(carrier, is_open);
            sources.map(|source| source.map_or(Reading::UNKNOWN, |(heard, _)| heard.reading))
        };
        let Some(outcome) = decide(&self.program, carrier.last.is_some(), readings) else { return };
        let moment = Moment {
            oldest: outcome.oldest,
            now: limits.now,
            max_step: rule.max_step(),
            min_interval_s: limits.min_interval_s,
        };
        let next = next(carrier.last.as_ref(), outcome.holds, moment);
        if limits.is_restart && !is_due_after_restart(next, outcome.newest, limits.now) {
            return;
        }
        let Some((status, current_step)) = next.event() else { return };
        // An event is never older than the one before it, whichever series it is decided by.
        let time = outcome.newest.max(carrier.last.map_or(i64::MIN, |last| last.time));
        let sources = self.sources(carrier, !outcome.holds);
        let decided = sources.iter().enumerate().filter(|(i, _)| outcome.deciding >> i & 1 == 1);
        let terms = decided.filter_map(|(i, source)| {
            let (term, (heard, other)) = (&self.program.terms[i], (*source)?);
            let counter = other.map_or(String::new(), |other| other.counter.to_string());
            let said = Said { holds: heard.reading.holds(!outcome.holds)?, left: heard.reading.left };
            Some(explain::term(&term.text, counter, &term.question, said, &heard.evidence))
        });
        outbox.push(Event {
            rule: rule.source.clone(),
            status,
            endpoint: self.endpoint.to_string(),
            tags: carrier.tags.to_string(),
            left_value: outcome.left,
            current_step,
            time,
            explanation: Some(explain::whole(&rule.source, terms.collect())),
        });
        let open = OpenProblem { rule: self.id, time, series: carrier.series, current_step };
        let at = self.carrier(open.series).unwrap_or_else(|at| at);
        self.carriers[at].last = (status == Status::Problem).then_some(open);
    }

    /// Who speaks for each term of a carrier, on whether a PROBLEM opens or stays: itself, or one of the others.
    fn sources<'a>(
        &'a self,
        carrier: &'a Carrier,
        is_open: bool,
    ) -> [Option<(&'a Heard, Option<&'a Other>)>; TERMS_MAX] {
        let mut sources: [Option<(&Heard, Option<&Other>)>; TERMS_MAX] = [None; TERMS_MAX];
        let telling = || self.others.iter().filter(|o| tells(&self.program.operands[o.operand as usize], o, carrier));
        let own = || carrier.terms.iter().map(|heard| (heard, None));
        let all = || own().chain(telling().flat_map(|other| other.terms.iter().map(move |heard| (heard, Some(other)))));
        let reference = all().map(|(heard, _)| heard.reading.newest).max().unwrap_or(i64::MIN);
        // Who has no point, or has stopped, does not count.
        let counts = |reading: &Reading| reading.newest > i64::MIN && !reading.is_stale(reference);
        for (heard, other) in all().filter(|(heard, _)| counts(&heard.reading)) {
            let source = &mut sources[heard.term as usize];
            if source.is_none_or(|(before, _)| speaks_before(&heard.reading, &before.reading, is_open)) {
                *source = Some((heard, other));
            }
        }
        sources
    }
}

/// Of two series for one term: one that holds decides, then one that is unknown; of equals the newer, and of these the one
/// that needed fewer old points, since it can repeat an alarm sooner.
fn speaks_before(a: &Reading, b: &Reading, is_open: bool) -> bool {
    let rank = |reading: &Reading| match reading.holds(is_open) {
        Some(true) => 2,
        None => 1,
        Some(false) => 0,
    };
    (rank(a), a.newest, a.oldest) > (rank(b), b.newest, b.oldest)
}

/// Whether another series is meant by a carrier's term.
fn tells(operand: &Operand, other: &Other, carrier: &Carrier) -> bool {
    let of_carrier = Tags::assume_canonical(&carrier.tags);
    !operand.tags.is_empty()
        || Tags::assume_canonical(&other.tags).iter().all(|(tag, value)| of_carrier.find(tag) == Some(value))
}

/// Most groups have one carrier and an other or two; a vector begins with room for four.
fn insert<T>(list: &mut Vec<T>, at: usize, item: T) {
    if list.len() < 4 {
        list.reserve_exact(1);
    }
    list.insert(at, item);
}

/// Asks the terms about a subject again. Allocates at the first time only.
fn refill(heard: &mut Box<[Heard]>, program: &Program, subject: Subject, look: &Look<'_>, open_since: Option<i64>) {
    if heard.is_empty() {
        let (reading, silence) = (Reading::UNKNOWN, None);
        let new = |(term, _)| Heard { term: term as u8, reading, evidence: Evidence::default(), silence };
        *heard = program.terms_of(subject).map(new).collect();
    }
    for heard in heard.iter_mut() {
        let term = &program.terms[heard.term as usize];
        heard.reading = term.read(look, open_since);
        heard.evidence.refill(&term.question, look);
        heard.silence = look.silence.filter(|_| matches!(term.question, Question::Silence { .. }));
    }
}

impl Heard {
    fn look_at_clock(&mut self, program: &Program, open_since: Option<i64>, now: i64) {
        let Question::Silence { steps } = program.terms[self.term as usize].question else { return };
        let last = self.evidence.points.first().map(|point| point.time);
        self.reading = read_silence(steps, last.zip(self.silence), self.evidence.period_s, open_since, now);
    }
}
