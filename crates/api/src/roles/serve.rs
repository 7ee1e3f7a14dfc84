//! `holdfast serve`: the API, until it is told to end.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use settings::Loaded;
use tokio::time::sleep;

use super::{
    process::{Jobs, Process},
    shutdown::Signals,
};
use crate::{
    http::{drain::Phase, server::Server},
    settings::Settings,
};

/// Serves, and on the first signal drains in this order: readiness says so, requests are still answered while the
/// balancers notice, nothing new is accepted, what is in flight finishes, and only then everything below is closed.
pub async fn run(loaded: &Loaded<Settings>, signals: Signals) -> anyhow::Result<ExitCode> {
    let jobs = match loaded.settings.jobs.run_in_serve {
        true => Jobs::Run,
        false => Jobs::Leave,
    };
    let mut process = Process::start(loaded, signals, jobs)?;
    let config = Arc::clone(&process.state.http);
    let drain = process.state.drain.clone();
    process.follow_feed();
    let app = crate::app(process.state.clone(), process.observe.clone());
    let server = Server::bind(Arc::clone(&config), app, drain.clone())
        .with_context(|| format!("cannot listen on http.listen = {}", config.listen))?;
    tracing::info!(address = %server.local_addr()?, profile = loaded.profile, "serving");
    let serving = process.background.spawn(server.run());
    process.state.health.started();

    let signal = process.told_to_end().await;
    let phases = &loaded.settings.shutdown;
    tracing::info!(signal, lame_duck = ?phases.lame_duck, "draining: still answering while balancers notice");
    drain.advance(Phase::LameDuck);
    sleep(phases.lame_duck).await;

    tracing::info!(drain_timeout = ?phases.drain_timeout, "closing: finishing what is in flight");
    drain.advance(Phase::Closing);
    let cut = match tokio::time::timeout(phases.drain_timeout, serving).await {
        Ok(_) => 0,
        Err(_) => drain.unfinished(),
    };
    Ok(process.end(cut).await)
}
