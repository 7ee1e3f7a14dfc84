//! Clients that hear what is left of products, and go on elsewhere when they are sent away.

use std::{sync::Arc, time::Duration};

use api::proto::catalog::v1::{
    WatchStockRequest, catalog_client::CatalogClient, watch_stock_response::Event,
};
use tokio::time::sleep;
use tonic::{Code, Status, Streaming, transport::Endpoint};

use super::{Place, clients::Tally};
use crate::rig::client::{Heard, Socket};

/// Over a WebSocket: what was left each time.
pub async fn socket(places: [Place; 2], mut at: usize, tally: Arc<Tally>) -> Vec<i64> {
    let mut socket = Socket::open(places[at].public, "", &[]).await;
    let (mut after_ms, mut left) = (0, Vec::new());
    tally.hears();
    while !left.last().is_some_and(|left| tally.is_last(*left)) {
        match socket.next().await {
            Heard::Frame(frame) => match frame["type"].as_str() {
                Some("stock") => left.push(frame["data"]["stock"].as_i64().unwrap()),
                Some("reconnect") => after_ms = frame["after_ms"].as_u64().unwrap(),
                Some("hello" | "token") => {}
                _ => tally.fail(format!("a WebSocket: {frame}")),
            },
            Heard::Closed(1012, _) => {
                tally.hears_no_more();
                let Socket { token, stream } = socket;
                drop(stream);
                sleep(Duration::from_millis(after_ms)).await;
                at = 1 - at;
                socket = Socket::come_back(places[at].public, token).await;
                tally.hears();
            }
            Heard::Closed(code, reason) => {
                tally.fail(format!("a WebSocket was closed: {code} {reason}"));
                return left;
            }
        }
    }
    left
}

/// Over gRPC: the same.
pub async fn stream(places: [Place; 2], mut at: usize, tally: Arc<Tally>) -> Vec<i64> {
    let (mut token, mut left) = (String::new(), Vec::new());
    let mut watched = watch(places[at], &token).await;
    tally.hears();
    while !left.last().is_some_and(|left| tally.is_last(*left)) {
        match watched.message().await {
            Ok(Some(message)) => {
                token = message.token;
                match message.event {
                    Some(Event::Change(change)) => left.push(change.stock.into()),
                    Some(Event::Refetch(())) => tally.fail("a stream has missed something"),
                    None => {}
                }
            }
            Err(end) if end.code() == Code::Unavailable && pushback(&end).is_some() => {
                tally.hears_no_more();
                sleep(pushback(&end).unwrap()).await;
                at = 1 - at;
                watched = watch(places[at], &token).await;
                tally.hears();
            }
            end => {
                tally.fail(format!("a stream has ended: {end:?}"));
                return left;
            }
        }
    }
    left
}

async fn watch(
    place: Place,
    token: &str,
) -> Streaming<api::proto::catalog::v1::WatchStockResponse> {
    let endpoint = Endpoint::from_shared(format!("http://{}", place.rpcs)).unwrap();
    let request = WatchStockRequest {
        resume: token.to_owned(),
    };
    let mut client = CatalogClient::new(endpoint.connect_lazy());
    client.watch_stock(request).await.unwrap().into_inner()
}

fn pushback(status: &Status) -> Option<Duration> {
    let ms = status.metadata().get("grpc-retry-pushback-ms")?;
    Some(Duration::from_millis(ms.to_str().ok()?.parse().ok()?))
}
