//! `holdfast shard`: shows which cluster holds which customers, plans what a new one should hold, and moves it there.

use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::{ArgGroup, Subcommand};
use data::postgres::shards::{self, Bucket, Buckets, HOME, Layout, Mover};

use super::{FAILED, shutdown::Signals};
use crate::{features::orders, settings::Settings};

/// What to do with the shard map.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Print which cluster holds which buckets
    Map,
    /// Print the moves that give a cluster its fair share
    Plan {
        /// The cluster, as shards.clusters names it
        #[arg(long)]
        to: String,
        /// Buckets of one move at most: writes to all of them wait while they are compared
        #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
        buckets_max: u16,
    },
    /// Move buckets to another cluster while they are in use; run it again to finish a move that was interrupted
    #[command(group = ArgGroup::new("what").required(true).args(["buckets", "abort"]))]
    Move {
        /// A bucket, or a range such as 0..15
        #[arg(requires = "to")]
        buckets: Option<Buckets>,
        /// The cluster, as shards.clusters names it, or home
        #[arg(long)]
        to: Option<String>,
        /// Undo a move that was interrupted before its switch
        #[arg(long, conflicts_with_all = ["buckets", "to"])]
        abort: bool,
    },
}

pub async fn run(
    args: &Args,
    settings: &Settings,
    mut signals: Signals,
) -> anyhow::Result<ExitCode> {
    tokio::select! {
        done = act(&args.action, settings) => done?,
        signal = signals.next() => {
            eprintln!("holdfast shard: stopped by {signal}; run it again to finish, or `holdfast shard move --abort`");
            return Ok(ExitCode::from(FAILED));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn act(action: &Action, settings: &Settings) -> anyhow::Result<()> {
    match action {
        Action::Map => print_map(&layout(settings).await?),
        Action::Plan { to, buckets_max } => {
            print_plan(&layout(settings).await?, settings, to, *buckets_max)?;
        }
        Action::Move {
            buckets: Some(buckets),
            to: Some(to),
            ..
        } => move_all(buckets, to, settings).await?,
        Action::Move { .. } => {
            let undone = mover(settings).abort().await?;
            println!("holdfast shard: the move of {undone} is undone");
        }
    }
    Ok(())
}

async fn layout(settings: &Settings) -> anyhow::Result<Layout> {
    shards::layout(settings.postgres.direct_url())
        .await
        .context("the shard map cannot be read from home")
}

fn print_map(layout: &Layout) {
    if layout.version == 0 {
        return println!("one cluster: everything is at {HOME}");
    }
    println!("version {}", layout.version);
    for (name, buckets) in &layout.clusters {
        println!("{name}: {} of {}: {buckets}", buckets.len(), Bucket::COUNT);
    }
    if let Some(unfinished) = &layout.unfinished {
        println!("unfinished: {unfinished}");
    }
}

fn print_plan(
    layout: &Layout,
    settings: &Settings,
    to: &str,
    buckets_max: u16,
) -> anyhow::Result<()> {
    let others = settings.shards.clusters.keys().map(String::as_str);
    let names: Vec<&str> = std::iter::once(HOME).chain(others).collect();
    let position = |wanted: &str| names.iter().position(|name| *name == wanted);
    let target = position(to).with_context(|| format!("no cluster is called {to}"))?;
    let mut holders = vec![0; Bucket::COUNT];
    for (name, buckets) in &layout.clusters {
        let holder = position(name)
            .with_context(|| format!("the map names {name}, which shards.clusters does not"))?;
        for bucket in buckets.iter() {
            holders[usize::from(bucket.number())] = holder;
        }
    }
    let moves = shards::plan(&holders, names.len(), target);
    if moves.is_empty() {
        println!("# {to} has its share");
    }
    for (source, buckets) in moves {
        println!("# {} from {}", buckets.len(), names[source]);
        for range in buckets.ranges() {
            print_range(range, to, buckets_max);
        }
    }
    Ok(())
}

/// One command for each `buckets_max` neighbours.
fn print_range((first, last): (Bucket, Bucket), to: &str, buckets_max: u16) {
    let numbers: Vec<u16> = (first.number()..=last.number()).collect();
    for part in numbers.chunks(usize::from(buckets_max)) {
        if let [first, .., last] = part {
            println!("holdfast shard move {first}..{last} --to {to}");
        } else {
            println!("holdfast shard move {} --to {to}", part[0]);
        }
    }
}

async fn move_all(buckets: &Buckets, to: &str, settings: &Settings) -> anyhow::Result<()> {
    ensure!(!buckets.is_empty(), "name a bucket");
    let [range] = buckets.ranges()[..] else {
        bail!("{buckets} are several ranges: move one after the other");
    };
    let moved = mover(settings).run(range, to).await?;
    let source = moved.source;
    match moved.rows.zip(moved.pause) {
        Some((rows, pause)) => println!(
            "holdfast shard: {buckets} moved from {source} to {to}: {rows} rows, writes to them were held up for {pause:?}"
        ),
        None => println!("holdfast shard: the move of {buckets} from {source} to {to} is finished"),
    }
    Ok(())
}

fn mover(settings: &Settings) -> Mover<'_> {
    Mover {
        postgres: &settings.postgres,
        shards: &settings.shards,
        tables: &orders::SHARDED,
        say: &|step| println!("holdfast shard: {step}"),
    }
}
