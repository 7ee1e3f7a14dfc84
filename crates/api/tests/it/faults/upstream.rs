//! The recommender dies, hangs, slows down and refuses: its page goes on with what else there is and says so, nothing is
//! asked of it in vain, and it is back soon after it is well.

use std::time::Duration;

use devstack::{Behaviour, Counters, Fault, Target, UpstreamService::Recommendations};
use futures::future::join_all;
use tokio::time::{Instant, sleep};

use super::{LOOSE, Scene};
use crate::{
    service::PATIENCE,
    wire::{Reply, get},
};

/// Requests to the page in each phase, so many at a time.
const ASKED: usize = 200;
const AT_ONCE: usize = 4;
const FALLBACK: &str = "recommendations_fallback";
const STATE: &str = "breaker_state{dependency=\"recommender\"}";
const OPEN: f64 = 2.0;

/// What can be wrong with it.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Down,
    Reset,
    Hanging,
    TenSecondsLate,
    Refusing,
}

impl Trouble {
    async fn begin(self, scene: &Scene) {
        let proxy = scene.stack.proxy(Target::Upstream);
        let behaviour = match self {
            Self::Down => return proxy.set(Fault::Down).await,
            Self::Reset => return proxy.set(Fault::Reset).await,
            Self::Hanging => Behaviour {
                hang: true,
                ..Behaviour::default()
            },
            Self::TenSecondsLate => Behaviour {
                latency: Duration::from_secs(10),
                ..Behaviour::default()
            },
            Self::Refusing => refusing(1.0),
        };
        scene.stack.upstream().set(Recommendations, behaviour);
    }

    async fn end(scene: &Scene) {
        scene.stack.proxy(Target::Upstream).clear().await;
        let well = Behaviour::default();
        scene.stack.upstream().set(Recommendations, well);
    }
}

fn refusing(error_rate: f64) -> Behaviour {
    Behaviour {
        error_rate,
        ..Behaviour::default()
    }
}

/// The page of one product.
struct Page<'a> {
    scene: &'a Scene,
    path: String,
}

impl<'a> Page<'a> {
    async fn of(scene: &'a Scene) -> Self {
        let id = scene.any_product().await;
        let path = format!("/v1/products/{id}/recommendations");
        Self { scene, path }
    }

    async fn ask(&self) -> Reply {
        let reply = get(self.scene.service.public, &self.path).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply
    }

    /// Asks `ASKED` times; how long each took, sorted, and how many were not what the recommender says now.
    async fn ask_much(&self) -> (Vec<Duration>, usize) {
        let client = async || {
            let mut took = Vec::new();
            let mut fallbacks = 0;
            for _ in 0..ASKED / AT_ONCE {
                let begun = Instant::now();
                fallbacks += usize::from(is_fallback(&self.ask().await));
                took.push(begun.elapsed());
            }
            (took, fallbacks)
        };
        let clients = join_all((0..AT_ONCE).map(|_| client())).await;
        let fallbacks = clients.iter().map(|(_, fallbacks)| fallbacks).sum();
        let mut took: Vec<_> = clients.into_iter().flat_map(|(took, _)| took).collect();
        took.sort();
        (took, fallbacks)
    }

    /// Asks until the recommender is heard again; how long that took.
    async fn heard_again(&self) -> Duration {
        let since = Instant::now();
        while is_fallback(&self.ask().await) {
            assert!(since.elapsed() < PATIENCE, "the recommender is not heard");
            sleep(Duration::from_millis(10)).await;
        }
        since.elapsed()
    }

    /// Asks until it is no longer asked for; how long that took.
    async fn given_up(&self) -> Duration {
        let since = Instant::now();
        while self.scene.counter(STATE).await < OPEN {
            assert!(since.elapsed() < PATIENCE, "it is asked all the time");
            join_all((0..AT_ONCE).map(|_| self.ask())).await;
        }
        since.elapsed()
    }

    fn counters(&self) -> Counters {
        self.scene.stack.upstream().counters(Recommendations)
    }
}

fn is_fallback(reply: &Reply) -> bool {
    let degraded = reply.header("degraded").unwrap_or_default();
    degraded.split(", ").any(|name| name == FALLBACK)
}

#[tokio::test]
async fn the_page_goes_on_whatever_the_recommender_does() {
    let scene = Scene::start().await;
    let page = Page::of(&scene).await;
    page.heard_again().await;

    for trouble in [
        Trouble::Down,
        Trouble::Reset,
        Trouble::Hanging,
        Trouble::TenSecondsLate,
        Trouble::Refusing,
    ] {
        trouble.begin(&scene).await;
        let before = page.counters().requests;
        let opened = page.given_up().await;
        let (took, fallbacks) = page.ask_much().await;
        let requests = page.counters().requests - before;
        Trouble::end(&scene).await;
        let closed = page.heard_again().await;

        let last = took.len() - 1;
        println!(
            "{trouble:?}: given up after {opened:?}; {ASKED} asked, all answered, {fallbacks} by the fallback, p50 {:?}, \
             max {:?}; {requests} requests reached it; heard again after {closed:?}",
            took[last / 2],
            took[last]
        );
        assert_eq!(fallbacks, ASKED, "{trouble:?}");
        assert!(took[last] < LOOSE, "{trouble:?}: {:?}", took[last]);
        assert!(requests < ASKED as u64 / 2, "{trouble:?}: {requests}");
    }
}

#[tokio::test]
async fn retries_stay_within_their_budget_when_every_other_call_fails() {
    let scene = Scene::start_with(&[
        // It may not give up here: every call has to be made for the count.
        (
            "HOLDFAST__RECOMMENDATIONS__UPSTREAM__BREAKER__FAILURES_IN_ROW",
            "1000",
        ),
        (
            "HOLDFAST__RECOMMENDATIONS__UPSTREAM__BREAKER__FAILURE_RATIO",
            "1.0",
        ),
        (
            "HOLDFAST__RECOMMENDATIONS__UPSTREAM__BREAKER__SLOW_RATIO",
            "1.0",
        ),
        (
            "HOLDFAST__RECOMMENDATIONS__UPSTREAM__RETRY__BUDGET_PER_SECOND",
            "0.0",
        ),
    ])
    .await;
    let page = Page::of(&scene).await;
    page.heard_again().await;
    let before = page.counters();

    scene.stack.upstream().set(Recommendations, refusing(0.5));
    let (mut calls, mut fallbacks) = (0, 0);
    for _ in 0..3 {
        fallbacks += page.ask_much().await.1;
        calls += ASKED;
    }

    let after = page.counters();
    let requests = after.requests - before.requests;
    let factor = requests as f64 / calls as f64;
    println!(
        "{calls} calls, {requests} requests, {} refused: {factor:.3} times; {fallbacks} calls without an answer",
        after.refused - before.refused
    );
    assert!(factor <= 1.1 + 1e-9, "{factor}");
    assert!(after.refused - before.refused > 0);
    assert!(
        (fallbacks as u64) < after.refused - before.refused,
        "no retry has helped"
    );
}

#[tokio::test]
async fn fifty_callers_at_once_send_one_probe() {
    let scene = Scene::start_with(&[
        (
            "HOLDFAST__RECOMMENDATIONS__UPSTREAM__ATTEMPT_TIMEOUT",
            "1400ms",
        ),
        (
            "HOLDFAST__RECOMMENDATIONS__UPSTREAM__TOTAL_TIMEOUT",
            "1500ms",
        ),
        (
            "HOLDFAST__RECOMMENDATIONS__UPSTREAM__BREAKER__SLOW_AFTER",
            "1300ms",
        ),
        (
            "HOLDFAST__RECOMMENDATIONS__UPSTREAM__BULKHEAD__CALLS_MAX",
            "100",
        ),
    ])
    .await;
    let page = Page::of(&scene).await;
    scene.stack.upstream().set(Recommendations, refusing(1.0));
    page.given_up().await;
    scene.stack.upstream().set(
        Recommendations,
        Behaviour {
            hang: true,
            ..Behaviour::default()
        },
    );

    let before = page.counters().requests;
    let since = Instant::now();
    let probes = loop {
        join_all((0..50).map(|_| page.ask())).await;
        let probes = page.counters().requests - before;
        if probes > 0 {
            break probes;
        }
        assert!(since.elapsed() < PATIENCE, "nobody tries");
    };

    println!("50 callers at once: {probes} request reached it");
    assert_eq!(probes, 1);
}
