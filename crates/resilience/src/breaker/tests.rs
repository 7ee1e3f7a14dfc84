use std::{
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use tokio::time::{Instant, advance};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const QUICK: Duration = Duration::from_millis(1);
const SEEDS: u64 = 300;

fn breaker() -> Breaker {
    Breaker::new(&Config::default(), |_| {})
}

fn call(breaker: &Breaker, is_success: bool, took: Duration) -> bool {
    match breaker.enter() {
        Ok(permit) => {
            permit.record(is_success, took);
            true
        }
        Err(_) => false,
    }
}

/// Fails until it is open.
fn broken() -> Breaker {
    let breaker = breaker();
    while call(&breaker, false, QUICK) {}
    breaker
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
    let breaker = breaker();

    for _ in 0..4 {
        assert!(call(&breaker, false, QUICK));
    }
    assert!(call(&breaker, true, QUICK));
    for _ in 0..5 {
        assert!(call(&breaker, false, QUICK));
    }

    assert_eq!(breaker.state(), State::Open);
    assert!(!call(&breaker, true, QUICK));
}

#[tokio::test(start_paused = true)]
async fn every_other_call_failing_opens_it_once_there_were_enough() {
    let breaker = breaker();
    let mut calls = 0;

    while call(&breaker, calls % 2 == 1, QUICK) {
        calls += 1;
    }

    assert_eq!(calls, Config::default().calls_min);
}

#[tokio::test(start_paused = true)]
async fn failures_older_than_the_window_are_forgotten() {
    let breaker = breaker();
    for second in 0..200 {
        advance(SECOND).await;
        assert!(call(&breaker, second % 2 == 1, QUICK), "{second}");
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn answers_that_come_too_late_open_it() {
    let breaker = breaker();
    let mut calls = 0;

    while call(&breaker, true, SECOND) {
        calls += 1;
    }

    assert_eq!(calls, Config::default().calls_min);
}

#[tokio::test(start_paused = true)]
async fn a_good_probe_closes_it_and_a_bad_or_slow_one_opens_it_for_longer() {
    let breaker = broken();
    let mut waits = Vec::new();
    for took in [QUICK, SECOND, QUICK, SECOND, QUICK, SECOND, QUICK] {
        let wait = breaker.enter().err().unwrap().retry_after;
        waits.push(wait);
        advance(wait).await;
        assert!(call(&breaker, took == SECOND, took), "the probe");
        assert_eq!(breaker.state(), State::Open);
    }
    let longest = [1, 2, 4, 8, 16, 30, 30].map(Duration::from_secs);
    for (wait, longest) in waits.iter().zip(longest) {
        assert!((longest / 2..=longest).contains(wait), "{waits:?}");
    }

    advance(Config::default().open_max).await;
    assert!(call(&breaker, true, QUICK));

    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_cancelled_leaves_its_place_to_another() {
    let breaker = broken();
    advance(SECOND).await;
    let probe = breaker.enter().unwrap();
    assert!(probe.is_probe());
    assert!(breaker.enter().is_err());

    drop(probe);

    assert_eq!(breaker.state(), State::HalfOpen);
    assert!(breaker.enter().unwrap().is_probe());
}

#[tokio::test(start_paused = true)]
async fn a_call_from_before_it_opened_has_nothing_to_say_after() {
    let breaker = breaker();
    let early = breaker.enter().unwrap();
    while call(&breaker, false, QUICK) {}
    advance(SECOND).await;
    let probe = breaker.enter().unwrap();

    early.record(true, QUICK);

    assert_eq!(breaker.state(), State::HalfOpen);
    assert!(breaker.enter().is_err());
    drop(probe);
}

#[test]
fn of_many_threads_at_once_one_is_the_probe() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let config = Config {
        open_min: QUICK,
        open_max: QUICK,
        ..Config::default()
    };
    for round in 0..200 {
        let breaker = Breaker::new(&config, |_| {});
        while call(&breaker, false, QUICK) {}
        let until = Instant::now() + QUICK;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        let (start, admitted) = (Arc::new(Barrier::new(8)), Arc::new(AtomicUsize::new(0)));
        let ask = |_| {
            let (breaker, start) = (breaker.clone(), Arc::clone(&start));
            let admitted = Arc::clone(&admitted);
            std::thread::spawn(move || {
                start.wait();
                let permit = breaker.enter().ok();
                admitted.fetch_add(usize::from(permit.is_some()), Ordering::SeqCst);
                permit
            })
        };
        let threads: Vec<_> = (0..8).map(ask).collect();
        let permits: Vec<_> = threads.into_iter().map(|one| one.join().unwrap()).collect();

        assert_eq!(admitted.load(Ordering::SeqCst), 1, "round {round}");
        drop(permits);
    }
}

/// Whatever happens in whatever order: one probe at a time, no call while it is open, every change is told, and a
/// dependency that is well again is asked again soon.
#[tokio::test(start_paused = true)]
async fn no_order_of_events_breaks_it() {
    for seed in 0..SEEDS {
        let mut rng = Rng::with_seed(seed);
        fastrand::seed(seed);
        let told = Arc::new(Mutex::new(vec![State::Closed]));
        let telling = Arc::clone(&told);
        let breaker = Breaker::new(&Config::default(), move |state| {
            telling.lock().unwrap().push(state);
        });
        let mut under_way: Vec<Permit> = Vec::new();
        for _ in 0..400 {
            let before = breaker.state();
            match rng.u8(..6) {
                0..=2 => match breaker.enter() {
                    Ok(permit) => under_way.push(permit),
                    Err(_) => assert_ne!(before, State::Closed, "seed {seed}"),
                },
                3..=4 if !under_way.is_empty() => {
                    let took = if rng.u8(..8) == 0 { SECOND } else { QUICK };
                    let permit = under_way.swap_remove(rng.usize(..under_way.len()));
                    permit.record(rng.u8(..3) == 0, took);
                }
                3..=4 => {}
                _ if rng.bool() && !under_way.is_empty() => {
                    drop(under_way.swap_remove(rng.usize(..under_way.len())));
                }
                _ => advance(Duration::from_millis(rng.u64(..800))).await,
            }
            let current = breaker.0.lock().epoch();
            let probes = under_way
                .iter()
                .filter(|permit| permit.is_probe && permit.epoch == current)
                .count();
            assert!(probes <= 1, "seed {seed}: {probes} probes");
            assert_eq!(told.lock().unwrap().last(), Some(&breaker.state()));
        }
        under_way.clear();

        let healed = Instant::now();
        while !(call(&breaker, true, QUICK) && breaker.state() == State::Closed) {
            advance(20 * QUICK).await;
            let took = healed.elapsed();
            let latest = Config::default().open_max + 20 * QUICK;
            assert!(took <= latest, "seed {seed}: {took:?}");
        }
        let told = told.lock().unwrap();
        assert!(told.windows(2).all(|pair| pair[0] != pair[1]), "{told:?}");
    }
}
