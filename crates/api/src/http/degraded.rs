//! What the service does without, and the one list of it. From here come the header `Degraded` of an answer, the field
//! `degraded` of its line in the log, the metric `degradation_active`, and the list in `/ready`: never silently.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::response::Response;
use http::{HeaderName, HeaderValue, header};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Registry,
};
use tokio::time::Instant;

use super::health::{Check, PAYMENTS};

/// The header that lists them, separated by commas.
pub const DEGRADED: HeaderName = HeaderName::from_static("degraded");

/// For how long the probe and the metric tell of something second best that was served: as long as it usually takes from one
/// scrape to the next, so that none misses it.
const TOLD_FOR: Duration = Duration::from_secs(15);

/// One thing the service may do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Degradation {
    /// An answer is made of data past its time, because nothing newer can be had.
    Stale,
    /// Recommendations are older ones, or what sells best, because the recommender does not answer.
    RecommendationsFallback,
    /// There are no recommendations, because their flag is off.
    RecommendationsOff,
    /// What clients tell for analytics is not kept, because that flag is off.
    EventsOff,
    /// Orders come without their products, because that flag is off.
    OrderProductsOff,
    /// A primary does not answer, or home no longer confirms what lies on which cluster: something cannot be written.
    PrimaryAway,
    /// A replica does not answer, or is too far behind: the others do its work.
    ReplicaAway,
    /// Redis does not answer: no sessions, and what is cached is cached in each process.
    RedisAway,
    /// The payment provider does not answer: orders wait for their payment.
    PaymentsAway,
}

impl Degradation {
    pub const ALL: [Self; 9] = [
        Self::Stale,
        Self::RecommendationsFallback,
        Self::RecommendationsOff,
        Self::EventsOff,
        Self::OrderProductsOff,
        Self::PrimaryAway,
        Self::ReplicaAway,
        Self::RedisAway,
        Self::PaymentsAway,
    ];

    /// Its name, everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::RecommendationsFallback => "recommendations_fallback",
            Self::RecommendationsOff => "recommendations_off",
            Self::EventsOff => "events_off",
            Self::OrderProductsOff => "order_products_off",
            Self::PrimaryAway => "primary_away",
            Self::ReplicaAway => "replica_away",
            Self::RedisAway => "redis_away",
            Self::PaymentsAway => "payments_away",
        }
    }

    fn bit(self) -> u32 {
        1 << self as u32
    }

    /// What it means for the service that this dependency is away.
    fn of(check: &Check) -> Self {
        let name = check.name.as_str();
        if name == data::redis::NAME {
            Self::RedisAway
        } else if name == PAYMENTS {
            Self::PaymentsAway
        } else if name.contains("-replica") {
            Self::ReplicaAway
        } else {
            Self::PrimaryAway
        }
    }
}

/// Some of them; shown as the header's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Degraded(u32);

impl Degraded {
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let all = Degradation::ALL.into_iter();
        all.filter(move |one| self.0 & one.bit() != 0)
            .map(Degradation::as_str)
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Marks an answer, in whose extensions this is.
    pub fn add(&mut self, degradation: Degradation) {
        self.0 |= degradation.bit();
    }
}

impl fmt::Display for Degraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in self.names().enumerate() {
            write!(f, "{}{name}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Says of an answer that it is second best, and why. No cache on its way may keep it and so serve it when there is
/// better again.
pub fn mark(response: &mut Response, degradation: Degradation) {
    let no_store = HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, no_store);
    let marked = response
        .extensions_mut()
        .get_or_insert_default::<Degraded>();
    marked.add(degradation);
}

/// What this process does without at the moment. A clone is the same list.
#[derive(Clone, Debug)]
pub struct Degradations(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// What concerns every answer, by bits.
    standing: AtomicU32,
    born: Instant,
    /// Until when each one that was served counts, in milliseconds after `born`.
    served_until_ms: [AtomicU64; Degradation::ALL.len()],
}

impl Degradations {
    pub fn register(registry: &mut Registry) -> Self {
        let degradations = Self(Arc::new(Inner {
            standing: AtomicU32::new(0),
            born: Instant::now(),
            served_until_ms: Default::default(),
        }));
        registry.register_collector(Box::new(degradations.clone()));
        degradations
    }

    /// Everything that is so now: what is away, and what was served in the last seconds.
    pub fn active(&self) -> Degraded {
        let now_ms = self.ms(Instant::now());
        let is_served = |one: &Degradation| {
            self.0.served_until_ms[*one as usize].load(Ordering::Relaxed) > now_ms
        };
        let served = Degradation::ALL.into_iter().filter(is_served);
        self.standing()
            .and(Degraded(served.map(Degradation::bit).sum()))
    }

    /// Takes over what the background checks have seen.
    pub fn note_checks(&self, checks: &[Check]) {
        let away = checks.iter().filter(|check| !check.healthy);
        let away = away.map(Degradation::of);
        let standing = away.fold(0, |bits, one| bits | one.bit());
        self.0.standing.store(standing, Ordering::Relaxed);
    }

    /// Takes the marks off an answer and puts the header on it, with everything that concerns it.
    pub(super) fn label(&self, response: &mut Response) -> Degraded {
        let marked = response.extensions_mut().remove::<Degraded>();
        let marked = marked.unwrap_or_default();
        if !marked.is_empty() {
            self.served(marked);
        }
        let degraded = marked.and(self.standing());
        if !degraded.is_empty()
            && let Ok(value) = HeaderValue::try_from(degraded.to_string())
        {
            response.headers_mut().insert(DEGRADED, value);
        }
        degraded
    }

    fn standing(&self) -> Degraded {
        Degraded(self.0.standing.load(Ordering::Relaxed))
    }

    fn served(&self, degraded: Degraded) {
        let until_ms = self.ms(Instant::now() + TOLD_FOR);
        for one in Degradation::ALL {
            if degraded.0 & one.bit() != 0 {
                self.0.served_until_ms[one as usize].fetch_max(until_ms, Ordering::Relaxed);
            }
        }
    }

    fn ms(&self, moment: Instant) -> u64 {
        u64::try_from((moment - self.0.born).as_millis()).unwrap_or(u64::MAX)
    }
}

impl Collector for Degradations {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let active = self.active();
        let help = "1 while the service does without it";
        let mut family =
            encoder.encode_descriptor("degradation_active", help, None, MetricType::Gauge)?;
        for one in Degradation::ALL {
            let labels = [("name", one.as_str())];
            let value = i64::from(active.0 & one.bit() != 0);
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
