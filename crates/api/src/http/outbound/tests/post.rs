use std::sync::Mutex;

use super::*;

const KEY: Uuid = Uuid::from_u128(7);

async fn post(service: &Service) -> Result<Value, CallError> {
    let body = json!({ "amount": 7 });
    service.post("/thing", KEY, &body, &caller(PATIENCE)).await
}

#[tokio::test]
async fn it_has_a_body_of_json_and_a_key() {
    let stub = Stub::start(echo).await;

    let echoed = post(&stub.service(|_| {})).await.unwrap();

    assert_eq!(echoed["method"], "POST");
    assert_eq!(echoed["target"], "/base/thing");
    assert_eq!(echoed["body"], r#"{"amount":7}"#);
    assert_eq!(echoed["headers"]["content-type"], "application/json");
    let key = format!("\"{KEY}\"");
    assert_eq!(echoed["headers"]["idempotency-key"], key);
}

#[tokio::test]
async fn it_is_repeated_word_for_word_with_the_same_key() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let said = Arc::clone(&heard);
    let stub = Stub::start(move |number: usize, request: Request| {
        let said = Arc::clone(&said);
        async move {
            let key = request.headers()["idempotency-key"].clone();
            let body = axum::body::to_bytes(request.into_body(), 1024).await;
            said.lock().unwrap().push((key, body.unwrap()));
            let status = [StatusCode::BAD_GATEWAY, StatusCode::CREATED][number.min(1)];
            (status, Json(json!({ "fine": true }))).into_response()
        }
    })
    .await;

    let answer = post(&stub.service(|_| {})).await;

    assert_eq!(answer.unwrap(), json!({ "fine": true }));
    let heard = heard.lock().unwrap();
    assert_eq!(heard.len(), 2);
    assert_eq!(heard[0], heard[1]);
}

#[tokio::test]
async fn a_refusal_is_told_apart_not_repeated_and_no_failure_of_the_service() {
    const STATUSES: [u16; 4] = [402, 409, 422, 400];
    let refusing = async |number: usize, _| {
        let status = STATUSES[number % STATUSES.len()];
        StatusCode::from_u16(status).unwrap().into_response()
    };
    let stub = Stub::start(refusing).await;
    let service = stub.service(|config| config.breaker.failures_in_row = 2);

    for status in STATUSES {
        let error = post(&service).await.unwrap_err();
        assert!(
            matches!(error, CallError::Refused(refused) if refused.as_u16() == status),
            "{error:?}"
        );
    }

    assert_eq!(stub.requests(), STATUSES.len());
    assert_eq!(service.0.breaker.state(), State::Closed);
}

#[tokio::test]
async fn a_body_larger_than_any_that_was_expected_is_not_sent() {
    let stub = Stub::start(fine).await;
    let service = stub.service(|config| config.body_bytes_max = 64);
    let body = "x".repeat(64);

    let caller = caller(PATIENCE);
    let call = service.post::<Value>("/thing", KEY, &body, &caller);

    assert_eq!(call.await.unwrap_err().outcome(), "unsendable");
    assert_eq!(stub.requests(), 0);
}
