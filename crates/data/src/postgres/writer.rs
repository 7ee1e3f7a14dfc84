//! Statements on a primary, outside a transaction.

use super::clusters::Destination;
use super::db::{Reader, Writer, dependency_error};
use super::failure::{Cause, Failure};
use super::place::Place;
use super::rows::{Affected, All, Command, Exchange, First, Mark, One, Rows};
use crate::Error;

/// What may not take effect twice is sent once, as whether a lost one took effect cannot be known; again only after Postgres refused it because
/// its rows are moving to another cluster.
impl<P: Place> Writer<P> {
    /// The one row of the answer, as of `insert … returning`; no row is an error.
    pub async fn fetch_one<Q: Rows>(&self, query: impl Fn() -> Q) -> Result<Q::Row, Error> {
        self.run(|| One(query())).await
    }

    /// The first row of the answer, if there is one.
    pub async fn fetch_optional<Q: Rows>(
        &self,
        query: impl Fn() -> Q,
    ) -> Result<Option<Q::Row>, Error> {
        self.run(|| First(query())).await
    }

    /// All rows of the answer. The statement bounds their number.
    pub async fn fetch_all<Q: Rows>(&self, query: impl Fn() -> Q) -> Result<Vec<Q::Row>, Error> {
        self.run(|| All(query())).await
    }

    /// Runs a statement without an answer; the number of rows it changed.
    pub async fn execute<C: Command>(&self, statement: impl Fn() -> C) -> Result<u64, Error> {
        self.run(|| Affected(statement())).await
    }

    /// As `fetch_optional`, for what does no harm when it takes effect twice, and no later read of the client has to see.
    pub(crate) async fn fetch_optional_repeatable<Q: Rows>(
        &self,
        query: impl Fn() -> Q,
    ) -> Result<Option<Q::Row>, Error> {
        self.run_repeatable(|| First(query())).await
    }

    /// As `execute`, for what does no harm when it takes effect twice, and no later read of the client has to see.
    pub(crate) async fn execute_repeatable<C: Command>(
        &self,
        statement: impl Fn() -> C,
    ) -> Result<u64, Error> {
        self.run_repeatable(|| Affected(statement())).await
    }

    /// A reader on the primary: it sees what was just written, by anybody.
    pub fn reader(&self) -> Reader<P> {
        Reader {
            db: self.db.clone(),
            on_primary: true,
        }
    }

    async fn run<E: Exchange>(&self, exchange: impl Fn() -> E) -> Result<E::Answer, Error> {
        loop {
            let to = self.db.destination()?;
            let outcome = self.run_and_mark(to, exchange()).await;
            let is_moving = outcome.as_ref().is_err_and(|f| f.cause == Cause::Moved);
            if !is_moving || !self.db.after_move(to.map_version).await {
                let primary = &to.cluster.0.primary;
                return outcome.map_err(|failure| dependency_error(primary, failure));
            }
        }
    }

    async fn run_repeatable<E: Exchange>(
        &self,
        exchange: impl Fn() -> E,
    ) -> Result<E::Answer, Error> {
        let to = self.db.destination()?;
        let primary = &to.cluster.0.primary;
        let outcome = primary.read(exchange, self.db.limit(to.cluster)).await;
        outcome.map_err(|failure| dependency_error(primary, failure))
    }

    /// From now on the client sees all that was committed here by now, as if it had written it.
    pub(super) async fn mark(&self, to: Destination<'_>) {
        if !to.cluster.0.has_replicas() {
            return self.note_map(to);
        }
        let limit = self.db.limit(to.cluster);
        let mark = to.cluster.0.primary.read(|| Mark, limit).await;
        self.db.saw(to, mark.ok().flatten());
    }

    fn note_map(&self, to: Destination<'_>) {
        if to.map_version > 0 {
            self.db.consistency.saw(None, to.map_version);
        }
    }

    /// A statement outside a transaction commits by itself, so where that was is a second question.
    async fn run_and_mark<E: Exchange>(
        &self,
        to: Destination<'_>,
        exchange: E,
    ) -> Result<E::Answer, Failure> {
        let limit = || self.db.limit(to.cluster);
        let mut lease = to.cluster.0.primary.lease(limit()).await?;
        let answer = lease.run(exchange, limit()).await?;
        if E::has_effect(&answer) {
            if to.cluster.0.has_replicas() {
                let mark = lease.run(Mark, limit()).await;
                self.db.saw(to, mark.ok().flatten());
            } else {
                self.note_map(to);
            }
        }
        Ok(answer)
    }
}
