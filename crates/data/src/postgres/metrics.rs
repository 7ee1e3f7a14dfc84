//! The cluster's instruments. Counted where it happens; gauges are read from the pools when someone scrapes.

use std::fmt;
use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::clusters::Inner;
use super::node::{Node, Role};

type Labels = Vec<(&'static str, String)>;

/// A label that is looked up without allocating.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// The instruments of all nodes.
#[derive(Clone, Debug)]
pub(super) struct Instruments {
    wait: Family<Labels, Histogram, fn() -> Histogram>,
    timeouts: Family<Labels, Counter>,
    evictions: Family<Labels, Counter>,
    statements: Family<Labels, Histogram, fn() -> Histogram>,
    reads_on_primary: Family<Reason, Counter>,
    /// Reads that had to see something.
    consistent_reads: Family<Labels, Counter>,
    pools_replaced: Family<Labels, Counter>,
    pub(super) transaction_retries: Counter,
    /// Writes that came to a bucket while it was moving.
    pub(super) moved_writes: Counter,
}

/// The instruments of one node, looked up once.
#[derive(Debug)]
pub(super) struct NodeInstruments {
    pub(super) wait: Histogram,
    pub(super) statement: Histogram,
    pub(super) timeouts: Counter,
    evictions: Family<Labels, Counter>,
    consistent_reads: Counter,
    pools_replaced: Counter,
    pool: String,
}

impl Instruments {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let new = Self {
            wait: Family::new_with_constructor(seconds),
            timeouts: Family::default(),
            evictions: Family::default(),
            statements: Family::new_with_constructor(seconds),
            reads_on_primary: Family::default(),
            consistent_reads: Family::default(),
            pools_replaced: Family::default(),
            transaction_retries: Counter::default(),
            moved_writes: Counter::default(),
        };
        registry.register_with_unit(
            "db_client_connections_wait",
            "Time until a connection was there, opening included",
            Unit::Seconds,
            new.wait.clone(),
        );
        registry.register(
            "db_client_connections_timeouts",
            "Requests that got no connection in time",
            new.timeouts.clone(),
        );
        registry.register(
            "db_client_connections_evicted",
            "Connections closed because they could not be used again",
            new.evictions.clone(),
        );
        registry.register_with_unit(
            "db_client_operation_duration",
            "Duration of statements",
            Unit::Seconds,
            new.statements.clone(),
        );
        registry.register(
            "reads_on_primary",
            "Reads that a replica should have taken",
            new.reads_on_primary.clone(),
        );
        registry.register(
            "db_client_transaction_retries",
            "Transactions begun again after a conflict",
            new.transaction_retries.clone(),
        );
        registry.register(
            "shard_moved_writes",
            "Writes begun again because their bucket was moving to another cluster",
            new.moved_writes.clone(),
        );
        registry.register(
            "consistent_reads",
            "Reads that had to see an earlier write, by the kind of node that took them",
            new.consistent_reads.clone(),
        );
        registry.register(
            "db_client_pools_replaced",
            "Pools that had lost all their connections and were replaced",
            new.pools_replaced.clone(),
        );
        new
    }

    pub(super) fn node(&self, pool: &str, role: Role) -> NodeInstruments {
        let labels = vec![("pool", pool.to_owned())];
        let statement = self
            .statements
            .get_or_create_owned(&vec![("node", role.dependency().to_owned())]);
        NodeInstruments {
            wait: self.wait.get_or_create_owned(&labels),
            statement,
            timeouts: self.timeouts.get_or_create_owned(&labels),
            evictions: self.evictions.clone(),
            consistent_reads: self
                .consistent_reads
                .get_or_create_owned(&vec![("node", role.dependency().to_owned())]),
            pools_replaced: self.pools_replaced.get_or_create_owned(&labels),
            pool: pool.to_owned(),
        }
    }

    pub(super) fn read_on_primary(&self, reason: &'static str) {
        self.reads_on_primary
            .get_or_create(&Reason { reason })
            .inc();
    }
}

impl NodeInstruments {
    pub(super) fn evicted(&self, reason: &'static str) {
        let labels = vec![("pool", self.pool.clone()), ("reason", reason.to_owned())];
        self.evictions.get_or_create(&labels).inc();
    }

    pub(super) fn consistent_read(&self) {
        self.consistent_reads.inc();
    }

    pub(super) fn pool_replaced(&self) {
        self.pools_replaced.inc();
    }
}

/// From the fastest statement on a local socket to beyond every timeout.
fn seconds() -> Histogram {
    Histogram::new([
        0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
        2.5, 5.0,
    ])
}

/// Reads the pools' sizes at each scrape.
pub(super) struct PoolGauges(pub(super) Weak<Inner>);

impl fmt::Debug for PoolGauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PoolGauges")
    }
}

impl Collector for PoolGauges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let Some(cluster) = self.0.upgrade() else {
            return Ok(());
        };
        let help = "Connections in the pool";
        let mut gauge =
            encoder.encode_descriptor("db_client_connections", help, None, MetricType::Gauge)?;
        for node in cluster.nodes() {
            let (in_use, idle) = in_use_and_idle(node);
            for (state, value) in [("in_use", in_use), ("idle", idle)] {
                ConstGauge::new(as_gauge(value)).encode(
                    gauge.encode_family(&[("pool", node.name.as_str()), ("state", state)])?,
                )?;
            }
        }
        let help = "Connections the pool may open";
        let mut gauge = encoder.encode_descriptor(
            "db_client_connections_max",
            help,
            None,
            MetricType::Gauge,
        )?;
        for node in cluster.nodes() {
            let max = as_gauge(node.status().max_size);
            ConstGauge::new(max).encode(gauge.encode_family(&[("pool", node.name.as_str())])?)?;
        }
        if let Some(version) = cluster.map_version() {
            let help = "Version of the shard map in this process, 0 before it was read";
            let gauge =
                encoder.encode_descriptor("shard_map_version", help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::from(version)).encode(gauge)?;
        }
        replication(&cluster, &mut encoder)
    }
}

/// How far each replica is behind, and what its replay has cancelled, as the background check last saw them.
fn replication(cluster: &Inner, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let checks = || {
        let check = |node: &Arc<Node>| (node.name.clone(), node.health.last_check().clone());
        cluster.replicas().map(check)
    };
    let lags = || checks().filter_map(|(name, check)| Some((name, check.lag?)));
    let help = "How far the replica is behind the primary";
    let unit = Unit::Seconds;
    let mut gauge =
        encoder.encode_descriptor("postgres_replica_lag", help, Some(&unit), MetricType::Gauge)?;
    for (name, lag) in lags() {
        ConstGauge::new(lag.time.as_secs_f64())
            .encode(gauge.encode_family(&[("node", name.as_str())])?)?;
    }
    let unit = Unit::Bytes;
    let mut gauge =
        encoder.encode_descriptor("postgres_replica_lag", help, Some(&unit), MetricType::Gauge)?;
    for (name, lag) in lags() {
        let bytes = i64::try_from(lag.bytes).unwrap_or(i64::MAX);
        ConstGauge::new(bytes).encode(gauge.encode_family(&[("node", name.as_str())])?)?;
    }
    let help = "Queries that the replica cancelled because replay needed what they read";
    let name = "postgres_replica_conflicts";
    let mut counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (name, check) in checks() {
        ConstCounter::new(check.conflicts)
            .encode(counter.encode_family(&[("node", name.as_str())])?)?;
    }
    Ok(())
}

pub(super) fn in_use_and_idle(node: &Arc<Node>) -> (usize, usize) {
    let status = node.status();
    (status.size - status.available, status.available)
}

fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
