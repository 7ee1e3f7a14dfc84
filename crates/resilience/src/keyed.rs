//! A bounded table of small states by key, such as one quota for each client.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Parts with a lock each, so that threads seldom meet.
const SHARDS: usize = 16;

/// Holds at most as many states as it was made for. What is used stays: a state moves from the old generation to the new one
/// when it is used, and when the new one is full the old one is forgotten. So a flood of new keys costs no search, and does
/// not push out a key that is in use.
pub struct Keyed<K, V> {
    shards: Box<[Mutex<Shard<K, V>>]>,
    hasher: RandomState,
    /// States in one generation of one shard.
    generation_max: usize,
}

struct Shard<K, V> {
    new: HashMap<K, V, RandomState>,
    old: HashMap<K, V, RandomState>,
}

impl<K: Hash + Eq, V> Keyed<K, V> {
    /// For `entries_max` states, but no less than two in each shard.
    pub fn new(entries_max: usize) -> Self {
        let hasher = RandomState::new();
        let shard = || {
            Mutex::new(Shard {
                new: HashMap::with_hasher(hasher.clone()),
                old: HashMap::with_hasher(hasher.clone()),
            })
        };
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            generation_max: (entries_max / SHARDS / 2).max(1),
            hasher,
        }
    }

    /// Looks at or changes the state of `key`, which `fresh` makes if there is none.
    pub fn with<R>(&self, key: K, fresh: impl FnOnce() -> V, act: impl FnOnce(&mut V) -> R) -> R {
        let mut shard = self.shard(&key);
        if let Some(state) = shard.new.get_mut(&key) {
            return act(state);
        }
        let state = shard.old.remove(&key);
        if shard.new.len() >= self.generation_max {
            shard.old = mem::replace(&mut shard.new, HashMap::with_hasher(self.hasher.clone()));
        }
        act(shard
            .new
            .entry(key)
            .or_insert_with(|| state.unwrap_or_else(fresh)))
    }

    /// The state of `key`, if there is one.
    pub fn get(&self, key: &K) -> Option<V>
    where
        V: Copy,
    {
        let shard = self.shard(key);
        shard.new.get(key).or_else(|| shard.old.get(key)).copied()
    }

    /// Forgets the state of `key`.
    pub fn remove(&self, key: &K) {
        let mut shard = self.shard(key);
        shard.new.remove(key);
        shard.old.remove(key);
    }

    fn shard(&self, key: &K) -> MutexGuard<'_, Shard<K, V>> {
        // The bits that the maps use least.
        let shard = (self.hasher.hash_one(key) >> 48) as usize % SHARDS;
        // A state is plain data: there is no half-way for a panic to leave.
        self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states<K: Hash + Eq, V>(keyed: &Keyed<K, V>) -> usize {
        let shards = keyed.shards.iter().map(|shard| shard.lock().unwrap());
        shards.map(|shard| shard.new.len() + shard.old.len()).sum()
    }

    #[test]
    fn a_flood_of_keys_takes_no_more_room_and_forgets_nothing_that_is_in_use() {
        let keyed = Keyed::new(1_000);
        let mut uses = 0;
        for key in 1..100_000_u32 {
            keyed.with(key, || 0, |_| ());
            if key.is_multiple_of(10) {
                uses += 1;
                let counted = keyed.with(
                    0,
                    || 0,
                    |count| {
                        *count += 1;
                        *count
                    },
                );
                assert_eq!(counted, uses);
            }
        }

        assert!(states(&keyed) <= 1_000, "{}", states(&keyed));
    }

    #[test]
    fn a_removed_key_begins_anew_wherever_it_was() {
        let keyed = Keyed::new(64);
        for key in 0..64 {
            keyed.with(key, || 7, |_| ());
        }
        for key in 0..64 {
            keyed.remove(&key);
            assert_eq!(keyed.with(key, || 1, |state| *state), 1);
        }
    }
}
