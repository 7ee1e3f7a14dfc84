//! The admission's instruments, read from it when someone scrapes.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use resilience::{
    Criticality,
    admission::{Admission, Refusal},
};

/// An admission, as a source of metrics.
#[derive(Debug)]
pub struct Collected(pub Admission);

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let now = self.0.snapshot();
        let help = "Requests that may be worked on at once";
        let limit = encoder.encode_descriptor("admission_limit", help, None, MetricType::Gauge)?;
        ConstGauge::new(as_gauge(now.limit)).encode(limit)?;
        let help = "Latency by what is tolerated, lately: above 1 the limit is lowered";
        let stretch =
            encoder.encode_descriptor("admission_stretch", help, None, MetricType::Gauge)?;
        ConstGauge::new(now.stretch).encode(stretch)?;

        let help = "What is wanted by what may be worked on at once: above 1 requests are refused";
        let name = "admission_saturation_ratio";
        let saturation = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(now.saturation).encode(saturation)?;
        for (name, help, counts) in [
            ("admission_in_flight", "Requests worked on", now.in_flight),
            ("admission_queued", "Requests that wait", now.queued),
        ] {
            let mut gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (criticality, count) in Criticality::ALL.into_iter().zip(counts) {
                let labels = [("criticality", criticality.as_str())];
                ConstGauge::new(as_gauge(count)).encode(gauge.encode_family(&labels)?)?;
            }
        }
        let help = "Requests refused for want of capacity";
        let mut counter =
            encoder.encode_descriptor("admission_refused", help, None, MetricType::Counter)?;
        for (criticality, counts) in Criticality::ALL.into_iter().zip(now.refused) {
            for (reason, count) in Refusal::ALL.into_iter().zip(counts) {
                let labels = [
                    ("criticality", criticality.as_str()),
                    ("reason", reason.as_str()),
                ];
                ConstCounter::new(count).encode(counter.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
