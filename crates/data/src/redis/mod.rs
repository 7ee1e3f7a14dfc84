//! One shared, multiplexed connection to Redis, for everything that does not need a connection of its own.
//!
//! While Redis is away callers are refused at once: nothing queues for a connection, and no caller connects.
//! One task, `Redis::watch`, connects, checks and replaces the connection; without it Redis stays away.
//! A breaker leaves it alone while it is there but fails or is slow, and a bulkhead bounds what is under way.
//!
//! It speaks RESP3, in which the server may send on its own, so what other processes publish comes over the same
//! connection: one thing to connect, to check and to lose, and a message keeps its place among the answers. A connection
//! for subscriptions alone would need checks of its own to notice that its peer fell silent.

mod config;
mod connection;
mod metrics;
mod push;
mod watch;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{
    Client, Cmd, ConnectionInfo, FromRedisValue, IntoConnectionInfo, ProtocolVersion, RedisResult,
    ScriptInvocation,
};
use prometheus_client::registry::Registry;
use resilience::breaker::{Permit, State};
use resilience::{Breaker, Bulkhead};
use secrecy::ExposeSecret;
use tokio::time::{Instant, timeout_at};

pub use self::config::Config;
use self::connection::{Connection, Failure, Verdict};
use self::metrics::{Metrics, Outcome};
pub(crate) use self::push::Listener;
use self::push::Subscription;
use crate::{Error, breakers};

/// The name of this dependency in errors, metrics and readiness.
pub const NAME: &str = "redis";

/// `redis.url` is not the URL of a Redis. The URL itself is left out, because it may hold a password.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("redis.url must be a URL that starts with redis:// or rediss://")]
pub struct InvalidUrl;

/// What readiness says about Redis.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whether commands are let through, and not only one to see how it is.
    pub healthy: bool,
    /// Time since the last check ended; `None` before the first one.
    pub age: Option<Duration>,
    /// What the last failed check or command met, without addresses or secrets; `None` while healthy.
    pub error: Option<String>,
}

/// The handle on the shared connection. A clone is cheap and means the same connection.
#[derive(Clone)]
pub struct Redis(Arc<Shared>);

struct Shared {
    client: Client,
    config: Config,
    /// The connection in use; `None` closes the gate for callers and wakes the watch task.
    connection: tokio::sync::watch::Sender<Option<Connection>>,
    breaker: Breaker,
    bulkhead: Bulkhead,
    /// Who hears which channel, on this connection and on each that replaces it.
    listeners: tokio::sync::watch::Sender<Vec<Subscription>>,
    last_check: Mutex<LastCheck>,
    metrics: Metrics,
}

#[derive(Default)]
struct LastCheck {
    at: Option<Instant>,
    error: Option<String>,
}

impl Redis {
    /// Does no I/O, so it works with Redis down. The first connection is made by [`Redis::watch`].
    ///
    /// # Errors
    /// [`InvalidUrl`], which a validated `Config` never gives.
    pub fn new(config: &Config, registry: &mut Registry) -> Result<Self, InvalidUrl> {
        let client = Client::open(connection_info(config)?).map_err(|_| InvalidUrl)?;
        Ok(Self(Arc::new(Shared {
            client,
            config: config.clone(),
            connection: tokio::sync::watch::Sender::new(None),
            breaker: Breaker::new(&config.breaker, |state| breakers::log(NAME, state)),
            bulkhead: Bulkhead::new(&config.bulkhead),
            listeners: tokio::sync::watch::Sender::new(Vec::new()),
            last_check: Mutex::default(),
            metrics: Metrics::new(registry),
        })))
    }

    /// Whether Redis is connected, at once or at the latest when `deadline` passes. For start-up and tests.
    pub async fn connected(&self, deadline: Instant) -> bool {
        let mut connection = self.0.connection.subscribe();
        let connected = connection.wait_for(Option::is_some);
        matches!(timeout_at(deadline, connected).await, Ok(Ok(_)))
    }

    /// Whether commands are let through; asks nobody.
    pub fn is_connected(&self) -> bool {
        self.0.connection.borrow().is_some() && self.0.breaker.admits()
    }

    /// The breaker before it, with its name in metrics.
    pub fn breaker(&self) -> (&'static str, &Breaker) {
        (NAME, &self.0.breaker)
    }

    /// The state as last seen; asks nobody.
    pub fn status(&self) -> Status {
        let is_closed = self.0.breaker.state() == State::Closed;
        let healthy = is_closed && self.0.connection.borrow().is_some();
        let last = self.last_check();
        let slow = || (!is_closed).then(|| "answers too late".to_owned());
        Status {
            healthy,
            age: last.at.map(|at| at.elapsed()),
            error: last.error.clone().or_else(slow),
        }
    }

    /// A key under this service's prefix: `prefix:part:part`.
    pub fn key(&self, parts: &[&str]) -> String {
        let mut key = self.0.config.key_prefix.clone();
        for part in parts {
            key.push(':');
            key.push_str(part);
        }
        key
    }

    /// Sends one command and decodes the answer. One round trip.
    ///
    /// # Errors
    /// As [`Redis::call`].
    pub async fn query<T: FromRedisValue>(
        &self,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<T, Error> {
        self.call(deadline, |mut connection| async move {
            command.query_async(&mut connection).await
        })
        .await
    }

    /// Runs a script and decodes its answer. One round trip, two the first time this server sees the script.
    ///
    /// # Errors
    /// As [`Redis::call`].
    pub(crate) async fn invoke<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
        deadline: Instant,
    ) -> Result<T, Error> {
        self.call(deadline, |mut connection| async move {
            script.invoke_async(&mut connection).await
        })
        .await
    }

    /// Runs a pipeline on the shared connection, within `command_timeout` and before `deadline`.
    /// Blocking commands do not belong here: everybody else would wait behind them.
    ///
    /// # Errors
    /// `Unavailable` when Redis is away or silent, `Deadline` when the caller's time was shorter than the
    /// command's, `Command` when Redis refused the command itself.
    pub async fn call<T, F>(
        &self,
        deadline: Instant,
        command: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let started = Instant::now();
        let (Some(connection), Ok(permit)) = (self.connection(), self.0.breaker.enter()) else {
            self.0.metrics.observe(Outcome::Refused, Duration::ZERO);
            return Err(connection::unavailable(None));
        };
        let limit = started + self.0.config.command_timeout;
        let slot = self.0.bulkhead.enter(limit.min(deadline)).await;
        let _slot = slot.map_err(|full| {
            self.0.metrics.observe(Outcome::Full, started.elapsed());
            connection::unavailable(Some(Arc::new(full)))
        })?;
        let in_flight = self.0.metrics.enter();
        let sent_at = Instant::now();
        let answer = timeout_at(limit.min(deadline), command(connection.handle())).await;
        drop(in_flight);

        let (outcome, result) = match answer {
            Ok(Ok(value)) => {
                self.answered(&connection, permit, sent_at);
                (Outcome::Ok, Ok(value))
            }
            Ok(Err(error)) => (
                Outcome::Error,
                Err(self.failed(&connection, permit, sent_at, Failure::Answer(error))),
            ),
            // Says nothing about Redis: the caller did not give it the time it may take.
            Err(_) if deadline < limit => {
                (Outcome::Timeout, Err(Error::Deadline { dependency: NAME }))
            }
            Err(_) => (
                Outcome::Timeout,
                Err(self.failed(&connection, permit, sent_at, Failure::Silence)),
            ),
        };
        self.0.metrics.observe(outcome, started.elapsed());
        result
    }

    fn connection(&self) -> Option<Connection> {
        self.0.connection.borrow().clone()
    }

    fn answered(&self, connection: &Connection, permit: Permit, sent_at: Instant) {
        let took = sent_at.elapsed();
        let verdict = match took < self.0.config.breaker.slow_after {
            true => Verdict::Answered,
            false => connection.peer().slow(sent_at),
        };
        if let Verdict::Answered = verdict {
            permit.record(true, took);
        }
    }

    /// Tells the breaker, and abandons the connection when it is lost: one that has fallen silent is not waited for.
    fn failed(
        &self,
        connection: &Connection,
        permit: Permit,
        sent_at: Instant,
        failure: Failure,
    ) -> Error {
        let took = sent_at.elapsed();
        match connection.peer().failed(&failure, sent_at) {
            Verdict::Answered => permit.record(true, took),
            Verdict::Failed => {
                permit.record(false, took);
                if self.0.breaker.state() != State::Closed {
                    self.abandon(connection.peer(), &failure);
                }
            }
            Verdict::Lost => self.abandon(connection.peer(), &failure),
            Verdict::Nothing => {}
        }
        failure.into_error()
    }
}

fn connection_info(config: &Config) -> Result<ConnectionInfo, InvalidUrl> {
    let info = config.url.expose_secret().into_connection_info();
    let info = info.map_err(|_| InvalidUrl)?;
    let settings = info.redis_settings().clone();
    Ok(info.set_redis_settings(settings.set_protocol(ProtocolVersion::RESP3)))
}
