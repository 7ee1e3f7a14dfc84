//! How many jobs run at once, for how long they are one's own, and what becomes of those that fail.

use std::time::Duration;

use garde::Validate;
use resilience::ranges::between;
use serde::{Deserialize, Serialize};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// The settings under `jobs`.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether `serve` runs jobs too, and not only `work`.
    #[garde(skip)]
    pub run_in_serve: bool,
    /// Jobs that run at once in this process. Each may hold a connection to the primary, of which requests need some too.
    #[garde(range(min = 1, max = 1000))]
    pub concurrency: usize,
    /// How many of these may be of kinds below critical, so that the others find a place at once.
    #[garde(range(min = 1, max = 1000))]
    pub expendable_max: usize,
    /// Every so many claims begin with kinds of a lower criticality, each in turn, so that none of them starves.
    #[garde(range(min = 2, max = 1000))]
    pub turn_every: u32,
    /// How often jobs are looked for when nobody said that there are any.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(10 * MILLISECOND, HOUR)))]
    pub poll_interval: Duration,
    /// For how long a job is a process's own without a sign of life from it; so long the jobs of one that was killed are left alone.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(100 * MILLISECOND, HOUR)))]
    pub lease: Duration,
    /// How often it gives one. Less than half of the lease, so that one may be lost.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(10 * MILLISECOND, HOUR)))]
    pub heartbeat_interval: Duration,
    /// How long running jobs may take when the process ends. Those that are left are given back, and run elsewhere.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(MILLISECOND, HOUR)))]
    pub stop_timeout: Duration,
    /// The longest pause after a job's first failure; it doubles with each. The real pause is anything from nothing to that.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(MILLISECOND, HOUR)))]
    pub retry_pause_min: Duration,
    /// The longest pause after any failure.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(MILLISECOND, 7 * DAY)))]
    pub retry_pause_max: Duration,
    /// How often `work` counts the jobs that wait.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(100 * MILLISECOND, HOUR)))]
    pub depth_interval: Duration,
    /// How far it counts, for each kind.
    #[garde(range(min = 1, max = 10_000_000))]
    pub depth_max: u32,
    /// For how long dead jobs are kept, to be replayed.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(SECOND, 3650 * DAY)))]
    pub dead_ttl: Duration,
    /// How often older ones are looked for.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(100 * MILLISECOND, DAY)))]
    pub sweep_interval: Duration,
    /// How many of them are removed by one statement at most.
    #[garde(range(min = 1, max = 100_000))]
    pub sweep_batch: u32,
    /// How many statements remove them at most, each time.
    #[garde(range(min = 1, max = 10_000))]
    pub sweep_batches_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            run_in_serve: true,
            concurrency: 8,
            expendable_max: 6,
            turn_every: 8,
            poll_interval: SECOND,
            lease: 20 * SECOND,
            heartbeat_interval: 5 * SECOND,
            stop_timeout: 10 * SECOND,
            retry_pause_min: SECOND,
            retry_pause_max: HOUR,
            depth_interval: 15 * SECOND,
            depth_max: 100_000,
            dead_ttl: 30 * DAY,
            sweep_interval: 60 * SECOND,
            sweep_batch: 1000,
            sweep_batches_max: 60,
        }
    }
}

impl Config {
    /// How long asking the database may take. Well before anybody else may take a job over.
    pub(crate) fn patience(&self) -> Duration {
        self.lease / 2
    }

    /// A pause before looking again, which processes that began together do not share.
    pub(crate) fn poll_pause(&self) -> Duration {
        self.poll_interval.mul_f64(0.75 + fastrand::f64() / 4.0)
    }

    /// After `attempts` have failed. From nothing on, because what failed together should not come back together.
    pub(crate) fn retry_pause(&self, attempts: i32) -> Duration {
        let doubled = 2_u32.saturating_pow(u32::try_from(attempts - 1).unwrap_or(0));
        let longest = self.retry_pause_min.saturating_mul(doubled);
        longest.min(self.retry_pause_max).mul_f64(fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_allowed_and_a_killed_process_loses_its_jobs_within_30_s() {
        let config = Config::default();

        config.validate().unwrap();

        assert!(config.lease + config.poll_interval < Duration::from_secs(30));
        assert!(2 * config.heartbeat_interval < config.lease);
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_are_spread_over_all_of_it() {
        let config = Config::default();
        let pauses = |attempts| {
            let pauses = (0..1000).map(move |_| Config::default().retry_pause(attempts));
            let mut pauses: Vec<_> = pauses.collect();
            pauses.sort();
            pauses
        };

        for (attempts, longest) in [(1, SECOND), (2, 2 * SECOND), (5, 16 * SECOND), (99, HOUR)] {
            let pauses = pauses(attempts);

            let (tenth, last) = (pauses[100], pauses[999]);
            println!("after {attempts} attempts: a tenth below {tenth:?}, all below {last:?}");
            assert!(last <= longest && last > longest.mul_f64(0.9), "{last:?}");
            assert!(tenth < longest.mul_f64(0.2), "{tenth:?}");
        }
        assert_eq!(config.retry_pause_max, HOUR);
    }
}
