//! One connection with its count of failures in a row, and what each kind of failure says about it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{ErrorKind, RedisError, ServerErrorKind};
use tokio::time::Instant;

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
    row: Arc<Row>,
}

/// Failures in a row. There is one per connection, so it also says which one somebody means.
#[derive(Default)]
pub(super) struct Row {
    /// Whether the other side has closed the connection, which may be heard before it is in use.
    closed: AtomicBool,
    /// Whether there are any, so that an answered command need not take the lock.
    begun: AtomicBool,
    counted: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    failures: u32,
    last_at: Option<Instant>,
}

impl Connection {
    pub(super) fn new(handle: MultiplexedConnection, row: Arc<Row>) -> Self {
        Self { handle, row }
    }

    pub(super) fn handle(&self) -> MultiplexedConnection {
        self.handle.clone()
    }

    pub(super) fn row(&self) -> &Arc<Row> {
        &self.row
    }

    /// Ends a row of failures.
    pub(super) fn answered(&self) {
        if self.row.begun.load(Ordering::Relaxed) {
            *self.counted() = Counted::default();
            self.row.begun.store(false, Ordering::Relaxed);
        }
    }

    /// Whether the connection is lost with this failure of a command sent at `sent_at`.
    pub(super) fn is_lost_after(
        &self,
        failure: &Failure,
        sent_at: Instant,
        failures_max: u32,
    ) -> bool {
        match failure {
            Failure::Closed => true,
            Failure::Answer(error) if error.is_unrecoverable_error() || is_read_only(error) => true,
            Failure::Answer(error) if !is_away(error) => {
                self.answered();
                false
            }
            Failure::Answer(_) | Failure::Silence => self.count(sent_at) >= failures_max,
        }
    }

    /// Commands that failed side by side, in one stall, count as one: else a short stall under load, of Redis
    /// or of this process, would be taken for an outage.
    fn count(&self, sent_at: Instant) -> u32 {
        let mut counted = self.counted();
        if counted.last_at.is_none_or(|last_at| sent_at >= last_at) {
            counted.failures += 1;
            counted.last_at = Some(Instant::now());
            self.row.begun.store(true, Ordering::Relaxed);
        }
        counted.failures
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        // Two plain fields: there is no half-way state for a panic to leave.
        self.row
            .counted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Row {
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

/// Why a command has no result.
pub(super) enum Failure {
    /// The other side closed the connection while nothing was asked, or before it answered.
    Closed,
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
            Self::Closed => "connection closed".to_owned(),
            Self::Silence => "no answer in time".to_owned(),
        }
    }

    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Closed => unavailable(None),
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
