//! What can be run on a connection: sqlx's typed queries, and the ways to collect their rows.

use futures::TryStreamExt as _;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::query::{Map, Query, QueryAs, QueryScalar};
use sqlx::{Either, Error, Executor, FromRow, IntoArguments, Postgres, Row as _};

use super::consistency::Point;

/// A query with typed rows: what `query_as!`, `query_scalar!` and a `query!` with columns make, and their unchecked forms.
pub trait Rows: Send {
    /// One row.
    type Row: Send;

    /// Runs the query and keeps the first row, if there is one.
    fn first(
        self,
        connection: &mut PgConnection,
    ) -> impl Future<Output = Result<Option<Self::Row>, Error>> + Send;

    /// Runs the query and keeps every row.
    fn all(
        self,
        connection: &mut PgConnection,
    ) -> impl Future<Output = Result<Vec<Self::Row>, Error>> + Send;
}

/// A statement without rows: what a `query!` without columns makes.
pub trait Command: Send {
    /// Runs the statement and answers with the number of rows it changed.
    fn rows_affected(
        self,
        connection: &mut PgConnection,
    ) -> impl Future<Output = Result<u64, Error>> + Send;
}

impl<'q, F, O, A> Rows for Map<'q, Postgres, F, A>
where
    F: FnMut(PgRow) -> Result<O, Error> + Send,
    O: Send + Unpin,
    A: 'q + Send + IntoArguments<Postgres>,
{
    type Row = O;

    async fn first(self, connection: &mut PgConnection) -> Result<Option<O>, Error> {
        self.fetch_optional(connection).await
    }

    async fn all(self, connection: &mut PgConnection) -> Result<Vec<O>, Error> {
        self.fetch_all(connection).await
    }
}

impl<'q, O, A> Rows for QueryAs<'q, Postgres, O, A>
where
    O: Send + Unpin + for<'r> FromRow<'r, PgRow>,
    A: 'q + Send + IntoArguments<Postgres>,
{
    type Row = O;

    async fn first(self, connection: &mut PgConnection) -> Result<Option<O>, Error> {
        self.fetch_optional(connection).await
    }

    async fn all(self, connection: &mut PgConnection) -> Result<Vec<O>, Error> {
        self.fetch_all(connection).await
    }
}

impl<'q, O, A> Rows for QueryScalar<'q, Postgres, O, A>
where
    O: Send + Unpin,
    (O,): Send + Unpin + for<'r> FromRow<'r, PgRow>,
    A: 'q + Send + IntoArguments<Postgres>,
{
    type Row = O;

    async fn first(self, connection: &mut PgConnection) -> Result<Option<O>, Error> {
        self.fetch_optional(connection).await
    }

    async fn all(self, connection: &mut PgConnection) -> Result<Vec<O>, Error> {
        self.fetch_all(connection).await
    }
}

impl<'q, A> Command for Query<'q, Postgres, A>
where
    A: 'q + Send + IntoArguments<Postgres>,
{
    async fn rows_affected(self, connection: &mut PgConnection) -> Result<u64, Error> {
        Ok(self.execute(connection).await?.rows_affected())
    }
}

/// One exchange with the server: a query together with what is wanted of its answer.
pub(super) trait Exchange: Send {
    type Answer: Send;

    fn run(
        self,
        connection: &mut PgConnection,
    ) -> impl Future<Output = Result<Self::Answer, Error>> + Send;

    /// Whether a statement that answered so may have changed anything.
    fn has_effect(_: &Self::Answer) -> bool {
        true
    }
}

/// Exactly one row is wanted; none is an error.
pub(super) struct One<Q>(pub(super) Q);
/// The first row is wanted, if there is one.
pub(super) struct First<Q>(pub(super) Q);
/// Every row is wanted.
pub(super) struct All<Q>(pub(super) Q);
/// The number of changed rows is wanted.
pub(super) struct Affected<Q>(pub(super) Q);
/// Plain text without parameters, such as `begin`.
pub(super) struct Plain(pub(super) &'static str);
/// The point of the log behind all that was committed so far is wanted.
pub(super) struct Mark;
/// A commit, and in the same round trip the point behind it. None when it was committed and the point is not known.
pub(super) struct CommitAndMark;

/// Of the log's three ends the foremost, which lies behind the commit even with `synchronous_commit` off. Asked after the
/// commit: before, it may be a point inside the commit's own record.
macro_rules! mark {
    () => {
        "select (pg_current_wal_insert_lsn() - '0/0')::int8, left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)"
    };
}

impl<Q: Rows> Exchange for One<Q> {
    type Answer = Q::Row;

    async fn run(self, connection: &mut PgConnection) -> Result<Q::Row, Error> {
        self.0.first(connection).await?.ok_or(Error::RowNotFound)
    }
}

impl<Q: Rows> Exchange for First<Q> {
    type Answer = Option<Q::Row>;

    async fn run(self, connection: &mut PgConnection) -> Result<Option<Q::Row>, Error> {
        self.0.first(connection).await
    }

    fn has_effect(row: &Option<Q::Row>) -> bool {
        row.is_some()
    }
}

impl<Q: Rows> Exchange for All<Q> {
    type Answer = Vec<Q::Row>;

    async fn run(self, connection: &mut PgConnection) -> Result<Vec<Q::Row>, Error> {
        self.0.all(connection).await
    }

    fn has_effect(rows: &Vec<Q::Row>) -> bool {
        !rows.is_empty()
    }
}

impl<Q: Command> Exchange for Affected<Q> {
    type Answer = u64;

    async fn run(self, connection: &mut PgConnection) -> Result<u64, Error> {
        self.0.rows_affected(connection).await
    }

    fn has_effect(rows_affected: &u64) -> bool {
        *rows_affected > 0
    }
}

impl Exchange for Plain {
    type Answer = ();

    async fn run(self, connection: &mut PgConnection) -> Result<(), Error> {
        connection.execute(self.0).await.map(|_| ())
    }
}

impl Exchange for Mark {
    type Answer = Option<Point>;

    async fn run(self, connection: &mut PgConnection) -> Result<Option<Point>, Error> {
        let row = sqlx::query(mark!()).fetch_one(connection).await?;
        Ok(point(&row))
    }
}

impl Exchange for CommitAndMark {
    type Answer = Option<Point>;

    async fn run(self, connection: &mut PgConnection) -> Result<Option<Point>, Error> {
        let mut answers = sqlx::raw_sql(concat!("commit; ", mark!())).fetch_many(connection);
        answers.try_next().await?;
        // From here on it is committed, whatever becomes of the rest.
        let mut mark = None;
        while let Ok(Some(answer)) = answers.try_next().await {
            if let Either::Right(row) = answer {
                mark = point(&row);
            }
        }
        Ok(mark)
    }
}

/// A segment's name begins with its timeline in hexadecimal.
fn point(row: &PgRow) -> Option<Point> {
    let (lsn, timeline) = (row.try_get::<i64, _>(0), row.try_get::<&str, _>(1));
    Some(Point {
        timeline: u32::from_str_radix(timeline.ok()?, 16).ok()?,
        lsn: lsn.ok()?.cast_unsigned(),
    })
}
