//! Column: the values, or the times, of many points, side by side and coded together.
//!
//! Why: a block that was merged holds hours of a series. Coded one by one (`chunk.rs`) a point that changes costs two
//! to eight bytes; coded together, what they have in common is written once.
//! How: values are turned into the whole numbers that they were made of, where that gives the same bits back (whole
//! numbers, decimals of up to three places, ticks * 100 / total), and these, or else the values, go through `pco`,
//! which finds the differences, common factors and an entropy code for them. A column of one repeated value is that
//! value.
//!
//! Measured (`cargo bench -p store -- 0`, "codings": bytes per value without times, heads and index; the trace is the
//! recorded one with 237 points a series, the mix is the benchmark's with 1440):
//! ```text
//!                              trace     mix
//! XOR, whole bytes             1.053   1.753
//! records (chunk.rs)           0.818   1.076
//! differences, packed in 64s   1.330   1.260     other than whole numbers and decimals as they are
//! pco alone                    0.705   0.245     its standalone format
//! columns (here)               0.463   0.106
//! ```
//! Invariants: exact for every f64; decoding hostile bytes ends in `None`; a reader gives the count, so nothing here
//! allocates more than that. The format of pco is pinned to `PCO_FORMAT`: another one needs another form.
//! Memory: the column and its code, for the time of a call.

use crate::hot::chunk::{RATIO_FORMULAS, SCALES, WHOLE_MAX, convergents, ratio_value, scaled, whole};
use pco::ChunkConfig;
use pco::data_types::Number;
use pco::wrapped::{FileCompressor, FileDecompressor};
use stdx::varint::{push_i64, push_u64, take_i64, take_u64};

/// Major and minor version of pco's wrapped format, as its header would say.
const PCO_FORMAT: [u8; 2] = [4, 1];

// Forms of a column of values.
const ONE_WHOLE: u8 = 0;
const ONE_VALUE: u8 = 1;
const FLOATS: u8 = 2;
const WHOLES: u8 = 3;
const DECIMALS: u8 = 4;
const RATIOS: u8 = DECIMALS + SCALES.len() as u8;
const VALUE_FORMS: u8 = RATIOS + RATIO_FORMULAS;

// Forms of a column of times, and of one of counts.
const EVEN: u8 = 0;
const RUNS: u8 = 1;
const PACKED: u8 = 2;

/// Appends a column of at least one value.
pub fn push_values(values: &[f64], out: &mut Vec<u8>) {
    let first = values[0];
    if values.iter().all(|value| value.to_bits() == first.to_bits()) {
        match whole(first) {
            Some(whole) => {
                out.push(ONE_WHOLE);
                push_i64(whole, out);
            }
            None => {
                out.push(ONE_VALUE);
                out.extend_from_slice(&first.to_bits().to_le_bytes());
            }
        }
        return;
    }
    if let Some(wholes) = all(values, whole) {
        out.push(WHOLES);
        return push_packed(&wholes, out);
    }
    for (form, scale) in (DECIMALS..).zip(SCALES) {
        if let Some(wholes) = all(values, |value| scaled(value, scale)) {
            out.push(form);
            return push_packed(&wholes, out);
        }
    }
    let start = out.len();
    out.push(FLOATS);
    push_packed(values, out);
    for formula in 0..RATIO_FORMULAS {
        if let Some((numerators, denominators)) = ratios(values, formula) {
            let mut ratios = vec![RATIOS + formula];
            push_counts(&denominators, &mut ratios);
            push_counts(&numerators, &mut ratios);
            if ratios.len() < out.len() - start {
                out.truncate(start);
                out.extend_from_slice(&ratios);
            }
            return;
        }
    }
}

/// Takes a column of `count` values (at least one) off the front of `input` and replaces `out` by it.
pub fn take_values(input: &mut &[u8], count: usize, out: &mut Vec<f64>) -> Option<()> {
    out.clear();
    let form = take_byte(input)?;
    match form {
        ONE_WHOLE => out.resize(count, take_i64(input)? as f64),
        ONE_VALUE => {
            let (bits, rest) = input.split_first_chunk::<8>()?;
            *input = rest;
            out.resize(count, f64::from_bits(u64::from_le_bytes(*bits)));
        }
        FLOATS => take_packed(input, count, out)?,
        WHOLES => out.extend(take_wholes(input, count)?.iter().map(|whole| *whole as f64)),
        DECIMALS..RATIOS => {
            let scale = SCALES[usize::from(form - DECIMALS)];
            out.extend(take_wholes(input, count)?.iter().map(|whole| *whole as f64 / scale));
        }
        RATIOS..VALUE_FORMS => {
            let (mut numerators, mut denominators) = (Vec::new(), Vec::new());
            take_counts(input, count, &mut denominators)?;
            take_counts(input, count, &mut numerators)?;
            let pairs = numerators.iter().zip(&denominators);
            out.extend(pairs.map(|(p, q)| ratio_value(form - RATIOS, u64::from(*p), u64::from(*q))));
        }
        _ => return None,
    }
    Some(())
}

/// Appends a column of times that ascend strictly and are mostly `step` apart. The newest one is the reader's to know.
pub fn push_times(times: &[u32], step: u32, out: &mut Vec<u8>) {
    let gaps: Vec<u32> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    if gaps.iter().all(|gap| *gap == step) {
        out.push(EVEN);
        return;
    }
    let start = out.len();
    out.push(RUNS);
    let runs = gaps.chunk_by(|a, b| a == b);
    push_u64(runs.clone().count() as u64, out);
    for run in runs {
        push_u64(u64::from(run[0]), out);
        push_u64(run.len() as u64, out);
    }
    let mut packed = vec![PACKED];
    push_packed(&gaps, &mut packed);
    if packed.len() < out.len() - start {
        out.truncate(start);
        out.extend_from_slice(&packed);
    }
}

/// Takes a column of `count` times (at least one), the last of which is `newest`, and replaces `out` by it, ascending.
pub fn take_times(input: &mut &[u8], newest: u32, step: u32, count: usize, out: &mut Vec<u32>) -> Option<()> {
    out.clear();
    match take_byte(input)? {
        EVEN => out.resize(count - 1, step),
        RUNS => {
            for _ in 0..take_u64(input)? {
                let (gap, repeats) = (u32::try_from(take_u64(input)?).ok()?, take_u64(input)?);
                if repeats > (count - 1 - out.len()) as u64 {
                    return None;
                }
                out.resize(out.len() + repeats as usize, gap);
            }
        }
        PACKED if count > 1 => take_packed(input, count - 1, out)?,
        _ => return None,
    }
    if out.len() != count - 1 {
        return None;
    }
    // From gaps to times, from the newest back.
    out.push(newest);
    for i in (0..count - 1).rev() {
        out[i] = out[i + 1].checked_sub(out[i]).filter(|time| *time < out[i + 1])?;
    }
    Some(())
}

/// Appends a column of at least one count.
pub fn push_counts(counts: &[u32], out: &mut Vec<u8>) {
    if counts.iter().all(|count| *count == counts[0]) {
        out.push(EVEN);
        push_u64(u64::from(counts[0]), out);
    } else {
        out.push(PACKED);
        push_packed(counts, out);
    }
}

/// Takes a column of `count` counts and replaces `out` by it.
pub fn take_counts(input: &mut &[u8], count: usize, out: &mut Vec<u32>) -> Option<()> {
    out.clear();
    match take_byte(input)? {
        EVEN => out.resize(count, u32::try_from(take_u64(input)?).ok()?),
        PACKED => take_packed(input, count, out)?,
        _ => return None,
    }
    Some(())
}

/// Takes a byte off the front of `input`; `None` when there is none.
pub fn take_byte(input: &mut &[u8]) -> Option<u8> {
    let (byte, rest) = input.split_first()?;
    *input = rest;
    Some(*byte)
}

fn take_wholes(input: &mut &[u8], count: usize) -> Option<Vec<i64>> {
    let mut wholes = Vec::new();
    take_packed(input, count, &mut wholes)?;
    Some(wholes)
}

fn push_packed<T: Number>(numbers: &[T], out: &mut Vec<u8>) {
    // It fails on no numbers, on more than 16 million, or when the destination does: none of them is here.
    let mut chunk = FileCompressor::default()
        .chunk_compressor(numbers, &ChunkConfig::default())
        .expect("a column has between one and some hundred thousand numbers");
    chunk.write_meta(&mut *out).expect("a vector takes all");
    for page in 0..chunk.n_per_page().len() {
        chunk.write_page(page, &mut *out).expect("a vector takes all");
    }
}

fn take_packed<T: Number + Default>(input: &mut &[u8], count: usize, out: &mut Vec<T>) -> Option<()> {
    let (file, _) = FileDecompressor::new(&PCO_FORMAT[..]).ok()?;
    let (mut chunk, rest) = file.chunk_decompressor::<T, _>(*input).ok()?;
    let mut page = chunk.page_decompressor(rest, count).ok()?;
    out.clear();
    out.resize(count, T::default());
    let progress = page.read(out).ok()?;
    if !progress.finished || progress.n_processed != count {
        return None;
    }
    *input = page.into_src();
    Some(())
}

/// All values as whole numbers, or none.
fn all(values: &[f64], convert: impl Fn(f64) -> Option<i64>) -> Option<Vec<i64>> {
    values.iter().map(|value| convert(*value)).collect()
}

/// Numerators and denominators of one formula for all values, or none.
fn ratios(values: &[f64], formula: u8) -> Option<(Vec<u32>, Vec<u32>)> {
    let lowest: Vec<(u32, u32)> = values.iter().map(|value| in_lowest_terms(*value, formula)).collect::<Option<_>>()?;
    // A ratio is found in lowest terms, but the totals that it was made with are alike: terms near them are coded
    // shorter, and rounding may have been other in lowest terms.
    let total = lowest.iter().map(|(_, q)| *q).max()?;
    let (mut numerators, mut denominators) = (Vec::new(), Vec::new());
    for (value, (p, q)) in values.iter().zip(lowest) {
        let near = (total + q / 2) / q;
        let factors = [near, near + 1, near.saturating_sub(1)].into_iter().chain(1..FACTOR_MAX);
        let terms = factors.filter_map(|factor| Some((p.checked_mul(factor)?, q.checked_mul(factor)?)));
        let (p, q) = terms
            .filter(|(_, q)| *q > 0)
            .find(|(p, q)| ratio_value(formula, u64::from(*p), u64::from(*q)).to_bits() == value.to_bits())?;
        numerators.push(p);
        denominators.push(q);
    }
    Some((numerators, denominators))
}

/// The terms of a value, up to its last bits.
fn in_lowest_terms(value: f64, formula: u8) -> Option<(u32, u32)> {
    let part = if formula == 2 { 100.0 - value } else { value };
    if part == 0.0 {
        return Some((0, 1));
    }
    let near = |p: u64, q: u64| (ratio_value(formula, p, q) - value).abs() <= LAST_BITS * value.abs().max(part);
    convergents(part / 100.0, |p, q| near(p, q).then_some((p as u32, q as u32)))
}

/// Each of a formula's three steps rounds by half a bit of 53.
const LAST_BITS: f64 = 4.0 * f64::EPSILON;

/// Multiples of the lowest terms that are tried before a value counts as no ratio.
const FACTOR_MAX: u32 = 32;

const _: () = assert!(WHOLE_MAX < i64::MAX as f64);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Codes, decodes, compares bits; returns the form and the bytes used.
    fn check(values: &[f64]) -> (u8, usize) {
        let mut bytes = Vec::new();
        push_values(values, &mut bytes);
        let len = bytes.len();
        bytes.extend_from_slice(b"rest");
        let (mut input, mut back) = (&bytes[..], Vec::new());
        take_values(&mut input, values.len(), &mut back).expect("decodes");
        assert_eq!(input, b"rest");
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(values));
        (bytes[0], len)
    }

    fn check_times(times: &[u32], step: u32) -> usize {
        let mut bytes = Vec::new();
        push_times(times, step, &mut bytes);
        let (mut input, mut back) = (&bytes[..], Vec::new());
        take_times(&mut input, times[times.len() - 1], step, times.len(), &mut back).expect("decodes");
        assert_eq!((&back[..], input), (times, &[][..]));
        bytes.len()
    }

    #[test]
    fn the_format_is_the_one_that_is_read() {
        let mut header = Vec::new();
        FileCompressor::default().write_header(&mut header).expect("a vector takes all");
        assert_eq!(header, PCO_FORMAT, "a new format of pco needs forms of its own");
    }

    #[test]
    fn forms_and_costs_of_the_usual_shapes() {
        let noise =
            |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 44;
        let column = |value: fn(u64) -> f64| (0..1440).map(|i| value(noise(i))).collect::<Vec<f64>>();
        assert_eq!(check(&[7.0; 1440]), (ONE_WHOLE, 2));
        assert_eq!(check(&[-0.0; 1440]), (ONE_VALUE, 9));
        assert_eq!(check(&[0.1; 1]), (ONE_VALUE, 9));
        let cost = |form: u8, bytes_max: usize, values: &[f64]| {
            let (got, bytes) = check(values);
            assert!(got == form && bytes <= bytes_max, "form {got}, {bytes} bytes");
        };
        cost(WHOLES, 640, &column(|x| (x % 7) as f64));
        cost(DECIMALS, 1900, &column(|x| (x % 1000) as f64 / 10.0));
        cost(DECIMALS + 2, 1900, &column(|x| (x % 999) as f64 / 1000.0));
        cost(RATIOS, 1700, &column(|x| (x % 401) as f64 * (100.0 / 401.0)));
        // Two of the formulas fit; the first is taken.
        cost(RATIOS, 3200, &column(|x| x as f64 * 100.0 / 8_039_123.0));
        cost(RATIOS + 2, 1700, &column(|x| 100.0 - (x % 401) as f64 * (100.0 / 401.0)));
        // Totals that differ a little.
        cost(RATIOS, 2300, &column(|x| (x % 350) as f64 * (100.0 / (396 + x % 9) as f64)));
        cost(FLOATS, 11_000, &column(|x| (x as f64).sqrt()));
    }

    #[test]
    fn costs_of_times() {
        let even: Vec<u32> = (0..1440).map(|i| 86_400 + 60 * i).collect();
        assert_eq!(check_times(&even, 60), 1);
        assert_eq!(check_times(&even, 30), 5, "one run");
        assert_eq!(check_times(&[5], 60), 1);
        let gappy: Vec<u32> = even.iter().copied().filter(|time| time / 60 % 700 != 3).collect();
        assert!(check_times(&gappy, 60) < 20);
        let jittery: Vec<u32> = even.iter().map(|time| time + time / 60 * 7919 % 5).collect();
        assert!(check_times(&jittery, 60) < 700, "packed");
    }

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>(),
            any::<u64>().prop_map(f64::from_bits),
            (-1000i64..1000).prop_map(|v| v as f64),
            any::<i64>().prop_map(|v| v as f64),
        ]
    }

    fn columns() -> impl Strategy<Value = Vec<f64>> {
        prop_oneof![
            prop::collection::vec(value(), 1..80),
            prop::collection::vec((0i64..100_000).prop_map(|v| v as f64 / 100.0), 1..80),
            prop::collection::vec(
                (0u32..300, 1u32..300).prop_map(|(p, q)| f64::from(p) * (100.0 / f64::from(q))),
                1..80
            ),
            prop::collection::vec(
                (0u32..300, 300u32..9000).prop_map(|(p, q)| 100.0 - f64::from(p) * (100.0 / f64::from(q))),
                1..80
            ),
            prop::collection::vec(any::<i64>().prop_map(|v| v as f64), 1..80),
        ]
    }

    proptest! {
        #[test]
        fn any_values_read_back(values in columns()) {
            check(&values);
        }

        #[test]
        fn any_times_read_back(step in 1u32..400, gaps in prop::collection::vec(prop_oneof![Just(60u32), 1u32..100_000], 0..80)) {
            let mut times = vec![1_000_000];
            times.extend(gaps.iter().scan(1_000_000, |time, gap| { *time += gap; Some(*time) }));
            check_times(&times, step);
        }

        #[test]
        fn any_counts_read_back(counts in prop::collection::vec(any::<u32>(), 1..80)) {
            let (mut bytes, mut back) = (Vec::new(), Vec::new());
            push_counts(&counts, &mut bytes);
            take_counts(&mut &bytes[..], counts.len(), &mut back).expect("decodes");
            prop_assert_eq!(back, counts);
        }

        #[test]
        fn hostile_bytes_end(form in 0..VALUE_FORMS + 1, bytes in prop::collection::vec(any::<u8>(), 0..200), count in 1usize..500) {
            let mut bytes = bytes;
            bytes.insert(0, form);
            let _ = take_values(&mut &bytes[..], count, &mut Vec::new());
            let _ = take_times(&mut &bytes[..], 77, 60, count, &mut Vec::new());
            let _ = take_counts(&mut &bytes[..], count, &mut Vec::new());
        }
    }
}
