//! What happens when more is asked than can be done: `make overload`. Requests arrive at multiples of the peak that the same process
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
    awake::Awake,
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
/// How long the peak is looked at again between loads: what a shared machine can do drifts by half within minutes.
const PEAK_LENGTH: Duration = Duration::from_secs(3);
/// Connections of all clients, and those that find the peak.
const CONNECTIONS: usize = 1500;
const PEAK_CONNECTIONS: usize = 32;
const KEY: &str = "the key of the load generator in a bench";

/// All that was measured.
struct Overload {
    /// Answers per second, at the most.
    peak: f64,
    /// Microseconds of the server's CPU for a product, for a page of them, and for a refusal.
    product: f64,
    page: f64,
    refusal: f64,
    guarded: Vec<Step>,
    control: Vec<Step>,
    storm: Storm,
}

/// What came of one load, by the peak.
struct Step {
    load: f64,
    /// The load by the peak as it was just before and after.
    sent: f64,
    goodput: f64,
    /// Of critical requests in time, of all critical.
    critical: f64,
    sheddable: f64,
    refused: f64,
    /// Of critical requests, and of refusals.
    p99: Duration,
    refusal_p99: Duration,
    /// 99 of 100 requests were sent no later than this after they were due.
    late_p99: Duration,
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
    // What is started from here on inherits it: Postgres shares the generator's core, and the server has the other for itself.
    stay_on_core(1)?;
    let _awake = Awake::keep(2)?;
    let stack = Stack::start().await?;
    let servers = Servers::prepare(&stack).await?;
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
    let products = closed_loop(&server, Read::Product, Count::Cold).await?;
    let products = closed_loop(&server, Read::Product, products.count(LENGTH)).await?;
    println!("products: {products}");
    let pages = closed_loop(&server, Read::Page, Count::Cold).await?;
    let pages = closed_loop(&server, Read::Page, pages.count(LENGTH)).await?;
    println!("pages: {pages}");
    let refusal = refusal_cost(servers, pages.cost).await?;
    println!("{refusal:.1} µs of CPU for a refusal");

    let mut guarded = Vec::new();
    let mut before = pages;
    for load in LOADS {
        let rate = load * before.rate;
        let shots = shoot(&server, rate, CRITICAL / load).await?;
        let after = closed_loop(&server, Read::Page, before.count(PEAK_LENGTH)).await?;
        let peak = f64::midpoint(before.rate, after.rate);
        guarded.push(Step::of(load, rate / peak, &shots));
        println!("{}, by a peak of {peak:.0}/s", guarded[guarded.len() - 1]);
        before = after;
    }
    let storm = storm(&server, admin, before.rate).await?;
    drop(server);

    let off = ("HOLDFAST__ADMISSION__ENABLED", "false".to_owned());
    let (server, _) = start(servers, &[off]).await?;
    closed_loop(&server, Read::Page, Count::Cold).await?;
    let before = closed_loop(&server, Read::Page, before.count(PEAK_LENGTH)).await?;
    let mut control = Vec::new();
    for load in CONTROL_LOADS {
        let shots = shoot(&server, load * before.rate, CRITICAL / load).await?;
        control.push(Step::of(load, load, &shots));
        println!("{}, without admission", control[control.len() - 1]);
    }
    Ok(Overload {
        peak: pages.rate,
        product: products.cost,
        page: pages.cost,
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

/// What a server did for clients that each ask again as soon as they are answered.
#[derive(Clone, Copy)]
struct Closed {
    /// Answers per second.
    rate: f64,
    /// Microseconds of the server's CPU for each.
    cost: f64,
}

impl Closed {
    /// So many requests take about `length`.
    fn count(self, length: Duration) -> Count {
        Count::Warm((self.rate * length.as_secs_f64()) as usize)
    }
}

#[derive(Clone, Copy)]
enum Count {
    /// Enough to open connections and to guess the rate.
    Cold,
    Warm(usize),
}

impl Count {
    fn requests(self) -> usize {
        match self {
            Self::Cold => 3_000,
            Self::Warm(count) => count,
        }
    }
}

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0}/s, {:.1} µs of CPU for each", self.rate, self.cost)
    }
}

/// The most that the server answers, and what each answer costs it.
async fn closed_loop(server: &Server, read: Read, count: Count) -> anyhow::Result<Closed> {
    let mut load = plan(server, read, 1e9, count.requests(), CRITICAL)?;
    load.connections = PEAK_CONNECTIONS;
    let (begun, before) = (Instant::now(), cpu_microseconds(server.pid())?);
    let shots = fire(&load).await;
    let seconds = begun.elapsed().as_secs_f64();
    let spent = cpu_microseconds(server.pid())? - before;
    let good = shots.iter().filter(|shot| shot.status == 200).count();
    let closed = Closed {
        rate: good as f64 / seconds,
        cost: spent / good as f64,
    };
    let busy = spent / seconds / 1e6;
    // While it is cold, some wait too long for a connection; after an overload, some are still refused.
    ensure!(
        matches!(count, Count::Cold) || good * 2 > shots.len() && busy > 0.8,
        "{good} of {} answers were good, and the server was busy for {busy:.2} of the time: that is not its peak",
        shots.len()
    );
    Ok(closed)
}

/// What a refusal costs a server that does one thing at a time and refuses the rest.
async fn refusal_cost(servers: &Servers, page: f64) -> anyhow::Result<f64> {
    let one = |key| (key, "1".to_owned());
    let settings = [
        one("HOLDFAST__ADMISSION__LIMIT_MIN"),
        one("HOLDFAST__ADMISSION__LIMIT_INITIAL"),
        one("HOLDFAST__ADMISSION__LIMIT_MAX"),
        ("HOLDFAST__ADMISSION__QUEUE_MAX", "0".to_owned()),
    ];
    let (server, _) = start(servers, &settings).await?;
    let mut load = plan(&server, Read::Page, 1e9, 100_000, 0.0)?;
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
    Ok((spent - page * good as f64) / refused as f64)
}

/// Sends `rate` requests a second, and gives what came of them after a while.
async fn shoot(server: &Server, rate: f64, critical: f64) -> anyhow::Result<Vec<Shot>> {
    let count = rate * (WARM_UP + LENGTH).as_secs_f64();
    let plan = plan(server, Read::Page, rate, count as usize, critical.min(1.0))?;
    let mut shots = fire(&plan).await;
    shots.retain(|shot| shot.due >= WARM_UP);
    // What is left of one load is no part of the next.
    sleep(Duration::from_secs(1)).await;
    Ok(shots)
}

impl Step {
    /// Of `shots` that were meant to come at `load` times the peak, and came at `sent` times what the peak then was.
    fn of(load: f64, sent: f64, shots: &[Shot]) -> Self {
        let part = |wanted: &dyn Fn(&Shot) -> bool, of: &dyn Fn(&Shot) -> bool| {
            let all = shots.iter().filter(|shot| of(shot));
            let (wanted, all) = all.fold((0.0, 0.0), |(some, all), shot| {
                (some + f64::from(u8::from(wanted(shot))), all + 1.0)
            });
            wanted / f64::max(all, 1.0)
        };
        Self {
            load,
            sent,
            goodput: sent * part(&is_good, &|_| true),
            critical: part(&is_good, &|shot| shot.is_critical),
            sheddable: part(&is_good, &|shot| !shot.is_critical),
            refused: part(&is_refusal, &|_| true),
            p99: p99(shots, took, |shot| shot.is_critical && shot.status == 200),
            refusal_p99: p99(shots, took, is_refusal),
            late_p99: p99(shots, |shot| shot.late, |_| true),
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:>5}x ({:.2}x): goodput {:.2}, critical {:.2} %, sheddable {:.1} %, refused {:.1} %, p99 {:.1?}, of refusals {:.1?}, sent late by {:.1?}",
            self.load,
            self.sent,
            self.goodput,
            100.0 * self.critical,
            100.0 * self.sheddable,
            100.0 * self.refused,
            self.p99,
            self.refusal_p99,
            self.late_p99
        )
    }
}

/// Ten times the peak, `/health` all along, and then half of it until all is well.
async fn storm(server: &Server, admin: SocketAddr, peak: f64) -> anyhow::Result<Storm> {
    let seconds = 10.0;
    let rate = STORM * peak;
    let count = (rate * seconds) as usize;
    let load = plan(server, Read::Page, rate, count, CRITICAL / STORM)?;
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
    let critical = Step::of(STORM, STORM, &shots).critical;
    let after = fire(&plan(
        server,
        Read::Page,
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

/// What is asked for. A page costs the server several times what it costs Postgres, which has its core to share.
#[derive(Clone, Copy)]
enum Read {
    Product,
    Page,
}

impl Read {
    fn paths(self) -> anyhow::Result<Vec<String>> {
        Ok(match self {
            Self::Page => vec!["/v1/products?limit=50".to_owned()],
            Self::Product => fs::read_to_string(ids_file())?
                .lines()
                .map(|id| format!("/v1/products/{id}"))
                .collect(),
        })
    }
}

fn plan(
    server: &Server,
    read: Read,
    rate: f64,
    count: usize,
    critical: f64,
) -> anyhow::Result<Fire> {
    let paths = read.paths()?;
    let requests = |criticality: &str| -> Arc<[Vec<u8>]> {
        let one = |path: &str| {
            let head = format!(
                "GET {path} HTTP/1.1\r\nHost: shop\r\nAccept-Encoding: gzip\r\nCaller-Key: {KEY}\r\n\
                 Request-Criticality: {criticality}\r\n\r\n"
            );
            head.into_bytes()
        };
        paths.iter().map(|path| one(path)).collect()
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

fn took(shot: &Shot) -> Duration {
    shot.took
}

fn p99(
    shots: &[Shot],
    time: impl Fn(&Shot) -> Duration,
    wanted: impl Fn(&Shot) -> bool,
) -> Duration {
    let wanted = shots.iter().filter(|shot| wanted(shot));
    let mut times: Vec<_> = wanted.map(time).collect();
    times.sort();
    times
        .get(times.len() * 99 / 100)
        .copied()
        .unwrap_or_default()
}

/// Keeps this process and what it starts off the server's core.
fn stay_on_core(core: usize) -> anyhow::Result<()> {
    let pid = std::process::id().to_string();
    let output = Command::new("taskset")
        .args(["-a", "-c", "-p", &core.to_string(), &pid])
        .output()
        .context("taskset cannot be run")?;
    ensure!(output.status.success(), "taskset: {output:?}");
    Ok(())
}
