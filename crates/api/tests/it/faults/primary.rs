//! The primary dies and freezes: the catalogue goes on, writes are refused at once, and both resume by themselves.

use std::time::Duration;

use tokio::time::Instant;

use super::{LOOSE, Scene, assert_unavailable, load::Load, product, until};
use crate::wire::{Reply, borrowed, call};

const PRIMARY: &str = "primary_away";
/// Writes tried while there is no primary.
const WRITES: usize = 12;

#[tokio::test]
async fn the_catalogue_goes_on_and_writes_are_refused_while_the_primary_is_away() {
    let scene = Scene::start().await;
    let staff = scene.staff().await;
    let paths = [
        "/v1/products?limit=5".to_owned(),
        format!("/v1/products/{}", scene.any_product().await),
    ];
    let load = Load::start(scene.service.public, &paths);
    load.more(100).await;
    load.all_answered("all servers up");
    let write = async || {
        call(
            scene.service.public,
            "POST /v1/products",
            &borrowed(&staff),
            Some(&product()),
        )
        .await
    };
    assert_eq!(write().await.status, 201);

    scene.stack.primary().kill().await.unwrap();
    refused(&write, "primary killed").await;
    scene.ready_without(&[PRIMARY]).await;
    scene.stack.primary().restart().await.unwrap();
    println!(
        "primary restarted: writes after {:?}",
        until(201, &write).await
    );
    scene.ready_without(&[]).await;
    load.all_answered("primary killed and restarted");

    scene.stack.primary().pause().await.unwrap();
    refused(&write, "primary frozen").await;
    scene.ready_without(&[PRIMARY]).await;
    scene.stack.primary().resume().await.unwrap();
    println!(
        "primary thawed: writes after {:?}",
        until(201, &write).await
    );
    scene.ready_without(&[]).await;
    load.all_answered("primary frozen and thawed");
}

/// Each write is refused, none late.
async fn refused(write: &impl AsyncFn() -> Reply, phase: &str) {
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..WRITES {
        let begun = Instant::now();
        assert_unavailable(&write().await);
        took.push(begun.elapsed());
    }
    took.sort();
    println!(
        "{phase}: {WRITES} writes refused, p50 {:?}, max {:?}",
        took[WRITES / 2],
        took[WRITES - 1]
    );
    assert!(took[WRITES - 1] < LOOSE, "{took:?}");
}
