//! What can go wrong below the handlers, said in terms of the dependency and never of the library.
//!
//! Cheap to clone, because one failed cache load is shared by everyone who waited for it.

use std::sync::Arc;

use crate::postgres::OutcomeUnknown;

/// A failure of a database or of Redis.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The dependency could not be reached, refused, or had no free connection in time.
    #[error("{dependency} is unavailable")]
    Unavailable {
        /// Which one: `postgres-primary`, `postgres-replica`, `redis`.
        dependency: &'static str,
        /// What it said, where it said something.
        #[source]
        source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    },
    /// The request's deadline passed before an answer came.
    #[error("the deadline passed while waiting for {dependency}")]
    Deadline {
        /// Which dependency was asked.
        dependency: &'static str,
    },
    /// A constraint of the schema refused the statement.
    #[error("the constraint {name} refused the statement")]
    Constraint {
        /// The constraint's name in the schema.
        name: String,
        /// What Postgres said.
        #[source]
        source: Arc<sqlx::Error>,
    },
    /// Postgres answered with an error that no caller expects: a bug.
    #[error("the statement failed")]
    Statement(#[source] Arc<sqlx::Error>),
    /// Redis answered with an error that no caller expects: a bug.
    #[error("the Redis command failed")]
    Command(#[source] Arc<deadpool_redis::redis::RedisError>),
    /// A value cannot be written as JSON or read from it, and so cannot be kept: a bug of its type.
    #[error("the value cannot be written as JSON or read from it")]
    Encoding(#[source] Arc<serde_json::Error>),
    /// Somebody else has taken over meanwhile, and nothing was changed.
    #[error("the lease was lost")]
    LeaseLost,
    /// What is kept at home was asked of a transaction on another cluster: a bug.
    #[error("the transaction is on another cluster than home")]
    NotAtHome,
}

impl Error {
    /// Whether the same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Deadline { .. } | Self::LeaseLost => true,
            Self::Constraint { .. }
            | Self::Statement(_)
            | Self::Command(_)
            | Self::Encoding(_)
            | Self::NotAtHome => false,
        }
    }

    /// Whether a transaction may have been committed although this came of it.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Unavailable { source: Some(source), .. } if source.is::<OutcomeUnknown>())
    }

    /// The constraint that refused the statement, to be mapped where the SQL stands.
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Constraint { name, .. } => Some(name),
            Self::Unavailable { .. }
            | Self::Deadline { .. }
            | Self::Statement(_)
            | Self::Command(_)
            | Self::Encoding(_)
            | Self::LeaseLost
            | Self::NotAtHome => None,
        }
    }

    pub(crate) fn encoding(error: serde_json::Error) -> Self {
        Self::Encoding(Arc::new(error))
    }
}
