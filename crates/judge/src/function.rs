//! Functions and operators: from the newest values of a series to "holds or not" and the value to report.
//!
//! How: plain arithmetic over a slice of values, newest first, in the original's order of operations, so that sums
//! round alike. Compat: docs/open-falcon/judge.md §4 and §10; each function is pinned by `tests/vectors.rs`.
//!
//! Unknown values (NaN; made by `values.rs` under `Semantics::Hawkeye` only): [`Comparison::judge_partly`] answers only
//! if no value that the unknown ones could have had would change the answer. So `all(#3)` recovers at the first good
//! point after a hole, `lookup(#3,10)` fires on three known bad points although a counter was reset between them, and
//! an average with a hole says nothing.

/// A function, an operator and a threshold: the compiled form of a rule's `func`, `operator` and `rightValue`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Comparison {
    pub function: Function,
    pub operator: Operator,
    /// The threshold, or the lower end of a range.
    pub right: f64,
    /// The upper end of a range; equal to `right` where there is none.
    pub high: f64,
}

const _: () = assert!(size_of::<Comparison>() == 32);

/// A function with its arguments as numbers of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub kind: FunctionKind,
    /// M of `lookup`, K of `kdiff` and `kpdiff`; else 0.
    pub first: u32,
    /// N, the last argument of all functions.
    pub n: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FunctionKind {
    All,
    Max,
    Min,
    Sum,
    Avg,
    Diff,
    Pdiff,
    Lookup,
    Stddev,
    Kdiff,
    Kpdiff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Within a range, its ends included.
    Inside,
    /// Beyond either end of a range.
    Outside,
    /// A comparison that never holds: what the original makes of any other text.
    Never,
}

/// Whether a rule holds, and its reported value (`leftValue`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub holds: bool,
    pub left: f64,
}

/// Values closer than this are equal; the original's number.
const EQUAL_WITHIN: f64 = 0.0001;

impl FunctionKind {
    pub fn parse(name: &[u8]) -> Option<FunctionKind> {
        Some(match name {
            b"all" => FunctionKind::All,
            b"max" => FunctionKind::Max,
            b"min" => FunctionKind::Min,
            b"sum" => FunctionKind::Sum,
            b"avg" => FunctionKind::Avg,
            b"diff" => FunctionKind::Diff,
            b"pdiff" => FunctionKind::Pdiff,
            b"lookup" => FunctionKind::Lookup,
            b"stddev" => FunctionKind::Stddev,
            b"kdiff" => FunctionKind::Kdiff,
            b"kpdiff" => FunctionKind::Kpdiff,
            _ => return None,
        })
    }

    /// Whether the function takes two numbers: `lookup(#M,N)`, `kdiff(#K,N)`, `kpdiff(#K,N)`.
    pub fn has_two_arguments(self) -> bool {
        matches!(self, FunctionKind::Lookup | FunctionKind::Kdiff | FunctionKind::Kpdiff)
    }
}

impl Function {
    /// The number of values that the function looks at; a counter needs one point more.
    pub fn values_needed(self) -> u64 {
        let extra = match self.kind {
            FunctionKind::Diff | FunctionKind::Pdiff => 1,
            FunctionKind::Kdiff | FunctionKind::Kpdiff => self.first,
            _ => 0,
        };
        u64::from(self.n) + u64::from(extra)
    }
}

impl Operator {
    /// Whether the operator compares with a range.
    pub fn is_range(self) -> bool {
        matches!(self, Operator::Inside | Operator::Outside)
    }

    pub fn parse(text: &str) -> Option<Operator> {
        Some(match text {
            "=" | "==" => Operator::Equal,
            "!=" => Operator::NotEqual,
            "<" => Operator::Less,
            "<=" => Operator::LessOrEqual,
            ">" => Operator::Greater,
            ">=" => Operator::GreaterOrEqual,
            _ => return None,
        })
    }
}

impl Comparison {
    /// Judges values that are all known; `values.len() == function.values_needed()`, at least 1.
    pub fn judge(&self, values: &[f64]) -> Verdict {
        let n = self.function.n as usize;
        let newest = values[0];
        match self.function.kind {
            FunctionKind::All => Verdict { holds: values.iter().all(|v| self.test(*v)), left: newest },
            FunctionKind::Max => self.verdict(values.iter().fold(newest, |max, v| if max < *v { *v } else { max })),
            FunctionKind::Min => self.verdict(values.iter().fold(newest, |min, v| if min > *v { *v } else { min })),
            FunctionKind::Sum => self.verdict(sum(values)),
            FunctionKind::Avg => self.verdict(sum(values) / n as f64),
            FunctionKind::Diff => self.any_difference(newest, &values[1..], difference),
            FunctionKind::Pdiff => self.any_difference(newest, &values[1..], percent_of_old),
            FunctionKind::Lookup => {
                let count = values.iter().filter(|v| self.test(**v)).count();
                Verdict { holds: self.function.first > 0 && count >= self.function.first as usize, left: newest }
            }
            FunctionKind::Stddev => Verdict { holds: self.is_outlier(values), left: newest },
            FunctionKind::Kdiff => self.all_differences(values, difference),
            FunctionKind::Kpdiff => self.all_differences(values, percent_of_new),
        }
    }

    /// Judges values of which at least one is unknown (NaN): an answer only if it is sure.
    pub fn judge_partly(&self, values: &[f64]) -> Option<Verdict> {
        let newest = values[0];
        if newest.is_nan() {
            return None;
        }
        match self.function.kind {
            FunctionKind::All => {
                let fails = values.iter().any(|v| !v.is_nan() && !self.test(*v));
                fails.then_some(Verdict { holds: false, left: newest })
            }
            FunctionKind::Lookup => self.lookup_partly(values),
            FunctionKind::Max => {
                self.extreme_partly(values.iter().fold(newest, |max, v| if max < *v { *v } else { max }))
            }
            FunctionKind::Min => {
                self.extreme_partly(values.iter().fold(newest, |min, v| if min > *v { *v } else { min }))
            }
            FunctionKind::Diff => Some(self.any_difference(newest, &values[1..], difference)).filter(|v| v.holds),
            FunctionKind::Pdiff => Some(self.any_difference(newest, &values[1..], percent_of_old)).filter(|v| v.holds),
            FunctionKind::Sum
            | FunctionKind::Avg
            | FunctionKind::Stddev
            | FunctionKind::Kdiff
            | FunctionKind::Kpdiff => None,
        }
    }

    /// Compares one value. NaN fulfils no comparison.
    pub fn test(&self, left: f64) -> bool {
        match self.operator {
            Operator::Equal => (left - self.right).abs() < EQUAL_WITHIN,
            Operator::NotEqual => (left - self.right).abs() > EQUAL_WITHIN,
            Operator::Less => left < self.right,
            Operator::LessOrEqual => left <= self.right,
            Operator::Greater => left > self.right,
            Operator::GreaterOrEqual => left >= self.right,
            Operator::Inside => left >= self.right && left <= self.high,
            Operator::Outside => left < self.right || left > self.high,
            Operator::Never => false,
        }
    }

    fn verdict(&self, left: f64) -> Verdict {
        Verdict { holds: self.test(left), left }
    }

    /// The first difference that fulfils the comparison, else the last one; 0 if there is none.
    fn any_difference(&self, newest: f64, older: &[f64], difference: fn(f64, f64) -> Option<f64>) -> Verdict {
        let mut left = 0.0;
        for old in older {
            let Some(value) = difference(newest, *old) else { continue };
            left = value;
            if self.test(value) {
                return Verdict { holds: true, left };
            }
        }
        Verdict { holds: false, left }
    }

    /// Compares each of the N newest with each of the K oldest; stops at the first that fails, and at a zero among the
    /// K newest.
    fn all_differences(&self, values: &[f64], difference: fn(f64, f64) -> Option<f64>) -> Verdict {
        let (n, k) = (self.function.n as usize, self.function.first as usize);
        let mut left = 0.0;
        for i in 0..k {
            if values[i] == 0.0 {
                return Verdict { holds: false, left };
            }
            let old = values[n + k - 1 - i];
            for newer in &values[..n] {
                // percent_of_new always has an answer, if only NaN or an infinity.
                left = difference(*newer, old).unwrap_or(0.0);
                if !self.test(left) {
                    return Verdict { holds: false, left };
                }
            }
        }
        Verdict { holds: n > 0 && k > 0, left }
    }

    /// Whether the newest value lies outside the band around the mean. The operator is ignored, as in the original.
    fn is_outlier(&self, values: &[f64]) -> bool {
        let count = values.len() as f64;
        let mean = sum(values) / count;
        let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count;
        let band = self.right * variance.sqrt();
        values[0] < mean - band || values[0] > mean + band
    }

    fn lookup_partly(&self, values: &[f64]) -> Option<Verdict> {
        let wanted = self.function.first as usize;
        let unknown = values.iter().filter(|v| v.is_nan()).count();
        let count = values.iter().filter(|v| self.test(**v)).count();
        let left = values[0];
        if count >= wanted {
            return Some(Verdict { holds: true, left });
        }
        (count + unknown < wanted).then_some(Verdict { holds: false, left })
    }

    /// The verdict on a maximum or minimum with unknown values, which could only push a maximum up and a minimum down.
    fn extreme_partly(&self, extreme: f64) -> Option<Verdict> {
        let verdict = self.verdict(extreme);
        let is_max = self.function.kind == FunctionKind::Max;
        let sure = match self.operator {
            Operator::Greater | Operator::GreaterOrEqual => verdict.holds == is_max,
            Operator::Less | Operator::LessOrEqual => verdict.holds != is_max,
            // Beyond one end of the range already, and an unknown value could only push it further.
            Operator::Inside => !verdict.holds && if is_max { extreme > self.high } else { extreme < self.right },
            Operator::Outside => verdict.holds && if is_max { extreme > self.high } else { extreme < self.right },
            Operator::Equal | Operator::NotEqual | Operator::Never => false,
        };
        sure.then_some(verdict)
    }
}

/// The sum of values, newest first, from a positive zero: the original's order, so that the last digits agree.
fn sum(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |sum, v| sum + v)
}

fn difference(new: f64, old: f64) -> Option<f64> {
    Some(new - old)
}

fn percent_of_old(new: f64, old: f64) -> Option<f64> {
    (old != 0.0).then(|| (new - old) / old * 100.0)
}

/// The difference in percent of the newer value, as the original computes `kpdiff`; `pdiff` divides by the older one.
fn percent_of_new(new: f64, old: f64) -> Option<f64> {
    Some((new - old) / new * 100.0)
}

#[cfg(test)]
#[path = "function/tests.rs"]
mod tests;
