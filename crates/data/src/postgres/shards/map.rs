//! A process's copy of the map from buckets to clusters: looked up by every sharded request, replaced when the map changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use super::{Bucket, Config};
use crate::Error;

const DEPENDENCY: &str = "shard-map";

/// A process's copy of the map. See the module.
#[derive(Debug)]
pub(in crate::postgres) struct Map {
    table: ArcSwapOption<Table>,
    /// When the copy was last known to be the newest, in milliseconds since `born`.
    confirmed_ms: AtomicU64,
    born: Instant,
    pub(super) interval: Duration,
    age_max: Duration,
    /// How long a bucket's replicas are not read from after it has moved.
    settling: Duration,
    version: watch::Sender<u32>,
    wanted: Notify,
}

/// All of the map at one version, so that no lookup sees parts of two.
#[derive(Debug)]
struct Table {
    version: u32,
    entries: [Entry; Bucket::COUNT],
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Its position among the clusters. None: this process was not told of the cluster that the map names.
    cluster: Option<u8>,
    /// Until when its replicas are not read from, because it moved there lately.
    settles: Option<Instant>,
}

/// What the map says of one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::postgres) struct Route {
    /// The cluster's position, home being 0.
    pub(in crate::postgres) cluster: usize,
    /// The version of the map that says so.
    pub(in crate::postgres) version: u32,
    /// Whether it moved so lately that a client may have to see what it wrote before, of which only the primary can be sure:
    /// a position in the log of the old cluster says nothing of a replica of the new one.
    pub(in crate::postgres) is_settling: bool,
}

/// What is known of a process's copy of the map, for probes and people.
#[derive(Clone, Debug, serde::Serialize)]
pub struct MapStatus {
    /// Raised by every move. 0: it has not been read.
    pub version: u32,
    /// Whether requests can go by it.
    pub healthy: bool,
    /// How long ago it was known to be the newest, in milliseconds. None before it was read.
    pub confirmed_ago_ms: Option<u64>,
}

/// A row of the map that changed.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) bucket: Bucket,
    pub(super) cluster: Option<u8>,
    pub(super) version: u32,
    pub(super) age: Duration,
}

#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Missing {
    #[error("the map has not been read, or was not dealt by `holdfast migrate`")]
    Unread,
    #[error("the map has not been confirmed for longer than shards.map_age_max")]
    Outdated,
    #[error("the map names a cluster that shards.clusters does not")]
    Unknown,
    #[error("the map that the client has seen was not to be had in time")]
    Behind,
}

impl From<Missing> for Error {
    fn from(missing: Missing) -> Self {
        Self::Unavailable {
            dependency: DEPENDENCY,
            source: Some(Arc::new(missing)),
        }
    }
}

impl Map {
    pub(in crate::postgres) fn new(config: &Config, settling: Duration) -> Self {
        Self {
            table: ArcSwapOption::empty(),
            confirmed_ms: AtomicU64::new(0),
            born: Instant::now(),
            interval: config.map_interval,
            age_max: config.map_age_max,
            settling,
            version: watch::Sender::new(0),
            wanted: Notify::new(),
        }
    }

    /// Where the rows of a bucket are. Allocates nothing.
    pub(in crate::postgres) fn route(&self, bucket: Bucket) -> Result<Route, Error> {
        let table = self.table.load();
        let Some(table) = table.as_ref() else {
            return Err(Missing::Unread.into());
        };
        let now = Instant::now();
        if self.age(now) > self.age_max {
            return Err(Missing::Outdated.into());
        }
        let entry = table.entries[bucket.index()];
        let Some(cluster) = entry.cluster else {
            return Err(Missing::Unknown.into());
        };
        Ok(Route {
            cluster: usize::from(cluster),
            version: table.version,
            is_settling: entry.settles.is_some_and(|settles| now < settles),
        })
    }

    fn age(&self, now: Instant) -> Duration {
        let confirmed = Duration::from_millis(self.confirmed_ms.load(Ordering::Relaxed));
        now.saturating_duration_since(self.born + confirmed)
    }

    /// Answers from memory.
    pub(in crate::postgres) fn status(&self) -> MapStatus {
        let (version, age) = (self.version(), self.age(Instant::now()));
        MapStatus {
            version,
            healthy: version > 0 && age <= self.age_max,
            confirmed_ago_ms: (version > 0)
                .then(|| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// The version this process has. 0: none.
    pub(in crate::postgres) fn version(&self) -> u32 {
        *self.version.borrow()
    }

    /// Waits until this process has `version` or a newer one, and has the map read anew at once.
    pub(in crate::postgres) async fn reach(
        &self,
        version: u32,
        deadline: Instant,
    ) -> Result<(), Error> {
        if self.changed(version, deadline).await {
            Ok(())
        } else {
            Err(Missing::Behind.into())
        }
    }

    /// The same, and whether it came to that before `limit`.
    pub(in crate::postgres) async fn changed(&self, version: u32, limit: Instant) -> bool {
        let mut versions = self.version.subscribe();
        if *versions.borrow() >= version {
            return true;
        }
        self.wanted.notify_one();
        let reached = versions.wait_for(|found| *found >= version);
        matches!(timeout_at(limit, reached).await, Ok(Ok(_)))
    }

    /// Waits until somebody wants the map read anew.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Takes over what has changed, as it was at `now`.
    pub(super) fn apply(&self, changes: &[Change], now: Instant) {
        if let Some(version) = changes.iter().map(|change| change.version).max() {
            let unread = Entry {
                cluster: None,
                settles: None,
            };
            let mut entries = match self.table.load().as_ref() {
                Some(table) => table.entries,
                None => [unread; Bucket::COUNT],
            };
            for change in changes {
                entries[change.bucket.index()] = Entry {
                    cluster: change.cluster,
                    settles: self.settling.checked_sub(change.age).map(|left| now + left),
                };
            }
            self.table.store(Some(Arc::new(Table { version, entries })));
            self.version.send_replace(version);
        }
        if self.version() > 0 {
            let since = now.saturating_duration_since(self.born).as_millis();
            let since = u64::try_from(since).unwrap_or(u64::MAX);
            self.confirmed_ms.store(since, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> Map {
        Map::new(&Config::default(), Duration::from_secs(30))
    }

    fn change(number: u16, cluster: Option<u8>, version: u32) -> Change {
        Change {
            bucket: Bucket::try_from(number).unwrap(),
            cluster,
            version,
            age: Duration::from_secs(3600),
        }
    }

    fn of(map: &Map, number: u16) -> Result<usize, String> {
        let bucket = Bucket::try_from(number).unwrap();
        map.route(bucket)
            .map(|route| route.cluster)
            .map_err(|error| {
                let source = std::error::Error::source(&error).unwrap();
                source.to_string()
            })
    }

    #[tokio::test(start_paused = true)]
    async fn a_map_that_nobody_confirms_is_not_used_for_long() {
        let map = map();
        let unread = of(&map, 7);
        map.apply(&[change(7, Some(2), 1)], Instant::now());
        tokio::time::advance(Duration::from_secs(5)).await;
        let old = of(&map, 7);
        tokio::time::advance(Duration::from_millis(2)).await;
        let too_old = of(&map, 7);
        map.apply(&[], Instant::now());

        assert!(unread.unwrap_err().contains("has not been read"));
        assert_eq!(old, Ok(2));
        assert!(too_old.unwrap_err().contains("map_age_max"));
        assert_eq!(of(&map, 7), Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_settles_for_a_while_after_it_has_moved() {
        let map = map();
        let bucket = Bucket::try_from(7).unwrap();
        map.apply(&[change(7, Some(0), 1)], Instant::now());
        let before = map.route(bucket).unwrap();
        let moved = Change {
            age: Duration::from_secs(1),
            ..change(7, Some(1), 2)
        };
        map.apply(&[moved], Instant::now());
        let after = map.route(bucket).unwrap();
        tokio::time::advance(Duration::from_secs(29)).await;
        map.apply(&[], Instant::now());

        assert_eq!((before.version, before.is_settling), (1, false));
        assert_eq!(
            (after.version, after.cluster, after.is_settling),
            (2, 1, true)
        );
        assert!(!map.route(bucket).unwrap().is_settling);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_that_is_not_configured_is_no_other_one() {
        let map = map();
        map.apply(&[change(7, None, 1)], Instant::now());

        assert!(of(&map, 7).unwrap_err().contains("shards.clusters"));
        assert!(of(&map, 8).unwrap_err().contains("shards.clusters"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_seen_a_newer_map_is_not_served_by_an_older_one() {
        let map = map();
        map.apply(&[change(7, Some(0), 1)], Instant::now());
        let soon = || Instant::now() + Duration::from_secs(1);

        let behind = map.reach(2, soon()).await;
        let (arrived, ()) = tokio::join!(map.reach(2, soon()), async {
            map.apply(&[change(7, Some(1), 2)], Instant::now());
        });

        assert!(behind.unwrap_err().is_transient());
        arrived.unwrap();
    }
}
