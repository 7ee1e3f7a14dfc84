//! What a key is good for, seen by clients.

use http::{HeaderName, Method, StatusCode, header};
use serde_json::{Value, json};

use crate::testing::{Answer, Client, TestApp};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const PRODUCTS: &str = "/v1/products";

fn thing(name: &str) -> Value {
    json!({
        "sku": format!("T-{name}"), "name": name, "description": "", "category": "cups", "price_cents": 1, "stock": 5,
    })
}

/// Sends it with any headers.
async fn post_with(client: &Client, headers: &[(HeaderName, &str)], body: &Value) -> Answer {
    client
        .send(Method::POST, PRODUCTS, headers, Some(body))
        .await
}

fn assert_replayed(again: &Answer, first: &Answer) {
    assert_eq!(again.header("idempotent-replayed"), "true", "{again:?}");
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    for name in ["location", "etag", "content-type", "idempotency-expires"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
}

#[tokio::test]
async fn the_same_request_again_is_answered_in_the_same_words_and_done_once() {
    let app = TestApp::start().await;
    let staff = app.staff().await;

    let first = post_with(&staff, &[(KEY, "\"a-key\"")], &thing("Cup")).await;
    let again = post_with(&staff, &[(KEY, "a-key")], &thing("Cup")).await;

    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    assert_eq!(first.header("idempotent-replayed"), "");
    assert!(!first.header("idempotency-expires").is_empty());
    assert_replayed(&again, &first);
    assert_ne!(again.header("x-request-id"), first.header("x-request-id"));
    assert_eq!(app.execute("select from products").await, 1);
}

#[tokio::test]
async fn what_was_answered_again_is_there_to_be_read() {
    let app = TestApp::start().await;
    let staff = app.staff().await;
    staff.post_as("a-key", PRODUCTS, &thing("Cup")).await;

    let again = staff.post_as("a-key", PRODUCTS, &thing("Cup")).await;
    let token = again.header("consistency-token");
    let headers = [(HeaderName::from_static("consistency-token"), token)];
    let read = app
        .anonymous()
        .get_with(again.header(header::LOCATION), &headers)
        .await;

    assert!(!token.is_empty(), "{again:?}");
    assert_eq!(read.json(), again.json());
}

#[tokio::test]
async fn a_request_without_a_key_and_one_with_none_to_speak_of_are_refused() {
    let app = TestApp::start().await;
    let staff = app.staff().await;

    let missing = post_with(&staff, &[], &thing("Cup")).await;
    let invalid = post_with(&staff, &[(KEY, "two words")], &thing("Cup")).await;

    for (answer, code) in [
        (missing, "idempotency_key_missing"),
        (invalid, "idempotency_key_invalid"),
    ] {
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::BAD_REQUEST, code)
        );
    }
    assert_eq!(app.execute("select from idempotency_keys").await, 0);
}

#[tokio::test]
async fn a_key_is_for_one_request_of_one_user() {
    let app = TestApp::start().await;
    let (staff, colleague) = (app.staff().await, app.staff().await);
    staff.post_as("a-key", PRODUCTS, &thing("Cup")).await;

    let other_body = staff.post_as("a-key", PRODUCTS, &thing("Mug")).await;
    let other_route = json!({ "lines": [{ "product_id": uuid::Uuid::nil(), "quantity": 1 }] });
    let other_route = staff.post_as("a-key", "/v1/orders", &other_route).await;
    let somebody_else = colleague.post_as("a-key", PRODUCTS, &thing("Mug")).await;

    for answer in [other_body, other_route] {
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(answer.code(), "idempotency_key_reused");
    }
    assert_eq!(
        somebody_else.status,
        StatusCode::CREATED,
        "{somebody_else:?}"
    );
}

#[tokio::test]
async fn an_expired_key_is_as_good_as_new() {
    let app = TestApp::start().await;
    let staff = app.staff().await;
    staff.post_as("a-key", PRODUCTS, &thing("Cup")).await;
    app.execute("update idempotency_keys set expires_at = now()")
        .await;

    let anew = staff.post_as("a-key", PRODUCTS, &thing("Mug")).await;

    assert_eq!(
        (anew.status, anew.header("idempotent-replayed")),
        (StatusCode::CREATED, "")
    );
}

#[tokio::test]
async fn a_refusal_that_follows_from_the_request_is_remembered_with_its_body() {
    let app = TestApp::start().await;
    let staff = app.staff().await;
    staff.post(PRODUCTS, &thing("Cup")).await;

    let refused = staff.post_as("a-key", PRODUCTS, &thing("Cup")).await;
    app.execute("delete from products").await;
    let again = staff.post_as("a-key", PRODUCTS, &thing("Cup")).await;

    assert_eq!(
        (refused.status, refused.code().as_str()),
        (StatusCode::CONFLICT, "sku_taken")
    );
    assert_replayed(&again, &refused);
    assert_eq!(
        again.header(header::CONTENT_TYPE),
        "application/problem+json"
    );
}

#[tokio::test]
async fn a_request_that_is_being_worked_on_is_told_when_to_come_again() {
    let app = TestApp::start().await;
    let staff = app.staff().await;
    staff.post_as("a-key", PRODUCTS, &thing("Cup")).await;
    app.execute(
        "update idempotency_keys
         set status = null, headers = null, body = null, locked_until = now() + interval '1 hour'",
    )
    .await;

    let early = staff.post_as("a-key", PRODUCTS, &thing("Cup")).await;

    assert_eq!(
        (early.status, early.header(header::RETRY_AFTER)),
        (StatusCode::CONFLICT, "1")
    );
    assert_eq!(early.code(), "idempotency_key_in_use");
}

#[tokio::test]
async fn what_failed_lets_go_of_its_key_at_once() {
    let app = TestApp::with(|settings| {
        settings.postgres.lock_timeout = std::time::Duration::from_millis(100);
    })
    .await;
    let staff = app.staff().await;
    let mut in_the_way = app.admin().await;
    let lock = "begin; lock table products in access exclusive mode";
    sqlx::raw_sql(lock).execute(&mut in_the_way).await.unwrap();
    let failed = staff.post_as("a-key", PRODUCTS, &thing("Cup")).await;
    sqlx::raw_sql("rollback")
        .execute(&mut in_the_way)
        .await
        .unwrap();

    let done = staff.post_as("a-key", PRODUCTS, &thing("Cup")).await;

    assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE, "{failed:?}");
    assert_eq!(done.status, StatusCode::CREATED, "{done:?}");
}
