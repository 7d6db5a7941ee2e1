//! Pipeline: all open alarms and what people are to hear of them.
//!
//! How: an event, an act of an operator, or a tick comes in with the time, changes the state, and leaves effects,
//! which the caller stores and sends. Whatever changes whether an alarm is quiet (a silence, a cause, an
//! acknowledgement) only asks its groups to look; what is said is decided at that look ([`Pipeline::tick`]), so the
//! order in which things came does not matter.
//! Invariants: nobody hears twice of the same opening of an alarm by the same group; who heard that it opened hears
//! that it ended; one that is silenced, explained, acknowledged or flapping is not told as new, and is told when that
//! is over and it is still open. Equal histories give equal effects. A clock that is set back moves all times along.
//! Memory: `cargo bench -p alarm` says how much per open alarm; nothing for those that have ended, but for
//! the window in which flapping is noticed.

use crate::alarm::{Acknowledged, Alarm, Quiet};
use crate::effect::{Effect, Line, Notice, What};
use crate::fact::Fact;
use crate::group::{Escalating, Group, Member};
use crate::inhibit::{Places, Serial};
use crate::policy::Policy;
use crate::route::{Receiver, Route, To};
use crate::rows::Rows;
use crate::storm::Weather;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::Arc;

/// Number of a group.
type GroupId = u64;

/// All open alarms, their groups, and the policy that decides about them.
#[derive(Debug)]
pub struct Pipeline {
    policy: Arc<Policy>,
    alarms: Rows<Alarm>,
    by_id: HashMap<Box<str>, Serial>,
    groups: Rows<Group>,
    by_key: HashMap<(Arc<str>, Box<str>), GroupId>,
    /// Places of the routes, by their paths.
    routes: HashMap<Arc<str>, usize>,
    /// What is looked at next, and when.
    due: BTreeSet<(i64, Due)>,
    places: Places,
    weather: Weather,
    /// Silences that were on at the last look.
    silencing: BTreeSet<i64>,
    /// Number of the next alarm or group; none is given twice.
    next: u64,
    /// The latest time that was seen.
    now: i64,
    out: Vec<Effect>,
}

/// A pipeline as it is stored.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    pub alarms: BTreeMap<Serial, Alarm>,
    pub groups: BTreeMap<GroupId, Group>,
    pub next: u64,
    /// Unix seconds of the last change.
    pub at: i64,
}

/// What is to be stored anew; a row that is none is to be deleted.
#[derive(Debug)]
pub struct Changed<'p> {
    pub alarms: Vec<(Serial, Option<&'p Alarm>)>,
    pub groups: Vec<(GroupId, Option<&'p Group>)>,
    pub next: u64,
    pub at: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// Silences and times of the week.
    Policy,
    /// An alarm's acknowledgement ends, or it is calm again.
    Alarm(Serial),
    Group(GroupId),
}

impl Pipeline {
    /// A pipeline without alarms.
    pub fn new(policy: Arc<Policy>, now: i64) -> Pipeline {
        Pipeline::restore(policy, Stored::default(), now)
    }

    /// A pipeline as it was stored. What was due meanwhile is looked at by the next tick.
    pub fn restore(policy: Arc<Policy>, stored: Stored, now: i64) -> Pipeline {
        let by_id = stored.alarms.iter().map(|(serial, alarm)| (alarm.id.clone(), *serial)).collect();
        let key = |(id, group): (&GroupId, &Group)| ((Arc::from(group.route.as_str()), group.key.clone()), *id);
        let by_key = stored.groups.iter().map(key).collect();
        let silenced = |alarm: &Alarm| if let Quiet::Silenced(id) = alarm.quiet { Some(id) } else { None };
        let mut pipeline = Pipeline {
            policy: policy.clone(),
            silencing: stored.alarms.values().filter_map(silenced).collect(),
            // The clock may have been set back meanwhile.
            now: stored.at.max(now),
            next: stored.next.max(1),
            alarms: Rows::stored(stored.alarms),
            by_id,
            groups: Rows::stored(stored.groups),
            by_key,
            routes: HashMap::new(),
            due: BTreeSet::new(),
            places: Places::default(),
            weather: Weather::default(),
            out: Vec::new(),
        };
        pipeline.move_to(now);
        for id in pipeline.groups.ids() {
            pipeline.due.insert((pipeline.groups[id].next.unwrap_or(now), Due::Group(id)));
        }
        for serial in pipeline.alarms.ids() {
            pipeline.due.insert((now, Due::Alarm(serial)));
        }
        pipeline.set_policy(policy, now);
        pipeline
    }

    /// What has changed since the last call, to be stored together with the effects; and what else is to be stored.
    pub fn changes(&mut self) -> Changed<'_> {
        Changed { alarms: self.alarms.drain(), groups: self.groups.drain(), next: self.next, at: self.now }
    }

    /// Takes another policy: what is open is decided anew, and nobody hears again of what he knows.
    pub fn set_policy(&mut self, policy: Arc<Policy>, now: i64) {
        self.move_to(now);
        self.policy = policy;
        self.routes =
            (0..self.policy.tree.len()).map(|place| (self.policy.tree.at(place).path.clone(), place)).collect();
        self.places = Places::default();
        let serials: Vec<Serial> = self.alarms.ids();
        for serial in &serials {
            let alarm = &self.alarms[*serial];
            if alarm.is_open() {
                self.places.open(&self.policy.explaining, *serial, &alarm.fact, &mut BTreeSet::new());
            }
        }
        self.look_at_silences();
        for serial in serials {
            self.route(serial);
            self.settle(serial);
        }
    }

    /// An alarm has opened, or is still open.
    pub fn problem(&mut self, id: &str, fact: Fact, now: i64) {
        self.move_to(now);
        if let Some(serial) = self.by_id.get(id).copied() {
            return self.again(serial, fact);
        }
        let serial = self.number();
        self.by_id.insert(id.into(), serial);
        self.alarms.insert(serial, Alarm::new(id, fact, now));
        self.opened(serial);
    }

    /// An alarm has ended; nothing where it was not open.
    pub fn recovered(&mut self, id: &str, why: &str, now: i64) {
        self.move_to(now);
        let Some(serial) = self.by_id.get(id).copied().filter(|serial| self.alarms[*serial].is_open()) else { return };
        let mut touched = BTreeSet::new();
        if let Some(alarm) = self.alarms.change(serial) {
            alarm.ended = Some(now);
            alarm.changes.note(now);
            alarm.acknowledged = None;
            self.places.close(&self.policy.explaining, serial, &alarm.fact, &mut touched);
        }
        self.story(serial, format_args!("ended{}{why}", if why.is_empty() { "" } else { ": " }));
        self.look_for_flapping(serial);
        self.act(serial, true);
        self.ask_groups(serial, true);
        touched.into_iter().for_each(|serial| self.settle(serial));
        self.forget(serial);
    }

    /// Somebody takes an alarm on himself: it is not repeated, and no longer escalated. `until` ends that.
    pub fn acknowledge(&mut self, id: &str, who: &str, until: Option<i64>, now: i64) -> bool {
        self.move_to(now);
        let Some(serial) = self.by_id.get(id).copied() else { return false };
        let Some(alarm) = self.alarms.change(serial).filter(|alarm| alarm.is_open()) else { return false };
        alarm.acknowledged = Some(Box::new(Acknowledged { who: who.into(), at: now, until }));
        match until {
            Some(until) => {
                self.due.insert((until, Due::Alarm(serial)));
                self.story(serial, format_args!("acknowledged by {who} until {until}"));
            }
            None => self.story(serial, format_args!("acknowledged by {who}")),
        }
        self.ask_groups(serial, false);
        true
    }

    /// Takes an acknowledgement back.
    pub fn release(&mut self, id: &str, who: &str, now: i64) -> bool {
        self.move_to(now);
        let Some(serial) = self.by_id.get(id).copied() else { return false };
        let Some(alarm) = self.alarms.change(serial) else { return false };
        if alarm.acknowledged.take().is_none() {
            return false;
        }
        self.story(serial, format_args!("no longer acknowledged: taken back by {who}"));
        self.settle(serial);
        true
    }

    /// Looks at what is due.
    pub fn tick(&mut self, now: i64) {
        self.move_to(now);
        while let Some((_, due)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.pop_first();
            match due {
                Due::Policy => self.look_at_silences(),
                Due::Alarm(serial) => self.look_at_alarm(serial),
                Due::Group(id) => self.look_at_group(id),
            }
        }
    }

    /// When something is due next.
    pub fn next_due(&self) -> Option<i64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The effects since the last call, in their order.
    pub fn drain(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.out)
    }

    /// An open alarm, or one that ended a moment ago.
    pub fn alarm(&self, id: &str) -> Option<&Alarm> {
        self.alarms.get(*self.by_id.get(id)?)
    }

    /// Open alarms, in the order in which they have opened.
    pub fn open(&self) -> impl Iterator<Item = &Alarm> {
        self.alarms.values().filter(|alarm| alarm.is_open())
    }

    /// Groups that have alarms.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// A known alarm opens again, or has one event more.
    fn again(&mut self, serial: Serial, fact: Fact) {
        let now = self.now;
        let Some(alarm) = self.alarms.change(serial) else { return };
        let is_reopened = alarm.ended.take().is_some();
        let is_other = alarm.fact != fact;
        if is_reopened {
            alarm.since = now;
            alarm.changes.note(now);
        } else if is_other {
            self.places.close(&self.policy.explaining, serial, &alarm.fact, &mut BTreeSet::new());
        }
        alarm.fact = fact;
        if is_reopened || is_other {
            self.opened(serial);
        } else {
            self.act(serial, true);
        }
    }

    fn opened(&mut self, serial: Serial) {
        let mut touched = BTreeSet::new();
        let Some(alarm) = self.alarms.get(serial) else { return };
        self.places.open(&self.policy.explaining, serial, &alarm.fact, &mut touched);
        self.weather.note(&alarm.fact.endpoint, self.now);
        self.story(serial, format_args!("opened"));
        self.route(serial);
        self.look_for_flapping(serial);
        self.settle(serial);
        touched.remove(&serial);
        touched.into_iter().for_each(|serial| self.settle(serial));
    }

    /// Puts an alarm into the groups of its routes.
    fn route(&mut self, serial: Serial) {
        let Some(alarm) = self.alarms.get(serial) else { return };
        let mut places = Vec::new();
        if alarm.is_open() {
            self.policy.tree.route(&alarm.fact, self.now, &mut places);
        }
        let (mut acts, mut wanted) = (false, Vec::new());
        for place in places {
            let route = self.policy.tree.at(place);
            acts |= route.to.iter().any(|receiver| receiver.to == To::Action);
            if route.to.iter().any(|receiver| receiver.to != To::Action) {
                wanted.push(place);
            }
        }
        let wanted: Vec<GroupId> = wanted.into_iter().map(|place| self.group_of(place, serial)).collect();
        let Some(alarm) = self.alarms.change(serial) else { return };
        // Who heard that it opened hears that it ended, also where it would go another way today.
        let is_told = |id: &GroupId| self.groups.get(*id).is_some_and(|group| group.is_told(serial));
        let (kept, left): (Vec<GroupId>, Vec<GroupId>) =
            alarm.groups.iter().copied().filter(|id| !wanted.contains(id)).partition(is_told);
        alarm.is_for_action = acts;
        alarm.groups = wanted.iter().chain(&kept).copied().collect();
        for (ids, has_left) in [(wanted, false), (kept, true)] {
            for id in ids {
                let Some(group) = self.groups.change(id) else { continue };
                group.members.entry(serial).or_default().has_left = has_left;
            }
        }
        for id in left {
            self.leave(id, serial);
        }
    }

    /// The group of an alarm at a route; a new one where there is none.
    fn group_of(&mut self, place: usize, serial: Serial) -> GroupId {
        let (route, alarm) = (self.policy.tree.at(place), &self.alarms[serial]);
        let (path, key) = (route.path.clone(), key_of(route, alarm));
        let to: Arc<[Receiver]> = route.to.iter().filter(|receiver| receiver.to != To::Action).cloned().collect();
        if let Some(id) = self.by_key.get(&(path.clone(), key.clone())) {
            if let Some(group) = self.groups.change(*id).filter(|group| group.to != to) {
                group.to = to;
            }
            return *id;
        }
        let id = self.number();
        self.groups.insert(id, Group::new(&path, &key, to));
        self.by_key.insert((path, key), id);
        id
    }

    /// Decides anew whether an alarm is quiet, and asks its groups to look where it is not.
    fn settle(&mut self, serial: Serial) {
        let Some(alarm) = self.alarms.get(serial).filter(|alarm| alarm.is_open()) else { return };
        let quiet = self.quiet(serial, alarm);
        if alarm.quiet != quiet {
            if let Some(alarm) = self.alarms.change(serial) {
                alarm.quiet = quiet.clone();
            }
            match &quiet {
                Quiet::Silenced(silence) => self.story(serial, format_args!("silenced by silence {silence}")),
                Quiet::Explained { alarm, rule } => {
                    self.story(serial, format_args!("told nobody: {alarm} explains it, by {rule}"));
                }
                Quiet::Loud => self.story(serial, format_args!("no longer silent")),
            }
        }
        self.act(serial, false);
        self.ask_groups(serial, false);
    }

    fn quiet(&self, serial: Serial, alarm: &Alarm) -> Quiet {
        let silences = self.policy.silences.iter().filter(|silence| self.silencing.contains(&silence.id));
        if let Some(silence) = silences.into_iter().find(|silence| silence.matches(&alarm.fact)) {
            return Quiet::Silenced(silence.id);
        }
        match self.places.cause(&self.policy.explaining, serial, &alarm.fact) {
            Some(cause) => {
                let by = self.alarms.get(cause.alarm).map_or_else(Box::default, |alarm| alarm.id.clone());
                Quiet::Explained { alarm: by, rule: cause.rule.as_ref().into() }
            }
            None => Quiet::Loud,
        }
    }

    /// Takes the rule's own action, where the alarm's routes want that and nothing keeps it quiet: for each event, and
    /// when it is no longer quiet.
    fn act(&mut self, serial: Serial, is_event: bool) {
        let is_silent = |alarm: &&Alarm| alarm.is_open() && !(alarm.is_for_action && alarm.is_to_be_told());
        if self.alarms.get(serial).is_none_or(|alarm| is_silent(&alarm)) {
            return;
        }
        let Some(alarm) = self.alarms.change(serial) else { return };
        let is_due = match alarm.ended {
            _ if alarm.is_flapping => false,
            // An end is told to those who heard of the opening.
            Some(_) => std::mem::take(&mut alarm.is_acted),
            None if alarm.is_for_action && alarm.is_to_be_told() => {
                let was_acted = std::mem::replace(&mut alarm.is_acted, true);
                is_event || !was_acted
            }
            None => false,
        };
        if is_due {
            self.out.push(Effect::Action { alarm: alarm.id.clone(), has_ended: alarm.ended.is_some() });
        }
    }

    /// Asks the groups of an alarm to look, as soon as their route lets them.
    fn ask_groups(&mut self, serial: Serial, has_ended: bool) {
        let Some(alarm) = self.alarms.get(serial).filter(|alarm| !alarm.is_open() || alarm.is_to_be_told()) else {
            return;
        };
        for id in alarm.groups.clone() {
            let Some(group) = self.groups.change(id) else { continue };
            let Some(route) = self.routes.get(&*group.route).map(|place| self.policy.tree.at(*place)) else {
                // The route is gone; what was told of as open is told of as ended all the same.
                group.look_at(self.now);
                self.due.insert((self.now, Due::Group(id)));
                continue;
            };
            let is_over = has_ended && group.members.keys().all(|member| !self.alarms[*member].is_open());
            let at = match group.said {
                None => self.now + route.times.wait,
                Some(_) if is_over => self.now,
                Some(said) => (said + route.times.interval).max(self.now),
            };
            group.look_at(at);
            self.due.insert((group.next.unwrap_or(at), Due::Group(id)));
        }
    }

    fn look_for_flapping(&mut self, serial: Serial) {
        let (now, Some(settings)) = (self.now, self.policy.flapping) else { return };
        let Some(alarm) = self.alarms.change(serial) else { return };
        let changes = alarm.changes.within(settings.window, now);
        self.due.insert((now + settings.window, Due::Alarm(serial)));
        if alarm.is_flapping || changes < settings.changes {
            return;
        }
        alarm.is_flapping = true;
        let (id, groups) = (alarm.id.clone(), alarm.groups.clone());
        self.story(serial, format_args!("flapping: {changes} changes"));
        for group in groups {
            let Some(known) = self.groups.change(group) else { continue };
            known.members.entry(serial).or_default().is_told = true;
            known.said = Some(now);
            let (route, to) = (known.route.as_str().into(), known.to.clone());
            let known = vec![id.clone()];
            self.say(Notice { group, route, what: What::Flapping(changes), to, fresh: vec![], known, ended: vec![] });
        }
    }

    fn look_at_alarm(&mut self, serial: Serial) {
        let now = self.now;
        let Some(alarm) = self.alarms.change(serial) else { return };
        if alarm.acknowledged.as_ref().and_then(|by| by.until).is_some_and(|until| until <= now) {
            alarm.acknowledged = None;
            // Snoozed is asked for again.
            let groups = alarm.groups.clone();
            for id in groups {
                if let Some(member) = self.groups.change(id).and_then(|group| group.members.get_mut(&serial)) {
                    member.is_asked_again = member.is_told;
                }
            }
            self.story(serial, format_args!("no longer acknowledged: the time is over"));
        }
        let window = self.policy.flapping.map_or(0, |settings| settings.window);
        let Some(alarm) = self.alarms.change(serial) else { return };
        let calm_at = alarm.changes.last().map_or(now, |last| last + window);
        if calm_at <= now && std::mem::take(&mut alarm.is_flapping) {
            self.story(serial, format_args!("no longer flapping"));
        }
        let (alarm, has_ended) = (&self.alarms[serial], !self.alarms[serial].is_open());
        let until = alarm.acknowledged.as_ref().and_then(|by| by.until);
        let later = [Some(calm_at), until].into_iter().flatten().filter(|at| *at > now);
        self.due.extend(later.map(|at| (at, Due::Alarm(serial))));
        self.settle(serial);
        self.ask_groups(serial, has_ended);
        self.forget(serial);
    }

    fn look_at_silences(&mut self) {
        let now = self.now;
        let is_on = |silence: &&crate::silence::Silence| silence.is_on(now);
        let on: BTreeSet<i64> = self.policy.silences.iter().filter(is_on).map(|silence| silence.id).collect();
        let over: Vec<i64> = self.silencing.difference(&on).copied().collect();
        let is_other = on != self.silencing;
        self.silencing = on;
        for silence in over {
            let was_silenced = |alarm: &&Alarm| alarm.is_open() && alarm.quiet == Quiet::Silenced(silence);
            let open: Vec<Box<str>> = self.alarms.values().filter(was_silenced).map(|alarm| alarm.id.clone()).collect();
            self.out.push(Effect::SilenceOver { silence, open });
        }
        let of_silences = self.policy.silences.iter().filter_map(|silence| silence.next_change(now));
        let next = of_silences.chain(self.policy.tree.next_change(now)).min();
        self.due.retain(|(_, due)| *due != Due::Policy);
        self.due.extend(next.map(|at| (at, Due::Policy)));
        if is_other {
            let serials: Vec<Serial> = self.alarms.ids();
            serials.into_iter().for_each(|serial| self.settle(serial));
        }
    }

    fn look_at_group(&mut self, id: GroupId) {
        let now = self.now;
        let Some(group) = self.groups.change(id) else { return };
        if group.next.is_some_and(|next| next > now) {
            // An earlier look has moved this one; the later is noted, too.
            return;
        }
        group.next = None;
        let route = self.routes.get(&*group.route).map(|place| self.policy.tree.at(*place).clone());
        if self.is_held(id) {
            return;
        }
        let sorted = self.sort(id);
        self.tell(id, route.as_ref().map_or(0, |route| route.times.repeat), sorted);
        if let Some(route) = &route {
            self.escalate(id, route);
        }
        self.tidy(id);
        self.plan(id, route.as_ref());
    }

    /// In a storm: tells the summary to whom does not have it, and waits.
    fn is_held(&mut self, id: GroupId) -> bool {
        if !self.weather.look(self.policy.storm, self.now) {
            return false;
        }
        let Some(until) = self.weather.until() else { return false };
        let to = self.groups[id].to.clone();
        let untold = self.weather.untold(&to);
        if !untold.is_empty() {
            let (what, route) = (What::Storm(self.weather.hosts()), self.groups[id].route.as_str().into());
            let to = untold.into();
            self.say(Notice { group: id, route, what, to, fresh: vec![], known: vec![], ended: vec![] });
        }
        if let Some(group) = self.groups.change(id) {
            group.look_at(until);
            self.due.insert((until, Due::Group(id)));
        }
        true
    }

    fn sort(&self, id: GroupId) -> Sorted {
        let mut sorted = Sorted::default();
        for (serial, member) in &self.groups[id].members {
            let alarm = &self.alarms[*serial];
            match (alarm.is_open(), member.is_told) {
                _ if alarm.is_flapping || (alarm.is_open() && member.has_left) => {
                    sorted.others += usize::from(alarm.is_open());
                }
                (true, is_told) if alarm.is_to_be_told() && (!is_told || member.is_asked_again) => {
                    sorted.fresh.push(*serial);
                }
                (true, false) => sorted.others += 1,
                (true, true) => sorted.known.push(*serial),
                (false, true) => sorted.ended.push(*serial),
                (false, false) => {}
            }
        }
        sorted
    }

    /// Says what is to be said of a group's alarms; `repeat` is after how many seconds also without news.
    fn tell(&mut self, id: GroupId, repeat: i64, sorted: Sorted) {
        let now = self.now;
        let group = &self.groups[id];
        let is_wanted = |serial: &Serial| self.alarms[*serial].is_to_be_told();
        let repeats =
            repeat > 0 && group.said.is_some_and(|said| said + repeat <= now) && sorted.known.iter().any(is_wanted);
        let has_news = !sorted.fresh.is_empty() || !sorted.ended.is_empty();
        let what = match group.said {
            _ if !has_news && !repeats => return,
            _ if !has_news => What::Repeat,
            _ if sorted.fresh.is_empty() && sorted.known.is_empty() && sorted.others == 0 => What::Resolved,
            None => What::Problem,
            Some(_) => What::Update,
        };
        let ids = |serials: &[Serial]| serials.iter().map(|serial| self.alarms[*serial].id.clone()).collect();
        let (fresh, known, ended) = (ids(&sorted.fresh), ids(&sorted.known), ids(&sorted.ended));
        let (to, route) = (group.to.clone(), group.route.as_str().into());
        self.say(Notice { group: id, route, what, to, fresh, known, ended });
        let Some(group) = self.groups.change(id) else { return };
        group.said = Some(now);
        let told = sorted.fresh.into_iter().map(|serial| (serial, true));
        for (serial, is_told) in told.chain(sorted.ended.into_iter().map(|serial| (serial, false))) {
            if let Some(member) = group.members.get_mut(&serial) {
                (member.is_told, member.is_asked_again) = (is_told, false);
            }
        }
    }

    /// Takes the steps of a group's escalation that are due.
    fn escalate(&mut self, id: GroupId, route: &Route) {
        let now = self.now;
        let escalation = route.escalation.as_ref().and_then(|name| self.policy.escalations.get(name)).cloned();
        let waits = |(serial, member): (&Serial, &Member)| {
            let alarm = &self.alarms[*serial];
            (member.is_told && !member.has_left && alarm.is_open() && alarm.is_to_be_told()).then(|| alarm.id.clone())
        };
        let unanswered: Vec<Box<str>> = self.groups[id].members.iter().filter_map(waits).collect();
        let Some(group) = self.groups.change(id) else { return };
        let Some(escalation) = escalation.filter(|_| !unanswered.is_empty()) else {
            group.escalating = None;
            return;
        };
        let mut state = group.escalating.unwrap_or(Escalating { since: now, steps: 0, rounds: 0 });
        let mut taken = Vec::new();
        while let Some(step) = escalation.steps.get(state.steps).filter(|step| state.since + step.after <= now) {
            state.steps += 1;
            taken.push((state.steps, step.to.clone()));
            if state.steps == escalation.steps.len() && state.rounds < escalation.repeat {
                state = Escalating { since: now, steps: 0, rounds: state.rounds + 1 };
                break;
            }
        }
        group.escalating = Some(state);
        for (step, to) in taken {
            let (what, known) = (What::Escalation(step), unanswered.clone());
            self.say(Notice { group: id, route: route.path.clone(), what, to, fresh: vec![], known, ended: vec![] });
        }
    }

    /// Forgets members that have ended and were told so, and a group without members.
    fn tidy(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(id) else { return };
        let is_gone = |(serial, member): (&Serial, &Member)| {
            let alarm = &self.alarms[*serial];
            (!alarm.is_open() && !member.is_told && !alarm.is_flapping).then_some(*serial)
        };
        let gone: Vec<Serial> = group.members.iter().filter_map(is_gone).collect();
        for serial in gone {
            if let Some(alarm) = self.alarms.change(serial) {
                alarm.groups.retain(|group| *group != id);
            }
            self.leave(id, serial);
            self.forget(serial);
        }
    }

    /// Notes when a group is looked at next.
    fn plan(&mut self, id: GroupId, route: Option<&Route>) {
        let now = self.now;
        let Some((group, route)) = self.groups.change(id).zip(route) else { return };
        let repeat = group.said.filter(|_| route.times.repeat > 0).map(|said| said + route.times.repeat);
        let steps = group.escalating.and_then(|state| {
            let escalation = self.policy.escalations.get(route.escalation.as_ref()?)?;
            Some(state.since + escalation.steps.get(state.steps)?.after)
        });
        if let Some(at) = [repeat, steps].into_iter().flatten().filter(|at| *at > now).min() {
            group.look_at(at);
        }
        if let Some(at) = group.next {
            self.due.insert((at, Due::Group(id)));
        }
    }

    fn leave(&mut self, id: GroupId, serial: Serial) {
        let Some(group) = self.groups.change(id) else { return };
        group.members.remove(&serial);
        if group.members.is_empty() {
            let key = (Arc::from(group.route.as_str()), group.key.clone());
            self.groups.remove(id);
            self.by_key.remove(&key);
        }
    }

    /// Forgets an alarm that has ended, that nobody is to hear of, and whose changes are old.
    fn forget(&mut self, serial: Serial) {
        let window = self.policy.flapping.map_or(0, |settings| settings.window);
        let Some(alarm) = self.alarms.get(serial) else { return };
        let is_over = alarm.ended.is_some_and(|ended| ended + window <= self.now);
        if is_over && alarm.groups.is_empty() && !alarm.is_flapping {
            self.by_id.remove(&alarm.id);
            self.alarms.remove(serial);
        }
    }

    fn say(&mut self, notice: Notice) {
        if notice.to.is_empty() {
            return;
        }
        let mut whom = String::new();
        for receiver in notice.to.iter() {
            let comma = if whom.is_empty() { "" } else { ", " };
            // Writing to a text cannot fail.
            _ = match &receiver.to {
                To::Action => write!(whom, "{comma}the rule's action"),
                To::Team(name) => write!(whom, "{comma}team {name}"),
                To::User(name) => write!(whom, "{comma}{name}"),
                To::Rota(name) => write!(whom, "{comma}whoever is on call of {name}"),
            };
        }
        let text = format!("{} by route {}, to {whom}", notice.what, notice.route);
        for alarm in notice.fresh.iter().chain(&notice.known).chain(&notice.ended) {
            let line = Line { at: self.now, text: text.clone() };
            self.out.push(Effect::Story { alarm: alarm.clone(), line });
        }
        self.out.push(Effect::Notice(notice));
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn story(&mut self, serial: Serial, text: std::fmt::Arguments<'_>) {
        let Some(alarm) = self.alarms.get(serial) else { return };
        self.out.push(Effect::Story { alarm: alarm.id.clone(), line: Line { at: self.now, text: text.to_string() } });
    }

    /// Notes the time. One that is before the latest moves everything along, so that pauses keep their lengths.
    fn move_to(&mut self, now: i64) {
        let by = now - self.now;
        self.now = now;
        if by >= 0 {
            return;
        }
        self.alarms.change_all(|alarm| alarm.shift(by));
        self.groups.change_all(|group| group.shift(by));
        self.weather.shift(by);
        // Silences and times of the week are of the wall clock.
        self.due = self.due.iter().map(|(at, due)| (at + by, *due)).filter(|(_, due)| *due != Due::Policy).collect();
        self.due.insert((now, Due::Policy));
    }
}

/// Members of a group, by what is to be said of them.
#[derive(Default)]
struct Sorted {
    fresh: Vec<Serial>,
    known: Vec<Serial>,
    ended: Vec<Serial>,
    /// Open ones of which nothing is said.
    others: usize,
}

fn key_of(route: &Route, alarm: &Alarm) -> Box<str> {
    let mut key = String::new();
    route.by.iter().for_each(|by| by.push(&alarm.id, &alarm.fact, &mut key));
    key.into()
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod histories;
