//! The second level: one namespace's keys in Redis, shared by all processes.
//!
//! Loaders fill only where nothing is, writers overwrite, removals hold the key. No failure leaves this file.

use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::redis::{Cmd, cmd};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;

use super::envelope::{self, Content};
use super::metrics::Counters;
use crate::jitter;
use crate::redis::Redis;

/// What Redis knows about a key.
pub(super) enum Answer<V> {
    /// The value, or that there is none.
    Known(Option<Arc<V>>),
    /// Nothing, or nothing newer than what it was offered.
    Unknown,
    /// The key was removed a moment ago, so a value loaded now may be older than the removal.
    Held,
    /// Redis does not answer.
    Away,
}

pub(super) struct Remote {
    pub(super) redis: Redis,
    pub(super) counters: Arc<Counters>,
    pub(super) name: &'static str,
    pub(super) version: u32,
    pub(super) ttl: Duration,
    pub(super) absent_ttl: Duration,
    pub(super) removal_hold: Duration,
}

impl Remote {
    pub(super) async fn find<V: DeserializeOwned>(
        &self,
        key: &str,
        deadline: Instant,
    ) -> Answer<V> {
        let redis_key = self.redis_key(key);
        let found = self
            .redis
            .query::<Option<Vec<u8>>>(cmd("GET").arg(&redis_key), deadline)
            .await;
        let (counter, answer) = match found.map(|bytes| bytes.map(|bytes| envelope::open(&bytes))) {
            Ok(Some(Some(Content::Present(value)))) => {
                (&self.counters.redis_hit, Answer::Known(Some(value)))
            }
            Ok(Some(Some(Content::Absent))) => (&self.counters.redis_hit, Answer::Known(None)),
            Ok(Some(Some(Content::Held))) => (&self.counters.redis_miss, Answer::Held),
            Ok(None) => (&self.counters.redis_miss, Answer::Unknown),
            Err(_) => (&self.counters.redis_bypassed, Answer::Away),
            Ok(Some(None)) => {
                tracing::warn!(
                    cache.namespace = self.name,
                    "dropped what is no value of this namespace"
                );
                self.tell(cmd("DEL").arg(&redis_key), deadline).await;
                (&self.counters.redis_corrupt, Answer::Unknown)
            }
        };
        counter.inc();
        answer
    }

    /// Offers what a load found. Where a writer was faster, what it left is newer, and is the answer.
    pub(super) async fn fill<V: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        loaded: Option<&V>,
        deadline: Instant,
    ) -> Answer<V> {
        let (bytes, ttl) = match loaded {
            Some(value) => (envelope::present(value), self.ttl),
            None => (Ok(envelope::absent()), self.absent_ttl),
        };
        let Ok(bytes) = bytes else {
            return Answer::Unknown;
        };
        let filled = self
            .redis
            .query::<bool>(self.set(key, &bytes, ttl).arg("NX"), deadline)
            .await;
        match filled {
            Ok(false) => self.find(key, deadline).await,
            Ok(true) | Err(_) => Answer::Unknown,
        }
    }

    /// Stores what was just written, over whatever is there.
    pub(super) async fn put<V: Serialize>(&self, key: &str, value: &V, deadline: Instant) {
        if let Ok(bytes) = envelope::present(value) {
            self.tell(&self.set(key, &bytes, self.ttl), deadline).await;
        }
    }

    /// Takes the value away, and keeps loaders from filling the key for `removal_hold`.
    pub(super) async fn remove(&self, key: &str, deadline: Instant) {
        self.tell(
            &self.set(key, &envelope::held(), self.removal_hold),
            deadline,
        )
        .await;
    }

    fn set(&self, key: &str, bytes: &[u8], ttl: Duration) -> Cmd {
        let ttl_ms = u64::try_from(jitter::around(ttl).as_millis()).unwrap_or(u64::MAX);
        let mut set = cmd("SET");
        set.arg(self.redis_key(key))
            .arg(bytes)
            .arg("PX")
            .arg(ttl_ms.max(1));
        set
    }

    /// Sends a command whose failure changes nothing for the caller; the Redis metrics count it.
    async fn tell(&self, command: &Cmd, deadline: Instant) {
        if let Err(error) = self.redis.query::<()>(command, deadline).await {
            tracing::debug!(cache.namespace = self.name, %error, "Redis did not take a cache update");
        }
    }

    fn redis_key(&self, key: &str) -> String {
        self.redis
            .key(&["cache", self.name, &format!("v{}", self.version), key])
    }
}
