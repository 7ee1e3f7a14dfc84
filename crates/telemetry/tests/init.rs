//! What holds for the process as a whole, and so needs one of its own.

use telemetry::{Config, Error, init, request_span, trace::Incoming};

#[tokio::test]
async fn telemetry_is_installed_once_and_stops_without_a_collector() {
    let config = Config {
        log_filter: "off".to_owned(),
        // Nothing listens on the first port.
        otlp_endpoint: Some("http://127.0.0.1:1".to_owned()),
        sample_ratio: 1.0,
        ..Config::default()
    };

    let telemetry = init(&config, "1.2.3").unwrap();
    let again = init(&config, "1.2.3");
    request_span!(Incoming::root(telemetry.sampling())).in_scope(|| tracing::info!("not written"));
    telemetry.log_level().set("warn").unwrap();

    assert!(matches!(again, Err(Error::Installed(_))));
    assert_eq!(telemetry.log_level().get(), "warn");
    assert!(telemetry.shutdown().await, "the span was refused in time");
}
