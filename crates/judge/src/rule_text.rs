//! Rule text: `all(#3)` or `lookup(#2,3)`, one function, read in two ways.
//!
//! Why: a rule that is saved must be right, and its author gets an error with a column ([`read_strictly`], for
//! `check.rs`). Rows of an old installation may hold texts that the original accepted without looking, and must go on
//! working ([`parse`]). A condition of more than one function is read by `grammar.rs`.
//! How: the strict grammar is `name "(#" number ["," number] ")"`, names in lower case, numbers from 1 without sign,
//! leading zeros or spaces; `lookup`, `kdiff`, `kpdiff` take two numbers, the others one. [`parse`] reads as the
//! original does: the name is what stands before `#` without its last byte, the arguments what stands behind `#`
//! without its last byte, split at commas, each with an optional sign; further arguments are ignored. So `all[#3)`,
//! `all(#3]`, `all(#+3)`, `all(#03)` and `sum(#2,5)` work (docs/open-falcon/judge.md §10).
//! Invariants: a text that is accepted strictly is read alike by [`parse`] (see the tests); neither panics on any text.

use crate::error::{RuleError, quote};
use crate::function::{Function, FunctionKind};

/// A function's text, taken apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FunctionText {
    pub kind: FunctionKind,
    /// One or two arguments; the second is equal to the first where the function takes only one.
    pub arguments: [Argument; 2],
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Argument {
    pub value: i64,
    /// The column of its first character, from 1.
    pub column: usize,
}

impl FunctionText {
    /// The function, or why it can never hold.
    pub fn function(&self, func: &str) -> Result<Function, RuleError> {
        let [first, last] = self.arguments;
        let n = count(func, last, "N")?;
        let first = match self.kind {
            FunctionKind::Lookup if first.value > last.value => {
                let want = format!("at most {n}, the number of points looked at");
                return Err(RuleError::Argument { func: quote(func), column: first.column, argument: "M", want });
            }
            FunctionKind::Lookup => count(func, first, "M")?,
            FunctionKind::Kdiff | FunctionKind::Kpdiff => count(func, first, "K")?,
            _ => 0,
        };
        Ok(Function { kind: self.kind, first, n })
    }

    /// The function as the original computes it, even if it can never hold; `None` if it never has enough points.
    pub fn function_of_open_falcon(&self) -> Option<Function> {
        let [first, last] = self.arguments.map(|argument| argument.value);
        let values = match self.kind {
            FunctionKind::Diff | FunctionKind::Pdiff => last.saturating_add(1),
            FunctionKind::Kdiff | FunctionKind::Kpdiff => last.saturating_add(first),
            _ => last,
        };
        if values < 1 {
            return None;
        }
        let first = if self.kind.has_two_arguments() { clamp(first) } else { 0 };
        Some(Function { kind: self.kind, first, n: clamp(last) })
    }
}

/// Reads an argument that counts points.
fn count(func: &str, argument: Argument, name: &'static str) -> Result<u32, RuleError> {
    u32::try_from(argument.value).ok().filter(|value| *value >= 1).ok_or_else(|| RuleError::Argument {
        func: quote(func),
        column: argument.column,
        argument: name,
        want: "a whole number from 1".to_string(),
    })
}

fn clamp(value: i64) -> u32 {
    u32::try_from(value.max(0)).unwrap_or(u32::MAX)
}

/// Reads `func` as the original does.
pub(crate) fn parse(func: &str) -> Result<FunctionText, RuleError> {
    let bytes = func.as_bytes();
    let syntax = |at, want| RuleError::Syntax { func: quote(func), column: column(func, at), want };
    let Some(hash) = bytes.iter().position(|b| *b == b'#') else {
        return Err(syntax(name_end(bytes), "`(#` behind the name"));
    };
    if hash == 0 {
        return Err(syntax(0, "a function's name and `(`"));
    }
    let kind =
        FunctionKind::parse(&bytes[..hash - 1]).ok_or_else(|| RuleError::UnknownFunction { func: quote(func) })?;
    // The original drops the last byte unseen; a text that ends with `#` has none to drop.
    let end = (bytes.len() - 1).max(hash + 1);
    let mut arguments = [None; 2];
    let mut at = hash + 1;
    for (i, piece) in bytes[at..end].split(|b| *b == b',').enumerate() {
        // All pieces must be numbers, also those that are ignored.
        let value = signed_number(piece).ok_or_else(|| syntax(at, "a whole number"))?;
        if let Some(argument) = arguments.get_mut(i) {
            *argument = Some(Argument { value, column: column(func, at) });
        }
        at += piece.len() + 1;
    }
    match arguments {
        [Some(first), Some(second)] if kind.has_two_arguments() => {
            Ok(FunctionText { kind, arguments: [first, second] })
        }
        [Some(first), _] if !kind.has_two_arguments() => Ok(FunctionText { kind, arguments: [first; 2] }),
        _ => Err(syntax(end, "`,` and a second number")),
    }
}

/// Reads `func` by the grammar in the header.
pub(crate) fn read_strictly(func: &str) -> Result<FunctionText, RuleError> {
    let bytes = func.as_bytes();
    let syntax = |at, want| RuleError::Syntax { func: quote(func), column: column(func, at), want };
    let name_end = name_end(bytes);
    if name_end == 0 {
        return Err(syntax(0, "a function's name"));
    }
    let kind =
        FunctionKind::parse(&bytes[..name_end]).ok_or_else(|| RuleError::UnknownFunction { func: quote(func) })?;
    if !bytes[name_end..].starts_with(b"(#") {
        return Err(syntax(name_end, "`(#` behind the name"));
    }
    let (first, mut at) = strict_number(func, name_end + 2).map_err(|want| syntax(name_end + 2, want))?;
    let mut second = first;
    if kind.has_two_arguments() {
        if bytes.get(at) != Some(&b',') {
            return Err(syntax(at, "`,` and a second number"));
        }
        let start = at + 1;
        (second, at) = strict_number(func, start).map_err(|want| syntax(start, want))?;
    }
    match &bytes[at..] {
        b")" => Ok(FunctionText { kind, arguments: [first, second] }),
        [b')', ..] => Err(syntax(at + 1, "nothing behind `)`")),
        [b',', ..] => Err(syntax(at, "`)`, as this function takes no further number")),
        _ => Err(syntax(at, "`)`")),
    }
}

pub(crate) fn name_end(text: &[u8]) -> usize {
    text.iter().position(|b| !b.is_ascii_alphanumeric()).unwrap_or(text.len())
}

/// Digits from byte `start` on: the argument and the byte behind it.
pub(crate) fn strict_number(func: &str, start: usize) -> Result<(Argument, usize), &'static str> {
    let digits = func.as_bytes()[start..].iter().take_while(|b| b.is_ascii_digit()).count();
    let text = &func.as_bytes()[start..start + digits];
    match text {
        [] => return Err("a whole number"),
        [b'0', _, ..] => return Err("a whole number without leading zeros"),
        _ => {}
    }
    let value = signed_number(text).ok_or("a smaller number")?;
    Ok((Argument { value, column: column(func, start) }, start + digits))
}

/// Reads decimal digits with an optional sign, within 64 bits, as Go's `strconv.Atoi` does.
fn signed_number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The column of the character that holds byte `at`, from 1.
pub(crate) fn column(text: &str, at: usize) -> usize {
    text.char_indices().take_while(|(start, _)| *start < at).count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Texts of docs/open-falcon/judge.md §10 and of the recorded scenarios 125 to 149.
    #[test]
    fn reads_old_rows_as_the_original_does() {
        let check = |func: &str, kind, values: [i64; 2]| {
            let text = parse(func).expect(func);
            assert_eq!((text.kind, text.arguments.map(|a| a.value)), (kind, values), "{func}");
        };
        check("all(#3)", FunctionKind::All, [3, 3]);
        check("all[#3)", FunctionKind::All, [3, 3]);
        check("all(#3]", FunctionKind::All, [3, 3]);
        check("all(#+3)", FunctionKind::All, [3, 3]);
        check("all(#03)", FunctionKind::All, [3, 3]);
        check("all(#-1)", FunctionKind::All, [-1, -1]);
        check("sum(#2,5)", FunctionKind::Sum, [2, 2]);
        check("lookup(#2,3,9)", FunctionKind::Lookup, [2, 3]);
        for func in [
            "",
            "#",
            "#3",
            "all",
            "all(#",
            "all#",
            "all(#)",
            "all(#3",
            "all (#3)",
            "max(#2,)",
            "lookup(#3)",
            "all(# 3)",
        ] {
            assert!(parse(func).is_err(), "{func}");
        }
    }

    /// Texts near the grammar, and any others.
    fn texts() -> impl Strategy<Value = String> {
        let near = "(all|max|sum|diff|pdiff|lookup|stddev|kdiff|kpdiff|foo|)[(\\[ ]{0,2}#?[+-]?[0-9]{0,4}[, ]{0,2}[0-9]{0,4}[)\\] ]{0,2}";
        prop_oneof![near, "\\PC{0,20}", ".{0,12}#.{0,12}"]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]

        #[test]
        fn what_is_accepted_strictly_is_read_alike_leniently(func in texts()) {
            if let Ok(text) = read_strictly(&func) {
                prop_assert_eq!(parse(&func), Ok(text));
            }
        }
    }
}
