//! `holdfast work`: background jobs, until it is told to end.

use std::process::ExitCode;

use settings::Loaded;

use super::{process::Process, shutdown::Signals};
use crate::settings::Settings;

/// Runs the same process as `serve` without the public listener: what runs in the background of that one. No feature has a job
/// for this role alone yet.
pub async fn run(loaded: &Loaded<Settings>, signals: Signals) -> anyhow::Result<ExitCode> {
    let mut process = Process::start(loaded, signals)?;
    process.state.health.started();
    let signal = process.told_to_end().await;
    tracing::info!(signal, "ending");
    Ok(process.end(0).await)
}
