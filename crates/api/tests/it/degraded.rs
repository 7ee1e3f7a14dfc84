//! What the service does without is said in four places, and they say the same.

use std::collections::BTreeSet;

use devstack::{Database, Fault, Stack, Target};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use crate::{
    service::{PATIENCE, PATIENT, STAFF, Service, database_on, seed},
    wire::{Reply, borrowed, call, get, sign_in},
};

type Names = BTreeSet<String>;

struct Scene {
    stack: Stack,
    service: Service,
    product: String,
    _database: Database,
}

impl Scene {
    async fn header(&self, path: &str) -> (Reply, Names) {
        let reply = get(self.service.public, path).await;
        let names = listed(reply.header("degraded").unwrap_or_default());
        (reply, names)
    }

    async fn place_order(&self) -> Reply {
        let staff = sign_in(self.service.public, STAFF).await;
        let (_, id) = self.product.rsplit_once('/').unwrap();
        let order = json!({ "lines": [{ "product_id": id, "quantity": 1 }] });
        let session = borrowed(&staff);
        call(
            self.service.public,
            "POST /v1/orders",
            &session,
            Some(&order),
        )
        .await
    }

    async fn readiness(&self) -> Names {
        let ready = get(self.service.admin, "/ready").await.json();
        let names = ready["degraded"].as_array().unwrap().clone();
        names.iter().map(|name| text(name).to_owned()).collect()
    }

    /// Every name there is, and those that are active.
    async fn metric(&self) -> (Names, Names) {
        let metrics = get(self.service.admin, "/metrics").await.body;
        let samples = metrics.lines().filter_map(|line| {
            let sample = line.strip_prefix("degradation_active{name=\"")?;
            sample.split_once("\"} ")
        });
        let (mut all, mut active) = (Names::new(), Names::new());
        for (name, value) in samples {
            all.insert(name.to_owned());
            if value == "1" {
                active.insert(name.to_owned());
            }
        }
        (all, active)
    }

    /// What the log says of the answered request.
    async fn log(&self, reply: &Reply) -> Names {
        let id = reply.header("x-request-id").unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = self.service.log();
            let line = log
                .lines()
                .find(|line| line.contains(id) && line.contains("took_ms"));
            if let Some(line) = line {
                let line: Value = serde_json::from_str(line).unwrap();
                return listed(line["degraded"].as_str().unwrap_or_default());
            }
            assert!(Instant::now() < deadline, "{id} is not in the log");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asks for `path` until its header names exactly `expected`; then the log says the same of that request, and the probe
    /// and the metric both say it of the process.
    async fn says(&self, path: &str, expected: &[&str]) {
        let expected = listed(&expected.join(", "));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (reply, header) = self.header(path).await;
            assert_eq!(self.log(&reply).await, header, "{reply:?}");
            if header == expected {
                break;
            }
            assert!(Instant::now() < deadline, "not {expected:?}: {reply:?}");
            sleep(Duration::from_millis(20)).await;
        }
        let (_, active) = self.metric().await;
        assert!(active.is_superset(&expected), "{active:?}");
        assert_eq!(self.readiness().await, active);
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn listed(names: &str) -> Names {
    let names = names.split(", ").filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

async fn scene() -> Scene {
    let stack = Stack::start().await.unwrap();
    let database = database_on(&stack).await;
    seed(&stack, &database, 10).await;
    let upstream = stack.upstream_url();
    let settings = [
        (
            "HOLDFAST__RECOMMENDATIONS__UPSTREAM__URL",
            upstream.as_str(),
        ),
        ("HOLDFAST__ORDERS__PAYMENTS__URL", upstream.as_str()),
        ("HOLDFAST__ORDERS__PAYMENTS__BREAKER__FAILURES_IN_ROW", "1"),
        ("HOLDFAST__CACHE__LIFETIME__FRESH", "50ms"),
        ("HOLDFAST__CACHE__LIFETIME__STALE", "0s"),
        ("HOLDFAST__CACHE__LIFETIME__ON_ERROR", "1h"),
    ];
    let settings = [&PATIENT[..], &settings].concat();
    let service = Service::start_on(&stack, &database, &settings).await;
    service.ready().await;
    let page = get(service.public, "/v1/products?limit=1").await.json();
    let product = format!("/v1/products/{}", text(&page["items"][0]["id"]));
    Scene {
        stack,
        service,
        product,
        _database: database,
    }
}

#[tokio::test]
async fn the_header_the_log_the_metric_and_the_probe_say_the_same_of_every_degradation() {
    let scene = scene().await;
    let product = scene.product.clone();
    let recommendations = format!("{product}/recommendations");
    scene.says(&product, &[]).await;
    let (all, active) = scene.metric().await;
    let mut seen = Names::new();
    let mut lost = async |path: &str, names: &[&str]| {
        scene.says(path, names).await;
        seen.extend(names.iter().map(|name| (*name).to_owned()));
    };

    scene.stack.proxy(Target::Upstream).set(Fault::Down).await;
    lost(&recommendations, &["recommendations_fallback"]).await;
    lost(&product, &[]).await;
    assert_eq!(scene.place_order().await.status, 503);
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
