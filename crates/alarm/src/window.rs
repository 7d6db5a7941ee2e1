//! Window: times of the week, as routes, silences and rotas have them: `mon-fri 09:00-18:00`.
//!
//! How: spans of minutes on some weekdays, in a zone. A span whose end is not behind its beginning goes on into the
//! next day; `00:00-24:00` is a whole one.
//! Invariants: local times decide, so a night in which the clock changes has an hour more or less; a time that such a
//! night leaves out is taken as the moment of the change. Whether a moment is inside changes at
//! [`next_change`](Window::next_change) and at no moment before.

use jiff::Timestamp;
use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;

/// Spans of one window; a week has seven days.
const SPANS_MAX: usize = 32;
const DAY_MINUTES: u16 = 24 * 60;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// Days ahead in which a change is looked for: a week, the day before it whose span goes on, and the day behind.
const AHEAD: i64 = 9;

/// Times of the week in a zone.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    zone: TimeZone,
    spans: Vec<Span>,
}

/// Minutes of some days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    /// Bit 0 is Monday.
    days: u8,
    from: u16,
    /// Above `from`; beyond a day's minutes on the next day.
    until: u16,
}

impl Window {
    /// Reads texts like `mon-fri,sun 09:00-18:00`; days may be left out, and hours. All that is wrong is told.
    pub fn parse(texts: &[impl AsRef<str>], zone: TimeZone) -> Result<Window, Vec<String>> {
        let (mut spans, mut faults) = (Vec::new(), Vec::new());
        for text in texts {
            match span(text.as_ref().trim()) {
                Some(span) => spans.push(span),
                None => faults.push(format!(
                    "{:?} is no time of the week: give one like mon-fri 09:00-18:00, sat,sun or 22:00-06:00",
                    text.as_ref()
                )),
            }
        }
        if spans.len() > SPANS_MAX {
            faults.push(format!("{} times of the week: give at most {SPANS_MAX}", spans.len()));
        }
        if faults.is_empty() { Ok(Window { zone, spans }) } else { Err(faults) }
    }

    /// Whether a moment (Unix seconds) is inside.
    pub fn contains(&self, at: i64) -> bool {
        let today = self.date(at);
        [today.yesterday(), Ok(today)]
            .into_iter()
            .flatten()
            .any(|date| self.on(date).any(|(from, until)| (from..until).contains(&at)))
    }

    /// The next moment at which [`contains`](Window::contains) is another; none where it never is.
    pub fn next_change(&self, at: i64) -> Option<i64> {
        let is_inside = self.contains(at);
        let mut edges: Vec<i64> = Vec::new();
        let mut date = self.date(at).yesterday().ok()?;
        for _ in 0..AHEAD {
            edges.extend(self.on(date).flat_map(|(from, until)| [from, until]));
            date = date.tomorrow().ok()?;
        }
        edges.retain(|edge| *edge > at);
        edges.sort_unstable();
        edges.into_iter().find(|edge| self.contains(*edge) != is_inside)
    }

    /// Begins and ends of the spans that begin on a day.
    fn on(&self, date: Date) -> impl Iterator<Item = (i64, i64)> {
        let bit = 1 << date.weekday().to_monday_zero_offset();
        self.spans
            .iter()
            .filter(move |span| span.days & bit != 0)
            .filter_map(move |span| Some((self.moment(date, span.from)?, self.moment(date, span.until)?)))
    }

    fn moment(&self, date: Date, minute: u16) -> Option<i64> {
        let date = if minute >= DAY_MINUTES { date.tomorrow().ok()? } else { date };
        let minute = minute % DAY_MINUTES;
        moment(&self.zone, date, Time::new((minute / 60) as i8, (minute % 60) as i8, 0, 0).ok()?)
    }

    fn date(&self, at: i64) -> Date {
        date_of(&self.zone, at)
    }
}

/// The moment of a local time: the first of two, and the change of the clock where there is none.
pub(crate) fn moment(zone: &TimeZone, date: Date, time: Time) -> Option<i64> {
    Some(zone.to_ambiguous_zoned(date.to_datetime(time)).compatible().ok()?.timestamp().as_second())
}

/// The local day of a moment; of one that no calendar holds, the nearest that one does.
pub(crate) fn date_of(zone: &TimeZone, at: i64) -> Date {
    let nearest = if at < 0 { Timestamp::MIN } else { Timestamp::MAX };
    zone.to_datetime(Timestamp::from_second(at).unwrap_or(nearest)).date()
}

fn span(text: &str) -> Option<Span> {
    let (days, hours) = match text.split_once(char::is_whitespace) {
        Some((days, hours)) => (days, hours.trim()),
        None if text.contains(':') => ("mon-sun", text),
        None => (text, "00:00-24:00"),
    };
    let (from, until) = hours.split_once('-')?;
    let (from, until) = (minute(from)?, minute(until)?);
    if from == DAY_MINUTES {
        return None;
    }
    let until = if until <= from { until + DAY_MINUTES } else { until };
    let days = days.split(',').map(days_of).try_fold(0, |all, days| Some(all | days?))?;
    Some(Span { days, from, until })
}

/// `mon` or `fri-mon`, as bits.
fn days_of(text: &str) -> Option<u8> {
    let day = |name: &str| DAYS.iter().position(|known| name.trim().eq_ignore_ascii_case(known));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (day(first)?, day(last)?);
    let length = (last + 7 - first) % 7;
    Some((0..=length).fold(0, |days, step| days | 1 << ((first + step) % 7)))
}

/// `HH:MM`, to `24:00`.
fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let is_number = |text: &str, digits| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    if !(is_number(hours, 2) || is_number(hours, 1)) || !is_number(minutes, 2) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    (minutes < 60 && hours * 60 + minutes <= DAY_MINUTES).then_some(hours * 60 + minutes)
}

/// A weekday's name as it is written here.
pub fn day_name(day: Weekday) -> &'static str {
    DAYS[usize::from(day.to_monday_zero_offset().unsigned_abs())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Central Europe, as it has changed its clock since 1996.
    pub fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone")
    }

    fn at(text: &str) -> i64 {
        text.parse::<jiff::civil::DateTime>().expect(text).to_zoned(berlin()).expect(text).timestamp().as_second()
    }

    fn window(texts: &[&str]) -> Window {
        Window::parse(texts, berlin()).expect("a window")
    }

    #[test]
    fn times_of_the_week() {
        let check = |texts: &[&str], time: &str, expected: bool| {
            assert_eq!(window(texts).contains(at(time)), expected, "{texts:?} {time}");
        };
        // 2026-11-30 is a Monday.
        check(&["mon-fri 09:00-18:00"], "2026-11-30T09:00:00", true);
        check(&["mon-fri 09:00-18:00"], "2026-11-30T17:59:59", true);
        check(&["mon-fri 09:00-18:00"], "2026-11-30T18:00:00", false);
        check(&["mon-fri 09:00-18:00"], "2026-11-29T12:00:00", false);
        check(&["sat,sun"], "2026-11-29T23:59:59", true);
        check(&["sat,sun"], "2026-11-30T00:00:00", false);
        check(&["fri-mon"], "2026-11-30T00:00:00", true);
        check(&["fri-mon"], "2026-12-01T00:00:00", false);
        check(&["22:00-06:00"], "2026-12-01T05:59:00", true);
        check(&["mon 22:00-06:00"], "2026-12-01T05:59:00", true);
        check(&["mon 22:00-06:00"], "2026-11-30T05:59:00", false);
        check(&["tue 08:00-08:00"], "2026-12-02T07:59:00", true);
        check(&["mon 9:00-10:00", "mon 12:00-13:00"], "2026-11-30T12:30:00", true);
        check(&[], "2026-11-30T12:30:00", false);
    }

    #[test]
    fn nights_in_which_the_clock_changes() {
        // 02:00 to 03:00 is left out on 2026-03-29, and there twice on 2026-10-25.
        let night = window(&["sun 01:00-04:00"]);
        let hours = |day: &str| {
            let begin = at(&format!("{day}T00:00:00"));
            (0..12).filter(|hour| night.contains(begin + hour * 3600)).count()
        };
        assert_eq!((hours("2026-03-22"), hours("2026-03-29"), hours("2026-10-25")), (3, 2, 4));
        assert!(!window(&["sun 02:10-02:50"]).contains(at("2026-03-29T03:05:00") - 600));
    }

    #[test]
    fn wrong_texts_are_told_all_at_once() {
        let faults = Window::parse(&["monday", "mon 9-18", "mon 24:00-25:00", "mon-fri", "25:00-26:00"], berlin());
        assert_eq!(faults.expect_err("faults").len(), 4);
        assert!(Window::parse(&["sat"; SPANS_MAX + 1], berlin()).is_err());
    }

    proptest! {
        #[test]
        fn nothing_changes_before_the_next_change(
            days in 1_u8..128, from in 0_u16..1440, length in 1_u16..=1440, start in 1_770_000_000_i64..1_800_000_000
        ) {
            let window = Window { zone: berlin(), spans: vec![Span { days, from, until: from + length }] };
            let inside = window.contains(start);
            let end = window.next_change(start);
            let until = end.unwrap_or(start + 8 * 86_400);
            prop_assert!(until > start);
            for step in 0..200 {
                let moment = start + (until - start) * step / 200;
                prop_assert_eq!(window.contains(moment), inside, "at {}", moment);
            }
            if let Some(end) = end {
                prop_assert_ne!(window.contains(end), inside);
            }
        }
    }
}
