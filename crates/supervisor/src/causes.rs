//! Causes: an error and what led to it, as one line for people.
//!
//! Why: some errors of libraries say their cause themselves and name it as their source, too; written as `{error:#}`
//! does, such a line ends with the same text twice. Others spread a text over several lines.
//! Invariants: nothing that any cause says is missing; nothing is said twice; there is no line break.

use std::error::Error;

/// The text of `error` and those of its causes, each unless it has been said.
pub fn line_of(error: &dyn Error) -> String {
    let mut line = one_line(&error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = one_line(&error.to_string());
        if !line.contains(&more) {
            line.push_str(": ");
            line.push_str(&more);
        }
        cause = error.source();
    }
    line
}

/// A line of causes, joined as `{error:#}` does, without those that only repeat the one before.
pub fn said_once(line: &str) -> String {
    let mut parts: Vec<&str> = line.split(": ").collect();
    parts.dedup();
    parts.join(": ")
}

/// Folds the lines of a text into one.
pub fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;
    use std::fmt;
    use std::io;

    /// An error that says its cause itself, as sqlx's do.
    #[derive(Debug)]
    struct Outer(io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "cannot write log: {}", self.0)
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_line_says_nothing_twice_in_a_row() {
        assert_eq!(
            said_once("no Redis: Connection refused (111): Connection refused (111)"),
            "no Redis: Connection refused (111)"
        );
        assert_eq!(said_once("a: b: a"), "a: b: a");
    }

    #[test]
    fn a_cause_that_its_effect_says_is_said_once() {
        let full = || io::Error::from_raw_os_error(28);
        let said = "cannot write log: No space left on device (os error 28)";
        assert_eq!(line_of(&Outer(full())), said);
        let error = anyhow::Error::new(Outer(full())).context("cannot open the store");
        assert_eq!(line_of(&*error), format!("cannot open the store: {said}"));
        let error = anyhow::Error::new(full()).context("cannot write log");
        assert_eq!(line_of(&*error), said, "a cause that only the source says stays");
    }

    #[test]
    fn lines_are_folded() {
        let error = anyhow!("expected\n  one of\n\n a, b\n").context("cannot read\nit");
        assert_eq!(line_of(&*error), "cannot read it: expected one of a, b");
    }
}
