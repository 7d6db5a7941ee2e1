//! The answer of an hbs to a judge: the first byte says how the rest is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::Rules;
use std::sync::Arc;
use wire::hbs::{AnswerError, AnswerLimits, AnswerReader, Call, KnownRules, Omissions, Progress};

/// Small, so that the fuzzer reaches them.
const LIMITS: AnswerLimits = AnswerLimits {
    rule_bytes: 400,
    hostname_bytes: 40,
    hosts: 4,
    strategies_per_host: 4,
    expressions: 4,
    answer_bytes: 3000,
    distinct_bytes: 2000,
};

const NO_EXPRESSIONS: &[u8] = b"{\"id\":1,\"result\":{\"expressions\":null},\"error\":null}\n";

struct Outcome {
    result: Result<Progress, AnswerError>,
    rules: Option<Arc<Rules>>,
    left_out: Omissions,
}

fuzz_target!(|input: &[u8]| {
    let Some((size, stream)) = input.split_first() else { return };
    for call in [Call::Strategies, Call::Expressions] {
        let mut known = KnownRules::new(LIMITS);
        let whole = run(&mut known, call, stream, usize::MAX);
        let cut = run(&mut KnownRules::new(LIMITS), call, stream, usize::from(*size).max(1));
        assert_eq!(whole.result, cut.result);
        assert_eq!(whole.left_out, cut.left_out);
        assert_eq!(whole.rules.is_some(), cut.rules.is_some());
        let (Some(rules), Some(same)) = (whole.rules, cut.rules) else {
            assert_eq!(known.distinct(), 0, "nothing is kept of what cannot be used");
            continue;
        };
        assert!(rules.hosts == same.hosts && rules.expressions == same.expressions);
        assert!(rules.hosts.values().all(|list| (1..=LIMITS.strategies_per_host).contains(&list.len())));
        assert!(known.distinct_bytes() <= LIMITS.distinct_bytes);
        // The same again is no change, and neither is it as our own hbs would write it.
        let again = run(&mut known, call, stream, 100);
        assert!(again.rules.is_none() && again.left_out == whole.left_out);
        if call == Call::Strategies {
            let mut text = b"{\"id\":0,\"result\":".to_vec();
            wire::hbs::write_strategies(&mut text, &rules);
            text.extend_from_slice(b",\"error\":null}");
            if text.len() as u64 <= LIMITS.answer_bytes {
                let written = run(&mut known, call, &text, 100);
                // Escapes may make a text longer than it came in.
                let fits = !matches!(written.result, Err(AnswerError::Limit { .. }));
                assert!(!fits || (written.result == Ok(Progress::Done) && written.rules.is_none()));
            }
        }
    }
});

fn run(known: &mut KnownRules, call: Call, stream: &[u8], size: usize) -> Outcome {
    let mut reader = AnswerReader::new();
    known.begin();
    reader.begin(call, 0);
    let mut result = stream.chunks(size).try_fold(Progress::More, |_, part| reader.feed(part, known));
    if call == Call::Strategies && result == Ok(Progress::Done) {
        reader.begin(Call::Expressions, 1);
        result = reader.feed(NO_EXPRESSIONS, known);
    }
    let rules = match result {
        Ok(Progress::Done) => known.finish(),
        _ => {
            known.abandon();
            None
        }
    };
    Outcome { result, rules, left_out: known.left_out().clone() }
}
