//! Writes of one process as the others hear of them, and what they do while they cannot.

use std::time::Duration;

use data::cache::Config;
use deadpool_redis::redis::cmd;

use super::{KEY, Process};
use crate::redis_server::{Server, until};

/// Entries that nothing but a message or its loss can end.
fn lasting() -> Config {
    Config {
        local_ttl: Duration::from_secs(3600),
        local_ttl_unsubscribed: Duration::from_secs(60),
        ..Config::default()
    }
}

async fn listening(server: &Server) -> Process {
    Process::with(server.connected().await, &lasting())
        .listening()
        .await
}

async fn sees(process: &Process, value: &str) {
    until(&format!("{value} is seen"), async || {
        process.get(Some("loaded")).await.as_deref() == Some(value)
    })
    .await;
}

#[tokio::test]
async fn a_write_is_seen_by_every_process_at_once() {
    let server = Server::start().await;
    let writer = listening(&server).await;
    let readers = [listening(&server).await, listening(&server).await];
    for reader in &readers {
        reader.get(Some("old")).await;
    }

    for value in ["new", "newer"] {
        writer.put(value).await;

        for reader in &readers {
            sees(reader, value).await;
            assert_eq!(reader.cached().await.as_deref(), Some(value));
        }
        assert_eq!(writer.cached().await.as_deref(), Some(value));
    }
    assert_eq!(readers[0].outcome("invalidations", "elsewhere"), 2);
    assert_eq!(writer.outcome("invalidations", "elsewhere"), 0);
    assert_eq!(writer.counted("redis", "hit"), 0);
}

#[tokio::test]
async fn a_removal_is_seen_by_every_process_at_once() {
    let server = Server::start().await;
    let (reader, writer) = (listening(&server).await, listening(&server).await);
    reader.get(Some("old")).await;

    writer.remove().await;

    sees(&reader, "loaded").await;
}

#[tokio::test]
async fn a_lost_subscription_drops_what_is_kept_in_process() {
    let server = Server::start().await;
    let reader = listening(&server).await;
    reader.get(Some("old")).await;
    let _: () = server.ask(cmd("DEL").arg(KEY)).await;
    assert_eq!(reader.cached().await.as_deref(), Some("old"));

    let _: u64 = server
        .ask(cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub"))
        .await;

    sees(&reader, "loaded").await;
    let reader = reader.listening().await;
    // And it hears again.
    listening(&server).await.put("new").await;
    sees(&reader, "new").await;
}

#[tokio::test]
async fn a_redis_that_is_killed_or_falls_silent_is_a_lost_subscription() {
    let mut server = Server::start().await;
    let brief = data::redis::Config {
        command_timeout: Duration::from_millis(500),
        ..server.config()
    };
    let reader = Process::with(server.watched(&brief), &lasting())
        .listening()
        .await;

    reader.get(Some("old")).await;
    server.pause();
    sees(&reader, "loaded").await;
    assert_eq!(reader.metric("cache_subscribed"), 0.0);
    server.resume();
    let reader = reader.listening().await;

    reader.put("old").await;
    server.kill().await;
    sees(&reader, "loaded").await;
    assert_eq!(reader.metric("cache_subscribed"), 0.0);
    server.restart().await;
    reader.listening().await;
}

#[tokio::test]
async fn without_a_subscription_a_write_is_seen_within_the_short_ttl() {
    let server = Server::start().await;
    let _: () = server
        .ask(
            cmd("ACL")
                .arg("SETUSER")
                .arg("default")
                .arg("resetchannels"),
        )
        .await;
    let brief = Config {
        local_ttl_unsubscribed: Duration::from_millis(100),
        ..lasting()
    };
    let reader = Process::with(server.connected().await, &brief);
    let writer = Process::with(server.connected().await, &brief);
    reader.get(Some("old")).await;
    assert_eq!(reader.cached().await.as_deref(), Some("old"));

    writer.put("new").await;

    sees(&reader, "new").await;
    assert_eq!(reader.metric("cache_subscribed"), 0.0);
}

#[tokio::test]
async fn what_another_version_of_the_service_writes_is_forgotten_too() {
    let server = Server::start().await;
    let (reader, writer) = (listening(&server).await, listening(&server).await);
    reader.get(Some("old")).await;
    let lifetime = data::cache::Lifetime::fresh(super::TTL);
    let next = writer
        .cache
        .namespace("things", 2, lifetime, writer.loads.clone());

    let value = "new".to_owned();
    next.put(&"a".to_owned(), value, crate::redis_server::soon())
        .await;

    sees(&reader, "loaded").await;
}

#[tokio::test]
async fn a_write_that_redis_refused_is_told_when_it_takes_writes_again() {
    let server = Server::start().await;
    let (reader, writer) = (listening(&server).await, listening(&server).await);
    reader.get(Some("old")).await;
    let allow = async |rules: [&str; 2]| {
        let mut allow = cmd("ACL");
        allow.arg("SETUSER").arg("default").arg(&rules);
        let _: () = server.ask(&allow).await;
    };

    allow(["-set", "-unlink"]).await;
    writer.put("new").await;
    assert_eq!(writer.cached().await.as_deref(), Some("new"));
    allow(["+set", "+unlink"]).await;

    sees(&reader, "loaded").await;
    until("it is counted", async || {
        writer.outcome("invalidations", "told_late") == 1
    })
    .await;
}
