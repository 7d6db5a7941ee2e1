//! Plan: what one event makes alarm send, to whom, and in which order.
//!
//! Why: deciding is pure and tested as a table; storing and sending are elsewhere.
//! How: before-callback messages, the callback, then the normal messages, as in the original, each a delivery of its
//! own. The normal messages do not wait for the callback (in the original they do, so a slow script delays every
//! person). Messages about a callback's end travel inside its delivery, and become deliveries when the callback has an
//! end.
//! Invariants: no delivery without a receiver or without a gateway; a receiver is named once per message; an event that
//! reaches none of the people it is meant for says why ([`Untold`]).
//! Compat: docs/open-falcon/alarm.md §2–4. The flags `before_callback_sms` and `after_callback_sms` send at any
//! priority, the normal SMS only below [`LOW_PRIORITY`]. From there on the normal messages wait to be merged with
//! others (`merging.rs`), one for each receiver.

use super::message;
use crate::config::AlarmConfig;
use crate::portal::action::Action;
use crate::portal::alarm::TOLD_NOBODY;
use crate::portal::delivery::{Kind, MERGED, NewDelivery};
use crate::portal::user::User;
use md5::{Digest, Md5};
use model::Event;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use std::fmt::Display;

/// The first priority that is low: SMS are for P0 to P2 only, which wait for nobody's scripts but their own.
pub const LOW_PRIORITY: i32 = 3;

/// Target of messages that wait to be merged: nothing is sent to it.
pub const MERGE: &str = "merge";

/// Beginning of the targets of events that wait for an old api to say whom their action tells; its id follows. Nothing
/// is sent there.
pub const ACTION: &str = "action:";

/// Whether deliveries to a target are sent.
pub fn is_sent(target: &str) -> bool {
    target != MERGE && !target.starts_with(ACTION)
}

/// Priority of messages of other tools, which name none: the last of the high ones.
const OTHERS_PRIORITY: i64 = LOW_PRIORITY as i64 - 1;

/// The ways to people that the site has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Channels {
    pub sms: bool,
    pub im: bool,
    pub mail: Option<Kind>,
    /// Messages of low priority are merged.
    pub merge: bool,
}

/// The addresses of an event's receivers, none of them empty, each once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Contacts {
    pub phones: Vec<String>,
    pub ims: Vec<String>,
    pub mails: Vec<String>,
}

/// Deliveries that an event causes.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub deliveries: Vec<NewDelivery>,
    /// Messages that had receivers but no gateway.
    pub without_channel: u64,
    pub untold: Option<Untold>,
}

/// Why an event tells nobody.
#[derive(Clone, Debug, PartialEq)]
pub struct Untold {
    pub missing: Missing,
    /// The reason for people, with the names it is about.
    pub text: String,
}

/// What is missing where an event tells nobody, as such events are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The rule has no action, or one that is gone.
    Action,
    /// The action names no team, and calls nothing.
    Team,
    /// Nobody in the teams has an address for any of the ways.
    Address,
    /// There are addresses, but only for ways without a gateway.
    Gateway,
}

/// All that may be missing.
pub const MISSING: [Missing; 4] = [Missing::Action, Missing::Team, Missing::Address, Missing::Gateway];

/// The body of a callback's delivery.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Callback {
    pub url: String,
    pub query: Vec<(String, String)>,
    pub after_sms: bool,
    pub after_mail: bool,
    pub contacts: Contacts,
}

/// The body of an SMS's or an instant message's delivery.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Text {
    pub tos: String,
    pub content: String,
}

/// The body of a mail's delivery.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Mail {
    pub tos: String,
    pub subject: String,
    pub content: String,
}

/// The body of a message that waits to be merged.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// The one receiver.
    pub to: String,
    pub metric: String,
    pub status: String,
    /// The case of its event.
    pub case: String,
    /// The subject of a mail; "" of an instant message.
    pub subject: String,
    pub content: String,
}

/// The body of a message with the cases that it is about.
#[derive(Debug, PartialEq, Serialize)]
pub struct Cases<M> {
    #[serde(flatten)]
    pub message: M,
    pub cases: Vec<String>,
}

impl<M: Serialize> Cases<M> {
    /// The body as its row holds it.
    pub fn to_json(&self) -> String {
        to_json(self)
    }
}

impl Missing {
    /// Reason on the metrics page.
    pub fn as_str(self) -> &'static str {
        match self {
            Missing::Action => "no_action",
            Missing::Team => "no_team",
            Missing::Address => "no_address",
            Missing::Gateway => "no_gateway",
        }
    }
}

impl Untold {
    fn new(missing: Missing, why: impl Display) -> Untold {
        Untold { missing, text: format!("{TOLD_NOBODY}: {why}") }
    }

    /// Reason for an event whose action `id` an old api has not told yet.
    pub fn unasked(id: i64) -> String {
        format!("{TOLD_NOBODY} yet: alarm.plus_api does not say whom action {id} tells; it is told when that answers")
    }

    /// Reason for an event whose rule names the action `id`, which cannot be read.
    pub fn unread(id: i64) -> Untold {
        Untold::new(Missing::Action, format_args!("action {id} of the rule cannot be read, for the portal is damaged"))
    }

    /// Reason for an event whose rule names the action `id`, which is not there.
    pub fn without_action(id: i64) -> Untold {
        match id {
            ..=0 => Untold::new(Missing::Action, "the rule has no action"),
            _ => Untold::new(Missing::Action, format_args!("action {id} of the rule is gone")),
        }
    }
}

impl Plan {
    /// Plan for an event that waits, as it is, for an old api to say whom it tells.
    pub fn waiting(event: &Event) -> Plan {
        let target = format!("{ACTION}{}", event.action_id());
        // A row has some kind.
        let (kind, priority) = (Kind::Callback, i64::from(event.priority()));
        let new = NewDelivery { target, kind, lane: event.id(), body: event.to_json(), priority };
        Plan { deliveries: vec![new], ..Plan::default() }
    }

    /// Plan for an event that tells nobody.
    pub fn untold(untold: Untold) -> Plan {
        Plan { untold: Some(untold), ..Plan::default() }
    }
}

impl Callback {
    /// Status of the event that is called for.
    pub fn status(&self) -> &str {
        self.query.iter().find(|(name, _)| name == "status").map_or("", |(_, status)| status)
    }
}

impl Channels {
    /// Channels that the configuration names.
    pub fn of(config: &AlarmConfig) -> Channels {
        let mail = match (is_http(&config.mail), config.smtp.host.is_empty()) {
            (true, _) => Some(Kind::Mail),
            (false, false) => Some(Kind::Smtp),
            (false, true) => None,
        };
        Channels { sms: is_http(&config.sms), im: is_http(&config.im), mail, merge: config.merge > 0 }
    }
}

impl Contacts {
    /// Contacts of some users, without the empty ones. A field may have several, joined by commas: to a gateway they
    /// are sent joined with all others anyway, as in the original.
    pub fn of(users: &[User]) -> Contacts {
        let each_once = |texts: &mut dyn Iterator<Item = &String>| {
            let mut list: Vec<String> = Vec::new();
            for text in texts.flat_map(|text| text.split(',')).map(str::trim).filter(|text| !text.is_empty()) {
                if !list.iter().any(|known| known == text) {
                    list.push(text.to_string());
                }
            }
            list
        };
        Contacts {
            phones: each_once(&mut users.iter().map(|user| &user.phone)),
            ims: each_once(&mut users.iter().map(|user| &user.im)),
            mails: each_once(&mut users.iter().map(|user| &user.email)),
        }
    }
}

/// Plans the deliveries of `event`. `dashboard` is where links in mails point.
pub fn plan(event: &Event, action: &Action, contacts: &Contacts, channels: Channels, dashboard: &str) -> Plan {
    let mut out = Drafts { lane: event.id(), priority: event.priority().into(), channels, plan: Plan::default() };
    let (short, mail) = (message::short(event), message::mail(event, dashboard));
    if action.callback == 1 {
        if action.before_callback_sms == 1 {
            out.text(Kind::Sms, &contacts.phones, &short);
            out.text(Kind::Im, &contacts.ims, &short);
        }
        if action.before_callback_mail == 1 {
            out.mail(&contacts.mails, &short, &mail);
        }
        callback(event, action, contacts, &mut out);
    }
    if event.priority() < LOW_PRIORITY {
        out.text(Kind::Sms, &contacts.phones, &short);
    }
    if channels.merge && event.priority() >= LOW_PRIORITY {
        let im = channels.im.then_some(Kind::Im);
        contacts.ims.iter().for_each(|to| out.waiting(im, event, to, "", &short));
        contacts.mails.iter().for_each(|to| out.waiting(channels.mail, event, to, &short, &mail));
    } else {
        out.text(Kind::Im, &contacts.ims, &short);
        out.mail(&contacts.mails, &short, &mail);
    }
    out.plan.untold = untold(&out.plan.deliveries, event.priority(), action, contacts, channels);
    out.plan
}

/// Why an event with these deliveries reaches nobody, if so. A callback alone reaches who is meant when no team is.
fn untold(
    deliveries: &[NewDelivery],
    priority: i32,
    action: &Action,
    contacts: &Contacts,
    channels: Channels,
) -> Option<Untold> {
    let callbacks = deliveries.iter().filter(|delivery| delivery.kind == Kind::Callback).count();
    let teams = action.uic.trim_matches([' ', ',']);
    if deliveries.len() > callbacks || (teams.is_empty() && callbacks > 0) {
        return None;
    }
    if teams.is_empty() {
        let called = if action.callback == 1 { "a callback without a URL" } else { "no callback" };
        return Some(Untold::new(Missing::Team, format_args!("the action names no team, and has {called}")));
    }
    let by_sms = priority < LOW_PRIORITY;
    let ways = [
        ("sms", "phone", &contacts.phones, channels.sms, by_sms),
        ("im", "im", &contacts.ims, channels.im, true),
        ("mail", "mail address", &contacts.mails, channels.mail.is_some(), true),
    ];
    // Who has no phone would get no SMS with a gateway either.
    let (mut without_gateway, mut without_address) = (Vec::new(), Vec::new());
    for (way, address, tos, open, _) in ways.into_iter().filter(|way| way.4) {
        if tos.is_empty() {
            without_address.push(address);
        } else if !open {
            without_gateway.push(way);
        }
    }
    let mut why = Vec::new();
    if !without_gateway.is_empty() {
        why.push(format!("there is no gateway for {}", without_gateway.join(", ")));
    }
    if !without_address.is_empty() {
        why.push(format!("no {} in team {teams}", without_address.join(", no ")));
    }
    if !by_sms && !contacts.phones.is_empty() {
        why.push(format!("P{priority} sends no sms"));
    }
    let missing = if without_gateway.is_empty() { Missing::Address } else { Missing::Gateway };
    Some(Untold::new(missing, why.join("; ")))
}

/// Plans a message that another tool has for people. It waits for none of the others.
pub fn of_others(kind: Kind, message: Mail, channels: Channels) -> Plan {
    let lane = format!("others {:016x}", rand::random::<u64>());
    let mut out = Drafts { lane, priority: OTHERS_PRIORITY, channels, plan: Plan::default() };
    let tos = message.tos.split(',').map(str::trim).filter(|to| !to.is_empty()).map(str::to_string);
    let tos: Vec<String> = tos.collect();
    match kind {
        Kind::Sms | Kind::Im => out.text(kind, &tos, &message.content),
        _ => out.mail(&tos, &message.subject, &message.content),
    }
    out.plan
}

/// Plans what people are told when a callback has an end.
pub fn after_callback(lane: &str, priority: i64, callback: &Callback, text: &str, channels: Channels) -> Plan {
    let mut out = Drafts { lane: lane.to_string(), priority, channels, plan: Plan::default() };
    if callback.after_sms {
        out.text(Kind::Sms, &callback.contacts.phones, text);
        out.text(Kind::Im, &callback.contacts.ims, text);
    }
    if callback.after_mail {
        out.mail(&callback.contacts.mails, text, text);
    }
    out.plan
}

fn callback(event: &Event, action: &Action, contacts: &Contacts, out: &mut Drafts) {
    let url = action.url.trim();
    let mut callback = Callback {
        url: url.to_string(),
        query: message::callback_query(event),
        after_sms: action.after_callback_sms == 1,
        after_mail: action.after_callback_mail == 1,
        contacts: Contacts::default(),
    };
    if callback.after_sms || callback.after_mail {
        callback.contacts = contacts.clone();
    }
    if url.is_empty() {
        let after = after_callback(&out.lane, out.priority, &callback, message::CALLBACK_URL_BLANK, out.channels);
        out.plan.deliveries.extend(after.deliveries);
        out.plan.without_channel += after.without_channel;
        return;
    }
    // A text that is no URL fails at its first attempt, and people are told as after any failure.
    let origin = Url::parse(url).map_or_else(|_| "callback".to_string(), |url| url.origin().ascii_serialization());
    out.push(origin, Kind::Callback, &callback);
}

struct Drafts {
    lane: String,
    priority: i64,
    channels: Channels,
    plan: Plan,
}

impl Drafts {
    fn text(&mut self, kind: Kind, tos: &[String], content: &str) {
        if tos.is_empty() {
            return;
        }
        let open = if kind == Kind::Sms { self.channels.sms } else { self.channels.im };
        if !open {
            self.plan.without_channel += 1;
            return;
        }
        let text = Text { tos: tos.join(","), content: content.to_string() };
        self.push(kind.as_str().to_string(), kind, &text);
    }

    fn mail(&mut self, tos: &[String], subject: &str, content: &str) {
        if tos.is_empty() {
            return;
        }
        let mail = |tos: String| Mail { tos, subject: subject.to_string(), content: content.to_string() };
        match self.channels.mail {
            None => self.plan.without_channel += 1,
            // By SMTP each receiver has a delivery: an address that is refused must not keep the mail from the others.
            Some(Kind::Smtp) => {
                tos.iter().for_each(|to| self.push("smtp".to_string(), Kind::Smtp, &mail(to.clone())));
            }
            Some(kind) => self.push(kind.as_str().to_string(), kind, &mail(tos.join(","))),
        }
    }

    /// A message of low priority to one receiver.
    fn waiting(&mut self, kind: Option<Kind>, event: &Event, to: &str, subject: &str, content: &str) {
        let Some(kind) = kind else {
            self.plan.without_channel += 1;
            return;
        };
        let waiting = Waiting {
            to: to.to_string(),
            metric: event.metric().to_string(),
            status: event.status.as_str().to_string(),
            case: self.lane.clone(),
            subject: subject.to_string(),
            content: content.to_string(),
        };
        let lane = merged_lane(kind, self.priority, to, event.metric());
        let (body, priority) = (to_json(&waiting), self.priority);
        self.plan.deliveries.push(NewDelivery { target: MERGE.to_string(), kind, lane, body, priority });
    }

    fn push(&mut self, target: String, kind: Kind, body: &impl Serialize) {
        let body = to_json(body);
        self.plan.deliveries.push(NewDelivery { target, kind, lane: self.lane.clone(), body, priority: self.priority });
    }
}

/// The lane of all messages of one receiver, channel, priority and metric: what is merged of them keeps its order.
fn merged_lane(kind: Kind, priority: i64, to: &str, metric: &str) -> String {
    let names = format!("{} {priority} {metric} {to}", kind.as_str());
    format!("{MERGED}{}", hex::encode(Md5::digest(names)))
}

fn to_json(body: &impl Serialize) -> String {
    serde_json::to_string(body).expect("texts, flags and lists always have a JSON form")
}

/// True for a gateway that the original would use: it skips one whose URL begins otherwise.
fn is_http(url: &str) -> bool {
    url.starts_with("http")
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{EventRule, Status, Strategy};
    use std::sync::Arc;

    fn event(priority: i32) -> Event {
        let strategy = Strategy { id: 1, metric: "m".into(), priority, ..Strategy::default() };
        Event {
            rule: EventRule::Strategy(Arc::new(strategy)),
            status: Status::Problem,
            endpoint: "e".into(),
            tags: String::new(),
            left_value: 1.0,
            current_step: 1,
            time: 1_490_000_000,
            explanation: None,
        }
    }

    fn contacts() -> Contacts {
        let list = |a: &str, b: &str| vec![a.to_string(), b.to_string()];
        Contacts { phones: list("1", "2"), ims: list("i", "j"), mails: list("a@x", "b@x") }
    }

    const ALL: Channels = Channels { sms: true, im: true, mail: Some(Kind::Mail), merge: false };
    const NONE: Channels = Channels { sms: false, im: false, mail: None, merge: false };

    /// `expected` is "" where somebody is told, and else the reason and its text.
    #[test]
    fn who_is_not_told_and_why() {
        let check = |priority: i32, uic: &str, url: &str, contacts: &Contacts, channels: Channels, expected: &str| {
            let action =
                Action { uic: uic.into(), url: url.into(), callback: i64::from(!url.is_empty()), ..Action::default() };
            let untold = plan(&event(priority), &action, contacts, channels, "").untold;
            let said = untold.map_or(String::new(), |Untold { missing, text }| format!("{}: {text}", missing.as_str()));
            assert_eq!(said, expected, "P{priority} {uic:?} {url:?}");
        };
        let all = contacts();
        let none = Contacts::default();
        let phones = Contacts { phones: vec!["1".into()], ..Contacts::default() };
        check(0, "ops", "", &all, ALL, "");
        check(0, "ops", "", &phones, ALL, "");
        check(0, "", "http://h/", &none, NONE, "");
        check(0, "ops", "http://h/", &all, NONE, "no_gateway: told nobody: there is no gateway for sms, im, mail");
        let no_one = "no_address: told nobody: no phone, no im, no mail address in team ops,db";
        check(0, ",ops,db ", "", &none, ALL, no_one);
        let no_sms = "no_address: told nobody: no im, no mail address in team ops; P3 sends no sms";
        check(3, "ops", "", &phones, ALL, no_sms);
        let no_sms = "no_gateway: told nobody: there is no gateway for im, mail; P4 sends no sms";
        check(4, "ops", "", &all, Channels { sms: true, ..NONE }, no_sms);
        check(0, " ", "", &none, ALL, "no_team: told nobody: the action names no team, and has no callback");
        check(
            0,
            "",
            " ",
            &none,
            ALL,
            "no_team: told nobody: the action names no team, and has a callback without a URL",
        );
    }

    /// `flags`: c callback, s/m before by sms/mail, S/M after by sms/mail.
    fn check(priority: i32, flags: &str, url: &str, channels: Channels, expected: &str, without: u64) {
        let has = |flag: char| i64::from(flags.contains(flag));
        let action = Action {
            id: 1,
            uic: "t".into(),
            url: url.into(),
            callback: has('c'),
            before_callback_sms: has('s'),
            before_callback_mail: has('m'),
            after_callback_sms: has('S'),
            after_callback_mail: has('M'),
        };
        let plan = plan(&event(priority), &action, &contacts(), channels, "http://d");
        let targets: Vec<&str> = plan.deliveries.iter().map(|delivery| delivery.target.as_str()).collect();
        assert_eq!((targets.join(" "), plan.without_channel), (expected.to_string(), without), "P{priority} {flags}");
        assert!(plan.deliveries.iter().all(|delivery| delivery.lane == event(priority).id()));
    }

    #[test]
    fn what_is_sent() {
        let url = "http://host:81/x?y=1";
        let smtp = Channels { mail: Some(Kind::Smtp), ..ALL };
        check(0, "", "", ALL, "sms im mail", 0);
        check(2, "", "", ALL, "sms im mail", 0);
        check(3, "", "", ALL, "im mail", 0);
        check(0, "", "", smtp, "sms im smtp smtp", 0);
        check(0, "", "", NONE, "", 3);
        check(0, "c", url, NONE, "http://host:81", 3);
        check(0, "c", url, ALL, "http://host:81 sms im mail", 0);
        check(5, "csm", url, ALL, "sms im mail http://host:81 im mail", 0);
        check(5, "smSM", url, ALL, "im mail", 0);
        check(5, "cSM", url, ALL, "http://host:81 im mail", 0);
        check(5, "cSM", " ", ALL, "sms im mail im mail", 0);
        check(5, "c", "not a url", ALL, "callback im mail", 0);
    }

    /// Messages of low priority wait, one for each receiver; those around a callback do not.
    #[test]
    fn what_waits_to_be_merged() {
        let plan_of = |priority: i32, channels: Channels| {
            let action = Action { callback: 1, url: "http://h/".into(), before_callback_sms: 1, ..Action::default() };
            plan(&event(priority), &action, &contacts(), channels, "http://d")
        };
        let all = Channels { merge: true, ..ALL };
        let targets = |plan: &Plan| plan.deliveries.iter().map(|one| one.target.clone()).collect::<Vec<_>>().join(" ");
        assert_eq!(targets(&plan_of(2, all)), "sms im http://h sms im mail");
        let low = plan_of(3, all);
        assert_eq!(targets(&low), "sms im http://h merge merge merge merge");
        let waiting: Vec<Waiting> =
            low.deliveries[3..].iter().map(|one| serde_json::from_str(&one.body).expect("a message")).collect();
        assert_eq!(waiting.iter().map(|one| one.to.as_str()).collect::<Vec<_>>(), ["i", "j", "a@x", "b@x"]);
        assert!(waiting.iter().all(|one| one.case == event(3).id() && one.metric == "m" && one.status == "PROBLEM"));
        assert_eq!((waiting[0].subject.as_str(), waiting[2].subject.as_str()), ("", waiting[0].content.as_str()));
        let lanes: Vec<&str> = low.deliveries[3..].iter().map(|one| one.lane.as_str()).collect();
        let again = plan_of(3, all);
        assert!(again.deliveries[3..].iter().map(|one| one.lane.as_str()).eq(lanes.iter().copied()));
        assert!(
            lanes.iter().all(|lane| lane.starts_with(MERGED) && lanes.iter().filter(|one| *one == lane).count() == 1)
        );
        let no_mail = plan_of(3, Channels { mail: None, ..all });
        assert_eq!((targets(&no_mail).as_str(), no_mail.without_channel), ("sms im http://h merge merge", 2));
        assert_eq!(no_mail.untold, None);
    }

    #[test]
    fn after_the_callback() {
        let callback = Callback {
            url: "http://h/".into(),
            query: vec![],
            after_sms: true,
            after_mail: true,
            contacts: contacts(),
        };
        let plan = after_callback("lane", 0, &callback, "text", ALL);
        let bodies: Vec<&str> = plan.deliveries.iter().map(|delivery| delivery.body.as_str()).collect();
        assert_eq!(
            bodies,
            [
                r#"{"tos":"1,2","content":"text"}"#,
                r#"{"tos":"i,j","content":"text"}"#,
                r#"{"tos":"a@x,b@x","subject":"text","content":"text"}"#
            ]
        );
        let silent = Callback { after_sms: false, after_mail: false, ..callback };
        assert_eq!(after_callback("lane", 0, &silent, "text", ALL), Plan::default());
    }

    #[test]
    fn contacts_are_named_once_and_never_empty() {
        let user = |phone: &str, im: &str, email: &str| User {
            id: 1,
            name: "n".into(),
            cnname: String::new(),
            email: email.into(),
            phone: phone.into(),
            im: im.into(),
            qq: String::new(),
            role: 0,
        };
        let contacts = Contacts::of(&[user("1", "", "a@x"), user("1", "i", " a@x "), user("2", "", "b@x")]);
        assert_eq!(contacts.phones, ["1", "2"]);
        assert_eq!(contacts.ims, ["i"]);
        assert_eq!(contacts.mails, ["a@x", "b@x"]);
        let contacts = Contacts::of(&[user("1,2", "i, j,", "two@x,zwei@x"), user("2", "", " zwei@x ,c@x")]);
        assert_eq!((contacts.phones, contacts.ims), (vec!["1".into(), "2".into()], vec!["i".into(), "j".into()]));
        assert_eq!(contacts.mails, ["two@x", "zwei@x", "c@x"]);
    }
}
