//! The jobs that are this process's own at the moment.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::store::{Key, Keys};

/// See the module. A job stays until the database knows what became of it, so that its lease is renewed until then.
#[derive(Debug)]
pub(crate) struct Held {
    inner: Mutex<Inner>,
    /// Said to one who waits for a place.
    freed: Notify,
    concurrency: usize,
}

#[derive(Debug)]
struct Inner {
    jobs: HashMap<Key, Entry>,
    /// By kind.
    running: Vec<usize>,
}

#[derive(Debug)]
struct Entry {
    kind: usize,
    is_running: bool,
    /// When the lease ends, if it is not renewed.
    until: Instant,
    hold: Hold,
}

/// What a running job and whoever renews its lease share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hold {
    /// Cancelled when it is somebody else's, or nobody's.
    pub(crate) lost: CancellationToken,
    /// Whether it is being ended in a transaction of its own: it may be gone because that has committed.
    is_finishing: Arc<AtomicBool>,
}

impl Hold {
    pub(crate) fn finishing(&self) {
        self.is_finishing.store(true, Ordering::Release);
    }

    pub(crate) fn is_finishing(&self) -> bool {
        self.is_finishing.load(Ordering::Acquire)
    }
}

impl Entry {
    fn let_go(&self) {
        if self.is_running && !self.hold.is_finishing() {
            self.hold.lost.cancel();
        }
    }
}

impl Held {
    pub(crate) fn new(concurrency: usize, kinds: usize) -> Self {
        let inner = Inner {
            jobs: HashMap::new(),
            running: vec![0; kinds],
        };
        Self {
            inner: Mutex::new(inner),
            freed: Notify::new(),
            concurrency,
        }
    }

    /// How many may be held: as many as run, and as many whose end is being written down.
    pub(crate) fn capacity(&self) -> usize {
        2 * self.concurrency
    }

    pub(crate) fn add(&self, key: Key, kind: usize, until: Instant) -> Hold {
        let mut inner = self.lock();
        let hold = Hold::default();
        inner.running[kind] += 1;
        let entry = Entry {
            kind,
            is_running: true,
            until,
            hold: hold.clone(),
        };
        inner.jobs.insert(key, entry);
        hold
    }

    /// It runs no longer.
    pub(crate) fn ended(&self, key: Key) {
        let mut inner = self.lock();
        let Inner { jobs, running } = &mut *inner;
        if let Some(entry) = jobs.get_mut(&key)
            && std::mem::take(&mut entry.is_running)
        {
            running[entry.kind] -= 1;
        }
        drop(inner);
        self.freed.notify_one();
    }

    /// What became of them is written down.
    pub(crate) fn remove(&self, keys: impl IntoIterator<Item = Key>) {
        let mut inner = self.lock();
        for key in keys {
            inner.jobs.remove(&key);
        }
        drop(inner);
        self.freed.notify_one();
    }

    /// How many more may run, of all kinds.
    pub(crate) fn room(&self) -> usize {
        let inner = self.lock();
        let running: usize = inner.running.iter().sum();
        let unsettled = self.capacity().saturating_sub(inner.jobs.len());
        self.concurrency.saturating_sub(running).min(unsettled)
    }

    /// How many run, by kind.
    pub(crate) fn running(&self) -> Vec<usize> {
        self.lock().running.clone()
    }

    /// Waits until a job has ended. One that did so before, and was not waited for, counts.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// All of them.
    pub(crate) fn keys(&self) -> Keys {
        let mut keys = Keys::default();
        self.lock().jobs.keys().for_each(|key| keys.push(*key));
        keys
    }

    /// Of those that were `asked` for, `ours` are ours until then. Lets go of the others: they have been taken over, or cancelled. What has ended meanwhile is
    /// gone for a better reason.
    pub(crate) fn renewed(&self, asked: &Keys, ours: &HashSet<Key>, until: Instant) {
        let mut inner = self.lock();
        let asked = asked.ids.iter().copied().zip(asked.fences.iter().copied());
        for key in asked {
            let Some(entry) = inner.jobs.get_mut(&key) else {
                continue;
            };
            match ours.contains(&key) {
                true => entry.until = until,
                false => entry.let_go(),
            }
        }
    }

    /// Lets go of those whose leases have ended without an answer.
    pub(crate) fn let_go_of_ended(&self) {
        let (now, inner) = (Instant::now(), self.lock());
        let ended = inner.jobs.values().filter(|entry| entry.until <= now);
        ended.for_each(Entry::let_go);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change is one step: no panic can leave it half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
