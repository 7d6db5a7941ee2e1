//! Rings: the newest points of many series, as many of each as its rules look back on.
//!
//! How: rings of one length lie side by side in chunks of some [`CHUNK_POINTS`] points, three words of 32 bits per
//! point (time, and the value's bits), so that a ring of four points is 48 bytes in one place. A ring is named by its
//! class (its length) and its slot there.
//! Invariants: allocates when a chunk is full, never per point; times are within [`TIMES`].
//! Memory: 12 bytes per point that a ring can hold; slots of rings that went are given out again, and a class gives its
//! chunks back when it is empty.

use model::Point;

/// Points per chunk: 12 KiB. A guess: little enough for a rule that few series have.
const CHUNK_POINTS: usize = 1024;

const WORDS: usize = 3;

/// Seconds before 1970 that a time can be: the original judges a first item of any time, see `windows.rs`.
const BEFORE_S: i64 = 1 << 16;

/// The times that 32 bits hold, until the year 2106.
pub(crate) const TIMES: std::ops::Range<i64> = -BEFORE_S..(1 << 32) - BEFORE_S;

/// The place and the state of a ring.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ring {
    slot: u32,
    class: u16,
    len: u16,
    /// Index at which the next point goes.
    head: u16,
}

#[derive(Default)]
pub(crate) struct Rings {
    /// Classes by the number in [`Ring`]; few, for rules have few different lengths.
    classes: Vec<Class>,
}

struct Class {
    /// Points of a ring.
    length: u16,
    rings_per_chunk: u32,
    chunks: Vec<Box<[u32]>>,
    free: Vec<u32>,
    used: u32,
    /// Slots given out so far, in all chunks.
    end: u32,
}

impl Rings {
    /// An empty ring for `length` points.
    pub fn add(&mut self, length: u16) -> Ring {
        let length = length.max(1);
        let known = self.classes.iter().position(|class| class.length == length);
        let class = known.unwrap_or_else(|| {
            self.classes.push(Class::new(length));
            self.classes.len() - 1
        });
        Ring { slot: self.classes[class].take(), class: class as u16, len: 0, head: 0 }
    }

    pub fn remove(&mut self, ring: Ring) {
        self.classes[ring.class as usize].give_back(ring.slot);
    }

    pub fn length(&self, ring: Ring) -> u16 {
        self.classes[ring.class as usize].length
    }

    #[inline]
    pub fn push(&mut self, ring: &mut Ring, point: Point) {
        let class = &mut self.classes[ring.class as usize];
        let length = class.length;
        let place = class.place_mut(ring.slot, ring.head);
        let bits = point.value.to_bits();
        *place = [(point.time + BEFORE_S) as u32, bits as u32, (bits >> 32) as u32];
        ring.head = if ring.head + 1 == length { 0 } else { ring.head + 1 };
        ring.len = (ring.len + 1).min(length);
    }

    /// The points, newest first.
    #[inline]
    pub fn newest_first(&self, ring: Ring) -> impl Iterator<Item = Point> {
        let class = &self.classes[ring.class as usize];
        let (before, after) = (0..ring.head, ring.head..class.length);
        let places = before.rev().chain(after.rev()).take(usize::from(ring.len));
        places.map(move |index| {
            let [time, low, high] = *class.place(ring.slot, index);
            Point { time: i64::from(time) - BEFORE_S, value: f64::from_bits(u64::from(high) << 32 | u64::from(low)) }
        })
    }

    #[inline]
    pub fn newest(&self, ring: Ring) -> Option<i64> {
        if ring.len == 0 {
            return None;
        }
        let class = &self.classes[ring.class as usize];
        let index = if ring.head == 0 { class.length } else { ring.head } - 1;
        Some(i64::from(class.place(ring.slot, index)[0]) - BEFORE_S)
    }

    /// Takes the newest point off a ring that has one.
    pub fn pop(&mut self, ring: &mut Ring) {
        let length = self.length(*ring);
        ring.head = if ring.head == 0 { length } else { ring.head } - 1;
        ring.len -= 1;
    }

    /// Gives the ring another length; what does not fit is the oldest.
    pub fn resize(&mut self, ring: Ring, length: u16) -> Ring {
        let mut points: Vec<Point> = self.newest_first(ring).take(usize::from(length)).collect();
        points.reverse();
        self.remove(ring);
        let mut resized = self.add(length);
        points.iter().for_each(|point| self.push(&mut resized, *point));
        resized
    }

    pub fn clear(&self, ring: &mut Ring) {
        (ring.len, ring.head) = (0, 0);
    }

    pub fn memory_bytes(&self) -> usize {
        let of_class = |class: &Class| {
            class.chunks.iter().map(|chunk| size_of_val(&**chunk)).sum::<usize>()
                + class.chunks.capacity() * size_of::<Box<[u32]>>()
                + class.free.capacity() * size_of::<u32>()
        };
        self.classes.capacity() * size_of::<Class>() + self.classes.iter().map(of_class).sum::<usize>()
    }
}

impl Ring {
    pub fn len(self) -> usize {
        usize::from(self.len)
    }
}

impl Class {
    fn new(length: u16) -> Class {
        let rings_per_chunk = (CHUNK_POINTS / usize::from(length)).max(1) as u32;
        Class { length, rings_per_chunk, chunks: Vec::new(), free: Vec::new(), used: 0, end: 0 }
    }

    fn take(&mut self) -> u32 {
        self.used += 1;
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        if self.end == self.chunks.len() as u32 * self.rings_per_chunk {
            let words = self.rings_per_chunk as usize * usize::from(self.length) * WORDS;
            self.chunks.push(vec![0; words].into_boxed_slice());
        }
        self.end += 1;
        self.end - 1
    }

    fn give_back(&mut self, slot: u32) {
        self.used -= 1;
        if self.used == 0 {
            *self = Class::new(self.length);
        } else {
            self.free.push(slot);
        }
    }

    /// The chunk of a point, and its first word there.
    #[inline]
    fn word(&self, slot: u32, index: u16) -> (usize, usize) {
        let (chunk, ring) = (slot / self.rings_per_chunk, slot % self.rings_per_chunk);
        (chunk as usize, (ring as usize * usize::from(self.length) + usize::from(index)) * WORDS)
    }

    #[inline]
    fn place(&self, slot: u32, index: u16) -> &[u32; WORDS] {
        let (chunk, word) = self.word(slot, index);
        self.chunks[chunk][word..].first_chunk().expect("slots and indexes are those that were given out")
    }

    #[inline]
    fn place_mut(&mut self, slot: u32, index: u16) -> &mut [u32; WORDS] {
        let (chunk, word) = self.word(slot, index);
        self.chunks[chunk][word..].first_chunk_mut().expect("slots and indexes are those that were given out")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(rings: &Rings, ring: Ring) -> Vec<i64> {
        rings.newest_first(ring).map(|point| point.time).collect()
    }

    #[test]
    fn keeps_the_newest_of_each_ring() {
        let mut rings = Rings::default();
        let (mut a, mut b) = (rings.add(3), rings.add(3));
        assert_eq!((times(&rings, a), rings.newest(a)), (vec![], None));
        for time in 1..=7 {
            rings.push(&mut a, Point { time, value: time as f64 / 3.0 });
            assert_eq!(rings.newest(a), Some(time));
        }
        let ends = [TIMES.start, TIMES.end - 1].map(|time| Point { time, value: f64::NEG_INFINITY });
        ends.iter().for_each(|point| rings.push(&mut b, *point));
        assert_eq!(times(&rings, a), [7, 6, 5]);
        assert_eq!(rings.newest_first(a).next().map(|point| point.value), Some(7.0 / 3.0));
        assert_eq!(rings.newest_first(b).collect::<Vec<_>>(), [ends[1], ends[0]]);
    }

    #[test]
    fn another_length_keeps_what_fits() {
        let mut rings = Rings::default();
        let mut ring = rings.add(3);
        (1..=5).for_each(|time| rings.push(&mut ring, Point { time, value: 0.0 }));
        let mut longer = rings.resize(ring, 5);
        assert_eq!(times(&rings, longer), [5, 4, 3]);
        (6..=9).for_each(|time| rings.push(&mut longer, Point { time, value: 0.0 }));
        assert_eq!(times(&rings, longer), [9, 8, 7, 6, 5]);
        let shorter = rings.resize(longer, 2);
        assert_eq!((times(&rings, shorter), rings.length(shorter)), (vec![9, 8], 2));
    }

    #[test]
    fn a_point_takes_twelve_bytes_and_gives_them_back() {
        let mut rings = Rings::default();
        let all: Vec<Ring> = (0..10_000).map(|_| rings.add(4)).collect();
        let full = rings.memory_bytes();
        assert!((480_000..500_000).contains(&full), "{full}");
        all[..5000].iter().for_each(|ring| rings.remove(*ring));
        let again: Vec<Ring> = (0..5000).map(|_| rings.add(4)).collect();
        assert!(rings.memory_bytes() < full + 50_000, "{} of {full}", rings.memory_bytes());
        all[5000..].iter().chain(&again).for_each(|ring| rings.remove(*ring));
        assert!(rings.memory_bytes() < 1000, "{}", rings.memory_bytes());
    }
}
