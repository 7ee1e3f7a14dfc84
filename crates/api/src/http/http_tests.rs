//! What every answer of the service has in common.

use http::{Method, StatusCode, header};

use crate::testing::TestApp;

#[tokio::test]
async fn what_is_not_there_is_a_problem() {
    let client = TestApp::start().await.anonymous();

    let answer = client.get("/v1/nothing").await;

    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(
        answer.header(header::CONTENT_TYPE),
        "application/problem+json"
    );
    let problem = answer.json();
    assert_eq!(problem["type"], "urn:holdfast:problem:not_found");
    assert_eq!(problem["status"], 404);
    assert_eq!(problem["request_id"], answer.header("x-request-id"));
}

#[tokio::test]
async fn a_method_that_is_not_there_names_those_that_are() {
    let client = TestApp::start().await.anonymous();

    let answer = client.send(Method::DELETE, "/health", &[], None).await;

    assert_eq!(
        (answer.status, answer.code().as_str()),
        (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
    );
    assert_eq!(answer.header(header::ALLOW), "GET,HEAD");
}

#[tokio::test]
async fn what_belongs_to_the_admin_listener_is_not_on_the_public_one() {
    let client = TestApp::start().await.anonymous();

    for path in ["/metrics", "/status", "/log-level"] {
        assert_eq!(
            client.get(path).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
}

#[tokio::test]
async fn large_answers_are_compressed_and_small_ones_are_not() {
    let client = TestApp::start().await.anonymous();

    for encoding in ["br", "gzip", "zstd"] {
        let accept = [(header::ACCEPT_ENCODING, encoding)];
        assert_eq!(
            client
                .get_with("/openapi.json", &accept)
                .await
                .header(header::CONTENT_ENCODING),
            encoding
        );
        assert_eq!(
            client
                .get_with("/health", &accept)
                .await
                .header(header::CONTENT_ENCODING),
            ""
        );
    }
}
