//! The answer to `Transfer.Update` (and, wrapped, to `POST /api/push`): how many items came and how many were refused.

use crate::json::{self, JsonError, Scratch, name_eq, push_integer};

/// The counts of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpdateAnswer {
    pub total: usize,
    pub invalid: usize,
    pub latency_ms: u64,
}

/// Appends `{"Message":"ok","Total":…,"Invalid":…,"Latency":…}`.
pub fn write_answer(out: &mut Vec<u8>, answer: &UpdateAnswer) {
    out.extend_from_slice(b"{\"Message\":\"ok\",\"Total\":");
    push_integer(out, clamp(answer.total as u64));
    out.extend_from_slice(b",\"Invalid\":");
    push_integer(out, clamp(answer.invalid as u64));
    out.extend_from_slice(b",\"Latency\":");
    push_integer(out, clamp(answer.latency_ms));
    out.push(b'}');
}

fn clamp(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Reads the answer; a field that is absent, or no count, is 0.
pub fn read_answer(raw: &[u8], scratch: &mut Scratch) -> Result<UpdateAnswer, JsonError> {
    let mut answer = UpdateAnswer::default();
    let count = |raw| json::integer(raw).and_then(|value| u64::try_from(value).ok()).unwrap_or(0);
    json::fields(raw, scratch, |name, value| {
        if name_eq(name, "Total") {
            answer.total = count(value) as usize;
        } else if name_eq(name, "Invalid") {
            answer.invalid = count(value) as usize;
        } else if name_eq(name, "Latency") {
            answer.latency_ms = count(value);
        }
    })?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_text_and_back() {
        let answer = UpdateAnswer { total: 174, invalid: 2, latency_ms: 3 };
        let mut out = Vec::new();
        write_answer(&mut out, &answer);
        assert_eq!(out, br#"{"Message":"ok","Total":174,"Invalid":2,"Latency":3}"#);
        assert_eq!(read_answer(&out, &mut Scratch::new()), Ok(answer));
    }

    #[test]
    fn tolerates_what_is_missing() {
        let read = |text: &str| read_answer(text.as_bytes(), &mut Scratch::new());
        assert_eq!(
            read(r#"{"total":1,"Invalid":-1,"x":[]}"#),
            Ok(UpdateAnswer { total: 1, ..UpdateAnswer::default() })
        );
        assert_eq!(read("null"), Ok(UpdateAnswer::default()));
        assert!(read("[]").is_err());
    }
}
