//! The settings of flags.

use std::{path::PathBuf, time::Duration};

use garde::Validate;
use resilience::{breaker, brownout, ranges::between};
use serde::{Deserialize, Serialize};

use crate::http::outbound;

/// Where flags are set, and how soon a process notices: `flags.*`.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How often a process looks whether a flag was set by hand; a change that it hears of it takes over at once. So it is how late
    /// it may be where no word comes: behind a pooler, or on a connection that was lost.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(50), Duration::from_secs(60))))]
    pub poll_interval: Duration,
    /// How long nothing was heard of where flags are set until evaluations say that they are stale. They go on.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_secs(1), Duration::from_secs(3600))))]
    pub stale_after: Duration,
    /// For how long a flag may be set by hand. Whoever needs longer changes its default in the code.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_secs(1), Duration::from_secs(90 * 86_400))))]
    pub override_max: Duration,
    /// A file of this process alone, with what it last knew: with it a process that starts while Postgres is away has its
    /// flags. Not set: it starts with those of the code.
    #[garde(skip)]
    pub copy_path: Option<PathBuf>,
    /// A service that says how flags are to be, over OpenFeature's protocol (OFREP): flagd, GO Feature Flag and others. Asked each
    /// `poll_interval` for all of them at once. Without its URL the code says what they are.
    #[garde(dive)]
    pub ofrep: outbound::Config,
    /// When an overload switches off what is expendable.
    #[garde(dive)]
    pub brownout: brownout::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_secs(2),
            stale_after: Duration::from_secs(15),
            override_max: Duration::from_secs(7 * 86_400),
            copy_path: None,
            ofrep: outbound::Config {
                connect_timeout: Duration::from_millis(300),
                attempt_timeout: Duration::from_millis(500),
                total_timeout: Duration::from_secs(1),
                breaker: breaker::Config {
                    slow_after: Duration::from_millis(450),
                    open_min: Duration::from_millis(500),
                    // No look is missed for longer once it is back.
                    open_max: Duration::from_secs(2),
                    ..breaker::Config::default()
                },
                ..outbound::Config::default()
            },
            brownout: brownout::Config::default(),
        }
    }
}
