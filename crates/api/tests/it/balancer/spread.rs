//! Each way to choose a process, as `HOLDFAST_BALANCE` and weights set it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use nix::sys::signal::Signal;

use super::{
    haproxy::{Haproxy, SERVED_BY},
    load::Load,
    stocked, three,
};
use crate::{service::database, wire::Wire};

const EQUAL: [u32; 3] = [100, 100, 100];
/// What a share may be beside what it should be, in percent of all requests.
const TOLERANCE: f64 = 2.0;

#[tokio::test]
async fn haproxy_shares_requests_in_turn_and_by_weight() {
    let database = database().await;
    let products = stocked(&database).await;
    let services = three(&database, &[]).await;

    for (weights, wanted) in [
        (EQUAL, [33.3, 33.3, 33.3]),
        ([200, 100, 100], [50.0, 25.0, 25.0]),
        ([100, 50, 10], [62.5, 31.25, 6.25]),
    ] {
        let haproxy = Haproxy::start(&services, weights, &[]).await;
        let load = Load::start(haproxy.public, &products, None);
        let shares = load.shares(1500).await;
        println!("weights {weights:?}: {shares:.1?} %");
        for (name, wanted) in ["one", "two", "three"].into_iter().zip(wanted) {
            assert!((shares[name] - wanted).abs() < TOLERANCE, "{shares:?}");
        }
        let lost = load.stop().await.lost;
        assert!(lost.is_empty(), "{lost:?}");
    }
}

#[tokio::test]
async fn haproxy_prefers_who_has_the_fewest() {
    const SOCKETS: usize = 30;
    let database = database().await;
    let services = three(&database, &[]).await;
    let variables = [("HOLDFAST_BALANCE", "leastconn")];
    let haproxy = Haproxy::start(&services, EQUAL, &variables).await;

    let mut open = BTreeMap::<String, Vec<Wire>>::new();
    for _ in 0..SOCKETS {
        let (by, socket) = websocket(haproxy.public).await;
        open.entry(by).or_default().push(socket);
    }
    let counts: BTreeMap<_, _> = open.iter().map(|(by, open)| (by, open.len())).collect();
    println!("{SOCKETS} WebSockets: {counts:?}");
    assert!(counts.values().all(|count| *count == SOCKETS / 3));

    // In turn, a third of the next would go there.
    drop(open.remove("two"));
    haproxy.sees("two", |server| server.busy == 0).await;
    let mut next = BTreeMap::<String, usize>::new();
    let mut kept = Vec::new();
    for _ in 0..SOCKETS / 3 {
        let (by, socket) = websocket(haproxy.public).await;
        *next.entry(by).or_default() += 1;
        kept.push(socket);
    }
    println!(
        "{} more, after those of `two` were closed: {next:?}",
        kept.len()
    );
    assert_eq!(next.get("two"), Some(&kept.len()), "{next:?}");
}

#[tokio::test]
async fn haproxy_keeps_an_address_with_its_process() {
    let database = database().await;
    let mut services = three(&database, &[]).await;
    let variables = [
        ("HOLDFAST_BALANCE", "source"),
        ("HOLDFAST_CHECK_EVERY", "200ms"),
    ];
    let haproxy = Haproxy::start(&services, EQUAL, &variables).await;

    let first = homes(haproxy.public).await;
    let second = homes(haproxy.public).await;
    assert_eq!(first, second, "on another connection");
    let mut shares = BTreeMap::<&str, usize>::new();
    for by in first.values() {
        *shares.entry(by).or_default() += 1;
    }
    println!("{} addresses: {shares:?}", first.len());
    let fair = first.len() / 3;
    for share in shares.values() {
        assert!(share.abs_diff(fair) < fair / 2, "{shares:?}");
    }

    services[2].signal(Signal::SIGKILL);
    services[2].exited().await;
    haproxy.balances(2).await;
    let without = homes(haproxy.public).await;
    let moved: Vec<_> = first
        .iter()
        .filter(|(from, by)| without[*from] != **by)
        .collect();
    let of: BTreeSet<_> = moved.iter().map(|(_, by)| by.as_str()).collect();
    println!(
        "without `three` {} addresses are elsewhere, all of {of:?}",
        moved.len()
    );
    assert_eq!(of, BTreeSet::from(["three"]));
    assert_eq!(moved.len(), shares["three"]);
}

/// Which process answers each of many addresses of this machine.
async fn homes(address: SocketAddr) -> BTreeMap<IpAddr, String> {
    let mut homes = BTreeMap::new();
    for last in 1..=240 {
        let from = IpAddr::from(Ipv4Addr::new(127, 0, 3, last));
        let mut wire = Wire::connect_from(from, address).await.unwrap();
        let reply = wire.get("/health").await.unwrap();
        homes.insert(from, reply.header(SERVED_BY).unwrap().to_owned());
    }
    homes
}

/// A WebSocket, and the process that has it.
async fn websocket(address: SocketAddr) -> (String, Wire) {
    let mut wire = Wire::connect(address).await.unwrap();
    let headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let reply = wire.call("GET /v1/live", &headers, None).await.unwrap();
    assert_eq!(reply.status, 101, "{reply:?}");
    (reply.header(SERVED_BY).unwrap().to_owned(), wire)
}
