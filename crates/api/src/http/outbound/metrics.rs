//! What calls to other services cost and how they end, one set of series for each service.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use resilience::breaker::State;

/// In seconds.
const BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Service {
    service: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    service: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Change {
    service: &'static str,
    to: &'static str,
}

/// The instruments of all services. One per process.
#[derive(Clone, Debug)]
pub struct Metrics {
    calls: Family<Outcome, Counter>,
    attempts: Family<Service, Histogram>,
    retries: Family<Service, Counter>,
    under_way: Family<Service, Gauge>,
    state: Family<Service, Gauge>,
    changes: Family<Change, Counter>,
}

/// The instruments of one service.
#[derive(Clone, Debug)]
pub(super) struct Instruments {
    name: &'static str,
    all: Metrics,
    pub(super) attempts: Histogram,
    pub(super) retries: Counter,
    under_way: Gauge,
    state: Gauge,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            calls: Family::default(),
            attempts: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            retries: Family::default(),
            under_way: Family::default(),
            state: Family::default(),
            changes: Family::default(),
        };
        registry.register(
            "outbound_calls",
            "Calls to other services, with all their attempts, by how they ended",
            metrics.calls.clone(),
        );
        registry.register_with_unit(
            "outbound_attempt_duration",
            "Time from the start of an attempt to the last byte of its answer or its failure",
            Unit::Seconds,
            metrics.attempts.clone(),
        );
        registry.register(
            "outbound_retries",
            "Attempts after the first of a call",
            metrics.retries.clone(),
        );
        registry.register(
            "outbound_calls_under_way",
            "Places of the bulkhead in use",
            metrics.under_way.clone(),
        );
        registry.register(
            "outbound_breaker_state",
            "0 closed, 1 half-open, 2 open",
            metrics.state.clone(),
        );
        registry.register(
            "outbound_breaker_changes",
            "How often the breaker went into a state",
            metrics.changes.clone(),
        );
        metrics
    }

    pub(super) fn of(&self, name: &'static str) -> Instruments {
        let service = Service { service: name };
        Instruments {
            name,
            attempts: self.attempts.get_or_create(&service).clone(),
            retries: self.retries.get_or_create(&service).clone(),
            under_way: self.under_way.get_or_create(&service).clone(),
            state: self.state.get_or_create(&service).clone(),
            all: self.clone(),
        }
    }
}

impl Instruments {
    pub(super) fn ended(&self, outcome: &'static str) {
        let service = self.name;
        let labels = Outcome { service, outcome };
        self.all.calls.get_or_create(&labels).inc();
    }

    /// The breaker's new state.
    pub(super) fn changed(&self, state: State) {
        let service = self.name;
        let to = state.as_str();
        self.all
            .changes
            .get_or_create(&Change { service, to })
            .inc();
        self.state.set(match state {
            State::Closed => 0,
            State::HalfOpen => 1,
            State::Open => 2,
        });
    }

    /// Counts an attempt as under way until the result is dropped.
    pub(super) fn under_way(&self) -> UnderWay {
        self.under_way.inc();
        UnderWay(self.under_way.clone())
    }
}

pub(super) struct UnderWay(Gauge);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.dec();
    }
}
