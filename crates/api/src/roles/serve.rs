//! `holdfast serve`: the API, until it is told to end.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use futures::future::join;
use settings::Loaded;
use tokio::time::sleep;

use super::{
    process::{Jobs, Process},
    shutdown::Signals,
};
use crate::{
    http::{
        App,
        drain::{Drain, Phase},
        server::{Age, Server},
    },
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
    let rpcs = rpc_server(&process, drain.clone())?;
    tracing::info!(address = %rpcs.local_addr()?, "gRPC listener");
    tracing::info!(address = %server.local_addr()?, profile = loaded.profile, "serving");
    let serving = join(server.run(), rpcs.run());
    let serving = process.background.spawn(serving);
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

/// The second listener: the same accept loop, which ends with the first.
fn rpc_server(process: &Process, drain: Drain) -> anyhow::Result<Server<App>> {
    let state = process.state.clone();
    let config = Arc::clone(&state.grpc);
    let listener = Arc::new(config.listener(&state.http));
    let app = crate::rpc_app(state, process.observe.clone());
    let server = Server::bind(listener, app, drain)
        .with_context(|| format!("cannot listen on grpc.listen = {}", config.listen))?;
    Ok(server.aged(Age {
        max: config.connection_age,
        grace: config.connection_age_grace,
    }))
}
