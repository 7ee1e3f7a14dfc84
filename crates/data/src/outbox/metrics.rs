//! What is known of the delivery.

use prometheus_client::metrics::{counter::Counter, gauge::Gauge, histogram::Histogram};
use prometheus_client::registry::{Registry, Unit};

/// From when an event happened until it was delivered, in seconds.
const BUCKETS: [f64; 9] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0];

/// The instruments of one relay.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub(super) delivered: Counter,
    pub(super) failures: Counter,
    pub(super) delay: Histogram,
    pub(super) is_relaying: Gauge,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            delivered: Counter::default(),
            failures: Counter::default(),
            delay: Histogram::new(BUCKETS),
            is_relaying: Gauge::default(),
        };
        registry.register(
            "outbox_delivered",
            "Events delivered by this process",
            metrics.delivered.clone(),
        );
        registry.register(
            "outbox_failures",
            "Batches of events that this process could not deliver",
            metrics.failures.clone(),
        );
        registry.register_with_unit(
            "outbox_delay",
            "From when an event happened until it was delivered",
            Unit::Seconds,
            metrics.delay.clone(),
        );
        registry.register(
            "outbox_relaying",
            "1 while this process is the one that delivers",
            metrics.is_relaying.clone(),
        );
        metrics
    }
}
