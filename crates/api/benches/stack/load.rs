//! One measured run: wrk on core 1, the server's own CPU time from the kernel.

use std::{fmt, fs, net::SocketAddr, time::Duration};

use anyhow::{Context, bail};
use tokio::process::Command;

use super::contender::{Server, ids_file};

/// Requests in flight.
const CONNECTIONS: u32 = 64;
/// How long a server is loaded before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);
/// Linux counts CPU time for user space in hundredths of a second.
const TICK_MICROSECONDS: f64 = 10_000.0;

/// What one run showed.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Answers per second.
    pub rps: f64,
    /// The server's CPU time per answer, user and system.
    pub cpu_microseconds: f64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>8.0} rps {:>7.1} µs CPU",
            self.rps, self.cpu_microseconds
        )
    }
}

/// Opens the connections and fills the caches.
pub async fn warm_up(address: SocketAddr, script: &str) -> anyhow::Result<()> {
    wrk(address, script, WARM_UP).await.map(drop)
}

pub async fn run(server: &Server, script: &str, length: Duration) -> anyhow::Result<Sample> {
    let before = cpu_microseconds(server.pid())?;
    let text = wrk(server.address, script, length).await?;
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        bail!("some answers were not good: {text}");
    }
    let (requests, rps) = figures(&text)?;
    let spent = cpu_microseconds(server.pid())? - before;
    Ok(Sample {
        rps,
        cpu_microseconds: spent / requests,
    })
}

/// Runs wrk and gives what it printed.
async fn wrk(address: SocketAddr, script: &str, length: Duration) -> anyhow::Result<String> {
    let output = Command::new("taskset")
        .args(["-c", "1", "wrk", "-t1"])
        .args([
            format!("-c{CONNECTIONS}"),
            format!("-d{}s", length.as_secs()),
        ])
        .args(["-s", &format!("deploy/bench/{script}")])
        .arg(format!("http://{address}"))
        .arg(ids_file())
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .output()
        .await
        .context("wrk cannot be run; `make bench` installs it")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("wrk: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

/// The number of answers and their rate.
fn figures(text: &str) -> anyhow::Result<(f64, f64)> {
    let requests = number_before(text, " requests in");
    let rate = text.split("Requests/sec:").nth(1);
    let rate = rate.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    requests
        .zip(rate)
        .with_context(|| format!("wrk said something else: {text}"))
}

fn number_before(text: &str, words: &str) -> Option<f64> {
    text.split(words)
        .next()?
        .split_whitespace()
        .last()?
        .parse()
        .ok()
}

/// The 14th and 15th field of `/proc/PID/stat`, counted after the command's name, which may hold spaces.
pub fn cpu_microseconds(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("a process without a name")?;
    let ticks = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<f64>)
        .sum::<Result<f64, _>>()?;
    Ok(ticks * TICK_MICROSECONDS)
}
