//! The feed's instruments. Topics are few, and named in the code.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    topic: &'static str,
}

pub(super) struct Metrics {
    messages: Family<Labels, Counter>,
    repairs: Family<Labels, Counter>,
    refetches: Family<Labels, Counter>,
    subscribed: Family<Labels, Gauge>,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            messages: Family::default(),
            repairs: Family::default(),
            refetches: Family::default(),
            subscribed: Family::default(),
        };
        registry.register(
            "feed_messages",
            "Messages that have come to this process",
            metrics.messages.clone(),
        );
        registry.register(
            "feed_repairs",
            "Times when what was or may have been missed was read from the stream",
            metrics.repairs.clone(),
        );
        registry.register(
            "feed_refetches",
            "Clients that were told to fetch everything anew, because what they have missed cannot be had",
            metrics.refetches.clone(),
        );
        registry.register(
            "feed_subscribed",
            "1 while messages come as they are published",
            metrics.subscribed.clone(),
        );
        metrics
    }

    pub(super) fn came(&self, topic: &'static str, messages: usize) {
        let labels = Labels { topic };
        self.messages.get_or_create(&labels).inc_by(messages as u64);
    }

    pub(super) fn repaired(&self, topic: &'static str) {
        self.repairs.get_or_create(&Labels { topic }).inc();
    }

    pub(super) fn refetch(&self, topic: &'static str, clients: usize) {
        let labels = Labels { topic };
        self.refetches.get_or_create(&labels).inc_by(clients as u64);
    }

    pub(super) fn set_subscribed(&self, topic: &'static str, is_subscribed: bool) {
        let labels = Labels { topic };
        self.subscribed
            .get_or_create(&labels)
            .set(i64::from(is_subscribed));
    }
}
