//! Keeps a process's copy of the map up to date: reads what has changed at home, each interval and when somebody waits.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::Bucket;
use super::map::{Change, Map};
use crate::Error;
use crate::postgres::clusters::Clusters;

/// The pause after a reading that somebody asked for, however many go on asking.
const PAUSE: Duration = Duration::from_millis(10);

struct Row {
    bucket: i16,
    cluster: String,
    version: i32,
    age: f64,
}

/// Reads the map until it is dropped.
pub(in crate::postgres) async fn keep(clusters: &Clusters, map: &Map) {
    let mut ticks = interval(map.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_read = true;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = map.wanted() => {}
        }
        let read = read(clusters, map).await;
        // Said once, and not at every interval: requests that are refused say it as well.
        if let (Err(error), true) = (&read, was_read) {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(%error, cause, "the shard map cannot be read");
        }
        was_read = read.is_ok();
        sleep(PAUSE).await;
    }
}

async fn read(clusters: &Clusters, map: &Map) -> Result<(), Error> {
    // Before it is asked: how old an answer is counts from there.
    let now = Instant::now();
    let known = i32::try_from(map.version()).unwrap_or(i32::MAX);
    let home = clusters.db(now + map.interval.max(Duration::from_secs(1)));
    let rows = home
        .write()
        .reader()
        .fetch_all(|| {
            sqlx::query_as!(
                Row,
                r#"select bucket, cluster, version, extract(epoch from now() - changed_at)::float8 as "age!"
                   from shard_buckets where version > $1"#,
                known,
            )
        })
        .await?;
    let changes: Vec<Change> = rows
        .into_iter()
        .filter_map(|row| change(clusters, &row))
        .collect();
    map.apply(&changes, now);
    Ok(())
}

fn change(clusters: &Clusters, row: &Row) -> Option<Change> {
    let bucket = u16::try_from(row.bucket).ok()?;
    let cluster = clusters.position(&row.cluster);
    if cluster.is_none() {
        tracing::error!(
            cluster = row.cluster,
            bucket,
            "the shard map names a cluster that shards.clusters does not: its rows cannot be reached"
        );
    }
    Some(Change {
        bucket: Bucket::try_from(bucket).ok()?,
        cluster,
        version: u32::try_from(row.version).ok()?,
        age: Duration::try_from_secs_f64(row.age.max(0.0)).ok()?,
    })
}
