//! A process that is told to end loses nothing, says so to its balancers, and is gone in time.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    service::{PATIENCE, Service, command, database},
    wire::{Wire, get},
};

#[tokio::test]
async fn readiness_goes_first_and_liveness_stays_to_the_end() {
    let database = database().await;
    let mut service = Service::start(&database, &[("HOLDFAST__SHUTDOWN__LAME_DUCK", "2s")]).await;

    service.signal(Signal::SIGTERM);
    service.logged("draining").await;

    let ready = get(service.admin, "/ready").await;
    assert_eq!(ready.status, 503);
    assert!(
        ready.body.contains(r#""reason":"draining""#),
        "{}",
        ready.body
    );
    assert_eq!(get(service.admin, "/health").await.status, 200);
    let answered = get(service.public, "/health").await;
    assert!(answered.status == 200 && answered.closes(), "{answered:?}");
    assert_eq!(service.exited().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    let database = database().await;
    let mut service = Service::start(&database, &[("HOLDFAST__SHUTDOWN__LAME_DUCK", "10s")]).await;

    service.signal(Signal::SIGTERM);
    service.logged("draining").await;
    service.signal(Signal::SIGINT);

    assert_eq!(service.exited().await.code(), Some(1));
    assert!(!service.log().contains("closing"), "{}", service.log());
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_the_process_up() {
    let database = database().await;
    let service = Service::start(&database, &[]).await;
    let mut idle = Wire::connect(service.public).await.unwrap();
    idle.get("/health").await.unwrap();

    assert_eq!(service.stop().await, Some(0));
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_and_reported_by_the_exit_code() {
    let database = database().await;
    let settings = [
        ("HOLDFAST__SHUTDOWN__DRAIN_TIMEOUT", "700ms"),
        ("HOLDFAST__HTTP__READ_DEADLINE", "500ms"),
        ("HOLDFAST__HTTP__WRITE_DEADLINE", "600ms"),
        ("HOLDFAST__POSTGRES__STATEMENT_TIMEOUT", "450ms"),
        ("HOLDFAST__POSTGRES__CONNECT_TIMEOUT", "440ms"),
        ("HOLDFAST__POSTGRES__LOCK_TIMEOUT", "400ms"),
        ("HOLDFAST__HTTP__FIRST_BYTE_TIMEOUT", "600ms"),
        ("HOLDFAST__HTTP__HEAD_TIMEOUT", "600ms"),
        ("HOLDFAST__SESSIONS__PASSWORDS__WAIT", "500ms"),
        ("HOLDFAST__LIVE__DRAIN_WINDOW", "100ms"),
        ("HOLDFAST__LIVE__CLOSE_TIMEOUT", "100ms"),
        ("HOLDFAST__LIVE__RESUME_TIMEOUT", "100ms"),
    ];
    let service = Service::start(&database, &settings).await;
    // A client that reads nothing of a response larger than the socket buffers keeps its request unfinished.
    let mut stuck = Vec::new();
    for _ in 0..20 {
        let mut wire = Wire::connect(service.public).await.unwrap();
        wire.send(&"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: shop\r\n\r\n".repeat(20))
            .await;
        stuck.push(wire);
    }
    let answered = || service.log().matches("/docs/").count();
    // While they are drained only one more answer is begun on each, and that may fit into the socket's buffers.
    loop {
        let before = answered();
        tokio::time::sleep(Duration::from_millis(300)).await;
        if before > 0 && answered() == before {
            break;
        }
    }

    assert_eq!(service.stop().await, Some(1));
}

#[tokio::test]
async fn twenty_restarts_under_keep_alive_load_lose_no_request() {
    const RESTARTS: usize = 20;
    let database = database().await;
    let mut service = Service::start(&database, &[]).await;
    let address = service.public;
    let load = Load::start(address, 16);

    for _ in 0..RESTARTS {
        load.answered_more(200).await;
        assert_eq!(service.stop().await, Some(0));
        service = Service::start(
            &database,
            &[("HOLDFAST__HTTP__LISTEN", &address.to_string())],
        )
        .await;
    }

    let (answered, lost) = load.stop().await;
    println!("{answered} requests answered over {RESTARTS} restarts, {lost} lost");
    assert_eq!(lost, 0);
}

#[tokio::test]
async fn an_order_to_end_that_comes_while_the_process_starts_is_obeyed() {
    const STARTS: usize = 10;
    let (services, database) = (devstack::shared().await, database().await);
    let mut deaf = Duration::ZERO;

    for _ in 0..STARTS {
        let mut child = command(&["serve"], services, &database, &[])
            .spawn()
            .unwrap();
        let pid = child.id().unwrap();
        let spawned = Instant::now();
        while !catches_sigterm(pid) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        deaf = deaf.max(spawned.elapsed());
        kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGTERM).unwrap();
        let ended = tokio::time::timeout(PATIENCE, child.wait())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(ended.code(), Some(0), "{ended}");
    }

    println!("SIGTERM is heeded {deaf:?} after the start, at the latest");
}

/// Whether the process has installed its handler (proc(5), `SigCgt`).
fn catches_sigterm(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let caught = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:\t"))
        .unwrap();
    u64::from_str_radix(caught, 16).unwrap() & 1 << (Signal::SIGTERM as u64 - 1) != 0
}

/// Clients that keep their connections, reconnect when told to, and count every request that was sent and never
/// answered.
struct Load {
    clients: JoinSet<()>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    answered: AtomicUsize,
    lost: AtomicUsize,
    stop: AtomicBool,
}

impl Load {
    fn start(address: SocketAddr, clients: usize) -> Self {
        let counts = Arc::new(Counts::default());
        let one = |_| client(address, Arc::clone(&counts));
        Self {
            clients: (0..clients).map(one).collect(),
            counts,
        }
    }

    async fn answered_more(&self, requests: usize) {
        let target = self.counts.answered.load(Ordering::Relaxed) + requests;
        while self.counts.answered.load(Ordering::Relaxed) < target {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stop(self) -> (usize, usize) {
        self.counts.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await;
        (
            self.counts.answered.load(Ordering::Relaxed),
            self.counts.lost.load(Ordering::Relaxed),
        )
    }
}

async fn client(address: SocketAddr, counts: Arc<Counts>) {
    let mut kept = None;
    while !counts.stop.load(Ordering::Relaxed) {
        let wire = match kept.take() {
            Some(wire) => Ok(wire),
            None => Wire::connect(address).await,
        };
        let Ok(mut wire) = wire else {
            // Nobody listens between two processes; nothing was sent, so nothing is lost.
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        match wire.get("/health").await {
            Ok(reply) => {
                counts.answered.fetch_add(1, Ordering::Relaxed);
                kept = (!reply.closes()).then_some(wire);
            }
            Err(_) => {
                counts.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
