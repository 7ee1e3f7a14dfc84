//! Whether a node may be asked: by its breaker, which hears how requests ended, and by the background check, which knows what
//! no request can see.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use resilience::Breaker;
use resilience::breaker::{Permit, State};
use tokio::time::Instant;

use super::consistency::Lag;

/// A failed check counts for so many failures of requests: it had more time, and was tried on a new connection.
const CHECK_WEIGHT: usize = 2;

/// The health of one node. It is taken for healthy until something says otherwise, so that the first request need not wait
/// for a check.
#[derive(Debug)]
pub(super) struct Health {
    breaker: Breaker,
    /// Reachable, but not what it has to be: it takes no writes, or is no replica of this primary.
    is_refused: AtomicBool,
    /// Reachable, but too far behind the primary to read from.
    is_lagging: AtomicBool,
    /// The last check had no answer.
    is_silent: AtomicBool,
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
    pub(super) lag: Option<Lag>,
    /// Queries that replay has cancelled since statistics began, as last seen.
    pub(super) conflicts: u64,
    /// The newest applied migration, as last seen.
    pub(super) schema_version: Option<i64>,
}

impl Health {
    pub(super) fn new(breaker: Breaker) -> Self {
        Self {
            breaker,
            is_refused: AtomicBool::new(false),
            is_lagging: AtomicBool::new(false),
            is_silent: AtomicBool::new(false),
            last_check: Mutex::default(),
        }
    }

    pub(super) fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Whether it is asked like any other, and not for a trial.
    pub(super) fn is_up(&self) -> bool {
        !self.is_refused() && self.breaker.state() == State::Closed
    }

    fn is_refused(&self) -> bool {
        self.is_refused.load(Ordering::Relaxed)
    }

    pub(super) fn is_lagging(&self) -> bool {
        self.is_lagging.load(Ordering::Relaxed)
    }

    pub(super) fn is_fit_for_reads(&self) -> bool {
        self.is_askable() && self.breaker.admits() && !self.is_lagging()
    }

    /// The right to ask it once.
    pub(super) fn enter(&self) -> Option<Permit> {
        let permit = self.is_askable().then(|| self.breaker.enter());
        permit?.ok()
    }

    /// No request waits for a node that did not answer the check: it is tried again once it does.
    fn is_askable(&self) -> bool {
        let is_silent = || self.is_silent.load(Ordering::Relaxed);
        !self.is_refused() && (self.breaker.state() == State::Closed || !is_silent())
    }

    /// Notes that the check had an answer. `is_needed` says that there is nobody else to ask. That it answered brings it back,
    /// unless its time has not come; how fast it is for requests, they will tell, and no look at a node that is asked makes
    /// their share of bad ends smaller.
    pub(super) fn check_succeeded(&self, is_needed: bool) {
        let was_silent = self.is_silent.swap(false, Ordering::Relaxed);
        let is_closed = self.breaker.state() == State::Closed;
        if is_closed && !was_silent {
            return;
        }
        if is_needed && !is_closed {
            self.breaker.close();
        }
        if let Ok(permit) = self.breaker.enter() {
            permit.record(true, Duration::ZERO);
        }
    }

    /// Notes that the check had no answer. While the node is left alone anyway that makes its time no longer.
    pub(super) fn check_failed(&self) {
        self.is_silent.store(true, Ordering::Relaxed);
        for _ in 0..CHECK_WEIGHT {
            if self.breaker.state() == State::Closed
                && let Ok(permit) = self.breaker.enter()
            {
                permit.record(false, Duration::ZERO);
            }
        }
    }

    /// Notes whether the node is what it has to be. True when that changed.
    pub(super) fn set_refused(&self, is_refused: bool) -> bool {
        self.is_refused.swap(is_refused, Ordering::Relaxed) != is_refused
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
    use resilience::breaker::Config;
    use tokio::time::advance;

    use super::*;

    fn health() -> Health {
        let config = Config {
            failures_in_row: 3,
            ..Config::default()
        };
        Health::new(Breaker::new(&config, |_| {}))
    }

    fn fail(health: &Health) {
        health.enter().unwrap().record(false, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_check_and_a_failed_request_take_a_node_out() {
        let health = health();

        health.check_failed();
        assert!(health.is_up());
        fail(&health);

        assert!(!health.is_up() && health.enter().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn good_checks_do_not_hide_that_requests_find_it_slow() {
        let health = health();

        for _ in 0..Config::default().calls_min {
            (0..10).for_each(|_| health.check_succeeded(false));
            let permit = health.enter().unwrap();
            permit.record(true, Config::default().slow_after);
        }

        assert!(!health.is_up());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_tries_a_node_that_no_check_reaches_and_the_first_that_does_brings_it_back() {
        let health = health();
        for _ in 0..100 {
            health.check_failed();
            advance(Config::default().open_min).await;
            assert!(!health.is_fit_for_reads() && health.enter().is_none() || health.is_up());
        }
        assert!(!health.is_up());

        health.check_succeeded(false);

        assert!(health.is_up());
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_only_the_check_finds_well_is_tried_when_its_time_has_come() {
        let health = health();
        (0..3).for_each(|_| fail(&health));

        health.check_succeeded(false);
        assert!(!health.is_fit_for_reads());
        advance(Config::default().open_min).await;

        assert!(health.is_fit_for_reads());
        assert!(health.enter().unwrap().is_probe());
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_without_another_in_its_place_is_back_with_the_first_good_check() {
        let health = health();
        (0..3).for_each(|_| fail(&health));

        health.check_succeeded(true);

        assert!(health.is_up());
    }
}
