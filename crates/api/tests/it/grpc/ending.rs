//! A process that is told to end says so and finishes its calls; a connection that is old is replaced, and nobody loses a call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use api::proto::{
    catalog::v1::{ListProductsRequest, catalog_client::CatalogClient},
    orders::v1::orders_client::OrdersClient,
};
use hyper_util::rt::TokioIo;
use nix::sys::signal::Signal;
use sqlx::{Connection, PgConnection};
use tokio::{net::TcpStream, task::JoinSet, time::timeout};
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint, Uri},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};
use tower::service_fn;

use super::{bearer, client::Client, key, one_of, stocked, work::calls};
use crate::service::{PATIENCE, PATIENT, Service, database};

async fn watch(service: &Service) -> tonic::Streaming<HealthCheckResponse> {
    let channel = channel(service).connect_lazy();
    let request = HealthCheckRequest {
        service: "orders.v1.Orders".to_owned(),
    };
    let watched = HealthClient::new(channel).watch(request).await;
    watched.unwrap().into_inner()
}

fn channel(service: &Service) -> Endpoint {
    Endpoint::from_shared(format!("http://{}", service.rpcs)).unwrap()
}

/// What is told next; none when the stream has ended.
async fn told(
    watched: &mut tonic::Streaming<HealthCheckResponse>,
) -> Result<Option<ServingStatus>, Status> {
    let message = timeout(PATIENCE, watched.message()).await;
    let message = message.expect("nothing is told")?;
    Ok(message.map(|message| message.status()))
}

#[tokio::test]
async fn a_process_that_ends_says_so_and_finishes_its_calls() {
    let database = database().await;
    let product = stocked(&database, 1).await.remove(0);
    let slow = [("HOLDFAST__POSTGRES__LOCK_TIMEOUT", "5500ms")];
    let mut service = Service::start(&database, &[&PATIENT[..], &slow].concat()).await;
    service.ready().await;
    let mut watched = watch(&service).await;
    while told(&mut watched).await.unwrap() != Some(ServingStatus::Serving) {}
    let mut admin = PgConnection::connect(&database.admin_url).await.unwrap();
    let mut lock = admin.begin().await.unwrap();
    let all = "select from products for update";
    sqlx::query(all).execute(&mut *lock).await.unwrap();

    let mut request = Request::new(one_of(&product));
    request
        .metadata_mut()
        .insert("authorization", bearer(&service).await);
    request.metadata_mut().insert("idempotency-key", key());
    let mut orders = OrdersClient::new(channel(&service).connect_lazy());
    let mut calls = JoinSet::new();
    calls.spawn(async move { orders.create_order(request).await });
    waiting(&database.admin_url).await;
    service.signal(Signal::SIGTERM);
    let last = told(&mut watched).await.unwrap();
    service.logged("closing").await;
    lock.rollback().await.unwrap();
    let order = timeout(PATIENCE, calls.join_next()).await.unwrap();

    let order = order.unwrap().unwrap().unwrap().into_inner();
    assert_eq!(last, Some(ServingStatus::NotServing));
    assert_eq!(told(&mut watched).await.unwrap(), None);
    assert_eq!(order.lines.len(), 1, "{order:?}");
    assert_eq!(service.exited().await.code(), Some(0));
}

/// Waits until somebody waits for a lock.
async fn waiting(admin_url: &str) {
    let mut admin = PgConnection::connect(admin_url).await.unwrap();
    let waiting = "select count(*) from pg_stat_activity
         where datname = current_database() and wait_event_type = 'Lock'";
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let count: i64 = sqlx::query_scalar(waiting)
            .fetch_one(&mut admin)
            .await
            .unwrap();
        if count > 0 {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "nobody waits");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// With deadlines that fit into it.
const AGED: [(&str, &str); 9] = [
    ("HOLDFAST__GRPC__CONNECTION_AGE", "300ms"),
    ("HOLDFAST__GRPC__CONNECTION_AGE_GRACE", "700ms"),
    ("HOLDFAST__HTTP__READ_DEADLINE", "500ms"),
    ("HOLDFAST__LIVE__RESUME_TIMEOUT", "100ms"),
    ("HOLDFAST__HTTP__WRITE_DEADLINE", "600ms"),
    ("HOLDFAST__POSTGRES__STATEMENT_TIMEOUT", "450ms"),
    ("HOLDFAST__POSTGRES__CONNECT_TIMEOUT", "440ms"),
    ("HOLDFAST__POSTGRES__LOCK_TIMEOUT", "400ms"),
    ("HOLDFAST__SESSIONS__PASSWORDS__WAIT", "500ms"),
];

/// A channel, and how many connections it has made.
fn counting(service: &Service) -> (Channel, Arc<AtomicUsize>) {
    let made = Arc::new(AtomicUsize::new(0));
    let (count, address) = (Arc::clone(&made), service.rpcs);
    let connector = service_fn(move |_: Uri| {
        count.fetch_add(1, Ordering::Relaxed);
        async move { TcpStream::connect(address).await.map(TokioIo::new) }
    });
    let channel = channel(service).connect_with_connector_lazy(connector);
    (channel, made)
}

#[tokio::test]
async fn an_old_connection_is_replaced_and_no_call_is_lost() {
    const CONNECTIONS: usize = 6;
    let database = database().await;
    stocked(&database, 5).await;
    let age = [("HOLDFAST__GRPC__CONNECTION_AGE", "300ms")];
    let service = Service::start(&database, &[&PATIENT[..], &age].concat()).await;
    service.ready().await;
    let (channel, made) = counting(&service);
    let client = Arc::new(Client::over(service.rpcs, channel));

    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let (client, made) = (Arc::clone(&client), Arc::clone(&made));
        callers.spawn(async move {
            let (mut answered, mut failed) = (0, Vec::new());
            while made.load(Ordering::Relaxed) < CONNECTIONS {
                match list(&client).await {
                    Ok(()) => answered += 1,
                    Err(status) => failed.push(status),
                }
            }
            (answered, failed)
        });
    }
    let ended = timeout(2 * PATIENCE, callers.join_all()).await.unwrap();

    let answered: usize = ended.iter().map(|(answered, _)| answered).sum();
    let failed: Vec<_> = ended.into_iter().flat_map(|(_, failed)| failed).collect();
    let again = client.retries.load(Ordering::Relaxed);
    let made = made.load(Ordering::Relaxed);
    println!(
        "{answered} calls answered on {made} connections of 300 ms each, {} failed; {again} had not left the client and were sent again",
        failed.len()
    );
    assert!(failed.is_empty(), "{failed:?}");
    // None that was worked on has been lost: what was sent again had not come.
    assert_eq!(calls(&service).await, answered as u64);
    assert!(answered > CONNECTIONS);
}

async fn list(client: &Client) -> Result<(), Status> {
    let attempt = |channel, left| {
        let mut request = Request::new(ListProductsRequest::default());
        request.set_timeout(left);
        async move { CatalogClient::new(channel).list_products(request).await }
    };
    let answer = client.call("/catalog.v1.Catalog/ListProducts", attempt);
    answer.await.map(drop)
}

#[tokio::test]
async fn a_stream_does_not_keep_an_old_connection() {
    let database = database().await;
    let service = Service::start(&database, &AGED).await;
    let mut watched = watch(&service).await;

    let begun = tokio::time::Instant::now();
    let end = loop {
        match told(&mut watched).await {
            Ok(Some(_)) => {}
            end => break end,
        }
    };

    println!("cut after {:?}: {end:?}", begun.elapsed());
    assert!(end.is_err(), "{end:?}");
    assert_eq!(service.stop().await, Some(0));
}
