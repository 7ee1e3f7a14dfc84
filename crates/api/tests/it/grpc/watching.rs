//! A stream of what is left of products: it tells what happens, ends with its process, and goes on at another.

use api::proto::{
    catalog::v1::{
        StockChange, WatchStockRequest, WatchStockResponse, catalog_client::CatalogClient,
        watch_stock_response::Event,
    },
    orders::v1::orders_client::OrdersClient,
};
use nix::sys::signal::Signal;
use tokio::time::timeout;
use tonic::{Code, Request, Status, Streaming, transport::Endpoint};

use super::{bearer, key, one_of, stocked};
use crate::service::{PATIENCE, PATIENT, Service, database};

/// With the relay of what has happened, which runs where jobs do.
const TELLING: [(&str, &str); 2] = [
    ("HOLDFAST__JOBS__RUN_IN_SERVE", "true"),
    ("HOLDFAST__LIVE__DRAIN_WINDOW", "300ms"),
];

fn endpoint(service: &Service) -> Endpoint {
    Endpoint::from_shared(format!("http://{}", service.rpcs)).unwrap()
}

async fn watch(service: &Service, resume: &str) -> Streaming<WatchStockResponse> {
    let request = WatchStockRequest {
        resume: resume.to_owned(),
    };
    let mut client = CatalogClient::new(endpoint(service).connect_lazy());
    client.watch_stock(request).await.unwrap().into_inner()
}

/// The next event and the token with it.
async fn event(watched: &mut Streaming<WatchStockResponse>) -> Result<(Event, String), Status> {
    loop {
        let message = timeout(PATIENCE, watched.message()).await;
        let message = message.expect("nothing is told")?;
        let WatchStockResponse { token, event } = message.expect("a stream ends with a status");
        if let Some(event) = event {
            return Ok((event, token));
        }
    }
}

fn left(event: &Event) -> i32 {
    match event {
        Event::Change(StockChange { stock, .. }) => *stock,
        Event::Refetch(()) => panic!("nothing was missed"),
    }
}

async fn buy(service: &Service, product: &str) {
    let mut request = Request::new(one_of(product));
    let metadata = request.metadata_mut();
    metadata.insert("authorization", bearer(service).await);
    metadata.insert("idempotency-key", key());
    let mut orders = OrdersClient::new(endpoint(service).connect_lazy());
    orders.create_order(request).await.unwrap();
}

#[tokio::test]
async fn a_watcher_hears_of_each_change_and_goes_on_at_another_process() {
    let database = database().await;
    let product = stocked(&database, 1).await.remove(0);
    let settings = [&PATIENT[..], &TELLING].concat();
    let mut ending = Service::start(&database, &settings).await;
    let other = Service::start(&database, &settings).await;
    ending.ready().await;
    other.ready().await;

    let mut watched = watch(&ending, "").await;
    buy(&other, &product).await;
    let (first, token) = event(&mut watched).await.unwrap();
    ending.signal(Signal::SIGTERM);
    let end = event(&mut watched).await.unwrap_err();
    buy(&other, &product).await;
    let mut resumed = watch(&other, &token).await;
    let (second, _) = event(&mut resumed).await.unwrap();
    let mut lost = watch(&other, "of another shop").await;
    let (refetch, _) = event(&mut lost).await.unwrap();

    println!("{first:?}, then {end:?}, then {second:?}");
    assert_eq!([left(&first), left(&second)], [999_999, 999_998]);
    assert_eq!(refetch, Event::Refetch(()));
    assert_eq!(end.code(), Code::Unavailable);
    assert!(end.metadata().contains_key("grpc-retry-pushback-ms"));
    assert_eq!(ending.exited().await.code(), Some(0));
}
