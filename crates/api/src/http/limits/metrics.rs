//! The instruments of the rate limits.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::Policy;

/// As many series as there are policies.
pub struct Metrics {
    refused: Family<Labels, Counter>,
    alone: Family<Labels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    policy: &'static str,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            refused: Family::default(),
            alone: Family::default(),
        };
        registry.register(
            "rate_limit_refused_requests",
            "Requests refused because their principal was over a limit",
            metrics.refused.clone(),
        );
        registry.register(
            "rate_limit_local_decisions",
            "Requests decided without Redis, by this process's share of the limit",
            metrics.alone.clone(),
        );
        metrics
    }

    pub fn refused(&self, policy: Policy) {
        self.refused.get_or_create(&labels(policy)).inc();
    }

    pub fn alone(&self, policy: Policy) {
        self.alone.get_or_create(&labels(policy)).inc();
    }
}

fn labels(policy: Policy) -> Labels {
    Labels {
        policy: policy.name(),
    }
}
