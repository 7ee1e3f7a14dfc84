//! A dependency that hangs takes nothing from the pages that do without it.
//!
//! Like is compared with like: both times what needs it is asked for, so seldom that the machine keeps up whatever that costs, and
//! at the same pace whether or not it is answered. All that differs is whether the dependency answers; and the two take turns,
//! because the machine has others to serve.

use std::time::Duration;

use devstack::{Behaviour, UpstreamService::Recommendations};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Scene, load::Load, until};
use crate::{service::PATIENCE, wire::get};

const ROUNDS: usize = 5;
/// Requests for the other pages in each half of a round.
const REQUESTS: usize = 300;
/// Between two requests for what needs the dependency.
const PACE: Duration = Duration::from_millis(40);
/// Loose, because the machine may be busy; what is wanted is 0.95.
const RATIO_MIN: f64 = 0.75;

/// The rate of the other pages while the dependency hangs, by their rate while it answers: the median of the rounds. `ask` asks for
/// what needs it, and `hang` makes it hang, or answer again.
async fn compare(name: &str, scene: &Scene, ask: impl AsyncFn(), hang: impl AsyncFn(bool)) {
    let load = Load::start(scene.service.public, &["/v1/products?limit=5".to_owned()]);
    load.more(REQUESTS).await;
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let mut rates = [0.0; 2];
        // The one that goes first changes, so that a machine that gets slower or faster favours neither.
        for is_hanging in [round % 2 == 0, round % 2 != 0] {
            hang(is_hanging).await;
            rates[usize::from(is_hanging)] = tokio::select! {
                rate = rate(&load) => rate,
                () = ask_for_ever(&ask) => unreachable!("it asks for ever"),
            };
        }
        ratios.push(rates[1] / rates[0]);
        println!(
            "{name}: {:.0} a second, {:.0} while it hangs",
            rates[0], rates[1]
        );
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ROUNDS / 2];
    println!("{name}: other pages keep {median:.3} of their rate, in all rounds {ratios:.3?}");
    load.all_answered(name);
    assert!(median >= RATIO_MIN, "{name}: {ratios:?}");
}

async fn rate(load: &Load) -> f64 {
    let begun = Instant::now();
    load.more(REQUESTS).await;
    REQUESTS as f64 / begun.elapsed().as_secs_f64()
}

async fn ask_for_ever(ask: &impl AsyncFn()) {
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = FuturesUnordered::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => asked.push(ask()),
            Some(()) = asked.next() => {}
        }
    }
}

#[tokio::test]
async fn other_pages_do_not_notice_that_the_recommender_hangs() {
    let scene = Scene::start().await;
    let path = format!("/v1/products/{}/recommendations", scene.any_product().await);
    let page = async || get(scene.service.public, &path).await;
    let upstream = scene.stack.upstream();
    let ask = async || assert_eq!(page().await.status, 200);
    let hang = async |hang| {
        let behaviour = Behaviour {
            hang,
            ..Behaviour::default()
        };
        upstream.set(Recommendations, behaviour);
        let since = Instant::now();
        while !hang && page().await.header("degraded").is_some() {
            assert!(since.elapsed() < PATIENCE, "the recommender is not heard");
        }
    };

    compare("recommender", &scene, ask, hang).await;
}

#[tokio::test]
async fn other_pages_do_not_notice_that_redis_hangs() {
    let scene = Scene::start().await;
    let staff = scene.staff().await;
    let session = async || scene.get("/v1/session", &staff).await;
    let redis = scene.stack.redis();
    let ask = async || assert!([200, 503].contains(&session().await.status));
    let hang = async |hang| {
        if hang {
            redis.pause().await.unwrap();
        } else {
            redis.resume().await.unwrap();
            until(200, &session).await;
        }
    };

    compare("Redis", &scene, ask, hang).await;
}
