//! All clusters of the service behind one handle: home, and the others with the map that says what they hold.

use std::sync::Arc;

use futures::future::{join, join_all};
use prometheus_client::registry::Registry;
use resilience::Breaker;
use sqlx::postgres::PgConnectOptions;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cluster::{Cluster, InvalidUrl, Location, NodeStatus};
use super::config::Config;
use super::db::Db;
use super::metrics::{Instruments, PoolGauges};
use super::node::Node;
use super::shards::{self, Bucket, HOME, Map, MapStatus};
use crate::Error;

/// The Postgres clusters of the service. Cheap to clone; one per process.
#[derive(Clone, Debug)]
pub struct Clusters(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    /// Home first.
    clusters: Vec<(String, Cluster)>,
    /// None while there is only home, where everything is.
    map: Option<Map>,
}

/// Where to send a statement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Destination<'a> {
    pub(super) cluster: &'a Cluster,
    /// The version of the shard map that led there; 0 where none did.
    pub(super) map_version: u32,
    /// Whether only the primary is known to have all that a client may have seen.
    pub(super) is_settling: bool,
}

impl Clusters {
    /// Clusters with empty pools. Connects to nothing: connections are opened when they are needed.
    ///
    /// # Errors
    /// When a URL cannot be read; names the setting.
    pub fn new(
        config: &Config,
        shards: &shards::Config,
        registry: &mut Registry,
    ) -> Result<Self, InvalidUrl> {
        let metrics = Instruments::register(registry);
        let home = Location {
            prefix: "postgres".to_owned(),
            section: "postgres".to_owned(),
            primary_url: &config.primary_url,
            replica_urls: &config.replica_urls,
        };
        let mut clusters = vec![(HOME.to_owned(), Cluster::new(&home, config, &metrics)?)];
        for (name, cluster) in &shards.clusters {
            let location = Location {
                prefix: format!("shard-{name}"),
                section: format!("shards.clusters.{name}"),
                primary_url: &cluster.primary_url,
                replica_urls: &cluster.replica_urls,
            };
            clusters.push((name.clone(), Cluster::new(&location, config, &metrics)?));
        }
        let has_map = clusters.len() > 1;
        let inner = Arc::new(Inner {
            clusters,
            // As long as any token may ask for something that was written before.
            map: has_map.then(|| Map::new(shards, config.token_ttl)),
        });
        registry.register_collector(Box::new(PoolGauges(Arc::downgrade(&inner))));
        Ok(Self(inner))
    }

    /// The database as one request sees it: nothing is begun after `deadline`, and nothing is waited for beyond it.
    /// Its reads are as old as the replicas; see [`Db::consistent`].
    pub fn db(&self, deadline: Instant) -> Db {
        Db::new(self.clone(), deadline)
    }

    /// Checks every node and keeps the shard map up to date until `shutdown`. To be run by one task for as long as the process
    /// serves.
    pub async fn watch(&self, shutdown: CancellationToken) {
        let checks = join_all(self.0.clusters.iter().map(|(_, cluster)| cluster.watch()));
        let map = async {
            if let Some(map) = &self.0.map {
                shards::keep(self, map).await;
            }
        };
        shutdown.run_until_cancelled(join(checks, map)).await;
    }

    /// What is known of each node, home's first, and of each cluster the primary first. Answers from memory.
    pub fn status(&self) -> Vec<NodeStatus> {
        let clusters = self.0.clusters.iter();
        clusters.flat_map(|(_, cluster)| cluster.status()).collect()
    }

    /// The breaker before each node, with its name in metrics.
    pub fn breakers(&self) -> impl Iterator<Item = (&str, &Breaker)> {
        let nodes = self.0.nodes();
        nodes.map(|node| (node.name.as_str(), node.health.breaker()))
    }

    /// The oldest schema of any cluster, as the background checks last saw them; a cluster that was never seen does not
    /// count, or it would keep the others from being used. None before home was seen.
    pub fn schema_version(&self) -> Option<i64> {
        let mut versions = self
            .0
            .clusters
            .iter()
            .map(|(_, cluster)| cluster.schema_version());
        let home = versions.next().flatten()?;
        Some(versions.flatten().fold(home, i64::min))
    }

    /// Whether there are clusters beside home.
    pub fn is_sharded(&self) -> bool {
        self.0.map.is_some()
    }

    /// What is known of the shard map. None while there is only home. Answers from memory.
    pub fn map_status(&self) -> Option<MapStatus> {
        self.0.map.as_ref().map(Map::status)
    }

    /// The name of the cluster that holds a bucket's rows.
    ///
    /// # Errors
    /// `Unavailable` while the shard map is not known or too old to go by.
    pub fn holder(&self, bucket: Bucket) -> Result<&str, Error> {
        let position = match &self.0.map {
            Some(map) => map.route(bucket)?.cluster,
            None => 0,
        };
        Ok(&self.0.clusters[position].0)
    }

    /// A cluster's position, home being 0.
    pub(super) fn position(&self, name: &str) -> Option<u8> {
        let mut names = self.0.clusters.iter().map(|(name, _)| name);
        u8::try_from(names.position(|known| known == name)?).ok()
    }

    /// How home's servers are used.
    pub(crate) fn home_config(&self) -> &Config {
        &self.home().0.config
    }

    /// How sessions on home's primary are opened.
    pub(crate) fn home_options(&self) -> PgConnectOptions {
        self.home().0.primary.session_options().clone()
    }

    pub(super) fn home(&self) -> &Cluster {
        &self.0.clusters[0].1
    }

    /// Where the rows of a bucket are, or everything that has none.
    pub(super) fn destination(&self, bucket: Option<Bucket>) -> Result<Destination<'_>, Error> {
        let (Some(map), Some(bucket)) = (&self.0.map, bucket) else {
            return Ok(Destination {
                cluster: self.home(),
                map_version: 0,
                is_settling: false,
            });
        };
        let route = map.route(bucket)?;
        Ok(Destination {
            cluster: &self.0.clusters[route.cluster].1,
            map_version: route.version,
            is_settling: route.is_settling,
        })
    }

    pub(super) fn map(&self) -> Option<&Map> {
        self.0.map.as_ref()
    }
}

impl Inner {
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.clusters
            .iter()
            .flat_map(|(_, cluster)| cluster.0.nodes())
    }

    pub(super) fn replicas(&self) -> impl Iterator<Item = &Arc<Node>> {
        let clusters = self.clusters.iter();
        clusters.flat_map(|(_, cluster)| &cluster.0.replicas)
    }

    pub(super) fn map_version(&self) -> Option<u32> {
        self.map.as_ref().map(Map::version)
    }
}
