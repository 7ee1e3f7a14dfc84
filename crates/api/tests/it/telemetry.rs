//! What leaves the process besides answers: spans that all arrive, a collector that harms nobody, and no secret.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::{
    collector::{self, Collector},
    service::{PATIENT, Service, database},
    wire::{borrowed, call, get, sign_in},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

#[tokio::test]
async fn the_span_of_the_last_request_arrives_and_continues_the_callers_trace() {
    let (database, collector) = (database().await, Collector::start().await);
    let settings = exporting(&collector.url, "60s");
    let mut service = Service::start(&database, &settings).await;

    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    call(
        service.public,
        "GET /v1/products/none",
        &[("traceparent", &traceparent)],
        None,
    )
    .await;
    let line = service.logged(TRACE).await;
    service.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(service.exited().await.code(), Some(0));

    let exported = collector.received();
    assert!(
        holds(&exported, &bytes(TRACE)),
        "the trace of the caller did not arrive"
    );
    assert!(
        holds(&exported, &bytes(PARENT)),
        "the span does not name its parent"
    );
    assert!(
        holds(&exported, b"/v1/products/{id}"),
        "the span does not name its route"
    );
    let span = serde_json::from_str::<serde_json::Value>(&line).unwrap()["span_id"].clone();
    assert!(
        holds(&exported, &bytes(span.as_str().unwrap())),
        "log and span do not match: {line}"
    );
}

#[tokio::test]
async fn a_collector_that_hangs_changes_no_request_and_delays_the_end_by_no_more_than_its_setting()
{
    let (database, (_silent, url)) = (database().await, collector::silent().await);
    let mut settings = exporting(&url, "10ms");
    settings.extend([
        ("HOLDFAST__TELEMETRY__FLUSH_TIMEOUT", "500ms"),
        ("HOLDFAST__TELEMETRY__EXPORT_TIMEOUT", "400ms"),
        ("HOLDFAST__TELEMETRY__QUEUE_SPANS_MAX", "10"),
    ]);
    let service = Service::start(&database, &settings).await;

    let mut slowest = Duration::ZERO;
    for _ in 0..200 {
        let begun = Instant::now();
        assert_eq!(get(service.public, "/health").await.status, 200);
        slowest = slowest.max(begun.elapsed());
    }
    let ended = Instant::now();

    assert_eq!(service.stop().await, Some(0));
    println!(
        "slowest of 200 requests {slowest:?}, ended after {:?}",
        ended.elapsed()
    );
}

/// Values that must never be seen outside, wherever they went in.
const PASSWORD: &str = "canary-of-a-password";
const URL_PASSWORD: &str = "canary-of-a-url";

#[tokio::test]
async fn no_secret_is_logged_exported_shown_or_answered() {
    let (database, collector) = (database().await, Collector::start().await);
    let replica = database
        .replica_url
        .replacen("holdfast@", &format!("{URL_PASSWORD}@"), 1);
    assert!(replica.contains(URL_PASSWORD));
    let mut settings = exporting(&collector.url, "10ms");
    settings.extend([
        ("HOLDFAST__POSTGRES__REPLICA_URLS", replica.as_str()),
        (
            "HOLDFAST__TELEMETRY__LOG_FILTER",
            "debug,api=trace,data=trace,sqlx=trace",
        ),
    ]);
    let mut service = Service::start(&database, &settings).await;
    let mut seen = Vec::new();

    let user = json!({ "email": "canary@example.com", "password": PASSWORD });
    for (line, status) in [("POST /v1/users", 201), ("POST /v1/users", 409)] {
        let reply = call(service.public, line, &[], Some(&user)).await;
        assert_eq!(reply.status, status, "{reply:?}");
        seen.push(reply.body);
    }
    let session = sign_in(service.public, ("canary@example.com", PASSWORD)).await;
    let cookie = session[0].1.split_once('=').unwrap().1.to_owned();
    for (line, status) in [
        ("GET /v1/session", 200),
        ("GET /v1/products", 200),
        ("POST /v1/orders", 400),
    ] {
        let reply = call(service.public, line, &borrowed(&session), None).await;
        assert!([status, 415].contains(&reply.status), "{line}: {reply:?}");
        seen.push(reply.body);
    }
    let mut broken = user.clone();
    broken["extra"] = json!(PASSWORD);
    for body in [
        &broken,
        &json!(PASSWORD),
        &json!({ "email": PASSWORD, "password": 7 }),
    ] {
        seen.push(
            call(
                service.public,
                "POST /v1/session",
                &borrowed(&session),
                Some(body),
            )
            .await
            .body,
        );
    }
    for path in ["/metrics", "/status", "/ready"] {
        seen.push(get(service.admin, path).await.body);
    }
    service.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(service.exited().await.code(), Some(0));

    seen.push(service.log());
    seen.push(String::from_utf8_lossy(&collector.received()).into_owned());
    let hash = stored_hash(&database.admin_url).await;
    for secret in [PASSWORD, URL_PASSWORD, &cookie, &hash] {
        let shown: Vec<_> = seen
            .iter()
            .flat_map(|text| text.lines())
            .filter(|line| line.contains(secret))
            .collect();
        assert!(shown.is_empty(), "{secret} is seen: {shown:#?}");
    }
}

/// Settings that export every span to `url`, after `delay` at the latest.
fn exporting<'a>(url: &'a str, delay: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut settings = PATIENT.to_vec();
    settings.extend([
        ("HOLDFAST__TELEMETRY__OTLP_ENDPOINT", url),
        ("HOLDFAST__TELEMETRY__SAMPLE_RATIO", "1.0"),
        ("HOLDFAST__TELEMETRY__BATCH_DELAY", delay),
    ]);
    settings
}

async fn stored_hash(url: &str) -> String {
    use sqlx::Connection;
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    let hash = sqlx::query_scalar("select password_hash from users").fetch_one(&mut connection);
    hash.await.unwrap()
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// The bytes that hexadecimal digits stand for.
fn bytes(digits: &str) -> Vec<u8> {
    let pairs = (0..digits.len()).step_by(2).map(|at| &digits[at..at + 2]);
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}
