//! `holdfast jobs`: shows what waits and what is dead, cancels the one, and replays or drops the other. One JSON object for each job.

use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use data::postgres::{Clusters, Db};
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::time::Instant;
use worker::operate::{self, LIST_MAX, Page, Replayed};

use super::{FAILED, shutdown::Signals};
use crate::settings::Settings;

/// What to do with jobs.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Print jobs that wait or run, newest first
    List(Filter),
    /// Print jobs that nobody tries any more, newest first
    Dead(Filter),
    /// Have dead jobs tried again
    Replay(Ids),
    /// Forget dead jobs
    Drop(Ids),
    /// Forget jobs that wait or run
    Cancel(Ids),
}

#[derive(clap::Args)]
struct Filter {
    /// Of this kind only
    #[arg(long)]
    kind: Option<String>,
    /// Those that are older than this one
    #[arg(long, value_name = "ID")]
    before: Option<i64>,
    /// So many at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(LIST_MAX)))]
    limit: u32,
}

impl Filter {
    fn page(&self) -> Page<'_> {
        Page {
            kind: self.kind.as_deref(),
            before: self.before,
            limit: self.limit,
        }
    }
}

#[derive(clap::Args)]
struct Ids {
    /// The jobs, by the numbers that `list` and `dead` print
    #[arg(required = true, num_args = 1..=1000)]
    ids: Vec<i64>,
}

pub async fn run(
    args: &Args,
    settings: &Settings,
    mut signals: Signals,
) -> anyhow::Result<ExitCode> {
    let clusters = Clusters::new(
        &settings.postgres,
        &settings.shards,
        &mut Registry::default(),
    )?;
    tokio::select! {
        done = act(&args.action, &clusters, settings) => done,
        signal = signals.next() => {
            eprintln!("holdfast jobs: stopped by {signal}");
            Ok(ExitCode::from(FAILED))
        }
    }
}

async fn act(
    action: &Action,
    clusters: &Clusters,
    settings: &Settings,
) -> anyhow::Result<ExitCode> {
    let db = || clusters.db(Instant::now() + settings.http.write_deadline);
    match action {
        Action::List(filter) => print(&operate::list(&db(), &filter.page()).await?),
        Action::Dead(filter) => print(&operate::list_dead(&db(), &filter.page()).await?),
        Action::Replay(Ids { ids }) => each(ids, async |id| replay(&db(), id).await).await,
        Action::Drop(Ids { ids }) => {
            let drop = async |id| {
                let is_dropped = operate::drop_dead(&db(), id).await?;
                Ok(if is_dropped {
                    Ok("dropped")
                } else {
                    Err("is not dead")
                })
            };
            each(ids, drop).await
        }
        Action::Cancel(Ids { ids }) => {
            let cancel = async |id| {
                let is_cancelled = operate::cancel(&db(), id).await?;
                Ok(if is_cancelled {
                    Ok("cancelled")
                } else {
                    Err("neither waits nor runs")
                })
            };
            each(ids, cancel).await
        }
    }
}

fn print(jobs: &[impl Serialize]) -> anyhow::Result<ExitCode> {
    for job in jobs {
        println!("{}", serde_json::to_string(job)?);
    }
    Ok(ExitCode::SUCCESS)
}

/// What was done, or why not.
type Done = Result<&'static str, &'static str>;

async fn replay(db: &Db, id: i64) -> Result<Done, data::Error> {
    Ok(match operate::replay(db, id).await? {
        Replayed::Yes => Ok("is tried again"),
        Replayed::Unknown => Err("is not dead"),
        Replayed::KeyTaken => Err("stays dead: another one with its unique key waits already"),
    })
}

/// Does it with one after the other, and says so; a job that it cannot be done with makes the exit code 1.
async fn each(
    ids: &[i64],
    act: impl AsyncFn(i64) -> Result<Done, data::Error>,
) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for &id in ids {
        let done = act(id).await.with_context(|| format!("job {id}"))?;
        match done {
            Ok(done) => println!("job {id} {done}"),
            Err(refusal) => {
                eprintln!("holdfast jobs: {id} {refusal}");
                code = ExitCode::from(FAILED);
            }
        }
    }
    Ok(code)
}
