//! Several clusters behind one handle. Keys fall into buckets, a map on the home cluster says which cluster holds each
//! bucket, every process keeps a copy of it, and a bucket moves from one cluster to another while it is in use.

mod bucket;
mod config;
mod deal;
mod guard;
mod layout;
mod map;
mod moving;
mod plan;
mod refresh;

pub use bucket::{Bucket, Buckets, InvalidBuckets};
pub use config::{ClusterConfig, Config, HOME, Overlap};
pub use deal::{DealError, Table, deal};
pub use layout::{Layout, layout};
pub use moving::{MoveError, Moved, Mover};
pub use plan::plan;

/// What a write to a bucket is refused with while it moves. Class `HF` is nobody's (PostgreSQL documentation, appendix A).
pub(super) const FENCED: &str = "HF001";

pub(super) use map::Map;
pub use map::MapStatus;
pub(super) use refresh::keep;
