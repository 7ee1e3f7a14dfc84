//! How many sockets there are, what goes through them, and how they end.

use std::time::{Duration, SystemTime};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::model::Close;

/// In seconds: from a round trip to what nobody would call live.
const DELAYS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

/// How a socket speaks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    WebSocket,
    Events,
    Rpc,
}

impl Kind {
    fn label(self) -> KindLabel {
        let kind = match self {
            Self::WebSocket => "websocket",
            Self::Events => "events",
            Self::Rpc => "rpc",
        };
        KindLabel { kind }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TopicLabel {
    topic: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug)]
pub(super) struct Metrics {
    open: Family<KindLabel, Gauge>,
    delivered: Family<TopicLabel, Counter>,
    closed: Family<ReasonLabel, Counter>,
    delay: Histogram,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            open: Family::default(),
            delivered: Family::default(),
            closed: Family::default(),
            delay: Histogram::new(DELAYS),
        };
        registry.register("live_sockets", "Open sockets", metrics.open.clone());
        registry.register(
            "live_delivered",
            "Messages that were handed to a socket",
            metrics.delivered.clone(),
        );
        registry.register(
            "live_closed",
            "Sockets that the service has closed, by reason",
            metrics.closed.clone(),
        );
        registry.register_with_unit(
            "live_delay",
            "Time from publishing to each socket, by the clocks of Redis and of this process",
            Unit::Seconds,
            metrics.delay.clone(),
        );
        metrics
    }

    pub(super) fn opened(&self, kind: Kind) {
        self.open.get_or_create(&kind.label()).inc();
    }

    pub(super) fn ended(&self, kind: Kind) {
        self.open.get_or_create(&kind.label()).dec();
    }

    pub(super) fn closed(&self, close: Close) {
        let reason = close.reason();
        self.closed.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// With the time when it was published, unless the client has it late because it was away.
    pub(super) fn delivered(&self, topic: &'static str, published_ms: Option<u64>) {
        self.delivered.get_or_create(&TopicLabel { topic }).inc();
        if let Some(published_ms) = published_ms {
            let published = SystemTime::UNIX_EPOCH + Duration::from_millis(published_ms);
            // Of a message from the future, by the other clock, there is no delay.
            let delay = published.elapsed().unwrap_or_default();
            self.delay.observe(delay.as_secs_f64());
        }
    }
}
