//! What happens when more is asked than can be done: `make load`. Requests arrive at multiples of the peak that the same process
//! reached in the same run; four tenths of the peak are critical throughout, and all that comes on top is sheddable. The
//! control is the same service with `admission.enabled = false`: if that does not collapse, the load is none.

mod chart;
mod page;

use std::{fs, net::SocketAddr, process::Command, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use devstack::Stack;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};

use super::{
    contender::{Server, Servers, ids_file},
    generator::{Fire, Shot, fire},
    load::cpu_microseconds,
};

/// Multiples of the peak.
const LOADS: [f64; 8] = [0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0];
/// Those that the control has to bear.
const CONTROL_LOADS: [f64; 4] = [0.5, 1.0, 1.5, 4.0];
const STORM: f64 = 10.0;
/// Until when an answer is of use, from when its request was due.
const SLO: Duration = Duration::from_millis(100);
/// The critical part of the peak.
const CRITICAL: f64 = 0.4;
const LENGTH: Duration = Duration::from_secs(8);
/// How long each load lasts before it is measured.
const WARM_UP: Duration = Duration::from_secs(3);
/// Connections of all clients, and those that find the peak.
const CONNECTIONS: usize = 1500;
const PEAK_CONNECTIONS: usize = 32;
const KEY: &str = "the key of the load generator in a bench";

/// All that was measured.
struct Overload {
    /// Answers per second, at the most.
    peak: f64,
    /// Microseconds of the server's CPU for a read, and for a refusal.
    read: f64,
    refusal: f64,
    guarded: Vec<Step>,
    control: Vec<Step>,
    storm: Storm,
}

/// What came of one load, by the peak.
struct Step {
    load: f64,
    goodput: f64,
    /// Of critical requests in time, of all critical.
    critical: f64,
    sheddable: f64,
    refused: f64,
    /// Of critical requests, and of refusals.
    p99: Duration,
    refusal_p99: Duration,
}

struct Storm {
    /// Requests per second that were sent, by the peak.
    sent: f64,
    critical: f64,
    health_max: Duration,
    /// From the end of the storm until a second was good again.
    recovery: Option<Duration>,
}

/// Measures and writes the page's section and the chart.
pub async fn run() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let stack = Stack::start().await?;
    let servers = Servers::prepare(&stack).await?;
    stay_on_core(1)?;
    let measured = measure(&servers).await?;
    chart::write(&measured)?;
    page::write(&measured)?;
    let collapsed = measured.control.iter().filter(|step| step.load > 1.0);
    for step in collapsed {
        ensure!(
            step.goodput < 0.2,
            "without admission {}x was borne: the load is none",
            step.load
        );
    }
    Ok(())
}

async fn measure(servers: &Servers) -> anyhow::Result<Overload> {
    let (server, admin) = start(servers, &[]).await?;
    let (peak, read) = closed_loop(&server).await?;
    println!("peak {peak:.0}/s, {read:.1} µs of CPU for a read");
    let refusal = refusal_cost(servers, read).await?;
    println!("{refusal:.1} µs of CPU for a refusal");
    let mut guarded = Vec::new();
    for load in LOADS {
        guarded.push(step(&server, load, peak).await);
    }
    let storm = storm(&server, admin, peak).await?;
    drop(server);
    let (server, _) = start(
        servers,
        &[("HOLDFAST__ADMISSION__ENABLED", "false".to_owned())],
    )
    .await?;
    closed_loop(&server).await?;
    let mut control = Vec::new();
    for load in CONTROL_LOADS {
        control.push(step(&server, load, peak).await);
    }
    Ok(Overload {
        peak,
        read,
        refusal,
        guarded,
        control,
        storm,
    })
}

async fn start(
    servers: &Servers,
    settings: &[(&str, String)],
) -> anyhow::Result<(Server, SocketAddr)> {
    let admin = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let own = [
        ("HOLDFAST__ADMIN__LISTEN", admin.to_string()),
        ("HOLDFAST__HTTP__CALLER_KEYS", KEY.to_owned()),
    ];
    let server = servers.start_with(&[&own, settings].concat()).await?;
    Ok((server, admin))
}

/// The most that the server answers, and what each answer costs it.
async fn closed_loop(server: &Server) -> anyhow::Result<(f64, f64)> {
    let mut load = plan(server, 1e9, 5_000, CRITICAL)?;
    load.connections = PEAK_CONNECTIONS;
    let mut rate = 0.0;
    let mut cost = 0.0;
    // The first round opens connections and tells how many make the second one long enough.
    for _ in 0..2 {
        let (begun, before) = (Instant::now(), cpu_microseconds(server.pid())?);
        let shots = fire(&load).await;
        let seconds = begun.elapsed().as_secs_f64();
        let good = shots.iter().filter(|shot| shot.status == 200).count();
        ensure!(good == shots.len(), "some answers were not good");
        rate = good as f64 / seconds;
        cost = (cpu_microseconds(server.pid())? - before) / good as f64;
        load.count = (rate * LENGTH.as_secs_f64()) as usize;
    }
    Ok((rate, cost))
}

/// What a refusal costs a server that does one thing at a time and refuses the rest.
async fn refusal_cost(servers: &Servers, read: f64) -> anyhow::Result<f64> {
    let one = |key| (key, "1".to_owned());
    let settings = [
        one("HOLDFAST__ADMISSION__LIMIT_MIN"),
        one("HOLDFAST__ADMISSION__LIMIT_INITIAL"),
        one("HOLDFAST__ADMISSION__LIMIT_MAX"),
        ("HOLDFAST__ADMISSION__QUEUE_MAX", "0".to_owned()),
    ];
    let (server, _) = start(servers, &settings).await?;
    let mut load = plan(&server, 1e9, 100_000, 0.0)?;
    load.connections = PEAK_CONNECTIONS;
    let before = cpu_microseconds(server.pid())?;
    let shots = fire(&load).await;
    let spent = cpu_microseconds(server.pid())? - before;
    let good = shots.iter().filter(|shot| shot.status == 200).count();
    let refused = shots.iter().filter(|shot| is_refusal(shot)).count();
    ensure!(
        good + refused == shots.len() && refused > good,
        "{good} answers and {refused} refusals of {}",
        shots.len()
    );
    Ok((spent - read * good as f64) / refused as f64)
}

async fn step(server: &Server, load: f64, peak: f64) -> Step {
    let rate = load * peak;
    let count = |length: Duration| (rate * length.as_secs_f64()) as usize;
    let plan = plan(
        server,
        rate,
        count(WARM_UP + LENGTH),
        (CRITICAL / load).min(1.0),
    );
    let shots = fire(&plan.expect("the ids were read before")).await;
    let shots: Vec<_> = shots
        .into_iter()
        .filter(|shot| shot.due >= WARM_UP)
        .collect();
    let step = Step::of(load, &shots);
    println!("{step}");
    // What is left of one load is no part of the next.
    sleep(Duration::from_secs(1)).await;
    step
}

impl Step {
    fn of(load: f64, shots: &[Shot]) -> Self {
        let part = |wanted: &dyn Fn(&Shot) -> bool, of: &dyn Fn(&Shot) -> bool| {
            let all = shots.iter().filter(|shot| of(shot));
            let (wanted, all) = all.fold((0.0, 0.0), |(some, all), shot| {
                (some + f64::from(u8::from(wanted(shot))), all + 1.0)
            });
            wanted / f64::max(all, 1.0)
        };
        Self {
            load,
            goodput: load * part(&is_good, &|_| true),
            critical: part(&is_good, &|shot| shot.is_critical),
            sheddable: part(&is_good, &|shot| !shot.is_critical),
            refused: part(&is_refusal, &|_| true),
            p99: p99(shots, |shot| shot.is_critical && shot.status == 200),
            refusal_p99: p99(shots, is_refusal),
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:>5}x: goodput {:.2}, critical {:.2} %, sheddable {:.1} %, refused {:.1} %, p99 {:?}, of refusals {:?}",
            self.load,
            self.goodput,
            100.0 * self.critical,
            100.0 * self.sheddable,
            100.0 * self.refused,
            self.p99,
            self.refusal_p99
        )
    }
}

/// Ten times the peak, `/health` all along, and then half of it until all is well.
async fn storm(server: &Server, admin: SocketAddr, peak: f64) -> anyhow::Result<Storm> {
    let seconds = 10.0;
    let rate = STORM * peak;
    let load = plan(server, rate, (rate * seconds) as usize, CRITICAL / STORM)?;
    let begun = Instant::now();
    let mut health_max = Duration::ZERO;
    let shots = {
        let mut firing = std::pin::pin!(fire(&load));
        loop {
            let asked = Instant::now();
            tokio::select! {
                shots = &mut firing => break shots,
                healthy = health(admin) => healthy?,
            }
            health_max = health_max.max(asked.elapsed());
            tokio::select! {
                shots = &mut firing => break shots,
                () = sleep(Duration::from_millis(50)) => {}
            }
        }
    };
    let sent = shots.len() as f64 / begun.elapsed().as_secs_f64() / peak;
    let critical = Step::of(STORM, &shots).critical;
    let after = fire(&plan(
        server,
        0.5 * peak,
        (0.5 * peak * seconds) as usize,
        0.8,
    )?)
    .await;
    let recovery = (0..10).map(Duration::from_secs).find(|from| {
        let second = after
            .iter()
            .filter(|shot| (shot.due.as_secs()) == from.as_secs());
        let (good, all) = second.fold((0, 0), |(good, all), shot| {
            (good + usize::from(is_good(shot)), all + 1)
        });
        good * 100 >= all * 99
    });
    let storm = Storm {
        sent,
        critical,
        health_max,
        recovery,
    };
    println!(
        "storm: {sent:.1}x sent, critical {:.2} %, /health {health_max:?} at most, good again in the second from {recovery:?}",
        100.0 * critical
    );
    Ok(storm)
}

async fn health(admin: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(admin).await?;
    let request = "GET /health HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(())
}

fn plan(server: &Server, rate: f64, count: usize, critical: f64) -> anyhow::Result<Fire> {
    let ids = fs::read_to_string(ids_file())?;
    let requests = |criticality: &str| -> Arc<[Vec<u8>]> {
        let one = |id: &str| {
            let head = format!(
                "GET /v1/products/{id} HTTP/1.1\r\nHost: shop\r\nCaller-Key: {KEY}\r\nRequest-Criticality: {criticality}\r\n\r\n"
            );
            head.into_bytes()
        };
        ids.lines().map(one).collect()
    };
    Ok(Fire {
        address: server.address,
        rate,
        count,
        connections: CONNECTIONS,
        critical,
        critical_requests: requests("critical"),
        sheddable_requests: requests("sheddable"),
    })
}

fn is_good(shot: &Shot) -> bool {
    shot.status == 200 && shot.took <= SLO
}

fn is_refusal(shot: &Shot) -> bool {
    shot.status == 503 && shot.says_when
}

fn p99(shots: &[Shot], wanted: impl Fn(&Shot) -> bool) -> Duration {
    let wanted = shots.iter().filter(|shot| wanted(shot));
    let mut times: Vec<_> = wanted.map(|shot| shot.took).collect();
    times.sort();
    times
        .get(times.len() * 99 / 100)
        .copied()
        .unwrap_or_default()
}

/// Keeps this process off the server's core; children that run already are not moved.
fn stay_on_core(core: usize) -> anyhow::Result<()> {
    let pid = std::process::id().to_string();
    let output = Command::new("taskset")
        .args(["-a", "-c", "-p", &core.to_string(), &pid])
        .output()
        .context("taskset cannot be run")?;
    ensure!(output.status.success(), "taskset: {output:?}");
    Ok(())
}
