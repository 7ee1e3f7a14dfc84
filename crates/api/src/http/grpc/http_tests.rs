//! What holds for every RPC, seen by clients: how a call is refused, when it is cut, and what is said of the process.

use std::time::Duration;

use futures::StreamExt;
use resilience::Rate;
use serde_json::json;
use sqlx::Connection;
use tonic::{Code, Request, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tonic_types::StatusExt;

use crate::{
    proto::{
        catalog::v1::{GetProductRequest, ListProductsRequest, catalog_client::CatalogClient},
        orders::v1::{CreateOrderRequest, create_order_request::Line, orders_client::OrdersClient},
    },
    settings::Settings,
    testing::{RpcChannel, TestApp},
};

fn any() -> ListProductsRequest {
    ListProductsRequest::default()
}

async fn list(app: &TestApp, request: Request<ListProductsRequest>) -> Result<(), Status> {
    let listed = CatalogClient::new(app.rpcs()).list_products(request).await;
    listed.map(drop)
}

fn pushback_ms(status: &Status) -> Option<u64> {
    let value = status.metadata().get("grpc-retry-pushback-ms")?;
    value.to_str().unwrap().parse().ok()
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

#[tokio::test]
async fn an_expired_call_reaches_no_server() {
    let app = TestApp::metered().await;

    let (answer, cost) = app
        .cost(async || {
            let mut request = Request::new(any());
            let timeout = "0m".parse().unwrap();
            request.metadata_mut().insert("grpc-timeout", timeout);
            list(&app, request).await
        })
        .await;

    let late = answer.unwrap_err();
    println!("{:?} after {:?} statements", late.code(), cost.statements());
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late:?}");
    assert_eq!(cost.statements(), [0, 0]);
    assert_eq!(cost.redis.round_trips, 0);
}

#[tokio::test]
async fn a_call_ends_when_its_client_said() {
    let app =
        TestApp::with(|settings| settings.postgres.lock_timeout = Duration::from_secs(15)).await;
    let new = json!({
        "sku": "T-1", "name": "Cup", "description": "", "category": "cups", "price_cents": 250, "stock": 10,
    });
    let cup = app.staff().await.post("/v1/products", &new).await.json();
    let customer = app.customer().await;
    let mut in_the_way = app.admin().await;
    let mut lock = in_the_way.begin().await.unwrap();
    sqlx::raw_sql("lock table products in access exclusive mode")
        .execute(&mut *lock)
        .await
        .unwrap();
    let line = Line {
        product_id: cup["id"].as_str().unwrap().to_owned(),
        quantity: 1,
    };
    let mut request = Request::new(CreateOrderRequest { lines: vec![line] });
    let headers = request.metadata_mut();
    headers.insert("authorization", customer.bearer());
    headers.insert("idempotency-key", "a-key".parse().unwrap());
    headers.insert("grpc-timeout", "700m".parse().unwrap());

    let begun = tokio::time::Instant::now();
    let late = OrdersClient::new(app.rpcs()).create_order(request).await;
    let took = begun.elapsed();
    lock.rollback().await.unwrap();

    let late = late.unwrap_err();
    println!("700m asked for, {:?} after {took:?}", late.code());
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn a_message_that_is_too_large_is_not_read() {
    let app = TestApp::metered_with(|settings| settings.grpc.request_bytes_max = 1024).await;
    let large = ListProductsRequest {
        q: "x".repeat(2000),
        ..any()
    };

    let (answer, cost) = app
        .cost(async || list(&app, Request::new(large.clone())).await)
        .await;

    let refused = answer.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert_eq!(reason(&refused), "MESSAGE_TOO_LARGE");
    assert_eq!(cost.statements(), [0, 0]);
}

#[tokio::test]
async fn what_is_no_message_of_the_rpc_is_the_clients_fault() {
    let app = TestApp::start().await;
    let mut raw = tonic::client::Grpc::new(app.rpcs());
    raw.ready().await.unwrap();
    // Its field 1 is a number, and a product's id is a string.
    let codec = tonic_prost::ProstCodec::<prost_types::Duration, prost_types::Duration>::default();
    let other = prost_types::Duration {
        seconds: 7,
        nanos: 0,
    };
    let path = "/catalog.v1.Catalog/GetProduct".parse().unwrap();

    let refused = raw.unary(Request::new(other), path, codec).await;

    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert_eq!(reason(&refused), "MALFORMED_MESSAGE");
}

#[tokio::test]
async fn what_is_too_much_is_refused_without_any_work_and_told_when_to_come_again() {
    let app = TestApp::metered_with(|settings| {
        settings.admission.limit_min = 1;
        settings.admission.limit_initial = 1;
        settings.admission.limit_max = 1;
        settings.admission.queue_max = 0;
        // A standby that is only slow today is not asked in vain.
        settings.postgres.replica_timeout = Duration::from_secs(4);
    })
    .await;
    let mut health = HealthClient::new(app.rpcs());

    // Begun in this order by one task, so the first is always worked on when the second asks.
    let (refused, cost) = app
        .cost(async || {
            let (worked_on, refused) = tokio::join!(biased;
                list(&app, Request::new(any())),
                list(&app, Request::new(any())),
            );
            worked_on.unwrap();
            refused.unwrap_err()
        })
        .await;
    let probe = health.check(HealthCheckRequest::default()).await;

    println!("{refused:?}");
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert!(matches!(pushback_ms(&refused), Some(1000..=4000)));
    // The primary is asked once more when a standby gives a statement up, as replay may make it do.
    let [_, standby] = cost.statements();
    assert_eq!(standby, 1, "only the one that was worked on");
    assert!(probe.is_ok());
}

#[tokio::test]
async fn a_client_over_its_limit_is_told_which_and_until_when() {
    let an_hour = |settings: &mut Settings| {
        settings.limits.address_read = Rate {
            quota: 2,
            window: Duration::from_secs(3600),
        };
    };
    let app = TestApp::with(an_hour).await;

    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(list(&app, Request::new(any())).await);
    }

    let refused = answers.pop().unwrap().unwrap_err();
    println!("{refused:?}");
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 2);
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(pushback_ms(&refused).is_some_and(|wait| wait > 60_000));
    let violations = refused.get_details_quota_failure().unwrap().violations;
    assert_eq!(violations[0].subject, "address-read");
    assert!(refused.metadata().get("ratelimit").is_some());
}

#[tokio::test]
async fn what_is_not_there_is_unimplemented() {
    let app = TestApp::start().await;
    for path in ["/catalog.v1.Catalog/DropProduct", "/shop.v1.Shop/Open", "/"] {
        let mut raw = tonic::client::Grpc::new(app.rpcs());
        raw.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let answer = raw.unary(Request::new(()), path.parse().unwrap(), codec);

        assert_eq!(
            answer.await.unwrap_err().code(),
            Code::Unimplemented,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_call_is_named_in_its_answer() {
    let app = TestApp::start().await;
    let mut request = Request::new(GetProductRequest::default());
    let id = "the-call".parse().unwrap();
    request.metadata_mut().insert("x-request-id", id);

    let refused = CatalogClient::new(app.rpcs()).get_product(request).await;

    let refused = refused.unwrap_err();
    assert_eq!(refused.metadata().get("x-request-id").unwrap(), "the-call");
    let named = refused.get_details_request_info().unwrap().request_id;
    assert_eq!(named, "the-call");
}

#[tokio::test]
async fn what_a_client_wrote_it_reads() {
    let app = TestApp::start().await;
    let new = json!({
        "sku": "T-1", "name": "Cup", "description": "", "category": "cups", "price_cents": 250, "stock": 10,
    });
    let created = app.staff().await.post("/v1/products", &new).await;
    let mut request = Request::new(any());
    let token = created.header("consistency-token").parse().unwrap();
    request.metadata_mut().insert("consistency-token", token);

    let listed = CatalogClient::new(app.rpcs()).list_products(request).await;

    assert_eq!(listed.unwrap().into_inner().products.len(), 1);
}

async fn health(
    client: &mut HealthClient<RpcChannel>,
    service: &str,
) -> Result<ServingStatus, Code> {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    match client.check(request).await {
        Ok(answer) => Ok(answer.into_inner().status()),
        Err(status) => Err(status.code()),
    }
}

#[tokio::test]
async fn every_service_is_as_ready_as_the_process() {
    let app = TestApp::start().await;
    let mut client = HealthClient::new(app.rpcs());
    app.ready().await;

    for service in ["", "catalog.v1.Catalog", "orders.v1.Orders"] {
        let health = health(&mut client, service).await;
        assert_eq!(health, Ok(ServingStatus::Serving), "{service}");
    }
    assert_eq!(
        health(&mut client, "shop.v1.Shop").await,
        Err(Code::NotFound)
    );
}

async fn services(app: &TestApp) -> Result<Vec<String>, Status> {
    let question = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let questions = futures::stream::iter([question]);
    let answers = ServerReflectionClient::new(app.rpcs())
        .server_reflection_info(questions)
        .await?;
    let answer = answers.into_inner().next().await.unwrap()?;
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}");
    };
    Ok(list
        .service
        .into_iter()
        .map(|service| service.name)
        .collect())
}

#[tokio::test]
async fn reflection_lists_the_services_where_it_is_on() {
    let app = TestApp::with(|settings| settings.grpc.reflection = true).await;
    let plain = TestApp::start().await;

    let mut listed = services(&app).await.unwrap();
    listed.sort();

    println!("{listed:?}");
    for service in [
        "catalog.v1.Catalog",
        "grpc.health.v1.Health",
        "orders.v1.Orders",
    ] {
        assert!(listed.iter().any(|name| name == service), "{listed:?}");
    }
    let off = services(&plain).await.unwrap_err();
    assert_eq!(off.code(), Code::Unimplemented);
}
