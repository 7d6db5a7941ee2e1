//! Mix: the series of a simulated host, and the value of each in every round.
//!
//! Why: compression, memory and judging depend on what the values look like. Of 198 series that a real agent was
//! recorded to send, 139 never changed, 36 changed in whole numbers and 23 in fractions; most fractions are unrounded
//! quotients such as 100 × 17 / 198. A mix of any size keeps these shares.
//! How: a value is a function of seed, host, series and round, so nothing is remembered between rounds, the same seed
//! gives the same points, and a reader can compute what must have been stored.
//! Invariants: values are finite; a counter never falls except when its host restarts, then to nearly 0
//! (`disk.io.ios_in_progress`, a COUNTER by name only, excepted); names, tags, types and groups are those of
//! Open-Falcon's agent, except `app.*`, which stand for what scripts push.

use model::CounterType;

/// The number of series that the recorded agent sent; the shares below are parts of these.
const RECORDED: usize = 198;
const RECORDED_CONSTANT: usize = 139;
const RECORDED_WHOLE: usize = 36;

/// The collector group of a series: an agent sends each group in a call of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CollectorGroup {
    System,
    FileSystems,
    Sockets,
    Pushed,
}

/// A series of every host: its name, and how its values come about.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatedSeries {
    pub metric: String,
    pub tags: String,
    pub counter_type: CounterType,
    pub group: CollectorGroup,
    pub shape: Shape,
    /// Makes series of equal shape differ.
    key: u64,
}

/// The origin of the values of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// A value that is the same on all hosts, always.
    Fixed(f64),
    /// A resource of the host, seen as its total or as the part in use.
    Level(Resource, View),
    /// Percent of the processors' time, by the index in [`PROCESSOR_PARTS`].
    Processor(usize),
    /// 100 − idle.
    ProcessorBusy,
    /// A load with two decimals, smoothed over so many rounds.
    Load(u32),
    /// A counter that grows by about this much in a round.
    Counter(f64),
    /// A whole number around this one.
    Small(u32),
    /// A quotient of two whole numbers, often 0.
    Quotient,
    /// 100 × a part / a whole, both some thousands.
    Share,
}

/// Resource of a host, of which a part is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Memory,
    Disk,
    Inodes,
    Files,
}

/// Figure that a series shows of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    Total,
    Used,
    Free,
    UsedPercent,
    FreePercent,
}

impl Shape {
    fn changes(self) -> Change {
        match self {
            Shape::Fixed(_) | Shape::Level(_, View::Total) => Change::Never,
            Shape::Level(_, View::Used | View::Free) | Shape::Counter(_) | Shape::Small(_) => Change::Whole,
            _ => Change::Fraction,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Never,
    Whole,
    Fraction,
}

/// The first `count` series of a host, in the order in which they are sent: group by group.
pub fn series(count: usize, seed: u64) -> Vec<SimulatedSeries> {
    let constant = share(count, RECORDED_CONSTANT);
    let whole = share(count, RECORDED_WHOLE).min(count - constant);
    let mut wanted = [(Change::Never, constant), (Change::Whole, whole), (Change::Fraction, count - constant - whole)];
    let mut chosen = Vec::with_capacity(count);
    let mut take = |series: SimulatedSeries| {
        let (_, left) = &mut wanted[series.shape.changes() as usize];
        if *left > 0 {
            *left -= 1;
            chosen.push(SimulatedSeries { key: hash(seed, chosen.len() as u64), ..series });
        }
        wanted.iter().map(|(_, left)| left).sum::<usize>()
    };
    let mut left = count;
    for series in host() {
        left = take(series);
    }
    // A larger mix has more than an agent by itself: further interfaces and what scripts push, module after module.
    for number in 0.. {
        if left == 0 {
            break;
        }
        for series in extension(number) {
            left = take(series);
        }
    }
    chosen.sort_by_key(|series| series.group);
    chosen
}

fn share(count: usize, recorded: usize) -> usize {
    (count * recorded + RECORDED / 2) / RECORDED
}

fn one(metric: &str, tags: &str, counter_type: CounterType, group: CollectorGroup, shape: Shape) -> SimulatedSeries {
    SimulatedSeries { metric: metric.into(), tags: tags.into(), counter_type, group, shape, key: 0 }
}

const NET_IN: [&str; 8] =
    ["bytes", "packets", "errors", "dropped", "fifo.errs", "frame.errs", "compressed", "multicast"];
const NET_OUT: [&str; 8] =
    ["bytes", "packets", "errors", "dropped", "fifo.errs", "collisions", "carrier.errs", "compressed"];
const NET_TOTAL: [&str; 4] = ["bytes", "packets", "errors", "dropped"];
const DISK_COUNTERS: [&str; 11] = [
    "read_requests",
    "read_merged",
    "read_sectors",
    "msec_read",
    "write_requests",
    "write_merged",
    "write_sectors",
    "msec_write",
    "ios_in_progress",
    "msec_total",
    "msec_weighted_total",
];
const DISK_QUOTIENTS: [&str; 5] = ["util", "await", "avgqu-sz", "avgrq_sz", "svctm"];
const TCP: [&str; 19] = [
    "TCPLostRetransmit",
    "TCPMinTTLDrop",
    "TCPLossFailures",
    "ListenOverflows",
    "TCPAbortFailed",
    "TCPDSACKUndo",
    "ArpFilter",
    "TCPTimeouts",
    "LockDroppedIcmps",
    "TCPMemoryPressures",
    "PruneCalled",
    "ListenDrops",
    "TCPTSReorder",
    "TCPAbortOnTimeout",
    "TCPSpuriousRTOs",
    "TCPBacklogDrop",
    "TCPAbortOnMemory",
    "DelayedACKLocked",
    "TCPFastRetrans",
];
const UDP: [&str; 9] = [
    "InDatagrams",
    "InErrors",
    "OutDatagrams",
    "IgnoredMulti",
    "MemErrors",
    "NoPorts",
    "RcvbufErrors",
    "SndbufErrors",
    "InCsumErrors",
];

/// The series of a host with one busy disk, one busy interface and three idle ones, as an agent reports them. The most
/// useful series of each kind of change come first, since a small mix takes these.
fn host() -> Vec<SimulatedSeries> {
    use CollectorGroup::{FileSystems, Sockets, System};
    use CounterType::{Counter, Gauge};
    let mut all = vec![
        one("agent.alive", "", Gauge, System, Shape::Fixed(1.0)),
        one("cpu.idle", "", Gauge, System, Shape::Processor(0)),
        one("cpu.busy", "", Gauge, System, Shape::ProcessorBusy),
        one("cpu.switches", "", Counter, System, Shape::Counter(180_000.0)),
    ];
    for (name, view) in [
        ("used.percent", View::UsedPercent),
        ("used", View::Used),
        ("total", View::Total),
        ("free", View::Free),
        ("free.percent", View::FreePercent),
    ] {
        let of_file_system = "mount=/,fstype=ext4";
        all.push(one(&format!("mem.mem{name}"), "", Gauge, System, Shape::Level(Resource::Memory, view)));
        let disk = Shape::Level(Resource::Disk, view);
        all.push(one(&format!("df.bytes.{name}"), of_file_system, Gauge, FileSystems, disk));
        let inodes = Shape::Level(Resource::Inodes, view);
        all.push(one(&format!("df.inodes.{name}"), of_file_system, Gauge, FileSystems, inodes));
        if !name.starts_with("free") {
            all.push(one(&format!("df.statistics.{name}"), "", Gauge, FileSystems, disk));
        }
    }
    for (name, rounds) in [("1min", 1), ("5min", 5), ("15min", 15)] {
        all.push(one(&format!("load.{name}"), "", Gauge, System, Shape::Load(rounds)));
    }
    for (part, name) in PROCESSOR_PARTS.iter().enumerate().skip(1) {
        all.push(one(&format!("cpu.{name}"), "", Gauge, System, Shape::Processor(part)));
    }
    all.extend(interface("eth0", true));
    all.extend(disk("vda"));
    all.push(one("ss.estab", "", Gauge, Sockets, Shape::Small(60)));
    all.push(one("ss.timewait", "", Gauge, Sockets, Shape::Small(15)));
    all.push(one("ss.closed", "", Gauge, Sockets, Shape::Small(18)));
    all.push(one("kernel.files.allocated", "", Gauge, System, Shape::Level(Resource::Files, View::Used)));
    all.push(one("kernel.files.left", "", Gauge, System, Shape::Level(Resource::Files, View::Free)));
    all.push(one("kernel.maxfiles", "", Gauge, System, Shape::Level(Resource::Files, View::Total)));
    all.push(one("kernel.maxproc", "", Gauge, System, Shape::Fixed(4_194_304.0)));
    all.push(one("TcpExt.TW", "", Counter, System, Shape::Counter(40.0)));
    all.extend(TCP.iter().map(|name| one(&format!("TcpExt.{name}"), "", Counter, System, Shape::Fixed(0.0))));
    all.extend(UDP.iter().map(|name| one(&format!("snmp.Udp.{name}"), "", Counter, System, Shape::Fixed(0.0))));
    for name in ["swaptotal", "swapused", "swapfree", "swapfree.percent", "swapused.percent"] {
        all.push(one(&format!("mem.{name}"), "", Gauge, System, Shape::Fixed(0.0)));
    }
    for name in ["cpu.irq", "cpu.guest"] {
        all.push(one(name, "", Gauge, System, Shape::Fixed(0.0)));
    }
    for name in ["ss.orphaned", "ss.slabinfo.timewait"] {
        all.push(one(name, "", Gauge, Sockets, Shape::Fixed(0.0)));
    }
    for name in ["lo", "eth1", "docker0"] {
        all.extend(interface(name, false));
    }
    all
}

fn interface(name: &str, busy: bool) -> Vec<SimulatedSeries> {
    let tags = format!("iface={name}");
    let mut all = Vec::new();
    let mut push = |metric: String, counter_type, shape| {
        all.push(one(&metric, &tags, counter_type, CollectorGroup::System, shape));
    };
    for (direction, names) in [("in", &NET_IN[..]), ("out", &NET_OUT[..]), ("total", &NET_TOTAL[..])] {
        for what in names {
            let shape = match *what {
                "bytes" if busy => Shape::Counter(9_000_000.0),
                "packets" if busy => Shape::Counter(14_000.0),
                _ => Shape::Fixed(0.0),
            };
            push(format!("net.if.{direction}.{what}"), CounterType::Counter, shape);
        }
        let bits = if busy { Shape::Counter(72_000_000.0) } else { Shape::Fixed(0.0) };
        push(format!("net.if.{direction}.bits"), CounterType::Counter, bits);
    }
    for direction in ["in", "out"] {
        push(format!("net.if.{direction}.percent"), CounterType::Counter, Shape::Fixed(0.0));
    }
    push("net.if.speed.bits".into(), CounterType::Gauge, Shape::Fixed(if busy { 1e10 } else { 0.0 }));
    all
}

fn disk(name: &str) -> Vec<SimulatedSeries> {
    let tags = format!("device={name}");
    let mut all = Vec::new();
    for what in DISK_QUOTIENTS {
        let metric = format!("disk.io.{what}");
        all.push(one(&metric, &tags, CounterType::Gauge, CollectorGroup::System, Shape::Quotient));
    }
    for what in DISK_COUNTERS {
        let shape = match what {
            "ios_in_progress" => Shape::Small(1),
            "read_sectors" | "write_sectors" => Shape::Counter(6_000.0),
            _ => Shape::Counter(400.0),
        };
        all.push(one(&format!("disk.io.{what}"), &tags, CounterType::Counter, CollectorGroup::System, shape));
    }
    for what in ["read_bytes", "write_bytes"] {
        let metric = format!("disk.io.{what}");
        all.push(one(&metric, &tags, CounterType::Gauge, CollectorGroup::System, Shape::Small(400)));
    }
    all
}

/// The series of one more idle interface, and of a module that pushes counters, a queue's length, and quotients.
fn extension(number: usize) -> Vec<SimulatedSeries> {
    use CounterType::{Counter, Gauge};
    let mut all = interface(&format!("veth{number}"), false);
    let tags = format!("module=mod{number},idc=bj");
    for (name, counter_type, shape) in [
        ("requests", Counter, Shape::Counter(30_000.0)),
        ("latency.avg", Gauge, Shape::Quotient),
        ("errors", Counter, Shape::Counter(3.0)),
        ("hit.percent", Gauge, Shape::Share),
        ("bytes.sent", Counter, Shape::Counter(20_000_000.0)),
        ("cpu.percent", Gauge, Shape::Share),
        ("queue.length", Gauge, Shape::Small(5)),
        ("connections", Gauge, Shape::Small(80)),
        ("threads", Gauge, Shape::Small(30)),
    ] {
        all.push(one(&format!("app.{name}"), &tags, counter_type, CollectorGroup::Pushed, shape));
    }
    all
}

/// Parts of the processors' time; idle is what the others leave.
const PROCESSOR_PARTS: [&str; 7] = ["idle", "user", "system", "iowait", "softirq", "nice", "steal"];
/// Shares of the busy time, for each of the parts behind idle.
const BUSY_PARTS: [f64; 7] = [0.0, 0.58, 0.24, 0.08, 0.05, 0.03, 0.02];

/// The state of a host in one round, which all its series share.
#[derive(Clone, Debug)]
pub struct Moment {
    host: u64,
    round: u32,
    /// Rounds since the host was last started, when its counters began at 0.
    up: u32,
    cores: u32,
    jiffies: [u32; 7],
    total_jiffies: u32,
}

impl Moment {
    /// A host in a round; equal arguments give equal values.
    pub fn new(seed: u64, host: usize, round: u32) -> Moment {
        let host = hash(seed, !(host as u64));
        let cores = 2 << (host % 5);
        let busy = busy(host, round);
        // An agent looks at one second: 100 jiffies per core, give or take the tick.
        let total_jiffies = cores * 100 + (hash(host, u64::from(round)) % 3) as u32 - 1;
        let mut jiffies = BUSY_PARTS.map(|part| (f64::from(total_jiffies) * busy * part).round() as u32);
        jiffies[0] = total_jiffies.saturating_sub(jiffies.iter().sum());
        Moment { host, round, up: rounds_since_start(host, round), cores, jiffies, total_jiffies }
    }

    /// Value of a series on this host in this round.
    pub fn value(&self, series: &SimulatedSeries) -> f64 {
        if let Shape::Fixed(value) = series.shape {
            return value; // most series, so nothing is computed for them
        }
        let key = hash(self.host, series.key);
        let noise = hash(key, u64::from(self.round));
        match series.shape {
            Shape::Fixed(value) => value,
            Shape::Level(resource, view) => self.level(resource, view),
            Shape::Processor(part) => self.percent(part),
            Shape::ProcessorBusy => 100.0 - self.percent(0),
            Shape::Load(rounds) => self.load(rounds),
            Shape::Counter(mean) => {
                let rate = (mean * (0.25 + 1.5 * unit(key))).max(2.0);
                // The jitter stays below what a round adds, so that the counter never falls.
                (f64::from(self.up) * rate + 0.9 * rate * unit(noise)).floor()
            }
            Shape::Small(mean) => (f64::from(mean) * 2.0 * unit(key).max(0.5) * unit(noise)).round(),
            Shape::Quotient if noise.is_multiple_of(4) => 0.0,
            Shape::Quotient => (noise >> 8 & 0xfff) as f64 / (1 + (noise >> 32 & 0x7f)) as f64,
            Shape::Share => {
                let whole = 1000 + (noise & 0xfff);
                let part = (whole as f64 * (0.2 + 0.6 * unit(key)) + (noise >> 32 & 0x3f) as f64).floor();
                part * (100.0 / whole as f64)
            }
        }
    }

    /// The percentage of a part, as the agent computes percentages: by a factor, and not rounded.
    fn percent(&self, part: usize) -> f64 {
        f64::from(self.jiffies[part]) * (100.0 / f64::from(self.total_jiffies))
    }

    fn load(&self, rounds: u32) -> f64 {
        let mean: f64 = (0..rounds).map(|ago| busy(self.host, self.round.saturating_sub(ago))).sum::<f64>();
        let jitter = 1.0 + 0.1 * unit(hash(self.host, u64::from(self.round) << 8 | u64::from(rounds)));
        (f64::from(self.cores) * mean / f64::from(rounds) * jitter * 100.0).round() / 100.0
    }

    fn level(&self, resource: Resource, view: View) -> f64 {
        let key = hash(self.host, resource as u64);
        let round = u64::from(self.round);
        let wave = smooth(key, self.round, 45);
        let noise = unit(hash(key, round));
        // Total, share in use now, and the grain: a page, a block, one piece.
        let (total, used, grain) = match resource {
            Resource::Memory => {
                (f64::from(self.cores) * 4_294_967_296.0 - 81_920.0, 0.2 + 0.4 * wave + 0.01 * noise, 4096.0)
            }
            Resource::Disk => {
                (270_553_174_016.0, 0.3 + 0.3 * unit(key) + 1e-6 * f64::from(self.round) + 1e-6 * noise, 4096.0)
            }
            Resource::Inodes => (16_777_216.0, 0.02 + 0.2 * unit(key) + 1e-5 * noise, 1.0),
            Resource::Files => (2_466_170.0, 0.0003 + 0.0002 * wave + 0.00004 * noise, 1.0),
        };
        let used = (total * used / grain).floor() * grain;
        match view {
            View::Total => total,
            View::Used => used,
            View::Free => total - used,
            View::UsedPercent => used / total * 100.0,
            View::FreePercent => 100.0 - used / total * 100.0,
        }
    }
}

/// The share of the processors' time in use, 0 to 1: mostly a slow wave well below full; now and then a host is as good
/// as full for ten rounds, so that rules fire.
fn busy(host: u64, round: u32) -> f64 {
    let wave = smooth(host, round, 30);
    let noise = unit(hash(host ^ 1, u64::from(round)));
    if hash(host ^ 2, u64::from(round / 10)).is_multiple_of(200) {
        return 0.94 + 0.05 * noise;
    }
    0.02 + 0.5 * wave * wave + 0.05 * noise
}

/// Rounds since the last restart of a host, which happens every 200 to 2,200 rounds: among 500 hosts, about one every
/// other round.
fn rounds_since_start(host: u64, round: u32) -> u32 {
    let period = 200 + (hash(host, 3) % 2000) as u32;
    let phase = (hash(host, 4) % u64::from(period)) as u32;
    (round % period + phase) % period
}

/// A wave from 0 to 1 that takes a new direction every `span` rounds.
fn smooth(key: u64, round: u32, span: u32) -> f64 {
    let (knot, along) = (u64::from(round / span), f64::from(round % span) / f64::from(span));
    let (from, to) = (unit(hash(key, knot)), unit(hash(key, knot + 1)));
    from + (to - from) * along
}

/// Maps a hash to a number from 0 to below 1.
fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

/// Spreads two numbers over 64 bits (the finaliser of splitmix64); the same on every machine and in every version.
fn hash(a: u64, b: u64) -> u64 {
    let mut x = a.wrapping_add(b.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const ROUNDS: u32 = 100;

    fn values(series: &SimulatedSeries, host: usize) -> Vec<f64> {
        (0..ROUNDS).map(|round| Moment::new(7, host, round).value(series)).collect()
    }

    #[test]
    fn a_real_agent_has_as_many() {
        assert_eq!(host().len(), RECORDED);
        let of = |change| host().iter().filter(|series| series.shape.changes() == change).count();
        assert_eq!((of(Change::Never), of(Change::Whole)), (RECORDED_CONSTANT, RECORDED_WHOLE));
    }

    #[test]
    fn any_size_keeps_the_shares() {
        for count in [0, 1, 2, 3, 10, 50, 198, 200, 1000, 5000] {
            let mix = series(count, 7);
            assert_eq!(mix.len(), count);
            let names: BTreeSet<(&str, &str)> =
                mix.iter().map(|one| (one.metric.as_str(), one.tags.as_str())).collect();
            assert_eq!(names.len(), count, "a series stands twice in a mix of {count}");
            let constant = mix.iter().filter(|one| one.shape.changes() == Change::Never).count();
            assert_eq!(constant, share(count, RECORDED_CONSTANT));
            assert!(mix.is_sorted_by_key(|one| one.group));
        }
    }

    #[test]
    fn values_behave_as_their_shape_says() {
        for series in series(400, 7) {
            let mut changed = 0;
            for host in 0..5 {
                let values = values(&series, host);
                assert!(values.iter().all(|value| value.is_finite()), "{series:?}");
                changed += usize::from(values.iter().any(|value| *value != values[0]));
                match series.shape.changes() {
                    Change::Never => {}
                    Change::Whole => assert!(values.iter().all(|value| value.fract() == 0.0), "{series:?}: {values:?}"),
                    Change::Fraction => assert!(values.iter().any(|value| value.fract() != 0.0), "{series:?}"),
                }
            }
            let expected = if series.shape.changes() == Change::Never { 0 } else { 5 };
            assert_eq!(changed, expected, "{series:?}");
        }
    }

    #[test]
    fn counters_fall_only_when_the_host_restarts() {
        let mut restarts = 0;
        let mix = series(200, 7);
        let counters: Vec<&SimulatedSeries> = mix.iter().filter(|one| matches!(one.shape, Shape::Counter(_))).collect();
        for host in 0..100 {
            for round in 1..ROUNDS {
                let (before, now) = (Moment::new(7, host, round - 1), Moment::new(7, host, round));
                restarts += usize::from(now.up == 0);
                for series in &counters {
                    assert_eq!(now.value(series) < before.value(series), now.up == 0, "{series:?} in round {round}");
                }
            }
        }
        assert!(restarts > 0);
    }

    #[test]
    fn percentages_add_up() {
        for host in 0..50 {
            for round in 0..ROUNDS {
                let moment = Moment::new(7, host, round);
                let sum: f64 = (0..PROCESSOR_PARTS.len()).map(|part| moment.percent(part)).sum();
                assert!((sum - 100.0).abs() < 1e-9, "{sum}");
            }
        }
    }

    /// Rules need something to find: some hosts are overloaded for a while, most never.
    #[test]
    fn few_hosts_are_overloaded() {
        let overloaded = |host| (0..ROUNDS).any(|round| Moment::new(7, host, round).percent(0) < 8.0);
        let count = (0..500).filter(|host| overloaded(*host)).count();
        assert!((5..100).contains(&count), "{count} of 500");
    }

    #[test]
    fn a_seed_says_it_all() {
        let sum = |seed| -> f64 {
            let mix = series(200, seed);
            let moment = Moment::new(seed, 3, 17);
            mix.iter().map(|one| moment.value(one)).sum()
        };
        assert_eq!(sum(7), sum(7));
        assert_ne!(sum(7), sum(8));
    }
}
