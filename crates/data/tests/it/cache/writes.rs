//! Loads and writes of the same key at once: who wins.

use std::time::Duration;

use data::cache::Config;
use deadpool_redis::redis::cmd;
use tokio::sync::oneshot;

use super::{KEY, Process};
use crate::redis_server::{Server, until};

/// Runs `write` while a load of `a` is under way that will find `old`; returns what the reader got.
async fn read_around(process: &Process, write: impl Future<Output = ()>) -> Option<String> {
    let (begun, begins) = oneshot::channel();
    let (written, writes) = oneshot::channel();
    process.loads.once(async {
        begun.send(()).unwrap();
        writes.await.unwrap();
        Ok(Some("old".to_owned()))
    });
    let writer = async {
        begins.await.unwrap();
        write.await;
        written.send(()).unwrap();
    };
    tokio::join!(process.ask(), writer).0
}

#[tokio::test]
async fn a_load_that_began_before_a_write_does_not_undo_it() {
    let server = Server::start().await;
    let (reader, writer) = (Process::new(&server).await, Process::new(&server).await);

    let found = read_around(&reader, writer.put("new")).await;

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

    let found = read_around(&reader, writer.remove()).await;

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

    let found = read_around(&process, process.remove()).await;

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

    process.remove().await;
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
async fn a_load_that_began_before_a_write_does_not_undo_it_without_redis_either() {
    let server = Server::stopped();
    let process = Process::with(server.watched(&server.config()), &Config::default());

    read_around(&process, process.put("new")).await;
    let found = process.get(Some("loaded after the write")).await;

    assert_ne!(found.as_deref(), Some("old"));
}

#[tokio::test]
async fn a_write_is_told_though_its_caller_is_gone() {
    let server = Server::start().await;
    let (reader, writer) = (Process::new(&server).await, Process::new(&server).await);
    writer.get(Some("old")).await;
    server.pause();

    let mut write = Box::pin(writer.put("new"));
    assert!(futures::poll!(&mut write).is_pending());
    drop(write);
    server.resume();

    until("it is written", async || {
        server
            .ask::<Option<Vec<u8>>>(cmd("GET").arg(KEY))
            .await
            .is_some_and(|bytes| bytes.ends_with(b"\"new\""))
    })
    .await;
    assert_eq!(reader.cached().await.as_deref(), Some("new"));
}
