//! Label: what a block stands for: points or roll-ups, of which days, made of which flushes.
//!
//! Invariants: of two blocks the labels alone say whether one is of no use beside the other, so that a merge whose end
//! a crash cut off is completed at the next start.

use crate::options::Options;
use crate::sizes::DAY_S;

/// End of the file names of blocks.
pub const SUFFIX: &str = ".blk";

/// The content of a block: points, or roll-ups of one resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Points.
    Raw,
    /// Buckets of five minutes.
    FiveMinutes,
    /// Buckets of an hour.
    Hour,
}

/// The kinds of roll-ups, finest first.
pub const ROLLUPS: [Kind; 2] = [Kind::FiveMinutes, Kind::Hour];

impl Kind {
    /// Seconds that a bucket spans; 1 for points, whose times are whole seconds.
    pub fn resolution_s(self) -> u32 {
        match self {
            Kind::Raw => 1,
            Kind::FiveMinutes => 300,
            Kind::Hour => 3600,
        }
    }

    /// Seconds that blocks of this kind are kept; 0 for roll-ups that are not wanted.
    pub fn kept_s(self, options: &Options) -> i64 {
        match self {
            Kind::Raw => options.retention_raw_s,
            Kind::FiveMinutes => options.retention_5m_s,
            Kind::Hour => options.retention_1h_s,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Raw => "raw",
            Kind::FiveMinutes => "5m",
            Kind::Hour => "1h",
        }
    }

    /// Kind by its number on disk; `None` for a number that no kind has.
    pub fn from_u8(byte: u8) -> Option<Kind> {
        [Kind::Raw, Kind::FiveMinutes, Kind::Hour].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The level of a block that holds all of a day that was over.
pub const FINAL: u8 = u8::MAX;

/// The days, content and flushes that a block stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    pub kind: Kind,
    /// 0 as flushed, one more with each merge, [`FINAL`].
    pub level: u8,
    /// Days since 1970-01-01 (UTC).
    pub first_day: u32,
    pub days: u16,
    /// The block's own number; grows with each block written.
    pub number: u64,
    /// The numbers of the flushed blocks that it is made of, from the first to the last. Of points with equal times the
    /// one from the lower number counts.
    pub first_flush: u64,
    pub last_flush: u64,
    /// Last flushed block that roll-ups of a day know of the day before, which the rate across midnight depends on; 0
    /// for other blocks.
    pub last_flush_before: u64,
}

impl Label {
    /// The label of a block that a flush writes.
    pub fn flushed(day: u32, number: u64) -> Label {
        Label {
            kind: Kind::Raw,
            level: 0,
            first_day: day,
            days: 1,
            number,
            first_flush: number,
            last_flush: number,
            last_flush_before: 0,
        }
    }

    /// The day after the last one.
    pub fn end_day(&self) -> u32 {
        self.first_day.saturating_add(u32::from(self.days))
    }

    /// Whether `other` is of no use beside this block: what it holds was written anew.
    pub fn supersedes(&self, other: &Label) -> bool {
        let covers_days = self.first_day <= other.first_day && self.end_day() >= other.end_day();
        let covers_flushes = self.first_flush <= other.first_flush && self.last_flush >= other.last_flush;
        self.kind == other.kind
            && self.number > other.number
            && covers_days
            && (covers_flushes || self.kind != Kind::Raw)
    }

    /// File name of the block.
    pub fn file_name(&self) -> String {
        format!("{}-{}-{:08}{SUFFIX}", date(self.first_day), self.kind.name(), self.number)
    }
}

/// The day of the points in a block, by the name of its file, for when that is all there is; `None` for other files.
pub fn day_of_points(file_name: &str) -> Option<u32> {
    let (digits, rest) = file_name.split_once('-')?;
    let has_points = rest.starts_with(Kind::Raw.name()) && rest.ends_with(SUFFIX);
    (0..=u32::MAX / DAY_S).find(|day| has_points && date(*day) == digits)
}

/// A day since 1970-01-01 as `20261122`, for people who look at the files. After the usual arithmetic of eras of 400
/// years that begin in March.
fn date(day: u32) -> String {
    let shifted = day + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u32::from(month <= 2);
    format!("{year:04}{month:02}{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let check = |day, expected: &str| assert_eq!(date(day), expected);
        check(0, "19700101");
        check(11_016, "20000229");
        check(11_017, "20000301");
        check(20_453, "20251231");
        check(20_454, "20260101");
    }

    #[test]
    fn names_tell_the_day_of_points() {
        let check = |name: &str, expected| assert_eq!(day_of_points(name), expected, "{name}");
        check(&Label::flushed(20_454, 7).file_name(), Some(20_454));
        check(&Label::flushed(0, 7).file_name(), Some(0));
        check("20260101-1h-00000007.blk", None);
        check("20261301-raw-00000007.blk", None);
        check("series", None);
        check("20260101-raw-00000007.tmp", None);
    }
}
