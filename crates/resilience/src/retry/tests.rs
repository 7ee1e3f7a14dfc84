use fastrand::Rng;
use tokio::time::{Instant, advance};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const SEEDS: u64 = 300;

fn generous() -> Config {
    Config {
        budget_per_second: 1_000.0,
        ..Config::default()
    }
}

#[tokio::test(start_paused = true)]
async fn there_are_two_further_attempts_with_pauses_of_any_length_up_to_a_limit() {
    let (retries, config) = (Retries::new(&generous()), generous());
    let mut longest = [Duration::ZERO; 2];
    let mut shortest = [Duration::MAX; 2];
    for seed in 0..SEEDS {
        fastrand::seed(seed);
        for made in [1, 2] {
            let pause = retries.pause(made, None, SECOND).unwrap();
            let at = usize::from(made == 2);
            (longest[at], shortest[at]) = (longest[at].max(pause), shortest[at].min(pause));
        }
        advance(SECOND).await;
    }

    assert_eq!(retries.pause(3, None, SECOND), None);
    for (at, most) in [(0, config.pause_min), (1, 2 * config.pause_min)] {
        assert!(longest[at] <= most && longest[at] > most / 10 * 9);
        assert!(shortest[at] < most / 10, "{shortest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_dependency_may_ask_for_a_longer_pause_but_none_goes_past_the_deadline() {
    let retries = Retries::new(&generous());

    let pause = retries.pause(1, Some(SECOND), 2 * SECOND).unwrap();

    assert!((SECOND..2 * SECOND).contains(&pause), "{pause:?}");
    assert_eq!(retries.pause(1, Some(2 * SECOND), 2 * SECOND), None);
    assert_eq!(retries.pause(1, Some(Duration::MAX), SECOND), None);
    assert_eq!(retries.pause(1, None, Duration::ZERO), None);
}

/// However calls and failures fall: never more retries than the budget says, and none is earned by one that was refused.
#[tokio::test(start_paused = true)]
async fn retries_never_exceed_the_budget() {
    for seed in 0..SEEDS {
        let mut rng = Rng::with_seed(seed);
        let config = Config {
            budget_ratio: f64::from(rng.u8(..30)) / 100.0,
            budget_per_second: f64::from(rng.u8(..20)) / 10.0,
            ..Config::default()
        };
        let retries = Retries::new(&config);
        let (begun, mut calls, mut made) = (Instant::now(), 0.0, 0.0);
        for _ in 0..2_000 {
            retries.begin();
            calls += 1.0;
            if rng.bool() && retries.pause(1, None, SECOND).is_some() {
                made += 1.0;
            }
            advance(Duration::from_millis(rng.u64(..20))).await;
        }

        let earned = begun.elapsed().as_secs_f64() * config.budget_per_second;
        let most = config.budget_per_second + calls * config.budget_ratio + earned;
        assert!(made <= most + 1e-6, "seed {seed}: {made} of {most}");
    }
}

/// Whenever one begins to count and whenever one stops: what was kept, and what was earned since.
#[tokio::test(start_paused = true)]
async fn no_stretch_of_time_holds_more_retries_than_it_may() {
    for seed in 0..SEEDS / 3 {
        let mut rng = Rng::with_seed(seed);
        let config = Config {
            budget_ratio: f64::from(rng.u8(..50)) / 100.0,
            budget_per_second: f64::from(rng.u8(..30)) / 10.0,
            ..Config::default()
        };
        let retries = Retries::new(&config);
        // For each call: the retries, and what may have been earned, before and with it.
        let (begun, mut made, mut earned) = (Instant::now(), 0.0, 0.0);
        let mut stretches = vec![(0.0, 0.0)];
        for _ in 0..400 {
            advance(Duration::from_millis(rng.u64(..60))).await;
            retries.begin();
            earned += config.budget_ratio;
            for _ in 0..rng.u8(..4) {
                made += f64::from(u8::from(retries.pause(1, None, SECOND).is_some()));
            }
            let by_time = begun.elapsed().as_secs_f64() * config.budget_per_second;
            stretches.push((made, earned + by_time));
        }

        let kept_max = retries.budget.kept_max();
        for (at, from) in stretches.iter().enumerate() {
            for to in &stretches[at..] {
                let most = kept_max + to.1 - from.1;
                assert!(to.0 - from.0 <= most + 1e-6, "seed {seed}: {from:?} {to:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_hour_does_not_pay_for_a_storm() {
    let retries = Retries::new(&Config::default());
    advance(3600 * SECOND).await;

    let made = (0..1_000).filter(|_| retries.pause(1, None, SECOND).is_some());

    assert_eq!(made.count(), 10);
}
