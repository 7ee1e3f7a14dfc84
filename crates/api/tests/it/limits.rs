//! Rate limits of whole processes: who a client is on a real socket, and what is left of a shared limit when Redis dies.

use std::net::{IpAddr, Ipv4Addr};

use devstack::Stack;

use crate::{
    service::{PATIENT, Service, database, database_on},
    wire::Wire,
};

const CATALOGUE: &str = "/v1/products?limit=1";
/// None of it comes back during a test.
const LIMITED: (&str, &str) = ("HOLDFAST__LIMITS__ADDRESS_READ", "200/1h");

#[tokio::test]
async fn a_client_is_whoever_is_at_the_other_end_whatever_it_says() {
    let database = database().await;
    let service = Service::start(&database, &[&PATIENT[..], &[LIMITED]].concat()).await;
    service.ready().await;
    let from = async |address: [u8; 4]| {
        let address = IpAddr::V4(Ipv4Addr::from(address));
        Wire::connect_from(address, service.public).await.unwrap()
    };
    let (mut one, mut other) = (from([127, 0, 0, 1]).await, from([127, 0, 0, 2]).await);

    let mut served = 0;
    for n in 0..250 {
        let spoofed = format!("10.0.0.{n}");
        let headers = [
            ("X-Forwarded-For", spoofed.as_str()),
            ("Forwarded", "for=10.1.1.1"),
        ];
        let line = format!("GET {CATALOGUE}");
        let reply = one.call(&line, &headers, None).await.unwrap();
        served += usize::from(reply.status == 200);
    }
    let elsewhere = other.get(CATALOGUE).await.unwrap();

    assert_eq!(served, 200);
    assert_eq!(elsewhere.status, 200);
    let standing = elsewhere.header("ratelimit").unwrap();
    assert!(
        standing.starts_with(r#""address-read";r=199;"#),
        "{standing}"
    );
    // It may be a proxy that nobody has counted.
    let hint = service.logged("set http.trusted_hops").await;
    assert!(hint.contains(r#""client.address":"127.0.0.1""#), "{hint}");
}

#[tokio::test]
async fn two_processes_whose_redis_dies_serve_less_than_twice_the_limit() {
    let stack = Stack::start().await.unwrap();
    let database = database_on(&stack).await;
    let settings = [&PATIENT[..], &[LIMITED]].concat();
    let services = [
        Service::start_on(&stack, &database, &settings).await,
        Service::start_on(&stack, &database, &settings).await,
    ];
    let mut wires = Vec::new();
    for service in &services {
        service.ready().await;
        wires.push(Wire::connect(service.public).await.unwrap());
    }
    let mut serve = async |reads: usize| {
        let mut served = 0;
        for n in 0..reads {
            let reply = wires[n % 2].get(CATALOGUE).await.unwrap();
            assert!([200, 429].contains(&reply.status), "{reply:?}");
            served += usize::from(reply.status == 200);
        }
        served
    };

    let before = serve(120).await;
    stack.redis().kill().await.unwrap();
    let after = serve(600).await;
    stack.redis().restart().await.unwrap();
    let later = serve(600).await;

    println!("of 200: {before} with Redis, {after} more without, {later} with an empty one");
    assert_eq!(before, 120);
    assert!(before + after <= 400, "{after}");
    assert!(before + after + later <= 400, "{later}");
}
