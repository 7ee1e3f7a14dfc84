//! What is asked of the flags, and how they are. Every series is there from the start, and their number is fixed.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{MetricType, counter::Counter, family::Family, gauge::ConstGauge},
    registry::Registry,
};

use super::{Flags, list::Flag, state::Reason};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    flag: &'static str,
    reason: &'static str,
}

pub(super) struct Metrics {
    /// By flag and reason: looking a series up by its labels would cost more than the evaluation.
    evaluations: [[Counter; Reason::ALL.len()]; Flag::ALL.len()],
    pub(super) copies_failed: Counter,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let family = Family::<Labels, Counter>::default();
        let counter = |flag: Flag, reason: Reason| {
            let labels = Labels {
                flag: flag.name(),
                reason: reason.as_str(),
            };
            family.get_or_create(&labels).clone()
        };
        let evaluations = Flag::ALL.map(|flag| Reason::ALL.map(|reason| counter(flag, reason)));
        let copies_failed = Counter::default();
        registry.register(
            "flag_evaluations",
            "How often a flag was asked for, by why it was as it was",
            family,
        );
        registry.register(
            "flag_copies_failed",
            "Copies of the flags that could not be written or read",
            copies_failed.clone(),
        );
        Self {
            evaluations,
            copies_failed,
        }
    }

    pub(super) fn evaluated(&self, flag: Flag, reason: Reason) {
        self.evaluations[flag as usize][reason as usize].inc();
    }
}

/// The flags, as a source of metrics.
#[derive(Debug)]
pub(super) struct Collected(pub(super) Flags);

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "1 while the flag is on";
        let mut on = encoder.encode_descriptor("flag_on", help, None, MetricType::Gauge)?;
        for flag in Flag::ALL {
            let standing = self.0.standing(flag);
            let labels = [("flag", flag.name()), ("origin", standing.origin.as_str())];
            ConstGauge::new(i64::from(standing.is_on)).encode(on.encode_family(&labels)?)?;
        }
        let help = "Steps of the brownout that are taken";
        let level = encoder.encode_descriptor("brownout_level", help, None, MetricType::Gauge)?;
        let steps = self.0.0.state.load().level;
        ConstGauge::new(i64::try_from(steps).unwrap_or(i64::MAX)).encode(level)
    }
}
