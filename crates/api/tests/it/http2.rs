//! HTTP/2 without TLS and without an upgrade, on the same port as HTTP/1.1.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{body::Frame, body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sys::signal::Signal;
use tokio::{
    net::TcpStream,
    sync::oneshot,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::service::{PATIENCE, PATIENT, Service, database};

type Body = BoxBody<Bytes, hyper::Error>;
type Sender = http2::SendRequest<Body>;

#[tokio::test]
async fn many_requests_share_one_connection() {
    let database = database().await;
    let service = Service::start(&database, &PATIENT).await;
    service.ready().await;
    let (sender, _connection) = connect(service.public).await;

    let asked = (0..50).map(|number| {
        let path = if number % 2 == 0 {
            "/health"
        } else {
            "/v1/products"
        };
        sender.clone().send_request(request("GET", path, empty()))
    });
    let answers = futures::future::join_all(asked).await;

    for answer in answers {
        let answer = answer.unwrap();
        assert_eq!(
            (answer.status(), answer.version()),
            (StatusCode::OK, Version::HTTP_2)
        );
    }
}

#[tokio::test]
async fn a_host_that_contradicts_the_authority_is_400() {
    let database = database().await;
    let service = Service::start(&database, &PATIENT).await;
    let (mut sender, _connection) = connect(service.public).await;

    let mut contradiction = request("GET", "/health", empty());
    contradiction
        .headers_mut()
        .insert("host", "evil.example".parse().unwrap());
    let answer = sender.send_request(contradiction).await.unwrap();

    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_stream_that_is_open_when_the_process_is_told_to_end_is_answered() {
    let database = database().await;
    let mut service = Service::start(&database, &PATIENT).await;
    service.ready().await;
    let (mut sender, mut connection) = connect(service.public).await;
    let (finish, body) = unfinished(r#"{"email":"nobody@example.com","#);

    let mut open = Request::clone(&request("POST", "/v1/session", ())).map(|()| body);
    open.headers_mut()
        .insert("content-type", "application/json".parse().unwrap());
    let mut answers = JoinSet::new();
    answers.spawn(sender.send_request(open));
    // The stream is open once a later one has been answered.
    get(&mut sender, "/health").await;
    service.signal(Signal::SIGTERM);
    service.logged("closing").await;
    // From GOAWAY on the connection takes no further stream.
    while sender
        .send_request(request("GET", "/health", empty()))
        .await
        .is_ok()
    {
        sleep(std::time::Duration::from_millis(5)).await;
    }
    finish
        .send(Bytes::from_static(br#""password":"wrong"}"#))
        .unwrap();

    let answer = timeout(PATIENCE, answers.join_next()).await.unwrap();
    let answer = answer.unwrap().unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert!(answer.into_body().collect().await.is_ok());
    let ended = timeout(PATIENCE, connection.join_next()).await.unwrap();
    assert!(ended.unwrap().unwrap().is_ok());
    assert_eq!(service.exited().await.code(), Some(0));
}

async fn connect(address: SocketAddr) -> (Sender, JoinSet<hyper::Result<()>>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    (sender, connections)
}

async fn get(sender: &mut Sender, path: &str) -> Response<Incoming> {
    sender
        .send_request(request("GET", path, empty()))
        .await
        .unwrap()
}

fn request<B>(method: &str, path: &str, body: B) -> Request<B> {
    let uri = format!("http://shop{path}");
    Request::builder()
        .method(method)
        .uri(uri)
        .body(body)
        .unwrap()
}

fn empty() -> Body {
    Full::default().map_err(|never| match never {}).boxed()
}

/// A body of which the second half comes when it is told to.
fn unfinished(first: &'static str) -> (oneshot::Sender<Bytes>, Body) {
    let (finish, second) = oneshot::channel::<Bytes>();
    let first = futures::stream::iter([Bytes::from_static(first.as_bytes())]);
    let second = futures::stream::once(async { second.await.unwrap_or_default() });
    let frames = futures::StreamExt::map(futures::StreamExt::chain(first, second), |part| {
        Ok(Frame::data(part))
    });
    (finish, BodyExt::boxed(StreamBody::new(frames)))
}
