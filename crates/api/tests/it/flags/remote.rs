//! A remote service that says how flags are to be, over real sockets and as badly as it likes.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
    routing::post,
};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Mutex, watch},
    task::JoinSet,
    time::{Duration, Instant, sleep},
};

use super::{FLEET, SET_TOKEN, flag, says, set};
use crate::service::{PATIENCE, PATIENT, Service, database};

/// What the server does with a request.
#[derive(Clone, Debug)]
enum Play {
    /// Says how the flag is.
    Say(Value),
    Refuse,
    Hang,
    Garbage,
}

/// A server of OFREP with one flag.
struct Remote {
    address: SocketAddr,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

struct Shared {
    play: watch::Sender<Play>,
    /// The status of each answer.
    answers: Mutex<Vec<u16>>,
}

impl Remote {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            play: watch::Sender::new(Play::Say(json!(false))),
            answers: Mutex::default(),
        });
        let router = Router::new()
            .route("/ofrep/v1/evaluate/flags", post(evaluate))
            .with_state(Arc::clone(&shared));
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            shared,
            _task: task,
        }
    }

    fn play(&self, play: Play) {
        self.shared.play.send_replace(play);
    }

    /// Waits until there is one more answer with this status.
    async fn answered(&self, status: u16) {
        let count = async || {
            let answers = self.shared.answers.lock().await;
            answers.iter().filter(|one| **one == status).count()
        };
        let (before, deadline) = (count().await, Instant::now() + PATIENCE);
        while count().await == before {
            assert!(Instant::now() < deadline, "no answer with {status}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn evaluate(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let asked: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(asked, json!({ "context": { "targetingKey": "holdfast" } }));
    assert_eq!(headers["authorization"], "Bearer a token for the remote");
    let play = shared.play.borrow().clone();
    let response = match play {
        Play::Say(value) => said(&headers, &value),
        Play::Refuse => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Play::Garbage => "{\"flags\": [{".into_response(),
        Play::Hang => {
            let mut plays = shared.play.subscribe();
            let _ = plays.wait_for(|play| !matches!(play, Play::Hang)).await;
            StatusCode::BAD_GATEWAY.into_response()
        }
    };
    let status = response.status().as_u16();
    shared.answers.lock().await.push(status);
    response
}

fn said(headers: &HeaderMap, value: &Value) -> Response {
    let tag = format!("\"{value}\"");
    let known = headers.get(header::IF_NONE_MATCH);
    if known.is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    let told = json!({ "flags": [
        { "key": "recommendations", "reason": "STATIC", "variant": "v", "value": value, "metadata": {} },
        { "key": "another", "reason": "SPLIT", "variant": "b", "value": "blue" },
        { "key": "order_products", "errorCode": "PARSE_ERROR", "errorDetails": "a rule is wrong" },
    ] });
    ([(header::ETAG, tag)], axum::Json(told)).into_response()
}

async fn start(remote: &Remote, database: &devstack::Database) -> Service {
    let url = format!("http://{}", remote.address);
    let settings = [
        ("HOLDFAST__FLAGS__OFREP__URL", url.as_str()),
        ("HOLDFAST__FLAGS__OFREP__TOKEN", "a token for the remote"),
        ("HOLDFAST__FLAGS__POLL_INTERVAL", "500ms"),
        ("HOLDFAST__FLAGS__STALE_AFTER", "4s"),
        SET_TOKEN,
    ];
    let service = Service::start(database, &[&PATIENT[..], &settings].concat()).await;
    service.ready().await;
    service
}

fn off() -> [(&'static str, Value); 3] {
    [
        ("value", json!(false)),
        ("origin", json!("remote")),
        ("reason", json!("STATIC")),
    ]
}

#[tokio::test]
async fn what_the_remote_service_says_counts_and_is_asked_for_again_by_its_tag() {
    let (remote, database) = (Remote::start().await, database().await);
    let service = start(&remote, &database).await;
    says(&service, Instant::now(), &off()).await;
    remote.answered(304).await;
    assert_eq!(flag(&service).await["value"], false);

    let since = Instant::now();
    remote.play(Play::Say(json!(true)));
    let flipped = says(&service, since, &[("value", json!(true))]).await;
    set(&service, false, "1h").await;
    let by_hand = flag(&service).await;
    remote.play(Play::Say(json!("blue")));
    remote.answered(200).await;

    println!("the remote service flips: {flipped:?}");
    assert!(flipped < FLEET);
    assert_eq!(by_hand["origin"], "operator");
    let line = "DELETE /flags/recommendations";
    super::operate(service.admin, line, None).await;
    // It is neither on nor off, and so the code's.
    let code = [("value", json!(true)), ("origin", json!("code"))];
    says(&service, Instant::now(), &code).await;
}

#[tokio::test]
async fn whatever_becomes_of_the_remote_service_what_it_last_said_counts() {
    let (remote, database) = (Remote::start().await, database().await);
    let service = start(&remote, &database).await;
    says(&service, Instant::now(), &off()).await;

    for play in [Play::Refuse, Play::Hang, Play::Garbage] {
        remote.play(play.clone());
        let since = Instant::now();
        let stale = [("value", json!(false)), ("reason", json!("STALE"))];
        let stale = says(&service, since, &stale).await;
        let since = Instant::now();
        remote.play(Play::Say(json!(false)));
        let back = says(&service, since, &off()).await;
        println!("{play:?}: stale after {stale:?}, heard again after {back:?}");
        assert!(back < FLEET, "{back:?}");
    }
    assert!(!service.log().contains("a token for the remote"));
}
