//! The breakers of the process, whatever they stand before, and the two metrics that tell of all of them.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use resilience::{Breaker, breaker::State};

/// Each breaker with the name of its dependency. A clone is the same list; it grows while the process starts, and not after.
#[derive(Clone, Debug, Default)]
pub struct Breakers(Arc<Mutex<Vec<(String, Breaker)>>>);

impl Breakers {
    pub fn register(registry: &mut Registry) -> Self {
        let breakers = Self::default();
        registry.register_collector(Box::new(breakers.clone()));
        breakers
    }

    pub fn add(&self, dependency: &str, breaker: &Breaker) {
        self.all().push((dependency.to_owned(), breaker.clone()));
    }

    fn all(&self) -> MutexGuard<'_, Vec<(String, Breaker)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Breakers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "0 closed, 1 half-open, 2 open";
        let mut family =
            encoder.encode_descriptor("breaker_state", help, None, MetricType::Gauge)?;
        for (dependency, breaker) in self.all().iter() {
            let state = match breaker.state() {
                State::Closed => 0_i64,
                State::HalfOpen => 1,
                State::Open => 2,
            };
            let labels = [("dependency", dependency.as_str())];
            ConstGauge::new(state).encode(family.encode_family(&labels)?)?;
        }
        let help = "How often the breaker went into a state";
        let mut family =
            encoder.encode_descriptor("breaker_changes", help, None, MetricType::Counter)?;
        for (dependency, breaker) in self.all().iter() {
            for to in State::ALL {
                let labels = [("dependency", dependency.as_str()), ("to", to.as_str())];
                ConstCounter::new(breaker.changes(to)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
