//! Merge: several runs become one, so that asking for a name asks few files, and what was removed or expired goes.
//!
//! How: runs that follow each other are read in order and written as one that covers their sequences; of equal names
//! the newest run's counts. Which ones: nothing until there are more than eight; then all from the first one on that is
//! not larger than those after it together. So a name is rewritten each time the runs it is in double, about.
//! Memory: a window of 64 KiB and a page per input, a page per level for the output.

use super::key;
use super::run::{ColdSeries, Leaves, Run};
use super::writer::RunWriter;
use crate::error::{Error, Result};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use stdx::Disk;

/// Runs that a search or a new name has to ask; at most so many lie there when merges keep up.
const RUNS_MAX: usize = 8;

/// Inputs of one merge, also after merges could not be made for long.
const INPUTS_MAX: usize = 16;

/// The caller's pace is asked each time that so much was read.
const PACE_BYTES: u64 = 256 << 10;

/// Picks the runs, which are in order of sequence, to merge now, if any.
pub fn pick_merge(runs: &[Arc<Run>]) -> Option<Range<usize>> {
    let bytes: Vec<u64> = runs.iter().map(|run| run.bytes).collect();
    pick(&bytes)
}

fn pick(bytes: &[u64]) -> Option<Range<usize>> {
    if bytes.len() <= RUNS_MAX {
        return None;
    }
    // Where each is larger than all after it together, the last two are the cheapest to make one.
    let mut start = bytes.len() - 2;
    let mut after: u64 = 0;
    for i in (0..bytes.len()).rev() {
        if bytes[i] <= after {
            start = i;
        }
        after = after.saturating_add(bytes[i]);
    }
    Some(start.min(bytes.len() - 2)..bytes.len().min(start + INPUTS_MAX))
}

/// The result of a merge.
pub struct Merged {
    /// `None` when nothing was worth keeping.
    pub run: Option<Run>,
    /// File, offset and what was wrong; names there are lost.
    pub corrupt: Vec<Error>,
}

/// Makes one run of `runs`, which follow each other in order of sequence; one run alone is rewritten without what
/// `keep` is false for. `pace` is told the bytes read since it was asked last, and may wait; when it is false the merge
/// is given up, and the answer is `None`. The inputs stay: take the output into use, then `retire` them.
pub fn merge(
    disk: &dyn Disk,
    dir: &Path,
    runs: &[Arc<Run>],
    keep: &mut dyn FnMut(&ColdSeries<'_>) -> bool,
    pace: &mut dyn FnMut(u64) -> bool,
) -> Result<Option<Merged>> {
    let first = runs.iter().map(|run| run.first_sequence).min().expect("there is a run to merge");
    let last = runs.iter().map(|run| run.sequence).max().expect("there is a run to merge");
    let mut writer = RunWriter::begin_range(disk, dir, first, last)?;
    let mut inputs = Vec::new();
    for run in runs {
        inputs.push(Input::new(run)?);
    }
    let mut texts = key::Texts::default();
    let mut paced = 0;
    while let Some(least) = least(&inputs) {
        if let Some(series) = inputs[least].leaves.series(&mut texts) {
            if keep(&series) {
                writer.add(&series)?;
            }
        } else {
            inputs[least].leaves.damaged("a series that makes no sense");
        }
        let read = advance_past(&mut inputs, least)?;
        if read >= paced + PACE_BYTES {
            if !pace(read - paced) {
                return Ok(None);
            }
            paced = read;
        }
    }
    let damage = inputs.into_iter().flat_map(|input| input.leaves.damage);
    Ok(Some(Merged { corrupt: damage.collect(), run: writer.finish()? }))
}

/// A run being read.
struct Input {
    leaves: Leaves,
    /// False at its end.
    more: bool,
}

impl Input {
    fn new(run: &Run) -> Result<Input> {
        let mut leaves = run.leaves();
        let more = leaves.next()?;
        Ok(Input { leaves, more })
    }

    fn key(&self) -> &[u8] {
        &self.leaves.entries.key
    }
}

/// The input whose name comes first; of equal names the newest run's.
fn least(inputs: &[Input]) -> Option<usize> {
    let mut least: Option<usize> = None;
    for (i, input) in inputs.iter().enumerate().filter(|(_, input)| input.more) {
        if least.is_none_or(|least| input.key() <= inputs[least].key()) {
            least = Some(i);
        }
    }
    least
}

/// Goes past the name of input `least` in all inputs. Returns the bytes of all of them that are behind.
fn advance_past(inputs: &mut [Input], least: usize) -> Result<u64> {
    let (before, rest) = inputs.split_at_mut(least);
    let (input, after) = rest.split_first_mut().expect("it is one of them");
    let mut read = 0;
    for other in before.iter_mut().chain(after) {
        if other.more && other.key() == input.key() {
            other.more = other.leaves.next()?;
        }
        read += other.leaves.page_at;
    }
    input.more = input.leaves.next()?;
    Ok(read + input.leaves.page_at)
}

/// Removes the files of runs that `successor` took the place of.
pub fn retire(disk: &dyn Disk, runs: &[Arc<Run>], successor: Option<&Run>) -> Result<()> {
    for run in runs.iter().filter(|run| successor.is_none_or(|successor| successor.path != run.path)) {
        match disk.remove(&run.path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::disk("remove", &run.path)(cause));
            }
            // Whoever took it away before did what was wanted.
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds runs of these sizes; returns the most runs that ever lay there after merging, and how many bytes were
    /// written per byte that came.
    fn simulate(sizes: impl Iterator<Item = u64>) -> (usize, f64) {
        let (mut runs, mut most) = (Vec::new(), 0);
        let (mut came, mut written) = (0, 0);
        for size in sizes {
            runs.push(size);
            came += size;
            written += size;
            while let Some(range) = pick(&runs) {
                let merged: u64 = runs[range.clone()].iter().sum();
                written += merged;
                runs.splice(range, [merged]);
            }
            most = most.max(runs.len());
        }
        (most, written as f64 / came as f64)
    }

    #[test]
    fn runs_stay_few_and_a_name_is_seldom_rewritten() {
        // A year of hours; all alike, ever smaller, ever larger, and mixed.
        let hours = 24 * 365;
        let check = |sizes: &mut dyn Iterator<Item = u64>, amplification_max: f64| {
            let (most, amplification) = simulate(sizes);
            assert!(most <= RUNS_MAX, "{most} runs");
            assert!(amplification < amplification_max, "{amplification} bytes per byte");
        };
        check(&mut (0..hours).map(|_| 1000), 9.0);
        check(&mut (0..hours).map(|i| 1_000_000 / (i + 1)), 9.0);
        check(&mut (0..hours).map(|i| 1000 + i * i), 9.0);
        check(&mut (0..hours).map(|i| 1 + (i * 7919) % 100_003), 9.0);
        check(&mut (0..40).map(|i| 1 << i), 3.0);
    }

    #[test]
    fn a_backlog_is_merged_in_parts() {
        assert_eq!(pick(&[10; 8]), None);
        assert_eq!(pick(&[10; 9]), Some(0..9));
        assert_eq!(pick(&[1000, 10, 10, 10, 10, 10, 10, 10, 10]), Some(1..9));
        assert_eq!(pick(&[256, 128, 64, 32, 16, 8, 4, 2, 1]), Some(7..9));
        assert_eq!(pick(&[10; 40]), Some(0..INPUTS_MAX));
    }
}
