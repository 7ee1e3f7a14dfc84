//! Orders, seen by clients of gRPC, some of which also speak JSON.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Json, Router, extract::Request as HttpRequest};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::{Code, Request, Status, metadata::MetadataMap};
use tonic_types::StatusExt;

use crate::{
    proto::orders::v1::{
        CreateOrderRequest, GetOrderRequest, Order, create_order_request::Line, order,
        orders_client::OrdersClient,
    },
    testing::{Client, TestApp},
};

/// A shop with ten cups for 250 cents each, and a customer.
struct Scene {
    app: TestApp,
    customer: Client,
    cup: String,
}

impl Scene {
    async fn start() -> Self {
        Self::of(TestApp::start().await).await
    }

    async fn of(app: TestApp) -> Self {
        let new = json!({
            "sku": "T-1", "name": "Cup", "description": "", "category": "cups", "price_cents": 250, "stock": 10,
        });
        let cup = app.staff().await.post("/v1/products", &new).await.json();
        Self {
            customer: app.customer().await,
            cup: cup["id"].as_str().unwrap().to_owned(),
            app,
        }
    }

    fn cups(&self, quantity: i32) -> CreateOrderRequest {
        let product_id = self.cup.clone();
        let line = Line {
            product_id,
            quantity,
        };
        CreateOrderRequest { lines: vec![line] }
    }

    /// With `metadata` besides the session's.
    async fn call(
        &self,
        order: CreateOrderRequest,
        metadata: &[(&'static str, &str)],
    ) -> Result<(Order, MetadataMap), Status> {
        let mut request = Request::new(order);
        let headers = request.metadata_mut();
        headers.insert("authorization", self.customer.bearer());
        for (name, value) in metadata {
            headers.insert(*name, value.parse().unwrap());
        }
        let created = OrdersClient::new(self.app.rpcs())
            .create_order(request)
            .await?;
        let (metadata, order, _) = created.into_parts();
        Ok((order, metadata))
    }

    async fn create(&self, key: &str, quantity: i32) -> Result<(Order, MetadataMap), Status> {
        self.call(self.cups(quantity), &[("idempotency-key", key)])
            .await
    }

    async fn get(&self, customer: &Client, id: &str) -> Result<Order, Status> {
        let mut request = Request::new(GetOrderRequest { id: id.to_owned() });
        let headers = request.metadata_mut();
        headers.insert("authorization", customer.bearer());
        let found = OrdersClient::new(self.app.rpcs()).get_order(request).await;
        Ok(found?.into_inner())
    }

    async fn left(&self) -> u64 {
        let pieces = "select from products, generate_series(1, stock)";
        self.app.execute(pieces).await
    }
}

fn text<'a>(metadata: &'a MetadataMap, name: &str) -> &'a str {
    let value = metadata.get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

#[tokio::test]
async fn an_order_is_placed_once_and_found_again_by_its_customer_alone() {
    let scene = Scene::start().await;
    let stranger = scene.app.customer().await;

    let (order, first) = scene.create("a-key", 3).await.unwrap();
    let (same, again) = scene.create("\"a-key\"", 3).await.unwrap();
    let found = scene.get(&scene.customer, &order.id).await.unwrap();
    let hidden = scene.get(&stranger, &order.id).await.unwrap_err();

    assert_eq!(
        (order.total_cents, order.status()),
        (750, order::Status::Placed)
    );
    assert_eq!((&same, &found), (&order, &order));
    assert_eq!(text(&first, "idempotent-replayed"), "");
    assert_eq!(text(&again, "idempotent-replayed"), "true");
    assert_eq!(
        text(&first, "idempotency-expires"),
        text(&again, "idempotency-expires")
    );
    assert_eq!(hidden.code(), Code::NotFound);
    assert_eq!(scene.left().await, 7);
}

#[tokio::test]
async fn a_key_is_the_same_one_whichever_way_it_comes() {
    let scene = Scene::start().await;
    let json = json!({ "lines": [{ "product_id": scene.cup, "quantity": 3 }] });

    let (placed, _) = scene.create("a-key", 3).await.unwrap();
    let in_json = scene.customer.post_as("a-key", "/v1/orders", &json).await;
    let first_in_json = scene.customer.post_as("b-key", "/v1/orders", &json).await;
    let (again, metadata) = scene.create("b-key", 3).await.unwrap();

    assert_eq!(in_json.status, StatusCode::CREATED, "{in_json:?}");
    assert_eq!(in_json.json()["id"], placed.id);
    assert_eq!(in_json.header("idempotent-replayed"), "true");
    assert_eq!(first_in_json.json()["id"], again.id);
    assert_eq!(text(&metadata, "idempotent-replayed"), "true");
    assert_eq!(scene.left().await, 4);
}

#[tokio::test]
async fn a_refusal_is_kept_with_its_reason() {
    let scene = Scene::start().await;

    let refused = scene.create("a-key", 11).await.unwrap_err();
    scene.app.execute("update products set stock = 100").await;
    let again = scene.create("a-key", 11).await.unwrap_err();

    for status in [&refused, &again] {
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        assert_eq!(reason(status), "OUT_OF_STOCK");
    }
    assert_eq!(again.message(), refused.message());
    assert_eq!(text(again.metadata(), "idempotent-replayed"), "true");
}

#[tokio::test]
async fn what_is_wrong_with_an_order_is_said() {
    let scene = Scene::start().await;
    scene.create("used", 1).await.unwrap();
    let key = |key| [("idempotency-key", key)];
    let unknown = CreateOrderRequest {
        lines: vec![Line {
            product_id: "cup".to_owned(),
            quantity: 1,
        }],
    };

    let reused = scene.call(scene.cups(2), &key("used")).await;
    let keyless = scene.call(scene.cups(1), &[]).await;
    let empty = scene.call(CreateOrderRequest::default(), &key("b")).await;
    let unknown = scene.call(unknown, &key("c")).await;

    for (answer, code) in [
        (&reused, "IDEMPOTENCY_KEY_REUSED"),
        (&keyless, "IDEMPOTENCY_KEY_MISSING"),
        (&empty, "VALIDATION_FAILED"),
        (&unknown, "VALIDATION_FAILED"),
    ] {
        let status = answer.as_ref().unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert_eq!(reason(status), code);
    }
    let field = |answer: &Result<_, Status>| {
        let status = answer.as_ref().map(|_| ()).unwrap_err();
        let bad_request = status.get_details_bad_request().unwrap();
        bad_request.field_violations[0].field.clone()
    };
    assert_eq!(field(&empty), "lines");
    assert_eq!(field(&unknown), "lines[0].product_id");
}

#[tokio::test]
async fn nobody_orders_without_a_session() {
    let scene = Scene::start().await;
    let order = Request::new(scene.cups(1));
    let made_up = [(
        "authorization",
        "Bearer AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    )];

    let stranger = OrdersClient::new(scene.app.rpcs())
        .create_order(order)
        .await;
    let made_up = scene.call(scene.cups(1), &made_up).await;

    assert_eq!(stranger.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(made_up.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(scene.left().await, 10);
}

#[tokio::test]
async fn a_key_that_is_being_worked_on_is_to_be_tried_again() {
    let scene = Scene::start().await;
    scene.create("a-key", 1).await.unwrap();
    let running = "update idempotency_keys
         set status = null, headers = null, body = null, locked_until = now() + interval '1 hour'";
    scene.app.execute(running).await;

    let early = scene.create("a-key", 1).await.unwrap_err();

    assert_eq!(early.code(), Code::Aborted, "{early:?}");
    assert_eq!(text(early.metadata(), "grpc-retry-pushback-ms"), "1000");
}

/// A payment provider that accepts all and remembers the headers that it was asked with.
async fn provider() -> (String, Arc<Mutex<Vec<HttpHeaders>>>, JoinSet<()>) {
    let asked = Arc::<Mutex<Vec<HttpHeaders>>>::default();
    let seen = Arc::clone(&asked);
    let router = Router::new().fallback(async move |request: HttpRequest| {
        let (head, body) = request.into_parts();
        seen.lock().unwrap().push(head.headers);
        let body = axum::body::to_bytes(body, 4096).await.unwrap();
        let mut payment: Value = serde_json::from_slice(&body).unwrap();
        payment["id"] = "a-payment".into();
        payment["status"] = "authorised".into();
        (StatusCode::CREATED, Json(payment))
    });
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut task = JoinSet::new();
    task.spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, asked, task)
}

type HttpHeaders = http::HeaderMap;

/// Longer than any timeout that is asked for.
const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_timeout_goes_on_to_the_services_that_are_called() {
    let (url, asked, _task) = provider().await;
    let app = TestApp::with(|settings| {
        let payments = &mut settings.orders.payments;
        payments.url = Some(url);
        payments.attempt_timeout = LONG;
        payments.total_timeout = LONG;
        settings.http.write_deadline = LONG;
    });
    let scene = Scene::of(app.await).await;
    let metadata = [
        ("idempotency-key", "a-key"),
        ("grpc-timeout", "15S"),
        ("x-request-id", "the-call"),
    ];

    let (order, _) = scene.call(scene.cups(2), &metadata).await.unwrap();

    let asked = asked.lock().unwrap();
    let header = |name| asked[0].get(name).map(|value| value.to_str().unwrap());
    let left = header("request-timeout").and_then(|left| left.strip_suffix("ms"));
    let left: u64 = left.unwrap().parse().unwrap();
    println!("15S asked for, {left} ms sent on");
    assert_eq!((asked.len(), order.status()), (1, order::Status::Paid));
    assert!((1..15_000).contains(&left));
    assert_eq!(header("x-request-id"), Some("the-call"));
}
