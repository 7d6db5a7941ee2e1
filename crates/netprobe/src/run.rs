//! Run: one probe, once, within its time limit.

use crate::definition::{Definition, Kind};
use crate::means::{Ground, Means};
use crate::outcome::{Code, Outcome, Reason};
use crate::policy::Policy;
use crate::trace::Trace;
use tokio::time::timeout;

/// Runs a probe once. Takes at most the definition's `timeout_ms`; a definition that cannot work is down, and says so.
pub async fn run(definition: &Definition, policy: &Policy, means: &Means) -> Outcome {
    let mut trace = Trace::new(definition.kind.as_str(), definition.series_tags(), definition.timeout());
    let faults = definition.check();
    if !faults.is_empty() {
        return trace.outcome(Err(Reason::new(Code::Definition, faults.join("; "))));
    }
    let asking = ask(definition, Ground { policy, means }, &mut trace);
    let found = match timeout(definition.timeout(), asking).await {
        Ok(found) => found,
        Err(_) => Err(trace.too_late()),
    };
    trace.outcome(found)
}

async fn ask(definition: &Definition, ground: Ground<'_>, trace: &mut Trace) -> Result<(), Reason> {
    let target = &definition.target;
    match &definition.kind {
        Kind::Http(http) => http.run(target, ground, trace).await,
        Kind::Tcp(tcp) => tcp.run(target, ground, trace).await,
        Kind::Tls(tls) => tls.run(target, ground, trace).await,
        Kind::Icmp(icmp) => icmp.run(target, ground, trace).await,
        Kind::Dns(dns) => dns.run(target, ground, trace).await,
        Kind::Grpc(grpc) => grpc.run(target, ground, trace).await,
        Kind::Script(script) => script.run(target, ground, trace).await,
    }
}
