//! What guessing passwords comes to, seen by who guesses and by who does not.

use std::time::Duration;

use futures::future::join_all;
use http::{HeaderName, Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    settings::Settings,
    testing::{Answer, Client, PASSWORD, TestApp},
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const OFFICE: &str = "192.0.2.7";
const ATTACKER: &str = "198.51.100.6";

/// As shipped, behind one proxy.
fn as_shipped(settings: &mut Settings) {
    settings.http.trusted_hops = 1;
    settings.sessions.throttle = Default::default();
}

/// Waits so long that none ends during a test.
fn unforgiving(settings: &mut Settings) {
    as_shipped(settings);
    settings.sessions.throttle.delay = Duration::from_secs(60);
    settings.sessions.throttle.address_delay_max = Duration::from_secs(120);
}

async fn registered(app: &TestApp, email: &str) {
    let answer = app
        .anonymous()
        .post("/v1/users", &with(email, PASSWORD))
        .await;
    assert_eq!(answer.status, StatusCode::CREATED);
}

fn with(email: &str, password: &str) -> Value {
    json!({ "email": email, "password": password })
}

async fn sign_in(client: &Client, from: &str, credentials: &Value) -> Answer {
    let headers = [(X_FORWARDED_FOR, from)];
    let (method, path) = (Method::POST, "/v1/session");
    client.send(method, path, &headers, Some(credentials)).await
}

fn wrong(email: &str) -> Value {
    with(email, "correct horse battery stable")
}

#[tokio::test]
async fn after_five_wrong_passwords_even_the_right_one_has_to_wait_and_then_does() {
    let app = TestApp::with(|settings| {
        as_shipped(settings);
        settings.sessions.throttle.delay = Duration::from_secs(5);
    })
    .await;
    registered(&app, "ann@example.com").await;
    let client = app.anonymous();
    let ann = with("Ann@Example.com", PASSWORD);

    let mut statuses = Vec::new();
    for _ in 0..20 {
        let answer = sign_in(&client, ATTACKER, &wrong("ann@example.com")).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            let wait: u64 = answer.header(header::RETRY_AFTER).parse().unwrap();
            assert!(wait >= 1, "{answer:?}");
            assert_eq!(answer.json()["violated-policies"], json!(["login"]));
        }
        statuses.push(answer.status.as_u16());
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while sign_in(&client, OFFICE, &ann).await.status != StatusCode::CREATED {
        assert!(Instant::now() < deadline, "the wait has no end");
        sleep(Duration::from_millis(50)).await;
    }
    let again = sign_in(&client, OFFICE, &wrong("ann@example.com")).await;

    assert_eq!(statuses[..5], [401; 5]);
    assert_eq!(statuses[5], 429);
    assert_eq!(
        again.status,
        StatusCode::UNAUTHORIZED,
        "the right one made them free again"
    );
}

#[tokio::test]
async fn a_thousand_guesses_through_two_processes_are_five_before_the_first_wait_ends() {
    let prefix = format!("throttle-{:x}", fastrand::u64(..));
    let change = |settings: &mut Settings| {
        unforgiving(settings);
        settings.redis.key_prefix.clone_from(&prefix);
    };
    let (one, other) = tokio::join!(TestApp::with(change), TestApp::with(change));
    let clients = [one.anonymous(), other.anonymous()];

    let mut guessed = 0;
    for round in 0..10 {
        let from = format!("198.51.100.{round}");
        let guess = wrong("ann@example.com");
        let guesses = (0..100).map(|n| sign_in(&clients[n % 2], &from, &guess));
        let answers = join_all(guesses).await;
        let hashed = answers
            .iter()
            .filter(|answer| answer.status != StatusCode::TOO_MANY_REQUESTS);
        guessed += hashed.count();
    }

    println!("{guessed} of 1000 guesses at one account were compared");
    assert_eq!(guessed, 5);
}

#[tokio::test]
async fn other_accounts_and_sessions_do_not_wait_and_unknown_ones_do_alike() {
    let app = TestApp::with(unforgiving).await;
    registered(&app, "ann@example.com").await;
    registered(&app, "bob@example.com").await;
    let mut client = app.anonymous();
    let ann = with("ann@example.com", PASSWORD);
    let signed_in = sign_in(&client, OFFICE, &ann).await;

    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        known.push(sign_in(&client, ATTACKER, &wrong("ann@example.com")).await);
        unknown.push(sign_in(&client, ATTACKER, &wrong("nobody@example.com")).await);
    }
    let bob = sign_in(&client, OFFICE, &with("bob@example.com", PASSWORD)).await;
    client.cookie = Some(signed_in.session_cookie());
    let session = client.get("/v1/session").await;

    assert_eq!(
        [bob.status, session.status],
        [StatusCode::CREATED, StatusCode::OK]
    );
    let shape = |answer: &Answer| {
        let mut body = answer.json();
        body.as_object_mut().unwrap().remove("request_id");
        (answer.status, body)
    };
    assert_eq!(known[5].status, StatusCode::TOO_MANY_REQUESTS);
    for (known, unknown) in known.iter().zip(&unknown) {
        assert_eq!(shape(known), shape(unknown));
    }
}

#[tokio::test]
async fn an_address_that_tries_many_accounts_waits_and_others_do_not() {
    let app = TestApp::with(|settings| {
        unforgiving(settings);
        settings.sessions.throttle.address_free = 5;
    })
    .await;
    registered(&app, "ann@example.com").await;
    let client = app.anonymous();
    let ann = with("ann@example.com", PASSWORD);

    // Right ones are not held against it.
    for _ in 0..8 {
        assert_eq!(
            sign_in(&client, ATTACKER, &ann).await.status,
            StatusCode::CREATED
        );
    }
    let mut statuses = Vec::new();
    for n in 0..7 {
        let guess = wrong(&format!("user{n}@example.com"));
        statuses.push(sign_in(&client, ATTACKER, &guess).await.status.as_u16());
    }
    let elsewhere = sign_in(&client, OFFICE, &ann).await;

    assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429]);
    assert_eq!(elsewhere.status, StatusCode::CREATED);
}

#[tokio::test]
async fn without_redis_guesses_wait_all_the_same() {
    let app = TestApp::with(|settings| {
        unforgiving(settings);
        settings.redis.url = "redis://127.0.0.1:1".into();
    })
    .await;
    let client = app.anonymous();

    let mut statuses = Vec::new();
    for _ in 0..7 {
        let answer = sign_in(&client, ATTACKER, &wrong("ann@example.com")).await;
        statuses.push(answer.status.as_u16());
    }

    assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429]);
}
