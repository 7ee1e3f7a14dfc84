//! Both cache levels: who loads, who wins, and what happens without Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use data::Error;
use data::cache::{Cache, Config, Namespace};
use deadpool_redis::redis::cmd;
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;
use tokio::time::Instant;

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
        let found = self.things.get_or_load("a", soon(), load).await.unwrap();
        found.map(|value| value.as_ref().clone())
    }

    /// What the cache gives for `a` without any load.
    async fn cached(&self) -> Option<String> {
        let load = async { panic!("nothing was cached") };
        let found = self.things.get_or_load("a", soon(), load).await.unwrap();
        found.map(|value: Arc<String>| value.as_ref().clone())
    }

    fn counted(&self, level: &str, outcome: &str) -> u64 {
        let line = format!(
            r#"cache_requests_total{{namespace="things",level="{level}",outcome="{outcome}"}}"#
        );
        crate::redis_server::metric(&self.registry, &line) as u64
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_misses_at_once_are_one_load() {
    let server = Server::start().await;
    let process = Process::new(&server).await;
    let loads = Arc::new(AtomicU32::new(0));

    let (release, released) = tokio::sync::watch::channel(false);
    let readers: Vec<_> = (0..64)
        .map(|_| {
            let (things, loads, mut released) =
                (process.things.clone(), loads.clone(), released.clone());
            tokio::spawn(async move {
                let load = async {
                    loads.fetch_add(1, Ordering::Relaxed);
                    released.wait_for(|released| *released).await.unwrap();
                    Ok(Some("loaded".to_owned()))
                };
                things.get_or_load("a", soon(), load).await
            })
        })
        .collect();
    until("the load began", async || loads.load(Ordering::Relaxed) > 0).await;
    release.send(true).unwrap();

    for reader in readers {
        assert_eq!(reader.await.unwrap().unwrap().unwrap().as_str(), "loaded");
    }
    assert_eq!(loads.load(Ordering::Relaxed), 1);
    assert_eq!(server.calls("get").await, 1);
    assert_eq!(process.counted("local", "miss"), 1);
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
        .get_or_load("a", soon(), async { Ok(Some("new".to_owned())) })
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
async fn a_failed_load_reaches_its_caller_and_is_not_remembered() {
    let server = Server::start().await;
    let process = Process::new(&server).await;
    let away = Error::Unavailable {
        dependency: "postgres-primary",
        source: None,
    };

    let failed = process
        .things
        .get_or_load("a", soon(), async { Err(away) })
        .await;

    assert!(matches!(
        failed,
        Err(Error::Unavailable {
            dependency: "postgres-primary",
            ..
        })
    ));
    assert_eq!(process.get(Some("loaded")).await.as_deref(), Some("loaded"));
}

#[tokio::test]
async fn a_follower_does_not_fail_by_the_leaders_deadline() {
    let server = Server::start().await;
    let process = Process::new(&server).await;
    let (begun, begins) = oneshot::channel();

    let leader = async {
        let endless = async {
            begun.send(()).unwrap();
            std::future::pending::<Result<Option<String>, Error>>().await
        };
        process
            .things
            .get_or_load("a", Instant::now() + Duration::from_millis(50), endless)
            .await
    };
    let follower = async {
        begins.await.unwrap();
        process.get(Some("loaded")).await
    };
    let (leader, follower) = tokio::join!(leader, follower);

    assert!(matches!(leader, Err(Error::Deadline { .. })));
    assert_eq!(follower.as_deref(), Some("loaded"));
}

#[tokio::test]
async fn a_follower_does_not_fail_by_the_leaders_failure() {
    let server = Server::start().await;
    let process = Process::new(&server).await;
    let (begun, begins) = oneshot::channel();
    let (waiting, waits) = oneshot::channel();

    let leader = async {
        let failing = async {
            begun.send(()).unwrap();
            waits.await.unwrap();
            Err(Error::Deadline {
                dependency: "postgres-replica",
            })
        };
        process.things.get_or_load("a", soon(), failing).await
    };
    let follower = async {
        begins.await.unwrap();
        let mut follower = Box::pin(process.get(Some("loaded")));
        assert!(futures::poll!(&mut follower).is_pending());
        waiting.send(()).unwrap();
        follower.await
    };
    let (leader, follower) = tokio::join!(leader, follower);

    assert!(matches!(leader, Err(Error::Deadline { .. })));
    assert_eq!(follower.as_deref(), Some("loaded"));
}

/// Runs `write` while a load of `a` is under way that will find `old`; returns what the reader got.
async fn read_around(process: &Process, write: impl Future<Output = ()>) -> Option<String> {
    let (begun, begins) = oneshot::channel();
    let (written, writes) = oneshot::channel();
    let reader = async {
        let load = async {
            begun.send(()).unwrap();
            writes.await.unwrap();
            Ok(Some("old".to_owned()))
        };
        process.things.get_or_load("a", soon(), load).await.unwrap()
    };
    let writer = async {
        begins.await.unwrap();
        write.await;
        written.send(()).unwrap();
    };
    let (found, ()) = tokio::join!(reader, writer);
    found.map(|value| value.as_ref().clone())
}

#[tokio::test]
async fn a_load_that_began_before_a_write_does_not_undo_it() {
    let server = Server::start().await;
    let (reader, writer) = (Process::new(&server).await, Process::new(&server).await);

    let found = read_around(&reader, writer.things.put("a", "new".to_owned(), soon())).await;

    assert_eq!(found.as_deref(), Some("new"));
    assert_eq!(reader.cached().await.as_deref(), Some("new"));
    assert_eq!(
        Process::new(&server).await.cached().await.as_deref(),
        Some("new")
    );
}

#[tokio::test]
async fn a_load_that_began_before_a_removal_is_not_kept_in_redis() {
    let server = Server::start().await;
    let (reader, writer) = (Process::new(&server).await, Process::new(&server).await);

    let found = read_around(&reader, writer.things.remove("a", soon())).await;

    assert_eq!(found.as_deref(), Some("old"));
    assert_eq!(
        Process::new(&server)
            .await
            .get(Some("new"))
            .await
            .as_deref(),
        Some("new")
    );
}

#[tokio::test]
async fn a_load_that_began_before_a_removal_is_not_kept_in_its_own_process() {
    let server = Server::start().await;
    let process = Process::new(&server).await;

    let found = read_around(&process, process.things.remove("a", soon())).await;

    assert_eq!(found.as_deref(), Some("old"));
    assert_eq!(process.get(Some("new")).await.as_deref(), Some("new"));
}

#[tokio::test]
async fn redis_is_filled_again_when_the_hold_of_a_removal_is_over() {
    let server = Server::start().await;
    let brief = Config {
        removal_hold: Duration::from_millis(50),
        ..Config::default()
    };
    let process = Process::with(server.connected().await, &brief);

    process.things.remove("a", soon()).await;
    until("the hold is over", async || {
        !server.ask::<bool>(cmd("EXISTS").arg(KEY)).await
    })
    .await;
    process.get(Some("new")).await;

    assert_eq!(
        Process::new(&server).await.cached().await.as_deref(),
        Some("new")
    );
}

#[tokio::test]
async fn a_write_is_seen_by_other_processes_within_the_local_ttl() {
    let server = Server::start().await;
    let brief = Config {
        local_ttl: Duration::from_millis(100),
        ..Config::default()
    };
    let reader = Process::with(server.connected().await, &brief);
    let writer = Process::new(&server).await;
    reader.get(Some("old")).await;

    writer.things.put("a", "new".to_owned(), soon()).await;

    assert_eq!(writer.cached().await.as_deref(), Some("new"));
    until("the reader sees it", async || {
        reader.cached().await.as_deref() == Some("new")
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

#[tokio::test]
async fn a_cancelled_load_is_taken_over_by_a_waiting_reader() {
    let server = Server::start().await;
    let process = Process::new(&server).await;
    let (begun, begins) = oneshot::channel();
    let endless = async {
        begun.send(()).unwrap();
        std::future::pending::<Result<Option<String>, Error>>().await
    };

    let mut leader = Box::pin(process.things.get_or_load("a", soon(), endless));
    let mut follower = Box::pin(process.get(Some("loaded")));
    tokio::select! { _ = &mut leader => unreachable!(), begun = begins => begun.unwrap() }
    assert!(futures::poll!(&mut follower).is_pending());
    drop(leader);

    assert_eq!(follower.await.as_deref(), Some("loaded"));
}

#[tokio::test]
async fn without_redis_the_loads_and_the_local_level_remain() {
    let server = Server::stopped();
    let process = Process::with(server.watched(&server.config()), &Config::default());

    let loaded = process.get(Some("loaded")).await;
    let again = process.cached().await;
    process.things.put("a", "written".to_owned(), soon()).await;
    let written = process.cached().await;
    process.things.remove("a", soon()).await;
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
}

#[tokio::test]
async fn a_silent_redis_costs_a_load_one_command_timeout_and_soon_none() {
    let server = Server::start().await;
    let client = server.watched(&server.as_shipped());
    assert!(client.redis.connected(soon()).await);
    let process = Process::with(client, &Config::default());

    server.pause();
    let load = |key: u32| {
        let things = process.things.clone();
        async move {
            things
                .get_or_load(&key.to_string(), soon(), async {
                    Ok(Some("loaded".to_owned()))
                })
                .await
        }
    };
    for key in 0..100 {
        assert_eq!(load(key).await.unwrap().unwrap().as_str(), "loaded");
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
