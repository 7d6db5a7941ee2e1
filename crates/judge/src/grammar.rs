//! Grammar: conditions that are more than one function, as an extension of the function text. docs/rules.md explains
//! it.
//!
//! ```text
//! condition = all { "or" all }
//! all       = part { "and" part }                              and binds tighter
//! part      = "(" condition ")" | term
//! term      = function [ "of" series ] [ comparison ]
//! function  = name "(#" number [ "," number ] ")" | "nodata(#" number ")"
//! series    = metric [ "/" tag "=" value { "," tag "=" value } ], in double quotes if it holds blanks, ( ) < > or !
//! comparison= operator number | ( "inside" | "outside" ) number ".." number; then, or alone, "recover" number or range
//! ```
//!
//! Invariants: a text that the original can read never comes here (see `rule_set.rs`), so no old rule changes its
//! meaning; a text that is read compiles, and has at most [`TERMS_MAX`] terms and [`NESTING_MAX`] parentheses around
//! one; no text panics.

use crate::error::{RuleError, quote, quote_at};
use crate::function::{Comparison, FunctionKind, Operator};
use crate::program::{Code, Operand, Program, Question, Subject, TERMS_MAX, Term};
use crate::rule_text::{FunctionText, column, name_end, strict_number};

/// Width of the tables' column for `func`, in characters.
const TEXT_MAX: usize = 512;

/// Parentheses within each other. More of them than terms make no sense, and recursion must end.
const NESTING_MAX: usize = TERMS_MAX;

/// The comparison of terms that name none, and how far the window reaches.
#[derive(Clone, Copy)]
pub(crate) struct TermDefaults {
    /// The rule's own operator and right value.
    pub operator: Operator,
    pub right: f64,
    pub points_max: u32,
    /// Points to leave for a counter, whose values need one point more: 1 where the type is not known.
    pub spare: u32,
}

/// A condition as it was read.
#[derive(Debug, PartialEq)]
pub(crate) enum Parsed {
    /// One function of the rule's own series: as every rule of the original, but perhaps with a range.
    Plain(Comparison),
    Program(Program),
}

/// Whether the text uses anything that the original has not; other texts keep their errors.
pub(crate) fn is_extended(func: &str) -> bool {
    let text = func.trim_start();
    let behind = text.split_once(')').map_or("", |(_, behind)| behind.trim());
    text.starts_with('(') || text.starts_with("nodata") || !behind.is_empty()
}

/// Reads a text for which [`is_extended`] holds.
pub(crate) fn read(func: &str, defaults: TermDefaults) -> Result<Parsed, RuleError> {
    let mut parser =
        Parser { func, at: 0, defaults, depth: 0, terms: Vec::new(), code: Vec::new(), operands: Vec::new() };
    if func.len() > TEXT_MAX && func.chars().count() > TEXT_MAX {
        return Err(parser.want_at(func.len(), format!("at most {TEXT_MAX} characters")));
    }
    parser.condition()?;
    if parser.at < func.len() {
        return Err(match parser.byte() {
            Some(b')') => parser.want("no `)`, as no `(` is open".to_string()),
            _ => parser.want(BEHIND_A_TERM.to_string()),
        });
    }
    let Parser { terms, code, operands, .. } = parser;
    if let [Term { subject: Subject::Own, question: Question::Values { opens, stays }, .. }] = terms[..]
        && opens == stays
    {
        return Ok(Parsed::Plain(opens));
    }
    Ok(Parsed::Program(Program { terms: terms.into(), code: code.into(), operands: operands.into() }))
}

const BEHIND_A_TERM: &str = "`and`, `or`, `of`, `recover`, a comparison (such as > 90 or outside 10..20) or the end";

struct Parser<'a> {
    func: &'a str,
    /// The byte that is read next.
    at: usize,
    defaults: TermDefaults,
    depth: usize,
    terms: Vec<Term>,
    code: Vec<Code>,
    operands: Vec<Operand>,
}

type Read<T> = Result<T, RuleError>;

impl Parser<'_> {
    fn condition(&mut self) -> Read<()> {
        self.all()?;
        while self.word("or") {
            self.all()?;
            self.code.push(Code::Or);
        }
        Ok(())
    }

    fn all(&mut self) -> Read<()> {
        self.part()?;
        while self.word("and") {
            self.part()?;
            self.code.push(Code::And);
        }
        Ok(())
    }

    fn part(&mut self) -> Read<()> {
        self.skip_blanks();
        if self.byte() != Some(b'(') {
            return self.term();
        }
        if self.depth == NESTING_MAX {
            return Err(self.want(format!("at most {NESTING_MAX} parentheses within each other")));
        }
        self.at += 1;
        self.depth += 1;
        self.condition()?;
        self.skip_blanks();
        if self.byte() != Some(b')') {
            return Err(self.want(format!("`)`, or {BEHIND_A_TERM}").replace(" or the end", "")));
        }
        self.at += 1;
        self.depth -= 1;
        self.skip_blanks();
        Ok(())
    }

    fn term(&mut self) -> Read<()> {
        let start = self.at;
        if self.terms.len() == TERMS_MAX {
            return Err(self.want(format!("at most {TERMS_MAX} functions")));
        }
        let name = self.at..self.at + name_end(&self.func.as_bytes()[self.at..]);
        let question = match &self.func[name.clone()] {
            "" => return Err(self.want("a function such as all(#3), or `(`".to_string())),
            "nodata" => {
                self.at = name.end;
                Question::Silence { steps: self.silence()? }
            }
            other => {
                let Some(kind) = FunctionKind::parse(other.as_bytes()) else {
                    return Err(self.want(format!("one of {FUNCTIONS}; `{}` is unknown", quote(other))));
                };
                self.at = name.end;
                let opens = self.function(kind)?;
                Question::Values { opens, stays: opens }
            }
        };
        let mut end = self.at;
        let mut subject = Subject::Own;
        if self.word("of") {
            subject = self.series()?;
            end = self.at;
        }
        let question = match question {
            Question::Values { opens, .. } => self.comparison(opens, &mut end)?,
            silence => silence,
        };
        let text = self.func[start..end].into();
        self.code.push(Code::Term(self.terms.len() as u8));
        self.terms.push(Term { subject, question, text });
        self.skip_blanks();
        Ok(())
    }

    /// `(#3)` or `(#2,3)`, with the rule's own comparison.
    fn function(&mut self, kind: FunctionKind) -> Read<Comparison> {
        let first = self.opening()?;
        let mut last = first;
        if kind.has_two_arguments() {
            self.expect(b',', "`,` and a second number")?;
            last = self.count()?;
        }
        self.expect(
            b')',
            if self.byte() == Some(b',') { "`)`, as this function takes no further number" } else { "`)`" },
        )?;
        let function = FunctionText { kind, arguments: [first, last] }.function(self.func)?;
        self.check_window(function.values_needed() + u64::from(self.defaults.spare), first.column)?;
        let TermDefaults { operator, right, .. } = self.defaults;
        Ok(Comparison { function, operator, right, high: right })
    }

    fn silence(&mut self) -> Read<u32> {
        let steps = self.opening()?;
        self.expect(b')', "`)`")?;
        let n = u32::try_from(steps.value).unwrap_or(u32::MAX);
        if n == 0 {
            return Err(self.error_at(steps.column, "a whole number of steps from 1".to_string()));
        }
        self.check_window(u64::from(n), steps.column)?;
        Ok(n)
    }

    fn check_window(&self, points: u64, column: usize) -> Read<()> {
        let points_max = self.defaults.points_max;
        if points <= u64::from(points_max) {
            return Ok(());
        }
        Err(RuleError::Window { func: quote_at(self.func, column), column, points, points_max })
    }

    fn opening(&mut self) -> Read<crate::rule_text::Argument> {
        if !self.func.as_bytes()[self.at..].starts_with(b"(#") {
            return Err(self.want("`(#` behind the name".to_string()));
        }
        self.at += 2;
        self.count()
    }

    fn count(&mut self) -> Read<crate::rule_text::Argument> {
        let (argument, at) = strict_number(self.func, self.at).map_err(|want| self.want(want.to_string()))?;
        self.at = at;
        Ok(argument)
    }

    /// `metric` or `metric/tag=value,…`. The tags begin behind the last `/` before the first `=`.
    fn series(&mut self) -> Read<Subject> {
        self.skip_blanks();
        let start = self.at;
        let rest = &self.func[start..];
        let text = match rest.strip_prefix('"') {
            Some(quoted) => {
                let Some((text, _)) = quoted.split_once('"') else {
                    return Err(self.want("a closing `\"` behind the series".to_string()));
                };
                self.at += text.len() + 2;
                text
            }
            None => {
                let ends = |c: char| c.is_whitespace() || "()<>!\"".contains(c);
                let text = &rest[..rest.find(ends).unwrap_or(rest.len())];
                self.at += text.len();
                text
            }
        };
        let slash = text.split_once('=').and_then(|(before, _)| before.rfind('/'));
        let (metric, tags) = slash.map_or((text, ""), |slash| (&text[..slash], &text[slash + 1..]));
        if metric.is_empty() {
            return Err(self.want_at(start, "a metric, such as cpu.idle or df.bytes.used.percent/mount=/".to_string()));
        }
        let is_tag = |piece: &str| piece.split_once('=').is_some_and(|(tag, _)| !tag.trim().is_empty());
        if slash.is_some() && !tags.split(',').all(is_tag) {
            return Err(self.want_at(start, "tags of the form tag=value, joined by commas".to_string()));
        }
        let operand = Operand { metric: metric.into(), tags: model::tags::wanted(tags) };
        let number = self.operands.iter().position(|other| *other == operand).unwrap_or_else(|| {
            self.operands.push(operand);
            self.operands.len() - 1
        });
        Ok(Subject::Other(number as u8))
    }

    /// Reads the comparison of a function, when there is one; `end` moves behind it.
    fn comparison(&mut self, mut opens: Comparison, end: &mut usize) -> Read<Question> {
        self.skip_blanks();
        let start = self.at;
        if self.byte().is_some_and(is_operator) {
            let length = self.func.as_bytes()[self.at..].iter().take_while(|b| is_operator(**b)).count();
            let Some(operator) = Operator::parse(&self.func[self.at..self.at + length]) else {
                return Err(self.want("one of = == != < <= > >=".to_string()));
            };
            self.at += length;
            let right = self.number()?;
            opens = Comparison { operator, right, high: right, ..opens };
            *end = self.at;
        } else if let Some(operator) = self.range_operator() {
            if opens.function.kind == FunctionKind::Stddev {
                return Err(
                    self.want_at(start, "a number of deviations, such as > 3; stddev takes no range".to_string())
                );
            }
            let (right, high) = self.range()?;
            opens = Comparison { operator, right, high, ..opens };
            *end = self.at;
        }
        let mut stays = opens;
        if self.word("recover") {
            self.skip_blanks();
            let start = self.at;
            let (right, high) = if opens.operator.is_range() {
                self.range()?
            } else {
                let right = self.number()?;
                (right, right)
            };
            stays = Comparison { right, high, ..opens };
            check_recovery(&opens, &stays).map_err(|want| self.want_at(start, want))?;
            *end = self.at;
        }
        Ok(Question::Values { opens, stays })
    }

    fn range_operator(&mut self) -> Option<Operator> {
        if self.word("inside") {
            return Some(Operator::Inside);
        }
        self.word("outside").then_some(Operator::Outside)
    }

    fn range(&mut self) -> Read<(f64, f64)> {
        self.skip_blanks();
        let start = self.at;
        let low = self.number()?;
        if !self.func[self.at..].starts_with("..") {
            return Err(self.want("`..` and the upper end, as in 10..20".to_string()));
        }
        self.at += 2;
        let high = self.number()?;
        if low < high {
            Ok((low, high))
        } else {
            Err(self.want_at(start, "the lower end first, as in 10..20".to_string()))
        }
    }

    /// Digits with an optional sign and fraction; `10..20` is two of them.
    fn number(&mut self) -> Read<f64> {
        self.skip_blanks();
        let bytes = &self.func.as_bytes()[self.at..];
        let digits = |from: usize| bytes[from.min(bytes.len())..].iter().take_while(|b| b.is_ascii_digit()).count();
        let sign = usize::from(bytes.first() == Some(&b'-'));
        let mut length = sign + digits(sign);
        let fraction = if bytes.get(length) == Some(&b'.') { digits(length + 1) } else { 0 };
        if fraction > 0 {
            length += 1 + fraction;
        }
        let value: Option<f64> = self.func[self.at..self.at + length].parse().ok();
        match value.filter(|value| value.is_finite() && length > sign) {
            Some(value) => {
                self.at += length;
                Ok(value)
            }
            None => Err(self.want("a number, such as 90 or -0.5".to_string())),
        }
    }

    fn skip_blanks(&mut self) {
        let rest = &self.func[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    /// Takes a word, if it is the next.
    fn word(&mut self, word: &str) -> bool {
        self.skip_blanks();
        let rest = &self.func[self.at..];
        let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let found = &rest[..length] == word;
        self.at += if found { length } else { 0 };
        found
    }

    fn byte(&self) -> Option<u8> {
        self.func.as_bytes().get(self.at).copied()
    }

    fn expect(&mut self, byte: u8, want: &str) -> Read<()> {
        if self.byte() != Some(byte) {
            return Err(self.want(want.to_string()));
        }
        self.at += 1;
        Ok(())
    }

    fn want(&self, want: String) -> RuleError {
        self.want_at(self.at, want)
    }

    fn want_at(&self, at: usize, want: String) -> RuleError {
        self.error_at(column(self.func, at), want)
    }

    fn error_at(&self, column: usize, want: String) -> RuleError {
        RuleError::Condition { func: quote_at(self.func, column), column, want }
    }
}

const FUNCTIONS: &str = "all, max, min, sum, avg, diff, pdiff, lookup, stddev, kdiff, kpdiff, nodata (lower case)";

fn is_operator(byte: u8) -> bool {
    b"<>=!".contains(&byte)
}

/// A threshold of recovery that is easier to break than the alarm's would end the alarm at once and open it again.
fn check_recovery(opens: &Comparison, stays: &Comparison) -> Result<(), String> {
    let (right, high) = (opens.right, opens.high);
    // stddev reports what is further out than this many deviations, whatever the operator.
    let operator = if opens.function.kind == FunctionKind::Stddev { Operator::Greater } else { opens.operator };
    let (fine, want) = match operator {
        Operator::Greater | Operator::GreaterOrEqual => {
            (stays.right <= right, format!("at most {right}, which opens it"))
        }
        Operator::Less | Operator::LessOrEqual => (stays.right >= right, format!("at least {right}, which opens it")),
        Operator::Outside => (stays.right >= right && stays.high <= high, format!("a range within {right}..{high}")),
        Operator::Inside => (stays.right <= right && stays.high >= high, format!("a range around {right}..{high}")),
        Operator::Equal | Operator::NotEqual | Operator::Never => {
            (false, "no recover with = or !=; it goes with < <= > >= inside outside".to_string())
        }
    };
    if fine { Ok(()) } else { Err(want) }
}

#[cfg(test)]
#[path = "grammar/tests.rs"]
mod tests;
