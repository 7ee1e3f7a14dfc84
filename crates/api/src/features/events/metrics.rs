//! How many events came, and what became of them.

use std::{fmt, sync::Weak};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        MetricType, counter::Counter, family::Family, gauge::ConstGauge, histogram::Histogram,
    },
    registry::{Registry, Unit},
};

use super::buffer::Buffer;

/// In seconds.
const DURATIONS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];
/// In events.
const SIZES: [f64; 8] = [1.0, 5.0, 10.0, 50.0, 100.0, 250.0, 500.0, 1000.0];

/// Why an event was dropped.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reason {
    /// As many as may wait did.
    Full,
    /// They were switched off.
    Off,
    /// The database did not take it, twice.
    Unwritten,
    /// The process ended before it was written.
    Ended,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Off => "off",
            Self::Unwritten => "unwritten",
            Self::Ended => "ended",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Dropped {
    reason: &'static str,
}

#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub(super) written: Counter,
    dropped: Family<Dropped, Counter>,
    pub(super) batch_events: Histogram,
    pub(super) batch_duration: Histogram,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry, buffer: Weak<Buffer>) -> Self {
        let metrics = Self {
            written: Counter::default(),
            dropped: Family::default(),
            batch_events: Histogram::new(SIZES),
            batch_duration: Histogram::new(DURATIONS),
        };
        registry.register(
            "events_written",
            "Events in the database",
            metrics.written.clone(),
        );
        registry.register(
            "events_dropped",
            "Events that are lost, by reason",
            metrics.dropped.clone(),
        );
        registry.register(
            "events_batch_events",
            "Events that one statement wrote",
            metrics.batch_events.clone(),
        );
        registry.register_with_unit(
            "events_batch_duration",
            "Time it took to write a batch, or to fail to",
            Unit::Seconds,
            metrics.batch_duration.clone(),
        );
        registry.register_collector(Box::new(Queued(buffer)));
        metrics
    }

    pub(super) fn dropped(&self, reason: Reason, events: usize) {
        let reason = reason.as_str();
        self.dropped
            .get_or_create(&Dropped { reason })
            .inc_by(events as u64);
    }
}

/// The buffer, as a source of metrics.
struct Queued(Weak<Buffer>);

impl fmt::Debug for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Queued")
    }
}

impl Collector for Queued {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let queued = self.0.upgrade().map_or(0, |buffer| buffer.len());
        let help = "Events that wait to be written";
        let gauge = encoder.encode_descriptor("events_queued", help, None, MetricType::Gauge)?;
        ConstGauge::new(i64::try_from(queued).unwrap_or(i64::MAX)).encode(gauge)
    }
}
