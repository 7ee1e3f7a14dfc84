//! What limits promise, seen by clients behind one trusted proxy.

use std::time::Duration;

use futures::future::join_all;
use http::{HeaderName, Method, StatusCode, header};
use resilience::Rate;
use serde_json::json;

use crate::{
    settings::Settings,
    testing::{Answer, Client, TestApp},
};

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const CATALOGUE: &str = "/v1/products?limit=1";

/// So slow to come back that none does during a test.
fn an_hour(quota: u32) -> Rate {
    Rate {
        quota,
        window: Duration::from_secs(3_600),
    }
}

/// Addresses may read `quota` times.
fn reads(quota: u32) -> impl Fn(&mut Settings) {
    move |settings| {
        settings.http.trusted_hops = 1;
        settings.limits.address_read = an_hour(quota);
    }
}

/// Two processes of one service.
async fn two(change: impl Fn(&mut Settings)) -> [TestApp; 2] {
    let prefix = format!("limits-{:x}", fastrand::u64(..));
    let with_prefix = |settings: &mut Settings| {
        settings.redis.key_prefix.clone_from(&prefix);
        change(settings);
    };
    let (one, other) = tokio::join!(TestApp::with(with_prefix), TestApp::with(with_prefix));
    [one, other]
}

async fn read_from(client: &Client, address: &str) -> Answer {
    client
        .get_with(CATALOGUE, &[(X_FORWARDED_FOR, address)])
        .await
}

/// How many of so many reads from one address are served, sent to both processes in turn.
async fn served(apps: &[TestApp; 2], reads: usize) -> usize {
    let clients = apps.each_ref().map(TestApp::anonymous);
    let mut served = 0;
    for batch in (0..reads).collect::<Vec<_>>().chunks(20) {
        let reads = batch
            .iter()
            .map(|n| read_from(&clients[n % 2], "192.0.2.7"));
        let answers = join_all(reads).await;
        let ok = answers
            .iter()
            .filter(|answer| answer.status == StatusCode::OK);
        served += ok.count();
    }
    served
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back_and_others_are_served() {
    let app = TestApp::with(reads(3)).await;
    let client = app.anonymous();

    let first = read_from(&client, "192.0.2.7").await;
    read_from(&client, "192.0.2.7").await;
    read_from(&client, "192.0.2.7").await;
    let refused = read_from(&client, "192.0.2.7").await;
    let other = read_from(&client, "192.0.2.8").await;

    assert_eq!(
        first.header(RATELIMIT_POLICY),
        r#""address-read";q=3;w=3600"#
    );
    assert_eq!(first.header(RATELIMIT), r#""address-read";r=2;t=1200"#);
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    let problem = refused.json();
    assert_eq!(
        problem["type"],
        "https://iana.org/assignments/http-problem-types#quota-exceeded"
    );
    assert_eq!(problem["violated-policies"], json!(["address-read"]));
    let standing = refused.header(RATELIMIT);
    let until = standing.strip_prefix(r#""address-read";r=0;t="#).unwrap();
    let retry_after: u64 = refused.header(header::RETRY_AFTER).parse().unwrap();
    assert!(retry_after >= until.parse().unwrap(), "{refused:?}");
    assert!(retry_after <= 1_200 + 360 + 1, "{refused:?}");
    assert_eq!(other.status, StatusCode::OK);
}

#[tokio::test]
async fn a_thousand_made_up_addresses_are_still_one() {
    let app = TestApp::with(reads(10)).await;
    let client = app.anonymous();

    let mut served = 0;
    for n in 0..1_000 {
        let spoofed = format!("10.{}.{}.1, 192.0.2.7", n / 256, n % 256);
        let answer = read_from(&client, &spoofed).await;
        served += usize::from(answer.status == StatusCode::OK);
    }

    assert_eq!(served, 10);
}

#[tokio::test]
async fn two_processes_share_a_limit_within_a_twentieth() {
    let served = served(&two(reads(200)).await, 600).await;

    println!("{served} of 200 were served by two processes");
    assert!((200..=210).contains(&served), "{served}");
}

#[tokio::test]
async fn without_redis_two_processes_serve_no_more_than_the_limit() {
    let away = |settings: &mut Settings| {
        reads(200)(settings);
        settings.redis.url = "redis://127.0.0.1:1".into();
    };

    let served = served(&two(away).await, 600).await;

    println!("{served} of 200 were served by two processes without Redis");
    assert_eq!(served, 200);
}

#[tokio::test]
async fn a_user_has_one_limit_on_every_process_and_costs_the_address_nothing() {
    let [app, other] = two(|settings| {
        reads(2)(settings);
        settings.limits.user_read = an_hour(10);
    })
    .await;
    let (here, neighbour) = (app.customer().await, app.customer().await);
    let mut there = other.anonymous();
    there.cookie.clone_from(&here.cookie);

    let mut answers = Vec::new();
    for n in 0..12 {
        let client = [&here, &there][n % 2];
        answers.push(client.get("/v1/orders").await);
    }
    let neighbours = neighbour.get("/v1/orders").await;
    let anonymous = app.anonymous().get(CATALOGUE).await;

    let served = answers
        .iter()
        .take_while(|answer| answer.status == StatusCode::OK);
    assert_eq!(served.count(), 10);
    assert_eq!(
        answers[0].header(RATELIMIT_POLICY),
        r#""user-read";q=10;w=3600"#
    );
    assert_eq!(answers[0].header(RATELIMIT), r#""user-read";r=9;t=360"#);
    for refused in &answers[10..] {
        assert_eq!(refused.json()["violated-policies"], json!(["user-read"]));
    }
    assert_eq!(
        [neighbours.status, anonymous.status],
        [StatusCode::OK, StatusCode::OK]
    );
}

#[tokio::test]
async fn made_up_sessions_are_counted_against_their_address() {
    let app = TestApp::with(reads(3)).await;
    let mut client = app.anonymous();

    let mut statuses = Vec::new();
    for n in 0..5 {
        client.cookie = Some(format!("__Host-sid={n}{}", "A".repeat(42)));
        statuses.push(client.get("/v1/session").await.status.as_u16());
    }

    assert_eq!(statuses, [401, 401, 401, 429, 429]);
}

#[tokio::test]
async fn a_refusal_asks_no_server() {
    let app = TestApp::metered_with(|settings| {
        reads(2)(settings);
        settings.limits.user_read = an_hour(2);
    })
    .await;
    let (user, anonymous) = (app.customer().await, app.anonymous());
    let asks = [
        (&user, "/v1/session", "192.0.2.7", "user-read"),
        (&anonymous, CATALOGUE, "192.0.2.8", "address-read"),
    ];

    for (client, path, address, policy) in asks {
        let ask = async || client.get_with(path, &[(X_FORWARDED_FOR, address)]).await;
        for _ in 0..3 {
            ask().await;
        }
        let (answer, cost) = app.cost(ask).await;

        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.json()["violated-policies"], json!([policy]));
        assert_eq!(cost.statements(), [0, 0], "{path}");
        assert_eq!(cost.redis.round_trips, 0, "{path}");
    }
}

#[tokio::test]
async fn probes_and_documents_are_never_refused() {
    let app = TestApp::with(reads(1)).await;
    let client = app.anonymous();

    for path in ["/health", "/openapi.json"] {
        for _ in 0..5 {
            let answer = client.send(Method::GET, path, &[], None).await;
            assert_eq!(answer.status, StatusCode::OK, "{path}");
            assert_eq!(answer.header(RATELIMIT), "", "{path}");
        }
    }
}
