//! Writes told to all processes: what is published when one of them writes, and what the others forget then.
//!
//! A plain message over Pub/Sub, because the writer knows what it wrote and the rest follows from that. Tracking by the
//! server ("client-side caching") would tell the same, but also of every fill and expiry, keeps a table of what each
//! process has read, and drops it under memory pressure.

use std::collections::HashMap;
use std::fmt::Write;
use std::hash::{BuildHasher, Hash, RandomState};
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

use crate::redis::Listener;

/// What this process hears of the others' writes.
pub(super) struct Invalidations {
    /// This process's name in messages and claims.
    pub(super) process: u64,
    /// Counts the times at which messages may have been missed, and so everything has to be forgotten.
    epoch: AtomicU64,
    is_subscribed: AtomicBool,
    namespaces: RwLock<HashMap<&'static str, Vec<Arc<dyn Forget>>>>,
    subscribed: Gauge,
}

/// One namespace, for whoever does not know its type of key.
trait Forget: Send + Sync {
    fn forget(&self, key: &str);
}

impl Invalidations {
    pub(super) fn new(subscribed: Gauge) -> Self {
        Self {
            process: fastrand::u64(..),
            epoch: AtomicU64::new(0),
            is_subscribed: AtomicBool::new(false),
            namespaces: RwLock::default(),
            subscribed,
        }
    }

    /// Whether writes of other processes are heard of.
    pub(super) fn is_subscribed(&self) -> bool {
        self.is_subscribed.load(Ordering::SeqCst)
    }

    /// What to publish after a write.
    pub(super) fn message(&self, namespace: &str, key: &str) -> String {
        let mut message = String::with_capacity(namespace.len() + key.len() + 18);
        write!(message, "{:016x} {namespace} {key}", self.process)
            .expect("a string can be written to");
        message
    }

    fn set_subscribed(&self, subscribed: bool) {
        self.is_subscribed.store(subscribed, Ordering::SeqCst);
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.subscribed.set(i64::from(subscribed));
    }
}

impl Listener for Invalidations {
    fn message(&self, payload: &[u8]) {
        let parts = std::str::from_utf8(payload).ok().and_then(|message| {
            let (process, rest) = message.split_once(' ')?;
            let (namespace, key) = rest.split_once(' ')?;
            Some((u64::from_str_radix(process, 16).ok()?, namespace, key))
        });
        let Some((process, namespace, key)) = parts else {
            tracing::debug!("ignored a message that is no invalidation");
            return;
        };
        if process == self.process {
            return;
        }
        let namespaces = self
            .namespaces
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        for namespace in namespaces.get(namespace).into_iter().flatten() {
            namespace.forget(key);
        }
    }

    fn subscribed(&self) {
        self.set_subscribed(true);
    }

    fn lost(&self) {
        self.set_subscribed(false);
    }
}

/// Counters that tell whether a key was written since it was read. Keys share them, so now and then one is loaded again
/// for another one's write; in exchange nothing is kept per key, and there is nothing to clean up.
pub(super) struct Generations<K> {
    invalidations: Arc<Invalidations>,
    written: Box<[AtomicU64]>,
    hasher: RandomState,
    elsewhere: Counter,
    keys: PhantomData<fn(K)>,
}

const COUNTERS: usize = 1024;

impl<K: Hash + FromStr + 'static> Generations<K> {
    /// Joins the namespace of this name; `elsewhere` counts the writes of other processes.
    pub(super) fn new(
        invalidations: &Arc<Invalidations>,
        namespace: &'static str,
        elsewhere: Counter,
    ) -> Arc<Self> {
        let generations = Arc::new(Self {
            invalidations: Arc::clone(invalidations),
            written: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
            elsewhere,
            keys: PhantomData,
        });
        let mut namespaces = invalidations
            .namespaces
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let joined = namespaces.entry(namespace).or_default();
        joined.push(Arc::clone(&generations) as Arc<dyn Forget>);
        drop(namespaces);
        generations
    }

    /// Both counts only grow, so their sum is the same only as long as both are.
    pub(super) fn of(&self, key: &K) -> u64 {
        let epoch = self.invalidations.epoch.load(Ordering::SeqCst);
        epoch + self.counter(key).load(Ordering::SeqCst)
    }

    /// Whatever was read of the key before is old.
    pub(super) fn advance(&self, key: &K) {
        self.counter(key).fetch_add(1, Ordering::SeqCst);
    }

    fn counter(&self, key: &K) -> &AtomicU64 {
        let place = self.hasher.hash_one(key) % COUNTERS as u64;
        &self.written[usize::try_from(place).expect("it is less than the number of counters")]
    }
}

impl<K: Hash + FromStr + 'static> Forget for Generations<K> {
    fn forget(&self, key: &str) {
        self.elsewhere.inc();
        match key.parse() {
            Ok(key) => self.advance(&key),
            // A version with another type of key may have written anything.
            Err(_) => self.written.iter().for_each(|counter| {
                counter.fetch_add(1, Ordering::SeqCst);
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> (Arc<Invalidations>, Arc<Generations<u32>>) {
        let invalidations = Arc::new(Invalidations::new(Gauge::default()));
        let generations = Generations::new(&invalidations, "things", Counter::default());
        (invalidations, generations)
    }

    #[test]
    fn a_write_elsewhere_ages_its_key_and_one_of_our_own_does_not_come_back() {
        let ((here, generations), (elsewhere, _)) = (process(), process());
        let before = generations.of(&7);

        Listener::message(&*here, here.message("things", "7").as_bytes());
        let after_own = generations.of(&7);
        Listener::message(&*here, elsewhere.message("things", "7").as_bytes());

        assert_eq!(after_own, before);
        assert_ne!(generations.of(&7), before);
    }

    #[test]
    fn a_loss_and_a_key_that_cannot_be_read_age_everything() {
        let ((here, generations), (elsewhere, _)) = (process(), process());
        let ages = || (0..100).map(|key| generations.of(&key)).sum::<u64>();
        let before = ages();

        Listener::message(&*here, elsewhere.message("things", "no number").as_bytes());
        let unread = ages();
        here.lost();

        assert_eq!((unread - before, ages() - unread), (100, 100));
    }

    #[test]
    fn what_is_no_message_of_ours_changes_nothing() {
        let (here, generations) = process();
        let before = generations.of(&7);

        for payload in [
            b"" as &[u8],
            b"\xff",
            b"x things 7",
            b"1 others 7",
            b"1things7",
        ] {
            Listener::message(&*here, payload);
        }

        assert_eq!(generations.of(&7), before);
    }
}
