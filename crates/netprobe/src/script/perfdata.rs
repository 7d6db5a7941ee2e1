//! Perfdata: figures behind a `|` in the output of a Nagios plugin (monitoring-plugins.org, "Performance data").
//!
//! How: `'label'=value[unit];[warn];[crit];[min];[max]`, separated by blanks. Value and unit become a reading,
//! thresholds do not: rules are made elsewhere. A unit `c` is a counter.
//! Invariants: a value is as the plugin gave it; units are not converted, and stand in the tags.
//! Memory: [`FIGURES_MAX`] readings per run.

use model::CounterType;
use probe::Reading;

/// Figures of a run that are taken; plugins of many disks give some tens.
pub(crate) const FIGURES_MAX: usize = 64;
/// Characters of a label.
const LABEL_MAX: usize = 64;
/// Characters of a unit; `TB` and `days` are long ones.
const UNIT_MAX: usize = 8;

/// Name of the readings.
const METRIC: &str = "probe.script.perf";

/// What a plugin's output says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Said {
    /// First line, without its figures.
    pub text: String,
    pub figures: Vec<Reading>,
    /// Figures that cannot be read, or are too many.
    pub dropped: usize,
}

/// Reads the output of a plugin.
pub(crate) fn read(output: &str) -> Said {
    let (first, rest) = output.split_once('\n').unwrap_or((output, ""));
    let (text, of_first) = first.split_once('|').unwrap_or((first, ""));
    // Behind a `|` in the longer text all lines to the end are figures.
    let of_rest = rest.split_once('|').map_or("", |(_, figures)| figures);
    let mut said = Said { text: text.trim().to_string(), ..Said::default() };
    for figures in [of_first, of_rest] {
        said.take(figures);
    }
    said
}

impl Said {
    fn take(&mut self, mut rest: &str) {
        loop {
            rest = rest.trim_start();
            if rest.is_empty() {
                return;
            }
            let Some((label, behind)) = label(rest) else {
                // Nothing is left that has a label.
                self.dropped += 1;
                return;
            };
            let end = behind.find(char::is_whitespace).unwrap_or(behind.len());
            let (value, behind) = behind.split_at(end);
            rest = behind;
            match figure(&label, value) {
                Figure::Unknown => {}
                Figure::Known(reading) if self.figures.len() < FIGURES_MAX => self.figures.push(reading),
                _ => self.dropped += 1,
            }
        }
    }
}

/// A label, with or without quotes, and what stands behind its `=`.
fn label(text: &str) -> Option<(String, &str)> {
    let Some(mut quoted) = text.strip_prefix('\'') else {
        let (label, behind) = text.split_once('=')?;
        return Some((label.to_string(), behind));
    };
    let mut label = String::new();
    loop {
        let (part, behind) = quoted.split_once('\'')?;
        label.push_str(part);
        match behind.strip_prefix('\'') {
            // Two quotes are one in the label.
            Some(more) => {
                label.push('\'');
                quoted = more;
            }
            None => return Some((label, behind.strip_prefix('=')?)),
        }
    }
}

enum Figure {
    Known(Reading),
    /// `U`, by which a plugin says that it does not know.
    Unknown,
    Broken,
}

fn figure(label: &str, text: &str) -> Figure {
    let text = text.split(';').next().unwrap_or_default();
    if text == "U" {
        return Figure::Unknown;
    }
    let is_of_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+');
    let end = text.find(|c| !is_of_number(c)).unwrap_or(text.len());
    // An exponent is followed by its sign or digits, a unit is not.
    let tail = &text[end..];
    let exponent = tail.strip_prefix(['e', 'E']).map(|tail| tail.find(|c| !is_of_number(c)).unwrap_or(tail.len()));
    let end = end + exponent.filter(|digits| *digits > 0).map_or(0, |digits| digits + 1);
    let (number, unit) = text.split_at(end);
    let is_unit = unit.chars().count() <= UNIT_MAX && unit.chars().all(|c| c.is_alphabetic() || c == '%');
    match number.parse::<f64>() {
        Ok(value) if value.is_finite() && is_unit && !label.trim().is_empty() => {
            let unit_tag = if unit.is_empty() { String::new() } else { format!(",unit={unit}") };
            let tags = format!("label={}{unit_tag}", clean(label));
            let counter_type = if unit == "c" { CounterType::Counter } else { CounterType::Gauge };
            Figure::Known(Reading { metric: METRIC.into(), tags, value, counter_type })
        }
        _ => Figure::Broken,
    }
}

/// A label that no tag is broken by.
fn clean(label: &str) -> String {
    let is_bad = |c: char| c.is_control() || matches!(c, ',' | '=' | ' ');
    label.trim().chars().take(LABEL_MAX).map(|c| if is_bad(c) { '_' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(output: &str, text: &str, figures: &[(&str, f64)], dropped: usize) {
        let said = read(output);
        let got: Vec<(&str, f64)> = said.figures.iter().map(|r| (r.tags.as_str(), r.value)).collect();
        assert_eq!((said.text.as_str(), &got[..], said.dropped), (text, figures, dropped), "{output}");
    }

    #[test]
    fn lines_of_plugins() {
        check("OK", "OK", &[], 0);
        check("", "", &[], 0);
        check("OK - fine | /=2643MB;5948;5958;0;5968", "OK - fine", &[("label=/,unit=MB", 2643.0)], 0);
        check(
            "DISK OK|/=10%;80;90 'a b'=-1.5s 'it''s'=3\nlong\ntext | /boot=68MB;88;93;0;98\n/home=U\nx=1e3B",
            "DISK OK",
            &[
                ("label=/,unit=%", 10.0),
                ("label=a_b,unit=s", -1.5),
                ("label=it's", 3.0),
                ("label=/boot,unit=MB", 68.0),
                ("label=x,unit=B", 1000.0),
            ],
            0,
        );
        check("OK | a,b=c=1", "OK", &[], 1);
        check("OK | 'a,b=c'=1", "OK", &[("label=a_b_c", 1.0)], 0);
    }

    #[test]
    fn what_is_broken_is_counted() {
        check("OK | a=1 b=x c=0,5 d=2", "OK", &[("label=a", 1.0), ("label=d", 2.0)], 2);
        check("OK | nonsense", "OK", &[], 1);
        check("OK | 'open=1", "OK", &[], 1);
        check("OK | =5 a=1e999 b=1toolongunit", "OK", &[], 3);
        let many: String = (0..100).map(|i| format!(" l{i}={i}")).collect();
        let said = read(&format!("OK |{many}"));
        assert_eq!((said.figures.len(), said.dropped), (FIGURES_MAX, 100 - FIGURES_MAX));
    }

    #[test]
    fn no_output_breaks_a_tag_or_ends_it() {
        let sound = "OK - fine | /=2643MB;5948;5958;0;5968 'it''s, a=b'=1e5c\nlong\ntext | x=-1.5s\ny=U";
        crate::tests::world::broken_forms(sound.as_bytes(), |bytes| {
            for reading in read(&String::from_utf8_lossy(bytes)).figures {
                assert!(reading.value.is_finite(), "{reading:?}");
                assert_eq!(model::tags::canonical_string(&reading.tags), reading.tags);
            }
        });
    }

    #[test]
    fn a_unit_c_is_a_counter() {
        assert_eq!(read("OK | n=5c").figures[0].counter_type, CounterType::Counter);
        assert_eq!(read("OK | n=5").figures[0].counter_type, CounterType::Gauge);
    }
}
