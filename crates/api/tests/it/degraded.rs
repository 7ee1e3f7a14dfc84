//! What the service does without is said in four places, and they say the same.

use devstack::{Database, Fault, Stack, Target};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use crate::{
    service::{PATIENCE, PATIENT, STAFF, Service, database_on, seed},
    told::{self, Names, listed},
    wire::{Reply, borrowed, call, get, sign_in},
};

struct Scene {
    stack: Stack,
    service: Service,
    product: String,
    another: Value,
    _database: Database,
}

impl Scene {
    /// Orders a product that nobody looks at: what was ordered is not in the cache any more.
    async fn order_another(&self) -> Reply {
        let staff = sign_in(self.service.public, STAFF).await;
        let order = json!({ "lines": [{ "product_id": self.another, "quantity": 1 }] });
        let (line, session) = ("POST /v1/orders", borrowed(&staff));
        call(self.service.public, line, &session, Some(&order)).await
    }

    /// Asks for `path` until its header names exactly `expected`; then the log says the same of that request, and the probe
    /// and the metric both say it of the process.
    async fn says(&self, path: &str, expected: &[&str]) {
        let ask = async || get(self.service.public, path).await;
        self.says_to(ask, expected).await;
    }

    /// The same of what `ask` asks for.
    async fn says_to(&self, ask: impl AsyncFn() -> Reply, expected: &[&str]) {
        let expected = listed(&expected.join(", "));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = ask().await;
            let header = told::header(&reply);
            assert_eq!(told::log(&self.service, &reply).await, header, "{reply:?}");
            if header == expected {
                break;
            }
            assert!(Instant::now() < deadline, "not {expected:?}: {reply:?}");
            sleep(Duration::from_millis(20)).await;
        }
        let (_, active) = told::metric(&self.service).await;
        assert!(active.is_superset(&expected), "{active:?}");
        assert_eq!(told::readiness(&self.service).await, active);
    }
}

/// Switches a flag off, or leaves it to the code again; the admin listener of a test believes this machine.
async fn switch(scene: &Scene, flag: &str, off: bool) {
    let order = json!({ "value": false, "reason": "a test", "changed_by": "a test", "ttl": "1h" });
    let (method, body) = match off {
        true => ("PUT", Some(&order)),
        false => ("DELETE", None),
    };
    let line = format!("{method} /flags/{flag}");
    let reply = call(scene.service.admin, &line, &[], body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

/// What is off says so, and no more once it is on again; the names of all.
async fn switched_off(scene: &Scene) -> Names {
    let (service, product) = (scene.service.public, &scene.product);
    let staff = sign_in(service, STAFF).await;
    let recommendations = format!("{product}/recommendations");
    let events = json!({ "events": [{ "name": "seen" }] });
    let event = async || call(service, "POST /v1/events", &[], Some(&events)).await;
    let orders = "GET /v1/orders?include=products";
    let orders = async || call(service, orders, &borrowed(&staff), None).await;
    let flags = ["events", "recommendations", "order_products"];

    for flag in flags {
        switch(scene, flag, true).await;
    }
    scene.says_to(event, &["events_off"]).await;
    scene.says(&recommendations, &["recommendations_off"]).await;
    scene.says_to(&orders, &["order_products_off"]).await;
    for flag in flags {
        switch(scene, flag, false).await;
    }
    scene.says_to(event, &[]).await;
    scene.says_to(orders, &[]).await;
    flags.map(|flag| format!("{flag}_off")).into()
}

async fn scene() -> Scene {
    let stack = Stack::start().await.unwrap();
    let database = database_on(&stack).await;
    seed(&stack, &database, 10).await;
    let upstream = stack.upstream_url();
    let upstream = upstream.as_str();
    let settings = [
        ("HOLDFAST__RECOMMENDATIONS__UPSTREAM__URL", upstream),
        ("HOLDFAST__ORDERS__PAYMENTS__URL", upstream),
        ("HOLDFAST__ORDERS__PAYMENTS__BREAKER__FAILURES_IN_ROW", "1"),
        ("HOLDFAST__CACHE__LIFETIME__FRESH", "50ms"),
        ("HOLDFAST__CACHE__LIFETIME__STALE", "0s"),
        ("HOLDFAST__CACHE__LIFETIME__ON_ERROR", "1h"),
    ];
    let settings = [&PATIENT[..], &settings].concat();
    let service = Service::start_on(&stack, &database, &settings).await;
    service.ready().await;
    let page = get(service.public, "/v1/products?limit=2").await.json();
    let product = format!("/v1/products/{}", page["items"][0]["id"].as_str().unwrap());
    Scene {
        stack,
        service,
        product,
        another: page["items"][1]["id"].clone(),
        _database: database,
    }
}

#[tokio::test]
async fn the_header_the_log_the_metric_and_the_probe_say_the_same_of_every_degradation() {
    let scene = scene().await;
    let product = scene.product.clone();
    let recommendations = format!("{product}/recommendations");
    scene.says(&product, &[]).await;
    let (all, active) = told::metric(&scene.service).await;
    let mut seen = switched_off(&scene).await;
    let mut lost = async |path: &str, names: &[&str]| {
        scene.says(path, names).await;
        seen.extend(names.iter().map(|name| (*name).to_owned()));
    };

    scene.stack.proxy(Target::Upstream).set(Fault::Down).await;
    lost(&recommendations, &["recommendations_fallback"]).await;
    lost(&product, &[]).await;
    assert_eq!(scene.order_another().await.status, 503);
    let mut away = vec!["payments_away"];
    lost(&product, &away).await;
    scene.stack.standby().kill().await.unwrap();
    away.push("replica_away");
    lost(&product, &away).await;
    scene.stack.primary().kill().await.unwrap();
    away.push("primary_away");
    lost(&product, &[&away[..], &["stale"]].concat()).await;
    scene.stack.redis().kill().await.unwrap();
    away.push("redis_away");
    lost("/v1/products", &away).await;

    assert_eq!(active, Names::new());
    assert_eq!(seen, all, "one degradation was never caused");
}
