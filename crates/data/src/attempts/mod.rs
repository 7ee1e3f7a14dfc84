//! Attempts at secrets, counted for all processes: each one beyond the first few has to wait twice as long as the one before.
//!
//! An attempt is counted when it begins, in one step with the question whether it may, so that many at once are no way around.

use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::redis::Script;
use tokio::time::Instant;

use crate::Error;
use crate::redis::Redis;

/// What an attempt counts against.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'a> {
    /// A kind and a name, neither of which is a secret: they become a key.
    pub name: (&'a str, &'a str),
    /// Attempts without a wait.
    pub free: u32,
    /// The first wait, which doubles with each attempt.
    pub delay: Duration,
    /// The longest wait.
    pub delay_max: Duration,
    /// After so long without an attempt all are forgotten.
    pub forget_after: Duration,
}

/// The store. A clone is cheap.
#[derive(Clone)]
pub struct Attempts(Arc<Inner>);

struct Inner {
    redis: Redis,
    begin: Script,
    was_right: Script,
}

impl Attempts {
    /// A store in `redis`, under its key prefix.
    pub fn new(redis: Redis) -> Self {
        Self(Arc::new(Inner {
            redis,
            begin: Script::new(include_str!("begin.lua")),
            was_right: Script::new(include_str!("was_right.lua")),
        }))
    }

    /// Begins an attempt at `what` from `place`: how long each has to wait, and if neither has to, it is counted. One round
    /// trip.
    ///
    /// # Errors
    /// As [`Redis::call`].
    pub async fn begin(
        &self,
        what: Counted<'_>,
        place: Counted<'_>,
        deadline: Instant,
    ) -> Result<[Duration; 2], Error> {
        let mut call = self.0.begin.key(self.key(&what));
        call.key(self.key(&place));
        for counted in [what, place] {
            call.arg(counted.free);
            for time in [counted.delay, counted.delay_max, counted.forget_after] {
                call.arg(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
            }
        }
        let waits_ms: (u64, u64) = self.0.redis.invoke(&call, deadline).await?;
        Ok([waits_ms.0, waits_ms.1].map(Duration::from_millis))
    }

    /// The attempt was right. One round trip.
    ///
    /// # Errors
    /// As [`Redis::call`].
    pub async fn was_right(
        &self,
        what: Counted<'_>,
        place: Counted<'_>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let mut call = self.0.was_right.key(self.key(&what));
        call.key(self.key(&place));
        self.0.redis.invoke(&call, deadline).await
    }

    fn key(&self, counted: &Counted<'_>) -> String {
        let (kind, name) = counted.name;
        self.0.redis.key(&["attempts", kind, name])
    }
}
