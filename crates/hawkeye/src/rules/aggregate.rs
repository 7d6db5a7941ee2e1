//! Aggregate: what the two sides of an aggregator mean, and the value that they have over some hosts.
//!
//! Why: `$(cpu.busy)+$(cpu.idle)` over `$#` is the mean of a group; a text that nobody can compute is refused when it
//! is saved, and not left out in silence each minute.
//! How: a side is read into a [`Side`]; per host it has a value where the host has all counters of both sides, and the
//! values of the hosts that have are added up.
//! Invariants: [`compute`] depends on its arguments only.
//! Memory: of what is missing the first [`MISSING_MAX`] counters are named.
//! Compat: the grammar and evaluation of docs/open-falcon/aggregator-nodata-gateway.md §1, byte for byte: blanks are
//! taken away first, a constant is a whole number, and `=` compares exactly.

/// One side of an aggregator.
#[derive(Clone, Debug, PartialEq)]
pub enum Side {
    /// `$#`: the number of hosts that count.
    Hosts,
    /// A whole number.
    Constant(i64),
    /// `$(a)+$(b)-$(c)`.
    Sum(Vec<Term>),
    /// `$(a)>5` or `($(a)+$(b))>=0.5`: 1 of a host for which it holds, else 0.
    Holds(Vec<Term>, Comparison, f64),
}

/// A counter that is added, or taken away.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    pub is_minus: bool,
    /// Metric and tags, `qps/module=judge,project=falcon`.
    pub counter: String,
}

/// How the sum of a condition is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Greater,
    Equal,
    Less,
    GreaterOrEqual,
    LessOrEqual,
}

/// Comparisons as they are written; of two that begin alike the longer one first.
const COMPARISONS: [(&str, Comparison); 5] = [
    (">=", Comparison::GreaterOrEqual),
    ("<=", Comparison::LessOrEqual),
    (">", Comparison::Greater),
    ("<", Comparison::Less),
    ("=", Comparison::Equal),
];

/// Counters of a side. A guess: people add up a handful.
const TERMS_MAX: usize = 100;
/// Counters that are named as missing.
const MISSING_MAX: usize = 10;

/// The forms that a side may have, for errors.
const FORMS: &str = "want $#, a whole number, a sum like $(cpu.busy)+$(cpu.idle), or a condition like $(cpu.busy)>80 or \
                     ($(a)-$(b))>=0.5";

/// Reads both sides. At least one must have a counter.
pub fn parse(numerator: &str, denominator: &str) -> Result<[Side; 2], String> {
    let side = |name: &str, text: &str| parse_side(text).map_err(|error| format!("{name}: {error}"));
    let sides = [side("numerator", numerator)?, side("denominator", denominator)?];
    if sides.iter().all(|side| side.terms().is_empty()) {
        return Err("numerator and denominator have no counter: write one as $(cpu.idle)".to_string());
    }
    if sides[1] == Side::Constant(0) {
        return Err("denominator is 0, and nothing is divided by that: write 1 for the numerator alone".to_string());
    }
    Ok(sides)
}

impl Side {
    /// Counters that a host needs to count.
    pub fn terms(&self) -> &[Term] {
        match self {
            Side::Hosts | Side::Constant(_) => &[],
            Side::Sum(terms) | Side::Holds(terms, ..) => terms,
        }
    }

    /// What a host adds; the first counter without a value where it does not count. `last` gives the value of a term
    /// by its place.
    fn of_host(&self, mut last: impl FnMut(usize) -> Option<f64>) -> Result<f64, &str> {
        let mut sum = 0.0;
        for (place, Term { is_minus, counter }) in self.terms().iter().enumerate() {
            let value = last(place).ok_or(counter.as_str())?;
            sum += if *is_minus { -value } else { value };
        }
        match self {
            Side::Holds(_, comparison, number) => Ok(f64::from(u8::from(comparison.holds(sum, *number)))),
            _ => Ok(sum),
        }
    }
}

impl Comparison {
    fn holds(self, value: f64, number: f64) -> bool {
        match self {
            Comparison::Greater => value > number,
            Comparison::Equal => value == number,
            Comparison::Less => value < number,
            Comparison::GreaterOrEqual => value >= number,
            Comparison::LessOrEqual => value <= number,
        }
    }
}

/// The two sides over some hosts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Computed {
    pub numerator: f64,
    pub denominator: f64,
    /// Hosts that have all counters.
    pub valid: usize,
    /// Hosts (by their place) and counters without a value, the first of them.
    pub missing: Vec<(usize, String)>,
}

impl Computed {
    /// The value of the series; none where no host counts, or nothing is to be divided by.
    pub fn value(&self) -> Option<f64> {
        let value = self.numerator / self.denominator;
        Some(value).filter(|value| self.valid > 0 && self.denominator != 0.0 && value.is_finite())
    }
}

/// Computes both sides over `hosts` hosts; `last` gives the value of a term of one of them, each by its place: first
/// the terms of the numerator, then those of the denominator.
pub fn compute(sides: &[Side; 2], hosts: usize, mut last: impl FnMut(usize, usize) -> Option<f64>) -> Computed {
    let mut computed = Computed::default();
    let mut sums = [0.0; 2];
    let places = [(&sides[0], 0), (&sides[1], sides[0].terms().len())];
    for host in 0..hosts {
        let values = places.map(|(side, first)| {
            let value = side.of_host(|place| last(host, first + place));
            value.map_err(|counter| {
                if computed.missing.len() < MISSING_MAX {
                    computed.missing.push((host, counter.to_string()));
                }
            })
        });
        if let [Ok(numerator), Ok(denominator)] = values {
            computed.valid += 1;
            sums = [sums[0] + numerator, sums[1] + denominator];
        }
    }
    let whole = |side: &Side, sum: f64| match side {
        Side::Hosts => computed.valid as f64,
        Side::Constant(number) => *number as f64,
        Side::Sum(_) | Side::Holds(..) => sum,
    };
    (computed.numerator, computed.denominator) = (whole(&sides[0], sums[0]), whole(&sides[1], sums[1]));
    computed
}

fn parse_side(text: &str) -> Result<Side, String> {
    if let Some(wide) = text.chars().find(|c| "（）＄＃＋－＞＜＝".contains(*c)) {
        return Err(format!("{wide:?} is a wide character: type the narrow one"));
    }
    let text: String = text.chars().filter(|c| !matches!(c, ' ' | '\t' | '\r' | '\n')).collect();
    if text == "$#" {
        return Ok(Side::Hosts);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(Side::Constant).map_err(|_| format!("{text} is too large a number"));
    }
    if let Some(inside) = text.strip_prefix('(') {
        let (terms, rest) = parse_sum(inside)?;
        let rest = rest.strip_prefix(')').ok_or_else(|| format!("no `)` before {rest:?}: {FORMS}"))?;
        return parse_comparison(terms, rest);
    }
    let (terms, rest) = parse_sum(&text)?;
    match (rest, terms.len()) {
        ("", _) => Ok(Side::Sum(terms)),
        (rest, 1) => parse_comparison(terms, rest),
        (rest, _) => Err(format!("{rest:?} behind a sum: put the sum in parentheses to compare it, and {FORMS}")),
    }
}

/// The terms at the beginning of a text, and what is behind them.
fn parse_sum(text: &str) -> Result<(Vec<Term>, &str), String> {
    let (mut terms, mut rest, mut is_minus) = (Vec::new(), text, false);
    loop {
        let inside = rest.strip_prefix("$(").ok_or_else(|| format!("{rest:?} is no $(counter): {FORMS}"))?;
        let end = inside.find(['(', ')']).filter(|at| inside[*at..].starts_with(')'));
        let end = end.ok_or_else(|| format!("$({inside} has no `)`, or a `(` in it: {FORMS}"))?;
        if end == 0 {
            return Err(format!("$() names no counter: {FORMS}"));
        }
        if terms.len() == TERMS_MAX {
            return Err(format!(
                "more than {TERMS_MAX} counters on one side: compute a part of them by an aggregator first"
            ));
        }
        terms.push(Term { is_minus, counter: canonical(&inside[..end])? });
        rest = &inside[end + 1..];
        is_minus = match rest.as_bytes().first() {
            Some(b'+') => false,
            Some(b'-') => true,
            _ => return Ok((terms, rest)),
        };
        rest = &rest[1..];
    }
}

/// A counter whose tags are in the order in which points have them.
fn canonical(counter: &str) -> Result<String, String> {
    let Some((metric, tags)) = counter.split_once('/').filter(|(_, tags)| tags.contains('=')) else {
        return Ok(counter.to_string());
    };
    if let Some(piece) = tags.split(',').find(|piece| piece.split_once('=').is_none_or(|(key, _)| key.is_empty())) {
        return Err(format!("$({counter}): {piece:?} is not of the form key=value (joined by commas)"));
    }
    let mut scratch = String::new();
    Ok(format!("{metric}/{}", model::Tags::canonical(tags, &mut scratch).as_str()))
}

fn parse_comparison(terms: Vec<Term>, text: &str) -> Result<Side, String> {
    let found = COMPARISONS.iter().find_map(|(sign, comparison)| Some((text.strip_prefix(sign)?, *comparison)));
    let (number, comparison) = found.ok_or_else(|| format!("{text:?} is none of > = < >= <=: {FORMS}"))?;
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if !is_digits(whole) || !is_digits(fraction) {
        return Err(format!("{number:?} is no number like 5 or 0.5: {FORMS}"));
    }
    let number = number.parse().map_err(|_| format!("{number:?} is no number: {FORMS}"))?;
    Ok(Side::Holds(terms, comparison, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(terms: &[&str]) -> Vec<Term> {
        let term = |text: &&str| Term {
            is_minus: text.starts_with('-'),
            counter: text.trim_start_matches(['+', '-']).to_string(),
        };
        terms.iter().map(term).collect()
    }

    #[test]
    fn sides_are_read() {
        let check = |text: &str, expected: Side| assert_eq!(parse_side(text), Ok(expected), "{text:?}");
        check("$#", Side::Hosts);
        check(" $ #\r\n", Side::Hosts);
        check("100", Side::Constant(100));
        check("$(cpu.idle)", Side::Sum(sum(&["cpu.idle"])));
        check("$(a) + $(b) - $(c/k=v,l=w)", Side::Sum(sum(&["a", "b", "-c/k=v,l=w"])));
        check("$(cpu busy)", Side::Sum(sum(&["cpubusy"])));
        check("$(qps/b=2,a=1)", Side::Sum(sum(&["qps/a=1,b=2"])));
        check("$(a/b)", Side::Sum(sum(&["a/b"])));
        check("$(a)>5", Side::Holds(sum(&["a"]), Comparison::Greater, 5.0));
        check("$(a)=0.50", Side::Holds(sum(&["a"]), Comparison::Equal, 0.5));
        check("($(a))<=1", Side::Holds(sum(&["a"]), Comparison::LessOrEqual, 1.0));
        check("( $(a) - $(b) ) >= 12.25", Side::Holds(sum(&["a", "-b"]), Comparison::GreaterOrEqual, 12.25));
        check("$(a)<0", Side::Holds(sum(&["a"]), Comparison::Less, 0.0));
    }

    #[test]
    fn what_is_no_side_is_told() {
        let check = |text: &str, part: &str| {
            let error = parse_side(text).expect_err(text);
            assert!(error.contains(part), "{text:?}: {error}");
        };
        check("", "is no $(counter)");
        check("cpu.idle", "\"cpu.idle\" is no $(counter)");
        check("1.5", "is no $(counter)");
        check("-1", "is no $(counter)");
        check("99999999999999999999", "too large");
        check("$(a)*100", "\"*100\" is none of");
        check("$(a)/$(b)", "\"/$(b)\" is none of");
        check("$(a)+5", "\"5\" is no $(counter)");
        check("5+$(a)", "is no $(counter)");
        check("$(a)+$(b)>5", "put the sum in parentheses");
        check("$(a)>-5", "\"-5\" is no number");
        check("$(a)>5.", "\"5.\" is no number");
        check("$(a)>1e3", "\"1e3\" is no number");
        check("$(a)==5", "\"=5\" is no number");
        check("$(a)!=5", "\"!=5\" is none of");
        check("$(a/b=1,c)", "\"c\" is not of the form key=value");
        check(&["$(a)"; 101].join("+"), "more than 100 counters");
        check("$()", "names no counter");
        check("$(a", "has no `)`");
        check("$(a(b))", "has no `)`");
        check("($(a)", "no `)` before \"\"");
        check("($(a))", "\"\" is none of");
        check("（$(a)）>5", "wide character");
    }

    #[test]
    fn two_sides_have_a_counter_between_them() {
        assert!(parse("$#", "1").is_err_and(|error| error.contains("have no counter")));
        assert!(parse("$(a)", "0").is_err_and(|error| error.contains("denominator is 0")));
        assert!(parse("$(a", "1").is_err_and(|error| error.starts_with("numerator: ")));
        assert!(parse("1", "a").is_err_and(|error| error.starts_with("denominator: ")));
        assert_eq!(parse("$#", "$(a)"), Ok([Side::Hosts, Side::Sum(sum(&["a"]))]));
    }

    #[test]
    fn hosts_that_have_all_counters_are_added_up() {
        // Hosts 0 to 3 have a = 1, 2, 3, 4; all but the last have b = 10.
        let last = |host: usize, counter: &str| match (counter, host) {
            ("a", host) => Some(host as f64 + 1.0),
            ("b", ..=2) => Some(10.0),
            _ => None,
        };
        let check = |numerator: &str, denominator: &str, valid: usize, value: Option<f64>| {
            let sides = parse(numerator, denominator).expect("sides");
            let terms: Vec<&str> = sides.iter().flat_map(Side::terms).map(|term| term.counter.as_str()).collect();
            let computed = compute(&sides, 4, |host, term| last(host, terms[term]));
            assert_eq!((computed.valid, computed.value()), (valid, value), "{numerator} / {denominator}: {computed:?}");
            computed
        };
        check("$(a)", "$#", 4, Some(2.5));
        check("$(a)+$(b)", "$#", 3, Some(12.0));
        check("$(a)", "$(b)", 3, Some(0.2));
        check("$(a)-$(b)", "1", 3, Some(-24.0));
        check("$(a)>2", "1", 4, Some(2.0));
        check("$(a)>=2", "$#", 4, Some(0.75));
        check("($(a)+$(b))=12", "1", 3, Some(1.0));
        check("$(a)<1", "$#", 4, Some(0.0));
        check("$#", "$(a)<=4", 4, Some(1.0));
        check("100", "$(b)", 3, Some(100.0 / 30.0));
        // Nothing is divided by zero.
        check("1", "$(a)>9", 4, None);
        let none = check("$(c)", "$#", 0, None);
        assert_eq!(none.missing, [0, 1, 2, 3].map(|host| (host, "c".to_string())));
        let sides = parse("$(c)", "1").expect("sides");
        assert_eq!(compute(&sides, 1000, |_, _| None).missing.len(), MISSING_MAX);
    }
}
