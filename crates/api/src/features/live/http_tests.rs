//! Who may hear what, and what a socket costs the servers behind.

use http::{HeaderName, StatusCode, header};

use crate::testing::{Answer, TestApp};

const UPGRADE: [(HeaderName, &str); 4] = [
    (header::CONNECTION, "Upgrade"),
    (header::UPGRADE, "websocket"),
    (header::SEC_WEBSOCKET_VERSION, "13"),
    (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
];

#[tokio::test]
async fn only_known_topics_can_be_asked_for() {
    let app = TestApp::start().await;
    let ask = async |path: &str| app.anonymous().get(path).await;

    for path in [
        "/v1/live?topics=users",
        "/v1/live?topics=",
        "/v1/live?topics=stock,",
    ] {
        let answer = ask(path).await;
        assert_eq!(
            answer.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{answer:?}"
        );
    }
    let answer = ask("/v1/live?what=stock").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
}

#[tokio::test]
async fn orders_are_for_who_has_a_session() {
    let app = TestApp::start().await;

    let answer = app.anonymous().get("/v1/live?topics=stock,orders").await;

    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{answer:?}");
}

#[tokio::test]
async fn a_handshake_that_is_none_is_refused() {
    let app = TestApp::start().await;
    let old = [
        &UPGRADE[..2],
        &[(header::SEC_WEBSOCKET_VERSION, "12")],
        &UPGRADE[3..],
    ]
    .concat();

    let refused: [Answer; 2] = [
        app.anonymous().get_with("/v1/live", &UPGRADE[..2]).await,
        app.anonymous().get_with("/v1/live", &old).await,
    ];

    for answer in refused {
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
        assert_eq!(answer.code(), "no_websocket");
    }
}
