//! The second level: one namespace's keys in Redis, shared by all processes.
//!
//! Loaders fill only what still is as they saw it; writers (`overwrite.rs`) replace whatever is there. No failure leaves
//! this file.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{Cmd, RedisResult, Script, cmd};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::entry::millis;
use super::envelope::{self, Content, Head, Sealed};
use super::invalidation::Invalidations;
use super::metrics::Counters;
use crate::redis::Redis;
use crate::{Error, jitter};

/// What Redis knows about a key.
pub(super) enum Look<V> {
    Value(Arc<Sealed<V>>),
    /// Known not to exist.
    Absent,
    /// The key was removed a moment ago, so a value loaded now may be older than the removal.
    Held,
    /// Nothing but, if there is one, this process's own claim: load it.
    Unknown(Option<Head>),
    /// Another process is loading it.
    Claimed,
    /// Redis does not answer.
    Away,
}

/// A key as Redis and the messages have it.
pub(super) struct Name {
    pub(super) key: String,
    pub(super) redis_key: String,
}

pub(super) struct Remote {
    pub(super) redis: Redis,
    pub(super) invalidations: Arc<Invalidations>,
    pub(super) counters: Arc<Counters>,
    pub(super) name: &'static str,
    pub(super) version: u32,
    pub(super) channel: String,
    pub(super) load_lock: Duration,
    pub(super) removal_hold: Duration,
    pub(super) fill: Script,
}

impl Remote {
    pub(super) fn name(&self, key: &impl ToString) -> Name {
        let key = key.to_string();
        let redis_key = self.redis_key(self.version, &key);
        Name { key, redis_key }
    }

    pub(super) fn redis_key(&self, version: u32, key: &str) -> String {
        let version = format!("v{version}");
        self.redis.key(&["cache", self.name, &version, key])
    }

    /// Seals a value to be kept under this name.
    pub(super) fn seal<V: serde::Serialize>(
        name: &Name,
        value: V,
        age: envelope::Age,
    ) -> Result<Sealed<V>, Error> {
        Sealed::new(&name.redis_key, value, age).map_err(|error| Error::Encoding(Arc::new(error)))
    }

    /// What says that there is no such thing.
    pub(super) fn absent(name: &Name) -> Vec<u8> {
        envelope::absent(&name.redis_key)
    }

    /// Looks, and claims the load where there is nothing, in one round trip.
    pub(super) async fn look<V: DeserializeOwned>(
        &self,
        name: &Name,
        deadline: Instant,
    ) -> Look<V> {
        let claim = envelope::claimed(&name.redis_key, self.invalidations.process);
        let (bytes, is_claimed) = match self.ask(name, &claim, deadline).await {
            Ok(answer) => answer,
            Err(Error::Command(error)) if error.code() == Some("WRONGTYPE") => {
                return self.drop_foreign(name, deadline).await;
            }
            Err(_) => {
                self.counters.redis_bypassed.inc();
                return Look::Away;
            }
        };
        match bytes {
            Some(bytes) => self.open(name, bytes, deadline).await,
            None => {
                self.counters.redis_miss.inc();
                Look::Unknown(envelope::head_of(&claim).filter(|_| is_claimed))
            }
        }
    }

    /// What is under the key, and whether a claim was left there.
    async fn ask(
        &self,
        name: &Name,
        claim: &[u8],
        deadline: Instant,
    ) -> Result<(Option<Vec<u8>>, bool), Error> {
        let mut get = cmd("GET");
        get.arg(&name.redis_key);
        if self.load_lock.is_zero() {
            return Ok((self.redis.query(&get, deadline).await?, false));
        }
        let mut claim = set(&name.redis_key, claim, self.load_lock);
        claim.arg("NX").arg("GET");
        let ask = |mut connection: MultiplexedConnection| async move {
            match claim.query_async(&mut connection).await {
                // It is full, or cannot store: what it has can still be read.
                Err(error) if refuses_writes(error.code()) => {
                    Ok((get.query_async(&mut connection).await?, false))
                }
                found => RedisResult::Ok((found?, true)),
            }
        };
        self.redis.call(deadline, ask).await
    }

    /// Offers what a load found to a key of which the loader has seen `seen`. Where it has changed since, what is
    /// there now is the answer.
    pub(super) async fn fill<V: DeserializeOwned>(
        &self,
        name: &Name,
        seen: Option<Head>,
        (bytes, ttl): (&[u8], Duration),
        deadline: Instant,
    ) -> Option<Look<V>> {
        let mut fill = self.fill.key(&name.redis_key);
        fill.arg(seen.as_ref().map_or(&[][..], |head| &head[..]))
            .arg(bytes)
            .arg(millis(jitter::around(ttl)).max(1));
        let answer = self.redis.invoke::<Option<Vec<u8>>>(&fill, deadline).await;
        let there = answer.ok().flatten()?;
        Some(self.open(name, there, deadline).await)
    }

    /// Says that nobody here found out, so that others need not wait.
    pub(super) async fn give_back(&self, name: &Name, claim: Head, deadline: Instant) {
        let mut give_back = self.fill.key(&name.redis_key);
        give_back.arg(&claim[..]).arg("").arg(0);
        self.note(self.redis.invoke(&give_back, deadline).await);
    }

    /// Whether this process is to load again what is still there. The claim ends by itself.
    pub(super) async fn claim_reload(&self, name: &Name, deadline: Instant) -> bool {
        if self.load_lock.is_zero() {
            return true;
        }
        let mut claim = cmd("SET");
        claim
            .arg(self.redis.key(&["cache-reload", self.name, &name.key]))
            .arg(self.invalidations.process)
            .arg("PX")
            .arg(millis(self.load_lock).max(1))
            .arg("NX");
        // Without an answer the value must still be loaded by somebody.
        self.redis.query(&claim, deadline).await.unwrap_or(true)
    }

    async fn open<V: DeserializeOwned>(
        &self,
        name: &Name,
        bytes: Vec<u8>,
        deadline: Instant,
    ) -> Look<V> {
        let (counter, look) = match envelope::open(&name.redis_key, Bytes::from(bytes)) {
            Some(Content::Present(sealed)) => {
                (&self.counters.redis_hit, Look::Value(Arc::new(sealed)))
            }
            Some(Content::Absent) => (&self.counters.redis_hit, Look::Absent),
            Some(Content::Held) => (&self.counters.redis_miss, Look::Held),
            // Left behind by a load of ours whose caller went away.
            Some(Content::Claimed(process)) if process == self.invalidations.process => {
                let claim = envelope::claimed(&name.redis_key, process);
                let head = envelope::head_of(&claim);
                (&self.counters.redis_miss, Look::Unknown(head))
            }
            Some(Content::Claimed(_)) => (&self.counters.redis_miss, Look::Claimed),
            None => return self.drop_foreign(name, deadline).await,
        };
        counter.inc();
        look
    }

    async fn drop_foreign<V>(&self, name: &Name, deadline: Instant) -> Look<V> {
        self.counters.redis_corrupt.inc();
        tracing::warn!(
            cache.namespace = self.name,
            "dropped what is no value of this namespace"
        );
        let mut unlink = cmd("UNLINK");
        unlink.arg(&name.redis_key);
        self.note(self.redis.query(&unlink, deadline).await);
        Look::Unknown(None)
    }

    /// A failure that changes nothing for the caller; the Redis metrics count it.
    pub(super) fn note(&self, result: Result<(), Error>) {
        if let Err(error) = result {
            tracing::debug!(cache.namespace = self.name, %error, "Redis did not take a cache update");
        }
    }
}

pub(super) fn set(redis_key: &str, bytes: &[u8], ttl: Duration) -> Cmd {
    let mut set = cmd("SET");
    set.arg(redis_key)
        .arg(bytes)
        .arg("PX")
        .arg(millis(ttl).max(1));
    set
}

/// The answers of a server that still reads.
fn refuses_writes(code: Option<&str>) -> bool {
    matches!(code, Some("OOM" | "MISCONF" | "NOREPLICAS"))
}
