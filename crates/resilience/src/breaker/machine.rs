//! The states of a breaker and what leads from one to the next. Knows neither threads nor who watches.

use std::time::Duration;

use tokio::time::Instant;

use super::{BreakerOpen, Config, window::Window};

/// A breaker that was closed for so many times as long as it was open last starts over with the shortest time: one that
/// closes and opens again and again stays open ever longer (Envoy's outlier ejection does the same).
const FORGIVEN_AFTER: u32 = 10;

/// What a breaker does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Every call is let through.
    Closed,
    /// One call at a time is let through, and the first that ends decides.
    HalfOpen,
    /// No call is let through.
    Open,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Closed, Self::HalfOpen, Self::Open];

    /// Its name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

pub(super) struct Machine {
    config: Config,
    phase: Phase,
    /// Counts the changes of state: a call that began before the last one has nothing to say any more.
    epoch: u64,
    failures_in_row: u32,
    window: Window,
    /// How often it has opened without being forgiven in between.
    opened_in_row: u32,
    /// How long it stayed open last, at most.
    open_last: Duration,
}

/// What is done with the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// It is let through.
    Closed,
    /// It is let through as the probe.
    Due,
    /// It is refused, because the probe is under way.
    Probing,
    /// It is refused until then, and let through as the probe after.
    Open { until: Instant },
}

enum Phase {
    Closed { since: Instant },
    HalfOpen { is_probing: bool },
    Open { until: Instant },
}

impl Machine {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            window: Window::new(config.window),
            config: config.clone(),
            phase: Phase::Closed {
                since: Instant::now(),
            },
            epoch: 0,
            failures_in_row: 0,
            opened_in_row: 0,
            open_last: Duration::ZERO,
        }
    }

    pub(super) fn state(&self) -> State {
        match self.phase {
            Phase::Closed { .. } => State::Closed,
            Phase::HalfOpen { .. } => State::HalfOpen,
            Phase::Open { .. } => State::Open,
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What it does with the next call.
    pub(super) fn gate(&self) -> Gate {
        match self.phase {
            Phase::Closed { .. } => Gate::Closed,
            Phase::HalfOpen { is_probing: false } => Gate::Due,
            Phase::HalfOpen { is_probing: true } => Gate::Probing,
            Phase::Open { until } => Gate::Open { until },
        }
    }

    /// The epoch of the call that is let through, and whether it is a probe.
    pub(super) fn enter(&mut self) -> Result<(u64, bool), BreakerOpen> {
        match self.phase {
            Phase::Closed { .. } => return Ok((self.epoch, false)),
            Phase::HalfOpen { is_probing: false } => {}
            // How long the probe will take is anyone's guess; if it fails, this is the least there is to wait.
            Phase::HalfOpen { is_probing: true } => {
                let retry_after = self.config.open_min;
                return Err(BreakerOpen { retry_after });
            }
            Phase::Open { until } => {
                let retry_after = until.saturating_duration_since(Instant::now());
                if !retry_after.is_zero() {
                    return Err(BreakerOpen { retry_after });
                }
            }
        }
        if !matches!(self.phase, Phase::HalfOpen { .. }) {
            self.epoch += 1;
        }
        self.phase = Phase::HalfOpen { is_probing: true };
        Ok((self.epoch, true))
    }

    pub(super) fn record(&mut self, epoch: u64, is_success: bool, took: Duration) {
        if epoch != self.epoch {
            return;
        }
        let is_slow = took >= self.config.slow_after;
        match self.state() {
            State::Closed => {
                if self.is_too_bad(is_success, is_slow) {
                    self.open();
                }
            }
            State::HalfOpen if is_success && !is_slow => self.close(),
            State::HalfOpen => self.open(),
            // Nothing that began in this epoch can end in it: nothing was let through.
            State::Open => {}
        }
    }

    /// A probe has ended without a result.
    pub(super) fn give_back(&mut self, epoch: u64) {
        if epoch == self.epoch && matches!(self.phase, Phase::HalfOpen { .. }) {
            self.phase = Phase::HalfOpen { is_probing: false };
        }
    }

    fn is_too_bad(&mut self, is_success: bool, is_slow: bool) -> bool {
        self.failures_in_row = if is_success {
            0
        } else {
            self.failures_in_row + 1
        };
        let tally = self.window.add(is_success, is_slow);
        let reaches = |count: u32, ratio: f64| f64::from(count) >= ratio * f64::from(tally.calls);
        self.failures_in_row >= self.config.failures_in_row
            || tally.calls >= self.config.calls_min
                && (reaches(tally.failures, self.config.failure_ratio)
                    || reaches(tally.slow, self.config.slow_ratio))
    }

    fn open(&mut self) {
        let now = Instant::now();
        if let Phase::Closed { since } = self.phase
            && now - since > self.open_last * FORGIVEN_AFTER
        {
            self.opened_in_row = 0;
        }
        let doubled = 2u32.saturating_pow(self.opened_in_row);
        let longest = self.config.open_min.saturating_mul(doubled);
        self.open_last = longest.min(self.config.open_max);
        // Processes that lost the same dependency together must not all come back to it together.
        let length = self.open_last.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.phase = Phase::Open {
            until: now + length,
        };
        self.opened_in_row = self.opened_in_row.saturating_add(1);
        self.epoch += 1;
    }

    /// Forgets all failures, whatever state it is in.
    pub(super) fn close(&mut self) {
        if self.state() != State::Closed {
            self.phase = Phase::Closed {
                since: Instant::now(),
            };
        }
        self.epoch += 1;
        self.failures_in_row = 0;
        self.window.clear();
    }
}
