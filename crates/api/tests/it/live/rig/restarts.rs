//! Both processes of a fleet are restarted under their clients.

use std::{net::SocketAddr, time::Duration};

use futures::{StreamExt, stream};
use nix::sys::signal::Signal;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    NOBODY, Scene,
    client::{Heard, Socket, World},
    listening,
};
use crate::service::{PATIENT, Service};

/// Handshakes under way at once while a fleet's clients come.
const OPENING: usize = 32;

/// Restarts both processes of a fleet, one after the other, while things happen and `sockets` clients hear of them. How many came
/// back in the busiest second of each restart, of what comes in a second on average.
pub async fn rolling_restart(sockets: usize, window: Duration) -> [f64; 2] {
    let window_text = format!("{}ms", window.as_millis());
    let settings = [
        ("HOLDFAST__LIVE__DRAIN_WINDOW", window_text.as_str()),
        ("HOLDFAST__LIVE__TENANT_SOCKETS_MAX", "20000"),
        ("HOLDFAST__LIVE__SOCKETS_MAX", "19000"),
        ("HOLDFAST__HTTP__CONNECTIONS_MAX", "19500"),
    ];
    let Scene {
        mut services,
        world,
        database,
    } = Scene::start(2, &settings).await;
    let addresses = [0, 1].map(|process| services[process].public);
    let (came_back, mut moments) = unbounded_channel();
    let mut clients = JoinSet::new();
    let open = |_| Socket::open(addresses[0], "", NOBODY);
    let mut opening = stream::iter(0..sockets).map(open).buffer_unordered(OPENING);
    while let Some(socket) = opening.next().await {
        clients.spawn(stay(socket, addresses, came_back.clone()));
    }
    let (stop, mut happening) = (CancellationToken::new(), JoinSet::new());
    // As much to tell, however many hear of it.
    let pause = Duration::from_micros(200) * u32::try_from(sockets).unwrap();
    happening.spawn(happen(world, pause, stop.clone()));

    let mut peaks = [0.0; 2];
    for process in [0, 1] {
        let ending = &mut services[process];
        ending.signal(Signal::SIGTERM);
        let code = ending.exited().await.code();
        assert_eq!(code, Some(0), "{}", ending.log());
        let came_back = all_back(&mut moments, sockets).await;
        let [second, tenth] =
            [1000, 100].map(|ms| peak(&came_back, Duration::from_millis(ms), window));
        println!(
            "{sockets} sockets over {window:?}: at most {second:.2} of the average rate come back in a second, {tenth:.2} in a tenth"
        );
        peaks[process] = second;
        let listen = addresses[process].to_string();
        let settings = [
            &PATIENT[..],
            &settings,
            &[("HOLDFAST__HTTP__LISTEN", &*listen)],
        ]
        .concat();
        services[process] = Service::start(&database, &settings).await;
        services[process].ready().await;
        listening(&services[process]).await;
    }
    stop.cancel();
    let last = happening.join_next().await.unwrap().unwrap();

    let expected: Vec<u64> = (1..=last).collect();
    let all = clients.join_all().await;
    let complete = all.iter().filter(|numbers| **numbers == expected);
    println!(
        "{} of {} clients have each of {last} messages, once and in order",
        complete.count(),
        all.len()
    );
    let other = all.iter().find(|numbers| **numbers != expected);
    assert_eq!(other, None);
    peaks
}

/// Tells something again and again; the number of the last message, which says that it is.
async fn happen(world: World, pause: Duration, stop: CancellationToken) -> u64 {
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        number += 1;
        world.stock([number]).await;
    }
    world.stock_with(LAST, [number + 1]).await;
    number + 1
}

const LAST: &str = "the last one";

/// A client that hears all there is, and goes to the other process when it is told to; the numbers that it has heard.
async fn stay(
    mut socket: Socket,
    addresses: [SocketAddr; 2],
    came_back: UnboundedSender<Instant>,
) -> Vec<u64> {
    let (mut at, mut after_ms, mut numbers) = (0, 0, Vec::new());
    loop {
        match socket.next().await {
            Heard::Frame(frame) if frame["type"] == "stock" => {
                numbers.push(frame["data"]["n"].as_u64().unwrap());
                if frame["data"]["padding"] == LAST {
                    return numbers;
                }
            }
            Heard::Frame(frame) if frame["type"] == "reconnect" => {
                after_ms = frame["after_ms"].as_u64().unwrap();
            }
            Heard::Frame(frame) => {
                let kind = frame["type"].as_str();
                assert!(matches!(kind, Some("hello" | "token")), "{frame}");
            }
            Heard::Closed(code, reason) => {
                assert_eq!((code, reason.as_str()), (1012, "restart"));
                let Socket { token, stream } = socket;
                drop(stream);
                sleep(Duration::from_millis(after_ms)).await;
                at = 1 - at;
                came_back.send(Instant::now()).unwrap();
                socket = Socket::come_back(addresses[at], token).await;
            }
        }
    }
}

/// When each client came back, in order.
async fn all_back(moments: &mut UnboundedReceiver<Instant>, sockets: usize) -> Vec<Instant> {
    let mut came_back = Vec::with_capacity(sockets);
    while came_back.len() < sockets {
        came_back.push(moments.recv().await.unwrap());
    }
    came_back.sort();
    came_back
}

/// The most that came in any stretch of `length`, of what is the average over the window.
fn peak(moments: &[Instant], length: Duration, window: Duration) -> f64 {
    let average = moments.len() as f64 * length.as_secs_f64() / window.as_secs_f64();
    let within = |start: &Instant| {
        let from = moments.partition_point(|moment| moment < start);
        moments.partition_point(|moment| *moment < *start + length) - from
    };
    let most = moments.iter().map(within).max().unwrap_or_default();
    most as f64 / average
}
