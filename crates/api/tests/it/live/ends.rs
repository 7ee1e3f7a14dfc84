//! How a socket ends when it is not its client that ends it.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};
use tokio_tungstenite::tungstenite::Message;

use super::rig::{
    NOBODY, Scene,
    client::{Events, Socket, customer, goodbye},
    metric, until_metric,
};
use crate::wire::{borrowed, call};

#[tokio::test]
async fn a_slow_client_is_cut_off_with_a_code_and_the_others_go_on() {
    let settings = [
        ("HOLDFAST__LIVE__QUEUE_BYTES_MAX", "65536"),
        ("HOLDFAST__LIVE__CLOSE_TIMEOUT", "4s"),
        ("HOLDFAST__LIVE__DRAIN_WINDOW", "5s"),
    ];
    let scene = Scene::start(1, &settings).await;
    let mut slow = Socket::open_narrow(scene.address()).await;
    let mut quick = Socket::open(scene.address(), "", NOBODY).await;
    let closed = r#"live_closed_total{reason="too_slow"}"#;

    // It reads nothing, until what is written fills the buffers of both kernels and then the queue.
    let padding = "x".repeat(15_000);
    let mut number = 0;
    while metric(&scene.services[0], closed).await == 0.0 {
        scene
            .world
            .stock_with(&padding, [number + 1, number + 2, number + 3])
            .await;
        number += 3;
        quick.numbers_up_to(number).await;
        assert!(number < 3000, "it is not cut off");
    }
    let (frames, code, reason) = slow.end().await;
    scene.world.stock([number + 1]).await;

    println!(
        "cut off after {number} messages of 15 kB, of which it had {}",
        frames.len()
    );
    assert_eq!((code, reason.as_str()), (4008, "too_slow"));
    assert!(frames.len() < usize::try_from(number).unwrap());
    assert_eq!(quick.numbers_up_to(number + 1).await, [number + 1]);
    until_metric(
        &scene.services[0],
        r#"live_sockets{kind="websocket"}"#,
        |open| open == 1.0,
    )
    .await;
}

#[tokio::test]
async fn a_client_that_says_anything_or_too_much_is_closed() {
    let scene = Scene::start(1, &[]).await;
    for (message, closed) in [
        (Message::text("hello"), (1008, "unexpected")),
        (Message::binary(vec![0; 10]), (1008, "unexpected")),
        (Message::text("x".repeat(1025)), (1009, "too_large")),
        (Message::text("x".repeat(10_000_000)), (1009, "too_large")),
    ] {
        let mut socket = Socket::open(scene.address(), "", NOBODY).await;
        let bytes = message.len();
        socket.send(message).await;
        let (_, code, reason) = socket.end().await;
        // What it still sends may be answered with a reset, which overtakes the word.
        let is_cut = bytes > 1_000_000 && code == 1006;
        assert!(
            is_cut || (code, reason.as_str()) == closed,
            "{bytes} bytes: {code} {reason}"
        );
    }
    until_metric(
        &scene.services[0],
        r#"live_sockets{kind="websocket"}"#,
        |open| open == 0.0,
    )
    .await;
}

#[tokio::test]
async fn a_client_that_takes_leave_is_answered_and_gives_its_place_back() {
    let scene = Scene::start(1, &[]).await;
    let mut socket = Socket::open(scene.address(), "", NOBODY).await;
    let gone = Socket::open(scene.address(), "", NOBODY).await;

    socket.send(goodbye()).await;
    drop(gone);

    assert_eq!(socket.end().await.1, 1000);
    until_metric(
        &scene.services[0],
        r#"live_sockets{kind="websocket"}"#,
        |open| open == 0.0,
    )
    .await;
}

#[tokio::test]
async fn who_is_silent_is_closed_and_who_answers_outlasts_every_other_limit() {
    let settings = [
        ("HOLDFAST__LIVE__PING_INTERVAL", "300ms"),
        ("HOLDFAST__LIVE__PONG_TIMEOUT", "250ms"),
        ("HOLDFAST__HTTP__FIRST_BYTE_TIMEOUT", "200ms"),
        ("HOLDFAST__HTTP__HEAD_TIMEOUT", "200ms"),
        ("HOLDFAST__HTTP__BALANCER_IDLE", "100ms"),
        ("HOLDFAST__HTTP__IDLE_TIMEOUT", "200ms"),
    ];
    let scene = Scene::start(1, &settings).await;
    let mut answering = Socket::open(scene.address(), "", NOBODY).await;
    let mut events = Events::open(scene.address(), "", NOBODY).await;
    // A client that never reads what it is sent, and so never answers.
    let mut silent = TcpStream::connect(scene.address()).await.unwrap();
    let handshake = "GET /v1/live HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    silent.write_all(handshake.as_bytes()).await.unwrap();

    let until = Instant::now() + Duration::from_millis(1500);
    let answered = async {
        while tokio::time::timeout_at(until, answering.next())
            .await
            .is_ok()
        {}
    };
    answered.await;
    until_metric(
        &scene.services[0],
        r#"live_closed_total{reason="silent"}"#,
        |closed| closed == 1.0,
    )
    .await;
    scene.world.stock([1]).await;

    let mut heard = Vec::new();
    silent.read_to_end(&mut heard).await.unwrap();
    let code = 4009_u16.to_be_bytes();
    assert!(heard.windows(2).any(|bytes| bytes == code), "{heard:?}");
    assert_eq!(answering.numbers_up_to(1).await, [1]);
    assert_eq!(events.next_of("stock").await["data"]["n"], 1);
}

#[tokio::test]
async fn sockets_of_a_session_that_ends_are_closed_within_five_seconds() {
    let scene = Scene::start(2, &[]).await;
    let [here, there] = [0, 1].map(|process| scene.services[process].public);
    let (_, session) = customer(here).await;
    let (_, other) = customer(here).await;
    let mut socket = Socket::open(there, "topics=orders", &session).await;
    let mut events = Events::open(here, "topics=orders,stock", &session).await;
    let mut bystander = Socket::open(there, "topics=orders,stock", &other).await;
    // Not the first look, which is at once.
    sleep(Duration::from_millis(100)).await;

    let ended = Instant::now();
    let reply = call(here, "DELETE /v1/session", &borrowed(&session), None).await;
    assert_eq!(reply.status, 204, "{reply:?}");
    let (_, code, reason) = socket.end().await;
    let took = ended.elapsed();
    let closed = events.next_of("close").await;

    println!("closed {took:?} after the session had ended");
    assert_eq!((code, reason.as_str()), (4001, "session_ended"));
    assert_eq!(
        closed,
        json!({ "type": "close", "code": 4001, "reason": "session_ended" })
    );
    assert!(events.next().await.is_none());
    assert!(
        ended.elapsed() < Duration::from_secs(5),
        "{:?}",
        ended.elapsed()
    );
    scene.world.stock([1]).await;
    assert_eq!(bystander.numbers_up_to(1).await, [1]);
}
