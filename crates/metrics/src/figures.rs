//! Figures: gauges and counters that are read from their owners, written through the metrics library's encoder.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use std::fmt;

/// Whole numbers up to this are exact in a double, and are written without a point.
const WHOLE_MAX: f64 = (1_u64 << 53) as f64;

/// The writer for the figures of a source. A failure of the page's writer is kept until the source is done.
pub struct Figures<'e> {
    encoder: DescriptorEncoder<'e>,
    result: fmt::Result,
}

impl Figures<'_> {
    /// Writes a gauge; `name` is without the program's prefix and ends in the unit.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.write(|encoder| {
            let mut metric = encoder.encode_descriptor(name, &sentence(help), None, MetricType::Gauge)?;
            if value.fract() == 0.0 && value.abs() <= WHOLE_MAX {
                metric.encode_gauge(&(value as i64))
            } else {
                metric.encode_gauge(&value)
            }
        });
    }

    /// Writes a counter; `name` is without the program's prefix and without `_total`, which is added.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.write(|encoder| {
            let mut metric = encoder.encode_descriptor(name, &sentence(help), None, MetricType::Counter)?;
            metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
        });
    }

    /// Writes gauges that differ in one label, whose values come from a fixed set.
    pub fn gauges<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'v str, u64)>,
    ) {
        self.write(|encoder| {
            let mut metric = encoder.encode_descriptor(name, &sentence(help), None, MetricType::Gauge)?;
            for (of, value) in values {
                let labels = [(label, of)];
                let mut one = metric.encode_family(&labels)?;
                one.encode_gauge(&value)?;
            }
            Ok(())
        });
    }

    fn write(&mut self, write: impl FnOnce(&mut DescriptorEncoder<'_>) -> fmt::Result) {
        if self.result.is_ok() {
            self.result = write(&mut self.encoder);
        }
    }
}

/// A help text with a full stop, as the library ends the help of registered counters: a page has one style.
fn sentence(help: &str) -> String {
    format!("{help}.")
}

/// A closure as one of the library's collectors.
pub struct Source<F>(F);

impl<F: Fn(&mut Figures<'_>)> Source<F> {
    /// A collector that asks `source` each time somebody looks.
    pub fn new(source: F) -> Source<F> {
        Source(source)
    }
}

impl<F> fmt::Debug for Source<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

impl<F: Fn(&mut Figures<'_>) + Send + Sync + 'static> Collector for Source<F> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut figures = Figures { encoder, result: Ok(()) };
        (self.0)(&mut figures);
        figures.result
    }
}
