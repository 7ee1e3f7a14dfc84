//! What became of jobs, and how long it took. Labels are kinds of the registry, so there are few.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::registry::Kind;
use crate::store::Depth;

/// In seconds.
const DURATIONS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0,
];

/// Of claims, in seconds.
const CLAIMS: [f64; 9] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Waiting {
    kind: &'static str,
    criticality: &'static str,
}

type Seconds<L> = Family<L, Histogram, fn() -> Histogram>;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    running: Family<OfKind, Gauge>,
    run: Seconds<OfKind>,
    wait: Seconds<OfKind>,
    pub(crate) claim: Histogram,
    ended: Family<Ended, Counter>,
    waiting: Family<Waiting, Gauge>,
    oldest_age: Family<Waiting, Gauge<f64, std::sync::atomic::AtomicU64>>,
    dead: Family<OfKind, Gauge>,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let new = Self {
            running: Family::default(),
            run: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            wait: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            claim: Histogram::new(CLAIMS),
            ended: Family::default(),
            waiting: Family::default(),
            oldest_age: Family::default(),
            dead: Family::default(),
        };
        registry.register(
            "jobs_running",
            "Jobs that run in this process",
            new.running.clone(),
        );
        registry.register_with_unit(
            "job_run",
            "Duration of attempts",
            Unit::Seconds,
            new.run.clone(),
        );
        registry.register_with_unit(
            "job_wait",
            "Time between when a job could have been claimed and when it was",
            Unit::Seconds,
            new.wait.clone(),
        );
        registry.register_with_unit(
            "jobs_claim",
            "Duration of claims, whatever they found",
            Unit::Seconds,
            new.claim.clone(),
        );
        registry.register("jobs", "Attempts that ended, by outcome", new.ended.clone());
        new.register_depths(registry);
        new
    }

    fn register_depths(&self, registry: &mut Registry) {
        registry.register(
            "jobs_waiting",
            "Jobs that could run now and do not, in the whole fleet; counted up to jobs.depth_max",
            self.waiting.clone(),
        );
        registry.register_with_unit(
            "jobs_oldest_age",
            "For how long the oldest of them has waited",
            Unit::Seconds,
            self.oldest_age.clone(),
        );
        registry.register(
            "jobs_dead",
            "Jobs that nobody tries any more, in the whole fleet",
            self.dead.clone(),
        );
    }

    pub(crate) fn begun(&self, kind: &'static str, waited_s: f64) {
        let kind = OfKind { kind };
        self.running.get_or_create(&kind).inc();
        self.wait.get_or_create(&kind).observe(waited_s);
    }

    pub(crate) fn ran(&self, kind: &'static str, took: Duration) {
        let kind = OfKind { kind };
        self.running.get_or_create(&kind).dec();
        self.run.get_or_create(&kind).observe(took.as_secs_f64());
    }

    pub(crate) fn ended(&self, kind: &'static str, outcome: &'static str) {
        self.ended.get_or_create(&Ended { kind, outcome }).inc();
    }

    pub(crate) fn depth(&self, kind: &Kind, depth: &Depth) {
        let waiting = Waiting {
            kind: kind.name,
            criticality: kind.options.criticality.as_str(),
        };
        self.waiting.get_or_create(&waiting).set(depth.waiting);
        let age = self.oldest_age.get_or_create(&waiting);
        age.set(depth.oldest_age_s);
        let dead = OfKind { kind: kind.name };
        self.dead.get_or_create(&dead).set(depth.dead);
    }
}
