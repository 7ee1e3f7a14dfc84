//! Kill -9 at every round trip of an order: before the request reaches the server, and before its answer comes back.

use devstack::Moment;
use nix::sys::signal::Signal;

use super::{Effects, Meter, Scene, assert_replayed, unique};
use crate::service::Service;

/// More round trips to one server than an order makes.
const ROUND_TRIPS_MAX: usize = 40;

/// What stands between a process that is to die and its servers.
struct Meters {
    primary: Meter,
    provider: Meter,
    redis: Meter,
}

impl Meters {
    async fn before(scene: &Scene) -> Self {
        let primary = Meter::postgres(&scene.database.primary_url, "holdfast");
        Self {
            primary: primary.await.unwrap(),
            provider: Meter::http(&scene.stack.upstream_url()).await.unwrap(),
            redis: Meter::redis(&scene.stack.redis_url()).await.unwrap(),
        }
    }

    /// A process that has its servers behind these, and has done before what it is to die of.
    async fn victim(&self, scene: &Scene) -> Service {
        let victim = scene
            .another(&[
                ("HOLDFAST__POSTGRES__PRIMARY_URL", self.primary.url()),
                ("HOLDFAST__ORDERS__PAYMENTS__URL", self.provider.url()),
                ("HOLDFAST__REDIS__URL", self.redis.url()),
            ])
            .await;
        let warm = scene.order_from(&victim, &unique()).await;
        assert_eq!(warm.status, 201, "{warm:?}");
        victim
    }
}

/// Orders, and kills the process in the middle of its `nth` round trip. False when the order makes fewer.
async fn is_survived(
    scene: &Scene,
    meters: &Meters,
    at: &Meter,
    nth: usize,
    moment: Moment,
) -> bool {
    let mut victim = meters.victim(scene).await;
    let orders = scene.effects().await.orders;
    let key = unique();
    at.stop_at(nth, moment);
    let first = tokio::select! {
        first = scene.order_from(&victim, &key) => Some(first),
        () = at.stopped() => None,
    };
    victim.signal(Signal::SIGKILL);
    victim.exited().await;
    at.cut();
    scene.lapse().await;

    let again = scene.order_again(&key).await;
    let replayed = scene.order_again(&key).await;

    assert_eq!(again.status, 201, "{again:?}");
    assert_replayed(&replayed, &again);
    assert_eq!(
        scene.effects().await,
        Effects::of(orders + 1),
        "{moment:?} {nth}"
    );
    if let Some(first) = &first {
        assert_replayed(&again, first);
    }
    first.is_none()
}

#[tokio::test]
async fn whenever_the_process_dies_there_is_one_order_one_payment_and_one_answer() {
    let scene = Scene::start(&[]).await;
    let meters = Meters::before(&scene).await;

    for (server, at) in [
        ("Postgres", &meters.primary),
        ("the provider", &meters.provider),
        ("Redis", &meters.redis),
    ] {
        for moment in [Moment::Asked, Moment::Answered] {
            let mut deaths = 0;
            while is_survived(&scene, &meters, at, deaths + 1, moment).await {
                deaths += 1;
                assert!(deaths < ROUND_TRIPS_MAX);
            }
            println!(
                "killed at each of {deaths} round trips to {server}, {moment:?}: one effect each"
            );
            assert!(deaths > 0, "{server} is not asked");
        }
    }
}
