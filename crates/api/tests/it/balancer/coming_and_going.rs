//! Processes that are away for a while, one way or another, and clients who do not notice.

use std::net::SocketAddr;

use devstack::{Fault, Stack, Target};
use nix::sys::signal::Signal;
use sqlx::{Connection, PgConnection};
use tokio::time::{Duration, Instant, sleep};

use super::{haproxy::Haproxy, load::Load, stocked, three};
use crate::{
    service::{CUSTOMER, PATIENCE, PATIENT, Service, database},
    wire::{get, sign_in},
};

const EQUAL: [u32; 3] = [100, 100, 100];
/// As the file has it, and the slow start shorter than there.
const CHECK_EVERY: Duration = Duration::from_secs(1);
const SLOW_START: (&str, &str) = ("HOLDFAST_SLOW_START", "3s");

#[tokio::test]
async fn haproxy_leaves_one_that_fails_and_comes_back_slowly() {
    let (database, stack) = tokio::join!(database(), Stack::start());
    let stack = stack.unwrap();
    let products = stocked(&database).await;
    let mut services = three(&database, &[]).await;
    // The third one has a Redis of its own, and is not ready without it.
    let redis = stack.redis_url();
    let needy = [
        ("HOLDFAST__REDIS__URL", &*redis),
        ("HOLDFAST__ADMIN__REQUIRED", "redis"),
    ];
    services[2] = Service::start(&database, &[&PATIENT[..], &needy].concat()).await;
    services[2].ready().await;
    let haproxy = Haproxy::start(&services, EQUAL, &[SLOW_START]).await;
    let load = Load::start(haproxy.public, &products, None);
    load.more(200).await;

    stack.proxy(Target::Redis).set(Fault::Down).await;
    says(services[2].admin, 503).await;
    let since = Instant::now();
    haproxy.balances(2).await;
    let left = since.elapsed();
    // What was under way there is finished there.
    load.more(50).await;
    let shares = load.shares(300).await;
    println!("not ready: left after {left:?} of a check each {CHECK_EVERY:?}; then {shares:.1?} %");
    assert_eq!(shares.get("three").copied().unwrap_or(0.0), 0.0);
    // Twice as long as it may take, for a machine that is busy.
    assert!(left < 2 * CHECK_EVERY, "{left:?}");

    stack.proxy(Target::Redis).clear().await;
    says(services[2].admin, 200).await;
    let since = Instant::now();
    haproxy.balances(3).await;
    let back = since.elapsed();
    let weight = haproxy.servers().await["three"].weight;
    let shares = load.shares(100).await;
    println!("ready: back after {back:?}, first with a weight of {weight}, {shares:.1?} %");
    assert!(weight < 100, "a slow start");
    haproxy.sees("three", |server| server.weight == 100).await;
    let shares = load.shares(600).await;
    println!("{:?} later: {shares:.1?} %", since.elapsed() - back);
    assert!((shares["three"] - 33.3).abs() < 3.0, "{shares:?}");

    let outcome = load.stop().await;
    println!("{} answered, lost {:?}", outcome.answered, outcome.lost);
    assert!(outcome.lost.is_empty());
}

#[tokio::test]
async fn one_that_is_killed_behind_haproxy_costs_no_request() {
    let database = database().await;
    let products = stocked(&database).await;
    let mut services = three(&database, &[]).await;
    let haproxy = Haproxy::start(&services, EQUAL, &[SLOW_START]).await;
    let customer = sign_in(haproxy.public, CUSTOMER).await.to_vec();
    let load = Load::start(haproxy.public, &products, Some(&customer));
    load.more(200).await;

    for doomed in (0..3).rev() {
        services[doomed].signal(Signal::SIGKILL);
        let since = Instant::now();
        haproxy.balances(2).await;
        println!("killed: left after {:?}", since.elapsed());
        services[doomed].exited().await;
        load.more(100).await;
        services[doomed] = again(&database, &services[doomed], &[]).await;
        haproxy.balances(3).await;
    }

    none_lost(load, &database).await;
}

#[tokio::test]
async fn twenty_rolling_restarts_behind_haproxy_cost_no_request() {
    const RESTARTS: usize = 20;
    // Three checks fit into it, as they do with what is deployed.
    const LAME_DUCK: (&str, &str) = ("HOLDFAST__SHUTDOWN__LAME_DUCK", "600ms");
    let database = database().await;
    let products = stocked(&database).await;
    let mut services = three(&database, &[LAME_DUCK]).await;
    let variables = [
        ("HOLDFAST_CHECK_EVERY", "200ms"),
        ("HOLDFAST_SLOW_START", "1s"),
    ];
    let haproxy = Haproxy::start(&services, EQUAL, &variables).await;
    let customer = sign_in(haproxy.public, CUSTOMER).await.to_vec();
    let load = Load::start(haproxy.public, &products, Some(&customer));

    for restart in 0..RESTARTS {
        load.more(50).await;
        let old = &mut services[restart % 3];
        old.signal(Signal::SIGTERM);
        assert_eq!(old.exited().await.code(), Some(0));
        haproxy.balances(2).await;
        services[restart % 3] = again(&database, &services[restart % 3], &[LAME_DUCK]).await;
        haproxy.balances(3).await;
    }

    println!("{RESTARTS} restarts");
    none_lost(load, &database).await;
}

/// A new process where another one was.
async fn again(database: &devstack::Database, old: &Service, settings: &[(&str, &str)]) -> Service {
    let (public, admin) = (old.public.to_string(), old.admin.to_string());
    let addresses = [
        ("HOLDFAST__HTTP__LISTEN", &*public),
        ("HOLDFAST__ADMIN__LISTEN", &*admin),
    ];
    Service::start(database, &[&PATIENT[..], settings, &addresses].concat()).await
}

/// Every request was answered, and every order is there once.
async fn none_lost(load: Load, database: &devstack::Database) {
    let outcome = load.stop().await;
    let mut admin = PgConnection::connect(&database.admin_url).await.unwrap();
    let kept = sqlx::query_scalar("select count(*) from orders");
    let kept: i64 = kept.fetch_one(&mut admin).await.unwrap();
    println!(
        "{} answered, {} of them orders, of which {kept} were kept, {} times told to wait for one; lost {:?}",
        outcome.answered, outcome.ordered, outcome.held, outcome.lost
    );
    assert!(outcome.lost.is_empty(), "{:?}", outcome.lost);
    assert_eq!(usize::try_from(kept).unwrap(), outcome.ordered, "each once");
}

/// Waits until `/ready` answers like this.
async fn says(admin: SocketAddr, status: u16) {
    let deadline = Instant::now() + PATIENCE;
    while get(admin, "/ready").await.status != status {
        assert!(Instant::now() < deadline, "/ready does not say {status}");
        sleep(Duration::from_millis(5)).await;
    }
}
