//! Readers that miss together: who loads, and who hears of its failure.

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

    let (release, released) = oneshot::channel();
    process.loads.once(async {
        released.await.unwrap();
        Ok(Some("loaded".to_owned()))
    });
    let mut readers = JoinSet::new();
    for _ in 0..64 {
        let things = process.things.clone();
        readers.spawn(async move { things.get(&"a".to_owned(), soon()).await });
    }
    until("the load began", async || process.loads.count() > 0).await;
    release.send(()).unwrap();

    for found in readers.join_all().await {
        assert_eq!(found.unwrap().unwrap().as_str(), "loaded");
    }
    assert_eq!(process.loads.count(), 1);
    assert_eq!(process.counted("local", "miss"), 1);
}

#[tokio::test]
async fn a_failed_load_reaches_its_caller_and_is_not_remembered() {
    let server = Server::start().await;
    let process = Process::new(&server).await;
    process.loads.fail();

    let failed = process.find("a").await;

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

    process.loads.once(async {
        begun.send(()).unwrap();
        std::future::pending().await
    });
    let leader = async {
        let hurried = Instant::now() + Duration::from_millis(50);
        process.things.get(&"a".to_owned(), hurried).await
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

    process.loads.once(async {
        begun.send(()).unwrap();
        waits.await.unwrap();
        Err(Error::Deadline {
            dependency: "postgres-replica",
        })
    });
    let leader = process.find("a");
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
    process.loads.once(async {
        begun.send(()).unwrap();
        std::future::pending().await
    });

    let mut leader = Box::pin(process.find("a"));
    let mut follower = Box::pin(process.get(Some("loaded")));
    tokio::select! { _ = &mut leader => unreachable!(), begun = begins => begun.unwrap() }
    assert!(futures::poll!(&mut follower).is_pending());
    drop(leader);

    assert_eq!(follower.await.as_deref(), Some("loaded"));
}
