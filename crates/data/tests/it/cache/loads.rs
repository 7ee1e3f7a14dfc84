//! Readers that miss together: who loads, and who hears of its failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use data::Error;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Process;
use crate::redis_server::{Server, soon, until};

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_misses_at_once_are_one_load() {
    let server = Server::start().await;
    let process = Process::new(&server).await;
    let loads = Arc::new(AtomicU32::new(0));

    let (release, released) = tokio::sync::watch::channel(false);
    let mut readers = JoinSet::new();
    for _ in 0..64 {
        let (things, loads, mut released) =
            (process.things.clone(), loads.clone(), released.clone());
        readers.spawn(async move {
            let load = async {
                loads.fetch_add(1, Ordering::Relaxed);
                released.wait_for(|released| *released).await.unwrap();
                Ok(Some("loaded".to_owned()))
            };
            things.get_or_load("a", soon(), || load).await
        });
    }
    until("the load began", async || loads.load(Ordering::Relaxed) > 0).await;
    release.send(true).unwrap();

    for found in readers.join_all().await {
        assert_eq!(found.unwrap().unwrap().as_str(), "loaded");
    }
    assert_eq!(loads.load(Ordering::Relaxed), 1);
    assert_eq!(server.calls("get").await, 1);
    assert_eq!(process.counted("local", "miss"), 1);
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
        .get_or_load("a", soon(), || async { Err(away) })
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
            .get_or_load("a", Instant::now() + Duration::from_millis(50), || endless)
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
        process.things.get_or_load("a", soon(), || failing).await
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

#[tokio::test]
async fn a_cancelled_load_is_taken_over_by_a_waiting_reader() {
    let server = Server::start().await;
    let process = Process::new(&server).await;
    let (begun, begins) = oneshot::channel();
    let endless = async {
        begun.send(()).unwrap();
        std::future::pending::<Result<Option<String>, Error>>().await
    };

    let mut leader = Box::pin(process.things.get_or_load("a", soon(), || endless));
    let mut follower = Box::pin(process.get(Some("loaded")));
    tokio::select! { _ = &mut leader => unreachable!(), begun = begins => begun.unwrap() }
    assert!(futures::poll!(&mut follower).is_pending());
    drop(leader);

    assert_eq!(follower.await.as_deref(), Some("loaded"));
}
