//! Fault: what failed in a round, and what of that the log has been told.
//!
//! Why: a server that does not answer does so each minute. The log gets its first failure and its recovery.
//! Memory: the names of what fails now, [`TOLD_MAX`] at most.

use probe::ProbeError;
use std::collections::BTreeSet;

/// Names that are remembered; a collector has some dozens of things that can fail.
const TOLD_MAX: usize = 256;

/// Something that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Name of what failed: a file, a server, a program.
    pub of: String,
    pub why: String,
}

impl Fault {
    /// Fault of a file.
    pub fn of_file(error: &ProbeError) -> Fault {
        Fault { of: error.file().display().to_string(), why: error.to_string() }
    }
}

/// What fails at present, and was told.
#[derive(Debug, Default)]
pub struct Told(BTreeSet<String>);

impl Told {
    /// Takes the faults of a round; gives those that are new, and the names that work again.
    pub fn take<'f>(&mut self, faults: &'f [Fault]) -> (Vec<&'f Fault>, Vec<String>) {
        let failing: BTreeSet<&str> = faults.iter().map(|fault| fault.of.as_str()).collect();
        let well: Vec<String> = self.0.iter().filter(|of| !failing.contains(of.as_str())).cloned().collect();
        self.0.retain(|of| failing.contains(of.as_str()));
        let mut fresh = Vec::new();
        for fault in faults {
            if self.0.len() < TOLD_MAX && self.0.insert(fault.of.clone()) {
                fresh.push(fault);
            }
        }
        (fresh, well)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_and_the_recovery_are_told() {
        let mut told = Told::default();
        let mut check = |failing: &[&str], fresh: &[&str], well: &[&str]| {
            let faults: Vec<Fault> =
                failing.iter().map(|of| Fault { of: of.to_string(), why: "because".into() }).collect();
            let (now_fresh, now_well) = told.take(&faults);
            let now_fresh: Vec<&str> = now_fresh.iter().map(|fault| fault.of.as_str()).collect();
            assert_eq!((now_fresh, now_well), (fresh.to_vec(), well.iter().map(|of| of.to_string()).collect()));
        };
        check(&["a", "b", "a"], &["a", "b"], &[]);
        check(&["a"], &[], &["b"]);
        check(&["a", "b"], &["b"], &[]);
        check(&[], &[], &["a", "b"]);
        check(&[], &[], &[]);
    }
}
