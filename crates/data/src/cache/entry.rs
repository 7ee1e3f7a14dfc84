//! What this process keeps of a key, and how old it may get.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::envelope::{Age, Sealed};

/// A value from the cache. It derefs to the value; a clone shares it.
#[derive(Debug)]
pub struct Cached<V> {
    sealed: Arc<Sealed<V>>,
    is_degraded: bool,
}

impl<V> Cached<V> {
    pub(super) fn new(sealed: Arc<Sealed<V>>, is_degraded: bool) -> Self {
        Self {
            sealed,
            is_degraded,
        }
    }

    /// The value as JSON, made once and shared.
    pub fn json(&self) -> Bytes {
        self.sealed.json()
    }

    /// Whether the value is past its time, and served because no newer one can be loaded. Say so to whoever asked.
    pub fn is_degraded(&self) -> bool {
        self.is_degraded
    }
}

impl<V> Clone for Cached<V> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.sealed), self.is_degraded)
    }
}

impl<V> std::ops::Deref for Cached<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.sealed.value
    }
}

/// What this process knows about a key: a value, or that there is none.
pub(super) struct Entry<V> {
    pub(super) value: Option<Arc<Sealed<V>>>,
    /// The generation of the key before anything was read. Another one now means that it was written since.
    pub(super) generation: u64,
    /// How long it is kept; zero for what only those get who wait for it now.
    pub(super) ttl: Duration,
    /// Past its time, and kept for a moment because its load has just failed.
    pub(super) is_degraded: bool,
    /// When the next refresh may begin; milliseconds since 1970.
    refresh_after_ms: AtomicU64,
}

impl<V> Entry<V> {
    pub(super) fn new(value: Option<Arc<Sealed<V>>>, generation: u64, ttl: Duration) -> Self {
        Self {
            value,
            generation,
            ttl,
            is_degraded: false,
            refresh_after_ms: AtomicU64::new(0),
        }
    }

    /// Whether the caller is to refresh it, being the first within `pause`.
    pub(super) fn begin_refresh(&self, now_ms: u64, pause: Duration) -> bool {
        let after = self.refresh_after_ms.load(Ordering::Relaxed);
        let next = now_ms + millis(pause);
        now_ms >= after
            && self
                .refresh_after_ms
                .compare_exchange(after, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// About how many bytes it takes: the text, the value made of it, and the nodes of both maps around them.
    pub(super) fn bytes(&self) -> u64 {
        const AROUND: u64 = 384;
        let text = self
            .value
            .as_ref()
            .map_or(0, |sealed| sealed.bytes().len() as u64);
        AROUND + 2 * text
    }
}

/// Beyond so many times the spread of early refreshes, the chance of one is under one in a billion.
const SPREADS_MAX: f64 = 21.0;

impl Age {
    pub(super) fn is_fresh(self, now_ms: u64) -> bool {
        now_ms < self.fresh_until_ms
    }

    /// Whether one reader should have it loaded again now: surely once it is stale, and before with a chance that grows
    /// as the end comes near, the sooner the longer its load takes. So of many readers, in many processes, about one
    /// begins early and the others never see it expire ("XFetch": Vattani, Chierichetti, Lowenstein, "Optimal
    /// Probabilistic Cache Stampede Prevention", VLDB 2015).
    pub(super) fn is_due(self, now_ms: u64, eagerness: f64) -> bool {
        let left_ms = self.fresh_until_ms.saturating_sub(now_ms) as f64;
        let spread_ms = f64::from(self.took_ms) * eagerness;
        // Far from the end, which is nearly always, nothing is drawn.
        left_ms <= spread_ms * SPREADS_MAX && left_ms <= -spread_ms * (1.0 - fastrand::f64()).ln()
    }
}

/// Milliseconds since 1970. Processes compare them, so their clocks should not differ by much: what one is ahead, it
/// refreshes early.
pub(super) fn now_ms() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, millis)
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refreshes(left_ms: u64, took_ms: u32, eagerness: f64) -> usize {
        let age = Age {
            fresh_until_ms: 1_000_000,
            took_ms,
        };
        (0..10_000)
            .filter(|_| age.is_due(1_000_000 - left_ms, eagerness))
            .count()
    }

    #[test]
    fn the_chance_of_an_early_refresh_falls_with_the_time_left_over_the_time_of_a_load() {
        // e^-1 and e^-3 of 10,000, and room for chance.
        assert!((3_300..4_100).contains(&refreshes(100, 100, 1.0)));
        assert!((350..650).contains(&refreshes(300, 100, 1.0)));
        assert!((3_300..4_100).contains(&refreshes(300, 100, 3.0)));
        assert_eq!(refreshes(60_000, 100, 1.0), 0);
    }

    #[test]
    fn a_stale_value_is_always_due_and_without_eagerness_no_other_is() {
        assert_eq!(refreshes(0, 0, 1.0), 10_000);
        assert_eq!(refreshes(0, 100, 0.0), 10_000);
        assert_eq!(refreshes(1, 100, 0.0), 0);
    }

    #[test]
    fn one_reader_refreshes_and_the_next_after_the_pause() {
        let entry = Entry::<()>::new(None, 0, Duration::ZERO);
        let pause = Duration::from_millis(50);

        let begun = [1_000, 1_000, 1_049, 1_050, 1_051].map(|now| entry.begin_refresh(now, pause));

        assert_eq!(begun, [true, false, false, true, false]);
    }
}
