//! Writes that Redis could not be told of. What it has under their keys is old, so it is taken away as soon as Redis
//! answers again.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::namespace::Inner;
use super::source::Source;
use crate::jitter;

/// The pause between two attempts: half a second, less up to half of it.
const PAUSE: Duration = Duration::from_millis(500);
/// How long one attempt may take, and a look whether Redis is back; a command has a shorter limit of its own.
const ATTEMPT: Duration = Duration::from_secs(5);

/// The keys of one namespace that are to be told.
pub(super) struct Untold<K>(Mutex<HashSet<K>>);

impl<K> Default for Untold<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K> Untold<K> {
    fn keys(&self) -> MutexGuard<'_, HashSet<K>> {
        // Every change is one call, so a panic leaves no half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Source> Inner<S> {
    /// Has the write of `key` told later. One task does so for all of them, while there are any.
    pub(super) fn tell_later(self: &Arc<Self>, key: S::Key) {
        let mut keys = self.untold.keys();
        if keys.len() >= self.config.untold_max && !keys.contains(&key) {
            drop(keys);
            self.counters.never_told.inc();
            return;
        }
        let is_first = keys.is_empty();
        keys.insert(key);
        drop(keys);
        if is_first {
            self.tasks.run(Arc::clone(self).tell_all());
        }
    }

    async fn tell_all(self: Arc<Self>) {
        loop {
            sleep(jitter::up_to(PAUSE)).await;
            if !self.remote.redis.connected(Instant::now() + ATTEMPT).await {
                continue;
            }
            let keys: Vec<_> = self.untold.keys().iter().cloned().collect();
            for key in keys {
                let name = [self.remote.name(&key)];
                if !self.remote.remove(&name, Instant::now() + ATTEMPT).await {
                    break;
                }
                self.counters.told_late.inc();
                self.untold.keys().remove(&key);
            }
            if self.untold.keys().is_empty() {
                return;
            }
        }
    }
}
