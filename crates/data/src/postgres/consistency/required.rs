//! What one request has to see, and what the next one will have to.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::position::{Position, Positions};

/// The positions that the reads of one request must not be older than: those its client brought along, and those of its own
/// writes. Clones share one memory, so whoever holds one sees what the handler wrote.
///
/// For a client that hands positions on, reads do not go back in time either: what a read saw on the primary, in the place of
/// a replica, is remembered like a write. Not remembered is which of several replicas was read, so a session may see one
/// that is up to `lag_max` behind another.
#[derive(Clone, Debug)]
pub struct Consistency(Option<Arc<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    /// Whether there is anything to look at behind the lock; most reads have nothing.
    is_bound: AtomicBool,
    /// Whether the client will bring back what it is told.
    is_followed: AtomicBool,
    has_news: AtomicBool,
    /// Of the shard map. Apart from the positions, because it binds no read that is not sharded.
    map_version: AtomicU32,
    positions: Mutex<Positions>,
}

impl Default for Consistency {
    /// Of a request that has to see nothing in particular yet.
    fn default() -> Self {
        Self(Some(Arc::default()))
    }
}

impl Consistency {
    /// Remembers nothing, not even own writes.
    pub(crate) const NONE: Self = Self(None);

    /// From here on reads are not older than these positions, which the client brought along.
    pub fn require(&self, positions: &Positions) {
        let Some(memory) = &self.0 else { return };
        memory.is_followed.store(true, Ordering::Relaxed);
        memory
            .map_version
            .fetch_max(positions.map_version(), Ordering::Relaxed);
        if positions.iter().next().is_some() {
            memory.positions().merge(positions);
            memory.is_bound.store(true, Ordering::Release);
        }
    }

    /// All that the client's next request has to see. None when that is no more than the client knows.
    pub fn to_hand_on(&self) -> Option<Positions> {
        let memory = self.0.as_ref()?;
        let has_news = memory.has_news.load(Ordering::Acquire);
        has_news.then(|| self.seen())
    }

    /// All that was brought along, written and read on primaries so far.
    pub fn seen(&self) -> Positions {
        let Some(memory) = &self.0 else {
            return Positions::default();
        };
        let mut positions = *memory.positions();
        positions.add_map(memory.map_version.load(Ordering::Relaxed));
        positions
    }

    /// Whether any read has to see anything in particular.
    pub fn is_bound(&self) -> bool {
        let is_bound = |memory: &Arc<Memory>| memory.is_bound.load(Ordering::Acquire);
        self.0.as_ref().is_some_and(is_bound)
    }

    /// Notes a commit, or what a read saw: its position where replicas may be behind it, and the version of the shard map that
    /// led there; 0 where none did.
    pub(crate) fn saw(&self, position: Option<Position>, map_version: u32) {
        let Some(memory) = &self.0 else { return };
        memory.map_version.fetch_max(map_version, Ordering::Relaxed);
        if let Some(position) = position {
            memory.positions().add(position);
            memory.is_bound.store(true, Ordering::Release);
        }
        memory.has_news.store(true, Ordering::Release);
    }

    /// Whether what a read saw matters to a later request.
    pub(crate) fn is_followed(&self) -> bool {
        let is_followed = |memory: &Arc<Memory>| memory.is_followed.load(Ordering::Relaxed);
        self.0.as_ref().is_some_and(is_followed)
    }

    /// The shard map that a read must not be older than. 0: any will do.
    pub(crate) fn map_version(&self) -> u32 {
        let version = |memory: &Arc<Memory>| memory.map_version.load(Ordering::Relaxed);
        self.0.as_ref().map_or(0, version)
    }

    /// What a read of a cluster has to see. None: any state will do.
    pub(crate) fn required(&self, system: u64) -> Option<Position> {
        let memory = self.0.as_ref().filter(|_| self.is_bound())?;
        match system {
            // Before its first check nothing is known of the cluster, so it might be any of them.
            0 => Some(Position::UNKNOWN),
            system => memory.positions().of(system),
        }
    }
}

impl Memory {
    fn positions(&self) -> MutexGuard<'_, Positions> {
        // A plain value: no panic can leave it half changed.
        self.positions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
