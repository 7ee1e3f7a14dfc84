//! Where rows live: a marker on every handle, so that a statement for one place is not sent to another.

use uuid::Uuid;

/// The cluster of everything that is not sharded.
#[derive(Clone, Copy, Debug)]
pub struct Home;

/// The cluster that holds the rows of one key.
#[derive(Clone, Copy, Debug)]
pub struct Shard {
    pub(super) key: Uuid,
}
