use std::{net::TcpListener, time::Duration};

use prometheus_client::registry::Registry;
use tokio::time::Instant;
use tracing::subscriber::with_default;

use super::{collector::Collector, *};
use crate::{Telemetry, request_span};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn sampling(ratio: f64, trust_caller: bool, endpoint: Option<&str>) -> Sampling {
    let config = Config {
        otlp_endpoint: endpoint.map(str::to_owned),
        sample_ratio: ratio,
        trust_caller,
        ..Config::default()
    };
    Sampling::new(&config)
}

fn on(ratio: f64) -> Sampling {
    sampling(ratio, true, Some("http://localhost"))
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn injected(incoming: &Incoming, name: &str) -> Option<String> {
    let mut headers = headers(&[("tracestate", "stale=1")]);
    incoming.inject(&mut headers);
    headers
        .get(name)
        .map(|value| value.to_str().unwrap().to_owned())
}

/// Telemetry against `url` that exports all spans and, unless a test says so, waits for shutdown to do it.
fn start(
    url: &str,
    change: impl FnOnce(&mut Config),
) -> (impl tracing::Subscriber + Send + Sync, Telemetry) {
    let mut config = Config {
        otlp_endpoint: Some(url.to_owned()),
        sample_ratio: 1.0,
        batch_delay: Duration::from_secs(60),
        export_timeout: Duration::from_secs(60),
        flush_timeout: Duration::from_secs(30),
        ..Config::default()
    };
    change(&mut config);
    let (subscriber, telemetry) = crate::build(&config, "1.2.3", std::io::sink).unwrap();
    (subscriber, telemetry)
}

#[test]
fn a_valid_traceparent_is_continued() {
    let valid = [
        (PARENT, true),
        (
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            false,
        ),
        (
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff",
            true,
        ),
        (
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            true,
        ),
        (
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later",
            true,
        ),
    ];

    for (text, sampled) in valid {
        let incoming = Incoming::parse(&headers(&[("traceparent", text)]), on(0.0));

        assert_eq!(
            incoming.trace_id().to_string(),
            "4bf92f3577b34da6a3ce929d0e0e4736",
            "{text}"
        );
        assert_eq!(incoming.sampled(), sampled, "{text}");
        assert_ne!(
            incoming.span_id().to_string(),
            "00f067aa0ba902b7",
            "the request has a span of its own"
        );
    }
}

#[test]
fn a_malformed_traceparent_starts_a_new_trace() {
    let malformed = [
        "",
        "00",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later",
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.later",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e47+6-00f067aa0ba902b7-01",
        " 0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ];

    for text in malformed {
        let incoming = Incoming::parse(
            &headers(&[("traceparent", text), ("tracestate", "a=1")]),
            on(0.0),
        );

        assert_ne!(
            incoming.trace_id().to_string(),
            "4bf92f3577b34da6a3ce929d0e0e4736",
            "{text}"
        );
        assert!(!incoming.sampled(), "{text}");
        assert_eq!(
            injected(&incoming, "tracestate"),
            None,
            "{text}: the state of another trace"
        );
    }
    let twice = headers(&[("traceparent", PARENT), ("traceparent", PARENT)]);
    assert!(
        !Incoming::parse(&twice, on(0.0)).sampled(),
        "two parents are none"
    );
}

#[test]
fn the_trace_state_is_passed_on_or_dropped_whole() {
    let long = format!("a={}", "x".repeat(256));
    let table: &[(&[&str], Option<&str>)] = &[
        (&["vendor=1,other=2"], Some("vendor=1,other=2")),
        (&["vendor=1", "other=2"], Some("vendor=1,other=2")),
        (&[], None),
        (&["Vendor=1"], None),
        (&["nonsense"], None),
        (&[&long, "b=1", &long], None),
    ];

    for (states, expected) in table {
        let mut pairs = vec![("traceparent", PARENT)];
        pairs.extend(states.iter().map(|state| ("tracestate", *state)));
        let incoming = Incoming::parse(&headers(&pairs), on(0.0));

        assert!(incoming.sampled(), "{states:?}: the trace goes on");
        assert_eq!(
            injected(&incoming, "tracestate").as_deref(),
            *expected,
            "{states:?}"
        );
    }
}

#[test]
fn the_caller_decides_only_where_it_is_trusted() {
    let (yes, no) = (
        headers(&[("traceparent", PARENT)]),
        headers(&[("traceparent", &PARENT.replace("-01", "-00"))]),
    );
    let collector = Some("http://localhost");

    assert!(Incoming::parse(&yes, sampling(0.0, true, collector)).sampled());
    assert!(!Incoming::parse(&no, sampling(1.0, true, collector)).sampled());
    assert!(!Incoming::parse(&yes, sampling(0.0, false, collector)).sampled());
    assert!(Incoming::parse(&no, sampling(1.0, false, collector)).sampled());
}

#[test]
fn without_a_collector_nothing_is_sampled_but_the_callers_decision_is_passed_on() {
    let off = sampling(1.0, true, None);
    let called = Incoming::parse(&headers(&[("traceparent", PARENT)]), off);
    let root = Incoming::root(off);

    assert!(!called.sampled() && !root.sampled());
    assert!(injected(&called, "traceparent").unwrap().ends_with("-01"));
    assert!(injected(&root, "traceparent").unwrap().ends_with("-00"));
}

#[test]
fn the_ratio_is_kept() {
    let share = |ratio| {
        (0..10_000)
            .filter(|_| Incoming::root(on(ratio)).sampled())
            .count()
    };

    assert_eq!((share(0.0), share(1.0)), (0, 10_000));
    // Six standard deviations to either side.
    assert!((740..=1260).contains(&share(0.1)));
}

#[test]
fn an_outgoing_call_carries_the_ids_that_are_logged() {
    let incoming = Incoming::root(on(0.0));

    let parent = injected(&incoming, "traceparent");

    assert_eq!(
        parent.unwrap(),
        format!("00-{}-{}-00", incoming.trace_id(), incoming.span_id())
    );
}

#[tokio::test]
async fn the_last_requests_span_arrives_at_shutdown_with_the_ids_that_were_logged() {
    let collector = Collector::start().await;
    let (subscriber, telemetry) = start(&collector.url, |_| {});
    let root = Incoming::root(telemetry.sampling());
    let called = Incoming::parse(&headers(&[("traceparent", PARENT)]), telemetry.sampling());
    let unsampled = Incoming::root(on(0.0));

    let parent = with_default(subscriber, || {
        request_span!(unsampled)
            .in_scope(|| tracing::info_span!("below-unsampled").in_scope(|| {}));
        request_span!(called, http.route = "/called").record("otel.name", "GET /named");
        request_span!(root, http.route = "/root").in_scope(|| {
            tracing::debug_span!("below-debug").in_scope(|| {});
            tracing::info_span!("below-root")
                .in_scope(|| injected(&root, "traceparent"))
                .unwrap()
        })
    });
    let delivered = telemetry.shutdown().await;

    assert!(delivered);
    for incoming in [&root, &called] {
        assert!(
            collector.received(&incoming.trace_id.to_bytes()),
            "the trace id"
        );
        assert!(
            collector.received(&incoming.span_id.to_bytes()),
            "the span id"
        );
    }
    assert!(
        collector.received(&0x00f0_67aa_0ba9_02b7_u64.to_be_bytes()),
        "the caller's span is the parent"
    );
    assert!(
        collector.received(b"/root")
            && collector.received(b"below-root")
            && collector.received(b"1.2.3")
    );
    assert!(
        !collector.received(&unsampled.trace_id.to_bytes())
            && !collector.received(b"below-unsampled")
    );
    assert!(
        !collector.received(b"below-debug"),
        "only INFO and above is exported"
    );
    assert!(parent.starts_with(&format!("00-{}-", root.trace_id())) && parent.ends_with("-01"));
    assert!(
        !parent.contains(&root.span_id().to_string()),
        "the inner span is the callee's parent"
    );
}

#[tokio::test]
async fn a_hanging_collector_costs_counted_spans_and_bounds_shutdown_by_the_flush_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (subscriber, telemetry) = start(
        &format!("http://{}", silent.local_addr().unwrap()),
        |config| {
            config.queue_spans_max = 10;
            config.batch_spans_max = 4;
            config.flush_timeout = Duration::from_millis(200);
        },
    );
    let mut registry = Registry::default();
    telemetry.register(&mut registry);

    with_default(subscriber, || {
        for _ in 0..50 {
            request_span!(Incoming::root(telemetry.sampling())).in_scope(|| {});
        }
    });
    let begun = Instant::now();
    let delivered = telemetry.shutdown().await;

    assert!(!delivered);
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "the export alone would take a minute"
    );
    assert!(encoded(&registry).contains("telemetry_spans_total{outcome=\"dropped\"} 40"));
}

#[tokio::test]
async fn an_absent_collector_costs_counted_spans() {
    // Nothing listens on the first port, and no ephemeral port can be it.
    let (subscriber, telemetry) = start("http://127.0.0.1:1", |_| {});
    let mut registry = Registry::default();
    telemetry.register(&mut registry);

    with_default(subscriber, || {
        for _ in 0..3 {
            request_span!(Incoming::root(telemetry.sampling())).in_scope(|| {});
        }
    });
    telemetry.shutdown().await;

    assert!(encoded(&registry).contains("telemetry_spans_total{outcome=\"failed\"} 3"));
}

fn encoded(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text
}
