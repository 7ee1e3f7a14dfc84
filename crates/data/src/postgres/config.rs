//! Settings of the Postgres cluster, with the built-in defaults.

use std::str::FromStr;
use std::time::Duration;

use garde::Validate;
use resilience::breaker;
use resilience::ranges::between;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use sqlx::postgres::PgConnectOptions;

/// Where the Postgres nodes are and how long and how much may be asked of them.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// URL of the primary, which takes every write.
    #[serde(serialize_with = "masked")]
    #[garde(custom(is_postgres_url))]
    pub primary_url: SecretString,
    /// URLs of the streaming replicas, which take the reads. None: the primary takes them.
    #[serde(serialize_with = "masked_list")]
    #[garde(length(max = 16), inner(custom(is_postgres_url)))]
    pub replica_urls: Vec<SecretString>,
    /// Whether these URLs lead to a pooler in transaction mode, such as PgBouncer. The limits of a session
    /// (`statement_timeout`, `lock_timeout`, `idle_in_transaction_timeout`) must then be set on the role: a pooler takes
    /// none along. The background check looks whether they are, and logs the statement that sets what is missing.
    #[garde(skip)]
    pub pooled: bool,
    /// URL of the primary without a pooler between, for what needs a session of its own, such as migrations. Needed where
    /// `pooled` is true; otherwise `primary_url` serves.
    #[serde(serialize_with = "masked_option")]
    #[garde(inner(custom(is_postgres_url)))]
    pub direct_url: Option<SecretString>,
    /// Connections this process opens to the primary at most.
    #[garde(range(min = 1, max = 1000))]
    pub primary_connections_max: usize,
    /// Connections this process opens to each replica at most.
    #[garde(range(min = 1, max = 1000))]
    pub replica_connections_max: usize,
    /// How many reads may use the primary at once in the place of a replica, so that a dead replica leaves it room to write.
    #[garde(range(min = 1, max = 1000))]
    pub fallback_reads_max: usize,
    /// How many of these may be of requests that may fail (below critical), so that the others find a place at once.
    #[garde(range(min = 1, max = 1000))]
    pub fallback_expendable_max: usize,
    /// How long a request waits for a free connection.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(MILLISECOND, MINUTE)))]
    pub acquire_timeout: Duration,
    /// How long opening a connection may take, authentication included.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(MILLISECOND, MINUTE)))]
    pub connect_timeout: Duration,
    /// How long a replica may take for one read, waiting for a connection included, before the primary is asked.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(MILLISECOND, MINUTE)))]
    pub replica_timeout: Duration,
    /// How long one statement on the primary may take, waiting for a connection included. Also the server's own limit
    /// (`statement_timeout`) on every node, for the case that it never learns that we gave up.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(MILLISECOND, HOUR)))]
    pub statement_timeout: Duration,
    /// How long a statement may wait for a lock (`lock_timeout` in the server).
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(MILLISECOND, HOUR)))]
    pub lock_timeout: Duration,
    /// How long a transaction may sit between two statements before the server ends it
    /// (`idle_in_transaction_session_timeout`).
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(MILLISECOND, HOUR)))]
    pub idle_in_transaction_timeout: Duration,
    /// How long an unused connection is kept. Below what firewalls on the way tolerate.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(SECOND, DAY)))]
    pub idle_timeout: Duration,
    /// How old a connection grows; up to a fifth less, at random, so that they do not all end at once.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(SECOND, DAY)))]
    pub lifetime_max: Duration,
    /// How many prepared statements each connection keeps.
    #[garde(range(min = 1, max = 10_000))]
    pub statement_cache_max: usize,
    /// How often the background check looks at each node.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(10), MINUTE)))]
    pub check_interval: Duration,
    /// How long one background check may take.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(10), MINUTE)))]
    pub check_timeout: Duration,
    /// How far a replica may be behind the primary and still take reads.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(100), HOUR)))]
    pub lag_max: Duration,
    /// The same in bytes of the write-ahead log. Sees a replica fall behind before time has passed.
    #[garde(range(min = 65_536))]
    pub lag_bytes_max: u64,
    /// When a node is not asked any more. One for each; being slow counts for replicas only, and while there is no primary
    /// none is spared.
    #[garde(dive)]
    pub breaker: breaker::Config,
    /// When all connections of a pool are in use and for so long none came back, they are taken for lost and the pool
    /// is replaced. Longer than any request may take.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(SECOND, HOUR)))]
    pub stuck_after: Duration,
    /// Keys that sign consistency tokens, each of 32 characters or more: the first signs, all are accepted. The same in every process.
    /// None: a random key, and so tokens that no other process accepts.
    #[serde(serialize_with = "masked_list")]
    #[garde(length(max = 4), inner(custom(is_long_enough)))]
    pub token_keys: Vec<SecretString>,
    /// How long a consistency token holds. Longer than `lag_max`: every replica has caught up by then, or takes no reads.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(SECOND, HOUR)))]
    pub token_ttl: Duration,
    /// How long a read with a consistency token waits for a replica to catch up before it goes to the primary.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::ZERO, SECOND)))]
    pub token_wait: Duration,
}

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

impl Default for Config {
    fn default() -> Self {
        Self {
            primary_url: SecretString::from("postgres://holdfast:holdfast@127.0.0.1:5432/holdfast"),
            replica_urls: Vec::new(),
            pooled: false,
            direct_url: None,
            primary_connections_max: 16,
            replica_connections_max: 16,
            fallback_reads_max: 12,
            fallback_expendable_max: 8,
            acquire_timeout: Duration::from_millis(250),
            connect_timeout: Duration::from_millis(500),
            replica_timeout: Duration::from_millis(200),
            statement_timeout: SECOND,
            lock_timeout: Duration::from_millis(800),
            idle_in_transaction_timeout: Duration::from_secs(5),
            idle_timeout: 5 * MINUTE,
            lifetime_max: 30 * MINUTE,
            statement_cache_max: 256,
            check_interval: Duration::from_millis(500),
            check_timeout: Duration::from_millis(500),
            lag_max: SECOND,
            lag_bytes_max: 64 * 1024 * 1024,
            breaker: breaker::Config {
                // One may be a hiccup, and waiting for more makes requests wait.
                failures_in_row: 3,
                slow_after: Duration::from_millis(150),
                ..breaker::Config::default()
            },
            stuck_after: Duration::from_secs(30),
            token_keys: Vec::new(),
            token_ttl: Duration::from_secs(30),
            token_wait: Duration::from_millis(10),
        }
    }
}

impl Config {
    /// The URL of the primary for what needs a session of its own.
    pub fn direct_url(&self) -> &SecretString {
        self.direct_url.as_ref().unwrap_or(&self.primary_url)
    }
}

/// Reads a connection URL. The parser's complaint is dropped: it may quote the part with the password.
pub(crate) fn parse(url: &SecretString) -> Option<PgConnectOptions> {
    let url = url.expose_secret();
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return None;
    }
    PgConnectOptions::from_str(url).ok()
}

pub(super) fn is_postgres_url(url: &SecretString, _: &()) -> garde::Result {
    match parse(url) {
        Some(_) => Ok(()),
        None => Err(garde::Error::new(
            "must be a URL like postgres://user:password@host:5432/database",
        )),
    }
}

fn is_long_enough(key: &SecretString, _: &()) -> garde::Result {
    if key.expose_secret().len() >= 32 {
        return Ok(());
    }
    Err(garde::Error::new("must have 32 characters or more"))
}

pub(super) fn masked<S: Serializer>(_: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("********")
}

pub(super) fn masked_list<S: Serializer>(
    secrets: &[SecretString],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(secrets.iter().map(|_| "********"))
}

/// Whether there is a value, and not which.
pub(super) fn masked_option<S: Serializer>(
    secret: &Option<SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) => masked(secret, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_allowed() {
        Config::default().validate().unwrap();
    }

    #[test]
    fn a_refused_value_is_named_with_what_is_allowed() {
        let config = Config {
            replica_urls: vec![SecretString::from("mysql://user:hunter2@host/db")],
            acquire_timeout: Duration::ZERO,
            ..Config::default()
        };

        let report = config.validate().unwrap_err().to_string();

        assert!(
            report.contains("acquire_timeout: must be from 1ms to 60s"),
            "{report}"
        );
        assert!(
            report.contains("replica_urls[0]: must be a URL like postgres://"),
            "{report}"
        );
        assert!(!report.contains("hunter2"), "{report}");
    }

    #[test]
    fn secrets_appear_neither_in_debug_nor_in_serialized_form() {
        let config = Config {
            replica_urls: vec![SecretString::from("postgres://user:hunter2@host/db")],
            primary_url: SecretString::from("postgres://user:hunter2@host/db"),
            direct_url: Some(SecretString::from("postgres://user:hunter2@host/db")),
            ..Config::default()
        };

        let shown = format!("{config:?} {}", serde_json::to_string(&config).unwrap());

        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
