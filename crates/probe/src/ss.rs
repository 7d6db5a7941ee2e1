//! Sockets by state, as the summary of `ss -s` counts them.
//!
//! Why no child process: `ss -s` itself prints what it finds in three files, and so do we. Checked against its source
//! of numbers (iproute2 6.1 opens exactly `sockstat`, `sockstat6` and `snmp`) and against recorded output.
//! Compat: keys as in the line `TCP: 103 (estab 54, closed 17, orphaned 0, timewait 13)`; `slabinfo.timewait` is always
//! 0 because a modern `ss` prints no second part, and `synrecv`, which only the old one printed, is not reported.

use crate::reading::Reading;
use crate::roots::{ProbeError, Roots};
use crate::text::{columns, int};

pub(crate) fn collect(roots: &Roots, out: &mut Vec<Reading>) -> Result<(), ProbeError> {
    let sockstat = roots.read_net("sockstat")?;
    let line = sockstat.text.lines().find_map(|line| line.strip_prefix("TCP:"));
    let line = line.ok_or_else(|| sockstat.missing("line TCP"))?;
    let count = |name| pair(line, name).ok_or_else(|| sockstat.missing("TCP inuse, orphan, tw or alloc"));
    let (in_use, orphaned, time_wait, allocated) = (count("inuse")?, count("orphan")?, count("tw")?, count("alloc")?);

    let snmp = roots.read_net("snmp")?;
    let mut tcp = columns(&snmp.text, "Tcp").ok_or_else(|| snmp.missing("Tcp"))?;
    let (_, established) = tcp.find(|(name, _)| *name == "CurrEstab").ok_or_else(|| snmp.missing("Tcp CurrEstab"))?;

    // A socket that has no port (never bound, or closed and not yet freed) is allocated but not in use. The figures are
    // not of one moment, and must not make less than none.
    let closed = (allocated - (in_use + in_use_v6(roots) - time_wait)).max(0);
    out.extend([
        Reading::gauge("ss.estab", "", established as f64),
        Reading::gauge("ss.closed", "", closed as f64),
        Reading::gauge("ss.orphaned", "", orphaned as f64),
        Reading::gauge("ss.timewait", "", time_wait as f64),
        Reading::gauge("ss.slabinfo.timewait", "", 0.0),
    ]);
    Ok(())
}

/// Sockets of IPv6 in use; 0 on a kernel without it, where the file is missing.
fn in_use_v6(roots: &Roots) -> i64 {
    let Ok(file) = roots.read_net("sockstat6") else { return 0 };
    file.text.lines().find_map(|line| line.strip_prefix("TCP6:")).and_then(|line| pair(line, "inuse")).unwrap_or(0)
}

/// The number behind `name`, kept in 32 bits so that the sums above cannot overflow.
fn pair(line: &str, name: &str) -> Option<i64> {
    let mut words = line.split_whitespace();
    words.find(|word| *word == name)?;
    words.next().map(|number| int(number).clamp(0, i64::from(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `testdata/sockets` holds the files and, taken in the same moment, the output of `ss -s`.
    #[test]
    fn equals_recorded_ss() {
        let summary = std::fs::read_to_string("testdata/sockets/ss_s.txt").expect("testdata");
        let line = summary.lines().find(|line| line.starts_with("TCP: ")).expect("TCP line");
        let pairs = line[line.find('(').expect("(") + 1..].trim_end_matches(')');
        let mut out = Vec::new();
        collect(&Roots::new("testdata/sockets"), &mut out).expect("readable");
        let mut compared = 0;
        for (key, value) in pairs.split(", ").filter_map(|pair| pair.split_once(' ')) {
            let reading = out.iter().find(|reading| reading.metric == format!("ss.{key}")).expect(key);
            assert_eq!(reading.value, value.parse::<f64>().expect(value), "{key}");
            compared += 1;
        }
        assert_eq!(compared, 4);
    }

    #[test]
    fn a_missing_number_is_named() {
        let error =
            collect(&Roots::new(testdata::path("agent/fixture_root")), &mut Vec::new()).expect_err("no sockstat there");
        assert!(error.file().ends_with("proc/net/sockstat"), "{error}");
    }
}
