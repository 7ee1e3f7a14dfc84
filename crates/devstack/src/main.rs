//! The program `devstack`: a stack for a terminal (`up`), or around one command (`exec`).

mod command;

use std::{future::Future, net::SocketAddr, process::ExitCode, sync::Arc};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use devstack::{STATE_FILE_VARIABLE, Stack, Upstream};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

const FAULTS: &str = "\
Faults over HTTP, at the control address that `up` prints; SERVER is primary, standby, redis or upstream:
  GET    /proxies           lists the proxies and their faults
  PUT    /proxies/SERVER    sets the list of faults in the body
  DELETE /proxies/SERVER    clears them

A fault: {\"fault\": FAULT, \"direction\": \"both|to_server|to_client\", \"probability\": 0..1}. FAULT is one of:
  {\"latency\": {\"delay\": \"200ms\", \"jitter\": \"50ms\"}}   {\"bandwidth\": {\"bytes_per_second\": 10000}}
  {\"cut\": {\"after_bytes\": 1000}}   {\"slow_close\": {\"delay\": \"2s\"}}   \"black_hole\"   \"reset\"   \"down\"

The upstream's behaviour, at its own address; SERVICE is payments or recommendations:
  PUT /behaviour/SERVICE    {\"latency\": \"2s\", \"error_rate\": 0.1, \"decline_rate\": 0.1, \"hang\": false}
  GET /behaviour            GET /counters            GET /payments?reference=REFERENCE";

/// Postgres (primary and streaming standby), Redis and an upstream sandbox, each behind a fault proxy. All of it is
/// gone when this ends.
#[derive(Parser)]
#[command(after_long_help = FAULTS, after_help = "`--help` tells how to set faults.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a stack, print where it is, and keep it until Ctrl-C or SIGTERM.
    Up,
    /// Start a stack, run a command with its addresses in the environment, and stop with the command's exit code.
    Exec {
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// The upstream sandbox alone, until Ctrl-C or SIGTERM.
    Sandbox {
        /// Where it listens.
        #[arg(default_value = "127.0.0.1:8090")]
        listen: SocketAddr,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Up => until_told(stay()).await,
        Command::Exec { command } => command::run(&command).await,
        Command::Sandbox { listen } => until_told(sandbox(listen)).await,
    };
    result.unwrap_or_else(|error| {
        eprintln!("devstack: {error:#}");
        ExitCode::FAILURE
    })
}

async fn until_told(work: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    // Before anything slow, so that a Ctrl-C during the start stops it in order, too.
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    tokio::select! {
        result = work => result,
        _ = interrupt.recv() => Ok(ExitCode::SUCCESS),
        _ = terminate.recv() => Ok(ExitCode::SUCCESS),
    }
}

async fn stay() -> Result<ExitCode> {
    let stack = Stack::start().await?;
    for (name, value) in command::environment(&stack) {
        println!("export {name}={value}");
    }
    println!(
        "# The upstream sandbox is at {}, the control of faults at {}.",
        stack.upstream_url(),
        stack.control_url()
    );
    println!("# {STATE_FILE_VARIABLE} lets tests use this stack. Ctrl-C stops it.");
    std::future::pending().await
}

async fn sandbox(listen: SocketAddr) -> Result<ExitCode> {
    let listener = TcpListener::bind(listen).await;
    let listener = listener.with_context(|| format!("listen on {listen}"))?;
    println!(
        "The upstream sandbox is at http://{}.",
        listener.local_addr()?
    );
    Arc::new(Upstream::default()).serve(listener).await?;
    Ok(ExitCode::SUCCESS)
}
