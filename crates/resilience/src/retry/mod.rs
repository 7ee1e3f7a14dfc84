//! Whether a call that failed is made again, and when. A few retries hide a hiccup; many turn one into an outage, so
//! all calls to one dependency share a budget for them.

mod budget;
#[cfg(test)]
mod tests;

use std::time::Duration;

use garde::Validate;
use serde::{Deserialize, Serialize};

use crate::ranges::between;
use budget::Budget;

/// The settings of the retries to one dependency.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Further attempts after the first.
    #[garde(range(min = 0, max = 2))]
    pub extra_max: u32,
    /// The longest pause before the first retry; it doubles with each. The real pause is anything from nothing to that.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(1), Duration::from_secs(10))))]
    pub pause_min: Duration,
    /// The longest pause before any retry, unless the dependency asks for more.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(1), Duration::from_secs(60))))]
    pub pause_max: Duration,
    /// Retries for each call, on average, from 0 to 1.
    #[garde(range(min = 0.0, max = 1.0))]
    pub budget_ratio: f64,
    /// Retries per second that are possible however few calls there are.
    #[garde(range(min = 0.0, max = 1_000.0))]
    pub budget_per_second: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            extra_max: 2,
            pause_min: Duration::from_millis(25),
            pause_max: Duration::from_secs(1),
            budget_ratio: 0.1,
            budget_per_second: 1.0,
        }
    }
}

/// Decides for all calls to one dependency.
#[derive(Debug)]
pub struct Retries {
    config: Config,
    budget: Budget,
}

impl Retries {
    /// With a budget as after a second without calls.
    pub fn new(config: &Config) -> Self {
        Self {
            budget: Budget::new(config.budget_ratio, config.budget_per_second),
            config: config.clone(),
        }
    }

    /// A call begins; it earns the others a part of a retry.
    pub fn begin(&self) {
        self.budget.earn();
    }

    /// How long to pause before the next attempt, or nothing if there is to be none. `made` attempts have failed; the last
    /// one was told to come back after `told`; and all of it must end within `left`. Ask only for what may be repeated.
    pub fn pause(&self, made: u32, told: Option<Duration>, left: Duration) -> Option<Duration> {
        if made == 0 || made > self.config.extra_max {
            return None;
        }
        let doubled = 2u32.saturating_pow(made - 1);
        let longest = self.config.pause_min.saturating_mul(doubled);
        // Anything from nothing: callers that failed together spread over the whole pause.
        let jitter = longest.min(self.config.pause_max).mul_f64(fastrand::f64());
        let pause = told.unwrap_or_default().saturating_add(jitter);
        // The budget last, so that nothing is spent on a retry that does not happen.
        (pause < left && self.budget.spend()).then_some(pause)
    }
}
