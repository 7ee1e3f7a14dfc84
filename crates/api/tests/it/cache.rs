//! Two services over one database and one Redis: what one writes the other shows, and what neither can read is shown as it
//! was, and said to be old.

use devstack::{Database, Stack};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    service::{PATIENCE, PATIENT, STAFF, Service, database, database_on, seed},
    wire::{Reply, borrowed, call, get, sign_in},
};

/// Starts a service that hears of the other's writes, and keeps what it has read for an hour unless it does.
async fn listening(database: &Database) -> Service {
    let lasting = [
        ("HOLDFAST__CACHE__LOCAL_TTL", "1h"),
        ("HOLDFAST__CACHE__LIFETIME__FRESH", "1h"),
    ];
    let service = Service::start(database, &[&PATIENT[..], &lasting].concat()).await;
    service.ready().await;
    until(async || {
        let metrics = get(service.admin, "/metrics").await.body;
        metrics.contains("cache_subscribed 1")
    })
    .await;
    service
}

async fn any_product(service: &Service) -> String {
    let page = get(service.public, "/v1/products?limit=1").await.json();
    format!("/v1/products/{}", page["items"][0]["id"].as_str().unwrap())
}

async fn until(mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "it did not come true in time");
        sleep(std::time::Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_write_through_one_service_is_seen_through_the_other_at_once() {
    let database = database().await;
    seed(devstack::shared().await, &database, 10).await;
    let (writer, reader) = (listening(&database).await, listening(&database).await);
    let staff = sign_in(writer.public, STAFF).await;
    let path = any_product(&reader).await;
    let old = get(reader.public, &path).await;
    assert_eq!(get(reader.public, &path).await.body, old.body);

    let mut changed = old.json();
    let fields = changed.as_object_mut().unwrap();
    fields.retain(|field, _| {
        [
            "sku",
            "name",
            "description",
            "category",
            "price_cents",
            "stock",
        ]
        .contains(&field.as_str())
    });
    fields.insert("name".to_owned(), json!("Renamed"));
    let mut headers = borrowed(&staff);
    let tag = old.header("etag").unwrap();
    headers.push(("If-Match", tag));
    let put = format!("PUT {path}");
    let written = call(writer.public, &put, &headers, Some(&changed)).await;
    assert_eq!(written.status, 200, "{written:?}");
    let since = Instant::now();
    let mut new = get(reader.public, &path).await;
    until(async || {
        new = get(reader.public, &path).await;
        new.json()["name"] == "Renamed"
    })
    .await;

    println!("seen through the other service after {:?}", since.elapsed());
    assert_ne!(new.header("etag"), old.header("etag"));
    assert_eq!(new.json(), written.json());
}

#[tokio::test]
async fn what_cannot_be_read_is_shown_as_it_was_and_said_to_be_stale() {
    let stack = Stack::start().await.unwrap();
    let database = database_on(&stack).await;
    seed(&stack, &database, 10).await;
    let brief = [
        ("HOLDFAST__CACHE__LIFETIME__FRESH", "50ms"),
        ("HOLDFAST__CACHE__LIFETIME__STALE", "0s"),
        ("HOLDFAST__CACHE__LIFETIME__ON_ERROR", "1h"),
    ];
    let settings = [&PATIENT[..], &brief].concat();
    let service = Service::start_on(&stack, &database, &settings).await;
    service.ready().await;
    let path = any_product(&service).await;
    let fresh = get(service.public, &path).await;
    assert_eq!((fresh.status, fresh.header("degraded")), (200, None));

    stack.primary().kill().await.unwrap();
    stack.standby().kill().await.unwrap();
    let mut stale: Option<Reply> = None;
    until(async || {
        let reply = get(service.public, &path).await;
        assert_eq!((reply.status, &reply.body), (200, &fresh.body));
        let degraded = reply.header("degraded").unwrap_or_default();
        let is_degraded = degraded.split(", ").any(|name| name == "stale");
        stale = is_degraded.then_some(reply);
        is_degraded
    })
    .await;

    let stale = stale.unwrap();
    assert_eq!(stale.header("cache-control"), Some("no-store"));
    let unseen = get(service.public, "/v1/products").await;
    assert_eq!(unseen.status, 503, "{unseen:?}");
    let metrics = get(service.admin, "/metrics").await.body;
    let counted = r#"cache_stale_total{cache="products",outcome="degraded"}"#;
    assert!(metrics.contains(counted), "{metrics}");
}
