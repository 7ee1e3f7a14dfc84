//! An OTLP collector that takes every export and keeps its bytes, or never answers.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpListener, task::JoinSet};

type Received = Arc<Mutex<Vec<u8>>>;

pub struct Collector {
    pub url: String,
    received: Received,
    _connections: JoinSet<()>,
}

impl Collector {
    pub async fn start() -> Self {
        let (listener, url) = listen().await;
        let received = Received::default();
        let mut connections = JoinSet::new();
        connections.spawn(serve(listener, Arc::clone(&received)));
        Self {
            url,
            received,
            _connections: connections,
        }
    }

    /// All that was exported so far, as it came.
    pub fn received(&self) -> Vec<u8> {
        self.received.lock().unwrap().clone()
    }
}

/// One that lets the kernel accept connections and says nothing on them.
pub async fn silent() -> (TcpListener, String) {
    listen().await
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

async fn serve(listener: TcpListener, received: Received) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let received = Arc::clone(&received);
        let export = service_fn(move |request| keep(request, Arc::clone(&received)));
        let serving = http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), export);
        connections.spawn(async {
            let _ = serving.await;
        });
    }
}

/// Answers with an empty gRPC message, and success in the trailer.
async fn keep(
    request: Request<Incoming>,
    received: Received,
) -> hyper::Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>> {
    let export = request.into_body().collect().await?.to_bytes();
    received.lock().unwrap().extend_from_slice(&export);
    let success = HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from(0),
    )]);
    let message = Full::new(Bytes::from_static(&[0; 5])).with_trailers(async { Some(Ok(success)) });
    let response = Response::builder()
        .header("content-type", "application/grpc")
        .body(message);
    Ok(response.expect("the header is valid"))
}
