//! The whole map as home has it, for people.

use std::collections::BTreeMap;

use secrecy::SecretString;
use sqlx::Connection as _;

use super::deal::connect;
use super::{Bucket, Buckets, DealError};

/// Which cluster holds what.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Raised by every move. 0: the buckets were not dealt.
    pub version: u32,
    /// The buckets of each cluster that has any.
    pub clusters: BTreeMap<String, Buckets>,
    /// A move that was begun and not ended, in words.
    pub unfinished: Option<String>,
}

/// Reads the map from home.
///
/// # Errors
/// When home cannot be asked.
pub async fn layout(home: &SecretString) -> Result<Layout, DealError> {
    let mut connection = connect(home).await?;
    let rows = sqlx::query!("select bucket, cluster, version from shard_buckets order by bucket")
        .fetch_all(&mut connection)
        .await?;
    let unfinished = sqlx::query_scalar!(
        r#"select format('%s..%s from %s to %s: %s since %s', first_bucket, last_bucket, source, target, phase,
                         date_trunc('second', started_at)) as "words!"
           from shard_moves where phase in ('copying', 'switched')"#
    )
    .fetch_optional(&mut connection)
    .await?;
    // Done is done: the socket closes on its own if the farewell fails.
    let _ = connection.close().await;
    let mut clusters: BTreeMap<String, Vec<Bucket>> = BTreeMap::new();
    let mut version = 0;
    for row in rows {
        version = version.max(u32::try_from(row.version).unwrap_or(0));
        let bucket = u16::try_from(row.bucket).ok();
        if let Some(bucket) = bucket.and_then(|number| Bucket::try_from(number).ok()) {
            clusters.entry(row.cluster).or_default().push(bucket);
        }
    }
    let clusters = clusters.into_iter();
    Ok(Layout {
        version,
        clusters: clusters
            .map(|(name, buckets)| (name, buckets.into_iter().collect()))
            .collect(),
        unfinished,
    })
}
