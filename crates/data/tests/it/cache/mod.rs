//! Both cache levels: what they keep, for whom and how long.

mod away;
mod loads;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use data::cache::{Cache, Config, Namespace};
use deadpool_redis::redis::cmd;
use prometheus_client::registry::Registry;

use crate::redis_server::{Server, Watched, soon, until};

const TTL: Duration = Duration::from_secs(60);
const KEY: &str = "holdfast:cache:things:v1:a";

/// One process with its cache; several of them share a server.
struct Process {
    client: Watched,
    cache: Cache,
    registry: Registry,
    things: Namespace<String>,
}

impl Process {
    async fn new(server: &Server) -> Self {
        Self::with(server.connected().await, &Config::default())
    }

    fn with(client: Watched, config: &Config) -> Self {
        let mut registry = Registry::default();
        let cache = Cache::new(config, client.redis.clone(), &mut registry);
        let things = cache.namespace("things", 1, TTL);
        Self {
            client,
            cache,
            registry,
            things,
        }
    }

    /// What the cache gives for `a` when a load would find `value`.
    async fn get(&self, value: Option<&str>) -> Option<String> {
        let load = async { Ok(value.map(str::to_owned)) };
        let found = self.things.get_or_load("a", soon(), || load).await.unwrap();
        found.map(|value| value.as_ref().clone())
    }

    /// What the cache gives for `a` without any load.
    async fn cached(&self) -> Option<String> {
        let load = async { panic!("nothing was cached") };
        let found = self.things.get_or_load("a", soon(), || load).await.unwrap();
        found.map(|value: Arc<String>| value.as_ref().clone())
    }

    fn counted(&self, level: &str, outcome: &str) -> u64 {
        let line = format!(
            r#"cache_requests_total{{namespace="things",level="{level}",outcome="{outcome}"}}"#
        );
        crate::redis_server::metric(&self.registry, &line) as u64
    }
}

#[tokio::test]
async fn another_process_finds_the_value_in_one_round_trip() {
    let server = Server::start().await;
    let (one, other) = (Process::new(&server).await, Process::new(&server).await);
    one.get(Some("loaded")).await;
    let _: () = server.ask(cmd("CONFIG").arg("RESETSTAT")).await;

    let first = other.cached().await;
    let again = other.cached().await;

    assert_eq!(first.as_deref(), Some("loaded"));
    assert_eq!(again, first);
    assert_eq!(server.calls("get").await, 1);
    assert_eq!(server.calls("set").await, 0);
    assert_eq!(
        (other.counted("redis", "hit"), other.counted("local", "hit")),
        (1, 1)
    );
}

#[tokio::test]
async fn what_is_not_a_value_is_a_miss_and_overwritten() {
    let server = Server::start().await;
    let good = b"hf1+\"good\"".to_vec();

    for bad in [
        b"" as &[u8],
        b"hf1",
        b"hf1+\"cut",
        b"hf1+7",
        b"hf1-x",
        b"hf0+\"old\"",
        b"\xff\xfe",
        b"\"foreign\"",
    ] {
        let process = Process::new(&server).await;
        let _: () = server.ask(cmd("SET").arg(KEY).arg(bad)).await;

        let found = process.get(Some("good")).await;

        assert_eq!(found.as_deref(), Some("good"));
        assert_eq!(server.ask::<Vec<u8>>(cmd("GET").arg(KEY)).await, good);
        assert_eq!(process.counted("redis", "corrupt"), 1);
    }
}

#[tokio::test]
async fn a_value_of_another_version_is_not_seen() {
    let server = Server::start().await;
    let process = Process::new(&server).await;
    process.get(Some("old")).await;

    let next: Namespace<String> = process.cache.namespace("things", 2, TTL);
    let found = next
        .get_or_load("a", soon(), || async { Ok(Some("new".to_owned())) })
        .await
        .unwrap();

    assert_eq!(found.unwrap().as_str(), "new");
    assert_eq!(process.cached().await.as_deref(), Some("old"));
}

#[tokio::test]
async fn absence_is_remembered_for_a_short_time() {
    let server = Server::start().await;
    let brief = Config {
        absent_ttl: Duration::from_millis(200),
        ..Config::default()
    };
    let process = Process::with(server.connected().await, &brief);

    let first = process.get(None).await;
    let other = Process::new(&server).await.get(None).await;
    let ttl_ms: i64 = server.ask(cmd("PTTL").arg(KEY)).await;

    assert_eq!((first, other), (None, None));
    assert!(ttl_ms <= 220, "{ttl_ms}");
    until("the absence is forgotten", async || {
        process.get(Some("made")).await.is_some()
    })
    .await;
}

#[tokio::test]
async fn values_filled_together_do_not_expire_together() {
    let server = Server::start().await;
    let process = Process::new(&server).await;
    let mut ttls_ms = Vec::new();

    for number in 0..30 {
        process
            .things
            .put(&format!("n{number}"), String::new(), soon())
            .await;
        let key = format!("holdfast:cache:things:v1:n{number}");
        ttls_ms.push(server.ask::<u64>(cmd("PTTL").arg(key)).await);
    }

    // The lower bound leaves room for the time that passed before the question.
    assert!(
        ttls_ms
            .iter()
            .all(|ttl_ms| (40_000..=66_000).contains(ttl_ms)),
        "{ttls_ms:?}"
    );
    assert!(
        ttls_ms.iter().max().unwrap() - ttls_ms.iter().min().unwrap() > 1_000,
        "{ttls_ms:?}"
    );
}
