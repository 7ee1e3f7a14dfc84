//! `holdfast work`: background jobs, until it is told to end.

use std::process::ExitCode;

use settings::Loaded;

use super::{
    process::{Jobs, Process},
    shutdown::Signals,
};
use crate::settings::Settings;

/// Runs the same process as `serve` without the public listener, and counts the jobs that wait: by that it is scaled. On the first signal it claims no
/// more, and what runs is finished or given back.
pub async fn run(loaded: &Loaded<Settings>, signals: Signals) -> anyhow::Result<ExitCode> {
    let mut process = Process::start(loaded, signals, Jobs::RunAndCount)?;
    process.state.health.started();
    let signal = process.told_to_end().await;
    tracing::info!(signal, "ending");
    Ok(process.end(0).await)
}
