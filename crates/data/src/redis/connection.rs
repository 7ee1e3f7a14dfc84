//! One connection, and what each kind of failure says about it and about Redis.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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

/// A connection in use.
#[derive(Clone)]
pub(super) struct Connection {
    handle: MultiplexedConnection,
    peer: Arc<Peer>,
}

/// The other side of one connection. There is one for each, so it also says which one somebody means.
#[derive(Default)]
pub(super) struct Peer {
    /// Whether it has closed the connection, which may be heard before that is in use.
    closed: AtomicBool,
    /// When a command that failed or was slow was last counted.
    counted_at: Mutex<Option<Instant>>,
}

/// What the end of a command says about Redis.
pub(super) enum Verdict {
    /// It answered.
    Answered,
    /// It failed.
    Failed,
    /// The connection is gone; how Redis is, the next one will tell.
    Lost,
    /// Nothing that another command has not said.
    Nothing,
}

impl Connection {
    pub(super) fn new(handle: MultiplexedConnection, peer: Arc<Peer>) -> Self {
        Self { handle, peer }
    }

    pub(super) fn handle(&self) -> MultiplexedConnection {
        self.handle.clone()
    }

    pub(super) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }
}

impl Peer {
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// What a slow answer to a command sent at `sent_at` says.
    pub(super) fn slow(&self, sent_at: Instant) -> Verdict {
        self.news(sent_at, Verdict::Answered)
    }

    /// What the failure of a command sent at `sent_at` says.
    pub(super) fn failed(&self, failure: &Failure, sent_at: Instant) -> Verdict {
        match failure {
            Failure::Closed => Verdict::Lost,
            Failure::Answer(error) if error.is_unrecoverable_error() || is_read_only(error) => {
                Verdict::Lost
            }
            Failure::Answer(error) if !is_away(error) => Verdict::Answered,
            Failure::Answer(_) | Failure::Silence => self.news(sent_at, Verdict::Failed),
        }
    }

    /// Commands that failed or were slow side by side, in one stall, count as one: else a short stall under load, of Redis or
    /// of this process, would be taken for an outage.
    fn news(&self, sent_at: Instant, verdict: Verdict) -> Verdict {
        // Only ever replaced as a whole.
        let mut counted_at = self
            .counted_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if counted_at.is_some_and(|counted_at| sent_at < counted_at) {
            return Verdict::Nothing;
        }
        *counted_at = Some(Instant::now());
        verdict
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
