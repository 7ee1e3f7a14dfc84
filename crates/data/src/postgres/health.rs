//! What is known of a node's health: from the answers that requests get, and from the background check.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// So many failures in a row take a node out. One may be a hiccup, and waiting for more makes requests wait.
const FAILURES_IN_A_ROW_MAX: u32 = 3;

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
    last_check: Mutex<Check>,
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
    pub(super) lag: Option<Duration>,
    /// The newest applied migration, as last seen.
    pub(super) schema_version: Option<i64>,
}

impl Default for Health {
    /// A node is taken for healthy until something says otherwise, so that the first request need not wait for a check.
    fn default() -> Self {
        Self {
            failures_in_a_row: AtomicU32::new(0),
            is_down: AtomicBool::new(false),
            is_lagging: AtomicBool::new(false),
            trials: Semaphore::new(TRIALS_MAX),
            last_check: Mutex::default(),
        }
    }
}

impl Health {
    pub(super) fn is_up(&self) -> bool {
        !self.is_down.load(Ordering::Relaxed)
    }

    pub(super) fn is_fit_for_reads(&self) -> bool {
        self.is_up() && !self.is_lagging.load(Ordering::Relaxed)
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

    /// Notes a failure. True when it takes the node out.
    pub(super) fn failed(&self) -> bool {
        let failures = self
            .failures_in_a_row
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1);
        failures >= FAILURES_IN_A_ROW_MAX && self.take_out()
    }

    /// Takes the node out. True when it was in.
    pub(super) fn take_out(&self) -> bool {
        !self.is_down.swap(true, Ordering::Relaxed)
    }

    /// Notes whether the node is too far behind. True when that changed.
    pub(super) fn set_lagging(&self, is_lagging: bool) -> bool {
        self.is_lagging.swap(is_lagging, Ordering::Relaxed) != is_lagging
    }

    pub(super) fn last_check(&self) -> MutexGuard<'_, Check> {
        self.last_check
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_in_a_row_take_a_node_out() {
        let health = Health::default();

        let interrupted = [
            health.failed(),
            health.failed(),
            health.succeeded(),
            health.failed(),
            health.failed(),
        ];
        let last = health.failed();

        assert_eq!(
            (interrupted, last, health.is_up()),
            ([false; 5], true, false)
        );
    }

    #[test]
    fn a_node_that_is_down_is_tried_by_few_at_once() {
        let health = Health::default();

        let trials = [health.trial(), health.trial(), health.trial()];

        assert_eq!(trials.map(|trial| trial.is_some()), [true, true, false]);
    }
}
