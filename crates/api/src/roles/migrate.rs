//! `holdfast migrate`: brings the schema of every cluster up to date, home first, and ends. On the `direct_url`s, around any
//! pooler.

use std::process::ExitCode;

use anyhow::Context;
use data::postgres::shards::{self, HOME};

use super::{FAILED, shutdown::Signals};
use crate::{features::orders, settings::Settings};

pub async fn run(settings: &Settings, mut signals: Signals) -> anyhow::Result<ExitCode> {
    tokio::select! {
        applied = migrate(settings) => applied?,
        // Each migration is a transaction: what was not committed leaves nothing behind.
        signal = signals.next() => {
            eprintln!("holdfast migrate: stopped by {signal}; run it again to finish");
            return Ok(ExitCode::from(FAILED));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn migrate(settings: &Settings) -> anyhow::Result<()> {
    let home = settings.postgres.direct_url();
    let others = &settings.shards.clusters;
    let others = others
        .iter()
        .map(|(name, cluster)| (name.as_str(), cluster.direct_url()));
    for (name, url) in std::iter::once((HOME, home)).chain(others) {
        data::migrate::run(url, &settings.migrate)
            .await
            .with_context(|| format!("cluster {name}"))?;
        if !settings.shards.clusters.is_empty() {
            println!("holdfast migrate: the schema of cluster {name} is up to date");
        }
    }
    // Only now: with a deal whose clusters have no tables yet, orders would be refused.
    if shards::deal(home, &settings.shards, &orders::SHARDED).await? {
        println!(
            "holdfast migrate: the buckets are dealt; from now on `holdfast shard move` moves them"
        );
    }
    Ok(())
}
