//! Certificates: how many days those in files of this host are valid yet.
//!
//! How: of a file with several certificates (a chain) the one counts that ends first. A file whose certificates cannot
//! be read is a fault and has no reading, so that a rule for silence finds it.
//! Invariants: regular files only, [`FILE_BYTES_MAX`] of each; a key that stands beside is not looked at; the time is
//! an argument.
//! Memory: one file at a time.

use super::{Collected, Fault};
use net::tls::validity;
use probe::optional::matching_files;
use probe::{Reading, Roots};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::Path;
use stdx::small_file;

/// Files of one report; a guess: a proxy of many sites has some hundreds.
pub const FILES_MAX: usize = 1024;
/// Bytes of a file; the bundle of all authorities has 220 kB.
const FILE_BYTES_MAX: u64 = 1 << 20;
const SECONDS_OF_A_DAY: f64 = 86_400.0;

/// Collects the files that the globs name, at a time in Unix seconds.
pub fn collect(roots: &Roots, globs: &[String], now: i64) -> Collected {
    let (mut collected, mut failures) = (Collected::default(), Vec::new());
    for path in matching_files(roots, globs, FILES_MAX, &mut failures) {
        let shown = path.strip_prefix(&roots.prefix).map_or(path.clone(), |inside| Path::new("/").join(inside));
        let shown = shown.display().to_string();
        match first_and_last(&path) {
            Ok((not_before, not_after)) => {
                let is_valid = (not_before..=not_after).contains(&now);
                let tags = probe::tag("file", &shown);
                let days = (not_after - now) as f64 / SECONDS_OF_A_DAY;
                collected.readings.push(Reading::gauge("cert.days_left", &tags, days));
                collected.readings.push(Reading::gauge("cert.valid", &tags, f64::from(u8::from(is_valid))));
            }
            Err(why) => collected.faults.push(Fault { of: shown, why }),
        }
    }
    collected.fail_all(failures);
    collected
}

/// The time from which, and the one until which all certificates of a file are valid.
fn first_and_last(path: &Path) -> Result<(i64, i64), String> {
    let bytes = small_file::read(path, FILE_BYTES_MAX).map_err(|error| format!("cannot be read: {error}"))?;
    let (mut not_before, mut not_after) = (i64::MIN, i64::MAX);
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|_| "is no PEM".to_string())?;
        let valid = validity::of(&certificate).map_err(|error| format!("has a certificate with {error}"))?;
        (not_before, not_after) = (not_before.max(valid.not_before), not_after.min(valid.not_after));
        count += 1;
    }
    if count == 0 { Err("has no certificate".into()) } else { Ok((not_before, not_after)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::tests::rows;

    const DAY: i64 = 86_400;
    /// The end of the certificate of ten days in the chain; the other one has 400 days.
    const END: i64 = 1_796_979_295;

    /// Readings and faults of the folder of certificates at a time.
    fn at(now: i64) -> (Vec<String>, Vec<String>) {
        let collected = collect(&Roots::new("testdata"), &["/certificates/*.pem".into()], now);
        let faults = collected.faults.into_iter().map(|fault| format!("{} {}", fault.of, fault.why));
        (rows(&collected.readings), faults.collect())
    }

    #[test]
    fn days_of_the_one_that_ends_first() {
        let (readings, faults) = at(END - 9 * DAY - DAY / 2);
        let chain = |days: &str, valid: &str| {
            let file = "file=/certificates/chain.pem GAUGE";
            [format!("cert.days_left {file} {days}"), format!("cert.valid {file} {valid}")]
        };
        assert_eq!(readings, chain("9.5", "1"));
        assert!(faults[0].starts_with("/certificates/bad.pem has a certificate with"), "{faults:?}");
        assert_eq!(faults[1..], ["/certificates/key.pem has no certificate"]);
        assert_eq!(at(END + DAY).0, chain("-1", "0"));
        // Not valid yet.
        assert_eq!(at(END - 500 * DAY).0, chain("500", "0"));
    }
}
