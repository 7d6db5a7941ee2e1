//! Trace: where a running probe is, what each phase has taken, and what was read so far.
//!
//! Why: a probe that runs out of time is dropped in the middle; what it had learned until then, and in which phase it
//! was, is worth more than the fact that it was late.
//! Invariants: a phase that was not ended leaves no time, and then there is no total either.

use crate::outcome::{Code, Outcome, Phase, Reason};
use probe::Reading;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Phases and values of one run.
#[derive(Debug)]
pub(crate) struct Trace {
    /// Name of the kind, as in `probe.<kind>.total_ms`.
    kind: &'static str,
    tags: String,
    started: Instant,
    limit: Duration,
    current: Option<(Phase, Instant)>,
    /// Phases that have ended; one that came several times, by redirects, has its sum.
    ended: Vec<(Phase, Duration)>,
    readings: Vec<Reading>,
    /// Address that was spoken to last.
    pub peer: Option<SocketAddr>,
    /// What an up probe has to say all the same.
    pub remark: Option<Reason>,
    /// What is waited for while something else is heard, for who runs out of time meanwhile.
    pub unmet: Option<Reason>,
}

impl Trace {
    pub fn new(kind: &'static str, tags: String, limit: Duration) -> Trace {
        Trace {
            kind,
            tags,
            started: Instant::now(),
            limit,
            current: None,
            ended: Vec::new(),
            readings: Vec::new(),
            peer: None,
            remark: None,
            unmet: None,
        }
    }

    /// Ends the phase before, and begins one.
    pub fn enter(&mut self, phase: Phase) {
        self.end_phase();
        self.current = Some((phase, Instant::now()));
    }

    /// Ends the phase.
    pub fn end_phase(&mut self) {
        let Some((phase, since)) = self.current.take() else { return };
        match self.ended.iter_mut().find(|(known, _)| *known == phase) {
            Some((_, sum)) => *sum += since.elapsed(),
            None => self.ended.push((phase, since.elapsed())),
        }
    }

    /// Who is spoken to, for texts.
    pub fn who(&self) -> String {
        self.peer.map_or_else(|| "the other side".to_string(), |peer| peer.to_string())
    }

    /// Time that is left.
    pub fn left(&self) -> Duration {
        self.limit.saturating_sub(self.started.elapsed())
    }

    /// Sets the value of a metric, also where a hop before has set it. What is not finite is no value.
    pub fn value(&mut self, metric: &'static str, value: f64) {
        self.readings.retain(|known| known.metric != metric);
        if value.is_finite() {
            self.readings.push(Reading::gauge(metric, &self.tags, value));
        }
    }

    /// As [`value`](Trace::value), where the least of all hops counts.
    pub fn least(&mut self, metric: &'static str, value: f64) {
        let before = self.readings.iter().find(|known| known.metric == metric).map(|known| known.value);
        self.value(metric, before.map_or(value, |before| before.min(value)));
    }

    /// Adds a value with tags of its own beside the probe's.
    pub fn tagged(&mut self, reading: Reading) {
        let tags = model::tags::canonical_string(&format!("{},{}", reading.tags, self.tags));
        self.readings.push(Reading { tags, ..reading });
    }

    /// Why a probe that was dropped is down.
    pub fn too_late(&self) -> Reason {
        let limit = told(self.limit);
        if let Some(unmet) = &self.unmet {
            return Reason::new(unmet.code, format!("{}, within {limit}", unmet.text));
        }
        let phase = self.current.map_or("", |(phase, _)| phase.as_str());
        let text = match (self.current, self.peer) {
            (Some((Phase::Dns, _)), _) => format!("no answer within {limit} in phase dns"),
            (Some((Phase::Script, _)), _) => format!("the script has not ended within {limit}"),
            (_, Some(peer)) => format!("no answer from {peer} within {limit} in phase {phase}"),
            _ => format!("no answer within {limit} in phase {phase}"),
        };
        Reason::new(Code::Timeout, text)
    }

    /// What the run has found.
    pub fn outcome(self, found: Result<(), Reason>) -> Outcome {
        let up = found.is_ok();
        let mut readings = vec![Reading::gauge("probe.up", &self.tags, f64::from(u8::from(up)))];
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        for (phase, time) in &self.ended {
            let metric = format!("probe.{}.{}_ms", self.kind, phase.as_str());
            readings.push(Reading::gauge(metric, &self.tags, ms(*time)));
        }
        if self.current.is_none() && !self.ended.is_empty() {
            let metric = format!("probe.{}.total_ms", self.kind);
            readings.push(Reading::gauge(metric, &self.tags, ms(self.started.elapsed())));
        }
        readings.extend(self.readings);
        let reason = found.err().or(self.remark);
        Outcome { up, reason, phases: self.ended, peer: self.peer, readings }
    }
}

/// A limit as people say it: `5 s`, `250 ms`.
pub(crate) fn told(time: Duration) -> String {
    match time.as_millis() {
        ms if ms % 1000 == 0 => format!("{} s", ms / 1000),
        ms => format!("{ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(outcome: &Outcome) -> Vec<&str> {
        outcome.readings.iter().map(|reading| reading.metric.as_ref()).collect()
    }

    #[test]
    fn a_phase_that_has_not_ended_leaves_no_time_and_no_total() {
        let mut trace = Trace::new("tcp", "target=h:1".into(), Duration::from_millis(1500));
        trace.enter(Phase::Dns);
        trace.enter(Phase::Connect);
        let reason = trace.too_late();
        assert_eq!((reason.code, reason.text.as_str()), (Code::Timeout, "no answer within 1500 ms in phase connect"));
        let outcome = trace.outcome(Err(reason));
        assert_eq!(metrics(&outcome), ["probe.up", "probe.tcp.dns_ms"]);
        assert_eq!(outcome.readings[0].value, 0.0);
    }

    #[test]
    fn phases_that_come_again_are_summed_and_values_replaced() {
        let mut trace = Trace::new("http", "target=h:1".into(), Duration::from_secs(5));
        for hop in 0..2 {
            trace.enter(Phase::Connect);
            trace.enter(Phase::FirstByte);
            trace.value("probe.http.status", f64::from(hop));
            trace.least("probe.tls.days_left", f64::from(hop + 4));
        }
        trace.value("probe.http.body_bytes", f64::NAN);
        trace.end_phase();
        let outcome = trace.outcome(Ok(()));
        let expected = [
            "probe.up",
            "probe.http.connect_ms",
            "probe.http.first_byte_ms",
            "probe.http.total_ms",
            "probe.http.status",
            "probe.tls.days_left",
        ];
        assert_eq!(metrics(&outcome), expected);
        assert_eq!((outcome.up, outcome.readings[4].value, outcome.readings[5].value), (true, 1.0, 4.0));
    }
}
