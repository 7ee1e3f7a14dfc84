//! A connection in someone's hands. Whatever happens to its holder, it goes back to the pool only in a known, clean state.

use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::Object;
use resilience::breaker::Permit;
use tokio::time::Instant;

use super::consistency::Point;
use super::failure::{Cause, Failure, is_stale_plan};
use super::limit::Limit;
use super::node::Node;
use super::pool::Opener;
use super::rows::{CommitAndMark, Exchange, Plain};

/// Where the conversation with the server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between statements, outside a transaction.
    Clean,
    /// Between statements, inside a transaction: locks may be held.
    Transaction,
    /// A statement was sent and its answer has not been read.
    Busy,
    /// The last statement left the connection unusable.
    Broken(Cause),
}

/// The guard of a checked-out connection. Dropped in any state but `Clean`, it closes the connection instead of returning it;
/// the pool's permit comes back in both cases, at once and without I/O.
#[derive(Debug)]
pub(super) struct Lease {
    /// Empty only while dropping.
    connection: Option<Object<Opener>>,
    /// The right to ask the node; each statement after the first asks for one itself.
    permit: Option<Permit>,
    node: Arc<Node>,
    state: State,
}

impl Lease {
    pub(super) fn new(connection: Object<Opener>, permit: Permit, node: Arc<Node>) -> Self {
        Self {
            connection: Some(connection),
            permit: Some(permit),
            node,
            state: State::Clean,
        }
    }

    /// Whether the connection was used before, and so may have died unnoticed since.
    pub(super) fn is_reused(&self) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|connection| Object::metrics(connection).recycled.is_some())
    }

    /// Whether a transaction is open and nothing is under way in it.
    pub(super) fn is_in_transaction(&self) -> bool {
        self.state == State::Transaction
    }

    /// Sends one statement and reads its answer.
    pub(super) async fn run<E: Exchange>(
        &mut self,
        exchange: E,
        limit: Limit,
    ) -> Result<E::Answer, Failure> {
        limit.remaining()?;
        let before = std::mem::replace(&mut self.state, State::Busy);
        // A transaction that is under way goes on, whatever has become of the node in the meantime.
        let permit = self.permit.take().or_else(|| self.node.health.enter());
        let Some(connection) = self.connection.as_mut() else {
            return Err(Cause::Lost.into());
        };
        let started = Instant::now();
        let answer = limit
            .bound(async { Ok(exchange.run(&mut connection.inner).await?) })
            .await
            .map_err(|failure| failure.on(self.node.role));
        let took = started.elapsed();
        self.node.metrics.statement.observe(took.as_secs_f64());
        if let Some(permit) = permit {
            self.judge(permit, answer.as_ref().err(), took);
        }
        match &answer {
            Ok(_) => self.state = before,
            Err(failure) if failure.cause.spares_the_connection() => self.state = before,
            Err(failure) => {
                if is_stale_plan(failure) {
                    self.leave_in_transaction(limit).await;
                }
                self.break_with(failure.cause);
            }
        }
        answer
    }

    /// Opens a transaction. From here on only `commit` and `roll_back` make the connection reusable.
    pub(super) async fn begin(&mut self, limit: Limit) -> Result<(), Failure> {
        self.run(Plain("begin"), limit).await?;
        self.state = State::Transaction;
        Ok(())
    }

    /// Commits, and asks where in the log that was. A refusal by the server ends the transaction too.
    pub(super) async fn commit(&mut self, limit: Limit) -> Result<Option<Point>, Failure> {
        self.end(CommitAndMark, limit).await
    }

    /// Rolls back.
    pub(super) async fn roll_back(&mut self, limit: Limit) -> Result<(), Failure> {
        self.end(Plain("rollback"), limit).await
    }

    async fn end<E: Exchange>(&mut self, exchange: E, limit: Limit) -> Result<E::Answer, Failure> {
        let outcome = self.run(exchange, limit).await;
        if self.state == State::Transaction
            && outcome.as_ref().err().is_none_or(|f| f.source.is_some())
        {
            self.state = State::Clean;
        }
        outcome
    }

    /// A new connection makes a stale plan anew, but a pooler keeps it with the server's connection for all its clients. It
    /// closes one that was left in a transaction.
    async fn leave_in_transaction(&mut self, limit: Limit) {
        if let Some(connection) = self.connection.as_mut() {
            let begin = async { Ok(Plain("begin").run(&mut connection.inner).await?) };
            // Without success the plan fails once more, no worse than before.
            let _: Result<(), Failure> = limit.bound(begin).await;
        }
    }

    fn break_with(&mut self, cause: Cause) {
        self.state = State::Broken(cause);
        if cause == Cause::Lost
            && let Some(connection) = &self.connection
        {
            self.node.retire(connection);
        }
    }

    /// Tells the breaker what the end of a statement says about the node.
    fn judge(&self, permit: Permit, failure: Option<&Failure>, took: Duration) {
        let Some(failure) = failure else {
            return permit.record(true, took);
        };
        // A pooled connection may have died long ago; only a new one tells how the node is now.
        let is_old_news = failure.cause == Cause::Lost && self.is_reused();
        if failure.cause.blames_the_node() && !is_old_news {
            permit.record(false, took);
        }
    }

    /// Why the connection must not be used again, if it must not.
    fn eviction(&self) -> Option<&'static str> {
        match self.state {
            State::Clean => {
                let is_retired = self
                    .connection
                    .as_ref()
                    .is_some_and(|connection| !self.node.is_current(connection));
                is_retired.then_some("retired")
            }
            State::Transaction => Some("transaction"),
            State::Busy => Some("abandoned"),
            State::Broken(cause) => Some(cause.label()),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.node.returned();
        let Some(reason) = self.eviction() else {
            return;
        };
        if let Some(connection) = self.connection.take() {
            // Closes the socket; the server notices within client_connection_check_interval.
            drop(Object::take(connection));
            self.node.metrics.evicted(reason);
        }
    }
}
