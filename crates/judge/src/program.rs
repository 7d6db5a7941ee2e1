//! Program: the compiled form of a condition that is more than one function: terms, how they are joined, and what is
//! sure.
//!
//! Why: `all(#3) and avg(#5) of mem.memfree.percent < 10` asks two series, of which each says its part when it has a
//! point; the rest may be unknown at that moment, and nobody may be woken by what is not known.
//! How: logic with three values, as in Kleene's: a term holds, does not hold, or is unknown, and the whole is known as
//! soon as no unknown term could change it. Terms stand in the order of the text, `code` joins them in postfix order.
//! Which terms decided is worked out along with the answer: the event's time, and what is told about it, are theirs.
//! Invariants: at most [`TERMS_MAX`] terms, so a set of them is the bits of a byte; nothing is allocated to answer.
//! Memory: beside the rules, which stay within a cache line each; some 100 bytes per term, once per rule.

use crate::function::Comparison;
use model::RuleTags;
use model::SeriesKey;

/// Conditions that people can still read. A guess, and a set of terms fits a byte.
pub(crate) const TERMS_MAX: usize = 8;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Program {
    pub terms: Box<[Term]>,
    /// Joining of the terms, in postfix order: `a and b or c` is a b And c Or.
    pub code: Box<[Code]>,
    /// The other series that terms ask, each once.
    pub operands: Box<[Operand]>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Code {
    Term(u8),
    And,
    Or,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Term {
    /// The series at whose points it looks.
    pub subject: Subject,
    pub question: Question,
    /// The term as it was written, for those who ask why.
    pub text: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// The series that carries the alarm.
    Own,
    /// A series of the same endpoint: the number of an operand.
    Other(u8),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Question {
    /// `opens` is asked while all is well, `stays` while a PROBLEM is open; they differ with `recover`.
    Values { opens: Comparison, stays: Comparison },
    /// `nodata(#steps)`.
    Silence { steps: u32 },
}

/// Another series of the same endpoint.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Operand {
    pub metric: Box<str>,
    /// Tags that the series must have; none where it has the tags of the series that carries the alarm, or fewer.
    pub tags: RuleTags,
}

/// The whole of a condition's terms, and which of them decided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Conclusion {
    pub holds: Option<bool>,
    /// The bits of the terms that decided; none if unknown.
    pub deciding: u8,
}

impl Program {
    /// Whether terms ask other series than the rule's own.
    pub fn is_joined(&self) -> bool {
        !self.operands.is_empty()
    }

    /// The terms about a subject, with their places.
    pub fn terms_of(&self, subject: Subject) -> impl Iterator<Item = (usize, &Term)> {
        self.terms.iter().enumerate().filter(move |(_, term)| term.subject == subject)
    }

    /// Values that the terms about a subject look at; at least one.
    pub fn values_needed(&self, subject: Subject) -> u32 {
        self.terms_of(subject).map(|(_, term)| term.values_needed()).max().unwrap_or(1)
    }

    pub fn asks_for_silence(&self, subject: Subject) -> bool {
        self.terms_of(subject).any(|(_, term)| matches!(term.question, Question::Silence { .. }))
    }

    /// The conclusion from what the terms say.
    pub fn answer(&self, terms: &[Option<bool>]) -> Conclusion {
        // A text of n terms never needs more than n places.
        let mut stack = [Conclusion { holds: None, deciding: 0 }; TERMS_MAX];
        let mut top = 0;
        for code in &self.code {
            match *code {
                Code::Term(term) => {
                    let holds = terms[term as usize];
                    stack[top] = Conclusion { holds, deciding: u8::from(holds.is_some()) << term };
                    top += 1;
                }
                Code::And | Code::Or => {
                    top -= 1;
                    stack[top - 1] = join(stack[top - 1], stack[top], *code == Code::Or);
                }
            }
        }
        stack[0]
    }

    pub fn memory_bytes(&self) -> usize {
        let tags = |tags: &RuleTags| tags.iter().map(|(key, value)| key.len() + value.len() + 48).sum::<usize>();
        size_of::<Program>()
            + self.terms.iter().map(|term| size_of::<Term>() + term.text.len()).sum::<usize>()
            + size_of_val(&*self.code)
            + self.operands.iter().map(|o| size_of::<Operand>() + o.metric.len() + tags(&o.tags)).sum::<usize>()
    }
}

/// Joins two sides: one that is `decisive` (true for or, false for and) decides alone; otherwise it takes both.
fn join(a: Conclusion, b: Conclusion, decisive: bool) -> Conclusion {
    let side = |answer: Conclusion| if answer.holds == Some(decisive) { answer.deciding } else { 0 };
    if a.holds == Some(decisive) || b.holds == Some(decisive) {
        return Conclusion { holds: Some(decisive), deciding: side(a) | side(b) };
    }
    match (a.holds, b.holds) {
        (Some(_), Some(_)) => Conclusion { holds: Some(!decisive), deciding: a.deciding | b.deciding },
        _ => Conclusion { holds: None, deciding: 0 },
    }
}

impl Term {
    fn values_needed(&self) -> u32 {
        match self.question {
            // Fits: the text was compared with the window when it was read.
            Question::Values { opens, .. } => opens.function.values_needed() as u32,
            Question::Silence { .. } => 1,
        }
    }
}

impl Operand {
    /// Whether a series is one of those meant, as far as its own key tells.
    pub fn may_be(&self, key: SeriesKey<'_>) -> bool {
        *self.metric == *key.metric && key.tags.have(&self.tags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `code` over `terms` (t, f, ?): the answer and the deciding terms.
    fn check(code: &str, terms: &str, expected: &str) {
        let code = code.chars().map(|c| match c {
            '&' => Code::And,
            '|' => Code::Or,
            digit => Code::Term(digit as u8 - b'0'),
        });
        let program = Program { terms: [].into(), code: code.collect(), operands: [].into() };
        let terms: Vec<_> = terms
            .chars()
            .map(|c| match c {
                't' => Some(true),
                'f' => Some(false),
                _ => None,
            })
            .collect();
        let answer = program.answer(&terms);
        let deciding: Vec<String> = (0..8).filter(|i| answer.deciding >> i & 1 == 1).map(|i| i.to_string()).collect();
        let holds = answer.holds.map_or("?", |holds| if holds { "t" } else { "f" });
        assert_eq!(format!("{holds} {}", deciding.join("")), expected, "{terms:?}");
    }

    #[test]
    fn three_values() {
        check("01&", "tt", "t 01");
        check("01&", "tf", "f 1");
        check("01&", "ff", "f 01");
        check("01&", "t?", "? ");
        check("01&", "f?", "f 0");
        check("01|", "t?", "t 0");
        check("01|", "tt", "t 01");
        check("01|", "ff", "f 01");
        check("01|", "f?", "? ");
        check("0", "?", "? ");
        check("01&2|", "tft", "t 2");
        check("01&2|", "tff", "f 12");
        check("01&2|", "?tt", "t 2");
        check("012|&", "tf?", "? ");
        check("012|&", "f??", "f 0");
    }

    #[test]
    fn the_deepest_text_fits() {
        check("01234567&&&&&&&", "tttttttt", "t 01234567");
    }
}
