//! The values of one kind, on both levels.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::entry::{Cached, Entry, millis, now_ms};
use super::envelope::{Age, Sealed};
use super::local::Local;
use super::metrics::Counters;
use super::remote::{Name, Remote};
use super::source::Source;
use super::tasks::Tasks;
use super::untold::Untold;
use super::{Config, Lifetime};
use crate::{Error, jitter};

/// Cached values of one source. A clone is cheap and means the same entries.
///
/// A load that began before a write cannot undo it: in Redis it replaces only what it has seen, because it may have read
/// from a lagging replica, while a writer always overwrites; and in process nothing is served that was read before the
/// last write this process has heard of. What may be seen all the same: for `local_ttl_unsubscribed`, a value that another
/// process has overwritten while messages were lost; until its writer reaches Redis again, one that was overwritten while
/// it could not; and for the lifetime, one whose writer died before it could.
pub struct Namespace<S: Source>(Arc<Inner<S>>);

pub(super) struct Inner<S: Source> {
    pub(super) source: S,
    pub(super) local: Local<S>,
    pub(super) remote: Remote,
    pub(super) counters: Arc<Counters>,
    pub(super) lifetime: Lifetime,
    pub(super) config: Arc<Config>,
    pub(super) tasks: Tasks,
    /// Whether the last load failed for a reason that passes.
    pub(super) is_failing: AtomicBool,
    pub(super) untold: Untold<S::Key>,
}

impl<S: Source> Clone for Namespace<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Source> Namespace<S> {
    pub(super) fn new(inner: Inner<S>) -> Self {
        Self(Arc::new(inner))
    }

    /// The value under `key`, from the nearest level that has it, else from the source, which then fills both.
    /// Callers that miss together share one load per process, and as a rule one of all processes. `Ok(None)` means that
    /// the source has nothing, and is remembered for `absent_ttl`.
    ///
    /// # Errors
    /// What the load failed with, and `Deadline` when `deadline` passes first. The cache adds no failure of its own.
    pub async fn get(
        &self,
        key: &S::Key,
        deadline: Instant,
    ) -> Result<Option<Cached<S::Value>>, Error> {
        if let Some(entry) = self.0.local.get(key).await {
            self.0.counters.local_hit.inc();
            return Ok(self.serve(key, &entry));
        }
        // A load is kilobytes of state, which a hit would otherwise move about without ever using it.
        let entry = Box::pin(self.miss(key, deadline)).await?;
        Ok(self.serve(key, &entry))
    }

    /// A value as the cache would hand it out, without the cache: for a reader who has to see more than may have been cached,
    /// and has loaded it.
    ///
    /// # Errors
    /// `Encoding`, when the value is no JSON.
    pub fn around(&self, key: &S::Key, value: S::Value) -> Result<Cached<S::Value>, Error> {
        let name = self.0.remote.name(key);
        let sealed = self.0.seal(&name, value, Duration::ZERO)?;
        Ok(Cached::new(Arc::new(sealed), false))
    }

    /// Stores what was just written, over whatever is there, on both levels, and has every other process forget what it
    /// has. It goes on if the caller is dropped. Of two writers at once either value may stay for its lifetime; where that
    /// matters, `remove` instead, which needs no order.
    pub async fn put(&self, key: &S::Key, value: S::Value, deadline: Instant) {
        let name = self.0.remote.name(key);
        let Ok(sealed) = self.0.seal(&name, value, Duration::ZERO) else {
            tracing::error!(cache.namespace = self.0.remote.name, "a value is no JSON");
            return self.remove(key, deadline).await;
        };
        let (inner, key) = (Arc::clone(&self.0), key.clone());
        let write = async move {
            let writing = inner.local.writing(key.clone());
            let ttl = inner.lifetime.whole();
            let is_told = inner.remote.put(&name, &sealed, ttl, deadline).await;
            drop(writing);
            let generation = inner.local.generation(&key);
            let entry = inner.entry(Some(Arc::new(sealed)), generation);
            inner.local.insert(key.clone(), entry).await;
            inner.counters.invalidated_here.inc();
            if !is_told {
                inner.tell_later(key);
            }
        };
        self.0.tasks.finish(write).await;
    }

    /// Forgets the value on both levels and in every other process, after a write or a deletion. For `removal_hold` nothing
    /// that is loaded is kept, so an old row read from a lagging replica does not come back. It goes on if the caller is
    /// dropped.
    pub async fn remove(&self, key: &S::Key, deadline: Instant) {
        self.remove_all([key.clone()], deadline).await;
    }

    /// The same for several keys, which go to Redis together.
    pub async fn remove_all(&self, keys: impl IntoIterator<Item = S::Key>, deadline: Instant) {
        let (inner, keys) = (Arc::clone(&self.0), keys.into_iter().collect());
        let write = async move { inner.remove(keys, deadline).await };
        self.0.tasks.finish(write).await;
    }

    async fn miss(&self, key: &S::Key, deadline: Instant) -> Result<Arc<Entry<S::Value>>, Error> {
        let generation = self.0.local.generation(key);
        let (result, role) = self.join(key, deadline).await;
        let is_worth_another = role == Role::Follower
            && Instant::now() < deadline
            && match &result {
                // It began before a write that this caller may know of.
                Ok(entry) => entry.generation < generation,
                // It may have failed by a deadline closer than this caller's.
                Err(error) => error.is_transient(),
            };
        if !is_worth_another {
            return result;
        }
        if result.is_ok() {
            self.0.local.remove(key).await;
        }
        self.join(key, deadline).await.0
    }

    /// Waits for the one fetch of this key, which is this caller's unless somebody else's is under way.
    async fn join(
        &self,
        key: &S::Key,
        deadline: Instant,
    ) -> (Result<Arc<Entry<S::Value>>, Error>, Role) {
        let mut role = Role::Follower;
        let fetch = async {
            role = Role::Leader;
            self.0.counters.local_miss.inc();
            self.0.fetch(key, deadline).await
        };
        let joined = timeout_at(deadline, self.0.local.get_or_fetch(key, fetch)).await;
        if role == Role::Follower {
            self.0.counters.local_joined.inc();
        }
        let result = joined.unwrap_or(Err(Error::Deadline {
            dependency: "cache",
        }));
        (result, role)
    }

    /// Hands a value out, and has it loaded again if it is about to expire.
    fn serve(&self, key: &S::Key, entry: &Arc<Entry<S::Value>>) -> Option<Cached<S::Value>> {
        let inner = &self.0;
        let sealed = entry.value.as_ref()?;
        let now_ms = now_ms();
        if sealed.age.is_due(now_ms, inner.config.refresh_eagerness)
            && entry.begin_refresh(now_ms, inner.config.refresh_timeout)
        {
            let (inner, key, old) = (Arc::clone(inner), key.clone(), sealed.head());
            let refresh = async move { inner.refresh(key, old).await };
            if !self.0.tasks.refresh(refresh) {
                self.0.counters.refresh_refused.inc();
            }
        }
        if sealed.age.is_fresh(now_ms) {
            return Some(Cached::new(Arc::clone(sealed), false));
        }
        let is_degraded = entry.is_degraded || inner.is_failing.load(Ordering::Relaxed);
        if is_degraded {
            inner.counters.stale_degraded.inc();
        } else {
            inner.counters.stale_refreshing.inc();
        }
        Some(Cached::new(Arc::clone(sealed), is_degraded))
    }
}

/// Whose load a caller waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Leader,
    Follower,
}

impl<S: Source> Inner<S> {
    async fn remove(self: Arc<Self>, keys: Vec<S::Key>, deadline: Instant) {
        let writing = |key: &S::Key| self.local.writing(key.clone());
        let writing: Vec<_> = keys.iter().map(writing).collect();
        let names: Vec<_> = keys.iter().map(|key| self.remote.name(key)).collect();
        let is_told = self.remote.remove(&names, deadline).await;
        drop(writing);
        for key in keys {
            self.local.remove(&key).await;
            self.counters.invalidated_here.inc();
            if !is_told {
                self.tell_later(key);
            }
        }
    }

    /// Whether the value is too old to be served while it is loaded again.
    pub(super) fn is_expired(&self, age: Age) -> bool {
        now_ms() >= age.fresh_until_ms + millis(self.lifetime.stale)
    }

    /// A value made now, by a load that took so long.
    pub(super) fn seal(
        &self,
        name: &Name,
        value: S::Value,
        took: Duration,
    ) -> Result<Sealed<S::Value>, Error> {
        let age = Age {
            fresh_until_ms: now_ms() + millis(jitter::around(self.lifetime.fresh)),
            took_ms: u32::try_from(took.as_millis()).unwrap_or(u32::MAX),
        };
        Remote::seal(name, value, age)
    }

    /// Never kept past its time, and jittered, so that entries filled together do not expire together.
    pub(super) fn entry(
        &self,
        value: Option<Arc<Sealed<S::Value>>>,
        generation: u64,
    ) -> Arc<Entry<S::Value>> {
        let left = match &value {
            Some(sealed) => left_until(sealed.age, self.lifetime.stale),
            None => jitter::around(self.config.absent_ttl),
        };
        Arc::new(Entry::new(value, generation, left.min(self.local_ttl())))
    }

    /// A value past its time whose load has just failed: served for now, and loaded again in the background.
    pub(super) fn degraded(
        &self,
        stale: Arc<Sealed<S::Value>>,
        generation: u64,
    ) -> Arc<Entry<S::Value>> {
        let left = left_until(stale.age, self.lifetime.stale + self.lifetime.on_error);
        let mut entry = Entry::new(Some(stale), generation, left.min(self.local_ttl()));
        entry.is_degraded = true;
        entry.begin_refresh(now_ms(), self.config.refresh_timeout);
        Arc::new(entry)
    }

    fn local_ttl(&self) -> Duration {
        jitter::around(if self.remote.invalidations.is_subscribed() {
            self.config.local_ttl
        } else {
            self.config.local_ttl_unsubscribed
        })
    }
}

fn left_until(age: Age, after_fresh: Duration) -> Duration {
    Duration::from_millis((age.fresh_until_ms + millis(after_fresh)).saturating_sub(now_ms()))
}
