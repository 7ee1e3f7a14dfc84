//! `holdfast healthcheck`: a probe for images that hold no shell and no curl.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::settings::Settings;

/// A probe that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(2);
/// More than any answer of the probes. Of a longer one only the status counts.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

#[derive(clap::Args)]
pub struct Args {
    /// Ask whether it is ready for requests instead of whether it is alive
    #[arg(long)]
    ready: bool,
    /// Ask for this path instead, and expect 200
    #[arg(long, value_name = "PATH", conflicts_with = "ready")]
    path: Option<String>,
    /// Ask the listener there, of any host, instead of the admin listener of this one
    #[arg(long, value_name = "HOST:PORT")]
    at: Option<String>,
    /// Ask a gRPC listener, by gRPC's health protocol
    #[arg(long, requires = "at", conflicts_with_all = ["ready", "path"])]
    grpc: bool,
}

pub async fn run(args: &Args, settings: &Settings) -> anyhow::Result<ExitCode> {
    let at = match &args.at {
        Some(at) => at.clone(),
        None => reachable(settings.admin.listen).to_string(),
    };
    if args.grpc {
        return ask_grpc(&at).await;
    }
    let path = match (&args.path, args.ready) {
        (Some(path), _) => path,
        (None, true) => "/ready",
        (None, false) => "/health",
    };
    let answer = timeout(PATIENCE, get(&at, path))
        .await
        .with_context(|| format!("no answer from http://{at}{path} within {PATIENCE:?}"))?
        .with_context(|| format!("cannot ask http://{at}{path}; is the service running?"))?;
    let head = String::from_utf8_lossy(&answer);
    if !head.starts_with("HTTP/1.1 200 ") {
        bail!(
            "http://{at}{path} says {}",
            head.lines().next().unwrap_or("nothing")
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask_grpc(at: &str) -> anyhow::Result<ExitCode> {
    let exchange = async {
        let channel = Endpoint::new(format!("http://{at}"))?.connect().await?;
        let whole = HealthCheckRequest::default();
        let answer = HealthClient::new(channel).check(whole).await?;
        anyhow::Ok(answer.into_inner().status())
    };
    let status = timeout(PATIENCE, exchange)
        .await
        .with_context(|| format!("no answer from grpc://{at} within {PATIENCE:?}"))?
        .with_context(|| format!("cannot ask grpc://{at}; is the service running?"))?;
    if status != ServingStatus::Serving {
        bail!("grpc://{at} says {}", status.as_str_name());
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

/// The beginning of the answer.
async fn get(at: &str, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(at).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .await?;
    Ok(answer)
}
