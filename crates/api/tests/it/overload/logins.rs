//! Many times more people sign in than passwords can be compared: the catalogue goes on, and memory stays what it is.

use std::{fs, sync::Arc, time::Duration};

use devstack::Database;
use futures::future::join_all;
use serde_json::json;

use super::generator::{Fire, Shot, fire};
use crate::{
    service::{PATIENT, Service, database, seed},
    wire::{Reply, Wire},
};

/// Clients that sign in all the time, and how often each does.
const CLIENTS: usize = 40;
const LOGINS: usize = 4;
const AT_ONCE: u64 = 2;
const HASH_KIB: u64 = 19_456;
/// What everything but the hashes may take.
const SLACK_KIB: u64 = 64 * 1024;

#[tokio::test]
async fn a_flood_of_logins_costs_the_catalogue_no_answer_and_no_more_memory_than_its_slots() {
    let database = database().await;
    let service = service(&database).await;
    let read = |count| reads(&service, count);
    sign_in(&service, 1).await;
    let before = fire(&read(60)).await;
    let base_kib = peak_kib(&service);

    let flood = join_all((0..CLIENTS).map(|_| sign_in(&service, LOGINS)));
    let load = read(300);
    let (logins, during) = tokio::join!(flood, fire(&load));

    let logins: Vec<_> = logins.into_iter().flatten().collect();
    let refused: Vec<_> = logins.iter().filter(|reply| reply.status == 503).collect();
    let compared = logins.iter().filter(|reply| reply.status == 401).count();
    let grown_kib = peak_kib(&service) - base_kib;
    println!(
        "{} logins: {compared} compared, {} refused; reads: p99 {:?} before, {:?} meanwhile; {} MiB more at the most",
        logins.len(),
        refused.len(),
        p99(&before),
        p99(&during),
        grown_kib / 1024
    );
    assert!(during.iter().all(|shot| shot.status == 200), "{during:?}");
    // One that got its turn may be late all the same, where the machine is busy.
    let late = logins.iter().filter(|reply| reply.status == 504).count();
    assert_eq!(compared + refused.len() + late, logins.len(), "{logins:?}");
    assert!(refused.len() > compared, "the flood was none");
    let tells_when = |reply: &&Reply| reply.header("retry-after").is_some();
    assert!(refused.iter().all(tells_when));
    assert!(
        grown_kib <= AT_ONCE * HASH_KIB + SLACK_KIB,
        "{grown_kib} KiB"
    );
}

async fn service(database: &Database) -> Service {
    seed(devstack::shared().await, database, 50).await;
    let settings = [
        PATIENT.as_slice(),
        &[
            ("HOLDFAST__SESSIONS__PASSWORDS__AT_ONCE", "2"),
            ("HOLDFAST__SESSIONS__PASSWORDS__WAITING_MAX", "4"),
            ("HOLDFAST__SESSIONS__THROTTLE__ACCOUNT_FREE", "1000000"),
            ("HOLDFAST__SESSIONS__THROTTLE__ADDRESS_FREE", "1000000"),
            ("HOLDFAST__LIMITS__ADDRESS_WRITE", "1000000/1s"),
            ("HOLDFAST__LIMITS__ADDRESS_READ", "1000000/1s"),
        ],
    ]
    .concat();
    let service = Service::start(database, &settings).await;
    service.ready().await;
    service
}

/// Reads at a rate that the service bears easily.
fn reads(service: &Service, count: usize) -> Fire {
    let request = "GET /v1/products?limit=5 HTTP/1.1\r\nHost: shop\r\n\r\n";
    let requests: Arc<[Vec<u8>]> = [request.as_bytes().to_vec()].into();
    Fire {
        address: service.public,
        rate: 60.0,
        count,
        connections: 16,
        critical: 0.0,
        critical_requests: Arc::clone(&requests),
        sheddable_requests: requests,
    }
}

/// Signs in so many times as somebody who does not exist, which costs as much as anybody.
async fn sign_in(service: &Service, times: usize) -> Vec<Reply> {
    let mut wire = Wire::connect(service.public).await.unwrap();
    let nobody = json!({ "email": "nobody@example.com", "password": "not the password" });
    let mut replies = Vec::new();
    for _ in 0..times {
        let reply = wire.call("POST /v1/session", &[], Some(&nobody)).await;
        replies.push(reply.unwrap());
    }
    replies
}

fn p99(shots: &[Shot]) -> Duration {
    let mut took: Vec<_> = shots.iter().map(|shot| shot.took).collect();
    took.sort();
    took[took.len() * 99 / 100]
}

/// The most memory that the process has had so far.
fn peak_kib(service: &Service) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let mut lines = status.lines();
    let peak = lines.find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.split_whitespace().next().unwrap().parse().unwrap()
}
