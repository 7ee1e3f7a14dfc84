//! More than the service can do, and clients who do not wait: what matters is done, the rest is refused at once, and nobody works
//! for a client who has gone. `make overload` shows the same with figures.

mod brownout;
#[expect(dead_code, reason = "shared with the bench, which uses all of it")]
#[path = "../../../benches/stack/generator.rs"]
mod generator;
mod logins;

use std::{sync::Arc, time::Duration};

use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep, timeout};

use self::generator::{Fire, Shot, fire};
use crate::{
    service::{PATIENCE, PATIENT, Service, database, seed},
    wire::{Wire, get},
};

const KEY: &str = "a key of thirty-two characters or more";

/// A service that works on two requests at once.
const LIMITED: [(&str, &str); 4] = [
    ("HOLDFAST__ADMISSION__LIMIT_MIN", "2"),
    ("HOLDFAST__ADMISSION__LIMIT_INITIAL", "2"),
    ("HOLDFAST__ADMISSION__LIMIT_MAX", "2"),
    ("HOLDFAST__HTTP__CALLER_KEYS", KEY),
];

/// As many requests as connections at once, on a service that works on two.
#[tokio::test]
async fn critical_requests_are_answered_while_sheddable_ones_are_refused() {
    let database = database().await;
    seed(devstack::shared().await, &database, 50).await;
    let service = Service::start(&database, &[&PATIENT[..], &LIMITED].concat()).await;
    service.ready().await;
    let load = Fire {
        address: service.public,
        rate: 1e6,
        count: 2000,
        connections: 40,
        critical: 0.25,
        critical_requests: request("critical"),
        sheddable_requests: request("sheddable"),
    };

    let firing = fire(&load);
    let probing = probes(&service);
    let shots = tokio::select! {
        shots = firing => shots,
        () = probing => unreachable!("probes go on"),
    };

    let count = |wanted: &dyn Fn(&Shot) -> bool| shots.iter().filter(|shot| wanted(shot)).count();
    let good = [true, false]
        .map(|critical| count(&|shot| shot.is_critical == critical && shot.status == 200));
    let refused = count(&|shot| shot.status == 503 && shot.says_when && !shot.is_critical);
    let longest = shots.iter().map(|shot| shot.took).max();
    println!(
        "answered: {good:?} critical and sheddable; {refused} sheddable refused; {longest:?} at most, from when they were due"
    );
    assert_eq!(good[0], count(&|shot| shot.is_critical), "critical ones");
    assert_eq!(good[0] + good[1] + refused, shots.len(), "{shots:?}");
    assert!(refused > good[1], "of sheddable ones");
    assert_eq!(counted(&service, "sheddable").await, refused);
    assert_eq!(counted(&service, "critical").await, 0);
    assert_eq!(answered(&service, "/v1/products", 503).await, refused);
}

#[tokio::test]
async fn nobody_works_for_a_client_that_has_gone() {
    let database = database().await;
    let mut settings = PATIENT.to_vec();
    settings.extend([
        ("HOLDFAST__POSTGRES__REPLICA_URLS", ""),
        ("HOLDFAST__POSTGRES__LOCK_TIMEOUT", "5500ms"),
    ]);
    let service = Service::start(&database, &settings).await;
    service.ready().await;
    let mut admin = PgConnection::connect(&database.admin_url).await.unwrap();
    let mut held = admin.begin().await.unwrap();
    sqlx::query("lock table products in access exclusive mode")
        .execute(&mut *held)
        .await
        .unwrap();

    let mut client = Wire::connect(service.public).await.unwrap();
    client
        .send("GET /v1/products HTTP/1.1\r\nHost: shop\r\n\r\n")
        .await;
    waiting(&database.admin_url, 1).await;
    let gone = Instant::now();
    drop(client);

    // Before the statement's own time is over.
    waiting(&database.admin_url, 0).await;
    println!("its backend was gone after {:?}", gone.elapsed());
    assert!(gone.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn no_answer_is_later_than_the_caller_said() {
    let database = database().await;
    let settings = [
        PATIENT.as_slice(),
        &[("HOLDFAST__POSTGRES__REPLICA_URLS", "")],
    ]
    .concat();
    let service = Service::start(&database, &settings).await;
    service.ready().await;
    let mut admin = PgConnection::connect(&database.admin_url).await.unwrap();
    let mut held = admin.begin().await.unwrap();
    sqlx::query("lock table products in access exclusive mode")
        .execute(&mut *held)
        .await
        .unwrap();

    let mut client = Wire::connect(service.public).await.unwrap();
    let headers = [("Request-Timeout", "200ms")];
    let call = client.call("GET /v1/products", &headers, None);
    let reply = timeout(Duration::from_secs(5), call)
        .await
        .unwrap()
        .unwrap();

    assert_eq!(reply.status, 504, "{reply:?}");
    waiting(&database.admin_url, 0).await;
}

/// Asks both listeners how the process is, for ever; each answer has to be that it is well.
async fn probes(service: &Service) {
    loop {
        for address in [service.public, service.admin] {
            let reply = get(address, "/health").await;
            assert_eq!(reply.status, 200, "{reply:?}");
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn request(criticality: &str) -> Arc<[Vec<u8>]> {
    let head = format!(
        "GET /v1/products?limit=5 HTTP/1.1\r\nHost: shop\r\nCaller-Key: {KEY}\r\nRequest-Criticality: {criticality}\r\n\r\n"
    );
    [head.into_bytes()].into()
}

/// How many requests of a criticality the service says that it refused.
async fn counted(service: &Service, criticality: &str) -> usize {
    let prefix = format!("admission_refused_total{{criticality=\"{criticality}\"");
    sum(service, &prefix).await
}

/// How many requests to a route the service says that it answered with a status, refusals included.
async fn answered(service: &Service, route: &str, status: u16) -> usize {
    let labels = format!("http_route=\"{route}\",http_response_status_code=\"{status}\"");
    let name = "http_server_request_duration_seconds_count";
    sum(
        service,
        &format!("{name}{{http_request_method=\"GET\",{labels}}}"),
    )
    .await
}

/// The sum of the samples that begin so.
async fn sum(service: &Service, prefix: &str) -> usize {
    let metrics = get(service.admin, "/metrics").await.body;
    let samples = metrics.lines().filter(|line| line.starts_with(prefix));
    let counts = samples.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap());
    counts.sum()
}

/// Waits until so many backends of this database wait for a lock.
async fn waiting(url: &str, wanted: i64) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        if waiting == wanted {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{waiting} backends wait for a lock"
        );
        sleep(Duration::from_millis(20)).await;
    }
}
