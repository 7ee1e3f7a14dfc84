//! The standby dies and freezes: no reader notices.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Scene, load::Load};
use crate::service::PATIENCE;

const REPLICA: &str = "replica_away";

#[tokio::test]
async fn no_read_fails_while_the_standby_dies_freezes_and_comes_back() {
    let scene = Scene::start().await;
    let load = Load::start(scene.service.public, &["/v1/products?limit=5".to_owned()]);
    load.more(200).await;
    load.all_answered("all servers up");

    scene.stack.standby().kill().await.unwrap();
    scene.ready_without(&[REPLICA]).await;
    load.more(200).await;
    load.all_answered("standby killed");
    assert!(scene.counter("reads_on_primary_total").await > 0.0);
    scene.stack.standby().restart().await.unwrap();
    reads_are_back(&scene, &load).await;
    load.all_answered("standby restarted");

    scene.stack.standby().pause().await.unwrap();
    scene.ready_without(&[REPLICA]).await;
    load.more(200).await;
    load.all_answered("standby frozen");
    scene.stack.standby().resume().await.unwrap();
    reads_are_back(&scene, &load).await;
    load.all_answered("standby thawed");
}

/// Waits until the replica takes all reads again.
async fn reads_are_back(scene: &Scene, load: &Load) {
    let begun = Instant::now();
    scene.ready_without(&[]).await;
    loop {
        let before = scene.counter("reads_on_primary_total").await;
        load.more(100).await;
        if scene.counter("reads_on_primary_total").await.to_bits() == before.to_bits() {
            println!("reads are back on the replica after {:?}", begun.elapsed());
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "reads stay on the primary");
        sleep(Duration::from_millis(50)).await;
    }
}
