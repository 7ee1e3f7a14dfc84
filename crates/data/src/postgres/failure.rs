//! Why an attempt on a node failed, and what follows from it: for the connection, for the node, for the caller.

use std::sync::Arc;

use super::node::Role;
use super::pooler;
use super::shards::FENCED;
use crate::Error;

/// The kinds of failure that are treated differently somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Cause {
    #[error("the request's deadline passed")]
    Deadline,
    #[error("no connection became free in time")]
    Exhausted,
    #[error("the node is known to be down")]
    Down,
    #[error("no replica has replayed what the request must see")]
    Behind,
    #[error("no connection could be opened")]
    Connect,
    #[error("no answer came in time")]
    Timeout,
    #[error("the server gave up on the statement")]
    Cancelled,
    #[error("the connection was lost")]
    Lost,
    #[error("the session may not write")]
    ReadOnly,
    #[error("another transaction was in the way")]
    Conflict,
    #[error("the rows are moving to another cluster")]
    Moved,
    #[error("a constraint refused the statement")]
    Constraint,
    #[error("the statement failed")]
    Statement,
    /// Like `Statement`, but where in the conversation the connection stands is unknown.
    #[error("the answer could not be read")]
    Unreadable,
}

impl Cause {
    /// The value of the `reason` label in metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Exhausted => "exhausted",
            Self::Down => "down",
            Self::Behind => "behind",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
            Self::ReadOnly => "read_only",
            Self::Conflict => "conflict",
            Self::Moved => "moved",
            Self::Constraint => "constraint",
            Self::Statement => "statement",
            Self::Unreadable => "unreadable",
        }
    }

    /// Whether the connection's state is known after this failure, so that it may be used again.
    pub(super) fn spares_the_connection(self) -> bool {
        matches!(
            self,
            Self::Cancelled | Self::Conflict | Self::Moved | Self::Constraint | Self::Statement
        )
    }

    /// Whether a statement that failed so says something about the node's health. An impatient caller does not.
    pub(super) fn blames_the_node(self) -> bool {
        matches!(self, Self::Timeout | Self::Lost)
    }

    /// Whether another node may well answer the same read.
    pub(super) fn is_worth_another_node(self) -> bool {
        match self {
            Self::Exhausted
            | Self::Down
            | Self::Behind
            | Self::Connect
            | Self::Timeout
            | Self::Cancelled
            | Self::Lost
            | Self::Conflict => true,
            Self::Deadline
            | Self::ReadOnly
            | Self::Moved
            | Self::Constraint
            | Self::Statement
            | Self::Unreadable => false,
        }
    }
}

/// One failed attempt.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) cause: Cause,
    pub(super) source: Option<sqlx::Error>,
}

impl From<Cause> for Failure {
    fn from(cause: Cause) -> Self {
        Self {
            cause,
            source: None,
        }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self {
            cause: classify(&error),
            source: Some(error),
        }
    }
}

impl Failure {
    /// The same failure as seen from the node. A primary that refuses to write was demoted, and a new connection may lead
    /// to its successor. A replica that does so was given a write: a bug, and by no means one to repeat on the primary.
    pub(super) fn on(mut self, role: Role) -> Self {
        if self.cause == Cause::ReadOnly {
            self.cause = match role {
                Role::Primary => Cause::Lost,
                Role::Replica => Cause::Statement,
            };
        }
        self
    }

    /// The same failure in the crate's terms. `dependency` names the node's role.
    pub(super) fn into_error(self, dependency: &'static str) -> Error {
        match (self.cause, self.source) {
            (Cause::Deadline, _) => Error::Deadline { dependency },
            (Cause::Constraint, Some(source)) => Error::Constraint {
                name: constraint_name(&source),
                source: Arc::new(source),
            },
            (Cause::Statement | Cause::Unreadable, Some(source)) => {
                Error::Statement(Arc::new(source))
            }
            (_, Some(source)) => Error::Unavailable {
                dependency,
                source: Some(Arc::new(source)),
            },
            (cause, None) => Error::Unavailable {
                dependency,
                source: Some(Arc::new(cause)),
            },
        }
    }
}

fn constraint_name(error: &sqlx::Error) -> String {
    let name = error
        .as_database_error()
        .and_then(|error| error.constraint());
    name.unwrap_or("unnamed").to_owned()
}

/// Whether a migration has changed the type of a prepared statement's result.
pub(super) fn is_stale_plan(failure: &Failure) -> bool {
    let error = failure
        .source
        .as_ref()
        .and_then(sqlx::Error::as_database_error);
    error.is_some_and(|error| error.code().as_deref() == Some("0A000") && is_refused_plan(error))
}

/// Sorts an error by its SQLSTATE (PostgreSQL documentation, appendix A).
fn classify(error: &sqlx::Error) -> Cause {
    let error = match error {
        sqlx::Error::Database(error) => error,
        sqlx::Error::RowNotFound => return Cause::Statement,
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) => return Cause::Lost,
        _ => return Cause::Unreadable,
    };
    match error.code().as_deref().unwrap_or_default() {
        "57014" | "55P03" => Cause::Cancelled,
        "40001" | "40P01" => Cause::Conflict,
        // The server ends the session: shutdown, crash of a neighbour, idle in transaction, no slot left.
        "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25P03" | "25P04" | "53300" => {
            Cause::Lost
        }
        // Gone from the server's session: somebody deallocated it, or a pooler has changed the session. Nothing was run.
        "26000" => Cause::Lost,
        "25006" => Cause::ReadOnly,
        FENCED => Cause::Moved,
        // A migration changed the type of a prepared statement's result; a new connection prepares it afresh.
        "0A000" if is_refused_plan(error.as_ref()) => Cause::Lost,
        code if code.starts_with("08") => Cause::Lost,
        code if code.starts_with("23") => Cause::Constraint,
        _ => Cause::Statement,
    }
}

fn is_refused_plan(error: &(dyn sqlx::error::DatabaseError + 'static)) -> bool {
    let error = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>();
    error.and_then(|error| error.routine()) == Some("RevalidateCachedQuery")
}

/// What may be shown of an error to people without access to the database: no message, as it may quote data.
pub(super) fn summary(error: &sqlx::Error) -> String {
    if let Some(unfit) = pooler::verdict(error) {
        return unfit.to_string();
    }
    match error {
        sqlx::Error::Database(error) => format!("SQLSTATE {}", error.code().unwrap_or_default()),
        sqlx::Error::Io(error) => error.kind().to_string(),
        sqlx::Error::Tls(_) => "TLS handshake failed".to_owned(),
        _ => "unexpected answer".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_is_transient_and_a_missing_row_is_not() {
        let lost = Failure::from(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()));
        let missing = Failure::from(sqlx::Error::RowNotFound);

        assert_eq!(lost.cause, Cause::Lost);
        assert!(lost.into_error("postgres-primary").is_transient());
        assert!(!missing.into_error("postgres-primary").is_transient());
    }
}
