//! Connections that are silent, slow or too large are ended; each kind after its own time, and none disturbs others.

use std::time::Duration;

use crate::{
    service::{Service, database},
    wire::{Wire, get},
};

/// Short enough to test, far enough apart to tell which one ended a connection.
const TIMEOUTS: [(&str, &str); 8] = [
    ("HOLDFAST__HTTP__FIRST_BYTE_TIMEOUT", "300ms"),
    ("HOLDFAST__HTTP__HEAD_TIMEOUT", "600ms"),
    ("HOLDFAST__HTTP__IDLE_TIMEOUT", "1500ms"),
    ("HOLDFAST__HTTP__BALANCER_IDLE", "1s"),
    ("HOLDFAST__HTTP__BODY_STALL_TIMEOUT", "400ms"),
    ("HOLDFAST__HTTP__CONNECTIONS_MAX", "50"),
    ("HOLDFAST__LIVE__SOCKETS_MAX", "40"),
    ("HOLDFAST__HTTP__WRITE_STALL_TIMEOUT", "500ms"),
];

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let database = database().await;
    let service = Service::start(&database, &TIMEOUTS).await;

    let silent = Wire::connect(service.public)
        .await
        .unwrap()
        .closed_after()
        .await;

    assert!(
        silent >= Duration::from_millis(250),
        "closed after {silent:?}"
    );
}

#[tokio::test]
async fn half_a_head_is_not_waited_for_even_when_it_trickles() {
    let database = database().await;
    let service = Service::start(&database, &TIMEOUTS).await;

    for half in ["G", "PRI * HT", "GET /health HTTP/1.1\r\nHost: sh"] {
        let mut wire = Wire::connect(service.public).await.unwrap();
        wire.send(half).await;
        assert!(
            wire.closed_after().await >= Duration::from_millis(500),
            "{half:?}"
        );
    }
}

#[tokio::test]
async fn an_idle_connection_lives_longer_than_half_a_head() {
    let database = database().await;
    let service = Service::start(&database, &TIMEOUTS).await;

    let mut wire = Wire::connect(service.public).await.unwrap();
    assert_eq!(wire.get("/health").await.unwrap().status, 200);
    let idle = wire.closed_after().await;

    assert!(idle >= Duration::from_millis(1400), "closed after {idle:?}");
}

#[tokio::test]
async fn a_request_after_a_pause_is_served_on_the_same_connection() {
    let database = database().await;
    let service = Service::start(&database, &TIMEOUTS).await;

    let mut wire = Wire::connect(service.public).await.unwrap();
    for _ in 0..3 {
        assert_eq!(wire.get("/health").await.unwrap().status, 200);
        // Longer than a head may take, shorter than a connection may be idle.
        tokio::time::sleep(Duration::from_millis(800)).await;
    }
}

#[tokio::test]
async fn more_silent_connections_than_there_are_slots_do_not_lock_others_out() {
    let database = database().await;
    let service = Service::start(&database, &TIMEOUTS).await;

    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(Wire::connect(service.public).await.unwrap());
    }

    assert_eq!(get(service.public, "/health").await.status, 200);
    assert_eq!(get(service.admin, "/health").await.status, 200);
}

#[tokio::test]
async fn heads_beyond_the_limits_get_a_problem() {
    let database = database().await;
    let service = Service::start(&database, &TIMEOUTS).await;
    let head = |line: &str, headers: &str| format!("{line} HTTP/1.1\r\n{headers}\r\n");
    let long = "a".repeat(9_000);
    let cases = [
        (head(&format!("GET /{long}"), "Host: shop\r\n"), 414),
        (
            head(
                "GET /health",
                &format!("Host: shop\r\nX-A: {long}\r\nX-B: {long}\r\n"),
            ),
            431,
        ),
        (
            head(
                "GET /health",
                &format!("Host: shop\r\n{}", "X: y\r\n".repeat(80)),
            ),
            431,
        ),
        (head("GET /health", ""), 400),
        (head("GET /health", "Host: shop\r\nHost: other\r\n"), 400),
    ];

    for (request, status) in cases {
        let mut wire = Wire::connect(service.public).await.unwrap();
        wire.send(&request).await;
        let reply = wire.reply().await.unwrap();
        assert_eq!(reply.status, status, "{:?}", &request[..40]);
        assert!(reply.head.contains("application/problem+json"), "{reply:?}");
    }
}
