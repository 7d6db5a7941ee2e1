//! Gate: the secret that senders show before anything else they say is heard (`ingest.token`).
//!
//! Why: an allow-list of networks tells machines apart, not programs; a fleet behind one gateway, or over the internet,
//! needs a word of its own.
//! How: a connection has a [`Visit`], which is let in by the configured secret or by one of the tokens that were
//! [`Issued`]; a request over HTTP shows its token each time. Only SHA-256 sums are kept and compared, the configured
//! one in constant time; of which issued token a sum is told by a table of sums, from whose times nobody learns a
//! token.
//! Invariants: an open gate lets everybody in, whatever they show; a visit ends with its [`REFUSALS_MAX`]th refusal; no
//! token comes into a message, and neither does what was shown instead of one.
//! Memory: 32 bytes per issued token, some 40 per connection.

use crate::seldom::Seldom;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};
use subtle::ConstantTimeEq;

/// The method by which a connection of JSON-RPC or gob shows its token.
pub const AUTH: &str = "Hawkeye.Auth";
/// Refusals after which a connection is closed: a mistake or two may be answered, a search must begin anew each time.
const REFUSALS_MAX: u8 = 3;

/// SHA-256 of a token.
pub type Sum = [u8; 32];

/// The sum of a token.
pub fn sum_of(token: &[u8]) -> Sum {
    Sha256::digest(token).into()
}

/// Tokens that were issued while the process runs; clones share them.
#[derive(Clone, Default)]
pub struct Issued(Arc<RwLock<HashSet<Sum>>>);

impl Issued {
    /// Makes these the tokens that are valid from now on; connections that are in stay so.
    pub fn replace(&self, sums: HashSet<Sum>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = sums;
    }

    fn has(&self, sum: &Sum) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(sum)
    }
}

/// Label of a figure: the name of a listener.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AskedLabel {
    listener: &'static str,
}

/// Counts of refusals, by listener.
#[derive(Clone, Default)]
pub struct GateMetrics {
    refused: Family<AskedLabel, Counter>,
}

impl GateMetrics {
    /// Counts that are shown on the metrics page from now on.
    pub fn register(registry: &mut Registry) -> GateMetrics {
        let own = GateMetrics::default();
        registry.register("auth_refused", "Calls and pushes without a valid token", own.refused.clone());
        own
    }
}

/// Who is let in; clones share it.
#[derive(Clone, Default)]
pub struct Gate {
    closed: Option<Arc<Closed>>,
}

struct Closed {
    secret: RwLock<Sum>,
    issued: Issued,
    metrics: GateMetrics,
    told: Seldom,
}

impl Gate {
    /// A gate that lets everybody in.
    pub fn open() -> Gate {
        Gate::default()
    }

    /// A gate that lets in who shows `secret`, or a token that was issued.
    pub fn closed(secret: &[u8], issued: Issued, metrics: GateMetrics) -> Gate {
        Gate {
            closed: Some(Arc::new(Closed {
                secret: RwLock::new(sum_of(secret)),
                issued,
                metrics,
                told: Seldom::default(),
            })),
        }
    }

    /// Makes this the configured secret from now on; connections that are in stay so. An open gate stays open.
    pub fn change(&self, secret: &[u8]) {
        if let Some(closed) = &self.closed {
            *closed.secret.write().unwrap_or_else(PoisonError::into_inner) = sum_of(secret);
        }
    }

    /// A visit that begins.
    pub fn visit(&self, listener: &'static str) -> Visit {
        Visit { gate: self.clone(), listener, is_in: self.closed.is_none(), refusals: 0 }
    }

    /// Whether a token, or none, is enough; what is not is counted.
    pub fn takes(&self, listener: &'static str, token: Option<&[u8]>) -> bool {
        let Some(closed) = &self.closed else { return true };
        let takes = token.is_some_and(|token| {
            let sum = sum_of(token);
            let secret = *closed.secret.read().unwrap_or_else(PoisonError::into_inner);
            bool::from(sum.ct_eq(&secret)) || closed.issued.has(&sum)
        });
        if !takes {
            closed.metrics.refused.get_or_create(&AskedLabel { listener }).inc();
            if closed.told.may_say() {
                tracing::warn!(listener, "a sender has no valid token, which ingest.token asks for");
            }
        }
        takes
    }
}

/// One connection at a gate.
pub struct Visit {
    gate: Gate,
    listener: &'static str,
    is_in: bool,
    refusals: u8,
}

impl Visit {
    /// Whether the connection is heard.
    pub fn is_in(&self) -> bool {
        self.is_in
    }

    /// Lets the connection in, or answers why not; `None` shows nothing.
    pub fn show(&mut self, token: Option<&[u8]>) -> Result<(), &'static str> {
        if self.gate.takes(self.listener, token) {
            self.is_in = true;
            return Ok(());
        }
        self.refusals = self.refusals.saturating_add(1);
        Err(match token {
            Some(_) => "the token is not valid: take the one of the server's ingest.token",
            None => {
                "this server asks for a token first: call Hawkeye.Auth with params [{\"token\":\"…\"}] (a string over gob), \
                 which the server's ingest.token has"
            }
        })
    }

    /// Whether the connection has been refused so often that it is closed.
    pub fn is_over(&self) -> bool {
        self.refusals >= REFUSALS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"sixteen or more characters";

    #[test]
    fn an_open_gate_takes_anything() {
        let mut visit = Gate::open().visit("door");
        assert!(visit.is_in() && visit.show(None).is_ok() && visit.show(Some(b"x")).is_ok());
    }

    #[test]
    fn the_secret_and_what_was_issued_let_in() {
        let (issued, metrics) = (Issued::default(), GateMetrics::default());
        let gate = Gate::closed(SECRET, issued.clone(), metrics.clone());
        let mut visit = gate.visit("door");
        assert!(!visit.is_in());
        assert!(visit.show(None).is_err_and(|text| text.contains("call Hawkeye.Auth")));
        assert!(visit.show(Some(b"issued")).is_err_and(|text| text.contains("not valid")));
        assert!(!visit.is_over() && !visit.is_in());
        issued.replace(HashSet::from([sum_of(b"issued")]));
        assert!(visit.show(Some(b"issued")).is_ok() && visit.is_in());
        issued.replace(HashSet::new());
        assert!(visit.is_in(), "who is in stays");
        assert!(!gate.takes("door", Some(b"issued")) && gate.takes("door", Some(SECRET)));
        assert_eq!(metrics.refused.get_or_create(&AskedLabel { listener: "door" }).get(), 3);
        gate.change(b"another of sixteen and more");
        assert!(visit.is_in() && !gate.takes("door", Some(SECRET)));
        assert!(gate.takes("door", Some(b"another of sixteen and more")));
        gate.change(SECRET);
        let mut other = gate.visit("door");
        assert!((0..3).all(|_| other.show(Some(b"")).is_err()) && other.is_over());
    }
}
