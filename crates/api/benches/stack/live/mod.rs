//! What the live feed costs and how fast it is: one message about stock to 10,000 WebSockets of one process on one core.

mod clients;

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context, ensure};
use data::{
    feed::{Event, Feed},
    redis::Redis,
};
use devstack::Stack;
use futures::{StreamExt, TryStreamExt, stream};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use prometheus_client::registry::Registry;
use secrecy::SecretString;
use tokio::{
    sync::mpsc::unbounded_channel,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::clients::{Client, now_us};
use super::{contender::Servers, load::cpu_microseconds, memory::resident_mib, report};

const SOCKETS: usize = 10_000;
/// Messages, and the pause after each: in between all is quiet again.
const MESSAGES: usize = 20;
const PAUSE: Duration = Duration::from_millis(700);
/// Handshakes under way at once.
const OPENING: usize = 64;
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures and writes the page's section.
pub async fn run() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let stack = Stack::start().await?;
    let servers = Servers::prepare(&stack).await?;
    let sockets = (SOCKETS + 100).to_string();
    let server = servers
        .start_with(&[
            ("HOLDFAST__REDIS__URL", stack.redis_direct_url()),
            (
                "HOLDFAST__HTTP__CONNECTIONS_MAX",
                (SOCKETS + 500).to_string(),
            ),
            ("HOLDFAST__LIVE__SOCKETS_MAX", sockets.clone()),
            ("HOLDFAST__LIVE__TENANT_SOCKETS_MAX", sockets),
        ])
        .await?;
    let feed = feed(stack.redis_direct_url()).await?;

    // What the first few cost once is no part of what each costs.
    drop(open(server.address, 100).await?);
    sleep(PAUSE).await;
    let before_mib = resident_mib(server.pid())?;
    let opening = Instant::now();
    let clients = open(server.address, SOCKETS).await?;
    let opened_in = opening.elapsed();
    let open_mib = resident_mib(server.pid())?;

    let before_us = cpu_microseconds(server.pid())?;
    let delays = hear(&feed, clients).await?;
    let cpu_us = cpu_microseconds(server.pid())? - before_us;
    let after_mib = resident_mib(server.pid())?;
    let figures = Figures {
        opened_in,
        open_kib: (open_mib - before_mib) * 1024.0 / SOCKETS as f64,
        told_kib: (after_mib - before_mib) * 1024.0 / SOCKETS as f64,
        cpu_us: cpu_us / delays.len() as f64,
        delays,
    };
    report::put("The live feed", &figures.page()?)
}

struct Figures {
    opened_in: Duration,
    /// Resident memory for each socket, before and after messages.
    open_kib: f64,
    told_kib: f64,
    /// The server's CPU for each message to one socket.
    cpu_us: f64,
    /// In order.
    delays: Vec<Duration>,
}

impl Figures {
    fn page(&self) -> Result<String, std::fmt::Error> {
        let ms = |share: f64| {
            let place = (self.delays.len() - 1) as f64 * share;
            self.delays[place as usize].as_secs_f64() * 1e3
        };
        let mut text = String::new();
        writeln!(
            text,
            "{MESSAGES} messages, one every {} ms, each to {SOCKETS} WebSockets of one process on core 0; the clients and Redis on both\n\
             cores. From before it is published until a client has read it.\n",
            PAUSE.as_millis()
        )?;
        writeln!(text, "| live feed | measured | wanted |\n|---|---:|---|")?;
        writeln!(text, "| T18: fan-out, p99 | {:.1} ms | < 100 |", ms(0.99))?;
        writeln!(
            text,
            "| fan-out, p50 / max | {:.1} / {:.1} ms | |",
            ms(0.5),
            ms(1.0)
        )?;
        writeln!(
            text,
            "| resident for each open socket | {:.1} KiB | ≤ 20 |",
            self.open_kib
        )?;
        writeln!(
            text,
            "| the same after the messages | {:.1} KiB | ≤ 20 |",
            self.told_kib
        )?;
        writeln!(
            text,
            "| the server's CPU for each message to one socket | {:.1} µs | |",
            self.cpu_us
        )?;
        let rate = SOCKETS as f64 / self.opened_in.as_secs_f64();
        writeln!(
            text,
            "| sockets opened, {OPENING} at once | {rate:.0}/s | |"
        )?;
        Ok(text)
    }
}

async fn feed(url: String) -> anyhow::Result<Feed> {
    let config = data::redis::Config {
        url: SecretString::from(url),
        command_timeout: Duration::from_secs(5),
        ..data::redis::Config::default()
    };
    let redis = Redis::new(&config, &mut Registry::default())?;
    let watching = redis.clone().watch(CancellationToken::new());
    #[expect(clippy::disallowed_methods, reason = "ends with the bench")]
    tokio::spawn(watching);
    ensure!(redis.connected(Instant::now() + PATIENCE).await, "no Redis");
    Ok(Feed::new(&data::feed::Config::default(), redis))
}

async fn open(address: std::net::SocketAddr, count: usize) -> anyhow::Result<Vec<Client>> {
    let opening = stream::iter(0..count).map(|_| Client::open(address));
    opening.buffer_unordered(OPENING).try_collect().await
}

/// How long each message took to each client, in order.
async fn hear(feed: &Feed, clients: Vec<Client>) -> anyhow::Result<Vec<Duration>> {
    let (sender, mut delays) = unbounded_channel();
    let mut hearing = JoinSet::new();
    for client in clients {
        hearing.spawn(client.hear(MESSAGES, sender.clone()));
    }
    drop(sender);
    for _ in 0..MESSAGES {
        sleep(PAUSE).await;
        let body = format!(
            r#"{{"product_id":"{}","stock":7,"at_us":{}}}"#,
            Uuid::now_v7(),
            now_us()
        );
        let event = Event {
            id: Uuid::now_v7(),
            key: Uuid::nil(),
            body: &body,
        };
        feed.publish("stock", &[event], Instant::now() + PATIENCE)
            .await?;
    }
    let all = timeout(PATIENCE, hearing.join_all()).await;
    let clients = all.context("some have not heard all")?;
    for client in clients {
        client?;
    }
    let mut all = Vec::with_capacity(SOCKETS * MESSAGES);
    while let Some(delay) = delays.recv().await {
        all.push(delay);
    }
    all.sort();
    Ok(all)
}
