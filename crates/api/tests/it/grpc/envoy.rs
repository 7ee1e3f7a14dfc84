//! The same through a real Envoy, as `deploy/balancer/envoy.yaml` sets it up: clients that know one address and try nothing again.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    time::{Instant, sleep},
};

use super::{
    client::Client,
    stocked,
    work::{Load, PHASE},
};
use crate::{
    service::{PATIENCE, PATIENT, Service, database},
    wire::Wire,
};

/// A process of its own, killed when dropped.
struct Envoy {
    _child: Child,
    admin: SocketAddr,
    listener: SocketAddr,
}

impl Envoy {
    async fn start(processes: &[SocketAddr]) -> Self {
        let told = env::temp_dir().join(format!("holdfast-envoy-{:x}", fastrand::u64(..)));
        let child = Command::new(program())
            .args([
                "--log-level",
                "error",
                "--concurrency",
                "1",
                "--use-dynamic-base-id",
            ])
            .args(["--config-yaml", &config(processes)])
            .arg("--admin-address-path")
            .arg(&told)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let admin = address_in(&told).await;
        let deadline = Instant::now() + PATIENCE;
        let listener = loop {
            // `grpc::127.0.0.1:40123`, once it listens.
            let listeners = ask(admin, "/listeners").await;
            let mut lines = listeners.lines();
            match lines.find_map(|line| line.strip_prefix("grpc::")) {
                Some(address) => break address.parse().unwrap(),
                None => assert!(Instant::now() < deadline, "no listener: {listeners:?}"),
            }
            sleep(Duration::from_millis(20)).await;
        };
        Self {
            _child: child,
            admin,
            listener,
        }
    }

    /// Waits until calls go to so many of its processes.
    async fn balances(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let clusters = ask(self.admin, "/clusters").await;
            let healthy = clusters.matches("::health_flags::healthy").count();
            if healthy == count {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{healthy} are healthy:\n{clusters}"
            );
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The file that is deployed, with ports that the kernel chooses and these processes for those of one name.
fn config(processes: &[SocketAddr]) -> String {
    const ENDPOINT: &str =
        "- endpoint: { address: { socket_address: { address: holdfast, port_value: 8082 } } }";
    let file = include_str!("../../../../../deploy/balancer/envoy.yaml");
    let endpoints: Vec<_> = processes
        .iter()
        .map(|process| {
            let (host, port) = (process.ip().to_string(), process.port().to_string());
            ENDPOINT.replace("holdfast", &host).replace("8082", &port)
        })
        .collect();
    let endpoints = endpoints.join("\n              ");
    let changed = file
        .replace(ENDPOINT, &endpoints)
        .replace(
            "address: 0.0.0.0, port_value: 8083",
            "address: 127.0.0.1, port_value: 0",
        )
        .replace("port_value: 9901", "port_value: 0");
    assert!(!changed.contains("address: holdfast"), "{changed}");
    changed
}

/// Where `make setup` puts it, beside the folder of this program's profile, or on PATH.
fn program() -> PathBuf {
    let own = env::current_exe().unwrap();
    let built = own.ancestors().map(|folder| folder.join("envoy/envoy"));
    let mut built = built.filter(|program| program.is_file());
    built.next().unwrap_or_else(|| "envoy".into())
}

async fn address_in(file: &Path) -> SocketAddr {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let written = fs::read_to_string(file).unwrap_or_default();
        if let Ok(address) = written.trim().parse() {
            fs::remove_file(file).unwrap();
            return address;
        }
        assert!(Instant::now() < deadline, "Envoy does not start");
        sleep(Duration::from_millis(20)).await;
    }
}

/// What the admin listener says, in chunks.
async fn ask(admin: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: envoy\r\nConnection: close\r\n\r\n");
    let wire = Wire::connect(admin).await.unwrap();
    let answer = wire.exchange(request.as_bytes()).await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    body.to_owned()
}

/// A port for a process that comes later.
async fn reserved() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn envoy_spreads_the_calls_of_one_connection() {
    let database = database().await;
    let products = stocked(&database, 200).await;
    let start = || Service::start(&database, &PATIENT);
    let (one, two, mut doomed) = tokio::join!(start(), start(), start());
    for service in [&one, &two, &doomed] {
        service.ready().await;
    }
    let later = reserved().await;
    let envoy = Envoy::start(&[one.rpcs, two.rpcs, doomed.rpcs, later]).await;
    envoy.balances(3).await;
    let client = Client::plain(&[envoy.listener]);
    let load = Load::reading(client, &products);
    load.more(PHASE / 10).await;
    let three = load.spread("three", &[&one, &two, &doomed]).await;

    doomed.signal(Signal::SIGKILL);
    doomed.exited().await;
    load.more(PHASE / 3).await;
    envoy.balances(2).await;
    let without = load.spread("one killed", &[&one, &two]).await;

    let listen = ("HOLDFAST__GRPC__LISTEN", &*later.to_string());
    let new = Service::start(&database, &[&PATIENT[..], &[listen]].concat()).await;
    envoy.balances(3).await;
    let with = load.spread("one added", &[&one, &two, &new]).await;

    let (failed, _) = load.stop().await;
    assert!(failed.is_empty(), "{failed:?}");
    for spread in [three, without, with] {
        assert!(spread < 0.1, "{spread}");
    }
}
