//! What one request has to see, and what the next one will have to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::position::{Position, Positions};

/// The positions that the reads of one request must not be older than: those its client brought along, and those of its own
/// writes. Clones share one memory, so whoever holds one sees what the handler wrote.
///
/// For a client that hands positions on, reads do not go back in time either: what a read saw on the primary, in the place of
/// a replica, is remembered like a write. Not remembered is which of several replicas was read, so a session may see one
/// that is up to `lag_max` behind another.
#[derive(Clone, Debug, Default)]
pub struct Consistency(Arc<Memory>);

#[derive(Debug, Default)]
struct Memory {
    /// Whether there is anything to look at behind the lock; most reads have nothing.
    is_bound: AtomicBool,
    /// Whether the client will bring back what it is told.
    is_followed: AtomicBool,
    has_news: AtomicBool,
    positions: Mutex<Positions>,
}

impl Consistency {
    /// From here on reads are not older than these positions, which the client brought along.
    pub fn require(&self, positions: &Positions) {
        self.0.is_followed.store(true, Ordering::Relaxed);
        if !positions.is_empty() {
            self.positions().merge(positions);
            self.0.is_bound.store(true, Ordering::Release);
        }
    }

    /// All that the client's next request has to see. None when that is no more than the client knows.
    pub fn to_hand_on(&self) -> Option<Positions> {
        let has_news = self.0.has_news.load(Ordering::Acquire);
        has_news.then(|| *self.positions())
    }

    /// Notes a commit, or what a read saw: its position where replicas may be behind it, and the version of the shard map that
    /// led there; 0 where none did.
    pub(super) fn saw(&self, position: Option<Position>, map_version: u32) {
        let mut positions = self.positions();
        position
            .into_iter()
            .for_each(|position| positions.add(position));
        positions.add_map(map_version);
        drop(positions);
        self.0.is_bound.store(true, Ordering::Release);
        self.0.has_news.store(true, Ordering::Release);
    }

    /// Whether what a read saw matters to a later request.
    pub(super) fn is_followed(&self) -> bool {
        self.0.is_followed.load(Ordering::Relaxed)
    }

    /// The shard map that a read must not be older than. 0: any will do.
    pub(super) fn map_version(&self) -> u32 {
        if self.is_bound() {
            self.positions().map_version()
        } else {
            0
        }
    }

    /// Whether any read has to see anything in particular.
    pub(super) fn is_bound(&self) -> bool {
        self.0.is_bound.load(Ordering::Acquire)
    }

    /// What a read of a cluster has to see. None: any state will do.
    pub(super) fn required(&self, system: u64) -> Option<Position> {
        if !self.is_bound() {
            return None;
        }
        let positions = self.positions();
        match system {
            // Before its first check nothing is known of the cluster, so it might be any of them.
            0 => Some(Position::UNKNOWN),
            system => positions.of(system),
        }
    }

    fn positions(&self) -> MutexGuard<'_, Positions> {
        // A plain value: no panic can leave it half changed.
        self.0
            .positions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
