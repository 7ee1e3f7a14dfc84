//! The shared connection while Redis is there, away, silent and back.

use std::net::Ipv4Addr;
use std::time::Duration;

use data::Error;
use data::redis::Config;
use deadpool_redis::redis::cmd;
use resilience::bulkhead;
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::redis_server::{PATIENCE, Server, Watched, soon, until};

const REFUSED: &str = r#"redis_command_duration_seconds_count{outcome="refused"}"#;
const TIMED_OUT: &str = r#"redis_command_duration_seconds_count{outcome="timeout"}"#;

async fn ping(client: &Watched) -> Result<String, Error> {
    client.redis.query(&cmd("PING"), soon()).await
}

/// Whether the answer came from the closed gate rather than from a wait.
fn is_refusal(answer: &Result<String, Error>) -> bool {
    matches!(
        answer,
        Err(Error::Unavailable {
            dependency: "redis",
            source: None
        })
    )
}

#[tokio::test]
async fn callers_are_refused_at_once_while_redis_is_down() {
    let server = Server::stopped();
    let client = server.watched(&server.config());

    until("the first attempt failed", async || {
        client.redis.status().error.is_some()
    })
    .await;
    let answer = ping(&client).await;

    assert!(is_refusal(&answer));
    assert!(answer.unwrap_err().is_transient());
    assert_eq!(
        client.redis.status().error.as_deref(),
        Some("connection refused")
    );
    assert_eq!(client.metric(REFUSED), 1.0);
}

#[tokio::test]
async fn a_redis_that_starts_later_is_found() {
    let mut server = Server::stopped();
    let client = server.watched(&server.config());
    until("the first attempt failed", async || {
        client.redis.status().error.is_some()
    })
    .await;

    server.restart().await;

    assert!(client.redis.connected(soon()).await);
    assert_eq!(ping(&client).await.unwrap(), "PONG");
    assert_eq!(client.metric("redis_up"), 1.0);
}

#[tokio::test]
async fn three_silent_commands_close_the_gate() {
    let server = Server::start().await;
    let unchecked = Config {
        check_interval: Duration::from_secs(60),
        ..server.as_shipped()
    };
    let client = server.watched(&unchecked);
    assert!(client.redis.connected(soon()).await);

    server.pause();
    let silent = [
        ping(&client).await,
        ping(&client).await,
        ping(&client).await,
    ];
    let next = ping(&client).await;

    assert!(
        silent
            .iter()
            .all(|answer| answer.is_err() && !is_refusal(answer))
    );
    assert!(is_refusal(&next));
    assert_eq!(client.metric(TIMED_OUT), 3.0);
    assert_eq!(client.metric("redis_up"), 0.0);
}

#[tokio::test]
async fn one_stall_under_load_is_not_taken_for_an_outage() {
    let server = Server::start().await;
    let unchecked = Config {
        command_timeout: Duration::from_secs(1),
        check_interval: Duration::from_secs(60),
        ..server.config()
    };
    let client = server.watched(&unchecked);
    assert!(client.redis.connected(soon()).await);

    server.pause();
    let stalled = futures::future::join_all((0..64).map(|_| ping(&client))).await;
    server.resume();

    assert!(stalled.iter().all(Result::is_err));
    assert!(client.redis.status().healthy);
}

#[tokio::test]
async fn a_silent_redis_is_noticed_without_traffic_and_left_for_a_new_connection() {
    let server = Server::start().await;
    let client = server.watched(&server.as_shipped());
    assert!(client.redis.connected(soon()).await);

    server.pause();
    until("the check closed the gate", async || {
        !client.redis.status().healthy
    })
    .await;
    let paused_status = client.redis.status();
    server.resume();

    assert!(client.redis.connected(soon()).await);
    assert_eq!(paused_status.error.as_deref(), Some("no answer in time"));
    assert_eq!(client.redis.status().error, None);
    // The abandoned sockets are closed: what is left is this client's one connection and the asking one.
    until("the old connection is gone", async || {
        let clients: String = server.ask(cmd("CLIENT").arg("LIST")).await;
        clients.lines().count() == 2
    })
    .await;
}

#[tokio::test]
async fn a_killed_redis_is_used_again_after_its_restart() {
    let mut server = Server::start().await;
    let client = server.connected().await;

    server.kill().await;
    until("the gate closed", async || !client.redis.status().healthy).await;
    server.restart().await;

    assert!(client.redis.connected(soon()).await);
    assert_eq!(ping(&client).await.unwrap(), "PONG");
}

#[tokio::test]
async fn a_cut_connection_is_replaced_while_redis_stays_up() {
    let server = Server::start().await;
    let client = server.connected().await;

    server
        .ask::<u64>(
            cmd("CLIENT")
                .arg("KILL")
                .arg("TYPE")
                .arg("normal")
                .arg("SKIPME")
                .arg("yes"),
        )
        .await;

    until("commands work again", async || ping(&client).await.is_ok()).await;
}

#[tokio::test]
async fn a_short_deadline_of_the_caller_is_not_held_against_redis() {
    let server = Server::start().await;
    let unchecked = Config {
        check_interval: Duration::from_secs(60),
        ..server.config()
    };
    let client = server.watched(&unchecked);
    assert!(client.redis.connected(soon()).await);

    server.pause();
    for _ in 0..10 {
        let deadline = Instant::now() + Duration::from_millis(1);
        let answer = client.redis.query::<String>(&cmd("PING"), deadline).await;
        assert!(matches!(
            answer,
            Err(Error::Deadline {
                dependency: "redis"
            })
        ));
    }
    server.resume();

    assert!(client.redis.status().healthy);
    assert_eq!(ping(&client).await.unwrap(), "PONG");
}

#[tokio::test]
async fn a_refused_command_is_a_bug_and_not_an_outage() {
    let server = Server::start().await;
    let client = server.connected().await;

    for _ in 0..10 {
        let answer = client.redis.query::<()>(&cmd("NONSENSE"), soon()).await;
        assert!(matches!(&answer, Err(error @ Error::Command(_)) if !error.is_transient()));
    }

    assert!(client.redis.status().healthy);
}

#[tokio::test]
async fn all_commands_share_one_connection_within_the_limit() {
    let server = Server::start().await;
    let narrow = Config {
        bulkhead: bulkhead::Config {
            calls_max: 2,
            waiting_max: 498,
            wait: PATIENCE,
        },
        ..server.config()
    };
    let client = server.watched(&narrow);
    assert!(client.redis.connected(soon()).await);

    let pings = futures::future::join_all((0..500).map(|_| ping(&client))).await;
    let clients: String = server.ask(cmd("CLIENT").arg("LIST")).await;

    assert!(pings.iter().all(Result::is_ok));
    assert_eq!(
        clients.lines().count(),
        2,
        "the client's and the asking one"
    );
    until("none is in flight", async || {
        client.metric("redis_commands_in_flight") == 0.0
    })
    .await;
}

#[tokio::test]
async fn cancelled_commands_are_no_longer_in_flight() {
    let server = Server::start().await;
    let client = server.connected().await;

    server.pause();
    let abandoned = tokio::time::timeout(Duration::from_millis(1), ping(&client)).await;
    server.resume();

    assert!(abandoned.is_err());
    until("none is in flight", async || {
        client.metric("redis_commands_in_flight") == 0.0
    })
    .await;
}

#[tokio::test]
async fn callers_do_not_hurry_the_attempts_to_connect() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let server = Server::stopped();
    let client = server.watched(&Config {
        url: url.into(),
        ..server.config()
    });

    let started = Instant::now();
    for _ in 0..5 {
        let attempt = async { drop(listener.accept().await) };
        let callers = async {
            loop {
                assert!(is_refusal(&ping(&client).await));
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { () = attempt => {}, () = callers => {} }
    }

    // The shortest pauses there can be: half of 50, 100, 200 and 400 ms.
    assert!(started.elapsed() >= Duration::from_millis(375));
}

#[tokio::test]
async fn a_server_without_tls_is_not_spoken_to_in_plain_text() {
    let server = Server::start().await;
    let plain = server.config();
    let url = plain.url.expose_secret().replace("redis://", "rediss://");
    let pings = server.calls("ping").await;

    let client = server.watched(&Config {
        url: url.into(),
        ..plain
    });
    until("the first attempt failed", async || {
        client.redis.status().error.is_some()
    })
    .await;

    assert!(!client.redis.status().healthy);
    assert_eq!(server.calls("ping").await, pings);
}
