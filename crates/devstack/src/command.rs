//! `devstack exec`: runs one command with a stack's addresses in its environment, and passes on signals to it.

use std::{
    io::{IsTerminal, stdin},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{ExitCode, ExitStatus},
};

use anyhow::{Context, Result};
use devstack::{STATE_FILE_VARIABLE, Services, Stack};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::Child,
    signal::unix::{SignalKind, signal},
};

/// What a shell adds to the number of the signal that ended a command.
const SIGNAL_EXIT_BASE: i32 = 128;
const DATABASE: &str = "holdfast";

/// The variables that lead the service, its tests and sqlx's tools to a stack.
pub(crate) fn environment(stack: &Services) -> Vec<(&'static str, String)> {
    vec![
        (
            STATE_FILE_VARIABLE,
            stack.state_file().display().to_string(),
        ),
        (
            "HOLDFAST__POSTGRES__PRIMARY_URL",
            stack.primary_url(DATABASE),
        ),
        (
            "HOLDFAST__POSTGRES__REPLICA_URLS",
            stack.replica_url(DATABASE),
        ),
        ("HOLDFAST__REDIS__URL", stack.redis_url()),
        (
            "HOLDFAST__RECOMMENDATIONS__UPSTREAM__URL",
            stack.upstream_url(),
        ),
        ("HOLDFAST__ORDERS__PAYMENTS__URL", stack.upstream_url()),
        ("DATABASE_URL", stack.primary_direct_url(DATABASE)),
    ]
}

pub(crate) async fn run(command: &[String]) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    let stack = tokio::select! {
        stack = Stack::start() => stack?,
        signal = signals.next() => return Ok(exit_code(SIGNAL_EXIT_BASE + signal as i32)),
    };
    let mut launcher = stack.launcher();
    launcher.args(command).envs(environment(&stack));
    if !signals.from_terminal {
        launcher.process_group(0);
    }
    let child = tokio::process::Command::from(launcher).spawn();
    let mut child = child.with_context(|| format!("run {}", command.join(" ")))?;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            signal = signals.next() => signals.forward(&child, signal),
        }
    };
    Ok(exit_code(code(status)))
}

/// A terminal sends Ctrl-C to every process of its foreground group, the command included. Passing it on would make
/// it the second one, on which a service stops without ceremony. Without a terminal the command gets a group of its
/// own, and each signal exactly once, from here.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    from_terminal: bool,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            from_terminal: stdin().is_terminal(),
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::SIGINT,
            _ = self.terminate.recv() => Signal::SIGTERM,
            _ = self.hangup.recv() => Signal::SIGHUP,
        }
    }

    fn forward(&self, child: &Child, signal: Signal) {
        if self.from_terminal && signal == Signal::SIGINT {
            return;
        }
        if let Some(pid) = child.id() {
            // It may have ended just now.
            let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
        }
    }
}

fn code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| SIGNAL_EXIT_BASE + status.signal().unwrap_or_default())
}

fn exit_code(code: i32) -> ExitCode {
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}
