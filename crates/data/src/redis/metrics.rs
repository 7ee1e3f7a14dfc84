//! The instruments of the Redis connection. No label has more values than `Outcome` has variants.

use std::fmt::{self, Write};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::{family::Family, gauge::Gauge, histogram::Histogram};
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds in seconds: dense around a healthy round trip, the last one past any sensible `command_timeout`.
const BUCKETS: [f64; 10] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.25,
];

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    /// Redis answered.
    Ok,
    /// Redis answered with an error, or the connection broke.
    Error,
    /// No answer in time.
    Timeout,
    /// Refused at once, because Redis is known to be away, to fail or to be slow.
    Refused,
    /// Refused, because as many commands as may be were under way.
    Full,
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
        encoder.write_str(match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Full => "full",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    outcome: Outcome,
}

pub(super) struct Metrics {
    commands: Family<Labels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    up: Gauge,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            commands: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            in_flight: Gauge::default(),
            up: Gauge::default(),
        };
        registry.register_with_unit(
            "redis_command_duration",
            "Time from asking Redis to its answer",
            Unit::Seconds,
            metrics.commands.clone(),
        );
        registry.register(
            "redis_commands_in_flight",
            "Commands without an answer yet",
            metrics.in_flight.clone(),
        );
        registry.register(
            "redis_up",
            "1 while there is a connection to Redis",
            metrics.up.clone(),
        );
        metrics
    }

    pub(super) fn observe(&self, outcome: Outcome, took: Duration) {
        self.commands
            .get_or_create(&Labels { outcome })
            .observe(took.as_secs_f64());
    }

    pub(super) fn set_up(&self, up: bool) {
        self.up.set(i64::from(up));
    }

    /// Counts one command as under way until the guard is dropped, whichever way its future ends.
    pub(super) fn enter(&self) -> InFlight<'_> {
        self.in_flight.inc();
        InFlight(&self.in_flight)
    }
}

pub(super) struct InFlight<'a>(&'a Gauge);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
