//! A transaction pooler before the servers, such as PgBouncer: whether it can work at all, and whether the role brings the
//! limits that a session of our own would ask for. Looked at each time the background check opens a connection, and never
//! for a request.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, Error, Executor as _, Row as _};

use super::config::Config;

/// What sqlx calls its prepared statements. A pooler that keeps them gives them names of its own on the server.
const OUR_NAMES: &str = "sqlx\\_s\\_%";

/// How PgBouncer begins to refuse a startup parameter. Postgres has other words for one that it does not know.
const REFUSES_PARAMETERS: &str = "unsupported startup parameter";
/// How it begins to refuse a transaction.
const REFUSES_TRANSACTIONS: &str = "transaction blocks not allowed";

/// How often the server looks whether the client of a running statement is still there: the pooler closes the server's
/// connection when ours ends.
const CLIENT_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Why nothing can be asked of a node the way it is reached. An operator's mistake: waiting does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// A session's settings were sent along, and refused.
    #[error(
        "a pooler here refuses startup parameters: set postgres.pooled = true, and no `options` in the URL"
    )]
    RefusesParameters,
    /// They were accepted and dropped.
    #[error(
        "a pooler here drops startup parameters, and with them the limits of sessions: set postgres.pooled = true"
    )]
    DropsParameters,
    /// A connection holds a server for the length of one statement.
    #[error(
        "the pooler here refuses transactions: it needs pool_mode = transaction, not statement"
    )]
    RefusesTransactions,
    /// A named statement is lost with the server connection, or found on it where another client left it.
    #[error(
        "the pooler here loses prepared statements: it needs PgBouncer 1.21 or newer with max_prepared_statements above 0"
    )]
    LosesStatements,
}

impl From<Unfit> for Error {
    fn from(unfit: Unfit) -> Self {
        Self::Configuration(Box::new(unfit))
    }
}

/// The verdict in an error, if it is one.
pub(crate) fn verdict(error: &Error) -> Option<Unfit> {
    match error {
        Error::Configuration(error) => error.downcast_ref().copied(),
        _ => None,
    }
}

/// Opens a connection. A refusal that only a pooler speaks becomes the verdict on it.
pub(crate) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Error> {
    // A login is a hundred kilobytes of state, which every future around it would carry along.
    let outcome = Box::pin(PgConnection::connect_with(options)).await;
    outcome.map_err(|error| refused(error, REFUSES_PARAMETERS, Unfit::RefusesParameters))
}

/// PgBouncer has one SQLSTATE for all it has to say, be it that the server is down, so its words have to tell.
fn refused(error: Error, words: &str, unfit: Unfit) -> Error {
    match error.as_database_error() {
        Some(refusal) if refusal.message().starts_with(words) => unfit.into(),
        _ => error,
    }
}

/// Opens a connection and, where a pooler is expected, looks at it. Answers with the limits that the role lacks, too.
pub(super) async fn open_and_probe(
    options: &PgConnectOptions,
    config: &Config,
) -> Result<(PgConnection, Vec<Missing>), Error> {
    let mut connection = connect(options).await?;
    if config.pooled {
        let missing = probe(&mut connection, options, config).await?;
        return Ok((connection, missing));
    }
    // They were asked for a moment ago.
    if !missing_limits(&mut connection, config).await?.is_empty() {
        return Err(Unfit::DropsParameters.into());
    }
    Ok((connection, Vec::new()))
}

async fn probe(
    connection: &mut PgConnection,
    options: &PgConnectOptions,
    config: &Config,
) -> Result<Vec<Missing>, Error> {
    let begun = connection.execute("begin").await;
    begun.map_err(|error| refused(error, REFUSES_TRANSACTIONS, Unfit::RefusesTransactions))?;
    // Like no other, so that what is found under it is this connection's and not what another client left behind.
    let mark = format!("{:016x}", fastrand::u64(..));
    let (is_passed_through, server) = named_statement(connection, &mark).await?;
    let missing = missing_limits(connection, config).await?;
    connection.execute("rollback").await?;
    if is_passed_through {
        expect_session(connection, options, &mark, server).await?;
    }
    Ok(missing)
}

/// Whether a prepared statement has the same name on the server as here, and the server's process.
async fn named_statement(connection: &mut PgConnection, mark: &str) -> Result<(bool, i32), Error> {
    let sql = format!(
        "select bool_or(name like '{OUR_NAMES}'), pg_backend_pid() from pg_prepared_statements where statement like '%{mark}%'"
    );
    let found = sqlx::query_as(AssertSqlSafe(sql)).fetch_one(connection);
    let (is_passed_through, server): (Option<bool>, i32) = found.await.map_err(lost_statement)?;
    Ok((is_passed_through.unwrap_or(true), server))
}

/// Names that are passed through do no harm where this connection keeps its server: in session mode, or without a pooler.
/// That is so unless another client can take the server away.
async fn expect_session(
    connection: &mut PgConnection,
    options: &PgConnectOptions,
    mark: &str,
    server: i32,
) -> Result<(), Error> {
    let mut other = connect(options).await?;
    other.execute("begin").await?;
    // Without a name, for that of a statement might be found there already.
    let taken = sqlx::raw_sql("select pg_backend_pid()")
        .fetch_one(&mut other)
        .await?;
    if taken.try_get::<i32, _>(0)? == server {
        return Err(Unfit::LosesStatements.into());
    }
    // The other still holds the server it was given, so this one may be given a third.
    let (_, now) = named_statement(connection, mark).await?;
    if now != server {
        return Err(Unfit::LosesStatements.into());
    }
    Ok(())
}

/// SQLSTATE 26000 and 42P05 (PostgreSQL documentation, appendix A): no such statement, or one of that name already.
fn lost_statement(error: Error) -> Error {
    let code = error.as_database_error().and_then(|error| error.code());
    match code.as_deref() {
        Some("26000" | "42P05") => Unfit::LosesStatements.into(),
        _ => error,
    }
}

/// A limit that every session needs and that this role's sessions do not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// The parameter's name in Postgres.
    parameter: &'static str,
    /// The statement that sets it.
    remedy: String,
}

/// What the sessions of one's own ask for in the startup message, and behind a pooler the role must bring: each session
/// parameter with its value.
pub(super) fn limits(config: &Config) -> [(&'static str, Duration); 4] {
    [
        ("statement_timeout", config.statement_timeout),
        ("lock_timeout", config.lock_timeout),
        (
            "idle_in_transaction_session_timeout",
            config.idle_in_transaction_timeout,
        ),
        ("client_connection_check_interval", CLIENT_CHECK_INTERVAL),
    ]
}

/// The limits that are off or above ours. All of them are durations, and off at 0. Not read from `pg_settings`,
/// which lists some 350 of them to find four.
async fn missing_limits(
    connection: &mut PgConnection,
    config: &Config,
) -> Result<Vec<Missing>, Error> {
    let limits = limits(config);
    let names = limits.map(|(name, _)| name);
    let effective: Vec<(String, i64, String)> = sqlx::query_as(
        "select name, (extract(epoch from current_setting(name)::interval) * 1000)::int8, quote_ident(current_user)
         from unnest($1::text[]) as name",
    )
    .bind(names.as_slice())
    .fetch_all(connection)
    .await
    .map_err(lost_statement)?;
    let missing = |(name, limit): &(&'static str, Duration)| {
        let (_, setting, role) = effective.iter().find(|(found, ..)| found == name)?;
        let ms = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        (*setting == 0 || *setting > ms).then(|| Missing {
            parameter: name,
            remedy: format!("alter role {role} set {name} = '{ms}ms'"),
        })
    };
    Ok(limits.iter().filter_map(missing).collect())
}

/// What the looks at one node have shown. Each finding is logged once.
#[derive(Debug, Default)]
pub(super) struct Standing(Mutex<Findings>);

#[derive(Debug, Default)]
struct Findings {
    unfit: Option<Unfit>,
    missing: Vec<Missing>,
}

impl Standing {
    /// Refuses to open a connection for a request where some requests would fail on it and others not.
    pub(super) fn expect_fit(&self) -> Result<(), Unfit> {
        self.findings().unfit.map_or(Ok(()), Err)
    }

    /// Notes what a look at `node` has shown. True when it has become unfit just now.
    pub(super) fn note(&self, node: &str, found: Result<&[Missing], &Error>) -> bool {
        let unfit = match found {
            Ok(_) => None,
            Err(error) => match verdict(error) {
                Some(unfit) => Some(unfit),
                // Any other failure says nothing about the pooler.
                None => return false,
            },
        };
        let mut findings = self.findings();
        if let Ok(missing) = found
            && findings.missing != missing
        {
            findings.missing = missing.to_vec();
            warn_of(node, missing);
        }
        if findings.unfit == unfit {
            return false;
        }
        findings.unfit = unfit;
        match unfit {
            Some(reason) => {
                tracing::error!(node, %reason, "Postgres cannot be used the way it is reached")
            }
            None => tracing::info!(node, "Postgres can be used the way it is reached"),
        }
        unfit.is_some()
    }

    fn findings(&self) -> MutexGuard<'_, Findings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn warn_of(node: &str, missing: &[Missing]) {
    if missing.is_empty() {
        return;
    }
    let parameters: Vec<_> = missing.iter().map(|missing| missing.parameter).collect();
    let remedies: Vec<_> = missing.iter().map(|missing| &*missing.remedy).collect();
    tracing::warn!(
        node,
        parameters = parameters.join(", "),
        remedy = remedies.join("; "),
        "behind the pooler the role's sessions lack limits: run the remedy, then RECONNECT in the pooler"
    );
}
