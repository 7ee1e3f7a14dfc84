//! What the service does without is said in four places, and they say the same.

use devstack::{Database, Fault, Stack, Target};
use tokio::time::{Duration, Instant, sleep};

use crate::{
    service::{PATIENCE, PATIENT, Service, database_on, seed},
    told::{self, Names, listed},
    wire::get,
};

struct Scene {
    stack: Stack,
    service: Service,
    product: String,
    _database: Database,
}

impl Scene {
    /// Asks for `path` until its header names exactly `expected`; then the log says the same of that request, and the probe
    /// and the metric both say it of the process.
    async fn says(&self, path: &str, expected: &[&str]) {
        let expected = listed(&expected.join(", "));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = get(self.service.public, path).await;
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

async fn scene() -> Scene {
    let stack = Stack::start().await.unwrap();
    let database = database_on(&stack).await;
    seed(&stack, &database, 10).await;
    let recommender = stack.upstream_url();
    let settings = [
        (
            "HOLDFAST__RECOMMENDATIONS__UPSTREAM__URL",
            recommender.as_str(),
        ),
        ("HOLDFAST__CACHE__LIFETIME__FRESH", "50ms"),
        ("HOLDFAST__CACHE__LIFETIME__STALE", "0s"),
        ("HOLDFAST__CACHE__LIFETIME__ON_ERROR", "1h"),
    ];
    let settings = [&PATIENT[..], &settings].concat();
    let service = Service::start_on(&stack, &database, &settings).await;
    service.ready().await;
    let page = get(service.public, "/v1/products?limit=1").await.json();
    let product = format!("/v1/products/{}", page["items"][0]["id"].as_str().unwrap());
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
    let (all, active) = told::metric(&scene.service).await;
    let mut seen = Names::new();
    let mut lost = async |path: &str, names: &[&str]| {
        scene.says(path, names).await;
        seen.extend(names.iter().map(|name| (*name).to_owned()));
    };

    scene.stack.proxy(Target::Upstream).set(Fault::Down).await;
    lost(&recommendations, &["recommendations_fallback"]).await;
    lost(&product, &[]).await;
    scene.stack.standby().kill().await.unwrap();
    lost(&product, &["replica_away"]).await;
    scene.stack.primary().kill().await.unwrap();
    lost(&product, &["stale", "primary_away", "replica_away"]).await;
    scene.stack.redis().kill().await.unwrap();
    let away = ["primary_away", "replica_away", "redis_away"];
    lost("/v1/products", &away).await;

    assert_eq!(active, Names::new());
    assert_eq!(seen, all, "one degradation was never caused");
}
