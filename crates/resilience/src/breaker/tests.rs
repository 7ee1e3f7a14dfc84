use std::{
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use tokio::time::{Instant, advance};

use super::{window::Window, *};

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

/// Opens it, and waits until a good probe has closed it; how long that took at most.
async fn outage(breaker: &Breaker) -> Duration {
    while call(breaker, false, QUICK) {}
    let wait = breaker.enter().err().unwrap().retry_after;
    advance(wait).await;
    assert!(breaker.admits() && call(breaker, true, QUICK));
    assert_eq!(breaker.state(), State::Closed);
    wait
}

#[tokio::test(start_paused = true)]
async fn one_that_closes_and_opens_again_and_again_stays_open_ever_longer() {
    let breaker = breaker();

    let mut waits = Vec::new();
    for closed_for in [0, 1, 1, 1, 1, 1, 1, 301] {
        advance(Duration::from_secs(closed_for)).await;
        waits.push(outage(&breaker).await);
    }

    let longest = [1, 2, 4, 8, 16, 30, 30, 1].map(Duration::from_secs);
    for (wait, longest) in waits.iter().zip(longest) {
        assert!((longest / 2..=longest).contains(wait), "{waits:?}");
    }
    assert_eq!(State::ALL.map(|to| breaker.changes(to)), [8, 8, 8]);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_closed_from_outside_asks_no_probe_and_has_forgotten_the_failures() {
    let breaker = broken();
    assert!(!breaker.admits());

    breaker.close();

    assert_eq!(breaker.state(), State::Closed);
    for _ in 0..4 {
        assert!(!breaker.enter().unwrap().is_probe());
        assert!(call(&breaker, false, QUICK));
    }
    assert!(breaker.admits());
}

/// A call counts for as long as the slot of its end is one of the last ten.
#[tokio::test(start_paused = true)]
async fn the_window_counts_what_a_list_of_all_calls_does() {
    for seed in 0..SEEDS {
        let mut rng = Rng::with_seed(seed);
        let (mut window, born) = (Window::new(SECOND), Instant::now());
        let mut calls = Vec::new();
        for _ in 0..300 {
            // Mostly close together, at times farther apart than the window is long.
            let most_ms = [10, 100, 1_500][rng.usize(..3)];
            advance(Duration::from_millis(rng.u64(..most_ms))).await;
            let slot = born.elapsed().as_millis() / 100;
            let (is_success, is_slow) = (rng.bool(), rng.u8(..4) == 0);
            calls.push((slot, is_success, is_slow));

            let tally = window.add(is_success, is_slow);

            let kept = calls.iter().filter(|(of, ..)| of + 10 > slot);
            let count = |wanted: fn(&(u128, bool, bool)) -> bool| {
                u32::try_from(kept.clone().filter(|call| wanted(call)).count()).unwrap()
            };
            let expected = [count(|_| true), count(|call| !call.1), count(|call| call.2)];
            let found = [tally.calls, tally.failures, tally.slow];
            assert_eq!(found, expected, "seed {seed}");
        }
    }
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
