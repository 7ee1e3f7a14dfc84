//! What calls to other services cost and how they end, one set of series for each service. The label is not `service`, which is
//! the target's in Kubernetes.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::http::breakers::Breakers;

/// In seconds.
const BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Service {
    dependency: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    dependency: &'static str,
    outcome: &'static str,
}

/// The instruments of all services. One per process.
#[derive(Clone, Debug)]
pub struct Metrics {
    calls: Family<Outcome, Counter>,
    attempts: Family<Service, Histogram>,
    retries: Family<Service, Counter>,
    under_way: Family<Service, Gauge>,
    pub(super) breakers: Breakers,
}

/// The instruments of one service.
#[derive(Clone, Debug)]
pub(super) struct Instruments {
    name: &'static str,
    all: Metrics,
    pub(super) attempts: Histogram,
    pub(super) retries: Counter,
    under_way: Gauge,
}

impl Metrics {
    pub fn register(registry: &mut Registry, breakers: &Breakers) -> Self {
        let metrics = Self {
            calls: Family::default(),
            attempts: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            retries: Family::default(),
            under_way: Family::default(),
            breakers: breakers.clone(),
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
        metrics
    }

    pub(super) fn of(&self, name: &'static str) -> Instruments {
        let service = Service { dependency: name };
        Instruments {
            name,
            attempts: self.attempts.get_or_create(&service).clone(),
            retries: self.retries.get_or_create(&service).clone(),
            under_way: self.under_way.get_or_create(&service).clone(),
            all: self.clone(),
        }
    }
}

impl Instruments {
    pub(super) fn ended(&self, outcome: &'static str) {
        let dependency = self.name;
        let labels = Outcome {
            dependency,
            outcome,
        };
        self.all.calls.get_or_create(&labels).inc();
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
