//! Where rows live: a marker on every handle, so that a statement for one place is not sent to another.

use uuid::Uuid;

use super::shards::Bucket;

/// The cluster of everything that is not sharded.
#[derive(Clone, Copy, Debug)]
pub struct Home;

/// The cluster that holds the rows of one key.
#[derive(Clone, Copy, Debug)]
pub struct Shard {
    pub(super) key: Uuid,
}

/// [`Home`] or [`Shard`].
pub trait Place: Sealed + Copy + Send + Sync {
    /// The bucket that its rows are dealt with. None: they stay at home.
    #[doc(hidden)]
    fn bucket(&self) -> Option<Bucket>;
}

/// Keeps the places to those two.
pub trait Sealed {}

impl Sealed for Home {}

impl Sealed for Shard {}

impl Place for Home {
    fn bucket(&self) -> Option<Bucket> {
        None
    }
}

impl Place for Shard {
    fn bucket(&self) -> Option<Bucket> {
        Some(Bucket::of(self.key))
    }
}
