//! An overload that lasts switches off what is expendable, and nothing else.

use serde_json::Value;
use tokio::time::{Duration, Instant, sleep};

use super::{
    KEY, LIMITED,
    generator::{Fire, fire},
    request,
};
use crate::{
    service::{PATIENCE, PATIENT, Service, database, seed},
    wire::{Reply, call, get},
};

/// A request of which it is known that it matters.
async fn critical(service: &Service, path: &str) -> Reply {
    let headers = [("Caller-Key", KEY), ("Request-Criticality", "critical")];
    call(service.public, &format!("GET {path}"), &headers, None).await
}

/// Who decides each flag.
async fn origins(service: &Service) -> Vec<String> {
    let flags = get(service.admin, "/flags").await.json();
    let origin = |flag: &Value| flag["origin"].as_str().unwrap().to_owned();
    flags.as_array().unwrap().iter().map(origin).collect()
}

async fn decided_by(service: &Service, origin: &str) -> Duration {
    let since = Instant::now();
    while origins(service).await.iter().any(|one| one != origin) {
        assert!(since.elapsed() < PATIENCE, "{:?}", origins(service).await);
        sleep(Duration::from_millis(10)).await;
    }
    since.elapsed()
}

#[tokio::test]
async fn in_an_overload_recommendations_go_and_search_stays_and_all_is_back_after_it() {
    let database = database().await;
    seed(devstack::shared().await, &database, 50).await;
    let settings = [
        ("HOLDFAST__FLAGS__BROWNOUT__STEP_AFTER", "300ms"),
        ("HOLDFAST__FLAGS__BROWNOUT__CALM_MIN", "1s"),
    ];
    let service = Service::start(&database, &[&PATIENT[..], &LIMITED, &settings].concat()).await;
    service.ready().await;
    let found = critical(&service, "/v1/products?limit=1").await.json();
    let (product, name) = (&found["items"][0]["id"], found["items"][0]["name"].as_str());
    let word = name.unwrap().rsplit(' ').next().unwrap();
    let search = format!("/v1/products?q={word}&limit=50");
    let product = product.as_str().unwrap();
    let recommendations = format!("/v1/products/{product}/recommendations");
    let before = critical(&service, &recommendations).await;
    let load = Fire {
        address: service.public,
        rate: 1e6,
        count: usize::MAX,
        connections: 40,
        critical: 0.1,
        critical_requests: request("critical"),
        sheddable_requests: request("sheddable"),
    };

    let meanwhile = async {
        let off = decided_by(&service, "brownout").await;
        let page = critical(&service, &recommendations).await;
        let search = critical(&service, &search).await;
        (off, page, search)
    };
    let (off, page, found) = tokio::select! {
        seen = meanwhile => seen,
        _ = fire(&load) => unreachable!("the load goes on"),
    };
    let back = decided_by(&service, "code").await;
    let after = critical(&service, &recommendations).await;

    println!("overloaded: all off after {off:?}; all back {back:?} after the load has gone");
    assert_eq!(before.json()["source"], "best_sellers", "{before:?}");
    assert_eq!(page.status, 200, "{page:?}");
    assert_eq!(page.json()["source"], "off", "{page:?}");
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(found.status, 200, "{found:?}");
    assert!(found.body.contains(product), "{found:?}");
    assert_eq!(after.json()["source"], "best_sellers", "{after:?}");
    let switched = service.log().matches("overloaded: switched off").count();
    assert!(switched >= 2, "{}", service.log());
}
