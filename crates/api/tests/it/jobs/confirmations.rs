//! An order's confirmation, from the request to the row.

use serde_json::json;

use super::{count, until};
use crate::{
    collector::Collector,
    service::{PATIENT, STAFF, Service, database, seed},
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

    assert_eq!(
        count(&database, "order_notices join orders on id = order_id").await,
        1
    );
    let told = "jobs_total{kind=\"send_confirmation\",outcome=\"done\"} 1";
    assert!(metrics.contains(told), "{metrics}");
    let waiting = "jobs_waiting{kind=\"send_confirmation\",criticality=\"critical\"} 0";
    assert!(metrics.contains(waiting), "{metrics}");
    assert!(
        spans_before(&collector.received(), "job send_confirmation").contains(&bytes(TRACE)),
        "the job's span is of another trace"
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
