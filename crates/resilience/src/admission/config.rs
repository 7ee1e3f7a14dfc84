//! The settings of [`super::Admission`], with the built-in defaults.

use std::time::Duration;

use garde::Validate;
use serde::{Deserialize, Serialize};

use crate::{Criticality, ranges::between};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// How much is worked on at once, and who gets it: `admission.*`.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether anything is refused at all. False only to show what happens then.
    #[garde(skip)]
    pub enabled: bool,
    /// Requests worked on at once, until it is known what is right.
    #[garde(range(min = 1, max = 100_000))]
    pub limit_initial: usize,
    /// What that is lowered to at most.
    #[garde(range(min = 1, max = 100_000))]
    pub limit_min: usize,
    /// What that is raised to at most. Where the database's pools serve fewer, that is the most.
    #[garde(range(min = 1, max = 100_000))]
    pub limit_max: usize,
    /// Requests worked on at once for each connection that the pools may open: some wait for one, others need none.
    #[garde(range(min = 1, max = 1000))]
    pub limit_per_connection: usize,
    /// How often the limit is looked at. At least `window_samples_min` requests have then ended, or ten times as long has passed.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(MILLISECOND, MINUTE)))]
    pub window: Duration,
    /// How many requests tell enough about the limit.
    #[garde(range(min = 1, max = 100_000))]
    pub window_samples_min: u32,
    /// How many times longer than in calm a request may take before the limit is lowered.
    #[garde(range(min = 1.0, max = 100.0))]
    pub slowdown_tolerated: f64,
    /// How much longer than that a request may take before the limit is lowered: the queueing that harms nobody.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(MILLISECOND, MINUTE)))]
    pub delay_tolerated: Duration,
    /// How much of the limit each criticality is sure of.
    #[garde(dive)]
    pub shares: Shares,
    /// Requests of each criticality that may wait.
    #[garde(range(min = 0, max = 100_000))]
    pub queue_max: usize,
    /// How long they may wait.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(MILLISECOND, MINUTE)))]
    pub queue_wait: Duration,
    /// When the limit has been reached again and again for so long, sheddable requests wait no more, and no caller gets more
    /// than its part.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(MILLISECOND, MINUTE)))]
    pub overloaded_after: Duration,
    /// Callers that are told apart. Beyond that some share a place.
    #[garde(range(min = 1, max = 1_000_000))]
    pub tenants_max: usize,
    /// How long a refused caller is told to stay away, at most. Random from one second, so that they do not all come back at once.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(SECOND, HOUR)))]
    pub retry_after_max: Duration,
}

/// The part of the limit, from 0 to 1, that each criticality gets whatever the others want: `admission.shares.*`. What one does not
/// use, the others may.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
#[garde(custom(at_most_one_together))]
pub struct Shares {
    /// Of `critical_plus` requests.
    #[garde(range(min = 0.0, max = 1.0))]
    pub critical_plus: f64,
    /// Of `critical` requests.
    #[garde(range(min = 0.0, max = 1.0))]
    pub critical: f64,
    /// Of `sheddable_plus` requests.
    #[garde(range(min = 0.0, max = 1.0))]
    pub sheddable_plus: f64,
    /// Of `sheddable` requests.
    #[garde(range(min = 0.0, max = 1.0))]
    pub sheddable: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            limit_initial: 64,
            limit_min: 2,
            limit_max: 1024,
            limit_per_connection: 8,
            window: Duration::from_millis(100),
            window_samples_min: 50,
            slowdown_tolerated: 1.5,
            delay_tolerated: Duration::from_millis(10),
            shares: Shares::default(),
            queue_max: 256,
            queue_wait: Duration::from_millis(100),
            overloaded_after: Duration::from_millis(100),
            tenants_max: 1024,
            retry_after_max: Duration::from_secs(4),
        }
    }
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            critical_plus: 0.2,
            critical: 0.4,
            sheddable_plus: 0.05,
            sheddable: 0.0,
        }
    }
}

impl Shares {
    /// In the order of [`Criticality::ALL`].
    pub(super) fn in_order(self) -> [f64; Criticality::ALL.len()] {
        [
            self.sheddable,
            self.sheddable_plus,
            self.critical,
            self.critical_plus,
        ]
    }
}

fn at_most_one_together(shares: &Shares, _: &()) -> garde::Result {
    if shares.in_order().iter().sum::<f64>() <= 1.0 {
        return Ok(());
    }
    Err(garde::Error::new("must together be 1 at most"))
}
