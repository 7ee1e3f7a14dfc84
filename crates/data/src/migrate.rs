//! The schema's migrations, built into the binary. Forward only; each runs in a transaction of its own together with its
//! entry in `_sqlx_migrations`, so that a crash leaves either all of it or nothing, unless it begins with `-- no-transaction`.

use std::sync::LazyLock;
use std::time::Duration;

use resilience::ranges::between;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sqlx::Connection as _;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::time::{Instant, sleep, timeout};

use crate::postgres::{self, Unfit};

/// The advisory lock of migrators: any number, the same in every release.
const TURN: i64 = 0x686f_6c64_6661_7374;

/// How often a migrator looks whether it is its turn.
const TURN_POLL: Duration = Duration::from_millis(50);

/// Every migration, in order.
pub static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!("../../migrations");
    // After a rollback of the service an older binary meets a newer schema, and has nothing to do.
    migrator.set_ignore_missing(true);
    migrator
});

/// How patient the migrator is.
#[derive(Clone, Debug, Serialize, Deserialize, garde::Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a migration may wait for a lock. Everything that comes after it in the lock's queue waits as long.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(10), Duration::from_secs(60))))]
    pub lock_timeout: Duration,
    /// How often the migrations are begun when a lock is not to be had, including the lock of another migrator.
    #[garde(range(min = 1, max = 1000))]
    pub attempts_max: u32,
    /// How long opening the connection may take.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(10), Duration::from_secs(60))))]
    pub connect_timeout: Duration,
    /// How long one attempt may take with all its migrations.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_secs(1), Duration::from_secs(86_400))))]
    pub timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lock_timeout: Duration::from_secs(5),
            attempts_max: 12,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(600),
        }
    }
}

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL cannot be read.
    #[error("the URL for migrations is not the URL of a Postgres database")]
    InvalidUrl,
    /// The URL leads to a pooler, which has no session to hold the lock of migrators.
    #[error(
        "the URL for migrations leads to a pooler: set postgres.direct_url to the primary itself"
    )]
    Pooled,
    /// The server cannot be reached.
    #[error("the database for migrations cannot be reached")]
    Connect(#[source] Option<sqlx::Error>),
    /// Someone held a lock all the time.
    #[error("a lock that the migrations need was not to be had in {attempts} attempts")]
    Locked {
        /// How often it was tried.
        attempts: u32,
    },
    /// The whole took too long.
    #[error("the migrations took longer than {0:?}")]
    Timeout(Duration),
    /// A migration is wrong or was changed after it had been applied.
    #[error("a migration failed")]
    Failed(#[source] MigrateError),
}

/// The version that this binary's statements are written for: the newest migration's.
pub fn expected() -> i64 {
    MIGRATOR
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0)
}

/// Applies what is missing, on a connection of its own that must reach the primary without a transaction pooler between.
/// Of several that run at once, one applies and the others find it done.
///
/// # Errors
/// When the server cannot be reached, a lock is not to be had, time is up or a migration is wrong. What was applied before
/// stays; running it again goes on from there.
pub async fn run(url: &SecretString, config: &Config) -> Result<(), Error> {
    let options = postgres::parse(url).ok_or(Error::InvalidUrl)?;
    let options = options.application_name("holdfast-migrate").options([
        (
            "lock_timeout",
            format!("{}ms", config.lock_timeout.as_millis()),
        ),
        // The role's default is meant for requests. A large table takes its time.
        ("statement_timeout", "0".to_owned()),
    ]);
    for attempt in 1..=config.attempts_max {
        match timeout(config.timeout, run_once(&options, config)).await {
            Err(_) => return Err(Error::Timeout(config.timeout)),
            Ok(Err(Error::Locked { .. })) => {
                tracing::warn!(attempt, "somebody else is migrating");
            }
            Ok(Err(Error::Failed(error))) if is_lock_timeout(&error) => {
                tracing::warn!(attempt, "a lock that the migrations need is held by others");
            }
            Ok(outcome) => return outcome,
        }
    }
    Err(Error::Locked {
        attempts: config.attempts_max,
    })
}

/// The connection ends with the attempt, and with it the advisory lock and an unfinished transaction.
async fn run_once(options: &PgConnectOptions, config: &Config) -> Result<(), Error> {
    let connection = timeout(config.connect_timeout, postgres::connect(options)).await;
    let mut connection = connection
        .map_err(|_| Error::Connect(None))?
        .map_err(|error| match postgres::verdict(&error) {
            Some(Unfit::RefusesParameters) => Error::Pooled,
            _ => Error::Connect(Some(error)),
        })?;
    if !have_turn(&mut connection, config.lock_timeout).await? {
        return Err(Error::Locked { attempts: 1 });
    }
    MIGRATOR
        .run_direct(None, &mut connection, false)
        .await
        .map_err(Error::Failed)?;
    // Done is done: the socket closes on its own if the farewell fails.
    let _ = connection.close().await;
    Ok(())
}

/// Waits for an advisory lock that lasts as long as the connection; whether it was to be had in time.
///
/// `sqlx` takes one too, but waits for it within a statement. `create index concurrently` waits for the end of every older
/// statement, and so the two would wait for each other.
async fn have_turn(connection: &mut PgConnection, wait: Duration) -> Result<bool, Error> {
    let deadline = Instant::now() + wait;
    loop {
        let tried = sqlx::query_scalar!(r#"select pg_try_advisory_lock($1) as "is_taken!""#, TURN)
            .fetch_one(&mut *connection);
        let is_taken = tried
            .await
            .map_err(|error| Error::Failed(MigrateError::Execute(error)))?;
        if is_taken || Instant::now() >= deadline {
            return Ok(is_taken);
        }
        sleep(TURN_POLL).await;
    }
}

fn is_lock_timeout(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    error
        .as_database_error()
        .and_then(|error| error.code())
        .as_deref()
        == Some("55P03")
}
