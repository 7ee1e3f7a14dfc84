//! What follows from an order, from the request to the rows.

use serde_json::json;

use super::{count, until};
use crate::{
    collector::Collector,
    service::{PATIENT, STAFF, Service, database, database_on, seed},
    wire::{borrowed, call, get, sign_in},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[tokio::test]
async fn an_order_is_confirmed_once_in_the_trace_of_its_request() {
    let (database, collector) = (database().await, Collector::start().await);
    seed(devstack::shared().await, &database, 1).await;
    let tracing = [
        ("HOLDFAST__TELEMETRY__OTLP_ENDPOINT", collector.url.as_str()),
        ("HOLDFAST__TELEMETRY__SAMPLE_RATIO", "1.0"),
        ("HOLDFAST__JOBS__LEASE", "15s"),
    ];
    let settings = [&PATIENT[..], &tracing].concat();
    let service = Service::start(&database, &settings).await;
    let worker = Service::work(&database, &settings).await;
    service.ready().await;
    let session = sign_in(service.public, STAFF).await;
    let page = get(service.public, "/v1/products").await.json();
    let order = json!({ "lines": [{ "product_id": page["items"][0]["id"], "quantity": 1 }] });
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let mut headers = borrowed(&session);
    headers.extend([
        ("traceparent", traceparent.as_str()),
        ("idempotency-key", "one"),
    ]);

    for _ in 0..2 {
        let placed = call(service.public, "POST /v1/orders", &headers, Some(&order)).await;
        assert_eq!(placed.status, 201, "{placed:?}");
    }
    until(&database, "order_notices where kind = 'confirmed'", 1).await;
    until(&database, "jobs", 0).await;
    let metrics = get(worker.admin, "/metrics").await.body;
    assert_eq!(worker.stop().await, Some(0));

    for rows in ["order_notices", "order_fulfilments"] {
        let rows = format!("{rows} join orders on id = order_id");
        assert_eq!(count(&database, &rows).await, 1, "{rows}");
    }
    let told = "jobs_total{kind=\"send_confirmation\",outcome=\"done\"} 1";
    assert!(metrics.contains(told), "{metrics}");
    let waiting = "jobs_waiting{kind=\"send_confirmation\",criticality=\"critical\"} 0";
    assert!(metrics.contains(waiting), "{metrics}");
    assert!(
        spans_before(&collector.received(), "job send_confirmation").contains(&bytes(TRACE)),
        "the job's span is of another trace"
    );
}

#[tokio::test]
async fn a_job_sees_what_its_request_has_written_while_the_standby_stands_still() {
    let stack = devstack::Stack::start().await.unwrap();
    let database = database_on(&stack).await;
    seed(&stack, &database, 1).await;
    // As far behind as it may be without being passed over for that alone.
    let behind = [
        ("HOLDFAST__POSTGRES__LAG_MAX", "20s"),
        ("HOLDFAST__POSTGRES__TOKEN_TTL", "60s"),
        ("HOLDFAST__CACHE__REMOVAL_HOLD", "25s"),
        ("HOLDFAST__JOBS__LEASE", "15s"),
        ("HOLDFAST__JOBS__RUN_IN_SERVE", "true"),
    ];
    let service = Service::start_on(&stack, &database, &[&PATIENT[..], &behind].concat()).await;
    service.ready().await;
    let session = sign_in(service.public, STAFF).await;
    let page = get(service.public, "/v1/products").await.json();
    let order = json!({ "lines": [{ "product_id": page["items"][0]["id"], "quantity": 3 }] });

    stack.standby().pause_replay().await.unwrap();
    let placed = call(
        service.public,
        "POST /v1/orders",
        &borrowed(&session),
        Some(&order),
    )
    .await;
    assert_eq!(placed.status, 201, "{placed:?}");
    until(&database, "order_fulfilments where pieces = 3", 1).await;
    let metrics = get(service.admin, "/metrics").await.body;
    stack.standby().resume_replay().await.unwrap();

    let done = "jobs_total{kind=\"fulfil_order\",outcome=\"done\"} 1";
    assert!(metrics.contains(done), "{metrics}");
    assert!(
        !metrics.contains("kind=\"fulfil_order\",outcome=\"retried\""),
        "it was read where it was not yet: {metrics}"
    );
}

/// The ids of the traces of all spans with a name: OTLP has the trace's id (field 1), then the span's and its parent's, then the name (field 5).
fn spans_before(exported: &[u8], name: &str) -> Vec<Vec<u8>> {
    let named = |at: &usize| exported[*at..].starts_with(name.as_bytes());
    let traces = (0..exported.len()).filter(named).filter_map(|at| {
        let head = &exported[at.saturating_sub(80)..at];
        let id = head.windows(2).rposition(|tag| tag == [0x0a, 16])?;
        head.get(id + 2..id + 18).map(<[u8]>::to_vec)
    });
    traces.collect()
}

/// The bytes that hexadecimal digits stand for.
fn bytes(digits: &str) -> Vec<u8> {
    let pairs = (0..digits.len()).step_by(2).map(|at| &digits[at..at + 2]);
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}
