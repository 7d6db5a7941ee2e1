//! Ring: which of several graphs or judges has a series, as transfer, api and the tools of a site agree on it.
//!
//! How: each node has `replicas` points on a circle of 32 bits, the CRC-32 of `<i><name>`; a series belongs to the node
//! of the first point behind the CRC-32 of its PK, or of the first point of all.
//! Invariants: names are hashed, not addresses; nodes take their points in the order of their names' bytes, and of two
//! nodes with one point the later has it. Whoever adds a node moves the series of that node alone.
//! Memory: 8 bytes per point.
//! Compat: docs/open-falcon/transfer.md §5, with the vectors of §9.

use crate::series::SeriesKey;
use std::collections::BTreeMap;
use stdx::crc32;

/// The replicas that every part of Open-Falcon has when its configuration says nothing.
pub const REPLICAS_DEFAULT: u32 = 500;

/// Nodes on the circle, by their place in the order of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Sorted.
    points: Vec<(u32, u32)>,
}

impl Ring {
    /// A ring of nodes with these names, sorted by their bytes; none where there is no node, or no replica.
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>, replicas: u32) -> Option<Ring> {
        let mut points = BTreeMap::new();
        for (node, name) in (0..).zip(names) {
            for i in 0..replicas {
                points.insert(crc32(&[i.to_string().as_bytes(), name.as_bytes()]), node);
            }
        }
        (!points.is_empty()).then(|| Ring { points: points.into_iter().collect() })
    }

    /// Number of the node that has a series, in the order of the names.
    pub fn node_of(&self, key: &SeriesKey<'_>) -> usize {
        self.at(hash_of(key))
    }

    fn at(&self, hash: u32) -> usize {
        let next = self.points.partition_point(|(point, _)| *point <= hash);
        // Behind the last point comes the first.
        let (_, node) = self.points.get(next).unwrap_or(&self.points[0]);
        *node as usize
    }
}

/// CRC-32 of the PK, which is not put together for it.
fn hash_of(key: &SeriesKey<'_>) -> u32 {
    let (endpoint, metric, tags) = (key.endpoint.as_bytes(), key.metric.as_bytes(), key.tags.as_str().as_bytes());
    match tags {
        [] => crc32(&[endpoint, b"/", metric]),
        tags => crc32(&[endpoint, b"/", metric, b"/", tags]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tags::Tags;

    fn key<'a>(endpoint: &'a str, metric: &'a str, tags: &'a str) -> SeriesKey<'a> {
        SeriesKey { endpoint, metric, tags: Tags::assume_canonical(tags) }
    }

    /// Vectors of docs/open-falcon/transfer.md §9.
    #[test]
    fn placements_of_the_original() {
        let names = ["graph-00", "graph-01", "graph-02"];
        let ring = Ring::new(names, REPLICAS_DEFAULT).expect("three nodes");
        assert_eq!(ring.points.len(), 1500);
        let check = |key: SeriesKey<'_>, hash: u32, node: &str| {
            assert_eq!((hash_of(&key), names[ring.node_of(&key)]), (hash, node), "{key:?}");
        };
        check(key("host01", "cpu.idle", ""), 943_645_848, "graph-00");
        check(key("host01", "agent.alive", ""), 3_247_987_930, "graph-00");
        check(key("host02", "net.if.in.bytes", "iface=eth0"), 4_143_326_780, "graph-02");
        check(key("test-endpoint", "test-metric", "idc=lg,loc=beijing"), 1_387_173_905, "graph-00");
        check(key("a", "b", ""), 133_447_708, "graph-02");
    }

    #[test]
    fn the_point_itself_is_behind_it_and_the_last_comes_before_the_first() {
        let ring = Ring { points: vec![(10, 0), (20, 1), (30, 2)] };
        for (hash, node) in [(0, 0), (9, 0), (10, 1), (19, 1), (20, 2), (29, 2), (30, 0), (u32::MAX, 0)] {
            assert_eq!(ring.at(hash), node, "{hash}");
        }
    }

    #[test]
    fn a_new_node_takes_series_and_moves_no_other() {
        let two = Ring::new(["a", "b"], REPLICAS_DEFAULT).expect("two nodes");
        let three = Ring::new(["a", "b", "c"], REPLICAS_DEFAULT).expect("three nodes");
        let mut taken = 0;
        for host in 0..1000 {
            let host = format!("host{host}");
            let key = key(&host, "cpu.idle", "");
            match three.node_of(&key) {
                2 => taken += 1,
                node => assert_eq!(node, two.node_of(&key), "{host}"),
            }
        }
        assert!((200..500).contains(&taken), "about a third: {taken}");
        assert_eq!(Ring::new([], 500), None);
        assert_eq!(Ring::new(["a"], 0), None);
    }
}
