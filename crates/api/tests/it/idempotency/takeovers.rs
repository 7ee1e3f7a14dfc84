//! Who goes on with an order that its process or its client has left.

use devstack::{Behaviour, Moment};
use nix::sys::signal::Signal;

use super::{Effects, Meter, Scene, assert_replayed};

const PAID: &str = "select count(*) from orders where status = 'paid'";

/// A provider that says no, as one that has too much to do.
fn refusing() -> Behaviour {
    Behaviour {
        error_rate: 1.0,
        ..Behaviour::default()
    }
}

#[tokio::test]
async fn a_process_that_was_paused_past_its_lease_cannot_commit() {
    let scene = Scene::start(&[]).await;
    let provider = Meter::http(&scene.stack.upstream_url()).await.unwrap();
    let slow = scene
        .another(&[("HOLDFAST__ORDERS__PAYMENTS__URL", provider.url())])
        .await;
    provider.stop_at(1, Moment::Answered);

    let late = scene.order_from(&slow, "the-key");
    let taken_over = async {
        provider.stopped().await;
        slow.signal(Signal::SIGSTOP);
        scene.lapse().await;
        let reply = scene.order_again("the-key").await;
        provider.cut();
        slow.signal(Signal::SIGCONT);
        reply
    };
    let (late, taken_over) = tokio::join!(late, taken_over);

    assert_eq!((late.status, taken_over.status), (503, 201), "{late:?}");
    let why = slow.logged("request failed").await;
    assert!(why.contains("the lease was lost"), "{why}");
    assert_eq!(scene.effects().await, Effects::of(1));
    assert_replayed(&scene.order_from(&slow, "the-key").await, &taken_over);
}

#[tokio::test]
async fn an_order_whose_client_never_comes_back_is_paid_all_the_same() {
    let sweeps = ("HOLDFAST__ORDERS__SWEEP_INTERVAL", "100ms");
    let age = ("HOLDFAST__ORDERS__FINISH_AFTER", "200ms");
    let scene = Scene::start(&[sweeps, age]).await;
    scene.provider_is(refusing());

    let left = scene.order_from(&scene.service, "the-key").await;
    let unpaid = scene.effects().await;
    scene.provider_is(Behaviour::default());
    scene.until(PAID, 1).await;
    let answer = scene.order_again("the-key").await;

    assert_eq!(left.status, 503, "{left:?}");
    assert_eq!((unpaid.orders, unpaid.sold, unpaid.paid), (1, 1, 0));
    assert_eq!(answer.header("idempotent-replayed"), Some("true"));
    assert_eq!(answer.json()["status"], "paid");
    assert_eq!(scene.effects().await, Effects::of(1));
}
