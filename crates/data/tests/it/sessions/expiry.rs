//! When a session is over by itself.

use std::time::Duration;

use data::sessions::Config;
use deadpool_redis::redis::cmd;
use uuid::Uuid;

use super::Store;
use crate::redis_server::{soon, until};

#[tokio::test]
async fn use_starts_the_idle_time_anew() {
    let store = Store::new().await;
    let id = store.login(Uuid::new_v4()).await;
    let key = store.only_key().await;
    let _: u64 = store.server.ask(cmd("PEXPIRE").arg(&key).arg(60_000)).await;

    let lives = store.lives(&id).await;

    assert!(lives);
    assert!(store.ttl(&key).await > Duration::from_secs(29 * 60));
}

#[tokio::test]
async fn an_unused_session_is_over_after_the_idle_time() {
    let store = Store::new().await;
    let brief = Config {
        idle_timeout: Duration::from_millis(20),
        ..Config::default()
    };

    let id = store
        .with(&brief)
        .create(Uuid::new_v4(), "customer", soon())
        .await
        .unwrap();
    until("the session expired", async || {
        store.keys("*:session:*").await.is_empty()
    })
    .await;

    assert!(!store.lives(&id).await);
}

#[tokio::test]
async fn a_busy_session_is_over_after_the_absolute_time() {
    let store = Store::new().await;
    let id = store.login(Uuid::new_v4()).await;
    let strict = store.with(&Config {
        absolute_timeout: Duration::ZERO,
        ..Config::default()
    });

    let found = strict.find(&id, None, soon()).await.unwrap();

    assert_eq!(found, None);
    assert!(store.keys("*:session:*").await.is_empty());
}

#[tokio::test]
async fn redis_keeps_no_session_beyond_its_absolute_time() {
    let store = Store::new().await;
    let id = store.login(Uuid::new_v4()).await;
    let ten_minutes = Duration::from_secs(600);
    let ending = store.with(&Config {
        absolute_timeout: ten_minutes,
        ..Config::default()
    });

    let found = ending.find(&id, None, soon()).await.unwrap();

    assert!(found.is_some());
    assert!(store.ttl(&store.only_key().await).await <= ten_minutes);
}
