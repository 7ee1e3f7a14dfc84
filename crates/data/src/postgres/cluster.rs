//! One primary and its replicas, and the choice between them.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use resilience::breaker::State;
use secrecy::SecretString;
use serde::{Serialize, Serializer};
use sqlx::postgres::PgConnectOptions;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::config::{self, Config};
use super::consistency::{Consistency, Log, Need, Point};
use super::failure::Cause;
use super::metrics::{Instruments, in_use_and_idle};
use super::node::{Node, Role};

/// One primary with its replicas. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Cluster(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) primary: Arc<Node>,
    pub(super) replicas: Vec<Arc<Node>>,
    /// Bounds the reads that the primary takes in the place of replicas.
    pub(super) fallback: Semaphore,
    /// Those among them that may fail.
    pub(super) fallback_expendable: Semaphore,
    pub(super) log: Log,
    pub(super) metrics: Instruments,
    pub(super) config: Config,
}

/// A setting that is not the URL of a Postgres database.
#[derive(Debug, thiserror::Error)]
#[error("{key} is not the URL of a Postgres database")]
pub struct InvalidUrl {
    key: String,
}

/// What is known of one node, for probes and people.
#[derive(Clone, Debug, serde::Serialize)]
pub struct NodeStatus {
    /// `postgres-primary`, `postgres-replica-0` …, of other clusters `shard-east-primary` …; also the `pool` label in metrics.
    pub name: String,
    /// What it is configured to be.
    pub role: Role,
    /// Whether requests are sent to it.
    pub healthy: bool,
    /// Whether it replays another's log, as last seen. A primary must not.
    pub in_recovery: Option<bool>,
    /// How far behind the primary it was, as last seen.
    #[serde(rename = "lag_ms", serialize_with = "milliseconds")]
    pub lag: Option<Duration>,
    /// The same in bytes of the log.
    pub lag_bytes: Option<u64>,
    /// The timeline it is on, as last seen. 0 before.
    pub timeline: u32,
    /// The newest applied migration, as last seen.
    pub schema_version: Option<i64>,
    /// Time since the last background check. None before the first.
    #[serde(rename = "checked_ago_ms", serialize_with = "milliseconds")]
    pub checked_ago: Option<Duration>,
    /// Why the last check failed, without anything secret.
    pub error: Option<String>,
    /// Connections in use.
    pub in_use: usize,
    /// Connections waiting for use.
    pub idle: usize,
    /// Connections it may open.
    pub max: usize,
}

/// Where a cluster is.
pub(super) struct Location<'a> {
    /// What the names of its nodes begin with: they say nothing of home, where most services have everything.
    pub(super) prefix: String,
    /// The section its URLs are set in.
    pub(super) section: String,
    pub(super) primary_url: &'a SecretString,
    pub(super) replica_urls: &'a [SecretString],
}

impl Cluster {
    /// A cluster with empty pools. Connects to nothing: connections are opened when they are needed.
    pub(super) fn new(
        location: &Location<'_>,
        config: &Config,
        metrics: &Instruments,
    ) -> Result<Self, InvalidUrl> {
        let Location {
            prefix, section, ..
        } = location;
        let node = |name: String, role, url| Node::new(name, role, url, config, metrics);
        let primary = node(
            format!("{prefix}-primary"),
            Role::Primary,
            url(format!("{section}.primary_url"), location.primary_url)?,
        );
        let replicas = location
            .replica_urls
            .iter()
            .enumerate()
            .map(|(index, secret)| {
                let url = url(format!("{section}.replica_urls[{index}]"), secret)?;
                let name = format!("{prefix}-replica-{index}");
                Ok(node(name, Role::Replica, url))
            });
        let replicas = replicas.collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Inner {
            primary,
            replicas,
            fallback: Semaphore::new(config.fallback_reads_max),
            fallback_expendable: Semaphore::new(config.fallback_expendable_max),
            log: Log::new(config.lag_max),
            metrics: metrics.clone(),
            config: config.clone(),
        })))
    }

    /// What is known of each node, the primary first. Answers from memory.
    pub(super) fn status(&self) -> impl Iterator<Item = NodeStatus> {
        self.0.nodes().map(status)
    }

    /// The newest migration that the background check saw applied, on the primary if it was ever seen. None before.
    pub(super) fn schema_version(&self) -> Option<i64> {
        self.0
            .nodes()
            .find_map(|node| node.health.last_check().schema_version)
    }
}

impl Inner {
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        std::iter::once(&self.primary).chain(&self.replicas)
    }

    /// Whether a commit's point in the log is worth asking for: without replicas nothing can be behind.
    pub(super) fn has_replicas(&self) -> bool {
        !self.replicas.is_empty()
    }

    /// The replica for a read that must not be older than `consistency` says; or why the primary has to take it.
    pub(super) async fn replica_for(&self, consistency: &Consistency) -> Result<&Arc<Node>, Cause> {
        match self.need(consistency) {
            None => self.replica().ok_or(Cause::Down),
            Some(Need::Primary) => Err(Cause::Behind),
            Some(Need::Replayed(point)) => match self.replica_at(point) {
                Some(replica) => Ok(replica),
                None => self.replica_soon_at(point).await.ok_or(Cause::Behind),
            },
        }
    }

    /// What a read must see. None: any state will do.
    fn need(&self, consistency: &Consistency) -> Option<Need> {
        let position = consistency.required(self.log.system())?;
        Some(self.log.need(position))
    }

    /// The replica for a read that any of them may answer: the less loaded of two random healthy ones (Mitzenmacher, "The
    /// Power of Two Choices"). When none is healthy it is the primary's turn; but a primary that is down itself leaves even
    /// a doubtful replica the better choice.
    fn replica(&self) -> Option<&Arc<Node>> {
        let healthy = pick(&self.replicas, |node| node.health.is_fit_for_reads());
        healthy.or_else(|| match self.primary.health.is_up() {
            true => None,
            false => fastrand::choice(&self.replicas),
        })
    }

    /// A replica that has come as far as `point`.
    fn replica_at(&self, point: Point) -> Option<&Arc<Node>> {
        pick(&self.replicas, |node| {
            node.health.is_fit_for_reads() && node.progress.replayed().covers(point)
        })
    }

    /// The first replica to come as far as `point` within `token_wait`. One that is known to be farther behind than that is
    /// not waited for. When the primary is down there is nobody else to ask, and so more time.
    async fn replica_soon_at(&self, point: Point) -> Option<&Arc<Node>> {
        let is_primary_up = self.primary.health.is_up();
        let limit = match is_primary_up {
            true => self.config.token_wait,
            false => self.config.statement_timeout,
        };
        let is_close = |node: &&Arc<Node>| {
            let lag = node.health.last_check().lag;
            let is_near = lag.is_some_and(|lag| lag.time <= limit);
            node.health.is_fit_for_reads() && (is_near || !is_primary_up)
        };
        let mut arrivals: FuturesUnordered<_> = self
            .replicas
            .iter()
            .filter(is_close)
            .map(|node| async move {
                node.progress.reach(point).await;
                node
            })
            .collect();
        timeout(limit, arrivals.next()).await.ok().flatten()
    }
}

/// The less loaded of two random nodes that satisfy `wanted`, as far as there are any. Allocates nothing.
fn pick(nodes: &[Arc<Node>], wanted: impl Fn(&Node) -> bool + Copy) -> Option<&Arc<Node>> {
    let start = match nodes {
        [] => return None,
        [only] => return Some(only).filter(|node| wanted(node)),
        several => fastrand::usize(..several.len()),
    };
    let (before, after) = nodes.split_at(start);
    let mut candidates = after.iter().chain(before).filter(|node| wanted(node));
    let first = candidates.next()?;
    let rest = candidates.clone().count();
    if rest == 0 {
        return Some(first);
    }
    let second = candidates.nth(fastrand::usize(..rest))?;
    Some(if second.load() < first.load() {
        second
    } else {
        first
    })
}

fn milliseconds<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    duration.map(|time| time.as_millis()).serialize(serializer)
}

fn url(key: String, secret: &SecretString) -> Result<PgConnectOptions, InvalidUrl> {
    config::parse(secret).ok_or(InvalidUrl { key })
}

fn status(node: &Arc<Node>) -> NodeStatus {
    let (in_use, idle) = in_use_and_idle(node);
    let check = node.health.last_check().clone();
    NodeStatus {
        name: node.name.clone(),
        role: node.role,
        healthy: match node.role {
            Role::Primary => node.health.is_up(),
            Role::Replica => node.health.is_fit_for_reads(),
        },
        in_recovery: check.in_recovery,
        lag: check.lag.map(|lag| lag.time),
        lag_bytes: check.lag.map(|lag| lag.bytes),
        timeline: node.progress.replayed().timeline,
        schema_version: check.schema_version,
        checked_ago: check.at.map(|at| at.elapsed()),
        error: check.error.or_else(|| {
            let is_open = node.health.breaker().state() != State::Closed;
            is_open.then(|| "left alone for a while: it failed or was slow".to_owned())
        }),
        in_use,
        idle,
        max: node.status().max_size,
    }
}
