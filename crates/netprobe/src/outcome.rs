//! Outcome: what one run of a probe has found.
//!
//! Invariants: who is down has a [`Reason`]; a reason's text is one line without control characters and at most
//! [`TEXT_MAX`] characters, whatever the other side has said; each [`Code`] has a row in docs/probes.md.

use probe::Reading;
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use stdx::is_hidden;

/// Characters of a reason's text at most: what fits into a text message with the name of the probe before it.
pub const TEXT_MAX: usize = 240;

/// What one run has found.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// True where everything was as the definition expects it.
    pub up: bool,
    /// Why it is down; of a script, what it has said also when it is up.
    pub reason: Option<Reason>,
    /// Phases that have ended, in the order in which they began, with the time that each has taken.
    pub phases: Vec<(Phase, Duration)>,
    /// Address that was spoken to last.
    pub peer: Option<SocketAddr>,
    /// Values with metric and tags, `probe.up` first; whoever sends them adds endpoint, step and time.
    pub readings: Vec<Reading>,
}

impl Outcome {
    /// The outcome as `hawkeye probe --json` and the API tell it: `up`, `reason` (`code`, `text`), `peer`, `phases_ms`
    /// and `readings`.
    pub fn json(&self) -> Value {
        let phase = |(phase, time): &(Phase, Duration)| (phase.as_str().into(), json!(time.as_secs_f64() * 1e3));
        let reason = |reason: &Reason| json!({ "code": reason.code.as_str(), "text": reason.text });
        let reading = |one: &Reading| json!({ "metric": one.metric, "tags": one.tags, "value": one.value });
        json!({
            "up": self.up,
            "reason": self.reason.as_ref().map(reason),
            "peer": self.peer.map(|peer| peer.to_string()),
            "phases_ms": self.phases.iter().map(phase).collect::<Map<String, Value>>(),
            "readings": self.readings.iter().map(reading).collect::<Vec<Value>>(),
        })
    }
}

/// Why a probe is down: a code for programs and a text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    pub code: Code,
    /// One line, like `status 503, want 200-299`.
    pub text: String,
}

impl Reason {
    /// A reason whose text is made one line of at most [`TEXT_MAX`] characters.
    pub fn new(code: Code, text: impl AsRef<str>) -> Reason {
        Reason { code, text: one_line(text.as_ref(), TEXT_MAX) }
    }
}

/// The text with blanks for control characters, cut off with `…` behind `max` characters.
pub(crate) fn one_line(text: &str, max: usize) -> String {
    let clean = |c: char| if is_hidden(c) { ' ' } else { c };
    let text = text.trim_matches(|c: char| c.is_whitespace() || c.is_control());
    match text.char_indices().nth(max) {
        None => text.chars().map(clean).collect(),
        Some((end, _)) => text[..end].chars().map(clean).chain(['…']).collect(),
    }
}

/// Part of a probe that takes time of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Asking the system's resolver for the addresses of a name.
    Dns,
    Connect,
    /// Asking in plain text for TLS.
    StartTls,
    Tls,
    /// From the request to the head of the answer.
    FirstByte,
    /// The rest of the answer.
    Body,
    /// Lines that are sent and expected.
    Talk,
    /// From a question to its answer.
    Answer,
    /// Echo requests and their replies.
    Ping,
    /// A program that runs.
    Script,
}

impl Phase {
    /// Name as in texts and, with `_ms` behind it, in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Dns => "dns",
            Phase::Connect => "connect",
            Phase::StartTls => "starttls",
            Phase::Tls => "tls",
            Phase::FirstByte => "first_byte",
            Phase::Body => "body",
            Phase::Talk => "talk",
            Phase::Answer => "answer",
            Phase::Ping => "ping",
            Phase::Script => "script",
        }
    }
}

/// Declares the codes together with their names, so that [`Code::ALL`] cannot lack one.
macro_rules! codes {
    ($($(#[doc = $doc:literal])* $code:ident = $name:literal,)*) => {
        /// Kind of a failure, which programs may compare.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[doc = $doc])* $code,)*
        }

        impl Code {
            /// Each code, in the order of docs/probes.md.
            pub const ALL: &[Code] = &[$(Code::$code,)*];

            /// Name, as it is sent and shown.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Code::$code => $name,)*
                }
            }
        }
    };
}

codes! {
    /// The definition cannot work.
    Definition = "definition",
    /// The policy forbids the target.
    Denied = "denied",
    /// The time limit has passed.
    Timeout = "timeout",
    /// The name does not exist.
    NameUnknown = "name_unknown",
    /// The system's resolver has failed.
    Resolver = "resolver",
    /// The name has no address of the wanted family.
    NoAddress = "no_address",
    Refused = "refused",
    Unreachable = "unreachable",
    /// The other side has closed the connection too early.
    Closed = "closed",
    /// The other side has reset the connection.
    Reset = "reset",
    /// Something that this host lacks: a socket, a right, a file of authorities.
    Local = "local",
    /// The other side does not speak TLS.
    NoTls = "no_tls",
    /// The handshake has failed.
    Tls = "tls",
    CertificateExpired = "certificate_expired",
    CertificateNotYet = "certificate_not_yet",
    CertificateName = "certificate_name",
    CertificateUntrusted = "certificate_untrusted",
    /// The certificate is of no use for another reason.
    Certificate = "certificate",
    /// Fewer days are left than the definition wants.
    CertificateSoon = "certificate_soon",
    /// STARTTLS was refused.
    StartTls = "starttls",
    /// What came is not the protocol that was expected.
    Protocol = "protocol",
    Status = "status",
    /// The head of the answer has more bytes or lines than allowed.
    Head = "head",
    /// The answer has more bytes than allowed.
    TooLong = "too_long",
    /// Redirected more often than allowed.
    Redirects = "redirects",
    /// Redirected to what is no address.
    Redirect = "redirect",
    /// The body, or a line, is not as expected.
    Match = "match",
    /// The JSON value is not as expected.
    Json = "json",
    /// More echo requests are lost than allowed.
    Loss = "loss",
    /// The DNS server has answered with another code than wanted.
    Rcode = "rcode",
    /// The DNS records are not as expected.
    Records = "records",
    /// The gRPC call has failed.
    Grpc = "grpc",
    /// The gRPC service does not serve.
    NotServing = "not_serving",
    ScriptWarning = "script_warning",
    ScriptCritical = "script_critical",
    ScriptUnknown = "script_unknown",
    /// The script cannot be run, or has ended in another way than by 0, 1, 2 or 3.
    Script = "script",
    /// The script is up, and has said something.
    ScriptOk = "script_ok",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_short_line() {
        assert_eq!(Reason::new(Code::Status, " a\r\nb\u{7} ").text, "a  b");
        assert_eq!(Reason::new(Code::Status, "a\u{202e}b\u{200b}\u{feff}c").text, "a b  c");
        let long = Reason::new(Code::Status, "é".repeat(1000)).text;
        assert_eq!((long.chars().count(), long.chars().last()), (TEXT_MAX + 1, Some('…')));
    }

    #[test]
    fn names_are_different() {
        let names: std::collections::BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }
}
