//! Faults and the sandbox's behaviour, set over HTTP and in process.

use std::time::Duration;

use devstack::{Behaviour, Fault, PaymentStatus, Stack, Target, UpstreamService};
use tokio::time::{Instant, timeout};

use crate::{DEADLINE, http::exchange};

const PAYMENT: &str = r#"{"reference":"order 1","amount_cents":1999,"currency":"EUR"}"#;
const PAY: &str = "POST /payments\nidempotency-key: k1\r\n";
const SILENCE: Duration = Duration::from_millis(200);

/// One stack for all of them, because a stack takes a second or two.
#[tokio::test]
async fn the_network_and_the_upstream_misbehave_as_told() {
    let stack = Stack::start().await.unwrap();

    a_payment_with_the_same_key_is_made_once(&stack).await;
    a_key_used_for_another_payment_is_refused(&stack).await;
    a_payment_that_was_declined_stays_so(&stack).await;
    a_service_is_late_and_fails_as_told(&stack).await;
    a_hanging_service_answers_when_it_is_told_to(&stack).await;
    a_fault_is_set_listed_and_cleared_over_http(&stack).await;
    a_faulty_request_for_a_fault_changes_nothing(&stack).await;
}

async fn a_payment_with_the_same_key_is_made_once(stack: &Stack) {
    let url = stack.upstream_url();

    let (first, second) = tokio::join!(exchange(&url, PAY, PAYMENT), exchange(&url, PAY, PAYMENT));
    let (first, second) = (first.unwrap(), second.unwrap());

    assert_eq!(first.1, second.1, "another payment for the same key");
    assert_eq!(first.0.min(second.0)..=first.0.max(second.0), 200..=201);
    assert_eq!(
        stack.upstream().counters(UpstreamService::Payments).effects,
        1
    );
}

async fn a_key_used_for_another_payment_is_refused(stack: &Stack) {
    let other = PAYMENT.replace("1999", "1");

    let (status, _) = exchange(&stack.upstream_url(), PAY, &other).await.unwrap();

    assert_eq!(status, 422);
}

async fn a_payment_that_was_declined_stays_so(stack: &Stack) {
    let (url, upstream) = (stack.upstream_url(), stack.upstream());
    let pay = PAY.replace("k1", "\"k2\"");
    let payment = PAYMENT.replace("order 1", "order 2");
    upstream.set(
        UpstreamService::Payments,
        Behaviour {
            decline_rate: 1.0,
            ..Behaviour::default()
        },
    );

    let (declined, _) = exchange(&url, &pay, &payment).await.unwrap();
    upstream.set(UpstreamService::Payments, Behaviour::default());
    let bare = pay.replace('"', "");
    let (again, _) = exchange(&url, &bare, &payment).await.unwrap();

    assert_eq!((declined, again), (402, 402));
    let statuses = upstream.payments("order 2").into_iter();
    let statuses: Vec<_> = statuses.map(|payment| payment.status).collect();
    assert_eq!(statuses, [PaymentStatus::Declined]);
    let counters = upstream.counters(UpstreamService::Payments);
    assert_eq!((counters.declined, counters.effects), (1, 1));
}

async fn a_service_is_late_and_fails_as_told(stack: &Stack) {
    let late = r#"{"latency":"150ms"}"#;
    exchange(
        &stack.upstream_direct_url(),
        "PUT /behaviour/payments",
        late,
    )
    .await
    .unwrap();

    let start = Instant::now();
    exchange(&stack.upstream_url(), PAY, PAYMENT).await.unwrap();
    let took = start.elapsed();
    stack.upstream().set(
        UpstreamService::Payments,
        Behaviour {
            error_rate: 1.0,
            ..Behaviour::default()
        },
    );
    let (status, _) = exchange(&stack.upstream_url(), PAY, PAYMENT).await.unwrap();
    stack
        .upstream()
        .set(UpstreamService::Payments, Behaviour::default());

    assert!(took >= Duration::from_millis(150), "{took:?}");
    assert_eq!(status, 503);
    assert_eq!(
        stack.upstream().counters(UpstreamService::Payments).refused,
        1
    );
}

async fn a_hanging_service_answers_when_it_is_told_to(stack: &Stack) {
    let (url, service) = (stack.upstream_url(), UpstreamService::Recommendations);
    exchange(&url, "GET /recommendations?product_id=saucer", "")
        .await
        .unwrap();
    stack.upstream().set(
        service,
        Behaviour {
            hang: true,
            ..Behaviour::default()
        },
    );

    let mut asked = Box::pin(exchange(&url, "GET /recommendations?product_id=cup", ""));
    let silence = timeout(SILENCE, &mut asked).await;
    stack.upstream().set(service, Behaviour::default());

    assert!(silence.is_err());
    let answer = timeout(DEADLINE, asked).await.unwrap().unwrap();
    assert_eq!(answer, (200, r#"{"product_ids":["saucer"]}"#.to_owned()));
}

async fn a_fault_is_set_listed_and_cleared_over_http(stack: &Stack) {
    let control = stack.control_url();
    let late = r#"[{"fault":{"latency":{"delay":"150ms"}},"direction":"to_client"}]"#;

    let (set, _) = exchange(&control, "PUT /proxies/upstream", late)
        .await
        .unwrap();
    let start = Instant::now();
    exchange(&stack.upstream_url(), "GET /counters", "")
        .await
        .unwrap();
    let took = start.elapsed();
    let (_, list) = exchange(&control, "GET /proxies", "").await.unwrap();
    let (cleared, _) = exchange(&control, "DELETE /proxies/upstream", "")
        .await
        .unwrap();

    assert_eq!((set, cleared), (204, 204));
    assert!(took >= Duration::from_millis(150), "{took:?}");
    assert!(list.contains(r#""delay":"150ms""#), "{list}");
    assert!(stack.proxy(Target::Upstream).toxics().is_empty());
}

async fn a_faulty_request_for_a_fault_changes_nothing(stack: &Stack) {
    stack
        .proxy(Target::Upstream)
        .set(Fault::SlowClose {
            delay: Duration::from_millis(1),
        })
        .await;
    let misspelt = r#"[{"fault":"down","probabilty":0.5}]"#;

    let (status, reason) = exchange(&stack.control_url(), "PUT /proxies/upstream", misspelt)
        .await
        .unwrap();

    assert_eq!(status, 422);
    assert!(reason.contains("probabilty"), "{reason}");
    assert_eq!(stack.proxy(Target::Upstream).toxics().len(), 1);
}
