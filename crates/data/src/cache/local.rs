//! The first level: one namespace's entries in this process, bounded in number and in bytes.

use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use moka::future::Cache;

use super::Config;
use super::entry::Entry;
use super::invalidation::Generations;
use super::source::Source;
use crate::Error;

pub(super) struct Local<S: Source> {
    entries: Cache<S::Key, Arc<Entry<S::Value>>>,
    generations: Arc<Generations<S::Key>>,
}

impl<S: Source> Local<S> {
    pub(super) fn new(config: &Config, generations: Arc<Generations<S::Key>>) -> Self {
        // Each entry weighs at least its share, so that the one bound of moka holds for both of ours.
        let share = (config.local_bytes_max / config.local_entries_max).max(1);
        let entries = Cache::builder()
            .max_capacity(share * config.local_entries_max)
            .weigher(move |_, entry: &Arc<Entry<S::Value>>| {
                u32::try_from(entry.bytes().max(share)).unwrap_or(u32::MAX)
            })
            .expire_after(OwnTtl)
            .build();
        Self {
            entries,
            generations,
        }
    }

    /// The generation that an entry made of what is read from now on will have.
    pub(super) fn generation(&self, key: &S::Key) -> u64 {
        self.generations.of(key)
    }

    /// The entry, unless the key was written since it was read.
    pub(super) async fn get(&self, key: &S::Key) -> Option<Arc<Entry<S::Value>>> {
        let entry = self.entries.get(key).await?;
        if entry.generation == self.generations.of(key) {
            return Some(entry);
        }
        self.entries.invalidate(key).await;
        None
    }

    /// The entry, else what `fetch` makes of the key. Of all callers at once one fetches, and the others wait for it.
    pub(super) async fn get_or_fetch(
        &self,
        key: &S::Key,
        fetch: impl Future<Output = Result<Arc<Entry<S::Value>>, Error>>,
    ) -> Result<Arc<Entry<S::Value>>, Error> {
        let fetched = self.entries.try_get_with_by_ref(key, fetch).await;
        fetched.map_err(|error| Error::clone(&error))
    }

    pub(super) async fn insert(&self, key: S::Key, entry: Arc<Entry<S::Value>>) {
        self.entries.insert(key, entry).await;
    }

    pub(super) async fn remove(&self, key: &S::Key) {
        self.entries.invalidate(key).await;
    }

    /// From now until the returned value is dropped, and then once more, whatever is read of the key is old: so neither
    /// what was read before a write nor what is read during it is kept.
    pub(super) fn writing(&self, key: S::Key) -> Writing<S::Key>
    where
        S::Key: Clone,
    {
        self.generations.advance(&key);
        Writing {
            generations: Arc::clone(&self.generations),
            key,
        }
    }
}

/// A write under way.
pub(super) struct Writing<K: std::hash::Hash + std::str::FromStr + 'static> {
    generations: Arc<Generations<K>>,
    key: K,
}

impl<K: std::hash::Hash + std::str::FromStr + 'static> Drop for Writing<K> {
    fn drop(&mut self) {
        self.generations.advance(&self.key);
    }
}

/// Each entry brings its own time to live, also when it replaces another.
struct OwnTtl;

impl<K, V> moka::Expiry<K, Arc<Entry<V>>> for OwnTtl {
    fn expire_after_create(&self, _: &K, entry: &Arc<Entry<V>>, _: StdInstant) -> Option<Duration> {
        Some(entry.ttl)
    }

    fn expire_after_update(
        &self,
        _: &K,
        entry: &Arc<Entry<V>>,
        _: StdInstant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.ttl)
    }
}
