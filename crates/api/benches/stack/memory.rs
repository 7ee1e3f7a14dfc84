//! What a process needs before and after it is loaded: memory by connections, and time until it answers.

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

use super::contender::{Contender, Servers};

/// Connections that are kept, and that come and go on top of them.
const KEPT: usize = 1_000;
const BURST: usize = 5_000;
/// How long after a burst its memory is expected back.
const AFTER_BURST: Duration = Duration::from_secs(30);
/// Starts that are timed.
const STARTS: usize = 7;

/// Resident memory in MiB, and times in milliseconds.
pub struct Footprint {
    pub idle_mib: f64,
    pub kept_mib: f64,
    pub after_burst_mib: f64,
    pub health_ms: f64,
    pub ready_ms: f64,
}

pub async fn measure(servers: &Servers) -> anyhow::Result<Footprint> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let mut health = Vec::new();
    let mut ready = Vec::new();
    for _ in 0..STARTS {
        let since = Instant::now();
        let server = servers.start(Contender::InProcess).await?;
        health.push(until_ok(server.address, "/health", since).await);
        ready.push(until_ok(server.address, "/ready", since).await);
    }

    let server = servers.start(Contender::InProcess).await?;
    until_ok(server.address, "/ready", Instant::now()).await;
    let idle_mib = resident_mib(server.pid())?;
    let kept = connections(server.address, KEPT).await?;
    let kept_mib = resident_mib(server.pid())?;
    drop(connections(server.address, BURST).await?);
    sleep(AFTER_BURST).await;
    let after_burst_mib = resident_mib(server.pid())?;
    drop(kept);
    let (health_ms, ready_ms) = (super::report::median(health), super::report::median(ready));
    Ok(Footprint {
        idle_mib,
        kept_mib,
        after_burst_mib,
        health_ms,
        ready_ms,
    })
}

/// Milliseconds from `since` until the path is answered with 200.
async fn until_ok(address: SocketAddr, path: &str, since: Instant) -> f64 {
    while !matches!(ask(address, path).await, Ok((_, true))) {
        sleep(Duration::from_millis(1)).await;
    }
    since.elapsed().as_secs_f64() * 1e3
}

/// Open connections that have each had an answer.
async fn connections(address: SocketAddr, count: usize) -> anyhow::Result<Vec<TcpStream>> {
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        open.push(ask(address, "/health").await?.0);
    }
    Ok(open)
}

async fn ask(address: SocketAddr, path: &str) -> anyhow::Result<(TcpStream, bool)> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").as_bytes())
        .await?;
    let mut answer = [0; 4096];
    let read = stream.read(&mut answer).await?;
    let good = answer[..read].starts_with(b"HTTP/1.1 200");
    Ok((stream, good))
}

pub fn resident_mib(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    let kib: f64 = line
        .split_whitespace()
        .next()
        .context("an empty VmRSS")?
        .parse()?;
    Ok(kib / 1024.0)
}
