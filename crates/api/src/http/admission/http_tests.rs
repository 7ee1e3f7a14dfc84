//! What clients see of admission, and what the servers below do not.

use http::{HeaderName, StatusCode, header};

use crate::testing::TestApp;

const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("request-timeout");

#[tokio::test]
async fn an_expired_request_reaches_no_server() {
    let app = TestApp::metered().await;
    let client = app.anonymous();

    let (answer, cost) = app
        .cost(async || {
            let headers = [(REQUEST_TIMEOUT, "0s")];
            client.get_with("/v1/products", &headers).await
        })
        .await;

    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(answer.code(), "deadline_exceeded");
    assert_eq!(cost.statements(), [0, 0]);
    assert_eq!(cost.redis.round_trips, 0);
}

#[tokio::test]
async fn what_is_too_much_is_refused_without_any_work() {
    let app = TestApp::metered_with(|settings| {
        settings.admission.limit_min = 1;
        settings.admission.limit_initial = 1;
        settings.admission.limit_max = 1;
        settings.admission.queue_max = 0;
    })
    .await;
    let client = app.anonymous();
    let read = || client.get("/v1/products?limit=1");

    // Begun in this order by one task, so the first is always worked on when the second asks.
    let (_, cost) = app
        .cost(async || {
            let (worked_on, refused, probe) =
                tokio::join!(biased; read(), read(), client.get("/health"));
            assert_eq!(worked_on.status, StatusCode::OK);
            assert_eq!(probe.status, StatusCode::OK);
            assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(
                refused.json()["type"],
                "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
            );
            assert_eq!(refused.code(), "overloaded");
            assert_eq!(refused.json()["request_id"], refused.header("x-request-id"));
            let wait: u64 = refused.header(header::RETRY_AFTER).parse().unwrap();
            assert!((1..=4).contains(&wait), "{wait}");
            refused
        })
        .await;

    // The primary is asked once more when a standby gives a statement up, as replay may make it do.
    let [_, standby] = cost.statements();
    assert_eq!(standby, 1, "only the one that was worked on");
    assert_eq!(cost.redis.round_trips, 0);
}

#[tokio::test]
async fn every_route_says_how_much_it_matters() {
    let client = TestApp::start().await.anonymous();

    let document = client.get("/openapi.json").await.json();

    let known = ["critical_plus", "critical", "sheddable_plus", "sheddable"];
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let said = operation["x-criticality"].as_str();
            assert!(
                said.is_some_and(|said| known.contains(&said)),
                "{method} {path}: {said:?}; add `extensions((\"x-criticality\" = json!(\"critical\")))` to its attribute"
            );
        }
    }
}
