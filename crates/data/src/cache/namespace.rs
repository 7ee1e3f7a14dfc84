//! The values of one kind, on both levels.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use deadpool_redis::redis::{Cmd, cmd};
use moka::future::Cache as Local;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout_at};

use super::Config;
use super::envelope::{self, Content};
use super::metrics::Counters;
use crate::{Error, jitter, redis::Redis};

/// A value, or the knowledge that there is none.
type Entry<V> = Option<Arc<V>>;

/// Cached values of one type. A clone is cheap and means the same entries.
///
/// A reader may see a value as old as `local_ttl` when another process wrote it, and as old as the namespace's
/// `ttl` when Redis was away during the write. A loader fills Redis only where nothing is (`SET NX`), because it may have
/// read from a lagging replica; a writer always overwrites. So a load that began before a write cannot undo it.
pub struct Namespace<V>(Arc<Inner<V>>);

struct Inner<V> {
    local: Local<String, Entry<V>>,
    redis: Redis,
    counters: Counters,
    name: &'static str,
    version: String,
    ttl: Duration,
    absent_ttl: Duration,
    removal_hold: Duration,
}

impl<V> Clone for Namespace<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V: Serialize + DeserializeOwned + Send + Sync + 'static> Namespace<V> {
    pub(super) fn new(
        config: &Config,
        redis: Redis,
        counters: Counters,
        (name, version, ttl): (&'static str, u32, Duration),
    ) -> Self {
        let expiry = LocalExpiry {
            present: config.local_ttl.min(ttl),
            absent: config.local_ttl.min(config.absent_ttl),
        };
        Self(Arc::new(Inner {
            local: Local::builder()
                .max_capacity(config.local_entries_max)
                .expire_after(expiry)
                .build(),
            redis,
            counters,
            name,
            version: format!("v{version}"),
            ttl,
            absent_ttl: config.absent_ttl,
            removal_hold: config.removal_hold,
        }))
    }

    /// The value under `key`, from the nearest level that has it, else from `load`, which then fills both.
    /// Callers that miss together share one load per process. `Ok(None)` means that `load` found nothing,
    /// and is remembered for `absent_ttl`.
    ///
    /// # Errors
    /// What `load` failed with, shared by everybody who waited for it, and `Deadline` when `deadline` passes first.
    /// The cache itself adds no failure.
    pub async fn get_or_load<F>(
        &self,
        key: &str,
        deadline: Instant,
        load: F,
    ) -> Result<Option<Arc<V>>, Error>
    where
        F: Future<Output = Result<Option<V>, Error>>,
    {
        if let Some(hit) = self.0.local.get(key).await {
            self.0.counters.local_hit.inc();
            return Ok(hit);
        }
        let mut load = pin!(load);
        let (first, loaded_here) = self.join(key, deadline, load.as_mut()).await;
        match first {
            // Another caller's load failed, perhaps for a deadline closer than this one's. Its own load is untouched.
            Err(error) if error.is_transient() && !loaded_here && Instant::now() < deadline => {
                self.join(key, deadline, load).await.0
            }
            result => result,
        }
    }

    /// Stores what was just written, over whatever is there, on both levels. Needs the writer to be the
    /// last one: of two writers at once either value may stay until its `ttl`. `remove` has no such order.
    pub async fn put(&self, key: &str, value: V, deadline: Instant) {
        if let Ok(bytes) = envelope::present(&value) {
            self.0
                .tell(&self.0.set(key, bytes, self.0.ttl), deadline)
                .await;
        }
        self.0
            .local
            .insert(key.to_owned(), Some(Arc::new(value)))
            .await;
    }

    /// Forgets the value on both levels, after a write or a deletion. For `removal_hold` no loader fills Redis,
    /// so an old row read from a lagging replica does not come back.
    pub async fn remove(&self, key: &str, deadline: Instant) {
        self.0
            .tell(
                &self.0.set(key, envelope::held(), self.0.removal_hold),
                deadline,
            )
            .await;
        self.0.local.invalidate(key).await;
    }

    /// Waits for the one load of this key, which is `load` unless somebody else's is under way.
    async fn join<F>(
        &self,
        key: &str,
        deadline: Instant,
        load: Pin<&mut F>,
    ) -> (Result<Entry<V>, Error>, bool)
    where
        F: Future<Output = Result<Option<V>, Error>>,
    {
        let mut loaded_here = false;
        let fetch = async {
            loaded_here = true;
            self.0.counters.local_miss.inc();
            self.0.fetch(key, deadline, load).await
        };
        let joined = timeout_at(deadline, self.0.local.try_get_with_by_ref(key, fetch)).await;
        if !loaded_here {
            self.0.counters.local_joined.inc();
        }
        let result = match joined {
            Ok(Ok(entry)) => Ok(entry),
            Ok(Err(error)) => Err(Error::clone(&error)),
            Err(_) => Err(Error::Deadline {
                dependency: "cache",
            }),
        };
        (result, loaded_here)
    }
}

/// What the second level holds for a key.
enum Remote<V> {
    Found(Entry<V>),
    Missing,
    Held,
    Away,
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
        let remote = self.find(key, deadline).await;
        if let Remote::Found(entry) = remote {
            return Ok(entry);
        }
        let loaded = load.await?.map(Arc::new);
        // Redis was away a moment ago: the request does not wait for it a second time.
        if matches!(remote, Remote::Missing) {
            return Ok(self.fill(key, loaded, deadline).await);
        }
        Ok(loaded)
    }

    async fn find(&self, key: &str, deadline: Instant) -> Remote<V> {
        let redis_key = self.redis_key(key);
        let Ok(bytes) = self
            .redis
            .query::<Option<Vec<u8>>>(cmd("GET").arg(&redis_key), deadline)
            .await
        else {
            self.counters.redis_bypassed.inc();
            return Remote::Away;
        };
        let Some(bytes) = bytes else {
            self.counters.redis_miss.inc();
            return Remote::Missing;
        };
        match envelope::open(&bytes) {
            Some(Content::Present(value)) => {
                self.counters.redis_hit.inc();
                Remote::Found(Some(value))
            }
            Some(Content::Absent) => {
                self.counters.redis_hit.inc();
                Remote::Found(None)
            }
            Some(Content::Held) => {
                self.counters.redis_miss.inc();
                Remote::Held
            }
            None => {
                self.counters.redis_corrupt.inc();
                tracing::warn!(
                    cache.namespace = self.name,
                    "dropped a value that is not of this namespace"
                );
                self.tell(cmd("DEL").arg(&redis_key), deadline).await;
                Remote::Missing
            }
        }
    }

    /// Offers a loaded value to Redis. Where a writer was faster its value is newer, and is taken instead.
    async fn fill(&self, key: &str, loaded: Entry<V>, deadline: Instant) -> Entry<V> {
        let (bytes, ttl) = match &loaded {
            Some(value) => (envelope::present(value.as_ref()), self.ttl),
            None => (Ok(envelope::absent()), self.absent_ttl),
        };
        let Ok(bytes) = bytes else { return loaded };
        let filled = self
            .redis
            .query::<bool>(self.set(key, bytes, ttl).arg("NX"), deadline)
            .await;
        if !matches!(filled, Ok(false)) {
            return loaded;
        }
        match self.find(key, deadline).await {
            Remote::Found(newer) => newer,
            Remote::Missing | Remote::Held | Remote::Away => loaded,
        }
    }

    fn set(&self, key: &str, bytes: Vec<u8>, ttl: Duration) -> Cmd {
        let ttl_ms = u64::try_from(jitter::around(ttl).as_millis()).unwrap_or(u64::MAX);
        let mut set = cmd("SET");
        set.arg(self.redis_key(key))
            .arg(bytes)
            .arg("PX")
            .arg(ttl_ms.max(1));
        set
    }

    /// Sends a command whose failure changes nothing for the caller; `redis`' own metrics count it.
    async fn tell(&self, command: &Cmd, deadline: Instant) {
        if let Err(error) = self.redis.query::<()>(command, deadline).await {
            tracing::debug!(cache.namespace = self.name, error = %error, "Redis did not take a cache update");
        }
    }

    fn redis_key(&self, key: &str) -> String {
        self.redis.key(&["cache", self.name, &self.version, key])
    }
}

/// Jittered, so that entries filled together do not expire together.
struct LocalExpiry {
    present: Duration,
    absent: Duration,
}

impl LocalExpiry {
    fn of<V>(&self, entry: &Entry<V>) -> Option<Duration> {
        Some(jitter::around(if entry.is_some() {
            self.present
        } else {
            self.absent
        }))
    }
}

impl<V> moka::Expiry<String, Entry<V>> for LocalExpiry {
    fn expire_after_create(&self, _: &String, entry: &Entry<V>, _: StdInstant) -> Option<Duration> {
        self.of(entry)
    }

    /// A `put` over an entry starts its time anew; the default would keep the old end.
    fn expire_after_update(
        &self,
        _: &String,
        entry: &Entry<V>,
        _: StdInstant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.of(entry)
    }
}
