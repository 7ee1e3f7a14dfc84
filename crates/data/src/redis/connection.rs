//! One connection with its count of failures in a row, and what each kind of failure says about it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{ErrorKind, RedisError, ServerErrorKind};

use super::NAME;
use crate::Error;

/// Answers that mean "not now" rather than "wrong command": memory full, a script running, disk or replicas gone.
const BUSY_CODES: [&str; 6] = [
    "OOM",
    "BUSY",
    "MISCONF",
    "NOREPLICAS",
    "NOAUTH",
    "WRONGPASS",
];

/// A connection in use. Failures are counted per connection, so that a late answer of an abandoned one
/// cannot harm its successor.
#[derive(Clone)]
pub(super) struct Connection {
    handle: MultiplexedConnection,
    failures_in_a_row: Arc<AtomicU32>,
}

impl Connection {
    pub(super) fn new(handle: MultiplexedConnection) -> Self {
        Self {
            handle,
            failures_in_a_row: Arc::default(),
        }
    }

    pub(super) fn handle(&self) -> MultiplexedConnection {
        self.handle.clone()
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.failures_in_a_row, &other.failures_in_a_row)
    }

    /// Ends a row of failures. Reads first, because a store on every command would bounce the cache line.
    pub(super) fn answered(&self) {
        if self.failures_in_a_row.load(Ordering::Relaxed) != 0 {
            self.failures_in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// Whether the connection is lost with this failure, the last of a row included.
    pub(super) fn is_lost_after(&self, failure: &Failure, failures_max: u32) -> bool {
        match failure {
            Failure::Answer(error) if error.is_unrecoverable_error() || is_read_only(error) => true,
            Failure::Answer(error) if !is_away(error) => {
                self.answered();
                false
            }
            Failure::Answer(_) | Failure::Silence => {
                self.failures_in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= failures_max
            }
        }
    }
}

/// Why a command has no result.
pub(super) enum Failure {
    /// Redis answered with an error, or the connection broke.
    Answer(RedisError),
    /// No answer within the command timeout.
    Silence,
}

impl Failure {
    /// A few words without addresses or secrets, for readiness and logs.
    pub(super) fn summary(&self) -> String {
        match self {
            Self::Answer(error) if error.is_connection_refusal() => "connection refused".to_owned(),
            Self::Answer(error) => error.category().to_owned(),
            Self::Silence => "no answer in time".to_owned(),
        }
    }

    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Silence => unavailable(Some(Arc::new(io::Error::from(io::ErrorKind::TimedOut)))),
            Self::Answer(error) if is_away(&error) || is_busy(&error) => {
                unavailable(Some(Arc::new(error)))
            }
            Self::Answer(error) => Error::Command(Arc::new(error)),
        }
    }
}

pub(super) fn unavailable(source: Option<Arc<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Unavailable {
        dependency: NAME,
        source,
    }
}

/// After a failover the old primary answers as a replica: only a new connection finds the new primary.
fn is_read_only(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

fn is_away(error: &RedisError) -> bool {
    error.is_io_error()
        || is_read_only(error)
        || matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown)
        )
}

fn is_busy(error: &RedisError) -> bool {
    error.code().is_some_and(|code| BUSY_CODES.contains(&code))
}
