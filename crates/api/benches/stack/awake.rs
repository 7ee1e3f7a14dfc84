//! Keeps the cores from sleeping while something is measured.

use std::process::Stdio;

use anyhow::Context;
use tokio::process::{Child, Command};

/// Runs only where nobody else wants to, and ends with whoever has started it. The scheduler weighs sessions before it weighs their
/// processes, hence a session of its own, of the least weight.
const LOOP: &str = "echo 19 >/proc/$$/autogroup; while kill -0 $PPID; do :; done";

/// A virtual machine's core with nothing to do goes to others, and comes back when it suits them: at a tenth of the load that
/// the same cores bear, answers took 100 ms. A loop of the lowest priority on each core keeps them ours.
pub struct Awake {
    _loops: Vec<Child>,
}

impl Awake {
    pub fn keep(cores: usize) -> anyhow::Result<Self> {
        let on = |core: usize| {
            let core = core.to_string();
            Command::new("setsid")
                .args([
                    "chrt", "--idle", "0", "taskset", "-c", &core, "sh", "-c", LOOP,
                ])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .context("setsid cannot be run")
        };
        let loops = (0..cores).map(on).collect::<Result<_, _>>()?;
        Ok(Self { _loops: loops })
    }
}
