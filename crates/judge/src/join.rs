//! Join: one condition over several series at one endpoint, and the alarms that follow from it.
//!
//! How: carriers are series of the rule's own metric; each carries an alarm of its own and answers the terms about
//! itself. Others are the series that terms ask with `of`. An other with tags in the text speaks for all carriers, one
//! without for those that have the same tags or more. Where several others fit one term, the term holds if it holds for
//! one of them; those that have stopped do not count while another speaks.
//! One moment: a decision sees all series as they are then. A series that has several parts in a condition says them
//! together, and silence is read from the clock at each decision, so it does not matter which of several silent series
//! is looked at first.
//! Invariants: at most [`SEATS_MAX`] members; nothing is called while the members are locked but the arithmetic of
//! terms.

use crate::explain;
use crate::finding::{Evidence, Finding, View, decide, read_silence, reference};
use crate::function::Verdict;
use crate::locks;
use crate::occasion::{Cause, Occasion};
use crate::program::{Program, Question, Subject, TERMS_MAX};
use crate::rule_set::RuleSet;
use crate::silence::Silence;
use crate::state::{Moment, OpenProblem, RuleId, is_due_after_restart, next};
use crate::touched::Touched;
use model::{Event, SeriesId, SeriesKey, Status, Tags};
use std::sync::Arc;
use stdx::RankedMutex;

/// Members of one join. A decision looks at each other series for each carrier, so half of each kind is the worst; a
/// point of an other then holds the lock for 1.4 ms, one of a carrier for microseconds (`cargo bench -p judge` prints
/// both). Real hosts have two seats per file system, interface or disk in such a condition, and some hundred of these
/// where they run many containers.
pub const SEATS_MAX: usize = 1024;

pub(crate) struct Join {
    pub id: RuleId,
    /// The part of a strategy, see `model::rule::TagScope`; "" for what has none.
    pub part: Box<str>,
    pub endpoint: Box<str>,
    /// Bound: one message has one series of this join say its at most [`TERMS_MAX`] parts and has each carrier decided
    /// once, from at most [`SEATS_MAX`] members. An event is made under it and put into the outbox; no input or output.
    pub members: RankedMutex<Members>,
}

pub(crate) struct Members {
    /// The rule set in force and the rule's number there; none while the rule has been changed and its series are being
    /// bound anew.
    rule: Option<(Arc<RuleSet>, u32)>,
    program: Arc<Program>,
    /// Sorted by series.
    carriers: Vec<Carrier>,
    /// Sorted by series and operand.
    others: Vec<Other>,
}

/// A series that carries an alarm.
struct Carrier {
    series: SeriesId,
    tags: Box<str>,
    testimonies: Box<[Testimony]>,
    last: Option<OpenProblem>,
}

/// A series that terms ask.
struct Other {
    series: SeriesId,
    operand: u8,
    counter: Box<str>,
    tags: Box<str>,
    testimonies: Box<[Testimony]>,
}

/// The last that a term said about a series.
struct Testimony {
    term: u8,
    finding: Finding,
    evidence: Evidence,
    /// The silence from which a `nodata` term is read anew when another series speaks.
    silence: Option<Silence>,
}

impl Join {
    pub fn new(id: RuleId, part: &str, endpoint: &str, program: Arc<Program>) -> Join {
        let members = Members { rule: None, program, carriers: Vec::new(), others: Vec::new() };
        Join { id, part: part.into(), endpoint: endpoint.into(), members: RankedMutex::new(locks::JOIN, members) }
    }

    pub fn memory_bytes(&self, members: &Members) -> usize {
        // What an `Arc` holds stands behind two counts.
        2 * size_of::<usize>() + size_of::<Join>() + self.part.len() + self.endpoint.len() + members.memory_bytes()
    }
}

impl Members {
    pub fn carriers(&self) -> usize {
        self.carriers.len()
    }

    pub fn others(&self) -> usize {
        self.others.len()
    }

    pub fn is_empty(&self) -> bool {
        self.carriers.is_empty() && self.others.is_empty()
    }

    /// Bytes on the heap.
    fn memory_bytes(&self) -> usize {
        let testimonies = |testimonies: &[Testimony]| {
            let points = testimonies.iter().map(|one| one.evidence.points.capacity() * size_of::<model::Point>());
            size_of_val(testimonies) + points.sum::<usize>()
        };
        let carrier = |c: &Carrier| c.tags.len() + testimonies(&c.testimonies);
        let other = |o: &Other| o.tags.len() + o.counter.len() + testimonies(&o.testimonies);
        self.carriers.capacity() * size_of::<Carrier>()
            + self.others.capacity() * size_of::<Other>()
            + self.carriers.iter().map(carrier).sum::<usize>()
            + self.others.iter().map(other).sum::<usize>()
    }

    /// Takes over a new rule set; the rule stays in force if it has a successor there.
    pub fn load(&mut self, rules: &Arc<RuleSet>, touched: &Touched) {
        let successor = self.rule.take().and_then(|(_, rule)| touched.successor(rule));
        self.rule = successor.map(|rule| (rules.clone(), rule));
    }

    /// Ends a join whose rule is gone; the PROBLEMs that were open in it.
    pub fn end(&mut self) -> Vec<OpenProblem> {
        self.rule = None;
        self.others.clear();
        self.carriers.drain(..).filter_map(|carrier| carrier.last).collect()
    }

    pub fn set_rule(&mut self, rules: &Arc<RuleSet>, rule: u32) {
        self.rule = Some((rules.clone(), rule));
    }

    /// Takes another program; what terms of the old one said is forgotten.
    pub fn set_program(&mut self, program: &Arc<Program>) {
        if self.program == *program {
            return;
        }
        self.program = program.clone();
        self.carriers.iter_mut().for_each(|carrier| carrier.testimonies = Box::default());
        self.others.iter_mut().for_each(|other| other.testimonies = Box::default());
    }

    /// Whether a judge with these rules is heard.
    pub fn is_judged_by(&self, rules: &Arc<RuleSet>) -> bool {
        self.rule.as_ref().is_some_and(|(in_force, _)| Arc::ptr_eq(in_force, rules))
    }

    /// Makes a series a member as `subject`, if it is not one; false if there is no room.
    pub fn add(&mut self, subject: Subject, series: SeriesId, key: SeriesKey<'_>) -> bool {
        let is_full = self.carriers.len() + self.others.len() >= SEATS_MAX;
        let (tags, testimonies) = (|| key.tags.as_str().into(), Box::default());
        match subject {
            Subject::Own => match self.carrier(series) {
                Ok(_) => true,
                Err(_) if is_full => false,
                Err(at) => {
                    insert(&mut self.carriers, at, Carrier { series, tags: tags(), testimonies, last: None });
                    true
                }
            },
            Subject::Other(operand) => match self.other(series, operand) {
                Ok(_) => true,
                Err(_) if is_full => false,
                Err(at) => {
                    let counter = key.counter().into();
                    insert(&mut self.others, at, Other { series, operand, counter, tags: tags(), testimonies });
                    true
                }
            },
        }
    }

    /// Takes a member away; the PROBLEM that was open on it.
    pub fn remove(&mut self, subject: Subject, series: SeriesId) -> Option<OpenProblem> {
        match subject {
            Subject::Own => {
                let at = self.carrier(series).ok()?;
                self.carriers.remove(at).last
            }
            Subject::Other(operand) => {
                let at = self.other(series, operand).ok()?;
                self.others.remove(at);
                None
            }
        }
    }

    /// Sets the state of the alarm that a series carries.
    pub fn restore(&mut self, subject: Subject, series: SeriesId, last: Option<OpenProblem>) {
        if let Ok(at) = self.carrier(series)
            && subject == Subject::Own
        {
            self.carriers[at].last = last;
        }
    }

    pub fn open_problem(&self, subject: Subject, series: SeriesId) -> Option<OpenProblem> {
        let at = self.carrier(series).ok().filter(|_| subject == Subject::Own)?;
        self.carriers[at].last
    }

    fn carrier(&self, series: SeriesId) -> Result<usize, usize> {
        self.carriers.binary_search_by_key(&series, |carrier| carrier.series)
    }

    fn other(&self, series: SeriesId, operand: u8) -> Result<usize, usize> {
        self.others.binary_search_by_key(&(series, operand), |other| (other.series, other.operand))
    }

    /// Notes what a series says as `subject`.
    pub fn note(&mut self, subject: Subject, series: SeriesId, view: &View<'_>) {
        let (testimonies, open_since) = match subject {
            Subject::Own => {
                let Ok(at) = self.carrier(series) else { return };
                let carrier = &mut self.carriers[at];
                (&mut carrier.testimonies, carrier.last.map(|last| last.seen(view.latest).time))
            }
            Subject::Other(operand) => {
                let Ok(at) = self.other(series, operand) else { return };
                (&mut self.others[at].testimonies, None)
            }
        };
        refill(testimonies, &self.program, subject, view, open_since);
    }

    /// Reads all silences anew: a series that is silent does not speak itself.
    pub fn look_at_clock(&mut self, occasion: Occasion) {
        let Occasion { now, latest, .. } = occasion;
        let program = &self.program;
        for carrier in &mut self.carriers {
            let open_since = carrier.last.map(|last| last.seen(latest).time);
            let testimonies = carrier.testimonies.iter_mut();
            testimonies.for_each(|one| one.look_at_clock(program, open_since, (now, latest)));
        }
        for other in &mut self.others {
            other.testimonies.iter_mut().for_each(|one| one.look_at_clock(program, None, (now, latest)));
        }
    }

    /// Whether what a series says as `subject` matters to a carrier.
    pub fn is_news(&self, subject: Subject, series: SeriesId, carrier: usize) -> bool {
        let carrier = &self.carriers[carrier];
        match subject {
            Subject::Own => carrier.series == series,
            Subject::Other(operand) => {
                self.other(series, operand).is_ok_and(|other| self.tells(&self.others[other], carrier))
            }
        }
    }

    /// Whether another series is meant by a carrier's term. A program that was just put into force may have fewer terms
    /// than the members of the one before, who stay until they are bound anew.
    fn tells(&self, other: &Other, carrier: &Carrier) -> bool {
        let Some(operand) = self.program.operands.get(other.operand as usize) else { return false };
        let of_carrier = Tags::assume_canonical(&carrier.tags);
        !operand.tags.is_empty()
            || Tags::assume_canonical(&other.tags).iter().all(|(tag, value)| of_carrier.find(tag) == Some(value))
    }

    /// Decides the alarm of a carrier of `join`; its event, if there is one. The state moves on with the event.
    pub fn decide(&mut self, join: &Join, carrier: usize, occasion: Occasion) -> Option<Event> {
        let (rules, rule) = self.rule.as_ref()?;
        let rule = &rules.rules[*rule as usize];
        let carrier = &self.carriers[carrier];
        let last = carrier.last.map(|last| last.seen(occasion.latest));
        let findings = |is_open| {
            let sources = self.sources(carrier, is_open, occasion.latest);
            sources.map(|source| source.map_or(Finding::UNKNOWN, |(testimony, _)| testimony.finding))
        };
        let outcome = decide(&self.program, last.is_some(), findings)?;
        let moment = Moment {
            oldest: outcome.oldest,
            now: occasion.now,
            max_step: rule.max_step(),
            min_interval_s: occasion.min_interval_s,
        };
        let next = next(last.as_ref(), outcome.holds, moment);
        if occasion.cause == Cause::CatchUp && !is_due_after_restart(next, last.as_ref(), outcome.newest, occasion.now)
        {
            return None;
        }
        let (status, current_step) = next.event()?;
        // An event is never older than the one before it, whichever series it is decided by.
        let time = outcome.newest.max(last.map_or(i64::MIN, |last| last.time));
        let sources = self.sources(carrier, !outcome.holds, occasion.latest);
        let decided = sources.iter().enumerate().filter(|(i, _)| outcome.deciding >> i & 1 == 1);
        let terms = decided.filter_map(|(i, source)| {
            let (term, (testimony, other)) = (&self.program.terms[i], (*source)?);
            let counter = other.map_or(String::new(), |other| other.counter.to_string());
            let finding = &testimony.finding;
            let verdict = Verdict { holds: finding.holds(!outcome.holds)?, left: finding.left };
            Some(explain::term(&term.text, counter, &term.question, verdict, &testimony.evidence))
        });
        let event = Event {
            rule: rule.source.clone(),
            status,
            endpoint: join.endpoint.to_string(),
            tags: carrier.tags.to_string(),
            left_value: outcome.left,
            current_step,
            time,
            explanation: Some(explain::whole(&rule.source, terms.collect())),
        };
        let open = OpenProblem { rule: join.id, time, series: carrier.series, current_step };
        let at = self.carrier(open.series).unwrap_or_else(|at| at);
        self.carriers[at].last = (status == Status::Problem).then_some(open);
        Some(event)
    }

    /// Testimonies that speak for each term of a carrier, on whether a PROBLEM opens or stays: its own, or those of
    /// others.
    fn sources<'a>(
        &'a self,
        carrier: &'a Carrier,
        is_open: bool,
        latest: i64,
    ) -> [Option<(&'a Testimony, Option<&'a Other>)>; TERMS_MAX] {
        let mut sources: [Option<(&Testimony, Option<&Other>)>; TERMS_MAX] = [None; TERMS_MAX];
        let telling = || self.others.iter().filter(|other| self.tells(other, carrier));
        let own = || carrier.testimonies.iter().map(|testimony| (testimony, None));
        let of_others = || telling().flat_map(|other| other.testimonies.iter().map(move |one| (one, Some(other))));
        let all = || own().chain(of_others());
        let reference = reference(all().map(|(testimony, _)| testimony.finding.newest), latest);
        // Who has no point, or has stopped, does not count.
        let counts = |finding: &Finding| finding.newest > i64::MIN && !finding.is_stale(reference, latest);
        for (testimony, other) in all().filter(|(testimony, _)| counts(&testimony.finding)) {
            let source = &mut sources[testimony.term as usize];
            if source.is_none_or(|(before, _)| speaks_before(&testimony.finding, &before.finding, is_open)) {
                *source = Some((testimony, other));
            }
        }
        sources
    }
}

/// Whether the first of two findings speaks for a term: one that holds, then one that is unknown; of equals the newer,
/// and of these the one that needed fewer old points, since it can repeat an alarm sooner.
fn speaks_before(a: &Finding, b: &Finding, is_open: bool) -> bool {
    let rank = |finding: &Finding| match finding.holds(is_open) {
        Some(true) => 2,
        None => 1,
        Some(false) => 0,
    };
    (rank(a), a.newest, a.oldest) > (rank(b), b.newest, b.oldest)
}

/// Inserts into a list that begins small: most joins have one carrier and an other or two, and a vector would begin
/// with room for four.
fn insert<T>(list: &mut Vec<T>, at: usize, item: T) {
    if list.len() < 4 {
        list.reserve_exact(1);
    }
    list.insert(at, item);
}

/// Asks the terms about a subject again. Allocates at the first time only.
fn refill(
    testimonies: &mut Box<[Testimony]>,
    program: &Program,
    subject: Subject,
    view: &View<'_>,
    open_since: Option<i64>,
) {
    if testimonies.is_empty() {
        let (finding, silence) = (Finding::UNKNOWN, None);
        let new = |(term, _)| Testimony { term: term as u8, finding, evidence: Evidence::default(), silence };
        *testimonies = program.terms_of(subject).map(new).collect();
    }
    for testimony in testimonies.iter_mut() {
        let term = &program.terms[testimony.term as usize];
        testimony.finding = term.read(view, open_since);
        testimony.evidence.refill(&term.question, view);
        testimony.silence = view.silence.filter(|_| matches!(term.question, Question::Silence { .. }));
    }
}

impl Testimony {
    fn look_at_clock(&mut self, program: &Program, open_since: Option<i64>, now: (i64, i64)) {
        let Question::Silence { steps } = program.terms[self.term as usize].question else { return };
        let last = self.evidence.points.first().map(|point| point.time);
        self.finding = read_silence(steps, last.zip(self.silence), self.evidence.period_s, open_since, now);
    }
}
