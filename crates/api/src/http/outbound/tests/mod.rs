//! What every call is held to; `post.rs` holds what is so of a POST alone.

mod post;

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use futures::future::join_all;
use http::{HeaderMap, HeaderValue, header};
use prometheus_client::registry::Registry;
use resilience::{Criticality, breaker, bulkhead};
use serde_json::{Value, json};
use telemetry::trace::{Incoming, Sampling};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};

use super::*;
use crate::http::{RequestId, breakers::Breakers, context::REQUEST_ID};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A service that answers what the test wants, and counts.
struct Stub {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Stub {
    /// `answer` is given the number of the request, from 0.
    async fn start<R: Future<Output = Response> + Send>(
        answer: impl Fn(usize, Request) -> R + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        let router = Router::new().fallback(move |request: Request| {
            let number = counter.fetch_add(1, Ordering::SeqCst);
            answer(number, request)
        });
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            requests,
            _task: task,
        }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn service(&self, change: impl FnOnce(&mut Config)) -> Service {
        service(&format!("http://{}/base/", self.address), change)
    }
}

fn service(url: &str, change: impl FnOnce(&mut Config)) -> Service {
    let mut config = Config {
        url: Some(url.to_owned()),
        attempt_timeout: PATIENCE,
        total_timeout: PATIENCE,
        ..Config::default()
    };
    // The machine may stand still for a while, and no test here is about that.
    config.breaker.slow_after = PATIENCE;
    change(&mut config);
    let metrics = Metrics::register(&mut Registry::default(), &Breakers::default());
    Service::new("stub", &config, &metrics).unwrap().unwrap()
}

fn caller(budget: Duration) -> Caller {
    let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static("the-request"))]);
    let sampling = Sampling::new(&telemetry::Config::default());
    Caller {
        deadline: Instant::now() + budget,
        criticality: Criticality::SheddablePlus,
        tenant: Some("shop-7".into()),
        id: RequestId::from_headers(&headers),
        trace: Some(Incoming::root(sampling)),
    }
}

async fn ask(service: &Service) -> Result<Value, CallError> {
    service.get("/thing?x=1", &caller(PATIENCE)).await
}

async fn fine(_: usize, _: Request) -> Response {
    Json(json!({ "fine": true })).into_response()
}

async fn failing(_: usize, _: Request) -> Response {
    StatusCode::SERVICE_UNAVAILABLE.into_response()
}

async fn silent(_: usize, _: Request) -> Response {
    std::future::pending().await
}

/// Says what it was asked.
async fn echo(_: usize, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let headers = head.headers.iter();
    let headers: serde_json::Map<_, _> = headers
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()))
        .collect();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let body = String::from_utf8(body.into()).unwrap();
    let (method, target) = (head.method.as_str(), head.uri.to_string());
    Json(json!({ "method": method, "target": target, "headers": headers, "body": body }))
        .into_response()
}

#[tokio::test]
async fn a_call_takes_along_the_id_the_trace_what_it_matters_and_the_time_left_and_nothing_else() {
    let stub = Stub::start(echo).await;
    let caller = caller(Duration::from_secs(10));
    let trace_id = caller.trace.as_ref().unwrap().trace_id().to_string();

    let echoed: Value = stub
        .service(|_| {})
        .get("/thing?x=1", &caller)
        .await
        .unwrap();

    assert_eq!(echoed["target"], "/base/thing?x=1");
    let headers = echoed["headers"].as_object().unwrap();
    assert_eq!(headers["x-request-id"], "the-request");
    let trace = headers["traceparent"].as_str().unwrap();
    assert!(trace.starts_with(&format!("00-{trace_id}-")), "{trace}");
    assert_eq!(headers["request-criticality"], "sheddable_plus");
    let left = headers["request-timeout"].as_str().unwrap();
    let left_ms: u64 = left.strip_suffix("ms").unwrap().parse().unwrap();
    assert!((1..=10_000).contains(&left_ms), "{left}");
    let names: HashSet<_> = headers.keys().map(String::as_str).collect();
    let expected = [
        "host",
        "user-agent",
        "x-request-id",
        "traceparent",
        "request-criticality",
        "request-timeout",
    ];
    assert_eq!(names, HashSet::from(expected));
}

#[tokio::test]
async fn a_service_that_gave_us_a_key_is_told_for_whom_it_is() {
    let stub = Stub::start(echo).await;
    let key = "a key of thirty-two characters, or more";
    let service = stub.service(|config| config.caller_key = Some(key.into()));

    let echoed = ask(&service).await.unwrap();

    assert_eq!(echoed["headers"]["caller-key"], key);
    assert_eq!(echoed["headers"]["request-tenant"], "shop-7");
}

#[tokio::test]
async fn what_is_not_a_200_of_the_agreed_shape_and_size_is_no_answer() {
    let elsewhere = Stub::start(fine).await;
    let there = format!("http://{}/", elsewhere.address);
    let odd = move |number, _| {
        let there = there.clone();
        async move {
            match number {
                0 => (StatusCode::FOUND, [(header::LOCATION, there)]).into_response(),
                1 => "no JSON".into_response(),
                2 => StatusCode::NOT_FOUND.into_response(),
                _ => Body::from(vec![b' '; 2048]).into_response(),
            }
        }
    };
    let stub = Stub::start(odd).await;
    let service = stub.service(|config| config.body_bytes_max = 1024);

    for expected in ["unreadable", "unreadable", "refused", "too_large"] {
        assert_eq!(ask(&service).await.unwrap_err().outcome(), expected);
    }

    assert_eq!((stub.requests(), elsewhere.requests()), (4, 0));
}

#[tokio::test]
async fn a_hiccup_is_hidden_by_a_retry_and_a_bug_is_not_asked_for_again() {
    let hiccup = async |number: usize, request| match number % 2 {
        0 => failing(number, request).await,
        _ => fine(number, request).await,
    };
    let stub = Stub::start(hiccup).await;
    assert!(ask(&stub.service(|_| {})).await.is_ok());
    assert_eq!(stub.requests(), 2);

    let bug = async |_, _| StatusCode::INTERNAL_SERVER_ERROR.into_response();
    let stub = Stub::start(bug).await;
    assert_eq!(
        ask(&stub.service(|_| {})).await.unwrap_err().outcome(),
        "failed"
    );
    assert_eq!(stub.requests(), 1);
}

#[tokio::test]
async fn a_service_that_wants_to_be_left_alone_for_long_is_not_asked_again() {
    let busy = async |_, _| {
        let later = [(header::RETRY_AFTER, "60")];
        (StatusCode::TOO_MANY_REQUESTS, later).into_response()
    };
    let stub = Stub::start(busy).await;

    assert!(ask(&stub.service(|_| {})).await.is_err());

    assert_eq!(stub.requests(), 1);
}

#[tokio::test]
async fn a_silent_service_costs_no_more_than_the_caller_has_time() {
    let stub = Stub::start(silent).await;
    let budget = Duration::from_millis(100);
    let service = stub.service(|_| {});

    let caller = caller(budget);
    let call = service.get::<Value>("/", &caller);
    let error = timeout(PATIENCE / 2, call).await.unwrap().unwrap_err();

    assert_eq!(error.outcome(), "timeout");
    // That the caller had so little time is not the service's fault.
    assert_eq!(service.0.breaker.state(), State::Closed);
}

#[tokio::test]
async fn a_service_that_cannot_be_reached_is_soon_not_called_at_all() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let service = service(&format!("http://{nobody}"), |_| {});

    let mut outcomes = Vec::new();
    for _ in 0..6 {
        outcomes.push(ask(&service).await.unwrap_err().outcome());
    }
    let begun = Instant::now();
    for _ in 0..1000 {
        ask(&service).await.unwrap_err();
    }

    println!("refused in {:?}", begun.elapsed() / 1000);
    assert_eq!(outcomes.first(), Some(&"connection"));
    assert_eq!(outcomes.last(), Some(&"breaker_open"));
}

#[tokio::test]
async fn of_many_callers_one_tries_whether_the_service_is_back() {
    let stub = Stub::start(async |number, request| match number {
        0..5 => failing(number, request).await,
        _ => silent(number, request).await,
    })
    .await;
    let service = stub.service(|config| {
        config.retry.extra_max = 0;
        config.bulkhead.calls_max = 100;
        config.breaker.open_min = Duration::from_millis(1);
        config.breaker.open_max = Duration::from_millis(2);
    });
    for _ in 0..5 {
        ask(&service).await.unwrap_err();
    }
    assert_eq!(service.0.breaker.state(), State::Open);
    tokio::time::sleep(Duration::from_millis(2)).await;

    let caller = caller(Duration::from_millis(500));
    let calls = (0..50).map(|_| service.get::<Value>("/", &caller));
    let ended = join_all(calls).await;

    assert_eq!(stub.requests(), 6);
    let refused = ended
        .iter()
        .filter(|end| matches!(end, Err(CallError::Open(_))));
    assert_eq!(refused.count(), 49);
    assert_eq!(service.0.breaker.state(), State::HalfOpen);
}

#[tokio::test]
async fn a_stuck_service_holds_no_more_calls_than_its_bulkhead_has_places() {
    let stub = Stub::start(silent).await;
    let service = stub.service(|config| {
        config.bulkhead = bulkhead::Config {
            calls_max: 3,
            waiting_max: 2,
            wait: Duration::from_millis(10),
        };
        config.breaker = breaker::Config {
            failures_in_row: 1000,
            ..config.breaker.clone()
        };
    });

    let caller = caller(Duration::from_secs(1));
    let ended = join_all((0..20).map(|_| service.get::<Value>("/", &caller))).await;

    let full = ended
        .iter()
        .filter(|end| matches!(end, Err(CallError::Full(_))));
    assert_eq!((full.count(), stub.requests()), (17, 3));
    assert!(service.0.bulkhead.enter(Instant::now()).await.is_ok());
}
