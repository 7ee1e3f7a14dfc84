//! What operators can do, and how soon the fleet follows.

use devstack::{Database, Pooling};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{FLAG, FLEET, SET_TOKEN, flag, is_off, operate, says, set};
use crate::{
    service::{PATIENT, Service, database, seed},
    wire::{borrowed, call, get},
};

async fn start(database: &Database, settings: &[(&str, &str)]) -> Service {
    let settings = [&PATIENT[..], &[SET_TOKEN], settings].concat();
    let service = Service::start(database, &settings).await;
    service.ready().await;
    service
}

/// Flips the flag on the first process, there and back; both follow in time.
async fn flip(fleet: &[Service; 2], how: &str) {
    let page = get(fleet[0].public, "/v1/products?limit=1").await.json();
    let product = page["items"][0]["id"].as_str().unwrap();
    for is_on in [false, true] {
        let since = Instant::now();
        if is_on {
            let line = format!("DELETE /flags/{FLAG}");
            let reply = operate(fleet[0].admin, &line, None).await;
            assert_eq!(reply.status, 200, "{reply:?}");
        } else {
            set(&fleet[0], false, "1h").await;
        }
        let expected = [("value", Value::from(is_on))];
        let here = says(&fleet[0], since, &expected).await;
        let there = says(&fleet[1], since, &expected).await;
        println!("{how}: on = {is_on} after {here:?} there, {there:?} on the other process");
        assert!(here < FLEET && there < FLEET);
        for service in fleet {
            assert_eq!(is_off(service, product).await, !is_on);
        }
    }
}

#[tokio::test]
async fn a_flag_set_on_one_process_is_set_on_the_other_at_once_by_word_of_it() {
    let database = database().await;
    seed(devstack::shared().await, &database, 5).await;
    // Nobody looks by itself while this runs.
    let patient = [
        ("HOLDFAST__FLAGS__POLL_INTERVAL", "60s"),
        ("HOLDFAST__FLAGS__STALE_AFTER", "1h"),
    ];
    let fleet = [
        start(&database, &patient).await,
        start(&database, &patient).await,
    ];
    for service in &fleet {
        says(service, Instant::now(), &[("reason", json!("DEFAULT"))]).await;
    }

    flip(&fleet, "by word").await;
}

#[tokio::test]
async fn behind_a_pooler_where_no_word_comes_the_other_process_looks_in_time() {
    let services = devstack::shared().await;
    let database = database().await;
    seed(services, &database, 5).await;
    let pooler = services
        .pgbouncer(&database, Pooling::default())
        .await
        .unwrap();
    let pooled = [
        ("HOLDFAST__POSTGRES__POOLED", "true".to_owned()),
        ("HOLDFAST__POSTGRES__PRIMARY_URL", pooler.primary_url()),
        ("HOLDFAST__POSTGRES__REPLICA_URLS", pooler.replica_url()),
        (
            "HOLDFAST__POSTGRES__DIRECT_URL",
            database.primary_direct_url.clone(),
        ),
        ("HOLDFAST__POSTGRES__CHECK_TIMEOUT", "4s".to_owned()),
    ];
    let pooled = borrowed(&pooled);
    let fleet = [
        start(&database, &pooled).await,
        start(&database, &pooled).await,
    ];

    flip(&fleet, "pooled").await;
}

#[tokio::test]
async fn what_was_set_by_hand_ends_by_itself() {
    let database = database().await;
    let service = start(&database, &[]).await;

    let since = Instant::now();
    set(&service, false, "2s").await;
    let during = flag(&service).await;
    let ended = says(
        &service,
        since,
        &[("value", json!(true)), ("origin", json!("code"))],
    )
    .await;

    println!("set for 2 s: over after {ended:?}");
    assert_eq!(during["origin"], "operator");
    assert_eq!(during["reason"], "STATIC");
    assert_eq!(during["override"]["reason"], "the recommender is ill");
    assert_eq!(during["override"]["changed_by"], "Ann");
    assert!(ended.as_secs() >= 2);
    let metrics = get(service.admin, "/metrics").await.body;
    assert!(
        metrics.contains("flag_on{flag=\"recommendations\",origin=\"code\"} 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn only_who_has_the_token_sets_a_flag_and_only_one_that_there_is_and_not_for_ever() {
    let database = database().await;
    let service = start(&database, &[]).await;
    let order =
        |ttl: &str| json!({ "value": false, "reason": "a try", "changed_by": "Bob", "ttl": ttl });
    let line = format!("PUT /flags/{FLAG}");

    for (line, body) in [
        (line.as_str(), Some(order("1h"))),
        ("DELETE /flags/recommendations", None),
    ] {
        let reply = call(service.admin, line, &[], body.as_ref()).await;
        assert_eq!(reply.status, 403, "{reply:?}");
    }
    for (line, body, status) in [
        ("PUT /flags/search", order("1h"), 404),
        (&line, order("0s"), 422),
        (&line, order("100d"), 422),
        (&line, order("soon"), 422),
        (&line, json!({ "value": false, "ttl": "1h" }), 422),
        (
            &line,
            json!({ "value": false, "reason": "", "changed_by": "", "ttl": "1h" }),
            422,
        ),
        (
            &line,
            json!({ "value": false, "reason": "a\nforged line", "changed_by": "Bob", "ttl": "1h" }),
            422,
        ),
    ] {
        let reply = operate(service.admin, line, Some(&body)).await;
        assert_eq!(reply.status, status, "{line} {body}: {reply:?}");
        assert_eq!(
            reply.header("content-type"),
            Some("application/problem+json")
        );
    }
    assert_eq!(flag(&service).await["value"], true);

    set(&service, false, "1h").await;
    let audit = service.logged("flag_change").await;
    assert!(
        audit.contains("the recommender is ill") && audit.contains("Ann"),
        "{audit}"
    );
    assert!(!service.log().contains(super::TOKEN));
}
