//! Deals the buckets once: what the settings say becomes the map, which from then on only moves change.

use std::time::Duration;

use secrecy::SecretString;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::time::timeout;

use super::{Bucket, Config, HOME, guard};
use crate::postgres::config::parse;

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A table of sharded rows. Its primary key begins with the key they are sharded by.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// The column with the key, a uuid.
    pub key: &'static str,
}

/// Why the buckets were not dealt.
#[derive(Debug, thiserror::Error)]
pub enum DealError {
    /// The home cluster's URL cannot be read.
    #[error("the URL of the home cluster is not the URL of a Postgres database")]
    InvalidUrl,
    /// The map names a cluster that the settings no longer do.
    #[error(
        "the shard map keeps buckets {buckets} on {cluster}, which shards.clusters does not name: put it back, or move them first"
    )]
    Forgotten {
        /// The cluster.
        cluster: String,
        /// What it holds.
        buckets: super::Buckets,
    },
    /// There are rows which the new deal would lose sight of.
    #[error(
        "{table} has rows at home already: leave `buckets` empty in shards.clusters, and move buckets with `holdfast shard move`"
    )]
    HasRows {
        /// The table.
        table: &'static str,
    },
    /// Home could not be asked.
    #[error("the shard map cannot be dealt")]
    Failed(#[from] sqlx::Error),
}

/// Deals the buckets as `config` says if that was never done, and checks that every cluster of the map is in `config`. `tables`
/// are the sharded ones. To be called after the migrations, on the home cluster. True when it dealt them.
///
/// # Errors
/// When the map and the settings do not fit together, or home cannot be asked.
pub async fn deal(
    home: &SecretString,
    config: &Config,
    tables: &[Table],
) -> Result<bool, DealError> {
    let mut connection = connect(home).await?;
    let mut tx = connection.begin().await?;
    // Of two that deal at once, the second finds it done.
    sqlx::query("lock table shard_buckets in share row exclusive mode")
        .execute(&mut *tx)
        .await?;
    let known = sqlx::query!("select cluster, bucket from shard_buckets order by bucket")
        .fetch_all(&mut *tx)
        .await?;
    if !known.is_empty() || config.clusters.is_empty() {
        let forgotten = known
            .iter()
            .find(|row| row.cluster != HOME && !config.clusters.contains_key(&row.cluster));
        return match forgotten {
            None => Ok(false),
            Some(row) => Err(DealError::Forgotten {
                cluster: row.cluster.clone(),
                buckets: known
                    .iter()
                    .filter(|other| other.cluster == row.cluster)
                    .filter_map(|row| Bucket::try_from(u16::try_from(row.bucket).ok()?).ok())
                    .collect(),
            }),
        };
    }
    let dealt: Vec<String> = config.dealt().into_iter().map(str::to_owned).collect();
    if dealt.iter().any(|cluster| cluster != HOME) {
        for table in tables {
            refuse_rows(&mut tx, table).await?;
        }
        let is_at_home = |bucket: &Bucket| dealt[bucket.index()] == HOME;
        let guard = guard::statements(tables, &Bucket::all().filter(is_at_home).collect());
        sqlx::raw_sql(AssertSqlSafe(guard))
            .execute(&mut *tx)
            .await?;
    }
    sqlx::query!(
        "insert into shard_buckets (bucket, cluster, version, changed_at)
         select nth - 1, cluster, 1, to_timestamp(0) from unnest($1::text[]) with ordinality as dealt (cluster, nth)",
        &dealt
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(true)
}

/// A connection to home on which nothing waits for long.
pub(super) async fn connect(home: &SecretString) -> Result<PgConnection, DealError> {
    let options = parse(home).ok_or(DealError::InvalidUrl)?;
    let options = options
        .application_name("holdfast-shard")
        .options([("lock_timeout", "10s"), ("statement_timeout", "30s")]);
    let connecting = Box::pin(PgConnection::connect_with(&options));
    match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()).into()),
    }
}

async fn refuse_rows(connection: &mut PgConnection, table: &Table) -> Result<(), DealError> {
    let query = format!("select exists (select from {})", table.name);
    let has_rows: bool = sqlx::query_scalar(AssertSqlSafe(query))
        .fetch_one(connection)
        .await?;
    if has_rows {
        return Err(DealError::HasRows { table: table.name });
    }
    Ok(())
}
