//! Load averages over 1, 5 and 15 minutes.

use crate::reading::Reading;
use crate::roots::{ProbeError, Roots};

const METRICS: [&str; 3] = ["load.1min", "load.5min", "load.15min"];

pub(crate) fn collect(roots: &Roots, out: &mut Vec<Reading>) -> Result<(), ProbeError> {
    let file = roots.read_proc("loadavg")?;
    let mut fields = file.text.split_whitespace();
    for metric in METRICS {
        let value = fields.next().and_then(|field| field.parse::<f64>().ok()).filter(|value| value.is_finite());
        out.push(Reading::gauge(metric, "", value.ok_or_else(|| file.missing("three load averages"))?));
    }
    Ok(())
}
