//! UDP: every column of `/proc/net/snmp` that the kernel has.

use crate::reading::Reading;
use crate::roots::{ProbeError, Roots};
use crate::text::columns;

pub(crate) fn collect(roots: &Roots, out: &mut Vec<Reading>) -> Result<(), ProbeError> {
    let file = roots.read_net("snmp")?;
    for (name, value) in columns(&file.text, "Udp").ok_or_else(|| file.missing("Udp"))? {
        out.push(Reading::counter(format!("snmp.Udp.{name}"), "", value as f64));
    }
    Ok(())
}
