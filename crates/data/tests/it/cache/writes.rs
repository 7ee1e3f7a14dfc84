//! Loads and writes of the same key at once: who wins.

use std::time::Duration;

use data::cache::Config;
use deadpool_redis::redis::cmd;
use tokio::sync::oneshot;

use super::{KEY, Process};
use crate::redis_server::{Server, soon, until};

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
        process
            .things
            .get_or_load("a", soon(), || load)
            .await
            .unwrap()
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
