//! Host clocks: what the times of the hosts' points say about this server's clock, host by host, and about theirs.
//!
//! Why: points that are ahead of this server's clock are refused. Where most hosts are ahead it is this clock that is
//! wrong, and nobody may be called silent by it; where one host is, its own clock is. Points do not tell the two apart:
//! one host that sends more than all others would be most of them.
//! How: an endpoint has one of [`CELLS`] cells, by its number, with a bit for each thing that its points said in this
//! minute and in the last one. Who was timely in one of them is timely, whatever else was sent under that name. Counted
//! are cells, so it does not matter how much anybody sends. Only endpoints count that are known, by a series that was
//! kept before: of others no silence is counted either, and names that somebody makes up, with times ahead, are never
//! kept. So a sender can call nobody ahead who reports in time. To outvote a fleet it must first have as many series
//! kept as that has hosts, which `/memory` names and `ingest.series_max` ends. Addresses are not asked: a fleet behind
//! one address and an agent on this very machine, whose clock is always right here, would be one against one.
//! Invariants: nothing is allocated after the first point, and nobody waits; what is noted already costs a load. Up to
//! [`CELLS`] hosts do not share a cell; beyond that one that is timely speaks for its neighbours, which hides no clock
//! that nearly all differ from.
//! A note that comes while the minute ends may be lost: the next report makes it again.
//! How far a host is off is what the freshest of its points says, in this minute and the last one
//! ([`HostClocks::offset`]): of two hosts that share a cell, of the one that is further off.
//! Memory: 32 KiB, and 256 KiB once there is a point.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Cells, a byte each.
const CELLS: u32 = 1 << 15;
const CELLS_IN_WORD: u32 = 8;

/// The lowest bit of each cell of a word.
const EACH: u64 = 0x0101_0101_0101_0101;
/// The bits of this minute of each cell; those of the last one are [`KINDS`] bits higher.
const THIS_MINUTE: u64 = 0x07 * EACH;
const KINDS: u32 = 3;

/// Seconds that a point's own time may be behind the clock and yet agree with it: it may be handed in late.
const BEHIND_S: i64 = 86_400;

/// What the own time of a point says about this server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// About now.
    Timely,
    /// Further ahead than `ingest.future_max`: refused.
    Ahead,
    /// More than a day old: handed in late, or this clock is ahead.
    Behind,
}

impl Says {
    /// What a point of the time `time` says at `now`.
    #[inline]
    pub fn of(time: i64, now: i64, future_max_s: i64) -> Says {
        match time.saturating_sub(now) {
            ahead if ahead > future_max_s => Says::Ahead,
            ahead if ahead < -BEHIND_S => Says::Behind,
            _ => Says::Timely,
        }
    }
}

/// Hosts by what their points said lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    pub timely: u32,
    pub ahead: u32,
    pub behind: u32,
}

/// How far one host is off, in seconds ahead, as its cell has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Offset {
    /// The endpoint's number without what the place of the cell says.
    tag: u32,
    this_minute: Option<i64>,
    last_minute: Option<i64>,
}

impl Offset {
    /// Bits of one figure: 48 days, and what is further off counts as that.
    const BITS: u32 = 23;
    const MASK: u64 = (1 << Self::BITS) - 1;
    /// The figure that stands for 0 seconds; 0 stands for none.
    const ZERO: i64 = 1 << (Self::BITS - 1);

    fn unpack(cell: u64) -> Offset {
        let seconds = |shift: u32| match cell >> shift & Self::MASK {
            0 => None,
            figure => Some(figure.cast_signed() - Self::ZERO),
        };
        Offset { tag: (cell >> (2 * Self::BITS)) as u32, this_minute: seconds(0), last_minute: seconds(Self::BITS) }
    }

    fn pack(self) -> u64 {
        let figure = |seconds: Option<i64>| {
            let clamped = seconds.map(|seconds| seconds.clamp(1 - Self::ZERO, Self::ZERO - 1) + Self::ZERO);
            clamped.map_or(0, i64::cast_unsigned)
        };
        u64::from(self.tag) << (2 * Self::BITS) | figure(self.last_minute) << Self::BITS | figure(self.this_minute)
    }

    fn seconds(self) -> Option<i64> {
        self.this_minute.max(self.last_minute)
    }
}

/// The clocks of the hosts of one process.
pub struct HostClocks {
    words: Box<[AtomicU64]>,
    /// Made by the first point: an empty server does without.
    offsets: OnceLock<Box<[AtomicU64]>>,
}

impl Default for HostClocks {
    fn default() -> HostClocks {
        HostClocks { words: zeros(CELLS / CELLS_IN_WORD), offsets: OnceLock::new() }
    }
}

fn zeros(count: u32) -> Box<[AtomicU64]> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

impl HostClocks {
    /// Notes what a point of the endpoint with this number says. Any number that is the endpoint's own will do.
    pub fn note(&self, endpoint: u32, says: Says) {
        let cell = endpoint % CELLS;
        let bit = 1 << (cell % CELLS_IN_WORD * u8::BITS + says as u32);
        let word = &self.words[(cell / CELLS_IN_WORD) as usize];
        if word.load(Relaxed) & bit == 0 {
            word.fetch_or(bit, Relaxed);
        }
    }

    /// Notes how far ahead a point of the endpoint with this number is, in seconds.
    pub fn note_offset(&self, endpoint: u32, seconds: i64) {
        let offsets = self.offsets.get_or_init(|| zeros(CELLS));
        let (cell, tag) = (&offsets[(endpoint % CELLS) as usize], endpoint / CELLS);
        let packed = cell.load(Relaxed);
        let old = Offset::unpack(packed);
        let is_own = old.tag == tag || packed == 0;
        let is_known = match is_own {
            true => old.this_minute.is_some_and(|known| known >= seconds),
            false => old.seconds().is_some_and(|other| other.abs() >= seconds.abs()),
        };
        if !is_known {
            let last_minute = old.last_minute.filter(|_| is_own);
            let new = Offset { tag, this_minute: Some(seconds), last_minute };
            // Whoever came in between has noted a point as fresh.
            let _ = cell.compare_exchange(packed, new.pack(), Relaxed, Relaxed);
        }
    }

    /// How far ahead of this server's clock that of the endpoint with this number is, in seconds, behind is negative;
    /// None where nothing was said lately.
    pub fn offset(&self, endpoint: u32) -> Option<i64> {
        let offset = Offset::unpack(self.offsets.get()?[(endpoint % CELLS) as usize].load(Relaxed));
        offset.seconds().filter(|_| offset.tag == endpoint / CELLS)
    }

    /// What was said in this minute and the last one.
    pub fn hosts(&self) -> Hosts {
        let mut hosts = Hosts::default();
        for word in self.words.iter().map(|word| word.load(Relaxed)).filter(|word| *word != 0) {
            let said = word | word >> KINDS;
            let [timely, ahead, behind] =
                [Says::Timely, Says::Ahead, Says::Behind].map(|says| said >> says as u32 & EACH);
            hosts.timely += timely.count_ones();
            hosts.ahead += (ahead & !timely).count_ones();
            hosts.behind += (behind & !timely & !ahead).count_ones();
        }
        hosts
    }

    /// Begins a new minute: what was said before the last one is forgotten.
    pub fn end_minute(&self) {
        for word in self.words.iter().filter(|word| word.load(Relaxed) != 0) {
            word.store((word.load(Relaxed) & THIS_MINUTE) << KINDS, Relaxed);
        }
        for cell in self.offsets.get().into_iter().flatten().filter(|cell| cell.load(Relaxed) != 0) {
            let Offset { tag, this_minute, .. } = Offset::unpack(cell.load(Relaxed));
            let is_over = this_minute.is_none();
            let next = Offset { tag, this_minute: None, last_minute: this_minute };
            cell.store(if is_over { 0 } else { next.pack() }, Relaxed);
        }
    }

    /// Forgets everything: the clock was set, and what was said of it before is no longer of it.
    pub fn forget(&self) {
        self.words.iter().chain(self.offsets.get().into_iter().flatten()).for_each(|word| word.store(0, Relaxed));
    }

    /// Bytes of the cells.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.words) + self.offsets.get().map_or(0, |offsets| size_of_val(&**offsets))
    }
}

/// The notes of one batch: a host that says the same as before costs a comparison.
pub struct Notes<'c> {
    clocks: &'c HostClocks,
    last: Option<(u32, Says, i64)>,
}

impl<'c> Notes<'c> {
    pub fn of(clocks: &'c HostClocks) -> Notes<'c> {
        Notes { clocks, last: None }
    }

    /// Notes what a point says whose time is `offset` seconds ahead, see [`HostClocks::note`].
    #[inline]
    pub fn note(&mut self, endpoint: u32, says: Says, offset: i64) {
        if self.last != Some((endpoint, says, offset)) {
            self.last = Some((endpoint, says, offset));
            self.clocks.note(endpoint, says);
            self.clocks.note_offset(endpoint, offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(clocks: &HostClocks) -> [u32; 3] {
        let Hosts { timely, ahead, behind } = clocks.hosts();
        [timely, ahead, behind]
    }

    #[test]
    fn a_time_says_whether_it_is_about_now() {
        let says = |time| Says::of(time, 1_700_000_000, 300);
        let now = 1_700_000_000;
        assert_eq!([now, now + 300, now - BEHIND_S].map(says), [Says::Timely; 3]);
        assert_eq!([now + 301, i64::MAX].map(says), [Says::Ahead; 2]);
        assert_eq!([now - BEHIND_S - 1, i64::MIN].map(says), [Says::Behind; 2]);
    }

    #[test]
    fn hosts_count_once_however_much_they_say_and_who_is_timely_is_timely() {
        let clocks = HostClocks::default();
        assert_eq!(counts(&clocks), [0, 0, 0]);
        for _ in 0..1000 {
            clocks.note(7, Says::Ahead);
        }
        assert_eq!(counts(&clocks), [0, 1, 0]);
        clocks.note(8, Says::Timely);
        clocks.note(9, Says::Behind);
        assert_eq!(counts(&clocks), [1, 1, 1]);
        // Somebody else under the name of a host that reports.
        clocks.note(8, Says::Ahead);
        clocks.note(8, Says::Behind);
        assert_eq!(counts(&clocks), [1, 1, 1]);
        clocks.note(9, Says::Ahead);
        assert_eq!(counts(&clocks), [1, 2, 0]);
    }

    #[test]
    fn what_was_said_lasts_for_a_minute_and_some() {
        let clocks = HostClocks::default();
        (0..8).for_each(|host| clocks.note(host, Says::Timely));
        clocks.end_minute();
        // Those who report on are timely, the others are what they said last.
        (0..4).for_each(|host| clocks.note(host, Says::Ahead));
        clocks.note(5, Says::Timely);
        assert_eq!(counts(&clocks), [8, 0, 0]);
        clocks.end_minute();
        assert_eq!(counts(&clocks), [1, 4, 0]);
        clocks.end_minute();
        assert_eq!(counts(&clocks), [0, 0, 0]);
        clocks.note(3, Says::Behind);
        clocks.forget();
        assert_eq!(counts(&clocks), [0, 0, 0]);
    }

    #[test]
    fn the_freshest_point_says_how_far_a_host_is_off() {
        let clocks = HostClocks::default();
        assert_eq!(clocks.offset(7), None);
        for offset in [-70, -5, -60] {
            clocks.note_offset(7, offset);
        }
        clocks.note_offset(8, 0);
        assert_eq!([7, 8, 9].map(|host| clocks.offset(host)), [Some(-5), Some(0), None]);
        clocks.end_minute();
        clocks.note_offset(7, -40);
        assert_eq!(clocks.offset(7), Some(-5));
        clocks.end_minute();
        assert_eq!([7, 8].map(|host| clocks.offset(host)), [Some(-40), None]);
        for (offset, told) in [(i64::MIN, -4_194_303), (600, 600), (i64::MAX, 4_194_303)] {
            clocks.note_offset(9, offset);
            assert_eq!(clocks.offset(9), Some(told));
        }
        clocks.forget();
        assert_eq!(clocks.offset(9), None);
    }

    #[test]
    fn of_two_hosts_in_a_cell_the_one_that_is_further_off_is_known() {
        let (near, far) = (3, 3 + 2 * CELLS);
        let clocks = HostClocks::default();
        for _ in 0..2 {
            clocks.note_offset(near, -1);
            clocks.note_offset(far, -90);
            clocks.note_offset(near, -1);
            assert_eq!([near, far, 3 + CELLS].map(|host| clocks.offset(host)), [None, Some(-90), None]);
            clocks.end_minute();
        }
        clocks.end_minute();
        clocks.note_offset(near, -1);
        assert_eq!([near, far].map(|host| clocks.offset(host)), [Some(-1), None]);
        clocks.note_offset(u32::MAX, 90);
        assert_eq!(clocks.offset(u32::MAX), Some(90));
    }

    /// Fleets that share cells and such that do not: the few that are wrong are never most, and all that are, are.
    #[test]
    fn the_size_of_a_fleet_does_not_change_the_verdict() {
        for fleet in [1, 3, 10_000, CELLS, 3 * CELLS] {
            let clocks = HostClocks::default();
            for host in 0..fleet {
                clocks.note(host, if host % 10 == 9 { Says::Ahead } else { Says::Timely });
            }
            let hosts = clocks.hosts();
            assert!(hosts.ahead <= hosts.timely / 9 + 1 && hosts.timely > 0, "{fleet}: {hosts:?}");
            clocks.forget();
            for host in 0..fleet {
                clocks.note(host, if host % 100 == 99 { Says::Timely } else { Says::Ahead });
            }
            let hosts = clocks.hosts();
            assert!(hosts.ahead > 10 * hosts.timely, "{fleet}: {hosts:?}");
        }
    }
}
