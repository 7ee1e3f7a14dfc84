//! What the binary can be: one role per subcommand, each in its own file.

mod check_config;
mod healthcheck;
mod jobs;
mod migrate;
mod process;
pub mod seed;
mod serve;
mod shard;
pub mod shutdown;
mod work;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use settings::{Loaded, Sources};

use crate::settings::Settings;
use shutdown::Signals;

/// Exit code of a process that did what it was told, but had to cut work short.
const CUT: u8 = 1;
/// Exit code of a process that could not do what it was told.
const FAILED: u8 = 1;
/// Exit code for settings that cannot work, after sysexits.h EX_CONFIG.
const MISCONFIGURED: u8 = 78;

/// Holdfast: a small shop that stays correct, fast and up under load, faults and growth.
///
/// Settings: built-in defaults, then the profile HOLDFAST_PROFILE (dev, test, prod), then the file
/// HOLDFAST_CONFIG_FILE, then HOLDFAST__SECTION__KEY, then HOLDFAST__SECTION__KEY_FILE (a mounted secret).
/// `holdfast check-config` prints them all with where each came from.
#[derive(Parser)]
#[command(name = "holdfast", version)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Serve the API until SIGTERM
    Serve,
    /// Run background jobs until SIGTERM
    Work,
    /// Bring the database's schema up to date; safe to run from several places at once
    Migrate,
    /// Show which cluster holds which customers, and move them
    Shard(shard::Args),
    /// Show the jobs that wait and those that are dead, cancel, replay and drop them
    Jobs(jobs::Args),
    /// Check the settings and print them with the origin of each
    CheckConfig,
    /// Ask a running service on this host whether it is alive; exit 0 if so
    Healthcheck(healthcheck::Args),
    /// Fill the catalogue with made-up products
    Seed(seed::Args),
}

/// Runs the role that the command line names.
#[tokio::main]
pub async fn main() -> ExitCode {
    // Before anything slow: a signal that comes while the process starts is an order like any other.
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => {
            return failed(&anyhow::Error::new(error).context("cannot install signal handlers"));
        }
    };
    let role = Cli::parse().role;
    let loaded = match settings::load::<Settings>(&Sources::from_env()) {
        Ok(loaded) => loaded,
        Err(faults) => {
            eprintln!("{faults}");
            return ExitCode::from(MISCONFIGURED);
        }
    };
    run(role, &loaded, signals)
        .await
        .unwrap_or_else(|error| failed(&error))
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("holdfast: {error:#}");
    ExitCode::from(FAILED)
}

async fn run(role: Role, loaded: &Loaded<Settings>, signals: Signals) -> anyhow::Result<ExitCode> {
    // One TLS provider for every client; with two in the tree rustls could not choose by itself.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match role {
        Role::Serve => serve::run(loaded, signals).await,
        Role::Work => work::run(loaded, signals).await,
        Role::Migrate => migrate::run(&loaded.settings, signals).await,
        Role::Shard(args) => shard::run(&args, &loaded.settings, signals).await,
        Role::Jobs(args) => jobs::run(&args, &loaded.settings, signals).await,
        Role::CheckConfig => Ok(check_config::run(loaded)),
        Role::Healthcheck(args) => healthcheck::run(&args, &loaded.settings).await,
        Role::Seed(args) => seed::run(&args, loaded).await,
    }
}
