//! Quotas that processes share: what a principal has taken, in one key of Redis each.
//!
//! The script knows the time of Redis and nobody else's, so clocks need not agree. A key lives no longer than it says anything.

use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::redis::Script;
use tokio::time::Instant;

use crate::Error;
use crate::redis::Redis;

/// The function that this and other scripts take with.
pub(crate) const GCRA: &str = include_str!("gcra.lua");

/// How fast a quota comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The time in which one comes back.
    pub interval: Duration,
    /// The time in which all come back.
    pub window: Duration,
}

/// What the store decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Whether there was one left.
    pub granted: bool,
    /// Until the quota is whole again, whoever took of it.
    pub whole_in: Duration,
}

impl Pace {
    /// As a script's arguments: µs, with decimals.
    pub(crate) fn micros(&self) -> [f64; 2] {
        [self.interval, self.window].map(|time| time.as_secs_f64() * 1e6)
    }
}

impl From<(bool, u64)> for Taken {
    fn from((granted, whole_in_us): (bool, u64)) -> Self {
        Self {
            granted,
            whole_in: Duration::from_micros(whole_in_us),
        }
    }
}

/// The store. A clone is cheap.
#[derive(Clone)]
pub struct Rates(Arc<Inner>);

struct Inner {
    redis: Redis,
    take: Script,
}

impl Rates {
    /// A store in `redis`, under its key prefix.
    pub fn new(redis: Redis) -> Self {
        let take = Script::new(&[GCRA, include_str!("take.lua")].concat());
        Self(Arc::new(Inner { redis, take }))
    }

    /// Whether there is any point in asking; asks nobody.
    pub fn is_there(&self) -> bool {
        self.0.redis.is_connected()
    }

    /// Counts the `given` that were served without asking, and takes one more of the quota that `policy` gives
    /// `principal`, if there is one. One round trip.
    ///
    /// # Errors
    /// As [`Redis::call`].
    pub async fn take(
        &self,
        (policy, principal): (&str, &str),
        pace: Pace,
        given: u32,
        deadline: Instant,
    ) -> Result<Taken, Error> {
        let [interval, window] = pace.micros();
        let mut call = self.0.take.key(key(&self.0.redis, policy, principal));
        call.arg(interval).arg(window).arg(given);
        let taken: (bool, u64) = self.0.redis.invoke(&call, deadline).await?;
        Ok(taken.into())
    }
}

/// Where a principal's quota is kept.
pub(crate) fn key(redis: &Redis, policy: &str, principal: &str) -> String {
    redis.key(&["rate", policy, principal])
}
