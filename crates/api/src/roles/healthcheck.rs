//! `holdfast healthcheck`: a probe for images that hold no shell and no curl.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::settings::Settings;

/// A probe that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(2);
/// More than any answer of the probes.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

#[derive(clap::Args)]
pub struct Args {
    /// Ask whether it is ready for requests instead of whether it is alive
    #[arg(long)]
    ready: bool,
}

pub async fn run(args: &Args, settings: &Settings) -> anyhow::Result<ExitCode> {
    let path = if args.ready { "/ready" } else { "/health" };
    let address = reachable(settings.admin.listen);
    let answer = timeout(PATIENCE, get(address, path))
        .await
        .with_context(|| format!("no answer from http://{address}{path} within {PATIENCE:?}"))?
        .with_context(|| format!("cannot ask http://{address}{path}; is the service running?"))?;
    if !answer.starts_with("HTTP/1.1 200 ") {
        bail!(
            "http://{address}{path} says {}",
            answer.lines().next().unwrap_or("nothing")
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// A listener bound to every address is asked on the loopback one.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let loopback = if address.is_ipv4() {
            "127.0.0.1"
        } else {
            "::1"
        };
        address.set_ip(loopback.parse().expect("a literal address"));
    }
    address
}

async fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_string(&mut answer)
        .await?;
    Ok(answer)
}
