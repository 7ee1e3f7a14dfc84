//! The values of one kind, on both levels.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use moka::future::Cache as Local;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout_at};

use super::Config;
use super::metrics::Counters;
use super::remote::{Answer, Remote};
use crate::{Error, jitter};

/// Cached values of one type. A clone is cheap and means the same entries.
///
/// A load that began before a write cannot undo it in Redis: it fills only where nothing is, because it may have
/// read from a lagging replica, while a writer always overwrites. What may be seen all the same: a value as old as
/// `local_ttl`, when another process wrote, and one as old as the namespace's `ttl`, when Redis was away during the write.
pub struct Namespace<V>(Arc<Inner<V>>);

struct Inner<V> {
    local: Local<String, Entry<V>>,
    remote: Remote,
    counters: Arc<Counters>,
    local_ttl: Duration,
}

/// What this process knows about a key: a value, or that there is none.
struct Entry<V> {
    value: Option<Arc<V>>,
    /// How long it is kept; zero for what only those get who wait for it now.
    ttl: Duration,
}

impl<V> Clone for Namespace<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V> Clone for Entry<V> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            ttl: self.ttl,
        }
    }
}

impl<V: Serialize + DeserializeOwned + Send + Sync + 'static> Namespace<V> {
    pub(super) fn new(config: &Config, remote: Remote) -> Self {
        let local = Local::builder()
            .max_capacity(config.local_entries_max)
            .expire_after(OwnTtl)
            .build();
        let counters = Arc::clone(&remote.counters);
        Self(Arc::new(Inner {
            local,
            remote,
            counters,
            local_ttl: config.local_ttl,
        }))
    }

    /// The value under `key`, from the nearest level that has it, else from `load`, which then fills both.
    /// Callers that miss together share one load per process. `Ok(None)` means that `load` found nothing,
    /// and is remembered for `absent_ttl`.
    ///
    /// # Errors
    /// What the load failed with, and `Deadline` when `deadline` passes first. The cache adds no failure of its own.
    pub async fn get_or_load<F>(
        &self,
        key: &str,
        deadline: Instant,
        load: impl FnOnce() -> F,
    ) -> Result<Option<Arc<V>>, Error>
    where
        F: Future<Output = Result<Option<V>, Error>>,
    {
        if let Some(entry) = self.0.local.get(key).await {
            self.0.counters.local_hit.inc();
            return Ok(entry.value);
        }
        // A load is kilobytes of state, which a hit would otherwise move about without ever using it.
        Box::pin(self.miss(key, deadline, load)).await
    }

    async fn miss<F>(
        &self,
        key: &str,
        deadline: Instant,
        load: impl FnOnce() -> F,
    ) -> Result<Option<Arc<V>>, Error>
    where
        F: Future<Output = Result<Option<V>, Error>>,
    {
        let mut load = pin!(load());
        match self.join(key, deadline, load.as_mut()).await {
            // It may have failed by a deadline closer than this caller's, whose own load is still unused.
            (Err(error), Role::Follower) if error.is_transient() && Instant::now() < deadline => {
                self.join(key, deadline, load).await.0
            }
            (result, Role::Leader | Role::Follower) => result,
        }
    }

    /// Stores what was just written, over whatever is there, on both levels. Of two writers at once either
    /// value may stay until its `ttl`; where that matters, `remove` instead, which needs no order.
    pub async fn put(&self, key: &str, value: V, deadline: Instant) {
        self.0.remote.put(key, &value, deadline).await;
        self.0
            .local
            .insert(key.to_owned(), self.0.entry(Some(Arc::new(value))))
            .await;
    }

    /// Forgets the value on both levels, after a write or a deletion. For `removal_hold` nothing that is loaded
    /// is kept, so an old row read from a lagging replica does not come back.
    pub async fn remove(&self, key: &str, deadline: Instant) {
        self.0.remote.remove(key, deadline).await;
        self.0.local.invalidate(key).await;
    }

    /// Waits for the one load of this key, which is `load` unless somebody else's is under way.
    async fn join<F>(
        &self,
        key: &str,
        deadline: Instant,
        load: Pin<&mut F>,
    ) -> (Result<Option<Arc<V>>, Error>, Role)
    where
        F: Future<Output = Result<Option<V>, Error>>,
    {
        let mut role = Role::Follower;
        let fetch = async {
            role = Role::Leader;
            self.0.counters.local_miss.inc();
            self.0.fetch(key, deadline, load).await
        };
        let joined = timeout_at(deadline, self.0.local.try_get_with_by_ref(key, fetch)).await;
        if role == Role::Follower {
            self.0.counters.local_joined.inc();
        }
        let result = match joined {
            Ok(Ok(entry)) => Ok(entry.value),
            Ok(Err(error)) => Err(Error::clone(&error)),
            Err(_) => Err(Error::Deadline {
                dependency: "cache",
            }),
        };
        (result, role)
    }
}

/// Whose load a caller waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Leader,
    Follower,
}

impl<V: Serialize + DeserializeOwned> Inner<V> {
    async fn fetch<F>(
        &self,
        key: &str,
        deadline: Instant,
        load: Pin<&mut F>,
    ) -> Result<Entry<V>, Error>
    where
        F: Future<Output = Result<Option<V>, Error>>,
    {
        let mut answer = self.remote.find(key, deadline).await;
        if let Answer::Known(value) = answer {
            return Ok(self.entry(value));
        }
        let loaded = load.await?.map(Arc::new);
        // A Redis that was away a moment ago is not waited for again by the same request.
        if matches!(answer, Answer::Unknown) {
            answer = self.remote.fill(key, loaded.as_deref(), deadline).await;
        }
        Ok(match answer {
            Answer::Known(newer) => self.entry(newer),
            Answer::Held => Entry {
                value: loaded,
                ttl: Duration::ZERO,
            },
            Answer::Unknown | Answer::Away => self.entry(loaded),
        })
    }
}

impl<V> Inner<V> {
    /// Never kept longer than Redis would, and jittered, so that entries filled together do not expire together.
    fn entry(&self, value: Option<Arc<V>>) -> Entry<V> {
        let remote_ttl = if value.is_some() {
            self.remote.ttl
        } else {
            self.remote.absent_ttl
        };
        Entry {
            value,
            ttl: jitter::around(self.local_ttl.min(remote_ttl)),
        }
    }
}

/// Each entry brings its own time to live, also when it replaces another.
struct OwnTtl;

impl<V> moka::Expiry<String, Entry<V>> for OwnTtl {
    fn expire_after_create(&self, _: &String, entry: &Entry<V>, _: StdInstant) -> Option<Duration> {
        Some(entry.ttl)
    }

    fn expire_after_update(
        &self,
        _: &String,
        entry: &Entry<V>,
        _: StdInstant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.ttl)
    }
}
