//! Heap profile: jemalloc's samples, read from the text that it dumps.
//!
//! How: `prof.dump` takes a path, so it gets that of a file in memory. Behind each stack, `@ <addresses>`, stands a
//! line `t*: <objects in use>: <bytes in use> [<objects ever>: <bytes ever>]`, then the same per thread, which is not
//! read.
//! A sample stands for more than itself: an allocation of `size` bytes is sampled with probability 1 - exp(-size /
//! rate).

use super::profile::{Profile, ProfileSample, SampleKind};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::time::Duration;

/// The figures of a heap profile, as Go names and orders them.
const KINDS: [SampleKind; 4] =
    [("alloc_objects", "count"), ("alloc_space", "bytes"), ("inuse_objects", "count"), ("inuse_space", "bytes")];
pub const ALLOC_SPACE: usize = 1;
pub const INUSE_SPACE: usize = 3;

pub fn profile(shown: usize) -> Result<Profile> {
    parse(BufReader::new(dump()?), shown)
}

fn dump() -> Result<std::fs::File> {
    use std::os::fd::AsRawFd;
    // SAFETY: `opt.prof` is a bool that may be read at any time.
    if !unsafe { tikv_jemalloc_ctl::raw::read::<bool>(b"opt.prof\0") }.unwrap_or(false) {
        bail!("the allocator does not sample: its settings say prof:false; build with those of .cargo/config.toml");
    }
    let file = rustix::fs::memfd_create("heap", rustix::fs::MemfdFlags::CLOEXEC)?;
    let path = std::ffi::CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    // SAFETY: `prof.dump` takes a pointer to a C string, which lives until the call is over.
    unsafe { tikv_jemalloc_ctl::raw::write(b"prof.dump\0", path.as_ptr()) }
        .map_err(|error| anyhow::anyhow!("jemalloc cannot write its profile: {error}"))?;
    Ok(std::fs::File::open(path.to_str()?)?)
}

fn parse(dump: impl BufRead, shown: usize) -> Result<Profile> {
    let mut lines = dump.lines();
    let head = lines.next().context("jemalloc wrote an empty profile")??;
    let rate: f64 =
        head.strip_prefix("heap_v2/").and_then(|rate| rate.parse().ok()).context("not jemalloc's heap_v2")?;
    let (mut samples, mut stack) = (Vec::new(), None);
    for line in lines {
        let line = line?;
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["@", ref addresses @ ..] => stack = addresses_of(addresses),
            ["t*:", objects, bytes, objects_ever, bytes_ever] => {
                let number = |word: &str| word.trim_matches(['[', ']', ':']).parse().unwrap_or(0.0);
                let Some(addresses) = stack.take() else { continue };
                let ever = scaled(number(objects_ever), number(bytes_ever), rate);
                let in_use = scaled(number(objects), number(bytes), rate);
                samples.push(ProfileSample { addresses, figures: [ever, in_use].concat() });
            }
            _ => {}
        }
    }
    Ok(Profile { kinds: &KINDS, shown, period: (("space", "bytes"), rate as i64), duration: Duration::ZERO, samples })
}

fn addresses_of(words: &[&str]) -> Option<Vec<usize>> {
    let address = |word: &&str| usize::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    words.iter().map(address).collect::<Option<Vec<usize>>>().filter(|addresses| !addresses.contains(&0))
}

/// The number of objects and bytes that sampled ones stand for.
fn scaled(objects: f64, bytes: f64, rate: f64) -> [i64; 2] {
    if objects == 0.0 || bytes == 0.0 {
        return [0, 0];
    }
    let scale = 1.0 / (1.0 - (-(bytes / objects) / rate).exp());
    [(objects * scale) as i64, (bytes * scale) as i64]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_for_what_was_not_sampled() {
        let dump = "heap_v2/524288\n  t*: 29: 106528 [55: 200160]\n@ 0x1 0x2\n  t*: 1: 1048576 [2: 2097152]\n  t0: 1: 32 [5: 160]\n\
            @ 0x3\n  t*: 0: 0 [1: 524288]\n  t1: 0: 0 [7: 70]\n\nMAPPED_LIBRARIES:\n";
        let profile = parse(dump.as_bytes(), INUSE_SPACE).expect("a profile");
        let samples: Vec<_> = profile.samples.iter().map(|s| (s.addresses.as_slice(), s.figures.as_slice())).collect();
        // 1 / (1 - e^-2) is 1.156518, 1 / (1 - e^-1) is 1.581977.
        let expected = [(&[1, 2][..], &[2, 2_425_393, 1, 1_212_696][..]), (&[3][..], &[1, 829_411, 0, 0][..])];
        assert_eq!(samples, expected);
        assert!(parse("".as_bytes(), 0).is_err() && parse("garbage".as_bytes(), 0).is_err());
    }
}
