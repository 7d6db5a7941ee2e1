//! TCP and TLS: whether a port takes connections, says what it should, and shows a certificate that is believed.
//!
//! How: connect, perhaps STARTTLS, perhaps a handshake, then steps of sending and expecting. An expected pattern is to
//! match one line; lines before that one are passed over, and the beginning of a line may match before its end comes.

use crate::dial::{Family, closed, dial, told_of_io};
use crate::fault::note;
use crate::lines::{Heard, Lines};
use crate::means::Ground;
use crate::outcome::{Code, Phase, Reason};
use crate::pattern;
use crate::place::Place;
use crate::starttls::{self, StartTls};
use crate::tls::{TlsOptions, shake};
use crate::trace::Trace;
use net::tls::client::Outgoing;
use regex_lite::Regex;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

/// Steps of a dialogue; the longest that greet, log in, ask and leave have some eight.
const STEPS_MAX: usize = 16;
/// Bytes that one step sends.
const SEND_BYTES_MAX: usize = 4096;

/// A TCP port, and what is said there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tcp {
    pub family: Family,
    /// Asks for TLS in plain text first.
    pub starttls: Option<StartTls>,
    /// Speaks TLS.
    pub tls: Option<TlsOptions>,
    /// What is sent and expected, in order; empty: the connection is enough.
    pub talk: Vec<Step>,
}

/// A step of a dialogue: sends, then expects; at least one of the two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Step {
    /// Text that is sent as it is, with its own line end.
    pub send: Option<String>,
    /// Pattern that a line must match.
    pub expect: Option<String>,
}

/// A port that shows a certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsTarget {
    pub family: Family,
    /// Asks for TLS in plain text first.
    pub starttls: Option<StartTls>,
    pub tls: TlsOptions,
}

impl Tcp {
    pub(crate) fn check(&self, target: &str, faults: &mut Vec<String>) {
        note(faults, "target", Place::parse(target));
        if let Some(tls) = &self.tls {
            tls.check(faults);
        }
        if self.talk.len() > STEPS_MAX {
            faults.push(format!("talk has {} steps: give at most {STEPS_MAX}", self.talk.len()));
        }
        for step in &self.talk {
            match (&step.send, &step.expect) {
                (None, None) => faults.push("talk has a step without anything: give it send, expect or both".into()),
                (Some(text), _) if text.is_empty() || text.len() > SEND_BYTES_MAX => {
                    faults.push(format!("talk.send has {} bytes: give 1 to {SEND_BYTES_MAX}", text.len()));
                }
                _ => {}
            }
            if let Some(expect) = &step.expect {
                note(faults, "talk.expect", pattern::compile(expect));
            }
        }
    }

    pub(crate) async fn run(&self, target: &str, ground: Ground<'_>, trace: &mut Trace) -> Result<(), Reason> {
        let default = TlsOptions::default();
        let tls = self.tls.as_ref().or(self.starttls.map(|_| &default));
        let mut stream = connect(target, self.family, self.starttls, tls, ground, trace).await?;
        if self.talk.is_empty() {
            trace.end_phase();
            return Ok(());
        }
        trace.enter(Phase::Talk);
        let mut lines = Lines::default();
        for step in &self.talk {
            if let Some(text) = &step.send {
                let sent = async {
                    stream.write_all(text.as_bytes()).await?;
                    stream.flush().await
                };
                sent.await.map_err(|error| told_of_io(&error, trace, "in phase talk"))?;
            }
            if let Some(expect) = &step.expect {
                let pattern = pattern::compile(expect).map_err(|error| Reason::new(Code::Definition, error))?;
                self::expect(&mut stream, &mut lines, &pattern, trace).await?;
            }
        }
        trace.end_phase();
        Ok(())
    }
}

/// Reads lines until one matches.
async fn expect(stream: &mut Outgoing, lines: &mut Lines, pattern: &Regex, trace: &mut Trace) -> Result<(), Reason> {
    let mut last = None;
    let unmet = |last: &Option<String>| match last {
        None => format!("nothing came, want {:?}", pattern.as_str()),
        Some(line) => format!("got {:?}, want {:?}", crate::fault::short(line), pattern.as_str()),
    };
    loop {
        let heard = lines.next(stream).await.map_err(|error| told_of_io(&error, trace, "in phase talk"))?;
        match heard {
            Heard::Line(line) if pattern.is_match(&line) => break,
            Heard::Part(part) if pattern.is_match(&part) => {
                lines.take_part();
                break;
            }
            Heard::Line(line) | Heard::Part(line) => last = Some(line),
            Heard::Closed if last.is_none() => {
                return Err(closed(trace, &format!("in phase talk, want {:?}", pattern.as_str())));
            }
            Heard::Closed => return Err(Reason::new(Code::Match, unmet(&last))),
            Heard::TooLong => return Err(Reason::new(Code::TooLong, format!("too much came: {}", unmet(&last)))),
        }
        trace.unmet = Some(Reason::new(Code::Match, unmet(&last)));
    }
    trace.unmet = None;
    Ok(())
}

impl TlsTarget {
    pub(crate) fn check(&self, target: &str, faults: &mut Vec<String>) {
        note(faults, "target", Place::parse(target));
        self.tls.check(faults);
    }

    pub(crate) async fn run(&self, target: &str, ground: Ground<'_>, trace: &mut Trace) -> Result<(), Reason> {
        connect(target, self.family, self.starttls, Some(&self.tls), ground, trace).await?;
        trace.end_phase();
        Ok(())
    }
}

/// A connection, with TLS where it is wanted.
async fn connect(
    target: &str,
    family: Family,
    starttls: Option<StartTls>,
    tls: Option<&TlsOptions>,
    ground: Ground<'_>,
    trace: &mut Trace,
) -> Result<Outgoing, Reason> {
    let place = Place::parse(target).map_err(|error| Reason::new(Code::Definition, error))?;
    let mut stream = dial(&place, family, ground, trace).await?;
    if let Some(protocol) = starttls {
        starttls::ask(&mut stream, protocol, trace).await?;
    }
    match tls {
        None => Ok(Outgoing::Plain(stream)),
        Some(tls) => {
            let stream = shake(stream, &place.host, tls, &[], &ground.means.roots, trace).await?;
            Ok(Outgoing::Tls(Box::new(stream)))
        }
    }
}
