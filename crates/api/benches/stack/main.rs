//! What the whole stack costs, next to the least that could do the same: `make bench`.
//!
//! Each contender is a server of its own on core 0 and is loaded by wrk on core 1. Rounds interleave the contenders,
//! so that a machine whose speed drifts slows all of them; what is reported are medians, and medians of the ratios
//! within a round. The naive contenders are controls that anyone can rerun.
//!
//! `cargo bench -p api --bench stack -- replicas` runs only that part, `-- jobs` only that, `-- live` measures the live feed, and
//! `-- overload` (`make overload`) what happens when more is asked than can be done.

mod awake;
mod bare;
mod contender;
mod generator;
mod jobs;
mod live;
mod load;
mod machine;
mod memory;
mod overload;
mod replicas;
mod report;

use std::{env, time::Duration};

use anyhow::Context;
use devstack::Stack;

use contender::{Contender, Servers};
use load::Sample;

/// Products in the catalogue: so many that a cache of a few entries misses nearly always.
const PRODUCTS: usize = 20_000;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match arguments.first().map(String::as_str) {
        Some("bare") => runtime.block_on(bare::serve(&arguments[1..])),
        Some("replicas") => runtime.block_on(scale()),
        Some("jobs") => runtime.block_on(work()),
        Some("overload") => runtime.block_on(overload::run()),
        Some("live") => runtime.block_on(live::run()),
        _ => runtime.block_on(async {
            compare().await?;
            scale().await?;
            work().await
        }),
    }
}

async fn scale() -> anyhow::Result<()> {
    let seconds = setting("BENCH_SECONDS", 5)?;
    let rounds = setting("BENCH_ROUNDS", 5)?;
    let scaling = replicas::measure(rounds, Duration::from_secs(seconds)).await?;
    report::put("Replicas", &replicas::section(&scaling, seconds)?)
}

async fn work() -> anyhow::Result<()> {
    let seconds = setting("BENCH_SECONDS", 5)?;
    let rounds = setting("BENCH_ROUNDS", 5)?;
    let rows = jobs::measure(rounds, Duration::from_secs(seconds)).await?;
    report::put("Jobs", &jobs::section(&rows, rounds, seconds)?)
}

async fn compare() -> anyhow::Result<()> {
    let rounds = setting("BENCH_ROUNDS", 5)?;
    let seconds = setting("BENCH_SECONDS", 5)?;
    let stack = Stack::start().await?;
    let servers = Servers::prepare(&stack).await?;

    println!(
        "{rounds} rounds of {seconds} s for each of {} contenders",
        Contender::ALL.len()
    );
    let mut table = vec![Vec::new(); Contender::ALL.len()];
    for round in 1..=rounds {
        for (contender, samples) in Contender::ALL.into_iter().zip(&mut table) {
            let sample = measure(&servers, contender, Duration::from_secs(seconds)).await?;
            println!("round {round}  {:<28} {sample}", contender.name());
            samples.push(sample);
        }
    }
    let memory = memory::measure(&servers).await?;
    report::write(&table, &memory, rounds, seconds)
}

async fn measure(
    servers: &Servers,
    contender: Contender,
    length: Duration,
) -> anyhow::Result<Sample> {
    let server = servers.start(contender).await?;
    load::warm_up(server.address, contender.script()).await?;
    load::run(&server, contender.script(), length)
        .await
        .with_context(|| format!("while measuring {}", contender.name()))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a bench is set up by its caller's environment"
)]
fn setting(name: &str, default: u64) -> anyhow::Result<u64> {
    match env::var(name) {
        Ok(value) => value
            .parse()
            .with_context(|| format!("{name}={value} is not a number")),
        Err(_) => Ok(default),
    }
}
