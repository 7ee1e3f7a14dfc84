//! A process that ends sends its clients to the others, a few at a time, and none of them misses anything.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::rig::{NOBODY, Scene, client::Events, restarts::rolling_restart};

#[tokio::test]
async fn a_rolling_restart_sends_clients_away_evenly_and_they_miss_nothing() {
    // How evenly is not judged here, where other tests make everybody wait now and then.
    rolling_restart(300, Duration::from_secs(4)).await;
}

#[tokio::test]
async fn a_stream_of_events_ends_with_the_process_and_says_when_to_come_back() {
    let settings = [("HOLDFAST__LIVE__DRAIN_WINDOW", "300ms")];
    let mut scene = Scene::start(2, &settings).await;
    let [ending, other] = [0, 1].map(|process| scene.services[process].public);
    let mut before = Events::open(ending, "", NOBODY).await;
    scene.world.stock([1]).await;
    before.next_of("stock").await;

    scene.services[0].signal(Signal::SIGTERM);
    let (goodbye, retry_ms) = before.next().await.unwrap();
    let end = before.next().await;
    scene.world.stock([2]).await;
    let last = [("Last-Event-ID", before.id.clone())];
    let mut after = Events::open(other, "", &last).await;

    assert_eq!(goodbye["type"], "reconnect");
    assert_eq!(goodbye["after_ms"].as_u64(), retry_ms);
    assert!(end.is_none(), "{end:?}");
    assert_eq!(scene.services[0].exited().await.code(), Some(0));
    assert_eq!(after.next_of("stock").await["data"]["n"], 2);
}
