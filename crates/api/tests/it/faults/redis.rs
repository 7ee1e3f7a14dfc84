//! Redis dies and freezes: the catalogue goes on, and only what needs a session is refused.

use std::time::Duration;

use tokio::time::Instant;

use super::{LOOSE, Scene, assert_unavailable, load::Load, until};

const REDIS: &str = "redis_away";
/// Requests with a session tried while there is no Redis.
const ASKED: usize = 40;

#[tokio::test]
async fn only_sessions_are_refused_while_redis_is_away() {
    let scene = Scene::start().await;
    let staff = scene.staff().await;
    let paths = [
        "/v1/products?limit=5".to_owned(),
        format!("/v1/products/{}", scene.any_product().await),
    ];
    let load = Load::start(scene.service.public, &paths);
    load.more(100).await;
    load.all_answered("all servers up");
    let me = async || scene.get("/v1/session", &staff).await;
    assert_eq!(me().await.status, 200);

    scene.stack.redis().pause().await.unwrap();
    refused(&scene, &staff, "Redis frozen").await;
    scene.ready_without(&[REDIS]).await;
    scene.stack.redis().resume().await.unwrap();
    println!(
        "Redis thawed: the session is back after {:?}",
        until(200, &me).await
    );
    scene.ready_without(&[]).await;
    load.all_answered("Redis frozen and thawed");

    scene.stack.redis().kill().await.unwrap();
    refused(&scene, &staff, "Redis killed").await;
    scene.ready_without(&[REDIS]).await;
    scene.stack.redis().restart().await.unwrap();
    // It has lost the session with everything else, and must say so as soon as it can be asked.
    println!(
        "Redis restarted: answered after {:?}",
        until(401, &me).await
    );
    scene.ready_without(&[]).await;
    assert_eq!(
        scene.get("/v1/session", &scene.staff().await).await.status,
        200
    );
    load.all_answered("Redis killed and restarted");
}

/// Everything that needs a session is refused, none late.
async fn refused(scene: &Scene, session: &[(&'static str, String)], phase: &str) {
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..ASKED {
        for path in ["/v1/session", "/v1/orders"] {
            let begun = Instant::now();
            assert_unavailable(&scene.get(path, session).await);
            took.push(begun.elapsed());
        }
    }
    took.sort();
    let last = took.len() - 1;
    println!(
        "{phase}: {} requests refused, p50 {:?}, max {:?}",
        took.len(),
        took[last / 2],
        took[last]
    );
    assert!(took[last] < LOOSE, "{took:?}");
}
