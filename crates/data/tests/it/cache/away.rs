//! The cache while Redis is away, silent or empty.

use std::time::Duration;

use data::cache::Config;
use data::redis;
use deadpool_redis::redis::cmd;

use super::Process;
use crate::redis_server::{Server, soon};

#[tokio::test]
async fn without_redis_the_loads_and_the_local_level_remain() {
    let server = Server::stopped();
    let process = Process::with(server.watched(&server.config()), &Config::default());

    let loaded = process.get(Some("loaded")).await;
    let again = process.cached().await;
    process.put("written").await;
    let written = process.cached().await;
    process.remove().await;
    let reloaded = process.get(Some("reloaded")).await;

    assert_eq!(
        (loaded.as_deref(), again.as_deref()),
        (Some("loaded"), Some("loaded"))
    );
    assert_eq!(
        (written.as_deref(), reloaded.as_deref()),
        (Some("written"), Some("reloaded"))
    );
    assert_eq!(process.counted("redis", "bypassed"), 2);
    // Two look-ups, a put and a removal: what was loaded is not offered to a Redis that was just away.
    let refused = r#"redis_command_duration_seconds_count{outcome="refused"}"#;
    assert_eq!(process.client.metric(refused), 4.0);
}

#[tokio::test]
async fn a_silent_redis_costs_a_load_one_command_timeout_and_soon_none() {
    let server = Server::start().await;
    let unchecked = redis::Config {
        check_interval: Duration::from_secs(60),
        ..server.as_shipped()
    };
    let client = server.watched(&unchecked);
    assert!(client.redis.connected(soon()).await);
    let process = Process::with(client, &Config::default());

    server.pause();
    process.loads.find(Some("loaded"));
    for key in 0..100 {
        let found = process.find(&key.to_string()).await.unwrap();
        assert_eq!(found.unwrap().as_str(), "loaded");
    }

    // A hundred loads, and at most the three waits that it takes to close the gate.
    let timeouts = process
        .client
        .metric(r#"redis_command_duration_seconds_count{outcome="timeout"}"#);
    assert!((1.0..=3.0).contains(&timeouts), "{timeouts}");
    assert_eq!(process.counted("redis", "bypassed"), 100);
    server.resume();
    assert!(process.client.redis.connected(soon()).await);
}

#[tokio::test]
async fn a_flushed_redis_is_filled_again() {
    let server = Server::start().await;
    let (one, other) = (Process::new(&server).await, Process::new(&server).await);
    one.get(Some("first")).await;

    let _: () = server.ask(&cmd("FLUSHALL")).await;
    let found = other.get(Some("second")).await;

    assert_eq!(found.as_deref(), Some("second"));
    assert_eq!(
        Process::new(&server).await.cached().await.as_deref(),
        Some("second")
    );
}
