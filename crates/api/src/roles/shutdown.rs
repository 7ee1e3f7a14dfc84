//! How a process is told to end, and how long each phase of ending may take.

use std::time::Duration;

use garde::Validate;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The phases of a shutdown: `shutdown.*`.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Config {
    /// What the orchestrator waits before SIGTERM (the chart's preStop); only its place in the sum is used here.
    #[serde(with = "humantime_serde")]
    pub pre_stop: Duration,
    /// For how long after SIGTERM requests are still accepted, so that balancers can notice.
    #[serde(with = "humantime_serde")]
    pub lame_duck: Duration,
    /// How long requests in flight may take after that. What is left is cut.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    /// The orchestrator's own patience (`terminationGracePeriodSeconds`).
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            pre_stop: Duration::from_secs(5),
            lame_duck: Duration::from_secs(3),
            drain_timeout: Duration::from_secs(15),
            grace: Duration::from_secs(45),
        }
    }
}

/// SIGTERM and SIGINT. Made before anything slow, so that a signal during start-up is not lost.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one and names it.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
