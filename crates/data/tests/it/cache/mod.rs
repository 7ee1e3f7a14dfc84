//! Both cache levels: what they keep, for whom and how long.

mod away;
mod fleet;
mod flush;
mod loads;
mod process;
mod pushes;
mod stale;
mod writes;

use std::time::Duration;

use data::cache::{Config, Lifetime};
use deadpool_redis::redis::cmd;

use self::process::{KEY, Process, TTL};
use crate::redis_server::{Server, soon, until};

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
    assert_eq!(server.calls("set").await, 1);
    assert_eq!(server.calls("get").await, 0);
    assert_eq!(
        (other.counted("redis", "hit"), other.counted("local", "hit")),
        (1, 1)
    );
}

#[tokio::test]
async fn what_is_not_a_value_is_a_miss_and_overwritten() {
    let server = Server::start().await;
    let value: Vec<u8> = {
        Process::new(&server).await.get(Some("good")).await;
        server.ask(cmd("GET").arg(KEY)).await
    };
    let changed = |place: usize| {
        let mut changed = value.clone();
        changed[place] ^= 1;
        changed
    };
    let of_another_key: Vec<u8> = {
        let process = Process::new(&server).await;
        process.loads.find(Some("foreign"));
        process.find("b").await.unwrap();
        server.ask(cmd("GET").arg(KEY.replace(":a", ":b"))).await
    };

    for bad in [
        b"".to_vec(),
        b"hf1+\"old\"".to_vec(),
        b"\"foreign\"".to_vec(),
        b"\xff\xfe".to_vec(),
        value[..10].to_vec(),
        value[..value.len() - 1].to_vec(),
        [&value[..], b" "].concat(),
        changed(0),
        changed(3),
        changed(value.len() - 2),
        of_another_key,
    ] {
        let process = Process::new(&server).await;
        let _: () = server.ask(cmd("SET").arg(KEY).arg(&bad)).await;

        let found = process.get(Some("good")).await;

        assert_eq!(found.as_deref(), Some("good"), "{bad:?}");
        assert_eq!(process.counted("redis", "corrupt"), 1, "{bad:?}");
        assert_eq!(Process::new(&server).await.cached().await, found, "{bad:?}");
    }
}

#[tokio::test]
async fn a_key_of_another_type_is_a_miss_and_overwritten() {
    let server = Server::start().await;
    let process = Process::new(&server).await;
    let _: () = server.ask(cmd("LPUSH").arg(KEY).arg("foreign")).await;

    let found = process.get(Some("good")).await;

    assert_eq!(found.as_deref(), Some("good"));
    assert_eq!(process.counted("redis", "corrupt"), 1);
    assert_eq!(Process::new(&server).await.cached().await, found);
}

#[tokio::test]
async fn a_value_of_another_version_is_not_seen() {
    let server = Server::start().await;
    let process = Process::new(&server).await;
    process.get(Some("old")).await;

    process.loads.find(Some("new"));
    let lifetime = Lifetime::fresh(TTL);
    let next = process
        .cache
        .namespace("things", 2, lifetime, process.loads.clone());
    let found = next.get(&"a".to_owned(), soon()).await.unwrap();

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

#[tokio::test]
async fn a_full_redis_is_still_read_and_forgets_what_was_written() {
    let server = Server::start().await;
    let reader = Process::new(&server).await;
    let writer = Process::new(&server).await;
    writer.get(Some("old")).await;

    let _: () = server
        .ask(cmd("CONFIG").arg("SET").arg("maxmemory").arg("1"))
        .await;
    let found = reader.cached().await;
    writer.put("new").await;

    assert_eq!(found.as_deref(), Some("old"));
    assert!(!server.ask::<bool>(cmd("EXISTS").arg(KEY)).await);
    until("the reader forgets it", async || {
        reader.get(Some("new")).await.as_deref() == Some("new")
    })
    .await;
    assert_eq!(writer.outcome("invalidations", "told_late"), 0);
}

#[tokio::test]
async fn the_local_level_is_bounded_in_bytes() {
    let server = Server::start().await;
    let small = Config {
        local_bytes_max: 1_000_000,
        ..Config::default()
    };
    let process = Process::with(server.connected().await, &small);
    process
        .loads
        .always(|_| std::future::ready(Ok(Some("x".repeat(50_000)))));

    for key in 0..200 {
        process.find(&key.to_string()).await.unwrap();
    }
    let before = process.counted("local", "hit");
    for key in 0..200 {
        process.find(&key.to_string()).await.unwrap();
    }

    // Ten of them are a million bytes, as text and as value.
    let hits = process.counted("local", "hit") - before;
    assert!(hits <= 20, "{hits}");
    assert_eq!(process.loads.count(), 200);
}
