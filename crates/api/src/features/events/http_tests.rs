//! What events must be, and what they must never cost.

use http::StatusCode;
use resilience::Rate;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use crate::testing::{Answer, TestApp};

/// How long anything may take that happens in the background.
const PATIENCE: Duration = Duration::from_secs(20);

/// A service that writes nothing while a test looks on.
async fn asleep() -> TestApp {
    TestApp::with(|settings| {
        settings.events.wait_max = Duration::from_secs(3600);
        settings.events.buffered_max = 3;
    })
    .await
}

async fn send(app: &TestApp, events: Value) -> Answer {
    let body = json!({ "events": events });
    app.anonymous().post("/v1/events", &body).await
}

fn viewed(count: usize) -> Value {
    vec![json!({ "name": "product_viewed" }); count].into()
}

/// Waits until `statement` finds as many rows.
async fn finds(app: &TestApp, statement: &'static str, rows: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = app.execute(statement).await;
        if found == rows {
            return;
        }
        assert!(Instant::now() < deadline, "{found} rows: {statement}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_is_accepted_is_written_a_moment_later_as_it_was_said() {
    let app = TestApp::with(|settings| settings.events.wait_max = Duration::from_millis(50)).await;
    let product = "0199f0a0-0000-7000-8000-000000000000";

    let answer = send(
        &app,
        json!([
            { "name": "searched", "at": "2026-11-01T09:00:00+01:00", "properties": { "words": ["cup", "\\u0000"] } },
            { "name": "product_viewed", "product_id": product },
        ]),
    )
    .await;

    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    assert_eq!(answer.json(), json!({ "accepted": 2, "dropped": 0 }));
    let searched = r#"select from events where name = 'searched' and at = '2026-11-01T08:00:00Z' and product_id is null
                      and properties = '{"words": ["cup", "\\u0000"]}'"#;
    finds(&app, searched, 1).await;
    let was_viewed = "select from events where name = 'product_viewed' and at > now() - interval '1 minute'
                      and product_id = '0199f0a0-0000-7000-8000-000000000000' and properties = '{}'";
    finds(&app, was_viewed, 1).await;
}

#[tokio::test]
async fn switched_off_they_are_taken_and_dropped_and_cost_no_server_anything() {
    let app = TestApp::metered_without("events").await;

    let (answer, cost) = app.cost(async || send(&app, viewed(2)).await).await;

    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    assert_eq!(answer.json(), json!({ "accepted": 0, "dropped": 2 }));
    assert_eq!(answer.header("degraded"), "events_off");
    assert_eq!(cost.statements(), [0, 0]);
}

#[tokio::test]
async fn what_there_is_no_room_for_is_dropped_and_said() {
    let app = asleep().await;

    let some = send(&app, viewed(5)).await;
    let none = send(&app, viewed(1)).await;

    assert_eq!(some.status, StatusCode::ACCEPTED, "{some:?}");
    assert_eq!(some.json(), json!({ "accepted": 3, "dropped": 2 }));
    assert_eq!(none.status, StatusCode::SERVICE_UNAVAILABLE, "{none:?}");
    assert_ne!(none.header("retry-after"), "");
}

#[tokio::test]
async fn a_batch_is_written_as_soon_as_it_is_whole() {
    let app = TestApp::with(|settings| {
        settings.events.wait_max = Duration::from_secs(3600);
        settings.events.batch_max = 4;
    })
    .await;

    send(&app, viewed(3)).await;
    send(&app, viewed(3)).await;

    finds(&app, "select from events", 6).await;
}

#[tokio::test]
async fn only_few_and_small_events_that_can_be_kept_are_taken() {
    let app = asleep().await;
    for events in [
        viewed(0),
        viewed(101),
        json!([{ "name": "" }]),
        json!([{ "name": "two\nlines" }]),
        json!([{ "name": "x".repeat(65) }]),
        json!([{ "name": "searched", "at": "yesterday" }]),
        json!([{ "name": "searched", "who": "me" }]),
        json!([{ "name": "searched", "properties": { "words": "x".repeat(1024) } }]),
        json!([{ "name": "searched", "properties": { "words": ["cup", { "of": "\0" }] } }]),
    ] {
        let answer = send(&app, events.clone()).await;
        assert_eq!(
            answer.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{events} {answer:?}"
        );
    }

    assert_eq!(send(&app, viewed(3)).await.json()["accepted"], 3);
}

#[tokio::test]
async fn they_do_not_use_up_what_their_sender_signs_in_with() {
    let app = TestApp::with(|settings| {
        settings.limits.address_write = Rate {
            quota: 1,
            window: Duration::from_secs(3600),
        };
    })
    .await;

    for _ in 0..5 {
        let answer = send(&app, viewed(1)).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    }
}

#[tokio::test]
async fn old_events_are_forgotten_a_few_at_a_time_and_no_others() {
    let app = TestApp::with(|settings| {
        settings.events.sweep_interval = Duration::from_millis(100);
        settings.events.batch_max = 2;
        settings.events.wait_max = Duration::from_millis(10);
    })
    .await;
    send(&app, viewed(1)).await;
    finds(&app, "select from events", 1).await;

    let of_2022 = "insert into events (id, at, name, properties)
                   select ('01800000-0000-7000-8000-00000000000' || n)::uuid, now(), 'old', '{}'
                   from generate_series(1, 7) as n";
    assert_eq!(app.execute(of_2022).await, 7);

    finds(&app, "select from events where name = 'old'", 0).await;
    finds(&app, "select from events", 1).await;
}
