//! What paying for an order comes to, seen by customers.

use std::sync::Arc;

use devstack::{Behaviour, Counters, Upstream, UpstreamService::Payments};
use http::{StatusCode, header};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use crate::testing::{Answer, Client, TestApp};

/// A shop with ten cups for 250 cents each, and its payment provider.
struct Scene {
    app: TestApp,
    provider: Arc<Upstream>,
    customer: Client,
    order: Value,
    _task: JoinSet<()>,
}

impl Scene {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let provider = Arc::new(Upstream::default());
        let mut task = JoinSet::new();
        let serving = Arc::clone(&provider).serve(listener);
        task.spawn(async move { serving.await.unwrap() });
        let app = TestApp::with(|settings| settings.orders.payments.url = Some(url)).await;
        let new = json!({
            "sku": "T-1", "name": "Cup", "description": "", "category": "cups", "price_cents": 250, "stock": 10,
        });
        let cup = app.staff().await.post("/v1/products", &new).await.json();
        let customer = app.customer().await;
        Self {
            app,
            provider,
            customer,
            order: json!({ "lines": [{ "product_id": cup["id"], "quantity": 3 }] }),
            _task: task,
        }
    }

    fn provider_is(&self, behaviour: Behaviour) {
        self.provider.set(Payments, behaviour);
    }

    fn paid(&self) -> Counters {
        self.provider.counters(Payments)
    }

    async fn order(&self, key: &str) -> Answer {
        self.customer.post_as(key, "/v1/orders", &self.order).await
    }

    /// Whether as many cups are left, and there is one order, which is this.
    async fn assert_left(&self, stock: u64, status: &str) {
        let left = self
            .app
            .execute("select from products, generate_series(1, stock)")
            .await;
        let orders = self.customer.get("/v1/orders").await.json();
        let statuses: Vec<_> = orders["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|order| &order["status"])
            .collect();
        assert_eq!((left, statuses), (stock, vec![&json!(status)]));
    }
}

#[tokio::test]
async fn an_order_is_paid_when_it_is_answered() {
    let scene = Scene::start().await;

    let placed = scene.order("a-key").await;
    let again = scene.order("a-key").await;

    assert_eq!(placed.status, StatusCode::CREATED, "{placed:?}");
    assert_eq!(placed.json()["status"], "paid");
    assert_eq!(
        (again.header("idempotent-replayed"), &again.body),
        ("true", &placed.body)
    );
    assert_eq!(
        scene
            .customer
            .get(placed.header(header::LOCATION))
            .await
            .json(),
        placed.json()
    );
    let id = placed.json()["id"].as_str().unwrap().to_owned();
    let payments = scene.provider.payments(&id);
    assert_eq!((payments.len(), payments[0].request.amount_cents), (1, 750));
    scene.assert_left(7, "paid").await;
}

#[tokio::test]
async fn what_is_declined_is_cancelled_and_its_pieces_are_for_sale_again() {
    let scene = Scene::start().await;
    scene.provider_is(Behaviour {
        decline_rate: 1.0,
        ..Behaviour::default()
    });

    let declined = scene.order("a-key").await;
    scene.provider_is(Behaviour::default());
    let again = scene.order("a-key").await;

    assert_eq!(
        declined.status,
        StatusCode::PAYMENT_REQUIRED,
        "{declined:?}"
    );
    assert_eq!(declined.code(), "payment_declined");
    assert_eq!(
        (again.header("idempotent-replayed"), &again.body),
        ("true", &declined.body)
    );
    scene.assert_left(10, "cancelled").await;
    assert_eq!((scene.paid().effects, scene.paid().declined), (0, 1));
}

#[tokio::test]
async fn without_the_provider_an_order_waits_and_the_same_request_pays_it() {
    let scene = Scene::start().await;
    scene.provider_is(Behaviour {
        error_rate: 1.0,
        ..Behaviour::default()
    });

    let unpaid = scene.order("a-key").await;
    scene.assert_left(7, "placed").await;
    scene.provider_is(Behaviour::default());
    let paid = scene.order("a-key").await;

    assert_eq!(unpaid.status, StatusCode::SERVICE_UNAVAILABLE, "{unpaid:?}");
    assert!(!unpaid.header(header::RETRY_AFTER).is_empty());
    assert_eq!(
        (paid.status, paid.header("idempotent-replayed")),
        (StatusCode::CREATED, "")
    );
    scene.assert_left(7, "paid").await;
    assert_eq!(scene.paid().effects, 1);
}
