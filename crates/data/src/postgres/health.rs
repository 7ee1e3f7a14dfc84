//! What is known of a node's health: from the answers that requests get, and from the background check.
//!
//! A replica that was taken out comes back by itself after a while that doubles each time (Envoy's outlier ejection does the
//! same), so that one that dies at each return is tried ever less often.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::config::Config;
use super::consistency::Lag;

/// So many failures in a row take a node out. One may be a hiccup, and waiting for more makes requests wait.
const FAILURES_IN_A_ROW_MAX: u32 = 3;

/// A failed check counts for so many failures of requests: it had more time, and was tried on a new connection.
pub(super) const CHECK_WEIGHT: u32 = 2;

/// A node that was well for so many times its last absence starts over with the shortest one.
const FORGIVEN_AFTER: u32 = 10;

/// So many requests at once may try a node that is down; the others are refused without waiting for it.
const TRIALS_MAX: usize = 2;

/// The health of one node.
#[derive(Debug)]
pub(super) struct Health {
    failures_in_a_row: AtomicU32,
    is_down: AtomicBool,
    /// Reachable, but too far behind the primary to read from.
    is_lagging: AtomicBool,
    trials: Semaphore,
    absence: Mutex<Absence>,
    last_check: Mutex<Check>,
}

/// How long a node that is taken out stays out.
#[derive(Debug)]
struct Absence {
    min: Duration,
    max: Duration,
    last: Duration,
    ends: Option<Instant>,
}

/// What the background check saw.
#[derive(Clone, Debug, Default)]
pub(super) struct Check {
    /// When the last check ended. None before the first.
    pub(super) at: Option<Instant>,
    /// Why the last check failed, fit to be shown.
    pub(super) error: Option<String>,
    /// Whether the node replays another's log, as last seen.
    pub(super) in_recovery: Option<bool>,
    /// How far behind the primary it was, as last seen.
    pub(super) lag: Option<Lag>,
    /// Queries that replay has cancelled since statistics began, as last seen.
    pub(super) conflicts: u64,
    /// The newest applied migration, as last seen.
    pub(super) schema_version: Option<i64>,
}

impl Health {
    /// A node is taken for healthy until something says otherwise, so that the first request need not wait for a check.
    pub(super) fn new(config: &Config) -> Self {
        let absence = Absence {
            min: config.ejection_min,
            max: config.ejection_max,
            last: Duration::ZERO,
            ends: None,
        };
        Self {
            failures_in_a_row: AtomicU32::new(0),
            is_down: AtomicBool::new(false),
            is_lagging: AtomicBool::new(false),
            trials: Semaphore::new(TRIALS_MAX),
            absence: Mutex::new(absence),
            last_check: Mutex::default(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        !self.is_down.load(Ordering::Relaxed)
    }

    pub(super) fn is_lagging(&self) -> bool {
        self.is_lagging.load(Ordering::Relaxed)
    }

    pub(super) fn is_fit_for_reads(&self) -> bool {
        self.is_up() && !self.is_lagging()
    }

    /// The right to try a node that is down. None when enough others are trying.
    pub(super) fn trial(&self) -> Option<SemaphorePermit<'_>> {
        self.trials.try_acquire().ok()
    }

    /// Notes a good answer. True when it brings the node back.
    pub(super) fn succeeded(&self) -> bool {
        // Loads before stores: on the hot path the cache line stays shared.
        if self.failures_in_a_row.load(Ordering::Relaxed) != 0 {
            self.failures_in_a_row.store(0, Ordering::Relaxed);
        }
        !self.is_up() && self.is_down.swap(false, Ordering::Relaxed)
    }

    /// Notes a failure that counts for `weight`. True when it takes the node out.
    pub(super) fn failed(&self, weight: u32) -> bool {
        let failures = self
            .failures_in_a_row
            .fetch_add(weight, Ordering::Relaxed)
            .saturating_add(weight);
        failures >= FAILURES_IN_A_ROW_MAX && self.take_out()
    }

    /// Takes the node out. True when it was in.
    pub(super) fn take_out(&self) -> bool {
        let was_in = !self.is_down.swap(true, Ordering::Relaxed);
        if was_in {
            self.absence().begin(Instant::now());
        }
        was_in
    }

    /// Whether a node that is out has been out for long enough to be brought back by a good check. A good answer to a request
    /// needs no such patience: requests reach a node that is out only when there is nobody else to ask.
    pub(super) fn may_return(&self, now: Instant) -> bool {
        self.absence().ends.is_none_or(|ends| ends <= now)
    }

    /// Notes whether the node is too far behind. True when that changed.
    pub(super) fn set_lagging(&self, is_lagging: bool) -> bool {
        self.is_lagging.swap(is_lagging, Ordering::Relaxed) != is_lagging
    }

    fn absence(&self) -> MutexGuard<'_, Absence> {
        self.absence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn last_check(&self) -> MutexGuard<'_, Check> {
        self.last_check
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Absence {
    fn begin(&mut self, now: Instant) {
        let is_forgiven = self
            .ends
            .is_none_or(|ends| now.saturating_duration_since(ends) > self.last * FORGIVEN_AFTER);
        self.last = if is_forgiven {
            self.min
        } else {
            (self.last * 2).min(self.max)
        };
        self.ends = Some(now + self.last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        Health::new(&Config::default())
    }

    #[test]
    fn a_node_that_is_taken_out_again_and_again_stays_out_ever_longer() {
        let config = Config::default();
        let mut absence = Absence {
            min: config.ejection_min,
            max: config.ejection_max,
            last: Duration::ZERO,
            ends: None,
        };
        let mut now = Instant::now();

        let mut absences = Vec::new();
        for wait in [0, 1, 1, 1, 1, 1, 1, 301] {
            now = absence.ends.unwrap_or(now) + Duration::from_secs(wait);
            absence.begin(now);
            absences.push(absence.last.as_secs());
        }

        assert_eq!(absences, [1, 2, 4, 8, 16, 30, 30, 1]);
    }

    #[test]
    fn only_failures_in_a_row_take_a_node_out() {
        let health = health();

        let interrupted = [
            health.failed(1),
            health.failed(1),
            health.succeeded(),
            health.failed(1),
            health.failed(1),
        ];
        let last = health.failed(1);

        assert_eq!(
            (interrupted, last, health.is_up()),
            ([false; 5], true, false)
        );
    }

    #[test]
    fn a_node_that_is_down_is_tried_by_few_at_once() {
        let health = health();

        let trials = [health.trial(), health.trial(), health.trial()];

        assert_eq!(trials.map(|trial| trial.is_some()), [true, true, false]);
    }
}
