//! Requests that no honest client sends. Each is refused with the status it deserves, none is taken for two, and none
//! harms the process.

use std::{process::Stdio, time::Duration};

use serde_json::json;
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

use crate::{
    service::{PATIENCE, PATIENT, Service, database, environment},
    wire::{Wire, call, get},
};

/// What an attacker hides behind a request, and what the server must not answer.
const SMUGGLED: &str = "GET /health HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";

/// Heads and bodies whose end can be understood in two ways.
const AMBIGUOUS: [(&str, &str); 10] = [
    (
        "two lengths",
        "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    ),
    ("a list of lengths", "Content-Length: 2, 3\r\n\r\n{}"),
    ("a length with a sign", "Content-Length: +2\r\n\r\n{}"),
    (
        "an unknown coding",
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "the coding identity",
        "Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked before another coding",
        "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    ),
    (
        "a space before the colon",
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a folded line",
        "X-Folded: a\r\n Transfer-Encoding: chunked\r\n\r\n",
    ),
    ("a NUL in a value", "X-Nul: a\0b\r\n\r\n"),
    (
        "a bare CR in a value",
        "X-Cr: a\rTransfer-Encoding: chunked\r\n\r\n",
    ),
];

#[tokio::test]
async fn an_ambiguous_request_is_400_and_ends_the_connection() {
    let database = database().await;
    let service = Service::start(&database, &PATIENT).await;

    for (name, rest) in AMBIGUOUS {
        let head = "POST /v1/session HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n";
        let answers = exchange(&service, format!("{head}{rest}{SMUGGLED}")).await;
        assert_eq!(statuses(&answers), [400], "{name}: {answers}");
    }
}

#[tokio::test]
async fn a_request_with_length_and_coding_hides_no_second_one() {
    let database = database().await;
    let service = Service::start(&database, &PATIENT).await;

    let length = format!("Content-Length: {}\r\n", 5 + SMUGGLED.len());
    let coding = "Transfer-Encoding: chunked\r\n";
    for headers in [format!("{length}{coding}"), format!("{coding}{length}")] {
        let head = format!(
            "POST /v1/session HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n{headers}"
        );
        let answers = exchange(&service, format!("{head}\r\n0\r\n\r\n{SMUGGLED}")).await;
        assert_eq!(statuses(&answers), [400], "{headers}: {answers}");
    }
}

/// A recipient may take a bare LF for the end of a line (RFC 9112 section 2.2), and hyper does; in a chunk's frame it
/// must not, because there proxies disagree.
#[tokio::test]
async fn a_bare_line_feed_ends_a_line_of_the_head_but_no_chunk() {
    let database = database().await;
    let service = Service::start(&database, &PATIENT).await;

    let head = exchange(&service, SMUGGLED.replace('\r', "")).await;
    let chunked = "POST /v1/session HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n\
        Transfer-Encoding: chunked\r\n\r\n2;a\nb\r\n{}\r\n0\r\n\r\n";
    let chunk = exchange(&service, format!("{chunked}{SMUGGLED}")).await;

    assert_eq!(statuses(&head), [200], "{head}");
    assert_eq!(statuses(&chunk), [400], "{chunk}");
}

#[tokio::test]
async fn a_target_of_another_host_is_400() {
    let database = database().await;
    let service = Service::start(&database, &PATIENT).await;

    for (target, hosts, status) in [
        ("http://shop/health", "Host: shop\r\n", 200),
        ("http://SHOP/health", "Host: shop\r\n", 200),
        ("http://evil.example/health", "Host: shop\r\n", 400),
        ("http://shop@evil.example/health", "Host: shop\r\n", 400),
        ("http://shop/health", "", 400),
        (
            "http://shop/health",
            "Host: shop\r\nHost: evil.example\r\n",
            400,
        ),
        ("/health", "Host: shop\r\nHost: shop\r\n", 400),
        ("/health", "", 400),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        let answers = exchange(&service, request).await;
        assert_eq!(
            statuses(&answers),
            [status],
            "{target} {hosts:?}: {answers}"
        );
    }
}

#[tokio::test]
async fn no_spelling_of_a_path_reaches_the_admin_listener() {
    let database = database().await;
    let service = Service::start(&database, &PATIENT).await;

    for path in [
        "/metrics",
        "/status",
        "/log-level",
        "//metrics",
        "/v1/../metrics",
        "/v1/..%2fmetrics",
        "/%6detrics",
        "/metrics/",
        "/metrics%00",
        "/.%2e/metrics",
        "/v1/products/../../metrics",
        "/v1/products/..%2f..%2fmetrics",
        "/;/metrics",
        "/\\metrics",
    ] {
        let reply = get(service.public, path).await;
        assert_eq!(reply.status, 404, "{path}: {reply:?}");
        assert_eq!(reply.json()["code"], "not_found", "{path}");
    }
    let trace = call(
        service.public,
        "TRACE /v1/products",
        &[("Cookie", "sid=canary")],
        None,
    )
    .await;
    assert!(
        trace.status == 405 && !trace.body.contains("canary"),
        "{trace:?}"
    );
}

#[tokio::test]
async fn a_body_that_is_wrong_gets_the_status_that_says_how() {
    let database = database().await;
    let service = Service::start(&database, &PATIENT).await;
    let json = "application/json";
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));

    for (media_type, body, status, code) in [
        (json, deep.as_str(), 400, "json_too_deep"),
        (json, "{\"email\":", 400, "malformed_json"),
        (json, "", 400, "malformed_json"),
        (json, "null", 422, "invalid_body"),
        (
            json,
            r#"{"email":"a@b.example","password":"p","role":"staff"}"#,
            422,
            "invalid_body",
        ),
        (
            json,
            r#"{"email":"a\u0000@b.example","password":"p"}"#,
            422,
            "validation_failed",
        ),
        ("text/plain", "{}", 415, "unsupported_media_type"),
        (
            "application/x-www-form-urlencoded",
            "email=a",
            415,
            "unsupported_media_type",
        ),
    ] {
        let mut wire = Wire::connect(service.public).await.unwrap();
        wire.send(&post(
            media_type,
            &format!("Content-Length: {}\r\n\r\n{body}", body.len()),
        ))
        .await;
        let reply = wire.reply().await.unwrap();
        assert_eq!(
            (reply.status, &reply.json()["code"]),
            (status, &json!(code)),
            "{body}: {reply:?}"
        );
        assert!(
            !reply.body.contains("crates/") && reply.body.len() < 600,
            "{reply:?}"
        );
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_413_however_it_is_framed() {
    const BYTES: usize = 2 * 1024 * 1024;
    let database = database().await;
    let service = Service::start(&database, &PATIENT).await;
    let body = " ".repeat(BYTES);
    let announced = format!("Content-Length: {BYTES}\r\n\r\n{body}");
    let chunk = format!("8000\r\n{}\r\n", &body[..0x8000]);
    let chunked = format!(
        "Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(BYTES / 0x8000)
    );

    for framed in [announced, chunked] {
        let answers = exchange(&service, post("application/json", &framed)).await;
        assert_eq!(statuses(&answers), [413], "{answers}");
        assert!(answers.contains("application/problem+json"), "{answers}");
    }
}

#[tokio::test]
async fn a_body_that_stalls_or_trickles_is_given_up() {
    let database = database().await;
    let mut settings = PATIENT.to_vec();
    settings.extend([
        ("HOLDFAST__HTTP__BODY_STALL_TIMEOUT", "400ms"),
        ("HOLDFAST__HTTP__WRITE_DEADLINE", "8500ms"),
    ]);
    let service = Service::start(&database, &settings).await;
    let half = post("application/json", "Content-Length: 1000\r\n\r\n{");

    let mut stalled = Wire::connect(service.public).await.unwrap();
    let begun = Instant::now();
    stalled.send(&half).await;
    let stall = stalled.reply().await.unwrap();
    let patience = begun.elapsed();
    let trickled = Wire::connect(service.public).await.unwrap();
    let trickle = trickled.exchange_slowly(&half).await;

    assert_eq!(
        (stall.status, &stall.json()["code"]),
        (408, &json!("body_stalled")),
        "{stall:?}"
    );
    // Far from the 400 ms of a stall, and from the deadline that would end it otherwise.
    assert!(
        patience < Duration::from_secs(5),
        "given up after {patience:?}"
    );
    let given_up = statuses(&trickle);
    assert!(given_up == [408] || given_up == [504], "{trickle}");
}

#[tokio::test]
async fn a_process_without_file_descriptors_recovers_by_itself() {
    const FILES: usize = 64;
    let (services, database) = (devstack::shared().await, database().await);
    let mut command = Command::new("/bin/sh");
    command
        .args([
            "-c",
            &format!(r#"ulimit -n {FILES} && exec "$0" serve"#),
            env!("CARGO_BIN_EXE_holdfast"),
        ])
        .env_clear()
        .envs(environment(services, &database))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let service = Service::spawn(&mut command).await;

    let mut flood = Vec::new();
    for _ in 0..3 * FILES {
        flood.push(Wire::connect(service.public).await.unwrap());
    }
    service.logged("accepting a connection failed").await;
    drop(flood);

    assert_eq!(get(service.public, "/health").await.status, 200);
    let deadline = Instant::now() + PATIENCE;
    while get(service.public, "/v1/products").await.status != 200 {
        assert!(
            Instant::now() < deadline,
            "the databases are not reached again"
        );
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(service.stop().await, Some(0));
}

fn post(media_type: &str, framed: &str) -> String {
    format!("POST /v1/session HTTP/1.1\r\nHost: shop\r\nContent-Type: {media_type}\r\n{framed}")
}

async fn exchange(service: &Service, request: String) -> String {
    let wire = Wire::connect(service.public).await.unwrap();
    wire.exchange(request.as_bytes()).await
}

/// The status of each response in `answers`.
fn statuses(answers: &str) -> Vec<u16> {
    let lines = answers.split("HTTP/1.1 ").skip(1);
    lines.map(|rest| rest[..3].parse().unwrap()).collect()
}
