//! The primary freezes under events: they are taken while there is room, and refused in time when there is none.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{LOOSE, Scene, assert_unavailable};
use crate::{
    service::PATIENCE,
    wire::{Reply, Wire},
};

const BUFFERED_MAX: usize = 2_000;
/// Events in one request.
const BATCH: usize = 100;
/// Five times what there is room for.
const REQUESTS: usize = 5 * BUFFERED_MAX / BATCH;

#[tokio::test]
async fn events_wait_in_bounded_memory_while_the_primary_is_frozen() {
    let max = BUFFERED_MAX.to_string();
    let scene = Scene::start_with(&[("HOLDFAST__EVENTS__BUFFERED_MAX", &max)]).await;
    let mut wire = Wire::connect(scene.service.public).await.unwrap();

    scene.stack.primary().pause().await.unwrap();
    let (mut accepted, mut dropped, mut refused) = (0, 0, 0);
    let mut took = Vec::new();
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        let reply = send(&mut wire).await;
        took.push(begun.elapsed());
        match reply.status {
            202 => {
                let said = reply.json();
                accepted += said["accepted"].as_u64().unwrap();
                dropped += said["dropped"].as_u64().unwrap();
            }
            _ => {
                assert_unavailable(&reply);
                refused += BATCH as u64;
            }
        }
        let queued = scene.counter("events_queued").await;
        assert!(queued <= BUFFERED_MAX as f64, "{queued}");
    }
    took.sort();
    let last = took.len() - 1;
    println!(
        "primary frozen: {accepted} events accepted, {dropped} dropped, {refused} refused; p50 {:?}, max {:?}",
        took[last / 2],
        took[last]
    );
    assert!(accepted >= BUFFERED_MAX as u64);
    assert!(refused > 0 && took[last] < LOOSE, "{took:?}");

    scene.stack.primary().resume().await.unwrap();
    let since = Instant::now();
    loop {
        let written = scene.counter("events_written_total").await;
        let lost = scene.counter("events_dropped_total").await;
        if written + lost == (REQUESTS * BATCH) as f64 {
            println!("{written} written {:?} after it thawed", since.elapsed());
            assert_eq!(scene.counter("events_queued").await, 0.0);
            return;
        }
        assert!(since.elapsed() < PATIENCE, "{written} + {lost}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn send(wire: &mut Wire) -> Reply {
    let event = json!({ "name": "searched", "properties": { "words": "brass lamp" } });
    let body = json!({ "events": vec![event; BATCH] });
    wire.call("POST /v1/events", &[], Some(&body))
        .await
        .unwrap()
}
